"""What a salvage must not cost: whole blocks, slots, what is in flight, memory, or the next one."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.buffer import salvage, schema
from gateway.buffer.rows import SLOTS
from gateway.clock import DAY, HOUR
from gateway.errors import StoreFull
from gateway.metering.reading import Counts
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

PAGE = 1024


@pytest.fixture
def path(tmp_path: Path, expected_events: Callable[..., None]) -> Path:
    expected_events("buffer.set_aside")
    return tmp_path / "readings.db"


def page_of(path: Path, needle: bytes) -> int:
    """Where the page begins that holds these bytes."""
    return path.read_bytes().index(needle) // PAGE * PAGE


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


async def test_pieces_that_get_new_places_beyond_a_block_take_no_block_with_them(
    path: Path,
) -> None:
    await (await filled(store_at(path), 20, range(204))).close()  # ids up to 4080 of 4095
    at = page_of(path, reading(7, 100).raw.pack())
    overwrite(path, at + 8, b"\xff\xff")  # the pointer to its one cell: 20 loose readings
    store = store_at(path)
    assert (await store.open()).set_aside is not None
    counts = await store.counts()
    assert counts == Counts(stored=4080, pending=4080) == await store.check_counts()
    for commit in commits(20, range(300, 520)):  # until the block after it is full as well
        await store.append(commit)
    await store.close()
    again = store_at(path)
    await again.open()
    counts = Counts(stored=8480, pending=8480)
    assert await again.counts() == counts == await again.check_counts()
    assert len(await take(again)) == 8480
    await again.close()


async def test_a_new_sender_does_not_take_the_row_of_a_slot_that_is_there(path: Path) -> None:
    store = await filled(store_at(path), 1, range(1))
    for sender in ("attic", "basement", "cellar"):
        await store.keep_slot(sender, sender.encode())
    await store.close()
    raw = sqlite3.connect(path)
    raw.execute("DELETE FROM slots WHERE sender = 'attic'")
    raw.commit()
    raw.close()
    again = store_at(path)
    await again.open()
    await again.keep_slot("dairy", b"dairy")
    assert [await again.slot(name) for name in ("basement", "cellar", "dairy")] == [
        b"basement", b"cellar", b"dairy",
    ]  # fmt: skip
    await again.close()


async def test_a_sender_whose_slot_was_lost_has_one_that_cannot_be_read(path: Path) -> None:
    """It may have asked a moment ago, though nothing was ever confirmed."""
    store = store_at(path)
    await store.open()
    await store.declare([series(0), series(1, "attic")])
    await store.keep_slot("basement", b"slot of the basement")
    await store.keep_slot("attic", b"slot of the attic")
    await store.close()
    data = path.read_bytes()
    overwrite(path, data.index(b"slot of the attic"), b"X")
    again = store_at(path)
    opened = await again.open()
    assert opened.set_aside is not None
    assert await again.slot("basement") == b"slot of the basement"
    assert await again.slot("attic") == b""
    assert await again.slot("never heard of") is None
    await again.close()


async def test_of_two_versions_of_a_slot_neither_is_believed(path: Path) -> None:
    """A page that was given up may hold an old one, and the list of such pages can be lost."""
    store = await filled(store_at(path), 1, range(1))
    await store.keep_slot("basement", b"new")
    await store.keep_slot("attic", b"right")
    await store.close()
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE stale (id INTEGER PRIMARY KEY, sender, state, seal)")
    raw.execute(
        "INSERT INTO stale VALUES (?, ?, ?, ?)", SLOTS.sealed(1, "basement", b"long ago")
    )  # fmt: skip
    raw.commit()
    raw.close()
    overwrite(path, 0, b"no header" * 11)
    again = store_at(path)
    await again.open()
    assert await again.slot("basement") == b""
    assert await again.slot("attic") == b"right"
    await again.close()


async def test_what_moves_in_a_salvage_is_not_taken_for_what_is_in_flight(path: Path) -> None:
    """A chunk that lost a reading has the others at other places: they get ids of their own."""
    await (await filled(store_at(path), 20, range(300))).close()
    store = store_at(path)
    await store.open()
    taken = await take(store, 20 + 2_010)  # the newest, then to the middle of a moment
    overwrite(path, path.read_bytes().index(reading(2, 100).raw.pack()), b"\xff")
    await store._run(lambda: store._db.execute("PRAGMA shrink_memory"))
    rest = await take(store)
    every = [*taken, *rest]
    assert len({one.id for one in every}) == len(every) == 6_000
    await store.settle("basement", confirmed(every), b"s")
    counts = Counts(stored=6_000, confirmed=5_999, parked=1)
    assert await store.counts() == counts == await store.check_counts()
    await store.close()


async def test_a_salvaged_file_that_is_damaged_itself_is_salvaged_again(path: Path) -> None:
    await (await filled(store_at(path), 2, range(5))).close()
    path.rename(f"{path}.salvaged")
    overwrite(Path(f"{path}.salvaged"), 0, b"no header" * 11)
    store = store_at(path)
    await store.open()
    assert (await store.counts()).pending == 10
    await store.close()


async def test_readings_of_a_series_that_is_lost_with_its_copy_are_not_kept(path: Path) -> None:
    await (await filled(store_at(path), 3, range(5))).close()
    data = path.read_bytes()
    for _ in range(2):
        overwrite(path, data.index(b"7001meter-1"), b"X")
        data = path.read_bytes()
    store = store_at(path)
    await store.open()
    counts = await store.counts()
    assert counts == Counts(stored=10, pending=10) == await store.check_counts()
    assert {meter for meter, *_ in await exported(store)} == {"7000", "7002"}
    await store.close()


async def killed(path: Path, meters: int, moments: range) -> None:
    """A buffer as a kill leaves it: what was stored last is in the WAL only."""
    store = await filled(store_at(path), meters, moments)
    wal = Path(f"{path}-wal").read_bytes()
    database = path.read_bytes()
    await store.close()
    path.write_bytes(database)
    Path(f"{path}-wal").write_bytes(wal)


@pytest.mark.parametrize("at", [10, 32 + 5, 32 + 24 + 500, 32 + 3 * (24 + PAGE) + 700])
async def test_a_flipped_bit_in_the_wal_does_not_silently_take_the_commits_after_it(
    path: Path, at: int
) -> None:
    await killed(path, 5, range(20))
    wal = Path(f"{path}-wal")
    data = bytearray(wal.read_bytes())
    data[at] ^= 4
    wal.write_bytes(data)
    store = store_at(path)
    await store.open()
    counts = await store.counts()
    assert counts == await store.check_counts()
    assert counts.stored == 100
    assert counts.pending >= 95  # what the bit hit is parked as damaged
    await store.close()


@pytest.mark.parametrize("cut", [1, 300, 600])
async def test_a_last_commit_that_a_power_cut_tore_is_no_damage(path: Path, cut: int) -> None:
    await killed(path, 5, range(20))
    wal = Path(f"{path}-wal")
    wal.write_bytes(wal.read_bytes()[:-cut] + bytes(cut))
    store = store_at(path)
    assert (await store.open()).set_aside is None
    assert (await store.counts()).pending == 95
    await store.close()


async def test_a_salvage_that_fails_is_tried_again_and_nothing_is_lost_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is damaged while the disk is full: when there is room the work goes on."""
    await (await filled(store_at(path), 20, range(300))).close()
    store = store_at(path)
    await store.open()
    taken = await take(store, 20)
    overwrite(path, path.read_bytes().index(reading(2, 100).raw.pack()), b"\xff")
    await store._run(lambda: store._db.execute("PRAGMA shrink_memory"))
    rebuild = salvage.rebuild

    def full(*_: object, **__: object) -> salvage.Found:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(salvage, "rebuild", full)
    for _ in range(3):
        with pytest.raises(StoreFull):
            await take(store)
    with pytest.raises(StoreFull):
        await store.append(commits(20, [300])[0])
    monkeypatch.setattr(salvage, "rebuild", rebuild)
    await store.append(commits(20, [300])[0])
    await store.settle("basement", confirmed(taken), b"s")
    counts = Counts(stored=6_020, confirmed=20, parked=1, pending=5_999)
    assert await store.counts() == counts == await store.check_counts()
    await store.close()


