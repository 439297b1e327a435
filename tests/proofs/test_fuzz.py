"""Security: whatever a server or a meter sends, reading it raises nothing and takes no time.

Valid answers and frames are altered in small and in hostile ways, drawn from a seed: bytes flipped,
left out, doubled and moved, numbers of thousands of digits, deep nesting, a megabyte of commas.
What is taken for a confirmation or for the answer of a meter is looked at again, by other code.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from attrs import define, field

from gateway.energinet.answer import Row, read_answer, row_of
from gateway.energinet.limits import MAX_ANSWER
from gateway.modbus.frames import Request, Seen, Watch, ascii_frame, crc16, objects_in, overheard

T = TypeVar("T")

NOW = 1_700_000_000_000
SEED = 20261125
INPUTS = 1_000_000
LARGE = 1_000
"""One answer of so many is as large as is read at most."""
GENEROUS = 1.0
"""Seconds of CPU that no machine takes; what it was is printed."""

SENT: Mapping[str, int] = {"701": 3, "702": 1, "7777777777": 20_000, "ø": 2}
TOKENS = (
    b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"null", b"true",
    b"NaN", b"-Infinity", b"1e999999", b"-0", b"0.0", b"201", b"201.0", b'"201"', b"1" * 30,
    b"9" * 5_000, b"\xff", b"\xef\xbb\xbf", b"\x00", b"\x1b[2J", b"\r\n", b'"meterID"',
    b'"status"', b"[" * 3_000, b'{"a":' * 2_000, b'"number_of_values":', b"\xf0\x9f\x94\x8c",
    b"<html>", b" " * 100,
)  # fmt: skip
HEADERS = (
    "", "0", "-1", "1.5", "9" * 400, "Wed, 21 Oct 2015 07:28:00 GMT", "(" * 3_000, "Mon, " * 3_000,
    "Thu, 99 Foo 99999 25:61", "\x00", "\u0661\u0662", "Fri, 31 Dec 9999 23:59:59 -2359",
)  # fmt: skip


@define
class Slowest:
    """How long the slowest of many calls took."""

    seconds: float = 0.0
    what: str = ""
    calls: int = 0
    over: int = 0

    def call(self, what: str, work: Callable[[], T]) -> T:
        """Do it and see."""
        began = time.process_time()
        result = work()
        took = time.process_time() - began
        self.calls += 1
        self.over += took > 0.05
        if took > self.seconds:
            self.seconds, self.what = took, what
        return result

    def __str__(self) -> str:
        return f"slowest {1000 * self.seconds:.1f} ms ({self.what}), over 50 ms {self.over}"


def altered(draw: random.Random, data: bytes, tokens: tuple[bytes, ...] = ()) -> bytes:
    """The same with some things wrong."""
    made = bytearray(data)
    for _ in range(draw.choice((0, 0, 1, 1, 2, 6))):
        at = draw.randrange(len(made) + 1)
        match draw.randrange(7 if tokens else 5):
            case 0:
                made[at - 1 : at] = [made[at - 1] ^ 1 << draw.randrange(8)] if at else b""
            case 1:
                del made[at : at + draw.choice((1, 2, 10))]
            case 2:
                made[at:at] = draw.randbytes(draw.choice((1, 2, 9)))
            case 3:
                made[at:at] = made[: draw.randrange(60)]
            case 4:
                del made[at:]
            case _:
                made[at:at] = draw.choice(tokens)
    return bytes(made)


# ------------------------------------------------------------------------------------- the server


def entry(draw: random.Random) -> dict[str, object]:
    name = draw.choice((*SENT, "703", 701, 702, 7777777777, 701.0, None, [], "701 "))
    sent = SENT.get(str(name), 0)
    return {
        "meterID": name,
        "number_of_values": draw.choice(
            (sent, sent, sent, sent - 1, -1, "3", None, 1e400, 1 << 70)
        ),
        "status": draw.choice((201, 200, 299, 201, 300, 404, 0, -1, True, "201", 2.0, 1 << 64)),
    }


def answer_body(draw: random.Random) -> bytes:
    """What may come back for a body."""
    text = json.dumps([entry(draw) for _ in range(draw.choice((0, 1, 2, 3, 6)))]).encode()
    return altered(draw, text, TOKENS)


def large_body(draw: random.Random) -> bytes:
    """The same piece over and over, as much as is read."""
    pieces = (
        *TOKENS,
        b"{},",
        b"[],",
        b"1,",
        b'{"meterID":%s},' % (b"9" * 4_200),
        b'"a":1,',
        b'"\\u0041",',
    )
    piece = draw.choice(pieces)
    body = draw.choice((b"", b"[", b"[{", b'[{"meterID":"')) + piece * (MAX_ANSWER // len(piece))
    return (body[: MAX_ANSWER - 4].rstrip(b",") + draw.choice((b"", b"]", b"}]")))[:MAX_ANSWER]


def confirmed_by(body: bytes) -> set[str]:
    """Which meters the body confirms, told by its entries one after the other."""
    said: dict[str, set[tuple[int, int]]] = {}
    for one in json.loads(body):
        if not isinstance(one, dict):
            continue
        name, count, status = (one.get(k) for k in ("meterID", "number_of_values", "status"))
        whole = type(count) is int and type(status) is int
        if whole and max(abs(count), abs(status)) < 1 << 63 and type(name) in (int, str):
            said.setdefault(str(name), set()).add((status, count))
    return {
        name
        for name, pairs in said.items()
        if len(pairs) == 1
        for status, count in pairs
        if 200 <= status < 300 and count == SENT.get(name)
    }


def test_no_answer_of_a_server_raises_or_takes_long(short: bool) -> None:
    draw = random.Random(SEED)
    slowest, rows = Slowest(), Counter[str]()
    confirmed = 0
    inputs = INPUTS // (40 if short else 2)
    for nth in range(inputs):
        large = nth % (LARGE // (5 if short else 1)) == 0
        body = large_body(draw) if large else answer_body(draw)
        special = draw.choice((301, 400, 401, 404, 409, 413, 422, 429, 503))
        status = draw.choice((200, 200, 200, 201, 204, special, draw.randrange(-5, 1_200)))
        headers = {"retry-after": altered(draw, draw.choice(HEADERS).encode()).decode("latin-1")}
        whole = draw.random() < 0.95
        read = partial(read_answer, status, headers, body, SENT, whole=whole, now=NOW)
        answer = slowest.call(f"{status} {body[:20]!r} of {len(body)} bytes", read)
        rows[answer.row.name] += 1
        if answer.row is Row.LIST:
            assert answer.verdicts.keys() == SENT.keys()
            told = {name for name, v in answer.verdicts.items() if v.kind == "confirmed"}
            assert not told or told == confirmed_by(body) & SENT.keys(), body
            confirmed += bool(told)
        elif answer.row is not Row.UNREADABLE:
            assert answer.row is row_of(status)
        assert answer.retry_after is None or answer.retry_after >= 0
    print(
        f"seed {SEED}: {inputs} answers, {slowest}; {confirmed} confirmed something; {dict(rows)}"
    )
    assert set(rows) == {row.name for row in Row}
    assert confirmed > inputs / 50
    assert slowest.seconds < GENEROUS


# -------------------------------------------------------------------------------------- the meter


@define
class Asked:
    """A request and its right answer, in one framing."""

    framing: str
    request: Request
    answer: bytes
    others: list[bytes] = field(factory=list)


def asked(draw: random.Random) -> Asked:
    framing = draw.choice(("rtu", "ascii", "tcp"))
    unit = draw.randrange(1, 248)
    function = draw.choice((1, 2, 3, 4, 17, 43))
    data = draw.randbytes(draw.choice((1, 2, 4, 20, 246)))
    if function == 43:
        data = data[:100]
        pdu = bytes((43, 14, 1, 1, 0, 0, 1, 0, len(data))) + data
        question = bytes((43, 14, 1, 0))
    else:
        pdu = bytes((function, len(data))) + data
        question = bytes((function,)) + (b"" if function == 17 else draw.randbytes(4))
    if draw.random() < 0.1:
        pdu = bytes((function | 0x80, draw.choice((1, 2, 3, 4, 6, 11))))
    asked_for = bytes((unit,)) + question
    transaction = draw.randrange(65_536)
    frame = asked_for + crc16(asked_for) if framing == "rtu" else asked_for
    request = Request(unit, function, len(data), transaction, frame, 1)
    body = bytes((unit,)) + pdu
    if framing == "rtu":
        return Asked(framing, request, body + crc16(body), [frame])
    if framing == "ascii":
        return Asked(framing, request, ascii_frame(body), [ascii_frame(frame)])
    head = transaction.to_bytes(2, "big") + bytes(2) + len(body).to_bytes(2, "big")
    late = (transaction ^ 1).to_bytes(2, "big") + head[2:] + body
    return Asked(framing, request, head + body, [late])


def is_answer(one: Asked, frame: bytes) -> bool:
    """Is it sound, of that unit, of that function, and as long as it was asked to be?"""
    request = one.request
    body = frame[:-2] if one.framing == "rtu" else frame[6:]
    if one.framing == "rtu" and crc16(body) != frame[-2:]:
        return False
    if one.framing == "ascii":
        whole = bytes.fromhex(frame[1:-2].decode())
        body = whole[:-1]
        if sum(whole) & 0xFF or frame[:1] != b":" or frame[-2:] != b"\r\n":
            return False
    if one.framing == "tcp" and frame[:2] != request.transaction.to_bytes(2, "big"):
        return False
    if body[0] != request.unit or body[1] & 0x7F != request.function:
        return False
    if body[1] & 0x80:
        return len(body) == 3
    if request.function == 43:
        objects = objects_in(body[2:])
        return objects is not None and objects.length == len(body) - 2
    right = len(body) == 3 + body[2]
    return right and (request.function == 17 or body[2] == request.data_bytes)


def heard(one: Asked, parts: Sequence[bytes]) -> tuple[list[bytes], Seen]:
    """What is taken for the answer, with so many bytes there, and what was seen in its place."""
    watch = Watch(one.framing)
    watch.expect(one.request)
    frames = [watch.arrived(part)[0] for part in parts]
    overheard(one.framing, parts[-1])
    objects_in(parts[-1])
    return frames, watch.seen()


def test_nothing_that_a_meter_sends_raises_or_takes_long(short: bool) -> None:
    draw = random.Random(SEED)
    slowest, seen = Slowest(), Counter[str]()
    taken = 0
    inputs = INPUTS // (40 if short else 2)
    hostile = (
        b"\x03\xfa",
        b"\x01\x03\xf0",
        b"+\x0e\x01\x01\x00\x00\xff",
        b":",
        b":0103",
        b"\x11\xfa",
    )
    for nth in range(inputs):
        one = asked(draw)
        noise = draw.choice((b"", b"", draw.randbytes(draw.randrange(40)), *one.others))
        data = altered(draw, noise + one.answer)
        if nth % LARGE == 0:
            piece = draw.choice(hostile)
            data = (piece * 1_024)[:1_024]
        data = data[:1_024]  # no more is kept of one wait
        cut = draw.randrange(len(data) + 1)
        read = partial(heard, one, (data[:cut], data))
        frames, what = slowest.call(f"{one.framing} {data[:12].hex()} of {len(data)} bytes", read)
        seen[what] += 1
        given = [frame for frame in frames if frame]
        assert len(given) <= 1
        assert all(is_answer(one, frame) and frame in data for frame in given), (one, data)
        taken += len(given)
    print(f"seed {SEED}: {inputs} waits for an answer, {slowest}; {taken} had one; {dict(seen)}")
    assert inputs / 10 < taken < inputs
    assert slowest.seconds < GENEROUS
