"""What status shows of the ledger."""

from __future__ import annotations

import pytest

from gateway.buffer.views import GapLine
from gateway.clock import DAY, HOUR, MINUTE
from gateway.status import missing_view
from tests.metering.samples import KEY, send, settings

NOON = 1_773_144_000_000
QUARTER = 15 * MINUTE


@pytest.mark.parametrize(
    ("first", "last", "count", "shown"),
    [
        pytest.param(NOON - HOUR, NOON - HOUR, 1, 1, id="one"),
        pytest.param(NOON - HOUR, NOON - QUARTER, 4, 4, id="a run"),
        pytest.param(NOON - 3 * DAY, NOON - QUARTER, 288, 96, id="a run that began before"),
        pytest.param(NOON - 3 * DAY, NOON - DAY, 193, 1, id="one that ended as the day began"),
        pytest.param(NOON - 400 * DAY, NOON - HOUR, 5, 5, id="with a leap of the clock in it"),
    ],
)
def test_of_a_run_of_missing_values_those_of_the_last_day_are_counted(
    first: int, last: int, count: int, shown: int
) -> None:
    meters = [settings(send("counter", every=QUARTER))]
    gaps = [GapLine(KEY, first, last, "stopped", count)]
    assert missing_view(gaps, NOON - DAY, meters) == {"main": {"stopped": shown}}


def test_meter_ids_of_a_meter_are_counted_together_and_others_not_at_all() -> None:
    other = send("mean", quantity="active_power_total", key=type(KEY)("", "2"))
    gaps = [
        GapLine(key, NOON, NOON, reason, 1)
        for key, reason in (
            (KEY, "timeout"),
            (other.key, "timeout"),
            (KEY, "crc"),
            (type(KEY)("", "9"), "crc"),
        )
    ]
    meters = [settings(send("counter"), other)]
    assert missing_view(gaps, NOON - DAY, meters) == {"main": {"timeout": 2, "crc": 1}}
