"""What a poller says is probably wrong, from what the units of a bus do."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from gateway.errors import BadAnswer, DeviceException
from gateway.metering.profile import DeviceProfile
from gateway.metering.reading import Block
from gateway.metering.register import Encoding, Register
from gateway.metering.settings import MeterSettings
from gateway.modbus.frames import Frame, ascii_frame, crc16, overheard
from gateway.modbus.line import Overheard
from gateway.modbus.plan import Read
from gateway.modbus.poller import Ask, Poller
from gateway.modbus.settings import BusSettings, Link, SerialLink, TcpLink
from tests.modbus.wires import Behaviour, QuickClock, ToldWire, truth

FEW = (Register("few", 3, 0, Encoding("u16"), Decimal(1)),)
MANY = tuple(Register(f"r{n}", 4, n, Encoding("u16"), Decimal(1)) for n in range(60))
PROFILE = DeviceProfile("t", "T", "t", "electricity", (*FEW, *MANY))
LINE, TCP = SerialLink("/dev/riser"), TcpLink("10.0.0.7")


class Diagnosed:
    """Units 1 to `units` of a bus that do as they are told, and what is said of the first."""

    def __init__(self, behave: Behaviour, link: Link = LINE, units: int = 3) -> None:
        self.clock = QuickClock()
        self.wire = ToldWire(self.clock, behave)
        self.meters = [
            MeterSettings(f"m{unit}", "riser", unit, PROFILE, ()) for unit in range(1, units + 1)
        ]
        self.poller = Poller(
            BusSettings("riser", link),
            self.meters,
            self.clock,
            random=random.Random(1),
            wire=self.wire,
        )

    async def rounds(self, times: int = 8) -> str:
        for _ in range(times):
            await self.poller.round([Ask(meter, PROFILE.registers) for meter in self.meters])
            await self.clock.sleep(60)
        return self.poller.likely_cause("m1")


def damaged(unit: int, read: Read) -> Exception:
    return BadAnswer("riser", unit, str(read), "damaged", reason="crc")


def only(unit: int, behave: Behaviour) -> Behaviour:
    """That one unit does so, the others are sound."""
    return lambda asked, read: behave(asked, read) if asked == unit else truth(read)


def silent(unit: int, read: Read) -> None:
    return None


async def test_nothing_is_said_of_meters_that_answer():
    diagnosed = Diagnosed(lambda unit, read: truth(read))
    await diagnosed.rounds()
    assert {diagnosed.poller.likely_cause(f"m{unit}") for unit in (1, 2, 3)} == {""}


@pytest.mark.parametrize(
    ("behave", "link", "words"),
    [
        (silent, LINE, "nobody on this line answers: A and B swapped"),
        (silent, TCP, "takes the connection but answers nothing"),
        (only(1, silent), LINE, "others on this bus answer: this one's power, unit"),
        (damaged, LINE, "another baud rate or parity than the meter has"),
        (damaged, TCP, "behind the gateway"),
        (only(1, damaged), LINE, "two meters with unit 1, or another baud rate or parity"),
        (only(1, lambda unit, read: DeviceException("riser", unit, str(read), 11)), TCP,
         "hears nothing from it"),
        (only(1, lambda unit, read: DeviceException("riser", unit, str(read), 10)), TCP,
         "no path to this unit"),
        (only(1, lambda unit, read: BadAnswer("riser", unit, str(read), "", reason="unit")), LINE,
         "another master asks on this line"),
        (only(1, lambda unit, read: BadAnswer("riser", unit, str(read), "", reason="length")), TCP,
         "mixes up its clients"),
    ],
)  # fmt: skip
async def test_the_cause_fits_what_the_units_do(behave, link, words, expected_events):
    expected_events("meter.offline", "meter.noisy", "meter.still_offline")
    assert words in await Diagnosed(behave, link).rounds()


async def test_the_only_meter_of_a_line_may_have_another_unit(expected_events):
    expected_events("meter.offline", "meter.still_offline")
    words = await Diagnosed(silent, units=1).rounds()
    assert "A and B swapped, or another baud rate, parity or unit" in words


async def test_long_answers_that_come_damaged_while_short_ones_do_not_point_to_termination(
    expected_events,
):
    expected_events("meter.noisy", "meter.offline")
    draw = random.Random(1)

    def behave(unit: int, read: Read) -> Block | Exception:
        return damaged(unit, read) if read.count > 20 and draw.random() < 0.4 else truth(read)

    assert "termination" in (cause := await Diagnosed(behave).rounds(30))
    assert cause.startswith("long answers")


async def test_damage_of_any_length_is_noise(expected_events):
    expected_events("meter.noisy", "meter.offline")
    draw = random.Random(1)

    def behave(unit: int, read: Read) -> Block | Exception:
        return damaged(unit, read) if draw.random() < 0.3 else truth(read)

    assert (await Diagnosed(behave).rounds(30)).startswith("noise on the line")


async def test_a_meter_that_is_damaged_beside_sound_ones_has_a_double_or_a_loose_wire(
    expected_events,
):
    expected_events("meter.noisy", "meter.offline", "meter.online")
    draw = random.Random(1)

    def behave(unit: int, read: Read) -> Block | Exception:
        return damaged(unit, read) if draw.random() < 0.8 else truth(read)

    assert "two meters with unit 1" in await Diagnosed(only(1, behave)).rounds(30)


async def test_meters_that_fell_silent_together_or_alone_are_told_apart(expected_events):
    expected_events("meter.offline")
    for fallen, words in (({1}, "only this meter fell silent"), ({1, 2, 3}, "all that answered")):
        diagnosed = Diagnosed(lambda unit, read: truth(read))
        await diagnosed.rounds(2)
        diagnosed.wire.behave = lambda unit, read, fallen=fallen: (
            None if unit in fallen else truth(read)
        )
        assert words in await diagnosed.rounds()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("late", "later than 1 s: give its bus a longer timeout"),
        ("foreign", "another master"),
        ("echo", "only our own requests come back"),
    ],
)
async def test_what_is_overheard_tells(kind, words, expected_events):
    expected_events("meter.offline")
    diagnosed = Diagnosed(silent)
    await diagnosed.rounds()
    now = diagnosed.clock.monotonic()
    diagnosed.wire.overheard += [Overheard(now, kind, 1)] * 3
    assert words in diagnosed.poller.likely_cause("m1")
    await diagnosed.clock.sleep(2 * 3600)
    assert words not in diagnosed.poller.likely_cause("m1")


async def test_a_meter_s_end_is_logged_with_its_cause(expected_events, caplog):
    expected_events("meter.offline")
    await Diagnosed(only(1, silent)).rounds()
    (line,) = [r for r in caplog.records if getattr(r, "event", "") == "meter.offline"]
    assert "others on this bus answer" in line.fields["cause"]


def rtu(*body: int) -> bytes:
    return bytes(body) + crc16(bytes(body))


def test_sound_frames_are_overheard_among_noise():
    data = (
        b"\x00\x55" + rtu(7, 3, 0, 10, 0, 2) + rtu(7, 3, 4, 1, 2, 3, 4) + b"\x07" + rtu(9, 0x84, 2)
    )
    assert overheard("rtu", data) == [Frame(7, True), Frame(7, False), Frame(9, False)]
    assert overheard("rtu", bytes(range(256))) == []


def test_sound_frames_are_overheard_in_ascii():
    request, answer = bytes((7, 3, 0, 10, 0, 2)), bytes((7, 3, 4, 1, 2, 3, 4))
    data = b"x:00\r\n" + ascii_frame(request) + ascii_frame(answer)
    assert overheard("ascii", data) == [Frame(7, True), Frame(7, False)]
