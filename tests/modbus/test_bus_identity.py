"""A bus asks what a device tells of itself, by functions 43/14 and 17: over a line and over TCP."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.clock import SystemClock
from gateway.errors import BadAnswer, DeviceException, MeterError, MeterTimeout
from gateway.metering.inquiry import Inquiry, Told
from gateway.modbus.bus import Bus
from gateway.modbus.plan import Read
from gateway.modbus.replies import unwrap, wrap
from gateway.modbus.settings import BusSettings, SerialLink, TcpLink
from tests.modbus.lines import Piece, endpoint, honest, line

FRAMINGS = ("rtu", "ascii", "tcp")
NAME = Inquiry(43, 1)
SERVER_ID = Inquiry(17)
TEXTS = {0: b"Acme", 1: b"E1 Pro", 2: b"V2.1"}

Pdu = bytes
Tell = Callable[[Pdu], Sequence[tuple[float, int, Pdu]]]
"""From a request, behind its unit, to what comes back: seconds to wait, unit, and the rest."""


def stream(texts: dict[int, bytes], category: int = 1, following: int | None = None) -> Pdu:
    """An answer of 43/14."""
    more = (0, 0) if following is None else (0xFF, following)
    listed = b"".join(bytes((number, len(text))) + text for number, text in texts.items())
    return bytes((43, 14, category, 0x81, *more, len(texts))) + listed


def honestly(pdu: Pdu) -> Sequence[tuple[float, int, Pdu]]:
    """A device that tells three objects and its server id."""
    if pdu == b"\x11":
        return [(0, 1, b"\x11\x08\x09\xffE1-Pro")]
    assert pdu[:2] == b"\x2b\x0e"
    return [(0, 1, stream(TEXTS, pdu[2]))]


@asynccontextmanager
async def asked(framing: str, tell: Tell, **more: int) -> AsyncIterator[tuple[Bus, list[Pdu]]]:
    """A bus to unit 1, and the requests that it got."""
    requests: list[Pdu] = []

    def answer(data: bytes) -> Sequence[Piece]:
        found = unwrap(data, framing)  # type: ignore[arg-type]
        assert found is not None
        unit, transaction, pdu, used = found
        assert (unit, used) == (1, len(data))
        requests.append(pdu)
        return [
            (wait, wrap(unit, told, framing, transaction))  # type: ignore[arg-type]
            for wait, unit, told in tell(pdu)
        ]

    if framing == "tcp":
        async with endpoint(size=0) as served:
            served.behave = answer
            async with opened(TcpLink("127.0.0.1", served.port), **more) as bus:
                yield bus, requests
    else:
        with line(answer, size=0 if framing == "ascii" else 8) as served_line:
            async with opened(SerialLink(served_line.path, 115200, framing=framing), **more) as bus:
                yield bus, requests


@asynccontextmanager
async def opened(link: SerialLink | TcpLink, **more: int) -> AsyncIterator[Bus]:
    bus = Bus(BusSettings("riser", link, **more), SystemClock(), random=random.Random(1))
    await bus.open()
    try:
        yield bus
    finally:
        await bus.close()


def a_unit(unit: int, pdu: Pdu) -> Tell:
    return lambda request: [(0, unit, pdu)]


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_the_objects_of_a_device_are_told_by_one_request(framing: str) -> None:
    async with asked(framing, honestly) as (bus, requests):
        told = await bus.identify(1, NAME, timeout=1)
    assert told == Told(43, ((0, "Acme"), (1, "E1 Pro"), (2, "V2.1")))
    assert requests == [b"\x2b\x0e\x01\x00"]


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_the_server_id_is_told_as_one_text(framing: str) -> None:
    async with asked(framing, honestly) as (bus, requests):
        assert await bus.identify(1, SERVER_ID, timeout=1) == Told(17, ((0, "E1-Pro"),))
    assert requests == [b"\x11"]


@pytest.mark.parametrize(("number", "category"), [(2, 1), (3, 2), (6, 2), (0x80, 3), (255, 3)])
async def test_the_stream_of_the_object_is_asked_for(number: int, category: int) -> None:
    def tell(pdu: Pdu) -> Sequence[tuple[float, int, Pdu]]:
        return [(0, 1, stream({number: b"4711"}, pdu[2]))]

    async with asked("rtu", tell) as (bus, requests):
        told = await bus.identify(1, Inquiry(43, number), timeout=1)
    assert told.lookup(Inquiry(43, number)) == "4711"
    assert requests == [bytes((43, 14, category, 0))]


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_an_object_of_a_later_answer_is_asked_for_until_it_comes(framing: str) -> None:
    def tell(pdu: Pdu) -> Sequence[tuple[float, int, Pdu]]:
        first = pdu[3]
        return [(0, 1, stream({first: b"text %d" % first}, pdu[2], following=first + 1))]

    async with asked(framing, tell) as (bus, requests):
        told = await bus.identify(1, Inquiry(43, 2), timeout=1)
    assert told.texts == ((0, "text 0"), (1, "text 1"), (2, "text 2"))
    assert [request[3] for request in requests] == [0, 1, 2]


async def test_a_device_that_always_has_more_is_asked_a_few_times() -> None:
    def tell(pdu: Pdu) -> Sequence[tuple[float, int, Pdu]]:
        return [(0, 1, stream({0: b"Acme"}, pdu[2], following=0))]

    async with asked("rtu", tell) as (bus, requests):
        told = await bus.identify(1, NAME, timeout=1)
    assert told == Told(43, ((0, "Acme"),))
    assert len(requests) == 5


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("inquiry", [NAME, SERVER_ID], ids=str)
@pytest.mark.parametrize("code", [1, 2, 3, 4, 11])
async def test_a_refusal_is_told_with_its_code(framing: str, inquiry: Inquiry, code: int) -> None:
    refuse = a_unit(1, bytes((inquiry.function | 0x80, code)))
    async with asked(framing, refuse) as (bus, _):
        with pytest.raises(DeviceException) as error:
            await bus.identify(1, inquiry, timeout=1)
        assert error.value.code == code
        assert bus.is_open


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(
    ("inquiry", "unit", "pdu", "reason"),
    [
        (NAME, 2, stream(TEXTS), "unit"),
        (NAME, 1, b"\x11\x04Acme", "function"),
        (NAME, 1, stream(TEXTS, category=2), "length"),
        (SERVER_ID, 2, b"\x11\x04Acme", "unit"),
        (SERVER_ID, 1, stream(TEXTS), "function"),
        (SERVER_ID, 1, b"\x03\x02\x00\x01", "function"),
    ],
)
async def test_another_answer_is_refused_with_its_reason(
    framing: str, inquiry: Inquiry, unit: int, pdu: Pdu, reason: str
) -> None:
    async with asked(framing, a_unit(unit, pdu)) as (bus, _):
        with pytest.raises(BadAnswer) as error:
            await bus.identify(1, inquiry, timeout=0.1)
    assert error.value.reason == reason


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("inquiry", [NAME, SERVER_ID], ids=str)
async def test_silence_is_a_timeout(framing: str, inquiry: Inquiry) -> None:
    async with asked(framing, lambda request: []) as (bus, _):
        with pytest.raises(MeterTimeout):
            await bus.identify(1, inquiry, timeout=0.05)


async def test_an_answer_is_found_behind_noise_and_in_pieces() -> None:
    good = wrap(1, stream(TEXTS), "rtu")
    pieces = [(0.0, b"\x00\x01\x2b\x0e\x01"), *((0.0, bytes((byte,))) for byte in good)]
    with line(lambda request: pieces, size=7) as served:
        async with opened(SerialLink(served.path, 115200)) as bus:
            assert (await bus.identify(1, NAME, timeout=1)).lookup(NAME) == "E1 Pro"


@pytest.mark.parametrize("inquiry", [NAME, SERVER_ID], ids=str)
async def test_what_is_told_too_late_is_never_taken_for_the_answer_to_a_read(
    inquiry: Inquiry,
) -> None:
    def tell(pdu: Pdu) -> Sequence[tuple[float, int, Pdu]]:
        if pdu[0] == 3:
            return [(0, 1, honest(wrap(1, pdu, "rtu"))[1:-2])]
        return [(0.4, 1, honestly(pdu)[0][2])]

    async with asked("rtu", tell, timeout=300) as (bus, _):
        with pytest.raises(MeterTimeout):
            await bus.identify(1, inquiry, timeout=0.05)
        words: tuple[int, ...] = ()
        for _ in range(3):
            try:
                words = (await bus.read(1, Read(3, 100, 4), timeout=0.2)).words
            except MeterError:
                continue
            assert words == (100, 101, 102, 103)
    assert words


async def test_the_silence_of_the_bus_is_kept_between_the_requests_for_one_object() -> None:
    at: list[float] = []

    def tell(pdu: Pdu) -> Sequence[tuple[float, int, Pdu]]:
        at.append(time.monotonic())
        return [(0, 1, stream({pdu[3]: b"text"}, pdu[2], following=pdu[3] + 1))]

    async with asked("rtu", tell, pause=40) as (bus, _):
        await bus.identify(1, Inquiry(43, 2), timeout=1)
        await bus.identify(1, Inquiry(43, 0), timeout=1, pause=0.08)
    gaps = [later - before for before, later in itertools.pairwise(at)]
    assert len(gaps) == 3
    assert min(gaps) >= 0.04
    assert gaps[2] >= 0.08
