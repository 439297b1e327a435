"""One commit for all that comes due together, and an hour of memory for when the disk is full."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from attrs import define, evolve, field

from gateway.buffer.appending import Appended
from gateway.clock import HOUR, Clock, Instant, Millis, utc
from gateway.errors import StoreError, StoreFull
from gateway.logbook import log
from gateway.metering.meter import Outcome
from gateway.metering.reading import Commit, Gap, KeptSample, Reading, SeriesKey

GATHERED_FOR: Final = 2.0
"""Seconds that a commit waits at most for the buses that are still in a round."""

RETRY: Final = 5.0
"""Seconds between two tries while the buffer takes nothing."""

KEPT_IN_MEMORY: Final[Millis] = HOUR
MOST_IN_MEMORY: Final = 100_000
"""Readings, gaps and samples."""


class Appending(Protocol):
    """What commits go to."""

    async def append(self, commit: Commit) -> Appended:
        """Durable on return. Raises StoreError; nothing was stored then."""


async def either(event: asyncio.Event, seconds: float | None, clock: Clock) -> None:
    """Wait for the event, or until the time has passed."""
    if event.is_set() or seconds is None:  # as nearly always: no task is made for it
        await event.wait()
        return
    waits = [
        asyncio.create_task(_until(event)),
        asyncio.create_task(_elapsed(max(seconds, 0.0), clock)),
    ]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def _elapsed(seconds: float, clock: Clock) -> None:
    await clock.sleep(seconds)


def log_failure(task: str, error: Exception) -> None:
    """One line for an error that nobody expected, at the border of a unit of work."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    log("task.failed", task=task, error=repr(error), where=f"{frame.filename}:{frame.lineno}")


@define
class _Bundle:
    """What is gathered for one commit, and since when (time since boot)."""

    since: Millis
    readings: list[Reading] = field(factory=list)
    gaps: list[Gap] = field(factory=list)
    samples: list[KeptSample] = field(factory=list)
    states: dict[str, bytes] = field(factory=dict)
    restamped: dict[int, Instant] = field(factory=dict)

    def commit(self) -> Commit:
        return Commit(
            tuple(self.readings),
            tuple(self.gaps),
            tuple(self.samples),
            self.states,
            self.restamped,
        )

    def __len__(self) -> int:
        return len(self.readings) + len(self.gaps) + len(self.samples)

    def parts(self) -> list[_Bundle]:
        """Smaller ones, that what is unsound in it takes nothing else with it. A single reading
        becomes a gap; a single one of anything else leaves nothing.
        """
        since, readings = self.since, self.readings
        beside = [
            _Bundle(since, gaps=self.gaps),
            _Bundle(since, samples=self.samples),
            _Bundle(since, states=self.states, restamped=self.restamped),
        ]
        middle = (len(readings) + 1) // 2
        halves = [_Bundle(since, readings[:middle]), _Bundle(since, readings[middle:])]
        found = [part for part in (*halves, *beside) if part.commit()]
        if len(found) > 1:
            return found
        return [_Bundle(since, gaps=[Gap(r.key, r.stamp, "unsound")]) for r in readings]


