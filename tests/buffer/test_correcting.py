"""Readings that a person has corrected, and readings that are brought in afterwards."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from attrs import evolve

from gateway.buffer.store import Store
from gateway.clock import HOUR
from gateway.metering.reading import Commit, Correction, KeptSample, Reading, Sample
from tests.buffer.made import (
    START,
    StillClock,
    confirmed,
    exported,
    filled,
    reading,
    series,
    store_at,
    take,
)

ODD = Decimal("123456789.0123456789012345678901234567")
"""A number that is kept as text."""


def corrected(one: Reading, value: Decimal) -> Correction:
    return Correction(one.key, one.stamp, one.value, value)


async def sent(store: Store) -> None:
    """All that waits is confirmed."""
    taken = await take(store)
    await store.settle("basement", confirmed(taken), b"slot")


async def test_what_was_sent_is_sent_again_with_another_value_and_known(tmp_path: Path) -> None:
    store = await filled(store_at(tmp_path / "readings.db"), 2, range(5))
    await sent(store)
    wrong = reading(0, 3)
    assert await store.correct([corrected(wrong, Decimal(7))]) == 1
    counts = await store.counts()
    assert (counts.stored, counts.pending, counts.confirmed) == (10, 1, 9)
    assert [(w.key, w.stamp, w.value) for w in await take(store)] == [
        (wrong.key, wrong.stamp, Decimal(7))
    ]
    (former,) = await store.formers([wrong.key])
    assert (former.stamp, former.was, former.state, former.at) == (
        wrong.stamp, wrong.value, "confirmed", START,
    )  # fmt: skip
    await store.close()


async def test_what_is_sent_again_comes_after_the_newest_and_oldest_first(tmp_path: Path) -> None:
    """P11, for each series: its newest that waits, then the oldest of all."""
    store = await filled(store_at(tmp_path / "readings.db"), 2, range(60))
    await sent(store)
    wrong = [reading(0, moment) for moment in range(10, 50)]
    await store.correct([corrected(one, one.value + 1) for one in wrong])
    await store.append(Commit((reading(0, 60), reading(1, 60))))
    offered = [(w.key.meter_id, (w.stamp - START) // HOUR) for w in await take(store)]
    assert set(offered[:2]) == {("7000", 60), ("7001", 60)}
    assert offered[2:] == [("7000", moment) for moment in range(10, 50)]
    await store.close()


async def test_what_flies_or_was_corrected_meanwhile_is_passed_over(tmp_path: Path) -> None:
    store = await filled(store_at(tmp_path / "readings.db"), 1, range(2))
    (flying,) = await take(store, 1)
    one = corrected(reading(0, flying.stamp // HOUR - START // HOUR), Decimal(7))
    assert await store.correct([one]) == 0
    await store.release_flight("basement")
    assert await store.correct([one]) == 1
    assert await store.correct([one]) == 0
    assert await store.correct([]) == 0
    await store.close()


async def test_nothing_of_the_former_value_is_left_to_be_found_by_a_salvage(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    """Longer and shorter numbers, so that rows move; then a piece of the file is cut off."""
    expected_events("buffer.set_aside")
    path = tmp_path / "readings.db"
    store = await filled(store_at(path), 150, range(3))
    rows = await exported(store)
    await sent(store)
    for value in (ODD, Decimal(5)):
        corrections = [
            Correction(evolve(series(0).key, meter_id=meter_id), stamp, was, value + nth)
            for nth, (meter_id, stamp, was, _) in enumerate(await exported(store))
        ]
        assert await store.correct(corrections) == len(rows)
    await store.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 9 // 10)
    store = store_at(path)
    opened = await store.open()
    assert opened.saved > 50
    left = await exported(store)
    assert {value for _, _, value, _ in left} <= {Decimal(5) + nth for nth in range(len(rows))}
    assert {state for *_, state in left} <= {"pending", "confirmed"}
    await store.close()


async def test_meters_go_on_from_the_newest_after_older_ones_were_brought_in(
    tmp_path: Path, expected_events: Callable[..., None]
) -> None:
    """After a restart and after a salvage; a series with nothing else has no last reading."""
    expected_events("buffer.set_aside")
    path = tmp_path / "readings.db"
    store = await filled(store_at(path), 2, range(50, 53))
    await store.declare([series(nth) for nth in range(3)])
    for moment in range(10):
        past = Commit(tuple(reading(nth, moment) for nth in (0, 2)))
        assert (await store.append(past, past=True)).stored == 2
    assert (await store.append(past, past=True)).stored == 0  # again, without doubling

    async def known() -> None:
        last = await store.last()
        assert {(key.meter_id, one.stamp) for key, one in last.items()} == {
            ("7000", START + 52 * HOUR),
            ("7001", START + 52 * HOUR),
        }
        first = await take(store, 2)
        assert {w.stamp for w in first} == {START + 52 * HOUR}
        await store.release_flight("basement")

    await known()
    await store.close()
    store = store_at(path)
    await store.open()
    await known()
    with path.open("r+b") as file:  # the running store finds it damaged
        file.seek(0)
        file.write(b"\xff" * 100)
    await store.close()
    store = store_at(path)
    await store.open()
    await known()
    await store.append(Commit((reading(0, 53), reading(2, 53))))
    last = await store.last()
    assert last[series(0).key].stamp == last[series(2).key].stamp == START + 53 * HOUR
    await store.close()


async def test_ids_go_on_after_a_block_that_ends_with_older_readings(tmp_path: Path) -> None:
    """The newest reading is far from the last row."""
    path = tmp_path / "readings.db"
    store = await filled(store_at(path), 1, [9_000])
    past = [reading(0, moment) for moment in range(4_095)]
    await store.append(Commit(tuple(past)), past=True)
    await store.close()
    store = store_at(path)
    await store.open()
    await store.append(Commit((reading(0, 9_001),)))
    assert len(await exported(store)) == 4_097
    counts = await store.check_counts()
    assert counts.balanced
    assert counts.pending == 4_097
    await store.close()


async def test_what_a_series_was_before_the_configuration_made_it_another_is_known(
    tmp_path: Path,
) -> None:
    path = tmp_path / "readings.db"
    store = await filled(store_at(path), 1, range(3))
    other = series(0, as_="consumption")
    await store.declare([other])
    await store.append(Commit((reading(0, 3),)))
    await store.declare([evolve(other, sender="attic")])  # who sends it says nothing of it
    await store.close()
    store = store_at(path)
    await store.open()
    first, second = (await store.eras())[other.key]
    assert (first.series.as_, first.last) == ("counter", 3)
    assert second.series.as_ == "consumption"
    await store.close()


async def test_samples_of_which_nothing_was_made_come_with_the_others_and_go_with_them(
    tmp_path: Path,
) -> None:
    clock = StillClock()
    store = await filled(store_at(tmp_path / "readings.db", clock, keep=30 * HOUR), 1, range(3))
    made = [Sample("meter-0", START + n, "boot-1", n, reading(0, n).raw) for n in range(6)]
    for nth, one in enumerate(made):
        kept = KeptSample(one, one.at, doubted="zero" * (nth % 2 == 0))
        await store.append(Commit(samples=(kept, KeptSample(evolve(one, meter="meter-1")))))
    assert [one.sample.at - START for _, one in await store.samples("meter-0")] == [1, 3, 5]

    async def between(first: int, last: int) -> list[int]:
        some = store.samples_between("meter-0", START + first, START + last)
        return [one.at - START async for samples in some for one in samples]

    assert await between(1, 4) == [1, 2, 3, 4]
    assert [
        one.raw async for some in store.samples_between("meter-0", 0, 1 << 62) for one in some
    ] == [one.raw for one in made]
    await sent(store)
    clock.at += 31 * HOUR
    await store.prune()
    assert await between(0, 10) == []
    await store.close()


async def test_what_was_corrected_is_forgotten_with_what_is_kept(tmp_path: Path) -> None:
    clock = StillClock()
    store = await filled(store_at(tmp_path / "readings.db", clock, keep=30 * HOUR), 1, range(3))
    one = reading(0, 2)
    await store.correct([corrected(one, Decimal(7))])
    clock.at += 29 * HOUR
    await store.prune()
    assert len(await store.formers([one.key])) == 1
    clock.at += 2 * HOUR
    await store.prune()
    assert await store.formers([one.key]) == []
    await store.close()


async def test_where_room_is_short_what_only_explains_goes_before_any_reading(
    tmp_path: Path,
) -> None:
    store = await filled(store_at(tmp_path / "readings.db", max_size=200_000), 2, range(100))
    one = reading(0, 2)
    await store.correct([corrected(one, Decimal(7))])
    made = Sample("meter-0", START, "boot-1", 0, one.raw)
    for _ in range(10):
        kept = tuple(KeptSample(evolve(made, at=START + n), doubted="jump") for n in range(1_000))
        await store.append(Commit(samples=kept))
    counts = await store.counts()
    assert (counts.stored, counts.pending, counts.dropped) == (200, 200, {})
    left = [one async for some in store.samples_between("meter-0", 0, 1 << 62) for one in some]
    assert 0 < len(left) < 5_000
    await store.close()
