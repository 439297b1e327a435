"""What the demo is judged by: what Energinet holds, beside what the meters stood at.

Every boundary of every meterID has to end in one of two places: as a value that Energinet holds,
or as a line of the ledger with its reason. A reason that the demo has not caused itself is told;
where a meterID misses much for such reasons, that is as bad as a loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from attrs import frozen

from gateway.buffer.views import ExportRow, GapLine
from gateway.cli.output import counted
from gateway.cli.stage import ACTORS, EVERY, ZONE, Line, Stage
from gateway.clock import SECOND, Instant, Millis
from gateway.metering.interval import window
from gateway.metering.reading import Counts
from gateway.modbus.simulator import SimulatedMeter

LATEST: Final[Millis] = window(EVERY) + 200
"""A sample may be as late after its boundary as its window allows; two clocks are read."""
BACK_AGAIN: Final[Millis] = 15 * SECOND
"""A meter that was silent is asked again after so long at most."""
SETTLED: Final[Millis] = window(EVERY) + 2 * SECOND
"""A boundary that long ago has its reading or its gap."""
START_UP: Final[Millis] = 10 * SECOND
"""A machine with much else to do may need so long until its rounds keep their time."""
FEW: Final = 2
"""Values that a meterID may miss on a busy machine, or a third of all."""


@frozen
class Evidence:
    """What is known at the end."""

    rows: Sequence[ExportRow]
    gaps: Sequence[GapLine]
    counts: Counts
    errors: Sequence[str]
    """Log lines at error level."""
    began: Instant
    """When the gateway said that it runs."""
    ended: Instant
    """When it was told to ask no more."""


@frozen
class Verdict:
    """The sum of it. It is well where `faults` is empty."""

    stored: int
    confirmed: int
    waiting: int
    requests: int
    missing: Mapping[str, Mapping[str, int]]
    """Meter to why it misses values to how many: see `_missing`."""
    lost: tuple[str, ...]
    wrong: tuple[str, ...]
    errors: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Did everything arrive that could, and nothing else?"""
        return self.confirmed > 0 and not (self.lost or self.wrong or self.errors)

    def view(self) -> dict[str, Any]:
        """As `demo --json` prints it."""
        return {
            "ok": self.ok,
            "meters": len(ACTORS),
            "stored": self.stored,
            "confirmed": self.confirmed,
            "pending": self.waiting,
            "requests": self.requests,
            "missing": {meter: dict(reasons) for meter, reasons in self.missing.items()},
            "lost": list(self.lost),
            "wrong": list(self.wrong),
            "errors": list(self.errors),
        }


def judge(stage: Stage, evidence: Evidence) -> Verdict:
    """Compare everything with everything."""
    held = _held(stage)
    stored = {(row.key.meter_id, row.stamp): row.value for row in evidence.rows}
    missing, too_many = _missing(stage, evidence)
    lost = [
        f"{_place(stage, key)}: {value} was stored, Energinet holds {held.get(key, 'nothing')}"
        for key, value in stored.items()
        if held.get(key) != value
    ]
    lost += _unaccounted(stage, evidence, stored.keys())
    lost += too_many
    if not evidence.counts.balanced:
        lost.append(f"the counts of the buffer do not add up: {evidence.counts}")
    wrong = [
        f"{_place(stage, key)}: {value} was never stored"
        for key, value in held.items()
        if key not in stored
    ]
    wrong += _wrong(stage, held, evidence.gaps)
    wrong += [f"a limit was broken: {what}" for what in stage.standin.violations]
    counts = evidence.counts
    return Verdict(
        stored=counts.stored,
        confirmed=counts.confirmed,
        waiting=counts.pending + counts.in_flight,
        requests=len(stage.standin.requests),
        missing=missing,
        lost=tuple(lost),
        wrong=tuple(wrong),
        errors=tuple(evidence.errors),
    )


Key = tuple[str, Instant]
"""A meterID and a stamp."""


def _held(stage: Stage) -> dict[Key, Decimal]:
    """What Energinet holds."""
    zone = ZoneInfo(ZONE)
    return {
        (meter_id, int(datetime.fromisoformat(stamp).replace(tzinfo=zone).timestamp()) * 1000): v
        for meter_id, values in stage.standin.received.items()
        for stamp, v in values.items()
    }


def _place(stage: Stage, key: Key) -> str:
    meter_id, stamp = key
    line = stage.lines.get(meter_id)
    meter = f"{line.meter} {line.as_}" if line else "no meter"
    return f"{meter} ({meter_id}) at {datetime.fromtimestamp(stamp / 1000, UTC):%H:%M:%SZ}"


# ---------------------------------------------------------------------------------- is it there?


