"""A Modbus client of its own, and decoding written from the standards and the makers' documents.

It shares nothing with the gateway: no class, no table, no library.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any


class Refused(Exception):
    """The device answered with an exception."""


class Client:
    """Modbus/TCP, one request after the other (Modbus Messaging Implementation Guide v1.0b)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._transaction = 0

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def read(self, unit: int, function: int, address: int, count: int) -> tuple[int, ...]:
        """The registers; raises Refused."""
        self._transaction = (self._transaction + 1) % 0x10000
        head = struct.pack(">HHHB", self._transaction, 0, 6, unit)
        self._writer.write(head + struct.pack(">BHH", function, address, count))
        transaction, protocol, length, other = struct.unpack(
            ">HHHB", await self._reader.readexactly(7)
        )
        assert (transaction, protocol, other) == (self._transaction, 0, unit)
        pdu = await self._reader.readexactly(length - 1)
        if pdu[0] & 0x80:
            raise Refused(pdu[1])
        assert (pdu[0], pdu[1]) == (function, 2 * count)
        return struct.unpack(f">{count}H", pdu[2:])

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


WIDTHS = {"16": 1, "32": 2, "48": 3, "64": 4, "t5": 2, "t6": 2}


def width(place: Mapping[str, Any]) -> int:
    """Registers that a value takes."""
    return place.get("words") or WIDTHS[place["type"][-2:]]


def in_order(words: Sequence[int], place: Mapping[str, Any]) -> bytes:
    """The bytes of a value, the most significant first."""
    low_first = place.get("word_order") == "little" and place["type"] != "string"
    pairs = [divmod(word, 256) for word in (reversed(words) if low_first else words)]
    if place.get("byte_order") == "little":
        pairs = [(low, high) for high, low in pairs]
    return bytes(byte for pair in pairs for byte in pair)


def number(words: Sequence[int], place: Mapping[str, Any]) -> Decimal | None:
    """The number in a value's registers, without its scale; None: not a number."""
    data, kind = in_order(words, place), place["type"]
    if kind in ("f32", "f64"):
        form = ">f" if kind == "f32" else ">d"
        (value,) = struct.unpack(form, data)
        if value != value or value in (float("inf"), float("-inf")):
            return None
        digits = (f"{value:.{n}e}" for n in range(20))  # the fewest that mean the same bits
        return Decimal(next(d for d in digits if struct.pack(form, float(d)) == data))
    if kind == "mod10k":
        return Decimal("".join(f"{g:04}" for g in struct.unpack(f">{len(data) // 2}H", data)))
    if kind.startswith("bcd"):
        return Decimal(data.hex())
    if kind.startswith("iskra"):
        exponent, mantissa = data[0] - 256 * (data[0] > 127), int.from_bytes(data[1:], "big")
        if kind == "iskra_t6" and mantissa >= 1 << 23:
            mantissa -= 1 << 24
        return Decimal(mantissa).scaleb(exponent)
    value = int.from_bytes(data, "big")
    if kind[0] == "s" and value >> (8 * len(data) - 1):
        value -= 1 << (8 * len(data))
    return Decimal(value)


def text(words: Sequence[int], place: Mapping[str, Any]) -> str:
    """A text in registers: two letters each, or one each with a zero before it."""
    data = in_order(words, place)
    if len(data) > 2 and set(data[::2]) == {0}:
        data = data[1::2]
    return data.split(b"\0")[0].decode("latin-1").strip()


def scaled(
    words: Sequence[int], place: Mapping[str, Any], others: Mapping[int, Sequence[int]]
) -> Decimal | None:
    """A value in its unit. `others`: the registers beside it, by address."""
    if int.from_bytes(in_order(words, place), "big") in place.get("not_available", ()):
        return None
    found = number(words, place)
    if found is None:
        return None
    with localcontext() as context:
        context.prec = 300
        found *= Decimal(place.get("scale", "1"))
        if (beside := place.get("scale_register")) is not None:
            at = beside if isinstance(beside, dict) else {"address": beside, "type": "s16"}
            power = number(others[at["address"]], at)
            assert power is not None
            found = found.scaleb(int(power))
        if (beside := place.get("unit_register")) is not None:
            code = number(others[beside["address"]], beside)
            found *= Decimal(beside["factors"][str(code)])
        return found
