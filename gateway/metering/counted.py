"""`counter` and `consumption`: what a counter stood at on each boundary, and what it moved."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from attrs import evolve, frozen

from gateway.clock import Instant, Millis
from gateway.metering.interval import count_boundaries, next_boundary, previous_boundary
from gateway.metering.reading import RawWords, Reading, Sample
from gateway.metering.register import EXACT, plain
from gateway.metering.settings import Label, SendSettings
from gateway.metering.source import Found, Source
from gateway.metering.values import Formed, Values

_ZERO: Final = Decimal(0)

MOST_SPREAD: Final = 40_000
"""Intervals that `gap: spread` fills at most, a year of quarter hours; else as `gap: return`."""


@frozen
class Base:
    """What a counter stood at on a boundary: where the next consumption is reckoned from."""

    boundary: Instant
    at: Instant
    """When it was sampled, the boundary itself where it was sampled after it."""
    value: Decimal
    raw: RawWords
    wrapped: Decimal = _ZERO
    """How far it went on over its modulus since then, in whole moduli."""


class CounterValues(Values):
    """`counter` and `consumption`: what the counter stood at on each boundary, or moved since."""

    def __init__(self, send: SendSettings, source: Source, zone: ZoneInfo, label: Label) -> None:
        super().__init__(send, source, zone, label)
        self.base: Base | None = None
        self.why = "no_baseline"
        """Why there is no base."""
        self._base_is_stored = False
        """Are the base's words those of the reading stored last?"""
        self._late: tuple[Instant, Decimal, Sample] | None = None
        self.clock_was_set = False
        """Since the base: boundaries that were passed over may never have been."""

    def offer(self, found: Found, sample: Sample, asked: Instant, formed: Formed) -> None:
        """Answer the boundary that is due with a sample that was asked for at or after it, and was
        complete within its window."""
        if not self.due <= asked or not self.due <= sample.at <= self.deadline - sample.took:
            return
        if found.value is None:
            self.reason = found.reason
            if self.lasts(found.reason):
                self.missing(found.reason, formed)
            return
        self._answer(found.value, sample, formed)

    def offer_late(self, found: Found, sample: Sample, formed: Formed) -> None:
        """Of samples that got their time afterwards, take the one nearest to each boundary.

        It has to lie within a tenth of the interval of it.
        """
        if found.value is None:
            return
        after = next_boundary(sample.at - 1, self._every, self._zone)
        before = previous_boundary(after, self._every, self._zone)
        nearest = before if sample.at - before <= after - sample.at else after
        if nearest < self.due or abs(sample.at - nearest) > self._every // 10:
            return
        if self._late is not None:
            boundary, _, other = self._late
            if boundary == nearest and abs(other.at - boundary) <= abs(sample.at - boundary):
                return
            if boundary != nearest:
                self.end_late(boundary, formed)
        self._late = (nearest, found.value, sample)

    def end_late(self, now: Instant, formed: Formed) -> None:
        """No nearer sample will come for a boundary up to `now`."""
        late, self._late = self._late, None
        if late is None or late[0] > now:
            return
        boundary, value, sample = late
        self.advance(boundary, "clock", formed)
        self._answer(value, sample, formed)

    def missing(self, reason: str, formed: Formed) -> None:
        self._gap(reason, formed)
        self._settled(self.due)

    def replaced(self, at: Instant, formed: Formed) -> None:
        """Another meter counts from `at`: nothing is reckoned from what the old one showed."""
        self.end_late(at, formed)
        self.base, self.why = None, "replaced"

    def rolled_over(self, modulus: Decimal, at: Instant, formed: Formed) -> None:
        """The counter went over its modulus and was seen to at `at`."""
        self.end_late(at, formed)
        if self.base is not None:
            self.base = evolve(self.base, wrapped=EXACT.add(self.base.wrapped, modulus))

    def forget(self) -> None:
        self.base, self.why = None, "replaced"

    def shift(self, by: Millis) -> None:
        if self.base is not None:
            self.base = evolve(self.base, at=self.base.at + by)

    def restore(self, reading: Reading | None) -> None:
        super().restore(reading)
        if reading is not None and self.done is not None:
            own = reading.raw.only(self.source.registers)
            self.base = self._base(self.done, self.done, own)
            self._base_is_stored = True

    def saved(self) -> list[Any]:
        base = self.base
        words = base and [base.boundary, base.at, base.raw.pack().hex(), str(base.wrapped)]
        return [self.done, self.why, words, self._base_is_stored, self.given]

    def resume(self, saved: list[Any]) -> None:
        if not self._is_new(saved):
            return
        super().resume(saved)
        _, self.why, words, *rest = saved
        self.base, self._base_is_stored = None, rest[:1] == [True]
        if words:
            boundary, at, raw, wrapped = words
            base = self._base(boundary, at, RawWords.unpack(bytes.fromhex(raw)))
            self.base = base and evolve(base, wrapped=Decimal(wrapped))

    def _base(self, boundary: Instant, at: Instant, raw: RawWords) -> Base | None:
        """A base from stored words, decoded as the profile says now."""
        try:
            value = self.source.decode(raw)
        except ValueError:
            return None
        return Base(boundary, at, value, raw) if isinstance(value, Decimal) else None

    def _answer(self, value: Decimal, sample: Sample, formed: Formed) -> None:
        raw = sample.raw.only(self.source.registers)
        base = Base(self.due, min(self.due, sample.at), value, raw)
        stored = len(formed.readings)
        if self.send.as_ == "counter":
            self._reading(self.source.multiplied(value), raw, formed)
        else:
            self._consumption(base, formed)
        formed.unsaid |= base.at != self.due
        self.base, self.clock_was_set = base, False
        self._base_is_stored = len(formed.readings) > stored
        self.source.learn(value, base.at)
        self._settled(self.due)

    def _consumption(self, now: Base, formed: Formed) -> None:
        if self.base is None:
            self._gap(self.why, formed)
            return
        moved = EXACT.subtract(EXACT.add(now.value, self.base.wrapped), self.base.value)
        if moved < 0:  # nobody saw why: the profile was changed meanwhile, or the clock
            self._gap("replaced", formed)
            return
        if moved and not self.source.may_reckon_from(self.base.value, self.base.at):
            self._gap("no_baseline", formed)
            return
        moved = self.source.multiplied(moved)
        raw = now.raw
        if not self._base_is_stored:  # else it could not be reckoned again from what is stored
            raw = RawWords(raw.blocks + self.base.raw.blocks)
        whole = self.send.gap == "spread" and self.clock_was_set
        if self.base.boundary == self.done or self.send.gap == "return" or whole:
            self._reading(moved, raw, formed)
        elif self.send.gap == "skip":
            self._gap("gap", formed)
        else:
            self._spread(self.base.boundary, moved, raw, formed)

    def _spread(self, since: Instant, moved: Decimal, raw: RawWords, formed: Formed) -> None:
        """Divide `moved` over all intervals since a boundary; the parts sum up exactly."""
        count = count_boundaries(since, self.due, self._every, self._zone)
        if not 0 < count <= MOST_SPREAD:  # none: the clock had been ahead
            self._reading(moved, raw, formed)
            return
        whole = self.due
        self._settled(since)
        for part in divided(moved, count):
            self._reading(part, raw if self.due == whole else RawWords(), formed)
            if self.due < whole:
                self._settled(self.due)

    def _reading(self, value: Decimal, raw: RawWords, formed: Formed) -> None:
        self._give(value, raw, formed)


def divided(total: Decimal, count: int) -> Iterator[Decimal]:
    """`count` parts that differ by at most a thousandth of the last digit and sum up exactly."""
    exponent = min(int(plain(total).as_tuple().exponent), 0) - 3
    units = int(EXACT.scaleb(total, -exponent))
    given = 0
    for nth in range(1, count + 1):
        share = units * nth // count
        yield plain(EXACT.scaleb(Decimal(share - given), exponent))
        given = share
