"""A link that goes away in every way it can: it recovers by itself, bounded, and leaks nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.modbus.settings import TcpLink
from tests.modbus.links import BACK_AFTER, WAYS, Device, asked, broken, in_virtual_time, replugged


def test_an_adapter_that_comes_back_under_another_number_is_read_again_within_5_s(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events("bus.down", "meter.offline")
    draw = random.Random(1)
    took = replugged(tmp_path, 50, lambda: draw.uniform(0.1, 3.0))
    assert len(took) == 50
    assert max(took) <= 5, took


def test_an_adapter_that_was_away_for_long_is_found_again_as_soon(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events("bus.down", "meter.offline")
    draw = random.Random(1)
    took = replugged(tmp_path, 5, lambda: draw.uniform(60, 600))
    assert max(took) <= 6, took  # 4.8 s, and the meter is asked every second


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_comes_back_by_itself_and_is_not_tried_too_often(
    way: str, expected_events: Callable[..., None]
) -> None:
    expected_events("bus.down", "meter.offline")

    async def story() -> None:
        device = Device()
        await device.start()
        async with asked(TcpLink("127.0.0.1", device.port)) as site:
            await site.next_reading(within=10)
            worst, later, took = await broken(device, site, way, lasting=1800)
        await device.stop()
        assert worst <= 8
        assert later <= 3
        assert took <= BACK_AFTER
        assert not device.turned_away, "a client that it lost was still connected"

    in_virtual_time(story)
