"""What raw words would mean in every type and order. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final, TypeAlias

from attrs import frozen

from gateway.metering.register import TYPES, Encoding, Order, Value, Words, decode, decode_text

Orders: TypeAlias = tuple[Order, Order]
"""Of the words, and of the bytes in each."""

ORDERS: Final[tuple[Orders, ...]] = tuple(product(("big", "little"), ("big", "little")))

_WIDEST: Final = 4
"""Registers of the widest number."""


@frozen
class Interpretation:
    """Some registers as numbers of one type."""

    address: int
    words: Words
    type: str
    values: dict[Orders, Value]
    """What it is in each order in which it can be of that type; a single register has one order
    of words."""


def encodings(width: int) -> Iterator[Encoding]:
    """Every way in which a number can lie in so many registers, the usual ones first."""
    orders = [(w, b) for w, b in ORDERS if width > 1 or w == "big"]
    for type_, own in TYPES.items():
        if own == width or (type_ == "mod10k" and width > 1):
            for word_order, byte_order in orders:
                yield Encoding(type_, word_order, byte_order, width)


def interpretations(address: int, words: Sequence[int]) -> list[Interpretation]:
    """Every type that fits into the words: one register after the other, two by two, and so on."""
    found: list[Interpretation] = []
    for width in range(1, min(_WIDEST, len(words)) + 1):
        for at in range(0, len(words) - width + 1, width):
            found += _interpreted(address + at, tuple(words[at : at + width]))
    return found


def _interpreted(address: int, words: Words) -> Iterator[Interpretation]:
    by_type: dict[str, dict[Orders, Value]] = {}
    for encoding in encodings(len(words)):
        try:
            value = decode(words, encoding)
        except ValueError:
            continue
        order = (encoding.word_order, encoding.byte_order)
        by_type.setdefault(encoding.type, {})[order] = value
    for type_, values in by_type.items():
        yield Interpretation(address, words, type_, values)


def texts(words: Sequence[int]) -> dict[Order, str]:
    """All the words as text, by the order of the bytes; only where it is one."""
    found: dict[Order, str] = {}
    for order in ("big", "little"):
        text = decode_text(words, Encoding("string", byte_order=order, words=len(words)))
        if text and text.isprintable():
            found[order] = text
    return found
