"""A bus over a serial line: only the answer asked for is taken, and the silence is kept."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.clock import SystemClock
from gateway.errors import BadAnswer, DeviceException, LinkDown, MeterTimeout
from gateway.modbus.bus import Bus
from gateway.modbus.frames import ascii_frame
from gateway.modbus.plan import Read, silence_time
from gateway.modbus.settings import BusSettings, SerialLink
from tests.modbus.lines import Answer, asked, at_once, frame, honest, line, words

READ = Read(3, 100, 4)
WANTED = (100, 101, 102, 103)


@asynccontextmanager
async def opened(link: SerialLink, **more: int) -> AsyncIterator[Bus]:
    bus = Bus(BusSettings("riser", link, **more), SystemClock(), random=random.Random(1))
    await bus.open()
    try:
        yield bus
    finally:
        await bus.close()


async def read_over(answer: Answer, read: Read = READ, timeout: float = 0.1) -> tuple[int, ...]:
    with line(answer) as served:
        async with opened(SerialLink(served.path, 115200)) as bus:
            return (await bus.read(1, read, timeout=timeout)).words


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (Read(3, 100, 4), WANTED),
        (Read(4, 7, 1), (7,)),
        (Read(3, 0, 125), tuple(range(125))),
        (Read(1, 0, 10), (1, 0, 0, 1, 0, 0, 1, 0, 0, 1)),
        (Read(2, 1, 3), (0, 0, 1)),
    ],
)
async def test_an_answer_is_the_words_of_the_registers_asked_for(read, words):
    assert await read_over(at_once, read) == words


@pytest.mark.parametrize(
    "pieces",
    [
        lambda good: [(0, b"\x00" + good)],
        lambda good: [(0, b"\x01\x03\x08\xff" + good)],
        lambda good: [(0, words(2, 3, 9, 9, 9, 9) + good)],
        lambda good: [(0, good[:3]), (0.02, good[3:7]), (0.02, good[7:])],
        lambda good: [(0, bytes((byte,))) for byte in good],
        lambda good: [(0, good + b"\x00\xff")],
        lambda good: [(0, words(1, 4, 9, 9, 9, 9)), (0.01, good)],
        lambda good: [(0, words(1, 3, 9, 9)), (0.01, good)],
        lambda good: [(0, bytes(300)), (0.01, good)],
    ],
    ids=["glitch", "noise-like-a-head", "foreign-reply-merged", "split", "byte-by-byte",
         "noise-after", "other-function-first", "fewer-first", "much-noise"],
)  # fmt: skip
async def test_the_answer_is_found_among_what_else_is_on_the_line(pieces):
    assert await read_over(lambda request: pieces(honest(request))) == WANTED


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (words(1, 4, *WANTED), "function"),
        (words(1, 3, *WANTED[:2]), "length"),
        (words(1, 3, *WANTED, 104), "length"),
        (frame(1, 3, 7, *bytes(7)), "length"),
        (words(2, 3, *WANTED), "unit"),
        (words(1, 3, *WANTED)[:-1], "crc"),
        (words(1, 3, *WANTED)[:-1] + b"\x00", "crc"),
        (b"\x00", "crc"),
    ],
    ids=["function", "fewer", "more", "odd", "unit", "truncated", "damaged", "noise"],
)
async def test_an_answer_that_is_not_the_one_asked_for_is_refused_with_its_reason(answer, reason):
    with pytest.raises(BadAnswer) as error:
        await read_over(lambda request: [(0, answer)])
    assert error.value.reason == reason
    assert error.value.unit == 1


async def test_no_answer_is_a_timeout():
    with pytest.raises(MeterTimeout):
        await read_over(lambda request: [])


@pytest.mark.parametrize("code", [1, 2, 3, 4, 6, 11])
async def test_an_exception_is_told_with_its_code(code):
    with pytest.raises(DeviceException) as error:
        await read_over(lambda request: [(0, frame(1, 0x83, code))])
    assert (error.value.code, error.value.reason) == (code, f"exception_{code}")


async def test_an_answer_after_the_timeout_is_never_taken_for_the_next_one():
    def late(request: bytes):
        address = asked(request)[2]
        return [(0.15 if address == 100 else 0.0, honest(request))]

    with line(late) as served:
        async with opened(SerialLink(served.path, 115200)) as bus:
            with pytest.raises(MeterTimeout):
                await bus.read(1, READ, timeout=0.1)
            # Another unit next, and the same shape: the drain has taken in what came late.
            block = await bus.read(1, Read(3, 200, 4), timeout=0.1)
    assert block.words == (200, 201, 202, 203)


@pytest.mark.parametrize(("unit", "quiet"), [(1, 0.6), (2, 0.35)])
async def test_a_unit_is_asked_again_after_as_long_a_silence_as_was_waited_another_one_sooner(
    unit: int, quiet: float
):
    """Both together take others no more than the bus's timeout."""
    with line(lambda request: at_once(request) if asked(request)[2] == 200 else []) as served:
        async with opened(SerialLink(served.path, 115200)) as bus:
            with pytest.raises(MeterTimeout):
                await bus.read(1, READ, timeout=0.6)
            failed = time.monotonic()
            await bus.read(unit, Read(3, 200, 1), timeout=5)
    assert quiet <= served.at[1] - failed


