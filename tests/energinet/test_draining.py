"""A backlog is foretold while it drains."""

from __future__ import annotations

import pytest

from gateway.clock import DAY, HOUR, MINUTE, about
from gateway.energinet.draining import SAID_EVERY, Draining

SLOT = 10 * MINUTE
FULL = 16_000


def test_what_the_next_request_carries_is_no_backlog() -> None:
    draining = Draining(SLOT)
    assert draining.sent(FULL, FULL - 1, more=True, now=0) is None
    assert draining.sent(FULL, 5 * FULL, more=False, now=SLOT) is None


def test_a_request_that_confirmed_nothing_foretells_nothing() -> None:
    assert Draining(SLOT).sent(0, 5 * FULL, more=True, now=0) is None


def test_the_first_forecast_goes_by_what_one_request_carries() -> None:
    event, fields = Draining(SLOT).sent(FULL, 144 * FULL, more=True, now=0) or ("", {})
    assert event == "upload.draining"
    assert fields == {"pending": 144 * FULL, "takes": "24 h"}


def test_later_forecasts_go_by_what_became_of_the_last() -> None:
    draining, pending = Draining(SLOT), 100 * FULL
    draining.sent(FULL, pending, more=True, now=0)
    said = []
    for slot in range(1, SAID_EVERY + 1):
        pending -= FULL // 2  # as much again comes in
        said.append(draining.sent(FULL, pending, more=True, now=slot * SLOT))
    assert said[:-1] == [None] * (SAID_EVERY - 1)
    assert said[-1] == ("upload.draining", {"pending": pending, "takes": about(164 * SLOT)})


def test_where_more_comes_in_than_is_sent_no_end_is_promised() -> None:
    draining = Draining(SLOT)
    draining.sent(FULL, 10 * FULL, more=True, now=0)
    said = draining.sent(FULL, 11 * FULL, more=True, now=SAID_EVERY * SLOT)
    assert said is not None
    assert said[1]["takes"] == "more comes in than is sent"


def test_the_end_is_said_once_and_the_next_backlog_anew() -> None:
    draining = Draining(SLOT)
    draining.sent(FULL, 3 * FULL, more=True, now=0)
    assert draining.sent(FULL, FULL, more=True, now=SLOT) is None
    said = draining.sent(FULL, 7, more=False, now=2 * SLOT)
    assert said == ("upload.drained", {"for": "20 min", "pending": 7})
    assert draining.sent(7, 0, more=False, now=3 * SLOT) is None
    assert draining.sent(FULL, 3 * FULL, more=True, now=DAY) is not None


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (0, "0 s"),
        (90_000, "90 s"),
        (40 * MINUTE, "40 min"),
        (7.5 * HOUR, "7.5 h"),
        (2 * DAY, "2 d"),
    ],
)
def test_a_length_of_time_is_told_in_the_largest_unit_of_which_there_are_two(
    span: float, said: str
) -> None:
    assert about(span) == said
