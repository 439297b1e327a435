"""A line or connection in virtual time that damages what goes over it, and the bus's own checks.

Everything of asking is real but what carries the bytes: requests and answers are frames, a `Watch`
looks at all that has arrived, and what it refuses is waited out as `gateway/modbus/bus.py` does.
"""

from __future__ import annotations

import heapq
import itertools
import random
import struct
from collections.abc import Mapping
from typing import Literal

from gateway.errors import BadAnswer, DeviceException, LinkDown, MeterTimeout
from gateway.metering.reading import Block
from gateway.modbus.frames import Request, Seen, Watch
from gateway.modbus.line import Overheard
from gateway.modbus.plan import Read
from gateway.modbus.replies import Reply, reply_to, wrap
from gateway.modbus.simulator import SimulatedMeter
from tests.modbus.wires import QuickClock

Kind = Literal["line", "ascii line", "rtu over tcp", "tcp"]
FRAMINGS: Mapping[Kind, Literal["rtu", "ascii", "tcp"]] = {
    "line": "rtu",
    "ascii line": "ascii",
    "rtu over tcp": "rtu",
    "tcp": "tcp",
}
LONGEST = 1.0
"""Seconds that a wait in vain and the quiet after it take."""
TURNAROUND = 0.02


def damaged(data: bytes, framing: str, draw: random.Random) -> bytes:
    """What noise makes of an answer, as far as its check sum promises to tell: up to three bits
    turned over, a burst of up to 16 bits, bytes before and after, a byte or the rest lost; in
    ASCII, with its sum of 8 bits, one bit. (`gross` is what it does not promise.)
    """
    bits = 8 * len(data)
    if framing == "ascii":
        turned = 1 << draw.randrange(bits)
        return _turned(data, turned)
    kind = draw.randrange(5)
    if kind == 0:
        return _turned(data, sum(1 << at for at in draw.sample(range(bits), draw.randint(1, 3))))
    if kind == 1:
        length = draw.randint(2, 16)
        pattern = 1 | 1 << length - 1 | draw.getrandbits(length)
        return _turned(data, pattern << draw.randrange(bits - length + 1))
    if kind == 2:
        return draw.randbytes(draw.randint(1, 4)) + data + draw.randbytes(draw.randint(0, 4))
    at = draw.randrange(len(data))
    return data[:at] + data[at + 1 :] if kind == 3 else data[:at]


def _turned(data: bytes, bits: int) -> bytes:
    """Bits are counted as they go over a wire: the lowest of a byte first."""
    return (int.from_bytes(data, "little") ^ bits).to_bytes(len(data), "little")


def gross(data: bytes, draw: random.Random) -> bytes:
    """Noise that no check sum promises to tell: all behind the first three bytes is random."""
    return data[:3] + draw.randbytes(len(data) - 3)