async def test_a_line_that_is_never_quiet_is_given_up_draining():
    def chatter(request: bytes):
        if asked(request)[2] == 100:
            return [(0.01, b"\x55") for _ in range(60)]
        return at_once(request)

    with line(chatter) as served:
        async with opened(SerialLink(served.path, 115200)) as bus:
            with pytest.raises(BadAnswer):
                await bus.read(1, READ, timeout=0.1)
            began = time.monotonic()
            await bus.read(1, Read(3, 200, 1), timeout=0.6)
    assert time.monotonic() - began < 0.9


async def test_our_own_echo_is_no_answer():
    # This request has the form of an answer: function 1, three bytes of bits.
    read = Read(1, 0x0300, 20)
    with line(lambda request: [(0, request)]) as served:
        async with opened(SerialLink(served.path, 115200, echo=True)) as bus:
            with pytest.raises(MeterTimeout):
                await bus.read(1, read, timeout=0.05)
    assert len(await read_over(lambda request: [(0, request + honest(request))], read)) == 20


async def test_each_request_keeps_the_silence_after_the_answer_before_it():
    link = SerialLink("", 9600)
    character = 10 / 9600

    def answer(request: bytes):
        return [(0.005, honest(request))]

    with line(answer, character=character) as served:
        async with opened(SerialLink(served.path, 9600)) as bus:
            for n in range(12):
                await bus.read(1, Read(3, n, 2), timeout=0.5)
    silences = [at - last for at, last in list(zip(served.at, served.answered, strict=True))[1:]]
    assert min(silences) >= silence_time(link)


async def test_a_pause_between_requests_is_kept():
    with line(at_once) as served:
        async with opened(SerialLink(served.path, 115200), pause=30) as bus:
            for _ in range(3):
                await bus.read(1, READ, timeout=0.5)
            await bus.read(1, READ, timeout=0.5, pause=0.06)
    gaps = [at - last for at, last in list(zip(served.at, served.answered, strict=True))[1:]]
    assert min(gaps) >= 0.03
    assert gaps[-1] >= 0.06


async def test_what_arrived_between_two_requests_is_discarded():
    with line(at_once) as served:
        async with opened(SerialLink(served.path, 115200)) as bus:
            end = os.open(served.path, os.O_RDWR | os.O_NOCTTY)
            try:
                await bus.read(1, READ, timeout=0.1)
            finally:
                os.close(end)

    # An answer of the same shape that nobody asked for lies in the port before the request.
    def twice(request: bytes):
        return [(0, honest(request) + honest(request))]

    with line(twice) as served:
        async with opened(SerialLink(served.path, 115200)) as bus:
            await bus.read(1, READ, timeout=0.1)
            time.sleep(0.05)  # nothing reads meanwhile
            block = await bus.read(1, Read(3, 200, 4), timeout=0.1)
    assert block.words == (200, 201, 202, 203)


async def test_unit_0_is_never_asked_on_a_line():
    with line(at_once) as served:
        async with opened(SerialLink(served.path)) as bus:
            with pytest.raises(ValueError, match="broadcast"):
                await bus.read(0, READ, timeout=0.1)
    assert not served.requests


async def test_ascii_framing():
    def plain(request: bytes) -> bytes:
        return bytes.fromhex(request[1:-4].decode())

    def answer(request: bytes):
        unit, function, address, count = struct.unpack(">BBHH", plain(request))
        if function == 4:
            return [(0, ascii_frame(bytes((unit, 0x84, 2))))]
        body = struct.pack(
            f">BBB{count}H", unit, function, 2 * count, *range(address, address + count)
        )
        good = ascii_frame(body)
        damaged = good[:7] + (b"0" if good[7:8] != b"0" else b"1") + good[8:]
        if address == 500:
            return [(0, damaged)]
        return (
            [(0, request), (0, damaged), (0.01, b"\x00:" + good[:9]), (0.01, good[9:])][
                0 if address == 100 else 3 :
            ]
            if address == 100
            else [(0, good.lower() if address == 7 else good)]
        )

    with line(answer, size=0) as served:
        async with opened(SerialLink(served.path, 115200, stopbits=1, framing="ascii")) as bus:
            assert (await bus.read(1, READ, timeout=0.2)).words == WANTED
            assert (await bus.read(1, Read(3, 7, 1), timeout=0.2)).words == (7,)
            assert len((await bus.read(1, Read(3, 0, 125), timeout=0.2)).words) == 125
            with pytest.raises(DeviceException):
                await bus.read(1, Read(4, 0, 1), timeout=0.2)
            with pytest.raises(BadAnswer) as error:
                await bus.read(1, Read(3, 500, 2), timeout=0.1)
            assert error.value.reason == "crc"


