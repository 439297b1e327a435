"""What the log said, kept: the journal of a Raspberry Pi is often gone after a reboot."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Final

from gateway.buffer.index import telling_rows
from gateway.buffer.rows import EVENTS
from gateway.logbook import Entry

MOST: Final = 5_000
"""Entries that are kept, about a megabyte."""


def write(connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    """Add them, and let go of the oldest; in a transaction."""
    last = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]
    for entry in entries:
        last += 1
        fields = json.dumps(dict(entry.fields), ensure_ascii=False)
        row = EVENTS.sealed(last, entry.at, int(entry.sure), entry.level, entry.event, fields)
        connection.execute(EVENTS.insert, row)
    connection.execute("DELETE FROM events WHERE id <= ?", (last - MOST,))


def newest(connection: sqlite3.Connection, most: int, levels: Collection[str]) -> list[Entry]:
    """The newest of these levels, the last one last; what was altered is left out."""
    found: list[Entry] = []
    for _, at, sure, level, event, fields, _ in telling_rows(connection, EVENTS, "id DESC"):
        if len(found) == most:
            break
        if level in levels:
            found.append(Entry(at, bool(sure), level, event, json.loads(fields)))
    return found[::-1]
