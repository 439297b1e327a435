"""Readings of a boot that never had the time: kept, counted, and never sent."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from attrs import evolve

from gateway.buffer.store import Store
from gateway.clock import HOUR, MINUTE
from gateway.metering.reading import Commit, Correction, KeptSample, Reading, Sample
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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "readings.db"


def timeless(nth: int, count: int, *, since: int = 10) -> list[Reading]:
    """So many readings of the nth series, a minute apart, from hour `since` on."""
    first = reading(nth, since, held="no_time")
    return [evolve(first, stamp=first.stamp + n * MINUTE) for n in range(count)]


async def with_samples(store: Store, count: int) -> list[int]:
    """Samples without a time; their ids."""
    raw = reading(0, 0).raw
    kept = [
        KeptSample(Sample("meter-0", n, "boot-0", n, raw, synchronised=False)) for n in range(count)
    ]
    await store.append(Commit(samples=tuple(kept)))
    return [id for id, _ in await store.samples()]


async def test_they_are_parked_in_place_of_their_samples_and_never_offered(path: Path) -> None:
    store = await filled(store_at(path), 2, range(3))
    ids = await with_samples(store, 5)
    await store.park_timeless(timeless(0, 4), ids[:3])
    assert [id for id, _ in await store.samples()] == ids[3:]
    counts = await store.check_counts()
    assert (counts.stored, counts.pending, counts.parked, counts.held) == (10, 6, 4, 0)
    assert counts.balanced
    assert await store.release([series(0).key]) == 0
    assert len(await take(store)) == 6
    assert [(line.reason, line.count) for line in await store.parked()] == [("no_time", 4)]
    rows = [row for row in await exported(store) if row[3] == "parked:no_time"]
    assert [stamp for _, stamp, *_ in rows] == [START + 10 * HOUR + n * MINUTE for n in range(4)]
    await store.close()


async def test_they_are_no_news_and_the_series_goes_on_from_what_was_stored_before(
    path: Path,
) -> None:
    store = await filled(store_at(path), 1, range(3))
    await store.park_timeless(timeless(0, 4), [])
    for opened in (store, store_at(path)):
        if opened is not store:
            await store.close()
            await opened.open()
        assert (await opened.last())[series(0).key] == reading(0, 2)
    await opened.append(commits(1, [20])[0])
    assert (await opened.last())[series(0).key] == reading(0, 20)
    await opened.close()


@pytest.mark.parametrize("most", [3, 5_000])
async def test_the_sums_are_right_after_a_restart_and_a_salvage_however_many_there_are(
    path: Path, most: int
) -> None:
    store = await filled(store_at(path), 2, range(3))
    await store.settle("basement", confirmed(await take(store, 2)), b"")
    await store.park_timeless(timeless(0, most), [])
    await store.append(commits(2, range(4_000, 4_001))[0])
    counts = await store.check_counts()
    assert (counts.balanced, counts.parked, counts.pending) == (True, most, 6)
    await store.close()
    again = store_at(path)
    await again.open()
    assert await again.counts() == await again.check_counts() == counts
    await again.close()


async def test_no_damage_makes_them_sendable(path: Path, expected_events) -> None:  # type: ignore[no-untyped-def]
    expected_events("buffer.set_aside")
    store = await filled(store_at(path), 1, range(3))
    await store.park_timeless(timeless(0, 4), [])
    await store.close()
    with sqlite3.connect(path) as connection:  # what became of them is not known any more
        connection.execute("UPDATE spans SET state = 'c'")
    connection.close()
    again = store_at(path)
    opened = await again.open()
    assert opened.set_aside is not None
    assert len(await take(again)) == 3
    assert (await again.check_counts()).parked == 4
    await again.close()


async def test_no_person_can_let_them_go_but_give_them_up(path: Path) -> None:
    store = await filled(store_at(path), 1, range(3))
    await store.park_timeless(timeless(0, 4), [])
    assert await store.retry_parked([], within=(0, 1 << 62)) == (0, {"no_time": 4})
    assert len(await take(store)) == 3
    await store.release_flight("basement")
    assert await store.discard_parked([], "no_time") == 4
    counts = await store.check_counts()
    assert (counts.balanced, counts.dropped, counts.parked) == (True, {"discarded": 4}, 0)
    await store.close()


async def test_a_correction_does_not_let_them_go(path: Path) -> None:
    store = await filled(store_at(path), 1, range(3))
    (one,) = timeless(0, 1)
    await store.park_timeless([one], [])
    assert await store.correct([Correction(one.key, one.stamp, one.value, one.value + 1)]) == 0
    assert len(await take(store)) == 3
    await store.close()


async def test_nothing_is_stored_and_no_sample_deleted_where_that_fails(path: Path) -> None:
    store = await filled(store_at(path), 1, range(3))
    ids = await with_samples(store, 2)
    with pytest.raises(ValueError, match="declared"):
        await store.park_timeless([*timeless(0, 1), *timeless(7, 1)], ids)
    assert [id for id, _ in await store.samples()] == ids
    assert (await store.counts()).stored == 3
    await store.close()
