"""A damaged file is set aside, what is sound is brought over, and the gateway goes on.

The new file is made beside the damaged one and put in its place only when it is whole, so that a
crash at any moment loses nothing that the damaged file still held.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import define, field, frozen

from gateway.buffer import chunks, files, schema
from gateway.buffer.chunks import BLOCK_BITS, Record
from gateway.buffer.index import (
    Block,
    Flight,
    Index,
    Line,
    line_of,
    load,
    write_heads,
    write_series,
)
from gateway.buffer.pages import Pages
from gateway.buffer.rows import (
    BLOCKS,
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
from gateway.buffer.spans import Run, Span, Spans, held, parked, unsettled
from gateway.buffer.views import without
from gateway.clock import Instant
from gateway.errors import NotPermitted, StoreDamaged


@frozen
class Found:
    """What was found where the buffer should be."""

    new: bool = False
    set_aside: Path | None = None
    deleted: bool = False
    saved: int = 0
    lost: int = 0
    """Readings that are known to be gone."""
    slots_lost: bool = False


def prepare(path: Path, now: Instant) -> Found:
    """See to it that a sound file of the present version is there.

    Raises NotPermitted, StoreNewer and the errors of SQLite and the system.
    """
    _remove(files.beside(path, ".new"))
    if files.beside(path, ".salvaged").exists():  # a crash came between two renames
        aside = files.aside_name(path, now)
        files.replace(path, aside)
        return Found(set_aside=aside, slots_lost=True)
    if not path.exists():
        if files.beside(path, "-wal").exists() or files.beside(path, ".ballast").exists():
            found = rebuild(path, now)
            return Found(False, None, True, found.saved, found.lost, True)
        make(path)
        return Found(new=True)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise NotPermitted(
            f"{path.parent}: files may not be made here",
            hint="run it as the user that owns the buffer, or set buffer.path",
        )
    with path.open("r+b"):
        pass  # raises PermissionError, which SQLite would call "unable to open"
    try:
        if path.stat().st_size == 0:  # SQLite would take it for a new database
            raise StoreDamaged(f"{path} is empty")
        connection = schema.connect(path)
        try:
            schema.migrate(connection, path, schema.verify(connection, path))
            load(connection)
        finally:
            connection.close()
    except (StoreDamaged, sqlite3.Error) as error:
        if not schema.is_damage(error, path):
            raise
    else:
        return Found()
    return rebuild(path, now)


def make(path: Path) -> None:
    """An empty buffer, whole and durable before it has its name."""
    new = files.beside(path, ".new")
    connection = schema.connect(new)
    try:
        schema.create(connection)
    finally:
        connection.close()
    files.sync_file(new)
    os.rename(new, path)
    files.sync_folder(path)


def rebuild(path: Path, now: Instant, *, known: Index | None = None) -> Found:
    """Bring over what is sound of a damaged file and its WAL, and set both aside.

    `known`: what a running store still knows of series and spans; it is believed before the file.
    """
    new = files.beside(path, ".new")
    _remove(new)
    wal = files.beside(path, "-wal")
    size = sum(file.stat().st_size for file in (path, wal) if file.exists())
    if schema.free_bytes(path) < 2 * size:
        files.free_ballast(path)
    connection = schema.connect(new)
    try:
        schema.create(connection)
        connection.execute("PRAGMA journal_mode = OFF")  # it is synced as a whole below
        connection.execute("BEGIN")
        harvest = _Harvest(known)
        pages = Pages(path, wal, schema.PAGE_SIZE)
        harvest.gather(pages, connection)
        harvest.gather_readings(pages, connection)
        saved, lost = harvest.rebuild(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    aside = files.aside_name(path, now)
    _put_in_place(path, aside)
    return Found(
        set_aside=aside, saved=saved, lost=lost, slots_lost=known is None and not harvest.slots
    )


def bring_back(connection: sqlite3.Connection, path: Path, now: Instant) -> Found:
    """Write a file anew that was deleted or replaced while it was open here; closes the old one."""
    new = files.beside(path, ".new")
    _remove(new)
    target = sqlite3.connect(new, isolation_level=None)
    try:
        connection.backup(target)
        saved = sum(len(records) for records in chunks.chunks(target, 0, 1 << 62))
    finally:
        target.close()
        connection.close()
    aside = files.aside_name(path, now)
    there = path.exists()
    _put_in_place(path, aside)
    return Found(set_aside=aside if there else None, deleted=not there, saved=saved)


def _put_in_place(path: Path, aside: Path) -> None:
    new, salvaged = files.beside(path, ".new"), files.beside(path, ".salvaged")
    files.sync_file(new)
    os.rename(new, salvaged)
    files.sync_folder(path)
    files.replace(path, aside)


def _remove(new: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        files.beside(new, suffix).unlink(missing_ok=True)


def resume_flights(
    connection: sqlite3.Connection, index: Index, flights: Mapping[int, Flight]
) -> None:
    """What was in flight stays so, under the ids by which the sender knows it."""
    wanted = {chunks.tag(f.line.id, f.n): offered for offered, f in flights.items()}
    for number, block in index.blocks.items():
        if not wanted or not block.open:
            continue
        for record in chunks.block(connection, number):
            offered = wanted.get(record.tag)
            line = index.lines[record.series]
            if offered is not None and unsettled(line.spans.state_of(record.n)):
                index.take_off(offered, flights[offered].sender, record.tag, record.id)


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


class _Harvest:
    """The sound rows of a damaged file, and the two books made anew from them."""

    def __init__(self, known: Index | None) -> None:
        self.slots: dict[int, Row] = {}
        self._known = known
        self._lines: dict[int, Line] = {}
        self._claims: dict[int, list[Span]] = {}
        self._heads: dict[int, tuple[int, int, int]] = {}
        self._seen: dict[int, _Seen] = {}
        self._held: list[Record] = []

    def gather(self, pages: Pages, connection: sqlite3.Connection) -> None:
        """Copy samples, gaps, names and states; remember series, spans, heads and slots."""
        for table, row in pages.rows():
            if table in (SAMPLES, GAPS, NAMES, STATES):
                connection.execute(table.insert, row)
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
            elif table is SLOTS:
                self.slots[row[0]] = row  # type: ignore[index]
        if self._known is not None:
            for line in self._known.lines.values():
                self._lines[line.id] = Line(line.id, line.series, line.listed, line.parked)
                self._claims[line.id] = list(line.spans)
                self._heads[line.id] = (line.newest, line.stored, line.latest)

    def gather_readings(self, pages: Pages, connection: sqlite3.Connection) -> None:
        """Copy the chunks, of those that were altered what is sound, and last the loose pieces."""
        put = "INSERT OR IGNORE INTO chunks (id, data) VALUES (?, ?)"
        loose: list[Record] = []
        for id, data in pages.chunks():
            records, whole = chunks.unpack(id or 0, data)
            if id is None:
                loose.extend(records)
            elif records:
                mine = data if whole else b"".join(map(chunks.repack, records))
                connection.execute(put, (id, mine))
        top = max([index_top for index_top, _, _ in self._heads.values()], default=0)
        for records in chunks.chunks(connection, 0, 1 << 62):
            top = max(top, records[-1].id)
            for record in records:
                self._take(record)
        found: dict[tuple[int, int], bytes] = {}
        for record in loose:
            runs = self._seen[record.series].runs if record.series in self._seen else []
            if not any(first <= record.n <= last for first, last in runs):
                found[record.series, record.n] = chunks.repack(record)
        chunks.insert(connection, top + 1, list(found.values()))
        for records in chunks.chunks(connection, top + 1, 1 << 62):
            for record in records:
                self._take(record)

    def _take(self, record: Record) -> None:
        self._seen.setdefault(record.series, _Seen()).add(record)
        if record.held:
            self._held.append(record)

    def rebuild(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """Write series, spans, heads, blocks and slots; how many readings are saved and lost."""
        lost = self._forget_strangers(connection)
        span_id = 0

        def new_id() -> int:
            nonlocal span_id
            span_id += 1
            return span_id

        for line in self._lines.values():
            write_series(connection, line)
            lost += self._settle(line, self._seen.get(line.id, _Seen()), new_id)
            connection.executemany(
                SPANS.insert,
                [SPANS.sealed(s.id, line.id, s.first, s.last, s.state) for s in line.spans],
            )
        write_heads(connection, self._lines.values())
        saved = self._count_blocks(connection)
        connection.executemany(SLOTS.insert, self.slots.values())
        return saved, lost

    def _forget_strangers(self, connection: sqlite3.Connection) -> int:
        """Readings whose series is not known any more could be sent to nobody."""
        strangers = self._seen.keys() - self._lines.keys()
        if not strangers:
            return 0
        gone = 0
        for records in list(chunks.chunks(connection, 0, 1 << 62)):
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
                    spans = spans.marked([(record.n, record.n)], held(record.held), new_id)
        settled = [(s.first, s.last) for s in spans if not unsettled(s.state)]
        missing = without(settled + seen.runs, line.stored)
        if missing:
            spans = spans.marked([(n, n) for n in missing], parked("damaged"), new_id)
        line.set_spans(spans)
        return len(missing)

    def _count_blocks(self, connection: sqlite3.Connection) -> int:
        blocks: dict[int, Block] = {}
        saved = top = 0
        for records in chunks.chunks(connection, 0, 1 << 62):
            for record in records:
                saved += 1
                block = blocks.setdefault(record.id >> BLOCK_BITS, Block())
                block.earliest = min(block.earliest, record.stamp)
                block.latest = max(block.latest, record.stamp)
                spans = self._lines[record.series].spans
                block.open += unsettled(spans.state_of(record.n))
        top = max((line.newest for line in self._lines.values()), default=0)
        closed = {n: block for n, block in blocks.items() if (n + 1) << BLOCK_BITS <= top + 1}
        connection.executemany(
            BLOCKS.insert,
            [BLOCKS.sealed(n, b.earliest, b.latest, b.open) for n, b in closed.items()],
        )
        return saved
