"""Modbus frames as bytes, and the watch that lets only the answer asked for pass. Pure.

Modbus over serial line v1.02 (RTU §2.5.1, ASCII §2.5.2); Modbus messaging on TCP/IP v1.0b (§3.1).
An answer passes where its check sum, unit, function and length are those of the request (what a
device tells of itself, 43/14 and 17, has the length that it says), and over TCP its transaction
too; all else on the line (noise before it, answers of other units, our own echo, late answers to
other requests) is passed over and remembered as what was seen.
"""

from __future__ import annotations

import binascii
import contextlib
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from attrs import frozen

from gateway.metering.inquiry import IDENTIFICATION, SERVER_ID

Seen: TypeAlias = Literal["nothing", "echo", "crc", "unit", "function", "length", "frame"]
"""What came instead of the answer, for the error's reason."""


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_TABLE: Final = _crc_table()
_MEI: Final = 14  # of the interfaces behind function 43 the one that identifies
_LONGEST: Final = 254  # unit to data
_ANSWERS: Final = (1, 2, 3, 4, SERVER_ID, IDENTIFICATION)
"""Functions of which an answer's length is known."""


def crc16(data: bytes) -> bytes:
    """The check sum of an RTU frame, in the order of the wire (low byte first)."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc.to_bytes(2, "little")


def _is_whole(frame: bytes, length: int) -> bool:
    """Is it an RTU frame of that length, with its check sum?"""
    return len(frame) == length > 2 and crc16(frame[:-2]) == frame[-2:]


def lrc(data: bytes) -> int:
    """The check sum of an ASCII frame: the two's complement of the sum of its bytes."""
    return -sum(data) & 0xFF


@frozen
class Request:
    """What was asked, as far as an answer can show it."""

    unit: int
    function: int
    data_bytes: int
    """Bytes of data in the answer; those of 43/14 and 17 say it themselves."""
    transaction: int = 0
    frame: bytes = b""
    """As it went over a line: with its check sum in RTU, from unit to data in ASCII."""
    category: int = 0
    """43/14: which objects were asked for."""


Match: TypeAlias = Callable[[Request, bytes], tuple[bytes, Seen]]
"""Bytes on the line so far → the whole frame of the answer (empty: not yet), and what was seen."""


@frozen
class Objects:
    """An answer of 43/14, behind its function."""

    given: tuple[tuple[int, bytes], ...]
    following: int | None
    """The object to ask for next; None: no more follow."""
    length: int


def objects_in(data: bytes) -> Objects | None:
    """What stands behind function 43 in an answer, by the lengths in it; None: nothing whole.

    Interface, category, conformity, whether more follow, the next object, how many there are;
    then number, length and value of each.
    """
    if len(data) < 6:
        return None
    interface, category, conformity, more, following, count = data[:6]
    sound = interface == _MEI and 1 <= category <= 4 and conformity & 0x7F in (1, 2, 3)
    if not sound or more not in (0, 0xFF):
        return None
    given, at = [], 6
    for _ in range(count):
        if len(data) < at + 2 or len(data) < (end := at + 2 + data[at + 1]):
            return None
        given.append((data[at], data[at + 2 : end]))
        at = end
    return Objects(tuple(given), following if more else None, at)


def _head(request: Request) -> bytes:
    """How its answer begins."""
    if request.function == IDENTIFICATION:
        return bytes((request.unit, IDENTIFICATION, _MEI, request.category))
    if request.function == SERVER_ID:
        return bytes((request.unit, SERVER_ID))
    return bytes((request.unit, request.function, request.data_bytes))


def _length(data: bytes) -> int:
    """From unit to data of an answer that begins there; 0: none does, or it is cut off."""
    if data[1] & 0x80:
        return 3
    if data[1] != IDENTIFICATION:
        return length if len(data) > 2 and (length := 3 + data[2]) <= _LONGEST else 0
    objects = objects_in(data[2:_LONGEST])
    return 2 + objects.length if objects is not None else 0


def match_rtu(request: Request, data: bytes) -> tuple[bytes, Seen]:
    """Find the answer anywhere in what came over a line."""
    for head in (_head(request), bytes((request.unit, request.function | 0x80))):
        start = data.find(head)
        while start >= 0:
            length = _length(data[start:]) + 2
            frame = data[start : start + length]
            # A request to read 17 to 24 bits at 0x03xx has the form of its own answer: our echo.
            if _is_whole(frame, length) and frame != request.frame:
                return frame, "nothing"
            start = data.find(head, start + 1)
    return b"", "nothing"


def see_rtu(request: Request, data: bytes) -> Seen:
    """What was on the line instead, once the wait is over."""
    if not data:
        return "nothing"
    if data == request.frame:
        return "echo"
    for start in range(len(data) - 4):
        function = data[start + 1]
        if function & 0x7F not in _ANSWERS:
            continue
        length = _length(data[start:]) + 2
        frame = data[start : start + length]
        if not _is_whole(frame, length):
            continue
        if data[start] != request.unit:
            return "unit"
        return "length" if function == request.function else "function"
    return "crc"


