"""Commands ask a running service over a real Unix socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.control import ControlServer, NotRunning, RefusedByService, ask
from gateway.errors import TryLater


async def echo(request: Mapping[str, Any]) -> Any:
    return {"meter": request["meter"]}


async def not_yet(_: Mapping[str, Any]) -> Any:
    raise TryLater("the next request may go in 4 min", hint="wait")


async def broken(_: Mapping[str, Any]) -> Any:
    raise ZeroDivisionError("oops")


VERBS = {"echo": echo, "not_yet": not_yet, "broken": broken}


async def test_an_answer_comes_back_as_it_was_given(tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "db.sock", VERBS)
    await server.open()
    answer = await asyncio.to_thread(ask, tmp_path / "db.sock", "echo", meter="main supply")
    assert answer == {"meter": "main supply"}
    await server.close()
    with pytest.raises(NotRunning):
        ask(tmp_path / "db.sock", "echo", meter="x")


async def test_an_error_keeps_its_message_hint_and_exit_code(tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "db.sock", VERBS)
    await server.open()
    with pytest.raises(RefusedByService, match="in 4 min") as refused:
        await asyncio.to_thread(ask, tmp_path / "db.sock", "not_yet")
    assert (refused.value.exit_code, refused.value.hint) == (75, "wait")
    await server.close()


async def test_an_unexpected_error_ends_the_request_and_not_the_service(
    tmp_path: Path, expected_events: Any
) -> None:
    expected_events("task.failed")
    server = ControlServer(tmp_path / "db.sock", VERBS)
    await server.open()
    with pytest.raises(RefusedByService, match="oops"):
        await asyncio.to_thread(ask, tmp_path / "db.sock", "broken")
    assert await asyncio.to_thread(ask, tmp_path / "db.sock", "echo", meter=1) == {"meter": 1}
    await server.close()


@pytest.mark.parametrize("line", [b"not json\n", b"[]\n", b'{"do": "unknown"}\n', b"{}\n", b"\n"])
async def test_a_line_that_is_no_request_gets_an_error(tmp_path: Path, line: bytes) -> None:
    server = ControlServer(tmp_path / "db.sock", VERBS)
    await server.open()
    reader, writer = await asyncio.open_unix_connection(tmp_path / "db.sock")
    writer.write(line)
    assert b'"error"' in await reader.readline()
    writer.close()
    await server.close()


async def test_a_socket_left_by_a_killed_service_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "db.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with pytest.raises(NotRunning):
        ask(path, "echo")
    server = ControlServer(path, VERBS)
    await server.open()
    assert path.stat().st_mode & 0o777 == 0o660
    assert await asyncio.to_thread(ask, path, "echo", meter=2) == {"meter": 2}
    await server.close()


async def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / ("deeper" * 10)
    folder.mkdir(parents=True)
    server = ControlServer(folder / "readings.db.sock", VERBS)
    await server.open()
    answer = await asyncio.to_thread(ask, folder / "readings.db.sock", "echo", meter=3)
    assert answer == {"meter": 3}
    await server.close()
