"""Stored readings → decoded again → sent again: after a mistake in a profile, a multiplier or a
meterID.

A person sees what was sent beside what it is now, and says yes; then the buffer gives the readings
their new value and lets them wait again. Nothing is sent again of what did not change, but for one
case: of two readings that are sent under one stamp, in the hour that the site's clock shows twice,
both go.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from attrs import evolve, frozen

from gateway.buffer.again import MISSING, Found, SeriesAgain, stored_as
from gateway.buffer.appending import Appended
from gateway.buffer.correcting import Era
from gateway.buffer.views import ExportRow, GapLine
from gateway.clock import DAY, Instant
from gateway.config.settings import GatewayConfig
from gateway.energinet.limits import oldest_allowed
from gateway.errors import GatewayError
from gateway.metering.again import (
    Again,
    ConsumptionAgain,
    CounterAgain,
    PolledAgain,
    decoded,
)
from gateway.metering.interval import (
    Repeat,
    latest_boundary,
    previous_boundary,
    repeats,
    window,
)
from gateway.metering.reading import (
    NO_TIME,
    Commit,
    Correction,
    RawWords,
    Reading,
    Sample,
    SeriesKey,
)
from gateway.metering.settings import MeterSettings, SendSettings
from gateway.metering.source import Source

_MAY_BE_MENDED: Final = frozenset(
    {"held", "not_available", "undecodable", "replaced", "no_baseline", "too_few_polls"}
)
"""Why a value may be missing though the meter gave its words."""
_SETTLED: Final = {f"parked:{reason}": reason for reason in ("too_old", "in_future", NO_TIME)}


class Shelf(Protocol):
    """What is read of the buffer."""

    def export(
        self,
        *,
        keys: Collection[SeriesKey] | None = None,
        since: Instant | None = None,
        until: Instant | None = None,
    ) -> AsyncIterator[list[ExportRow]]: ...

    def samples_between(
        self, meter: str, first: Instant, last: Instant
    ) -> AsyncIterator[list[Sample]]: ...

    async def last_before(
        self, keys: Collection[SeriesKey], before: Instant
    ) -> Mapping[SeriesKey, Sequence[ExportRow]]: ...

    async def gaps(self, since: Instant = 0) -> Sequence[GapLine]: ...

    async def eras(self) -> Mapping[SeriesKey, Sequence[Era]]: ...


class Desk(Shelf, Protocol):
    """What is written too."""

    async def correct(self, corrections: Sequence[Correction]) -> int: ...

    async def append(self, commit: Commit, *, past: bool = False) -> Appended: ...

    async def drop(self, readings: Sequence[tuple[SeriesKey, int, int]]) -> int: ...


@frozen
class Wish:
    """What a person asks for: the readings of a meter with stamps from `since` to before `until`.

    `former`: they were sent under this meterID by mistake.
    """

    meter: str
    since: Instant
    until: Instant
    former: str = ""


@frozen
class Item:
    """A stored reading, and what is to become of it."""

    row: ExportRow
    """Its state is `missing` where there was none."""
    key: SeriesKey
    """Where it is to be sent."""
    now: Again
    again: bool = False
    """Is it to be sent again?"""


class Digest:
    """What is to be sent again, in short: two that agree would send the same."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, items: Sequence[Item]) -> None:
        """The next of a wish."""
        for item in items:
            if item.again:
                key, row = item.key, item.row
                told = (*_names(row.key), *_names(key), row.stamp, row.value, item.now.value)
                self._hash.update(repr(tuple(map(str, told))).encode())

    def __str__(self) -> str:
        return self._hash.hexdigest()


