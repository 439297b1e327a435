"""How readings are packed: all of a commit in one chunk, each record with its own checksum.

A row a reading would be plainer, but costs a card twice the bytes (bench/store_bytes.py): the
header of each row, and the pages that deleting rows one by one writes again.

A record, little-endian:

    size u16 | series u16 | n u32 | stamp u32 | mantissa s64 | exponent s8 | held u8
    text of a long number | registers as RawWords packs them | why it is held | CRC-32 u32

`size` counts the whole record, `n` numbers the readings of a series from 1, `stamp` is in s. The
value is mantissa × 10^exponent, exactly; a number of more than 18 digits has exponent -128 and its
text after the head, as long as mantissa says. `held` is the length of the reason. The CRC covers
all before it: a record that does not fit it is not believed, and the next one is looked for byte
by byte. The id of a reading is that of its chunk plus its place in it.
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from gateway.errors import StoreDamaged

BLOCK_BITS: Final = 12
BLOCK: Final = 1 << BLOCK_BITS
"""Readings whose ids share all but the lowest bits form a block; each has a line in `blocks`."""

MOST: Final = 200
"""Readings in a chunk: what one broken chain of pages can cost."""

MAX_DIGITS: Final = 18
"""Digits of a number that are sure to fit 64 bits."""

_TOO_LONG: Final = 10**MAX_DIGITS
_HEAD: Final = struct.Struct("<HHIIqbB")
_CRC: Final = struct.Struct("<I")
_LEAST: Final = _HEAD.size + _CRC.size
_LONGEST: Final = 4_000
_TEXT: Final = -128
_MANY: Final = 50  # stamps of which nearly every chunk has one


def tag(series: int, n: int) -> int:
    """A reading's series and number as one integer: sets of them are small."""
    return n << 16 | series


def untag(tagged: int) -> tuple[int, int]:
    """The reverse."""
    return tagged & 0xFFFF, tagged >> 16


class Record(NamedTuple):
    """A stored reading. `mantissa` is the length of `text` where the number is kept as text."""

    id: int
    series: int
    n: int
    stamp: int
    mantissa: int
    exponent: int
    words: bytes
    held: str
    text: str

    @property
    def tag(self) -> int:
        """Series and number as one integer."""
        return tag(self.series, self.n)

    @property
    def value(self) -> Decimal:
        """The exact number."""
        if self.exponent == _TEXT:
            return Decimal(self.text)
        return Decimal(self.mantissa).scaleb(self.exponent)


def pack(series: int, n: int, stamp: int, value: Decimal, words: bytes, held: str) -> bytes:
    """One record. Raises ValueError for what is no number, or fits none of the fields."""
    shown = str(value)
    text = b""
    whole, _, decimals = shown.partition(".")
    try:
        mantissa, exponent = int(whole + decimals), -len(decimals)
    except ValueError:  # it is shown with an exponent
        mantissa, exponent = _scientific(value)
    if not -_TOO_LONG < mantissa < _TOO_LONG or not _TEXT < exponent < 128:
        text = shown.encode()
        mantissa, exponent = len(text), _TEXT
    why = held.encode()[:255]
    size = _LEAST + len(text) + len(words) + len(why)
    if size > _LONGEST:
        raise ValueError(f"a reading of {size} bytes is too long to store")
    try:
        head = _HEAD.pack(size, series, n, stamp, mantissa, exponent, len(why))
    except struct.error as error:
        raise ValueError(f"a reading that cannot be stored: {error}") from None
    body = head + text + words + why
    return body + _CRC.pack(zlib.crc32(body))


