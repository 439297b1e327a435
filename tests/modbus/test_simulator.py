"""What simulated meters serve, read by clients that are not ours."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal

import pytest
import serial
from attrs import evolve
from pymodbus.client import AsyncModbusTcpClient
from pyModbusTCP.client import ModbusClient

from gateway.clock import SystemClock
from gateway.config.library import Library
from gateway.errors import DeviceException
from gateway.metering.inquiry import Inquiry
from gateway.metering.profile import DeviceProfile, Identity, Limits
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import Block, RawWords
from gateway.metering.register import Encoding, Register, value_of
from gateway.modbus.bus import Bus
from gateway.modbus.faults import FAULTS, Fault
from gateway.modbus.plan import Read, Timing, character_time, plan
from gateway.modbus.replies import reply_to
from gateway.modbus.served import SimulatedEndpoint, SimulatedLine, handed_over, wall
from gateway.modbus.settings import BusSettings, Link, SerialLink, TcpLink
from gateway.modbus.simulator import SimulatedMeter
from tests.modbus.lines import frame

LIBRARY = Library(None)
START = 1_760_000_000_000


@pytest.mark.parametrize("name", LIBRARY.names())
def test_every_quantity_of_every_profile_can_be_read_and_means_its_value(name: str) -> None:
    profile = LIBRARY.get(name)
    meter = SimulatedMeter(profile, 1, START)
    at = START + 3_600_000
    wanted = [part for q in profile.quantities() for part in profile.needs(q)]
    for read in plan(wanted, profile.limits, Timing.of(TcpLink("x"), 0.01), known=wanted):
        words = meter.words(read.function, read.address, read.count, at)
        assert not isinstance(words, int), (read, words)
        raw = RawWords((Block(read.function, read.address, words),))
        for register in profile.registers:
            if raw.lookup(register) and not register.scale_register:
                assert value_of(register, raw.lookup) == meter.value(register.name, at)


@pytest.mark.parametrize("name", LIBRARY.names())
def test_counters_move_and_never_go_back(name: str) -> None:
    profile = LIBRARY.get(name)
    meter = SimulatedMeter(profile, 1, START)
    for quantity in profile.quantities():
        if not QUANTITIES[quantity].counter:
            continue
        values = [meter.value(quantity, START + hour * 3_600_000) for hour in range(30)]
        assert all(isinstance(value, Decimal) for value in values), quantity
        assert values == sorted(values, key=lambda value: value)  # type: ignore[type-var]
        assert values[-1] > values[0], quantity  # type: ignore[operator]


async def test_a_client_that_is_not_ours_reads_a_meter_over_tcp() -> None:
    profile = LIBRARY.get("carlo-gavazzi-em24-e1")
    endpoint = SimulatedEndpoint([SimulatedMeter(profile, 7, int(time.time() * 1000))])
    port = await endpoint.open()
    client = ModbusClient("127.0.0.1", port, unit_id=7, timeout=5)
    before = endpoint.meters[0].value("active_energy_import_total", int(time.time() * 1000))
    words = await asyncio.to_thread(client.read_input_registers, 0x34, 2)
    after = endpoint.meters[0].value("active_energy_import_total", int(time.time() * 1000))
    low, high = words
    value = Decimal((high << 16) + low) * Decimal("0.1")
    assert before <= value <= after  # type: ignore[operator]
    assert await asyncio.to_thread(client.read_input_registers, 0x9999, 1) is None
    assert client.last_except == 2
    client.close()
    await endpoint.close()


def test_a_client_that_is_not_ours_reads_a_meter_over_a_line() -> None:
    import minimalmodbus

    profile = LIBRARY.get("eastron-sdm630")
    meter = SimulatedMeter(profile, 3, int(time.time() * 1000))
    line = SimulatedLine([meter], SerialLink("", baudrate=19200), strict=True)
    client = minimalmodbus.Instrument(line.open(), 3)
    assert client.serial is not None
    client.serial.baudrate = 19200
    client.serial.timeout = 2
    before = meter.value("active_energy_import_total", int(time.time() * 1000))
    value = Decimal(f"{client.read_float(72, functioncode=4):.9g}")
    after = meter.value("active_energy_import_total", int(time.time() * 1000))
    slack = Decimal("0.01")
    assert before - slack <= value <= after + slack  # type: ignore[operator]
    client.serial.baudrate = 9600
    client.serial.timeout = 0.3
    with pytest.raises(minimalmodbus.NoResponseError):
        client.read_float(72, functioncode=4)
    client.serial.close()
    line.close()
    assert line.ignored == 0


# ------------------------------------------------------------------------------ on every wire


@pytest.mark.parametrize("wire", ["line", "rtu", "ascii", "tcp"])
async def test_every_meter_of_the_library_is_served_on(wire: str) -> None:
    meters = [
        SimulatedMeter(LIBRARY.get(name), unit, wall())
        for unit, name in enumerate(LIBRARY.names(), 1)
    ]
    async with serving(wire, meters) as link:
        bus = Bus(BusSettings("all", link), SystemClock(), random=random.Random(1))
        await bus.open()
        for meter in meters:
            profile, quantity = meter.profile, counter_of(meter.profile)
            wanted = [part for q in profile.quantities() for part in profile.needs(q)]
            timing = Timing.of(link, 0.001)
            before = meter.value(quantity, wall())
            blocks = [
                await bus.read(meter.unit, read, timeout=20)
                for read in plan(wanted, profile.limits, timing, known=wanted)
            ]
            raw = RawWords(tuple(blocks))
            assert all(raw.lookup(register) for register in wanted), profile.name
            value = value_of(next(iter(profile.needs(quantity))), raw.lookup)
            if quantity in {register.name for register in profile.registers}:
                after = meter.value(quantity, wall() + 1_000)
                counts = QUANTITIES[quantity].counter
                assert not counts or before <= value <= after, profile.name  # type: ignore[operator]
        await bus.close()


def test_a_meter_of_even_requests_shows_what_begins_at_an_odd_address() -> None:
    register = Register("active_power_total", 4, 51, Encoding("u32"), unit="W")
    limits = Limits(even=True)
    profile = DeviceProfile("x", "Acme", "X", "electricity", (register,), limits=limits)
    (read,) = plan([register], limits, Timing.of(TcpLink("x"), 0.01))
    words = SimulatedMeter(profile, 1, START).words(read.function, read.address, read.count, START)
    assert not isinstance(words, int)
    assert (read.address, len(words), words[0], words[3]) == (50, 4, 0, 0)


def counter_of(profile: DeviceProfile) -> str:
    """A counter; of a meter that has none, what it has first."""
    known = profile.quantities()
    return next((q for q in known if QUANTITIES[q].counter), known[0])


@asynccontextmanager
async def serving(wire: str, meters: list[SimulatedMeter]) -> AsyncIterator[Link]:
    if wire == "line":
        line = SimulatedLine(meters, SerialLink("", 115200), turnaround=0.001)
        try:
            yield SerialLink(line.open(), 115200)
        finally:
            line.close()
        return
    end = SimulatedEndpoint(meters, framing=wire, turnaround=0)  # type: ignore[arg-type]
    try:
        yield TcpLink("127.0.0.1", await end.open(), wire)  # type: ignore[arg-type]
    finally:
        await end.close()


# ---------------------------------------------------------------------------------- the line

SDM = LIBRARY.get("eastron-sdm630")


@contextmanager
def port(line: SimulatedLine, baudrate: int) -> Iterator[serial.Serial]:
    """A line at work, and its port opened by nobody of ours."""
    path = line.open()
    try:
        with serial.Serial(path, baudrate, timeout=20) as opened:
            yield opened
    finally:
        line.close()


def request(unit: int, read: Read) -> bytes:
    return frame(unit, read.function, *struct.pack(">HH", read.address, read.count))


def test_bytes_take_their_time_on_a_line_and_a_meter_its_turnaround() -> None:
    link = SerialLink("", 9600)
    reads = plan(SDM.registers, SDM.limits, Timing.of(link, 0.05), known=SDM.registers)
    read = max(reads, key=lambda read: read.count)
    size = 5 + 2 * read.count
    least = (8 + size) * character_time(link) + 0.05
    line = SimulatedLine([SimulatedMeter(SDM, 1, wall())], link, turnaround=0.05)
    took = []
    with port(line, 9600) as opened:
        for _ in range(5):
            began = time.monotonic()
            opened.write(request(1, read))
            assert len(opened.read(size)) == size
            took.append(time.monotonic() - began)
            time.sleep(0.02)
    assert min(took) > least - 0.001
    assert min(took) < 1.5 * least


def test_a_meter_that_is_late_answers_its_requests_in_turn_and_holds_no_other_up() -> None:
    late = SimulatedMeter(SDM, 1, wall(), faults=[Fault("late", 0, 1000, seconds=2)])
    line = SimulatedLine([late, SimulatedMeter(SDM, 2, wall())], SerialLink("", 115200))
    with port(line, 115200) as opened:
        for unit, count in ((1, 2), (2, 4), (1, 6)):  # the last when it would answer at once
            if count == 6:
                time.sleep(max(0.0, (late.started + 1100 - wall()) / 1000))
            opened.write(request(unit, Read(4, 0, count)))
            time.sleep(0.02)
        answers = opened.read(9 + 13 + 17)
    assert [answers[:3], answers[13:16], answers[22:25]] == [
        bytes((2, 4, 8)), bytes((1, 4, 4)), bytes((1, 4, 12))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "character", "fifo", "latency", "pieces"),
    [
        (9, 0.001, 8, 0.0, [(0.008, 0, 8), (0.009, 8, 9)]),
        (9, 0.001, 62, 0.016, [(0.017, 0, 9)]),
        (40, 0.001, 62, 0.016, [(0.017, 0, 17), (0.034, 17, 34), (0.051, 34, 40)]),
        (100, 0.0001, 62, 0.016, [(0.0062, 0, 62), (0.0223, 62, 100)]),
    ],
    ids=["uart", "ftdi-short", "ftdi-long", "ftdi-full"],
)
def test_an_adapter_hands_over_what_it_holds_when_it_is_full_or_has_waited(
    size: int, character: float, fifo: int, latency: float, pieces: list[tuple[float, int, int]]
) -> None:
    found = list(handed_over(size, character, fifo, latency))
    assert found == [(pytest.approx(at), first, end) for at, first, end in pieces]


def test_a_strict_meter_ignores_a_request_inside_the_silence_and_another_does_not() -> None:
    meters = [
        SimulatedMeter(SDM, 1, wall(), faults=[Fault("strict")]),
        SimulatedMeter(SDM, 2, wall()),
    ]
    line = SimulatedLine(meters, SerialLink("", 9600), turnaround=0.001)
    with port(line, 9600) as opened:
        for unit, answered in ((1, 1), (2, 2)):
            opened.write(2 * request(unit, Read(4, 0, 2)))
            assert opened.read(9)[0] == unit
            opened.timeout = 20 if answered == 2 else 0.5
            assert len(opened.read(9)) == 9 * (answered - 1)
            opened.timeout = 20
            time.sleep(0.05)
    assert line.ignored == 1


def test_two_meters_of_one_unit_each_answer_at_their_own_baud_rate() -> None:
    meters = [
        SimulatedMeter(SDM, 1, wall(), serial_number="1111"),
        SimulatedMeter(SDM, 1, wall(), serial_number="2222", baudrate=19200),
    ]
    line = SimulatedLine(meters, SerialLink("", 9600))
    with port(line, 9600) as opened:
        rates = ((9600, 1111), (19200, 2222), (9600, 1111), (2400, None), (12345, None))
        for baudrate, number in rates:
            opened.baudrate = baudrate
            opened.timeout = 20 if number else 0.5
            opened.write(request(1, Read(3, 64512, 2)))
            found = opened.read(9)
            assert (int.from_bytes(found[3:7], "big") if found else None) == number
            time.sleep(0.05)


def test_a_late_answer_meets_that_of_another_meter() -> None:
    meters = [
        SimulatedMeter(SDM, 1, wall(), faults=[Fault("late", seconds=1.0)]),
        SimulatedMeter(SDM, 2, wall()),
    ]
    line = SimulatedLine(meters, SerialLink("", 115200))
    with port(line, 115200) as opened:
        opened.write(request(1, Read(4, 0, 2)))
        time.sleep(0.05)
        opened.write(request(2, Read(4, 0, 2)))
        assert [opened.read(9)[0], opened.read(9)[0]] == [2, 1]


def test_an_adapter_with_echo_hears_every_request() -> None:
    line = SimulatedLine([SimulatedMeter(SDM, 1, wall())], SerialLink("", 115200, echo=True))
    with port(line, 115200) as opened:
        for unit, answer in ((9, 0), (1, 9)):
            asked = request(unit, Read(4, 0, 2))
            opened.write(asked)
            assert opened.read(8) == asked
            opened.timeout = 20 if answer else 0.3
            assert len(opened.read(9)) == answer
            opened.timeout = 20


# ------------------------------------------------------------------------------------ faults

PDU = bytes((4, 0, 0, 0, 2))


def bytes_of(*faults: Fault, at: int = START, pdu: bytes = PDU) -> list[tuple[float, bytes]]:
    """What a meter with these faults sends for a request over RTU."""
    meter = SimulatedMeter(SDM, 1, START, faults=faults)
    asked = frame(1, *pdu)
    return reply_to(meter, asked, pdu, "rtu", 0, at, random.Random(1)).pieces


def test_what_each_fault_makes_of_an_answer() -> None:
    ((_, right),) = bytes_of()
    data = right[3:7]
    expected: dict[str, list[tuple[float, bytes]]] = {
        "silent": [],
        "late": [(2.0, right)],
        "slow": [(0.4, right)],
        "exception": [(0, frame(1, 0x84, 4))],
        "busy": [(0, frame(1, 0x84, 6))],
        "glitch": [(0, b"\0" + right)],
        "truncated": [(0, right[:4])],
        "split": [(0, right[:4]), (0.02, right[4:])],
        "merged": [(0, frame(2, 4, 4, *data) + right)],
        "wrong_unit": [(0, frame(2, 4, 4, *data))],
        "wrong_function": [(0, frame(1, 3, 4, *data))],
        "wrong_length": [(0, frame(1, 4, 2, *data[:2]))],
        "echo": [(0, frame(1, *PDU) + right)],
        "drop": [],
    }
    assert {kind: bytes_of(Fault(kind)) for kind in FAULTS if kind != "crc"} == expected
    ((_, damaged),) = bytes_of(Fault("crc"))
    turned = int.from_bytes(damaged, "big") ^ int.from_bytes(right, "big")
    assert turned.bit_count() == 1


@pytest.mark.parametrize("code", range(1, 12))
def test_every_exception_can_be_had(code: int) -> None:
    assert bytes_of(Fault("exception", code=code)) == [(0, frame(1, 0x84, code))]


def test_a_fault_lasts_from_its_start_to_its_end_and_comes_at_its_rate() -> None:
    silent = Fault("silent", 10_000, 20_000)
    assert [bool(bytes_of(silent, at=START + s * 1000)) for s in (9, 10, 19, 20)] == [
        True, False, False, True,
    ]  # fmt: skip
    noisy = SimulatedMeter(SDM, 1, START, faults=[Fault("crc", rate=0.1)])
    draw = random.Random(1)
    hit = sum(noisy.fault(START, draw) is not None for _ in range(10_000))
    assert 900 < hit < 1100


def test_a_hole_refuses_each_read_that_touches_it() -> None:
    meter = SimulatedMeter(SDM, 1, START, faults=[Fault("hole", registers=(2, 3))])
    refused = [meter.words(4, address, 2, START) == 2 for address in (0, 2, 4)]
    assert refused == [False, True, False]
    assert meter.words(4, 0, 6, START) == 2


def test_a_meter_refuses_a_read_that_reaches_over_a_split_of_its_profile() -> None:
    profile = evolve(SDM, limits=evolve(SDM.limits, splits=((4, 2), (3, 4))))
    meter = SimulatedMeter(profile, 1, START)
    refused = [meter.words(4, *read, START) == 2 for read in ((0, 2), (0, 4), (2, 4))]
    assert refused == [False, True, False]


def test_a_meter_that_was_swapped_shows_another_serial_number() -> None:
    fault = Fault("swapped", 1_000, 2_000, serial_number="4711")
    meter = SimulatedMeter(SDM, 1, START, serial_number="1234", faults=[fault])
    shown = [meter.words(3, 64512, 2, START + at) for at in (0, 1_000, 2_000)]
    assert shown == [(0, 1234), (0, 4711), (0, 1234)]
    with pytest.raises(ValueError, match="the meter shows a number"):
        SimulatedMeter(SDM, 1, START, faults=[Fault("swapped", serial_number="A1")])


def test_counters_begin_at_zero_at_a_reset_and_stand_still_without_power() -> None:
    hour = 3_600_000
    quantity = "active_energy_import_total"

    def at(*faults: Fault, hours: float) -> Decimal:
        value = SimulatedMeter(SDM, 1, START, faults=faults).value(
            quantity, START + int(hours * hour)
        )
        assert isinstance(value, Decimal)
        return value

    moved = at(hours=3) - at(hours=1)
    assert at(Fault("reset", hour), hours=1) == 0
    assert abs(at(Fault("reset", hour), hours=3) - moved) < Decimal("0.01")
    assert at(Fault("reset", 0), hours=0) == 0
    cut = Fault("restart", hour, seconds=7200)
    assert at(cut, hours=1) == at(cut, hours=2) == at(cut, hours=3) == at(hours=1)
    assert abs(at(hours=4) - at(cut, hours=4) - moved) < Decimal("0.01")
    assert bytes_of(cut, at=START + hour - 1)
    assert not bytes_of(cut, at=START + hour)
    assert bytes_of(cut, at=START + 3 * hour)


async def test_a_device_for_one_client_closes_a_second_connection() -> None:
    meter = SimulatedMeter(SDM, 1, wall(), faults=[Fault("one_client")])
    end = SimulatedEndpoint([meter])
    await end.open()
    asked = struct.pack(">HHHBBHH", 7, 0, 6, 1, 4, 0, 2)
    reader, writer = await asyncio.open_connection("127.0.0.1", end.port)
    writer.write(asked)
    assert len(await reader.readexactly(13)) == 13
    second, other = await asyncio.open_connection("127.0.0.1", end.port)
    assert await second.read() == b""
    other.close()
    writer.write(asked)
    assert len(await reader.readexactly(13)) == 13
    writer.close()
    await end.close()


async def test_a_restart_cuts_connections_until_the_device_has_power_again() -> None:
    clock = [START]
    meter = SimulatedMeter(SDM, 1, START, faults=[Fault("restart", 1_000, seconds=5)])
    end = SimulatedEndpoint([meter], now=lambda: clock[0])
    await end.open()
    asked = struct.pack(">HHHBBHH", 7, 0, 6, 1, 4, 0, 2)
    reader, writer = await asyncio.open_connection("127.0.0.1", end.port)
    for now, answered in ((999, True), (1_000, False), (5_999, False), (6_000, True)):
        clock[0] = START + now
        if now != 1_000:  # the one before was cut
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", end.port)
        found = b""
        with contextlib.suppress(ConnectionError):
            writer.write(asked)
            found = await reader.read(13)
        assert bool(found) == answered, now
    writer.close()
    await end.close()


# ------------------------------------------------------------------ what it tells of itself

TELLING = evolve(
    LIBRARY.get("eastron-sdm120"),
    identity=(
        Identity("model_name", Inquiry(43, 1), ("SDM120CT", "SDM120")),
        Identity("serial_number", Inquiry(43, 0x80)),
        Identity("firmware_version", Inquiry(17), ("V2.1",)),
        *(Identity(f"note_{n}", Inquiry(43, 0x90 + n), (f"{n}" * 100,)) for n in range(4)),
    ),
)


@pytest.mark.parametrize("wire", ["line", "tcp", "rtu", "ascii"])
async def test_a_meter_tells_of_itself_what_its_profile_says(wire: str) -> None:
    meter = SimulatedMeter(TELLING, 1, wall(), serial_number="4711")
    silent = SimulatedMeter(LIBRARY.get("eastron-sdm120"), 2, wall())
    async with serving(wire, [meter, silent]) as link:
        bus = Bus(BusSettings("riser", link), SystemClock(), random=random.Random(1))
        await bus.open()
        try:
            name = await bus.identify(1, Inquiry(43, 2), timeout=1)
            assert name.texts == ((0, "Eastron"), (1, "SDM120CT"), (2, "1.0"))
            number, last = Inquiry(43, 0x80), Inquiry(43, 0x93)
            assert (await bus.identify(1, number, timeout=1)).lookup(number) == "4711"
            assert (await bus.identify(1, last, timeout=1)).lookup(last) == "3" * 100
            assert (await bus.identify(1, Inquiry(17), timeout=1)).texts == ((0, "V2.1"),)
            for inquiry in (number, Inquiry(17)):
                with pytest.raises(DeviceException) as error:
                    await bus.identify(2, inquiry, timeout=1)
                assert error.value.code == 1
        finally:
            await bus.close()


async def test_a_client_that_is_not_ours_is_told_what_a_meter_is() -> None:
    meter = SimulatedMeter(TELLING, 1, wall(), serial_number="4711")
    async with serving("tcp", [meter]) as link:
        assert isinstance(link, TcpLink)
        client = AsyncModbusTcpClient(link.host, port=link.port)
        await client.connect()
        try:
            basic = await client.read_device_information(read_code=1, device_id=1)
            assert basic.information == {0: b"Eastron", 1: b"SDM120CT", 2: b"1.0"}
            assert not basic.more_follows
            every = await client.read_device_information(read_code=3, device_id=1)
            assert every.information[0x80] == b"4711"
            assert (every.more_follows, every.next_object_id) == (0xFF, 0x92)
            single = await client.read_device_information(read_code=4, device_id=1)
            assert single.exception_code == 3
            report = await client.report_device_id(device_id=1)
            assert (report.identifier, report.status) == (b"V2.1", True)
        finally:
            client.close()


def test_a_text_that_cannot_be_told_is_refused() -> None:
    for number in ("N\u00b0 5", "5" * 245):
        with pytest.raises(ValueError, match="letters"):
            SimulatedMeter(TELLING, 1, START, serial_number=number)


def test_a_swapped_meter_tells_another_number() -> None:
    fault = Fault("swapped", start=3_600_000, serial_number="999")
    meter = SimulatedMeter(TELLING, 1, START, serial_number="4711", faults=(fault,))
    asked = bytes((43, 14, 3, 0x80))
    assert b"4711" in meter.answer(asked, START)
    assert b"999" in meter.answer(asked, START + 3_600_000)
