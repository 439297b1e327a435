"""P4: a clock that is wrong, set or jumps. The whole gateway in virtual time, its disk and sockets.

Three kinds of stories: a machine that boots without the time and gets it after 20 minutes; one
whose clock somebody sets wrong while it runs, until it is synchronised again 20 minutes later; and
one that loses its power before it ever had the time. The kernel calls a clock that was set by hand
not synchronised (`adjtimex`, STA_UNSYNC); so does the clock here. Whatever the clock shows, each
value that Energinet has is what the meter stood at on its stamp, within a tenth of the interval
where it was stamped afterwards and the window where it was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from attrs import define, field

from gateway.app import Gateway
from gateway.commits import Committer
from gateway.metering.reading import SeriesKey
from gateway.modbus.settings import BusSettings, TcpLink
from gateway.rounds import BusRounds
from gateway.schedule import Schedule
from tests.clocks import FakeClock
from tests.metering.samples import OSLO, meter, send
from tests.simulation import DAY, HOUR, MINUTE, SECOND, World, instant, play
from tests.test_rounds import Line, Memory

QUARTER = 15 * MINUTE
NOON = instant("2026-03-10T12:00")
WRONG_FOR = 20 * MINUTE
YEAR = 365 * DAY
SLEWED = 400
"""ms by which a clock may be off when it is synchronised: systemd-timesyncd sets it above that."""

BOOTS = {"boot in 1970": -NOON + HOUR, "boot a year behind": -YEAR, "boot a week ahead": 7 * DAY}
STEPS = {
    f"set by {sign}{name}": (1 if sign == "+" else -1) * by
    for name, by in {"1 h": HOUR, "1 d": DAY, "1 y": YEAR, "37 min": 37 * MINUTE}.items()
    for sign in "+-"
}


@define
class Figures:
    """What a story came to."""

    restamped: int = 0
    error: int = 0
    """The most that a sample's time is from the truth, ms."""
    values: int = 0
    missing: int = 0
    wrong: int = 0
    apart: list[int] = field(factory=list)
    """Between two requests, ms."""
    future: int = 0
    cpu: float = 0.0
    """Seconds of the processor for what follows a step within 3 s, and for 3 s without one."""
    idle: float = 0.0

    def row(self, name: str) -> str:
        """A line of the table."""
        least = f"{min(self.apart) / 60_000:.1f} min" if self.apart else "-"
        cpu = f"{self.cpu * 1000:.0f} / {self.idle * 1000:.0f} ms" if self.cpu else "-"
        return (
            f"{name:<20} {self.restamped:>9} {self.error / 1000:>9.3f} s {self.values:>7}"
            f" {self.missing:>8} {self.wrong:>6} {self.future:>7} {least:>9} {cpu:>13}"
        )


HEAD = (
    "story                restamped  worst error  values  missing  wrong  future"
    "  requests   CPU of a step"
)


async def judge(world: World, gateway: Gateway, figures: Figures) -> None:
    """Against the truth, while the store is open."""
    epoch = world.clock.true() - world.clock.boottime()
    kept = "SELECT at, boottime FROM samples WHERE synchronised AND needed_to IS NULL"
    for at, boottime in await gateway.store._call(lambda db, _: db.execute(kept).fetchall()):
        figures.restamped += 1
        figures.error = max(figures.error, abs(at - epoch - boottime))
    counter, moved = world.received("main"), world.received("main-moved")
    figures.values = len(counter) + len(moved) + len(world.received("main-mean"))
    for stamp, value in counter.items():
        low, high = world.shown("main", stamp - 90_000), world.shown("main", stamp + 90_000)
        figures.wrong += not low <= value <= high
    figures.wrong += sum(moved.values()) != counter[max(moved) + QUARTER] - counter[min(moved)]
    times = [request.at for request in world.standin.requests]
    figures.apart = [after - before for before, after in pairwise(times)]
    figures.future = sum("future" in one for one in world.standin.violations)
    assert (await gateway.store.check_counts()).balanced