async def test_a_deleted_file_is_not_given_up_while_there_is_no_room_to_write_it_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await filled(store_at(path), 3, range(10))
    path.unlink()
    put = salvage._put_in_place

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(salvage, "_put_in_place", full)
    for _ in range(2):
        with pytest.raises(StoreFull):
            await store.append(commits(3, [10])[0])
    monkeypatch.setattr(salvage, "_put_in_place", put)
    await store.append(commits(3, [10])[0])
    assert (await store.counts()).pending == 33
    await store.close()


async def test_only_the_newest_damaged_files_are_kept(path: Path) -> None:
    clock = StillClock()
    await (await filled(store_at(path), 2, range(5))).close()
    for day in range(6):
        clock.at = START + day * DAY
        overwrite(path, 0, b"no header" * 11)
        store = store_at(path, clock)
        await store.open()
        await store.close()
    kept = sorted(file.name for file in path.parent.glob("*.damaged-*"))
    assert len(kept) == salvage.ASIDE_KEPT
    assert kept[-1].endswith("20231119T221320Z")


async def test_without_room_for_all_a_salvage_leaves_old_confirmed_readings_behind(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await filled(store_at(path), 20, range(600))  # 12,000 ids
    taken = await take(store, 20 + 10_000)
    await store.settle("basement", confirmed(taken), b"slot")
    before = await store.counts()
    await store.close()
    overwrite(path, 0, b"no header" * 11)
    size = path.stat().st_size
    monkeypatch.setattr(schema, "free_bytes", lambda _: size - 1)
    again = store_at(path)
    opened = await again.open()
    assert opened.lost == 0
    assert path.stat().st_size < 0.75 * size
    assert await again.counts() == before == await again.check_counts()
    last = await again.last()
    assert {one.stamp for one in last.values()} == {START + 599 * HOUR}
    assert len(await take(again)) == before.pending
    await again.close()


async def test_the_journal_of_a_foreign_file_is_not_played_into_the_new_one(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA page_size = 1024")
    other.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, value)")
    other.executemany("INSERT INTO readings (value) VALUES (?)", [("x" * 500,)] * 200)
    other.execute("PRAGMA cache_size = 5")
    other.execute("BEGIN")
    other.execute("UPDATE readings SET value = 'y'")  # what does not fit the cache is written
    journal = Path(f"{path}-journal")
    foreign = {file: file.read_bytes() for file in (path, journal)}
    other.close()
    for file, data in foreign.items():
        file.write_bytes(data)
    overwrite(path, 0, b"no header" * 11)
    store = store_at(path)
    await store.open()
    await store.declare([series(0)])
    assert (await store.append(commits(1, [0])[0])).stored == 1
    assert not journal.exists()
    await store.close()


async def test_altered_names_of_tables_are_damage_too(path: Path) -> None:
    """SQLite quotes them in its message, which is no text then."""
    await (await filled(store_at(path), 2, range(5))).close()
    data = path.read_bytes()
    for at in range(data.index(b"CREATE TABLE heads"), data.index(b"CREATE TABLE heads") + 40):
        path.write_bytes(data)
        overwrite(path, at, bytes([data[at] ^ 0x80]))
        store = store_at(path)
        assert (await store.open()).lost == 0
        assert (await store.counts()).pending == 10
        await store.close()


async def test_what_a_card_gives_only_at_the_second_try_is_saved(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await filled(store_at(path), 20, range(30))).close()
    overwrite(path, 0, b"no header" * 11)
    tried: set[int] = set()
    read = os.pread

    def at_second_try(file: int, size: int, at: int) -> bytes:
        if at not in tried:
            tried.add(at)
            raise OSError(errno.EIO, "Input/output error")
        return read(file, size, at)

    monkeypatch.setattr(os, "pread", at_second_try)
    store = store_at(path)
    opened = await store.open()
    assert (opened.saved, opened.lost) == (600, 0)
    assert tried
    await store.close()
