"""Boundaries of intervals, in every zone there is."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.clock import DAY, HOUR, MINUTE, SECOND
from gateway.metering.interval import (
    count_boundaries,
    is_boundary,
    latest_boundary,
    next_boundary,
    next_poll,
    previous_boundary,
    repeats,
    window,
)

FIRST = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp())
LAST = int(datetime(2036, 1, 1, tzinfo=UTC).timestamp())

zones = st.sampled_from(sorted(available_timezones() - {"localtime", "Factory"})).map(ZoneInfo)
everies = st.sampled_from([n * SECOND for n in range(5, 86_401) if 86_400 % n == 0])
instants = st.integers(FIRST * 1000, LAST * 1000 - 1)


@cache
def jumps(zone: ZoneInfo) -> list[int]:
    """Every instant at which the zone's clock jumps, found by looking at each hour's end."""
    found, at = [], FIRST
    step = 7 * 86_400
    while at < LAST:
        if offset(zone, at) != offset(zone, at + step):
            low, high = at, at + step
            while high - low > 1:
                middle = (low + high) // 2
                if offset(zone, middle) == offset(zone, at):
                    low = middle
                else:
                    high = middle
            found.append(high * 1000)
        at += step
    return found


def offset(zone: ZoneInfo, seconds: int) -> float:
    delta = datetime.fromtimestamp(seconds, zone).utcoffset()
    assert delta is not None
    return delta.total_seconds()


def shown(at: int, zone: ZoneInfo) -> int:
    """Milliseconds since local midnight on the site's clock."""
    local = datetime.fromtimestamp(at // 1000, zone)
    return ((local.hour * 60 + local.minute) * 60 + local.second) * 1000 + at % 1000


def at_jump(at: int, zone: ZoneInfo) -> bool:
    return offset(zone, at // 1000) != offset(zone, at // 1000 - 1)


def texts(start: str, every: int, zone: str, count: int) -> list[str]:
    """Local clock times, with offset, of the boundaries after `start`."""
    place = ZoneInfo(zone)
    at = int(datetime.fromisoformat(start).timestamp() * 1000)
    found = []
    for _ in range(count):
        at = next_boundary(at, every, place)
        found.append(datetime.fromtimestamp(at / 1000, place).isoformat(timespec="minutes"))
    return found


# An instant near one of the zone's jumps, where everything that can go wrong does.
near_jumps = zones.flatmap(
    lambda zone: st.tuples(
        st.just(zone),
        st.builds(
            lambda at, by: at + by,
            st.sampled_from(jumps(zone) or [FIRST * 1000]),
            st.integers(-2 * DAY, 2 * DAY) | st.integers(-2 * HOUR, 2 * HOUR),
        ),
    )
)
anywhere = st.tuples(zones, instants) | near_jumps


@given(anywhere, everies)
@settings(max_examples=600, deadline=None, derandomize=True)
def test_a_boundary_shows_a_multiple_of_the_interval_or_is_a_jump(where, every):
    zone, at = where
    boundary = next_boundary(at, every, zone)
    assert boundary > at
    assert boundary % 1000 == 0
    assert shown(boundary, zone) % every == 0 or at_jump(boundary, zone)


@given(anywhere, everies)
@settings(max_examples=600, deadline=None, derandomize=True)
def test_intervals_tile_time(where, every):
    zone, at = where
    first = next_boundary(at, every, zone)
    second = next_boundary(first, every, zone)
    assert second > first
    assert previous_boundary(second, every, zone) == first
    assert previous_boundary(first, every, zone) <= at
    assert next_boundary(previous_boundary(first, every, zone), every, zone) == first
    assert is_boundary(first, every, zone)
    assert not is_boundary(first + 1, every, zone)
    for inside in {first + 1, (first + second) // 2, second - 1, second}:
        assert next_boundary(inside - 1, every, zone) == second
        assert previous_boundary(inside, every, zone) == first
        assert latest_boundary(inside, every, zone) == (second if inside == second else first)


@given(anywhere, st.sampled_from([n * MINUTE for n in (1, 15, 20, 30, 60, 120, 360, 1440)]))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_multiple_within_an_interval_but_one_that_is_shown_again_too_soon(where, every):
    zone, at = where
    start = next_boundary(at, every, zone)
    end = next_boundary(start, every, zone)
    for inside in range(start + MINUTE, end, MINUTE):
        if shown(inside, zone) % every == 0:
            local = datetime.fromtimestamp(inside / 1000, zone)
            assert local.fold
            assert local.replace(fold=0).timestamp() * 1000 > inside - every


@given(anywhere, st.sampled_from([n * MINUTE for n in (1, 5, 10, 15, 20, 30, 60, 120, 1440)]))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_two_boundaries_are_shown_alike_only_where_the_clock_repeats_itself(where, every):
    zone, at = where
    found, seen, boundaries = set(), {}, set()
    boundary = at - 4 * HOUR
    while boundary < at + 4 * HOUR:
        boundary = next_boundary(boundary, every, zone)
        text = datetime.fromtimestamp(boundary // 1000, zone).replace(tzinfo=None)
        if text in seen:
            found.add((seen[text], boundary))
        seen[text] = boundary
        boundaries.add(boundary)
    told = set()
    for repeat in repeats(at - 3 * DAY, at + 3 * DAY, zone):
        assert repeat.turn - repeat.start == repeat.end - repeat.turn == repeat.length > 0
        for first in boundaries if every <= repeat.length else ():
            second = first + repeat.length
            if repeat.start <= first < repeat.turn and second in boundaries:
                told.add((first, second))
    assert found == told


@given(anywhere, st.sampled_from([5 * MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, DAY]), st.integers(0, 9))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_counting_boundaries_is_walking_them(where, every, days):
    zone, after = where
    until = after + days * DAY // 2
    walked, at = 0, next_boundary(after, every, zone)
    while at <= until:
        walked, at = walked + 1, next_boundary(at, every, zone)
    assert count_boundaries(after, until, every, zone) == walked


def test_a_year_of_five_seconds_is_counted_at_once():
    zone = ZoneInfo("Europe/Oslo")
    start = int(datetime(2026, 1, 1, tzinfo=zone).timestamp() * 1000)
    end = int(datetime(2027, 1, 1, tzinfo=zone).timestamp() * 1000)
    assert count_boundaries(start, end, 5 * SECOND, zone) == 365 * 17_280


@pytest.mark.parametrize(
    ("start", "every", "zone", "expected"),
    [
        pytest.param(
            "2026-03-29T00:30+01:00", HOUR, "Europe/Oslo",
            ["2026-03-29T01:00+01:00", "2026-03-29T03:00+02:00", "2026-03-29T04:00+02:00"],
            id="an hour is left out in spring",
        ),
        pytest.param(
            "2026-10-25T01:30+02:00", HOUR, "Europe/Oslo",
            ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00"],
            id="an hour comes twice in autumn",
        ),
        pytest.param(
            "2026-10-25T01:30+02:00", 2 * HOUR, "Europe/Oslo",
            ["2026-10-25T02:00+02:00", "2026-10-25T04:00+01:00"],
            id="a two-hour interval grows to three hours",
        ),
        pytest.param(
            "2026-03-28T17:00+01:00", 6 * HOUR, "Europe/Oslo",
            ["2026-03-28T18:00+01:00", "2026-03-29T00:00+01:00", "2026-03-29T06:00+02:00"],
            id="every 6 h stays on 00 06 12 18",
        ),
        pytest.param(
            "2026-10-24T12:00+02:00", DAY, "Europe/Oslo",
            ["2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"],
            id="a day of 25 hours",
        ),
        pytest.param(
            "2026-04-05T00:30+11:00", HOUR, "Australia/Lord_Howe",
            ["2026-04-05T01:00+11:00", "2026-04-05T02:00+10:30", "2026-04-05T03:00+10:30"],
            id="a repeated half hour makes one interval of an hour and a half",
        ),
        pytest.param(
            "2026-04-05T01:10+11:00", 30 * MINUTE, "Australia/Lord_Howe",
            ["2026-04-05T01:30+11:00", "2026-04-05T01:30+10:30", "2026-04-05T02:00+10:30"],
            id="a repeated half hour is an interval of half an hour",
        ),
        pytest.param(
            "2026-10-04T01:10+10:30", HOUR, "Australia/Lord_Howe",
            ["2026-10-04T02:30+11:00", "2026-10-04T03:00+11:00"],
            id="a time that is left out is replaced by the jump",
        ),
        pytest.param(
            "2018-11-03T12:00-03:00", DAY, "America/Sao_Paulo",
            ["2018-11-04T01:00-02:00", "2018-11-05T00:00-02:00"],
            id="a day without a midnight begins at the jump",
        ),
        pytest.param(
            "2026-10-31T12:00-04:00", DAY, "America/Havana",
            ["2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00"],
            id="a midnight that comes twice begins one day",
        ),
        pytest.param(
            "2011-12-29T12:00-10:00", DAY, "Pacific/Apia",
            ["2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00"],
            id="a day that did not exist",
        ),
        pytest.param(
            "2026-06-01T00:10+05:45", 15 * MINUTE, "Asia/Kathmandu",
            ["2026-06-01T00:15+05:45", "2026-06-01T00:30+05:45"],
            id="a zone of three quarters",
        ),
    ],
)  # fmt: skip
def test_boundaries_follow_the_site_clock(start, every, zone, expected):
    assert texts(start, every, zone, len(expected)) == expected


def test_the_window_is_a_tenth_of_the_interval_within_a_second_and_a_minute():
    assert [window(every) for every in (5 * SECOND, 10 * SECOND, MINUTE, 5 * MINUTE, DAY)] == [
        SECOND,
        SECOND,
        6 * SECOND,
        30 * SECOND,
        MINUTE,
    ]


@given(anywhere, st.sampled_from([SECOND, 5 * SECOND, 7 * SECOND, MINUTE, 25 * MINUTE, 2 * DAY]))
@example((ZoneInfo("Asia/Kathmandu"), FIRST * 1000), HOUR)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_polls_come_at_their_pace_and_on_boundaries_where_they_can(where, poll):
    zone, at = where
    first = next_poll(at, poll, zone)
    assert first > at
    if DAY % poll == 0:
        assert is_boundary(first, poll, zone)
    else:
        assert next_poll(first, poll, zone) - first == poll
