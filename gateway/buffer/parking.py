"""What is kept and not sent: looked at, let go again, or dropped at a person's word."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from attrs import frozen

from gateway.buffer import chunks
from gateway.buffer.index import Change, Index, Line
from gateway.buffer.spans import PENDING, dropped, parked, reason_of, unsettled
from gateway.clock import Instant
from gateway.metering.reading import NO_TIME, SeriesKey

DISCARDED: Final = "discarded"
"""Why a value is dropped that a person gives up."""

TOO_OLD: Final = "too_old"
IN_FUTURE: Final = "in_future"
"""Why a value is parked whose stamp the clock does not allow: it may have been the clock."""

DAMAGED: Final = "damaged"

NEVER: Final = frozenset({DAMAGED, NO_TIME})
"""Why values are parked that can never be sent, whatever the clock says."""


@frozen
class ParkedRow:
    """A value that is kept and not sent. `whole`: all of its series is parked."""

    key: SeriesKey
    meter: str
    n: int
    id: int
    stamp: Instant
    reason: str
    whole: bool


def parked_rows(
    connection: sqlite3.Connection, index: Index, numbers: Iterable[int]
) -> list[ParkedRow]:
    """Those among the readings of these blocks."""
    lines = {id: line for id, line in index.lines.items() if _has_parked(line)}
    if not lines:
        return []
    found = []
    for number in numbers:
        block = index.blocks.get(number)
        if block is None:
            continue
        for record in chunks.block(connection, number):
            line = lines.get(record.series)
            if line is None or record.tag in index.flying:
                continue
            reason = _reason(line, record.n)
            if reason is not None:
                key, meter = line.series.key, line.series.meter
                whole = unsettled(line.spans.state_of(record.n))
                at = record.stamp * 1000
                found.append(ParkedRow(key, meter, record.n, record.id, at, reason, whole))
    return found


def chosen(index: Index, names: Collection[str]) -> frozenset[SeriesKey]:
    """The series of these meters or meterIDs; without any name all. Raises KeyError."""
    keys = set()
    for name in names:
        found = {
            line.series.key
            for line in index.lines.values()
            if name in (line.series.meter, line.series.key.meter_id)
        }
        if not found:
            raise KeyError(name)
        keys |= found
    return frozenset(keys) if names else frozenset(index.by_key)


def let_go(
    index: Index,
    rows: Sequence[ParkedRow],
    keys: frozenset[SeriesKey],
    reason: str,
    within: tuple[Instant, Instant],
) -> tuple[Change, int, Counter[str]]:
    """Let values wait again, and series be sent again; how many, and what stays, by reason.

    `within`: the first and last stamp that may be sent, whatever values were parked for.
    """
    change = Change(index)
    first, last = within
    count = 0
    stay: Counter[str] = Counter()
    for row in rows:
        if row.reason in NEVER:
            if row.reason != DAMAGED:  # of these not every row is there, but all are counted
                stay[row.reason] += 1
        elif not first <= row.stamp <= last:
            stay[TOO_OLD if row.stamp < first else IN_FUTURE] += 1
        elif row.whole:
            count += 1
        else:
            count += change.mark(index.by_key[row.key], {row.n: row.id}, PENDING)
    for line in _of(index, keys):
        if line.parked and reason in ("", line.parked):
            change.park(line, "")
        if reason in ("", DAMAGED) and (gone := line.totals.get(parked(DAMAGED), 0)):
            stay[DAMAGED] += gone
    return change, count, stay


def give_up(
    index: Index, rows: Sequence[ParkedRow], keys: frozenset[SeriesKey], reason: str
) -> tuple[Change, int]:
    """Drop values, counted; how many. Of those that the card altered nothing but the count is
    there. A series stays parked."""
    change = Change(index)
    count = 0
    for row in rows:
        count += change.mark(index.by_key[row.key], {row.n: row.id}, dropped(DISCARDED))
    damaged = parked(DAMAGED)
    for line in _of(index, keys) if reason in ("", DAMAGED) else ():
        gone = {n: index.top for span in line.spans if span.state == damaged
                for n in range(span.first, span.last + 1)}  # fmt: skip
        count += change.mark(line, gone, dropped(DISCARDED))
    return change, count


def still(
    index: Index, rows: Iterable[ParkedRow], keys: frozenset[SeriesKey], reason: str
) -> list[ParkedRow]:
    """Those of these series and reason that are parked now as they were when they were found."""
    return [
        row
        for row in rows
        if row.key in keys
        and reason in ("", row.reason)
        and _reason(line := index.by_key[row.key], row.n) == row.reason
        and chunks.tag(line.id, row.n) not in index.flying
    ]


def _of(index: Index, keys: frozenset[SeriesKey]) -> list[Line]:
    return [index.by_key[key] for key in keys if key in index.by_key]


def _has_parked(line: Line) -> bool:
    return bool(line.parked) or any(state[:1] == "p" for state in line.totals)


def _reason(line: Line, n: int) -> str | None:
    state = line.spans.state_of(n)
    if state[:1] == "p":
        return reason_of(state)
    return line.parked if line.parked and unsettled(state) else None
