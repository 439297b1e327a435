"""The register map of a meter: refusals are left out, asked for again, and remembered."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import DAY, MINUTE
from gateway.metering.profile import DeviceProfile, Limits
from gateway.metering.register import Encoding, Register
from gateway.modbus.map import RegisterMap
from gateway.modbus.plan import Read, Timing
from gateway.modbus.settings import SerialLink

TIMING = Timing.of(SerialLink("/dev/null", 9600), 0.01)


def register(address: int, words: int = 2) -> Register:
    return Register(f"r{address}", 3, address, Encoding("string", words=words), Decimal(1))


FOUR = tuple(register(address) for address in (0, 2, 4, 6))


def profile(*registers: Register, limits: Limits | None = None) -> DeviceProfile:
    return DeviceProfile("t", "T", "t", "electricity", registers, limits=limits or Limits())


def test_a_refused_register_is_left_out_and_no_read_passes_over_it():
    known = RegisterMap(profile(*FOUR))
    assert known.refuse(FOUR[1], 2, now=1000)
    reads, left_out = known.reads(FOUR, TIMING, now=1001)
    assert reads == (Read(3, 0, 2), Read(3, 4, 4))
    assert left_out == {FOUR[1]: 2}


def test_it_is_asked_for_again_alone_after_pauses_that_double_up_to_a_day():
    known, now, pauses = RegisterMap(profile(*FOUR)), 0, []
    for times in range(14):
        assert known.refuse(FOUR[1], 2, now) is (times == 0)
        pause = MINUTE
        while FOUR[1] in known.reads(FOUR, TIMING, now + pause)[1]:
            pause *= 2
            if pause > DAY:
                pause = DAY
                break
        assert FOUR[1] in known.reads(FOUR, TIMING, now + pause - 1)[1]
        assert Read(3, 2, 2) in known.reads(FOUR, TIMING, now + pause)[0]
        pauses.append(pause)
        now += pause
    assert pauses[:3] == [MINUTE, 2 * MINUTE, 4 * MINUTE]
    assert pauses[-1] == DAY


def test_a_clock_that_is_set_back_does_not_put_off_asking_again():
    known = RegisterMap(profile(*FOUR))
    known.refuse(FOUR[1], 2, now=10 * DAY)
    assert known.reads(FOUR, TIMING, now=DAY)[1] == {}


def test_once_given_it_is_read_with_the_others_again():
    known = RegisterMap(profile(*FOUR))
    known.refuse(FOUR[1], 2, now=0)
    assert known.give([FOUR[1]])
    assert known.reads(FOUR, TIMING, now=1) == ((Read(3, 0, 8),), {})


def test_a_joint_that_was_refused_is_not_read_over_again():
    known = RegisterMap(profile(*FOUR))
    known.cut(FOUR)
    assert known.reads(FOUR, TIMING, now=1)[0] == (Read(3, 0, 4), Read(3, 4, 4))


def test_what_was_learnt_is_the_same_after_a_restart():
    known = RegisterMap(profile(*FOUR))
    known.refuse(FOUR[3], 3, now=5)
    known.cut(FOUR[:2])
    again = RegisterMap(profile(*FOUR))
    again.recall(known.learnt())
    assert again.reads(FOUR, TIMING, now=6) == known.reads(FOUR, TIMING, now=6)
    assert again.learnt() == known.learnt()


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"version":2,"refused":[],"cuts":[],"base":0}',
        b'{"version":1}',
        b'{"version":1,"refused":[[3]],"cuts":[],"base":0}',
        b'{"version":1,"refused":[[3,2,"x",0,0]],"cuts":[],"base":0}',
        b'{"version":1,"refused":[],"cuts":[["a","b"]],"base":0}',
    ],
)
def test_what_cannot_be_recalled_is_learnt_again(kept: bytes):
    known = RegisterMap(profile(*FOUR))
    known.recall(kept)
    assert known.reads(FOUR, TIMING, now=0) == ((Read(3, 0, 8),), {})


def test_one_register_alone_cannot_be_parted():
    known = RegisterMap(profile(*FOUR))
    assert known.halves(Read(3, 0, 2), FOUR[:1], TIMING) == []
    assert known.halves(Read(3, 0, 8), FOUR, TIMING) == [Read(3, 0, 4), Read(3, 4, 4)]


def test_a_block_that_can_only_be_read_whole_cannot_be_parted():
    whole = profile(*FOUR, limits=Limits(whole_blocks=((3, 0, 8),)))
    assert RegisterMap(whole).halves(Read(3, 0, 8), FOUR, TIMING) == []


@given(
    st.sets(st.tuples(st.just(3), st.sampled_from([2, 4, 6, 8])), max_size=4),
    st.lists(st.integers(1, 3), min_size=0, max_size=4),
)
def test_a_probe_is_never_of_a_shape_in_doubt(
    doubted: set[tuple[int, int]], widths: list[int]
) -> None:
    at, registers = 0, []
    for words in widths:
        registers.append(register(at, words))
        at += words
    probe = RegisterMap(profile(*registers)).probe(doubted, TIMING)
    assert probe.shape not in doubted
    assert 1 <= probe.count <= 125
