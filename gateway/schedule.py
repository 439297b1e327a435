"""When things happen: APScheduler, and only here.

Jobs only say that something is due, to a function that returns at once. What comes next is asked
of a pure function, always after now: APScheduler's own interval trigger would build millions of
fire times after a step of the clock forward, and run nothing for an hour after a step back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]
from apscheduler.triggers.base import BaseTrigger  # type: ignore[import-untyped]
from attrs import define, frozen

from gateway.clock import MINUTE, SECOND, Clock, Instant, Millis
from gateway.commits import log_failure
from gateway.logbook import log

LOOK_EVERY: Final = 2.0
"""Seconds between two looks at the clock."""

STEP: Final[Millis] = SECOND
"""More than this between two looks is a step; less is a clock that is slewed or drifts."""

PATIENCE: Final[Millis] = MINUTE
"""A clock that is not synchronised so long after the start is worth a line."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Boundary(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Fires at the instants of a pure function, each strictly after now and the one before."""

    __slots__ = ("_next", "fired")

    def __init__(self, next: Callable[[Instant], Instant]) -> None:
        self._next = next
        self.fired: Instant = 0
        """The instant of the last firing."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        after = _instant(now)
        if previous_fire_time is not None:
            self.fired = _instant(previous_fire_time)
            after = max(after, self.fired)
        return _EPOCH + timedelta(milliseconds=self._next(after))


def _instant(at: datetime) -> Instant:
    return (at - _EPOCH) // timedelta(milliseconds=1)


@frozen
class _Entry:
    name: str
    trigger: Boundary
    due: Callable[[Instant], None]

    def say(self, at: Instant) -> None:
        try:
            self.due(at)
        except Exception as error:  # the border: others are due as well
            log_failure(f"due {self.name}", error)

    async def fire(self) -> None:
        """A coroutine, since APScheduler runs anything else in a thread."""
        self.say(self.trigger.fired)


@define
class _Watch:
    """What the last look at the clock showed."""

    drift: Millis
    synchronised: bool
    since: Millis
    said: bool = False


class Schedule:
    """Says when something is due, by the wall clock, and plans anew when that was set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._scheduler: AsyncIOScheduler | None = None
        self._watch: _Watch | None = None

    def every(
        self, name: str, next: Callable[[Instant], Instant], due: Callable[[Instant], None]
    ) -> None:
        """Call `due` with each instant of `next`. `due` returns at once. Names are unique."""
        if name in self._entries:
            raise ValueError(f"{name} is in the schedule already")
        entry = self._entries[name] = _Entry(name, Boundary(next), due)
        if self._scheduler is not None:
            self._add(self._scheduler, entry)

    async def run(self) -> None:
        """Keep time until cancelled."""
        # Its lines would stand beside ours; a job here can only fail in ways that are logged.
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL + 1)
        scheduler = self._scheduler = AsyncIOScheduler(timezone=UTC)
        scheduler.start()
        for entry in self._entries.values():
            self._add(scheduler, entry)
        try:
            while True:
                self.look()
                await self._clock.sleep(LOOK_EVERY)
        finally:
            self._scheduler = None
            scheduler.shutdown(wait=False)

    def look(self) -> None:
        """Notice a step of the wall clock, and that it is right from now on."""
        drift = self._clock.now() - self._clock.boottime()
        synchronised = self._clock.synchronised()
        watch = self._watch
        if watch is None:
            self._watch = _Watch(drift, synchronised, self._clock.boottime())
            return
        by, watch.drift = drift - watch.drift, drift
        if abs(by) > STEP:
            log("clock.stepped", by=f"{by / 1000:+.1f}s")
            self._plan_anew()
        if watch.synchronised:
            return
        waited = self._clock.boottime() - watch.since
        if synchronised:
            watch.synchronised = True
            log("clock.synchronised", after=f"{waited // 1000}s")
            self._say_all()
        elif waited >= PATIENCE and not watch.said:
            watch.said = True
            log("clock.unsynchronised", **{"for": f"{waited // 1000}s"})

    def _plan_anew(self) -> None:
        if self._scheduler is not None:
            for entry in self._entries.values():
                self._scheduler.reschedule_job(entry.name, trigger=entry.trigger)
        self._say_all()

    def _say_all(self) -> None:
        now = self._clock.now()
        for entry in self._entries.values():
            entry.say(now)

    @staticmethod
    def _add(scheduler: AsyncIOScheduler, entry: _Entry) -> None:
        scheduler.add_job(
            entry.fire,
            entry.trigger,
            id=entry.name,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
