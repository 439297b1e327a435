"""P1, P8, faults 3 and 6: the nth call to the system fails, for every n, and nothing is lost.

A child stores, sends, settles, deletes, closes and opens again with the real store, on a new file,
on a damaged one, or on one that someone deletes under it. A clean run under strace tells its calls
on the buffer's files. Then each of them fails in a run of its own: once with an error of the card,
some times in a row for want of room, and many times on a file system that is read-only. What the
store acknowledged has to be there afterwards, and the child has to have come through by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen

from gateway.buffer import files
from tests.buffer.made import commits, confirmed, exported, filled, store_at, take

ROOT = Path(__file__).parents[2]
METERS = 3
OLD = 30
"""Moments in a file that is there already."""

NEW = 12
"""Moments that the child stores."""

LASTING = {"EIO": 1, "ENOSPC": 5, "EROFS": 40}
"""An error to how many calls in a row give it."""
_ANY, _CHANGE = ("EIO", "ENOSPC", "EROFS"), ("EIO", "EROFS")
CALLS = {
    "openat": _ANY,
    "pread64": ("EIO",),
    "pwrite64": _ANY,
    "write": _ANY,
    "fsync": ("EIO",),
    "fdatasync": ("EIO",),
    "ftruncate": _CHANGE,
    "fallocate": _ANY,
    "rename": _ANY,
    "unlink": _CHANGE,
}
"""A call to the errors that it can give."""
SUFFIXES = (
    *("", "-wal", "-shm", "-journal", ".ballast"),
    *(".new", ".new-wal", ".new-shm", ".salvaged", ".salvaged-wal"),
)
"""Of the buffer's files; calls on others do not fail."""

Row = tuple[str, int]

CHILD = """
import asyncio, json, sys
from pathlib import Path
from gateway.buffer import files, schema
schema.APART = schema.APART.replace("65536", "1")  # before `index` takes it
from gateway.clock import HOUR
from gateway.errors import StoreError
from tests.buffer.made import START, StillClock, commits, confirmed, series, store_at, take

path, what = Path(sys.argv[1]), sys.argv[2]
METERS, OLD, NEW = map(int, sys.argv[3:])
files.BALLAST_BYTES = 4_000
clock = StillClock(START + 20 * HOUR)
told = {"stored": [], "confirmed": [], "asked": [], "slots": ["", "old"], "errors": []}

async def until_it_works(work):
    for _ in range(100):
        try:
            return await work()
        except StoreError as error:
            told["errors"].append(type(error).__name__)
    raise SystemExit("it does not come back")

async def once(work):
    try:
        await work()
        return True
    except StoreError as error:
        told["errors"].append(type(error).__name__)
        return False

async def opened():
    store = store_at(path, clock, keep=10 * HOUR)
    await until_it_works(store.open)
    return store

async def send(store, before, after):
    taken = []
    async def collect():
        taken.extend(await take(store, 5))
    if await once(collect):
        told["slots"].append(before)
        if await once(lambda: store.keep_slot("basement", before.encode())):
            told["slots"] = [before, after]
            settled = confirmed(taken)
            rows = [(one.key.meter_id, one.stamp) for one in taken]
            told["asked"] += rows
            if await once(lambda: store.settle("basement", settled, after.encode())):
                told["slots"] = [after]
                told["confirmed"] += rows
                return
    await once(lambda: store.release_flight("basement"))

async def main():
    store = await opened()
    await until_it_works(lambda: store.declare([series(nth) for nth in range(METERS)]))
    waiting = []
    for moment in range(OLD, OLD + NEW):
        if moment == OLD + 6:
            await once(store.prune)
            while what == "deleted" and path.exists():
                try:
                    path.unlink()
                except OSError:
                    pass
            if what == "new":
                await once(store.close)
                store = await opened()
        waiting.append(moment)
        # As a round does: what could not be stored is tried again with the next.
        while waiting and await once(lambda: store.append(commits(METERS, [waiting[0]])[0])):
            told["stored"].append(waiting.pop(0))
        if moment % 4 == 3:
            await send(store, f"before {moment}", f"after {moment}")
    while waiting:
        await until_it_works(lambda: store.append(commits(METERS, [waiting[0]])[0]))
        told["stored"].append(waiting.pop(0))
    await until_it_works(store.counts)
    await once(store.close)
    print(json.dumps(told))

asyncio.run(main())
"""


@frozen
class Trial:
    """One call of a run that fails, and with what."""

    what: str
    call: str
    nth: int
    error: str


