"""What is offered to a sender: the newest of each series first, then the oldest."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Final

from gateway.buffer.index import Index, Line
from gateway.buffer.rows import BLOCK, READINGS, to_value
from gateway.buffer.views import bounds, in_order
from gateway.metering.reading import Offer, SeriesKey, Waiting

LOOK_BACK: Final = 2 * BLOCK
"""Rows from the end in which the newest waiting value of a series is looked for."""


class Offering:
    """One walk over what waits for a sender. `taken`: what the sender took, id to series, number.

    `damage` is set where a row was met that does not fit its seal: it is passed over.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        index: Index,
        sender: str,
        *,
        only: frozenset[SeriesKey] | None = None,
        probes: frozenset[SeriesKey] = frozenset(),
    ) -> None:
        self.taken: dict[int, tuple[Line, int]] = {}
        self.damage = False
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
        self._offered: set[int] = set()
        self._probed: set[int] = set()

    def run(self, offer: Callable[[Waiting], Offer]) -> None:
        """Offer until the sender is full or nothing is left."""
        if self._newest(offer):
            self._oldest(offer)

    def _newest(self, offer: Callable[[Waiting], Offer]) -> bool:
        for id in self._newest_ids():
            row = self._connection.execute(f"{READINGS.select} WHERE id = ?", (id,)).fetchone()
            if row is None or not READINGS.sound(row):
                self.damage = True
                continue
            if not self._offer(offer, *row[:6]):
                return False
        return True

    def _newest_ids(self) -> Iterable[int]:
        found: list[int] = []
        sought: set[int] = set()
        for line in self._lines.values():
            if line.sendable <= 0:
                continue
            if self._waits(line, line.stored, line.newest):
                found.append(line.newest)
            else:
                sought.add(line.id)
        if sought:
            for id, series, n in self._connection.execute(
                "SELECT id, series, n FROM readings ORDER BY id DESC LIMIT ?", (LOOK_BACK,)
            ):
                if series in sought and self._waits(self._lines[series], n, id):
                    found.append(id)
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
        for stamp, id, series, n, value, exponent in in_order(self._index, blocks, self._read):
            if series in self._probed:
                continue
            if not self._offer(offer, id, series, n, stamp, value, exponent):
                return

    def _read(self, number: int) -> list[tuple[Any, ...]]:
        chosen = []
        barren = True
        for row in self._connection.execute(
            f"{READINGS.select} WHERE id BETWEEN ? AND ?", bounds(number)
        ):
            id, series, n, stamp, value, exponent = row[:6]
            if not READINGS.sound(row):
                self.damage |= id not in self._index.unsound
                continue
            line = self._mine.get(series)
            if line is None or line.spans.state_of(n):
                continue
            if not line.parked:
                barren = False
            if series in self._lines and self._waits(line, n, id) and id not in self._offered:
                chosen.append((stamp, id, series, n, value, exponent))
        if barren:
            self._index.barren[self._sender].add(number)
        return chosen

    def _waits(self, line: Line, n: int, id: int) -> bool:
        return not line.spans.state_of(n) and id not in self._index.flight

    def _offer(
        self, offer: Callable[[Waiting], Offer],
        id: int, series: int, n: int, stamp: int, value: Any, exponent: Any,
    ) -> bool:  # fmt: skip
        line = self._lines[series]
        self._offered.add(id)
        if line.parked:
            self._probed.add(series)
        answer = offer(Waiting(id, line.series.key, stamp * 1000, to_value(value, exponent)))
        if answer is Offer.TAKEN:
            self.taken[id] = (line, n)
        return answer is not Offer.FULL
