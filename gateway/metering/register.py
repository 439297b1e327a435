"""Register words to exact numbers and back, by type, word order and byte order.

A register holds 16 bits. Numbers wider than that span several registers, most significant word
first (`big`) or last (`little`); some meters also swap the two bytes of each word. Single and
double precision floats become the shortest decimal that packs to the same bytes, so that 230.1
stays 230.1. Not available is a third outcome, neither a number nor an error.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from enum import Enum
from functools import cache, partial
from typing import Final, Literal, TypeAlias

from attrs import field, frozen

Words: TypeAlias = tuple[int, ...]
"""Raw register contents, 0 to 65535 each, in the order they were read."""

Order: TypeAlias = Literal["big", "little"]


class NotAvailable(Enum):
    """A register that says it has no value: NaN, infinity or the meter's own sentinel."""

    NOT_AVAILABLE = "not available"


NOT_AVAILABLE: Final = NotAvailable.NOT_AVAILABLE

Value: TypeAlias = Decimal | NotAvailable

Confidence: TypeAlias = Literal["two sources", "one source", "conflict"]
"""How sure a register is: a conflict between its sources was decided, and its profile says how."""

TYPES: Final[dict[str, int]] = {
    "u16": 1,
    "s16": 1,
    "u32": 2,
    "s32": 2,
    "u48": 3,
    "s48": 3,
    "u64": 4,
    "s64": 4,
    "f32": 2,
    "f64": 4,
    "bcd16": 1,
    "bcd32": 2,
    "bcd48": 3,
    "bcd64": 4,
    "iskra_t5": 2,
    "iskra_t6": 2,
    "mod10k": 0,
    "string": 0,
}
"""Type name to width in registers; 0 where the profile says how many (`words`)."""


@frozen
class Encoding:
    """How a number or a text lies in registers."""

    type: str
    word_order: Order = "big"
    byte_order: Order = "big"
    words: int = 0
    """Registers it takes; given for string and mod10k, else that of the type."""

    def __attrs_post_init__(self) -> None:
        if not self.words:
            object.__setattr__(self, "words", TYPES[self.type])


@frozen(cache_hash=True)  # every round looks up its reads by its registers
class Register:
    """One value in a meter's register map."""

    name: str
    """A quantity, an identity fact, or the name of a part that only `computed` uses."""
    function: int
    """Modbus function that reads it: 1 coils, 2 discrete inputs, 3 holding, 4 input registers."""
    address: int
    """0-based, as on the wire."""
    encoding: Encoding
    scale: Decimal = Decimal(1)
    """Brings the raw number to `unit`; exact."""
    unit: str = ""
    not_available: frozenset[int] = field(default=frozenset())
    """Raw values, as unsigned integers over all words of the register, that mean: no value."""
    scale_register: Register | None = None
    """Another register that holds a power of ten to multiply with (SunSpec's scale factors)."""
    unit_register: Register | None = None
    """Another register that holds a code of the unit; `unit_factors` says what each means."""
    unit_factors: tuple[tuple[int, Decimal], ...] = ()
    """Code in `unit_register` to the factor that brings the value to `unit`."""
    modulus: Decimal | None = None
    """Where a counter wraps, in `unit`; None: at the width of its type."""
    sources: tuple[str, ...] = ()
    conflict: str = ""
    """Where another source says otherwise: what it says, and how that was decided."""
    note: str = ""

    @property
    def confidence(self) -> Confidence:
        """By its sources, which are independent of one another."""
        if self.conflict:
            return "conflict"
        return "two sources" if len(self.sources) > 1 else "one source"

    @property
    def count(self) -> int:
        """How many registers it spans."""
        return self.encoding.words

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.address + self.encoding.words

    @property
    def parts(self) -> tuple[Register, ...]:
        """The register and those its value also needs, itself first."""
        others = (self.scale_register, self.unit_register)
        return (self, *(part for part in others if part is not None))


# ------------------------------------------------------------------------------------- decoding


def decode(words: Sequence[int], encoding: Encoding) -> Value:
    """The raw number in `words`, without scale.

    Raises ValueError where the words cannot be of this type: a wrong count, a digit over 9 in
    BCD, a group over 9999 in mod10k, or text.
    """
    return _DECODERS[encoding.type](_to_bytes(words, encoding))


def unsigned(words: Sequence[int], encoding: Encoding) -> int:
    """All bits of the register as one unsigned integer, for comparing with sentinels."""
    return int.from_bytes(_to_bytes(words, encoding), "big")


