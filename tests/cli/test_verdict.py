"""What the demo is judged by, on evidence made by hand: one thing falsified at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from attrs import evolve

from gateway.buffer.views import ExportRow, GapLine
from gateway.cli.stage import ACTORS, EVERY, ZONE, Line, Stage
from gateway.cli.verdict import Evidence, Verdict, bounds, judge, told
from gateway.clock import SECOND, Instant
from gateway.config import Library
from gateway.energinet.standin import Accepted, StandIn
from gateway.metering.reading import Counts, RawWords, SeriesKey
from gateway.modbus.simulator import SimulatedMeter

BEGAN: Instant = 1_800_000_000_000
LENGTH = 20
"""Boundaries of the show."""


def name_of(stamp: Instant) -> str:
    return datetime.fromtimestamp(stamp / 1000, ZoneInfo(ZONE)).strftime("%Y-%m-%dT%H:%M:%S")


class Show:
    """A demo in which everything went well, to be falsified."""

    def __init__(self, folder: Path) -> None:
        self.stage = Stage(folder)
        self.stage.standin = StandIn({}, zone=ZONE)
        library = Library(None)
        for number, actor in enumerate(ACTORS):
            self.stage.meters[actor.name] = SimulatedMeter(
                library.get(actor.profile), actor.unit, BEGAN, seed=number, faults=actor.faults
            )
        self.stage._write("http://127.0.0.1:1/", [])
        self.rows: list[ExportRow] = []
        self.gaps: list[GapLine] = []
        self.errors: list[str] = []
        self.dropped = 0
        for line in self.stage.lines.values():
            for n in range(LENGTH):
                self.hold(line, BEGAN + n * EVERY, self.right(line, BEGAN + n * EVERY))

    def line(self, meter: str, as_: str = "counter") -> Line:
        return next(x for x in self.stage.lines.values() if (x.meter, x.as_) == (meter, as_))

    def right(self, line: Line, stamp: Instant) -> Decimal:
        if line.as_ == "consumption":
            counter = self.line(line.meter)
            return self.right(counter, stamp + EVERY) - self.right(counter, stamp)
        return bounds(self.stage.meters[line.meter], line, stamp, stamp)[0]

    def hold(self, line: Line, stamp: Instant, value: Decimal) -> None:
        key = SeriesKey("", line.meter_id)
        self.rows.append(ExportRow(key, line.meter, stamp, value, "confirmed", RawWords()))
        self.take(line, stamp, value)

    def take(self, line: Line, stamp: Instant, value: Decimal) -> None:
        standin = self.stage.standin
        standin.received.setdefault(line.meter_id, {})[name_of(stamp)] = value
        standin.accepted.append(Accepted(stamp, "demo", line.meter_id, name_of(stamp), value))

    def lose(self, line: Line, stamp: Instant) -> None:
        """Nobody knows of it."""
        self.rows = [r for r in self.rows if (r.key.meter_id, r.stamp) != (line.meter_id, stamp)]
        self.stage.standin.received[line.meter_id].pop(name_of(stamp), None)

    def miss(self, line: Line, stamp: Instant, reason: str = "timeout", count: int = 1) -> None:
        """The ledger says why it is not there."""
        for n in range(count):
            self.lose(line, stamp + n * EVERY)
        last = stamp + (count - 1) * EVERY
        self.gaps.append(GapLine(SeriesKey("", line.meter_id), stamp, last, reason, count))

    def verdict(self) -> Verdict:
        stored = len(self.rows)
        counts = Counts(stored=stored + self.dropped, confirmed=stored)
        ended = BEGAN + (LENGTH - 1) * EVERY + 4 * SECOND
        return judge(self.stage, Evidence(self.rows, self.gaps, counts, self.errors, BEGAN, ended))


@pytest.fixture
def show(tmp_path: Path) -> Show:
    return Show(tmp_path)


def test_a_show_in_which_all_went_well_is_well(show: Show) -> None:
    verdict = show.verdict()
    assert verdict.ok, told(verdict)
    assert verdict.missing == {}
    assert "none was lost" in told(verdict)


THIRD = BEGAN + 3 * EVERY


def test_what_moved_over_missing_intervals_belongs_to_the_one_after_them(show: Show) -> None:
    line, counter = show.line("lift", "consumption"), show.line("lift")
    show.miss(line, THIRD - 2 * EVERY, "bus_busy", count=2)
    show.lose(line, THIRD)
    moved = show.right(counter, THIRD + EVERY) - show.right(counter, THIRD - 2 * EVERY)
    show.miss(counter, THIRD - EVERY, "bus_busy", count=2)
    show.hold(line, THIRD, moved)
    assert show.verdict().ok, told(show.verdict())
    show.lose(line, THIRD)
    show.hold(line, THIRD, 3 * moved + 1)
    assert not show.verdict().ok


def too_high(show: Show) -> None:
    line = show.line("main-supply")
    high = bounds(show.stage.meters[line.meter], line, THIRD, THIRD)[1]
    falsify(show, line, high + Decimal("0.01"))


def of_an_interval_ago(show: Show) -> None:
    line = show.line("cooling")
    falsify(show, line, show.right(line, THIRD - 2 * EVERY))


def consumption_that_does_not_add_up(show: Show) -> None:
    line = show.line("lift", "consumption")
    falsify(show, line, show.right(line, THIRD) + Decimal("0.01"))


def zero_in_place_of_a_power(show: Show) -> None:
    falsify(show, show.line("roof", "last"), Decimal(0))


def falsify(show: Show, line: Line, value: Decimal) -> None:
    """Wrong all the way: what is stored is what is sent."""
    show.lose(line, THIRD)
    show.hold(line, THIRD, value)


def of_no_stored_reading(show: Show) -> None:
    line = show.line("roof")
    show.take(line, BEGAN - EVERY, show.right(line, BEGAN - EVERY))


def of_no_meter(show: Show) -> None:
    show.take(Line("1234", "nobody", "x", "counter"), THIRD, Decimal(1))


def against_a_limit(show: Show) -> None:
    show.stage.standin.violations.append("429: sender demo asked 100 ms early")


@pytest.mark.parametrize(
    "plant",
    [
        too_high,
        of_an_interval_ago,
        consumption_that_does_not_add_up,
        zero_in_place_of_a_power,
        of_no_stored_reading,
        of_no_meter,
        against_a_limit,
    ],
)
def test_what_is_wrong_is_seen(show: Show, plant: Callable[[Show], None]) -> None:
    plant(show)
    verdict = show.verdict()
    assert len(verdict.wrong) >= 1
    assert not verdict.ok
    assert "WRONG" in told(verdict)
    assert "none was lost" not in told(verdict)


def without_a_trace(show: Show) -> None:
    show.lose(show.line("workshop"), THIRD)


def stored_but_not_delivered(show: Show) -> None:
    line = show.line("workshop")
    show.stage.standin.received[line.meter_id].pop(name_of(THIRD))


def delivered_otherwise_than_stored(show: Show) -> None:
    line = show.line("main-supply", "mean")
    low, high = bounds(show.stage.meters[line.meter], line, THIRD, THIRD)
    show.take(line, THIRD, (low + high) / 2)


def stored_and_missing(show: Show) -> None:
    key = SeriesKey("", show.line("roof").meter_id)
    show.gaps.append(GapLine(key, THIRD, THIRD, "timeout", 1))


def counts_that_do_not_add_up(show: Show) -> None:
    show.dropped = 1


def a_meter_that_answers_but_is_not_read(show: Show) -> None:
    show.miss(show.line("roof"), BEGAN + 4 * EVERY, "bus_busy", count=10)


@pytest.mark.parametrize(
    "plant",
    [
        without_a_trace,
        stored_but_not_delivered,
        delivered_otherwise_than_stored,
        stored_and_missing,
        counts_that_do_not_add_up,
        a_meter_that_answers_but_is_not_read,
    ],
)
def test_what_is_lost_is_seen(show: Show, plant: Callable[[Show], None]) -> None:
    plant(show)
    verdict = show.verdict()
    assert len(verdict.lost) == 1, told(verdict)
    assert not verdict.ok
    assert "LOST" in told(verdict)


def test_a_silent_meter_s_values_may_be_missing_but_it_has_to_come_back(show: Show) -> None:
    silent = show.line("heat-pump")
    show.miss(silent, BEGAN + 3 * EVERY)  # made silent from 12 s to 19 s, and from 52 s
    show.miss(silent, BEGAN + 4 * EVERY, "offline")
    verdict = show.verdict()
    assert verdict.ok, told(verdict)
    assert verdict.missing == {
        "heat-pump": {"timeout, made silent": 1, "offline, made silent": 1},
    }
    show.stage.meters["heat-pump"].faults = ()
    assert show.verdict().ok  # two are few
    show.miss(silent, BEGAN + 5 * EVERY, "offline", count=10)
    assert not show.verdict().ok


def test_a_busy_machine_may_miss_a_little(show: Show) -> None:
    show.miss(show.line("lift"), BEGAN + 9 * EVERY, "bus_busy")
    verdict = show.verdict()
    assert verdict.ok, told(verdict)
    assert "not there: lift: 1 bus_busy" in told(verdict)


def test_an_error_in_the_log_is_no_success(show: Show) -> None:
    show.errors.append("level=error event=task.failed")
    verdict = show.verdict()
    assert not verdict.ok
    assert "LOG    level=error" in told(verdict)


def test_nothing_at_all_is_no_success(show: Show) -> None:
    show.rows.clear()
    show.stage.standin.received.clear()
    for line in show.stage.lines.values():
        show.gaps.append(GapLine(SeriesKey("", line.meter_id), BEGAN, BEGAN, "timeout", LENGTH))
    verdict = show.verdict()
    assert not evolve(verdict, lost=()).ok
    assert not verdict.ok
