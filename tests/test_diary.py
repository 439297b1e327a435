"""What the log says is kept in the buffer, and outlives the process."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gateway.buffer import events
from gateway.buffer.reads import ReadOnlyStore
from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.clock import HOUR
from gateway.diary import EVERY, MOST_WAITING, Diary
from gateway.errors import StoreFull
from gateway.logbook import LOGGER, Entry, log
from tests.cli.world import call, site
from tests.clocks import FakeClock

START = 1_769_900_400_000  # 2026-01-31T23:00Z
ALL = ("error", "warning", "info")
METER = (
    "{name: main, bus: plant, unit: 1, profile: abb-b23,"
    ' send: [{meterID: "1", quantity: active_energy_import_total}]}'
)
Expected = Callable[..., None]


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger=LOGGER.name)


class Shelf:
    """A buffer that may be full."""

    def __init__(self) -> None:
        self.full = False
        self.broken = False
        self.kept: list[Entry] = []

    async def note(self, entries: Sequence[Entry]) -> None:
        if self.full:
            raise StoreFull("the disk is full")
        if self.broken:
            raise RuntimeError("a mistake of ours")
        self.kept += entries


async def test_what_was_said_is_kept_soon_and_each_line_once() -> None:
    shelf, clock = Shelf(), FakeClock(START)
    diary = Diary(shelf, clock)
    with diary.open():
        running = asyncio.create_task(diary.run())
        log("bus.up", bus="riser", link="/dev/ttyUSB0")
        await clock.pass_(EVERY + 1)
        log("gateway.stopped", reason="signal")
        await diary.write()
        running.cancel()
    log("bus.up", bus="other", link="x")
    await diary.write()
    assert [entry.event for entry in shelf.kept] == ["bus.up", "gateway.stopped"]
    first = shelf.kept[0]
    assert (first.at, first.sure, first.level) == (START, True, "info")
    assert first.fields["bus"] == "riser"


async def test_an_error_is_kept_at_once_from_any_thread_and_many_in_one_commit_a_second(
    expected_events: Expected,
) -> None:
    expected_events("buffer.dropped")
    shelf, clock = Shelf(), FakeClock(START)
    diary = Diary(shelf, clock)
    with diary.open():
        running = asyncio.create_task(diary.run())
        await clock.settle()
        log("bus.up", bus="riser", link="/dev/ttyUSB0")
        await clock.settle()
        assert shelf.kept == []
        await asyncio.to_thread(log, "buffer.dropped", reason="max_size", count=1)
        await clock.settle()
        assert [entry.event for entry in shelf.kept] == ["bus.up", "buffer.dropped"]
        for nth in range(10):
            log("buffer.dropped", reason="memory", count=nth)
        await clock.settle()
        assert len(shelf.kept) == 2
        await clock.pass_(1)
        assert len(shelf.kept) > 2
        running.cancel()


async def test_summaries_and_single_requests_are_not_kept() -> None:
    shelf = Shelf()
    diary = Diary(shelf, FakeClock(START))
    with diary.open():
        log("gateway.summary", read=1)
        log("upload.request", sender="basement", bytes=1)
        await diary.write()
    assert shelf.kept == []


async def test_while_the_buffer_takes_nothing_the_newest_wait_in_their_order() -> None:
    shelf = Shelf()
    diary = Diary(shelf, FakeClock(START))
    shelf.full = True
    with diary.open():
        for nth in range(MOST_WAITING):
            log("gateway.stopped", reason=str(nth))
        await diary.write()
        log("gateway.stopped", reason="the last")
        await diary.write()
        shelf.full = False
        await diary.write()
    said = [entry.fields["reason"] for entry in shelf.kept]
    assert said == [*map(str, range(1, MOST_WAITING)), "the last"]


async def test_an_error_that_nobody_expected_is_said_and_does_not_end_it(
    expected_events: Expected,
) -> None:
    expected_events("task.failed")
    shelf = Shelf()
    shelf.broken = True
    diary = Diary(shelf, FakeClock(START))
    with diary.open():
        log("bus.up", bus="riser")
        await diary.write()
        shelf.broken = False
        await diary.write()
    assert [entry.event for entry in shelf.kept] == ["task.failed"]


async def test_a_line_of_before_the_clock_was_set_has_the_right_time() -> None:
    shelf, clock = Shelf(), FakeClock(START, synchronised=False)
    diary = Diary(shelf, clock)
    with diary.open():
        log("bus.up", bus="riser")
        await clock.pass_(5)
        clock.step(400 * 24 * HOUR)
        clock.is_synchronised = True
        await diary.write()
    assert (shelf.kept[0].at, shelf.kept[0].sure) == (START + 400 * 24 * HOUR, True)


async def test_text_from_outside_is_kept_clean() -> None:
    shelf = Shelf()
    diary = Diary(shelf, FakeClock(START))
    with diary.open():
        log("gateway.stopped", reason="x\nlevel=error event=forged " + "y" * 500)
        await diary.write()
    text = str(shelf.kept[0].fields["reason"])
    assert "\n" not in text
    assert len(text) == 120


async def test_the_oldest_give_way_and_an_altered_one_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST", 10)
    store = Store(BufferSettings(str(tmp_path / "readings.db")), FakeClock(START))
    await store.open()
    for nth in range(25):
        level = "warning" if nth % 2 else "info"
        await store.note([Entry(START + nth, nth > 20, level, "bus.up", {"bus": nth})])
    assert [e.fields["bus"] for e in await store.events(100, ALL)] == list(range(15, 25))
    assert [e.fields["bus"] for e in await store.events(2, ("warning",))] == [21, 23]
    await store._call(lambda db, _: db.execute("UPDATE events SET fields = '{}' WHERE id = 25"))
    shown = await store.events(2, ALL)
    assert [(e.fields["bus"], e.sure) for e in shown] == [(22, True), (23, True)]
    await store.close()


async def test_a_damaged_file_gives_its_events_to_the_next_one(
    tmp_path: Path, expected_events: Expected
) -> None:
    expected_events("buffer.set_aside")
    path = tmp_path / "readings.db"
    store = Store(BufferSettings(str(path)), FakeClock(START))
    await store.open()
    entries = [Entry(START, True, "info", "bus.up", {"bus": nth}) for nth in range(50)]
    await store.note(entries)
    await store.close()
    data = bytearray(path.read_bytes())
    data[:16] = b"no header at all"
    path.write_bytes(data)
    store = Store(BufferSettings(str(path)), FakeClock(START))
    assert (await store.open()).set_aside is not None
    assert await store.events(100, ALL) == entries
    await store.close()


async def test_a_command_shows_them_for_people_and_for_scripts(tmp_path: Path) -> None:
    config = site(tmp_path, "http://127.0.0.1:1/apiImport/data", (METER,))
    assert (call("events", "--config", config).stdout) == ""
    store = Store(BufferSettings(str(tmp_path / "readings.db")), FakeClock(START))
    await store.open()
    await store.note([Entry(START, False, "info", "bus.up", {"bus": "riser"})])
    await store.note([Entry(START + 1000, True, "warning", "bus.down", {"bus": "riser"})])
    await store.close()
    done = call("events", "--config", config)
    assert done.stdout.splitlines() == [
        "~2026-01-31T23:00:00Z level=info event=bus.up bus=riser",
        "2026-01-31T23:00:01Z level=warning event=bus.down bus=riser",
    ]
    done = call("events", "--level", "warning", "--json", "--config", config)
    assert json.loads(done.stdout) == [
        {
            "time": "2026-01-31T23:00:01Z",
            "clock": "synchronised",
            "level": "warning",
            "event": "bus.down",
            "fields": {"bus": "riser"},
        }
    ]


async def test_the_read_only_store_has_them_too(tmp_path: Path) -> None:
    path = tmp_path / "readings.db"
    store = Store(BufferSettings(str(path)), FakeClock(START))
    await store.open()
    await store.note([Entry(START, True, "info", "bus.up", {})])
    reader = ReadOnlyStore(path)
    await reader.open()
    assert len(await reader.events(10, ALL)) == 1
    await reader.close()
    await store.close()


async def test_what_is_being_kept_when_the_process_ends_is_kept() -> None:
    """As an error just before a stop: the commit waits for its turn in the buffer's thread."""
    shelf, clock = Shelf(), FakeClock(START)
    turn = asyncio.Event()
    note = shelf.note

    async def in_its_turn(entries: Sequence[Entry]) -> None:
        await turn.wait()
        await note(entries)

    shelf.note = in_its_turn  # type: ignore[method-assign]
    diary = Diary(shelf, clock)
    with diary.open():
        running = asyncio.create_task(diary.run())
        log("bus.up", bus="riser", link="x")
        await clock.pass_(EVERY + 1)
        running.cancel()
        asyncio.get_running_loop().call_later(0.05, turn.set)
        with pytest.raises(asyncio.CancelledError):
            await running
    assert [entry.event for entry in shelf.kept] == ["bus.up"]
