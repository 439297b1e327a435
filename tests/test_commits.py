"""One commit for what comes due together, and memory for when the buffer takes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from gateway.buffer.appending import Appended
from gateway.clock import MINUTE
from gateway.commits import Committer
from gateway.errors import StoreError, StoreFull, StoreUnavailable
from gateway.metering.meter import Outcome
from gateway.metering.reading import Commit, Gap, KeptSample, Reading, SeriesKey
from tests.clocks import FakeClock
from tests.metering.samples import energy

NOON = int(datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp() * 1000)
MINUTES = 4 * 60
KEY = SeriesKey("", "1")


class Store:
    """Takes commits in order, or fails as it is told."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.error: Exception | None = None
        self.tries = 0
        self.unsound: Callable[[Reading], bool] = lambda reading: False

    async def append(self, commit: Commit) -> Appended:
        self.tries += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if any(self.unsound(reading) for reading in commit.readings):
            raise OverflowError("too large a number")
        known = {(one.key, one.stamp) for one in self.readings}
        repeated = tuple(one for one in commit.readings if (one.key, one.stamp) in known)
        self.commits.append(commit)
        return Appended(len(commit.readings) - len(repeated), repeated)

    @property
    def readings(self) -> list[Reading]:
        return [reading for commit in self.commits for reading in commit.readings]

    @property
    def values(self) -> list[int]:
        return [int(reading.value) for reading in self.readings]


def reading(n: int) -> Outcome:
    return Outcome((Reading(KEY, NOON + n * MINUTE, Decimal(n)),))


