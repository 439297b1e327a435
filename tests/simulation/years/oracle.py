"""What has to hold at every commit and every request, told from the true energy of each meter."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache
from itertools import combinations
from typing import Any, Final
from zoneinfo import ZoneInfo

from attrs import define, evolve, field

from gateway.buffer.views import GapLine
from gateway.clock import DAY, HOUR, MINUTE, SECOND, Instant, Millis
from gateway.energinet.batch import stamp_text
from gateway.metering.interval import (
    Repeat,
    next_boundary,
    previous_boundary,
    repeats,
)
from gateway.metering.reading import Commit, Gap, RawWords, Reading, SeriesKey
from gateway.metering.settings import MeterSettings, SendSettings
from tests.simulation.years.meters import POWER, Place, Seen, window
from tests.simulation.years.steps import Machine, Stretch

_BREAKS: Final = frozenset({"replaced", "no_baseline", "gap"})
"""Gaps at whose boundary a value was sampled all the same."""
_UNTIMED: Final[Millis] = SECOND
"""How far a value that got its time afterwards may be off it."""
_ROUND: Final[Millis] = 2 * MINUTE
"""What a round may take; if the clock is set meanwhile, what it read gets its time afterwards."""
_READS: Final = 3
"""So many reads that agree tell of another meter."""
_ZERO_STANDS: Final[Millis] = 30 * MINUTE
"""A zero that was shown for less may be of a meter that starts up: nothing is reckoned from it."""
_STALE: Final[Millis] = 7 * HOUR
"""After that nothing is stored that was read at a known time, however full the disk was."""
_TENTHS: Final = Decimal("0.06")
"""How far a mean is rounded, in tenths of a watt."""


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
    ahead: set[Instant] = field(factory=set)
    """Stamps that lay ahead when they were stored, by a clock that was wrong."""
    accepted: set[Instant] = field(factory=set)
    """Stamps of which Energinet's confirmation arrived."""
    first: Instant | None = None
    """The first boundary that had a value or a gap."""
    gaps: list[tuple[Instant, Gap]] = field(factory=list)
    """What was committed as missing, and the last boundary of each."""
    ledger_end: Instant = 0
    """The last stamp of them."""
    behind: list[tuple[Instant, Gap]] = field(factory=list)
    """Those that came when there were later ones, made while the clock was ahead: they may have a
    line with another reason already."""

    @property
    def kind(self) -> str:
        """What it is sent as; the integral of a power is a consumption to everybody else."""
        return "integral" if self.send.integrates else self.send.as_


