"""What is sound of a damaged buffer's rows, and the two books made anew from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from attrs import define, field

from gateway.buffer import chunks
from gateway.buffer.chunks import BLOCK, BLOCK_BITS, Record
from gateway.buffer.index import Block, Index, Line, line_of, write_heads, write_series
from gateway.buffer.pages import Pages
from gateway.buffer.rows import (
    BLOCKS,
    CORRECTED,
    DOUBTED,
    ERAS,
    EVENTS,
    GAPS,
    HEADS,
    NAMES,
    SAMPLES,
    SERIES,
    SLOTS,
    SPANS,
    STATES,
    Row,
)
from gateway.buffer.spans import CONFIRMED, Run, Span, Spans, at_first, parked, unsettled
from gateway.buffer.views import without


@define
class _Seen:
    """What the readings of one series say."""

    runs: list[Run] = field(factory=list)
    top: int = 0
    newest: int = 0
    latest: int = -(1 << 62)

    def add(self, record: Record) -> None:
        n = record.n
        if self.runs and self.runs[-1][1] == n - 1:
            self.runs[-1] = (self.runs[-1][0], n)
        else:
            self.runs.append((n, n))
        if n > self.top:
            self.top, self.newest = n, record.id
        self.latest = max(self.latest, record.stamp)


class _Named:
    """Rows of a table with a name and a state each. A page that was given up may hold an old one;
    of two that differ neither is believed."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self._unsure: set[int] = set()

    def add(self, row: Row) -> None:
        id = row[0]
        assert isinstance(id, int)
        if self.rows.setdefault(id, row) != row:
            self._unsure.add(id)

    def sure(self) -> list[Row]:
        return [row for id, row in self.rows.items() if id not in self._unsure]

    def names(self) -> set[str]:
        return {str(row[1]) for row in self.rows.values()}


