"""The files beside the database: the ballast, what is set aside, and what makes a name durable."""

from __future__ import annotations

import glob
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.buffer.schema import free_bytes
from gateway.clock import Instant

BALLAST_BYTES: Final = 2_000_000
"""On a full disk confirming and deleting need room too: this much is given up for them."""

VOLATILE: Final = frozenset({"tmpfs", "ramfs", "overlay", "aufs"})


def beside(path: Path, suffix: str) -> Path:
    """`readings.db` and `-wal` → `readings.db-wal`."""
    return Path(f"{path}{suffix}")


def sync_folder(path: Path) -> None:
    """Make the names in a file's folder durable."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def lay_ballast(path: Path) -> bool:
    """Make the ballast of a buffer if it is missing and there is room; is it there?"""
    ballast = beside(path, ".ballast")
    try:
        if ballast.exists() and ballast.stat().st_size >= BALLAST_BYTES:
            return True
        if free_bytes(path) < 4 * BALLAST_BYTES:
            return False
        with ballast.open("wb") as file:
            # Random bytes: zeros would take no room where the file system compresses.
            file.write(os.urandom(BALLAST_BYTES))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path)
    except OSError:
        ballast.unlink(missing_ok=True)
        return False
    return True


def free_ballast(path: Path) -> bool:
    """Give its room to the database; False where there was none."""
    try:
        beside(path, ".ballast").unlink()
    except OSError:
        return False
    return True


def aside_name(path: Path, now: Instant) -> Path:
    """A name that is free, for a file that is set aside."""
    at = datetime.fromtimestamp(now / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    name = beside(path, f".damaged-{at}")
    nth = 1
    while name.exists() or beside(name, "-wal").exists():
        nth += 1
        name = beside(path, f".damaged-{at}-{nth}")
    return name


def forget_aside(path: Path, keep: int) -> None:
    """Remove all but the newest few files that were set aside: a dying card makes many."""
    found = path.parent.glob(f"{glob.escape(path.name)}.damaged-*")
    names = {file.name.removesuffix("-wal").removesuffix("-journal") for file in found}
    for name in sorted(names)[: -keep or None]:
        for suffix in ("", "-wal", "-journal"):
            beside(path.with_name(name), suffix).unlink(missing_ok=True)


def replace(path: Path, aside: Path) -> None:
    """Set the damaged file and its WAL aside and put `<path>.salvaged` in its place.

    The salvaged file is whole and durable before this begins, so it may be done again from the
    start by whoever finds it: a crash in between loses nothing. The old WAL goes before the new
    file comes, and the journal of a foreign file, since SQLite would replay them into any file of
    that name.
    """
    for suffix in ("", "-wal", "-journal"):
        if beside(path, suffix).exists():
            os.rename(beside(path, suffix), beside(aside, suffix))
    beside(path, "-shm").unlink(missing_ok=True)
    sync_folder(path)
    os.rename(beside(path, ".salvaged"), path)
    sync_folder(path)


def file_system(path: Path) -> str:
    """The type of the file system a file is on; empty where it cannot be told."""
    try:
        device = path.stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            if left.split()[2] == wanted:
                return right.split()[0]
    except (OSError, IndexError):
        pass
    return ""
