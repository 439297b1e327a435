"""P1, P2 and fault 2: a power cut at any moment loses nothing that the store acknowledged.

The system calls of the real store are recorded while it stores, sends, settles, parks, deletes,
starts again, salvages and writes a deleted file anew. Then the folder is rebuilt as a power cut
may leave it at each of them (see `crashes`), and the store is opened on it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import define, field

from gateway.buffer import files
from gateway.clock import HOUR
from tests.buffer.made import (
    START,
    StillClock,
    commits,
    confirmed,
    exported,
    filled,
    reading,
    series,
    store_at,
    take,
)
from tests.proofs.crashes import Disk, Folder, lay_out, states, trace

ROOT = Path(__file__).parents[2]
METERS = 5
PRUNED = 20
"""Moments that may be deleted once they are confirmed."""
SEED = 20261125

Row = tuple[str, int]

CHILD = """
import asyncio, json, os, sys
from pathlib import Path
from gateway.buffer import files, schema
from gateway.clock import HOUR
from tests.buffer.made import START, StillClock, commits, confirmed, series, store_at, take
from tests.proofs.test_store_crash import METERS, PRUNED

path, what, moments = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
files.BALLAST_BYTES = 2_000
if what == "normal":
    full = schema.connect
    def connect(path):
        connection = full(path)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection
    schema.connect = connect

def say(*words):
    os.write(1, json.dumps(words).encode())

async def work(store, moment, most):
    for moment in range(moment, moment + most):
        say("append", moment)
        await store.append(commits(METERS, [moment])[0])
        say("done")
        if moment % 7 == 3:
            taken = await take(store, 25)
            slot = f"before {moment}"
            say("slot", slot)
            await store.keep_slot("basement", slot.encode())
            say("done")
            rows = [(one.key.meter_id, one.stamp) for one in taken]
            slot = f"after {moment}"
            say("settle", rows[:-1], rows[-1:], slot)
            settled = confirmed(taken[:-1]) + confirmed(taken[-1:], "parked", "why")
            await store.settle("basement", settled, slot.encode())
            say("done")
        if moment % 31 == 30:
            say("prune")
            await store.prune()
            say("done")

async def main():
    clock = StillClock(START + (PRUNED + 10_000) * HOUR)
    store = store_at(path, clock, keep=10_000 * HOUR)
    await store.open()
    await store.declare([series(nth) for nth in range(METERS)])
    if what == "deleted":
        path.unlink()
    if what in ("used", "normal"):
        await work(store, 0, moments)
        await store.close()
        say("closed")
        store = store_at(path, clock, keep=10_000 * HOUR)
        await store.open()
    await work(store, moments, 30 if moments < 1_000 else 8)
    await store.close()

asyncio.run(main())
"""


@define
class Told:
    """What the child said it did: what must be there, and what may be."""

    stored: dict[Row, None] = field(factory=dict)
    confirmed: set[Row] = field(factory=set)
    parked: set[Row] = field(factory=set)
    slot: str = ""
    pruned: bool = False
    set_aside: bool = False
    """May the file have been set aside?"""
    waived: bool = False
    """Someone deleted the file: nothing has to be there until the next commit."""
    doing: list | None = None  # type: ignore[type-arg]

    def hear(self, words: list) -> None:  # type: ignore[type-arg]
        """Take one line of the child."""
        if words != ["done"]:
            self.doing = None if words == ["closed"] else words
            self.pruned |= words[0] == "prune"
        elif self.doing is not None:
            self.waived = False
            self.stored.update(dict.fromkeys(self.arriving()))
            match self.doing:
                case ["slot", slot]:
                    self.slot = slot
                case ["settle", sent, aside, slot]:
                    self.slot = slot
                    self.confirmed.update((meter, stamp) for meter, stamp in sent)
                    self.parked.update((meter, stamp) for meter, stamp in aside)
            self.doing = None

    def arriving(self) -> set[Row]:
        """Rows of a commit under way: there together, or none of them."""
        match self.doing:
            case ["append", moment]:
                return {(f"{7000 + nth}", START + moment * HOUR) for nth in range(METERS)}
        return set()

    def settling(self) -> set[Row]:
        """Rows of which a settlement is under way."""
        match self.doing:
            case ["settle", sent, aside, _]:
                return {(meter, stamp) for meter, stamp in sent + aside}
        return set()

    def slots(self) -> set[str]:
        """What the slot may be."""
        match self.doing:
            case ["slot", slot] | ["settle", _, _, slot]:
                return {self.slot, slot}
        return {self.slot}


async def faults_of(folder: Path, told: Told) -> list[str]:
    """Open the store on it; what does not hold."""
    found: list[str] = []
    clock = StillClock(START)
    store = store_at(folder / "readings.db", clock)
    opened = await store.open()
    try:
        if opened.set_aside is not None and not told.set_aside:
            found.append("set aside")
        rows = {(m, stamp): (v, state) for m, stamp, v, state in await exported(store)}
        wanted = set() if told.waived else set(told.stored)
        if told.pruned:
            wanted -= {row for row in told.confirmed if row[1] < START + PRUNED * HOUR}
        if wanted - rows.keys():
            found.append(f"lost {len(wanted - rows.keys())}")
        arriving = told.arriving()
        strange = rows.keys() - told.stored.keys() - arriving
        if strange or len(arriving & rows.keys()) not in (0, len(arriving)):
            found.append("half a commit")
        for row, (value, _) in rows.items():
            if value != reading(int(row[0]) - 7000, (row[1] - START) // HOUR).value:
                found.append("altered")
        settling = told.settling()
        for row in (told.confirmed & rows.keys()) - settling:
            if rows[row][1] != "confirmed":
                found.append("sent again")
        for row in told.parked & rows.keys():
            if rows[row][1] != "parked:why":
                found.append("parked no more")
        states = {rows[row][1] == "pending" for row in settling & rows.keys()}
        if len(states) > 1:
            found.append("half a settlement")
        slot = (await store.slot("basement") or b"").decode()
        if slot not in told.slots() and not told.waived:
            found.append("slot")
        counts = await store.counts()
        if not counts.balanced or counts != await store.check_counts():
            found.append("sums")
        pending = {row for row, (_, state) in rows.items() if state == "pending"}
        if {(one.key.meter_id, one.stamp) for one in await take(store)} != pending:
            found.append("not offered")
        await store.declare([series(nth) for nth in range(METERS)])
        if (await store.append(commits(METERS, [5_000])[0])).stored != METERS:
            found.append("does not store")
    finally:
        await store.close()
    return found


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: syncs cost nothing there."""
    shared = Path("/dev/shm")
    where = shared if os.access(shared, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="crash-", dir=where))
    yield folder
    shutil.rmtree(folder)


