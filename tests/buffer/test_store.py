"""What the store does with readings, one behaviour a test. The files are real."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from attrs import evolve

from gateway.buffer import chunks, schema, views
from gateway.buffer.appending import Declared
from gateway.buffer.chunks import Record
from gateway.buffer.reads import ReadOnlyStore
from gateway.clock import DAY, HOUR, MINUTE
from gateway.errors import StoreUnavailable
from gateway.metering.reading import (
    Block,
    Commit,
    Counts,
    Gap,
    KeptSample,
    Offer,
    RawWords,
    Sample,
    SeriesKey,
    Settlement,
    Waiting,
)
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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "readings.db"


async def test_the_file_and_those_beside_it_are_for_its_user_alone(
    path: Path, expected_events: Callable[..., None]
) -> None:
    expected_events("buffer.set_aside")

    def modes() -> set[int]:
        files = [file for file in path.parent.iterdir() if file.suffix != ".ballast"]
        assert len(files) >= 3
        return {file.stat().st_mode & 0o777 for file in files}

    store = await filled(store_at(path), 3, range(4))
    assert modes() == {0o600}
    path.unlink()  # written anew
    await store.append(commits(3, [5])[0])
    assert modes() == {0o600}
    await store.close()
    path.write_bytes(b"no database at all")
    path.chmod(0o600)
    await store_at(path).open()  # salvaged
    assert modes() == {0o600}


async def test_what_was_appended_is_there_after_a_restart(path: Path) -> None:
    store = await filled(store_at(path), 3, range(4))
    before = await exported(store)
    await store.close()
    again = store_at(path)
    opened = await again.open()
    assert (opened.new, opened.pending, opened.set_aside) == (False, 12, None)
    assert await exported(again) == before
    assert len(before) == 12
    assert await again.counts() == Counts(stored=12, pending=12)
    await again.close()


async def test_the_heads_of_many_series_are_written_after_some_readings_of_each(
    path: Path,
) -> None:
    many = 1_500
    store = await filled(store_at(path), many, range(3))
    heads = "SELECT n FROM heads"
    assert await store._call(lambda db, _: db.execute(heads).fetchall()) == []  # a block is full
    for commit in commits(many, range(3, 7)):
        await store.append(commit)
    assert await store._call(lambda db, _: db.execute(heads).fetchall()) == [(6,)] * many
    await store.settle("basement", confirmed(await take(store, 500)), b"slot")
    counts = await store.check_counts()
    await store.close()
    again = store_at(path)
    await again.open()
    assert await again.counts() == await again.check_counts() == evolve(counts, in_flight=0)
    last = await again.last()
    assert {last[series(nth).key].stamp for nth in range(many)} == {START + 6 * HOUR}
    await again.close()


async def test_the_newest_of_each_series_comes_first_and_then_the_oldest(path: Path) -> None:
    store = await filled(store_at(path), 3, range(5))
    stamps = [(w.stamp - START) // HOUR for w in await take(store)]
    assert stamps == [4] * 3 + [m for m in range(4) for _ in range(3)]
    await store.close()


async def test_the_newest_that_still_waits_is_found_behind_confirmed_ones(path: Path) -> None:
    store = await filled(store_at(path), 2, range(10))
    await store.settle("basement", confirmed(await take(store, 2)), b"")
    first = (await take(store, 2))[:2]
    assert [(w.stamp - START) // HOUR for w in first] == [8, 8]
    await store.close()


async def test_values_in_flight_are_not_offered_again_until_they_are_released(path: Path) -> None:
    store = await filled(store_at(path), 2, range(3))
    taken = await take(store, 4)
    assert (await store.counts()).in_flight == 4
    rest = await take(store)
    assert not {w.id for w in taken} & {w.id for w in rest}
    await store.release_flight("basement")
    assert await store.counts() == Counts(stored=6, pending=6)
    assert len(await take(store)) == 6
    await store.close()


async def test_a_skipped_value_is_passed_over_and_offered_once(path: Path) -> None:
    store = await filled(store_at(path), 2, range(3))
    offered = []

    def offer(waiting: Waiting) -> Offer:
        offered.append(waiting.id)
        return Offer.SKIP

    await store.collect("basement", offer)
    assert sorted(offered) == sorted(set(offered))
    assert len(offered) == 6
    assert (await store.counts()).in_flight == 0
    await store.close()


async def test_settling_confirms_parks_and_returns_and_keeps_the_slot_with_it(path: Path) -> None:
    store = await filled(store_at(path), 3, range(2))
    taken = await take(store)
    by_key = {key: [w for w in taken if w.key == key] for key in {w.key for w in taken}}
    keys = sorted(by_key, key=lambda key: key.meter_id)
    await store.settle(
        "basement",
        confirmed(by_key[keys[0]]) + confirmed(by_key[keys[1]][:1], "parked", "refused"),
        b"slot-1",
    )
    expected = Counts(stored=6, pending=3, confirmed=2, parked=1)
    assert await store.counts() == expected == await store.check_counts()
    await store.close()
    again = store_at(path)
    await again.open()
    assert await again.counts() == expected
    assert await again.slot("basement") == b"slot-1"
    assert await again.slot("attic") is None
    assert [(line.reason, line.count) for line in await again.parked()] == [("refused", 1)]
    await again.close()


async def test_a_sender_that_may_be_another_one_renamed_has_a_slot_of_which_nothing_is_known(
    path: Path,
) -> None:
    store = await filled(store_at(path), 2, [0])
    assert await store.slot("basement") is None
    await store.keep_slot("basement", b"asked")
    assert await store.slot("attic") is None
    await store.declare([series(0, "cellar"), series(1, "cellar")])
    assert await store.slot("cellar") == b""
    await store.close()


async def test_a_slot_is_kept_by_itself(path: Path) -> None:
    store = await filled(store_at(path), 1, range(1))
    await store.keep_slot("basement", b"one")
    await store.keep_slot("attic", b"other")
    await store.keep_slot("basement", b"two")
    copy = ReadOnlyStore(path)
    await copy.open()
    assert (await copy.slot("basement"), await copy.slot("attic")) == (b"two", b"other")
    await copy.close()
    await store.close()


async def test_a_parked_series_is_parked_now_and_later_and_gives_one_value_to_a_probe(
    path: Path,
) -> None:
    store = await filled(store_at(path), 2, range(3))
    key = series(0).key
    taken = await take(store, only=frozenset({key}))
    assert len(taken) == 3
    await store.settle("basement", [Settlement(key, "park_series", (), "404")], b"")
    await store.append(commits(2, [3])[0])
    assert await store.counts() == Counts(stored=8, pending=4, parked=4)
    assert await store.waiting("basement") == 4
    probe = await take(store, probes=frozenset({key}))
    assert [w.key for w in probe].count(key) == 1
    assert [w.stamp for w in probe if w.key == key] == [START + 3 * HOUR]
    assert len(probe) == 5
    both = [Settlement(key, "unpark_series"), *confirmed(w for w in probe if w.key == key)]
    await store.settle("basement", both, b"")
    assert await store.counts() == Counts(stored=8, pending=7, confirmed=1)
    assert await store.waiting("basement") == 7
    await store.close()


async def test_only_the_series_asked_for_are_offered(path: Path) -> None:
    store = await filled(store_at(path), 4, range(3))
    only = frozenset({series(1).key, series(3).key})
    assert {w.key for w in await take(store, only=only)} == only
    await store.close()


async def test_of_a_stretch_of_time_all_is_offered_the_oldest_first_of_probes_too(
    path: Path,
) -> None:
    store = await filled(store_at(path), 3, range(9_000 // 3))  # more than two blocks
    key = series(0).key
    await store.settle("basement", [Settlement(key, "park_series", (), "404")], b"")
    within = (START + 20 * HOUR - 999, START + 23 * HOUR)
    offered: list[Waiting] = []

    def offer(waiting: Waiting) -> Offer:
        offered.append(waiting)
        return Offer.SKIP

    await store.collect("basement", offer, within=within)
    hours = [(w.stamp - START) // HOUR for w in offered]
    assert hours == [20, 20, 21, 21, 22, 22, 23, 23]
    await store.collect("basement", offer, within=within, probes=frozenset({key}))
    assert [w.key for w in offered[8:]].count(key) == 4
    assert len(offered) == 8 + 12
    await store.close()


async def test_in_place_of_a_newest_value_that_has_to_wait_the_one_before_it_comes_first(
    path: Path,
) -> None:
    store = await filled(store_at(path), 2, range(6))
    parked = series(1).key
    await store.settle("basement", [Settlement(parked, "park_series", (), "404")], b"")
    offered: list[tuple[str, int]] = []

    def offer(waiting: Waiting) -> Offer:
        hour = (waiting.stamp - START) // HOUR
        offered.append((waiting.key.meter_id, hour))
        return Offer.EARLIER if hour > 3 else Offer.TAKEN

    await store.collect("basement", offer, probes=frozenset({parked}))
    name, probed = series(0).key.meter_id, parked.meter_id
    newest = [(name, 5), (probed, 5), (probed, 4), (name, 4), (probed, 3), (name, 3)]
    assert offered == [*newest, (name, 0), (name, 1), (name, 2)]
    assert (await store.counts()).in_flight == 5
    await store.close()


async def test_the_series_of_a_sender_are_known_after_they_left_the_configuration(
    path: Path,
) -> None:
    store = await filled(store_at(path), 2, range(1))
    await store.declare([series(1)])
    found = await store.series("basement")
    assert set(found.values()) == {series(0), series(1)}
    assert await store.series("attic") == {}
    await store.close()


async def test_held_readings_wait_but_are_not_offered_until_released(path: Path) -> None:
    store = await filled(store_at(path), 1, range(2))
    await store.append(Commit((reading(0, 2, held="implausible"), reading(0, 3))))
    assert await store.counts() == Counts(stored=4, pending=4, held=1)
    assert await store.waiting("basement") == 3
    offered = [(w.stamp - START) // HOUR for w in await take(store)]
    assert offered == [3, 0, 1]
    await store.release_flight("basement")
    await store.close()
    again = store_at(path)
    await again.open()
    assert (await again.counts()).held == 1
    assert await again.release([series(0).key]) == 1
    assert len(await take(again)) == 4
    await again.close()


async def test_a_stamp_that_is_stored_already_is_not_stored_again(path: Path) -> None:
    store = await filled(store_at(path), 2, range(3))
    changed = reading(0, 1, "999")
    answer = await store.append(Commit((changed, reading(0, 3), reading(0, 3, "5"))))
    assert answer.stored == 1
    assert answer.repeated == (changed, reading(0, 3, "5"))
    kept = {(m, s): v for m, s, v, _ in await exported(store)}
    assert kept["7000", START + HOUR] == Decimal("0.01")
    assert len(kept) == 7
    await store.close()


async def test_a_value_whose_stamp_is_taken_by_another_is_counted_as_dropped(path: Path) -> None:
    store = await filled(store_at(path), 2, range(3))
    for commit in (
        Commit((reading(0, 1, "999"), reading(0, 3), reading(0, 3, "5"))),
        Commit((reading(0, 3), evolve(reading(0, 2), raw=RawWords()))),
    ):
        await store.append(commit)
    expected = Counts(stored=10, pending=7, dropped={"repeated": 3})
    assert await store.counts() == await store.check_counts() == expected
    await store.close()
    again = store_at(path)
    await again.open()
    assert await again.counts() == await again.check_counts() == expected
    assert len(await take(again)) == 7
    await again.release_flight("basement")
    await again.append(commits(2, [4])[0])
    await again.settle("basement", confirmed(await take(again)), b"")
    assert await again.counts() == Counts(stored=12, confirmed=9, dropped={"repeated": 3})
    assert (await again.last())[series(0).key] == reading(0, 4)
    await again.close()


async def test_a_late_stamp_that_is_new_is_stored_and_sent_before_younger_ones(path: Path) -> None:
    store = await filled(store_at(path), 1, [5, 6, 7])
    assert (await store.append(commits(1, [2])[0])).stored == 1
    assert [(w.stamp - START) // HOUR for w in await take(store)][1:] == [5, 6, 7]
    await store.release_flight("basement")
    await store.append(commits(1, [8])[0])
    assert [(w.stamp - START) // HOUR for w in await take(store)] == [8, 2, 5, 6, 7]
    await store.close()


async def test_nothing_of_a_commit_that_cannot_be_stored_is_stored(path: Path) -> None:
    store = await filled(store_at(path), 1, range(1))
    for wrong in (reading(0, 5, "NaN"), reading(9, 5), evolve(reading(0, 5), stamp=START + 1)):
        with pytest.raises(ValueError, match=r"number|declared|whole seconds"):
            await store.append(Commit((reading(0, 4), wrong)))
    assert await store.counts() == Counts(stored=1, pending=1)
    assert (await store.append(commits(1, [4])[0])).stored == 1
    await store.close()


async def test_a_meter_taken_out_of_the_configuration_keeps_its_sender(path: Path) -> None:
    store = await filled(store_at(path), 2, range(2))
    await store.declare([series(1, sender="attic")])
    assert {w.key for w in await take(store)} == {series(0).key}
    assert {w.key for w in await take(store, sender="attic")} == {series(1).key}
    await store.close()
    again = store_at(path)
    await again.open()
    assert await again.waiting("attic") == 2
    await again.close()


async def test_the_last_reading_of_each_series_comes_back_with_its_words(path: Path) -> None:
    store = await filled(store_at(path), 2, range(3))
    await store.append(Commit((reading(0, 3, held="clock"),)))
    await store.settle("basement", confirmed(await take(store)), b"")
    await store.close()
    again = store_at(path)
    await again.open()
    last = await again.last()
    assert last == {series(0).key: reading(0, 3, held="clock"), series(1).key: reading(1, 2)}
    await again.close()


async def test_values_ahead_of_the_limit_are_parked_as_in_the_future(path: Path) -> None:
    store = await filled(store_at(path), 2, range(10))
    assert await store.expire(START, START + 7 * HOUR) == 4
    assert await store.expire(START, START + 7 * HOUR) == 0
    assert max(w.stamp for w in await take(store)) == START + 7 * HOUR
    assert {line.reason for line in await store.parked()} == {"in_future"}
    assert await store.counts() == await store.check_counts()


async def test_values_older_than_the_limit_are_parked_as_too_old(path: Path) -> None:
    store = await filled(store_at(path), 2, range(10))
    await store.append(Commit((reading(0, 10),)))
    assert await store.expire(START + 4 * HOUR) == 8
    assert await store.expire(START + 4 * HOUR) == 0
    assert min(w.stamp for w in await take(store)) == START + 4 * HOUR
    await store.release_flight("basement")
    counts = await store.counts()
    assert (counts.parked, counts.pending) == (8, 13)
    assert counts == await store.check_counts()
    await store.close()


async def test_pending_of_each_sender_and_its_oldest_stamp(path: Path) -> None:
    store = store_at(path)
    await store.open()
    await store.declare([series(0), series(1, "attic"), series(2, "empty")])
    for moment in range(3):
        await store.append(Commit((reading(0, moment), reading(1, moment + 7))))
    assert await store.pending_by_sender() == {
        "basement": (3, START),
        "attic": (3, START + 7 * HOUR),
        "empty": (0, None),
    }
    await store.settle("basement", confirmed((await take(store, 2))[1:]), b"")
    assert (await store.pending_by_sender())["basement"] == (2, START + HOUR)
    await store.close()


async def test_gaps_with_one_reason_are_one_line_until_a_reading_comes_between(path: Path) -> None:
    store = await filled(store_at(path), 1, [0])
    key = series(0).key

    def gap(moment: int, reason: str = "timeout") -> Commit:
        return Commit(gaps=(Gap(key, START + moment * HOUR, reason),))

    for commit in (gap(1), gap(2), gap(2), gap(3, "crc"), gap(4, "crc")):
        await store.append(commit)
    await store.append(Commit((reading(0, 5),)))
    await store.close()
    again = store_at(path)
    await again.open()
    for commit in (gap(6, "crc"), gap(7, "crc")):
        await again.append(commit)
    ledger = [
        ((line.first - START) // HOUR, (line.last - START) // HOUR, line.reason, line.count)
        for line in await again.gaps()
    ]
    assert ledger == [(1, 2, "timeout", 2), (3, 4, "crc", 2), (6, 7, "crc", 2)]
    assert len(await again.gaps(START + 5 * HOUR)) == 1
    await again.close()


def sample(moment: int, *, right: bool = True, meter: str = "meter-0") -> KeptSample:
    raw = RawWords((Block(3, 0, (moment,)),))
    at = START + moment * MINUTE
    one = Sample(meter, at, "boot-1", moment * MINUTE, raw, {"voltage": "crc"}, right)
    return KeptSample(one, at + HOUR)


async def test_samples_come_back_for_the_intervals_in_progress_only(path: Path) -> None:
    store = await filled(store_at(path), 1, [0])
    for moment in range(0, 600, 10):
        await store.append(Commit(samples=(sample(moment), sample(moment, meter="meter-1"))))
    await store.close()
    again = store_at(path)
    await again.open()
    kept = await again.samples("meter-0")
    assert kept[-1][1] == sample(590)
    assert [k.sample.at for _, k in kept] == [START + m * MINUTE for m in range(470, 600, 10)]
    assert {k.sample.meter for _, k in await again.samples()} == {"meter-0", "meter-1"}
    await again.close()


async def test_samples_without_a_time_come_back_until_they_are_restamped(path: Path) -> None:
    store = await filled(store_at(path), 1, [0])
    await store.append(Commit(samples=tuple(sample(m, right=False) for m in range(3))))
    for moment in range(0, 6000, 100):
        await store.append(Commit(samples=(sample(moment),)))
    waiting = [(id, k) for id, k in await store.samples() if not k.sample.synchronised]
    assert [k.sample.boottime for _, k in waiting] == [0, MINUTE, 2 * MINUTE]
    right = {id: START + 9 * DAY + k.sample.boottime for id, k in waiting}
    await store.append(Commit(restamped=right))
    restamped = {id: k.sample for id, k in await store.samples() if id in right}
    assert all(s.synchronised for s in restamped.values())
    assert {id: s.at for id, s in restamped.items()} == {
        id: at for id, at in right.items() if id in restamped
    }
    assert not [k for _, k in await store.samples() if not k.sample.synchronised]
    await store.close()


async def test_the_state_of_a_meter_is_replaced_and_comes_back(path: Path) -> None:
    store = await filled(store_at(path), 1, range(1))
    await store.append(Commit(states={"meter-0": b"one", "meter-1": b"x"}))
    await store.append(Commit(states={"meter-0": b"two"}))
    assert await store.states() == {"meter-0": b"two", "meter-1": b"x"}
    await store.close()


async def test_only_confirmed_readings_older_than_keep_are_deleted(path: Path) -> None:
    clock = StillClock()
    store = await filled(store_at(path, clock, keep=10 * HOUR), 2, range(40))
    await store.append(Commit(samples=tuple(sample(m) for m in range(0, 2400, 60))))
    taken = [w for w in await take(store) if w.key == series(0).key]
    await store.settle("basement", confirmed(taken), b"")
    clock.at = START + 40 * HOUR
    await store.prune()
    left = await exported(store)
    assert [s for m, s, _, _ in left if m == "7000"] == [START + m * HOUR for m in range(30, 40)]
    assert sum(m == "7001" for m, *_ in left) == 40
    assert (await store.counts()) == Counts(stored=80, pending=40, confirmed=40)
    assert await store.check_counts() == await store.counts()
    await store.settle("basement", confirmed(await take(store)), b"")
    clock.at = START + 400 * HOUR
    await store.prune()
    assert await exported(store) == []
    await store.close()
    again = store_at(path, clock)
    await again.open()
    # What is gone is still counted, and no number is given out twice.
    assert await again.counts() == Counts(stored=80, confirmed=80)
    await again.append(commits(2, [400])[0])
    assert await again.counts() == Counts(stored=82, pending=2, confirmed=80)
    assert len(await take(again)) == 2
    await again.close()


async def test_by_a_clock_that_may_be_wrong_nothing_is_deleted(path: Path) -> None:
    clock = StillClock()
    store = await filled(store_at(path, clock, keep=HOUR), 1, range(5))
    await store.settle("basement", confirmed(await take(store)), b"")
    clock.at = START + 9000 * DAY
    await store.prune(by_age=False)
    assert len(await exported(store)) == 5
    await store.prune()
    assert await exported(store) == []
    await store.close()


async def test_within_max_size_confirmed_readings_go_first_and_every_drop_is_counted(
    path: Path, expected_events
) -> None:  # type: ignore[no-untyped-def]
    expected_events("buffer.dropped")
    store = store_at(path, max_size=600_000)
    await filled(store, 50, range(200))
    settled = await take(store, 5_050)
    await store.settle("basement", confirmed(settled), b"")
    for commit in commits(50, range(200, 700)):
        await store.append(commit)
    counts = await store.counts()
    assert counts.stored == 35_000
    assert counts.confirmed == 5_050
    assert counts.dropped["max_size"] > 5_000
    assert counts.balanced
    assert counts == await store.check_counts()
    assert store.size < 1_000_000
    left = await exported(store)
    assert left[-1][1] == START + 699 * HOUR
    assert "confirmed" not in {state for *_, state in left}
    await store.close()
    again = store_at(path, max_size=600_000)
    await again.open()
    assert await again.counts() == counts
    await again.close()


async def test_confirmed_readings_that_are_deleted_for_room_are_not_dropped(path: Path) -> None:
    store = store_at(path, max_size=400_000)
    await filled(store, 50, [])
    for nth, commit in enumerate(commits(50, range(600))):
        await store.append(commit)
        if nth % 10 == 9:
            await store.settle("basement", confirmed(await take(store)), b"")
    counts = await store.counts()
    assert counts.dropped == {}
    assert counts.stored == 30_000
    assert store.size < 800_000
    await store.close()


async def test_the_export_is_in_the_order_of_stamps_and_says_where_each_is(path: Path) -> None:
    store = await filled(store_at(path), 2, [10, 11, 12])
    await store.append(commits(2, [3])[0])
    taken = await take(store, 2)
    await store.settle(
        "basement", confirmed(taken[:1]) + confirmed(taken[1:], "parked", "409"), b""
    )
    await take(store, 1)
    rows = await exported(store)
    assert [s for _, s, _, _ in rows] == sorted(s for _, s, _, _ in rows)
    assert sorted({state for *_, state in rows}) == [
        "confirmed", "in_flight", "parked:409", "pending",
    ]  # fmt: skip
    some = await exported(store, meter_id="7001", since=START + 10 * HOUR, until=START + 12 * HOUR)
    assert [(m, (s - START) // HOUR) for m, s, _, _ in some] == [("7001", 10), ("7001", 11)]
    assert len(await exported(store, meter="meter-0")) == 4
    await store.close()


async def test_a_reader_beside_the_service_sees_the_same_and_changes_nothing(path: Path) -> None:
    store = await filled(store_at(path), 2, range(5))
    copy = ReadOnlyStore(path)
    await copy.open()
    assert await copy.counts() == await store.counts()
    await store.append(commits(2, [5])[0])
    assert (await copy.counts()).stored == 12
    assert [w.id for w in await take(copy)] == [w.id for w in await take(store)]  # type: ignore[arg-type]
    await store.settle("basement", confirmed([]), b"")
    assert await exported(copy) == await exported(store)  # type: ignore[arg-type]
    await store.close()
    assert (await copy.counts()).pending == 12
    await copy.close()


async def test_a_reader_says_that_there_is_no_buffer(path: Path) -> None:
    copy = ReadOnlyStore(path)
    with pytest.raises(StoreUnavailable, match="No such file"):
        await copy.open()
    assert not path.exists()


async def test_thousands_of_readings_in_one_commit_fill_more_than_one_block(path: Path) -> None:
    store = store_at(path)
    await store.open()
    await store.declare([series(0), series(1)])
    many = tuple(reading(nth, moment) for moment in range(5_000) for nth in range(2))
    await store.append(Commit(many))
    await store.append(commits(2, [6_000])[0])
    taken = await take(store)
    assert len(taken) == 10_002
    assert len({w.id for w in taken}) == 10_002
    await store.settle("basement", confirmed(taken[:7_000]), b"")
    await store.close()
    again = store_at(path)
    await again.open()
    assert await again.counts() == Counts(stored=10_002, pending=3_002, confirmed=7_000)
    assert await again.check_counts() == await again.counts()
    assert {w.id for w in await take(again)} == {w.id for w in taken[7_000:]}
    await again.close()


async def test_ids_that_are_not_in_flight_are_not_confirmed(path: Path) -> None:
    store = await filled(store_at(path), 1, range(3))
    taken = await take(store, 1)
    await store.release_flight("basement")
    await store.settle("basement", confirmed(taken), b"")
    strange = Settlement(SeriesKey("", "nobody"), "confirmed", (1, 2, 3))
    await store.settle("basement", [strange], b"")
    assert await store.counts() == Counts(stored=3, pending=3)
    await store.close()


async def test_a_store_that_is_not_open_says_so(path: Path) -> None:
    store = store_at(path)
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.counts()
    await store.close()


async def test_the_rows_are_counted_anew_in_turn_and_others_come_in_between(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A buffer of a gigabyte takes minutes to read: nothing waits for all of it."""
    monkeypatch.setattr("gateway.buffer.store.MOST_CHECKED", 3)
    monkeypatch.setattr("gateway.buffer.store._GROUP", 1)
    store = await filled(store_at(path), 2, [])
    for first in range(0, 20_000, 2_000):
        many = tuple(reading(n, m) for m in range(first, first + 2_000) for n in range(2))
        await store.append(Commit(many))
    read: list[int] = []
    block = views.chunks.block

    def counted(connection: sqlite3.Connection, number: int) -> Iterator[Record]:
        read.append(number)
        return block(connection, number)

    monkeypatch.setattr(views.chunks, "block", counted)
    for _ in range(5):
        assert (await store.check_counts()).balanced
    assert read == [9, 0, 1, 9, 2, 3, 9, 4, 5, 9, 6, 7, 9, 8, 0]
    checking = asyncio.create_task(store.check_counts())
    while len(read) == 15:
        await asyncio.sleep(0)
    await store.append(commits(2, [30_000])[0])
    assert not checking.done()
    assert (await checking) == await store.counts()
    await store.close()


