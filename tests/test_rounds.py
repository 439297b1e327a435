"""Rounds over a bus in virtual time: what is asked when, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC as UTC_TIME
from datetime import datetime
from decimal import Decimal

import pytest
from attrs import evolve

from gateway.buffer.appending import Appended
from gateway.clock import HOUR, MINUTE, SECOND, Instant
from gateway.commits import Committer
from gateway.errors import StoreUnavailable
from gateway.metering.meter import Meter
from gateway.metering.reading import Commit, KeptSample, RawWords, Reading, Sample, SeriesKey
from gateway.metering.register import Register
from gateway.modbus.poller import Ask, Round
from gateway.modbus.settings import BusSettings, TcpLink
from gateway.rounds import BusRounds, restore
from tests.clocks import FakeClock
from tests.metering.samples import ENERGY, POWER, UTC, VOLTAGE, meter, sample, send

NOON = int(datetime(2026, 3, 10, 12, tzinfo=UTC_TIME).timestamp() * 1000)


class Line:
    """A bus whose meter shows a kWh an hour and 100 W, until it is told otherwise."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.takes = 0.05
        self.in_vain = 0.0
        """Of those seconds."""
        self.fault = ""
        self.more = Decimal(0)
        self.error: Exception | None = None
        self.asked: list[tuple[Instant, tuple[str, ...], bool]] = []
        self.began = clock.boottime()

    async def round(self, asks: Sequence[Ask]) -> Round:
        began = self.clock.monotonic()
        samples = []
        for ask in asks:
            names = tuple(register.name for register in ask.registers)
            self.asked.append((self.clock.now(), names, ask.urgent))
            await self.clock.sleep(self.takes)
            if self.error is not None:
                raise self.error
            samples.append(self.sample(ask.registers))
        up = self.fault != "link_down"
        took, down_for = self.clock.monotonic() - began, None if up else 4.0
        errors = int(self.in_vain > 0)
        return Round(tuple(samples), len(asks), errors, up, took, self.in_vain, down_for)

    def sample(self, registers: Sequence[Register]) -> Sample:
        now, boottime = self.clock.now(), self.clock.boottime()
        if self.fault:
            empty = Sample("main", now, "boot-1", boottime, RawWords())
            return evolve(empty, faults={r.name: self.fault for r in registers})
        hours = Decimal(boottime - self.began) / HOUR
        shown = {
            ENERGY: str((1000 + hours + self.more).quantize(Decimal("0.01"))),
            POWER: "100",
            VOLTAGE: "230",
        }
        whole = sample(now, {r: shown[r] for r in registers})
        return evolve(whole, boot_id="boot-1", boottime=boottime)


