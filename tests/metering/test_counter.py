"""Is what a counter shows believable?"""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import DAY, HOUR, MINUTE, SECOND, Instant
from gateway.metering.counter import (
    READS,
    Bound,
    Known,
    Suspect,
    judge,
    modulus_of,
    resolution_of,
)
from gateway.metering.register import Encoding, Register

START = 1_773_144_000_000
TENTHS = Bound(Decimal(100), Decimal("429496729.6"), Decimal("0.1"))
"""100 kW, u32 in tenths of a kWh."""
UNBOUNDED = Bound(None, Decimal("429496729.6"), Decimal("0.1"))


class Gate:
    """Judges one read after another, an interval apart, as a meter does at its boundaries."""

    def __init__(self, bound: Bound, first: str | None = "1000", apart: int = MINUTE) -> None:
        self.bound = bound
        self.at: Instant = START
        self.apart = apart
        self.known = None if first is None else Known(Decimal(first), START)
        self.suspect: Suspect | None = None

    def read(self, shown: str | Decimal) -> str:
        value = Decimal(shown)
        self.at += self.apart
        verdict = judge(self.known, self.suspect, value, self.at, self.bound)
        self.suspect = verdict.suspect
        if verdict.believed:
            self.known = Known(value, self.at)
        return verdict.judgement

    def reads(self, *shown: str) -> list[str]:
        return [self.read(value) for value in shown]


@pytest.mark.parametrize("bound", [TENTHS, UNBOUNDED])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        pytest.param("0", "zero", id="a zero"),
        pytest.param("999.9", "drop", id="a step back"),
        pytest.param("3.2", "drop", id="the counter of another meter, lower"),
    ],
)
def test_a_single_bad_read_is_held_and_forgotten(bound: Bound, bad: str, reason: str):
    gate = Gate(bound)
    assert gate.reads("1000.1", bad) == ["plausible", "held"]
    assert gate.suspect is not None
    assert gate.suspect.reason == reason
    assert gate.reads("1000.2", "1000.3") == ["plausible", "plausible"]
    assert gate.suspect is None


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param("9000000", id="garbage"),
        pytest.param("7553.6", id="a high word of one more"),
        pytest.param("1010", id="the counter of another meter, higher"),
    ],
)
def test_a_single_jump_beyond_the_power_is_held_and_forgotten(bad: str):
    gate = Gate(TENTHS)
    assert gate.reads(bad, "1000.1") == ["held", "plausible"]


@given(st.lists(st.integers(0, 2**32 - 1).map(lambda n: Decimal(n) / 10), min_size=1, max_size=9))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_single_bad_reads_between_good_ones_are_never_believed(bad: list[Decimal]):
    gate = Gate(TENTHS)
    true = Decimal(1000)
    for shown in bad:
        true += 1
        assert gate.read(true) == "plausible"
        assert gate.known is not None
        reach = gate.known.value + Decimal(100) / 60 + Decimal("0.1")
        if not gate.known.value <= shown <= reach:
            assert gate.read(shown) == "held"


@pytest.mark.parametrize("bound", [TENTHS, UNBOUNDED])
@pytest.mark.parametrize("first", ["0", "0.5", "870"])
def test_a_meter_that_was_replaced_is_believed_at_its_third_read(bound: Bound, first: str):
    gate = Gate(bound)
    reads = [str(Decimal(first) + Decimal(n) / 10) for n in range(4)]
    assert gate.reads(*reads) == ["held", "held", "replaced", "plausible"]
    assert READS == 3


def test_a_meter_replaced_by_one_that_shows_more_is_believed_at_its_third_read():
    gate = Gate(TENTHS)
    assert gate.reads("5000", "5000.1", "5000.2") == ["held", "held", "replaced"]


def test_reads_that_disagree_are_never_believed():
    gate = Gate(TENTHS)
    assert set(gate.reads("1", "700", "3", "0", "999999", "2", "0", "44")) == {"held"}


def test_reads_close_together_count_as_one():
    gate = Gate(UNBOUNDED, apart=SECOND)
    assert gate.reads(*["5"] * 8) == ["held"] * 8
    assert gate.read("5") == "replaced"


def test_zeros_have_to_last_longer_since_a_meter_that_starts_up_shows_them_a_while():
    gate = Gate(UNBOUNDED, apart=5 * SECOND)
    assert gate.reads(*["0"] * 8) == ["held"] * 8
    assert gate.read("1000.1") == "plausible"
    assert gate.reads(*["0"] * 9)[-1] == "replaced"


@pytest.mark.parametrize("bits", [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000])
@pytest.mark.parametrize("known", [None, "1000", "214000000"])
def test_a_value_that_looks_like_nothing_is_never_believed(bits: int, known: str | None):
    """All bits set, or but one: what a meter shows that has no value, whatever its profile says."""
    shown = str(Decimal(bits) / 10)
    gate = Gate(UNBOUNDED, known)
    assert gate.reads(*[shown] * 5) == ["held"] * 5
    if known is not None:
        assert gate.reads("214000000.1", "214000000.2") == ["plausible", "plausible"]


def test_without_a_power_a_step_of_more_than_half_the_way_round_is_held():
    assert Gate(UNBOUNDED, "1000").read("214740000") == "plausible"
    assert Gate(UNBOUNDED, "1000").read("300000000") == "held"


