"""A full disk, a card that gives errors, a read-only file system: nothing committed is lost.

Where a call to the system is to fail, strace makes it fail in a child process that uses the real
store; the test then opens what the child left.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.buffer import files
from gateway.buffer.store import Opened
from gateway.errors import StoreFull, StoreUnavailable
from gateway.metering.reading import Counts
from tests.buffer.made import commits, confirmed, exported, filled, series, store_at, take
from tests.disks import fill_up, small_ext4

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_ext4(tmp_path) as disk:
        yield disk


async def test_on_a_full_disk_confirming_goes_on_and_storing_resumes_by_itself(
    small_disk: Path,
) -> None:
    path = small_disk / "readings.db"
    store = await filled(store_at(path), 50, range(100))
    filler = fill_up(small_disk)
    full_at = None
    stored = 5_000
    for moment, commit in enumerate(commits(50, range(100, 1_000))):
        try:
            await store.append(commit)
            stored += 50
        except StoreFull:
            full_at = moment
            break
    assert full_at is not None
    assert await store.counts() == Counts(stored=stored, pending=stored)
    for commit in commits(50, range(2_000, 2_100)):
        with pytest.raises(StoreFull):
            await store.append(commit)
    for nth in range(10):
        taken = await take(store, 300)
        await store.keep_slot("basement", b"before")
        await store.settle("basement", confirmed(taken), f"slot {nth}".encode() * 10)
    assert (await store.counts()).confirmed == 3_000
    filler.unlink()
    await store.append(commits(50, [4_000])[0])
    await store.prune()
    assert files.beside(path, ".ballast").exists()
    counts = await store.counts()
    assert (counts.confirmed, counts.stored) == (3_000, stored + 50)
    await store.close()
    again = store_at(path)
    await again.open()
    assert await again.counts() == counts == await again.check_counts()
    assert await again.slot("basement") == b"slot 9" * 10
    await again.close()


async def test_on_a_full_disk_what_is_confirmed_gives_way_to_new_readings(
    small_disk: Path,
) -> None:
    path = small_disk / "readings.db"
    store = await filled(store_at(path), 50, range(1_000))
    await store.settle("basement", confirmed(await take(store, 40_000)), b"slot")
    fill_up(small_disk)
    for commit in commits(50, range(1_000, 1_400)):
        await store.append(commit)
    for _ in range(3):  # and there is still room to confirm
        await store.settle("basement", confirmed(await take(store, 500)), b"slot")
    counts = await store.counts()
    assert counts == Counts(stored=70_000, confirmed=41_500, pending=28_500)
    assert counts == await store.check_counts()
    rows = await exported(store)
    assert sum(state == "pending" for *_, state in rows) == 28_500
    await store.close()


async def test_on_a_full_disk_a_changed_configuration_is_taken(small_disk: Path) -> None:
    path = small_disk / "readings.db"
    store = await filled(store_at(path), 3, range(10))
    await store.close()
    store = store_at(path)
    await store.open()
    fill_up(small_disk)
    await store.declare([series(nth) for nth in range(500)])
    assert await store.waiting("basement") == 30
    await store.close()


async def test_a_read_only_file_system_is_no_question_of_permission(small_disk: Path) -> None:
    path = small_disk / "readings.db"
    await (await filled(store_at(path), 3, range(10))).close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    store = store_at(path)
    with pytest.raises(StoreUnavailable, match="Read-only"):
        await store.open()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert (await store.open()).pending == 30
    await store.close()


async def test_a_disk_that_is_full_at_the_start_says_so(small_disk: Path) -> None:
    path = small_disk / "readings.db"
    fill_up(small_disk)
    store = store_at(path)
    with pytest.raises(StoreFull):
        await store.open()
    (small_disk / "filler").unlink()
    assert (await store.open()).new
    await store.close()


async def test_after_a_stop_on_a_full_disk_the_next_start_has_the_room_that_it_needs(
    small_disk: Path,
) -> None:
    """Whatever else takes the rest in between."""
    path = small_disk / "readings.db"
    store = await filled(store_at(path), 3, range(4))
    await store.keep_slot("basement", b"before")
    files.free_ballast(path)
    fill_up(small_disk)
    before = await store.counts()
    await store.close()
    for nth in range(3):
        fill_up(small_disk)
        again = store_at(path)
        assert await again.open() == Opened(new=False, pending=12)
        assert await again.counts() == before == await again.check_counts()
        for _ in range(100):
            await again.keep_slot("basement", f"slot {nth}".encode())
        with pytest.raises(StoreFull):
            await again.append(commits(3, [10])[0])
        await again.close()
    (small_disk / "filler").unlink()
    last = store_at(path)
    await last.open()
    await last.append(commits(3, [10])[0])
    await last.close()
    assert not files.beside(path, "-wal").exists()


CHILD = """
import asyncio, json, sys
from pathlib import Path
from gateway.errors import StoreError
from tests.buffer.made import commits, confirmed, series, store_at, take

