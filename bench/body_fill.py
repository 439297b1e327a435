"""How full bodies are while there is backlog: the real store, and the batches made from it.

    python -m bench.body_fill [--meters 10,100,500] [--readings 60000]

A store full of hourly counters that were never sent is emptied body by body, each collected,
encoded and confirmed as the uploader does it. What counts is the bytes of each body that left
something behind, over the 500,000 that are allowed; the least full of all is ours. Beside it: the
same readings cut every 5,000 and every 10,000, as a limit counted in rows does it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from bench.figures import OURS, Goal, Measure, gather, lines
from bench.store_bytes import Virtual
from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.clock import HOUR
from gateway.energinet.batch import Batch, Body
from gateway.energinet.limits import MAX_BODY
from gateway.energinet.twins import Twins
from gateway.metering.reading import Commit, Offer, Reading, Series, SeriesKey, Settlement, Waiting

START = 1_760_000_400_000
"""An hour's beginning."""


class Filling:
    """One body on its way: takes `rows` values at most, and remembers that something was left."""

    def __init__(self, limit: int, rows: int) -> None:
        self.body = Body(
            limit=limit, zone=ZoneInfo("Europe/Oslo"), timestamps="local", twins=Twins()
        )
        self.left = False
        self._room = rows

    def offer(self, waiting: Waiting) -> Offer:
        """As the uploader offers it."""
        taken = self.body.offer(waiting) if self._room else Offer.FULL
        self._room -= taken is Offer.TAKEN
        self.left = self.left or taken is Offer.FULL
        return taken


async def bodies(meters: int, readings: int, limit: int, rows: int) -> list[Batch]:
    """Every body that left something behind: `limit` bytes and `rows` values at most."""
    clock = Virtual()
    draw = random.Random(meters)
    found: list[Batch] = []
    with tempfile.TemporaryDirectory(prefix="body-fill") as name:
        store = Store(BufferSettings(str(Path(name) / "readings.db")), clock)
        await store.open()
        keys = [SeriesKey("", f"7{draw.randrange(10**17):017}") for _ in range(meters)]
        await store.declare(
            [
                Series(key, f"m{n}", "active_energy_import_total", "counter", HOUR, "basement")
                for n, key in enumerate(keys)
            ]
        )
        stands = [draw.randrange(1, 10**8) for _ in keys]
        for hour in range(readings // meters):
            clock.at = START + hour * HOUR
            stands = [stand + draw.randrange(1, 9000) for stand in stands]
            values = [Decimal(stand).scaleb(-2) for stand in stands]
            await store.append(Commit(tuple(map(Reading, keys, [clock.at] * meters, values))))
        while True:
            filling = Filling(limit, rows)
            await store.collect("basement", filling.offer)
            if not filling.left:
                break
            batch = filling.body.encode()
            found.append(batch)
            settled = [
                Settlement(key, "confirmed", tuple(waiting.id for waiting in values))
                for key, values in batch.values.items()
            ]
            await store.settle("basement", settled, b"{}")
        await store.close()
    return found


def measure(*, short: bool = False, counts: tuple[int, ...] = (10, 100, 500),
            readings: int = 60_000) -> list[Measure]:  # fmt: skip
    """The least full body at each number of meters."""
    if short:
        counts, readings = (100,), 40_000
    ways = {
        OURS: (MAX_BODY, 1 << 40),
        "5,000 rows": (1 << 40, 5000),
        "10,000 rows": (1 << 40, 10_000),
    }
    measures = []
    for meters in counts:
        fills: dict[str, list[float]] = {}
        for who, (limit, rows) in ways.items():
            made = asyncio.run(bodies(meters, readings, limit, rows))
            fills[who] = [100 * min(len(batch.data) for batch in made) / MAX_BODY]
            if who == OURS:
                told = (
                    f"{len(made)} bodies of {min(batch.count for batch in made):,} values and more"
                )
        what = f"A body while there is backlog, of the limit, {meters} meters"
        goal = Goal(99.9, at_least=True)
        measures.append(Measure(what, *gather(fills, {}), goal, " %", 3, note=told))
    return measures


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", default="10,100,500")
    parser.add_argument("--readings", type=int, default=60_000)
    asked = parser.parse_args()
    counts = tuple(map(int, asked.meters.split(",")))
    print(lines(measure(counts=counts, readings=asked.readings)))


if __name__ == "__main__":
    main()
