"""P6: what waits for the other one of its hour counts as held, beside pending."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

from gateway.energinet.holding import with_held
from gateway.energinet.slot import Now
from gateway.metering.reading import Counts
from tests.energinet.made import ZONE, Reply, World, series
from tests.energinet.test_twins import (
    CLOSES,
    FIRST,
    MINUTE,
    SECOND_TIME,
    night,
    reading,
    stored,
    until,
)


async def counted(world: World) -> tuple[int, int]:
    """Pending, and how many of these are held."""
    now, zone = Now.of(world.clock), ZoneInfo(ZONE)
    counts: Counts = await world.store.check_counts()
    found = await with_held(counts, world.store, world.settings, zone, now)
    assert found.balanced
    return found.pending, found.held


async def test_the_first_of_two_is_held_until_the_second_is_there(tmp_path: Path) -> None:
    world = await night(tmp_path, series("7"), series("8"))
    await stored(world, reading(FIRST, "3"), reading(FIRST - MINUTE, "3", "8"))
    await world.slots(2)
    assert await counted(world) == (1, 1)  # the other one was sent
    await until(world, SECOND_TIME + MINUTE)
    await stored(world, reading(SECOND_TIME, "4"))
    assert await counted(world) == (0, 0)
    await world.end()


async def test_one_whose_twin_does_not_come_is_held_for_a_day(tmp_path: Path) -> None:
    world = await night(tmp_path, series("7", as_="consumption"))
    await stored(world, reading(FIRST, "3"))
    await until(world, CLOSES - MINUTE)
    assert await counted(world) == (1, 1)
    await until(world, CLOSES + MINUTE)
    assert (await counted(world))[1] == 0
    await world.end()


async def test_with_an_offset_none_is_held(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events("upload.refused")
    world = await night(tmp_path, series("7"), timestamps="offset")
    world.script = lambda _: Reply(503)
    await stored(world, reading(FIRST, "3"))
    await world.slots(2)
    assert await counted(world) == (1, 0)
    await world.end()
