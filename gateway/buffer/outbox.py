"""What is offered to a sender: the newest of each series first, then the oldest."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

from gateway.buffer import chunks
from gateway.buffer.chunks import BLOCK, Record, tag, untag
from gateway.buffer.index import Index, Line
from gateway.buffer.views import in_order
from gateway.errors import StoreDamaged
from gateway.metering.reading import Offer, SeriesKey, Waiting

LOOK_BACK: Final = 2 * BLOCK
"""Rows from the end in which the newest waiting value of a series is looked for."""


class Offering:
    """One walk over what waits for a sender. `taken`: what it took, id to tag."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        index: Index,
        sender: str,
        *,
        only: frozenset[SeriesKey] | None = None,
        probes: frozenset[SeriesKey] = frozenset(),
        offered: set[int] | None = None,
    ) -> None:
        self.taken: dict[int, int] = {}
        self._connection = connection
        self._index = index
        self._sender = sender
        self._mine = {line.id: line for line in index.of_sender(sender)}
        self._lines = {
            id: line
            for id, line in self._mine.items()
            if (only is None or line.series.key in only)
            and (not line.parked or line.series.key in probes)
        }
        """Series that may give values; the parked among them one each."""
        self._offered: set[int] = set() if offered is None else offered
        """Tags of all that was offered: nothing is offered twice."""
        before = {untag(tagged)[0] for tagged in self._offered}
        self._probed = {series for series in before if self._mine[series].parked}

    def run(self, offer: Callable[[Waiting], Offer]) -> None:
        """Offer until the sender is full or nothing is left."""
        if self._newest(offer):
            self._oldest(offer)

    def _newest(self, offer: Callable[[Waiting], Offer]) -> bool:
        for id in self._newest_ids():
            record = chunks.one(self._connection, id)
            if record is None:
                raise StoreDamaged(f"reading {id} is missing")
            if not self._offer(offer, record):
                return False
        return True

    def _newest_ids(self) -> Iterable[int]:
        found: list[int] = []
        sought: set[int] = set()
        for line in self._lines.values():
            if line.sendable <= 0:
                continue
            if self._waits(line, line.stored):
                found.append(line.newest)
            else:
                sought.add(line.id)
        if sought:
            for record in chunks.backwards(self._connection, self._index.top - LOOK_BACK):
                series = record.series
                if series in sought and self._waits(self._lines[series], record.n):
                    found.append(record.id)
                    sought.remove(series)
                    if not sought:
                        break
        return sorted(found)

    def _oldest(self, offer: Callable[[Waiting], Offer]) -> None:
        barren = self._index.barren.setdefault(self._sender, set())
        if any(line.parked for line in self._lines.values()):
            barren = set()  # a parked series may have its value anywhere
        blocks = [
            number
            for number, block in self._index.blocks.items()
            if block.open and number not in barren
        ]
        for _, _, record in in_order(self._index, blocks, self._read):
            if record.series not in self._probed and not self._offer(offer, record):
                return

    def _read(self, number: int) -> list[tuple[int, int, Record]]:
        chosen = []
        barren = True
        for record in chunks.block(self._connection, number):
            line = self._mine.get(record.series)
            if line is None or line.spans.state_of(record.n):
                continue
            if not line.parked:
                barren = False
            if (
                line.id in self._lines
                and record.tag not in self._offered
                and record.tag not in self._index.flying
            ):
                chosen.append((record.stamp, record.id, record))
        if barren:
            self._index.barren[self._sender].add(number)
        return chosen

    def _waits(self, line: Line, n: int) -> bool:
        tagged = tag(line.id, n)
        free = tagged not in self._index.flying and tagged not in self._offered
        return free and not line.spans.state_of(n)

    def _offer(self, offer: Callable[[Waiting], Offer], record: Record) -> bool:
        line = self._lines[record.series]
        tagged = record.tag
        self._offered.add(tagged)
        if line.parked:
            self._probed.add(line.id)
        answer = offer(Waiting(record.id, line.series.key, record.stamp * 1000, record.value))
        if answer is Offer.TAKEN:
            self.taken[record.id] = tagged
        return answer is not Offer.FULL
