"""A meter: samples in, readings and gaps out."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC as UTC_TIME
from datetime import datetime
from decimal import Decimal

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import DAY, HOUR, MINUTE, SECOND
from gateway.metering.counted import divided
from gateway.metering.meter import Meter, Outcome
from gateway.metering.profile import Computed, DeviceProfile
from gateway.metering.reading import Gap, KeptSample, RawWords, Reading, Sample, SeriesKey
from gateway.metering.register import Encoding, Register
from tests.metering.samples import (
    ENERGY,
    KEY,
    OSLO,
    POWER,
    PROFILE,
    VOLTAGE,
    energy,
    meter,
    sample,
    send,
    silent,
)

NOON = int(datetime(2026, 3, 10, 12, tzinfo=UTC_TIME).timestamp() * 1000)


def values(outcome: Outcome) -> list[tuple[int, str]]:
    """Stamps, in minutes after noon, and values."""
    return [((r.stamp - NOON) // MINUTE, str(r.value)) for r in outcome.readings]


def gaps(outcome: Outcome) -> list[tuple[int, str]]:
    return [((g.stamp - NOON) // MINUTE, g.reason) for g in outcome.gaps]


def events(outcome: Outcome) -> list[str]:
    return [name for name, _ in outcome.events]


def hourly(m: Meter, *shown: str | None) -> list[Outcome]:
    """A sample at each hour from noon on; None: the meter is silent."""
    found = []
    for hour, kwh in enumerate(shown):
        at = NOON + hour * HOUR
        if kwh is None:
            m.take(silent(at + 20), at)
            found.append(m.advance(at + 2 * MINUTE, "bus_busy"))
        else:
            found.append(m.take(energy(at + 20, kwh), at))
    return found


# ------------------------------------------------------------------------------------- counters


def test_a_counter_is_sent_as_it_stood_at_its_instant():
    first, second = hourly(meter(send("counter"), label="start"), "100", "101.25")
    assert values(first) == [(0, "100")]
    assert values(second) == [(60, "101.25")]
    assert second.readings[0].raw == energy(0, "101.25").raw


def test_consumption_is_what_the_counter_moved_exactly():
    first, second, third = hourly(meter(send()), "100", "101.25", "101.26")
    assert values(first) == []
    assert gaps(first) == [(-60, "no_baseline")]
    assert values(second) == [(0, "1.25")]
    assert values(third) == [(60, "0.01")]


def test_consumption_may_be_stamped_at_the_end_of_its_interval():
    assert values(hourly(meter(send(), label="end"), "100", "101.25")[1]) == [(60, "1.25")]


def test_the_multiplier_is_applied_to_the_last_digit():
    outcomes = hourly(meter(send(), multiplier="33.333333333333"), "0.01", "21474836.45")
    assert values(outcomes[1]) == [(0, str(Decimal("21474836.44") * Decimal("33.333333333333")))]
    assert values(hourly(meter(send("counter"), multiplier="40"), "100.01")[0]) == [(0, "4000.4")]


def test_the_multiplier_leaves_voltages_alone():
    m = meter(send("last", quantity="voltage_l1", every=MINUTE), multiplier="40")
    assert values(m.take(sample(NOON, {VOLTAGE: "230.1"}), NOON)) == [(-1, "230.1")]


def test_a_boundary_is_answered_by_a_sample_within_its_window_only():
    m = meter(send("counter"))
    assert not m.take(energy(NOON - 1, "99"), NOON - 1000).readings
    assert m.take(energy(NOON + MINUTE, "100"), NOON + 50 * SECOND).readings
    m = meter(send("counter"))
    m.advance(NOON, "bus_busy")
    late = m.take(energy(NOON + MINUTE + 1, "100"), NOON + 50 * SECOND)
    assert (values(late), gaps(late)) == ([], [(0, "bus_busy")])


def test_an_answer_that_was_asked_for_before_the_boundary_is_not_its_value():
    m = meter(send("counter"))
    assert not m.take(energy(NOON + 5, "100"), NOON - 5).readings
    assert m.take(energy(NOON + 90, "100"), NOON + 50).readings


def test_a_boundary_that_nobody_answered_is_a_gap_with_the_last_reason():
    m = meter(send("counter"))
    m.advance(NOON, "bus_busy")
    assert not m.take(silent(NOON + 1000), NOON).gaps
    assert not m.take(silent(NOON + 20_000, "crc"), NOON + 19_000).gaps
    assert not m.advance(NOON + MINUTE, "bus_busy").gaps
    assert gaps(m.advance(NOON + MINUTE + 1, "bus_busy")) == [(0, "crc")]
    assert not m.advance(NOON + 2 * MINUTE, "bus_busy").gaps


def test_a_register_that_the_meter_refuses_is_a_gap_at_once():
    m = meter(send("counter"))
    assert gaps(m.take(silent(NOON + 20, "exception_2"), NOON)) == [(0, "exception_2")]
    assert m.boundary_registers(NOON + 30) == ()


def test_words_that_are_no_number_are_a_gap():
    bcd = Register("active_energy_import_total", 3, 100, Encoding("bcd16"))
    m = meter(send("counter"), profile=evolve(PROFILE, registers=(bcd,)))
    bad = {evolve(bcd, encoding=Encoding("u16")): 0xABCD}
    m.take(sample(NOON, bad), NOON)
    assert gaps(m.advance(NOON + 2 * MINUTE, "bus_busy")) == [(0, "undecodable")]


@pytest.mark.parametrize("reason", ["not_available", "undecodable"])
def test_a_value_that_is_not_there_is_asked_for_again_unless_it_was_missing_before_too(reason):
    """A meter that starts, or a single bad read, costs no boundary; one that never has the value
    is not asked in vain."""
    bcd = Register(ENERGY.name, 3, 100, Encoding("bcd16"), not_available=frozenset({0xFFFF}))
    words = 0xFFFF if reason == "not_available" else 0xABCD
    empty = {evolve(bcd, encoding=Encoding("u16")): words}
    m = meter(send("counter"), profile=evolve(PROFILE, registers=(bcd,)))
    assert not m.take(sample(NOON, empty), NOON).gaps
    assert m.boundary_registers(NOON + 9 * SECOND) == (bcd,)
    at = NOON + 10 * SECOND
    assert values(m.take(sample(at, {bcd: 17}), at)) == [(0, "17")]
    for hour in (1, 2, 3):
        at = NOON + hour * HOUR
        found = gaps(m.take(sample(at, empty), at))
        assert found == ([(60 * hour, reason)] if hour > 1 else [])
        assert (m.boundary_registers(at + SECOND) == ()) == (hour > 1)
        m.advance(at + 2 * MINUTE, "bus_busy")


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800000, 0xFF800000])
def test_nan_and_infinity_are_not_available(bits):
    m = meter(send("last", quantity="active_power_total", every=MINUTE))
    word = sample(NOON, {evolve(POWER, encoding=Encoding("u32")): bits})
    outcome = m.take(word, NOON)
    assert events(outcome) == ["meter.not_available"]
    assert gaps(m.advance(NOON + MINUTE, "bus_busy")) == [(-1, "not_available")]


def test_not_available_is_said_once_until_it_ends():
    m = meter(send("last", quantity="voltage_l1"))
    said = [
        events(m.take(sample(NOON + n * MINUTE, {VOLTAGE: word}), NOON))
        for n, word in enumerate([0xFFFF, 0xFFFF, 2301, 0xFFFF])
    ]
    assert said == [["meter.not_available"], [], [], ["meter.not_available"]]


def test_a_quantity_made_of_several_registers_is_their_exact_sum():
    whole = Register("whole", 3, 0, Encoding("u32"), Decimal(1), "kWh")
    part = Register("part", 3, 2, Encoding("u16"), Decimal("0.001"), "kWh")
    export = Register("export", 3, 3, Encoding("u16"), Decimal(1), "kWh")
    profile = DeviceProfile(
        "p", "T", "M", "electricity", (whole, part, export),
        (Computed("active_energy_net_total", (whole, part), (export,), "kWh"),),
    )  # fmt: skip
    m = meter(send("last", quantity="active_energy_net_total", every=MINUTE), profile=profile)
    outcome = m.take(sample(NOON, {whole: 1000, part: "0.123", export: 5}), NOON)
    assert values(outcome) == [(-1, "995.123")]
    assert outcome.readings[0].raw.lookup(export) == (5,)
    missing = sample(NOON + MINUTE, {whole: 1000, part: "0.123"}, {"export": "timeout"})
    m.take(missing, NOON + MINUTE)
    assert gaps(m.advance(NOON + 2 * MINUTE, "bus_busy")) == [(0, "timeout")]


# ----------------------------------------------------------------------------------------- gaps


def test_after_a_gap_the_consumption_is_in_the_interval_of_the_return():
    outcomes = hourly(meter(send()), "100", "101", None, None, "105")
    assert [gaps(o) for o in outcomes[2:4]] == [[(60, "timeout")], [(120, "timeout")]]
    assert values(outcomes[4]) == [(180, "4")]


def test_a_gap_may_be_filled_evenly_and_adds_up_to_the_last_digit():
    outcomes = hourly(meter(send(gap="spread")), "100", "101", None, None, "101.1")
    found = outcomes[4].readings
    assert [(r.stamp - NOON) // MINUTE for r in found] == [60, 120, 180]
    assert sum(r.value for r in found) == Decimal("0.1")
    assert max(r.value for r in found) - min(r.value for r in found) <= Decimal("0.0001")
    assert [bool(r.raw.blocks) for r in found] == [False, False, True]


def test_a_gap_may_be_left_out_and_is_counted():
    outcomes = hourly(meter(send(gap="skip")), "100", "101", None, "105", "106")
    assert (values(outcomes[3]), gaps(outcomes[3])) == ([], [(120, "gap")])
    assert values(outcomes[4]) == [(180, "1")]


def test_a_long_stop_is_a_run_of_gaps_and_not_millions():
    m = meter(send("counter", every=5 * SECOND))
    m.take(energy(NOON, "1"), NOON)
    first, rest = m.advance(NOON + 365 * DAY + 2, "stopped").gaps
    assert (first.stamp, first.last, first.count) == (NOON + 5 * SECOND, None, 1)
    assert (rest.stamp, rest.last) == (NOON + 10 * SECOND, NOON + 365 * DAY - 5 * SECOND)
    assert (rest.reason, rest.count) == ("stopped", 365 * 17_280 - 2)
    assert m.take(energy(NOON + 365 * DAY + 3, "2"), NOON + 365 * DAY + 2).readings


def test_a_start_in_the_middle_reports_nothing_of_the_time_before_it_was_configured():
    m = meter(send("counter"))
    assert not m.advance(NOON + 10 * MINUTE, "stopped").gaps
    assert m.take(energy(NOON + HOUR, "1"), NOON + HOUR).readings


@given(st.decimals(0, 10**12, places=3), st.integers(1, 3000))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_parts_of_a_gap_sum_up_exactly(total, count):
    parts = list(divided(total, count))
    assert len(parts) == count
    assert sum(parts) == total
    assert max(parts) - min(parts) <= Decimal("0.001")


# -------------------------------------------------------------------------------- plausibility


def polls(m: Meter, *shown: str, start: int = NOON + MINUTE, apart: int = MINUTE) -> list[Outcome]:
    return [
        m.take(energy(start + n * apart, kwh), start + n * apart) for n, kwh in enumerate(shown)
    ]


def test_a_single_zero_is_held_and_forgotten():
    m = meter(send())
    hourly(m, "100", "101")
    zero = m.take(energy(NOON + 2 * HOUR, "0"), NOON + 2 * HOUR)
    assert events(zero) == ["counter.held"]
    assert not zero.readings
    assert gaps(m.advance(NOON + 2 * HOUR + 2 * MINUTE, "bus_busy")) == [(60, "held")]
    good = m.take(energy(NOON + 3 * HOUR, "103"), NOON + 3 * HOUR)
    assert (values(good), events(good)) == ([(120, "2")], [])


def test_a_held_value_is_asked_again_within_the_window():
    m = meter(send("counter"))
    hourly(m, "100")
    m.take(energy(NOON + HOUR, "0"), NOON + HOUR)
    assert m.boundary_registers(NOON + HOUR + 1) == (ENERGY,)
    again = m.take(energy(NOON + HOUR + 5000, "101"), NOON + HOUR + 4000)
    assert values(again) == [(60, "101")]


def test_a_jump_beyond_the_power_is_held():
    m = meter(send("counter"), max_power="100000")
    hourly(m, "100")
    held = m.take(energy(NOON + HOUR + 20, "200.02"), NOON + HOUR)
    assert (values(held), events(held)) == ([], ["counter.held"])
    assert values(m.take(energy(NOON + HOUR + 20, "200.01"), NOON + HOUR)) == [(60, "200.01")]


def test_the_power_is_that_behind_the_transformer():
    m = meter(send("counter"), max_power="100000", multiplier="100")
    hourly(m, "100")
    assert m.take(energy(NOON + HOUR + 20, "101.01"), NOON + HOUR).readings
    m = meter(send("counter"), max_power="100000", multiplier="100")
    hourly(m, "100")
    assert not m.take(energy(NOON + HOUR + 20, "101.02"), NOON + HOUR).readings


def test_a_replaced_meter_is_believed_at_the_third_read_and_begins_anew():
    m = meter(send(), send("counter", key=SeriesKey("", "2")))
    hourly(m, "100", "101")
    found = polls(m, "5", "5.01", "5.02", start=NOON + HOUR + 10 * MINUTE)
    assert [events(o) for o in found] == [["counter.held"], [], ["counter.accepted"]]
    then = m.take(energy(NOON + 2 * HOUR, "6"), NOON + 2 * HOUR)
    assert gaps(then) == [(60, "replaced")]
    assert values(then) == [(120, "6")]
    after = m.take(energy(NOON + 3 * HOUR, "7.5"), NOON + 3 * HOUR)
    assert values(after) == [(120, "1.5"), (180, "7.5")]


def test_a_rollover_is_counted_over_the_width_of_the_register():
    m = meter(send(), max_power="100000")
    hourly(m, "42949670.00")
    outcome = m.take(energy(NOON + HOUR, "1.00"), NOON + HOUR)
    assert values(outcome) == [(0, "3.96")]
    assert events(outcome) == ["counter.accepted"]


def test_without_a_known_power_a_rollover_is_counted_once_reads_agree():
    m = meter(send())
    hourly(m, "42949670.00")
    polls(m, "0.01", "0.02", "0.03", start=NOON + 40 * MINUTE)
    assert values(m.take(energy(NOON + HOUR, "1.00"), NOON + HOUR)) == [(0, "3.96")]


def test_a_rollover_is_counted_over_the_modulus_of_the_profile():
    wrapping = evolve(ENERGY, modulus=Decimal(1_000_000))
    m = meter(
        send(), max_power="100000", profile=evolve(PROFILE, registers=(wrapping, POWER, VOLTAGE))
    )
    assert values(hourly(m, "999999.5", "0.25")[1]) == [(0, "0.75")]


def test_the_first_value_is_a_baseline_unless_it_is_zero():
    assert values(hourly(meter(send("counter")), "5")[0]) == [(0, "5")]
    m = meter(send("counter"))
    zero = hourly(m, "0")[0]
    assert (values(zero), events(zero)) == ([], ["counter.held"])
    found = polls(m, "0", "0")
    assert [events(o) for o in found] == [[], ["counter.accepted"]]
    assert values(m.take(energy(NOON + HOUR, "0"), NOON + HOUR)) == [(60, "0")]


# -------------------------------------------------------------------------- means and extremes


def powers(m: Meter, *watts: str, start: int = NOON + MINUTE, apart: int = MINUTE) -> Outcome:
    """A poll a minute; the outcome of the last."""
    outcome = Outcome()
    for n, shown in enumerate(watts):
        at = start + n * apart
        outcome = m.take(sample(at + 20, {POWER: shown}), at)
    return outcome


def summary(as_: str, *watts: str) -> list[tuple[int, str]]:
    m = meter(send(as_, quantity="active_power_total", every=5 * MINUTE))  # type: ignore[arg-type]
    m.advance(NOON + SECOND, "stopped")
    m.advance(NOON + MINUTE - 1, "stopped")
    return values(powers(m, *watts))


def test_polls_are_summarised_with_the_boundary_in_the_interval_it_ends():
    shown = ("1", "2", "9", "4", "7.5")
    assert summary("mean", *shown) == [(0, "4.7")]
    assert summary("minimum", *shown) == [(0, "1")]
    assert summary("maximum", *shown) == [(0, "9")]
    assert summary("last", *shown) == [(0, "7.5")]
    # The first and the last of them count too.
    assert summary("maximum", "9", "2", "3", "4", "1") == [(0, "9")]
    assert summary("minimum", "9", "2", "3", "4", "1") == [(0, "1")]


def test_a_mean_has_two_digits_more_than_its_polls_and_never_over_twelve():
    assert summary("mean", "1", "1", "1", "1", "2") == [(0, "1.2")]
    m = meter(send("mean", quantity="active_power_total", every=3 * MINUTE))
    m.advance(NOON + SECOND, "stopped")
    m.advance(NOON + MINUTE - 1, "stopped")
    assert values(powers(m, "1", "1.5", "1.5")) == [(0, "1.333")]
    m = meter(send("mean", quantity="active_power_total", every=3 * MINUTE), multiplier="0.7777777")
    m.advance(NOON + SECOND, "stopped")
    m.advance(NOON + MINUTE - 1, "stopped")
    ((_, text),) = values(powers(m, "100000.3", "100000.3", "100000.4"))
    assert len(text.replace(".", "")) <= 12


def test_four_polls_of_five_are_enough_and_three_are_too_few():
    for failing, expected in ((1, []), (2, [(0, "too_few_polls")])):
        m = meter(send("mean", quantity="active_power_total", every=5 * MINUTE))
        m.advance(NOON + MINUTE - 1, "stopped")
        m.advance(NOON + MINUTE + 1, "stopped")
        for n in range(1, 6):
            at = NOON + n * MINUTE
            shown = silent(at) if n <= failing else sample(at, {POWER: "5"})
            outcome = m.take(shown, at)
        assert gaps(outcome) == expected
        assert len(outcome.readings) == (not expected)


def test_a_mean_without_its_boundary_is_formed_when_the_window_ends():
    m = meter(send("mean", quantity="active_power_total", every=5 * MINUTE))
    m.advance(NOON + MINUTE - 1, "stopped")
    powers(m, "1", "2", "3", "4")
    m.take(silent(NOON + 5 * MINUTE + 20), NOON + 5 * MINUTE)
    assert values(m.advance(NOON + 6 * MINUTE, "bus_busy")) == [(0, "2.5")]


def test_polls_are_kept_for_the_reading_they_belong_to():
    m = meter(send("mean", quantity="active_power_total", every=5 * MINUTE), send("counter"))
    m.advance(NOON + MINUTE - 1, "stopped")
    outcome = m.take(sample(NOON + 2 * MINUTE, {POWER: "5", ENERGY: "7"}), NOON)
    (kept,) = outcome.samples
    assert kept.until == NOON
    assert kept.sample.raw == sample(0, {POWER: "5"}).raw


def test_a_counter_s_value_that_is_held_is_none_after_a_kill_either():
    sends = (
        send("minimum", every=5 * MINUTE),
        send("mean", quantity="active_power_total", every=5 * MINUTE, key=SeriesKey("", "2")),
    )
    m = meter(*sends)
    outcomes = [
        m.take(sample(NOON + n * MINUTE, {ENERGY: kwh, POWER: "5"}), NOON + n * MINUTE)
        for n, kwh in enumerate(("100", "101", "102", "103", "0"))
    ]
    kept = [one.sample for outcome in outcomes for one in outcome.samples if not one.doubted]
    again = meter(*sends)
    again.restore({}, outcomes[-1].state, kept)
    end = NOON + 5 * MINUTE
    assert values(again.take(sample(end, {ENERGY: "104", POWER: "5"}), end)) == [
        (0, "101"), (0, "5"),
    ]  # fmt: skip


def test_a_poll_is_kept_with_its_time_though_the_kernel_has_forgotten_that_it_was_right():
    """As it does some hours after it last reached a time server; what was right stays so."""
    m = meter(send("mean", quantity="active_power_total", every=5 * MINUTE))
    m.advance(NOON + MINUTE - 1, "stopped")
    poll = evolve(sample(NOON + 2 * MINUTE, {POWER: "5"}), synchronised=False)
    (kept,) = m.take(poll, NOON + 2 * MINUTE).samples
    assert kept.sample.synchronised


def test_a_refusal_that_is_over_does_not_keep_the_boundary_from_being_asked_for():
    m = meter(send("mean", quantity="active_power_total", every=15 * MINUTE), poll=7 * MINUTE)
    m.advance(NOON + MINUTE, "stopped")
    m.take(silent(NOON + 7 * MINUTE, "exception_2"), NOON + 7 * MINUTE)
    m.take(sample(NOON + 14 * MINUTE, {POWER: "5"}), NOON + 14 * MINUTE)
    assert m.boundary_registers(NOON + 15 * MINUTE) == (POWER,)
    outcome = m.take(sample(NOON + 15 * MINUTE, {POWER: "7"}), NOON + 15 * MINUTE)
    assert values(outcome) == [(0, "6")]


def test_nothing_is_kept_where_every_poll_is_a_reading():
    m = meter(send("last", quantity="active_power_total", every=MINUTE))
    assert not powers(m, "1", "2").samples


# ---------------------------------------------------------------------------- late synchronising


def test_a_counter_takes_the_sample_nearest_to_its_boundary_within_a_tenth():
    m = meter(send("counter"))
    found = m.take_late(
        [energy(NOON + n * MINUTE, str(100 + n)) for n in (-20, -5, 4, 9, 50, 67)],
        NOON + 70 * MINUTE,
    )
    assert values(found) == [(0, "104")]
    assert gaps(found) == [(60, "clock")]


def test_means_are_formed_of_samples_that_got_their_time_afterwards():
    m = meter(send("mean", quantity="active_power_total", every=5 * MINUTE))
    late = [sample(NOON + n * MINUTE + 7_000, {POWER: str(n)}) for n in range(-2, 12)]
    found = m.take_late(late, NOON + 12 * MINUTE)
    assert values(found) == [(0, "3"), (5, "8")]
    assert gaps(found) == [(-5, "too_few_polls")]


def test_after_a_late_sample_the_next_consumption_is_exact():
    m = meter(send())
    m.take_late([energy(NOON - 5 * MINUTE, "100"), energy(NOON - 3 * MINUTE, "101")], NOON + MINUTE)
    assert values(m.take(energy(NOON + HOUR + 50, "103"), NOON + HOUR)) == [(0, "2")]


def test_a_sample_near_a_boundary_that_has_not_come_is_not_taken_for_it():
    m = meter(send("counter"))
    assert not m.take_late([energy(NOON - 2 * MINUTE, "100")], NOON - MINUTE).readings
    assert values(m.take(energy(NOON + 9, "101"), NOON)) == [(0, "101")]


# ------------------------------------------------------------------------------------ asking


def test_boundaries_are_asked_for_as_they_come():
    m = meter(
        send("counter"),
        send("last", quantity="voltage_l1", every=15 * MINUTE, key=SeriesKey("", "2")),
    )
    m.advance(NOON + 2 * MINUTE, "stopped")
    assert m.poll_registers() == (ENERGY, VOLTAGE)
    assert m.next_due(NOON + 2 * MINUTE) == NOON + 15 * MINUTE
    assert m.boundary_registers(NOON + 14 * MINUTE) == ()
    assert m.boundary_registers(NOON + 15 * MINUTE) == (VOLTAGE,)
    assert m.deadline(NOON + 15 * MINUTE) == NOON + 16 * MINUTE
    m.advance(NOON + 59 * MINUTE, "bus_busy")
    assert m.boundary_registers(NOON + HOUR) == (ENERGY, VOLTAGE)


def test_days_of_a_site_in_oslo_are_stamped_at_local_midnight():
    m = meter(send(every=DAY), zone=OSLO)
    midnight = NOON - 13 * HOUR
    m.take(energy(midnight, "1"), midnight)
    assert values(m.take(energy(midnight + DAY, "3"), midnight + DAY)) == [(-13 * 60, "2")]


def test_values_for_a_person_are_multiplied_and_carry_their_time():
    m = meter(send(), multiplier="40")
    m.take(energy(NOON, "2.5"), NOON)
    shown = m.values()["active_energy_import_total"]
    assert (shown.value, shown.reason, shown.at) == (Decimal(100), "", NOON)
    m.take(silent(NOON + MINUTE), NOON + MINUTE)
    shown = m.values()["active_energy_import_total"]
    assert (shown.value, shown.reason) == (None, "timeout")


# --------------------------------------------------------------------------- kill and restart


@define
class Kept:
    """What a buffer keeps of one meter."""

    last: dict[SeriesKey, Reading] = field(factory=dict)
    state: bytes | None = None
    samples: list[KeptSample] = field(factory=list)
    readings: list[Reading] = field(factory=list)
    gaps: list[tuple[SeriesKey, int]] = field(factory=list)

    def append(self, outcome: Outcome) -> None:
        for reading in outcome.readings:
            self.last[reading.key] = reading
        self.readings += outcome.readings
        self.gaps += [(gap.key, gap.stamp) for gap in outcome.gaps]
        self.state = outcome.state or self.state
        self.samples += outcome.samples

    def prune(self, keys: list[SeriesKey]) -> None:
        """As if everything that was stored had been confirmed."""
        if all(key in self.last for key in keys):
            past = min(self.last[key].stamp for key in keys)
            self.samples = [s for s in self.samples if (s.until or 0) > past]

    def restored(self, make: Callable[[], Meter]) -> Meter:
        made = make()
        made.restore(self.last, self.state, [kept.sample for kept in self.samples])
        return made


SENDS = (
    send("counter", every=5 * MINUTE, key=SeriesKey("", "counter")),
    send("consumption", every=5 * MINUTE, key=SeriesKey("", "consumption")),
    send("consumption", every=15 * MINUTE, gap="spread", key=SeriesKey("", "spread")),
    send("consumption", every=15 * MINUTE, gap="skip", key=SeriesKey("", "skip")),
    send("mean", quantity="active_power_total", every=5 * MINUTE, key=SeriesKey("", "mean")),
    send("minimum", quantity="voltage_l1", every=15 * MINUTE, key=SeriesKey("", "minimum")),
    send("last", quantity="voltage_l1", every=MINUTE, key=SeriesKey("", "last")),
)
POLLED = [SeriesKey("", "mean"), SeriesKey("", "minimum")]

steps = st.lists(
    st.sampled_from(
        ["good"] * 12
        + ["silent", "late", "zero", "garbage", "replaced", "absent", "asleep", "half", "again"]
    ),
    min_size=10,
    max_size=60,
)


def played(step: str, minute: int, start: Decimal) -> Sample | None:
    at = NOON + minute * MINUTE + (50_000 if step == "late" else 30)
    true = {ENERGY: str(start + minute), POWER: str(minute * 7 % 10), VOLTAGE: "230.1"}
    match step:
        case "silent":
            return silent(at)
        case "zero":
            return sample(at, true | {ENERGY: "0"})
        case "garbage":
            return sample(at, true | {ENERGY: "9000000"})
        case "absent":
            return sample(at, true | {VOLTAGE: 0xFFFF})
        case "half":
            return sample(at, {POWER: true[POWER]}, {ENERGY.name: "crc", VOLTAGE.name: "crc"})
        case "asleep":
            return None
    return sample(at, true)


@given(steps, st.booleans(), st.sampled_from(["start", "end"]), st.integers(0, 14))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_kill_between_any_two_steps_changes_nothing(story, bounded, label, begin):
    def make() -> Meter:
        return meter(*SENDS, label=label, max_power="1000000" if bounded else None)

    whole, broken = Kept(), Kept()
    lasting = make()
    start = Decimal(1000)
    for minute, step in enumerate(story, start=begin):
        if step == "replaced":
            start = Decimal(3) - minute
        shown = played(step, minute, start)
        asked = NOON + minute * MINUTE
        steps_taken: list[Callable[[Meter], Outcome]] = []
        if step != "asleep":
            steps_taken.append(lambda m, asked=asked: m.advance(asked, "bus_busy"))
        if shown is not None:
            steps_taken.append(lambda m, shown=shown, asked=asked: m.take(shown, asked))
        if step == "again":
            second = played("good", minute, start)
            assert second is not None
            second = evolve(second, at=second.at + 20_000)
            steps_taken.append(lambda m, shown=second, asked=asked: m.take(shown, asked + 20_000))
        for take in steps_taken:
            whole.append(take(lasting))
            broken.append(take(broken.restored(make)))
            broken.prune(POLLED)
            assert broken.readings == whole.readings
            assert broken.gaps == whole.gaps
    stamps = [(r.key, r.stamp) for r in whole.readings]
    assert len(set(stamps)) == len(stamps)


def test_state_of_another_make_is_as_good_as_none():
    for state in (b"", b"\xff", b"[]", b'{"version":99}', b"null"):
        m = meter(send())
        m.restore({}, state)
        assert not m.advance(NOON, "stopped").gaps


def test_state_is_small_and_only_given_where_the_last_readings_do_not_tell_it():
    m = meter(send())
    first, second, third = hourly(m, "100", "101", "102")
    assert first.state is not None
    assert len(first.state) < 250
    assert json.loads(first.state)["version"] == 2
    assert (second.state, third.state) == (None, None)


def test_a_profile_that_changed_meanwhile_costs_a_baseline_and_nothing_else():
    m = meter(send("counter"))
    m.restore({KEY: Reading(KEY, NOON, Decimal(5), RawWords())}, None)
    assert not m.advance(NOON + 30 * MINUTE, "stopped").gaps
    assert m.take(energy(NOON + HOUR, "7"), NOON + HOUR).readings


def test_gaps_name_their_series():
    m = meter(send("counter"))
    m.advance(NOON, "bus_busy")
    assert m.advance(NOON + 2 * MINUTE, "offline").gaps == (Gap(KEY, NOON, "offline"),)


def test_a_person_may_accept_what_is_held_and_it_is_reckoned_from_it():
    m = meter(send(), send("counter", key=SeriesKey("", "2")))
    hourly(m, "100", "101")
    m.take(energy(NOON + HOUR + MINUTE, "5"), NOON + HOUR + MINUTE)
    accepted = m.accept(replaced=False)
    assert [fields["is"] for _, fields in accepted.events] == [Decimal(5)]
    assert events(accepted) == ["counter.accepted"]
    then = m.take(energy(NOON + 2 * HOUR, "6"), NOON + 2 * HOUR)
    assert (gaps(then), values(then)) == ([(60, "replaced")], [(120, "6")])
    assert m.accept(replaced=False).events == ()


def test_nothing_is_reckoned_across_two_meters_though_the_new_one_shows_more():
    m = meter(send())
    hourly(m, "100", "101")
    assert m.accept(replaced=True).state is not None
    then = m.take(energy(NOON + 2 * HOUR, "150"), NOON + 2 * HOUR)
    assert (gaps(then), values(then), events(then)) == ([(60, "replaced")], [], [])
    assert values(m.take(energy(NOON + 3 * HOUR, "151"), NOON + 3 * HOUR)) == [(120, "1")]


@pytest.mark.parametrize("as_", ["counter", "mean"])
def test_a_clock_set_by_more_than_a_day_makes_nothing_missing_that_may_never_have_been(as_):
    quantity = ENERGY.name if as_ == "counter" else POWER.name
    m = meter(send(as_, quantity=quantity, every=15 * MINUTE), poll=15 * MINUTE)
    for n in range(3):
        m.take(sample(NOON + n * 15 * MINUTE, {ENERGY: "5", POWER: "5"}), NOON + n * 15 * MINUTE)
    leapt = NOON + 400 * DAY
    assert not m.advance(leapt + 5 * MINUTE, "clock").gaps
    then = leapt + 15 * MINUTE
    assert len(m.take(sample(then, {ENERGY: "6", POWER: "6"}), then).readings) == 1


def test_a_clock_set_by_some_hours_leaves_them_missing_for_that_reason():
    m = meter(send("counter"))
    hourly(m, "5")
    assert gaps(m.advance(NOON + 20 * HOUR + 5 * MINUTE, "clock"))[0] == (60, "clock")


def test_nothing_is_spread_over_a_time_that_the_clock_leapt_over():
    """A year of intervals that never were would be filled with values."""
    m = meter(send(gap="spread"))
    hourly(m, "100", "101")
    leapt = NOON + 365 * 24 * HOUR
    m.advance(leapt - MINUTE, "clock")
    after = m.take(energy(leapt, "102"), leapt)
    assert [value for _, value in values(after)] == ["1"]
    following = m.take(energy(leapt + HOUR, "103"), leapt + HOUR)
    assert [value for _, value in values(following)] == ["1"]


def test_a_value_that_may_have_been_read_behind_the_window_is_not_taken_for_the_boundary():
    """Its first answer came in time; the last, which may hold the counter, did not."""
    m = meter(send("counter"))
    hourly(m, "100")
    at = NOON + HOUR + 59 * SECOND
    slow = m.take(evolve(energy(at, "101"), took=2 * SECOND), NOON + HOUR + 58 * SECOND)
    assert (slow.readings, m.boundary_registers(at)) == ((), (ENERGY,))
    quick = m.take(evolve(energy(at, "101"), took=SECOND), NOON + HOUR + 58 * SECOND)
    assert values(quick) == [(60, "101")]


@pytest.mark.parametrize(("shown", "reason"), [("0", "held"), ("0.10", "undecodable")])
def test_words_of_which_nothing_is_made_are_kept_where_a_value_was_due(shown, reason):
    """A profile that is mended may make sense of them; a restart does not count them."""
    digits = evolve(PROFILE.registers[0], encoding=Encoding("bcd32"))
    right = evolve(PROFILE, registers=(digits, *PROFILE.registers[1:]))
    m = meter(send(every=HOUR), profile=right if reason == "undecodable" else PROFILE)
    m.take(energy(NOON, "10"), NOON)
    out = m.take(energy(NOON + HOUR, shown), NOON + HOUR)
    (kept,) = out.samples
    why = "zero" if reason == "held" else reason
    assert (kept.doubted, kept.sample.raw) == (why, energy(NOON, shown).raw)
    assert not m.take(energy(NOON + HOUR + 30 * MINUTE, shown), NOON + HOUR + 30 * MINUTE).samples


def doubts(outcomes: list[Outcome]) -> list[str]:
    return [one.doubted for outcome in outcomes for one in outcome.samples if one.doubted]


def test_every_value_that_is_held_is_kept_with_its_reason():
    m = meter(send(), max_power="10000")
    hourly(m, "1000", "1001")
    start = NOON + HOUR + 10 * MINUTE
    found = polls(m, "0", "1001.1", "500", "1001.2", "9000", "1001.3", start=start)
    assert doubts(found) == ["zero", "drop", "jump"]
    late = m.take_late([energy(NOON + HOUR + n * MINUTE, "7") for n in (31, 32)], NOON + 2 * HOUR)
    assert doubts([late]) == ["drop"]


def test_a_power_that_is_set_too_small_costs_neither_a_line_nor_a_write_a_read():
    m = meter(send(), max_power="1000")
    hourly(m, "1000")
    shown = [str(Decimal(1000) + Decimal(n) / 10) for n in range(1, 59)]
    found = polls(m, *shown, start=NOON + MINUTE)
    assert sum(map(len, map(events, found))) == len(doubts(found)) == 10
    assert sum(outcome.state is not None for outcome in found) == 10


def test_a_counter_that_moved_on_faster_than_its_power_loses_nothing_when_it_is_accepted():
    last, state = {}, None
    m = meter(send(), max_power="1000")
    for outcome in hourly(m, "1000", "1001"):
        last |= {one.key: one for one in outcome.readings}
    polls(m, "1002", "1003", "1004", start=NOON + HOUR + 10 * MINUTE)
    accepted = m.accept(replaced=False)
    assert events(accepted) == ["counter.accepted"]
    state = accepted.state
    mended = meter(send(), max_power="100000")
    mended.restore(last, state)
    then = mended.take(energy(NOON + 2 * HOUR, "1010"), NOON + 2 * HOUR)
    assert (values(then), gaps(then)) == ([(60, "9")], [])


@pytest.mark.parametrize("by", [-30 * HOUR, -2 * HOUR, 2 * HOUR, 30 * HOUR])
def test_a_counter_is_bounded_by_the_true_time_also_after_a_restart(by: int):
    last: dict[SeriesKey, Reading] = {}
    m = meter(send(), max_power="10000")
    state = None
    for outcome in hourly(m, "1000", "1001", "1002"):
        last |= {one.key: one for one in outcome.readings}
        state = outcome.state or state
    m.clock_was_set(by)
    now = NOON + 3 * HOUR + by
    state = m.advance(now - MINUTE, "clock").state or state
    for one in (m, meter(send(), max_power="10000")):
        if one is not m:
            one.restore(last, state)
        assert events(one.take(energy(now - 30 * SECOND, "1013"), now)) == ["counter.held"]
        assert events(one.take(energy(now, "1011"), now)) == []


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("by", [-130 * MINUTE, -50 * HOUR, 130 * MINUTE])
def test_polls_of_before_the_clock_was_set_are_in_no_mean(by: int, killed: bool):
    sends = (
        send("mean", quantity="active_power_total"),
        send("maximum", quantity="active_power_total", key=SeriesKey("", "2")),
    )
    m = meter(*sends)
    kept: list[Sample] = []
    last: dict[SeriesKey, Reading] = {}
    found: list[Outcome] = []

    def poll(at: int, watts: str) -> None:
        one = evolve(sample(at, {POWER: watts}), boottime=len(kept))
        found.append(m.take(one, at))
        kept.extend(each.sample for each in found[-1].samples)
        last.update({reading.key: reading for reading in found[-1].readings})

    for n in range(91):
        poll(NOON + n * MINUTE, "9000")
    assert [value for outcome in found for _, value in values(outcome)] == ["9000", "9000"]
    m.clock_was_set(by)
    now = NOON + 91 * MINUTE + by
    found.append(m.advance(now, "clock"))
    state = [outcome.state for outcome in found if outcome.state][-1]
    del found[:]
    if killed:
        m = meter(*sends)
        m.restore(last, state, kept)
    for n in range(6 * 60):
        poll(now + n * MINUTE, "100")
    assert {value for outcome in found for _, value in values(outcome)} == {"100"}
    reasons = {reason for outcome in found for _, reason in gaps(outcome)}
    assert reasons == (set() if by == -130 * MINUTE else {"too_few_polls" if killed else "clock"})
