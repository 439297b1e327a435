"""A long stop comes to the ledger as one run of gaps."""

from __future__ import annotations

from pathlib import Path

from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.clock import HOUR
from gateway.metering.reading import Commit, Gap
from tests.buffer.made import START, StillClock, series


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
