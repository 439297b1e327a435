"""When things happen: APScheduler, and only here.

One job says all that is due, to functions that return at once: a job for each of hundreds of buses
that are polled together would take APScheduler a tenth of the whole time. What comes next is asked
of pure functions, always after now: APScheduler's own interval trigger would build millions of
fire times after a step of the clock forward, and run nothing for an hour after a step back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]
from apscheduler.triggers.base import BaseTrigger  # type: ignore[import-untyped]
from attrs import define

from gateway.clock import MINUTE, STEP, Clock, Instant, Millis
from gateway.commits import log_failure
from gateway.logbook import log

LOOK_EVERY: Final = 2.0
"""Seconds between two looks at the clock."""

PATIENCE: Final[Millis] = MINUTE
"""A clock that is not synchronised so long after the start is worth a line."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@define(eq=False)
class Entry:
    """Something that is due now and then: when, and who is told."""

    name: str
    next: Callable[[Instant], Instant]
    due: Callable[[Instant], None]
    at: Instant | None = None
    """When it is due next; None: not planned yet."""

    def say(self, at: Instant) -> None:
        try:
            self.due(at)
        except Exception as error:  # the border: others are due as well
            log_failure(f"due {self.name}", error)


class Timetable(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Fires at the earliest instant of all entries, each strictly after now and its last one."""

    __slots__ = ("_due", "entries")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._due: list[tuple[Entry, Instant]] = []

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        after = _instant(now)
        if previous_fire_time is not None:
            after = max(after, _instant(previous_fire_time))
        for entry in self.entries.values():
            if entry.at is None:
                entry.at = entry.next(after)
            elif previous_fire_time is not None and entry.at <= after:
                self._due.append((entry, entry.at))
                entry.at = entry.next(after)
        earliest = min(entry.at for entry in self.entries.values() if entry.at is not None)
        return _EPOCH + timedelta(milliseconds=earliest)

    def plan_anew(self) -> None:
        """Whatever was planned no longer holds."""
        for entry in self.entries.values():
            entry.at = None

    async def fire(self) -> None:
        """Say what is due. A coroutine, since APScheduler runs anything else in a thread."""
        due, self._due = self._due, []
        for entry, at in due:
            entry.say(at)


def _instant(at: datetime) -> Instant:
    return (at - _EPOCH) // timedelta(milliseconds=1)


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
        self._timetable = Timetable()
        self._scheduler: AsyncIOScheduler | None = None
        self._watch: _Watch | None = None

    def every(
        self, name: str, next: Callable[[Instant], Instant], due: Callable[[Instant], None]
    ) -> None:
        """Call `due` with each instant of `next`. `due` returns at once. Names are unique."""
        if name in self._timetable.entries:
            raise ValueError(f"{name} is in the schedule already")
        self._timetable.entries[name] = Entry(name, next, due)
        self._set_timer()

    async def run(self) -> None:
        """Keep time until cancelled."""
        # Its lines would stand beside ours; a job here can only fail in ways that are logged.
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL + 1)
        scheduler = self._scheduler = AsyncIOScheduler(timezone=UTC)
        scheduler.start()
        self._set_timer()
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
            if watch.synchronised and not synchronised:
                watch.synchronised, watch.since, watch.said = False, self._clock.boottime(), False
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
        self._timetable.plan_anew()
        self._set_timer()
        self._say_all()

    def _say_all(self) -> None:
        now = self._clock.now()
        for entry in self._timetable.entries.values():
            entry.say(now)

    def _set_timer(self) -> None:
        if self._scheduler is not None and self._timetable.entries:
            self._scheduler.add_job(
                self._timetable.fire,
                self._timetable,
                id="due",
                replace_existing=True,
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
            )
