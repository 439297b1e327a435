"""Simulated meters served: on a line that is a pty paced at wire speed, and on TCP.

Nothing of pymodbus is used: this is the other end, and independent of it. A line has a thread of
its own, so that its times hold whatever the event loop does.
"""

from __future__ import annotations

import asyncio
import fcntl
import heapq
import math
import os
import random
import select
import ssl
import struct
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from attrs import define, evolve, field

from gateway.clock import Instant
from gateway.modbus.plan import character_time, silence_time
from gateway.modbus.replies import reply_to, unwrap
from gateway.modbus.settings import Framing, SerialLink
from gateway.modbus.simulator import SimulatedMeter

FIFO: Final = 8
"""Bytes that a UART hands over at a time."""

_TCGETS2: Final = 0x802C542A
"""Reads a port's settings with the baud rate as a number: Linux, asm-generic/ioctls.h and struct
termios2, of which the output speed is the last of 44 bytes."""
_SPIN: Final = 0.0002
_LOOK: Final = 0.1
"""Seconds of silence after which half a request is forgotten."""


def wall() -> Instant:
    """The machine's time."""
    return time.time_ns() // 1_000_000


@define
class SimulatedLine:
    """An RS-485 line behind a pty: `path` is the port to open. Bytes take their time on it.

    A meter answers only at its own baud rate, which is the line's unless it has another. Parity
    and stop bits are not kept by a pty. `ignored` counts the requests that began inside the 3.5
    characters of silence and that a strict meter did not answer for that.
    """

    meters: Sequence[SimulatedMeter]
    link: SerialLink
    turnaround: float = 0.01
    latency: float = 0.0
    """Seconds after which an adapter hands over what it holds (FTDI as it comes: 0.016)."""
    fifo: int = FIFO
    """Bytes at which it does so at once (FTDI: 62)."""
    strict: bool = False
    """All its meters are."""
    seed: int = 0
    path: str = ""
    requests: int = 0
    ignored: int = 0
    _ends: tuple[int, int] = (-1, -1)
    _thread: threading.Thread | None = None
    _stop: threading.Event = field(factory=threading.Event)

    def open(self) -> str:
        """Make the pty and begin to answer; the path to open."""
        self._ends = os.openpty()
        tty.setraw(self._ends[1])
        self.path = os.ttyname(self._ends[1])
        self._stop.clear()
        self._thread = threading.Thread(target=self._serve, name="simulated line", daemon=True)
        self._thread.start()
        return self.path

    def close(self) -> None:
        """Stop; the path is gone, as if the adapter was pulled."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for end in self._ends:
            if end >= 0:
                os.close(end)
        self._ends = (-1, -1)

    def _serve(self) -> None:
        ours = self._ends[0]
        talk = _Talk(self)
        last = 0.0
        while not self._stop.is_set():
            wait = min(talk.next_due() - time.monotonic() - _SPIN, _LOOK)
            came = bool(select.select([ours], [], [], max(0.0, wait))[0])
            now = time.monotonic()
            if came:
                last = now
                talk.heard(os.read(ours, 512), now)
            elif now - last >= _LOOK:
                talk.forget()
            talk.send(now + _SPIN, ours)

    def speed(self) -> int:
        """The baud rate that was set at the port, whatever it is."""
        settings = fcntl.ioctl(self._ends[1], _TCGETS2, bytes(44))
        return int(struct.unpack("=I", settings[-4:])[0])


class _Talk:
    """What goes on on a line. Instants are monotonic seconds."""

    def __init__(self, line: SimulatedLine) -> None:
        self._line = line
        self._draw = random.Random(line.seed)
        self._data = b""
        self._began = 0.0
        """When the first byte of the request came."""
        self._quiet_since = 0.0
        self._busy: dict[int, float] = {}
        """When each unit has sent its last answer: it answers its requests in turn."""
        self._to_send: list[tuple[float, int, float, bytes]] = []
        """When it is handed over, a number in their order, when its last bit came, the bytes."""
        self._number = 0

    def next_due(self) -> float:
        """When there is something to send."""
        return self._to_send[0][0] if self._to_send else math.inf

    def forget(self) -> None:
        """What came is no request."""
        self._data = b""

    def heard(self, data: bytes, now: float) -> None:
        """Bytes from the port."""
        if not self._data:
            self._began = now
        self._data += data
        framing = self._line.link.framing
        while (found := unwrap(self._data, framing)) is not None:
            unit, _, pdu, used = found
            frame, self._data = self._data[:used], self._data[used:]
            self._asked(unit, frame, pdu)
            self._began = now
        self._data = self._data[-600:]

    def _asked(self, unit: int, frame: bytes, pdu: bytes) -> None:
        line, began = self._line, self._began
        line.requests += 1
        speed = line.speed()
        if not speed:  # the line is hung up
            return
        link = evolve(line.link, baudrate=speed)
        early = began < self._quiet_since + silence_time(link)
        begins = max(began, self._quiet_since)
        end = begins + len(frame) * character_time(link)
        self._quiet_since = end
        if line.link.echo:
            self._schedule(frame, begins, link)
        meter = self._meter(unit, speed)
        if meter is None or not pdu:
            return
        at = wall() + round((end + line.turnaround - time.monotonic()) * 1000)
        if early and (line.strict or meter.has("strict", at)):
            line.ignored += 1
            return
        reply = reply_to(meter, frame, pdu, link.framing, 0, at, self._draw)
        start = max(end + line.turnaround, self._busy.get(unit, 0.0))
        for pause, piece in reply.pieces:
            start = self._busy[unit] = self._schedule(piece, start + pause, link)

    def _meter(self, unit: int, speed: int) -> SimulatedMeter | None:
        for meter in self._line.meters:
            if meter.unit == unit and (meter.baudrate or self._line.link.baudrate) == speed:
                return meter
        return None

    def _schedule(self, data: bytes, start: float, link: SerialLink) -> float:
        """Send bytes, the first bit now or later; when the last one is on the line."""
        line, character = self._line, character_time(link)
        for delay, first, end in handed_over(len(data), character, line.fifo, line.latency):
            entry = (start + delay, self._number, start + end * character, data[first:end])
            heapq.heappush(self._to_send, entry)
            self._number += 1
        return start + len(data) * character

    def send(self, until: float, port: int) -> None:
        """All that is due by then."""
        while self._to_send and self._to_send[0][0] <= until:
            at, _, end, data = heapq.heappop(self._to_send)
            _wait_until(at)
            os.write(port, data)
            self._quiet_since = max(self._quiet_since, end)


def handed_over(
    size: int, character: float, fifo: int, latency: float
) -> Iterator[tuple[float, int, int]]:
    """How an adapter hands over bytes that come one a character: seconds after the first bit, and
    which bytes: those from one place up to another.

    It does so as soon as it holds `fifo` of them, or `latency` seconds after the first it holds.
    """
    first = 0
    while first < size:
        full = first + fifo
        runs_out = (first + 1) * character + latency
        by_then = size if not latency else min(size, int(runs_out / character + 1e-6))
        end = min(full, by_then)
        yield (runs_out if latency and end < full else end * character), first, end
        first = end


def _wait_until(moment: float) -> None:
    """Sleep, and spin for the last bit: a thread's sleep is about 0.1 ms late."""
    while (rest := moment - time.monotonic()) > 0:
        if rest > _SPIN:
            time.sleep(rest - _SPIN)