def _unaccounted(stage: Stage, evidence: Evidence, stored: Iterable[Key]) -> list[str]:
    """Boundaries of which neither a reading nor a gap is known, or both are."""
    gaps = [(line.key.meter_id, stamp) for line in evidence.gaps for stamp in _stamps(line)]
    times: dict[Key, int] = {}
    for key in (*stored, *gaps):
        times[key] = times.get(key, 0) + 1
    twice = [f"{_place(stage, key)} is there twice" for key, n in times.items() if n > 1]
    first = -(-evidence.began // EVERY) * EVERY
    nothing = []
    for line in stage.lines.values():
        for stamp in range(first, evidence.ended - SETTLED - _length(line), EVERY):
            if (line.meter_id, stamp) not in times:
                nothing.append(f"{_place(stage, (line.meter_id, stamp))}: nothing is known of it")
    return twice + nothing


def _length(line: Line) -> Millis:
    """From a stamp to the boundary at which its value is settled."""
    return 0 if line.as_ == "counter" else EVERY


def _stamps(line: GapLine) -> range:
    return range(line.first, line.last + 1, EVERY)


def _missing(stage: Stage, evidence: Evidence) -> tuple[dict[str, dict[str, int]], list[str]]:
    """What is missing, by meter and why; and the meterIDs that miss too much for no good reason."""
    found: dict[str, dict[str, int]] = {}
    unexplained: dict[str, list[str]] = {}
    for gap in evidence.gaps:
        line = stage.lines[gap.key.meter_id]
        reasons = found.setdefault(line.meter, {})
        for stamp in _stamps(gap):
            why = _why(stage, evidence.began, line, stamp)
            if not why:
                unexplained.setdefault(line.meter_id, []).append(gap.reason)
            text = f"{gap.reason}{why}"
            reasons[text] = reasons.get(text, 0) + 1
    too_many = []
    for meter_id, reasons_of in unexplained.items():
        line = stage.lines[meter_id]
        settled = max(0, evidence.ended - SETTLED - _length(line) - evidence.began) // EVERY
        if len(reasons_of) > max(FEW, settled // 3):
            why = ", ".join(sorted(set(reasons_of)))
            name = f"{line.meter} {line.as_} ({meter_id})"
            too_many.append(f"{name}: misses {len(reasons_of)} of {settled} values ({why})")
    return found, too_many


def _why(stage: Stage, began: Instant, line: Line, stamp: Instant) -> str:
    """What of the demo's own doing may have cost this value; empty: nothing."""
    end = stamp + _length(line) + LATEST
    if stage.silent(line.meter, stamp - BACK_AGAIN, end):
        return ", made silent"
    return ", just started" if stamp < began + START_UP else ""


# ---------------------------------------------------------------------------------- is it right?


def _wrong(stage: Stage, held: Mapping[Key, Decimal], gaps: Iterable[GapLine]) -> list[str]:
    """Each value that its meter did not stand at, and consumptions that do not add up."""
    found = []
    missing = {(gap.key.meter_id, stamp) for gap in gaps for stamp in _stamps(gap)}
    for (meter_id, stamp), value in held.items():
        line = stage.lines.get(meter_id)
        if line is None:
            found.append(f"{_place(stage, (meter_id, stamp))}: {value}")
            continue
        since = stamp
        while (meter_id, since - EVERY) in missing:  # what moved meanwhile is in this one
            since -= EVERY
        low, high = bounds(stage.meters[line.meter], line, stamp, since)
        if not low <= value <= high:
            found.append(f"{_place(stage, (meter_id, stamp))}: {value} is not in {low} to {high}")
    return found + _not_adding_up(stage, held)


def _not_adding_up(stage: Stage, held: Mapping[Key, Decimal]) -> list[str]:
    """Consumptions that are not what the counter of the same meter moved."""
    found = []
    counters = {line.meter: line.meter_id for line in stage.lines.values() if line.as_ == "counter"}
    for (meter_id, stamp), value in held.items():
        line = stage.lines.get(meter_id)
        if line is None or line.as_ != "consumption":
            continue
        of = counters[line.meter]
        before, after = held.get((of, stamp)), held.get((of, stamp + EVERY))
        if before is not None and after is not None and after - before != value:
            place = _place(stage, (meter_id, stamp))
            found.append(f"{place}: {value}, but its counter moved {after - before}")
    return found


def bounds(
    meter: SimulatedMeter, line: Line, at: Instant, since: Instant
) -> tuple[Decimal, Decimal]:
    """What a right value of this stamp lies between; a consumption may be reckoned from `since`."""

    def true(moment: Instant) -> Decimal:
        value = meter.value(line.quantity, moment)
        assert isinstance(value, Decimal)
        return value

    if line.as_ == "counter":
        return true(at), true(at + LATEST)
    end = at + EVERY  # the others are stamped at the start of their interval
    if line.as_ == "consumption":
        return true(end) - true(at + LATEST), true(end + LATEST) - true(since)
    step = 100
    seen = [true(moment) for moment in range(at, end + LATEST + step, step)]
    return min(seen), max(seen)


def told(verdict: Verdict) -> str:
    """The summary for a person."""
    lines = [
        f"{len(ACTORS)} meters: {verdict.stored} values stored, {verdict.confirmed} confirmed by"
        f" Energinet in {counted(verdict.requests, 'request')}, {verdict.waiting} waiting"
    ]
    for meter, reasons in verdict.missing.items():
        why = "; ".join(f"{count} {reason}" for reason, count in reasons.items())
        lines.append(f"not there: {meter}: {why}")
    for head, found in (("LOST", verdict.lost), ("WRONG", verdict.wrong), ("LOG", verdict.errors)):
        lines += [f"{head:<6} {line}" for line in found[:10]]
        if len(found) > 10:
            lines.append(f"{head:<6} and {len(found) - 10} more")
    if verdict.ok:
        lines.append("every value that Energinet holds is what its meter stood at; none was lost")
    elif not verdict.confirmed:
        lines.append("LOST   Energinet took nothing")
    return "\n".join(lines)
