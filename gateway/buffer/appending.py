"""What goes in: the series, and commits of readings, gaps, samples and states, all or nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Final, TypeAlias

from attrs import evolve, frozen

from gateway.buffer import chunks
from gateway.buffer.chunks import BLOCK_BITS
from gateway.buffer.index import Block, Change, Index, Line, note, write_series
from gateway.buffer.rows import (
    BLOCKS,
    DOUBTED,
    ERAS,
    GAPS,
    HEADS,
    NAMES,
    SAMPLES,
    STATES,
    Row,
    Table,
)
from gateway.buffer.spans import at_first, dropped, unsettled
from gateway.clock import Instant
from gateway.metering.reading import Commit, Reading, Series, SeriesKey

Transaction: TypeAlias = Callable[[], AbstractContextManager[sqlite3.Connection]]

REPEATED: Final = "repeated"
"""Why a value is dropped whose stamp has one already."""

_LOOKED_THROUGH: Final = 4
"""Blocks whose stamps are remembered: 0.4 MB each."""

HEADS_EACH: Final = 4
"""Readings of each series, at least, between two times that the heads of all are written."""


@frozen
class Appended:
    """What a commit came to."""

    stored: int
    repeated: tuple[Reading, ...] = ()
    """Readings whose stamp their series has already: the first is kept. Those of another value or
    other words are counted as dropped; what is the same is of a commit that was tried again."""


class _Plan:
    """What a commit writes, worked out before anything is written."""

    def __init__(self, index: Index, commit: Commit, *, past: bool) -> None:
        self.index = index
        self.commit = commit
        self.past = past
        self.places: list[tuple[Line, int, int, int]] = []
        """Series, id, number and stamp of each new row."""
        self.records: list[bytes] = []
        self.held: list[tuple[Line, int, int, str]] = []
        self.repeated: list[Reading] = []
        self.refused: dict[int, list[int]] = {}
        """Series to the numbers of values that are counted and not stored."""
        self.heads: dict[int, tuple[int, int, int]] = {}
        """Series to newest id, last number and latest stamp, as they will be."""
        self.recent: dict[int, int] = {}
        """Series to the stamp of the reading that will be the last stored."""
        self.gaps: dict[int, Row] = {}
        """Rows of `gaps` by id, new or grown."""
        self.runs = dict(index.gaps)
        self.gap_top = index.gap_top
        self.names = dict(index.names)

    def readings(self, connection: sqlite3.Connection) -> None:
        """Number the readings whose stamps are new to their series."""
        index = self.index
        given = [
            (reading, _line(index, reading.key), _seconds(reading.stamp))
            for reading in self.commit.readings
        ]
        seen = _late(connection, index, given)
        id = index.top
        for reading, line, stamp in given:
            newest, stored, latest = self.heads.get(line.id) or (
                line.newest, line.stored, line.latest
            )  # fmt: skip
            n = stored + 1
            words = reading.raw.pack()
            place, what = (line.id, stamp), (reading.value, words)
            if place in seen:
                self.repeated.append(reading)
                if seen[place] != what:
                    self.refused.setdefault(line.id, []).append(n)
                    self.heads[line.id] = (newest, n, latest)
                continue
            seen[place] = what
            id += 1
            self.heads[line.id] = (newest if self.past else id, n, max(latest, stamp))
            why = reading.held
            self.records.append(chunks.pack(line.id, n, stamp, reading.value, words, why))
            self.places.append((line, id, n, stamp))
            if not self.past:
                self.recent[line.id] = stamp
            if why:
                self.held.append((line, id, n, why))

    def ledger(self, connection: sqlite3.Connection) -> None:
        """A gap lengthens the run before it if the reason is the same and no reading is between."""
        for gap in self.commit.gaps:
            line = _line(self.index, gap.key)
            stamp = _seconds(gap.stamp)
            end = stamp if gap.last is None else _seconds(gap.last)
            run = self.runs.get(line.id)
            if run is not None and stamp <= run[2]:
                if run[1] <= stamp or _is_told(connection, line.id, stamp):
                    continue
                run = None  # the clock was ahead: what comes now is of before that
            recent = self.recent.get(line.id, line.latest if line.recent is None else line.recent)
            if run is not None and run[3] == gap.reason and not run[2] < recent <= stamp:
                run = (run[0], run[1], end, run[3], run[4] + gap.count)
            else:
                self.gap_top += 1
                run = (self.gap_top, stamp, end, gap.reason, gap.count)
            self.runs[line.id] = run
            self.gaps[run[0]] = GAPS.sealed(run[0], line.id, *run[1:])

    def blocks(self) -> dict[int, Block]:
        """Full blocks that are to be closed now, as they will be."""
        after: dict[int, Block] = {}
        settled = {id for _, id, _, why in self.held if not unsettled(at_first(why))}
        for _, id, _, stamp in self.places:
            number = id >> BLOCK_BITS
            block = after.get(number)
            if block is None:
                block = after[number] = evolve(self.index.blocks.get(number, Block()))
            block.earliest = min(block.earliest, stamp)
            block.latest = max(block.latest, stamp)
            block.open += id not in settled
        end = (self.places[-1][1] + 1 if self.places else 0) >> BLOCK_BITS
        if not any(number < end for number in after):
            return {}
        known = self.index.blocks | after
        full = {n: known[n] for n in sorted(known) if n < end and n not in self.index.closed}
        enough = HEADS_EACH * len(self.index.lines) <= len(full) << BLOCK_BITS
        return full if enough else {}


def _keeps_its_sender(series: Series) -> str:
    return series.sender


@frozen
class Declared:
    """The series of the configuration, and who sends what waits of a series that is not in it."""

    series: Sequence[Series]
    heir: Callable[[Series], str] = _keeps_its_sender


def declare(index: Index, declared: Declared, transaction: Transaction) -> None:
    """Make these the series of the configuration; the others stay known, unlisted."""
    changed = _changed(index, declared)
    if not changed:
        return
    with transaction() as connection:
        write_series(connection, changed)
        for line in changed:
            _write_era(connection, index.lines.get(line.id), line.series)
    _apply(index, changed)


def look_as(index: Index, declared: Declared) -> None:
    """See it as if these were the series of the configuration. Nothing is written."""
    _apply(index, _changed(index, declared))


def _changed(index: Index, declared: Declared) -> list[Line]:
    wanted = {one.key: one for one in declared.series}
    changed: list[Line] = []
    for line in index.lines.values():
        one = wanted.pop(line.series.key, None)
        if one is None:
            sender = declared.heir(line.series)
            if line.listed or sender != line.series.sender:
                left = evolve(line.series, sender=sender)
                changed.append(Line(line.id, left, False, line.parked))
        elif one != line.series or not line.listed:
            changed.append(Line(line.id, one, True, line.parked))
    top = max(index.lines, default=0)
    return changed + [Line(id, one) for id, one in enumerate(wanted.values(), start=top + 1)]


def _apply(index: Index, changed: Sequence[Line]) -> None:
    if not changed:
        return
    for line in changed:
        known = index.lines.get(line.id)
        if known is None:
            index.add(line)
        else:
            known.series, known.listed = line.series, line.listed
    index.look_anew()


def _write_era(connection: sqlite3.Connection, known: Line | None, series: Series) -> None:
    """What was stored of a series stays what it was when the configuration makes it another."""
    if known is None or not known.stored:
        return
    was = known.series
    if (was.meter, was.quantity, was.as_, was.every) != (
        series.meter, series.quantity, series.as_, series.every
    ):  # fmt: skip
        (top,) = connection.execute("SELECT coalesce(max(id), 0) FROM eras").fetchone()
        row = top + 1, known.id, known.stored, was.meter, was.quantity, was.as_, was.every
        connection.execute(ERAS.insert, ERAS.sealed(*row))


def append(
    index: Index, commit: Commit, transaction: Transaction, *, past: bool = False
) -> Appended:
    """Store it. The index changes only when the transaction is durable.

    `past`: its readings are no news; the reading that was stored last of a series stays that.
    """
    with transaction() as connection:
        plan = _Plan(index, commit, past=past)
        plan.readings(connection)
        plan.ledger(connection)
        chunks.insert(connection, index.top + 1, plan.records)
        connection.executemany(GAPS.insert, plan.gaps.values())
        change = Change(index)
        for line, id, n, why in plan.held:
            change.mark(line, {n: id}, at_first(why))
        for series, numbers in plan.refused.items():
            change.count(index.lines[series], numbers, dropped(REPEATED))
        change.write(connection)
        _write_states(connection, commit)
        _write_samples(connection, plan)
        _restamp(connection, commit)
        full = plan.blocks()
        if full:
            connection.executemany(
                BLOCKS.insert,
                [BLOCKS.sealed(n, b.earliest, b.latest, b.open) for n, b in full.items()],
            )
        if full or past:
            _write_heads(connection, plan)
    for line, id, n, stamp in plan.places:
        note(index, line, id, n, stamp, past=past)
    for series, (_, stored, _) in plan.heads.items():
        index.lines[series].stored = stored
    for barren in index.barren.values():
        barren.difference_update({id >> BLOCK_BITS for _, id, _, _ in plan.places})
    change.apply()
    index.closed |= full.keys()
    index.names = plan.names
    index.gaps = plan.runs
    index.gap_top = plan.gap_top
    return Appended(len(plan.records), tuple(plan.repeated))


def _late(
    connection: sqlite3.Connection, index: Index, given: Sequence[tuple[Reading, Line, int]]
) -> dict[tuple[int, int], tuple[Decimal, bytes]]:
    """Of readings not later than all of their series: series and stamp of those stored already, and
    the value and words that are."""
    asked = {(line.id, stamp) for _, line, stamp in given if stamp <= line.latest}
    if not asked:
        return {}
    stamps = {stamp for _, stamp in asked}
    earliest, latest = min(stamps), max(stamps)
    found: dict[tuple[int, int], tuple[Decimal, bytes]] = {}
    for number, block in index.blocks.items():
        if block.latest < earliest or block.earliest > latest:
            continue
        if number in index.closed:
            known = _places(connection, index, number)
            if not any(_place(series, stamp) in known for series, stamp in asked):
                continue
        stored = chunks.stamped(connection, number, stamps)
        found.update(
            ((record.series, record.stamp), (record.value, record.words))
            for record in stored
            if (record.series, record.stamp) in asked
        )
    return found


def _write_heads(connection: sqlite3.Connection, plan: _Plan) -> None:
    rows = []
    for line in plan.index.lines.values():
        head = plan.heads.get(line.id, (line.newest, line.stored, line.latest))
        if head[1]:
            rows.append(HEADS.sealed(line.id, *head))
    connection.executemany(HEADS.insert, rows)


def _write_states(connection: sqlite3.Connection, commit: Commit) -> None:
    if not commit.states:
        return
    known = {meter: id for id, meter in connection.execute("SELECT id, meter FROM states")}
    for meter, state in commit.states.items():
        id = known.setdefault(meter, max(known.values(), default=0) + 1)
        connection.execute(STATES.insert, STATES.sealed(id, meter, state))


def _write_samples(connection: sqlite3.Connection, plan: _Plan) -> None:
    rows: dict[Table, list[Row]] = {}
    tops: dict[Table, int] = {}

    def named(text: str) -> int:
        if text not in plan.names:
            plan.names[text] = max(plan.names.values(), default=0) + 1
            connection.execute(NAMES.insert, NAMES.sealed(plan.names[text], text))
        return plan.names[text]

    for kept in plan.commit.samples:
        sample, table = kept.sample, DOUBTED if kept.doubted else SAMPLES
        some = rows.setdefault(table, [])
        if table not in tops:
            top = f"SELECT coalesce(max(id), 0) FROM {table.name}"  # noqa: S608  (ours)
            (tops[table],) = connection.execute(top).fetchone()
        id = tops[table] + 1 + len(some)
        meter, raw = named(sample.meter), sample.raw.pack()
        if kept.doubted:
            some.append(table.sealed(id, meter, sample.at, kept.doubted, raw))
            continue
        faults = json.dumps(dict(sample.faults)) if sample.faults else None
        some.append(
            table.sealed(
                id, meter, named(sample.boot_id), sample.boottime, sample.at, kept.until,
                int(sample.synchronised), raw, faults,
            )
        )  # fmt: skip
    for table, some in rows.items():
        connection.executemany(table.insert, some)


def _restamp(connection: sqlite3.Connection, commit: Commit) -> None:
    for id, at in commit.restamped.items():
        row = connection.execute(f"{SAMPLES.select} WHERE id = ?", (id,)).fetchone()
        if row is not None and SAMPLES.sound(row):
            connection.execute(SAMPLES.insert, SAMPLES.sealed(*row[:4], at, row[5], 1, *row[7:9]))


def _line(index: Index, key: SeriesKey) -> Line:
    try:
        return index.by_key[key]
    except KeyError:
        raise ValueError(f"{key} was not declared") from None


def _seconds(stamp: Instant) -> int:
    if stamp % 1000:
        raise ValueError(f"stamp {stamp} is not in whole seconds")
    return stamp // 1000


def _place(series: int, stamp: int) -> int:
    """A series and a stamp in one number."""
    return series << 40 | stamp


def _places(connection: sqlite3.Connection, index: Index, number: int) -> frozenset[int]:
    """Of the readings of a closed block, also of those that were deleted since it was looked
    through. Where the clock was ahead for an hour, a year of readings is not the latest."""
    found = index.places.pop(number, None)
    if found is None:
        found = frozenset(_place(one.series, one.stamp) for one in chunks.block(connection, number))
        while len(index.places) >= _LOOKED_THROUGH:
            del index.places[next(iter(index.places))]  # that was not asked for longest
    index.places[number] = found
    return found


def _is_told(connection: sqlite3.Connection, series: int, stamp: int) -> bool:
    """Is it in the ledger that this stamp is missing?"""
    row = connection.execute(
        "SELECT 1 FROM gaps WHERE series = ? AND first <= ? AND last >= ?", (series, stamp, stamp)
    ).fetchone()
    return row is not None