def decode_text(words: Sequence[int], encoding: Encoding) -> str:
    """The text in `words`: Latin letters, cut at the first NUL, without padding.

    Two characters a register, or one where every high byte is zero (Carlo Gavazzi, Socomec).
    """
    data = _to_bytes(words, encoding)
    if len(data) > 2 and not any(data[0::2]):
        data = data[1::2]
    return data.split(b"\0", 1)[0].decode("latin-1").strip()


def value_of(register: Register, lookup: Callable[[Register], Words | None]) -> Value | None:
    """The value of a register in its unit, from the words that `lookup` finds.

    None where one of the words it needs was not read. Raises ValueError as `decode` does.
    """
    words = lookup(register)
    if words is None:
        return None
    if register.not_available and unsigned(words, register.encoding) in register.not_available:
        return NOT_AVAILABLE
    number = decode(words, register.encoding)
    if number is NOT_AVAILABLE:
        return NOT_AVAILABLE
    factor = factor_of(register, lookup)
    if not isinstance(factor, Decimal):
        return factor
    assert isinstance(number, Decimal)
    return plain(EXACT.multiply(number, factor))


def factor_of(register: Register, lookup: Callable[[Register], Words | None]) -> Value | None:
    """What the raw number is multiplied with: the scale, and what other registers say of it.

    None where one of those was not read. Raises ValueError for a unit code nobody told us of.
    """
    factor = register.scale
    if register.scale_register is not None:
        power = value_of(register.scale_register, lookup)
        if not isinstance(power, Decimal):
            return power
        if not -30 <= power <= 30:
            return NOT_AVAILABLE
        factor = EXACT.scaleb(factor, _whole(register, power))
    if register.unit_register is not None:
        code = value_of(register.unit_register, lookup)
        if not isinstance(code, Decimal):
            return code
        unit = dict(register.unit_factors).get(_whole(register, code))
        if unit is None:
            raise ValueError(f"{register.name}: unit code {code} is not one the profile knows")
        factor = EXACT.multiply(factor, unit)
    return factor


def _whole(register: Register, number: Decimal) -> int:
    """A power or a code, which has no decimals. Raises ValueError."""
    if number != number.to_integral_value():
        raise ValueError(f"{register.name}: {number} is no whole number")
    return int(number)


EXACT: Final = Context(prec=400)
"""Loses no digit of any register, not even of a double at the ends of its range, times a scale."""

_ONE: Final = Decimal(1)


def plain(number: Decimal) -> Decimal:
    """The same number without an exponent above zero, trailing zeros or a sign on zero."""
    if not number:
        return Decimal(0)
    if number == number.to_integral_value():
        return EXACT.quantize(number, _ONE)
    return EXACT.normalize(number)


_SINGLE: Final = struct.Struct(">f")
_DOUBLE: Final = struct.Struct(">d")
_SMALLEST_NORMAL: Final = 2.0**-126
_DIGITS: Final = tuple(f".{digits}g" for digits in range(10))


def _decode_f32(data: bytes) -> Value:
    number: float = _SINGLE.unpack(data)[0]
    return shortest_f32(number) if math.isfinite(number) else NOT_AVAILABLE


def _decode_f64(data: bytes) -> Value:
    number: float = _DOUBLE.unpack(data)[0]
    return Decimal(repr(number)) if math.isfinite(number) else NOT_AVAILABLE


def shortest_f32(number: float) -> Decimal:
    """The decimal with the fewest digits that packs to the same four bytes.

    9 significant digits always do (IEEE 754 single precision). Where 6 or fewer do, those are the
    first ones of the number itself, since no two decimals of 6 digits share a normal single.
    """
    packed = _SINGLE.pack(number)
    digits = 6 if abs(number) >= _SMALLEST_NORMAL else 1
    while _SINGLE.pack(float(text := format(number, _DIGITS[digits]))) != packed:
        digits += 1
    return Decimal(text)


def _decode_mod10k(data: bytes) -> Decimal:
    total = 0
    for group in struct.unpack(f">{len(data) // 2}H", data):
        if group > 9999:
            raise ValueError(f"group {group} is not of four decimal digits")
        total = total * 10_000 + group
    return Decimal(total)


def _decode_bcd(data: bytes) -> Decimal:
    digits = data.hex()
    if not digits.isdecimal():
        raise ValueError(f"{digits} is not binary coded decimal")
    return Decimal(int(digits))


