"""What is offered to a sender: the newest of each series first, then the oldest."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from gateway.buffer import chunks
from gateway.buffer.chunks import BLOCK, Record, tag, untag
from gateway.buffer.index import Index, Line
from gateway.buffer.views import in_order
from gateway.clock import Instant
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
        within: tuple[Instant, Instant] | None = None,
        offered: set[int] | None = None,
    ) -> None:
        self.taken: dict[int, int] = {}
        self._connection = connection
        self._index = index
        self._sender = sender
        self._within = within
        self._mine = {line.id: line for line in index.of_sender(sender)}
        self._lines = {
            id: line
            for id, line in self._mine.items()
            if (only is None or line.series.key in only)
            and (not line.parked or line.series.key in probes)
        }
        """Series that may give values; the parked among them one each, but for `within`."""
        self._parks = any(line.parked for line in self._lines.values())
        self._offered: set[int] = set() if offered is None else offered
        """Tags of all that was offered: nothing is offered twice."""
        before = {untag(tagged)[0] for tagged in self._offered}
        self._probed = {series for series in before if self._mine[series].parked}

    def run(self, offer: Callable[[Waiting], Offer]) -> None:
        """Offer until the sender is full or nothing is left."""
        if self._within is not None or self._newest(offer):
            self._oldest(offer)

    def _newest(self, offer: Callable[[Waiting], Offer]) -> bool:
        earlier: set[int] = set()
        ids = self._newest_ids()
        for id, record in zip(ids, chunks.some(self._connection, ids), strict=True):
            if record is None:
                raise StoreDamaged(f"reading {id} is missing")
            answer = self._offer(offer, record)
            if answer is Offer.FULL:
                return False
            if answer is Offer.EARLIER:
                earlier.add(record.series)
        return not earlier or self._before(earlier, offer)

    def _before(self, series: set[int], offer: Callable[[Waiting], Offer]) -> bool:
        """The newest of these that were not offered yet."""
        for record in chunks.backwards(self._connection, self._index.top - LOOK_BACK):
            if record.series in series and self._waits(self._lines[record.series], record.n):
                answer = self._offer(offer, record)
                if answer is Offer.FULL:
                    return False
                if answer is not Offer.EARLIER:
                    series.remove(record.series)
                    if not series:
                        break
        return True

    def _newest_ids(self) -> list[int]:
        found: list[int] = []
        sought: set[int] = set()
        for line in self._lines.values():
            if line.sendable <= 0:
                continue
            if line.newest and not line.newest_n:
                record = chunks.one(self._connection, line.newest)
                line.newest_n = record.n if record and record.series == line.id else line.stored
            if line.newest and self._waits(line, line.newest_n):
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
        if self._parks:
            barren = set()  # a parked series may have its value anywhere
        first, last = self._seconds()
        blocks = [
            number
            for number, block in self._index.blocks.items()
            if block.open and number not in barren
            and block.earliest <= last and block.latest >= first
        ]  # fmt: skip
        for _, _, record in in_order(self._index, blocks, self._read):
            if record.series in self._probed:
                continue
            if self._offer(offer, record) is Offer.FULL:
                return

    def _seconds(self) -> tuple[int, int]:
        if self._within is None:
            return -(1 << 62), 1 << 62
        first, last = self._within
        return -(-first // 1000), last // 1000

    def _read(self, number: int) -> list[tuple[int, int, Record]]:
        chosen = []
        start: int | None = None
        first, last = self._seconds()
        low, high = chunks.bounds(number)
        starts = self._index.starts.setdefault(self._sender, {})
        if not self._parks:
            low = starts.get(number, low)
        for records in chunks.chunks(self._connection, low, high):
            for record in records:
                line = self._mine.get(record.series)
                if line is None or line.spans.state_of(record.n):
                    continue
                if start is None and not line.parked:
                    start = records[0].id
                if (
                    line.id in self._lines
                    and first <= record.stamp <= last
                    and record.tag not in self._offered
                    and record.tag not in self._index.flying
                ):
                    chosen.append((record.stamp, record.id, record))
        if start is None:
            self._index.barren[self._sender].add(number)
        else:
            starts[number] = start
        return chosen

    def _waits(self, line: Line, n: int) -> bool:
        tagged = tag(line.id, n)
        free = tagged not in self._index.flying and tagged not in self._offered
        return free and not line.spans.state_of(n)

    def _offer(self, offer: Callable[[Waiting], Offer], record: Record) -> Offer:
        line = self._lines[record.series]
        tagged = record.tag
        self._offered.add(tagged)
        if line.parked and self._within is None:
            self._probed.add(line.id)
        answer = offer(Waiting(record.id, line.series.key, record.stamp * 1000, record.value))
        if answer is Offer.TAKEN:
            self.taken[record.id] = tagged
        return answer
