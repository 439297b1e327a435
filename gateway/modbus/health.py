"""What is known of a unit: alive or not, how long it takes, and its share of the line. Pure.

A unit that does not answer costs one timeout and is then asked less and less often, by one short
read. All silent units of a bus together get a tenth of its time. Instants are monotonic seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from attrs import define, field, frozen

State: TypeAlias = Literal["unknown", "online", "offline"]

OFFLINE_AFTER: Final = 3
"""Silent requests in a row that make a unit offline; one alone may be noise."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0
SHARE_OF_DEAD: Final = 0.1
_CREDIT: Final = 5.0  # seconds of probes that a bus may save up
_SHORTEST: Final = 0.1  # seconds; below, a busy machine would make timeouts of its own
_MARGIN: Final = 3.0
_FORGET: Final = 0.98


@frozen
class UnitReport:
    """A unit as `status` shows it. Times in seconds."""

    meter: str
    unit: int
    state: State
    since: float
    """Monotonic instant of the last change of state."""
    reason: str
    requests: int
    errors: Mapping[str, int]
    turnaround: float | None
    timeout: float
    lost: int


@define
class Unit:
    """One meter on a bus."""

    meter: str
    unit: int
    longest_timeout: float
    answer_time: float = 0.0
    """What its document allows it to take; 0: not said."""
    state: State = "unknown"
    since: float = 0.0
    reason: str = ""
    silent: int = 0
    """Requests in a row without an answer."""
    lost: int = 0
    """Asks in a row that gave nothing."""
    requests: int = 0
    errors: Counter[str] = field(factory=Counter)
    turnaround: float | None = None
    peak: float | None = None
    stale: tuple[int, int] | None = None
    """Shape of a request that timed out: a late answer to it may still come, so no request of
    that shape goes out before one of another shape was answered."""
    next_try: float = 0.0

    @property
    def timeout(self) -> float:
        """Seconds to wait for an answer: learnt from those that came, at most what is set."""
        if self.peak is None or self.silent:
            return self.longest_timeout
        return min(self.longest_timeout, max(_SHORTEST, self.answer_time, _MARGIN * self.peak))

    def answered(self, turnaround: float) -> None:
        """It answered, be it with an exception."""
        self.requests += 1
        self.silent = 0
        self.turnaround = turnaround
        self.peak = max(turnaround, (self.peak or 0.0) * _FORGET)

    def failed(self, reason: str, now: float) -> None:
        """No answer, or none to be trusted."""
        self.requests += 1
        self.errors[reason] += 1
        self.reason = reason
        if reason == "timeout":
            self.silent += 1
            pause = FIRST_PAUSE * 2.0 ** min(self.silent - 1, 10)
            self.next_try = now + min(pause, LONGEST_PAUSE)

    @property
    def suspect(self) -> bool:
        """Has to be probed before it is asked for all it has."""
        return self.silent > 0

    def due(self, now: float, *, urgent: bool) -> bool:
        """May it be asked now? At a boundary a unit that was silent only lately is tried early."""
        if not self.silent:
            return True
        return now >= self.next_try or (urgent and self.silent < OFFLINE_AFTER)

    def report(self) -> UnitReport:
        """For `status`."""
        return UnitReport(
            self.meter,
            self.unit,
            self.state,
            self.since,
            self.reason,
            self.requests,
            dict(self.errors),
            self.turnaround,
            self.timeout,
            self.lost,
        )


@define
class Budget:
    """The time that a bus may spend on units that do not answer."""

    share: float = SHARE_OF_DEAD
    _credit: float = _CREDIT
    _at: float | None = None

    def allows(self, cost: float, now: float) -> bool:
        """Is there room for a probe of that length?"""
        if self._at is not None:
            self._credit = min(_CREDIT, self._credit + (now - self._at) * self.share)
        self._at = now
        return self._credit >= cost

    def spend(self, seconds: float) -> None:
        """A probe took that long."""
        self._credit -= seconds