def _scientific(value: Decimal) -> tuple[int, int]:
    """Mantissa and exponent. Raises ValueError."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"{value} is no number to store")
    mantissa = int("".join(map(str, digits)))
    return -mantissa if sign else mantissa, exponent


def repack(record: Record) -> bytes:
    """The bytes of a record that was read."""
    return pack(record.series, record.n, record.stamp, record.value, record.words, record.held)


def unpack(id: int, data: bytes) -> tuple[list[Record], bool]:
    """The sound records of a chunk, and whether there was nothing else in it.

    Where something was altered, the places of the records after it, and so their ids, may be less
    than they were.
    """
    records: list[Record] = []
    whole = True
    at, end = 0, len(data)
    while at < end:
        record, size = _record(id + len(records), data, at, end)
        if record is None:
            whole = False
            at += 1
        else:
            records.append(record)
            at += size
    return records, whole


def _record(id: int, data: bytes, at: int, end: int) -> tuple[Record | None, int]:
    if at + _LEAST > end:
        return None, 0
    size, series, n, stamp, mantissa, exponent, held = _HEAD.unpack_from(data, at)
    if not _LEAST <= size <= _LONGEST or at + size > end:
        return None, 0
    tail = at + size - 4
    if zlib.crc32(data[at:tail]) != int.from_bytes(data[tail : tail + 4], "little"):
        return None, 0
    start = at + _HEAD.size
    text = ""
    if exponent == _TEXT:
        text = data[start : start + mantissa].decode()
        start += mantissa
    words = data[start : tail - held]
    why = data[tail - held : tail].decode() if held else ""
    return Record(id, series, n, stamp, mantissa, exponent, words, why, text), size


# --------------------------------------------------------------------------------- in the database


def bounds(number: int) -> tuple[int, int]:
    """The first and the last id of a block."""
    return number << BLOCK_BITS, (number << BLOCK_BITS) + BLOCK - 1


def insert(connection: sqlite3.Connection, first: int, records: Sequence[bytes]) -> None:
    """Write packed records whose ids run from `first` on. No chunk is in two blocks."""
    at = 0
    rows: list[tuple[int, bytes]] = []
    while at < len(records):
        id = first + at
        count = min(MOST, BLOCK - (id & (BLOCK - 1)))
        rows.append((id, b"".join(records[at : at + count])))
        at += count
    connection.executemany("INSERT INTO chunks (id, data) VALUES (?, ?)", rows)


def keep_only(connection: sqlite3.Connection, id: int, kept: Sequence[Record]) -> None:
    """Leave only these of a chunk's readings, under the ids they have."""
    connection.execute("DELETE FROM chunks WHERE id = ?", (id,))
    at = 0
    while at < len(kept):
        end = at + 1
        while end < len(kept) and kept[end].id == kept[end - 1].id + 1:
            end += 1
        insert(connection, kept[at].id, [repack(record) for record in kept[at:end]])
        at = end


def chunks(connection: sqlite3.Connection, first: int, last: int) -> Iterator[list[Record]]:
    """The chunks of a range of ids that no chunk crosses. Raises StoreDamaged for altered ones."""
    for id, data in connection.execute(
        "SELECT id, data FROM chunks WHERE id BETWEEN ? AND ? ORDER BY id", (first, last)
    ):
        yield _whole(id, data)


def block(connection: sqlite3.Connection, number: int) -> Iterator[Record]:
    """The readings of a block. Raises StoreDamaged where one was altered."""
    for records in chunks(connection, *bounds(number)):
        yield from records


def stamped(
    connection: sqlite3.Connection, number: int, stamps: Collection[int]
) -> Iterator[Record]:
    """The readings of those chunks of a block in which one of these stamps (s) may stand. Raises
    StoreDamaged where one of them was altered.

    Whether it can is told by its bytes: to read all takes a hundred times as long.
    """
    sought = [stamp.to_bytes(4, "little") for stamp in stamps if 0 <= stamp < 1 << 32]
    for id, data in connection.execute(
        "SELECT id, data FROM chunks WHERE id BETWEEN ? AND ? ORDER BY id", bounds(number)
    ):
        if len(sought) > _MANY or any(one in data for one in sought):
            yield from _whole(id, data)


def every(connection: sqlite3.Connection, least: int = 0) -> Iterator[list[Record]]:
    """All chunks from an id on. They may be altered meanwhile: they are fetched block by block."""
    while True:
        (first,) = connection.execute(
            "SELECT min(id) FROM chunks WHERE id >= ?", (least,)
        ).fetchone()
        if first is None:
            return
        end = bounds(first >> BLOCK_BITS)[1]
        yield from list(chunks(connection, first, end))
        least = end + 1


def backwards(connection: sqlite3.Connection, least: int) -> Iterator[Record]:
    """Readings from the newest back to an id."""
    for id, data in connection.execute(
        "SELECT id, data FROM chunks WHERE id >= ? ORDER BY id DESC", (least,)
    ):
        yield from reversed(_whole(id, data))


def some(connection: sqlite3.Connection, ids: Iterable[int]) -> Iterator[Record | None]:
    """Readings by their ids; None where one is gone. A chunk of neighbours is read once."""
    first, records = 0, list[Record]()
    for id in ids:
        if not first <= id < first + len(records):
            row = connection.execute(
                "SELECT id, data FROM chunks WHERE id <= ? ORDER BY id DESC LIMIT 1", (id,)
            ).fetchone()
            first, records = (row[0], _whole(*row)) if row else (0, [])
        yield records[id - first] if id - first < len(records) else None


def one(connection: sqlite3.Connection, id: int) -> Record | None:
    """A reading by its id; None where it is gone."""
    return next(some(connection, (id,)))


def _whole(id: int, data: bytes) -> list[Record]:
    records, whole = unpack(id, data)
    if not whole:
        raise StoreDamaged(f"readings from {id} on do not fit their checksums")
    return records