@contextlib.asynccontextmanager
async def running(committer: Committer) -> AsyncIterator[None]:
    task = asyncio.create_task(committer.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def store() -> Store:
    return Store()


async def test_what_two_buses_find_together_is_one_commit(clock: FakeClock, store: Store):
    told: list[Commit] = []
    committer = Committer(store, clock, "x.db", told.append)
    async with running(committer):
        with committer.round():
            with committer.round():
                committer.add("a", reading(1))
            await clock.pass_(1)
            assert store.commits == []
            committer.add("b", Outcome(state=b"{}"))
        await clock.settle()
    (commit,) = store.commits
    assert (len(commit.readings), commit.states) == (1, {"b": b"{}"})
    assert told == [commit]


async def test_a_commit_waits_two_seconds_for_a_slow_bus_and_no_longer(
    clock: FakeClock, store: Store
):
    committer = Committer(store, clock, "x.db")
    async with running(committer):
        with committer.round():
            committer.add("a", reading(1))
            await clock.pass_(1.9)
            assert store.values == []
            await clock.pass_(0.2)
            assert store.values == [1]


async def test_nothing_is_committed_for_nothing(clock: FakeClock, store: Store):
    told: list[Commit] = []
    committer = Committer(store, clock, "x.db", told.append)
    async with running(committer):
        committer.add("a", Outcome())
        await clock.pass_(10)
        assert store.tries == 0
        committer.add("a", Outcome(gaps=(Gap(KEY, NOON, "timeout"),)))
        await clock.pass_(10)
    assert len(store.commits) == 1
    assert told == []  # no uploader has to be woken for a gap


@pytest.mark.parametrize(
    ("error", "event"),
    [(StoreFull("full"), "buffer.full"), (StoreUnavailable("EIO"), "buffer.unavailable")],
)
async def test_while_the_buffer_takes_nothing_readings_wait_in_memory(
    clock: FakeClock,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    expected_events: Callable[..., None],
    error: StoreError,
    event: str,
):
    expected_events(event)
    committer = Committer(store, clock, "x.db")
    store.error = error
    with caplog.at_level("INFO", "gateway"):
        async with running(committer):
            for n in range(20):
                committer.add("a", reading(n))
                await clock.pass_(60)
            assert store.tries > 20
            store.error = None
            await clock.pass_(10)
    assert store.values == list(range(20))
    assert [r.event for r in caplog.records] == [event, "buffer.recovered"]  # type: ignore[attr-defined]


async def test_an_hour_is_kept_and_what_is_older_becomes_a_gap(
    clock: FakeClock,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    expected_events: Callable[..., None],
):
    expected_events("buffer.full", "buffer.dropped")
    committer = Committer(store, clock, "x.db")
    store.error = StoreFull("full")
    async with running(committer):
        for n in range(MINUTES):
            state = b"first" if n == 0 else None
            committer.add("a", Outcome(reading(n).readings, state=state))
            await clock.pass_(60)
        store.error = None
        await clock.pass_(10)
    assert store.values == list(range(MINUTES - 61, MINUTES))
    (gap,) = store.commits[0].gaps
    assert (gap.stamp, gap.reason) == (NOON, "buffer_full")
    assert (gap.last, gap.count) == (NOON + (MINUTES - 62) * MINUTE, MINUTES - 61)
    assert store.commits[0].states == {"a": b"first"}
    lines = [r for r in caplog.records if r.event == "buffer.dropped"]  # type: ignore[attr-defined]
    assert len(lines) <= 5
    assert sum(r.fields["count"] for r in lines) == gap.count  # type: ignore[attr-defined]


async def test_a_commit_that_cannot_be_stored_holds_nobody_up(
    clock: FakeClock, store: Store, expected_events: Callable[..., None]
):
    expected_events("task.failed")
    committer = Committer(store, clock, "x.db")
    async with running(committer):
        store.error = ValueError("not declared")
        committer.add("a", reading(1))
        await clock.pass_(10)
        store.error = None
        committer.add("a", reading(2))
        await clock.pass_(10)
    assert store.values == [2]


async def test_flush_tells_whether_all_is_stored(
    clock: FakeClock, store: Store, expected_events: Callable[..., None]
):
    expected_events("buffer.full")
    committer = Committer(store, clock, "x.db")
    kept = KeptSample(energy(NOON, "1"))
    committer.add("a", Outcome(), samples=[kept], restamped={7: NOON})
    store.error = StoreFull("full")
    assert not await committer.flush()
    store.error = None
    assert await committer.flush()
    assert store.commits == [Commit(samples=(kept,), restamped={7: NOON})]


async def test_a_reading_that_cannot_be_stored_takes_no_other_with_it(
    clock: FakeClock, store: Store, expected_events: Callable[..., None]
):
    expected_events("task.failed")
    store.unsound = lambda reading: reading.value in (3, 17)
    committer = Committer(store, clock, "x.db")
    with committer.round():
        for n in range(20):
            committer.add("a", reading(n))
        committer.add("b", Outcome(gaps=(Gap(KEY, NOON, "timeout"),), state=b"{}"))
    assert await committer.flush()
    assert sorted(store.values) == [n for n in range(20) if n not in (3, 17)]
    gaps = [gap for commit in store.commits for gap in commit.gaps]
    assert {(gap.stamp, gap.reason) for gap in gaps} == {
        (NOON + 3 * MINUTE, "unsound"), (NOON + 17 * MINUTE, "unsound"), (NOON, "timeout")
    }  # fmt: skip
    assert [commit.states for commit in store.commits if commit.states] == [{"b": b"{}"}]


async def test_readings_for_which_their_stamps_are_taken_are_named_in_the_log(
    clock: FakeClock,
    store: Store,
    expected_events: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
):
    expected_events("buffer.repeated")
    committer = Committer(store, clock, "x.db")
    for n in (1, 2, 3, 2, 3, 4):
        committer.add("a", reading(n))
        assert await committer.flush()
    said = [record.fields for record in caplog.records if record.event == "buffer.repeated"]
    assert [(one["count"], one["meterIDs"], one["oldest"]) for one in said] == [
        (1, 1, "2026-03-10T12:02:00Z"),
        (1, 1, "2026-03-10T12:03:00Z"),
    ]