@pytest.mark.parametrize(
    "bound",
    [
        pytest.param(Bound(resolution=Decimal("0.001")), id="a float or a sum"),
        pytest.param(Bound(None, Decimal(1 << 64) / 1000, Decimal("0.001")), id="u64"),
    ],
)
def test_where_the_end_of_its_range_tells_nothing_a_jump_that_no_counter_makes_is_held(bound):
    assert Gate(bound, "1001").reads("3e15", "1003") == ["held", "plausible"]
    assert Gate(bound, None).reads("3e15", "1003") == ["held", "plausible"]
    assert Gate(bound, None).reads("3e9") == ["plausible"]


@pytest.mark.parametrize(
    ("moved", "apart"),
    [
        pytest.param("3000000", MINUTE, id="an hour of a large site, handed on at once"),
        pytest.param("800000000", 365 * DAY, id="a year of 90 MW"),
    ],
)
def test_nothing_that_a_real_meter_does_is_held_though_its_range_has_no_end(moved: str, apart: int):
    assert Gate(Bound(), "1000", apart).read(Decimal(1000) + Decimal(moved)) == "plausible"


def test_a_counter_that_runs_faster_than_its_power_is_told_from_another_meter():
    gate = Gate(TENTHS, apart=HOUR)
    gate.reads("1200", "1400")
    assert gate.suspect is not None
    assert not gate.suspect.moved_on
    gate.read("1600")
    assert gate.suspect.moved_on
    assert gate.read("5") == "held"
    assert (gate.suspect.nth, gate.suspect.moved_on) == (1, False)


def test_a_counter_that_comes_by_the_end_of_its_range_is_believed():
    for gate in (Gate(UNBOUNDED, "429496729.3"), Gate(TENTHS, "429496729.3")):
        assert gate.reads("429496729.4", "429496729.5") == ["plausible", "plausible"]


def test_a_first_zero_is_held_and_a_first_value_is_not():
    assert Gate(UNBOUNDED, None).read("0.1") == "plausible"
    gate = Gate(UNBOUNDED, None)
    assert gate.reads("0", "0", "0", "0.1") == ["held", "held", "replaced", "plausible"]
    gate = Gate(UNBOUNDED, None)
    assert gate.reads("0", "870") == ["held", "plausible"]


def test_a_counter_that_stands_still_at_zero_is_believed():
    assert Gate(TENTHS, "0").reads("0", "0", "0.1") == ["plausible"] * 3


def test_the_power_bounds_a_step_by_the_time_between():
    gate = Gate(TENTHS, apart=HOUR)
    assert gate.read("1100.1") == "plausible"
    assert gate.read("1200.3") == "held"


def test_after_the_clock_was_set_back_a_step_forward_is_not_held():
    gate = Gate(TENTHS, apart=-HOUR)
    assert gate.read("1001") == "plausible"


def test_a_rollover_within_the_power_is_believed_at_once():
    gate = Gate(TENTHS, "429496729.0")
    assert gate.read("0.4") == "rollover"
    gate = Gate(TENTHS, "429496720.0")
    assert gate.read("0.4") == "held"


def test_a_rollover_to_exactly_zero_waits_for_the_reads_that_follow():
    assert Gate(TENTHS, "429496729.5").reads("0", "0.1") == ["held", "rollover"]
    assert Gate(TENTHS, "429496729.5").reads("0", "0", "0") == ["held", "held", "rollover"]


def test_without_a_power_a_rollover_is_told_by_where_the_counter_stood():
    assert Gate(UNBOUNDED, "429496000").reads("5", "5", "5")[-1] == "rollover"
    assert Gate(UNBOUNDED, "200000000").reads("5", "5", "5")[-1] == "replaced"
    assert Gate(Bound(), "429496000").reads("5", "5", "5")[-1] == "replaced"


@pytest.mark.parametrize(
    ("kind", "count", "expected"),
    [
        ("u16", 1, "655.36"),
        ("u32", 2, "42949672.96"),
        ("s32", 2, "42949672.96"),
        ("u48", 3, "2814749767106.56"),
        ("bcd32", 2, "1000000"),
        ("mod10k", 3, "10000000000"),
        ("f32", 2, None),
        ("iskra_t5", 2, None),
    ],
)
def test_a_counter_wraps_at_the_width_of_its_type(kind: str, count: int, expected: str | None):
    register = Register("x", 3, 0, Encoding(kind, words=count), Decimal("0.01"))
    found = modulus_of(register, Decimal("0.01"))
    assert found == (None if expected is None else Decimal(expected))
    wraps = Register("x", 3, 0, Encoding(kind, words=count), modulus=Decimal(999))
    assert modulus_of(wraps, Decimal(1)) == 999


def test_the_resolution_of_a_float_grows_with_its_value():
    single = Register("x", 3, 0, Encoding("f32"))
    assert Decimal("0.06") < resolution_of(single, Decimal(1), Decimal("524288")) < Decimal("0.07")
    whole = Register("x", 3, 0, Encoding("u32"), Decimal("0.01"))
    assert resolution_of(whole, Decimal("0.01"), Decimal("524288")) == Decimal("0.01")
