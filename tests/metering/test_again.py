"""Stored readings decoded again: right after a mistake, unchanged without one, never invented."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import HOUR, MINUTE, Instant
from gateway.metering.again import (
    Again,
    ConsumptionAgain,
    CounterAgain,
    PolledAgain,
    Stored,
    from_own_words,
)
from gateway.metering.meter import Meter
from gateway.metering.profile import DeviceProfile
from gateway.metering.reading import RawWords, Sample, SeriesKey
from gateway.metering.register import Encoding
from gateway.metering.settings import SendSettings
from gateway.metering.source import Source
from tests.metering.samples import (
    ENERGY,
    KEY,
    PROFILE,
    UTC,
    energy,
    meter,
    sample,
    send,
)
from tests.metering.samples import settings as meter_settings
from tests.metering.test_counted import (
    NOON,
    SENDS,
    WRAPPING,
    Shelf,
    at_hours,
    counted,
    shown_at,
    steps,
)

KWH = "active_energy_import_total"


def source(
    profile: DeviceProfile = PROFILE, multiplier: str = "1", max_power: str | None = None
) -> Source:
    made = meter_settings(send(), profile=profile, multiplier=multiplier, max_power=max_power)
    return Source(made, KWH)


def of(shelf: Shelf, key: SeriesKey = KEY) -> list[Stored]:
    """What is stored of a series, by stamp."""
    readings = [r for (k, _), r in shelf.readings.items() if k == key]
    numbered = [Stored(n, r.stamp, r.value, r.raw) for n, r in enumerate(readings, start=1)]
    return sorted(numbered, key=lambda one: one.stamp)


def again(
    stored: Sequence[Stored],
    by: Source,
    one: SendSettings | None = None,
    earlier: Sequence[Stored] = (),
) -> list[Again]:
    """All of a consumption."""
    moved = ConsumptionAgain(one or send(), by, UTC, earlier)
    found = [each for reading in stored for each in moved.take(reading)]
    return [*found, *moved.rest()]


def values(found: Sequence[Again]) -> list[str]:
    return [str(one.value) if one.value is not None else one.reason for one in found]


# ------------------------------------------------------------------------------ what was wrong


def with_energy(**more: object) -> DeviceProfile:
    """The profile with its counter described otherwise."""
    return evolve(PROFILE, registers=(evolve(ENERGY, **more), *PROFILE.registers[1:]))


SWAPPED = with_energy(encoding=Encoding("u32", word_order="little"))


@pytest.mark.parametrize("kind", ["counter", "consumption"])
def test_a_wrong_word_order_is_put_right(kind):
    one = send(kind)
    wrong, right = (meter(one, profile=p) for p in (SWAPPED, PROFILE))
    told, truth = Shelf(), Shelf()
    shown = ["10", "10.5", "12", None, "12.25", "20"]
    at_hours(wrong, told, *shown)
    at_hours(right, truth, *shown)
    assert told.values() != truth.values()
    if kind == "counter":
        found = [from_own_words(source(), stored) for stored in of(told)]
    else:
        found = again(of(told), source())
    assert [((a.stored.stamp - NOON) // MINUTE, str(a.value)) for a in found] == truth.values()


def test_a_wrong_multiplier_is_put_right():
    shelf = Shelf()
    at_hours(meter(send(), multiplier="40"), shelf, "10", "11", "13", "13.5")
    assert values(again(of(shelf), source(multiplier="60"))) == ["60", "120", "30"]


def test_the_first_of_a_range_is_reckoned_from_the_one_before_the_range():
    shelf = Shelf()
    at_hours(meter(send()), shelf, "10", "11", "13", "17")
    first, *rest = of(shelf)
    assert values(again(rest, source(), earlier=[first])) == ["2", "4"]
    assert values(again(rest, source())) == ["no_base", "4"]


def test_parts_of_a_gap_are_divided_again():
    one = send(gap="spread")
    shelf = Shelf()
    at_hours(meter(one), shelf, "10", "11", None, None, "14.5", "15")
    found = again(of(shelf), source(multiplier="2"), one)
    assert len(found) == 5
    assert sum(Decimal(value) for value in values(found)) == 10
    assert values(found)[1:4] == ["2.333", "2.333", "2.334"]


# ---------------------------------------------------------- boundaries that nothing was made of


def doubted(*shown: tuple[int, str]) -> list[Stored]:
    """Words that were kept, by hour."""
    return [Stored(0, NOON + hour * HOUR, Decimal(0), energy(NOON, kwh).raw) for hour, kwh in shown]


def test_a_boundary_of_whose_words_nothing_was_made_gets_its_value():
    shelf = Shelf()
    at_hours(meter(send()), shelf, "10", "11", None, None, "16")
    first, last = of(shelf)
    moved = ConsumptionAgain(send(), source(), UTC)
    assert values(list(moved.take(first))) == ["1"]
    found = list(moved.take(last, doubted((1, "12.5"), (2, "14"))))
    assert values(found) == ["1.5", "1.5", "2"]
    counter = CounterAgain(send("counter"), source(), UTC)
    assert values(list(counter.take(last, doubted((1, "12.5"), (2, "14"))))) == ["12.5", "14", "16"]


def test_energy_between_a_doubted_read_and_the_one_that_was_believed_is_not_lost():
    """At the same boundary, of which nothing was made: a reading brings along what it was reckoned
    from."""
    shelf = Shelf()
    at_hours(meter(send()), shelf, "10", "11", None, "16")
    first, last = of(shelf)
    own, base = (energy(NOON, kwh).raw.blocks for kwh in ("16", "12.75"))
    last = evolve(last, raw=RawWords((*own, *base)))
    moved = ConsumptionAgain(send(), source(), UTC)
    list(moved.take(first))
    assert values(list(moved.take(last, doubted((1, "12.5"))))) == ["1.75", "3.25"]


@pytest.mark.parametrize("kwh", ["0", "9", "17", "42949672.95"])
def test_words_that_do_not_fit_what_comes_before_and_after_are_a_bad_read_still(kwh):
    shelf = Shelf()
    at_hours(meter(send()), shelf, "10", "11", None, "16")
    first, last = of(shelf)
    moved = ConsumptionAgain(send(), source(), UTC)
    list(moved.take(first))
    assert values(list(moved.take(last, doubted((1, kwh))))) == ["5"]
    counter = CounterAgain(send("counter"), source(), UTC)
    list(counter.take(first))
    assert values(list(counter.take(last, doubted((1, kwh))))) == ["16"]


def test_words_of_another_meter_that_agree_with_each_other_are_bad_reads_still():
    shelf = Shelf()
    at_hours(meter(send()), shelf, "10", "11", None, None, "16")
    first, last = of(shelf)
    moved = ConsumptionAgain(send(), source(), UTC)
    list(moved.take(first))
    assert values(list(moved.take(last, doubted((1, "500"), (2, "500.5"))))) == ["5"]


def test_where_a_reading_between_is_lost_only_what_follows_at_once_is_reckoned():
    shelf = Shelf()
    at_hours(meter(send()), shelf, "10", "11", "12", None, None, "16", "18")
    first, _, third, fourth = of(shelf)
    moved = ConsumptionAgain(send(), source(), UTC)
    list(moved.take(first))
    found = list(moved.take(third, doubted((2, "13"), (3, "14"))))
    assert values(found) == ["1", "2"]
    assert values(list(moved.take(fourth))) == ["2"]


# --------------------------------------------------------------------------- what cannot be told


def test_what_lay_between_and_is_gone_leaves_the_next_as_it_is():
    """Its energy would be sent twice."""
    shelf = Shelf()
    at_hours(meter(send()), shelf, "10", "11", "13", "17", "18")
    first, second, _, fourth = of(shelf)
    assert values(again([first, second, fourth], source())) == ["1", "2", "no_base"]


def test_what_was_reckoned_from_a_zero_that_stood_is_reckoned_again():
    shelf = Shelf()
    m = meter(send())
    for n in range(3):
        shelf.append(m.take(energy(NOON + (n - 5) * MINUTE, "0"), NOON + (n - 5) * MINUTE))
    at_hours(m, shelf, "0", "0", "300", "301")
    assert values(again(of(shelf), source(multiplier="2"))) == ["0", "600", "2"]


def test_one_that_was_brought_in_between_is_no_base_and_left():
    shelf = Shelf()
    at_hours(meter(send()), shelf, "10", "11", None, "17", "18")
    first, *rest = of(shelf)
    brought = Stored(4, first.stamp + HOUR, Decimal(3), RawWords())
    found = again([first, brought, *rest], source(multiplier="2"))
    assert values(found) == ["2", "no_words", "12", "2"]


def test_a_part_whose_whole_is_not_asked_about_is_left():
    one = send(gap="spread")
    shelf = Shelf()
    at_hours(meter(one), shelf, "10", "11", None, None, "14.5")
    first, part, *rest = of(shelf)
    assert values(again([first, part], source(multiplier="2"), one)) == ["2", "no_words"]
    # Nor is the whole divided anew over fewer.
    assert values(again(rest, source(multiplier="2"), one, [first, part])) == ["no_words", "7"]


def test_a_meter_that_was_replaced_is_not_reckoned_across():
    m, shelf = meter(send()), Shelf()
    at_hours(m, shelf, "1000", "1001")
    m.accept(replaced=True)
    at_hours(m, shelf, "2000", "2003", start=2)
    assert values(again(of(shelf), source(multiplier="2"))) == ["2", "6"]


def test_a_counter_that_goes_back_or_moves_too_far_by_the_new_profile_is_left():
    shelf = Shelf()
    at_hours(meter(send()), shelf, "10", "20", "400", "655.37")
    limited = source(max_power="5000")
    assert values(again(of(shelf), limited)) == ["10", "implausible", "implausible"]
    assert values(again(of(shelf), source(SWAPPED)))[-1] == "replaced"


def test_words_that_lack_the_register_or_mean_nothing_are_left():
    elsewhere = with_energy(address=102)
    nothing = with_energy(not_available=frozenset({1000}))
    no_digits = with_energy(encoding=Encoding("bcd32"))
    shelf = Shelf()
    at_hours(meter(send("counter")), shelf, "10", "10.1")
    for profile, expected in (
        (elsewhere, ["not_read", "not_read"]),
        (nothing, ["not_available", "10.1"]),
        (no_digits, ["undecodable", "undecodable"]),
    ):
        found = [from_own_words(source(profile), stored) for stored in of(shelf)]
        assert values(found) == expected
    bare = Stored(1, NOON, Decimal(1), RawWords())
    assert from_own_words(source(), bare).reason == "no_words"


# ---------------------------------------------------------------------------- without a mistake


@given(steps, counted, st.sampled_from(["start", "end"]))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_without_a_mistake_every_value_is_the_one_that_was_sent(story, first, label):
    """Over outages, kills, rollovers, replacements and bad reads; what cannot be told is left."""

    def make() -> Meter:
        return meter(*SENDS, profile=WRAPPING, max_power="960000", label=label)

    m, shelf = make(), Shelf()
    true = Decimal(first) / 100
    for n, (step, moved) in enumerate(story):
        true += Decimal(moved) / 100
        at = NOON + n * 5 * MINUTE
        if step == "killed":
            m = shelf.restored(make())
        if step != "asleep":
            shelf.append(m.advance(at, "stopped"))
            shown = shown_at(step, at, true)
            assert shown is not None
            shelf.append(m.take(shown, at))
    by = source(WRAPPING, max_power="960000")
    for one in SENDS:
        found = again(of(shelf, one.key), by, one)
        assert [a.stored for a in found] == of(shelf, one.key)
        told = [a for a in found if a.value is not None]
        assert all(a.value == a.stored.value for a in told)
        assert len(told) >= len(found) - 2 * sum(step in ("low", "high") for step, _ in story)


def polls(at: Instant, *shown: str, every: int = MINUTE) -> list[Sample]:
    watts = PROFILE.registers[1]
    return [sample(at + n * every, {watts: value}) for n, value in enumerate(shown)]


@pytest.mark.parametrize("kind", ["mean", "minimum", "maximum", "last"])
def test_means_and_extremes_are_formed_anew_from_the_polls(kind):
    one = send(kind, quantity="active_power_total", every=5 * MINUTE)
    shown = [str(100 + 7 * n % 31) for n in range(31)]
    samples = polls(NOON + 20, *shown)
    told, truth = Shelf(), Shelf()
    for shelf, ratio in ((told, "10"), (truth, "60")):
        m = meter(one, multiplier=ratio)
        for each in samples:
            shelf.append(m.advance(each.at - 20, "stopped"))
            shelf.append(m.take(each, each.at - 20))
    by = Source(meter_settings(one, multiplier="60"), "active_power_total")

    def again_of(some: list[Sample]) -> dict[Instant, Decimal]:
        found = PolledAgain(one, by, UTC, "start", MINUTE)
        for each in some:
            found.take(each)
        return found.values

    expected = {reading.stamp: reading.value for reading in truth.readings.values()}
    assert len(expected) == 6
    assert again_of(samples) == expected
    # Of an interval at the edge too few are known; what is formed of the others is the same.
    assert again_of(samples[4:]) == {at: value for at, value in expected.items() if at > NOON}
