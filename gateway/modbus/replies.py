"""Requests and answers of simulated meters as bytes, and what a fault makes of an answer. Pure."""

from __future__ import annotations

import contextlib
import random

from attrs import define, field

from gateway.clock import Instant
from gateway.metering.inquiry import IDENTIFICATION, SERVER_ID
from gateway.modbus.faults import Fault
from gateway.modbus.frames import crc16, lrc
from gateway.modbus.settings import Framing
from gateway.modbus.simulator import SimulatedMeter

_SIZES = {SERVER_ID: 4, IDENTIFICATION: 7}  # of a request in RTU; of all others 8


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
        for start in range(max(0, len(data) - 3)):
            size = _SIZES.get(data[start + 1], 8)
            frame = data[start : start + size]
            if len(frame) == size and crc16(frame[:-2]) == frame[-2:]:
                return frame[0], 0, frame[1:-2], start + size
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
    if not meter.powered(at):
        return Reply()
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
    if kind in ("late", "slow"):
        return Reply([(fault.lasting, right)])
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
