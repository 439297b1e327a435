"""What leaves the buffer: confirmed readings by age, and by size whatever is oldest."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from gateway.buffer import chunks
from gateway.buffer.appending import Transaction
from gateway.buffer.chunks import Record
from gateway.buffer.index import Change, Index, write_heads
from gateway.buffer.rows import CORRECTED, DOUBTED
from gateway.buffer.spans import CONFIRMED, State, dropped, unsettled
from gateway.logbook import log

MOST_ROOM = 8_000_000
"""Bytes that are freed at once, at most, so that nothing waits long for it."""


ROOM_INSIDE = 256_000
"""Bytes of free pages with which the file does not grow for a while."""

SAMPLES_AT_ONCE = 1_000
"""Samples that go in one transaction: where room is short, not many more than have to."""

STILL_NEEDED = 2 * 86_400
"""Samples of so many seconds may belong to intervals that are under way."""


def prune(
    connection: sqlite3.Connection,
    index: Index,
    limit: int,
    numbers: Iterable[int],
    transaction: Transaction,
) -> None:
    """Delete confirmed readings of these blocks with stamps before `limit` (s)."""
    for number in numbers:
        if number in index.blocks and index.blocks[number].earliest < limit:
            _delete(
                connection,
                index,
                number,
                transaction,
                lambda state, stamp: state == CONFIRMED and stamp < limit,
                at_least=0.5,
            )


def prune_beside(
    connection: sqlite3.Connection, index: Index, limit: int, transaction: Transaction
) -> None:
    """Delete samples that nothing before `limit` (s) waits for, and gaps before it."""
    waiting = [block.earliest for block in index.blocks.values() if block.open]
    _delete_samples(connection, min([limit, *waiting]), transaction)
    _delete_gaps(connection, limit, transaction)
    with transaction():
        connection.execute("DELETE FROM corrected WHERE at < ?", (limit * 1000,))
        connection.execute("DELETE FROM doubted WHERE at < ?", (limit * 1000,))


def _delete_gaps(connection: sqlite3.Connection, limit: int, transaction: Transaction) -> None:
    with transaction():
        connection.execute(
            "DELETE FROM gaps WHERE last < ?"
            " AND id NOT IN (SELECT max(id) FROM gaps GROUP BY series)",
            (limit,),
        )


def free_inside(connection: sqlite3.Connection) -> int:
    """Bytes of the file that can be used again before it has to grow."""
    free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("freelist_count", "page_size")
    )
    return int(free * size)


def make_room_inside(
    connection: sqlite3.Connection, index: Index, transaction: Transaction
) -> bool:
    """The disk is full: the oldest confirmed readings give way; is there room now?"""
    if free_inside(connection) >= ROOM_INSIDE:
        return True
    for number in _oldest_first(index):
        _delete(connection, index, number, transaction, lambda state, _: state == CONFIRMED)
        if free_inside(connection) >= 2 * ROOM_INSIDE:
            break
    return free_inside(connection) >= ROOM_INSIDE


def _oldest_first(index: Index) -> list[int]:
    return sorted(index.blocks, key=lambda number: (index.blocks[number].earliest, number))


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the pages in use."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def make_room(
    connection: sqlite3.Connection, index: Index, max_size: int, transaction: Transaction
) -> None:
    """Keep within `max_size`: confirmed readings go first, then what only explains or notes
    something (samples that no interval under way needs, gaps), then the oldest others, counted."""
    if used_bytes(connection) <= max_size:
        return
    target = max_size - min(max_size // 50, MOST_ROOM)
    oldest_first = _oldest_first(index)
    for number in oldest_first:
        if used_bytes(connection) <= target:
            return
        until = index.blocks[number].latest
        _delete(connection, index, number, transaction, lambda s, _: s == CONFIRMED)
        waiting = [block.earliest for block in index.blocks.values() if block.open]
        _delete_samples(connection, min([until, *waiting]), transaction)
    (needed,) = connection.execute(
        "SELECT max(coalesce(needed_to, at)) FROM samples WHERE synchronised"
    ).fetchone()
    if needed is not None:
        _shed_samples(connection, needed // 1000 - STILL_NEEDED, target, transaction)
    _shed_beside(connection, target, transaction)
    if used_bytes(connection) > target and index.blocks:
        earliest = min(block.earliest for block in index.blocks.values())
        _delete_gaps(connection, earliest, transaction)
    lost = 0
    oldest: int | None = None
    for number in oldest_first:
        if used_bytes(connection) <= target:
            break
        block = index.blocks.get(number)
        if block is None:
            continue
        _delete_samples(connection, block.latest, transaction)
        oldest = block.earliest if oldest is None else oldest
        lost += _delete(connection, index, number, transaction, lambda *_: True)
    while used_bytes(connection) > target:
        if not _delete_oldest_samples(connection, 1 << 62, transaction):
            break
    if lost:
        log("buffer.dropped", reason="max_size", count=lost, oldest=shown(oldest))


def shown(stamp: int | None) -> str | None:
    """A stamp in s as a log line shows it."""
    if stamp is None:
        return None
    return datetime.fromtimestamp(stamp, UTC).isoformat().replace("+00:00", "Z")


def _delete(
    connection: sqlite3.Connection,
    index: Index,
    number: int,
    transaction: Transaction,
    gone: Callable[[str, int], bool],
    *,
    at_least: float = 0.0,
) -> int:
    """Delete the readings of a block for which `gone(state, stamp)`; how many were unconfirmed.

    A chunk of which a smaller share than `at_least` would go is left as it is.
    """
    lost: dict[int, dict[int, int]] = {}
    touched: set[int] = set()
    rewritten: list[tuple[int, list[Record]]] = []
    left = 0
    for records in chunks.chunks(connection, *chunks.bounds(number)):
        kept: list[Record] = []
        going: list[tuple[Record, State]] = []
        for record in records:
            state = index.lines[record.series].spans.state_of(record.n)
            if record.tag in index.flying or not gone(state, record.stamp):
                kept.append(record)
            else:
                going.append((record, state))
        if not going or len(going) < at_least * len(records):
            left += len(records)
            continue
        left += len(kept)
        rewritten.append((records[0].id, kept))
        for record, state in going:
            touched.add(record.series)
            if unsettled(state) or state[0] == "p":
                lost.setdefault(record.series, {})[record.n] = record.id
    if not rewritten:
        return 0
    change = Change(index)
    count = 0
    for series, readings in lost.items():
        count += change.mark(index.lines[series], readings, dropped("max_size"))
    closed = number in index.closed
    with transaction():
        for id, kept_records in rewritten:
            chunks.keep_only(connection, id, kept_records)
        change.write(connection)
        if not closed:  # the heads written so far are older than these readings
            write_heads(connection, [index.lines[series] for series in touched])
        elif not left:
            connection.execute("DELETE FROM blocks WHERE block = ?", (number,))
    change.apply()
    if closed and not left:
        del index.blocks[number]
        index.closed.remove(number)
    return count


def _delete_samples(connection: sqlite3.Connection, limit: int, transaction: Transaction) -> None:
    """Delete the samples that were needed up to before `limit` (s) only.

    Samples come in the order of time, so those without a sure time are as old as their neighbours.
    """
    row = connection.execute(
        "SELECT id FROM samples WHERE synchronised AND coalesce(needed_to, at) >= ?"
        " ORDER BY id LIMIT 1",
        (limit * 1000,),
    ).fetchone()
    end = row[0] if row else 1 << 62
    (top,) = connection.execute(
        "SELECT max(id) FROM samples WHERE id < ? AND synchronised AND coalesce(needed_to, at) < ?",
        (end, limit * 1000),
    ).fetchone()
    if top is not None:
        while _delete_oldest_samples(connection, top, transaction):
            pass


def _shed_samples(
    connection: sqlite3.Connection, limit: int, target: int, transaction: Transaction
) -> None:
    """Delete the oldest samples that were needed up to before `limit` (s) while there is need."""
    while used_bytes(connection) > target:
        (last, still) = connection.execute(
            "SELECT max(id), min(CASE WHEN synchronised AND coalesce(needed_to, at) >= ?"
            " THEN id END) FROM (SELECT * FROM samples ORDER BY id LIMIT ?)",
            (limit * 1000, SAMPLES_AT_ONCE),
        ).fetchone()
        if last is None:
            return
        end = last if still is None else still - 1
        if not _delete_oldest_samples(connection, end, transaction) or still is not None:
            return


def _shed_beside(connection: sqlite3.Connection, target: int, transaction: Transaction) -> None:
    """Delete the oldest samples of which nothing was made, then what readings were before they were
    corrected, while there is need."""
    for table in (DOUBTED.name, CORRECTED.name):
        gone = 1
        while gone and used_bytes(connection) > target:
            oldest = f"SELECT id FROM {table} ORDER BY id LIMIT {SAMPLES_AT_ONCE}"  # noqa: S608
            with transaction():
                delete = f"DELETE FROM {table} WHERE id IN ({oldest})"  # noqa: S608  (ours)
                gone = connection.execute(delete).rowcount


def _delete_oldest_samples(
    connection: sqlite3.Connection, top: int, transaction: Transaction
) -> bool:
    """Delete some of the oldest samples with ids up to `top`; were there any?"""
    with transaction():
        (found,) = connection.execute(
            "SELECT max(id) FROM (SELECT id FROM samples WHERE id <= ? ORDER BY id LIMIT ?)",
            (top, SAMPLES_AT_ONCE),
        ).fetchone()
        if found is not None:
            connection.execute("DELETE FROM samples WHERE id <= ?", (found,))
    return found is not None
