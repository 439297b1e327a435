"""P1, P8, fault 3: the disk is full under the real process, which samples and uploads on.

The buffer lies on a small file system of its own and holds a backlog. While Energinet's answers
confirm nothing, the disk fills up: what is read is kept in memory. Then Energinet confirms, with
the disk still full. Then there is room again. In the end each boundary of each meter was stored
and delivered.
"""

from __future__ import annotations

import asyncio
import re
import time
from decimal import Decimal
from pathlib import Path

from gateway.buffer.reads import ReadOnlyStore
from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.clock import DAY, SystemClock
from gateway.energinet.standin import Scripted
from gateway.metering.reading import Commit, Reading, Series, SeriesKey
from tests.disks import fill_up, small_ext4
from tests.proofs.test_kills import held
from tests.service import PATIENCE, Service, Site, stored, until

METERS = ("main", "lift", "roof", "cooling", "heat-pump", "garage")
EVERY = 5_000
BACKLOG = 21_000
"""Readings, more than one body."""


async def with_backlog(path: Path) -> None:
    """Make the buffer of these meters, with readings of some days ago."""
    clock = SystemClock(assume_synchronised=True)
    store = Store(BufferSettings(str(path)), clock)
    await store.open()
    keys = [SeriesKey("", name) for name in METERS]
    what = "active_energy_import_total", "counter", EVERY, "basement"
    await store.declare([Series(key, key.meter_id, *what) for key in keys])
    first = (clock.now() - 9 * DAY) // EVERY * EVERY
    for at in range(first, first + BACKLOG // len(METERS) * EVERY, 100 * EVERY):
        stamps = range(at, at + 100 * EVERY, EVERY)
        values = [Reading(key, stamp, Decimal(stamp % 7)) for stamp in stamps for key in keys]
        await store.append(Commit(tuple(values)))
    await store.close()


async def sampled_late(buffer: Path) -> dict[str, set[int]]:
    """Boundaries at which a meter did not answer in time."""
    store = ReadOnlyStore(buffer)
    await store.open()
    found: dict[str, set[int]] = {}
    for gap in await store.gaps():
        assert gap.reason != "buffer_full"
        stamps = range(gap.first, gap.last + 1, EVERY)
        found.setdefault(gap.key.meter_id, set()).update(stamps)
    await store.close()
    return found


def written(service: Service) -> int:
    """How many readings came out of memory."""
    lines = service.lines("buffer.recovered")
    return sum(int(found[1]) for line in lines if (found := re.search(r" written=(\d+)", line)))


async def test_with_a_full_disk_meters_are_read_and_values_sent_and_none_is_lost(
    tmp_path: Path, short: bool
) -> None:
    with small_ext4(tmp_path) as disk:
        site = Site(tmp_path, window=2, zone="UTC")
        site.buffer = str(disk / "readings.db")
        await site.open(lambda _: Scripted(body=b"<html>"))
        for name in METERS:
            await site.meter(name)
        await with_backlog(disk / "readings.db")
        began = SystemClock(assume_synchronised=True).now()
        service = await Service.start(site.write())
        service.buffer = disk / "readings.db"
        try:
            await service.stored(BACKLOG + len(METERS))
            filler = fill_up(disk)
            await service.says("buffer.full")
            await asyncio.sleep(1.2 * EVERY / 1000 if short else 60)  # that long in memory

            asked = len(site.standin.requests)
            site.standin.script = None
            await until(lambda: len(site.standin.accepted) > BACKLOG)
            await asyncio.sleep(0 if short else 60)
            while (confirmed := (await service.status())["buffer"]["confirmed"]) < BACKLOG:
                await asyncio.sleep(0.1)
            while_full = len(site.standin.requests) - asked

            filler.unlink()
            freed = time.monotonic()
            await service.says("buffer.recovered", len(service.lines("buffer.full")))
            resumed = time.monotonic() - freed
            counts = (await service.status())["buffer"]
            assert counts["balanced"]
            assert counts["dropped"] == {}
            rows = await stored(service.buffer)
            gaps = await sampled_late(service.buffer)
            await until(lambda: len(site.standin.accepted) >= len(rows))
            assert await service.stop() < PATIENCE
        finally:
            service.kill()
            await site.close()
        # What was confirmed may have made room for what was not.
        every = {(row.key.meter_id, row.stamp) for row in rows} | held(site).keys()
        new = {(name, at) for name, at in every if at > began}
        stamps = {name: {at for one, at in new if one == name} for name in METERS}
        for name, some in stamps.items():
            wanted = set(range(min(some), max(some) + 1, EVERY))
            # What this machine was too busy to sample in time is told apart.
            assert wanted - some <= gaps.get(name, set()), f"{name} lacks {sorted(wanted - some)}"
        assert {line.split(" ", 1)[0] for line in service.log.splitlines()} <= {
            "level=info", "level=warning", "level=error",
        }  # fmt: skip
        in_memory = written(service)
        print(
            f"{len(new)} readings of {len(METERS)} meters, {in_memory} of them kept in memory,"
            f" lost 0; {while_full} requests with the disk full, {confirmed} values confirmed by"
            f" them; with room again stored after {resumed:.1f} s"
        )
        assert in_memory
        assert while_full > BACKLOG / 20_000
        assert site.standin.violations == []