class Explorer:
    """Runs the child and looks at what power cuts leave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.looked_at = 0
        self.cuts = 0
        self.faults: Counter[str] = Counter()

    def run(
        self, what: str, moments: int, each: int, told: Told, disk: Disk, *, enough: int = 1 << 30
    ) -> None:
        """`each` states at every call, until there are that many faults."""
        work = self.folder / "work"
        lay_out(disk, work)
        calls = trace(
            [sys.executable, "-c", CHILD, str(work / "readings.db"), what, str(moments)],
            self.folder / "trace", cwd=ROOT, stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        draw = random.Random(SEED)
        folder = Folder(work, disk)
        with asyncio.Runner() as runner:
            for call in calls:
                if call.name == "write" and call.numbers[0] == "1":
                    told.hear(json.loads(call.strings[0]))
                elif folder.take(call):
                    self.cuts += 1
                    for left in states(folder, draw, each):
                        self._look(runner, left, told)
                if self.faults.total() >= enough:
                    return

    def _look(self, runner: asyncio.Runner, left: Disk, told: Told) -> None:
        there = self.folder / "left"
        lay_out(left, there)
        try:
            found = runner.run(faults_of(there, told))
        except Exception as error:  # that it does not open is what is looked for
            found = [f"does not open: {error!r}"]
        self.looked_at += 1
        self.faults.update(set(found))


async def with_a_past(path: Path) -> tuple[Disk, Told]:
    """A buffer that was closed in order, and what is in it."""
    store = await filled(store_at(path), METERS, range(60))
    taken = await take(store, 100)
    await store.settle("basement", confirmed(taken), b"old")
    told = Told(dict.fromkeys((m, stamp) for m, stamp, *_ in await exported(store)), slot="old")
    told.confirmed |= {(one.key.meter_id, one.stamp) for one in taken}
    await store.close()
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}, told


@pytest.fixture
def explorer(
    memory: Path, monkeypatch: pytest.MonkeyPatch, expected_events: Callable[..., None]
) -> Explorer:
    """An explorer with a small ballast."""
    if shutil.which("strace") is None:
        pytest.skip("needs Debian's strace")
    monkeypatch.setattr(files, "BALLAST_BYTES", 2_000)
    expected_events("buffer.volatile")
    return Explorer(memory)


def test_no_power_cut_loses_what_was_stored(explorer: Explorer, short: bool) -> None:
    explorer.run("used", 60 if short else 260, 8 if short else 100, Told(), {})
    print(f"power cut at {explorer.cuts} calls, {explorer.looked_at} states: lost 0, unopenable 0")
    assert explorer.faults == {}
    assert explorer.looked_at > (2_000 if short else 30_000)


@pytest.mark.parametrize("what", ["damaged", "deleted"])
def test_no_power_cut_in_a_salvage_loses_what_was_sound(
    explorer: Explorer, short: bool, expected_events: Callable[..., None], what: str
) -> None:
    expected_events("buffer.set_aside")
    disk, told = asyncio.run(with_a_past(explorer.folder / what / "readings.db"))
    told.set_aside = True
    told.waived = what == "deleted"
    if what == "damaged":
        disk["readings.db"] = b"no header" * 11 + disk["readings.db"][99:]
    explorer.run(what, 1_000, 10 if short else 100, told, disk)
    print(f"power cut at {explorer.cuts} calls, {explorer.looked_at} states: lost 0, unopenable 0")
    assert explorer.faults == {}
    assert explorer.looked_at > (400 if short else 2_000)


def test_a_store_that_does_not_sync_each_commit_is_found_out(
    explorer: Explorer, expected_events: Callable[..., None]
) -> None:
    expected_events("buffer.set_aside")  # commits in the WAL with a hole before them
    explorer.run("normal", 60, 4, Told(), {}, enough=3)
    print(f"synchronous=NORMAL is found out after {explorer.looked_at} states: {explorer.faults}")
    assert any(fault.startswith("lost") for fault in explorer.faults)
