"""The state of a bus's port or connection: opened when needed, after a failure with a back-off."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from typing import Final, Literal, Protocol

from attrs import frozen

from gateway.clock import Clock
from gateway.errors import LinkDown
from gateway.logbook import log
from gateway.metering.inquiry import Inquiry, Told
from gateway.metering.reading import Block
from gateway.modbus.plan import Read
from gateway.modbus.settings import BusSettings, SerialLink

FIRST_PAUSE: Final = 1.0
"""Seconds before a link that failed is tried again; doubled each time."""
LONGEST_PAUSE: Final = 60.0
LONGEST_OF_A_PORT: Final = 4.0
"""A port of this machine costs nothing to try, and an adapter is to be found again within 5 s."""
_RECENT: Final = 3600.0  # seconds for which what was overheard tells something, and of the load
_MARK: Final = 60.0  # seconds between two looks at how busy the wire was


@frozen
class Overheard:
    """A sound frame that nobody waited for, with when (monotonic) and of which unit.

    late: an answer after its timeout. foreign: what another master asks, or is answered. echo: our
    own request, and nothing after it.
    """

    at: float
    kind: Literal["late", "foreign", "echo"]
    unit: int


class Wire(Protocol):
    """What is asked over; a `Bus`."""

    busy: float
    turnaround: float

    @property
    def overheard(self) -> Iterable[Overheard]:
        """The last frames that nobody waited for."""

    @property
    def is_open(self) -> bool:
        """Is there a port or connection to ask over?"""

    async def open(self) -> None:
        """Open it; nothing if it is open. Raises LinkDown."""

    async def close(self) -> None:
        """Close it."""

    async def read(self, unit: int, read: Read, *, timeout: float, pause: float = 0.0) -> Block:
        """Ask once. Raises LinkDown and what a meter may answer."""

    async def identify(
        self, unit: int, inquiry: Inquiry, *, timeout: float, pause: float = 0.0
    ) -> Told:
        """Ask for what it tells of itself. Raises the same."""


@frozen
class LinkReport:
    """A bus as `status` shows it."""

    bus: str
    link: str
    """The port's path, or host and port."""
    up: bool
    since: float
    """Monotonic instant of the last change."""
    error: str
    busy: float
    """Its load: share of the last hour in which requests, and the silences that they need, were
    under way."""
    on_a_line: bool
    """A serial line, not a connection."""
    overheard: tuple[Overheard, ...] = ()
    """In the last hour."""


class Line:
    """The wire of one bus, kept open. Changes of its state are logged once."""

    def __init__(
        self, settings: BusSettings, wire: Wire, clock: Clock, random: random.Random
    ) -> None:
        self.wire = wire
        self.outages = 0
        """How often it was lost: what was learnt over it may be of another device now."""
        self._settings = settings
        self._clock = clock
        self._random = random
        self._since = clock.monotonic()
        self._marks = deque([(self._since, wire.busy)])
        """How long the wire had been busy, and when: from an hour ago on."""
        self._up: bool | None = None
        self._error = ""
        self._answers = 0
        self._next_try = 0.0
        self._pause = FIRST_PAUSE

    @property
    def up(self) -> bool:
        """Has the last request over it come through, answered or not?"""
        return bool(self._up)

    async def ready(self, *, at_once: bool = False) -> bool:
        """Open the link unless it is open, or was lost a moment ago (`at_once`: even then)."""
        self._mark()
        if self.wire.is_open:
            return True
        if self._clock.monotonic() < self._next_try and not at_once:
            return False
        try:
            await self._open()
        except LinkDown as error:
            self.lost(error)
            return False
        return True

    def _mark(self) -> None:
        now, marks = self._clock.monotonic(), self._marks
        if now >= marks[-1][0] + _MARK:
            marks.append((now, self.wire.busy))
            while marks[1][0] <= now - _RECENT:
                marks.popleft()

    async def renewed(self) -> bool:
        """Did a link that had answered before, and was closed by the other end, open again?

        Devices close connections that were idle for a while, or after each answer.
        """
        if not self._answers:
            return False
        try:
            await self._open()
        except LinkDown:
            return False
        return True

    async def _open(self) -> None:
        self._answers = 0
        await self.wire.open()

    def heard(self) -> None:
        """An answer came."""
        self._answers += 1
        self.works()

    def works(self) -> None:
        """A request went out, whatever its unit did. A link that opens but breaks at the first
        request is not up: that way its back-off grows, and the log stays short.
        """
        if self._up:
            return
        now = self._clock.monotonic()
        down = None if self._up is None else f"{now - self._since:.0f}s"
        log("bus.up", bus=self._settings.name, link=self._settings.link.address, **{"for": down})
        self._up, self._since, self._error = True, now, ""
        self._pause = FIRST_PAUSE

    def lost(self, error: LinkDown) -> None:
        """The link cannot be used: it is tried again after a pause."""
        now = self._clock.monotonic()
        self.broken(str(error))
        self._next_try = now + self._pause * self._random.uniform(0.8, 1.2)
        on_a_line = isinstance(self._settings.link, SerialLink)
        longest = LONGEST_OF_A_PORT if on_a_line else LONGEST_PAUSE
        self._pause = min(2 * self._pause, longest)

    def broken(self, why: str) -> None:
        """It cannot be used, or leads nowhere."""
        self._error = why
        if self._up is not False:
            self.outages += 1
            self._up, self._since = False, self._clock.monotonic()
            log("bus.down", bus=self._settings.name, link=self._settings.link.address, error=why)

    def down_for(self) -> float | None:
        """Seconds until a link that is down is worth another try; None where it is not down."""
        if self._up is not False:
            return None
        return max(FIRST_PAUSE, self._next_try - self._clock.monotonic())

    def report(self) -> LinkReport:
        """For `status`."""
        self._mark()
        at, busy = self._marks[0]
        share = min(1.0, (self.wire.busy - busy) / max(self._clock.monotonic() - at, 1e-9))
        name, link = self._settings.name, self._settings.link.address
        on_a_line = isinstance(self._settings.link, SerialLink)
        latest = self._clock.monotonic() - _RECENT
        overheard = tuple(one for one in self.wire.overheard if one.at >= latest)
        return LinkReport(
            name, link, self.up, self._since, self._error, share, on_a_line, overheard
        )
