"""Who is asked with which setting, in what order, for how long; and what becomes of answers."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

from gateway.clock import SystemClock
from gateway.config.library import Library
from gateway.errors import BadAnswer, DeviceException, LinkDown
from gateway.metering.inquiry import Inquiry, Told
from gateway.metering.reading import Block
from gateway.modbus.bus import Bus
from gateway.modbus.faults import Fault
from gateway.modbus.plan import Read
from gateway.modbus.scanning import (
    BAUDRATES,
    PARITIES,
    AnswersToAll,
    Asked,
    Damaged,
    Event,
    Found,
    Refused,
    Scan,
    Step,
    seconds,
    seconds_a_unit,
    settings,
    steps,
)
from gateway.modbus.served import SimulatedEndpoint, SimulatedLine, wall
from gateway.modbus.settings import BusSettings, Link, SerialLink, TcpLink
from gateway.modbus.simulator import SimulatedMeter
from tests.modbus.wires import Behaviour, QuickClock, ToldWire, mute

PROFILES = Library(None).all()
LINE = SerialLink("port")
TCP = TcpLink("127.0.0.1")
NAME = Inquiry(43, 2)


def told(link: SerialLink) -> str:
    return f"{link.baudrate} {link.parity}"


# ------------------------------------------------------------------------- what is asked, and when


def test_every_baud_rate_is_tried_with_every_parity_the_likely_ones_first() -> None:
    found = settings(LINE, BAUDRATES, PARITIES)
    assert len(found) == len(set(found)) == 24
    assert [told(one) for one in found[:5]] == [
        "9600 none", "9600 even", "19200 even", "19200 none", "2400 none",
    ]  # fmt: skip
    assert {one.stopbits for one in found} == {1}
    assert [told(one) for one in found[-2:]] == ["57600 odd", "1200 odd"]


def test_the_setting_of_the_configuration_comes_before_all() -> None:
    own = SerialLink("port", 2400, "even", stopbits=2, echo=True)
    found = settings(own, BAUDRATES, PARITIES)
    assert found[0] == own
    assert told(found[1]) == "9600 none"
    assert len(found) == 24
    assert all(one.echo for one in found)
    assert [told(one) for one in settings(own, (9600,), ("odd",))] == ["9600 odd"]


def test_the_likely_units_are_asked_with_every_setting_before_all_others() -> None:
    links = settings(LINE, (9600, 19200), ("none",))
    found = steps(links, range(1, 248), PROFILES)
    assert [told(step.link) for step in found] == [  # type: ignore[arg-type]
        "9600 none", "19200 none", "9600 none", "19200 none",
    ]  # fmt: skip
    assert found[0].units == found[1].units
    assert found[0].units[:10] == tuple(range(1, 11))
    assert {126, 247} <= set(found[0].units[10:])  # as a PAC2200 and an EM420 leave their makers
    assert len(found[0].units) < 30
    assert sorted(found[0].units + found[2].units) == list(range(1, 248))
    assert steps([TCP], (200, 1, 126), PROFILES) == (Step(TCP, (1, 126, 200)),)


async def test_the_time_that_it_takes_is_near_what_was_said_before() -> None:
    line = SimulatedLine([], LINE)
    link = SerialLink(line.open(), 9600)
    todo = [Step(link, tuple(range(1, 16)))]
    began = time.monotonic()
    events = await everything(todo, over_bus(0.1), wait=0.1)
    took = time.monotonic() - began
    line.close()
    assert [event.unit for event in events if isinstance(event, Asked)] == list(range(1, 16))
    expected = seconds(todo, 0.1)
    assert 0.85 * expected < took < 2 * expected
    assert line.requests == 15


# ---------------------------------------------------------------------------- over a told wire


async def everything(
    todo: Sequence[Step], wire: Callable[[Link], object], wait: float = 0.2, clock: object = None
) -> list[Event]:
    scan = Scan(PROFILES, wire, clock or SystemClock(), wait=wait)  # type: ignore[arg-type]
    async with aclosing(scan.run(todo)) as events:
        return [event async for event in events]


def over_bus(wait: float) -> Callable[[Link], Bus]:
    def wire(link: Link) -> Bus:
        timeout = round(1000 * seconds_a_unit(link, wait))
        settings = BusSettings("riser", link, timeout=timeout, retries=0)
        return Bus(settings, SystemClock(), random=random.Random(1))

    return wire


async def on_told(
    todo: Sequence[Step], behave: Behaviour | None = None, **more: object
) -> tuple[list[Event], list[ToldWire]]:
    """A scan in virtual time; the wires it asked over."""
    clock = QuickClock()
    wires: list[ToldWire] = []

    def wire(link: Link) -> ToldWire:
        wires.append(ToldWire(clock, behave or (lambda unit, read: None)))
        for name, value in more.items():
            setattr(wires[-1], name, value)
        return wires[-1]

    return await everything(todo, wire, clock=clock), wires


def kinds(events: Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in events if not isinstance(event, Asked)]


async def test_progress_counts_every_unit_and_the_time_to_go_falls_to_nothing() -> None:
    links = settings(LINE, (9600, 19200), ("none",))
    events, _ = await on_told(steps(links, range(1, 31), PROFILES))
    asked = [event for event in events if isinstance(event, Asked)]
    assert [event.done for event in asked] == list(range(1, 61))
    assert {event.total for event in asked} == {60}
    left = [event.left for event in asked]
    assert left == sorted(left, reverse=True)
    assert left[0] < seconds(steps(links, range(1, 31), PROFILES), 0.2)
    assert left[-1] == 0


async def test_whatever_answers_is_there_but_where_a_gateway_says_that_nobody_is() -> None:
    codes = {1: 1, 2: 2, 3: 4, 4: 6, 5: 10, 6: 11}

    def behave(unit: int, read: Read) -> Exception | None:
        return DeviceException("", unit, str(read), codes[unit]) if unit in codes else None

    events, _ = await on_told([Step(TCP, tuple(range(1, 9)))], behave)
    found = [event for event in events if isinstance(event, Found)]
    assert [one.unit for one in found] == [1, 2, 3, 4]
    assert all(one.claims == () and one.blocks == () and not one.certain for one in found)
    assert dict(found[1].refused)[Read(3, 40000, 2)] == "exception_2"


async def test_an_unknown_unit_is_shown_with_what_it_gave() -> None:
    def behave(unit: int, read: Read) -> Block | Exception:
        if read == Read(3, 40000, 2):
            return Block(3, 40000, (7, 8))
        return DeviceException("", unit, str(read), 2)

    events, _ = await on_told([Step(LINE, (3,))], behave)
    (found,) = (event for event in events if isinstance(event, Found))
    assert found.blocks == (Block(3, 40000, (7, 8)),)


async def test_nothing_is_sent_but_reads_of_registers() -> None:
    def behave(unit: int, read: Read) -> Block:
        return Block(read.function, read.address, (0,) * read.count)

    _, wires = await on_told([Step(LINE, (1, 2, 3))], behave)
    assert {asked.function for wire in wires for _, _, asked, _ in wire.asked} == {3, 4, 43}


async def test_a_unit_that_no_profile_knows_is_asked_once_what_it_tells_of_itself() -> None:
    def behave(unit: int, read: Read) -> Exception | None:
        return None if unit == 2 else DeviceException("", unit, str(read), 2)

    says = Told(43, ((0, "Acme"), (1, "E1"), (2, "1.0")))
    for answer, told in ((says, (says,)), (mute(1, NAME), ()), (None, ())):
        events, (wire,) = await on_told(
            [Step(LINE, (1, 2, 3))], behave, tell=lambda unit, inquiry, answer=answer: answer
        )
        found = [event for event in events if isinstance(event, Found)]
        assert [(one.unit, one.claims, one.told) for one in found] == [(1, (), told), (3, (), told)]
        asked = [unit for _, unit, question, _ in wire.asked if question == NAME]
        assert asked == ([1, 3] if answer else [1, 1, 3, 3])  # silence once more


async def test_a_unit_that_was_found_is_asked_no_more_but_at_another_speed() -> None:
    def behave(unit: int, read: Read) -> Exception | None:
        return DeviceException("", unit, str(read), 2) if unit == 1 else None

    links = settings(LINE, (9600, 19200), ("none", "even"))
    events, wires = await on_told([Step(link, (1, 2)) for link in links], behave)
    found = [event for event in events if isinstance(event, Found)]
    assert [told(one.link) for one in found] == ["9600 none", "19200 even"]  # type: ignore[arg-type]
    asked = [list(dict.fromkeys(unit for _, unit, _, _ in wire.asked)) for wire in wires]
    assert asked == [[1, 2], [2], [1, 2], [2]]
    assert [event.done for event in events if isinstance(event, Asked)] == list(range(1, 9))


async def test_an_answer_that_is_never_whole_is_told_and_asked_for_three_times() -> None:
    def behave(unit: int, read: Read) -> Exception | None:
        return BadAnswer("", unit, str(read), "damaged", reason="crc") if unit == 2 else None

    events, (wire,) = await on_told([Step(LINE, (1, 2, 3))], behave)
    assert [event for event in events if isinstance(event, Damaged)] == [Damaged(LINE, 2, "crc")]
    assert [unit for _, unit, _, _ in wire.asked] == [1, 2, 2, 2, 3]


async def test_a_device_that_answers_as_another_unit_is_told_and_takes_no_longer() -> None:
    def behave(unit: int, read: Read) -> Exception:
        return BadAnswer("", unit, str(read), "another unit answered", reason="unit")

    events, (wire,) = await on_told([Step(TCP, (1, 2, 3))], behave)
    told_of = [event.unit for event in events if isinstance(event, Damaged)]
    assert told_of == [1, 2, 3]
    assert len(wire.asked) == 3


async def test_a_connection_that_is_closed_now_and_then_is_made_again() -> None:
    events, (wire,) = await on_told([Step(TCP, (1, 2))], hung_up=True)
    assert len([event for event in events if isinstance(event, Asked)]) == 2
    assert wire.opened == 2


async def test_a_line_that_is_gone_ends_the_scan() -> None:
    with pytest.raises(LinkDown):
        await on_told([Step(LINE, (1, 2))], down=True)


# ------------------------------------------------------------------------------ over real wires


async def test_a_setting_that_the_port_refuses_is_passed_over() -> None:
    line = SimulatedLine([], LINE)
    path = line.open()
    links = settings(SerialLink(path), (9600, 19200), PARITIES)
    events = await everything(steps(links, (1, 20), PROFILES), over_bus(0.02), wait=0.02)
    line.close()
    refused = [told(one.link) for one in events if isinstance(one, Refused)]  # type: ignore[arg-type]
    assert refused == ["9600 even", "19200 even", "9600 odd", "19200 odd"]
    assert all(one.reason for one in events if isinstance(one, Refused))
    asked = [(told(e.link), e.unit) for e in events if isinstance(e, Asked)]  # type: ignore[arg-type]
    assert asked == [("9600 none", 1), ("19200 none", 1), ("9600 none", 20), ("19200 none", 20)]


async def test_a_port_that_is_not_there_is_no_setting() -> None:
    with pytest.raises(LinkDown):
        await everything([Step(SerialLink("/dev/none"), (1,))], over_bus(0.1))


async def test_a_meter_that_answers_after_the_wait_is_found_by_its_late_answer() -> None:
    meter = SimulatedMeter(
        Library(None).get("abb-b23"), 3, wall(), faults=[Fault("slow", seconds=0.45)]
    )
    line = SimulatedLine([meter], SerialLink("", 115200), turnaround=0.0)
    link = SerialLink(line.open(), 115200)
    events = await everything([Step(link, (1, 2, 3, 4, 5))], over_bus(0.3), wait=0.3)
    line.close()
    (found,) = (event for event in events if isinstance(event, Found))
    assert (found.unit, found.claims[0].profile.name) == (3, "abb-b23")


@asynccontextmanager
async def endpoint(meters: list[SimulatedMeter]) -> AsyncIterator[TcpLink]:
    served = SimulatedEndpoint(meters)
    try:
        yield TcpLink("127.0.0.1", await served.open())
    finally:
        await served.close()


async def test_a_device_that_answers_to_every_unit_is_not_asked_for_all_of_them() -> None:
    profile = Library(None).get("abb-b23")
    one = [SimulatedMeter(profile, unit, wall(), serial_number="77") for unit in range(1, 10)]
    async with endpoint(one) as link:
        events = await everything([Step(link, tuple(range(1, 10)))], over_bus(5), wait=5)
    assert kinds(events) == ["Found", "Found", "Found", "AnswersToAll"]
    assert AnswersToAll(link, 3) in events


async def test_meters_of_one_model_behind_a_gateway_are_all_found() -> None:
    profile = Library(None).get("abb-b23")
    many = [SimulatedMeter(profile, u, wall(), serial_number=f"{u}") for u in range(1, 6)]
    async with endpoint(many) as link:
        events = await everything([Step(link, tuple(range(1, 6)))], over_bus(5), wait=5)
    assert kinds(events) == 5 * ["Found"]
