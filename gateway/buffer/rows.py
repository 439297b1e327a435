"""The tables beside the readings, and how their rows are sealed.

A seal is the CRC-32 of the table's letter and every field, the row's own id among them. A row
whose seal does not fit was altered, moved or cut off, and is not believed.
"""

from __future__ import annotations

import zlib
from typing import Final, TypeAlias

from attrs import frozen

Field: TypeAlias = int | str | bytes | None
Row: TypeAlias = tuple[Field, ...]


@frozen
class Table:
    """A table of the buffer: its columns, the row id first and the seal last."""

    name: str
    letter: bytes
    columns: tuple[str, ...]

    @property
    def insert(self) -> str:
        """The statement that puts a whole row in, or in the place of its former self."""
        places = ",".join("?" * len(self.columns))
        names = ",".join(self.columns)
        # Table and columns are named in this file only.
        return f"INSERT OR REPLACE INTO {self.name} ({names}) VALUES ({places})"  # noqa: S608

    @property
    def select(self) -> str:
        """The statement's beginning that reads whole rows."""
        return f"SELECT {','.join(self.columns)} FROM {self.name}"  # noqa: S608  (as above)

    def sealed(self, *fields: Field) -> Row:
        """The row with its seal at the end."""
        return (*fields, seal(self.letter, *fields))

    def sound(self, row: Row) -> bool:
        """Does the seal of a row that was read fit?"""
        return row[-1] == seal(self.letter, *row[:-1])


def _table(name: str, letter: bytes, columns: str) -> Table:
    return Table(name, letter, tuple(columns.split()))


SERIES_COLUMNS: Final = "id import meter_id meter quantity kind every sender listed parked seal"
SERIES: Final = _table("series", b"S", SERIES_COLUMNS)
SERIES_COPY: Final = _table("series_copy", b"S", SERIES_COLUMNS)
SPANS: Final = _table("spans", b"P", "id series first last state seal")
HEADS: Final = _table("heads", b"H", "series reading n latest seal")
BLOCKS: Final = _table("blocks", b"B", "block earliest latest open seal")
SLOTS: Final = _table("slots", b"L", "id sender state seal")
STATES: Final = _table("states", b"M", "id meter state seal")
NAMES: Final = _table("names", b"N", "id text seal")
SAMPLES: Final = _table(
    "samples", b"K", "id meter boot boottime at needed_to synchronised raw faults seal"
)
GAPS: Final = _table("gaps", b"G", "id series first last reason count seal")
CORRECTED: Final = _table("corrected", b"C", "id at series n stamp was state seal")
"""What readings were before a person had them corrected, and what had become of them."""
ERAS: Final = _table("eras", b"E", "id series last meter quantity kind every seal")
"""What a series was up to its reading `last`: the configuration has changed since."""
DOUBTED: Final = _table("doubted", b"D", "id meter at reason raw seal")
"""Samples of which no value was made: a profile that is mended may make sense of them."""
EVENTS: Final = _table("events", b"V", "id at sure level event fields seal")
"""What the log said; `fields` is JSON."""

TABLES: Final = (
    SERIES, SERIES_COPY, SPANS, HEADS, BLOCKS, SLOTS, STATES, NAMES, SAMPLES, GAPS,
    CORRECTED, ERAS, DOUBTED, EVENTS,
)  # fmt: skip


def seal(letter: bytes, *fields: Field) -> int:
    """CRC-32 over typed, separated fields, as the signed number that SQLite stores shortest."""
    parts = [letter]
    for value in fields:
        if isinstance(value, int):
            parts.append(b"i%d" % value)
        elif isinstance(value, bytes):
            parts.append(b"b%d:" % len(value) + value)
        elif isinstance(value, str):
            parts.append(b"t" + value.encode("utf-8", "surrogatepass"))
        else:
            parts.append(b"-")
    return (zlib.crc32(b"\x00".join(parts)) ^ 0x80000000) - 0x80000000
