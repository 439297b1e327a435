"""The file: how it is made, opened and brought to the present version, and what its errors mean."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from gateway.errors import (
    NotPermitted,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreNewer,
    StoreUnavailable,
)

APPLICATION_ID: Final = 0x4D475742  # "MGWB", in the file's header; file(1) can show it
VERSION: Final = 2

PAGE_SIZE: Final = 1024
"""Small pages and an early checkpoint write the least to a card: bench/store_bytes.py."""

CHECKPOINT_PAGES: Final = 256

_TABLES: Final = """
CREATE TABLE series (
    id INTEGER PRIMARY KEY, import TEXT NOT NULL, meter_id TEXT NOT NULL, meter TEXT NOT NULL,
    quantity TEXT NOT NULL, kind TEXT NOT NULL, every INTEGER NOT NULL, sender TEXT NOT NULL,
    listed INTEGER NOT NULL, parked TEXT NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE spans (
    id INTEGER PRIMARY KEY, series INTEGER NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, state TEXT NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE heads (
    series INTEGER PRIMARY KEY, reading INTEGER NOT NULL, n INTEGER NOT NULL,
    latest INTEGER NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE blocks (
    block INTEGER PRIMARY KEY, earliest INTEGER NOT NULL, latest INTEGER NOT NULL,
    open INTEGER NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE slots (
    id INTEGER PRIMARY KEY, sender TEXT NOT NULL, state BLOB NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE states (
    id INTEGER PRIMARY KEY, meter TEXT NOT NULL, state BLOB NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE names (id INTEGER PRIMARY KEY, text TEXT NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE samples (
    id INTEGER PRIMARY KEY, meter INTEGER NOT NULL, boot INTEGER NOT NULL,
    boottime INTEGER NOT NULL, at INTEGER NOT NULL, needed_to INTEGER,
    synchronised INTEGER NOT NULL, raw BLOB NOT NULL, faults TEXT, seal INTEGER NOT NULL);
CREATE INDEX samples_without_time ON samples (id) WHERE synchronised = 0;
CREATE TABLE gaps (
    id INTEGER PRIMARY KEY, series INTEGER NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE chunks (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
"""
_TABLES_OF_2: Final = """
CREATE TABLE corrected (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, series INTEGER NOT NULL, n INTEGER NOT NULL,
    stamp INTEGER NOT NULL, was TEXT NOT NULL, state TEXT NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE eras (
    id INTEGER PRIMARY KEY, series INTEGER NOT NULL, last INTEGER NOT NULL, meter TEXT NOT NULL,
    quantity TEXT NOT NULL, kind TEXT NOT NULL, every INTEGER NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE doubted (
    id INTEGER PRIMARY KEY, meter INTEGER NOT NULL, at INTEGER NOT NULL, reason TEXT NOT NULL,
    raw BLOB NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, sure INTEGER NOT NULL, level TEXT NOT NULL,
    event TEXT NOT NULL, fields TEXT NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE apart (id INTEGER PRIMARY KEY, room BLOB NOT NULL);
"""

_COPY: Final = """
CREATE TABLE series_copy (
    id INTEGER PRIMARY KEY, import TEXT NOT NULL, meter_id TEXT NOT NULL, meter TEXT NOT NULL,
    quantity TEXT NOT NULL, kind TEXT NOT NULL, every INTEGER NOT NULL, sender TEXT NOT NULL,
    listed INTEGER NOT NULL, parked TEXT NOT NULL, seal INTEGER NOT NULL);
"""

APART: Final = """
INSERT OR IGNORE INTO apart (id, room)
    SELECT coalesce(max(id), 0) / 15, zeroblob(65536) FROM series;
"""
"""Room between the series and their copies, of which a page holds about 15: what a card loses at a
time is smaller."""

STEPS: Final[Mapping[int, str]] = {1: _TABLES_OF_2}
"""SQL that brings a file of version n to n + 1. A copy is made before the first."""

QUICK_CHECK_BYTES: Final = 32_000_000
"""Files up to this are checked as a whole at each start; larger ones as they are read."""


def begin(path: Path) -> None:
    """An empty file for this user alone; SQLite gives the files beside it the same mode."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def connect(path: Path) -> sqlite3.Connection:
    """The one writing connection. Every commit is on the device when COMMIT returns."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        # Some network file systems have no WAL; with a journal only EXTRA keeps the last commit.
        connection.execute(f"PRAGMA synchronous = {'FULL' if mode == 'wal' else 'EXTRA'}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute("PRAGMA journal_size_limit = 1048576")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute(
            "PRAGMA secure_delete = OFF"
        )  # Debian's default writes freed pages twice
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cache_size = -2000")
        # Where a file cannot be opened for writing, be it for a moment, SQLite opens it for reading
        # and never tries again. Nothing is written for this.
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("ROLLBACK")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that never writes and never checkpoints, whether a service runs or not."""
    location = path.absolute().as_uri()
    try:
        connection = sqlite3.connect(
            f"{location}?mode=ro", uri=True, isolation_level=None, timeout=5.0
        )
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError:
        # Without the right to make the -shm file a WAL database opens only as immutable, which is
        # right where nothing is left in a WAL and nobody writes.
        wal = Path(f"{path}-wal")
        if wal.exists() and wal.stat().st_size:
            raise
        connection = sqlite3.connect(
            f"{location}?mode=ro&immutable=1", uri=True, isolation_level=None
        )
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def create(connection: sqlite3.Connection) -> None:
    """Make every table in an empty file."""
    connection.executescript(
        f"BEGIN IMMEDIATE; {_TABLES}{_TABLES_OF_2}{APART}{_COPY}"
        f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
    )


def identify(connection: sqlite3.Connection, path: Path) -> int:
    """The file's version. Raises StoreDamaged where it is not ours, StoreNewer as it says."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id != APPLICATION_ID or version < 1:
        raise StoreDamaged(f"{path} is not a buffer of the gateway")
    if version > VERSION:
        raise StoreNewer(
            f"{path} was written by a newer gateway (its version is {version}, ours {VERSION})",
            hint="install the newer version again; the file was not touched",
        )
    return version


def verify(connection: sqlite3.Connection, path: Path) -> int:
    """As `identify`; a file that is not large is checked as a whole."""
    version = identify(connection, path)
    pages, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
    )
    if pages * size <= QUICK_CHECK_BYTES:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StoreDamaged(f"{path}: {found}")
    return version


def migrate(
    connection: sqlite3.Connection,
    path: Path,
    version: int,
    *,
    steps: Mapping[int, str] = STEPS,
    target: int = VERSION,
) -> None:
    """Bring an older file to the present version, each step in one transaction.

    The file as it was is kept beside it as `<path>.v<version>`.
    """
    if version == target:
        return
    copy = Path(f"{path}.v{version}")
    copy.unlink(missing_ok=True)
    begin(copy)
    connection.execute("VACUUM INTO ?", (str(copy),))
    for step in range(version, target):
        connection.executescript(
            f"BEGIN IMMEDIATE; {steps[step]}; PRAGMA user_version = {step + 1}; COMMIT;"
        )


_MEANING: Final[Mapping[int, type[StoreError]]] = {
    sqlite3.SQLITE_ERROR: StoreDamaged,  # our statements are fixed: a table is missing or altered
    sqlite3.SQLITE_PERM: StoreUnavailable,
    sqlite3.SQLITE_BUSY: StoreUnavailable,
    sqlite3.SQLITE_LOCKED: StoreUnavailable,
    sqlite3.SQLITE_READONLY: StoreUnavailable,
    sqlite3.SQLITE_IOERR: StoreUnavailable,
    sqlite3.SQLITE_CORRUPT: StoreDamaged,
    sqlite3.SQLITE_FULL: StoreFull,
    sqlite3.SQLITE_CANTOPEN: StoreUnavailable,
    sqlite3.SQLITE_PROTOCOL: StoreUnavailable,
    sqlite3.SQLITE_CONSTRAINT: StoreDamaged,
    sqlite3.SQLITE_MISMATCH: StoreDamaged,
    sqlite3.SQLITE_NOTADB: StoreDamaged,
}
_HINTS: Final[Mapping[type[StoreError], str]] = {
    StoreFull: "free room on the disk",
    StoreUnavailable: "check the card with dmesg, and that the file system is writable",
}
_ROOM_FOR_A_COMMIT: Final = 65_536


def translated(error: sqlite3.Error, path: Path) -> StoreError:
    """The error of our tree for one of SQLite's."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    meaning = _MEANING.get(code, StoreUnavailable)
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
        meaning = StoreUnavailable  # a mistake of ours says nothing about the file
    if meaning is StoreUnavailable and free_bytes(path) < _ROOM_FOR_A_COMMIT:
        meaning = StoreFull  # the shared memory file of the WAL reports a full disk as an I/O error
    return meaning(f"{path}: {error}", hint=_HINTS.get(meaning, ""))


SUSPECT: Final = (StoreDamaged, sqlite3.Error, UnicodeDecodeError)
"""What damage may show as; the last where a message of SQLite quotes altered text."""


def is_damage(error: Exception, path: Path) -> bool:
    """Does it mean that the file is not sound?"""
    if isinstance(error, UnicodeDecodeError):
        return True
    if isinstance(error, sqlite3.Error):
        error = translated(error, path)
    return isinstance(error, StoreDamaged)


@contextlib.contextmanager
def border(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the system leave as errors of our tree."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error, path) from error
    except UnicodeDecodeError as error:
        raise StoreDamaged(f"{path}: altered text in it") from error
    except PermissionError as error:
        raise NotPermitted(
            f"{error.filename or path}: {error.strerror}",
            hint="run it as the user that owns the buffer, or set buffer.path",
        ) from error
    except OSError as error:
        meaning = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnavailable
        message = f"{error.filename or path}: {error.strerror or error}"
        raise meaning(message, hint=_HINTS[meaning]) from error


def free_bytes(path: Path) -> int:
    """Room on the file system that an ordinary user may fill; plenty where it cannot be told."""
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return 1 << 62
    return found.f_bavail * found.f_frsize
