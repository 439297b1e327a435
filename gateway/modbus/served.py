"""Simulated meters served: on a line that is a pty paced at wire speed, and on TCP.

Nothing of pymodbus is used: this is the other end, and independent of it. A line has a thread of
its own, so that its times hold whatever the event loop does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import select
import ssl
import termios
import threading
import time
import tty
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from attrs import define, field

from gateway.clock import Instant
from gateway.modbus.frames import crc16, lrc
from gateway.modbus.plan import character_time, silence_time
from gateway.modbus.settings import Framing, SerialLink
from gateway.modbus.simulator import Fault, SimulatedMeter

FIFO: Final = 8
"""Bytes that a UART hands over at a time."""

_SPEEDS: Final = {
    getattr(termios, f"B{baud}"): baud
    for baud in (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)
}
_SPIN: Final = 0.0002


def wall() -> Instant:
    """The machine's time."""
    return time.time_ns() // 1_000_000


def wrap(unit: int, pdu: bytes, framing: Framing, transaction: int = 0) -> bytes:
    """A PDU as a frame."""
    body = bytes([unit]) + pdu
    if framing == "rtu":
        return body + crc16(body)
    if framing == "ascii":
        return b":" + (body + bytes([lrc(body)])).hex().upper().encode() + b"\r\n"
    return transaction.to_bytes(2, "big") + b"\0\0" + len(body).to_bytes(2, "big") + body


def unwrap(data: bytes, framing: Framing) -> tuple[int, int, bytes, int] | None:
    """The first request in the bytes: unit, transaction, PDU, bytes used; None: not whole yet."""
    if framing == "rtu":
        for start in range(max(0, len(data) - 7)):
            frame = data[start : start + 8]
            if crc16(frame[:-2]) == frame[-2:]:
                return frame[0], 0, frame[1:-2], start + 8
        return None
    if framing == "ascii":
        start = data.find(b":")
        end = data.find(b"\r\n", start)
        if start < 0 or end < 0:
            return None
        with contextlib.suppress(ValueError):
            body = bytes.fromhex(data[start + 1 : end].decode("ascii", "replace"))
            if len(body) > 2 and lrc(body[:-1]) == body[-1]:
                return body[0], 0, body[1:-1], end + 2
        return 0, 0, b"", end + 2
    if len(data) < 6 or len(data) < (size := 6 + int.from_bytes(data[4:6], "big")):
        return None
    return data[6], int.from_bytes(data[:2], "big"), data[7:size], size


@define
class Reply:
    """What goes out for one request: pieces, each after a pause."""

    pieces: list[tuple[float, bytes]] = field(factory=list)
    drop: bool = False


def reply_to(
    meter: SimulatedMeter,
    frame: bytes,
    pdu: bytes,
    framing: Framing,
    transaction: int,
    at: Instant,
    draw: random.Random,
) -> Reply:
    """The meter's answer, with the fault that it has right now."""
    unit = meter.unit
    fault = meter.fault(at, draw)
    answer = meter.answer(pdu, at)
    if fault is None:
        return Reply([(0.0, wrap(unit, answer, framing, transaction))])
    return _faulty(fault, unit, frame, pdu, answer, framing, transaction, draw)


