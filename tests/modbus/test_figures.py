"""What the hourly line says of buses and meters."""

from __future__ import annotations

from attrs import evolve

from gateway.modbus.figures import worst
from gateway.modbus.health import Unit
from gateway.modbus.line import LinkReport
from gateway.modbus.plan import Read

READ = Read(3, 0, 2)
RISER = LinkReport("riser", "/dev/riser", True, 0.0, "", 0.34, True)


def unit(meter: str, turnaround: float, *, timeouts: int = 0, damaged: int = 0) -> Unit:
    known = Unit(meter, 1, longest=1.0, shortest=0.1)
    for now in range(10 - timeouts - damaged):
        known.answered(READ, turnaround, now)
    for now in range(timeouts):
        known.fell_silent(READ, "timeout", now)
    for now in range(damaged):
        known.garbled(READ, "crc", now)
    return known


def test_the_worst_of_each_is_named():
    sound, bad = unit("main", 0.412), unit("lift", 0.02, timeouts=1, damaged=3)
    buses = [
        (RISER, (sound.report(), bad.report())),
        (evolve(RISER, bus="roof", busy=0.05), (unit("roof", 0.01, timeouts=2).report(),)),
    ]
    assert worst(buses) == {
        "busiest": "riser 34%",
        "most_failed": "lift 40% crc",
        "slowest": "main 412ms",
    }


def test_nothing_is_said_where_nothing_was_asked_or_failed():
    assert set(worst([]).values()) == {None}
    new = Unit("new", 1, longest=1.0, shortest=0.1)
    assert set(worst([(evolve(RISER, busy=0.0), (new.report(),))]).values()) == {None}
    assert worst([(RISER, (unit("main", 0.02).report(),))])["most_failed"] is None
