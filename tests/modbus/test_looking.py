"""A person looks at registers between the rounds of a bus, and no meter is judged by it."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal

import pytest

from gateway.errors import DeviceException
from gateway.metering.profile import DeviceProfile
from gateway.metering.reading import Block
from gateway.metering.register import Encoding, Register
from gateway.metering.settings import MeterSettings
from gateway.modbus.plan import Read
from gateway.modbus.poller import Ask, Poller
from gateway.modbus.settings import BusSettings, SerialLink, TcpLink
from tests.modbus.wires import QuickClock, ToldWire, truth

REGISTERS = (Register("r0", 3, 0, Encoding("u32"), Decimal(1)),)
METER = MeterSettings("m1", "riser", 1, DeviceProfile("t", "T", "t", "electricity", REGISTERS), ())
ASK = Ask(METER, REGISTERS)
LINE = BusSettings("riser", SerialLink("/dev/riser"))


class Looked:
    """A poller of one meter, unit 1, over a wire in virtual time."""

    def __init__(self, settings: BusSettings = LINE) -> None:
        self.clock = QuickClock()
        self.answers: dict[tuple[int, int], Block | Exception | None] = {}
        """(unit, address) to something else than the truth."""
        self.wire = ToldWire(self.clock, self._behave)
        self.poller = Poller(settings, [METER], self.clock, random=random.Random(1), wire=self.wire)

    def _behave(self, unit: int, read: Read) -> Block | Exception | None:
        return self.answers.get((unit, read.address), truth(read))


def refused(code: int) -> DeviceException:
    return DeviceException("riser", 1, "", code)


@pytest.mark.parametrize("unit", [1, 7], ids=["of a meter", "of a unit that no meter has"])
async def test_the_words_of_a_unit_are_given_or_the_reason_why_not(unit: int) -> None:
    looked = Looked()
    looked.answers = {(unit, 10): refused(2), (unit, 20): None}
    reads = [Read(4, 342, 4), Read(3, 10, 2), Read(1, 20, 1), Read(3, 30, 3)]
    assert await looked.poller.look(unit, reads) == (
        truth(reads[0]), "exception_2", "timeout", truth(reads[3])
    )  # fmt: skip


async def test_a_unit_that_stays_silent_costs_three_timeouts_at_most() -> None:
    looked = Looked()
    reads = [Read(3, address, 2) for address in range(20)]
    looked.answers = {(9, read.address): None for read in reads}
    assert await looked.poller.look(9, reads) == ("timeout",) * 20
    assert len(looked.wire.asked) == 3
    looked.answers.clear()
    assert await looked.poller.look(9, reads[:1]) == (truth(reads[0]),)


async def test_a_meter_is_not_judged_by_what_it_does_not_give_to_a_person() -> None:
    looked = Looked()
    await looked.poller.round([ASK])
    before = looked.poller.units()
    looked.answers = {(1, address): None for address in range(50, 60)} | {(1, 60): refused(2)}
    for address in (*range(50, 60), 60):
        await looked.poller.look(1, [Read(3, address, 1)])
    assert looked.poller.units() == before
    done = await looked.poller.round([ASK])
    assert (done.requests, done.errors) == (1, 0)


async def test_nothing_that_comes_late_is_taken_for_the_answer_to_the_other_question() -> None:
    """A look in vain, then a request of the same shape by the meter's own round, and the reverse:
    on a line a request of another shape goes between."""
    looked = Looked()
    await looked.poller.round([ASK])
    looked.answers = {(1, 50): None, (1, 70): None}
    for reads in ([Read(3, 50, 2)], [Read(3, 70, 5), Read(3, 80, 5), Read(3, 50, 2)]):
        assert (await looked.poller.look(1, reads))[-1] == "timeout"
        looked.wire.asked.clear()
        await looked.poller.round([ASK])
        assert [(read.address, read.count) for read in looked.wire.reads] == [(0, 3), (0, 2)]

    looked.answers = {(1, 0): None}
    await looked.poller.round([ASK])
    looked.wire.asked.clear()
    looked.answers = {}
    assert await looked.poller.look(1, [Read(3, 50, 2)]) == (truth(Read(3, 50, 2)),)
    between, last = looked.wire.reads
    assert between.shape != last.shape


async def test_a_look_waits_for_the_round_under_way() -> None:
    looked = Looked()
    round_, look = await asyncio.gather(
        looked.poller.round([ASK]), looked.poller.look(1, [Read(4, 5, 1)])
    )
    assert round_.samples[0].raw.blocks == (truth(Read(3, 0, 2)),)
    assert look == (truth(Read(4, 5, 1)),)
    assert [read.function for read in looked.wire.reads] == [3, 4]


async def test_a_line_that_is_down_is_the_reason_and_is_said_once(expected_events) -> None:
    expected_events("bus.down")
    looked = Looked()
    looked.wire.down = True
    assert await looked.poller.look(1, [Read(3, 0, 1)] * 5) == ("link_down",) * 5
    assert looked.poller.link().error == "no such port"


async def test_a_connection_that_was_closed_while_idle_is_opened_again() -> None:
    looked = Looked(BusSettings("net", TcpLink("192.0.2.1")))
    await looked.poller.round([ASK])
    looked.wire.hung_up = True
    assert await looked.poller.look(1, [Read(3, 5, 1)]) == (truth(Read(3, 5, 1)),)


async def test_a_connection_that_is_closed_after_each_round_is_closed_after_a_look() -> None:
    looked = Looked(BusSettings("net", TcpLink("192.0.2.1", disconnect="after_round")))
    await looked.poller.look(1, [Read(3, 5, 1)])
    assert not looked.wire.is_open