@define(eq=False)
class Oracle:
    """Judges all that is stored and sent."""

    zone: ZoneInfo
    machine: Machine
    label: str
    rows: dict[SeriesKey, Row] = field(factory=dict)
    backfilled: set[SeriesKey] = field(factory=set)
    count: int = 0
    gaps: Counter[str] = field(factory=Counter)
    energy: dict[str, Decimal] = field(factory=lambda: defaultdict(Decimal))
    """Where what the counters moved has gone, by fate."""
    fired: Callable[[str], None] = lambda fault: None
    _wrong: list[tuple[Instant, Instant]] = field(factory=list)
    """True time in which the clock was wrong and taken to be right: intervals may be there twice,
    or never have been."""
    _wrong_since: Instant | None = None
    _is_set_right: bool = False

    def clock_is_wrong(self) -> None:
        """It was set, and nobody knows."""
        if self._wrong_since is None:
            self._wrong_since = self.machine.true - window(HOUR) - SECOND
        self._is_set_right = False

    def clock_is_right(self) -> None:
        """It is right again; so is what comes after the next commit, which tells of it."""
        self._is_set_right = True

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
        if self._is_set_right and self._wrong_since is not None:
            until = self.machine.true + window(HOUR) + SECOND
            self._wrong.append((self._wrong_since, until))
            self._wrong_since = None
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
                row.first = boundary if row.first is None else row.first
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
            if words is None or row.kind not in ("counter", "consumption"):
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
            if one.stamp > self.machine.true:
                row.ahead.add(one.stamp)
            if self.ambiguous(one.stamp):
                self.fired("an hour that the clock shows twice")
        if row.kind in ("counter", "consumption"):
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
                    fate = "stored" if stored else "dropped: repeated"
                    if base.device is not now.device:
                        fate = _untold(row.place, base, now)
                    if fate and moved == chain.moved:
                        self.energy[fate] += moved
                        row.chain = Chain(now)
                        if stored:
                            row.kept = None
                        return
                    tried.append(moved)
        name, told = row.send.key.meter_id, row.chain.moved
        raise Broken(f"{name}: {told} up to {boundary}, but the counter moved {tried}")

    def _gap(self, row: Row, boundary: Instant, gap: Gap) -> None:
        if gap.stamp <= row.ledger_end:
            row.behind.append((boundary, gap))
        else:
            row.gaps.append((boundary, gap))
            row.ledger_end = gap.stamp if gap.last is None else gap.last
        if row.kind != "consumption":
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
            since = min(one.true for one in row.place.seen[0] if one.total == base.total)
            if base.true - since < _ZERO_STANDS:
                return
        if not any(base.true <= at for at in row.place.changes):
            raise Broken(
                f"{row.send.key.meter_id}: {reason} at {boundary}, but it is the same meter"
            )

    def _bases(self, row: Row, boundary: Instant | None) -> list[Seen]:
        """What the counter may have stood at on a boundary of which nothing was stored."""
        place, far = row.place, row.send.every // 10 + _UNTIMED
        if boundary is None:
            return place.history
        at = {boundary - one.off for one in self.machine.stretches()} | {boundary}
        near = {id(one): one for each in at for one in place.counts(each - far, each + far)}
        return [one for one in near.values() if self._in_time(row, boundary, one)]

    def _seen(self, row: Row, boundary: Instant, shown: int) -> list[Seen]:
        some = row.place.seen.get(shown, ())
        fresh = self.machine.true - _STALE
        return [
            one
            for one in some
            if (one.true >= fresh or not one.synchronised) and self._in_time(row, boundary, one)
        ]

    def _in_time(self, row: Row, boundary: Instant, one: Seen) -> bool:
        """May a value that was seen then stand for this boundary? It is judged by what the clock
        showed, if that was believed, else by the time that it got afterwards."""
        if one.synchronised and 0 <= one.wall - boundary <= window(row.send.every):
            return True
        at = self._afterwards(one) if one.synchronised else one.true
        return at is not None and abs(at - boundary) <= row.send.every // 10 + _UNTIMED

    def _afterwards(self, one: Seen) -> Instant | None:
        """When it was by the clock that was set in the round that it is of; None: none was."""
        after = None
        for stretch in self.machine.stretches():
            if stretch.since <= one.true:
                break
            after = stretch
        if after is None or after.since - one.true > _ROUND:
            return None
        return one.true + after.off

    def _polled(self, row: Row, boundary: Instant, one: Reading) -> None:
        """It comes from polls that the clock showed within its interval, and that lie within it by
        the clock as it was when it was formed."""
        first = previous_boundary(boundary, row.send.every, self.zone)
        unit = POWER.scale * row.meter.multiplier
        if row.kind == "integral":
            unit *= Decimal(boundary - first) / (HOUR * 1000)
        value, tried = one.value / unit, []
        for stretch in self.machine.stretches():
            if stretch.until < self.machine.true - 2 * DAY:
                break
            if not stretch.believed:
                continue
            polls = _polls(row, first, boundary, stretch)
            if polls and _fits(row.kind, value, polls, first, boundary, row.send.every):
                return
            tried.append([power for _, power in polls])
        raise Broken(f"{one.key.meter_id}: {value} at {boundary}, polls were {tried}")

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

    def check_ledger(self, stored: Sequence[GapLine], kept: Instant) -> None:
        """Each interval of each meterID since `kept` has a value in the buffer, or a line of its
        ledger with the reason."""
        until = self.machine.true - 2 * HOUR
        lines: dict[SeriesKey, list[GapLine]] = defaultdict(list)
        for line in stored:
            lines[line.key].append(line)
        for key, row in self.rows.items():
            name, every, first = key.meter_id, row.send.every, row.first
            assert first is not None, name
            missing: dict[Instant, set[str]] = defaultdict(set)
            for line in lines[key]:
                start, end = self._boundary(key, line.first), self._boundary(key, line.last)
                for at in self._between(start, end, every):
                    missing[at].add(line.reason)
            for end, gap in row.gaps:
                for at in self._between(self._boundary(key, gap.stamp), end, every):
                    if at > kept and not self._unsure(at) and gap.reason not in missing[at]:
                        raise Broken(f"{name}: {at} has no line of the ledger for {gap.reason}")
            told = {self._boundary(key, stamp) for stamp in row.stored} | missing.keys()
            for end, gap in row.behind:
                for at in self._between(self._boundary(key, gap.stamp), end, every):
                    if at > kept and not self._unsure(at) and at not in told:
                        raise Broken(f"{name}: {at} has no line of the ledger for {gap.reason}")
            for at in self._between(max(first, kept), until, every):
                if at not in told and not self._unsure(at):
                    raise Broken(f"{name}: {at} has neither a value nor a line of the ledger")

    def _between(self, first: Instant, last: Instant, every: Millis) -> Iterator[Instant]:
        """The boundaries from `first` to `last`."""
        at = next_boundary(first - 1, every, self.zone)
        while at <= last:
            yield at
            at = next_boundary(at, every, self.zone)

    def _unsure(self, at: Instant) -> bool:
        """Was the clock wrong then?"""
        return any(first <= at <= last for first, last in self._wrong)