@define
class SimulatedEndpoint:
    """Meters behind a TCP port of loopback."""

    meters: Sequence[SimulatedMeter]
    framing: Framing = "tcp"
    host: str = "127.0.0.1"
    port: int = 0
    turnaround: float = 0.005
    one_client: bool = False
    tls: ssl.SSLContext | None = None
    seed: int = 0
    now: Callable[[], Instant] = wall
    requests: int = 0
    _server: asyncio.Server | None = None
    _clients: set[asyncio.StreamWriter] = field(factory=set)
    _talks: set[asyncio.Task[None]] = field(factory=set)
    _draw: random.Random = field(factory=random.Random)
    """One for all connections: else each new one would begin with the same faults."""

    async def open(self) -> int:
        """Listen; the port."""
        self._draw = random.Random(self.seed)
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    async def close(self) -> None:
        """Stop listening and cut every client off."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._clients):
                writer.transport.abort()
            await asyncio.gather(*self._talks, return_exceptions=True)
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (self._clients and self._takes_one()) or self._off():
            writer.close()
            return
        self._clients.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            await self._talk(reader, writer)
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            self._clients.discard(writer)
            self._talks.discard(task)
            writer.close()

    def _takes_one(self) -> bool:
        return self.one_client or any(m.has("one_client", self.now()) for m in self.meters)

    def _off(self) -> bool:
        """Is the device itself without power?"""
        return bool(self.meters) and not any(m.powered(self.now()) for m in self.meters)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        by_unit: Mapping[int, SimulatedMeter] = {meter.unit: meter for meter in self.meters}
        data = b""
        while new := await reader.read(1024):
            data += new
            while (found := unwrap(data, self.framing)) is not None:
                unit, transaction, pdu, used = found
                frame, data = data[:used], data[used:]
                self.requests += 1
                meter = by_unit.get(unit)
                if meter is None or not pdu:
                    continue
                await asyncio.sleep(self.turnaround)
                reply = reply_to(
                    meter, frame, pdu, self.framing, transaction, self.now(), self._draw
                )
                if reply.drop or self._off():
                    return
                for pause, piece in reply.pieces:
                    if pause:
                        await asyncio.sleep(pause)
                    writer.write(piece)
                    await writer.drain()
            data = data[-600:]
