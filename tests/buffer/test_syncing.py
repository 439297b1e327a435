"""P1: stored means on the device. What the store asks of the system before it says so.

The states that a power cut may leave of it are gone through in tests/proofs/test_store_crash.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.proofs.crashes import Call, trace

ROOT = Path(__file__).parents[2]
MOMENTS = 6

CHILD = """
import asyncio, os, sys
from pathlib import Path
from tests.buffer.made import commits, confirmed, filled, store_at, take

async def main():
    store = await filled(store_at(Path(sys.argv[1])), 2, range(2))
    for commit in commits(2, range(2, 6)):
        os.write(1, b"begin")
        await store.append(commit)
        os.write(1, b"done")
    os.write(1, b"begin")
    await store.keep_slot("basement", b"taken")
    os.write(1, b"done")
    taken = await take(store)
    os.write(1, b"begin")
    await store.settle("basement", confirmed(taken), b"free")
    os.write(1, b"done")
    await store.close()

asyncio.run(main())
"""


def _unsynced(calls: list[Call]) -> list[int]:
    """How many writes to the WAL were not synced at the end of each piece of work."""
    left, found = 0, []
    wal = set()
    for call in calls:
        number = call.numbers[0]
        if call.name == "openat" and call.strings[0].endswith(b"-wal"):
            wal.add(str(call.answer))
        elif call.name == "pwrite64" and number in wal:
            left += 1
        elif call.name in ("fsync", "fdatasync") and number in wal:
            left = 0
        elif call.name == "write" and number == "1":
            if call.strings[0] == b"done":
                found.append(left)
            left = 0
    return found


def test_what_is_stored_settled_or_kept_of_a_slot_is_on_the_device_before_it_is_said_so(
    tmp_path: Path, debian: Callable[[str, str], None]
) -> None:
    debian("strace", "strace")
    calls = trace(
        [sys.executable, "-c", CHILD, str(tmp_path / "readings.db")],
        tmp_path / "trace", cwd=ROOT, stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert _unsynced(calls) == [0] * MOMENTS
    assert sum(call.name == "pwrite64" for call in calls) > MOMENTS