class Harvest:
    """The sound rows of a damaged file, and the two books made anew from them.

    `known`: what a running store still knows of series and spans. `lean`: there is no room for a
    second copy of all, so what is confirmed and not of the last days stays behind.
    """

    def __init__(self, known: Index | None, *, lean: bool) -> None:
        self._lean = lean
        self._slots = _Named()
        self._states = _Named()
        self._known = known
        self._lines: dict[int, Line] = {}
        self._claims: dict[int, list[Span]] = {}
        self._heads: dict[int, tuple[int, int, int]] = {}
        self._seen: dict[int, _Seen] = {}
        self._held: list[Record] = []
        self._confirmed: dict[int, Spans] | None = None

    def gather(self, pages: Pages, connection: sqlite3.Connection) -> None:
        """Copy samples, gaps and what else only tells something; remember the rest."""
        for table, row in pages.rows():
            tells = table in (GAPS, NAMES, CORRECTED, ERAS, DOUBTED, EVENTS)
            if tells or (table is SAMPLES and not (self._lean and row[6])):
                connection.execute(table.insert, row)
            elif table is SLOTS:
                self._slots.add(row)
            elif table is STATES:
                self._states.add(row)
            elif table is SERIES:
                line = line_of(row)
                self._lines[line.id] = line
            elif table is SPANS:
                id, series, first, last, state = row[:5]
                self._claims.setdefault(series, []).append(  # type: ignore[arg-type]
                    Span(id, first, last, state)  # type: ignore[arg-type]
                )
            elif table is HEADS:
                series, newest, n, latest = row[:4]
                self._heads[series] = (newest, n, latest)  # type: ignore[index,assignment]
        if self._known is not None:
            for line in self._known.lines.values():
                self._lines[line.id] = Line(line.id, line.series, line.listed, line.parked)
                self._claims[line.id] = list(line.spans)
                self._heads[line.id] = (line.newest, line.stored, line.latest)

    def gather_readings(self, pages: Pages, connection: sqlite3.Connection) -> None:
        """Copy the chunks, then with new ids what is sound of those that were altered.

        In those the places are not sure any more, and an old id may be in flight for another.
        """
        put = "INSERT OR IGNORE INTO chunks (id, data) VALUES (?, ?)"
        loose: list[Record] = []
        for id, data in pages.chunks():
            records, whole = chunks.unpack(id or 0, data)
            if self._lean and all(map(self._may_stay_behind, records)):
                continue
            if id is None or not whole:
                loose.extend(records)
            elif records:
                connection.execute(put, (id, data))
        top = max([newest for newest, _, _ in self._heads.values()], default=0)
        if self._known is not None:
            top = max(top, self._known.top)
        for records in chunks.every(connection):
            top = max(top, records[-1].id)
            self._take_all(connection, records)
        found: dict[int, bytes] = {}
        for record in loose:
            if not self._is_there(record):
                found[record.tag] = chunks.repack(record)
        chunks.insert(connection, top + 1, list(found.values()))
        for records in chunks.every(connection, top + 1):
            self._take_all(connection, records)

    def _may_stay_behind(self, record: Record) -> bool:
        if self._confirmed is None:
            self._confirmed = {
                series: Spans(span for span in claims if span.state == CONFIRMED)
                for series, claims in self._claims.items()
            }
        recent = max([newest for newest, _, _ in self._heads.values()], default=0) - BLOCK
        spans = self._confirmed.get(record.series)
        if spans is None or spans.state_of(record.n) != CONFIRMED or record.id > recent:
            return False
        return record.n < self._heads.get(record.series, (0, 0, 0))[1]

    def _take_all(self, connection: sqlite3.Connection, records: list[Record]) -> None:
        """Only one copy of each: a page that was given up may hold another."""
        kept = [record for record in records if not self._is_there(record)]
        if len(kept) < len(records):
            chunks.keep_only(connection, records[0].id, kept)
        for record in kept:
            self._take(record)

    def _is_there(self, record: Record) -> bool:
        seen = self._seen.get(record.series)
        if seen is None or record.n > seen.top:
            return False
        return any(first <= record.n <= last for first, last in seen.runs)

    def _take(self, record: Record) -> None:
        self._seen.setdefault(record.series, _Seen()).add(record)
        if record.held:
            self._held.append(record)

    @property
    def has_slots(self) -> bool:
        """Was a slot found?"""
        return bool(self._slots.rows)

    def rebuild(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """Write the rest; how many readings are saved and lost."""
        lost = self._forget_strangers(connection)
        span_id = 0

        def new_id() -> int:
            nonlocal span_id
            span_id += 1
            return span_id

        write_series(connection, self._lines.values())
        for line in self._lines.values():
            lost += self._settle(line, self._seen.get(line.id, _Seen()), new_id)
            self._find_newest(connection, line)
            connection.executemany(
                SPANS.insert,
                [SPANS.sealed(s.id, line.id, s.first, s.last, s.state) for s in line.spans],
            )
        write_heads(connection, self._lines.values())
        saved = self._count_blocks(connection)
        self._write_slots(connection)
        connection.executemany(STATES.insert, self._states.sure())
        return saved, lost

    def _write_slots(self, connection: sqlite3.Connection) -> None:
        """A sender whose slot is not sure may just have asked: it has one that says nothing."""
        sure = self._slots.sure()
        connection.executemany(SLOTS.insert, sure)
        senders = {line.series.sender for line in self._lines.values()}
        unsure = (senders | self._slots.names()) - {row[1] for row in sure}
        top = max(self._slots.rows, default=0)
        connection.executemany(
            SLOTS.insert,
            [SLOTS.sealed(id, name, b"") for id, name in enumerate(sorted(unsure), start=top + 1)],
        )

    def _forget_strangers(self, connection: sqlite3.Connection) -> int:
        """Readings whose series is not known any more could be sent to nobody."""
        strangers = self._seen.keys() - self._lines.keys()
        if not strangers:
            return 0
        gone = 0
        for records in chunks.every(connection):
            kept = [record for record in records if record.series not in strangers]
            if len(kept) < len(records):
                gone += len(records) - len(kept)
                chunks.keep_only(connection, records[0].id, kept)
        return gone

    def _settle(self, line: Line, seen: _Seen, new_id: Callable[[], int]) -> int:
        spans = Spans()
        # What is final is believed before what may have been taken back since.
        for letter in "hpdc":
            for span in self._claims.get(line.id, []):
                if span.state[0] == letter:
                    spans = spans.marked([(span.first, span.last)], span.state, new_id)
        newest, stored, latest = self._heads.get(line.id, (0, 0, seen.latest))
        line.stored = max(stored, spans.last, seen.top)
        line.newest = seen.newest or newest
        line.latest = max(latest, seen.latest)
        if self._known is None:
            for record in self._held:
                if record.series == line.id and not spans.state_of(record.n):
                    spans = spans.marked([(record.n, record.n)], at_first(record.held), new_id)
        settled = [(s.first, s.last) for s in spans if not unsettled(s.state)]
        missing = without(settled + seen.runs, line.stored)
        if missing:
            spans = spans.marked([(n, n) for n in missing], parked("damaged"), new_id)
        line.set_spans(spans)
        return len(missing)

    def _find_newest(self, connection: sqlite3.Connection, line: Line) -> None:
        """What was brought in later has higher numbers than the newest reading."""
        newest, stored, _ = self._heads.get(line.id, (0, 0, 0))
        seen = self._seen.get(line.id)
        if seen is None or seen.top > stored:
            return
        record = chunks.one(connection, newest) if newest else None
        if not newest or (record is not None and record.series == line.id):
            line.newest = newest

    def _count_blocks(self, connection: sqlite3.Connection) -> int:
        blocks: dict[int, Block] = {}
        saved = top = 0
        for records in chunks.every(connection):
            for record in records:
                saved += 1
                top = max(top, record.id)
                block = blocks.setdefault(record.id >> BLOCK_BITS, Block())
                block.earliest = min(block.earliest, record.stamp)
                block.latest = max(block.latest, record.stamp)
                spans = self._lines[record.series].spans
                block.open += unsettled(spans.state_of(record.n))
        top = max([top, *(line.newest for line in self._lines.values())])
        closed = {n: block for n, block in blocks.items() if (n + 1) << BLOCK_BITS <= top + 1}
        connection.executemany(
            BLOCKS.insert,
            [BLOCKS.sealed(n, b.earliest, b.latest, b.open) for n, b in closed.items()],
        )
        return saved
