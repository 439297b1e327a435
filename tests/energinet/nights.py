"""Nights on which the clock goes back, drawn from a number: what is stored when, and what comes."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo, available_timezones

from attrs import define, field

from gateway.clock import DAY, HOUR, MINUTE, SECOND, Instant, Millis
from gateway.metering.interval import Repeat, next_boundary, repeats
from gateway.metering.reading import AS, As, Commit, Reading, SeriesKey
from tests.energinet.made import START, Reply, World, series

EVERIES = tuple(n * MINUTE for n in (5, 10, 15, 20, 30, 40, 45, 60, 120, 1440))
EVENTS = (
    "upload.unanswered", "upload.refused", "upload.missing", "upload.smaller", "upload.ambiguous",
    "upload.short",
)  # fmt: skip


@cache
def nights() -> list[tuple[str, Repeat]]:
    """Every night of the last years on which a zone's clock went back."""
    names = sorted(available_timezones() - {"localtime", "Factory"})
    first = START - 4 * 365 * DAY
    return [(name, one) for name in names for one in repeats(first, START, ZoneInfo(name))]


@define
class Figures:
    """What the courses came to."""

    requests: int = 0
    kills: int = 0
    names: Counter[str] = field(factory=Counter)


@define
class Stored:
    """A reading, and when it reaches the buffer."""

    at: Instant
    reading: Reading


