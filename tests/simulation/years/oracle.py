"""What has to hold at every commit and every request, told from the true energy of each meter."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from attrs import define, evolve, field

from gateway.clock import DAY, SECOND, Instant, Millis
from gateway.energinet.batch import stamp_text
from gateway.metering.interval import (
    Repeat,
    count_boundaries,
    next_boundary,
    previous_boundary,
    repeats,
)
from gateway.metering.reading import Commit, Gap, RawWords, Reading, SeriesKey
from gateway.metering.settings import MeterSettings, SendSettings
from tests.simulation.years.meters import POWER, Place, Seen, window

_BREAKS: Final = frozenset({"replaced", "no_baseline", "gap"})
"""Gaps at whose boundary a value was sampled all the same."""
_UNTIMED: Final[Millis] = SECOND
"""How far a value that got its time afterwards may be off it."""


class Broken(BaseException):
    """A promise was not kept. No border of the gateway catches it."""


@define(eq=False)
class Chain:
    """The consumption of one meterID: what was stored since a value whose counter is known."""

    base: Seen | None = None
    at: Instant | None = None
    """The boundary of a base of which only that is known."""
    moved: Decimal = Decimal(0)


@define(eq=False)
class Row:
    """One meterID as it is configured."""

    send: SendSettings
    meter: MeterSettings
    place: Place
    chain: Chain = field(factory=Chain)
    kept: Chain | None = None
    """The same without what was refused since because its stamp is taken: a restart goes on from
    what is stored."""
    stored: dict[Instant, Decimal] = field(factory=dict)
    words: dict[Instant, RawWords] = field(factory=dict)
    newest: Instant = 0
    """The stamp of the last one."""
    accepted: set[Instant] = field(factory=set)
    """Stamps of which Energinet's confirmation arrived."""
    settled: int = 0
    """Boundaries that have a value or a gap."""
    first: Instant | None = None
    last: Instant = 0
    """The first and the last of them."""


