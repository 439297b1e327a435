"""The other end of a bus, told what to answer: on a pty, and on TCP. All real file descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import struct
import threading
import time
import tty
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

from attrs import define, field

from gateway.modbus.frames import crc16

Piece: TypeAlias = tuple[float, bytes]
"""Seconds to wait, then bytes to send."""
Answer: TypeAlias = Callable[[bytes], Sequence[Piece]]
"""From a request's bytes to what comes back."""


def frame(*data: int) -> bytes:
    """An RTU frame: these bytes and their check sum."""
    return bytes(data) + crc16(bytes(data))


def words(unit: int, function: int, *values: int) -> bytes:
    """The RTU answer that holds these registers."""
    return frame(unit, function, 2 * len(values), *struct.pack(f">{len(values)}H", *values))


def asked(request: bytes) -> tuple[int, int, int, int]:
    """Unit, function, address and count of an RTU request."""
    unit, function, address, count = struct.unpack(">BBHH", request[:6])
    return unit, function, address, count


def honest(request: bytes) -> bytes:
    """What a sound meter answers: each register holds its own address."""
    unit, function, address, count = asked(request)
    if function in (1, 2):
        bits = sum(((address + i) % 3 == 0) << i for i in range(count))
        size = (count + 7) // 8
        return frame(unit, function, size, *bits.to_bytes(size, "little"))
    return words(unit, function, *range(address, address + count))


def at_once(request: bytes) -> Sequence[Piece]:
    """An honest meter without any delay."""
    return [(0, honest(request))]


@define
class Line:
    """A pty; its other end answers RTU requests from a thread."""

    path: str
    requests: list[bytes] = field(factory=list)
    at: list[float] = field(factory=list)
    """Monotonic time at which the first byte of each request came."""
    answered: list[float] = field(factory=list)
    """When the last byte of what was sent last before had left, for each request."""


@contextmanager
def line(answer: Answer, *, size: int = 8, character: float = 0.0) -> Iterator[Line]:
    """Requests are told apart by their length, `size`, or that of their function; 0: they end
    with CR LF.

    With `character`, seconds, both directions take their time on the wire.
    """
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    served = Line(os.ttyname(theirs))
    stop = threading.Event()
    failed: list[BaseException] = []

    def serve() -> None:
        buffer, first, last = b"", 0.0, 0.0
        while not stop.is_set():
            if not select.select([ours], [], [], 0.02)[0]:
                continue
            if not buffer:
                first = time.monotonic()
            buffer += os.read(ours, 512)
            while length := first_request(buffer, size):
                request, buffer = buffer[:length], buffer[length:]
                served.requests.append(request)
                served.at.append(first)
                served.answered.append(last)
                if character:
                    pause_until(first + len(request) * character)
                for delay, data in answer(request):
                    pause_until(time.monotonic() + delay)
                    begin = time.monotonic()
                    for at in range(0, len(data), 8):  # as a UART's FIFO hands it over
                        piece = data[at : at + 8]
                        if character:
                            pause_until(begin + (at + len(piece)) * character)
                        last = time.monotonic()  # before: a busy machine may stop us in between
                        os.write(ours, piece if character else data)
                        if not character:
                            break

    def guarded() -> None:
        try:
            serve()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        stop.set()
        thread.join()
        os.close(ours)
        with contextlib.suppress(OSError):
            os.close(theirs)
    assert not failed, failed


def first_request(buffer: bytes, size: int) -> int:
    """Bytes of the first request; 0: it is not whole yet."""
    if not size:
        return len(buffer) if buffer.endswith(b"\r\n") else 0
    size = {17: 4, 43: 7}.get(buffer[1], size) if len(buffer) > 1 else size
    return size if len(buffer) >= size else 0


def pause_until(monotonic: float) -> None:
    """Sleep, precisely."""
    while (rest := monotonic - time.monotonic()) > 0:
        time.sleep(rest if rest > 0.0005 else 0)


def mbap(transaction: int, *data: int) -> bytes:
    """A Modbus TCP frame: unit, function and so on behind the header."""
    return struct.pack(">HHH", transaction, 0, len(data)) + bytes(data)


def tcp_honest(request: bytes) -> bytes:
    """What a sound meter answers on Modbus TCP."""
    return request[:4] + (len(body := honest(request[6:])[:-2])).to_bytes(2, "big") + body


@define
class Endpoint:
    """A TCP server that answers by a script; `hang_up` and `behave` may be set while it runs."""

    port: int
    connections: int = 0
    open: int = 0
    requests: list[bytes] = field(factory=list)
    behave: Callable[[bytes], Sequence[Piece] | None] = lambda request: [(0, tcp_honest(request))]
    """From a request to what comes back; None: hang up."""
    hang_up: bool = False
    """Close each new connection at once."""


@asynccontextmanager
async def endpoint(*, size: int = 12, port: int = 0, ssl: object = None) -> AsyncIterator[Endpoint]:
    """A server on loopback for requests of `size` bytes; 0: of as many as their headers say."""
    served = Endpoint(0)
    tasks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        served.open += 1
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            while not served.hang_up:
                request = await reader.readexactly(size or 6)
                if not size:
                    request += await reader.readexactly(int.from_bytes(request[4:], "big"))
                served.requests.append(request)
                pieces = served.behave(request)
                if pieces is None:
                    return
                for delay, data in pieces:
                    await asyncio.sleep(delay)
                    writer.write(data)
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            served.open -= 1
            writer.transport.abort()

    server = await asyncio.start_server(talk, "127.0.0.1", port, ssl=ssl)  # type: ignore[arg-type]
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
