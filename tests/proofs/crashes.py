"""What a power cut may leave of a folder, told from the system calls of whoever wrote in it.

What was synced stands. Of what was written since, any sectors of 512 bytes may be there and any
not; a file that grew has zeros where its data did not come. New names, renames and removals count
from the sync of the folder on; before it they may be lost one by one. Memory (-shm) is gone.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from attrs import define, field, frozen

SECTOR: Final = 512

CALLS: Final = (
    "openat,close,pwrite64,write,fsync,fdatasync,ftruncate,"
    "rename,renameat,renameat2,unlink,unlinkat"
)

_CALL: Final = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)")
_STRING: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')

Disk: TypeAlias = dict[str, bytes]
"""The files of the folder by name."""


@frozen
class Call:
    """One call that succeeded: its name, its strings, its other arguments, what it returned."""

    name: str
    strings: tuple[bytes, ...]
    numbers: tuple[str, ...]
    answer: int


def trace(command: Sequence[str], output: Path, **more: object) -> list[Call]:
    """Run a command and tell its calls, of all its threads, in the order in which they ended."""
    strace = ["strace", "-f", "-qq", "-xx", "-s", "4000000", "-e", f"trace={CALLS}"]
    subprocess.run([*strace, "-o", str(output), *command], check=True, **more)  # type: ignore[call-overload]
    begun: dict[str, str] = {}
    calls = []
    with output.open() as lines:
        for text in lines:
            line = text.rstrip("\n")
            pid = line.split(" ", 1)[0]
            if line.endswith("<unfinished ...>"):
                begun[pid] = line.removesuffix("<unfinished ...>").rstrip()
                continue
            if " resumed>" in line:
                line = begun.pop(pid) + line.split(" resumed>", 1)[1]
            found = _CALL.match(line)
            if found is None or int(found[4]) < 0:
                continue
            strings = []
            for string, more_of_it in _STRING.findall(found[3]):
                assert not more_of_it
                strings.append(bytes.fromhex(string.replace("\\x", "")))
            numbers = [part.strip() for part in _STRING.sub('"', found[3]).split(",")]
            calls.append(Call(found[2], tuple(strings), tuple(numbers), int(found[4])))
    return calls


@define(eq=False)
class Content:
    """A file: what is on the device, and what was done to it since, in order."""

    synced: bytes = b""
    since: list[tuple[int, bytes | None]] = field(factory=list)
    """Offset and data; without data it was cut to that size."""
    at: int = 0
    """Where `write` goes on."""

    def sync(self) -> None:
        self.synced = self.left(lambda _: True)
        self.since.clear()

    def left(self, stays) -> bytes:  # type: ignore[no-untyped-def]
        """What is there if of each sector written, counted from 0, `stays` says so."""
        data = bytearray(self.synced)
        nth = 0
        for offset, piece in self.since:
            if piece is None:
                if stays(nth):
                    del data[offset:]
                    data.extend(bytes(offset - len(data)))
                nth += 1
                continue
            end = offset + len(piece)
            at = offset
            while at < end:
                to = min(end, (at // SECTOR + 1) * SECTOR)
                if stays(nth):
                    data.extend(bytes(max(0, to - len(data))))
                    data[at:to] = piece[at - offset : to - offset]
                nth += 1
                at = to
        return bytes(data)

    def sectors(self) -> int:
        """How many pieces may be lost."""
        return sum(
            1 if piece is None else (at + len(piece) - 1) // SECTOR - at // SECTOR + 1
            for at, piece in self.since
            if piece is None or piece
        )


class Folder:
    """A folder as the calls of a program made it."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self._path = str(path)
        self._names = {name: Content(data) for name, data in (disk or {}).items()}
        self._durable = dict(self._names)
        self._since: list[tuple[str, str, Content]] = []
        """What was done to names since the folder was synced: what, name, file."""
        self._open: dict[int, Content | None] = {}
        """By descriptor; None: the folder itself."""

    def _name(self, text: bytes) -> str | None:
        head, _, name = text.decode().rpartition("/")
        return name if head == self._path and not name.endswith("-shm") else None

    def take(self, call: Call) -> bool:
        """Follow one call; may it have changed what a power cut leaves?"""
        match call.name:
            case "openat":
                return self._opened(call)
            case "close":
                self._open.pop(int(call.numbers[0]), None)
            case "pwrite64" | "write":
                return self._wrote(call)
            case "ftruncate":
                file = self._open.get(int(call.numbers[0]))
                if file is not None:
                    file.since.append((int(call.numbers[1]), None))
                    return True
            case "fsync" | "fdatasync":
                return self._synced(int(call.numbers[0]))
            case "rename" | "renameat" | "renameat2":
                return self._renamed(*(self._name(text) for text in call.strings))
            case "unlink" | "unlinkat":
                name = self._name(call.strings[0])
                if name is not None:
                    self._since.append(("gone", name, self._names.pop(name)))
                    return True
        return False

    def _opened(self, call: Call) -> bool:
        if call.strings[0].decode() == self._path:
            self._open[call.answer] = None
            return False
        name = self._name(call.strings[0])
        if name is None:
            self._open.pop(call.answer, None)
            return False
        made = name not in self._names
        if made:
            self._names[name] = Content()
            self._since.append(("there", name, self._names[name]))
        file = self._open[call.answer] = self._names[name]
        file.at = 0
        if "O_TRUNC" in ",".join(call.numbers):
            file.since.append((0, None))
            return True
        return made

    def _wrote(self, call: Call) -> bool:
        file = self._open.get(int(call.numbers[0]))
        if file is None:
            return False
        data = call.strings[0][: call.answer]
        if call.name == "write":
            offset, file.at = file.at, file.at + len(data)
        else:
            offset = int(call.numbers[3])
        file.since.append((offset, data))
        return True

    def _synced(self, number: int) -> bool:
        if number not in self._open:
            return False
        file = self._open[number]
        if file is None:
            self._durable, self._since = dict(self._names), []
        else:
            file.sync()
        return True

    def _renamed(self, old: str | None, new: str | None) -> bool:
        assert (old is None) == (new is None)
        if old is None or new is None:
            return False
        file = self._names.pop(old)
        self._names[new] = file
        self._since.append((f"from {old}", new, file))
        return True

    def left(self, draw: random.Random) -> Disk:
        """One folder that a power cut now may leave."""
        names = dict(self._durable)
        kept = draw.choice(("all", "first", "some"))
        for_sure = draw.randint(0, len(self._since))
        for nth, (what, name, file) in enumerate(self._since):
            if (kept == "first" and nth >= for_sure) or (kept == "some" and draw.random() < 0.5):
                continue
            if what == "gone":
                names.pop(name, None)
                continue
            if what != "there" and names.get(what[5:]) is file:
                del names[what[5:]]
            names[name] = file
        return {name: _left(file, draw) for name, file in names.items()}


def _left(file: Content, draw: random.Random) -> bytes:
    count = file.sectors()
    if not count:
        return file.synced
    match draw.choice(("none", "all", "first", "all but one", "some", "few", "most")):
        case "none":
            return file.synced
        case "all":
            return file.left(lambda _: True)
        case "first":
            first = draw.randrange(count)
            return file.left(lambda nth: nth < first)
        case "all but one":
            lost = draw.randrange(count)
            return file.left(lambda nth: nth != lost)
        case kind:
            share = {"some": 0.5, "few": 0.1, "most": 0.9}[kind]
            return file.left(lambda _: draw.random() < share)


def lay_out(disk: Disk, folder: Path) -> None:
    """Make a folder hold just these files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in disk.items():
        (folder / name).write_bytes(data)


def states(folder: Folder, draw: random.Random, count: int) -> Iterator[Disk]:
    """So many folders that a power cut now may leave, each only once."""
    seen: set[int] = set()
    for _ in range(count):
        disk = folder.left(draw)
        key = hash(tuple(sorted(disk.items())))
        if key not in seen:
            seen.add(key)
            yield disk