@define
class Course:
    """One night at one site: a meterID of every kind, each with its own pattern of what is lost."""

    draw: random.Random
    figures: Figures
    zone: str = field(init=False)
    night: Repeat = field(init=False)
    every: Millis = field(init=False)
    readings: list[Stored] = field(factory=list)
    _zone: ZoneInfo = field(init=False)
    closes: Instant = field(init=False)
    """When what has no twin goes alone."""

    def __attrs_post_init__(self) -> None:
        """Draw the place, the night, the interval, and what of it is stored when."""
        draw = self.draw
        self.zone, self.night = draw.choice(nights())
        self.every = draw.choice(EVERIES)
        night, zone = self.night, ZoneInfo(self.zone)
        self._zone = zone
        self.closes = night.end + night.length + DAY
        around = max(min(4 * self.every, 2 * HOUR), self.every)
        stamps = []
        at = next_boundary(night.start - around - 1, self.every, zone)
        while at < night.end + around:
            stamps.append(at)
            at = next_boundary(at, self.every, zone)
        for kind in AS:
            share = draw.choice([1.0, 1.0, 0.9, 0.5])
            came = [at for at in stamps if draw.random() < share]
            # The stops: from one stamp to the next stored the buffer gets nothing, then all.
            until: Instant = 0
            for stamp in came:
                value = Decimal(draw.randint(-(10**6), 10**9)).scaleb(-draw.choice([0, 3, 12]))
                if draw.random() < 0.15:
                    until = stamp + draw.choice([MINUTE, HOUR, 5 * HOUR, 20 * HOUR])
                if draw.random() < 0.03:
                    until = self.closes + draw.choice([HOUR, 10 * HOUR])
                stored = max(stamp + draw.randint(1, 40) * SECOND, until)
                self.readings.append(Stored(stored, Reading(SeriesKey("", kind), stamp, value)))
        self.readings.sort(key=lambda one: (one.at, one.reading.stamp))

    async def run(self, folder: Path) -> None:
        """Let it happen, and compare what Energinet has with what the meters showed."""
        draw = self.draw
        start = min(self.readings[0].at, self.night.start) - MINUTE
        world = World(
            folder / "readings.db", start=start, zone=self.zone,
            max_payload=draw.choice([250, 1_000, 500_000]),
        )  # fmt: skip
        world.script = self._answer
        kinds = [series(kind, as_=kind, every=self.every) for kind in AS]
        await world.start(*kinds)
        if backlog := draw.choice([0, 0, 60]):
            old = [start - DAY - nth * MINUTE for nth in range(backlog)]
            await world.store.append(
                Commit(tuple(Reading(SeriesKey("", "mean"), at, Decimal(7)) for at in sorted(old)))
            )
        waiting = list(self.readings)
        while waiting:
            at = waiting[0].at
            await self._pass(world, at)
            now = [one.reading for one in waiting if one.at == at]
            waiting = [one for one in waiting if one.at != at]
            await world.store.append(Commit(tuple(now)))
            world.uploader.poke()
        world.script = lambda _: None
        await self._pass(world, self.closes)
        await world.slots(30)
        await self.check(world)
        self.figures.requests += len(world.sent)
        await world.end()

    async def _pass(self, world: World, until: Instant) -> None:
        """Let time pass up to an instant, with kills on the way."""
        while (left := until - world.clock.now()) > 0:
            await world.clock.pass_(min(left, self.draw.choice([HOUR, 6 * HOUR])) / 1000)
            if self.draw.random() < 0.2:
                self.figures.kills += 1
                await world.restart()

    def _answer(self, data: bytes) -> Reply | None:
        match self.draw.choice(["good", "good", "good", "lost", "503", "missing", "short"]):
            case "lost":
                return Reply(store=True, error="timeout")
            case "503":
                return Reply(503)
            case "missing":
                name = self.draw.choice(AS)
                entries = [_entry(one) for one in json.loads(data) if one["meterID"] != name]
                return Reply(200, body=json.dumps(entries).encode(), store=True)
            case "short" if data.count(b"],[") > 20:  # never down to single values
                short = [{**_entry(one), "number_of_values": 0} for one in json.loads(data)]
                return Reply(200, body=json.dumps(short).encode(), store=True)
        return None

    # ------------------------------------------------------------------------------- the truth

    async def check(self, world: World) -> None:
        """Under every name there is what the meters showed, and each reading is once in there, or
        parked; no name was ever sent with two values, but for a later reading that replaces."""
        counts = await world.store.check_counts()
        assert counts.balanced
        assert (counts.pending, counts.in_flight, counts.dropped) == (0, 0, {})
        states = {
            (row.key.meter_id, row.stamp): row.state
            async for rows in world.store.export()
            for row in rows
        }
        sent: dict[tuple[str, str], list[tuple[Instant, Decimal]]] = {}
        for request in world.sent:
            for one in json.loads(request.data, parse_float=Decimal, parse_int=Decimal):
                for name, value in one["values"]:
                    sent.setdefault((one["meterID"], name), []).append((request.began, value))
        names: dict[tuple[str, str], list[Stored]] = {}
        for one in sorted(self.readings, key=lambda one: one.reading.stamp):
            name = one.reading.key.meter_id, self.written(one.reading.stamp)
            names.setdefault(name, []).append(one)
        for name, some in names.items():
            lost = self._name(name, some, sent[name], world.standin.received[name[0]][name[1]])
            for one in some:
                state = states[name[0], one.reading.stamp]
                assert state in (("parked:dst", "confirmed") if one in lost else ("confirmed",))
        assert not [one for one in world.standin.violations if ", now " not in one]
        assert all(gap >= 1 for gap in world.gaps)

    def _name(
        self,
        name: tuple[str, str],
        some: list[Stored],
        sent: list[tuple[Instant, Decimal]],
        held: Decimal,
    ) -> list[Stored]:
        """Which of the readings of a name may be parked."""
        kind = cast(As, name[0])
        first_sent = sent[0][0]
        before = [one for one in some if one.at <= first_sent]
        values = [one.reading.value for one in before]
        if len(before) == 2:
            expected = self._together(kind, before)
        else:
            expected = values[0]
            collide = self.every <= self.night.length
            if collide and self.night.start <= before[0].reading.stamp < self.night.end:
                assert first_sent >= self.closes, "alone, though its twin might have come"
        assert sent[0][1] == expected, name
        later = [one for one in some if one not in before]
        replaces = kind in ("counter", "last") and later == some[1:]
        what = "pair" if len(before) == 2 else "late" if later else "alone"
        self.figures.names[f"{what} {kind}"] += 1
        allowed = {expected, some[1].reading.value} if later and replaces else {expected}
        assert {value for _, value in sent} <= allowed, "changed"
        if later and replaces:
            assert held == some[1].reading.value
            return []
        assert held == expected
        return later

    def _together(self, kind: As, both: list[Stored]) -> Decimal:
        first, second = (one.reading.value for one in both)
        match kind:
            case "consumption":
                return first + second
            case "mean":
                ends = [next_boundary(one.reading.stamp, self.every, self._zone) for one in both]
                long = [end - one.reading.stamp for one, end in zip(both, ends, strict=True)]
                mean = (Fraction(first) * long[0] + Fraction(second) * long[1]) / sum(long)
                digits = 2 - min(int(v.as_tuple().exponent) for v in (first, second))
                return Decimal(round(mean * 10**digits)).scaleb(-digits)
            case "minimum":
                return min(first, second)
            case "maximum":
                return max(first, second)
        return second

    def written(self, at: Instant) -> str:
        """A stamp as people on the site read it off a clock."""
        local = datetime.fromtimestamp(at // 1000, self._zone).replace(tzinfo=None)
        return local.isoformat(timespec="seconds" if local.second else "minutes")


def _entry(one: dict[str, object]) -> dict[str, object]:
    return {
        "meterID": one["meterID"],
        "number_of_values": len(one["values"]),  # type: ignore[arg-type]
        "status": 201,
    }
