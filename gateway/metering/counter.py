"""Is what a counter shows believable? Values in, verdicts out.

A counter only grows, and no faster than `max_power` allows, until it wraps at its modulus or
another meter takes its place. A zero, a drop or a jump beyond that is held: it is not sent and
nothing is reckoned from it, until the reads that follow agree with it. A single bad read is thus
forgotten at the next good one, and a meter that was really replaced is believed at its third read.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal, TypeAlias

from attrs import evolve, frozen

from gateway.clock import DAY, HOUR, SECOND, Instant, Millis
from gateway.metering.register import Register

READS: Final = 3
"""So many reads have to agree before a doubtful value is believed, the first among them."""

APART: Final[Millis] = 4 * SECOND
"""Reads nearer to each other than this count as one."""

ZEROS_APART: Final[Millis] = 20 * SECOND
"""The same for zeros: a meter that starts up shows them a while."""

MOST_IN_A_ROW: Final = 10
"""So many that are held one after the other are told and stored."""

A_DAY: Final = Decimal(10_000_000)
"""What is read of no building's counter in a day, in kWh, kvarh or m³ (400 MW): no rating, but all
there is to tell where nothing else does."""

_ROUND: Final = 1 << 32
"""Steps, of a way round that tells something."""

_A_LIFE: Final[Millis] = 30 * 365 * DAY

Judgement: TypeAlias = Literal["plausible", "held", "rollover", "replaced"]


@frozen
class Bound:
    """What a counter can do, in its own unit, before the multiplier."""

    per_hour: Decimal | None = None
    """The most it can move in an hour; None: not known."""
    modulus: Decimal | None = None
    """Where it wraps; None: it does not, or it is not known where."""
    resolution: Decimal = Decimal(0)
    """Its smallest step."""
    a_day: Decimal = A_DAY
    """The most it can move in a day where `per_hour` is not known."""

    def most(self, span: Millis) -> Decimal | None:
        """The furthest it can move in `span`; None where nothing bounds it."""
        if self.per_hour is None or span <= 0:  # the clock was set back: no time to reckon with
            return None
        return self.per_hour * span / HOUR + self.resolution

    def within(self, span: Millis, part: int) -> Decimal:
        """The furthest it can move in `span`, as far as can be told without `per_hour`: a part of
        the way round or, where that is too long to tell anything, what no counter does. A day at
        least: some meters hand on seldom what they count."""
        if self.modulus is not None and self.modulus <= self.resolution * _ROUND:
            return self.modulus / part
        return self.a_day * max(span, DAY) / DAY


@frozen
class Known:
    """The last value that was believed and kept, and when the counter showed it."""

    value: Decimal
    at: Instant


@frozen
class Suspect:
    """A value that is held: the latest of the reads that agree with one another."""

    value: Decimal
    at: Instant
    reads: int
    reason: str
    """zero, drop or jump."""
    nth: int = 1
    """Of how many that were held one after the other for the same reason, none of which agrees
    with the one before; jumps go on from one another."""

    @property
    def moved_on(self) -> bool:
        """Is it a counter that runs faster than its bound? Another meter's reads would agree."""
        return self.reason == "jump" and self.nth >= READS

    def is_news_after(self, before: Suspect | None) -> bool:
        """Is it another one, and not one of too many in a row?"""
        return self != before and self.reads == 1 and self.nth <= MOST_IN_A_ROW

    def followed_by(self, value: Decimal, at: Instant, reason: str) -> Suspect:
        """What is suspected where the next read does not agree."""
        goes_on = reason == self.reason and (reason != "jump" or value >= self.value)
        return Suspect(value, at, 1, reason, self.nth + 1 if goes_on else 1)


@frozen
class Verdict:
    """`suspect` is what to remember until the next read."""

    judgement: Judgement
    suspect: Suspect | None = None

    @property
    def believed(self) -> bool:
        """May the value be used?"""
        return self.judgement != "held"


PLAUSIBLE: Final = Verdict("plausible")


