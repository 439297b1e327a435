"""The write-ahead log read without SQLite: what stands in it, and what SQLite would leave out.

After the file format's description (sqlite.org/fileformat2.html §4). Each frame carries a checksum
over all frames before it, and SQLite believes none from the first one on that does not fit. A
power cut leaves such a place only in the last transaction, which nobody was told is stored. One
flipped bit further up takes every commit after it away, and SQLite says nothing: so it is looked
for here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

_HEADER: Final = 32
_FRAME: Final = 24
_MASK: Final = 0xFFFFFFFF


@frozen
class Frame:
    """A page in the log: its number, and where its data begins."""

    page: int
    at: int
    pages: int
    """Where a transaction ends with it: how many pages the database has then; else 0."""
    chained: bool
    """Does its checksum fit the one of the frame before it?"""


class Log:
    """The frames of the present round of a log."""

    def __init__(self, path: Path, page_size: int) -> None:
        self._size = page_size
        self.frames: list[Frame] = []
        self.believed = 0
        """How many of them SQLite would use."""
        self._headed = True
        if not path.exists():
            return
        with path.open("rb") as file:
            self._read(file.fileno())

    def _read(self, file: int) -> None:
        header = _part(file, 0, _HEADER)
        if len(header) < _HEADER:
            return
        order = ">" if header[3] & 1 else "<"
        before = _sum(header[:24], (0, 0), order)
        self._headed = before == struct.unpack(">II", header[24:32])
        # With a header that does not fit, the first frame says which round it is.
        salt = header[16:24] if self._headed else _part(file, _HEADER + 8, 8)
        sound = self._headed
        for at, frame in self._each(file):
            if frame[8:16] != salt:
                before, sound = (-1, -1), False
                continue
            page, pages = struct.unpack_from(">II", frame)
            found = _sum(frame[:8] + frame[_FRAME:], before, order)
            said = struct.unpack_from(">II", frame, 16)
            sound = sound and found == said
            self.frames.append(Frame(page, at + _FRAME, pages, found == said))
            before = said
            if sound and pages:
                self.believed = len(self.frames)

    def _each(self, file: int) -> Iterator[tuple[int, bytes]]:
        step = _FRAME + self._size
        end = os.fstat(file).st_size
        for at in range(_HEADER, end - step + 1, step):
            frame = _part(file, at, step)
            if len(frame) == step:
                yield at, frame

    def newest(self) -> dict[int, int]:
        """Where the newest version of each page is, up to the last transaction that is whole."""
        last = pages = 0
        for nth, frame in enumerate(self.frames, start=1):
            if frame.pages and frame.chained:
                last, pages = nth, max(pages, frame.pages)
        return {frame.page: frame.at for frame in self.frames[:last] if frame.page <= pages}

    def cut_short(self, path: Path, wal: Path) -> bool:
        """Would SQLite leave out a commit that was stored?

        A transaction is begun when the one before it is synced. So of two that follow each other
        behind the place where SQLite stops, the first was stored. A header that does not fit is
        left by a power cut only where all of the log is in the database already.
        """
        if not self._headed:
            return not self._is_in(path, wal)
        commits = 0
        for frame in self.frames[self.believed :]:
            if not frame.chained:
                commits = 0
            commits += frame.pages > 0
            if commits > 1:
                return True
        return False

    def _is_in(self, path: Path, wal: Path) -> bool:
        with path.open("rb") as file, wal.open("rb") as log:
            return all(
                _part(log.fileno(), at, self._size)
                == _part(file.fileno(), (page - 1) * self._size, self._size)
                for page, at in self.newest().items()
            )


def _part(file: int, at: int, size: int) -> bytes:
    """A piece of a file; empty where the card gives an error."""
    try:
        return os.pread(file, size, at)
    except OSError:
        return b""


def _sum(data: bytes, before: tuple[int, int], order: str) -> tuple[int, int]:
    """SQLite's checksum of pairs of words."""
    one, two = before
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & _MASK
        two = (two + second + one) & _MASK
    return one, two