class Memory:
    """A buffer in memory that gives back what a start needs."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.kept: dict[int, KeptSample] = {}
        self.parked: list[Reading] = []
        self.error: Exception | None = None

    async def append(self, commit: Commit) -> Appended:
        if self.error is not None:
            raise self.error
        self.commits.append(commit)
        for one in commit.samples:
            self.kept[len(self.kept) + 1] = one
        for id, at in commit.restamped.items():
            timed = evolve(self.kept[id].sample, at=at, synchronised=True)
            self.kept[id] = evolve(self.kept[id], sample=timed)
        return Appended(len(commit.readings))

    async def last(self) -> Mapping[SeriesKey, Reading]:
        return {r.key: r for commit in self.commits for r in commit.readings}

    async def park_timeless(self, readings: Sequence[Reading], samples: Sequence[int]) -> None:
        self.parked += readings
        for id in samples:
            del self.kept[id]

    async def states(self) -> Mapping[str, bytes]:
        return {name: state for c in self.commits for name, state in c.states.items()}

    async def samples(self, meter: str | None = None) -> Sequence[tuple[int, KeptSample]]:
        return sorted(self.kept.items())

    @property
    def readings(self) -> list[tuple[int, str]]:
        """Stamps, in minutes after noon, and values."""
        return [
            ((r.stamp - NOON) // MINUTE, str(r.value)) for c in self.commits for r in c.readings
        ]

    @property
    def gaps(self) -> list[tuple[int, str]]:
        return [((g.stamp - NOON) // MINUTE, g.reason) for c in self.commits for g in c.gaps]


class House:
    """One bus with one meter, a schedule that fires on time, and a buffer."""

    def __init__(self, start: Instant, *meters: Meter, poll: int = MINUTE) -> None:
        self.clock = FakeClock(start)
        self.line = Line(self.clock)
        self.memory = Memory()
        self.meters = meters
        self.bus = BusSettings("riser", TcpLink("localhost"), poll=poll)
        self.committer = Committer(self.memory, self.clock, "x.db")
        self.rounds = self.make(meters)

    def make(self, meters: Sequence[Meter], before: str = "stopped") -> BusRounds:
        return BusRounds(
            self.bus, meters, self.line, self.committer, self.memory, self.clock, UTC, before
        )

    async def schedule(self) -> None:
        while True:
            at = self.rounds.next(self.clock.now())
            await self.clock.sleep((at - self.clock.now()) / 1000)
            self.rounds.due(at)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(work)
            for work in (self.committer.run(), self.rounds.run(), self.schedule())
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def counter(every: int = HOUR, max_power: str | None = None) -> Meter:
    return meter(send("counter", every=every), max_power=max_power)


async def test_a_boundary_is_asked_at_its_instant_and_urgently():
    house = House(NOON - 30 * SECOND, counter())
    async with house.running():
        await house.clock.pass_until(NOON + 30 * SECOND)
    assert house.line.asked == [(NOON, ("active_energy_import_total",), True)]
    assert house.memory.readings == [(0, "1000.01")]


async def test_what_is_polled_and_what_a_boundary_needs_is_one_ask():
    house = House(
        NOON - 90 * SECOND,
        meter(send("counter"), send("last", quantity="voltage_l1", key=SeriesKey("", "2"))),
        poll=7 * MINUTE,
    )
    async with house.running():
        await house.clock.pass_until(NOON + 7 * MINUTE)
    assert [names for _, names, _ in house.line.asked] == [
        ("active_energy_import_total", "voltage_l1"),
        ("active_energy_import_total", "voltage_l1"),
    ]
    assert [urgent for _, _, urgent in house.line.asked] == [True, False]


async def test_polls_read_everything_that_is_sent():
    house = House(NOON + 2 * MINUTE, counter())
    async with house.running():
        await house.clock.pass_until(NOON + 5 * MINUTE + SECOND)
    assert [at for at, _, _ in house.line.asked] == [NOON + n * MINUTE for n in (3, 4, 5)]


async def test_a_boundary_that_failed_is_asked_again_until_its_window_ends():
    house = House(NOON - SECOND, counter(), poll=15 * MINUTE)
    house.line.fault = "timeout"
    async with house.running():
        await house.clock.pass_until(NOON + 10 * MINUTE)
    times = [at - NOON for at, _, _ in house.line.asked]
    assert 4 <= len(times) <= 6
    assert all(at <= MINUTE for at in times)
    assert house.memory.gaps == [(0, "timeout")]


async def test_an_answer_within_the_window_is_the_value_of_the_boundary():
    house = House(NOON - SECOND, counter(), poll=15 * MINUTE)
    house.line.fault = "crc"
    async with house.running():
        await house.clock.pass_until(NOON + 20 * SECOND)
        house.line.fault = ""
        await house.clock.pass_until(NOON + 5 * MINUTE)
    assert house.memory.readings == [(0, "1000.01")]
    assert house.memory.gaps == []


async def test_a_boundary_every_five_seconds_is_given_up_after_one():
    house = House(NOON - SECOND, counter(5 * SECOND), poll=5 * SECOND)
    house.line.fault = "offline"
    async with house.running():
        await house.clock.pass_until(NOON + 4 * SECOND)
    assert all(at - NOON <= SECOND for at, _, _ in house.line.asked)
    assert len(house.line.asked) >= 3
    assert house.memory.gaps == [(0, "offline")]


async def test_a_refused_register_is_not_asked_again():
    house = House(NOON - SECOND, counter(), poll=15 * MINUTE)
    house.line.fault = "exception_2"
    async with house.running():
        await house.clock.pass_until(NOON + 5 * MINUTE)
    assert len(house.line.asked) == 1
    assert house.memory.gaps == [(0, "exception_2")]


@pytest.mark.parametrize("in_vain", [0, 2])
async def test_a_bus_that_is_too_slow_says_so_once_and_misses_what_it_could_not_ask(
    in_vain: float, expected_events: Callable[..., None], caplog: pytest.LogCaptureFixture
):
    """Whether or not one of its meters is damaged besides."""
    expected_events("bus.overloaded")
    house = House(NOON - SECOND, counter(5 * SECOND), poll=5 * SECOND)
    house.line.takes, house.line.in_vain = 8, in_vain
    async with house.running():
        await house.clock.pass_until(NOON + 10 * MINUTE)
    assert len(caplog.records) == 1
    assert house.memory.readings == []
    assert {reason for _, reason in house.memory.gaps} == {"bus_busy"}
    stamps = [g.stamp for c in house.memory.commits for g in c.gaps]
    assert stamps == [NOON + n * 5 * SECOND for n in range(len(stamps))]
    assert len(stamps) >= 115


async def test_what_silent_meters_take_makes_no_bus_too_slow_for_the_others():
    house = House(NOON - SECOND, counter(), poll=5 * SECOND)
    house.line.takes, house.line.in_vain = 6, 2
    async with house.running():
        await house.clock.pass_until(NOON + MINUTE)


async def test_a_link_that_is_back_is_asked_before_the_next_poll_and_no_sooner_than_it_is_worth():
    house = House(NOON - SECOND, counter(), poll=15 * MINUTE)
    house.line.fault = "link_down"
    async with house.running():
        await house.clock.pass_until(NOON + 10 * MINUTE)
        tries = len(house.line.asked)
        house.line.fault = ""
        await house.clock.pass_until(NOON + 10 * MINUTE + 5 * SECOND)
        assert len(house.line.asked) == tries + 1
        await house.clock.pass_until(NOON + 14 * MINUTE)
    assert len(house.line.asked) == tries + 1
    assert 140 < tries <= 151


async def test_behind_a_link_that_is_back_nothing_is_asked_that_no_poll_has_missed():
    house = House(NOON + MINUTE, counter(10 * MINUTE), poll=15 * MINUTE)
    async with house.running():
        await house.clock.pass_until(NOON + 9 * MINUTE)
        house.line.fault = "link_down"
        await house.clock.pass_until(NOON + 14 * MINUTE)
    asked = [at for at, _, _ in house.line.asked if at > NOON + 9 * MINUTE]
    assert len(asked) > 10, "the boundary of ten past, while its window is open"
    assert max(asked) < NOON + 11 * MINUTE + 5 * SECOND


async def test_the_time_it_was_stopped_is_a_gap_with_that_reason():
    house = House(NOON - SECOND, counter(), poll=15 * MINUTE)
    async with house.running():
        await house.clock.pass_until(NOON + MINUTE)
    house.clock.step(3 * HOUR + 10 * MINUTE)
    again = counter()
    await restore([again], house.memory)
    house.rounds = house.make([again])
    async with house.running():
        await house.clock.pass_until(NOON + 4 * HOUR + MINUTE)
    assert [stamp for stamp, _ in house.memory.readings] == [0, 240]
    (gap,) = [gap for c in house.memory.commits for gap in c.gaps][1:]
    assert house.memory.gaps == [(60, "stopped"), (120, "stopped")]
    assert (gap.count, gap.last) == (2, NOON + 3 * HOUR)


async def test_what_a_changed_configuration_was_without_is_missing_for_that_reason():
    house = House(NOON - SECOND, counter(), poll=15 * MINUTE)
    async with house.running():
        await house.clock.pass_until(NOON + MINUTE)
    house.clock.step(3 * HOUR + 10 * MINUTE)
    again = counter()
    await restore([again], house.memory)
    house.rounds = house.make([again], "config")
    async with house.running():
        await house.clock.pass_until(NOON + 4 * HOUR + MINUTE)
    assert {reason for _, reason in house.memory.gaps} == {"config"}


async def test_a_start_within_the_window_still_catches_the_boundary():
    house = House(NOON + 10 * SECOND, counter(), poll=15 * MINUTE)
    async with house.running():
        await house.clock.pass_until(NOON + MINUTE)
    assert house.line.asked[0][0] == NOON + 10 * SECOND
    assert house.memory.readings == [(0, "1000")]


async def test_what_a_step_of_the_clock_skips_is_missing_for_that_reason():
    house = House(NOON - SECOND, counter(15 * MINUTE), poll=15 * MINUTE)
    async with house.running():
        await house.clock.pass_until(NOON + 5 * MINUTE)
        house.clock.step(HOUR)
        house.rounds.due(house.clock.now())  # as the schedule's guard does
        await house.clock.pass_until(NOON + 76 * MINUTE)
    assert [stamp for stamp, _ in house.memory.readings] == [0, 75]
    assert {reason for _, reason in house.memory.gaps} == {"clock"}


async def test_after_a_step_back_nothing_is_sent_twice():
    house = House(NOON - SECOND, counter(15 * MINUTE), poll=15 * MINUTE)
    async with house.running():
        await house.clock.pass_until(NOON + 16 * MINUTE)
        house.clock.step(-HOUR)
        house.rounds.due(house.clock.now())
        await house.clock.pass_until(NOON + 31 * MINUTE)
    assert [stamp for stamp, _ in house.memory.readings] == [0, 15, 30]
    assert house.memory.gaps == []


async def test_a_counter_may_move_by_what_the_true_time_allows_though_the_clock_was_set_back():
    """Two hours went by from noon to one."""
    house = House(NOON - SECOND, counter(HOUR, max_power="1100"), poll=HOUR)
    async with house.running():
        await house.clock.pass_until(NOON + 30 * MINUTE)
        house.clock.step(-HOUR)
        house.rounds.due(house.clock.now())  # as the schedule's guard does
        await house.clock.pass_until(NOON + HOUR + MINUTE)
    assert house.memory.readings == [(0, "1000"), (60, "1002")]


async def test_a_counter_may_move_by_no_more_though_the_clock_was_set_forward(
    expected_events: Callable[..., None],
):
    expected_events("counter.held")
    house = House(NOON - SECOND, counter(HOUR, max_power="1100"), poll=HOUR)
    async with house.running():
        await house.clock.pass_until(NOON + 30 * MINUTE)
        house.clock.step(400 * 24 * HOUR)
        house.line.more = Decimal(20)
        house.rounds.due(house.clock.now())
        await house.clock.pass_(30 * 60 + 2)
    assert house.memory.readings == [(0, "1000")]


async def test_an_error_nobody_expected_is_reported_once_and_the_next_round_goes_on(
    expected_events: Callable[..., None], caplog: pytest.LogCaptureFixture
):
    expected_events("task.failed")
    house = House(NOON - SECOND, counter(5 * MINUTE))
    house.line.error = RuntimeError("surprise")
    async with house.running():
        await house.clock.pass_until(NOON + 3 * MINUTE)
        house.line.error = None
        await house.clock.pass_until(NOON + 6 * MINUTE)
    assert len(caplog.records) == 1
    assert [stamp for stamp, _ in house.memory.readings] == [5]


async def test_a_timer_that_fires_a_little_early_costs_nothing():
    house = House(NOON - 5, counter(), poll=15 * MINUTE)
    tasks = [asyncio.create_task(w) for w in (house.committer.run(), house.rounds.run())]
    await house.clock.pass_(0.001)
    house.rounds.due(NOON)
    await house.clock.pass_(1)
    assert house.line.asked[0][0] == NOON
    assert len(house.memory.readings) == 1
    house.rounds.stop()
    await house.clock.settle()
    assert tasks[1].done()
    tasks[0].cancel()


async def test_until_the_clock_is_right_samples_are_kept_and_then_intervals_are_formed():
    true_start = NOON - 20 * MINUTE
    house = House(true_start - 300 * 24 * HOUR, counter(5 * MINUTE))
    house.clock.is_synchronised = False
    async with house.running():
        await house.clock.pass_(17 * 60 + 20)
        assert house.memory.readings == []
        assert len(house.memory.kept) == 18
        house.clock.step(300 * 24 * HOUR)
        house.clock.is_synchronised = True
        house.rounds.due(house.clock.now())
        await house.clock.pass_(60 * 5)
    stamps = [stamp for stamp, _ in house.memory.readings]
    assert stamps == [-20, -15, -10, -5, 0]
    assert all(kept.sample.synchronised for kept in house.memory.kept.values())
    # Each counter value was read within a tenth of the interval of its stamp.
    for stamp, value in house.memory.readings:
        truth = 1000 + Decimal(stamp + 20) / 60
        assert abs(Decimal(value) - truth) <= Decimal("0.0184")


@pytest.mark.parametrize("by", [37 * MINUTE, -37 * MINUTE, 300 * 24 * HOUR, -300 * 24 * HOUR])
async def test_a_clock_set_by_hand_gives_no_stamp_until_it_is_synchronised_again(by: int):
    house = House(NOON - SECOND, counter(15 * MINUTE), poll=15 * MINUTE)
    async with house.running():
        await house.clock.pass_until(NOON + 20 * MINUTE)
        house.clock.step(by)
        house.clock.is_synchronised = False
        house.rounds.due(house.clock.now())  # as the schedule's guard does
        await house.clock.pass_(40 * 60)
        assert [stamp for stamp, _ in house.memory.readings] == [0, 15]
        house.clock.step(-by)
        house.clock.is_synchronised = True
        house.rounds.due(house.clock.now())
        await house.clock.pass_until(NOON + 76 * MINUTE)
    assert [stamp for stamp, _ in house.memory.readings] == [0, 15, 30, 45, 60, 75]
    assert house.memory.gaps == []
    for stamp, value in house.memory.readings:  # a tenth of the interval around it
        truth = 1000 + Decimal(stamp) / 60
        assert abs(Decimal(value) - truth) <= Decimal("0.031")


@pytest.mark.parametrize("right", [True, False])
async def test_a_clock_that_is_set_during_a_round_stamps_nothing_of_it_wrongly(right: bool):
    """Whether it was right before, and then is set by hand, or is right from then on."""
    by = 10 * MINUTE
    house = House(NOON - SECOND, counter(5 * MINUTE), poll=MINUTE)
    house.line.takes = 2
    async with house.running():
        await house.clock.pass_until(NOON + 5 * MINUTE + SECOND)  # it is being asked
        house.clock.step(by)
        house.clock.is_synchronised = right
        await house.clock.pass_(240)
        if not right:
            house.clock.step(-by)
            house.clock.is_synchronised = True
        await house.clock.pass_(120)
    shift = by // MINUTE if right else 0
    assert [stamp for stamp, _ in house.memory.readings][:3] == [0, 5 + shift, 10 + shift]


@pytest.mark.parametrize("at_once", [True, False])
async def test_samples_of_a_boot_that_never_had_the_time_are_parked_between_their_bounds(
    at_once: bool, expected_events: Callable[..., None], caplog: pytest.LogCaptureFixture
):
    expected_events("clock.no_time")
    house = House(NOON - 2 * HOUR - SECOND, counter(5 * MINUTE))
    async with house.running():
        await house.clock.pass_until(NOON - 2 * HOUR + MINUTE)
    for nth, boottime in enumerate(range(MINUTE, 12 * MINUTE, MINUTE)):
        stray = sample(NOON - 900 * HOUR, {ENERGY: f"{1100 + nth}"})
        stray = evolve(stray, boot_id="boot-0", boottime=boottime, synchronised=False)
        house.memory.kept[len(house.memory.kept) + 1] = KeptSample(stray)
    house.clock.step(2 * HOUR - 11 * MINUTE)
    booted = house.clock.now() - house.clock.boottime()
    again = counter(5 * MINUTE)
    await restore([again], house.memory)
    house.rounds = house.make([again])
    house.clock.is_synchronised = at_once
    async with house.running():
        await house.clock.pass_(61)
        assert bool(house.memory.parked) == at_once
        house.clock.is_synchronised = True
        await house.clock.pass_(600)
    # Once an interval, at the latest instant that it can be of: the boot before this one.
    ages = [(booted - one.stamp) // MINUTE for one in house.memory.parked]
    assert ages == [10, 5, 0]
    assert [str(one.value) for one in house.memory.parked] == ["1100", "1105", "1110"]
    assert {one.held for one in house.memory.parked} == {"no_time"}
    assert all(one.sample.synchronised for one in house.memory.kept.values())
    (said,) = [r for r in caplog.records if getattr(r, "event", "") == "clock.no_time"]
    assert said.__dict__["fields"]["after"] == "2026-03-10T10:00:00Z"
    # What was missed for it is so for that reason, and what follows is not touched.
    assert [stamp for stamp, _ in house.memory.readings] == [-120, -10, -5, 0]
    assert {reason for _, reason in house.memory.gaps} == {"no_time"}


async def test_samples_that_are_not_stored_yet_put_off_the_forming_of_intervals(
    expected_events: Callable[..., None],
):
    expected_events("buffer.unavailable")
    house = House(NOON - 10 * MINUTE, counter(5 * MINUTE))
    house.clock.is_synchronised = False
    async with house.running():
        await house.clock.pass_(61)
        house.memory.error = StoreUnavailable("EIO")
        await house.clock.pass_(120)
        house.clock.is_synchronised = True
        await house.clock.pass_(180)
        house.memory.error = None
        await house.clock.pass_(300)
    assert [stamp for stamp, _ in house.memory.readings] == [-10, -5, 0]


async def test_means_go_on_after_a_restart_in_the_middle_of_an_interval():
    sends = (send("mean", quantity="active_power_total", every=10 * MINUTE),)
    house = House(NOON - SECOND, meter(*sends))
    async with house.running():
        await house.clock.pass_until(NOON + 5 * MINUTE + SECOND)
    again = meter(*sends)
    await restore([again], house.memory)
    house.rounds = house.make([again])
    async with house.running():
        await house.clock.pass_until(NOON + 11 * MINUTE)
    assert house.memory.readings == [(0, "100")]
    assert house.rounds.read == 1
