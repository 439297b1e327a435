"""A long stop comes to the ledger as one run of gaps."""

from __future__ import annotations

from pathlib import Path

from gateway.buffer.chunks import BLOCK
from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.clock import HOUR
from gateway.metering.reading import Commit, Gap
from tests.buffer.made import START, StillClock, filled, reading, series, store_at


async def test_a_run_of_gaps_is_one_line_and_is_counted_whole(tmp_path: Path) -> None:
    store = Store(BufferSettings(str(tmp_path / "readings.db")), StillClock())
    await store.open()
    await store.declare([series(0)])
    key = series(0).key
    run = Gap(key, START + HOUR, "stopped", START + 900 * HOUR, 900)
    await store.append(Commit(gaps=(Gap(key, START, "stopped"), run)))
    await store.append(Commit(gaps=(Gap(key, START + 901 * HOUR, "stopped"),)))
    (line,) = await store.gaps()
    assert (line.first, line.last, line.count) == (START, START + 901 * HOUR, 902)
    await store.close()


async def test_gaps_after_a_clock_that_was_a_year_ahead_are_in_the_ledger_in_runs(
    tmp_path: Path,
) -> None:
    """A retry of their commit tells nothing twice, before and after a restart."""
    store = await filled(store_at(tmp_path / "readings.db"), 1, range(3))
    key = series(0).key

    async def missing(*hours: int) -> None:
        gaps = tuple(Gap(key, START + hour * HOUR, "timeout") for hour in hours)
        await store.append(Commit(gaps=gaps))

    await store.append(Commit((reading(0, 8000),)))
    await missing(8001)  # so far ahead the clock was
    await missing(3, 4)
    await store.append(Commit((reading(0, 5),)))
    for _ in range(2):
        await missing(6)
        await missing(6, 7)
        await store.close()
        store = store_at(tmp_path / "readings.db")
        await store.open()
    await missing(4, 8)
    found = [((line.first - START) // HOUR, line.count) for line in await store.gaps()]
    assert sorted(found) == [(3, 2), (6, 3), (8001, 1)]
    await store.close()


async def test_a_stamp_that_is_stored_already_is_found_among_those_behind_a_clock_that_was_ahead(
    tmp_path: Path,
) -> None:
    store = await filled(store_at(tmp_path / "readings.db"), 1, [9000])
    for first in range(0, BLOCK, 1024):
        some = [reading(0, moment) for moment in range(first, first + 1024)]
        await store.append(Commit(tuple(some)))
    for moment in (5, BLOCK - 2, BLOCK):
        done = await store.append(Commit((reading(0, moment, "1"),)))
        assert len(done.repeated) == (moment < BLOCK)
    counts = await store.counts()
    assert counts.dropped == {"repeated": 2}
    await store.close()
