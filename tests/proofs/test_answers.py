"""P2, P5, P6, P7, P8: random courses of every answer, kills, reboots and steps of the clock.

The uploader, the real buffer and the stand-in's rules in virtual time, against a model of what
was stored. Each course is drawn from its number, so that a failing one can be run alone. Nothing
may be lost, changed, sent early, or taken for confirmed that Energinet does not hold; and once
the faults end, everything is delivered.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from attrs import define, field

from gateway.clock import DAY, HOUR, MINUTE, SECOND, Instant, Millis
from gateway.energinet.batch import stamp_text
from gateway.metering.reading import Commit, Reading, SeriesKey
from tests.energinet.made import START, ZONE, Reply, World, series

COURSES = 60
STEPS = 60
SEQUENCES = 10_000
IN_A_ROW = 10
"""Sequences that one buffer goes through before the next begins."""
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
Row = tuple[str, str]
"""MeterID and stamp as it is sent."""

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
                await self.kill(draw.uniform(0, 120))
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
                by = draw.choice([-1, 1]) * draw.choice([SECOND, HOUR, 40 * DAY, 6 * 365 * DAY])
                await self.set_clock(by, draw.choice([0.2, 2]))
            case "f":
                self.faulty = frozenset(draw.sample(METERS, draw.randint(0, 2)))
        await self.check()

    async def kill(self, after: float) -> None:
        """In so many seconds."""
        self.figures.kills += 1
        await self.world.clock.pass_(after)
        await self.world.restart()

    async def set_clock(self, by: Millis, slots: float = 0.2) -> None:
        """Wrong by so much, for so many slots."""
        self.figures.steps += 1
        self.world.clock.step(by)
        await self.world.slots(slots)
        self.world.clock.step(-by)
        await self.world.slots(0.11)  # a reboot before it is noticed could not be told of it

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

    async def sequence(self) -> None:
        """A few answers, some with a kill, a reboot or a step of the clock between them."""
        world, draw = self.world, self.draw
        self.mended = False
        self.faulty = frozenset(draw.sample(METERS, draw.randint(0, 2)))
        for _ in range(draw.randint(1, 7)):
            await self.store(draw.randint(1, 3))
            match draw.choice("ppppppkrw"):
                case "k":
                    await self.kill(draw.uniform(0, 60))
                case "r":
                    self.figures.kills += 1
                    await world.reboot(off=draw.choice([SECOND, 5 * MINUTE, 3 * HOUR]))
                case "w":
                    await self.set_clock(
                        draw.choice([-1, 1]) * draw.choice([SECOND, HOUR, 40 * DAY])
                    )
            await world.slots(1.05)
        await self.end_well(1.05)

    async def end_well(self, at_a_time: float = 10) -> None:
        """The faults end: whatever waits is delivered by itself."""
        self.mended = True
        self.faulty = frozenset()
        for _ in range(int(600 / at_a_time)):
            await self.world.slots(at_a_time)
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


async def test_ten_thousand_sequences_of_answers_lose_nothing_and_are_never_early(
    tmp_path: Path, short: bool, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    figures = Figures()
    sequences = SEQUENCES // (100 if short else 1)
    for number in range(sequences // IN_A_ROW):
        path = tmp_path / str(number) / "readings.db"
        world = World(path, timestamps="utc")
        course = Course(world, random.Random(f"sequences {number}"), figures)
        world.script = course.answer
        await world.start(*(series(name) for name in METERS))
        try:
            for _ in range(IN_A_ROW):
                await course.sequence()
        except BaseException:
            print(f"sequences {number}")
            raise
        finally:
            await world.end()
        shutil.rmtree(path.parent)
    print(
        f"{sequences} sequences, {figures.requests} requests, {figures.values} values,"
        f" {figures.kills} kills and reboots, {figures.steps} steps of the clock:"
        f" lost 0, early 0, wrongly confirmed 0, changed 0; answers {dict(figures.rows)}"
    )
    assert set(figures.rows) == {*WHOLE, *ENTRIES}, "a row was never drawn"


async def passed_over(kind: str, seed: int, backlog: int, path: Path) -> dict[Row, int]:
    """How many requests went without a value of a meter that is well before one confirmed it,
    while 701 always has this kind of entry. Each request carries the newest of each."""
    draw = random.Random(seed)
    world = World(path, timestamps="utc", max_payload=16_000)
    course = Course(world, draw, Figures(), faulty=frozenset(["701"]))
    course.at = START - 100 * DAY
    await world.start(*(series(name) for name in METERS))
    since: dict[Row, int] = {}
    told: dict[Row, int] = {}
    requests = 0

    def answer(data: bytes) -> Reply:
        nonlocal requests
        requests += 1
        sets = json.loads(data, parse_float=Decimal, parse_int=Decimal)
        course.draw = _Always(kind)
        reply = course._list(sets)
        sent = {(str(one["meterID"]), at) for one in sets for at, _ in one["values"]}
        newest = {max(row for row in since if row[0] == name) for name in METERS[1:]}
        assert newest <= sent | told.keys(), "a meter's newest was not in the body"
        for row in course.told & since.keys():
            told.setdefault(row, requests - 1 - since[row])
        return reply

    world.script = answer
    await world.store.append(_backlog("701", backlog, course))
    for _ in range(30):
        course.draw = draw
        before = course.stored.keys() - {}
        await course.store(draw.randint(1, 20))
        new = course.stored.keys() - before
        since |= {row: requests for row in new if row[0] != "701"}
        await world.slots(draw.choice([0.3, 1, 1.3]))
    await world.slots(12)
    await world.end()
    assert told.keys() == since.keys()
    return told


async def test_a_meter_that_is_judged_alone_delays_no_other(
    tmp_path: Path, short: bool, expected_events: Callable[..., None]
) -> None:
    """P7: beside a meter that is missing, short or refused in every answer, the others' values are
    passed over by no more requests than beside one that is well, with a backlog or without."""
    expected_events(*EVENTS)
    worst: dict[str, int] = {}
    values = 0
    for backlog in (0, BACKLOG // (4 if short else 1)):
        for seed in range(1 if short else 5):
            well = await passed_over("confirmed", seed, backlog, tmp_path / f"{backlog}-{seed}")
            for kind in ("missing", "short", "refused", "contradicted", "malformed"):
                path = tmp_path / f"{kind}-{backlog}-{seed}"
                told = await passed_over(kind, seed, backlog, path)
                assert told.keys() == well.keys()
                late = max(told[row] - well[row] for row in well)
                assert late <= 0, f"{kind} {seed} {backlog}: the others are delayed"
                worst[kind] = max(worst.get(kind, late), late)
                values += len(told)
    shown = ", ".join(f"{kind} {late}" for kind, late in worst.items())
    print(f"{values} values of four meters beside one at fault: delayed by so many slots: {shown}")


@pytest.mark.parametrize("status", [400, 422])
async def test_a_meter_for_which_whole_bodies_are_refused_delays_the_others_by_its_search_only(
    tmp_path: Path, short: bool, status: int, expected_events: Callable[..., None]
) -> None:
    """Of n meters the one at fault is found, and the others' values confirmed, within
    1 + log2(n) slots of when they would have been."""
    expected_events(*EVENTS)
    draw = random.Random(status)
    worst: dict[int, int] = {}
    for count in (1, 2, 3, 5, 20, 500) if short else (*range(1, 18), 20, 31, 50, 64, 100, 250, 500):
        places = {0, count - 1, draw.randrange(count), draw.randrange(count)}
        for place in {draw.randrange(count)} if short else places:
            names = [f"{7000 + nth}" for nth in range(count)]
            world = World(tmp_path / f"{count}-{place}" / "readings.db", timestamps="utc")
            bad = f'"{names[place]}"'.encode()

            def answer(data: bytes, bad: bytes = bad) -> Reply | None:
                return Reply(status) if bad in data else None

            world.script = answer
            await world.start(*(series(name) for name in names))
            stamps = [START - 30 * DAY + nth * HOUR for nth in range(3)]
            some = [Reading(SeriesKey("", n), at, Decimal(7)) for n in names for at in stamps]
            await world.store.append(Commit(tuple(some)))
            world.uploader.poke()
            slots = -1
            while (await world.store.counts()).confirmed < 3 * (count - 1) or slots < 0:
                slots += 1
                await world.until_sent(slots + 1)
                await world.slots(0.05)
            await world.slots(1.1)
            assert all(gap <= 1.1 for gap in world.gaps), "a slot was left out"
            assert world.uploader.status().parked == (names[place],)
            assert slots <= 1 + math.ceil(math.log2(count)), f"{count} meters, the {place}th"
            worst[count] = max(worst.get(count, 0), slots)
            await world.end()
    shown = ", ".join(f"{count}: {slots}" for count, slots in worst.items())
    print(f"{status} for the whole body, meters to slots by which the others were delayed: {shown}")


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
