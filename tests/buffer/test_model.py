"""The store against a model in a dictionary, over any order of work, restarts and crashes.

A crash is a copy of the files as the system has them, opened as if the machine had just started:
whatever was acknowledged must be in it (P1), values and stamps unchanged (P2), the counts must
add up at every step (P6), and a reader beside the service must see the same.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from decimal import Decimal
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from gateway.buffer.reads import ReadOnlyStore
from gateway.clock import HOUR
from gateway.metering.reading import Commit, Correction, SeriesKey, Settlement, Waiting
from tests.buffer.made import (
    START,
    StillClock,
    confirmed,
    exported,
    reading,
    series,
    store_at,
    take,
)

METERS = 4
KEEP = 30 * HOUR
PENDING, HELD, CONFIRMED, PARKED, DROPPED = "pending", "held", "confirmed", "parked", "dropped"


class Buffer(RuleBasedStateMachine):
    flights = Bundle("flights")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="model-"))
        self.clock = StillClock()
        self.store = store_at(self.folder / "0" / "readings.db", self.clock, keep=KEEP)
        self.files = 0
        self.values: dict[tuple[str, int], Decimal] = {}
        self.states: dict[tuple[str, int], str] = {}
        self.deleted: set[tuple[str, int]] = set()
        self.refused = 0
        """Values that came for a stamp that has another."""
        self.news: dict[str, tuple[str, int]] = {}
        """Of each meter the reading that came last and was no backfill."""
        self.formers: list[tuple[str, int, Decimal, int]] = []
        self.flying: dict[int, tuple[str, int]] = {}
        self.parked: set[str] = set()
        self.slot: bytes | None = None
        self.moment = 100
        self.value = 0

    def run(self, work):  # type: ignore[no-untyped-def]
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.run(self.store.open())
        self.run(self.store.declare([series(nth, f"sender-{nth % 2}") for nth in range(METERS)]))

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    # ------------------------------------------------------------------------------------ rules

    @rule(
        meters=st.sets(st.integers(0, METERS - 1), min_size=1),
        back=st.integers(0, 6),
        held=st.sampled_from(["", "", "", "clock"]),
        past=st.booleans(),
    )
    def append(self, meters: set[int], back: int, held: str, past: bool) -> None:
        self.moment += 1
        readings = []
        for nth in sorted(meters):
            self.value += 1
            readings.append(reading(nth, self.moment - back, str(self.value), held))
        answer = self.run(self.store.append(Commit(tuple(readings)), past=past))
        for one in readings:
            row = (one.key.meter_id, one.stamp)
            assert (one in answer.repeated) == (row in self.values) or row in self.deleted
            if one in answer.repeated:
                self.refused += one.value != self.values[row]
            else:
                self.values[row] = one.value
                self.states[row] = HELD if held else PENDING
                self.deleted.discard(row)
                if not past:
                    self.news[one.key.meter_id] = row

    @rule(target=flights, sender=st.sampled_from(["sender-0", "sender-1"]), most=st.integers(1, 9))
    def collect(self, sender: str, most: int):  # type: ignore[no-untyped-def]
        sendable = {row for row in self.states if self._sendable(row, sender)}
        assert self.run(self.store.waiting(sender)) == len(sendable)
        taken: list[Waiting] = self.run(take(self.store, most, sender))
        rows = [(w.key.meter_id, w.stamp) for w in taken]
        assert len(rows) == min(most, len(sendable))
        assert len(set(rows)) == len(rows)
        assert set(rows) <= sendable
        assert [w.value for w in taken] == [self.values[row] for row in rows]
        newest = {m: max(s for n, s in sendable if n == m) for m in {n for n, _ in sendable}}
        first = rows[: len(newest)]
        if len(rows) >= len(newest):
            # Stored last is newest, but for stamps that came late.
            assert {m for m, _ in first} == set(newest)
        rest = [s for _, s in rows[len(newest) :]]
        assert rest == sorted(rest)
        self.flying.update({w.id: row for w, row in zip(taken, rows, strict=True)})
        return multiple(*[(sender, [w]) for w in taken[:1]], (sender, taken))

    @rule(flight=flights, outcome=st.sampled_from(["confirmed", "parked", "kept"]))
    def settle(self, flight: tuple[str, list[Waiting]], outcome: str) -> None:
        sender, taken = flight
        self.slot = f"{outcome}-{self.moment}".encode()
        self.run(self.store.settle(sender, confirmed(taken, outcome, "why"), self.slot))
        self.last_sender = sender
        for waiting in taken:
            row = self.flying.get(waiting.id)
            if row is not None and outcome != "kept":
                self.states[row] = CONFIRMED if outcome == "confirmed" else PARKED
        self._land(sender)

    @rule(sender=st.sampled_from(["sender-0", "sender-1"]))
    def give_up(self, sender: str) -> None:
        self.run(self.store.release_flight(sender))
        self._land(sender)

    @rule(nth=st.integers(0, METERS - 1), park=st.booleans())
    def park_series(self, nth: int, park: bool) -> None:
        sender = f"sender-{nth % 2}"
        key = series(nth).key
        outcome = "park_series" if park else "unpark_series"
        self.slot = outcome.encode()
        self.last_sender = sender
        one = Settlement(key, outcome, (), "403" if park else "")  # type: ignore[arg-type]
        self.run(self.store.settle(sender, [one], self.slot))
        (self.parked.add if park else self.parked.discard)(key.meter_id)
        self._land(sender)

    @rule(nth=st.integers(0, METERS - 1))
    def release(self, nth: int) -> None:
        key = series(nth).key
        count = self.run(self.store.release([key]))
        held = [r for r, state in self.states.items() if r[0] == key.meter_id and state == HELD]
        assert count == len(held)
        self.states.update(dict.fromkeys(held, PENDING))

    @rule(meters=st.sets(st.integers(0, METERS - 1), min_size=1), first=st.integers(0, 40))
    def correct(self, meters: set[int], first: int) -> None:
        """All of some meters since a moment get another value; what flies is passed over."""
        self.value += 1
        wanted, expected = [], []
        for meter, stamp in self.states.keys() - self.deleted:
            if int(meter) - 7000 in meters and stamp >= START + (100 + first) * HOUR:
                row, was = (meter, stamp), self.values[meter, stamp]
                wanted.append(Correction(SeriesKey("", meter), stamp, was, was + self.value))
                if row not in self.flying.values() and self.states[row] != DROPPED:
                    expected.append(row)
        wanted += [Correction(one.key, one.stamp, Decimal(-1), Decimal(-2)) for one in wanted]
        assert self.run(self.store.correct(wanted[: len(wanted) // 2])) == len(expected)
        assert self.run(self.store.correct(wanted[len(wanted) // 2 :])) == 0
        for row in expected:
            self.formers.append((*row, self.values[row], self.clock.at))
            self.values[row] += self.value
            if self.states[row] != HELD:
                self.states[row] = PENDING

    @rule(
        nths=st.sets(st.integers(0, METERS - 1)),
        give_up=st.booleans(),
        back=st.integers(0, 60),
        ahead=st.integers(-5, 5),
    )
    def settle_parked(self, nths: set[int], give_up: bool, back: int, ahead: int) -> None:
        names = [series(nth).key.meter_id if nth % 2 else f"meter-{nth}" for nth in sorted(nths)]
        mine = {f"{7000 + nth}" for nth in nths or range(METERS)}
        rows = [
            row
            for row, state in self.states.items()
            if row[0] in mine
            and row not in self.flying.values()
            and (state == PARKED or (row[0] in self.parked and state in (PENDING, HELD)))
        ]
        if give_up:
            assert self.run(self.store.discard_parked(names)) == len(rows)
            self.states.update(dict.fromkeys(rows, DROPPED))
            return
        before, after = START + (self.moment - back) * HOUR, START + (self.moment + ahead) * HOUR
        never = [row for row in rows if not before <= row[1] <= after]
        count, stay = self.run(self.store.retry_parked(names, within=(before, after)))
        assert (count, sum(stay.values())) == (len(rows) - len(never), len(never))
        for row in set(rows) - set(never):
            self.states[row] = HELD if self.states[row] == HELD else PENDING
        self.parked -= mine

    @rule(nth=st.integers(0, METERS - 1), most=st.integers(1, 5))
    def drop(self, nth: int, most: int) -> None:
        key = series(nth).key
        rows = []

        async def find() -> None:
            async for some in self.store.export(keys=[key]):
                rows.extend(some)

        self.run(find())
        chosen = [(row.key, row.n, row.id) for row in rows[:most]]
        waits = [
            at
            for row in rows[:most]
            if self.states[at := (row.key.meter_id, row.stamp)] in (PENDING, HELD, PARKED)
            and at not in self.flying.values()
        ]
        assert self.run(self.store.drop(chosen)) == len(waits)
        self.states.update(dict.fromkeys(waits, DROPPED))

    @rule(back=st.integers(0, 60), ahead=st.integers(-5, 5))
    def expire(self, back: int, ahead: int) -> None:
        before, after = START + (self.moment - back) * HOUR, START + (self.moment + ahead) * HOUR
        old = [
            row
            for row, state in self.states.items()
            if state in (PENDING, HELD)
            and not before <= row[1] <= after
            and row not in self.flying.values()
        ]
        assert self.run(self.store.expire(before, after)) == len(old)
        self.states.update(dict.fromkeys(old, PARKED))

    @rule(later=st.integers(0, 40))
    def prune(self, later: int) -> None:
        self.clock.at = START + (self.moment + later) * HOUR
        self.run(self.store.prune())
        self.formers = [one for one in self.formers if one[3] >= self.clock.at - KEEP]
        there = {(m, s) for m, s, *_ in self.run(exported(self.store))}
        for row in self.states.keys() - there - self.deleted:
            assert self.states[row] == CONFIRMED
            assert row[1] < self.clock.at - KEEP
            self.deleted.add(row)

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self._open_again(self.folder / str(self.files) / "readings.db")

    @rule()
    def crash(self) -> None:
        old = self.folder / str(self.files)
        self.files += 1
        new = self.folder / str(self.files)
        shutil.copytree(old, new, ignore=shutil.ignore_patterns("*-shm"))
        self.run(self.store.close())
        self._open_again(new / "readings.db")

    # ------------------------------------------------------------------------------- invariants

    @invariant()
    def the_counts_add_up_and_are_those_of_the_model(self) -> None:
        counts = self.run(self.store.counts())
        assert counts.balanced
        assert counts == self.run(self.store.check_counts())
        flying = set(self.flying.values())
        states = [
            "in_flight" if row in flying
            else PARKED if state in (PENDING, HELD) and row[0] in self.parked
            else state
            for row, state in self.states.items()
        ]  # fmt: skip
        # Stamps may be stored again after they were deleted.
        repeats = counts.stored - len(self.states) - self.refused
        assert repeats >= 0
        assert counts.in_flight == len(flying)
        assert counts.pending == states.count(PENDING) + states.count(HELD)
        assert counts.held == states.count(HELD)
        assert counts.parked == states.count(PARKED)
        assert counts.confirmed == states.count(CONFIRMED) + repeats
        assert sum(counts.dropped.values()) == states.count(DROPPED) + self.refused
        assert counts.dropped.get("repeated", 0) == self.refused

    @invariant()
    def meters_go_on_from_the_last_reading_that_was_no_backfill(self) -> None:
        last = {key.meter_id: one for key, one in self.run(self.store.last()).items()}
        for meter, row in self.news.items():
            if row not in self.deleted:
                assert (last[meter].stamp, last[meter].value) == (row[1], self.values[row])
        assert last.keys() <= self.news.keys()

    @invariant()
    def what_was_corrected_is_known(self) -> None:
        keys = [series(nth).key for nth in range(METERS)]
        formers = self.run(self.store.formers(keys))
        found = sorted((f.key.meter_id, f.stamp, f.was, f.at) for f in formers)
        assert found == sorted(self.formers)

    @invariant()
    def every_reading_is_as_it_was_appended(self) -> None:
        rows = {(m, s): v for m, s, v, _ in self.run(exported(self.store))}
        there = {row: v for row, v in self.values.items() if row not in self.deleted}
        assert rows == there

    @precondition(lambda self: self.slot is not None)
    @invariant()
    def the_slot_is_the_one_that_was_settled_with(self) -> None:
        assert self.run(self.store.slot(self.last_sender)) == self.slot

    # ---------------------------------------------------------------------------------- details

    def _sendable(self, row: tuple[str, int], sender: str) -> bool:
        return (
            self.states[row] == PENDING
            and row[0] not in self.parked
            and row not in self.flying.values()
            and f"sender-{(int(row[0]) - 7000) % 2}" == sender
        )

    def _land(self, sender: str) -> None:
        for id, (meter, _) in list(self.flying.items()):
            if f"sender-{(int(meter) - 7000) % 2}" == sender:
                del self.flying[id]

    def _open_again(self, path: Path) -> None:
        self.flying.clear()

        async def read() -> object:
            copy = ReadOnlyStore(path)
            await copy.open()
            counts = await copy.counts()
            await copy.close()
            return counts

        beside = self.run(read())
        self.store = store_at(path, self.clock, keep=KEEP)
        opened = self.run(self.store.open())
        assert opened.set_aside is None
        assert beside == self.run(self.store.counts())


Buffer.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestBuffer = Buffer.TestCase