def judge(
    known: Known | None, suspect: Suspect | None, value: Decimal, at: Instant, bound: Bound
) -> Verdict:
    """What to think of `value`, read at `at`. `known` is None before the meter's first value."""
    reason = _doubt(known, value, at, bound)
    if not reason:
        return PLAUSIBLE
    wrapped = known is not None and _wrapped(known, value, at, bound)
    if wrapped and value and bound.per_hour is not None:
        return Verdict("rollover")
    if suspect is not None and suspect.value == value and _looks_like_nothing(value, bound):
        return Verdict("held", suspect)  # however often it is read
    if suspect is None:
        return Verdict("held", Suspect(value, at, 1, reason))
    if not _agrees(suspect, value, at, bound):
        return Verdict("held", suspect.followed_by(value, at, reason))
    if 0 <= at - suspect.at < (APART if value else ZEROS_APART):
        return Verdict("held", suspect)
    if suspect.reads + 1 >= READS:
        return Verdict("rollover" if wrapped else "replaced")
    return Verdict("held", evolve(suspect, value=value, at=at, reads=suspect.reads + 1))


def _doubt(known: Known | None, value: Decimal, at: Instant, bound: Bound) -> str:
    if known is None:
        if value <= 0:
            return "drop" if value else "zero"
        absurd = _looks_like_nothing(value, bound) or value > bound.within(_A_LIFE, 1)
        return "jump" if absurd else ""
    if value < known.value:
        return "drop" if value else "zero"
    most = bound.most(at - known.at)
    if most is None:
        # A step of more than half the way round is one back; what looks like nothing need not be
        # as far away.
        part = 1000 if _looks_like_nothing(value, bound) else 2
        most = bound.within(at - known.at, part)
    return "jump" if value - known.value > most else ""


def _looks_like_nothing(value: Decimal, bound: Bound) -> bool:
    """All bits set, or only the highest, or all but that: what stands where nothing was counted."""
    if bound.modulus is None:
        return False
    half, step = bound.modulus / 2, bound.resolution
    return value in (bound.modulus - step, half, half - step)


def _wrapped(known: Known, value: Decimal, at: Instant, bound: Bound) -> bool:
    """Can the counter have come from `known` to `value` over its modulus?"""
    if bound.modulus is None or not 0 <= value < known.value:
        return False
    most = bound.most(at - known.at)
    if most is None:
        most = bound.modulus / 10  # it was near its end and is near its beginning
    return value + bound.modulus - known.value <= most


def _agrees(suspect: Suspect, value: Decimal, at: Instant, bound: Bound) -> bool:
    """Can the counter have come from the held value to this one?"""
    most = bound.most(at - suspect.at)
    if most is None:
        most = bound.within(at - suspect.at, 1000)
    return 0 <= value - suspect.value <= most


def modulus_of(register: Register, factor: Decimal) -> Decimal | None:
    """Where the register wraps, in its unit: as the profile says, else by the width of its type.

    `factor` brings the raw number to the unit. Floats do not wrap.
    """
    if register.modulus is not None:
        return register.modulus
    kind, words = register.encoding.type, register.encoding.words
    if kind.startswith("bcd") or kind == "mod10k":
        return abs(factor.scaleb(4 * words))
    if kind[0] in "us" and kind[1:].isdecimal():
        return abs((1 << 16 * words) * factor)
    return None


_RELATIVE: Final = {
    "f32": Decimal("1.2e-7"),  # 2 ** -23
    "f64": Decimal("2.3e-16"),  # 2 ** -52
    "iskra_t5": Decimal("1e-6"),  # seven digits in 24 bits
    "iskra_t6": Decimal("1e-6"),
}


def resolution_of(register: Register, factor: Decimal, value: Decimal) -> Decimal:
    """The smallest step of the register at this value, in its unit."""
    relative = _RELATIVE.get(register.encoding.type)
    return abs(factor) if relative is None else abs(value) * relative
