"""What a counter cannot have done: values of a file beside those before and after them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final

from attrs import define, frozen

from gateway.clock import Instant, utc
from gateway.errors import Mistake
from gateway.metering.counter import Bound, Known, Suspect, judge, modulus_of
from gateway.metering.reading import SeriesKey
from gateway.metering.register import factor_of
from gateway.metering.settings import MeterSettings, SendSettings
from gateway.metering.source import Source, most_an_hour

_HINT: Final = "mend it, or --accept-doubtful: the meter may have been replaced, or gone round"


@frozen
class Point:
    """What a counter stood at; `line`: where the file says so, None where the buffer does."""

    stamp: Instant
    value: Decimal
    line: int | None = None

    def __str__(self) -> str:
        where = "in the buffer" if self.line is None else f"line {self.line}"
        return f"{self.value:f} of {utc(self.stamp)} ({where})"


def bounds(meters: Iterable[MeterSettings]) -> dict[SeriesKey, Bound]:
    """What the counter behind each meterID can do, as its values are sent: with the multiplier."""
    return {
        send.key: _bound(meter, send)
        for meter in meters
        for send in meter.send
        if send.as_ in ("counter", "consumption")
    }


def _bound(meter: MeterSettings, send: SendSettings) -> Bound:
    source, modulus, step = Source(meter, send.quantity), None, Decimal(0)
    if len(source.registers) == 1:
        factor = factor_of(source.registers[0], lambda _: None)
        if isinstance(factor, Decimal):
            modulus, step = modulus_of(source.registers[0], factor), abs(factor)
    wraps = None if modulus is None else modulus * source.multiplier
    return Bound(most_an_hour(meter, send.quantity), wraps, step * source.multiplier)


@define
class _Walk:
    """How far one series was looked at: its last value that is believed, the one before that, and
    what is suspected to be the first of another meter."""

    last: Point | None = None
    older: Point | None = None
    suspect: Suspect | None = None


class Doubts:
    """Takes the values of all series in the order of time, and says which are not believed, by the
    rules for a meter's reads."""

    def __init__(self, file: str, meters: Sequence[MeterSettings]) -> None:
        self._file = file
        self._bounds = bounds(meters)
        self._counters = {s.key for meter in meters for s in meter.send if s.as_ == "counter"}
        self._walks: defaultdict[SeriesKey, _Walk] = defaultdict(_Walk)

    def take(self, key: SeriesKey, point: Point) -> Iterator[tuple[Instant, Mistake]]:
        """The next value of a series; the stamp of the file's value that is in doubt, and why."""
        bound, walk = self._bounds.get(key), self._walks[key]
        before = walk.last
        if bound is None or (before is not None and point.stamp <= before.stamp):
            return
        if key in self._counters:
            blamed = _blamed(walk, point, bound)
            why = f"the counter {_moved(before, point)}, from {before} to {point}"
        else:
            most = _most(before, point, bound)
            walk.last = point
            blamed = point if most is not None and point.value > most else None
            why = f"the meter cannot have counted {point}, at most {most or 0:f}"
        if blamed is not None and blamed.line is not None:
            message = f"meterID {key.meter_id}: {why}"
            yield blamed.stamp, Mistake(self._file, blamed.line, 1, message, suggestion=_HINT)


def _blamed(walk: _Walk, point: Point, bound: Bound) -> Point | None:
    """Which of a counter's values is in doubt for this one; one of the buffer never is."""
    before = walk.last
    if before is None:
        walk.last = point
        return None
    known = Known(before.value, before.stamp)
    verdict = judge(known, walk.suspect, point.value, point.stamp, bound)
    if not verdict.believed:
        peak = walk.older is not None and walk.older.value <= point.value < before.value
        if before.line is not None and (peak or point.line is None):
            walk.last, walk.suspect = point, None
            return before
        if point.line is not None:
            walk.suspect = verdict.suspect
            return point
    walk.older, walk.last, walk.suspect = before, point, None
    return None


def _moved(before: Point | None, point: Point) -> str:
    fell = before is not None and point.value < before.value
    return "fell" if fell else "cannot have moved so far"


def _most(before: Point | None, point: Point, bound: Bound) -> Decimal | None:
    """What a meter can have consumed, which may be that of a whole gap."""
    most = None if before is None else bound.most(point.stamp - before.stamp)
    return bound.modulus if most is None else most
