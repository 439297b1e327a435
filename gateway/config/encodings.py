"""How a register's bits are meant, and what holds where a register does not say so."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from attrs import frozen

from gateway.config.document import Node, Scalar
from gateway.config.fields import Fields
from gateway.config.places import address
from gateway.config.values import Wrong, choice, integer
from gateway.metering.register import TYPES, Encoding, Order

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


def register_type(node: Node) -> str:
    """One of `TYPES`; what documents and other programs call it is a hint."""
    try:
        return choice(*TYPES)(node)
    except Wrong as wrong:
        found = re.sub("[^a-z0-9]", "", node.text.casefold()) if isinstance(node, Scalar) else ""
        if found in _MEANT:
            wrong.suggestion = f"write {_MEANT[found]}"
        raise


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
        fields.get("word_order", choice("big", "little"), common.word_order),
        fields.get("byte_order", choice("big", "little"), common.byte_order),
        TYPES[kind or "u16"] or words or 1,
    )
    return encoding, function or 3, where