def _faulty(
    fault: Fault,
    unit: int,
    frame: bytes,
    pdu: bytes,
    answer: bytes,
    framing: Framing,
    transaction: int,
    draw: random.Random,
) -> Reply:
    def whole(pdu: bytes, unit: int = unit) -> bytes:
        return wrap(unit, pdu, framing, transaction)

    right = whole(answer)
    kind = fault.kind
    if kind == "silent":
        return Reply()
    if kind == "drop":
        return Reply(drop=True)
    if kind == "late":
        return Reply([(fault.seconds, right)])
    if kind in ("exception", "busy"):
        code = 6 if kind == "busy" else fault.code
        return Reply([(0.0, whole(bytes([pdu[0] | 0x80, code])))])
    if kind == "crc":
        place = draw.randrange(len(right))
        turned = right[place] ^ 1 << draw.randrange(8)
        return Reply([(0.0, right[:place] + bytes([turned]) + right[place + 1 :])])
    half = len(right) // 2
    other = wrap(unit % 247 + 1, answer, framing, transaction)
    shorter = answer[:1] + bytes([max(0, answer[1] - 2)]) + answer[2:-2]
    swapped = bytes([{3: 4, 4: 3, 1: 2, 2: 1}.get(answer[0], answer[0])]) + answer[1:]
    pieces: dict[str, list[tuple[float, bytes]]] = {
        "glitch": [(0.0, b"\0" + right)],
        "truncated": [(0.0, right[:half])],
        "split": [(0.0, right[:half]), (0.02, right[half:])],
        "merged": [(0.0, other + right)],
        "wrong_unit": [(0.0, other)],
        "wrong_function": [(0.0, whole(swapped))],
        "wrong_length": [(0.0, whole(shorter))],
        "echo": [(0.0, frame + right)],
    }
    return Reply(pieces[kind])


@define
class SimulatedLine:
    """An RS-485 line behind a pty: `path` is the port to open. Bytes take their time on it.

    `strict`: a request that begins inside the 3.5 characters of silence is ignored, as some
    meters do; `ignored` counts those. It answers only at its own baud rate.
    """

    meters: Sequence[SimulatedMeter]
    link: SerialLink
    turnaround: float = 0.01
    latency: float = 0.0
    """What an adapter holds bytes back (FTDI: 0.016)."""
    strict: bool = False
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
        ours, port = self._ends
        character = character_time(self.link)
        silence = silence_time(self.link)
        by_unit = {meter.unit: meter for meter in self.meters}
        draw = random.Random(self.seed)
        data, began, quiet_since = b"", 0.0, 0.0
        while not self._stop.is_set():
            if not select.select([ours], [], [], 0.1)[0]:
                data = b""
                continue
            now = time.monotonic()
            try:
                data += os.read(ours, 512)
            except OSError:  # nobody has the port open
                time.sleep(0.01)
                continue
            began = began or now
            found = unwrap(data, self.link.framing)
            if found is None:
                data = data[-600:]
                continue
            unit, _, pdu, used = found
            frame, data, start, began = data[:used], data[used:], began, 0.0
            self.requests += 1
            early = self.strict and start < quiet_since + silence
            end = max(start, quiet_since) + len(frame) * character
            quiet_since = end
            if early:
                self.ignored += 1
                continue
            meter = by_unit.get(unit)
            if meter is None or not self._speed_is_right(port):
                continue
            _wait_until(end + self.turnaround)
            framing = self.link.framing
            reply = reply_to(meter, frame, pdu, framing, 0, wall(), draw)
            at = max(end + self.turnaround, time.monotonic() - 0.002)
            for pause, piece in reply.pieces:
                at += pause
                for i in range(0, len(piece), FIFO):
                    chunk = piece[i : i + FIFO]
                    at += len(chunk) * character
                    _wait_until(at + self.latency)
                    if self._stop.is_set():
                        return
                    os.write(ours, chunk)
            quiet_since = at

    def _speed_is_right(self, port: int) -> bool:
        speed = termios.tcgetattr(port)[4]
        return _SPEEDS.get(speed) == self.link.baudrate


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

    async def open(self) -> int:
        """Listen; the port."""
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
        if self.one_client and self._clients:
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

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        by_unit: Mapping[int, SimulatedMeter] = {meter.unit: meter for meter in self.meters}
        draw = random.Random(self.seed)
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
                reply = reply_to(meter, frame, pdu, self.framing, transaction, self.now(), draw)
                if reply.drop:
                    return
                for pause, piece in reply.pieces:
                    if pause:
                        await asyncio.sleep(pause)
                    writer.write(piece)
                    await writer.drain()
            data = data[-600:]
