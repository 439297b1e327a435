"""Register words and numbers: exact, in every type and order."""

from __future__ import annotations

import math
import struct
from decimal import Decimal
from fractions import Fraction

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.metering.register import (
    NOT_AVAILABLE,
    TYPES,
    Encoding,
    Register,
    Words,
    decode,
    decode_text,
    encode,
    encode_text,
    factor_of,
    plain,
    shortest_f32,
    unsigned,
    value_of,
)

LAW = settings(max_examples=400, deadline=None, derandomize=True)

INTEGERS = [kind for kind in TYPES if kind[0] in "us" and kind[1:].isdecimal()]
orders = st.sampled_from(["big", "little"])
words = st.integers(0, 0xFFFF)


def encodings(*kinds: str) -> st.SearchStrategy[Encoding]:
    return st.builds(
        Encoding,
        st.sampled_from(kinds),
        orders,
        orders,
    )


def bits(encoding: Encoding) -> int:
    return 16 * encoding.words


def single(raw: int) -> float:
    number: float = struct.unpack(">f", raw.to_bytes(4, "big"))[0]
    return number


# ------------------------------------------------------------------------------ decode ∘ encode


@given(encodings(*INTEGERS), st.data())
@LAW
def test_an_integer_comes_back_from_its_words(encoding: Encoding, data: st.DataObject):
    size = bits(encoding)
    signed = encoding.type[0] == "s"
    low, high = (-(1 << size - 1), (1 << size - 1) - 1) if signed else (0, (1 << size) - 1)
    number = data.draw(st.integers(low, high))
    assert decode(encode(Decimal(number), encoding), encoding) == number
    for outside in (low - 1, high + 1):
        with pytest.raises(ValueError, match="does not fit"):
            encode(Decimal(outside), encoding)


@given(encodings(*INTEGERS), st.data())
@LAW
def test_words_come_back_from_their_integer(encoding: Encoding, data: st.DataObject):
    shown = tuple(data.draw(st.lists(words, min_size=encoding.words, max_size=encoding.words)))
    number = decode(shown, encoding)
    assert isinstance(number, Decimal)
    assert encode(number, encoding) == shown


@given(encodings("bcd16", "bcd32", "bcd48", "bcd64"), st.data())
@LAW
def test_binary_coded_decimals_come_back(encoding: Encoding, data: st.DataObject):
    number = data.draw(st.integers(0, 10 ** (4 * encoding.words) - 1))
    shown = encode(Decimal(number), encoding)
    assert decode(shown, encoding) == number
    for wrong in (-1, 10 ** (4 * encoding.words)):
        with pytest.raises(ValueError, match=r".+"):
            encode(Decimal(wrong), encoding)


@given(st.integers(1, 4), orders, orders, st.data())
@LAW
def test_groups_of_four_digits_come_back(count: int, word: str, byte: str, data: st.DataObject):
    encoding = Encoding("mod10k", word, byte, count)  # type: ignore[arg-type]
    number = data.draw(st.integers(0, 10_000**count - 1))
    assert decode(encode(Decimal(number), encoding), encoding) == number
    for wrong in (-1, 10_000**count):
        with pytest.raises(ValueError, match="does not fit"):
            encode(Decimal(wrong), encoding)


@given(encodings("iskra_t5", "iskra_t6"), st.integers(0, 2**23 - 1), st.integers(-128, 127))
@LAW
def test_a_decimal_exponent_and_mantissa_come_back(encoding: Encoding, mantissa: int, power: int):
    number = Decimal(mantissa).scaleb(power)
    assert decode(encode(number, encoding), encoding) == number
    if encoding.type == "iskra_t6":
        assert decode(encode(-number, encoding), encoding) == -number


@given(encodings("f32"), st.integers(0, 0xFFFF_FFFF))
@LAW
def test_a_single_becomes_a_decimal_of_the_same_four_bytes(encoding: Encoding, raw: int):
    big = ((raw >> 16), raw & 0xFFFF)
    turned = encode(Decimal(raw), evolve(encoding, type="u32"))
    number = decode(turned, encoding)
    if not math.isfinite(single(raw)):
        assert number is NOT_AVAILABLE
        return
    assert isinstance(number, Decimal)
    if raw != 0x8000_0000:  # zero has a sign in the words, and none as a number
        assert encode(number, encoding) == turned
        assert encode(number, Encoding("f32")) == big


@given(encodings("f64"), st.floats(allow_nan=True))
@LAW
def test_a_double_comes_back(encoding: Encoding, number: float):
    raw = int.from_bytes(struct.pack(">d", number), "big")
    turned = encode(Decimal(raw), evolve(encoding, type="u64"))
    shown = decode(turned, encoding)
    if not math.isfinite(number):
        assert shown is NOT_AVAILABLE
    else:
        assert isinstance(shown, Decimal)
        assert float(shown) == number
        assert encode(shown, encoding) == turned or number == 0


