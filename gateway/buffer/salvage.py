"""A damaged file is set aside, what is sound is brought over, and the gateway goes on.

The new file is made beside the damaged one and put in its place only when it is whole, so that a
crash at any moment loses nothing that the damaged file still held.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from gateway.buffer import chunks, files, schema
from gateway.buffer.harvest import Harvest
from gateway.buffer.index import Flight, Index, load
from gateway.buffer.pages import Pages
from gateway.buffer.spans import unsettled
from gateway.buffer.wal import Log
from gateway.clock import Instant
from gateway.errors import NotPermitted, StoreDamaged

ASIDE_KEPT: Final = 3
"""Damaged files that are kept, the newest: each may be as large as the buffer."""


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
    found = Found()
    wal = files.beside(path, "-wal")
    if files.beside(path, ".salvaged").exists():  # a crash came between two renames
        aside = files.aside_name(path, now)
        files.replace(path, aside)
        found = Found(set_aside=aside, slots_lost=True)
    _may_be_written(path)
    if not path.exists():
        if wal.exists() or files.beside(path, ".ballast").exists():
            return evolve(rebuild(path, now), set_aside=None, deleted=True, slots_lost=True)
        make(path)
        return Found(new=True)
    try:
        if path.stat().st_size == 0:  # SQLite would take it for a new database
            raise StoreDamaged(f"{path} is empty")
        # Who opens it for writing may alter it, and who closes it last takes the WAL away, and on a
        # full disk its room is gone: so one that only reads comes first and goes last.
        with contextlib.closing(schema.connect_read_only(path)) as looking:
            schema.identify(looking, path)
            if wal.exists() and Log(wal, schema.PAGE_SIZE).cut_short(path, wal):
                raise StoreDamaged(f"{wal} was altered")
            with contextlib.closing(schema.connect(path)) as connection:
                schema.migrate(connection, path, schema.verify(connection, path))
                load(connection)
    except schema.SUSPECT as error:
        if not schema.is_damage(error, path):
            raise
    else:
        return found
    return rebuild(path, now)


def _may_be_written(path: Path) -> None:
    """Raises NotPermitted, or PermissionError."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise NotPermitted(
            f"{path.parent}: files may not be made here",
            hint="run it as the user that owns the buffer, or set buffer.path",
        )
    with contextlib.suppress(FileNotFoundError), path.open("r+b"):
        pass  # SQLite would call it "unable to open"


def make(path: Path) -> None:
    """An empty buffer, whole and durable before it has its name."""
    new = files.beside(path, ".new")
    schema.begin(new)
    connection = schema.connect(new)
    try:
        schema.create(connection)
        connection.execute(
            "PRAGMA wal_checkpoint(TRUNCATE)"
        )  # closing would not say that it failed
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
    files.forget_aside(path, ASIDE_KEPT - 1)
    if schema.free_bytes(path) < 2 * size:
        files.free_ballast(path)
    if schema.free_bytes(path) < size:
        files.forget_aside(path, 0)
    schema.begin(new)
    connection = schema.connect(new)
    try:
        schema.create(connection)
        connection.execute("PRAGMA journal_mode = OFF")  # it is synced as a whole below
        connection.execute("BEGIN")
        harvest = Harvest(known, lean=schema.free_bytes(path) < size)
        with contextlib.closing(Pages(path, wal, schema.PAGE_SIZE)) as pages:
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
        set_aside=aside, saved=saved, lost=lost, slots_lost=known is None and not harvest.has_slots
    )


def bring_back(connection: sqlite3.Connection, path: Path, now: Instant) -> Found:
    """Write a file anew that was deleted or replaced while it was open here.

    The connection is left open: it is all that still holds the readings until this is done.
    """
    new = files.beside(path, ".new")
    _remove(new)
    schema.begin(new)
    target = sqlite3.connect(new, isolation_level=None)
    try:
        connection.backup(target)
        saved = sum(map(len, chunks.every(target)))
    finally:
        target.close()
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
