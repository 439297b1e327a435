"""Raw words are shown in every type and order in which they can be a number."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from gateway.metering.interpreting import encodings, interpretations, texts
from gateway.metering.register import NOT_AVAILABLE, TYPES, Encoding, encode

NUMBERS = [type_ for type_, words in TYPES.items() if words or type_ == "mod10k"]


def test_every_type_of_numbers_is_there_in_every_order() -> None:
    found = [encoding for width in (1, 2, 3, 4) for encoding in encodings(width)]
    assert {encoding.type for encoding in found} == set(NUMBERS)
    assert len(found) == len(set(found))
    for type_ in NUMBERS:
        orders = {(e.word_order, e.byte_order) for e in found if e.type == type_}
        assert len(orders) == (2 if TYPES[type_] == 1 else 4), type_
    assert {e.words for e in found if e.type == "mod10k"} == {2, 3, 4}


@given(st.integers(0, 9999), st.sampled_from([e for w in (1, 2, 3, 4) for e in encodings(w)]))
def test_a_number_is_found_again_however_it_was_written(number: int, encoding: Encoding) -> None:
    words = encode(Decimal(number), encoding)
    order = (encoding.word_order, encoding.byte_order)
    (value,) = (
        one.values[order] for one in interpretations(7, words)
        if (one.address, one.words, one.type) == (7, words, encoding.type)
    )  # fmt: skip
    assert value == number


def test_the_words_are_taken_one_by_one_two_by_two_and_so_on() -> None:
    found = interpretations(342, (0x4640, 0xE4CD, 0, 0, 7))
    places = {(len(one.words), one.address) for one in found}
    assert places == {
        (1, 342), (1, 343), (1, 344), (1, 345), (1, 346), (2, 342), (2, 344), (3, 342), (4, 342)
    }  # fmt: skip
    values = {(one.type, one.address): one.values for one in found}
    assert values["f32", 342]["big", "big"] == Decimal("12345.2")
    assert values["u32", 342]["little", "big"] == 0xE4CD4640


def test_what_cannot_be_a_number_of_a_type_is_left_out_and_nan_is_no_value() -> None:
    found = {one.type: one.values for one in interpretations(0, (0x7FC0, 0x1234))}
    assert found["f32"]["big", "big"] is NOT_AVAILABLE
    assert "bcd32" not in found
    assert "mod10k" not in found
    assert ("big", "big") in found["u32"]


def test_words_are_shown_as_text_only_where_they_are_one() -> None:
    assert texts((0x4142, 0x0043)) == {"big": "AB", "little": "BAC"}
    assert texts((0x4142, 0x4344)) == {"big": "ABCD", "little": "BADC"}
    assert texts((0x0102, 0x0304)) == {}
    assert texts((0, 0)) == {}