def _decode_iskra(data: bytes, *, signed: bool) -> Decimal:
    # Iskra T5 and T6: one byte of decimal exponent (signed), then 24 bits of mantissa.
    exponent = int.from_bytes(data[:1], "big", signed=True)
    return Decimal(int.from_bytes(data[1:], "big", signed=signed)).scaleb(exponent)


def _decode_text(data: bytes) -> Value:
    raise ValueError("a string is not a number")


def _decode_integer(data: bytes, *, signed: bool) -> Decimal:
    return Decimal(int.from_bytes(data, "big", signed=signed))


_DECODERS: Final[dict[str, Callable[[bytes], Value]]] = {
    **{name: partial(_decode_integer, signed=name[0] == "s") for name in TYPES},
    **{name: _decode_bcd for name in TYPES if name.startswith("bcd")},
    "f32": _decode_f32,
    "f64": _decode_f64,
    "iskra_t5": partial(_decode_iskra, signed=False),
    "iskra_t6": partial(_decode_iskra, signed=True),
    "mod10k": _decode_mod10k,
    "string": _decode_text,
}


def _to_bytes(words: Sequence[int], encoding: Encoding) -> bytes:
    """The bytes of the value, most significant first."""
    if len(words) != encoding.words:
        raise ValueError(f"{encoding.type} takes {encoding.words} registers, got {len(words)}")
    # Words of a text always stand in reading order.
    if encoding.word_order == "little" and encoding.type != "string":
        words = words[::-1]
    return _layout(encoding.byte_order, len(words)).pack(*words)


@cache
def _layout(byte_order: Order, words: int) -> struct.Struct:
    return struct.Struct(f"{'>' if byte_order == 'big' else '<'}{words}H")


# ------------------------------------------------------------------------------------- encoding


def encode(number: Decimal, encoding: Encoding) -> Words:
    """Words that decode to `number` (without scale); integers are rounded half to even.

    Raises ValueError where the number does not fit the type.
    """
    kind, width = encoding.type, encoding.words * 2
    if kind in ("f32", "f64"):
        try:
            data = (_SINGLE if kind == "f32" else _DOUBLE).pack(nearest := float(number))
        except OverflowError:
            nearest = math.inf
        if math.isinf(nearest):  # it would be read as not available
            raise ValueError(f"{number} does not fit {kind}")
    elif kind == "mod10k":
        rest, groups = int(number.to_integral_value()), []
        for _ in range(encoding.words):
            rest, group = divmod(rest, 10_000)
            groups.append(group)
        if rest:
            raise ValueError(f"{number} does not fit {encoding.words} groups of four digits")
        data = struct.pack(f">{len(groups)}H", *reversed(groups))
    elif kind.startswith("bcd"):
        digits = f"{int(number.to_integral_value()):0{width * 2}d}"
        if len(digits) > width * 2:
            raise ValueError(f"{number} does not fit {width * 2} digits")
        data = bytes.fromhex(digits)
    elif kind.startswith("iskra"):
        data = _encode_iskra(number, signed=kind == "iskra_t6")
    elif kind == "string":
        raise ValueError("a string is not a number")
    else:
        try:
            data = int(number.to_integral_value()).to_bytes(width, "big", signed=kind[0] == "s")
        except OverflowError:
            raise ValueError(f"{number} does not fit {kind}") from None
    return _from_bytes(data, encoding)


def encode_text(text: str, encoding: Encoding) -> Words:
    """Words that hold `text`, two characters a register, padded with NUL."""
    data = text.encode("latin-1")[: encoding.words * 2].ljust(encoding.words * 2, b"\0")
    return _from_bytes(data, encoding)


def _encode_iskra(number: Decimal, *, signed: bool) -> bytes:
    mantissa, exponent = number.normalize(), 0
    while mantissa != mantissa.to_integral_value() and exponent > -128:
        mantissa, exponent = mantissa.scaleb(1), exponent - 1
    limit = 1 << (23 if signed else 24)
    while abs(mantissa) >= limit and exponent < 127:
        mantissa, exponent = (mantissa / 10).to_integral_value(), exponent + 1
    try:
        data = int(mantissa).to_bytes(3, "big", signed=signed)
    except OverflowError:
        raise ValueError(f"{number} does not fit") from None
    return exponent.to_bytes(1, "big", signed=True) + data


def _from_bytes(data: bytes, encoding: Encoding) -> Words:
    words: Words = _layout(encoding.byte_order, len(data) // 2).unpack(data)
    if encoding.word_order == "little" and encoding.type != "string":
        words = words[::-1]
    return words