async def main():
    store = store_at(Path(sys.argv[1]))
    kept, errors = [], []
    async def attempt(what, work):
        try:
            await work()
            kept.append(what)
        except StoreError as error:
            errors.append(type(error).__name__)
    for what in ("opened", "declared"):
        while what not in kept:
            if what == "opened":
                await attempt(what, store.open)
            else:
                await attempt(what, lambda: store.declare([series(nth) for nth in range(3)]))
    for moment, commit in enumerate(commits(3, range(12))):
        await attempt(moment, lambda: store.append(commit))
        if moment % 4 == 3:
            taken = await take(store, 4)
            await attempt("slot", lambda: store.keep_slot("basement", b"x" * moment))
            settled = confirmed(taken)
            await attempt("settled", lambda: store.settle("basement", settled, b"y" * moment))
    counts = await store.counts()
    print(json.dumps([kept, errors, counts.balanced]))
    await store.close()

asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs Debian's strace")
@pytest.mark.parametrize(
    ("call", "error"),
    [("fdatasync", "EIO"), ("pwrite64", "ENOSPC"), ("pwrite64", "EIO"), ("pwrite64", "EROFS")],
)
@pytest.mark.parametrize("first", [12, 15, 21, 33])
async def test_a_call_that_fails_loses_nothing_that_was_acknowledged(
    tmp_path: Path, call: str, error: str, first: int
) -> None:
    """The nth call and the one after it fail, then the device works again."""
    path = tmp_path / "readings.db"
    answer = subprocess.run(
        [
            "strace", "-f", "-qq", "-o", tmp_path / "trace", "-e", f"trace={call}",
            "-e", f"inject={call}:error={error}:when={first}..{first + 1}",
            sys.executable, "-c", CHILD, path,
        ],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    kept, _, balanced = json.loads(answer.stdout)
    assert balanced
    moments = {what for what in kept if isinstance(what, int)}
    assert len(moments) >= 9  # it goes on after the error
    store = store_at(path)
    opened = await store.open()
    assert opened.set_aside is None
    counts = await store.counts()
    assert counts == await store.check_counts()
    assert counts.confirmed >= 4 * kept.count("settled")
    rows = {(meter, stamp): value for meter, stamp, value, _ in await exported(store)}
    for commit in commits(3, moments):
        for one in commit.readings:
            assert rows[one.key.meter_id, one.stamp] == one.value
    await store.close()


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs Debian's strace")
def test_a_file_that_can_only_be_read_for_a_moment_is_not_kept_open_for_reading(
    tmp_path: Path,
) -> None:
    """SQLite falls back to that without a word, and every commit would fail until a restart."""
    path = tmp_path / "readings.db"
    answer = subprocess.run(
        [
            "strace", "-f", "-qq", "-o", tmp_path / "trace", "-P", path, "-e", "trace=openat",
            "-e", "inject=openat:error=EIO:when=2",  # the first looks whether it is there
            sys.executable, "-c", CHILD, path,
        ],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    kept, errors, _ = json.loads(answer.stdout)
    assert errors == ["StoreUnavailable"]
    assert kept[:2] == ["opened", "declared"]
    assert {*range(12)} <= {*kept}
