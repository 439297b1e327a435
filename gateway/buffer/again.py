"""The stored readings of one series, decoded again one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from decimal import Decimal
from heapq import heappop, heappush
from typing import Final

from attrs import define, field, frozen

from gateway.buffer.views import ExportRow
from gateway.clock import Instant
from gateway.metering.again import (
    Again,
    ConsumptionAgain,
    CounterAgain,
    PolledAgain,
    Stored,
    decoded,
    from_own_words,
)
from gateway.metering.reading import RawWords, SeriesKey
from gateway.metering.settings import SendSettings
from gateway.metering.source import Source

MISSING: Final = "missing"
"""The state of a reading that there is not: its boundary was read, but nothing could be made of the
words."""


@frozen
class Found:
    """A stored reading, and what it comes to now."""

    row: ExportRow
    now: Again


@define
class SeriesAgain:
    """How the readings of one series are decoded."""

    key: SeriesKey
    meter: str
    send: SendSettings
    source: Source
    eras: Sequence[tuple[int, bool]]
    """Up to which number they were, or were not, what the configuration says now."""
    counted: ConsumptionAgain | CounterAgain | None = None
    polled: PolledAgain | None = None
    gaps: list[tuple[Instant, Instant]] = field(factory=list)
    """First and last stamps without a reading, in order, for which there may be words."""
    doubted: dict[Instant, tuple[Decimal, RawWords]] = field(factory=dict)
    """What is known of those, by stamp."""
    _queue: list[Instant] = field(factory=list)
    _newest: Instant = -(1 << 62)
    """The stamp of the reading before."""
    held: dict[int, ExportRow] = field(factory=dict)
    """Number to reading, of those whose value depends on a later one."""

    def see(self, stamp: Instant, value: Decimal, raw: RawWords) -> None:
        """Words for a stamp; those that came first count, where there is a gap."""
        nth = bisect_right(self.gaps, (stamp, 1 << 62)) - 1
        if nth < 0 or not self.gaps[nth][0] <= stamp <= self.gaps[nth][1]:
            return
        if stamp not in self.doubted:
            self.doubted[stamp] = value, raw
            heappush(self._queue, stamp)

    def take(self, row: ExportRow, before: Instant) -> Iterator[Found]:
        """What the next reading comes to, and what was held for it; `before`: the stamp that the
        words have that it brought along."""
        self.doubted.pop(row.stamp, None)
        stored = stored_as(row)
        if not self.fits(row.n):
            yield Found(row, Again(stored, None, "other_kind"))
        elif self.counted is None:
            for one in self._doubted_before(row.stamp):
                yield self._new(Again(one, one.value))
            if self.polled is None:
                yield Found(row, from_own_words(self.source, stored))
                return
            value = self.polled.values.get(row.stamp)
            yield Found(row, Again(stored, value, "" if value is not None else "too_few_polls"))
        else:
            self.held[row.n] = row
            if stored.raw.blocks:
                own = stored.raw.before()
                base = decoded(self.source, own)
                if isinstance(base, Decimal) and before > self._newest:
                    self.doubted.pop(before, None)  # these are what a reading was reckoned from
                    self.see(before, base, own)
                found = self.counted.take(stored, self._doubted_before(row.stamp))
            else:
                found = self.counted.take(stored)
            self._newest = row.stamp
            yield from self._free(found)

    def rest(self) -> Iterator[Found]:
        """What is still held, after the last."""
        if self.counted is not None:
            yield from self._free(self.counted.rest())
        else:
            for one in self._doubted_before(1 << 62):
                yield self._new(Again(one, one.value))

    def fits(self, n: int) -> bool:
        """Was the reading with this number what the configuration says now?"""
        return next((fits for last, fits in self.eras if n <= last), False)

    def _doubted_before(self, stamp: Instant) -> list[Stored]:
        """What is known of gaps before a stamp, in order of time; once."""
        found = []
        while self._queue and self._queue[0] < stamp:
            at = heappop(self._queue)
            if at in self.doubted:
                found.append(Stored(0, at, *self.doubted.pop(at)))
        return found

    def _free(self, found: Iterator[Again]) -> Iterator[Found]:
        for now in found:
            row = self.held.pop(now.stored.n, None)
            yield self._new(now) if row is None else Found(row, now)

    def _new(self, now: Again) -> Found:
        stored = now.stored
        row = ExportRow(self.key, self.meter, stored.stamp, stored.value, MISSING, stored.raw)
        return Found(row, now)


def stored_as(row: ExportRow) -> Stored:
    return Stored(row.n, row.stamp, row.value, row.raw)
