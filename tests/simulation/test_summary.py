"""Once an hour: what was read and sent, and where every value is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.simulation import HOUR, MINUTE, World, instant, play

NOON = instant("2026-03-10T12:00")
FATES = ("pending", "in_flight", "confirmed", "parked", "dropped")


def test_each_hour_tells_where_every_value_is_also_after_a_reload_and_a_restart(
    tmp_path: Path,
) -> None:
    async def story(world: World) -> None:
        await world.bus("plant", {"main": ()})
        path = world.write()
        async with world.running(path) as gateway:
            await world.clock.at(NOON + HOUR + 20 * MINUTE)
            gateway.reload()
            await world.clock.at(NOON + 3 * HOUR + MINUTE)
        assert len(world.log.of("config.reloaded")) == 1
        async with world.running(path):
            await world.clock.at(NOON + 4 * HOUR + MINUTE)
        lines = world.log.of("gateway.summary")
        assert len(lines) == 4
        for line in lines:
            assert line["balanced"] == "yes"
            assert line["stored"] == sum(line[fate] for fate in FATES) > 0
        # What was read and sent is of the hour alone, whatever happened in it: 4 counters,
        # 4 consumptions and 4 means; the first has no base yet, and of the last run 3 were before.
        assert [line["read"] for line in lines] == [8, 12, 12, 9]
        assert [line["sent"] for line in lines] == [8, 12, 12, 9]
        assert [line["meters_online"] for line in lines] == [1, 1, 1, 1]

    play(story, tmp_path, NOON + 2 * MINUTE)


def test_confirmed_values_are_pruned_every_hour_also_after_a_reload(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.bus("plant", {"main": ()})
        path = world.write()
        pruned = 0
        async with world.running(path) as gateway:
            prune = gateway.store.prune

            async def counted(*, by_age: bool = True) -> None:
                nonlocal pruned
                pruned += 1
                await prune(by_age=by_age)

            gateway.store.prune = counted  # type: ignore[method-assign]
            gateway.reload()
            await asyncio.sleep(3 * 3600)
        assert pruned == 3

    play(story, tmp_path, NOON + 2 * MINUTE)
