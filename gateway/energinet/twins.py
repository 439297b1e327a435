"""Two values under one name: the hour that the site's clock shows twice, without an offset. Pure.

A stamp of the first pass is written like the one of the second, so the two are sent as one value:
a counter and `last` keep the later reading, consumption is summed, a mean is weighted by how long
either interval was, a minimum and a maximum take the extreme. Until both wait, either is held.
Only a day after that night is one alone taken to have no twin, and goes as it is. Which ones did
is kept with the slot: a twin that comes after that must not replace what was sent, unless its kind
keeps the later one anyhow.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

from attrs import define, field, frozen

from gateway.clock import DAY, Instant, Millis
from gateway.metering.interval import Repeat, next_boundary, previous_boundary
from gateway.metering.reading import As, Offer, Series, SeriesKey, Waiting
from gateway.metering.register import EXACT
from gateway.metering.settings import Label

PATIENCE: Final[Millis] = DAY
"""A value may be late: a counter that is held, a clock that is not right yet, a stop."""

_KEEP_LATER: Final = frozenset({"counter", "last"})

Alone: TypeAlias = Mapping[str, Sequence[Sequence[int]]]
"""MeterID to the stamps (s) that went alone, as ranges: from, to before, and in what steps."""


class Fate(Enum):
    """What a value of a repeated hour may do now, if it is not sent with its twin."""

    ALONE = "alone"
    HELD = "held"
    LATE = "late"
    """Never: another value has its name, or may have it."""


@frozen
class Pair:
    """Two readings that are sent as one value, under the stamp of the first."""

    first: Waiting
    second: Waiting
    value: Decimal


@define
class Night:
    """What waits of one stretch that the clock shows twice."""

    repeat: Repeat
    zone: ZoneInfo
    label: Label
    over: bool
    """Is it certain enough that no more comes?"""
    known: bool
    """Is it known what of it went alone?"""
    most: int
    """Names that are looked at: as many as a body can hold."""
    _names: dict[tuple[SeriesKey, Instant], dict[Instant, Waiting]] = field(factory=dict)
    """By series and stamp of the first of the two: what waits, by stamp."""

    def see(self, waiting: Waiting) -> Offer:
        """Remember a value; to be offered all of this stretch. Takes none."""
        name = waiting.key, self._first(waiting.stamp)
        if name in self._names or len(self._names) < self.most:
            self._names.setdefault(name, {})[waiting.stamp] = waiting
        return Offer.SKIP

    @property
    def names(self) -> int:
        """How many of its names are known."""
        return len(self._names)

    def fate(self, waiting: Waiting, series: Series, alone: Sequence[Sequence[int]]) -> Fate | Pair:
        """What may be done with a value of this stretch."""
        kind, at, at_first = series.as_, waiting.stamp, self._first(waiting.stamp)
        is_second = at != at_first
        at_twin = at_first if is_second else at + self.repeat.length
        waits = self._names.get((waiting.key, at_first), {})
        if waits.get(at) != waiting:
            return Fate.HELD  # stored a moment ago, or one too many
        keeps_later = kind in _KEEP_LATER
        if at_twin in waits and (keeps_later or not (_among(at, alone) or _among(at_twin, alone))):
            first, second = waits[at_first], waits[at_first + self.repeat.length]
            lengths = (1, 1)
            if kind == "mean":
                lengths = self._length(first, series.every), self._length(second, series.every)
            return Pair(first, second, together(kind, first.value, second.value, lengths))
        if _among(at, alone):
            return Fate.ALONE
        if _among(at_twin, alone) or (is_second and not self.known):
            return Fate.ALONE if is_second and keeps_later else Fate.LATE
        return Fate.ALONE if self.over else Fate.HELD

    def _length(self, waiting: Waiting, every: Millis) -> Millis:
        """How long the interval was of which this is the mean."""
        at = waiting.stamp
        if self.label == "start":
            return next_boundary(at, every, self.zone) - at
        return at - previous_boundary(at, every, self.zone)

    def _first(self, at: Instant) -> Instant:
        return at - self.repeat.length if at >= self.repeat.turn else at


class Twins:
    """The nights whose values may wait, and what of them went alone."""

    def __init__(
        self,
        nights: Sequence[Night] = (),
        series: Mapping[SeriesKey, Series] | None = None,
        alone: Alone | None = None,
    ) -> None:
        """Nights in order of time."""
        self.nights = nights
        self._series = series or {}
        self._alone = alone or {}
        self._starts = [night.repeat.start for night in nights]

    def fate(self, waiting: Waiting) -> Fate | Pair | None:
        """What may be done with a value; None: no other has its name."""
        nth = bisect_right(self._starts, waiting.stamp) - 1
        if nth < 0 or waiting.stamp >= (repeat := self.nights[nth].repeat).end:
            return None
        series = self._series.get(waiting.key)
        if series is None or series.every > repeat.length:
            # The repeated hour ends none of its intervals. It did before the configuration was
            # changed, if there is a second value all the same.
            return None if waiting.stamp < repeat.turn else Fate.LATE
        alone = self._alone.get(waiting.key.meter_id, ())
        return self.nights[nth].fate(waiting, series, alone)


def together(
    kind: As, first: Decimal, second: Decimal, lengths: tuple[Millis, Millis] = (1, 1)
) -> Decimal:
    """One value of two that have the same name; a mean has two digits more than the finer one."""
    if kind in _KEEP_LATER:
        return second
    if kind == "minimum":
        return min(first, second)
    if kind == "maximum":
        return max(first, second)
    if kind == "consumption":
        return EXACT.add(first, second)
    parts = (EXACT.multiply(v, Decimal(n)) for v, n in zip((first, second), lengths, strict=True))
    exponents = (int(one.as_tuple().exponent) for one in (first, second))
    return EXACT.quantize(
        EXACT.divide(EXACT.add(*parts), Decimal(sum(lengths))),
        Decimal(1).scaleb(min(exponents) - 2),
    )


def with_more(alone: Alone, more: Iterable[Waiting], oldest: Instant) -> dict[str, list[list[int]]]:
    """What went alone, with these; without what is too old to be sent at all."""
    seconds = {
        name: {at for one in ranges for at in range(*one) if at * 1000 >= oldest}
        for name, ranges in alone.items()
    }
    for waiting in more:
        seconds.setdefault(waiting.key.meter_id, set()).add(waiting.stamp // 1000)
    return {name: _ranges(some) for name, some in seconds.items() if some}


def together_alone(alone: Alone, other: Alone) -> dict[str, list[list[int]]]:
    """What went alone by what two senders know."""
    seconds: dict[str, set[int]] = {}
    for known in (alone, other):
        for name, ranges in known.items():
            seconds.setdefault(name, set()).update(at for one in ranges for at in range(*one))
    return {name: _ranges(some) for name, some in seconds.items()}


def without(
    alone: Alone, corrected: Mapping[str, Collection[Instant]]
) -> dict[str, list[list[int]]]:
    """What went alone, but for these: they are to be sent anew, with their twins."""
    gone = {name: {at // 1000 for at in stamps} for name, stamps in corrected.items()}
    left = {
        name: {at for one in ranges for at in range(*one)} - gone.get(name, set())
        for name, ranges in alone.items()
    }
    return {name: _ranges(some) for name, some in left.items() if some}


def _ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Numbers as few ranges: those of one night have one step."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        last = found[-1] if found else None
        if last and len(range(*last)) == 1:
            last[1:] = number + 1, number - last[0]
        elif last and number == last[1] - 1 + last[2]:
            last[1] = number + 1
        else:
            found.append([number, number + 1, 1])
    return found


def _among(at: Instant, ranges: Sequence[Sequence[int]]) -> bool:
    return any(at // 1000 in range(*one) for one in ranges)
