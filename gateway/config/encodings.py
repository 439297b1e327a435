"""How a register's bits are meant, and what holds where a register does not say so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, TypeVar

from attrs import frozen

from gateway.config.document import Node, Scalar
from gateway.config.fields import Fields
from gateway.config.places import address
from gateway.config.values import Reader, Wrong, choice, integer
from gateway.metering.register import TYPES, Encoding, Order

T = TypeVar("T")

ENCODING: Final = ("function", "address", "type", "words", "word_order", "byte_order")

_MEANT: Final = {
    **{f"{name}{bits}": f"s{bits}" for name in ("int", "i", "sint") for bits in (16, 32, 48, 64)},
    **{f"{name}{bits}": f"u{bits}" for name in ("uint", "ui") for bits in (16, 32, 48, 64)},
    **dict.fromkeys(("float", "float32", "real", "real32", "single"), "f32"),
    **dict.fromkeys(("double", "float64", "real64", "lreal"), "f64"),
    "short": "s16", "ushort": "u16", "word": "u16", "long": "s32", "ulong": "u32", "dword": "u32",
    "int": "s16 where it is one register, s32 where it is two",
    "uint": "u16 where it is one register, u32 where it is two",
    "bcd": "bcd16 where it is one register, bcd32 where it is two",
    "ascii": "string", "char": "string", "text": "string",
}  # fmt: skip
"""What a type is called elsewhere to what to write here."""
_ORDERS: Final = {
    "abcd": "big", "cdab": "little", "badc": "big, and byte_order: little",
    "dcba": "little, and byte_order: little", "highwordfirst": "big", "lowwordfirst": "little",
    "hi": "big", "lo": "little", "high": "big", "low": "little", "be": "big", "le": "little",
}  # fmt: skip


@frozen
class Common:
    """`defaults` of a profile: what holds where a register does not say otherwise."""

    function: int = 0
    type: str = ""
    word_order: Order = "big"
    byte_order: Order = "big"
    scale: Decimal = Decimal(1)
    sources: tuple[str, ...] = ()
    spoilt: frozenset[str] = frozenset()
    """Keys whose mistake is reported: no register misses them."""


def _hinted(read: Reader[T], meant: Mapping[str, str]) -> Reader[T]:
    """The same, with a hint for what documents and other programs write."""

    def hinted(node: Node) -> T:
        try:
            return read(node)
        except Wrong as wrong:
            text = node.text.casefold() if isinstance(node, Scalar) else ""
            found = re.sub("[^a-z0-9]", "", text)
            if found in meant:
                wrong.suggestion = f"write {meant[found]}"
            raise

    return hinted


register_type: Final = _hinted(choice(*TYPES), _MEANT)
word_order: Final[Reader[Order]] = _hinted(choice("big", "little"), _ORDERS)


def read_encoding(fields: Fields, common: Common) -> tuple[Encoding, int, int]:
    """Encoding, function and address of whatever has them."""
    fields.spoil(*(key for key in common.spoilt if key not in fields))
    example = "function: 3 or 4, here or in `defaults`"
    function = fields.get("function", integer(1, 4), common.function)
    if not function:
        fields.missing("function", example)
    kind = fields.get("type", register_type, common.type)
    if not kind:
        fields.missing("type", "type: f32, here or in `defaults`")
    where = fields.require("address", address, 0, example="address: 0x0000, from 0")
    words = fields.get("words", integer(1, 125), 0)
    if kind and fields.sound("words", "type"):
        if not TYPES[kind] and not words:
            fields.missing("words", f"words: how many registers the {kind} takes")
        elif TYPES[kind] and words and words != TYPES[kind]:
            fields.error("words", f"words: {kind} takes {TYPES[kind]}", "remove it")
    encoding = Encoding(
        kind or "u16",
        fields.get("word_order", word_order, common.word_order),
        fields.get("byte_order", choice("big", "little"), common.byte_order),
        TYPES[kind or "u16"] or words or 1,
    )
    return encoding, function or 3, where
