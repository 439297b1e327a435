"""A buffer's file read without SQLite: whatever pages are left, row by row.

Written after the file format's description (sqlite.org/fileformat2.html: §1.3 header, §1.5
freelist, §1.6 b-tree pages, §2.1 records). Every row of the buffer carries a
seal and every reading a checksum, so what fits is believed wherever it stands: neither the header
nor the tree above a page is needed, and any file may be cut off anywhere.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.buffer.rows import SERIES_COPY, TABLES, Row, Table
from gateway.buffer.wal import Log

_LEAF: Final = 0x0D
_TREE: Final = (b"\x02", b"\x05", b"\x0a", b"\x0d")
"""The first byte of every page of a tree; a page that a long row runs on to starts with a zero."""

_FILE_HEADER: Final = 100
_BY_WIDTH: Final[dict[int, list[Table]]] = {}
for _table in TABLES:
    if _table is not SERIES_COPY:  # its rows are those of `series`
        _BY_WIDTH.setdefault(len(_table.columns), []).append(_table)


class Pages:
    """The pages of a database file, the newer ones of its WAL over them. Close it after use.

    They are read one by one, since a buffer may be larger than the memory; one that the card does
    not give is as good as empty.
    """

    def __init__(self, path: Path, wal: Path, page_size: int) -> None:
        self._size = page_size
        self._newer = Log(wal, page_size).newest()
        self._file = _opened(path)
        self._wal = _opened(wal)
        length = 0 if self._file is None else os.fstat(self._file).st_size
        self.count = max([-(-length // page_size), *self._newer])
        self._free = bytearray(self.count + 1)
        self._find_free()
        self._broken = bytearray(self.count + 1)
        """Leaves with a cell that cannot be read."""
        self._reached = bytearray(self.count + 1)
        """Pages that a whole row runs on to."""

    def close(self) -> None:
        """Let go of the files."""
        for file in (self._file, self._wal):
            if file is not None:
                os.close(file)
        self._file = self._wal = None

    def page(self, number: int) -> bytes:
        """A page, counted from 1; shorter than the page size where the file ends."""
        newer = self._newer.get(number)
        file, at = self._file, (number - 1) * self._size
        if newer is not None:
            file, at = self._wal, newer
        if file is None:
            return b""
        for _ in range(2):  # what a card does not give at first it may give at once after
            with contextlib.suppress(OSError):
                return os.pread(file, self._size, at)
        return b""

    def rows(self) -> Iterator[tuple[Table, Row]]:
        """Every cell with the seal of a row of one of our tables."""
        for _, row in self._cells():
            for table in _BY_WIDTH.get(len(row), []):
                if table.sound(row):
                    yield table, row
                    break

    def chunks(self) -> Iterator[tuple[int | None, bytes]]:
        """Every chunk of readings with its id; then, without one, pages that may hold pieces."""
        for _, row in self._cells():
            if len(row) == 2 and isinstance(row[0], int) and isinstance(row[1], bytes):
                yield row[0], row[1]
        for number in range(1, self.count + 1):
            if self._broken[number] or self._adrift(number):
                yield None, self.page(number)

    def _adrift(self, number: int) -> bool:
        """Is it a page that nothing leads to, and no page of a tree?"""
        if self._free[number] or self._reached[number]:
            return False
        return self.page(number)[:1] not in _TREE

    def _find_free(self) -> None:
        """Pages whose rows were deleted."""
        trunk = int.from_bytes(self.page(1)[32:36], "big")
        while 0 < trunk <= self.count and not self._free[trunk]:
            self._free[trunk] = True
            page = self.page(trunk)
            following, count = struct.unpack_from(">II", page.ljust(8, b"\0"))
            end = min(8 + 4 * count, len(page) - len(page) % 4)
            for (number,) in struct.iter_unpack(">I", page[8:end]):
                if number <= self.count:
                    self._free[number] = True
            trunk = following

    def _cells(self) -> Iterator[tuple[int, Row]]:
        """The rows of every leaf of a table that is in use, with their pages."""
        for number in range(1, self.count + 1):
            page = self.page(number)
            start = _FILE_HEADER if number == 1 else 0
            if self._free[number] or len(page) < start + 8 or page[start] != _LEAF:
                continue
            cells = int.from_bytes(page[start + 3 : start + 5], "big")
            for at in range(start + 8, min(start + 8 + 2 * cells, len(page) - 1), 2):
                try:
                    row = self._row(page, int.from_bytes(page[at : at + 2], "big"))
                except (IndexError, ValueError):
                    self._broken[number] = True
                else:
                    yield number, row

    def _row(self, page: bytes, at: int) -> Row:
        length, at = _varint(page, at)
        id, at = _varint(page, at)
        record = self._payload(page, at, length)
        header, at = _varint(record, 0)
        fields: list[int | str | bytes | float | None] = []
        body = header
        while at < header:
            kind, at = _varint(record, at)
            value, body = _field(record, body, kind)
            fields.append(value)
        if fields and fields[0] is None:  # INTEGER PRIMARY KEY: the row id stands for it
            fields[0] = id
        return tuple(fields)  # type: ignore[arg-type]

    def _payload(self, page: bytes, at: int, length: int) -> bytes:
        usable = self._size
        if length <= usable - 35:
            if at + length > len(page):
                raise ValueError("cut off")
            return page[at : at + length]
        least = (usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (usable - 4)
        if local > usable - 35:
            local = least
        parts = [page[at : at + local]]
        got = local
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        seen: set[int] = set()
        while got < length:
            if not 0 < following <= self.count or following in seen:
                raise ValueError("the chain of overflow pages is broken")
            seen.add(following)
            overflow = self.page(following)
            part = overflow[4 : 4 + min(length - got, usable - 4)]
            if not part:
                raise ValueError("cut off")
            parts.append(part)
            got += len(part)
            following = int.from_bytes(overflow[:4], "big")
        for number in seen:
            self._reached[number] = True
        return b"".join(parts)


def _opened(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for nth in range(9):
        byte = data[at + nth]
        if nth == 8:
            value = value << 8 | byte
            return (value - (1 << 64) if value >= 1 << 63 else value), at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + nth + 1
    raise AssertionError("unreachable")


_INTEGER_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _field(record: bytes, at: int, kind: int) -> tuple[int | str | bytes | float | None, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    size = 8 if kind == 7 else _INTEGER_BYTES.get(kind, (kind - 12) // 2)
    end = at + size
    if size < 0 or end > len(record):
        raise ValueError("cut off")
    piece = record[at:end]
    if kind in _INTEGER_BYTES:
        return int.from_bytes(piece, "big", signed=True), end
    if kind == 7:
        return struct.unpack(">d", piece)[0], end
    return (piece.decode() if kind % 2 else piece), end
