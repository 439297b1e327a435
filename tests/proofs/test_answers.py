"""P2, P5, P6, P7, P8: random courses of every answer, kills, reboots and steps of the clock.

The uploader, the real buffer and the stand-in's rules in virtual time, against a model of what
was stored. Each course is drawn from its number, so that a failing one can be run alone. Nothing
may be lost, changed, sent early, or taken for confirmed that Energinet does not hold; and once
the faults end, everything is delivered.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from attrs import define, field

from gateway.clock import DAY, HOUR, MINUTE, SECOND, Instant
from gateway.energinet.batch import stamp_text
from gateway.metering.reading import Commit, Reading, SeriesKey
from tests.energinet.made import START, ZONE, Reply, World, series

COURSES = 60
STEPS = 60
BACKLOG = 3_000
"""Values of the meter at fault: six bodies of 16 kB."""
METERS = ("701", "702", "703", "704", "705")
EVENTS = (
    "upload.refused", "upload.unanswered", "upload.token", "upload.token_shared",
    "upload.smaller", "upload.missing", "upload.short", "upload.parked",
)  # fmt: skip

WHOLE: Mapping[str, Callable[[random.Random], Reply]] = {
    "html": lambda _: Reply(200, body=b"<html>"),
    "cut off": lambda _: Reply(200, body=b'[{"meterID":"701"', whole=False),
    "stored, html": lambda _: Reply(200, body=b"<html>", store=True),
    "3xx": lambda d: Reply(d.choice([301, 302, 307, 308]), {"location": "https://else.where/"}),
    "400": lambda d: Reply(d.choice([400, 422])),
    "401": lambda d: Reply(d.choice([401, 403])),
    "404": lambda d: Reply(d.choice([404, 405, 410, 418])),
    "409": lambda _: Reply(409),
    "413": lambda _: Reply(413),
    "429": lambda d: Reply(429, {"retry-after": str(d.choice([0, 1, 900, 7200, 10**9]))}),
    "5xx": lambda d: Reply(d.choice([100, 500, 502, 503, 599, 600])),
    "refused": lambda d: Reply(error=d.choice(["refused", "dns", "tls", "clock"]), took=0.1),
    "timeout": lambda _: Reply(took=3600),
    "stored, no answer": lambda _: Reply(store=True, error="timeout", took=30),
}
ENTRIES = ("confirmed", "missing", "short", "refused", "contradicted", "malformed")


@define
class Figures:
    """What a course came to."""

    requests: int = 0
    values: int = 0
    kills: int = 0
    steps: int = 0
    rows: Counter[str] = field(factory=Counter)


@define
class Course:
    """One drawn course: what is done to the sender, and what must be true of it."""

    world: World
    draw: random.Random
    figures: Figures
    stored: dict[tuple[str, str], Decimal] = field(factory=dict)
    held: dict[tuple[str, str], Decimal] = field(factory=dict)
    """What Energinet took, by meterID and stamp as it was sent."""
    told: set[tuple[str, str]] = field(factory=set)
    """Values that were in an answer which confirmed them."""
    at: Instant = START - 300 * DAY
    faulty: frozenset[str] = frozenset()
    mended: bool = False

    # ------------------------------------------------------------------------------ Energinet

    def answer(self, data: bytes) -> Reply | None:
        """Drawn anew for each request; what it takes is remembered."""
        sets = json.loads(data, parse_float=Decimal, parse_int=Decimal)
        for one in sets:
            for stamp, value in one["values"]:
                row = (one["meterID"], stamp)
                assert self.stored[row] == value, f"{row} was never stored as {value}"
        self.figures.requests += 1
        if self.mended:
            self._take(sets, {})
            self._confirm(sets)
            return None
        if self.draw.random() < 0.5:
            row = self.draw.choice(list(WHOLE))
            self.figures.rows[row] += 1
            reply = WHOLE[row](self.draw)
            if reply.store:
                self._take(sets, {})
            return reply
        return self._list(sets)

    def _list(self, sets: list[dict[str, object]]) -> Reply:
        entries: list[object] = []
        kinds: dict[str, str] = {}
        for one in sets:
            name = str(one["meterID"])
            count = len(one["values"])  # type: ignore[arg-type]
            kind = self.draw.choice(ENTRIES) if name in self.faulty else "confirmed"
            kinds[name] = kind
            self.figures.rows[kind] += 1
            entry: dict[str, object] = {"meterID": name, "number_of_values": count, "status": 201}
            if kind == "short":
                entry["number_of_values"] = count + self.draw.choice([-1, 1])
            elif kind == "refused":
                entry |= {"status": self.draw.choice([0, 100, 300, 404, 500]), "x": None}
            elif kind == "malformed":
                entry["status"] = self.draw.choice(["201", 201.0, True, None])
            if kind != "missing":
                entries.append(entry)
            if kind == "contradicted":
                entries.append({**entry, "status": 500})
        self._take(sets, kinds)
        self._confirm([one for one in sets if kinds[str(one["meterID"])] == "confirmed"])
        self.draw.shuffle(entries)
        return Reply(200, body=json.dumps(entries).encode(), took=self.draw.choice([0.2, 5, 59]))

    def _take(self, sets: list[dict[str, object]], kinds: Mapping[str, str]) -> None:
        for one in sets:
            name = str(one["meterID"])
            if kinds.get(name, "confirmed") in ("confirmed", "missing"):
                for stamp, value in one["values"]:  # type: ignore[attr-defined]
                    was = self.held.setdefault((name, stamp), value)
                    assert was == value, "sent again, but changed"

    def _confirm(self, sets: list[dict[str, object]]) -> None:
        for one in sets:
            self.told |= {(str(one["meterID"]), at) for at, _ in one["values"]}  # type: ignore[attr-defined]

    # ------------------------------------------------------------------------- what is done to it

    async def step(self) -> None:
        """Something happens, and then everything is checked."""
        world, draw = self.world, self.draw
        match draw.choice("ssssspppppkrwwf"):
            case "s":
                await self.store(draw.randint(1, 12))
            case "p":
                await world.slots(draw.choice([0.1, 0.5, 1.05, 3, 12, 40]))
            case "k":
                self.figures.kills += 1
                await world.clock.pass_(draw.uniform(0, 120))
                await world.restart()
            case "r":
                self.figures.kills += 1
                late = draw.choice([0, 0, HOUR, 200 * DAY])
                await world.reboot(
                    off=draw.choice([SECOND, 5 * MINUTE, 3 * HOUR]),
                    wrong_by=-late,
                    synchronised=not late,
                )
                if late:
                    await world.clock.pass_(draw.choice([5, 400, 4000]))
                    world.clock.step(late)
                    world.clock.is_synchronised = True
            case "w":
                self.figures.steps += 1
                by = draw.choice([-1, 1]) * draw.choice([SECOND, HOUR, 40 * DAY, 6 * 365 * DAY])
                world.clock.step(by)
                await world.slots(draw.choice([0.2, 2]))
                world.clock.step(-by)
                await world.slots(0.11)  # a reboot before it is noticed could not be told of it
            case "f":
                self.faulty = frozenset(draw.sample(METERS, draw.randint(0, 2)))
        await self.check()

    async def store(self, count: int) -> None:
        """So many values of some meters."""
        readings = []
        for _ in range(count):
            self.at += 10 * SECOND * self.draw.randint(1, 30)
            for name in self.draw.sample(METERS, self.draw.randint(1, len(METERS))):
                value = Decimal(self.draw.randint(-(10**6), 10**9)).scaleb(-3)
                text = stamp_text(self.at, ZoneInfo(ZONE), "utc")
                self.stored[name, text] = value
                readings.append(Reading(SeriesKey("", name), self.at, value))
        await self.world.store.append(Commit(tuple(readings)))
        self.world.uploader.poke()
        self.figures.values += len(readings)

    async def check(self) -> None:
        """P5, P6, and nothing confirmed that was not."""
        world = self.world
        assert world.standin.violations == []
        assert all(gap >= 1 for gap in world.gaps), "early"
        counts = await world.store.counts()
        assert counts.balanced
        assert counts.stored == len(self.stored)
        assert not counts.dropped
        confirmed = await self.confirmed()
        assert confirmed <= self.told, "confirmed, but no answer said so"
        assert confirmed <= self.held.keys(), "confirmed, but Energinet does not hold it"

    async def confirmed(self) -> set[tuple[str, str]]:
        zone = ZoneInfo(ZONE)
        return {
            (row.key.meter_id, stamp_text(row.stamp, zone, "utc"))
            async for rows in self.world.store.export()
            for row in rows
            if row.state == "confirmed"
        }

    async def end_well(self) -> None:
        """The faults end: whatever waits is delivered by itself."""
        self.mended = True
        self.faulty = frozenset()
        for _ in range(60):
            await self.world.slots(10)
            counts = await self.world.store.counts()
            if not counts.pending and not counts.in_flight and not self._whole_parked():
                break
        await self.check()
        counts = await self.world.store.counts()
        assert counts.pending == counts.in_flight == 0
        single = await self.world.store.parked()
        reasons = {line.reason for line in single}
        assert all(reason.startswith("counted ") for reason in reasons), reasons
        assert counts.confirmed + sum(line.count for line in single) == len(self.stored)
        for row in await self.confirmed():
            assert self.held[row] == self.stored[row]

    def _whole_parked(self) -> bool:
        return bool(self.world.uploader.status().parked)


async def test_random_courses_of_answers_lose_nothing_and_are_never_early(
    tmp_path: Path, short: bool, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    figures = Figures()
    courses = COURSES // (6 if short else 1)
    for number in range(courses):
        world = World(tmp_path / str(number) / "readings.db", timestamps="utc")
        course = Course(world, random.Random(number), figures)
        world.script = course.answer
        await world.start(*(series(name) for name in METERS))
        try:
            for _ in range(STEPS):
                await course.step()
            await course.end_well()
        except BaseException:
            print(f"course {number}")
            raise
        finally:
            await world.end()
    print(
        f"{courses} courses, {figures.requests} requests, {figures.values} values,"
        f" {figures.kills} kills and reboots, {figures.steps} steps of the clock:"
        f" lost 0, early 0, wrongly confirmed 0, changed 0; answers {dict(figures.rows)}"
    )
    assert set(figures.rows) == {*WHOLE, *ENTRIES}, "a row was never drawn"


async def test_a_meter_that_is_judged_alone_delays_no_other(
    tmp_path: Path, short: bool, expected_events: Callable[..., None]
) -> None:
    """P7: with a meter that is missing, short or refused at any time, the others arrive at once."""
    expected_events(*EVENTS)
    slowest: dict[str, float] = {}
    requests = 0
    for kind in ("missing", "short", "refused", "contradicted", "malformed"):
        for seed in range(2 if short else 12):
            draw = random.Random(seed)
            path = tmp_path / f"{kind}-{seed}" / "readings.db"
            world = World(path, timestamps="utc", max_payload=16_000)
            course = Course(world, draw, Figures(), faulty=frozenset(["701"]))
            await world.start(*(series(name) for name in METERS))

            def answer(data: bytes, course: Course = course, kind: str = kind) -> Reply:
                sets = json.loads(data, parse_float=Decimal, parse_int=Decimal)
                course.draw = _Always(kind)
                return course._list(sets)

            world.script = answer
            await world.store.append(_backlog("701", BACKLOG, course))
            late = 0.0
            for _ in range(40):
                course.draw = draw
                course.at = max(course.at, START - 100 * DAY)
                before = set(course.stored)
                await course.store(draw.randint(1, 20))
                fresh = {row for row in course.stored.keys() - before if row[0] != "701"}
                began = world.true()
                while not fresh <= course.told:
                    await world.slots(0.05)
                    late = max(late, (world.true() - began) / world.settings.request_interval)
                    assert late < 2.5, f"{kind} {seed}: others are delayed"
            slowest[kind] = max(slowest.get(kind, 0.0), late)
            requests += len(world.sent)
            await world.end()
    shown = ", ".join(f"{kind} {late:.2f}" for kind, late in slowest.items())
    print(
        f"one meter at fault with {BACKLOG} values, four others, {requests} requests: the others'"
        f" values were confirmed at the latest after so many slots: {shown}"
    )


class _Always(random.Random):
    """Draws one kind of entry for the meter at fault; everything else as ever."""

    def __init__(self, kind: str) -> None:
        super().__init__(1)
        self._kind = kind

    def choice(self, seq):  # type: ignore[no-untyped-def]
        return self._kind if seq is ENTRIES else super().choice(seq)


def _backlog(name: str, count: int, course: Course) -> Commit:
    first = START - 200 * DAY
    readings = []
    for nth in range(count):
        at = first + nth * MINUTE
        course.stored[name, stamp_text(at, ZoneInfo(ZONE), "utc")] = Decimal(nth)
        readings.append(Reading(SeriesKey("", name), at, Decimal(nth)))
    return Commit(tuple(readings))
