"""Series, readings and a clock for the tests of the buffer."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.clock import HOUR, Instant
from gateway.metering.reading import (
    Block,
    Commit,
    Offer,
    RawWords,
    Reading,
    Series,
    SeriesKey,
    Settlement,
    Waiting,
)

START: Instant = 1_700_000_000_000


class StillClock:
    """A clock that stands until it is told otherwise."""

    boot_id = "boot-1"

    def __init__(self, at: Instant = START) -> None:
        self.at = at
        self.right = True

    def now(self) -> Instant:
        return self.at

    def boottime(self) -> int:
        return self.at - START

    def monotonic(self) -> float:
        return (self.at - START) / 1000

    def synchronised(self) -> bool:
        return self.right

    async def sleep(self, seconds: float) -> None:
        self.at += int(seconds * 1000)


def series(nth: int, sender: str = "basement", **other: object) -> Series:
    """The nth series; its meterID is 7000 + nth."""
    fields: dict[str, object] = {
        "key": SeriesKey("", f"{7000 + nth}"),
        "meter": f"meter-{nth}",
        "quantity": "active_energy_import_total",
        "as_": "counter",
        "every": HOUR,
        "sender": sender,
    }
    return Series(**(fields | other))  # type: ignore[arg-type]


def reading(nth: int, moment: int, value: str | None = None, held: str = "") -> Reading:
    """The reading of the nth series at the start plus so many hours."""
    exact = Decimal(value) if value is not None else Decimal(nth * 100_000 + moment) / 100
    raw = RawWords((Block(4, 342, (nth, moment & 0xFFFF)),))
    return Reading(series(nth).key, START + moment * HOUR, exact, raw, held)


def commits(meters: int, moments: Iterable[int]) -> list[Commit]:
    """One commit a moment, with a reading of each meter."""
    return [Commit(tuple(reading(nth, moment) for nth in range(meters))) for moment in moments]


def store_at(path: Path, clock: StillClock | None = None, **settings: int) -> Store:
    """A store that is not open yet."""
    return Store(BufferSettings(str(path), **settings), clock or StillClock())


async def filled(store: Store, meters: int, moments: Iterable[int]) -> Store:
    """Open it, declare the meters and store a reading of each for every moment."""
    await store.open()
    await store.declare([series(nth) for nth in range(meters)])
    for commit in commits(meters, moments):
        await store.append(commit)
    return store


async def take(
    store: Store,
    most: int = 1 << 30,
    sender: str = "basement",
    only: frozenset[SeriesKey] | None = None,
    probes: frozenset[SeriesKey] = frozenset(),
) -> list[Waiting]:
    """Collect up to so many values, in the order in which they are offered."""
    taken: list[Waiting] = []

    def offer(waiting: Waiting) -> Offer:
        if len(taken) >= most:
            return Offer.FULL
        taken.append(waiting)
        return Offer.TAKEN

    await store.collect(sender, offer, only=only, probes=probes)
    return taken


def confirmed(
    taken: Iterable[Waiting], outcome: str = "confirmed", reason: str = ""
) -> list[Settlement]:
    """A settlement of these values, a meterID each."""
    ids: dict[SeriesKey, list[int]] = {}
    for waiting in taken:
        ids.setdefault(waiting.key, []).append(waiting.id)
    return [Settlement(key, outcome, tuple(some), reason) for key, some in ids.items()]  # type: ignore[arg-type]


async def exported(store: Store, **chosen: object) -> list[tuple[str, Instant, Decimal, str]]:
    """(meterID, stamp, value, state) of every row, in the order of the export."""
    return [
        (row.key.meter_id, row.stamp, row.value, row.state)
        async for rows in store.export(**chosen)  # type: ignore[arg-type]
        for row in rows
    ]
