"""What becomes of readings: confirmed, parked, released, and the slots of the senders."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from gateway.buffer import chunks
from gateway.buffer.index import Change, Index, sound_rows
from gateway.buffer.parking import IN_FUTURE, TOO_OLD
from gateway.buffer.rows import SLOTS
from gateway.buffer.spans import CONFIRMED, parked, unsettled
from gateway.metering.reading import SeriesKey, Settlement

LEARNT: Final = "modbus/"
"""What the keys of learnt things begin with; a meter's name stands between slashes after it."""


def settle(index: Index, sender: str, settlements: Sequence[Settlement]) -> Change:
    """What an answer means for values in flight. Ids that are not in flight are passed over."""
    change = Change(index)
    flight = index.flight
    for one in settlements:
        line = index.by_key.get(one.key)
        if line is None:
            continue
        mine = {
            flight[id].n: flight[id].id
            for id in one.ids
            if id in flight and flight[id].sender == sender and flight[id].line is line
        }
        if one.outcome == "confirmed":
            change.mark(line, mine, CONFIRMED)
        elif one.outcome == "parked":
            change.mark(line, mine, parked(one.reason))
        elif one.outcome == "park_series":
            change.park(line, one.reason or "refused")
        elif one.outcome == "unpark_series":
            change.park(line, "")
    return change


def release(index: Index, keys: Iterable[SeriesKey]) -> tuple[Change, int]:
    """Let the held readings of these series be sent, and how many they are."""
    change = Change(index)
    lines = (index.by_key.get(key) for key in keys)
    return change, sum(change.release(line) for line in lines if line is not None)


def expire(
    connection: sqlite3.Connection, index: Index, before: int, after: int
) -> tuple[Change, int]:
    """Park what waits, held or not, with a stamp before `before` or after `after` (s); how many."""
    change = Change(index)
    count = 0
    for number, block in index.blocks.items():
        if not block.open or (block.earliest >= before and block.latest <= after):
            continue
        old: dict[int, dict[int, int]] = {}
        ahead: dict[int, dict[int, int]] = {}
        for record in chunks.block(connection, number):
            line = index.lines[record.series]
            if before <= record.stamp <= after or record.tag in index.flying:
                continue
            if unsettled(line.spans.state_of(record.n)):
                found = old if record.stamp < before else ahead
                found.setdefault(line.id, {})[record.n] = record.id
        for found, reason in ((old, TOO_OLD), (ahead, IN_FUTURE)):
            for series, readings in found.items():
                count += change.mark(index.lines[series], readings, parked(reason))
    return change, count


def forget_learnt(connection: sqlite3.Connection, index: Index) -> list[int]:
    """Rows of `states` with what pollers learnt of meters that are not configured any more."""
    meters = {line.series.meter for line in index.lines.values() if line.listed}
    rows = connection.execute("SELECT id, meter FROM states").fetchall()
    return [
        id
        for id, key in rows
        if key.startswith(LEARNT) and not any(f"/{meter}/" in key for meter in meters)
    ]


def slots(connection: sqlite3.Connection) -> dict[str, tuple[int, bytes]]:
    """Every sender's row and state. Raises StoreDamaged: a slot is never taken for none."""
    return {sender: (id, state) for id, sender, state, _ in sound_rows(connection, SLOTS)}


def write_slot(connection: sqlite3.Connection, sender: str, state: bytes) -> None:
    """Save a slot within the caller's transaction."""
    known = slots(connection)
    top = max((id for id, _ in known.values()), default=0)
    id = known[sender][0] if sender in known else top + 1
    connection.execute(SLOTS.insert, SLOTS.sealed(id, sender, state))
