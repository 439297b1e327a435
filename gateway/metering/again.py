"""Stored readings decoded again, as configuration and profile say now. Pure.

A counter follows from the words of its own reading. A consumption is the difference to the reading
that was stored before it, or to the words it brought along; it is never reckoned where one that lay
between is gone. Means and extremes are formed anew from the polls that were kept. A boundary of
whose words nothing could be made gets a value where they now fit what comes before and after. What
cannot be told from what is stored is left as it is, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from attrs import evolve, frozen

from gateway.clock import Instant, Millis
from gateway.metering.counted import divided
from gateway.metering.counter import READS, ZEROS_APART, Bound, Judgement, Known, Suspect, judge
from gateway.metering.interval import next_boundary, window
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
    "no_time": "nobody knows of which time it is",
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


class _Chain:
    """The words of one counter in the order of time: what follows from what."""

    def __init__(self, send: SendSettings, source: Source, zone: ZoneInfo) -> None:
        self.source = source
        self._every = send.every
        self._zone = zone
        self.last: Stored | None = None
        """The newest words that are believed, of a reading or of a boundary without one."""

    def adjacent(self, stored: Stored) -> bool:
        """Is there no boundary between the last words and these?"""
        last = self.last
        return last is not None and (
            next_boundary(last.stamp, self._every, self._zone) == stored.stamp
        )

    def believable(self, doubted: Sequence[Stored], following: Stored) -> Iterator[Stored]:
        """Of words of which nothing was made, those that fit what comes before and after, and the
        reading that follows: they may be bad reads as well."""
        last = self.last
        for one, after in pairwise((*doubted, following)):
            fits = all(self._fits(one, then) for then in {after, following})
            if fits and (last is None or self._fits(last, one)):
                yield one
                last = one

    def _fits(self, before: Stored, after: Stored) -> bool:
        earlier, later = decoded(self.source, before.raw), decoded(self.source, after.raw)
        if isinstance(earlier, str) or isinstance(later, str):
            return False
        if later and not earlier:
            return False  # a meter that starts up shows zeros a while
        span = after.stamp - before.stamp
        return isinstance(self.moved(earlier, later, after.raw, span), Decimal)

    def moved(
        self, base: Decimal, now: Decimal, raw: RawWords, span: Millis | None
    ) -> Decimal | str:
        """As when it was formed: the reads that followed agreed with it, or it would not be there.

        `span` None: it is not known how long it took.
        """
        bound = self.source.bound(raw, now)
        judgement = self._judged(base, now, bound, span)
        moved = EXACT.subtract(now, base)
        if judgement == "rollover" and bound.modulus is not None:
            moved = EXACT.add(moved, bound.modulus)
        elif judgement != "plausible":
            return "replaced" if moved < 0 else "implausible"
        return self.source.multiplied(moved)

    def _judged(self, base: Decimal, now: Decimal, bound: Bound, span: Millis | None) -> Judgement:
        if span is not None:
            at = span + window(self._every) + ZEROS_APART
            agreeing = Suspect(now, at - ZEROS_APART, READS - 1, "")
            return judge(Known(base, 0), agreeing, now, at, bound).judgement
        if now >= base:
            return "plausible"
        half_way = bound.modulus is not None and now + bound.modulus - base <= bound.modulus / 2
        return "rollover" if half_way else "held"


class CounterAgain:
    """The readings of one `counter`, in the order of their stamps."""

    def __init__(self, send: SendSettings, source: Source, zone: ZoneInfo) -> None:
        self._chain = _Chain(send, source, zone)

    def take(self, stored: Stored, doubted: Sequence[Stored] = ()) -> Iterator[Again]:
        """What this one comes to, and before it, boundaries without a reading since the last."""
        for one in self._chain.believable(doubted, stored):
            yield from_own_words(self._chain.source, one)
        if stored.raw.blocks:
            self._chain.last = stored
        yield from_own_words(self._chain.source, stored)

    def rest(self) -> Iterator[Again]:
        """Nothing is held back."""
        return iter(())


class ConsumptionAgain:
    """The readings of one `consumption`, in the order of their stamps."""

    def __init__(
        self,
        send: SendSettings,
        source: Source,
        zone: ZoneInfo,
        earlier: Sequence[Stored] = (),
    ) -> None:
        """`earlier`: those before the first, from the last that has words on."""
        self._send = send
        self._chain = _Chain(send, source, zone)
        self._newest = 0
        """Number of the last reading that has words."""
        self._wordless: list[Stored] = []
        """Since then."""
        for stored in earlier:
            if stored.raw.blocks:
                self._chain.last, self._newest, self._wordless = stored, stored.n, []
            else:
                self._wordless.append(stored)
        self._given = len(self._wordless)
        """So many of them are not asked about, or were answered."""

    def take(self, stored: Stored, doubted: Sequence[Stored] = ()) -> Iterator[Again]:
        """What this one comes to, and what was held back for it; before it, what boundaries
        without a reading come to (`doubted`: their words)."""
        if not stored.raw.blocks:
            self._wordless.append(stored)
            return
        sure = {*range(self._newest + 1, stored.n)} <= {part.n for part in self._wordless}
        parts = self._parts(stored)
        if not parts:
            yield from self.rest()
        for one in self._chain.believable(self._up_to_base(doubted, stored), stored):
            moved = self._since_last(one) if sure or self._chain.adjacent(one) else "no_base"
            if isinstance(moved, Decimal):
                yield Again(one, moved)
            self._chain.last = one
        moved = self._moved(stored, sure=sure)
        if parts and isinstance(moved, Decimal):
            shares = divided(moved, len(parts) + 1)
            for part, share in zip((*parts, stored), shares, strict=True):
                yield Again(part, share)
        else:
            yield from self.rest()
            value = None if isinstance(moved, str) else moved
            yield Again(stored, value, moved if isinstance(moved, str) else "")
        self._chain.last, self._newest = stored, stored.n
        self._wordless, self._given = [], 0

    def _up_to_base(self, doubted: Sequence[Stored], stored: Stored) -> Sequence[Stored]:
        """What a reading was reckoned from was read later in the window of the last boundary than
        what was doubted there, if it is more: that is what the counter showed at this boundary."""
        own = stored.raw.before()
        if not (doubted and own.blocks):
            return doubted
        *before, last = doubted
        base, held = (decoded(self._chain.source, raw) for raw in (own, last.raw))
        if isinstance(base, str) or isinstance(held, str) or base <= held:
            return doubted
        return [*before, evolve(last, raw=own)]

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

    def _moved(self, stored: Stored, *, sure: bool) -> Decimal | str:
        """`sure`: all is known that was stored since the last words."""
        own = stored.raw.before()
        if own.blocks and not self._chain.adjacent(stored):
            base, now = (decoded(self._chain.source, raw) for raw in (own, stored.raw))
            if isinstance(now, str) or isinstance(base, str):
                return now if isinstance(now, str) else base
            return self._chain.moved(base, now, stored.raw, None)
        if not sure and not self._chain.adjacent(stored):
            return "no_base"
        return self._since_last(stored)

    def _since_last(self, stored: Stored) -> Decimal | str:
        now = decoded(self._chain.source, stored.raw)
        if isinstance(now, str):
            return now
        last = self._chain.last
        if last is None:
            return "no_base"
        base = decoded(self._chain.source, last.raw)
        if isinstance(base, str):
            return base
        return self._chain.moved(base, now, stored.raw, stored.stamp - last.stamp)


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
