"""A bus over TCP: Modbus TCP, RTU and ASCII over TCP, TLS; answers matched, connections renewed."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.clock import SystemClock
from gateway.errors import BadAnswer, DeviceException, LinkDown, MeterTimeout
from gateway.modbus.bus import Bus
from gateway.modbus.frames import ascii_frame
from gateway.modbus.plan import Read
from gateway.modbus.settings import BusSettings, TcpLink, Tls
from tests.modbus.lines import Endpoint, endpoint, honest, mbap, tcp_honest

READ = Read(3, 100, 4)
WANTED = (100, 101, 102, 103)


def bus_to(port: int, framing: str = "tcp", **more: object) -> Bus:
    link = TcpLink("127.0.0.1", port, framing, **more)  # type: ignore[arg-type]
    return Bus(BusSettings("plant", link), SystemClock(), random=random.Random(1))


@asynccontextmanager
async def opened(served: Endpoint, framing: str = "tcp", **more: object) -> AsyncIterator[Bus]:
    bus = bus_to(served.port, framing, **more)
    await bus.open()
    try:
        yield bus
    finally:
        await bus.close()


async def test_registers_and_bits_are_read():
    async with endpoint() as served, opened(served) as bus:
        assert (await bus.read(1, READ, timeout=1)).words == WANTED
        assert (await bus.read(0, Read(4, 0, 125), timeout=1)).words == tuple(range(125))
        assert (await bus.read(255, Read(2, 0, 4), timeout=1)).words == (1, 0, 0, 1)
        assert served.connections == 1


@pytest.mark.parametrize(
    "pieces",
    [
        lambda r: [(0, tcp_honest(r)[:5]), (0.02, tcp_honest(r)[5:11]), (0.02, tcp_honest(r)[11:])],
        lambda r: [(0, mbap(7, 1, 3, 8, *bytes(8)) + tcp_honest(r))],
        lambda r: [(0, mbap(0, 1, 3, 8, *bytes(8))), (0.02, tcp_honest(r))],
        lambda r: [(0, tcp_honest(r) + mbap(9, 1, 3, 8, *bytes(8)))],
    ],
    ids=["split", "late-one-first", "transaction-0-first", "late-one-after"],
)
async def test_the_answer_is_found_by_its_transaction(pieces):
    async with endpoint() as served, opened(served) as bus:
        served.behave = pieces
        assert (await bus.read(1, READ, timeout=0.5)).words == WANTED


@pytest.mark.parametrize(
    ("body", "reason", "stays_open"),
    [
        ((2, 3, 8, *bytes(8)), "unit", True),
        ((1, 4, 8, *bytes(8)), "function", True),
        ((1, 3, 4, *bytes(4)), "length", True),
        ((1, 3, 8, *bytes(6)), "length", True),
        ((1, 0x83), "frame", False),
    ],
    ids=["unit", "function", "fewer", "cut", "short-exception"],
)
async def test_an_answer_that_is_not_the_one_asked_for_is_refused_at_once(body, reason, stays_open):
    async with endpoint() as served, opened(served) as bus:
        served.behave = lambda r: [(0, r[:2] + mbap(0, *body)[2:])]
        began = time.monotonic()
        with pytest.raises(BadAnswer) as error:
            await bus.read(1, READ, timeout=5)
        assert error.value.reason == reason
        assert time.monotonic() - began < 2
        assert bus.is_open is stays_open


async def test_what_is_not_modbus_tcp_ends_the_connection():
    async with endpoint() as served, opened(served) as bus:
        served.behave = lambda r: [(0, b"HTTP/1.1 400 Bad Request\r\n\r\n")]
        with pytest.raises(BadAnswer) as error:
            await bus.read(1, READ, timeout=5)
        assert error.value.reason == "frame"
        assert not bus.is_open


async def test_an_exception_is_told_with_its_code():
    async with endpoint() as served, opened(served) as bus:
        served.behave = lambda r: [(0, r[:2] + mbap(0, 1, 0x83, 11)[2:])]
        with pytest.raises(DeviceException) as error:
            await bus.read(1, READ, timeout=1)
        assert error.value.code == 11
        assert bus.is_open


async def test_after_a_timeout_the_connection_is_a_new_one_with_other_transactions():
    async with endpoint() as served:
        bus = bus_to(served.port)
        await bus.open()
        served.behave = lambda r: []
        with pytest.raises(MeterTimeout):
            await bus.read(1, READ, timeout=0.05)
        assert not bus.is_open
        served.behave = lambda r: [(0, tcp_honest(r))]
        await bus.open()
        assert (await bus.read(1, READ, timeout=1)).words == WANTED
        assert served.requests[0][:2] != served.requests[1][:2]
        await bus.close()


async def test_an_answer_with_transaction_0_is_never_taken():
    async with endpoint() as served, opened(served) as bus:
        served.behave = lambda r: [(0, b"\0\0" + tcp_honest(r)[2:])]
        with pytest.raises(MeterTimeout):
            await bus.read(1, READ, timeout=0.1)


async def test_a_connection_that_the_other_end_closes_ends_the_wait_at_once():
    async with endpoint() as served, opened(served) as bus:
        served.behave = lambda r: None
        began = time.monotonic()
        with pytest.raises(LinkDown):
            await bus.read(1, READ, timeout=10)
        assert time.monotonic() - began < 3
        assert not bus.is_open


async def test_a_port_that_refuses_is_a_link_that_is_down(free_tcp_port):
    bus = bus_to(free_tcp_port)
    with pytest.raises(LinkDown, match=r"^connection refused$"):
        await bus.open()
    assert not bus.is_open


async def test_rtu_over_tcp():
    async with endpoint(size=8) as served, opened(served, "rtu") as bus:
        served.behave = lambda r: [(0, b"\x00" + honest(r)[:4]), (0.02, honest(r)[4:])]
        assert (await bus.read(1, READ, timeout=0.5)).words == WANTED
        # What a gateway sends twice is not the answer to the next request.
        served.behave = lambda r: [(0, honest(r) + honest(r))]
        await bus.read(1, READ, timeout=0.5)
        served.behave = lambda r: [(0, honest(r)), (0, honest(r))]
        await bus.read(1, READ, timeout=0.5)
        time.sleep(0.05)  # the second copy lies in the socket, not yet read
        served.behave = lambda r: [(0, honest(r))]
        assert (await bus.read(1, Read(3, 200, 4), timeout=0.5)).words == (200, 201, 202, 203)
        with pytest.raises(ValueError, match="broadcast"):
            await bus.read(0, READ, timeout=0.1)


async def test_ascii_over_tcp():
    def answer(request: bytes):
        unit, function, address, count = struct.unpack(
            ">BBHH", bytes.fromhex(request[1:13].decode())
        )
        values = struct.pack(f">{count}H", *range(address, address + count))
        return [(0, ascii_frame(bytes((unit, function, 2 * count)) + values))]

    async with endpoint(size=17) as served, opened(served, "ascii") as bus:
        served.behave = answer
        assert (await bus.read(1, READ, timeout=0.5)).words == WANTED


def server_side(certificate: object, ca: object | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(certificate))
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(str(ca))
    return context


async def test_tls_with_a_certificate_of_each_side(tls_authority):
    server = server_side(tls_authority.issue("127.0.0.1"), tls_authority.ca)
    ours = str(tls_authority.issue("gateway.example"))
    async with endpoint(ssl=server) as served:
        files = Tls(str(tls_authority.ca), ours, ours)
        async with opened(served, "tls", tls=files) as bus:
            assert (await bus.read(1, READ, timeout=1)).words == WANTED
            served.behave = lambda r: []
            with pytest.raises(MeterTimeout):
                await bus.read(1, READ, timeout=0.05)
            assert not bus.is_open


async def test_tls_of_an_unknown_authority_or_another_name_gets_no_request(tls_authority, tmp_path):
    async with endpoint(ssl=server_side(tls_authority.issue("127.0.0.1"))) as served:
        bus = bus_to(served.port, "tls")
        with pytest.raises(LinkDown, match="not trusted"):
            await bus.open()
        missing = bus_to(served.port, "tls", tls=Tls(str(tmp_path / "no.pem")))
        with pytest.raises(LinkDown, match="a file under `tls`: no such file"):
            await missing.open()
        assert not served.requests
    async with endpoint(ssl=server_side(tls_authority.issue("other.example"))) as served:
        bus = bus_to(served.port, "tls", tls=Tls(str(tls_authority.ca)))
        with pytest.raises(LinkDown, match="not trusted"):
            await bus.open()
        assert not served.requests


async def test_50_connections_leak_no_file_descriptor(free_tcp_port):
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with endpoint() as served:
        bus, refused = bus_to(served.port), bus_to(free_tcp_port)
        await bus.open()
        await bus.close()
        await asyncio.sleep(0.05)
        before = descriptors()
        for n in range(50):
            await bus.open()
            if n % 3 == 0:
                served.behave = lambda r: None
                with pytest.raises(LinkDown):
                    await bus.read(1, READ, timeout=1)
            elif n % 3 == 1:
                served.behave = lambda r: []
                with pytest.raises(MeterTimeout):
                    await bus.read(1, READ, timeout=0.005)
            await bus.close()
            with pytest.raises(LinkDown):
                await refused.open()
        await asyncio.sleep(0.05)
        assert descriptors() == before
        assert served.open == 0


async def test_a_connection_that_never_comes_about_can_be_cancelled():
    with socket.socket() as full:  # a listener whose queue is full answers no SYN
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        bus = bus_to(full.getsockname()[1])
        opening = asyncio.create_task(bus.open())
        await asyncio.sleep(0.1)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert not bus.is_open
        for filler in fillers:
            filler.close()


async def test_independent_servers_are_read(free_tcp_port):
    from pyModbusTCP.server import ModbusServer

    server = ModbusServer("127.0.0.1", free_tcp_port, no_block=True)
    server.start()
    try:
        server.data_bank.set_holding_registers(100, list(WANTED))
        server.data_bank.set_input_registers(7, [65535])
        server.data_bank.set_coils(3, [True, False, True])
        bus = bus_to(free_tcp_port)
        await bus.open()
        assert (await bus.read(1, READ, timeout=1)).words == WANTED
        assert (await bus.read(1, Read(4, 7, 1), timeout=1)).words == (65535,)
        assert (await bus.read(1, Read(1, 3, 3), timeout=1)).words == (1, 0, 1)
        await bus.close()
    finally:
        server.stop()