@frozen
class Frame:
    """A sound frame that nobody here waited for: a unit's answer, or a master's request."""

    unit: int
    request: bool


def overheard(framing: str, data: bytes) -> list[Frame]:
    """The sound frames in what came over a line while nothing was asked."""
    return _overheard_ascii(data) if framing == "ascii" else _overheard_rtu(data)


def _overheard_rtu(data: bytes) -> list[Frame]:
    found, at = [], 0
    while at < len(data) - 4:
        function = data[at + 1]
        lengths = [(_length(data[at:]) + 2, False)]
        if not function & 0x80:
            lengths += [(7 if function == IDENTIFICATION else 8, True)]
        for length, request in lengths if function & 0x7F in (*_ANSWERS, 5, 6) else ():
            frame = data[at : at + length]
            if _is_whole(frame, length):
                found.append(Frame(frame[0], request))
                at += length - 1
                break
        at += 1
    return found


def _overheard_ascii(data: bytes) -> list[Frame]:
    found = []
    for piece in data.split(b":")[1:]:
        text, end, _ = piece.partition(b"\r\n")
        with contextlib.suppress(binascii.Error):
            frame = binascii.unhexlify(text)
            if end and len(frame) >= 4 and lrc(frame[:-1]) == frame[-1]:
                answer = _length(frame[:-1]) == len(frame) - 1
                found.append(Frame(frame[0], not answer))
    return found


def match_ascii(request: Request, data: bytes) -> tuple[bytes, Seen]:
    """Find the answer anywhere in what came over a line, or over a serial server."""
    seen: Seen = "nothing"
    for piece in data.split(b":")[1:]:
        text, end, _ = piece.partition(b"\r\n")
        if not end:
            continue
        try:
            frame = binascii.unhexlify(text)
        except binascii.Error:
            seen = "crc"
            continue
        if len(frame) < 4 or lrc(frame[:-1]) != frame[-1]:
            seen = "crc"
            continue
        if frame[:-1] == request.frame:
            continue
        why = _compare(request, frame[:-1])
        if why is None:
            return b":" + text + end, "nothing"
        seen = why
    return b"", seen


def ascii_frame(data: bytes) -> bytes:
    """Unit to data as they go over a line in ASCII."""
    return b":" + (data + bytes((lrc(data),))).hex().upper().encode() + b"\r\n"


def see_ascii(request: Request, data: bytes) -> Seen:
    """What was on the line instead, once the wait is over."""
    if not data:
        return "nothing"
    seen = match_ascii(request, data)[1]
    if seen == "nothing":
        return "echo" if data == ascii_frame(request.frame) else "crc"
    return seen


def match_tcp(request: Request, data: bytes) -> tuple[bytes, Seen]:
    """Walk the frames by their own lengths to the one with our transaction."""
    seen: Seen = "nothing"
    at = 0
    while len(data) - at >= 8:
        transaction = int.from_bytes(data[at : at + 2], "big")
        length = int.from_bytes(data[at + 4 : at + 6], "big")
        if data[at + 2 : at + 4] != b"\0\0" or not 3 <= length <= 254:
            return b"", "frame"  # lost: there is no way back to a frame's start
        frame = data[at : at + 6 + length]
        if len(frame) < 6 + length:
            break
        at += 6 + length
        if transaction != request.transaction:
            continue  # late, or of nobody: gateways that send 0 cannot be told apart, so no
        why = _compare(request, frame[6:])
        if why is None:
            return frame, "nothing"
        seen = why
    return b"", seen


def see_tcp(request: Request, data: bytes) -> Seen:
    """What came instead, once the wait is over."""
    return match_tcp(request, data)[1]


def _compare(request: Request, frame: bytes) -> Seen | None:
    """Unit, function, byte count and data; None: it is the answer."""
    if frame[0] != request.unit:
        return "unit"
    if frame[1] == request.function | 0x80:
        return None if len(frame) == 3 else "length"
    if frame[1] != request.function:
        return "function"
    whole = frame.startswith(_head(request)) and len(frame) == _length(frame)
    return None if whole else "length"


class Watch:
    """Knows the request under way; fed with what arrives, gives the answer out once."""

    def __init__(self, framing: str) -> None:
        self._match, self._see = {
            "rtu": (match_rtu, see_rtu),
            "ascii": (match_ascii, see_ascii),
        }.get(framing, (match_tcp, see_tcp))
        self._final = framing in ("tcp", "tls")
        self._request: Request | None = None
        self._data = b""

    def expect(self, request: Request) -> None:
        """A new request goes out: what came before it counts no more."""
        self._request, self._data = request, b""

    def arrived(self, data: bytes) -> tuple[bytes, Seen]:
        """`data`: all bytes since the request. The answer's frame once it is whole, else nothing;
        and what came in its place, where no better can follow: over TCP, in the right transaction.
        """
        self._data = data
        if self._request is None:
            return b"", "nothing"
        frame, seen = self._match(self._request, data)
        if frame:
            self._request = None
        return frame, seen if self._final else "nothing"

    def seen(self) -> Seen:
        """What came instead of the answer; ends the wait for it."""
        request, self._request = self._request, None
        return self._see(request, self._data) if request is not None else "nothing"
