"""The buffer: readings go in by commits, out by confirmations, and are counted at every moment.

One thread and one connection do all the work; every public method hands it over and waits.
What was appended is on the device when `append` returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from attrs import define, evolve, frozen

from gateway.buffer import (
    correcting,
    events,
    files,
    parking,
    pruning,
    salvage,
    schema,
    settling,
    views,
)
from gateway.buffer.appending import Appended, Declared, append, declare
from gateway.buffer.index import Change, Index, load
from gateway.buffer.outbox import Offering
from gateway.buffer.parking import ParkedRow
from gateway.buffer.reads import Reads
from gateway.buffer.settings import BufferSettings
from gateway.clock import Clock, Instant
from gateway.errors import StoreDamaged, StoreFull, StoreUnavailable
from gateway.logbook import Entry, log
from gateway.metering.reading import (
    Commit,
    Correction,
    Counts,
    Offer,
    Reading,
    Series,
    SeriesKey,
    Settlement,
    Waiting,
)

T = TypeVar("T")


@frozen
class Opened:
    """What was found at opening."""

    new: bool
    """There was no file: this is the first start, or it was deleted."""
    pending: int
    set_aside: Path | None = None
    """Where the damaged file is now."""
    saved: int = 0
    lost: int = 0
    slots_lost: bool = False
    """A file was lost with the slots of its senders: wait a whole interval before a request."""


MOST_CHECKED: Final = 256
"""Blocks that are counted anew at a time, about a million readings."""
_GROUP: Final = 8
"""Blocks that are read before others have their turn: a second on a slow card."""


def _in_groups(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for at in range(0, len(numbers), _GROUP):
        yield numbers[at : at + _GROUP]


@define
class _Broken:
    """A file that was found damaged or gone, and how far mending it has come."""

    index: Index
    connection: sqlite3.Connection | None
    found: salvage.Found | None = None


class Store(Reads):
    """The buffer as the service has it. The caller holds the instance lock."""

    def __init__(self, settings: BufferSettings, clock: Clock) -> None:
        self._path = Path(settings.path)
        self._settings = settings
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="buffer")
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] = (0, 0)
        self._index = Index()
        self._no_room_at: int | None = None
        """How many were confirmed when the file had no room to give on a full disk."""
        self._checked = -1
        """The block up to which the last count went."""
        self._broken: _Broken | None = None

    @property
    def size(self) -> int:
        """Bytes of the file and its WAL."""
        total = 0
        for suffix in ("", "-wal"):
            with contextlib.suppress(OSError):
                total += files.beside(self._path, suffix).stat().st_size
        return total

    # ------------------------------------------------------------------------- opening, closing

    async def open(self) -> Opened:
        """Open, create, migrate or salvage; raises NotPermitted, StoreNewer, StoreUnavailable,
        StoreFull."""
        return await self._run(self._open_with_room)

    async def close(self) -> None:
        """Bring the WAL over and close."""
        await self._run(self._close)
        self._thread.shutdown(wait=True)

    def _open_with_room(self) -> Opened:
        try:
            return self._open()
        except StoreFull:  # the WAL and its index need some; the ballast is for that too
            if not files.free_ballast(self._path):
                raise
            return self._open()

    def _open(self) -> Opened:
        path = self._path
        with schema.border(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            found = salvage.prepare(path, self._clock.now())
            self._connect()
            files.lay_ballast(path)
        system = files.file_system(path)
        if system in files.VOLATILE:
            log("buffer.volatile", path=path, filesystem=system)
        if found.set_aside or found.deleted:
            log(
                "buffer.set_aside",
                path=path, aside=found.set_aside or "deleted", saved=found.saved, lost=found.lost,
            )  # fmt: skip
        pending = self._index.counts().pending
        log("buffer.opened", path=path, bytes=self.size, pending=pending)
        return Opened(
            found.new, pending, found.set_aside, found.saved, found.lost,
            slots_lost=found.slots_lost,
        )  # fmt: skip

    def _connect(self) -> None:
        connection = schema.connect(self._path)
        try:
            self._index = load(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        status = os.stat(self._path)
        self._file = (status.st_dev, status.st_ino)

    def _close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.ExitStack() as last:
                with contextlib.suppress(sqlite3.Error):
                    checkpoint = "TRUNCATE"
                    if not files.lay_ballast(self._path):
                        # Nobody could give the next start the room of the WAL again: a reader that
                        # closes last leaves it where it is.
                        checkpoint = "PASSIVE"
                        reader = schema.connect_read_only(self._path)
                        last.callback(reader.close)
                    # A reader does not hold up a stop.
                    connection.execute("PRAGMA busy_timeout = 500")
                    connection.execute(f"PRAGMA wal_checkpoint({checkpoint})")
                connection.close()

    # ---------------------------------------------------------------------------------- storing

    async def declare(
        self, series: Sequence[Series], heir: Callable[[Series], str] | None = None
    ) -> None:
        """Make these the series of the configuration; what waits of others is sent by `heir`, or by
        the sender that it has."""
        declared = Declared(series) if heir is None else Declared(series, heir)
        await self._run(self._declare, declared)

    async def append(self, commit: Commit, *, past: bool = False) -> Appended:
        """Store all of it, or nothing. Raises StoreFull, StoreUnavailable, StoreDamaged.

        A stamp that its series has already is not stored again; the answer tells which. Raises
        ValueError for a series that was not declared, a stamp of broken seconds or no number.
        `past`: the readings are no news, and meters do not go on from them.
        """
        return await self._run(self._append, commit, past)

    async def correct(self, corrections: Sequence[Correction]) -> int:
        """Give stored readings another value, so that they are sent again; how many.

        In one transaction. Those in flight, or of another value than they are taken to have, are
        passed over.
        """
        return await self._run(self._correct, corrections)

    async def drop(self, readings: Sequence[tuple[SeriesKey, int, int]]) -> int:
        """Drop as `corrected` what waits of these readings (key, number, row id); how many."""
        return await self._run(self._drop, readings)

    async def park_timeless(self, readings: Sequence[Reading], samples: Sequence[int]) -> None:
        """Store readings whose boot never had the time, parked as `no_time`, in place of the
        samples with these ids; all of it, or nothing. They are no news. Raises as `append`."""
        await self._run(self._park_timeless, Commit(tuple(readings)), samples)

    async def release(self, keys: Iterable[SeriesKey]) -> int:
        """Let held readings of these series be sent; how many."""
        return await self._run(self._release, list(keys))

    async def parked_rows(self) -> Sequence[ParkedRow]:
        """Each value that is parked and there; others come in between."""
        found: list[ParkedRow] = []
        for some in _in_groups(await self._call(lambda _, index: sorted(index.blocks))):
            found += await self._call(partial(parking.parked_rows, numbers=some))
        return found

    async def retry_parked(
        self, names: Collection[str], reason: str = "", *, within: tuple[Instant, Instant]
    ) -> tuple[int, Mapping[str, int]]:
        """Let what is parked of these meters or meterIDs (none: of all) for this reason (empty: for
        any) be sent again; how many, and what cannot be sent, by reason. Raises KeyError.

        `within`: the first and the last stamp that may be sent.
        """
        rows = await self.parked_rows()
        return await self._run(self._retry_parked, rows, names, reason, within)

    async def discard_parked(self, names: Collection[str], reason: str = "") -> int:
        """Drop it as `discarded`; how many. Raises KeyError."""
        rows = await self.parked_rows()
        return await self._run(self._discard_parked, rows, names, reason)

    async def prune(self, *, by_age: bool = True) -> None:
        """Delete what was confirmed longer than `keep` ago, and keep within `max_size`.

        Some blocks at a time: whoever wants to store or send meanwhile comes in between.
        `by_age`: not where the clock may be wrong by a year, which must not empty the buffer.
        """
        if by_age:
            limit = (self._clock.now() - self._settings.keep) // 1000
            for some in _in_groups(await self._call(lambda _, index: sorted(index.blocks))):
                await self._run(self._prune_blocks, limit, some)
            await self._run(self._prune_beside, limit)
        await self._run(self._tidy)

    async def check_counts(self) -> Counts:
        """P6, with what waits counted anew: the newest rows, and in turn as many of the others as
        an hour allows. A few blocks at a time, as in `prune`."""
        numbers = await self._call(lambda _, index: sorted(index.blocks))
        after = [number for number in numbers[:-1] if number > self._checked]
        turn = [*numbers[-1:], *after, *(n for n in numbers[:-1] if n <= self._checked)]
        more = 0
        for some in _in_groups(turn[:MOST_CHECKED]):
            more += await self._call(lambda db, index, some=some: views.miscounted(db, index, some))  # type: ignore[misc]
        self._checked = turn[:MOST_CHECKED][-1] if len(turn) > MOST_CHECKED else -1
        counts = await self.counts()
        return evolve(counts, pending=counts.pending + more)

    async def note(self, entries: Sequence[Entry]) -> None:
        """Keep what the log said. Raises StoreError; nothing was kept then."""
        await self._run(self._note, entries)

    # ---------------------------------------------------------------------------------- sending

    async def expire(self, before: Instant, after: Instant = 1 << 62) -> int:
        """Park what waits with a stamp before the one as `too_old`, and after the other as
        `in_future`; how many."""
        return await self._run(self._expire, before, after)

    async def collect(
        self,
        sender: str,
        offer: Callable[[Waiting], Offer],
        *,
        only: frozenset[SeriesKey] | None = None,
        probes: frozenset[SeriesKey] = frozenset(),
        within: tuple[Instant, Instant] | None = None,
    ) -> None:
        """Offer what a sender may send: the newest of each series, then the oldest first.

        `offer` is called in the buffer's thread. What it takes is in flight until `settle` or
        `release_flight`. `only`: no other series. `probes`: parked series that give one value.
        `within`: nothing but stamps from the one to the other, all of them, the oldest first.
        """
        await self._run(self._collect, sender, offer, only, probes, within, set())

    async def settle(self, sender: str, settlements: Sequence[Settlement], slot: bytes) -> None:
        """Write what became of a request, and the sender's slot, in one transaction.

        What is in flight and not confirmed or parked waits again. Ids not in flight are ignored.
        """
        await self._run(self._settle, sender, settlements, slot)

    async def release_flight(self, sender: str) -> None:
        """Let all that a sender has in flight wait again."""
        await self._run(self._release_flight, sender)

    async def keep_slot(self, sender: str, state: bytes) -> None:
        """Save a sender's slot; durable on return."""
        await self._run(self._keep_slot, sender, state)

    # ------------------------------------------------------------------------- in the own thread

    async def _call(self, work: Callable[[sqlite3.Connection, Index], T]) -> T:
        return await self._run(lambda: work(self._db, self._index))

    async def _more(self, work: Callable[[], T]) -> T:
        return await self._run(work)

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(self._safely, work, *arguments))

    def _safely(self, work: Callable[..., T], *arguments: object) -> T:
        """Do it; where the file turns out to be damaged or gone, salvage it and do it again."""
        with schema.border(self._path):
            if self._broken is not None:  # what did not work before may work now
                self._mend()
            try:
                if self._connection is not None and not self._in_place():
                    raise StoreDamaged(f"{self._path} was deleted or replaced")
                return work(*arguments)
            except schema.SUSPECT as error:
                if self._connection is None or not schema.is_damage(error, self._path):
                    raise
            self._mend()
            return work(*arguments)

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreUnavailable(f"{self._path} is not open")
        return self._connection

    def _in_place(self) -> bool:
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return False
        return self._file == (status.st_dev, status.st_ino)

    def _mend(self) -> None:
        """Set the file aside and go on with what is sound; what is in flight stays so.

        Where that fails, for want of room say, it is tried again at the next call.
        """
        broken = self._broken or _Broken(self._index, self._connection)
        self._broken, self._connection = broken, None
        now = self._clock.now()
        if broken.connection is not None and self._in_place():
            broken.connection.close()
            broken.connection = None
        if broken.found is None:
            if broken.connection is None:
                broken.found = salvage.rebuild(self._path, now, known=broken.index)
            else:
                broken.found = salvage.bring_back(broken.connection, self._path, now)
                broken.connection.close()
        self._connect()
        salvage.resume_flights(self._db, self._index, broken.index.flight)
        self._broken = None
        found = broken.found
        log(
            "buffer.set_aside",
            path=self._path, aside=found.set_aside or "deleted", saved=found.saved, lost=found.lost,
        )  # fmt: skip

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._db
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    def _change(self, change: Change, *, slot: tuple[str, bytes] | None = None) -> None:
        """Commit a change."""
        if not change and slot is None:
            return
        self._with_room(lambda: self._commit_change(change, slot))
        change.apply()

    def _with_room(self, work: Callable[[], T]) -> T:
        """Do it; on a full disk the ballast makes room for it, or a WAL that is begun anew."""
        try:
            return work()
        except sqlite3.Error as error:
            if not self._is_full(error):
                raise
            if not files.free_ballast(self._path) and not self._begin_wal_anew():
                raise
        return work()

    def _begin_wal_anew(self) -> bool:
        """Once all of it is in the database, the next commit is written over its beginning."""
        busy, pages, moved = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return not busy and 0 < pages == moved

    def _commit_change(self, change: Change, slot: tuple[str, bytes] | None) -> None:
        with self._transaction() as connection:
            change.write(connection)
            if slot is not None:
                settling.write_slot(connection, *slot)

    def _declare(self, declared: Declared) -> None:
        self._with_room(lambda: declare(self._index, declared, self._transaction))

    def _correct(self, corrections: Sequence[Correction]) -> int:
        def work() -> int:
            now = self._clock.now()
            return correcting.correct(self._db, self._index, corrections, now, self._transaction)

        return self._with_room(work)

    def _drop(self, readings: Sequence[tuple[SeriesKey, int, int]]) -> int:
        change, count = correcting.drop(self._index, readings)
        self._change(change)
        return count

    def _append(self, commit: Commit, past: bool) -> Appended:
        pruning.make_room(self._db, self._index, self._settings.max_size, self._transaction)
        short = schema.free_bytes(self._path) < files.BALLAST_BYTES
        if short and not files.lay_ballast(self._path) and not self._has_room_inside():
            # What the ballast gave is for confirming and deleting, not for more readings.
            raise StoreFull(f"{self._path}: the disk is full", hint="free room on the disk")
        try:
            return append(self._index, commit, self._transaction, past=past)
        except sqlite3.Error as error:
            if not self._is_full(error) or not self._has_room_inside():
                raise
        files.free_ballast(self._path)  # the WAL needs some
        return append(self._index, commit, self._transaction, past=past)

    def _note(self, entries: Sequence[Entry]) -> None:
        with self._transaction() as connection:
            events.write(connection, entries)

    def _has_room_inside(self) -> bool:
        """On a full disk history gives way to what was not sent yet."""
        confirmed = self._index.counts().confirmed
        if confirmed == self._no_room_at:
            return False  # nothing was confirmed since it was looked for in vain
        for ballast in (True, False):
            try:
                found = pruning.make_room_inside(self._db, self._index, self._transaction)
                self._no_room_at = None if found else confirmed
                return found
            except sqlite3.Error as error:
                freed = ballast and self._is_full(error) and files.free_ballast(self._path)
                if not freed:
                    raise
        return False

    def _is_full(self, error: sqlite3.Error) -> bool:
        return isinstance(schema.translated(error, self._path), StoreFull)

    def _park_timeless(self, commit: Commit, samples: Sequence[int]) -> None:
        @contextlib.contextmanager
        def without_samples() -> Iterator[sqlite3.Connection]:
            with self._transaction() as connection:
                ids = [(id,) for id in samples]
                connection.executemany("DELETE FROM samples WHERE id = ?", ids)
                yield connection

        append(self._index, commit, without_samples, past=True)

    def _release(self, keys: Sequence[SeriesKey]) -> int:
        change, count = settling.release(self._index, keys)
        self._change(change)
        return count

    def _retry_parked(
        self,
        rows: Sequence[ParkedRow],
        names: Collection[str],
        reason: str,
        within: tuple[Instant, Instant],
    ) -> tuple[int, Mapping[str, int]]:
        keys = parking.chosen(self._index, names)
        rows = parking.still(self._index, rows, keys, reason)
        change, count, stay = parking.let_go(self._index, rows, keys, reason, within)
        self._change(change)
        return count, dict(stay)

    def _discard_parked(
        self, rows: Sequence[ParkedRow], names: Collection[str], reason: str
    ) -> int:
        keys = parking.chosen(self._index, names)
        rows = parking.still(self._index, rows, keys, reason)
        change, count = parking.give_up(self._index, rows, keys, reason)
        self._change(change)
        return count

    def _prune_blocks(self, limit: int, numbers: Sequence[int]) -> None:
        pruning.prune(self._db, self._index, limit, numbers, self._transaction)

    def _prune_beside(self, limit: int) -> None:
        pruning.prune_beside(self._db, self._index, limit, self._transaction)

    def _tidy(self) -> None:
        if gone := settling.forget_learnt(self._db, self._index):
            with self._transaction() as connection:
                connection.executemany("DELETE FROM states WHERE id = ?", [(id,) for id in gone])
        pruning.make_room(self._db, self._index, self._settings.max_size, self._transaction)
        files.lay_ballast(self._path)

    def _expire(self, before: Instant, after: Instant) -> int:
        change, count = settling.expire(self._db, self._index, -(-before // 1000), after // 1000)
        self._change(change)
        return count

    def _collect(
        self,
        sender: str,
        offer: Callable[[Waiting], Offer],
        only: frozenset[SeriesKey] | None,
        probes: frozenset[SeriesKey],
        within: tuple[Instant, Instant] | None,
        offered: set[int],
    ) -> None:
        offering = Offering(
            self._db, self._index, sender,
            only=only, probes=probes, within=within, offered=offered,
        )  # fmt: skip
        try:
            offering.run(offer)
        except schema.SUSPECT as error:
            # After a salvage it goes on from here: the sender has what it took.
            if schema.is_damage(error, self._path):
                self._take_off(sender, offering)
            raise
        self._take_off(sender, offering)

    def _take_off(self, sender: str, offering: Offering) -> None:
        for id, tagged in offering.taken.items():
            self._index.take_off(id, sender, tagged, id)

    def _settle(self, sender: str, settlements: Sequence[Settlement], slot: bytes) -> None:
        self._change(settling.settle(self._index, sender, settlements), slot=(sender, slot))
        self._release_flight(sender)

    def _release_flight(self, sender: str) -> None:
        flights = self._index.flight.items()
        for id in [id for id, flight in flights if flight.sender == sender]:
            self._index.land(id)

    def _keep_slot(self, sender: str, state: bytes) -> None:
        self._change(Change(self._index), slot=(sender, state))