class Resending:
    """One wish, held against what is stored. `now`: for what is too old to be sent, or not yet."""

    def __init__(self, config: GatewayConfig, wish: Wish, now: Instant) -> None:
        """Raises GatewayError where the configuration has no such meter."""
        self.meter: MeterSettings = config.meter(wish.meter)
        self._config = config
        self._zone = ZoneInfo(config.timezone)
        self._now = now
        self._oldest = oldest_allowed(now)
        self._repeats: tuple[Repeat, ...] = ()
        if config.energinet.timestamps == "local":
            self._repeats = repeats(wish.since - DAY, wish.until + DAY, self._zone)
        since, until = wish.since, wish.until
        for repeat in self._repeats:  # both readings of a stamp, or none
            if repeat.start < since < repeat.end:
                since = repeat.start
            if repeat.start < until < repeat.end:
                until = repeat.end
        self.wish = evolve(wish, since=since, until=until)

    async def items(self, shelf: Shelf) -> AsyncIterator[list[Item]]:
        """Every reading of the range, some at a time, in the order of time for each series.

        The readings of a repeated hour come together. Raises GatewayError, StoreError.
        """
        ways = await self._ways(shelf)
        since, until = self.wish.since, self.wish.until
        taken: set[tuple[SeriesKey, Instant]] = set()
        if self.wish.former:
            own = [way.send.key for way in ways.values()]
            async for rows in shelf.export(keys=own, since=since, until=until):
                taken |= {(row.key, row.stamp) for row in rows}
        await self._see_polls(shelf, ways)
        night: list[Item] = []
        async for rows in shelf.export(keys=list(ways), since=since, until=until):
            out: list[Item] = []
            for row in rows:
                way = ways[row.key]
                before = previous_boundary(row.stamp, way.send.every, self._zone)
                for found in way.take(row, before):
                    self._sort(way, found, taken, out, night)
            held = [row.stamp for way in ways.values() for row in way.held.values()]
            upto = min([rows[-1].stamp, *held])
            over = [item for item in night if self._is_over(item.row.stamp, upto)]
            night = [item for item in night if not self._is_over(item.row.stamp, upto)]
            yield out + self._together(over)
        out = []
        for way in ways.values():
            for found in way.rest():
                self._sort(way, found, taken, out, night)
        yield out + self._together(night)

    def _sort(
        self,
        way: SeriesAgain,
        found: Found,
        taken: Collection[tuple[SeriesKey, Instant]],
        out: list[Item],
        night: list[Item],
    ) -> None:
        inside = self.wish.since <= found.row.stamp < self.wish.until
        if found.row.state != "dropped" and inside:
            item = self._item(way, found, taken)
            (night if self._repeat(found.row.stamp) else out).append(item)

    async def apply(self, desk: Desk, items: Sequence[Item]) -> int:
        """Let these be sent again; how many are."""
        again = [item for item in items if item.again]
        corrected = 0
        if not self.wish.former:  # before what is new: a kill between the two sends no energy twice
            corrections = [
                Correction(item.key, item.row.stamp, item.row.value, item.now.value)
                for item in again
                if item.now.value is not None and item.row.state != MISSING
            ]
            corrected = await desk.correct(corrections)
        new = [item for item in again if item.row.state == MISSING or self.wish.former]
        readings = tuple(
            Reading(item.key, item.row.stamp, item.now.value, item.row.raw)
            for item in new
            if item.now.value is not None
        )
        stored = 0
        if readings:
            stored = (await desk.append(Commit(readings), past=True)).stored
        if not self.wish.former:
            return corrected + stored
        # What waits for the wrong meterID does not go there any more.
        moved = [item for item in items if item.again or item.now.reason == "has_own"]
        await desk.drop(
            [(one.row.key, one.row.n, one.row.id) for one in moved if one.row.state != MISSING]
        )
        return stored

    def shares_its_stamp(self, at: Instant) -> bool:
        """May another reading be sent under the same stamp?"""
        return self._repeat(at) is not None

    # ---------------------------------------------------------------------------------- details

    async def _ways(self, shelf: Shelf) -> dict[SeriesKey, SeriesAgain]:
        """By the series that is read: how its readings are decoded."""
        eras = await shelf.eras()
        sends = {send.key: send for send in self.meter.send}
        if self.wish.former:
            key, send = self._former(eras)
            sends = {key: send}
        earlier = await shelf.last_before(list(sends), self.wish.since)
        ways = {}
        for key, send in sends.items():
            known = [(era.last, self._fits(era, send)) for era in eras.get(key, ())]
            source = Source(self.meter, send.measured)
            ways[key] = way = SeriesAgain(key, self.meter.name, send, source, known)
            if send.as_ == "consumption" and not send.integrates:
                before = [stored_as(row) for row in earlier.get(key, ()) if way.fits(row.n)]
                way.counted = ConsumptionAgain(send, source, self._zone, before)
            elif send.as_ == "counter":
                way.counted = CounterAgain(send, source, self._zone)
        for gap in await shelf.gaps(self.wish.since):
            if gap.key in ways and gap.reason in _MAY_BE_MENDED and gap.first < self.wish.until:
                ways[gap.key].gaps.append((gap.first, gap.last))
        for way in ways.values():
            way.gaps.sort()
        return ways

    def _fits(self, era: Era, send: SendSettings) -> bool:
        """Is it the same value of the same meter? One that is named no more may have this name
        now."""
        was, names = era.series, {meter.name for meter in self._config.meters}
        same = (was.quantity, was.as_, was.every) == (send.quantity, send.as_, send.every)
        return same and (was.meter == self.meter.name or was.meter not in names)

    def _former(self, eras: Mapping[SeriesKey, Sequence[Era]]) -> tuple[SeriesKey, SendSettings]:
        """The series that was sent to by mistake, and where its values belong."""
        name = self.wish.former
        for meter in self._config.meters:
            if any(send.key.meter_id == name for send in meter.send):
                raise GatewayError(
                    f"meterID {name} is in use: {meter.name} sends to it",
                    hint="only values of a meterID that is configured no more can be moved",
                )
        found = [key for key in eras if key.meter_id == name]
        if not found:
            raise GatewayError(
                f"nothing is stored under meterID {name}", hint="`meter-gateway export` shows all"
            )
        matches = [
            (key, send)
            for key in found
            for send in self.meter.send
            if self._fits(eras[key][-1], send)
        ]
        if len(matches) != 1:
            was, how_many = eras[found[0]][-1].series, "more than one" if matches else "no"
            raise GatewayError(
                f"meterID {name} had {was.quantity} of {was.meter} as {was.as_}: {how_many} value"
                f" of {self.meter.name} is the same",
                hint="`quantity`, `as` and `every` have to be those under which they were stored",
            )
        return matches[0]

    async def _see_polls(self, shelf: Shelf, ways: Mapping[SeriesKey, SeriesAgain]) -> None:
        bus = self._config.bus_of(self.meter)
        label = self._config.energinet.label
        longest = 0
        for way in ways.values():
            if way.counted is None and (bus.poll < way.send.every or way.send.integrates):
                way.polled = PolledAgain(way.send, way.source, self._zone, label, bus.poll)
            if way.polled is not None or way.gaps:
                longest = max(longest, way.send.every)
        if not longest:
            return
        first, last = self.wish.since - 2 * longest, self.wish.until + 2 * longest
        async for samples in shelf.samples_between(self.meter.name, first, last):
            for way in ways.values():
                for sample in samples:
                    if way.polled is not None:
                        way.polled.take(sample)
                    elif way.counted is not None:
                        self._see_boundary(way, sample)
        for way in ways.values():
            if way.polled is not None:
                for at, value in way.polled.values.items():
                    way.see(at, value, RawWords())

    def _see_boundary(self, way: SeriesAgain, sample: Sample) -> None:
        """Words at a boundary that has no reading, though it was read."""
        every = way.send.every
        boundary = latest_boundary(sample.at, every, self._zone)
        if sample.at - boundary > window(every):
            return
        value = decoded(way.source, sample.raw)
        if isinstance(value, Decimal):
            way.see(self._stamp(way, boundary), value, sample.raw.only(way.source.registers))

    def _stamp(self, way: SeriesAgain, boundary: Instant) -> Instant:
        if way.send.as_ == "counter" or self._config.energinet.label == "end":
            return boundary
        return previous_boundary(boundary, way.send.every, self._zone)

    def _item(
        self, way: SeriesAgain, found: Found, taken: Collection[tuple[SeriesKey, Instant]]
    ) -> Item:
        row, now = found.row, found.now
        key = way.send.key
        moves = key != row.key
        reason = _SETTLED.get(row.state, "")
        if row.stamp < self._oldest:
            reason = "too_old"
        elif row.stamp > self._now:
            reason = "in_future"
        elif moves and (key, row.stamp) in taken:
            reason = "has_own"
        if reason or now.value is None:
            return Item(row, key, evolve(now, value=None, reason=reason or now.reason))
        changed = moves or row.state == MISSING or now.value != row.value
        return Item(row, key, now, again=changed)

    def _repeat(self, at: Instant) -> Repeat | None:
        return next((one for one in self._repeats if one.start <= at < one.end), None)

    def _is_over(self, at: Instant, last: Instant) -> bool:
        repeat = self._repeat(at)
        return repeat is not None and last >= repeat.end

    def _together(self, items: Sequence[Item]) -> list[Item]:
        """Where one of two readings with one stamp goes again, the other goes too."""
        going = {self._shown(item) for item in items if item.again}
        out = []
        for item in items:
            if not item.again and self._shown(item) in going and item.now.reason not in _NEVER:
                now = evolve(item.now, value=item.now.value or item.row.value, reason="")
                item = evolve(item, now=now, again=True)
            out.append(item)
        return out

    def _shown(self, item: Item) -> tuple[SeriesKey, Instant]:
        """Its series, and the first instant at which the site's clock shows its stamp."""
        at = item.row.stamp
        repeat = self._repeat(at)
        assert repeat is not None
        return item.row.key, at - repeat.length if at >= repeat.turn else at


_NEVER: Final = frozenset({"too_old", "in_future", NO_TIME, "has_own", "other_kind"})


def _names(key: SeriesKey) -> tuple[str, str]:
    return key.import_name, key.meter_id
