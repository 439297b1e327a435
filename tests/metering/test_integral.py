"""Consumption of a meter without a counter: its power, summed up over the polls."""

from __future__ import annotations

import random
from decimal import Decimal
from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import HOUR, MINUTE
from gateway.metering.again import PolledAgain
from gateway.metering.meter import Meter
from gateway.metering.quantity import QUANTITIES, integrand
from gateway.metering.register import Encoding, Register
from gateway.metering.source import Source
from tests.metering.samples import OSLO, POWER, PROFILE, UTC, meter, sample, send

NOON = 1_773_144_000_000
QUARTER = 15 * MINUTE
ENERGY_IN, ENERGY_OUT = "active_energy_import_total", "active_energy_export_total"
FLOW = Register("flow", 4, 30, Encoding("f32"), Decimal(1), "m³/h")


def integrating(quantity: str = ENERGY_IN, power: str = POWER.name, **more: object) -> Meter:
    one = send("consumption", quantity=quantity, every=QUARTER)
    profile = evolve(PROFILE, registers=(POWER, FLOW))
    return meter(evolve(one, integrates=power), profile=profile, **more)


def polled(m: Meter, *shown: str | None, register: Register = POWER) -> list[tuple[int, str]]:
    """A poll a minute from a minute after noon on; None: it was lost."""
    found = []
    m.take(sample(NOON, {POWER: "7", FLOW: "7"}), NOON)  # of the interval before
    for n, value in enumerate(shown, start=1):
        at = NOON + n * MINUTE
        if value is not None:
            outcome = m.take(sample(at, {register: value}), at)
            found += [((r.stamp - NOON) // MINUTE, str(r.value)) for r in outcome.readings]
    outcome = m.advance(NOON + len(shown) * MINUTE + 2 * MINUTE, "bus_busy")
    found += [((r.stamp - NOON) // MINUTE, str(r.value)) for r in outcome.readings]
    return found


def test_an_interval_s_consumption_is_its_mean_power_times_its_length() -> None:
    assert polled(integrating(), *["1000"] * 15) == [(0, "0.25")]
    assert polled(integrating(), *["1000"] * 5, *["4000"] * 10) == [(0, "0.75")]
    assert polled(integrating(multiplier="40"), *["1000"] * 15) == [(0, "10")]


def test_a_flow_makes_a_volume() -> None:
    assert polled(integrating("volume_total", "flow"), *["2"] * 15, register=FLOW) == [(0, "0.5")]


def test_of_a_power_that_runs_both_ways_each_way_is_summed_up_alone() -> None:
    shown = ["1000", "-4000", "1000", "0", "1000"] * 3
    assert polled(integrating(), *shown) == [(0, "0.15")]
    assert polled(integrating(ENERGY_OUT), *shown) == [(0, "0.2")]


def test_a_fifth_of_the_polls_may_be_lost_and_no_more() -> None:
    assert polled(integrating(), *["1000", None, "1000", "1000", "1000"] * 3) == [(0, "0.25")]
    four_lost = [None, *["1000", None, "1000", "1000", "1000"] * 2, "1000", None, "1000", "1000"]
    assert polled(integrating(), *four_lost) == []


def test_its_polls_survive_a_kill() -> None:
    m = integrating()
    outcomes = [
        m.take(sample(NOON + n * MINUTE, {POWER: "1000"}), NOON + n * MINUTE) for n in range(8)
    ]
    kept = [one.sample for outcome in outcomes for one in outcome.samples]
    state = next(outcome.state for outcome in reversed(outcomes) if outcome.state)
    again = integrating()
    again.restore({}, state, kept)
    found = []
    for n in range(8, 16):
        at = NOON + n * MINUTE
        found += again.take(sample(at, {POWER: "4000"}), at).readings
    (reading,) = found
    assert reading.value == Decimal("0.65")  # 7 polls of 1 kW and 8 of 4, in a quarter of an hour


def test_it_is_made_again_of_the_polls_that_were_kept_where_the_multiplier_was_wrong() -> None:
    m = integrating()
    kept = []
    for n in range(31):
        at = NOON + n * MINUTE
        kept += m.take(sample(at, {POWER: "1000"}), at).samples
    right = integrating(multiplier="10").settings
    again = PolledAgain(right.send[0], Source(right, POWER.name), UTC, "start", MINUTE)
    for one in kept:
        again.take(one.sample)
    assert again.values[NOON + QUARTER] == Decimal("2.5")


def test_a_day_of_25_hours_counts_all_of_them() -> None:
    one = evolve(send("consumption", every=24 * HOUR), integrates=POWER.name)
    profile = evolve(PROFILE, registers=(POWER,))
    m = meter(one, profile=profile, zone=OSLO, poll=HOUR)
    midnight = 1_792_879_200_000  # 2026-10-24T22:00Z, 0 o'clock in Oslo
    for hour in range(26):
        at = midnight + hour * HOUR
        outcome = m.take(sample(at, {POWER: "1000"}), at)
    assert [str(r.value) for r in outcome.readings] == ["25"]


@given(st.integers(0, 1 << 32), st.integers(1, 40))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_it_is_the_energy_but_for_what_happens_between_two_polls(seed: int, kilowatts: int) -> None:
    """A power that changes slowly: within the most that it can have moved between two polls."""
    draw = random.Random(seed)
    watts = [Decimal(kilowatts * 1000)]
    for _ in range(15):
        watts.append(max(Decimal(0), watts[-1] + draw.randrange(-50, 51)))
    true = sum((a + b) / 2 for a, b in pairwise(watts)) / 60_000
    ((_, value),) = polled(integrating(), *(str(w) for w in watts[1:]))
    assert abs(Decimal(value) - true) <= Decimal(50) * 15 / 2 / 60_000 + Decimal("0.001")


@pytest.mark.parametrize(
    ("counter", "known", "power"),
    [
        (ENERGY_IN, ["active_power_total"], "active_power_total"),
        (ENERGY_IN, ["active_power_l1", "active_power_import_total"], "active_power_import_total"),
        (ENERGY_OUT, ["active_power_total"], "active_power_total"),
        ("reactive_energy_export_l2", ["reactive_power_l2"], "reactive_power_l2"),
        ("heat_energy_total", ["thermal_power"], "thermal_power"),
        ("volume_total", ["flow"], "flow"),
        (ENERGY_IN, ["reactive_power_total", "active_power_l1"], ""),
        ("active_energy_sum_total", ["active_power_total"], ""),
        ("cooling_energy_total", ["thermal_power"], ""),
    ],
)  # fmt: skip
def test_only_its_own_power_makes_an_energy(counter: str, known: list[str], power: str) -> None:
    assert integrand(counter, known) == power


def test_every_pair_fits_in_its_units() -> None:
    rates = {"kWh": "W", "kvarh": "var", "m³": "m³/h"}
    for name, quantity in QUANTITIES.items():
        if power := integrand(name, QUANTITIES):
            assert quantity.counter
            assert rates[quantity.unit] == QUANTITIES[power].unit
