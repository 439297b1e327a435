"""A file that is damaged, cut off, foreign or gone: set aside, salvaged, and on it goes."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.buffer import schema
from gateway.buffer.reads import ReadOnlyStore
from gateway.errors import StoreDamaged, StoreNewer
from gateway.metering.reading import Commit, Correction, Counts
from tests.buffer.damage import METERS, MOMENTS, clear, everything_there, well_used
from tests.buffer.made import (
    START,
    commits,
    confirmed,
    exported,
    filled,
    reading,
    series,
    store_at,
    take,
)
from tests.ordinary import ORDINARY

EVENTS = ("buffer.set_aside",)


async def test_flipped_bits_never_alter_a_value_and_cost_at_most_what_they_hit(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    true = await well_used(path)
    whole = path.read_bytes()
    draw = random.Random(11)
    lost = []
    for _ in range(30):
        data = bytearray(whole)
        bit = draw.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        lost.append(await everything_there(path, true))
        clear(path)
    assert sum(lost) / len(lost) <= len(true) / 100
    assert max(lost) <= METERS


async def test_many_flipped_bits_at_once_leave_the_rest_sound(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    true = await well_used(path)
    data = bytearray(path.read_bytes())
    draw = random.Random(5)
    for _ in range(10):
        bit = draw.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    assert await everything_there(path, true) <= 10 * METERS


async def test_a_file_that_is_cut_off_anywhere_opens_with_what_is_left(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    true = await well_used(path)
    whole = path.read_bytes()
    draw = random.Random(3)
    for cut in [0, 1, 99, 100, 1023, 1024, *(draw.randrange(len(whole)) for _ in range(10))]:
        path.write_bytes(whole[:cut])
        there = sum(
            reading(int(meter) - 7000, (stamp - START) // 3_600_000).raw.pack() in whole[:cut]
            for meter, stamp in true
        )
        # One record may stand across the cut, or where a chunk goes on on a page that is gone.
        assert len(true) - await everything_there(path, true) >= 0.99 * there - 2
        clear(path)


@pytest.mark.parametrize("size", [1024, 4096, 20_000])
async def test_an_overwritten_beginning_costs_no_reading(
    tmp_path: Path, expected_events: Callable[..., None], size: int
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    true = await well_used(path)
    data = bytearray(path.read_bytes())
    data[:size] = random.Random(size).randbytes(size)
    path.write_bytes(data)
    assert await everything_there(path, true) == 0


async def test_what_a_card_loses_at_a_time_never_takes_a_series_with_its_copy(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    await (await filled(store_at(path), 40, range(3))).close()
    whole = path.read_bytes()
    records = reading(0, 0).raw.pack()
    for begin in range(0, whole.index(records) - 16_384, 4_096):
        path.write_bytes(whole[:begin] + bytes(16_384) + whole[begin + 16_384 :])
        store = store_at(path)
        await store.open()
        counts = await store.counts()
        assert counts.stored == counts.pending == 120, f"overwritten at {begin}"
        await store.close()
        clear(path)


async def test_what_is_confirmed_parked_and_held_is_so_after_a_salvage(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    true = await well_used(path)
    sound = store_at(path)
    await sound.open()
    counts, gaps = await sound.counts(), await sound.gaps()
    await sound.close()
    with path.open("r+b") as file:
        file.write(b"no header" * 11)
    store = store_at(path)
    opened = await store.open()
    assert (opened.saved, opened.lost, opened.slots_lost) == (len(true), 0, False)
    assert opened.set_aside is not None
    assert opened.set_aside.exists()
    assert await store.counts() == counts
    assert counts.held == 1
    assert counts.parked == 100
    assert await store.gaps() == gaps
    assert await store.slot("basement") == b"s"
    assert {(m, s): (v, state) for m, s, v, state in await exported(store)} == true
    await store.close()


async def test_lost_readings_are_counted_as_parked_damaged(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    await (await filled(store_at(path), METERS, range(MOMENTS))).close()
    data = bytearray(path.read_bytes())
    at = data.index(reading(3, 50).raw.pack())
    data[at] ^= 0xFF
    path.write_bytes(data)
    store = store_at(path)
    await store.open()  # the block of this reading is the one that is being filled, so it is read
    assert await store.counts() == Counts(stored=1200, pending=1199, parked=1)
    assert [(p.key, p.reason) for p in await store.parked()] == [(series(3).key, "damaged")]
    assert await store.retry_parked([], within=(0, 1 << 62)) == (0, {"damaged": 1})
    await store.close()


async def test_damage_found_while_running_is_mended_and_the_work_goes_on(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    await (await filled(store_at(path), METERS, range(300))).close()  # more than a block
    needle = reading(5, 100).raw.pack()
    with path.open("r+b") as file:
        at = file.read().index(needle)
        file.seek(at)
        file.write(b"\xff")
    store = store_at(path)
    assert (await store.open()).set_aside is None  # nothing reads that far back yet
    taken = await take(store, METERS // 2)
    late = await take(store)
    assert len(late) == 300 * METERS - METERS // 2 - 1
    assert (await store.counts()) == Counts(
        stored=6000, in_flight=5999, pending=0, parked=1, dropped={}
    )
    await store.settle("basement", confirmed([*taken, *late]), b"s")
    counts = await store.counts()
    assert counts == Counts(stored=6000, confirmed=5999, parked=1) == await store.check_counts()
    await store.close()


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_deleted_while_running_is_written_anew_from_what_is_open(
    tmp_path: Path, expected_events: Callable[..., None], replaced: bool
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    store = await filled(store_at(path), 3, range(10))
    taken = await take(store, 5)
    path.unlink()
    if replaced:
        path.write_text("someone else's")
    await store.append(commits(3, [10])[0])
    assert await store.counts() == Counts(stored=33, pending=28, in_flight=5)
    await store.settle("basement", confirmed(taken), b"s")
    await store.close()
    again = store_at(path)
    await again.open()
    assert await again.counts() == Counts(stored=33, pending=28, confirmed=5)
    assert len(await exported(again)) == 33
    await again.close()


async def test_a_file_deleted_between_two_runs_is_said_and_begun_anew(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    await (await filled(store_at(path), 3, range(3))).close()
    path.unlink()
    store = store_at(path)
    opened = await store.open()
    assert not opened.new
    assert opened.slots_lost
    await store.declare([series(0)])
    await store.append(Commit((reading(0, 1),)))
    await store.close()


async def test_a_wal_without_its_database_is_salvaged(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    store = await filled(store_at(path), 3, range(10))
    wal = Path(f"{path}-wal").read_bytes()
    await store.close()
    path.unlink()
    Path(f"{path}-wal").write_bytes(wal)
    again = store_at(path)
    opened = await again.open()
    assert opened.saved == 30
    assert (await again.counts()).pending == 30
    await again.close()


@pytest.mark.parametrize("content", [b"", b"hello, this is a text\n" * 500, b"\0" * 5000])
async def test_what_is_no_database_is_set_aside_unchanged(
    tmp_path: Path, expected_events: Callable[..., None], content: bytes
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    path.write_bytes(content)
    store = store_at(path)
    opened = await store.open()
    assert opened.set_aside is not None
    assert opened.set_aside.read_bytes() == content
    await store.declare([series(0)])
    await store.append(Commit((reading(0, 1),)))
    assert (await store.counts()).stored == 1
    await store.close()


async def test_a_database_of_another_program_is_set_aside_unchanged(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE readings (id INTEGER, value REAL)")
    other.execute("INSERT INTO readings VALUES (1, 2.5)")
    other.commit()
    other.close()
    store = store_at(path)
    opened = await store.open()
    assert opened.set_aside is not None
    kept = sqlite3.connect(opened.set_aside)
    assert kept.execute("SELECT * FROM readings").fetchall() == [(1, 2.5)]
    kept.close()
    await store.close()


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
async def test_a_file_of_a_newer_program_is_refused_and_left_alone(
    tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "readings.db"
    await (await filled(store_at(path), 1, range(1))).close()
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    newer.execute(f"PRAGMA journal_mode = {mode}")
    newer.close()
    content = path.read_bytes()
    store = store_at(path)
    with pytest.raises(StoreNewer, match="newer"):
        await store.open()
    assert path.read_bytes() == content
    beside = {p.name: p for p in tmp_path.iterdir()}
    names = {f"readings.db{suffix}" for suffix in ("", ".ballast", "-shm", "-wal")}
    assert beside.keys() <= names
    if wal := beside.get("readings.db-wal"):
        assert wal.stat().st_size == 0
    await store.close()


async def test_a_migration_keeps_a_copy_of_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "readings.db"
    await (await filled(store_at(path), 1, range(2))).close()
    connection = schema.connect(path)
    now = schema.VERSION
    steps = {now: "CREATE TABLE more (id INTEGER PRIMARY KEY)", now + 1: "DROP TABLE more"}
    schema.migrate(connection, path, now, steps=steps, target=now + 2)
    assert connection.execute("PRAGMA user_version").fetchone() == (now + 2,)
    connection.close()
    old = sqlite3.connect(f"{path}.v{now}")
    assert old.execute("PRAGMA user_version").fetchone() == (now,)
    assert old.execute("SELECT count(*) FROM chunks").fetchone() == (2,)
    old.close()


async def test_a_file_of_the_first_version_is_brought_to_the_present_one(tmp_path: Path) -> None:
    path = tmp_path / "readings.db"
    await (await filled(store_at(path), 1, range(2))).close()
    connection = sqlite3.connect(path)
    connection.executescript(
        "DROP TABLE corrected; DROP TABLE eras; DROP TABLE events; DROP TABLE doubted;"
        "DROP TABLE apart; PRAGMA user_version = 1; VACUUM"
    )
    connection.close()
    beside = ReadOnlyStore(path)
    await beside.open()
    assert await beside.formers([series(0).key]) == []
    assert [era.series for era in (await beside.eras())[series(0).key]] == [series(0)]
    assert await beside.events(10, ("info",)) == []
    await beside.close()
    store = store_at(path)
    await store.open()
    first = reading(0, 0)
    assert await store.correct([Correction(first.key, first.stamp, first.value, Decimal(9))]) == 1
    assert len(await store.formers([series(0).key])) == 1
    await store.close()
    assert (tmp_path / "readings.db.v1").exists()


async def test_a_crash_between_the_renames_of_a_salvage_is_finished_at_the_next_start(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    path = tmp_path / "readings.db"
    await (await filled(store_at(path), 2, range(5))).close()
    path.rename(f"{path}.salvaged")  # the damaged file is aside already, the new one not in place
    store = store_at(path)
    await store.open()
    assert (await store.counts()).pending == 10
    await store.close()
    # The other moment: nothing is aside yet, and the old WAL is still there.
    path.rename(f"{path}.salvaged")
    path.write_bytes(b"damaged")
    Path(f"{path}-wal").write_bytes(b"old")
    again = store_at(path)
    await again.open()
    assert (await again.counts()).pending == 10
    await again.close()


OPENS = """
import asyncio, pathlib, sys
from gateway.errors import NotPermitted
from tests.buffer.made import store_at
store = store_at(pathlib.Path(sys.argv[1]))
try:
    asyncio.run(store.open())
except NotPermitted as error:
    print(error)
"""


def test_a_folder_that_may_not_be_written_is_not_permitted(tmp_path: Path) -> None:
    path = tmp_path / "readings.db"
    tmp_path.chmod(0o555)
    done = subprocess.run(
        [*ORDINARY, sys.executable, "-c", OPENS, str(path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    tmp_path.chmod(0o755)
    assert done.stdout == f"{tmp_path}: files may not be made here\n", done.stderr
    assert not path.exists()


def test_every_result_code_of_a_damaged_file_means_damage() -> None:
    for code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT_INDEX):
        error = sqlite3.DatabaseError("…")
        error.sqlite_errorcode = code
        assert isinstance(schema.translated(error, Path("/tmp/x")), StoreDamaged)
