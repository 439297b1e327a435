"""A token is in no log, error, trace, file or argument, and nobody can reach the service."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.control import ControlServer, RefusedByService, ask
from gateway.energinet.settings import Secret
from gateway.energinet.standin import Request, Scripted
from gateway.errors import GatewayError, TryLater
from tests.cli.world import call
from tests.service import PATIENCE, TOKEN, Service, Site, until
from tests.service.conftest import Start


def echo(request: Request) -> Scripted | None:
    """Answers that hold the token, as a proxy's page of errors may."""
    said = request.headers["authorization"].encode()
    answers = [
        Scripted(200, body=b"<pre>Authorization: " + said + b"</pre>"),
        Scripted(500, {"X-Seen": said.decode()}, body=said),
        Scripted(raw=b"HTTP/1.1 200 " + said + b"\r\nX: " + said + b"\r\n\r\n" + said),
        Scripted(raw=said + b" what?\r\n\r\n"),
        Scripted(401, {"WWW-Authenticate": said.decode()}, body=said),
    ]
    return answers[request.number - 1] if request.number <= len(answers) else None


async def test_a_token_is_in_no_line_file_argument_or_trace_whatever_the_server_answers(
    site: Site, start: Start
) -> None:
    site.window, site.standin.window, site.standin.script = 1, 1_000, echo
    site.more = "log: {level: debug}"
    await site.meter("main")
    config = site.write()
    service = await start(config, python=("-X", "faulthandler"))
    await until(lambda: service.lines("upload.token"))
    shown = {"status": json.dumps(await service.status()).encode()}
    for name in ("cmdline", "environ"):
        shown[name] = Path(f"/proc/{service.process.pid}/{name}").read_bytes()
    service.process.send_signal(6)  # and a traceback of all that runs
    await service.process.wait()
    assert "File " in service.log
    for words in ("check", "send --dry-run", "events"):
        name, *more = words.split()
        done = await asyncio.to_thread(call, name, "--config", str(config), *more)
        shown[words] = (done.stdout + done.stderr).encode()
    for path in site.folder.rglob("*"):
        if path.is_file() and path.name != "basement.token":
            shown[path.name] = path.read_bytes()
    assert "readings.db" in shown
    assert len(site.standin.requests) >= 5
    assert [name for name, data in shown.items() if TOKEN.encode() in data] == []


LEAKS = """
from gateway.energinet.client import Client
async def leak(self, data, token, *, deadline):
    raise RuntimeError(f"illegal header Bearer {token.reveal()}")
Client.post = leak
"""


async def test_an_error_that_holds_the_token_is_told_without_it(site: Site, start: Start) -> None:
    await site.meter("main")
    config = site.write()
    service = await start(config, patch=LEAKS)
    assert "illegal header Bearer ***" in await service.says("task.failed")
    await service.stop()  # which has the event kept
    kept = await asyncio.to_thread(call, "events", "--config", str(config))
    assert "illegal header Bearer ***" in kept.stdout
    code = f"{LEAKS}\nfrom gateway.cli.main import main; main()"
    send = [sys.executable, "-c", code, "send", "--now", "--config", str(config)]
    end = time.monotonic() + PATIENCE
    while True:
        sent = await asyncio.to_thread(subprocess.run, send, capture_output=True, text=True)
        if sent.returncode != TryLater.exit_code:
            break
        assert time.monotonic() < end
        await asyncio.sleep(0.5)
    assert "Traceback" in sent.stderr
    assert "illegal header Bearer ***" in sent.stderr
    shown = [service.log, kept.stdout, kept.stderr, sent.stdout, sent.stderr]
    shown += [(site.folder / "readings.db").read_bytes().decode("latin-1")]
    assert [text for text in shown if TOKEN in text] == []


@pytest.mark.parametrize("kind", [GatewayError, RuntimeError])
async def test_what_the_service_answers_a_command_with_has_no_secret(
    tmp_path: Path, kind: type[Exception], expected_events: Callable[..., None]
) -> None:
    expected_events("task.failed")
    secret = Secret(TOKEN)

    async def fail(_: object) -> None:
        raise kind(f"illegal header Bearer {secret.reveal()}")

    control = ControlServer(tmp_path / "socket", {"fail": fail}, {})
    await control.open()
    try:
        with pytest.raises(RefusedByService, match=r"Bearer \*\*\*"):
            await asyncio.to_thread(ask, tmp_path / "socket", "fail")
    finally:
        await control.close()


async def test_the_service_listens_on_no_port_and_its_socket_is_for_its_group(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    service = await start(site.write())
    await service.stored(1)
    assert listening(service) == []
    [control] = [path for path in site.folder.iterdir() if path.is_socket()]
    assert control.stat().st_mode & 0o777 == 0o660


def listening(service: Service) -> list[str]:
    """The addresses at which the process takes connections or datagrams."""
    folder = Path(f"/proc/{service.process.pid}")
    links = [os.readlink(link) for link in (folder / "fd").iterdir()]
    found = []
    for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in (folder / "net" / table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == state and f"socket:[{words[9]}]" in links:
                found.append(f"{table} {words[1]}")
    return found
