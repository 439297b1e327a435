"""P4 and P10 for the whole gateway: clocks that are wrong, set, or jump; none at a wrong time."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.energinet.standin import Request, Scripted
from tests.simulation import DAY, HOUR, MINUTE, SECOND, World, instant, play

QUARTER = 15 * MINUTE
NOON = instant("2026-03-10T12:00")


def quarters(first: int, last: int) -> list[int]:
    """Quarter hours from the first to the last."""
    return list(range(first, last + 1, QUARTER))


@pytest.mark.parametrize("off", [-300 * DAY, 2 * DAY])
def test_a_boot_without_the_time_loses_nothing_once_it_is_known(
    tmp_path: Path, expected_events: Callable[..., None], off: int
) -> None:
    expected_events("clock.unsynchronised", "clock.stepped")

    async def story(world: World) -> None:
        world.clock.is_synchronised, world.clock.off = False, off
        await world.bus("plant", {"main": ()})
        async with world.running(world.write()):
            await world.clock.at(NOON + HOUR + 2 * MINUTE)
            assert world.standin.received == {}
            world.clock.is_synchronised, world.clock.off = True, 0
            await world.clock.at(NOON + 2 * HOUR + 2 * MINUTE)
        assert list(world.received("main")) == quarters(NOON, NOON + 2 * HOUR)
        # A sample within a tenth of the interval of its boundary, before or after it.
        world.check("main", every=QUARTER, early=90 * SECOND, late=90 * SECOND)
        assert len(world.received("main-moved")) == 8
        assert world.log.events().count("clock.synchronised") == 1

    play(story, tmp_path, NOON - 2 * MINUTE)


@pytest.mark.parametrize("by", [-2 * HOUR, 40 * SECOND, 5 * HOUR])
def test_a_clock_that_is_set_wrong_and_right_again_sends_nothing_twice_and_goes_on(
    tmp_path: Path, expected_events: Callable[..., None], by: int
) -> None:
    """While it is wrong its stamps are too: that nobody can know. But none is sent twice, no
    request is early, and within a day and a bit every boundary has its value again.
    """
    expected_events("clock.stepped", "upload.parked")  # stamps in the future are refused

    async def story(world: World) -> None:
        await world.bus("plant", {"main": ()}, poll="15 min")
        async with world.running(world.write()) as gateway:
            await world.clock.at(NOON + HOUR + 2 * MINUTE)
            world.clock.off = by
            await world.clock.at(NOON + HOUR + 40 * MINUTE)
            world.clock.off = 0
            await world.clock.at(NOON + 14 * HOUR + 2 * MINUTE)
            counts = await gateway.store.check_counts()
        assert counts.balanced
        assert [v for v in world.standin.violations if "early" in v or ", now " in v] == []
        received = world.received("main")
        for stamp in [
            *quarters(NOON, NOON + HOUR),
            *quarters(NOON + 8 * HOUR, NOON + 14 * HOUR - QUARTER),
        ]:
            low, high = world.shown("main", stamp), world.shown("main", stamp + MINUTE)
            assert low <= received[stamp] <= high

    play(story, tmp_path, NOON - 2 * MINUTE)


@pytest.mark.parametrize("reached", [True, False])
@pytest.mark.parametrize("ahead", [400 * DAY, 2200 * DAY])
def test_a_clock_that_is_set_years_ahead_and_back_loses_nothing_and_sends_nothing_early(
    tmp_path: Path, expected_events: Callable[..., None], ahead: int, reached: bool
) -> None:
    """Longer than readings are kept, and than they may be sent; with Energinet there or away."""
    expected_events("clock.stepped", "upload.parked", "upload.refused")
    set_at, back_at, there_at = NOON + HOUR + 2 * MINUTE, NOON + 102 * MINUTE, NOON + 2 * HOUR
    latest: list[tuple[int, int]] = []

    async def story(world: World) -> None:
        def watched(request: Request) -> Scripted | None:
            stamps = [stamp for one in json.loads(request.body) for stamp, _ in one["values"]]
            newest = max(datetime.fromisoformat(stamp).timestamp() for stamp in stamps)
            latest.append((int(newest * 1000), world.clock.now()))
            away = not reached and NOON + 30 * MINUTE < world.clock.true() < there_at
            return Scripted(503) if away else None

        world.standin.script = watched
        await world.bus("plant", {"main": ()}, poll="15 min")
        async with world.running(world.write()) as gateway:
            await world.clock.at(set_at)
            world.clock.off = ahead
            await world.clock.at(back_at)
            world.clock.off = 0
            await world.clock.at(NOON + 6 * HOUR + 12 * MINUTE)
            counts = await gateway.store.check_counts()
        assert counts.balanced
        # What was stamped while it was wrong is parked: it lies ahead of a clock that is right.
        of_the_wrong_time = 3 * len(quarters(NOON + 75 * MINUTE, back_at))
        assert (counts.parked, counts.pending, counts.dropped) == (of_the_wrong_time, 0, {})
        assert counts.confirmed == counts.stored - of_the_wrong_time
        received = world.received("main")
        right = [*quarters(NOON, set_at), *quarters(NOON + 7 * QUARTER, NOON + 6 * HOUR)]
        assert list(received) == right
        for stamp in right:
            assert world.shown("main", stamp) <= received[stamp]
            assert received[stamp] <= world.shown("main", stamp + MINUTE)
        assert all(newest <= now for newest, now in latest)
        times = [request.at for request in world.standin.requests]
        assert min(after - before for before, after in pairwise(times)) >= 10 * MINUTE
        accepted = [(one.meter_id, one.stamp) for one in world.standin.accepted]
        assert len(accepted) == len(set(accepted))
        # Energinet's own clock was right, and took what was sent in that time for wrong.
        assert all("in the future" in wrong for wrong in world.standin.violations)

    play(story, tmp_path, NOON - 2 * MINUTE)


@pytest.mark.parametrize("wrong_by", [3 * DAY - NOON, 3300 * DAY])
def test_a_start_with_a_clock_that_is_years_off_and_called_right_parks_nothing_of_what_waits(
    tmp_path: Path, expected_events: Callable[..., None], wrong_by: int
) -> None:
    """Its battery is empty; Energinet is not to be had: no certificate is valid in that year."""
    expected_events("clock.stepped", "upload.refused", "upload.failed")
    started_at, right_at = NOON + HOUR, NOON + 3 * HOUR + 2 * MINUTE

    async def story(world: World) -> None:
        world.standin.script = lambda _: (
            Scripted(503) if world.clock.true() < right_at + MINUTE else None
        )
        await world.bus("plant", {"main": ()}, poll="15 min")
        config = world.write()
        async with world.running(config):
            await world.clock.at(started_at)
        world.clock.reboot()
        world.clock.off = wrong_by
        async with world.running(config) as gateway:
            await world.clock.at(right_at)
            counts = await gateway.store.counts()
            assert counts.parked == 0
            world.clock.off = 0
            await world.clock.at(NOON + 6 * HOUR + 2 * MINUTE)
            counts = await gateway.store.check_counts()
            parked = {one.reason for one in await gateway.store.parked()}
        assert (counts.pending, counts.balanced) == (0, True)
        assert counts.parked == 3 * len(quarters(started_at, right_at))  # of the wrong time
        assert parked == ({"too_old"} if wrong_by < 0 else {"in_future"})
        before = quarters(NOON, started_at - QUARTER)
        right = [*before, *quarters(NOON + 13 * QUARTER, NOON + 6 * HOUR)]
        assert list(world.received("main")) == right

    play(story, tmp_path, NOON - 2 * MINUTE)


@pytest.mark.parametrize(
    ("zone", "jump"),
    [
        ("Europe/Oslo", "2026-03-29T01:00"),
        ("Europe/Oslo", "2026-10-25T01:00"),
        ("Australia/Lord_Howe", "2026-04-04T15:00"),  # half an hour back
        ("Australia/Lord_Howe", "2026-10-03T15:30"),
    ],
)
def test_the_night_of_the_change_of_time_has_each_interval_once(
    tmp_path: Path, zone: str, jump: str
) -> None:
    hours, first = 4, instant(jump) - 2 * HOUR
    begin = first - 2 * MINUTE

    async def story(world: World) -> None:
        await world.bus("plant", {"main": ()})
        async with world.running(world.write()):
            await world.clock.at(first + hours * HOUR + 12 * MINUTE)
        assert list(world.received("main")) == quarters(first, first + hours * HOUR)
        assert len(world.received("main-moved")) == 4 * hours
        assert len(world.received("main-mean")) == 4 * hours
        world.check("main", every=QUARTER, late=MINUTE)

    play(story, tmp_path, begin, zone=zone)


@pytest.mark.parametrize(
    ("zone", "turn", "back"),
    [
        ("Europe/Oslo", "2026-10-25T01:00", HOUR),
        ("Australia/Lord_Howe", "2026-04-04T15:00", 30 * MINUTE),
    ],
)
def test_without_an_offset_the_hour_that_is_shown_twice_keeps_its_energy(
    tmp_path: Path, zone: str, turn: str, back: int
) -> None:
    """With a restart between the two passes."""
    turned = instant(turn)
    first, last = turned - 2 * HOUR, turned + 2 * HOUR
    gone, there = turned - 13 * MINUTE, turned - 3 * MINUTE

    async def story(world: World) -> None:
        await world.bus("plant", {"main": ()}, poll="15 min")
        path = world.write(timestamps="local")
        async with world.running(path):
            await world.clock.at(gone)
        await world.clock.at(there)
        async with world.running(path) as gateway:
            await world.clock.at(last + 12 * MINUTE)
            counts = await gateway.store.check_counts()
        assert counts.balanced
        assert (counts.pending, counts.parked, counts.dropped) == (0, 0, {})
        assert counts.confirmed == counts.stored
        # While the first pass waits for the second, its values count as held beside pending.
        held = [line["held"] for line in world.log.of("gateway.summary")]
        assert max(held) > 0 or back < HOUR  # shorter than from one summary to the next
        assert held[-1] == 0
        counter, moved = world.received("main"), world.received("main-moved")
        begin, end = min(moved), max(moved) + QUARTER
        assert sum(moved.values()) == counter[end] - counter[begin]
        # Under a stamp that was shown twice there is what moved in two quarters, and the later
        # reading of the counter.
        for stamp in quarters(turned - back, turned - QUARTER):
            assert moved[stamp] > 0
            low, high = (world.shown("main", stamp + back + by) for by in (0, MINUTE))
            assert low <= counter[stamp] <= high
        written_once = set(quarters(first, last)) - set(quarters(turned, turned + back - QUARTER))
        assert set(counter) == written_once
        assert world.standin.violations == []
        accepted = [(one.meter_id, one.stamp) for one in world.standin.accepted]
        assert len(accepted) == len(set(accepted)), "sent twice"

    play(story, tmp_path, first - 2 * MINUTE, zone=zone)


def test_a_daily_value_spans_the_long_and_the_short_day(tmp_path: Path) -> None:
    start = instant("2026-10-24T21:59")  # a minute before midnight in Oslo

    async def story(world: World) -> None:
        await world.bus("plant", {"main": ()}, poll="15 min")
        async with world.running(world.write(every="1 d")):
            await world.clock.at(start + 50 * HOUR + 12 * MINUTE)
        stamps = [datetime.fromtimestamp(at / 1000, UTC) for at in world.received("main")]
        assert [f"{at:%d %H:%M}" for at in stamps] == ["24 22:00", "25 23:00", "26 23:00"]
        moved, counter = world.received("main-moved"), world.received("main")
        steps = [after - before for before, after in pairwise(counter.values())]
        assert list(moved.values()) == steps
        assert world.standin.violations == []

    play(story, tmp_path, start)
