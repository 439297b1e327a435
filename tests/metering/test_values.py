"""Every interval has one reading or one gap, in order, whatever happens in between."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.clock import DAY, HOUR, MINUTE, SECOND, Instant, Millis
from gateway.metering.interval import next_boundary, previous_boundary
from gateway.metering.meter import Outcome
from gateway.metering.reading import As, Gap, SeriesKey
from gateway.metering.settings import Label
from tests.metering.samples import ENERGY, POWER, meter, sample, send, silent

PLACES = ("Europe/Oslo", "Australia/Lord_Howe", "America/Havana", "Asia/Kathmandu", "UTC")
# Some hours before and after the clocks of these places are changed in 2026, and a day without.
STARTS = ("2026-03-28T20:00", "2026-10-24T20:00", "2026-04-04T13:00", "2026-10-03T13:00",
          "2026-03-07T20:00", "2026-10-31T20:00", "2026-06-01T00:00")  # fmt: skip


def stamps_of(outcome: Outcome, key: SeriesKey, every: Millis, zone: ZoneInfo) -> list[Instant]:
    """Those of the readings and gaps, runs of gaps written out."""
    found = [reading.stamp for reading in outcome.readings if reading.key == key]
    for gap in outcome.gaps:
        if gap.key == key:
            found += written_out(gap, every, zone)
    return sorted(found)


def written_out(gap: Gap, every: Millis, zone: ZoneInfo) -> list[Instant]:
    found = [gap.stamp]
    while gap.last is not None and found[-1] < gap.last:
        found.append(next_boundary(found[-1], every, zone))
    assert len(found) == gap.count
    return found


steps = st.lists(
    st.tuples(
        st.sampled_from(["good", "good", "good", "silent", "zero", "asleep", "step"]),
        st.sampled_from(
            [10 * SECOND, 50 * SECOND, MINUTE, 7 * MINUTE, 15 * MINUTE, HOUR, 9 * HOUR]
        ),
        st.integers(0, 70 * SECOND),
    ),
    min_size=5,
    max_size=50,
)


@given(
    steps,
    st.sampled_from(PLACES),
    st.sampled_from(STARTS),
    st.sampled_from([15 * MINUTE, 30 * MINUTE, HOUR, 6 * HOUR, 12 * HOUR, DAY]),
    st.sampled_from(["start", "end"]),
    st.sampled_from(["counter", "consumption", "mean", "last"]),
)
@example([("good", 9 * HOUR, 0)] * 12, "Europe/Oslo", STARTS[1], DAY, "start", "mean")
@settings(max_examples=150, deadline=None, derandomize=True)
def test_stamps_follow_one_another_without_a_hole_and_none_comes_twice(
    story: list[tuple[str, Millis, Millis]],
    place: str,
    start: str,
    every: Millis,
    label: Label,
    as_: As,
):
    zone = ZoneInfo(place)
    quantity = "active_power_total" if as_ in ("mean", "last") else ENERGY.name
    made = send(as_, quantity=quantity, every=every)
    m = meter(made, zone=zone, label=label)
    at = begun = int(datetime.fromisoformat(start).replace(tzinfo=zone).timestamp() * 1000)
    found = stamps_of(m.advance(at, "stopped"), made.key, every, zone)
    latest = at
    for number, (step, passed, late) in enumerate(story):
        at += -min(passed, HOUR) if step == "step" else passed
        latest = max(latest, at)
        outcomes = [] if step == "asleep" else [m.advance(at, "bus_busy")]
        shown = {ENERGY: "0" if step == "zero" else str(1000 + number), POWER: str(number)}
        if step == "silent":
            outcomes.append(m.take(silent(at + late), at))
        elif step != "asleep":
            outcomes.append(m.take(sample(at + late, shown), at))
        latest = max(latest, at + (late if step != "asleep" else 0))
        for outcome in outcomes:
            found += stamps_of(outcome, made.key, every, zone)
    end = latest + 2 * DAY
    found += stamps_of(m.advance(end, "stopped"), made.key, every, zone)
    assert found == sorted(found)
    for one, following in pairwise(found):
        assert next_boundary(one, every, zone) == following
    assert found[0] <= next_boundary(begun, every, zone)
    assert next_boundary(found[-1], every, zone) >= previous_boundary(end - MINUTE, every, zone)
