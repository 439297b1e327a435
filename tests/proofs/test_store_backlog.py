"""P9 and P11: a year of 20 meters at 15 minutes waits, and memory stays flat while it drains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from gateway.clock import MINUTE
from gateway.metering.reading import Commit, Reading
from tests.buffer.made import START, reading, series, store_at

ROOT = Path(__file__).parents[2]
METERS = 20
BODY = 14_400

DRAIN = """
import asyncio, json, sys, time
from pathlib import Path
from gateway.metering.reading import Offer, Settlement
from tests.buffer.made import store_at

def peak():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000

async def main():
    store = store_at(Path(sys.argv[1]), keep=1 << 60)
    await store.open()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = peak()
    requests, sent, slowest, newest_first = 0, 0, 0.0, True
    while await store.waiting("basement"):
        taken, stamps, keys = {}, [], set()
        room = int(sys.argv[2])
        def offer(waiting):
            nonlocal room
            if not room:
                return Offer.FULL
            room -= 1
            taken.setdefault(waiting.key, []).append(waiting.id)
            if len(stamps) < 20:
                stamps.append(waiting.stamp)
            return Offer.TAKEN
        start = time.monotonic()
        await store.collect("basement", offer)
        slowest = max(slowest, time.monotonic() - start)
        newest_first &= min(stamps) >= stamps[-1]
        settled = [Settlement(key, "confirmed", tuple(ids)) for key, ids in taken.items()]
        sent += sum(map(len, taken.values()))
        await store.settle("basement", settled, b"slot")
        requests += 1
    counts = await store.counts()
    print(json.dumps({
        "requests": requests, "sent": sent, "confirmed": counts.confirmed,
        "balanced": counts == await store.check_counts(), "newest_first": newest_first,
        "memory_mb": before, "growth_mb": peak() - before, "slowest_s": slowest,
    }))
    await store.close()

asyncio.run(main())
"""


async def test_a_year_of_backlog_drains_in_flat_memory(tmp_path: Path, short: bool) -> None:
    moments = 35_040 // (4 if short else 1)
    path = tmp_path / "readings.db"
    store = store_at(path)
    await store.open()
    await store.declare([series(nth) for nth in range(METERS)])
    for first in range(0, moments, 48):
        some: list[Reading] = []
        for moment in range(first, min(first + 48, moments)):
            for nth in range(METERS):
                one = reading(nth, moment)
                some.append(Reading(one.key, START + moment * 15 * MINUTE, one.value, one.raw))
        await store.append(Commit(tuple(some)))
    await store.close()
    answer = subprocess.run(
        [sys.executable, "-c", DRAIN, path, str(BODY)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    found = json.loads(answer.stdout)
    print(found)
    total = moments * METERS
    assert found["sent"] == found["confirmed"] == total
    assert found["requests"] == -(-total // BODY)
    assert found["balanced"]
    assert found["growth_mb"] <= 10