def _untold(place: Place, base: Seen, now: Seen) -> str:
    """What hides that another meter stands there, or that it began anew; empty: nothing does."""
    reads = [one for one in place.counts(base.true, now.true) if one.device is now.device]
    if sum(one.total < base.total for one in reads) >= _READS:
        return ""
    if place.max_power is not None:
        most = place.most_per_hour * (now.true - base.true) // HOUR + 1
        near = now.total - base.total <= most
        return "of two meters, as far apart as one may count" if near else ""
    if place.serial and now.device.serial != base.device.serial:
        # Known: the number is asked for once a day, and after the meter was silent.
        soon = now.true - now.device.since <= DAY + HOUR
        return "of two meters, before the serial number was asked for" if soon else ""
    return "of two meters, which nothing tells"


def _polls(row: Row, first: Instant, boundary: Instant, now: Stretch) -> list[tuple[Instant, int]]:
    """The polls that may count into an interval, if that ended by a clock that was set so: when
    that is by this clock, and the power."""
    last, found = boundary + window(row.send.every), []
    for poll in row.place.polls(first - now.off - _UNTIMED, last - now.off + _UNTIMED):
        if poll.true > now.until:
            break
        cut = poll.true < now.since <= poll.true + _ROUND
        if not poll.synchronised or cut or first <= poll.wall <= last:
            found.append((poll.true + now.off, poll.power))
    return found


def _fits(
    kind: str,
    value: Decimal,
    polls: list[tuple[Instant, int]],
    first: Instant,
    boundary: Instant,
    every: Millis,
) -> bool:
    """Can it have been made of these? Those about a boundary are of either interval, and one or
    two in ten may not have counted."""
    powers = [power for _, power in polls]
    if kind in ("last", "minimum", "maximum"):
        return value in powers
    if kind == "integral":
        powers = [max(power, 0) for power in powers]
    early = first + window(every)
    times = [at for at, _ in polls]
    head = sum(at <= early for at in times)
    tail = next((nth for nth, at in enumerate(times) if at >= boundary), len(times))
    inner = powers[head:tail]
    ends = [*((one,) for one in powers[tail:]), ()]
    for end in ends:
        for start in range(head, -1, -1):
            some = [*powers[start:head], *inner, *end]
            for left in _but_few(some, len(some) // 5 + 1):
                if left and abs(Decimal(sum(left)) / len(left) - value) <= _TENTHS:
                    return True
    return False


def _but_few(some: list[int], most: int) -> Iterator[list[int]]:
    """The list, and each without up to so many of its members."""
    for few in range(min(most, len(some)) + 1):
        for out in combinations(range(len(some)), few):
            yield [one for nth, one in enumerate(some) if nth not in out]


@cache
def nights(day: int, zone: ZoneInfo) -> tuple[Repeat, ...]:
    """What the site's clock shows twice about a day since 1970."""
    return repeats((day - 2) * DAY, (day + 3) * DAY, zone)


def _number(words: tuple[int, ...], place: Place) -> int:
    data = b"".join(word.to_bytes(2, "big") for word in words)
    if place.counter.encoding.type == "f32":
        return int(struct.unpack(">f", data)[0])
    if place.counter.encoding.type.startswith("bcd"):
        return int(data.hex())
    return int.from_bytes(data, "big")
