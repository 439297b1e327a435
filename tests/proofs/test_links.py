"""Links that fail again and again, for a week: each comes back by itself, and nothing piles up."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from gateway.clock import DAY, HOUR, SECOND
from gateway.modbus.settings import TcpLink
from tests.modbus.links import BACK_AFTER, WAYS, Device, asked, broken, in_virtual_time, replugged


def test_an_adapter_is_replugged_a_thousand_times(
    tmp_path: Path,
    short: bool,
    expected_events: Callable[..., None],
) -> None:
    expected_events("bus.down", "meter.offline")
    draw = random.Random(2)
    took = replugged(tmp_path, 100 if short else 1000, lambda: draw.uniform(0.0, 3.0))
    print(f"{len(took)} times under another number: read again after {max(took):.2f} s at most")
    assert max(took) <= 5


def test_a_connection_fails_in_every_way_for_a_week(
    short: bool, expected_events: Callable[..., None]
) -> None:
    expected_events("bus.down", "meter.offline", "meter.still_offline")
    draw = random.Random(3)
    times = (6 * HOUR if short else 7 * DAY) / SECOND
    found: dict[str, list[tuple[int, int, float]]] = {way: [] for way in WAYS}

    async def story() -> int:
        device = Device()
        await device.start()
        async with asked(TcpLink("127.0.0.1", device.port)) as site:
            await site.next_reading(within=10)
            end = site.clock.monotonic() + times
            while site.clock.monotonic() < end:
                way = draw.choice(WAYS)
                lasting = 10 ** draw.uniform(0, 3.5)
                found[way].append(await broken(device, site, way, lasting))
                await site.clock.sleep(draw.uniform(0, 300))
        await device.stop()
        return device.turned_away

    assert in_virtual_time(story) == 0
    for way, each in found.items():
        worst, later, took = (max(one, default=0) for one in zip(*each, strict=True))
        print(
            f"{len(each)} times {way}: at most {worst} attempts a minute, {later} after"
            f" 5 min; read again after {took:.1f} s"
        )
        assert worst <= 8
        assert later <= 3
        assert took <= BACK_AFTER
