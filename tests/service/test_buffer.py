"""A buffer that is damaged, empty or deleted is set aside, and the run goes on by itself."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.buffer.reads import ReadOnlyStore
from tests.service import Service, Site

Start = Callable[..., Awaitable[Service]]


def gone(buffer: Path) -> None:
    for path in buffer.parent.glob("readings.db*"):
        if path.suffix in (".db", ".db-wal", ".db-shm"):
            path.unlink()


def empty(buffer: Path) -> None:
    os.truncate(buffer, 0)


def garbage(buffer: Path) -> None:
    buffer.write_bytes(os.urandom(30_000))


@pytest.mark.parametrize("harm", [gone, empty, garbage])
async def test_a_buffer_harmed_between_two_runs_is_set_aside_and_no_request_is_early(
    site: Site, start: Start, harm: Callable[[Path], None]
) -> None:
    await site.meter("main")
    config = site.write()
    service = await start(config)
    await service.stored(1)
    await service.stop()
    sent = len(site.standin.received.get("main", {}))
    harm(service.buffer)
    again = await start(config)
    await again.says("buffer.set_aside")
    await again.stored(1)
    await again.stop()
    assert sent <= len(site.standin.received.get("main", {}))
    assert site.standin.violations == []
    assert again.levels() <= {"info", "error"}
    assert len(again.lines("buffer.set_aside")) == len(again.log.split("level=error")) - 1


async def test_a_buffer_deleted_while_it_runs_comes_back_with_what_was_in_it(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    service = await start(site.write())
    before = {row.stamp: row.value for row in await service.stored(1)}
    gone(service.buffer)
    await service.says("buffer.set_aside")
    rows = await service.stored(len(before) + 1)
    assert before.items() <= {row.stamp: row.value for row in rows}.items()
    await service.stop()
    reader = ReadOnlyStore(service.buffer)
    await reader.open()
    said = [entry.event for entry in await reader.events(1000, ("error", "warning", "info"))]
    await reader.close()
    assert "buffer.set_aside" in said
    assert said[-1] == "gateway.stopped"
    assert site.standin.violations == []