@given(
    st.text(st.characters(codec="latin-1", exclude_characters="\0"), max_size=16), orders, orders
)
@LAW
def test_a_text_comes_back(text: str, word: str, byte: str):
    encoding = Encoding("string", word, byte, 8)  # type: ignore[arg-type]
    shown = decode_text(encode_text(text, encoding), encoding)
    one_a_register = len(text) > 1 and not any(text[0::2].encode("latin-1"))
    assert shown == text.strip() or one_a_register


# --------------------------------------------------------------------------------- what it means


@pytest.mark.parametrize(
    ("encoding", "shown", "number"),
    [
        (Encoding("u32"), (1, 2), 65538),
        (Encoding("u32", "little"), (2, 1), 65538),
        (Encoding("u32", "big", "little"), (0x0100, 0x0200), 65538),
        (Encoding("u32", "little", "little"), (0x0200, 0x0100), 65538),
        (Encoding("s32"), (0xFFFF, 0xFFFE), -2),
        (Encoding("u48"), (1, 0, 0), 1 << 32),
        (Encoding("s48", "little"), (0xFFFF, 0xFFFF, 0xFFFF), -1),
        (Encoding("f32"), (0x4366, 0x199A), "230.1"),
        (Encoding("f32", "little"), (0x199A, 0x4366), "230.1"),
        (Encoding("bcd32"), (0x1234, 0x5678), 12345678),
        (Encoding("mod10k", words=3), (1, 2, 3), 100020003),
        (Encoding("mod10k", "little", words=3), (3, 2, 1), 100020003),
        (Encoding("iskra_t5"), (0xFD03, 0xE8FF), "256.255"),
        (Encoding("iskra_t6"), (0x00FF, 0xFFFF), -1),
    ],
)
def test_words_in_their_order(encoding: Encoding, shown: Words, number: str | int):
    assert decode(shown, encoding) == Decimal(number)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        (Encoding("bcd16"), (0x12A4,)),
        (Encoding("mod10k", words=2), (10_000, 1)),
        (Encoding("u32"), (1,)),
        (Encoding("u16"), (1, 2)),
        (Encoding("string", words=2), (0x4142, 0x4344)),
    ],
)
def test_words_that_are_no_number_are_refused(encoding: Encoding, shown: Words):
    with pytest.raises(ValueError, match=r".+"):
        decode(shown, encoding)


@pytest.mark.parametrize(
    ("kind", "text"), [("f32", "1e39"), ("f32", "-1e39"), ("f32", "1e400"), ("f64", "-1e400")]
)
def test_a_number_beyond_a_float_is_refused(kind: str, text: str):
    with pytest.raises(ValueError, match="does not fit"):
        encode(Decimal(text), Encoding(kind))


def test_text_ends_at_the_first_nul_and_may_take_a_register_a_letter():
    assert decode_text((0x4142, 0x4300, 0x5858), Encoding("string", words=3)) == "ABC"
    assert decode_text((0x41, 0x42, 0x20), Encoding("string", words=3)) == "AB"
    assert decode_text((0x4241, 0x0043), Encoding("string", "big", "little", 2)) == "ABC"


# -------------------------------------------------------------------------------- shortest f32


@given(st.integers(0, 0xFFFF_FFFF).map(single).filter(math.isfinite))
@LAW
def test_no_shorter_decimal_packs_to_the_same_bytes(number: float):
    shown = shortest_f32(number)
    packed = struct.pack(">f", number)
    assert struct.pack(">f", float(shown)) == packed
    digits = len(shown.as_tuple().digits)
    for fewer in range(1, digits):
        text = f"{number:.{fewer}g}"
        try:
            assert struct.pack(">f", float(text)) != packed
        except OverflowError:
            continue


def test_powers_of_two_have_their_fewest_digits():
    """Below a power of two singles lie twice as close, and below the smallest normal one wider."""
    for exponent in range(1, 255):
        for raw in ((exponent << 23) - 1, exponent << 23, (exponent << 23) + 1):
            number = single(raw)
            packed = struct.pack(">f", number)
            fewest = next(
                digits
                for digits in range(1, 10)
                if struct.pack(">f", min(float(f"{number:.{digits}g}"), 3.4028234e38)) == packed
            )
            assert shortest_f32(number) == Decimal(f"{number:.{fewest}g}")


@given(st.decimals(-(10**6), 10**6, places=2))
@LAW
def test_what_a_person_would_write_in_six_digits_stays_as_written(number: Decimal):
    number = Decimal(f"{number:.6g}")
    packed = struct.unpack(">f", struct.pack(">f", float(number)))[0]
    assert shortest_f32(packed) == number


# ------------------------------------------------------------------------------------- values


def of(register: Register, shown: dict[str, Words]):
    return value_of(register, lambda part: shown.get(part.name))


def test_a_scale_is_applied_exactly():
    register = Register("energy", 3, 0, Encoding("u64"), Decimal("0.001"), "kWh")
    assert of(register, {"energy": (0xFFFF,) * 4}) == Decimal("18446744073709551.615")


