"""A token is in no log, error, trace, file or argument, and nobody can reach the service."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from gateway.energinet.standin import Request, Scripted
from tests.cli.world import call
from tests.service import TOKEN, Service, Site, until
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
