"""The state of a link: tried again with a back-off for ever, its changes told once."""

from __future__ import annotations

import random

import pytest

from gateway.errors import LinkDown
from gateway.modbus.line import LONGEST_OF_A_PORT, LONGEST_PAUSE, Line
from gateway.modbus.plan import Read
from gateway.modbus.settings import BusSettings, Link, SerialLink, TcpLink
from tests.modbus.wires import QuickClock, ToldWire

READ = Read(3, 0, 2)
PORT = SerialLink("/dev/riser")


def made(link: Link = PORT) -> tuple[Line, ToldWire, QuickClock]:
    clock = QuickClock()
    wire = ToldWire(clock)
    settings = BusSettings("riser", link)
    return Line(settings, wire, clock, random.Random(1)), wire, clock


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.event for record in caplog.records if hasattr(record, "event")]


@pytest.mark.parametrize(
    ("link", "longest"), [(PORT, LONGEST_OF_A_PORT), (TcpLink("10.0.0.7"), LONGEST_PAUSE)]
)
async def test_what_is_not_there_is_tried_less_and_less_often_but_for_ever(
    link: Link, longest: float, expected_events
):
    expected_events("bus.down")
    line, wire, clock = made(link)
    wire.down = True
    tries, last = [], clock.monotonic()
    for _ in range(40_000):
        before = line.report().error, line._next_try
        await line.ready()
        if line._next_try != before[1]:
            tries.append(clock.monotonic() - last)
            last = clock.monotonic()
        await clock.sleep(0.1)
    assert tries[1] < 1.5
    assert tries[3] > tries[1]
    assert max(tries) <= 1.2 * longest + 0.2
    assert len(tries) > 4_000 / (1.2 * longest)
    wire.down = False
    await clock.sleep(1.2 * longest)
    assert await line.ready()


async def test_a_lost_port_is_told_once_and_so_is_its_return(expected_events, caplog):
    expected_events("bus.down")
    caplog.set_level("INFO")
    line, wire, clock = made()
    for _ in range(3):
        wire.down = True
        await wire.close()
        for _ in range(50):
            await line.ready()
            await clock.sleep(10)
        wire.down = False
        await clock.sleep(80)
        assert await line.ready()
        line.heard()
    assert events(caplog) == ["bus.down", "bus.up"] * 3


async def test_a_link_that_opens_but_breaks_at_each_request_is_not_called_up(
    expected_events, caplog
):
    expected_events("bus.down")
    caplog.set_level("INFO")
    line, wire, clock = made(TcpLink("10.0.0.7"))
    for _ in range(30):
        if await line.ready():
            wire.hung_up = True
            with pytest.raises(LinkDown) as caught:
                await wire.read(1, READ, timeout=1)
            line.lost(caught.value)
        await clock.sleep(5)
    assert events(caplog) == ["bus.down"]
    assert wire.opened < 12, "its back-off grows"


async def test_the_load_of_a_line_is_the_share_of_time_in_which_requests_are_under_way():
    line, wire, clock = made()
    await line.ready()
    await wire.read(1, READ, timeout=1)
    await clock.sleep(0.08)
    assert line.report().busy == pytest.approx(0.2)


async def test_the_load_is_that_of_the_last_hour():
    line, wire, clock = made()
    for _ in range(2 * 3600):
        await line.ready()
        await wire.read(1, READ, timeout=1)
        await clock.sleep(0.98)
    assert line.report().busy == pytest.approx(0.02, rel=0.01)
    for _ in range(61):
        await line.ready()
        await clock.sleep(60)
    assert line.report().busy == pytest.approx(0, abs=1e-3)
