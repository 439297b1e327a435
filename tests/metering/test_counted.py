"""What is sent of a counter adds up to what it moved, whatever happens to its reads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC as UTC_TIME
from datetime import datetime
from decimal import Decimal

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import DAY, HOUR, MINUTE, SECOND, Instant
from gateway.metering.meter import Meter, Outcome
from gateway.metering.reading import As, Gap, Reading, Sample, SeriesKey
from gateway.metering.settings import GapRule, MeterSettings
from tests.metering.samples import (
    ENERGY,
    KEY,
    OSLO,
    POWER,
    PROFILE,
    UTC,
    VOLTAGE,
    energy,
    meter,
    send,
    silent,
)
from tests.metering.samples import settings as meter_settings

NOON = int(datetime(2026, 3, 10, 12, tzinfo=UTC_TIME).timestamp() * 1000)
WRAPPING = evolve(PROFILE, registers=(evolve(ENERGY, modulus=Decimal(1000)), POWER, VOLTAGE))


@define
class Shelf:
    """What a buffer keeps of one meter; a stamp that is there already is not stored again."""

    readings: dict[tuple[SeriesKey, Instant], Reading] = field(factory=dict)
    gaps: list[Gap] = field(factory=list)
    last: dict[SeriesKey, Reading] = field(factory=dict)
    state: bytes | None = None

    def append(self, outcome: Outcome) -> None:
        for reading in outcome.readings:
            assert (reading.key, reading.stamp) not in self.readings, "a stamp twice"
            self.readings[reading.key, reading.stamp] = reading
            self.last[reading.key] = reading
        self.gaps += outcome.gaps
        self.state = outcome.state or self.state

    def restored(self, made: Meter) -> Meter:
        made.restore(self.last, self.state)
        return made

    def values(self, key: SeriesKey = KEY) -> list[tuple[int, str]]:
        """Stamps, in minutes after noon, and values."""
        found = sorted((stamp, r.value) for (k, stamp), r in self.readings.items() if k == key)
        return [((stamp - NOON) // MINUTE, str(value)) for stamp, value in found]

    def total(self, key: SeriesKey = KEY) -> Decimal:
        return sum((r.value for (k, _), r in self.readings.items() if k == key), Decimal(0))

    def reasons(self, key: SeriesKey = KEY) -> list[str]:
        return [gap.reason for gap in self.gaps if gap.key == key]


def at_hours(m: Meter, shelf: Shelf, *shown: str | None, start: int = 0) -> None:
    """A sample at each hour; None: the meter is silent."""
    for hour, kwh in enumerate(shown, start=start):
        at = NOON + hour * HOUR
        shelf.append(m.advance(at, "stopped"))
        shelf.append(m.take(silent(at + 20) if kwh is None else energy(at + 20, kwh), at))
        shelf.append(m.advance(at + 2 * MINUTE, "bus_busy"))


def polled(m: Meter, shelf: Shelf, start: Instant, *shown: str) -> None:
    """Polls a minute apart."""
    for n, kwh in enumerate(shown):
        shelf.append(m.take(energy(start + n * MINUTE, kwh), start + n * MINUTE))


# ------------------------------------------------------------------------------ never invented


def test_a_zero_that_reads_agreed_on_is_no_baseline():
    m, shelf = meter(send()), Shelf()
    at_hours(m, shelf, "48000", "48001")
    polled(m, shelf, NOON + HOUR + 30 * MINUTE, "0", "0", "0")
    at_hours(m, shelf, "0", "48003", "48004", start=2)
    assert shelf.values() == [(0, "1"), (180, "1")]
    assert shelf.reasons() == ["no_baseline", "replaced", "no_baseline"]


def test_a_counter_that_stands_at_zero_consumes_nothing_and_then_begins():
    m, shelf = meter(send()), Shelf()
    polled(m, shelf, NOON - 5 * MINUTE, "0", "0", "0")
    at_hours(m, shelf, "0", "0", "0.01", "0.05")
    assert shelf.values() == [(0, "0"), (60, "0.01"), (120, "0.04")]
    assert shelf.reasons() == ["replaced"]


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_counted_in_an_outage_after_a_zero_that_stood_is_sent(killed: bool):
    """As a counter of export does, or a new meter."""
    m, shelf = meter(send()), Shelf()
    polled(m, shelf, NOON - 5 * MINUTE, "0", "0", "0")
    at_hours(m, shelf, "0", "0")
    if killed:
        m = shelf.restored(meter(send()))
    at_hours(m, shelf, "300", "301", start=30 * 24)
    assert [value for _, value in shelf.values()] == ["0", "300", "1"]


def test_zeros_of_some_minutes_are_no_baseline_however_short_the_interval():
    m, shelf = meter(send(every=MINUTE)), Shelf()
    for n, kwh in enumerate(["48000", *["0"] * 10, "48001", "48002"]):
        at = NOON + n * MINUTE
        shelf.append(m.take(energy(at, kwh), at))
    assert shelf.total() == 1
    assert shelf.reasons()[-1] == "no_baseline"


@pytest.mark.parametrize("as_", ["counter", "consumption"])
def test_a_drop_is_seen_though_the_clock_had_been_ahead(as_: As):
    m, shelf = meter(send(as_)), Shelf()
    at_hours(m, shelf, "102", "103", start=365 * 24)
    at_hours(m, shelf, "150", "120", "151", start=3)
    assert shelf.reasons()[-1] == "held"
    found = [value for stamp, value in shelf.values() if stamp < 365 * 24 * 60]
    assert found == (["150", "151"] if as_ == "counter" else ["47", "1"])


def test_a_late_sample_of_a_meter_replaced_since_is_no_baseline_for_the_new_one():
    m = meter(send(), send("counter", key=SeriesKey("", "2")))
    shelf = Shelf()
    late = [energy(NOON + 1 * MINUTE, "40000")]
    late += [energy(NOON + n * MINUTE, f"5.{n:02}") for n in (10, 11, 12, 58, 59)]
    shelf.append(m.take_late(late, NOON + HOUR + 10 * MINUTE))
    assert shelf.values() == []
    assert shelf.values(SeriesKey("", "2")) == [(0, "40000"), (60, "5.59")]
    at_hours(m, shelf, "7", start=2)
    assert shelf.values() == [(60, "1.41")]


def test_a_rollover_among_late_samples_is_counted_once():
    m, shelf = meter(send(), profile=WRAPPING, max_power="100000"), Shelf()
    late = [energy(NOON + n * MINUTE, kwh) for n, kwh in ((0, "999"), (9, "1"), (61, "3"))]
    shelf.append(m.take_late(late, NOON + HOUR + 10 * MINUTE))
    assert shelf.values() == [(0, "4")]


@pytest.mark.parametrize("moved", [{"unit": 2}, {"bus": "cellar"}])
def test_what_another_meter_showed_is_not_reckoned_from(moved: dict[str, str | int]):
    shelf = Shelf()
    at_hours(meter(send()), shelf, "100", "101")

    def other() -> Meter:
        made: MeterSettings = evolve(meter_settings(send()), **moved)
        return shelf.restored(Meter(made, UTC, "start", MINUTE))

    at_hours(other(), shelf, "9000", start=2)
    assert shelf.values() == [(0, "1")]
    assert shelf.reasons()[-1] == "replaced"
    at_hours(other(), shelf, "9001", start=3)
    at_hours(other(), shelf, "9003", start=4)
    assert shelf.values() == [(0, "1"), (120, "1"), (180, "2")]


def test_a_meter_id_given_to_another_meter_takes_no_baseline_along():
    shelf = Shelf()
    at_hours(meter(send()), shelf, "100", "101")
    made = evolve(meter_settings(send()), name="other")
    other = Meter(made, UTC, "start", MINUTE)
    other.restore(shelf.last, None)  # a meter's state is its own
    for hour, kwh in ((2, "9000"), (3, "9002")):
        at = NOON + hour * HOUR
        shelf.append(other.take(energy(at, kwh), at))
    assert shelf.values() == [(0, "1"), (120, "2")]


def test_names_with_a_slash_in_them_do_not_mix_up_two_values():
    one, other = SeriesKey("a/b", "c"), SeriesKey("a", "b/c")

    def make() -> Meter:
        return meter(send(key=one), send(key=other, every=15 * MINUTE))

    shelf = Shelf()
    at_hours(make(), shelf, "100")
    at_hours(shelf.restored(make()), shelf, "107", start=1)
    assert (shelf.total(one), shelf.total(other)) == (7, 7)


# ---------------------------------------------------------------------- it goes on by itself


@pytest.mark.parametrize("gap", ["return", "spread", "skip"])
def test_a_clock_that_was_a_year_ahead_does_not_silence_a_meter_for_a_year(gap: GapRule):
    shelf = Shelf()
    m = meter(send(gap=gap), send("last", quantity="voltage_l1", key=SeriesKey("", "v")), zone=OSLO)
    at_hours(m, shelf, "102", "103", start=365 * 24)
    at_hours(m, shelf, "104", "105", "106", start=3)
    there = dict(shelf.values())
    assert there.get(2 * 60) == (None if gap == "skip" else "1")
    assert (there[3 * 60], there[4 * 60]) == ("1", "1")


def test_a_clock_set_back_by_an_hour_repeats_no_stamp_and_loses_no_energy():
    m, shelf = meter(send()), Shelf()
    at_hours(m, shelf, "100", "101", "102")
    for minute, kwh in ((70, "102.5"), (90, "102.8"), (120, "103")):
        at = NOON + minute * MINUTE
        shelf.append(m.advance(at, "bus_busy"))
        shelf.append(m.take(energy(at, kwh), at))
    at_hours(m, shelf, "104.5", start=3)
    assert shelf.values() == [(0, "1"), (60, "1"), (120, "2.5")]


# ----------------------------------------------------------------------------------- adds up

SHORT, LONG, EVEN, LEFT = (SeriesKey("", name) for name in ("short", "long", "even", "left"))
SENDS = (
    send(every=5 * MINUTE, key=SHORT),
    send(every=2 * HOUR, key=LONG),
    send(every=5 * MINUTE, gap="spread", key=EVEN),
    send(every=5 * MINUTE, gap="skip", key=LEFT),
)

steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["good"] * 8 + ["silent", "asleep", "zero", "low", "high", "again", "killed", "absent"]
        ),
        st.integers(3000, 8000),
    ),
    min_size=5,
    max_size=80,
)


def shown_at(step: str, at: Instant, true: Decimal) -> Sample | None:
    match step:
        case "silent":
            return silent(at)
        case "absent":
            return silent(at, "not_available")
        case "asleep":
            return None
        case "zero":
            return energy(at, "0")
        case "low":
            return energy(at, str((true + 600) % 1000))
        case "high":
            return energy(at, str((true + 300) % 1000))
    return energy(at, str(true % 1000))


# 499.99, 500.00 and 999.99 look like nothing was counted: a first reading of them is held.
counted = st.integers(100, 99_998).filter(lambda n: n not in (49_999, 50_000))


@given(steps, counted, st.sampled_from(["start", "end"]))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_energy_is_conserved_over_gaps_restarts_rollovers_and_bad_reads(story, first, label):
    """A counter of 1000 kWh that moves at most 80 kWh in five minutes, and wraps often."""

    def make() -> Meter:
        return meter(*SENDS, profile=WRAPPING, max_power="960000", label=label)

    shelf, begun = Shelf(), Decimal(first) / 100
    true = begun
    m = make()
    stepped = [("good", 0), *story, *[("good", 0)] * (24 - len(story) % 24)]
    unread = 0
    for n, (step, moved) in enumerate(stepped):
        true += Decimal(moved) / 100
        # What is within its power, or agrees with the read before, nobody could tell from the
        # truth; and in more than ten intervals the counter may have wrapped twice.
        if step in ("zero", "low", "high") and unread:
            step = "silent"
        unread = 0 if step in ("good", "again", "killed") else unread + 1
        if unread > 8:
            step, unread = "good", 0
        at = NOON + n * 5 * MINUTE
        steps_taken: list[Callable[[Meter], Outcome]] = []
        if step != "asleep":
            steps_taken.append(lambda m, at=at: m.advance(at, "bus_busy"))
        shown = shown_at(step, at + 30, true)
        if shown is not None:
            steps_taken.append(lambda m, shown=shown, at=at: m.take(shown, at))
        if step == "again":  # a bad read, asked again within the window
            bad = energy(at + 20, "0")
            steps_taken.insert(1, lambda m, bad=bad, at=at: m.take(bad, at))
        for take in steps_taken:
            if step in ("killed", "asleep"):
                m = shelf.restored(make())
            shelf.append(take(m))
        if step == "asleep":
            m = shelf.restored(make())
    assert not {"replaced", "clock"} & {gap.reason for gap in shelf.gaps}
    assert shelf.total(SHORT) == true - begun
    assert shelf.total(EVEN) == true - begun
    assert shelf.total(LONG) == true - begun
    assert shelf.total(LEFT) <= true - begun
    if "gap" not in shelf.reasons(LEFT):
        assert shelf.total(LEFT) == true - begun
    assert all(reading.value >= 0 for reading in shelf.readings.values())


def test_a_counter_that_wraps_and_passes_where_it_stood_moved_by_a_whole_modulus_more():
    m, shelf = meter(send(every=6 * HOUR), profile=WRAPPING, max_power="300000"), Shelf()
    shelf.append(m.take(energy(NOON, "900"), NOON))
    for hour, kwh in enumerate(("150", "400", "650", "850", "990"), start=1):
        polled(m, shelf, NOON + hour * HOUR, kwh)
    shelf.append(m.take(energy(NOON + 6 * HOUR, "999"), NOON + 6 * HOUR))
    assert shelf.total() == Decimal(1099)


def test_a_rollover_that_was_seen_is_known_after_a_kill():
    def make() -> Meter:
        return meter(send(), profile=WRAPPING, max_power="2000000")

    shelf = Shelf()
    m = make()
    at_hours(m, shelf, "900")
    polled(m, shelf, NOON + 20 * MINUTE, "10")
    assert shelf.state is not None
    at_hours(shelf.restored(make()), shelf, "950", start=1)
    assert shelf.total() == Decimal(1050)


def test_seconds_of_a_window_are_not_lost_between_two_intervals():
    m, shelf = meter(send(every=5 * SECOND)), Shelf()
    for n in range(13):
        at = NOON + n * 5 * SECOND
        shelf.append(m.take(energy(at + 900 * (n % 2), f"{100 + n}.5"), at))
    assert shelf.total() == Decimal(12)
    assert shelf.reasons() == ["no_baseline"]
    assert len(shelf.readings) == 12


def test_days_around_a_change_of_the_clock_hold_all_their_hours():
    m, shelf = meter(send(every=DAY), zone=OSLO), Shelf()
    start = int(datetime(2026, 10, 24, 0, tzinfo=OSLO).timestamp() * 1000)
    for hour in range(4 * 24):
        at = start + hour * HOUR
        shelf.append(m.take(energy(at, str(1000 + hour)), at))
    assert [r.value for r in shelf.readings.values()] == [24, 25, 24]


def test_what_a_consumption_is_reckoned_from_is_stored_with_it_or_before_it():
    """The first one, and the first of a replaced meter, bring it along; the others need not."""
    m, shelf = meter(send()), Shelf()
    at_hours(m, shelf, "1000", "1001", "1003", None, "1006")
    assert [len(r.raw.before().blocks) for r in shelf.readings.values()] == [1, 0, 0]
    m.accept(replaced=True)
    at_hours(m, shelf, "5", "9", start=5)
    *_, last = shelf.readings.values()
    assert m._all[0].source.decode(last.raw) == 9
    assert m._all[0].source.decode(last.raw.before()) == 5
    again = shelf.restored(meter(send()))
    at_hours(again, shelf, "10", start=7)
    *_, last = shelf.readings.values()
    assert (last.value, last.raw.before().blocks) == (1, ())
