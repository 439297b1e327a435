"""Is what a counter shows believable? Values in, verdicts out.

A counter only grows, and no faster than `max_power` allows, until it wraps at its modulus or
another meter takes its place. A zero, a drop or a jump beyond that is held: it is not sent and
nothing is reckoned from it, until the reads that follow agree with it. A single bad read is thus
forgotten at the next good one, and a meter that was really replaced is believed at its third read.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal, TypeAlias

from attrs import frozen

from gateway.clock import HOUR, SECOND, Instant, Millis
from gateway.metering.register import Register

READS: Final = 3
"""So many reads have to agree before a doubtful value is believed, the first among them."""

APART: Final[Millis] = 4 * SECOND
"""Reads nearer to each other than this count as one."""

ZEROS_APART: Final[Millis] = 20 * SECOND
"""The same for zeros: a meter that starts up shows them a while."""

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

    def most(self, span: Millis) -> Decimal | None:
        """The furthest it can move in `span`; None where nothing bounds it."""
        if self.per_hour is None or span <= 0:  # the clock was set back: no time to reckon with
            return None
        return self.per_hour * span / HOUR + self.resolution


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
    if suspect is None or not _agrees(suspect, value, at, bound):
        return Verdict("held", Suspect(value, at, 1, reason))
    if 0 <= at - suspect.at < (APART if value else ZEROS_APART):
        return Verdict("held", suspect)
    if suspect.reads + 1 >= READS:
        return Verdict("rollover" if wrapped else "replaced")
    return Verdict("held", Suspect(value, at, suspect.reads + 1, suspect.reason))


def _doubt(known: Known | None, value: Decimal, at: Instant, bound: Bound) -> str:
    if known is None:
        if value <= 0:
            return "drop" if value else "zero"
        return "jump" if _looks_like_nothing(value, bound) else ""
    if value < known.value:
        return "drop" if value else "zero"
    most = bound.most(at - known.at)
    if most is None and bound.modulus is not None:
        # A step of more than half the way round is one back; what looks like nothing need not be
        # as far away.
        most = bound.modulus / (1000 if _looks_like_nothing(value, bound) else 2)
    return "jump" if most is not None and value - known.value > most else ""


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
    if most is None and bound.modulus is not None:
        most = bound.modulus / 1000
    step = value - suspect.value
    return step >= 0 and (most is None or step <= most)


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
