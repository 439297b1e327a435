"""What the store knows without looking: the series, what became of their readings, the blocks.

Two books are kept of the same readings. By series: how many were stored and, in spans, what
became of them. By block of ids: how many of its rows still wait, and between which stamps. They
must agree (P6), and each is in the file, written in the transaction that changes it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from attrs import define, field, frozen

from gateway.buffer.chunks import BLOCK_BITS, chunks, tag, untag
from gateway.buffer.rows import (
    BLOCKS,
    GAPS,
    HEADS,
    NAMES,
    SERIES,
    SERIES_COPY,
    SLOTS,
    SPANS,
    Row,
    Table,
)
from gateway.buffer.schema import APART
from gateway.buffer.spans import PENDING, Span, Spans, State, reason_of, runs, unsettled
from gateway.errors import StoreDamaged
from gateway.metering.reading import Counts, Series, SeriesKey

_UNTOUCHED: Final = Spans()
"""Shared: most series have nothing but what waits, and they are many."""


@define
class Line:
    """One series, and what became of its readings."""

    id: int
    series: Series
    listed: bool = True
    """Is it in the configuration? One that is not keeps its sender until all of it is sent."""
    parked: str = ""
    """Why nothing of it is sent; empty: it is."""
    spans: Spans = _UNTOUCHED
    totals: dict[State, int] = field(factory=dict)
    stored: int = 0
    """Readings ever stored: the number of the last."""
    newest: int = 0
    """The row of the newest, which is the last but for what was brought in afterwards; 0: none."""
    newest_n: int = 0
    """Its number; 0: not looked up."""
    latest: int = -(1 << 62)
    """The latest stamp, s."""
    recent: int | None = None
    """That of the reading stored last: earlier where the clock had been ahead. None: not known."""
    in_flight: int = 0

    def set_spans(self, spans: Spans) -> None:
        """Take over what became of its readings."""
        self.spans = spans
        self.totals = spans.totals()

    @property
    def held(self) -> int:
        """How many may not be sent yet."""
        return sum(count for state, count in self.totals.items() if state[0] == "h")

    @property
    def waiting(self) -> int:
        """How many are neither confirmed, parked one by one nor dropped: held, in flight or not."""
        return self.stored - sum(n for state, n in self.totals.items() if not unsettled(state))

    @property
    def sendable(self) -> int:
        """How many could be offered now, if the series is not parked."""
        return self.waiting - self.held - self.in_flight


@define
class Block:
    """Readings with neighbouring ids: their stamps' bounds in s, and how many still wait."""

    earliest: int = 1 << 62
    latest: int = -(1 << 62)
    open: int = 0


@frozen
class Flight:
    """A reading that a sender took and has not settled."""

    sender: str
    line: Line
    n: int
    id: int
    """Its id now; another than it was offered under where the file was salvaged since."""


class Change:
    """What a transaction does to the index: written with it, applied when it is committed."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._spans: dict[int, Spans] = {}
        self._opened: Counter[int] = Counter()
        self._parked: dict[int, str] = {}
        self._fruitful = False
        """May blocks that held nothing to send now hold something?"""

    def __bool__(self) -> bool:
        return bool(self._spans or self._opened or self._parked)

    def mark(self, line: Line, readings: Mapping[int, int], state: State) -> int:
        """Put readings (number to row id) of a series in a state; how many were in another."""
        spans = self._spans.get(line.id, line.spans)
        changed = 0
        for n, id in readings.items():
            was = spans.state_of(n)
            if was != state:
                changed += 1
                self._opened[id >> BLOCK_BITS] += unsettled(state) - unsettled(was)
                self._fruitful |= unsettled(state)
        if changed:
            self._spans[line.id] = spans.marked(runs(readings), state, self._index.new_span_id)
        return changed

    def count(self, line: Line, numbers: Sequence[int], state: State) -> None:
        """Put numbers of which there is no reading in a settled state."""
        spans = self._spans.get(line.id, line.spans)
        self._spans[line.id] = spans.marked(runs(numbers), state, self._index.new_span_id)

    def release(self, line: Line) -> int:
        """Let the held readings of a series be sent; how many. Their blocks count them already."""
        spans = self._spans.get(line.id, line.spans)
        held = [(span.first, span.last) for span in spans if span.state[0] == "h"]
        if held:
            self._spans[line.id] = spans.marked(held, PENDING, self._index.new_span_id)
            self._fruitful = True
        return sum(last - first + 1 for first, last in held)

    def park(self, line: Line, reason: str) -> None:
        """Park a whole series, or with an empty reason let it go on."""
        if line.parked != reason:
            self._parked[line.id] = reason
            self._fruitful |= not reason

    def write(self, connection: sqlite3.Connection) -> None:
        """Write it within the caller's transaction."""
        for id, spans in self._spans.items():
            written, gone = spans.changed_from(self._index.lines[id].spans)
            connection.executemany("DELETE FROM spans WHERE id = ?", [(n,) for n in gone])
            connection.executemany(
                SPANS.insert,
                [SPANS.sealed(s.id, id, s.first, s.last, s.state) for s in written],
            )
        for number, change in self._opened.items():
            if change and number in self._index.closed:
                block = self._index.blocks[number]
                connection.execute(
                    BLOCKS.insert,
                    BLOCKS.sealed(number, block.earliest, block.latest, block.open + change),
                )
        if self._parked:
            lines = self._index.lines
            write_series(
                connection,
                [
                    Line(id, lines[id].series, lines[id].listed, reason)
                    for id, reason in self._parked.items()
                ],
            )

    def apply(self) -> None:
        """Make it true in the index."""
        for id, spans in self._spans.items():
            self._index.lines[id].set_spans(spans)
        for number, change in self._opened.items():
            self._index.blocks[number].open += change
        for id, reason in self._parked.items():
            self._index.lines[id].parked = reason
        if self._fruitful:
            self._index.look_anew()


