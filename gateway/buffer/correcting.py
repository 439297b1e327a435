"""Stored readings given another value, at a person's word; what they were before stays known.

A reading keeps its place, its number and its words, so no count changes but where it is. Its former
bytes are overwritten, not only freed: no salvage may find them and take them for the reading.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from attrs import define, field, frozen

from gateway.buffer import chunks
from gateway.buffer.appending import Transaction
from gateway.buffer.chunks import Record
from gateway.buffer.index import Change, Index, telling_rows
from gateway.buffer.rows import CORRECTED, ERAS
from gateway.buffer.spans import PENDING, dropped, parked, unsettled
from gateway.clock import Instant
from gateway.metering.reading import NO_TIME, Correction, Series, SeriesKey

CORRECTED_ELSEWHERE = "corrected"
"""Why a value is dropped that was to go to a wrong meterID."""


@frozen
class Former:
    """What a reading was before it was corrected."""

    key: SeriesKey
    stamp: Instant
    was: Decimal
    state: str
    """What had become of it: confirmed, pending or parked:REASON."""
    at: Instant
    """When it was corrected."""


@frozen
class Era:
    """The readings of a series up to number `last` are of this meter, quantity and kind."""

    series: Series
    last: int


@define
class _Plan:
    """What is written: chunks as they will be, and the readings that are corrected."""

    chunks: list[tuple[bytes, int]] = field(factory=list)
    """Data and id."""
    formers: list[tuple[Record, str]] = field(factory=list)
    pending: dict[int, dict[int, int]] = field(factory=dict)
    """Series to number to row id, of those that are to be sent again."""


def correct(
    connection: sqlite3.Connection,
    index: Index,
    corrections: Iterable[Correction],
    at: Instant,
    transaction: Transaction,
) -> int:
    """Give readings another value and let them wait again; how many.

    Passed over are those in flight, and those whose value is not `was` any more.
    """
    wanted = {
        (line.id, one.stamp // 1000): one
        for one in corrections
        if (line := index.by_key.get(one.key)) is not None
    }
    plan = _planned(connection, index, wanted)
    change = Change(index)
    for series, readings in plan.pending.items():
        change.mark(index.lines[series], readings, PENDING)
    with _overwriting(connection), transaction():
        connection.executemany("UPDATE chunks SET data = ? WHERE id = ?", plan.chunks)
        _write_formers(connection, plan.formers, at)
        change.write(connection)
    change.apply()
    return len(plan.formers)


def _planned(
    connection: sqlite3.Connection, index: Index, wanted: dict[tuple[int, int], Correction]
) -> _Plan:
    plan = _Plan()
    stamps = [stamp for _, stamp in wanted]
    for number, block in index.blocks.items():
        if not stamps or block.earliest > max(stamps) or block.latest < min(stamps):
            continue
        for records in chunks.chunks(connection, *chunks.bounds(number)):
            packed = [_corrected(index, record, wanted, plan) for record in records]
            if any(packed):
                data = b"".join(
                    new or chunks.repack(record)
                    for new, record in zip(packed, records, strict=True)
                )
                plan.chunks.append((data, records[0].id))
    return plan


def _corrected(
    index: Index, record: Record, wanted: dict[tuple[int, int], Correction], plan: _Plan
) -> bytes:
    """The record as it will be; empty where it stays."""
    one = wanted.get((record.series, record.stamp))
    if one is None or record.value != one.was or record.tag in index.flying:
        return b""
    state = index.lines[record.series].spans.state_of(record.n)
    if state[:1] == "d" or state == parked(NO_TIME):
        return b""
    plan.formers.append((record, state))
    if not unsettled(state):
        plan.pending.setdefault(record.series, {})[record.n] = record.id
    return chunks.pack(record.series, record.n, record.stamp, one.value, record.words, record.held)


def drop(index: Index, readings: Iterable[tuple[SeriesKey, int, int]]) -> tuple[Change, int]:
    """Drop what waits of these readings (key, number, row id), counted; how many."""
    change = Change(index)
    count = 0
    for key, n, id in readings:
        line = index.by_key[key]
        state = line.spans.state_of(n)
        if chunks.tag(line.id, n) not in index.flying and (unsettled(state) or state[0] == "p"):
            count += change.mark(line, {n: id}, dropped(CORRECTED_ELSEWHERE))
    return change, count


def _write_formers(
    connection: sqlite3.Connection, formers: Sequence[tuple[Record, str]], at: Instant
) -> None:
    (top,) = connection.execute("SELECT coalesce(max(id), 0) FROM corrected").fetchone()
    connection.executemany(
        CORRECTED.insert,
        [
            CORRECTED.sealed(id, at, r.series, r.n, r.stamp, str(r.value), state)
            for id, (r, state) in enumerate(formers, start=top + 1)
        ],
    )


@contextlib.contextmanager
def _overwriting(connection: sqlite3.Connection) -> Iterator[None]:
    """Pages that are given up are filled with zeros."""
    connection.execute("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        connection.execute("PRAGMA secure_delete = OFF")


# ------------------------------------------------------------------------------------ looking back


def formers(
    connection: sqlite3.Connection, index: Index, keys: frozenset[SeriesKey]
) -> list[Former]:
    """What was corrected of these series, in the order in which it was."""
    found = []
    for _, at, series, _, stamp, was, state, _ in telling_rows(connection, CORRECTED):
        line = index.lines.get(series)
        if line is not None and line.series.key in keys:
            words = {"": "pending", "c": "confirmed", "p": f"parked:{state[2:]}", "h": "pending"}
            found.append(Former(line.series.key, stamp * 1000, Decimal(was), words[state[:1]], at))
    return found


def eras(connection: sqlite3.Connection, index: Index) -> dict[SeriesKey, list[Era]]:
    """What each series was in the course of time, the present last."""
    found: dict[SeriesKey, list[Era]] = {}
    for _, series, last, meter, quantity, kind, every, _ in telling_rows(connection, ERAS):
        line = index.lines.get(series)
        if line is not None:
            key, sender = line.series.key, line.series.sender
            was = Series(key, meter, quantity, kind, every, sender)
            found.setdefault(key, []).append(Era(was, last))
    for line in index.lines.values():
        found.setdefault(line.series.key, []).append(Era(line.series, 1 << 62))
    return found
