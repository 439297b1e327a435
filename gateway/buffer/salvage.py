"""A damaged file is set aside, what is sound is brought over, and the gateway goes on.

The new file is made beside the damaged one and put in its place only when it is whole, so that a
crash at any moment loses nothing that the damaged file still held.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from attrs import define, frozen

from gateway.buffer import files, schema
from gateway.buffer.index import (
    Block,
    Index,
    Line,
    line_of,
    load,
    write_heads,
    write_series,
)
from gateway.buffer.pages import Pages
from gateway.buffer.rows import (
    BLOCK_BITS,
    BLOCKS,
    GAPS,
    HEADS,
    NAMES,
    READINGS,
    SAMPLES,
    SERIES,
    SLOTS,
    SPANS,
    STATES,
    Row,
)
from gateway.buffer.spans import Run, Span, Spans, dropped, held, unsettled
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
    except sqlite3.Error as error:
        if not isinstance(schema.translated(error, path), StoreDamaged):
            raise
    except StoreDamaged:
        pass
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
        harvest.gather(Pages(path, wal, schema.PAGE_SIZE), connection)
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
        saved = target.execute("SELECT count(*) FROM readings").fetchone()[0]
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


@define
class _Seen:
    """What the rows of one series say."""

    runs: list[Run]
    newest: int = 0
    latest: int = -(1 << 62)

    def add(self, id: int, n: int, stamp: int) -> None:
        if self.runs and self.runs[-1][1] == n - 1:
            self.runs[-1] = (self.runs[-1][0], n)
        else:
            self.runs.append((n, n))
        self.newest = max(self.newest, id)
        self.latest = max(self.latest, stamp)


class _Harvest:
    """The sound rows of a damaged file, and the two books made anew from them."""

    def __init__(self, known: Index | None) -> None:
        self.slots: dict[int, Row] = {}
        self._known = known
        self._lines: dict[int, Line] = {}
        self._claims: dict[int, list[Span]] = {}
        self._heads: dict[int, tuple[int, int, int]] = {}
        self._unsound: list[Row] = []

    def gather(self, pages: Pages, connection: sqlite3.Connection) -> None:
        """Copy readings, samples, gaps, names and states; remember the rest."""
        copied = {READINGS, SAMPLES, GAPS, NAMES, STATES}
        for table, row, sound in pages.rows():
            if not sound:
                self._unsound.append(row)
            elif table in copied:
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
            self._believe(self._known)

    def _believe(self, known: Index) -> None:
        for line in known.lines.values():
            self._lines[line.id] = Line(line.id, line.series, line.listed, line.parked)
            self._claims[line.id] = list(line.spans)
            self._heads[line.id] = (line.newest, line.stored, line.latest)

    def rebuild(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """Write series, spans, heads, blocks and slots; how many readings are saved and lost."""
        for line in self._lines.values():
            write_series(connection, line)
        lost = connection.execute(
            "DELETE FROM readings WHERE series NOT IN (SELECT id FROM series)"
        ).rowcount
        seen = {id: _Seen([]) for id in self._lines}
        for id, series, n, stamp in connection.execute(
            "SELECT id, series, n, stamp FROM readings ORDER BY id"
        ):
            seen[series].add(id, n, stamp)
        span_id = 0

        def new_id() -> int:
            nonlocal span_id
            span_id += 1
            return span_id

        for line in self._lines.values():
            lost += self._settle(connection, line, seen[line.id], new_id)
            connection.executemany(
                SPANS.insert,
                [SPANS.sealed(s.id, line.id, s.first, s.last, s.state) for s in line.spans],
            )
        write_heads(connection, self._lines.values())
        saved = self._count_blocks(connection)
        connection.executemany(SLOTS.insert, self.slots.values())
        return saved, max(lost, len(self._unsound))

    def _settle(
        self, connection: sqlite3.Connection, line: Line, seen: _Seen, new_id: Callable[[], int]
    ) -> int:
        spans = Spans()
        # What is final is believed before what may have been taken back since.
        for letter in "hpdc":
            for span in self._claims.get(line.id, []):
                if span.state[0] == letter:
                    spans = spans.marked([(span.first, span.last)], span.state, new_id)
        newest, stored, latest = self._heads.get(line.id, (0, 0, seen.latest))
        top = max([stored, spans.last, *(last for _, last in seen.runs)])
        for row in self._unsound:  # an altered row that reads as the next one probably was it
            if row[1] == line.id and row[2] == top + 1:
                top += 1
        line.stored = top
        line.newest = max(newest, seen.newest)
        line.latest = max(latest, seen.latest)
        for n, reason in connection.execute(
            "SELECT n, held FROM readings WHERE series = ? AND held IS NOT NULL", (line.id,)
        ):
            if self._known is None and not spans.state_of(n):
                spans = spans.marked([(n, n)], held(reason), new_id)
        settled = [(s.first, s.last) for s in spans if not unsettled(s.state)]
        missing = without(settled + seen.runs, top)
        if missing:
            spans = spans.marked([(n, n) for n in missing], dropped("damaged"), new_id)
        line.set_spans(spans)
        return len(missing)

    def _count_blocks(self, connection: sqlite3.Connection) -> int:
        blocks: dict[int, Block] = {}
        saved = 0
        for id, series, n, stamp in connection.execute(
            "SELECT id, series, n, stamp FROM readings ORDER BY id"
        ):
            saved += 1
            block = blocks.setdefault(id >> BLOCK_BITS, Block())
            block.earliest = min(block.earliest, stamp)
            block.latest = max(block.latest, stamp)
            block.open += unsettled(self._lines[series].spans.state_of(n))
        top = max((line.newest for line in self._lines.values()), default=0)
        closed = {n: block for n, block in blocks.items() if (n + 1) << BLOCK_BITS <= top + 1}
        connection.executemany(
            BLOCKS.insert,
            [BLOCKS.sealed(n, b.earliest, b.latest, b.open) for n, b in closed.items()],
        )
        return saved
