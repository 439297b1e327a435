"""What can be asked of the buffer, by the service and by commands beside it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from gateway.buffer import correcting, events, parking, schema, settling, views
from gateway.buffer.appending import Declared, look_as
from gateway.buffer.correcting import Era, Former
from gateway.buffer.index import Index, load
from gateway.buffer.outbox import Offering
from gateway.buffer.parking import ParkedRow
from gateway.buffer.views import ExportRow, GapLine, ParkedLine
from gateway.clock import Instant
from gateway.errors import StoreUnavailable
from gateway.logbook import Entry
from gateway.metering.reading import (
    Counts,
    KeptSample,
    Offer,
    Reading,
    Sample,
    Series,
    SeriesKey,
    Waiting,
)

T = TypeVar("T")

EXPORT_ROWS = 1_000
"""Rows that an export hands over at a time."""


class Reads:
    """The methods that only read; Store and ReadOnlyStore share them."""

    async def _call(self, work: Callable[[sqlite3.Connection, Index], T]) -> T:
        raise NotImplementedError

    async def _more(self, work: Callable[[], T]) -> T:
        """Go on with what a call began."""
        raise NotImplementedError

    async def counts(self) -> Counts:
        """P6, from totals that are kept."""
        return await self._call(lambda _, index: index.counts())

    async def check_counts(self) -> Counts:
        """P6, with what waits counted anew from the rows."""
        return await self._call(views.check_counts)

    async def last(self) -> Mapping[SeriesKey, Reading]:
        """The reading of each series that was stored last."""
        return await self._call(views.last)

    async def states(self) -> Mapping[str, bytes]:
        """The saved states of the meters, by name."""
        return await self._call(lambda connection, _: views.states(connection))

    async def samples(self, meter: str | None = None) -> Sequence[tuple[int, KeptSample]]:
        """Kept samples that may still be needed, with their ids, oldest first."""
        return await self._call(lambda connection, index: views.samples(connection, index, meter))

    async def waiting(self, sender: str) -> int:
        """How many values of a sender could be sent now."""
        return await self._call(lambda _, index: views.waiting(index, sender))

    async def series(self, sender: str) -> Mapping[SeriesKey, Series]:
        """What a sender sends, configured or not any more."""
        return await self._call(
            lambda _, index: {line.series.key: line.series for line in index.of_sender(sender)}
        )

    async def senders(self) -> Mapping[str, int]:
        """How much is pending of each sender, configured or not any more."""
        return await self._call(lambda _, index: views.pending_of_senders(index))

    async def pending_by_sender(self) -> Mapping[str, tuple[int, Instant | None]]:
        """Of each sender: pending values, and the oldest stamp that may be sent."""
        return await self._call(views.pending_by_sender)

    async def parked(self) -> Sequence[ParkedLine]:
        """What is parked, by series and reason."""
        return await self._call(lambda _, index: views.parked(index))

    async def parked_rows(self) -> Sequence[ParkedRow]:
        """Each value that is parked and there."""
        return await self._call(lambda db, index: parking.parked_rows(db, index, index.blocks))

    async def parked_series(self, sender: str) -> frozenset[SeriesKey]:
        """Series of a sender that are parked as a whole."""
        return await self._call(
            lambda _, index: frozenset(
                line.series.key for line in index.of_sender(sender) if line.parked
            )
        )

    async def gaps(self, since: Instant = 0) -> Sequence[GapLine]:
        """The ledger of missing values."""
        return await self._call(lambda connection, index: views.gaps(connection, index, since))

    async def events(self, most: int, levels: Collection[str]) -> Sequence[Entry]:
        """What the log said last at these levels, newest last."""
        return await self._call(lambda connection, _: events.newest(connection, most, levels))

    async def slot(self, sender: str) -> bytes | None:
        """What a sender's slot was last saved as; None: it never asked.

        Empty, and not None, where it may have asked all the same: what it sent was confirmed, but
        damage took its slot; or there is a slot of a sender with nothing to send any more, of
        which this may be another name.
        """

        def read(connection: sqlite3.Connection, index: Index) -> bytes | None:
            slots = settling.slots(connection)
            if sender in slots:
                return slots[sender][1]
            asked = any(state[:1] == "c" for x in index.of_sender(sender) for state in x.totals)
            at_work = {line.series.sender for line in index.lines.values() if line.listed}
            return b"" if asked or slots.keys() - at_work else None

        return await self._call(read)

    async def slots(self) -> Mapping[str, bytes]:
        """What each slot was last saved as, by sender; of senders not configured any more too."""
        return await self._call(
            lambda connection, _: {
                sender: state for sender, (_, state) in settling.slots(connection).items()
            }
        )

    async def export(
        self,
        *,
        meter_id: str | None = None,
        meter: str | None = None,
        keys: Collection[SeriesKey] | None = None,
        since: Instant | None = None,
        until: Instant | None = None,
    ) -> AsyncIterator[list[ExportRow]]:
        """Stored readings from `since` to before `until`, newest last, some at a time."""

        def begin(connection: sqlite3.Connection, index: Index) -> Iterator[ExportRow]:
            lines = {
                line.id: line
                for line in index.lines.values()
                if meter_id in (None, line.series.key.meter_id)
                and meter in (None, line.series.meter)
                and (keys is None or line.series.key in keys)
            }
            return views.export(connection, index, lines, since, until)

        async for rows in self._some_at_a_time(begin):
            yield rows

    async def last_before(
        self, keys: Collection[SeriesKey], before: Instant
    ) -> Mapping[SeriesKey, Sequence[ExportRow]]:
        """Of each series the last readings before an instant, from the last that has words on."""
        return await self._call(lambda db, index: views.last_before(db, index, keys, before))

    async def samples_between(
        self, meter: str, first: Instant, last: Instant
    ) -> AsyncIterator[list[Sample]]:
        """Kept samples of a meter, oldest first, some at a time."""

        def begin(connection: sqlite3.Connection, index: Index) -> Iterator[Sample]:
            return views.samples_between(connection, index, meter, first, last)

        async for some in self._some_at_a_time(begin):
            yield some

    async def _some_at_a_time(
        self, begin: Callable[[sqlite3.Connection, Index], Iterator[T]]
    ) -> AsyncIterator[list[T]]:
        rows = await self._call(begin)
        while True:
            some = await self._more(lambda: list(islice(rows, EXPORT_ROWS)))
            if not some:
                return
            yield some

    async def eras(self) -> Mapping[SeriesKey, Sequence[Era]]:
        """What each series was in the course of time, the present last."""
        return await self._call(correcting.eras)

    async def formers(self, keys: Collection[SeriesKey]) -> Sequence[Former]:
        """What was corrected of these series."""
        return await self._call(lambda db, index: correcting.formers(db, index, frozenset(keys)))


class ReadOnlyStore(Reads):
    """The buffer as a command sees it, whether a service runs or not. Nothing is in flight here.

    The index is read anew at each call, so that every answer is of one moment.
    """

    def __init__(self, path: Path, declared: Declared | None = None) -> None:
        """`declared`: look as if these were declared; None: as they last were."""
        self._path = path
        self._declared = declared
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="buffer-ro")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Raises NotPermitted, StoreUnavailable (there is none), StoreNewer, StoreDamaged."""
        await self._run(self._open)

    async def close(self) -> None:
        """Let go of the file."""
        await self._run(self._close)
        self._thread.shutdown(wait=True)

    async def collect(
        self,
        sender: str,
        offer: Callable[[Waiting], Offer],
        *,
        only: frozenset[SeriesKey] | None = None,
        probes: frozenset[SeriesKey] = frozenset(),
        within: tuple[Instant, Instant] | None = None,
    ) -> None:
        """Offer what the sender would be offered; nothing is taken out."""
        await self._call(
            lambda connection, index: Offering(
                connection, index, sender, only=only, probes=probes, within=within
            ).run(offer)
        )

    async def _call(self, work: Callable[[sqlite3.Connection, Index], T]) -> T:
        return await self._more(lambda: work(self._db, self._load()))

    def _load(self) -> Index:
        index = load(self._db)
        if self._declared is not None:
            look_as(index, self._declared)
        return index

    async def _more(self, work: Callable[[], T]) -> T:
        def at_one_moment() -> T:
            connection = self._db
            with schema.border(self._path):
                connection.execute("BEGIN")
                try:
                    return work()
                finally:
                    connection.execute("ROLLBACK")

        return await self._run(at_one_moment)

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreUnavailable(f"{self._path} is not open")
        return self._connection

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> None:
        with schema.border(self._path):
            with self._path.open("rb"):
                pass  # says more than SQLite would: not found, not permitted
            connection = schema.connect_read_only(self._path)
            try:
                schema.identify(connection, self._path)
            except BaseException:
                connection.close()
                raise
            self._connection = connection

    def _close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()
