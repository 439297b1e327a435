"""Coroutines run by hand, in true time: nothing waits but for an event or an instant.

The tasks of the gateway are the real ones. What they wait for is told to `Steps`, which lets time
jump to the next instant at which one of them has something to do. There is no loop, no thread and
no socket: an hour of a gateway takes less than a millisecond.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, TypeVar

from attrs import define, frozen

from gateway.clock import Clock, Instant, Millis
from gateway.energinet.uploader import Uploader

T = TypeVar("T")

IDLE = 6 * 3600.0
"""Seconds after which a sender looks that has nothing to send, and is not told of more."""


@types.coroutine
def wait(
    events: tuple[asyncio.Event, ...], seconds: float | None
) -> Generator[tuple[tuple[asyncio.Event, ...], float | None], None, None]:
    """Until one of the events, or until the time has passed."""
    yield events, seconds


async def either(event: asyncio.Event, seconds: float | None, clock: Clock) -> None:
    """As `gateway.commits.either`."""
    if not event.is_set():
        await wait((event,), seconds)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    work.close()
    raise AssertionError("it waits")


@define(eq=False)
class _Task:
    work: Coroutine[Any, Any, None]
    events: tuple[asyncio.Event, ...] = ()
    until: int | None = 0

    def ready(self, micros: int) -> bool:
        until = self.until
        if until is not None and until <= micros:
            return True
        for event in self.events:  # noqa: SIM110 - asked millions of times
            if event.is_set():
                return True
        return False


class Steps:
    """True time, and the tasks that are at work in it."""

    def __init__(self, start: Instant) -> None:
        self.micros = start * 1000
        self.tasks: dict[str, _Task] = {}

    @property
    def true(self) -> Instant:
        """What a perfect clock shows."""
        return self.micros // 1000

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Let a task begin at the next turn."""
        self.tasks[name] = _Task(work)

    def drop(self) -> None:
        """All tasks are gone, as they are after a kill."""
        tasks, self.tasks = self.tasks, {}
        for task in tasks.values():
            task.work.close()

    def hurry(self, within: Millis) -> None:
        """Nobody waits for longer than this from now on: who looks now and then, looks."""
        latest = self.micros + within * 1000
        for task in self.tasks.values():
            if task.until is not None:
                task.until = min(task.until, latest)

    def run(self, until: Instant, *, over: Callable[[], bool] = lambda: False) -> None:
        """Let time pass up to a true instant, or until `over`."""
        end = until * 1000
        while not over():
            if self._turn():
                continue
            instants = [task.until for task in self.tasks.values() if task.until is not None]
            at = min(instants, default=end)
            if at > end:
                self.micros = max(self.micros, end)
                return
            self.micros = max(self.micros, at)
            if not instants:
                return

    def _turn(self) -> bool:
        """Let everything go on that need not wait; was there anything?"""
        ready = [one for one in self.tasks.items() if one[1].ready(self.micros)]
        for name, task in ready:
            if self.tasks.get(name) is not task:
                continue
            try:
                task.events, seconds = task.work.send(None)
            except StopIteration:
                del self.tasks[name]
                continue
            after = None if seconds is None else self.micros + max(1, round(seconds * 1e6))
            task.until = after
        return bool(ready)


@frozen
class Stretch:
    """True time in which the wall clock was ahead by the same, and taken to be right or not."""

    since: Instant
    until: Instant
    off: Millis
    believed: bool


class Machine:
    """The clocks of the machine that the gateway runs on."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._boots = 0
        self.off: Millis = 0
        """How far the wall clock is ahead of the truth."""
        self.is_synchronised = True
        self._before: list[Stretch] = []
        self._since = steps.true
        self.boot()

    def set(self, off: Millis, *, synchronised: bool) -> None:
        """Set the wall clock, and say whether it is taken to be right."""
        now = self._steps.true
        was = Stretch(self._since, now, self.off, self.is_synchronised)
        self._before.append(was)
        self._since, self.off, self.is_synchronised = now, off, synchronised

    def stretches(self) -> Iterator[Stretch]:
        """The latest first, which is not over."""
        yield Stretch(self._since, self._steps.true, self.off, self.is_synchronised)
        yield from reversed(self._before)

    @property
    def true(self) -> Instant:
        """What a perfect clock shows."""
        return self._steps.true

    def boot(self) -> None:
        """A new boot begins now."""
        self._boots += 1
        self.boot_id = f"boot-{self._boots}"
        self._booted = self._steps.micros - 5_000_000

    def now(self) -> Instant:
        return self._steps.micros // 1000 + self.off

    def boottime(self) -> Millis:
        return (self._steps.micros - self._booted) // 1000

    def monotonic(self) -> float:
        return (self._steps.micros - self._booted) / 1e6

    def synchronised(self) -> bool:
        return self.is_synchronised

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            await wait((), seconds)

    async def until(self, monotonic: float) -> None:
        await self.sleep(monotonic - self.monotonic())


class SeldomLooking(Uploader):
    """The real one, but where it only waits it does not look every minute whether it still must."""

    async def _pause(self, seconds: float, *, wake: asyncio.Event | None = None) -> None:
        if wake is None:
            await wait((), max(seconds, self._state.wait(self._now()) / 1000))
        elif not wake.is_set():
            resting = self._resting_until > self._clock.monotonic()
            await wait((wake,), seconds if resting else max(seconds, IDLE))
