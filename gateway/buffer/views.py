"""What can be read from the buffer, given a connection and the index. Nothing here writes."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from heapq import merge
from typing import Any, Final

from attrs import frozen

from gateway.buffer import chunks
from gateway.buffer.chunks import Record
from gateway.buffer.index import Index, Line
from gateway.buffer.rows import DOUBTED, GAPS, SAMPLES, STATES, Table
from gateway.buffer.spans import Run, reason_of, unsettled
from gateway.clock import DAY, Instant
from gateway.metering.reading import (
    NO_TIME,
    Counts,
    KeptSample,
    RawWords,
    Reading,
    Sample,
    SeriesKey,
)

MOST_OVERLAP: Final = 4
"""Blocks whose stamps overlap that are put in order together; more than that would take memory."""


@frozen
class ExportRow:
    """One stored reading and where it is: pending, in_flight, confirmed or parked:REASON."""

    key: SeriesKey
    meter: str
    stamp: Instant
    value: Decimal
    state: str
    raw: RawWords
    n: int = 0
    """Its number in the series, in the order of storing."""
    id: int = 0


@frozen
class ParkedLine:
    """Values that are kept and not sent. `whole`: the series is parked, not single values."""

    key: SeriesKey
    sender: str
    reason: str
    count: int
    whole: bool


@frozen
class GapLine:
    """Neighbouring stamps of a series without a value, all for one reason."""

    key: SeriesKey
    first: Instant
    last: Instant
    reason: str
    count: int


def last(connection: sqlite3.Connection, index: Index) -> Mapping[SeriesKey, Reading]:
    """The reading of each series that was stored last, where its row is still there."""
    found: dict[SeriesKey, Reading] = {}
    for line in index.lines.values():
        record = chunks.one(connection, line.newest) if line.newest else None
        if record is not None and record.series == line.id:
            state = line.spans.state_of(record.n)
            if state[:1] == "p" and reason_of(state) == NO_TIME:
                continue  # it says nothing of where the series stands
            held = reason_of(state) if state[:1] == "h" else ""
            raw = RawWords.unpack(record.words)
            key = line.series.key
            found[key] = Reading(key, record.stamp * 1000, record.value, raw, held)
    return found


def states(connection: sqlite3.Connection) -> Mapping[str, bytes]:
    """The saved state of each meter; one that was altered is as good as none."""
    return {row[1]: row[2] for row in connection.execute(STATES.select) if STATES.sound(row)}


def samples(
    connection: sqlite3.Connection, index: Index, meter: str | None
) -> list[tuple[int, KeptSample]]:
    """Kept samples that may still be needed, oldest first.

    All that have no sure time, and those of the last two intervals of their meter.
    """
    spans: dict[str, int] = {}
    for line in index.lines.values():
        if line.listed:
            name = line.series.meter
            spans[name] = max(spans.get(name, 0), 2 * line.series.every)
    longest = max(spans.values(), default=2 * DAY)
    names = {id: text for text, id in index.names.items()}
    found: dict[int, KeptSample] = {}

    def keep(row: tuple[Any, ...]) -> None:
        if SAMPLES.sound(row) and (meter is None or names.get(row[1]) == meter):
            found[row[0]] = _sample(row, names)

    for row in connection.execute(f"{SAMPLES.select} WHERE synchronised = 0"):
        keep(row)
    newest: int | None = None
    for row in connection.execute(f"{SAMPLES.select} ORDER BY id DESC"):
        if not row[6]:
            continue
        newest = row[4] if newest is None else max(newest, row[4])
        if row[4] < newest - longest:
            break
        if row[4] >= newest - spans.get(names.get(row[1], ""), longest):
            keep(row)
    return sorted(found.items())


def samples_between(
    connection: sqlite3.Connection, index: Index, meter: str, first: Instant, last: Instant
) -> Iterator[Sample]:
    """Kept samples of a meter whose time is sure, those among them of which nothing was made,
    oldest first."""
    names = {id: text for text, id in index.names.items()}
    there = "SELECT count(*) FROM sqlite_master WHERE name = ?"
    good = _portions(connection, SAMPLES, "synchronised AND at BETWEEN ? AND ?", (first, last))
    kept = (_sample(row, names).sample for row in good)
    doubted: Iterator[Sample] = iter(())
    if connection.execute(there, (DOUBTED.name,)).fetchone()[0]:
        rows = _portions(connection, DOUBTED, "at BETWEEN ? AND ?", (first, last))
        doubted = (
            Sample(names.get(meter, ""), at, "", 0, RawWords.unpack(raw))
            for _, meter, at, _, raw, _ in rows
        )
    for sample in merge(kept, doubted, key=lambda sample: sample.at):
        if sample.meter == meter:
            yield sample


def _portions(
    connection: sqlite3.Connection, table: Table, where: str, bounds: tuple[Any, ...]
) -> Iterator[tuple[Any, ...]]:
    """Sound rows in the order of their ids. No statement is left open between two portions."""
    after = 0
    while True:
        rows = connection.execute(
            f"{table.select} WHERE {where} AND id > ? ORDER BY id LIMIT 1000", (*bounds, after)
        ).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        yield from filter(table.sound, rows)


def last_before(
    connection: sqlite3.Connection, index: Index, keys: Iterable[SeriesKey], before: Instant
) -> Mapping[SeriesKey, list[ExportRow]]:
    """Of each series the last readings before an instant, from the last that has words on."""
    lines = {index.by_key[key].id: index.by_key[key] for key in keys if key in index.by_key}
    found: dict[int, list[Record]] = {id: [] for id in lines}
    sought = set(lines)
    end = -(-before // 1000)
    blocks = [n for n, block in index.blocks.items() if block.earliest < end]
    for number in sorted(blocks, key=lambda n: index.blocks[n].latest, reverse=True):
        latest = index.blocks[number].latest
        sought -= {id for id in sought if any(r.words and r.stamp > latest for r in found[id])}
        if not sought:
            break
        for record in chunks.block(connection, number):
            if record.series in sought and record.stamp < end:
                found[record.series].append(record)
    rows: dict[SeriesKey, list[ExportRow]] = {}
    for id, records in found.items():
        records.sort(key=lambda record: record.stamp)
        with_words = [nth for nth, record in enumerate(records) if record.words]
        rows[lines[id].series.key] = [
            _export_row(index, lines[id], record)
            for record in (records[with_words[-1] :] if with_words else [])
        ]
    return rows


def _sample(row: tuple[Any, ...], names: Mapping[int, str]) -> KeptSample:
    _, meter, boot, boottime, at, needed_to, synchronised, raw, faults, _ = row
    sample = Sample(
        names.get(meter, ""),
        at,
        names.get(boot, ""),
        boottime,
        RawWords.unpack(raw),
        json.loads(faults) if faults else {},
        bool(synchronised),
    )
    return KeptSample(sample, needed_to)


def check_counts(connection: sqlite3.Connection, index: Index) -> Counts:
    """P6 counted anew: pending are the readings of which nothing says that they are settled."""
    whole = pending = held = flying = 0
    for records in chunks.chunks(connection, 0, 1 << 62):
        for record in records:
            line = index.lines[record.series]
            state = line.spans.state_of(record.n)
            if not unsettled(state):
                continue
            if record.tag in index.flying:
                flying += 1
            elif line.parked:
                whole += 1
            else:
                pending += 1
                held += state != ""
    kept = index.counts()
    single = kept.parked - sum(x.waiting - x.in_flight for x in index.lines.values() if x.parked)
    return Counts(kept.stored, pending, flying, kept.confirmed, single + whole, kept.dropped, held)


def miscounted(connection: sqlite3.Connection, index: Index, numbers: Iterable[int]) -> int:
    """How many more readings of these blocks wait than their book says; fewer are less than 0."""
    more = 0
    for number in numbers:
        block = index.blocks.get(number)
        if block is None:
            continue
        more -= block.open
        for record in chunks.block(connection, number):
            more += unsettled(index.lines[record.series].spans.state_of(record.n))
    return more


def waiting(index: Index, sender: str) -> int:
    """How many values a sender could send now."""
    return sum(line.sendable for line in index.of_sender(sender) if not line.parked)


def pending_of_senders(index: Index) -> Mapping[str, int]:
    """How much is pending of each sender."""
    found: Counter[str] = Counter()
    for line in index.lines.values():
        found[line.series.sender] += 0 if line.parked else line.waiting - line.in_flight
    return found


def pending_by_sender(
    connection: sqlite3.Connection, index: Index
) -> Mapping[str, tuple[int, Instant | None]]:
    """Of each sender: pending (held among them), and the oldest stamp that may be sent."""
    found: dict[str, tuple[int, Instant | None]] = {}
    for sender in {line.series.sender for line in index.lines.values()}:
        lines = [line for line in index.of_sender(sender) if not line.parked]
        pending = sum(line.waiting - line.in_flight for line in lines)
        oldest = None
        if any(line.waiting > line.held for line in lines):
            oldest = _oldest(connection, index, sender)
        found[sender] = (pending, oldest)
    return found


def _oldest(connection: sqlite3.Connection, index: Index, sender: str) -> Instant | None:
    barren = index.barren.get(sender, set())
    blocks = [n for n, block in index.blocks.items() if block.open and n not in barren]

    def read(number: int) -> list[tuple[int, ...]]:
        return [
            (record.stamp, record.id)
            for record in chunks.block(connection, number)
            if (line := index.lines[record.series]).series.sender == sender
            and not line.parked
            and line.spans.state_of(record.n) == ""
        ]

    first = next(in_order(index, blocks, read), None)
    return None if first is None else int(first[0]) * 1000


def in_order(
    index: Index, blocks: Sequence[int], read: Callable[[int], list[tuple[Any, ...]]]
) -> Iterator[tuple[Any, ...]]:
    """The rows of these blocks, oldest stamp first; `read` gives a block's as (stamp, id, …).

    Blocks overlap little, since readings are stored as they come. Where many do, after a
    backfill, the order is nearly right, so that memory stays flat.
    """
    # Blocks may go meanwhile; `read` gives nothing of those.
    earliest = {number: index.blocks[number].earliest for number in blocks}
    queue = sorted(blocks, key=lambda number: (earliest[number], number))
    ready: list[tuple[Any, ...]] = []
    for nth, number in enumerate(queue, start=1):
        ready.extend(read(number))
        ready.sort()
        sure = len(ready)
        if nth < len(queue):
            sure = bisect_left(ready, (earliest[queue[nth]],))
            sure = max(sure, len(ready) - MOST_OVERLAP * chunks.BLOCK)
        yield from ready[:sure]
        del ready[:sure]


def parked(index: Index) -> list[ParkedLine]:
    """What is parked, by series and reason."""
    found = []
    for line in index.lines.values():
        key, sender = line.series.key, line.series.sender
        if line.parked and line.waiting > line.in_flight:
            count = line.waiting - line.in_flight
            found.append(ParkedLine(key, sender, line.parked, count, True))
        for state, count in line.totals.items():
            if state[0] == "p":
                found.append(ParkedLine(key, sender, reason_of(state), count, False))
    return found


def gaps(connection: sqlite3.Connection, index: Index, since: Instant) -> list[GapLine]:
    """The ledger of what is missing, of stamps from `since` on, in the order it was written."""
    found = []
    for row in connection.execute(f"{GAPS.select} WHERE last >= ? ORDER BY id", (since // 1000,)):
        _, series, first, end, reason, count, _ = row
        if series in index.lines and GAPS.sound(row):
            key = index.lines[series].series.key
            found.append(GapLine(key, first * 1000, end * 1000, reason, count))
    return found


def export(
    connection: sqlite3.Connection,
    index: Index,
    lines: Mapping[int, Line],
    since: Instant | None,
    until: Instant | None,
) -> Iterator[ExportRow]:
    """Stored readings of these series from `since` to before `until`, newest last."""
    first = -(1 << 62) if since is None else -(-since // 1000)
    end = 1 << 62 if until is None else -(-until // 1000)
    blocks = [n for n, b in index.blocks.items() if b.earliest < end and b.latest >= first]

    def read(number: int) -> list[tuple[Any, ...]]:
        return [
            (record.stamp, record.id, _export_row(index, line, record))
            for record in chunks.block(connection, number)
            if first <= record.stamp < end and (line := lines.get(record.series)) is not None
        ]

    for _, _, row in in_order(index, blocks, read):
        yield row


def _export_row(index: Index, line: Line, record: Record) -> ExportRow:
    key, meter = line.series.key, line.series.meter
    raw, state = RawWords.unpack(record.words), _state(index, line, record.n)
    stamp = record.stamp * 1000
    return ExportRow(key, meter, stamp, record.value, state, raw, record.n, record.id)


def _state(index: Index, line: Line, n: int) -> str:
    if chunks.tag(line.id, n) in index.flying:
        return "in_flight"
    state = line.spans.state_of(n)
    if unsettled(state):
        return f"parked:{line.parked}" if line.parked else "pending"
    if state[0] == "p":
        return f"parked:{reason_of(state)}"
    return "confirmed" if state == "c" else "dropped"


def without(covered: Iterable[Run], last: int) -> list[int]:
    """The numbers from 1 to `last` that are in none of these runs."""
    lost: list[int] = []
    at = 1
    for first, end in [*sorted(covered), (last + 1, last + 1)]:
        lost.extend(range(at, first))
        at = max(at, end + 1)
    return lost
