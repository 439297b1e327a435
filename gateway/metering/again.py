"""Stored readings decoded again, as configuration and profile say now. Pure.

A counter follows from the words of its own reading. A consumption is the difference to the reading
that was stored before it, or to the words it brought along; it is never reckoned where one that lay
between is gone. Means and extremes are formed anew from the polls that were kept. What cannot be
told from what is stored is left as it is, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from attrs import frozen

from gateway.clock import Instant, Millis
from gateway.metering.counted import divided
from gateway.metering.counter import READS, ZEROS_APART, Bound, Judgement, Known, Suspect, judge
from gateway.metering.interval import window
from gateway.metering.polled import PolledValues
from gateway.metering.reading import RawWords, Sample
from gateway.metering.register import EXACT, NOT_AVAILABLE
from gateway.metering.settings import Label, SendSettings
from gateway.metering.source import Source
from gateway.metering.values import Formed


@frozen
class Stored:
    """A reading as the buffer has it; `n` numbers those of its series as they were stored."""

    n: int
    stamp: Instant
    value: Decimal
    raw: RawWords


@frozen
class Again:
    """What it comes to now."""

    stored: Stored
    value: Decimal | None
    reason: str = ""
    """Why there is no value."""


REASONS: Final = {
    "no_words": "stored without the meter's words",
    "not_read": "the words lack a register that the profile needs now",
    "not_available": "by the profile the meter said that it has no value",
    "undecodable": "the words are no number of that type",
    "no_base": "what it was reckoned from is not stored any more",
    "implausible": "the counter cannot have moved so far",
    "replaced": "the counter went back: another meter, or another mistake",
    "too_few_polls": "fewer than 80 % of the interval's polls are stored",
    "too_old": "older than five years: Energinet does not take it",
    "in_future": "it lies in the future",
    "other_kind": "stored when the configuration sent something else under this meterID",
    "has_own": "the right meterID has a value of its own for that time",
}
"""Why a reading is left as it is, in words."""


def decoded(source: Source, raw: RawWords) -> Decimal | str:
    """The value before the multiplier, or why there is none."""
    if not raw.blocks:
        return "no_words"
    try:
        value = source.decode(raw)
    except ValueError:
        return "undecodable"
    if isinstance(value, Decimal):
        return value
    return "not_available" if value is NOT_AVAILABLE else "not_read"


def from_own_words(source: Source, stored: Stored) -> Again:
    """A counter, or what has one poll: all of it is in the reading's own words."""
    value = decoded(source, stored.raw)
    if isinstance(value, str):
        return Again(stored, None, value)
    return Again(stored, source.multiplied(value))


class ConsumptionAgain:
    """The readings of one `consumption`, in the order of their stamps."""

    def __init__(self, send: SendSettings, source: Source, earlier: Sequence[Stored] = ()) -> None:
        """`earlier`: those before the first, from the last that has words on."""
        self._send = send
        self._source = source
        self._base: Stored | None = None
        self._wordless: list[Stored] = []
        """Since the base."""
        for stored in earlier:
            if stored.raw.blocks:
                self._base, self._wordless = stored, []
            else:
                self._wordless.append(stored)
        self._given = len(self._wordless)
        """So many of them are not asked about, or were answered."""

    def take(self, stored: Stored) -> Iterator[Again]:
        """What this one comes to, and what was held back for it."""
        if not stored.raw.blocks:
            self._wordless.append(stored)
            return
        moved = self._moved(stored)
        parts = self._parts(stored)
        if parts and isinstance(moved, Decimal):
            shares = divided(moved, len(parts) + 1)
            for part, share in zip((*parts, stored), shares, strict=True):
                yield Again(part, share)
        else:
            yield from self.rest()
            value = None if isinstance(moved, str) else moved
            yield Again(stored, value, moved if isinstance(moved, str) else "")
        self._base, self._wordless, self._given = stored, [], 0

    def rest(self) -> Iterator[Again]:
        """What is still held back, after the last."""
        for part in self._wordless[self._given :]:
            yield Again(part, None, "no_words")
        self._given = len(self._wordless)

    def _parts(self, whole: Stored) -> list[Stored]:
        """The values over which `gap: spread` divided what moved until this one."""
        parts = self._wordless
        if self._send.gap != "spread" or self._given or not parts:
            return []
        if [part.n for part in parts] != list(range(whole.n - len(parts), whole.n)):
            return []
        values = [part.value for part in parts] + [whole.value]
        total = Decimal(0)
        for value in values:
            total = EXACT.add(total, value)
        return parts if list(divided(total, len(values))) == values else []

    def _moved(self, stored: Stored) -> Decimal | str:
        now = decoded(self._source, stored.raw)
        if isinstance(now, str):
            return now
        own = stored.raw.before()
        span: Millis | None = None
        if own.blocks:
            base = decoded(self._source, own)
        elif self._base is not None and self._follows(self._base, stored):
            base = decoded(self._source, self._base.raw)
            span = stored.stamp - self._base.stamp
        else:
            return "no_base"
        if isinstance(base, str):
            return base
        return self._difference(base, now, stored.raw, span)

    def _follows(self, base: Stored, stored: Stored) -> bool:
        """Is all known that was stored between them?"""
        return {*range(base.n + 1, stored.n)} <= {part.n for part in self._wordless}

    def _difference(
        self, base: Decimal, now: Decimal, raw: RawWords, span: Millis | None
    ) -> Decimal | str:
        """As when it was formed: the reads that followed agreed with it, or it would not be there.

        `span` None: it is not known how long it took.
        """
        if now and not base:
            return "no_base"  # a meter that starts up shows zeros a while
        bound = self._source.bound(raw, now)
        judgement = self._judged(base, now, bound, span)
        moved = EXACT.subtract(now, base)
        if judgement == "rollover" and bound.modulus is not None:
            moved = EXACT.add(moved, bound.modulus)
        elif judgement != "plausible":
            return "replaced" if moved < 0 else "implausible"
        return self._source.multiplied(moved)

    def _judged(self, base: Decimal, now: Decimal, bound: Bound, span: Millis | None) -> Judgement:
        if span is not None:
            at = span + window(self._send.every) + ZEROS_APART
            agreeing = Suspect(now, at - ZEROS_APART, READS - 1, "")
            return judge(Known(base, 0), agreeing, now, at, bound).judgement
        if now >= base:
            return "plausible"
        half_way = bound.modulus is not None and now + bound.modulus - base <= bound.modulus / 2
        return "rollover" if half_way else "held"


class PolledAgain:
    """What kept polls come to, by stamp. They begin an interval before the first that counts and
    end one after the last."""

    def __init__(
        self, send: SendSettings, source: Source, zone: ZoneInfo, label: Label, poll: Millis
    ) -> None:
        self.values: dict[Instant, Decimal] = {}
        self._source = source
        self._polled = PolledValues(send, source, zone, label, poll)

    def take(self, sample: Sample) -> None:
        """The next of the polls."""
        formed = Formed()
        self._polled.advance(sample.at, "", formed)
        found = self._source.read(sample)
        if found is not None:
            self._polled.offer(found, sample, formed)
        for reading in formed.readings:
            self.values[reading.stamp] = reading.value