class Index:
    """The series by id and by key, and the blocks."""

    def __init__(self) -> None:
        self.lines: dict[int, Line] = {}
        self.by_key: dict[SeriesKey, Line] = {}
        self.blocks: dict[int, Block] = {}
        self.closed: set[int] = set()
        """Blocks whose ids are all given out: these stand in the table `blocks`."""
        self.top = 0
        """The highest id given to a reading."""
        self.flight: dict[int, Flight] = {}
        """By the id under which it was offered. Not on disk: after a restart all wait again."""
        self.flying: set[int] = set()
        """The tags of the same."""
        self.barren: dict[str, set[int]] = {}
        """Open blocks that were read and hold nothing for a sender to send."""
        self.starts: dict[str, dict[int, int]] = {}
        """Of those that do, the id of the first chunk in which something waits for that sender."""
        self.places: dict[int, frozenset[int]] = {}
        """Of closed blocks that were looked through of late: what `place` gives of their readings.
        """
        self.names: dict[str, int] = {}
        """Texts that samples repeat (meters, boots), by their row in `names`."""
        self.gap_top = 0
        self.gaps: dict[int, tuple[int, int, int, str, int]] = {}
        """The newest row of `gaps` of each series: id, first, last, reason, count."""
        self._span_id = 0

    def new_span_id(self) -> int:
        """A row for a new span."""
        self._span_id += 1
        return self._span_id

    def add(self, line: Line) -> None:
        """Know one more series."""
        self.lines[line.id] = line
        self.by_key[line.series.key] = line

    def look_anew(self) -> None:
        """Anything may wait anywhere."""
        self.barren.clear()
        self.starts.clear()

    def of_sender(self, sender: str) -> list[Line]:
        """The series that a sender carries."""
        return [line for line in self.lines.values() if line.series.sender == sender]

    def take_off(self, offered: int, sender: str, tagged: int, id: int) -> None:
        """A sender has taken a reading."""
        series, n = untag(tagged)
        line = self.lines[series]
        self.flight[offered] = Flight(sender, line, n, id)
        self.flying.add(tagged)
        line.in_flight += 1

    def land(self, offered: int) -> None:
        """It is settled, or waits again."""
        flight = self.flight.pop(offered)
        self.flying.remove(tag(flight.line.id, flight.n))
        flight.line.in_flight -= 1

    def counts(self) -> Counts:
        """P6: pending from the blocks, everything else from the series."""
        stored = confirmed = parked = held = 0
        dropped: Counter[str] = Counter()
        for line in self.lines.values():
            stored += line.stored
            for state, count in line.totals.items():
                if state[0] == "c":
                    confirmed += count
                elif state[0] == "p":
                    parked += count
                elif state[0] == "d":
                    dropped[reason_of(state)] += count
            if line.parked:
                parked += line.waiting - line.in_flight
            else:
                held += line.held
        whole = sum(line.waiting - line.in_flight for line in self.lines.values() if line.parked)
        waiting = sum(block.open for block in self.blocks.values())
        return Counts(
            stored=stored,
            pending=waiting - len(self.flight) - whole,
            in_flight=len(self.flight),
            confirmed=confirmed,
            parked=parked,
            dropped=dict(dropped),
            held=held,
        )


