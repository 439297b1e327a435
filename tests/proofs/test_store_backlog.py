"""P5, P9 and P11: a year of 20 meters at 15 minutes waits, and goes in as few requests as can be.

The real uploader, client and buffer in a process of their own send it to the stand-in, while each
meter gets a new value after every request. Memory stays flat, and each body has the newest of all.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

from attrs import frozen

from gateway.clock import DAY, MINUTE, SystemClock
from gateway.energinet.batch import stamp_text
from gateway.energinet.limits import MAX_BODY
from gateway.energinet.standin import Request, Scripted, StandIn
from gateway.metering.reading import Commit, Reading
from tests.buffer.made import reading, series, store_at

ROOT = Path(__file__).parents[2]
METERS = 20
EVERY = 15 * MINUTE
WINDOW = 300
LAST = 30_000
"""So many values are left when no new ones come any more: two bodies."""

DRAIN = """
import asyncio, json, random, sys
from pathlib import Path
from zoneinfo import ZoneInfo
from gateway.clock import SystemClock
from gateway.energinet.client import Client
from gateway.energinet.settings import EnerginetSettings, Secret, SenderSettings
from gateway.energinet.slots import Slots
from gateway.energinet.uploader import Uploader
from tests.buffer.made import store_at
from tests.proofs.test_store_backlog import EVERY, LAST, WINDOW, moment_of

path, url, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def peak():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000

async def main():
    clock = SystemClock(assume_synchronised=True)
    store = store_at(path, clock, keep=1 << 60)
    await store.open()
    sender = SenderSettings("basement", "", lambda: Secret("token"))
    settings = EnerginetSettings(
        (sender,), url, timestamps="utc", linger=0, request_interval=WINDOW
    )
    client = Client(settings)

    class Line:
        moment, first = last, 0
        async def post(self, data, token, *, deadline):
            if self.moment > last and not self.first:
                self.first = peak()  # with one body sent and settled, and the next one made
            response = await client.post(data, token, deadline=60)
            if await store.waiting("basement") > LAST:
                self.moment += EVERY
                await store.append(moment_of(self.moment))
            return response

    zone, line = ZoneInfo("UTC"), Line()
    slots = Slots(store, settings, clock)
    uploader = Uploader(sender, settings, store, line, clock, zone, random.Random(1), slots)
    uploader._deadline = 60_000  # a slow machine may take longer than so short a slot
    # What is imported late or kept from the first look on is no growth.
    few = EnerginetSettings((sender,), url, timestamps="utc", max_payload=16_000)
    looks = Uploader(sender, few, store, line, clock, zone, random.Random(1), slots)
    await looks.once(dry_run=True)
    await client.post(b"[]", Secret("other"), deadline=60)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = peak()
    task = asyncio.create_task(uploader.run())
    while await store.waiting("basement"):
        await asyncio.sleep(0.05)
    await uploader.stop(60)
    counts = await store.counts()
    print(json.dumps({
        "confirmed": counts.confirmed, "stored": counts.stored,
        "balanced": counts == await store.check_counts(),
        "memory_mb": before, "body_mb": line.first - before, "growth_mb": peak() - line.first,
    }))
    await task
    await store.close()

asyncio.run(main())
"""


def moment_of(at: int) -> Commit:
    """A value of each meter."""
    nth = at // EVERY % 65_536
    some = [reading(meter, nth) for meter in range(METERS)]
    return Commit(tuple(Reading(one.key, at, one.value, one.raw) for one in some))


@frozen
class Sent:
    """One body: its bytes, those of values and of what is around them, and what it carries."""

    size: int
    payload: int
    frame: int
    values: int
    newest: list[str]

    @classmethod
    def of(cls, body: bytes, sets: list[dict[str, list[list[str]]]]) -> Sent:
        """Measure it."""
        empty = [{**one, "values": []} for one in sets]
        frame = len(json.dumps(empty, separators=(",", ":")))
        newest = [one["values"][-1][0] for one in sets]
        count = sum(len(one["values"]) for one in sets)
        return cls(len(body), len(body) - frame, frame, count, newest)


async def test_a_year_of_backlog_goes_in_the_fewest_requests_and_in_flat_memory(
    tmp_path: Path, short: bool
) -> None:
    moments = 35_040 // (8 if short else 1)
    path = tmp_path / "readings.db"
    last = SystemClock(assume_synchronised=True).now() // EVERY * EVERY - DAY
    store = store_at(path)
    await store.open()
    await store.declare([series(nth) for nth in range(METERS)])
    stamps = [last - nth * EVERY for nth in range(moments)][::-1]
    for first in range(0, moments, 48):
        some = [one for at in stamps[first : first + 48] for one in moment_of(at).readings]
        await store.append(Commit(tuple(some)))
    await store.close()

    bodies: list[Sent] = []

    def answer(request: Request) -> Scripted | None:
        sets = json.loads(request.body)
        if sets:
            bodies.append(Sent.of(request.body, sets))
        entries = [
            {"meterID": one["meterID"], "number_of_values": len(one["values"]), "status": 201}
            for one in sets
        ]
        return Scripted(body=json.dumps(entries).encode())

    standin = StandIn({"token": "basement"}, window=WINDOW, zone="UTC", script=answer)
    url = await standin.start()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DRAIN, str(path), url, str(last),
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told = json.loads((await child.communicate())[0])
    await standin.stop()
    assert standin.violations == ["401: no known token"]  # the request that only warms up
    assert told["balanced"]
    assert told["confirmed"] == told["stored"] == sum(body.values for body in bodies)
    later = (told["stored"] - METERS * moments) // METERS
    for nth, body in enumerate(bodies[: later + 1]):
        newest = stamp_text(last + nth * EVERY, ZoneInfo("UTC"), "utc")
        assert body.newest == [newest] * METERS, "the newest of a meter is not in a body"
    least = -(-sum(body.payload for body in bodies) // (MAX_BODY - bodies[0].frame))
    full = [body.size / MAX_BODY for body in bodies[:-2]]
    print(
        f"{told['stored']} values, {later} moments of them new meanwhile: {len(bodies)} requests,"
        f" the least possible {least}, {len(bodies) / least:.3f} times; bodies {min(full):.4%} full"
        f" at least; memory {told['memory_mb']:.1f} MB, for a body {told['body_mb']:.1f} MB more,"
        f" and by the end {told['growth_mb']:.1f} MB more"
    )
    assert len(bodies) <= 1.01 * least
    assert told["growth_mb"] <= 10