class NoisyWire:
    """Meters on one line or behind one connection; a share of the answers is damaged."""

    def __init__(
        self,
        kind: Kind,
        clock: QuickClock,
        meters: Mapping[int, SimulatedMeter],
        noise: float,
        draw: random.Random,
    ) -> None:
        self.busy = 0.0
        self.turnaround = TURNAROUND
        self.overheard: list[Overheard] = []
        self.calls = 0
        """Of the checks."""
        self.hit = 0
        """Answers that were damaged."""
        self.is_open = False
        self._framing = FRAMINGS[kind]
        self._on_a_line = "line" in kind
        self._dies = kind == "tcp"
        """What is on its way ends with its connection; a serial server gives it to the next one."""
        self._clock = clock
        self._meters = meters
        self._noise = noise
        self._draw = draw
        self._watch = Watch(self._framing)
        self._coming: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()
        self._transaction = 0
        self._last: dict[int, float] = {}
        self._quiet = 0.0

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False
        if self._dies:
            self._coming.clear()

    async def read(self, unit: int, read: Read, *, timeout: float, pause: float = 0.0) -> Block:
        if not self.is_open:
            raise LinkDown("riser", "not open")
        clock = self._clock
        await self._calm()
        now = clock.monotonic()
        self._coming = [one for one in self._coming if one[0] > now]
        heapq.heapify(self._coming)
        transaction = self._transaction = self._transaction + 1 & 0xFFFF
        pdu = struct.pack(">BHH", read.function, read.address, read.count)
        request = wrap(unit, pdu, self._framing, transaction)
        known = bytes([unit]) + pdu if self._framing == "ascii" else request
        self._watch.expect(Request(unit, read.function, read.data_bytes, transaction, known))
        self._send(unit, request, pdu, transaction)
        data, verdict, heard = b"", "nothing", now
        while self._coming and self._coming[0][0] <= now + timeout and verdict == "nothing":
            at, _, piece = heapq.heappop(self._coming)
            await clock.sleep(at - clock.monotonic())
            data, heard = data + piece, clock.monotonic()
            self.calls += 1
            frame, verdict = self._watch.arrived(data)
            if frame:
                self.turnaround = heard - now
                return self._decoded(unit, read, frame)
        if verdict == "nothing":
            await clock.sleep(now + timeout - clock.monotonic())
        await self._failed(unit, read, verdict, timeout)
        raise AssertionError

    def _send(self, unit: int, request: bytes, pdu: bytes, transaction: int) -> None:
        """The unit answers its requests in turn. One that has to wait for a late one is sound but
        for noise: nothing tells an answer that is late and under the number of another unit.
        """
        meter, draw = self._meters[unit], self._draw
        begins = max(self._clock.monotonic(), self._last.get(unit, 0.0))
        at = self._clock.now()
        reply = reply_to(meter, request, pdu, self._framing, transaction, at, draw)
        if begins > self._clock.monotonic():
            reply = Reply([(0.0, wrap(unit, meter.answer(pdu, at), self._framing, transaction))])
        if reply.drop:
            self.is_open = False
        begins += TURNAROUND
        hit = draw.randrange(len(reply.pieces) or 1) if draw.random() < self._noise else -1
        self.hit += hit >= 0
        for number, (wait, piece) in enumerate(reply.pieces):
            begins += wait
            if number == hit:
                piece = damaged(piece, self._framing, draw)
            heapq.heappush(self._coming, (begins, next(self._order), piece))
        self._last[unit] = begins

    async def _calm(self) -> None:
        """As the bus does before it asks another unit: until nothing has come for so long, or for
        three times that."""
        clock, quiet = self._clock, self._quiet
        end = clock.monotonic() + 3 * quiet
        while quiet and (now := clock.monotonic()) < end:
            if not self._coming or self._coming[0][0] > now + quiet:
                await clock.sleep(quiet)
                break
            at = heapq.heappop(self._coming)[0]
            await clock.sleep(at - now)
        self._quiet = 0.0

    async def _failed(self, unit: int, read: Read, verdict: Seen, timeout: float) -> None:
        seen = self._watch.seen()
        if not self.is_open:
            raise LinkDown("riser", "the connection was lost")
        if self._on_a_line:
            self._quiet = timeout if seen == "crc" else max(0.0, min(timeout, LONGEST - timeout))
        elif verdict not in ("unit", "function", "length"):
            await self.close()
        if seen in ("nothing", "echo"):
            raise MeterTimeout("riser", unit, str(read), "no answer")
        raise BadAnswer("riser", unit, str(read), "not the answer", reason=seen)

    def _decoded(self, unit: int, read: Read, frame: bytes) -> Block:
        if self._framing == "ascii":
            frame = bytes.fromhex(frame[1:-4].decode())
        elif self._framing == "tcp":
            frame = frame[6:]
        if frame[1] & 0x80:
            raise DeviceException("riser", unit, str(read), frame[2])
        words = struct.unpack(f">{read.count}H", frame[3 : 3 + 2 * read.count])
        return Block(read.function, read.address, words)