def load(connection: sqlite3.Connection) -> Index:
    """Read the index, and of the readings only the block that is still being filled.

    Raises StoreDamaged where a seal does not fit.
    """
    index = Index()
    for row in sound_rows(connection, SERIES):
        line = line_of(row)
        index.add(line)
    by_series: dict[int, list[Span]] = {}
    for id, series, first, last, state, _ in sound_rows(connection, SPANS):
        by_series.setdefault(series, []).append(Span(id, first, last, state))
        index._span_id = max(index._span_id, id)
    for series, spans in by_series.items():
        _known(index, series).set_spans(Spans(spans))
    for series, reading, n, latest, _ in sound_rows(connection, HEADS):
        line = _known(index, series)
        line.newest, line.stored, line.latest = reading, n, latest
        index.top = max(index.top, reading)
    for number, earliest, latest, count, _ in sound_rows(connection, BLOCKS):
        index.blocks[number] = Block(earliest, latest, count)
        index.closed.add(number)
    for id, text, _ in sound_rows(connection, NAMES):
        index.names[text] = id
    for id, series, first, last, reason, count, _ in sound_rows(
        connection, GAPS, "WHERE id IN (SELECT max(id) FROM gaps GROUP BY series)"
    ):
        index.gaps[series] = (id, first, last, reason, count)
        index.gap_top = max(index.gap_top, id)
    for _ in sound_rows(connection, SLOTS):
        pass  # a slot that was altered must not be taken for none
    tail = (max(index.closed) + 1) << BLOCK_BITS if index.closed else 0
    index.top = max(index.top, tail - 1)
    for records in chunks(connection, tail, 1 << 62):
        for record in records:
            line = _known(index, record.series)
            waits = unsettled(line.spans.state_of(record.n))
            note(index, line, record.id, record.n, record.stamp, waits=waits)
    for line in index.lines.values():
        counted = [span.last for span in line.spans if span.state[0] == "d"]
        line.stored = max([line.stored, *counted])  # of the last there may be no row
    return index


def note(
    index: Index,
    line: Line,
    id: int,
    n: int,
    stamp: int,
    *,
    waits: bool = True,
    past: bool = False,
) -> None:
    """Take a reading that is in the file into both books. `past`: it is no news."""
    index.top = max(index.top, id)
    if n > line.stored:
        line.stored = n
        if not past:
            line.newest, line.newest_n = id, n
    line.latest = max(line.latest, stamp)
    if not past:
        line.recent = stamp
    block = index.blocks.get(id >> BLOCK_BITS)
    if block is None:
        block = index.blocks[id >> BLOCK_BITS] = Block()
    block.earliest = min(block.earliest, stamp)
    block.latest = max(block.latest, stamp)
    block.open += waits


def write_series(connection: sqlite3.Connection, lines: Collection[Line]) -> None:
    """Write series, twice: without its row nothing of one could be sent. The copies stand where
    one piece of damage does not reach both."""
    rows = [
        SERIES.sealed(
            line.id, s.key.import_name, s.key.meter_id, s.meter, s.quantity, s.as_, s.every,
            s.sender, int(line.listed), line.parked,
        )
        for line in lines
        for s in [line.series]
    ]  # fmt: skip
    connection.executemany(SERIES.insert, rows)
    connection.execute(APART)
    connection.executemany(SERIES_COPY.insert, rows)


def write_heads(connection: sqlite3.Connection, lines: Iterable[Line]) -> None:
    """Write where each series stands, so that opening need not look for it."""
    connection.executemany(
        HEADS.insert,
        [HEADS.sealed(x.id, x.newest, x.stored, x.latest) for x in lines if x.stored],
    )


def line_of(row: Row) -> Line:
    """A row of `series`."""
    id, import_name, meter_id, meter, quantity, kind, every, sender, listed, parked, _ = row
    series = Series(
        SeriesKey(str(import_name), str(meter_id)), str(meter), str(quantity),
        kind, every, str(sender),  # type: ignore[arg-type]
    )  # fmt: skip
    return Line(int(id), series, bool(listed), str(parked))  # type: ignore[arg-type]


def sound_rows(connection: sqlite3.Connection, table: Table, where: str = "") -> Iterable[tuple]:  # type: ignore[type-arg]
    """Whole rows in order of id. Raises StoreDamaged at one whose seal does not fit."""
    for row in connection.execute(f"{table.select} {where} ORDER BY 1"):
        if not table.sound(row):
            raise StoreDamaged(f"a row of {table.name} does not fit its checksum")
        yield row


def _known(index: Index, series: int) -> Line:
    try:
        return index.lines[series]
    except KeyError:
        raise StoreDamaged(f"series {series} has rows but is not known") from None


def telling_rows(
    connection: sqlite3.Connection, table: Table, order: str = "id"
) -> Iterator[tuple]:  # type: ignore[type-arg]
    """Whole rows on which nothing rests: those that were altered are left out. None where the file
    is of a version before the table's."""
    there = "SELECT count(*) FROM sqlite_master WHERE name = ?"
    if connection.execute(there, (table.name,)).fetchone()[0]:
        for row in connection.execute(f"{table.select} ORDER BY {order}"):
            if table.sound(row):
                yield row