@define(eq=False)
class Oracle:
    """Judges all that is stored and sent."""

    zone: ZoneInfo
    label: str
    rows: dict[SeriesKey, Row] = field(factory=dict)
    backfilled: set[SeriesKey] = field(factory=set)
    count: int = 0
    gaps: Counter[str] = field(factory=Counter)
    energy: dict[str, Decimal] = field(factory=lambda: defaultdict(Decimal))
    """Where what the counters moved has gone, by fate."""
    fired: Callable[[str], None] = lambda fault: None
    clock_was_wrong: bool = False
    """Was the clock set while it was taken to be right? Some intervals are there twice then."""

    def configure(self, meters: tuple[MeterSettings, ...], places: Mapping[str, Place]) -> None:
        """These are the series now."""
        for meter in meters:
            for send in meter.send:
                row = self.rows.get(send.key)
                if row is None:
                    self.rows[send.key] = Row(send, meter, places[meter.name])
                else:
                    row.send, row.meter = send, meter

    # ---------------------------------------------------------------------------------- storing

    def committed(self, commit: Commit, repeated: tuple[Reading, ...]) -> None:
        """What the buffer took."""
        again = {id(one) for one in repeated}
        events: dict[SeriesKey, list[tuple[Instant, Reading | Gap]]] = defaultdict(list)
        for reading in commit.readings:
            if reading.key not in self.rows:
                self.count += id(reading) not in again
                continue
            events[reading.key].append((self._boundary(reading.key, reading.stamp), reading))
        for gap in commit.gaps:
            last = gap.stamp if gap.last is None else gap.last
            self.gaps[gap.reason] += gap.count
            events[gap.key].append((self._boundary(gap.key, last), gap))
        for key, some in events.items():
            row = self.rows[key]
            for boundary, one in sorted(some, key=lambda each: each[0]):
                row.settled += one.count if isinstance(one, Gap) else 1
                row.first = boundary if row.first is None else row.first
                row.last = boundary
                if isinstance(one, Gap):
                    self._gap(row, boundary, one)
                else:
                    self._reading(row, boundary, one, stored=id(one) not in again)

    def without_time(self, readings: Sequence[Reading], stored: int) -> None:
        """Readings were parked whose time nobody knows."""
        self.count += stored
        for one in readings:
            row = self.rows[one.key]
            words = one.raw.lookup(row.place.counter)
            if words is None or row.send.as_ not in ("counter", "consumption"):
                continue
            seen = row.place.seen.get(_number(words, row.place), ())
            if not any(not each.synchronised and each.true <= one.stamp for each in seen):
                raise Broken(f"{one.key.meter_id}: {one.value} without time was never shown")

    def _boundary(self, key: SeriesKey, stamp: Instant) -> Instant:
        send = self.rows[key].send
        if send.as_ == "counter" or self.label == "end":
            return stamp
        return next_boundary(stamp, send.every, self.zone)

    def _reading(self, row: Row, boundary: Instant, one: Reading, *, stored: bool) -> None:
        self.count += stored or one.raw != row.words[one.stamp]
        if stored:
            if one.stamp in row.stored:
                raise Broken(f"{one.key.meter_id} has {one.stamp} twice")
            row.stored[one.stamp] = one.value
            row.words[one.stamp] = one.raw
            row.newest = one.stamp
            if self.ambiguous(one.stamp):
                self.fired("an hour that the clock shows twice")
        if row.send.as_ in ("counter", "consumption"):
            if not stored and row.kept is None:
                row.kept = evolve(row.chain)
            self._counted(row, boundary, one, stored=stored)
        else:
            self._polled(row, boundary, one)

    def _counted(self, row: Row, boundary: Instant, one: Reading, *, stored: bool) -> None:
        scale = row.place.counter.scale * row.meter.multiplier
        if row.send.as_ == "consumption":
            row.chain.moved += one.value
            if stored and row.kept is not None:
                row.kept.moved += one.value
            if not one.raw.blocks:  # a part of a gap that is spread; the whole comes last
                return
        words = one.raw.lookup(row.place.counter)
        if words is None:
            raise Broken(f"{one.key.meter_id} at {one.stamp} has no words")
        shown = _number(words, row.place)
        seen = self._seen(row, boundary, shown)
        if not seen:
            raise Broken(
                f"{one.key.meter_id}: {one.value} ({shown}) at boundary {boundary} was never shown"
            )
        if row.send.as_ == "counter":
            if one.value != shown * scale:
                raise Broken(f"{one.key.meter_id}: {one.value} is not {shown} × {scale}")
            return
        self._conserved(row, boundary, seen, scale, stored=stored)

    def _conserved(
        self, row: Row, boundary: Instant, seen: list[Seen], scale: Decimal, *, stored: bool
    ) -> None:
        """What was stored since the base is what the counter moved, to the last digit."""
        tried = []
        for chain in (row.chain, row.kept) if stored else (row.chain,):
            if chain is None:
                continue
            for base in [chain.base] if chain.base else self._bases(row, chain.at):
                for now in seen:
                    moved = (now.total - base.total) * scale
                    if base.device is now.device and moved == chain.moved:
                        self.energy["stored" if stored else "refused: its stamp is taken"] += moved
                        row.chain = Chain(now)
                        if stored:
                            row.kept = None
                        return
                    tried.append(moved)
        name, told = row.send.key.meter_id, row.chain.moved
        raise Broken(f"{name}: {told} up to {boundary}, but the counter moved {tried}")

    def _gap(self, row: Row, boundary: Instant, gap: Gap) -> None:
        if row.send.as_ != "consumption":
            return
        chain = row.chain
        if gap.reason == "buffer_full":
            row.chain, row.kept = Chain(None, boundary), None
            self.energy["lost on a full disk"] += gap.count
        elif gap.reason in _BREAKS and gap.count == 1:
            self._may_break(row, boundary, gap.reason)
            row.chain, row.kept = Chain(None, boundary), None
            if chain.base is not None:
                self.energy[gap.reason] += 1

    def _may_break(self, row: Row, boundary: Instant, reason: str) -> None:
        base = row.chain.base
        if reason == "gap" and row.send.gap == "skip":
            return
        if base is None:
            return
        if reason == "no_baseline" and base.total % row.place.modulus == 0:
            return
        if not any(base.true <= at for at in row.place.changes):
            raise Broken(
                f"{row.send.key.meter_id}: {reason} at {boundary}, but it is the same meter"
            )

    def _bases(self, row: Row, boundary: Instant | None) -> list[Seen]:
        """What the counter may have stood at on a boundary of which nothing was stored."""
        found = [one for some in row.place.seen.values() for one in some]
        if boundary is None:
            return found
        return [one for one in found if self._in_time(row, boundary, one)]

    def _seen(self, row: Row, boundary: Instant, shown: int) -> list[Seen]:
        some = row.place.seen.get(shown, ())
        return [one for one in some if self._in_time(row, boundary, one)]

    def _in_time(self, row: Row, boundary: Instant, one: Seen) -> bool:
        """May a value that was seen then stand for this boundary?"""
        if one.synchronised:
            return 0 <= one.wall - boundary <= window(row.send.every)
        return abs(one.true - boundary) <= row.send.every // 10 + _UNTIMED

    def _polled(self, row: Row, boundary: Instant, one: Reading) -> None:
        first = previous_boundary(boundary, row.send.every, self.zone)
        last = boundary + window(row.send.every)
        polls = []
        for true, wall, power in reversed(row.place.powers):
            if first <= wall <= last or first - _UNTIMED <= true <= last + _UNTIMED:
                polls.append(power)
            elif polls and true < first - DAY:
                break
        scale = POWER.scale * row.meter.multiplier
        if not polls or not min(polls) * scale <= one.value <= max(polls) * scale:
            raise Broken(f"{one.key.meter_id}: {one.value} W at {boundary}, polls were {polls}")

    # ------------------------------------------------------------------------------- at the end

    def texts(self, timestamps: Any) -> dict[str, dict[str, list[tuple[Instant, Decimal]]]]:
        """MeterID to the stamp as it is sent to the readings of that name."""
        found: dict[str, dict[str, list[tuple[Instant, Decimal]]]] = {}
        for key, row in self.rows.items():
            names = found.setdefault(key.meter_id, {})
            for at, value in sorted(row.stored.items()):
                names.setdefault(stamp_text(at, self.zone, timestamps), []).append((at, value))
        return found

    def ambiguous(self, at: Instant) -> bool:
        """Does the site's clock show this time twice?"""
        return any(one.start <= at < one.end for one in nights(at // DAY, self.zone))

    def check_ledger(self) -> None:
        """Each interval of each meterID has a value, or a gap with its reason."""
        for key, row in self.rows.items():
            if row.first is None or self.clock_was_wrong:
                continue
            first = previous_boundary(row.first, row.send.every, self.zone)
            count = count_boundaries(first, row.last, row.send.every, self.zone)
            if row.settled < count:
                raise Broken(f"{key.meter_id}: {row.settled} of {count} intervals are told of")


@cache
def nights(day: int, zone: ZoneInfo) -> tuple[Repeat, ...]:
    """What the site's clock shows twice about a day since 1970."""
    return repeats((day - 2) * DAY, (day + 3) * DAY, zone)


def _number(words: tuple[int, ...], place: Place) -> int:
    data = b"".join(word.to_bytes(2, "big") for word in words)
    if place.counter.encoding.type.startswith("bcd"):
        return int(data.hex())
    return int.from_bytes(data, "big")
