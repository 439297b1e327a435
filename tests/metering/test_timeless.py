"""Samples of boots that never had the time: between which instants they are."""

from __future__ import annotations

from itertools import pairwise

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import HOUR, MINUTE, SECOND
from gateway.metering.reading import SeriesKey
from gateway.metering.timeless import bounded
from tests.metering.samples import ENERGY, KEY, POWER, meter, sample, send

NOON = 1_773_144_000_000

BOOTS = st.lists(
    st.tuples(
        st.integers(0, 48 * HOUR),
        st.lists(st.integers(1, HOUR), min_size=1, max_size=9),
        st.integers(0, HOUR),
    ),
    min_size=1,
    max_size=5,
)
"""For each boot: how long the machine was off before, from sample to sample, then to its end."""


@given(BOOTS, st.integers(0, HOUR))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_sample_can_be_later_than_its_bound_and_the_order_is_kept(boots, off) -> None:
    at, samples, truth = NOON, [], []
    for nth, (before, steps, after) in enumerate(boots):
        at += before
        boottime = 0
        for step in steps:
            boottime += step
            one = sample(0, {ENERGY: "1"})
            samples.append(evolve(one, boot_id=f"boot-{nth}", boottime=boottime))
            truth.append(at + boottime)
        at += boottime + after
    found = bounded(samples, at + off)
    bounds = [latest for _, latest in found]
    assert [one for one, _ in found] == samples
    assert bounds == sorted(bounds)
    assert all(true <= bound <= at + off for true, bound in zip(truth, bounds, strict=True))
    # Within a boot they are exactly as far apart as they were.
    for (one, bound), (other, following) in pairwise(found):
        if one.boot_id == other.boot_id:
            assert following - bound == other.boottime - one.boottime


def test_what_a_meter_showed_is_told_once_an_interval_and_nothing_is_reckoned_of_it() -> None:
    m = meter(
        send("counter", every=5 * MINUTE),
        send("consumption", every=5 * MINUTE, key=SeriesKey("", "2")),
        send("last", quantity=POWER.name, every=3 * MINUTE, key=SeriesKey("", "3")),
        send("mean", quantity=POWER.name, every=5 * MINUTE, key=SeriesKey("", "4")),
        multiplier="10",
    )
    samples = [
        (sample(0, {ENERGY: str(100 + n), POWER: str(n)}), NOON + n * MINUTE + 250)
        for n in range(8)
    ]
    samples[0] = sample(0, {POWER: "0"}), samples[0][1]  # the first lacks the energy
    found = m.without_time(samples)
    assert [(r.key, (r.stamp - NOON) / MINUTE, str(r.value)) for r in found] == [
        (KEY, 1, "1010"), (KEY, 6, "1060"),
        (SeriesKey("", "3"), 0, "0"), (SeriesKey("", "3"), 3, "30"), (SeriesKey("", "3"), 6, "60"),
    ]  # fmt: skip
    assert all(r.held == "no_time" and r.stamp % SECOND == 0 for r in found)
    assert found[0].raw == sample(0, {ENERGY: "101"}).raw