class Committer:
    """Brings what all buses found together to the buffer; keeps an hour of it when it cannot.

    `stored` is called after each durable commit that holds readings.
    """

    def __init__(
        self,
        shelf: Appending,
        clock: Clock,
        path: str,
        stored: Callable[[Commit], None] = lambda commit: None,
    ) -> None:
        self._shelf = shelf
        self._clock = clock
        self._path = path
        self._stored = stored
        self._gathered: _Bundle | None = None
        self._waiting: deque[_Bundle] = deque()
        self._rounds = 0
        self._news = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._writing = asyncio.Lock()
        self._failing_since: Millis | None = None
        self._lost = 0
        self._oldest_lost: Instant | None = None
        self._lost_said: Millis | None = None

    @contextlib.contextmanager
    def round(self) -> Iterator[None]:
        """While a round is under way a commit waits for what it brings."""
        self._rounds += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._rounds -= 1
            if not self._rounds:
                self._quiet.set()

    def add(
        self,
        meter: str,
        outcome: Outcome,
        *,
        samples: Sequence[KeptSample] = (),
        restamped: Mapping[int, Instant] | None = None,
    ) -> None:
        """Gather what a step of a meter brought; samples without sure time come beside it."""
        something = outcome.readings or outcome.gaps or outcome.samples or outcome.state
        if not (something or samples or restamped):
            return
        bundle = self._gathered
        if bundle is None:
            bundle = self._gathered = _Bundle(self._clock.boottime())
        bundle.readings += outcome.readings
        bundle.gaps += outcome.gaps
        bundle.samples += (*outcome.samples, *samples)
        bundle.restamped |= restamped or {}
        if outcome.state is not None:
            bundle.states[meter] = outcome.state
        self._news.set()

    async def run(self) -> None:
        """Commit whenever there is something. Ends when it is cancelled."""
        while True:
            await either(self._news, RETRY if self._waiting else None, self._clock)
            self._news.clear()
            await either(self._quiet, GATHERED_FOR, self._clock)
            try:
                await self.flush()
            except Exception as error:  # the border of a commit
                log_failure("commit", error)

    @property
    def failing(self) -> bool:
        """Does the buffer take nothing now?"""
        return self._failing_since is not None

    def give_up(self, reason: str) -> None:
        """The process ends: what the buffer did not take is lost, and said so."""
        bundles = [*self._waiting, *([self._gathered] if self._gathered else [])]
        stamps = [reading.stamp for bundle in bundles for reading in bundle.readings]
        self._waiting.clear()
        self._gathered = None
        if stamps:
            log("buffer.dropped", reason=reason, count=len(stamps), oldest=utc(min(stamps)))

    async def flush(self) -> bool:
        """Commit what there is now; False where the buffer did not take all of it."""
        async with self._writing:
            if self._gathered is not None:
                self._waiting.append(self._gathered)
                self._gathered = None
                if self._failing_since is not None:
                    self._keep_within_bounds()
            written = 0
            while self._waiting:
                bundle = self._waiting[0]
                try:
                    appended = await self._shelf.append(commit := bundle.commit())
                except StoreError as error:
                    self._failed(error)
                    return False
                except Exception as error:  # the border of a commit: what is unsound is left
                    self._waiting.popleft()
                    parts = bundle.parts()
                    if len(parts) < 2:
                        log_failure("commit", error)
                    self._waiting.extendleft(reversed(parts))
                    continue
                self._waiting.popleft()
                written += appended.stored
                if appended.repeated:
                    _say_repeated(appended.repeated)
                if commit.readings:
                    self._stored(commit)
            self._recovered(written)
            return True

    def _failed(self, error: StoreError) -> None:
        if self._failing_since is not None:
            return
        self._failing_since = self._clock.boottime()
        kept = sum(len(bundle.readings) for bundle in self._waiting)
        if isinstance(error, StoreFull):
            log("buffer.full", path=self._path, kept_in_memory=kept)
        else:
            log("buffer.unavailable", path=self._path, error=error, kept_in_memory=kept)

    def _recovered(self, written: int) -> None:
        if self._failing_since is None:
            return
        lasted = f"{(self._clock.boottime() - self._failing_since) // 1000}s"
        log("buffer.recovered", path=self._path, written=written, **{"for": lasted})
        self._failing_since = None
        self._say_lost()

    def _keep_within_bounds(self) -> None:
        """Give up the oldest: its readings become gaps, in one run a series."""
        limit = self._clock.boottime() - KEPT_IN_MEMORY
        total = sum(map(len, self._waiting))
        while len(self._waiting) > 1 and (total > MOST_IN_MEMORY or self._waiting[0].since < limit):
            oldest = self._waiting.popleft()
            total -= len(oldest)
            following = self._waiting[0]
            for reading in oldest.readings:
                self._lost += 1
                self._oldest_lost = min(self._oldest_lost or reading.stamp, reading.stamp)
            lost = [Gap(r.key, r.stamp, "buffer_full") for r in oldest.readings]
            following.gaps = _merged([*oldest.gaps, *lost, *following.gaps])
            following.states = oldest.states | following.states
            following.restamped = oldest.restamped | following.restamped
        now = self._clock.boottime()
        if self._lost and (self._lost_said is None or now - self._lost_said >= HOUR):
            self._lost_said = now
            self._say_lost()

    def _say_lost(self) -> None:
        if self._oldest_lost is None:
            return
        oldest = utc(self._oldest_lost)
        log("buffer.dropped", reason="memory", count=self._lost, oldest=oldest)
        self._lost, self._oldest_lost = 0, None


def _say_repeated(readings: Sequence[Reading]) -> None:
    stamps = [reading.stamp for reading in readings]
    log(
        "buffer.repeated",
        count=len(stamps), meterIDs=len({reading.key for reading in readings}),
        oldest=utc(min(stamps)), newest=utc(max(stamps)),
    )  # fmt: skip


def _merged(gaps: Sequence[Gap]) -> list[Gap]:
    """Runs of gaps of one series and reason joined, in the order in which they began."""
    found: list[Gap] = []
    last: dict[SeriesKey, int] = {}
    for gap in sorted(gaps, key=lambda gap: gap.stamp):
        at = last.get(gap.key)
        if at is not None and found[at].reason == gap.reason:
            count = found[at].count + gap.count
            found[at] = evolve(found[at], last=gap.last or gap.stamp, count=count)
        else:
            last[gap.key] = len(found)
            found.append(gap)
    return found