async def test_a_reading_that_no_book_knows_of_is_found_by_counting_anew(path: Path) -> None:
    store = await filled(store_at(path), 2, range(5))
    store._index.blocks[0].open -= 1
    assert not (await store.counts()).balanced
    assert (await store.check_counts()).balanced
    await store.close()


async def test_samples_of_what_is_confirmed_go_before_readings_that_are_not(path: Path) -> None:
    store = await filled(store_at(path, max_size=200_000), 2, range(100))
    for day in range(40):
        moments = range(day * 1440, (day + 1) * 1440, 10)
        await store.append(Commit(samples=tuple(sample(m) for m in moments)))
    counts = Counts(stored=200, pending=200)
    assert await store.counts() == counts
    kept = [one for _, one in await store.samples()]
    assert kept[-1].sample.at == START + (40 * 1440 - 10) * MINUTE
    assert kept[-1].sample.at - kept[0].sample.at >= 110 * MINUTE  # of the intervals under way
    await store.close()


async def test_samples_that_never_get_a_time_go_oldest_first(path: Path) -> None:
    store = await filled(store_at(path, max_size=400_000), 1, [0])
    await store.settle("basement", confirmed(await take(store)), b"")
    for first in range(0, 20_000, 500):
        some = tuple(sample(m, right=False) for m in range(first, first + 500))
        await store.append(Commit(samples=some))
        if first % 2_500:
            continue
        kept = [one.sample.boottime // MINUTE for _, one in await store.samples()]
        assert kept == list(range(kept[0], first + 500))
        assert len(kept) > min(3_000, first)
    assert len(kept) < 10_000
    await store.close()


async def test_what_was_learnt_of_a_meter_goes_with_it_and_what_it_counted_stays(
    path: Path,
) -> None:
    store = await filled(store_at(path), 2, [0])
    learnt = {f"modbus/riser/meter-{nth}/1/x": b"learnt" for nth in range(2)}
    await store.append(Commit(states={**learnt, "meter-0": b"0", "meter-1": b"1"}))
    await store.prune()
    assert len(await store.states()) == 4
    await store.declare([series(1)])
    await store.prune()
    assert await store.states() == {
        "modbus/riser/meter-1/1/x": b"learnt", "meter-0": b"0", "meter-1": b"1",
    }  # fmt: skip
    await store.close()


async def test_a_meter_renamed_moved_removed_and_added_again_loses_and_repeats_nothing(
    path: Path,
) -> None:
    store = await filled(store_at(path), 2, range(3))
    await store.declare([series(0, meter="new-name"), series(1)])
    await store.append(commits(2, [3])[0])
    assert len(await take(store)) == 8
    await store.release_flight("basement")
    await store.declare([series(1)])  # removed
    assert len(await take(store)) == 8
    await store.release_flight("basement")
    await store.declare([series(0, "attic"), series(1)])  # added again, with another sender
    assert (await store.append(commits(1, [3, 4])[0])).stored == 0
    await store.append(commits(1, [4])[0])
    assert len(await take(store)) == 4
    assert len(await take(store, sender="attic")) == 5
    await store.release_flight("attic")
    other = evolve(series(0, "attic"), key=SeriesKey("north", "7000"))
    await store.declare([other, series(1)])  # in another import it is another meterID
    assert len(await take(store, sender="attic")) == 5
    counts = await store.counts()
    assert counts.stored == 9
    assert counts == await store.check_counts()
    await store.close()


async def test_what_waits_of_a_meter_taken_out_goes_to_the_heir_of_its_sender(path: Path) -> None:
    store = await filled(store_at(path), 2, range(4))
    await store.declare([series(1)], lambda one: f"heir of {one.sender}")
    assert await store.senders() == {"basement": 4, "heir of basement": 4}
    assert len(await take(store, sender="heir of basement")) == 4
    await store.close()
    reader = ReadOnlyStore(path)
    await reader.open()
    assert await reader.senders() == {"basement": 4, "heir of basement": 4}
    await reader.close()
    look = ReadOnlyStore(path, Declared([series(0, "attic"), series(7)], lambda _: "cellar"))
    await look.open()
    assert await look.senders() == {"attic": 4, "basement": 0, "cellar": 4}
    assert await look.waiting("attic") == 4
    await look.close()


async def test_a_reader_does_not_hold_up_a_stop(path: Path) -> None:
    store = await filled(store_at(path), 2, range(3))
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM chunks").fetchone()
    start = time.monotonic()
    await store.close()
    assert time.monotonic() - start < 4
    reader.close()


def test_a_mistake_of_ours_is_not_taken_for_damage(path: Path) -> None:
    assert not schema.is_damage(sqlite3.ProgrammingError("wrong number of bindings"), path)


async def test_a_request_reads_only_what_may_wait_and_what_comes_back_is_found_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await filled(store_at(path), 2, range(100))
    await store.settle("basement", confirmed(await take(store, 180)), b"slot")
    await take(store)  # sees where what waits begins
    await store.release_flight("basement")
    read: list[int] = []
    unpack = chunks.unpack

    def counted(id: int, data: bytes) -> tuple[list[Record], bool]:
        read.append(id)
        return unpack(id, data)

    monkeypatch.setattr(chunks, "unpack", counted)
    assert len(await take(store)) == 20
    assert len(read) < 20  # of 100 chunks
    await store.release_flight("basement")
    key = series(0).key
    await store.settle("basement", [Settlement(key, "park_series", reason="404")], b"slot")
    assert len(await take(store)) == 10
    await store.settle("basement", [Settlement(key, "unpark_series")], b"slot")
    assert len(await take(store)) == 20
    await store.close()