@given(
    st.integers(0, 2**64 - 1),
    st.decimals(Decimal("1e-30"), Decimal("1e30"), allow_nan=False, allow_infinity=False),
)
@LAW
def test_no_digit_is_lost_whatever_the_scale(number: int, scale: Decimal):
    register = Register("energy", 3, 0, Encoding("u64"), scale)
    found = of(register, {"energy": encode(Decimal(number), register.encoding)})
    assert isinstance(found, Decimal)
    assert Fraction(found) == number * Fraction(scale)
    assert "E+" not in str(found)


@given(encodings("f32", "f64", "iskra_t5", "iskra_t6"), st.data())
@LAW
def test_no_words_of_a_float_raise_anything_but_the_refusal(
    encoding: Encoding, data: st.DataObject
):
    shown = tuple(data.draw(st.lists(words, min_size=encoding.words, max_size=encoding.words)))
    found = of(Register("x", 3, 0, encoding, Decimal("0.1")), {"x": shown})
    assert found is NOT_AVAILABLE or (isinstance(found, Decimal) and found.is_finite())


def test_a_sentinel_is_not_available_whatever_its_order():
    register = Register(
        "voltage", 4, 0, Encoding("s32", "little"), not_available=frozenset({0x8000_0000})
    )
    assert of(register, {"voltage": (0, 0x8000)}) is NOT_AVAILABLE
    assert of(register, {"voltage": (0x8000, 0)}) == 0x8000


def test_a_scale_in_another_register_is_a_power_of_ten():
    power = Register("power", 3, 1, Encoding("s16"), not_available=frozenset({0x8000}))
    register = Register("energy", 3, 0, Encoding("u16"), Decimal("0.001"), scale_register=power)
    assert of(register, {"energy": (12,), "power": (2,)}) == Decimal("1.2")
    assert of(register, {"energy": (12,), "power": (0xFFFE,)}) == Decimal("0.00012")
    assert of(register, {"energy": (12,), "power": (0x8000,)}) is NOT_AVAILABLE
    assert of(register, {"energy": (12,), "power": (31,)}) is NOT_AVAILABLE
    assert of(register, {"energy": (12,)}) is None
    found = factor_of(register, lambda part: {"power": (2,)}.get(part.name))
    assert found == Decimal("0.1")


def test_a_unit_in_another_register_is_a_factor():
    unit = Register("unit", 3, 1, Encoding("u16"))
    register = Register(
        "energy", 3, 0, Encoding("u16"), unit="kWh",
        unit_register=unit, unit_factors=((3, Decimal(1)), (4, Decimal(1000))),
    )  # fmt: skip
    assert of(register, {"energy": (12,), "unit": (4,)}) == 12000
    assert of(register, {"energy": (12,)}) is None
    with pytest.raises(ValueError, match="unit code 9"):
        of(register, {"energy": (12,), "unit": (9,)})


def test_a_power_or_a_unit_code_with_decimals_is_no_number():
    half = (0x3F00, 0x0000)  # 0.5 in single precision
    beside = Register("beside", 3, 2, Encoding("f32"))
    scaled = Register("energy", 3, 0, Encoding("u16"), scale_register=beside)
    coded = evolve(
        scaled, scale_register=None, unit_register=beside, unit_factors=((0, Decimal(1)),)
    )
    for register in (scaled, coded):
        with pytest.raises(ValueError, match="no whole number"):
            value_of(register, lambda one: half if one is beside else (7,))


def test_no_digit_of_a_scale_is_lost_beside_other_registers():
    long = Decimal("0.1234567890123456789012345678901234567")
    beside = Register("beside", 3, 1, Encoding("u16"))
    scaled = Register("energy", 3, 0, Encoding("u16"), long, scale_register=beside)
    coded = Register(
        "energy", 3, 0, Encoding("u16"), long, unit_register=beside, unit_factors=((3, Decimal(3)),)
    )
    words = {0: (1,), 1: (3,)}
    assert str(value_of(scaled, lambda one: words[one.address])) == (
        "123.4567890123456789012345678901234567"
    )
    assert str(value_of(coded, lambda one: words[one.address])) == (
        "0.3703703670370370367037037036703703701"
    )


def test_a_plain_number_has_no_exponent_no_trailing_zeros_and_no_negative_zero():
    shown = [str(plain(Decimal(text))) for text in ("1E+3", "1.500", "-0.0", "0E+5", "-2E+2")]
    assert shown == ["1000", "1.5", "0", "0", "-200"]
    assert str(plain(Decimal("3.4e38"))) == "34" + "0" * 37


def test_all_bits_as_one_number():
    assert unsigned((1, 2), Encoding("s32")) == 0x1_0002
    assert unsigned((1, 2), Encoding("f32", "little")) == 0x2_0001


def test_a_register_knows_its_span_and_its_parts():
    power = Register("power", 3, 9, Encoding("s16"))
    register = Register("energy", 3, 4, Encoding("u48"), scale_register=power)
    assert (register.count, register.end) == (3, 7)
    assert register.parts == (register, power)
    assert Encoding("mod10k", words=5).words == 5