async def test_a_port_that_is_not_there_or_in_use_is_a_link_that_is_down(tmp_path):
    clock = SystemClock()
    for path in (str(tmp_path / "nothing"), str(tmp_path)):
        bus = Bus(BusSettings("riser", SerialLink(path)), clock, random=random.Random(1))
        with pytest.raises(LinkDown, match=r"no such port|no serial port"):
            await bus.open()
        assert not bus.is_open
    with line(at_once) as served:
        # ptys refuse parity with termios.error, which is no OSError, once the port is open.
        odd = SerialLink(served.path, parity="odd")
        bus = Bus(BusSettings("riser", odd), clock, random=random.Random(1))
        with pytest.raises(LinkDown, match="does not take these settings"):
            await bus.open()
        async with opened(SerialLink(served.path)):
            second = Bus(
                BusSettings("riser", SerialLink(served.path)), clock, random=random.Random(1)
            )
            with pytest.raises(LinkDown, match="another program has it open"):
                await second.open()


async def test_an_adapter_that_is_pulled_ends_the_wait_at_once():
    ours, theirs = os.openpty()
    path = os.ttyname(theirs)
    async with opened(SerialLink(path, 115200)) as bus:
        os.close(theirs)
        asking = asyncio.create_task(bus.read(1, READ, timeout=5))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        os.close(ours)
        with pytest.raises(LinkDown):
            await asking
        assert time.monotonic() - began < 1
        assert not bus.is_open
        with pytest.raises(LinkDown):
            await bus.read(1, READ, timeout=1)


async def test_a_port_that_takes_no_more_bytes_does_not_hang_the_program():
    ours, theirs = os.openpty()
    try:
        async with opened(SerialLink(os.ttyname(theirs), 115200)) as bus:
            while True:  # nobody reads the other end: fill the buffer between
                try:
                    bus._client.ctx.transport.sync_serial.fileno()
                    os.set_blocking(theirs, False)
                    os.write(theirs, bytes(4096))
                except BlockingIOError:
                    break
            with pytest.raises((MeterTimeout, BadAnswer)):
                await bus.read(1, READ, timeout=0.05)
    finally:
        os.close(ours)
        os.close(theirs)


async def test_50_openings_leak_no_file_descriptor(tmp_path):
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    with line(at_once) as served:
        bus = Bus(
            BusSettings("riser", SerialLink(served.path)), SystemClock(), random=random.Random(1)
        )
        missing = Bus(
            BusSettings("riser", SerialLink(str(tmp_path / "no"))),
            SystemClock(),
            random=random.Random(1),
        )
        odd = SerialLink(served.path, parity="odd")
        refusing = Bus(BusSettings("riser", odd), SystemClock(), random=random.Random(1))
        before = descriptors()
        for _ in range(50):
            with pytest.raises(LinkDown):
                await refusing.open()
            await bus.open()
            await bus.read(1, READ, timeout=0.5)
            await bus.close()
            with pytest.raises(LinkDown):
                await missing.open()
        assert descriptors() == before


async def test_the_turnaround_is_what_the_unit_took():
    with line(lambda request: [(0.05, honest(request))], character=10 / 9600) as served:
        async with opened(SerialLink(served.path, 9600)) as bus:
            await bus.read(1, Read(3, 0, 30), timeout=0.5)
            assert 0.045 < bus.turnaround < 0.2
            assert bus.busy >= 0.05 + 73 * 10 / 9600


async def test_a_cancelled_request_leaves_the_bus_closed():
    with line(lambda request: []) as served:
        async with opened(SerialLink(served.path)) as bus:
            asking = asyncio.create_task(bus.read(1, READ, timeout=5))
            await asyncio.sleep(0.05)
            assert bus.is_asking
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert not bus.is_open
            assert not bus.is_asking


async def test_what_is_overheard_between_requests_is_told_apart():
    """A late answer of the unit that was asked, and another master with the unit it asks."""
    foreign = frame(7, 3, 0, 10, 0, 2) + words(7, 3, 1, 2)

    def answer(request: bytes):
        unit = asked(request)[0]
        return [(0.12, honest(request))] if unit == 1 else [(0.0, honest(request)), (0.05, foreign)]

    with line(answer) as served:
        async with opened(SerialLink(served.path, 115200)) as bus:
            with pytest.raises(MeterTimeout):
                await bus.read(1, READ, timeout=0.1)
            await bus.read(2, Read(3, 200, 4), timeout=0.5)
            await asyncio.sleep(0.3)
            await bus.read(2, Read(3, 300, 4), timeout=0.5)
    assert [(one.kind, one.unit) for one in bus.overheard] == [
        ("late", 1), ("foreign", 7), ("foreign", 7)
    ]  # fmt: skip


async def test_an_echo_with_nothing_behind_it_is_remembered():
    with line(lambda request: [(0, request)]) as served:
        async with opened(SerialLink(served.path, 115200)) as bus:
            with pytest.raises(MeterTimeout):
                await bus.read(1, READ, timeout=0.1)
    assert [(one.kind, one.unit) for one in bus.overheard] == [("echo", 1)]


async def test_an_echo_that_is_expected_tells_nothing():
    with line(lambda request: [(0, request)]) as served:
        async with opened(SerialLink(served.path, 115200, echo=True)) as bus:
            with pytest.raises(MeterTimeout):
                await bus.read(1, READ, timeout=0.1)
    assert not bus.overheard