def check(world: World, figures: Figures, missing: int) -> None:
    assert figures.wrong == 0
    assert figures.error <= SECOND
    assert figures.missing <= missing
    assert min(figures.apart) >= 10 * MINUTE
    assert world.standin.violations == []
    assert all(at >= 0 for at in figures.apart)


async def synchronised(world: World) -> None:
    """The clock is right but for what a time server slews away in the next minutes."""
    world.clock.is_synchronised, world.clock.off = True, SLEWED
    for _ in range(SLEWED // 10):
        await world.clock.sleep(2)
        world.clock.off -= 10


def booted(folder: Path, off: int) -> Figures:
    """Without the time for 20 minutes."""
    figures = Figures()

    async def story(world: World) -> None:
        world.clock.is_synchronised, world.clock.off = False, off
        await world.bus("plant", {"main": ()})
        async with world.running(world.write()) as gateway:
            await world.clock.at(NOON - 2 * MINUTE + WRONG_FOR)
            assert world.standin.requests == []
            await synchronised(world)
            await world.clock.at(NOON + 2 * HOUR + 12 * MINUTE)
            await judge(world, gateway, figures)
        wanted = range(NOON, NOON + 2 * HOUR + 1, QUARTER)
        figures.missing = len(set(wanted) - set(world.received("main")))
        check(world, figures, 0)

    play(story, folder, NOON - 2 * MINUTE)
    return figures


def stepped(folder: Path, by: int, poll: str) -> Figures:
    """Set wrong while it runs, and right again after 20 minutes."""
    figures = Figures()
    at = NOON + 40 * MINUTE + 7 * SECOND

    async def story(world: World) -> None:
        await world.bus("plant", {"main": ()}, poll=poll)
        async with world.running(world.write()) as gateway:
            await world.clock.at(at - 13 * SECOND)
            began = time.process_time()
            await world.clock.at(at - 10 * SECOND)
            figures.idle = time.process_time() - began
            await world.clock.at(at)
            world.clock.is_synchronised, world.clock.off = False, by
            began = time.process_time()
            await world.clock.at(at + 3 * SECOND)
            figures.cpu = time.process_time() - began
            await world.clock.at(at + WRONG_FOR)
            await synchronised(world)
            await world.clock.at(NOON + 3 * HOUR + 12 * MINUTE)
            await judge(world, gateway, figures)
        wanted = range(NOON, NOON + 3 * HOUR + 1, QUARTER)
        figures.missing = len(set(wanted) - set(world.received("main")))
        check(world, figures, 0)

    play(story, folder, NOON - 2 * MINUTE)
    return figures


def never(folder: Path, boots: int) -> tuple[int, int, int]:
    """Power cuts before the time is known, after 50 minutes each, 10 min off; then it is known.

    How many values are parked, how far a stamp is behind the truth at most (ms), and how many
    values were sent of all that.
    """
    found = [0, 0, 0]

    async def story(world: World) -> None:
        await world.bus("plant", {"main": ()})
        path = world.write()
        async with world.running(path):
            await world.clock.at(NOON + 16 * MINUTE)
        known = len(world.received("main"))
        for _ in range(boots):
            await world.clock.sleep(600)
            world.clock.reboot()
            world.clock.is_synchronised, world.clock.off = False, -YEAR
            async with world.running(path):
                await world.clock.sleep(3_000)
        await world.clock.sleep(600)
        world.clock.reboot()
        back = world.clock.true()
        async with world.running(path) as gateway:
            await world.clock.sleep(130)
            await synchronised(world)
            await world.clock.sleep(1_900)
            rows = [row async for some in gateway.store.export() for row in some]
            counts = await gateway.store.check_counts()
            gaps = await gateway.store.gaps()
        assert counts.balanced
        (parked,) = {row.state for row in rows if row.state.startswith("parked")}
        assert parked == "parked:no_time"
        for row in rows:
            if row.state == parked:  # when the meter showed that
                early = (row.stamp - n * SECOND for n in range(24 * 3600))
                true = next(at for at in early if world.shown("main", at) <= row.value)
                assert NOON + 16 * MINUTE < true <= row.stamp <= back
                found[1] = max(found[1], row.stamp - true)
        found[0] = counts.parked
        counter, moved = world.received("main"), world.received("main-moved")
        silent = range(NOON + 16 * MINUTE, back)
        found[2] = len([stamp for stamp in counter if stamp in silent])
        assert len(counter) > known
        # What moved meanwhile is in the interval of the return: the sum is what the meter moved.
        assert sum(moved.values()) == counter[max(moved) + QUARTER] - counter[min(moved)]
        assert {gap.reason for gap in gaps} <= {"no_time", "no_baseline", "too_few_polls"}
        assert world.standin.violations == []

    play(story, folder, NOON - 2 * MINUTE)
    return found[0], found[1], found[2]


def test_what_a_meter_showed_before_a_power_cut_without_the_time_is_parked_and_never_sent(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events("clock.unsynchronised", "clock.stepped", "clock.no_time")
    print("\nboots without the time   parked   stamp behind the bound   sent")
    for boots in (1, 3):
        (folder := tmp_path / str(boots)).mkdir()
        parked, behind, sent = never(folder, boots)
        print(f"{boots:>22} {parked:>8} {behind / 60_000:>19.1f} min {sent:>6}")
        assert parked == 4 * boots
        assert sent == 0


def test_whatever_the_clock_shows_no_stamp_is_wrong_and_no_request_early(
    tmp_path: Path, short: bool, expected_events: Callable[..., None]
) -> None:
    expected_events("clock.unsynchronised", "clock.stepped")
    print(f"\n{HEAD}")
    for nth, (name, off) in enumerate(BOOTS.items()):
        (folder := tmp_path / f"boot-{nth}").mkdir()
        print(booted(folder, off).row(name))
    polls = ("1 min",) if short else ("1 min", "15 min")
    for poll in polls:
        for nth, (name, by) in enumerate(STEPS.items()):
            (folder := tmp_path / f"step-{nth}-{poll[:2].strip()}").mkdir()
            print(stepped(folder, by, poll).row(name))


def test_a_step_costs_500_meters_little_of_the_processor(
    expected_events: Callable[..., None],
) -> None:
    """Planning anew and settling what was passed over, for three series of each: as in the service
    of a site with 500 TCP meters, without what asking them costs. Printed, not asserted."""
    expected_events("clock.stepped")
    clock, memory = FakeClock(NOON + 7 * SECOND), Memory()
    committer = Committer(memory, clock, "x.db")
    schedule = Schedule(clock)
    all_rounds = []
    for n in range(500):
        made = meter(
            send("counter", every=QUARTER),
            send("consumption", every=QUARTER, key=SeriesKey("", "2")),
            send("mean", quantity="active_power_total", every=QUARTER, key=SeriesKey("", "3")),
            zone=OSLO,
        )
        bus = BusSettings(f"bus-{n}", TcpLink("localhost"))
        rounds = BusRounds(bus, [made], Line(clock), committer, memory, clock, OSLO)
        rounds._advance(clock.now())
        schedule.every(bus.name, rounds.next, rounds.due)
        all_rounds.append(rounds)
    schedule.look()
    missed = 0
    for by in (HOUR, -HOUR, DAY, -DAY, YEAR, -YEAR):
        clock.step(by)
        began = time.process_time()
        schedule.look()
        schedule._timetable.get_next_fire_time(
            None, datetime.fromtimestamp(clock.now() / 1000, UTC)
        )
        for rounds in all_rounds:
            rounds._reason = "clock"
            rounds._advance(clock.now())
        cpu = time.process_time() - began
        missing = sum(rounds.missed for rounds in all_rounds) - missed
        missed += missing
        print(f"step of {by // HOUR:+6} h: {cpu * 1000:5.1f} ms, {missing:>6} intervals missing")
        assert missing <= 500 * 3 * 97, "more than a day's"
