"""What the rooms hand each other."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.metering.reading import (
    AS,
    Block,
    Commit,
    Counts,
    Gap,
    RawWords,
    Reading,
    SeriesKey,
)
from gateway.metering.register import Encoding, Register

words = st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=125).map(tuple)
blocks = st.builds(Block, st.integers(1, 4), st.integers(0, 65_400), words)
raws = st.lists(blocks, max_size=6).map(lambda found: RawWords(tuple(found)))


@given(raws)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_packed_words_come_back(raw: RawWords):
    assert RawWords.unpack(raw.pack()) == raw


@given(raws.filter(lambda raw: raw.blocks != ()), st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_packed_words_that_are_cut_off_are_refused(raw: RawWords, data: st.DataObject):
    packed = raw.pack()
    whole = {len(RawWords(raw.blocks[:n]).pack()) for n in range(len(raw.blocks) + 1)}
    cut = data.draw(st.integers(0, len(packed)).filter(lambda n: n not in whole))
    with pytest.raises(ValueError, match="cut off"):
        RawWords.unpack(packed[:cut])


def register(address: int, kind: str = "u32", function: int = 3) -> Register:
    return Register(f"r{address}", function, address, Encoding(kind))


def test_words_are_found_in_the_block_that_holds_all_of_a_register():
    raw = RawWords((Block(3, 10, (1, 2, 3)), Block(3, 13, (4, 5)), Block(4, 10, (9, 9))))
    assert raw.lookup(register(10)) == (1, 2)
    assert raw.lookup(register(11)) == (2, 3)
    assert raw.lookup(register(13)) == (4, 5)
    assert raw.lookup(register(10, function=4)) == (9, 9)
    # Half in one block and half in the next: read at two moments, so not a value.
    assert raw.lookup(register(12)) is None
    assert raw.lookup(register(9)) is None
    assert raw.lookup(register(10, function=1)) is None


def test_only_the_words_asked_for_are_kept_each_at_its_own_address():
    raw = RawWords((Block(4, 20, (7,)), Block(3, 10, (1, 2, 3, 4))))
    kept = raw.only([register(20, "u16", 4), register(12), register(12), register(50)])
    assert kept.blocks == (Block(3, 12, (3, 4)), Block(4, 20, (7,)))
    assert raw.only([register(12)]).blocks == (Block(3, 12, (3, 4)),)
    assert raw.only([register(50)]) == RawWords()
    assert raw.only([]) == RawWords()


@given(raws, st.integers(0, 65_000), st.sampled_from(["u16", "u32", "u64"]))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_what_is_kept_is_found_as_before(raw: RawWords, address: int, kind: str):
    for block in raw.blocks:
        one = register(block.address + address % len(block.words), kind, block.function)
        assert raw.only([one]).lookup(one) == raw.lookup(one)
        assert raw.only([one, register(address, kind)]).lookup(one) == raw.lookup(one)


def test_a_commit_is_something_or_nothing():
    key = SeriesKey("", "1")
    assert not Commit()
    assert Commit((Reading(key, 0, Decimal(1)),))
    assert Commit(gaps=(Gap(key, 0, "timeout"),))
    assert Commit(states={"main": b""})
    assert Commit(restamped={1: 2})


def test_counts_balance_where_each_value_is_somewhere():
    counts = Counts(stored=10, pending=3, in_flight=2, confirmed=1, parked=1, dropped={"age": 3})
    assert counts.balanced
    assert not Counts(stored=10, pending=9).balanced


def test_every_way_to_send_is_named_once():
    assert len(set(AS)) == len(AS) == 6