class Runs:
    """Runs of the child, each on a copy of its own of the file that it begins with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._old: dict[str, bytes] = {}
        self._sent: set[Row] = set()
        self.errors = 0

    async def begin(self) -> Runs:
        """Make the file with a past, and its damaged twin."""
        path = self._folder / "past" / "readings.db"
        store = await filled(store_at(path), METERS, range(OLD))
        taken = await take(store, 20)
        self._sent = {(one.key.meter_id, one.stamp) for one in taken}
        await store.settle("basement", confirmed(taken), b"old")
        await store.close()
        data = path.read_bytes()
        self._old = {"deleted": data, "damaged": b"no header" * 11 + data[99:]}
        return self

    def trials(self, what: str) -> list[Trial]:
        """Every call of a clean run, with each error that it can give."""
        output = self._folder / "trace"
        self._trace(what, "clean", output, f"trace={','.join(CALLS)}")
        # strace counts the calls of each thread by themselves.
        threads: dict[str, Counter[str]] = {}
        for line in output.read_text().splitlines():
            thread, _, text = line.partition(" ")
            call = text.strip().partition("(")[0]
            if call in CALLS:
                threads.setdefault(thread, Counter())[call] += 1
        counts = Counter[str]()
        for some in threads.values():
            counts |= some
        return [
            Trial(what, call, nth, error)
            for call, count in counts.items()
            for error in CALLS[call]
            for nth in range(1, count + 1)
        ]

    async def look(self, trial: Trial) -> None:
        """Run it with the call failing, and look at what is left."""
        last = trial.nth + LASTING[trial.error] - 1
        inject = f"inject={trial.call}:error={trial.error}:when={trial.nth}..{last}"
        name = f"{trial.call}-{trial.nth}-{trial.error}"
        path, answer = await asyncio.to_thread(
            self._trace, trial.what, name, Path("/dev/null"), f"trace={trial.call}", inject
        )
        told = json.loads(answer)
        self.errors += len(told["errors"])
        assert [*told["stored"]] == [*range(OLD, OLD + NEW)]
        store = store_at(path)
        try:
            assert (await store.open()).set_aside is None
            counts = await store.counts()
            assert counts == await store.check_counts()
            assert (await store.slot("basement") or b"").decode() in told["slots"]
            rows = {
                (meter, at): (value, state) for meter, at, value, state in await exported(store)
            }
            old = range(0 if trial.what == "new" else OLD)
            every = [one for c in commits(METERS, [*old, *told["stored"]]) for one in c.readings]
            was = self._sent if old else set[Row]()
            sent = was | {(meter, at) for meter, at in told["confirmed"]}
            asked = {(meter, at) for meter, at in told["asked"]}
            for one in every:
                row = one.key.meter_id, one.stamp
                value, state = rows.get(row, (one.value, "pruned"))
                assert value == one.value
                may = {"pruned", "confirmed"} if row in sent | asked else {"pending"}
                assert state in may | ({"pending"} if row in asked - sent else set())
            assert len(sent) <= counts.confirmed <= len(sent | asked)
            assert counts.confirmed + counts.pending == counts.stored == len(every)
        finally:
            await store.close()
            shutil.rmtree(path.parent)

    def _trace(self, what: str, name: str, output: Path, *options: str) -> tuple[Path, str]:
        folder = self._folder / f"{what}-{name}"
        folder.mkdir()
        path = folder / "readings.db"
        if what in self._old:
            path.write_bytes(self._old[what])
        which = [folder, *(files.beside(path, suffix) for suffix in SUFFIXES)]
        expressions = ["signal=none", *options]
        answer = subprocess.run(
            [
                "strace", "--seccomp-bpf", "-f", "-qq", "-o", output,
                *(word for one in which for word in ("-P", one)),
                *(word for one in expressions for word in ("-e", one)),
                sys.executable, "-c", CHILD, path, what, *map(str, (METERS, OLD, NEW)),
            ],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
        return path, answer.stdout


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: syncs cost nothing there."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared if os.access(shared, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


async def test_whichever_call_fails_nothing_that_was_stored_is_lost(
    memory: Path,
    short: bool,
    debian: Callable[[str, str], None],
    expected_events: Callable[..., None],
) -> None:
    debian("strace", "strace")
    expected_events("buffer.volatile")
    runs = await Runs(memory).begin()
    trials = [trial for what in ("new", "damaged", "deleted") for trial in runs.trials(what)]
    some = trials[:: len(trials) // 10 if short else 1]
    left = iter(some)
    failed: list[str] = []

    async def work() -> None:
        for trial in left:
            try:
                await runs.look(trial)
            except Exception as error:  # all of them are told at the end
                failed.append(f"{trial}: {error}")

    async with asyncio.TaskGroup() as both:
        for _ in range(2):
            both.create_task(work())
    assert not failed, "\n".join(failed)
    print(
        f"{len(some)} runs of {len(trials)}, in each the nth call failed, {runs.errors} errors"
        " reached the caller: lost 0, and each came back by itself"
    )
