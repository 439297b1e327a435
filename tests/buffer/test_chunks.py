"""Readings come out of a chunk exactly as they went in, or not at all."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.buffer.chunks import Record, pack, repack, unpack

decimals = st.decimals(allow_nan=False, allow_infinity=False) | st.integers(-(10**17), 10**17).map(
    lambda n: Decimal(n).scaleb(-3)
)
fields = st.tuples(
    st.integers(1, 0xFFFF),
    st.integers(1, 0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF),
    decimals,
    st.binary(max_size=60),
    st.sampled_from(["", "clock", "implausible", "übrig"]),
)


def content(record: Record) -> tuple[object, ...]:
    return (
        record.series, record.n, record.stamp, str(record.value), record.words, record.held,
    )  # fmt: skip


@given(st.lists(fields, max_size=20))
def test_what_was_packed_is_unpacked_digit_for_digit(given_fields: list) -> None:
    data = b"".join(pack(*one) for one in given_fields)
    records, whole = unpack(1000, data)
    assert whole
    assert [record.id for record in records] == list(range(1000, 1000 + len(given_fields)))
    for record, (*start, value, words, held) in zip(records, given_fields, strict=True):
        assert content(record)[:3] == tuple(start)
        assert record.value == value
        assert record.value.as_tuple().exponent == value.as_tuple().exponent
        assert (record.words, record.held) == (words, held)
    assert b"".join(map(repack, records)) == data


@given(st.lists(fields, min_size=1, max_size=5), st.data())
def test_a_flipped_bit_never_gives_an_altered_reading(
    given_fields: list, data: st.DataObject
) -> None:
    packed = bytearray(b"".join(pack(*one) for one in given_fields))
    true = {content(record) for record in unpack(1, bytes(packed))[0]}
    bit = data.draw(st.integers(0, 8 * len(packed) - 1))
    packed[bit // 8] ^= 1 << bit % 8
    records, whole = unpack(1, bytes(packed))
    assert not whole
    assert {content(record) for record in records} <= true
    assert len(records) == len(given_fields) - 1


@given(st.lists(fields, min_size=1, max_size=5), st.data())
def test_a_chunk_that_is_cut_off_gives_what_came_before_the_cut(
    given_fields: list, data: st.DataObject
) -> None:
    packed = b"".join(pack(*one) for one in given_fields)
    records, _ = unpack(1, packed[: data.draw(st.integers(0, len(packed) - 1))])
    whole, _ = unpack(1, packed)
    assert records == whole[: len(records)]
    assert len(records) < len(given_fields)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "sNaN"])
def test_what_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="no number"):
        pack(1, 1, 0, Decimal(value), b"", "")


def test_a_stamp_before_1970_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        pack(1, 1, -1, Decimal(1), b"", "")
