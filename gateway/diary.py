"""What the log says goes into the buffer too, where it outlives a reboot."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from gateway.clock import Clock, Millis
from gateway.commits import either, log_failure
from gateway.errors import StoreError
from gateway.logbook import LOGGER, Entry, content

EVERY: Final = 15.0
"""Seconds between two looks: what was said meanwhile goes in one commit."""
AT_ONCE: Final = logging.ERROR
"""From this level on it does not wait: the power may be gone the next moment."""
_REST: Final = 1.0
"""Seconds between two commits at least."""
MOST_WAITING: Final = 500
"""Entries that wait in memory while the buffer takes nothing; the newest."""
_NOT_KEPT: Final = ("gateway.summary",)


class Keeping(Protocol):
    """Where entries are kept."""

    async def note(self, entries: Sequence[Entry]) -> None:
        """Durable on return. Raises StoreError; nothing was kept then."""


class Diary(logging.Handler):
    """Gathers what is logged, and has it kept: state changes, warnings and errors."""

    def __init__(self, shelf: Keeping, clock: Clock) -> None:
        super().__init__(logging.INFO)
        self._shelf = shelf
        self._clock = clock
        self._waiting: deque[tuple[Millis, logging.LogRecord]] = deque(maxlen=MOST_WAITING)
        self._urgent = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where `run` waits."""

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """While it listens."""
        LOGGER.addHandler(self)
        try:
            yield
        finally:
            LOGGER.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line; called with the lock of handlers held."""
        if getattr(record, "event", "") not in _NOT_KEPT:
            self._waiting.append((self._clock.boottime(), record))
            if record.levelno >= AT_ONCE and self._loop is not None:
                self._loop.call_soon_threadsafe(self._urgent.set)

    async def run(self) -> None:
        """Until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                await either(self._urgent, EVERY, self._clock)
                self._urgent.clear()
                await self.write()
                await self._clock.sleep(_REST)
        finally:
            self._loop = None

    async def write(self) -> None:
        """Have kept what waits; where the buffer takes nothing, later."""
        with self._alone():
            taken = list(self._waiting)
            self._waiting.clear()
        if not taken:
            return
        noting = asyncio.ensure_future(self._shelf.note(self._entries(taken)))
        try:
            await asyncio.shield(noting)
        except asyncio.CancelledError:  # the process ends: what was taken is kept before that
            with contextlib.suppress(StoreError):
                await noting
            raise
        except StoreError:
            with self._alone():
                self._waiting = deque([*taken, *self._waiting], MOST_WAITING)
        except Exception as error:  # the border of a commit
            log_failure("diary", error)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody logs meanwhile: any thread may."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _entries(self, taken: Sequence[tuple[Millis, logging.LogRecord]]) -> list[Entry]:
        sure, booted = self._clock.synchronised(), self._clock.now() - self._clock.boottime()
        return [
            Entry(booted + boottime, sure, record.levelname.lower(), *content(record))
            for boottime, record in taken
        ]
