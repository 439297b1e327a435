"""When things are due, and what a step of the clock does to it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from gateway.clock import DAY, HOUR, MINUTE, Instant, SystemClock
from gateway.schedule import Entry, Schedule, Timetable
from tests.clocks import FakeClock

NOON = int(datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp() * 1000)


def tenths(after: Instant) -> Instant:
    return (after // 100 + 1) * 100


class Stepped(SystemClock):
    """The machine's clock, set by `by`; APScheduler is shown the same."""

    def __init__(self) -> None:
        super().__init__(assume_synchronised=True)
        self.by = 0

    def now(self) -> Instant:
        return super().now() + self.by


@pytest.fixture
def stepped(monkeypatch: pytest.MonkeyPatch) -> Stepped:
    clock = Stepped()

    class Shown(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(milliseconds=clock.by)

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Shown)
    return clock


@contextlib.asynccontextmanager
async def running(schedule: Schedule) -> AsyncIterator[None]:
    task = asyncio.create_task(schedule.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def some(fired: list[Instant], count: int) -> None:
    async with asyncio.timeout(20):
        while len(fired) < count:
            await asyncio.sleep(0.02)


async def test_each_instant_is_said_once_and_not_before_its_time():
    clock = SystemClock(assume_synchronised=True)
    fired: list[Instant] = []
    early: list[Instant] = []

    def due(at: Instant) -> None:
        fired.append(at)
        if clock.now() < at:
            early.append(at)

    schedule = Schedule(clock)
    schedule.every("tenths", tenths, due)
    async with running(schedule):
        await some(fired, 5)
    assert all(at % 100 == 0 for at in fired)
    assert len(set(fired)) == len(fired)
    assert not early


async def test_something_may_be_added_while_it_runs():
    fired: list[Instant] = []
    schedule = Schedule(SystemClock(assume_synchronised=True))
    async with running(schedule):
        schedule.every("later", tenths, fired.append)
        await some(fired, 1)
        with pytest.raises(ValueError, match="later"):
            schedule.every("later", tenths, fired.append)


async def test_one_that_fails_is_reported_and_fires_again(
    expected_events: Callable[..., None],
):
    expected_events("task.failed")
    fired: list[Instant] = []

    def due(at: Instant) -> None:
        fired.append(at)
        raise RuntimeError("no")

    schedule = Schedule(SystemClock(assume_synchronised=True))
    schedule.every("broken", tenths, due)
    async with running(schedule):
        await some(fired, 3)


@pytest.mark.parametrize("by", [-HOUR, -DAY, HOUR, DAY, 365 * DAY, -365 * DAY])
async def test_after_a_step_of_the_clock_it_goes_on_at_once(
    stepped: Stepped, expected_events: Callable[..., None], by: int
):
    expected_events("clock.stepped")
    fired: list[Instant] = []
    schedule = Schedule(stepped)
    schedule.every("tenths", tenths, fired.append)
    async with running(schedule):
        await some(fired, 2)
        fired.clear()
        stepped.by = by
        began = time.process_time()
        schedule.look()
        await some(fired, 3)
        assert time.process_time() - began < 5  # a year of tenths would take hours
    _, *following = fired  # what is due is said at once, whatever instant it is
    assert all(abs(at - stepped.now()) < MINUTE for at in fired)
    assert all(at % 100 == 0 for at in following)


def test_a_step_is_noticed_and_a_slew_is_not(expected_events: Callable[..., None]):
    expected_events("clock.stepped")
    clock = FakeClock(NOON)
    said: list[Instant] = []
    schedule = Schedule(clock)
    schedule.every("anything", tenths, said.append)
    schedule.look()
    for _ in range(10):
        clock.step(900)
        schedule.look()
    assert said == []
    clock.step(-1001)
    schedule.look()
    assert said == [clock.now()]


async def test_the_clock_is_looked_at_every_two_seconds(expected_events: Callable[..., None]):
    expected_events("clock.stepped")
    clock = FakeClock(NOON)
    said: list[Instant] = []
    schedule = Schedule(clock)
    schedule.every("never", lambda after: after + 365 * DAY, said.append)
    async with running(schedule):
        await clock.pass_(2)
        clock.step(HOUR)
        await clock.pass_(2)
        assert said == [NOON + HOUR + 4000]


async def test_a_clock_that_becomes_right_is_told_to_all(
    expected_events: Callable[..., None], caplog: pytest.LogCaptureFixture
):
    expected_events("clock.unsynchronised")
    clock = FakeClock(NOON, synchronised=False)
    said: list[Instant] = []
    schedule = Schedule(clock)
    schedule.every("never", lambda after: after + 365 * DAY, said.append)
    with caplog.at_level("INFO", "gateway"):
        async with running(schedule):
            await clock.pass_(600)
            assert said == []
            clock.is_synchronised = True
            await clock.pass_(2)
            assert len(said) == 1
            clock.is_synchronised = False
            await clock.pass_(600)
            clock.is_synchronised = True
            await clock.pass_(600)
            assert len(said) == 1
    events = [r.event for r in caplog.records]  # type: ignore[attr-defined]
    assert events == ["clock.unsynchronised", "clock.synchronised"]


async def test_a_clock_that_is_set_by_hand_is_said_not_to_be_right_until_it_is_again(
    expected_events: Callable[..., None], caplog: pytest.LogCaptureFixture
):
    expected_events("clock.unsynchronised", "clock.stepped")
    clock = FakeClock(NOON)
    schedule = Schedule(clock)
    schedule.every("never", lambda after: after + 365 * DAY, lambda at: None)
    with caplog.at_level("INFO", "gateway"):
        async with running(schedule):
            await clock.pass_(600)
            clock.step(HOUR)
            clock.is_synchronised = False
            await clock.pass_(300)
            clock.step(-HOUR)
            clock.is_synchronised = True
            await clock.pass_(600)
    events = [r.event for r in caplog.records]  # type: ignore[attr-defined]
    assert events == [
        "clock.stepped", "clock.unsynchronised", "clock.stepped", "clock.synchronised",
    ]  # fmt: skip


async def test_all_that_is_due_is_said_each_with_its_own_instant():
    said: list[tuple[str, Instant]] = []
    timetable = Timetable()
    for name, step in (("two", 2), ("three", 3), ("ten", 10)):

        def next(after: Instant, step: int = step) -> Instant:
            return (after // step + 1) * step

        def due(at: Instant, name: str = name) -> None:
            said.append((name, at))

        timetable.entries[name] = Entry(name, next, due)

    def at(millis: Instant) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis)

    assert timetable.get_next_fire_time(None, at(0)) == at(2)
    assert timetable.get_next_fire_time(at(2), at(4)) == at(6)  # three was due as well by then
    assert timetable.get_next_fire_time(at(2), at(4)) == at(6)
    assert said == []
    await timetable.fire()
    assert said == [("two", 2), ("three", 3)]
    await timetable.fire()
    assert len(said) == 2
    assert timetable.get_next_fire_time(None, at(9)) == at(6)  # set anew while two things are due
    timetable.get_next_fire_time(at(6), at(9))
    await timetable.fire()
    assert said[2:] == [("two", 6), ("three", 6)]


def test_the_timetable_never_looks_back():
    timetable = Timetable()
    timetable.entries["always"] = Entry("always", lambda after: after + 1, lambda at: None)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    long_ago = now - timedelta(days=3650)
    soon = now + timedelta(milliseconds=1)
    assert timetable.get_next_fire_time(long_ago, now) == soon
    assert timetable.get_next_fire_time(None, now) == soon
    later = now + timedelta(hours=1)
    assert timetable.get_next_fire_time(later, now) == later + timedelta(milliseconds=1)
