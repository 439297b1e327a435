"""What is known of a unit: alive or not, how long it takes, and its share of the line. Pure.

A unit that does not answer costs one timeout and is then asked less and less often, by one short
read; so is one of which nothing comes but answers that cannot be trusted. All silent units of a bus
together get a tenth of its time, so that those that answer keep theirs. Instants are monotonic
seconds.
"""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from attrs import define, field, frozen

from gateway.modbus.plan import Question

State: TypeAlias = Literal["unknown", "online", "offline"]

OFFLINE_AFTER: Final = 3
"""Rounds in a row without a value that make a unit offline; one alone may be noise."""
NEVER_SEEN_AFTER: Final = 2
"""The same for a unit that has not answered yet: more likely its address is wrong."""
GARBLED_AFTER: Final = 8
"""So many answers that cannot be trusted, less two for each that can, make a unit as good as silent
until one can: rare where noise damages every second one."""
GARBLED_UNSEEN_AFTER: Final = 3
"""The same for a unit that has not answered yet."""
FIRST_PAUSE: Final = 0.5
"""Seconds before a silent unit is tried again; doubled each time."""
LONGEST_PAUSE: Final = 60.0
LATEST_ANSWER: Final = 30.0
"""Seconds after which no answer comes any more, not from behind a gateway's queue either."""
SHARE_OF_DEAD: Final = 0.1
"""Of a bus's time, for all its silent units together."""
_CREDIT: Final = 5.0  # seconds of probes that a bus may save up while all is well
_MARGIN: Final = 3.0  # a timeout is so many times the slowest answer
_FORGET: Final = 0.98  # the slowest answer fades by this with each quicker one

NOISY: Final = 0.1
"""Share of damaged answers that is worth a line in the log."""
_NOISY_AFTER: Final = 100  # requests
_NOISY_AGAIN: Final = 86_400.0  # seconds; a bad line is bad for weeks
_RECENT: Final = 100  # requests by which a unit's troubles are told
_MOST_PEAKS: Final = 200  # reads of which the slowest answer is known

LONG: Final = 32
"""Bytes of data from which an answer counts as a long one."""


@frozen
class Outcome:
    """How a request ended: the reason of its error, empty where it was answered; and whether the
    answer was to be a long one."""

    reason: str
    long: bool


_outcome = functools.cache(Outcome)  # hundreds of units share a handful of them


@frozen
class UnitReport:
    """A unit as `status` shows it. Times in seconds, instants monotonic."""

    meter: str
    unit: int
    state: State
    since: float
    """Of the last change of state."""
    reason: str
    requests: int
    errors: Mapping[str, int]
    """Reason of the error to how many there were."""
    turnaround: float | None
    timeout: float
    lost: int
    last_answer: float | None
    longest: float
    """The longest timeout that is allowed."""
    recent: tuple[Outcome, ...] = ()
    """Of its last requests, oldest first."""


@define
class Unit:
    """One meter on a bus, as its answers show it."""

    meter: str
    unit: int
    longest: float
    """The longest timeout that is allowed, seconds."""
    shortest: float
    """The shortest that makes sense: below it a busy machine would make timeouts of its own."""
    answer_time: float = 0.0
    """What its document allows it to take; 0: not said."""
    state: State = "unknown"
    since: float = 0.0
    reason: str = ""
    silent: int = 0
    """Requests in a row without an answer, from where it counts as silent."""
    lost: int = 0
    """Rounds in a row that gave nothing."""
    requests: int = 0
    errors: Counter[str] = field(factory=Counter)
    turnaround: float | None = None
    """A usual one, for planning."""
    last_answer: float | None = None
    doubts: dict[Question, float] = field(factory=dict)
    """Requests that were not answered, with when that was: what comes late may fit another
    request of the same shape, so none goes out before one of a shape without doubt was answered."""
    next_try: float = 0.0
    _peak: float = 0.0
    """The slowest answer of late, to whatever."""
    _peaks: dict[Question, float] = field(factory=dict)
    """The slowest to each read that was answered when it was last asked: some blocks take a meter
    far longer than others."""
    _garbled: int = 0
    """Answers that cannot be trusted, less two for each that can."""
    _recent: deque[Outcome] = field(factory=lambda: deque(maxlen=_RECENT))
    _damaged: int = 0
    _counted: int = 0
    _noisy_until: float = 0.0

    @property
    def seen(self) -> bool:
        """Has it ever answered?"""
        return self.last_answer is not None

    def timeout(self, question: Question) -> float:
        """Seconds to wait for the answer: learnt from those that came."""
        if self.silent == 1:
            return self._learnt()
        if self.silent or question not in self._peaks:
            return self.longest
        return self._learnt(self._peaks[question])

    def _learnt(self, peak: float = 0.0) -> float:
        slowest = max(peak, self._peak) if self.seen else self.longest
        return min(self.longest, max(self.shortest, self.answer_time, _MARGIN * slowest))

    def answered(self, question: Question, turnaround: float, now: float) -> None:
        """It answered, be it with an exception."""
        self._count(question, "")
        self.silent = 0
        self._garbled = max(0, self._garbled - 2)
        self.last_answer = now
        if self.turnaround is None:
            self.turnaround = turnaround
        self.turnaround += 0.2 * (turnaround - self.turnaround)
        self._peak = max(turnaround, self._peak * _FORGET)
        self._peaks[question] = max(turnaround, self._peaks.pop(question, 0.0) * _FORGET)
        if len(self._peaks) > _MOST_PEAKS:
            del self._peaks[next(iter(self._peaks))]  # what was not answered for longest
        if self.doubts and question.shape not in self.doubted(now):
            self.doubts.clear()  # units answer in order: nothing older can come

    def fell_silent(self, question: Question, reason: str, now: float) -> None:
        """No answer within the timeout, or none says the gateway before it."""
        self.failed(question, reason)
        self._peaks.pop(question, None)  # perhaps it only takes longer now: waited for
        self._back_off(now)

    def garbled(self, question: Question, reason: str, now: float) -> None:
        """An answer that cannot be trusted."""
        self.failed(question, reason)
        self._damaged += 1
        self._garbled = min(self._garbled + 1, GARBLED_AFTER)
        if self.silent or self._garbled >= (GARBLED_AFTER if self.seen else GARBLED_UNSEEN_AFTER):
            self._back_off(now)

    def failed(self, question: Question, reason: str) -> None:
        """An error; of itself it does not mean that the unit is silent."""
        self._count(question, reason)
        self.errors[reason] += 1
        self.reason = reason

    def _back_off(self, now: float) -> None:
        self.silent += 1
        pause = FIRST_PAUSE * 2.0 ** min(self.silent - 1, 10)
        self.next_try = now + min(pause, LONGEST_PAUSE)

    def _count(self, question: Question, reason: str) -> None:
        self.requests += 1
        self._counted += 1
        self._recent.append(_outcome(reason, question.data_bytes >= LONG))

    def doubted(self, now: float) -> set[tuple[int, int]]:
        """The shapes of which a late answer may still come."""
        self.doubts = {
            question: at for question, at in self.doubts.items() if now - at < LATEST_ANSWER
        }
        return {question.shape for question in self.doubts}

    def doubtful(self, question: Question, now: float) -> bool:
        """Could the late answer to another request be taken for the answer to this one?"""
        if not self.doubts:
            return False
        self.doubted(now)
        return any(other.shape == question.shape and other != question for other in self.doubts)

    def worth_another(self, waited: float) -> bool:
        """Is one more try in the same round worth it? Requests get lost too: a unit that answered
        up to now gets a second one, if both together take no longer than one timeout.
        """
        return self.state == "online" and self.silent == 1 and 2 * waited <= self.longest

    def due(self, now: float, *, urgent: bool) -> bool:
        """May it be asked now, if there is time for a silent one?"""
        return not self.silent or urgent or now >= self.next_try

    def noise(self, now: float) -> tuple[int, int] | None:
        """Damaged answers and requests since the last word on it, if there is one to say now."""
        if self._counted < _NOISY_AFTER:
            return None
        damaged, counted = self._damaged, self._counted
        self._damaged = self._counted = 0
        if damaged <= NOISY * counted or now < self._noisy_until:
            return None
        self._noisy_until = now + _NOISY_AGAIN
        return damaged, counted

    @property
    def waited_for(self) -> float:
        """Seconds that it is waited for next."""
        return self.longest if self.silent > 1 else self._learnt()

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
            self.waited_for,
            self.lost,
            self.last_answer,
            self.longest,
            tuple(self._recent),
        )


@define
class Budget:
    """The time that a bus may spend on units that do not answer, from `_at` on."""

    _at: float
    share: float = SHARE_OF_DEAD
    _credit: float = 0.0

    def allows(self, cost: float, now: float) -> bool:
        """Is there room for a probe of that length?"""
        self._credit = min(_CREDIT, self._credit + (now - self._at) * self.share)
        self._at = now
        return self._credit >= cost

    def spend(self, seconds: float) -> None:
        """A probe took that long."""
        self._credit -= seconds

    def refill(self) -> None:
        """The line itself was at fault, and is mended: whoever is back is to be found soon."""
        self._credit = _CREDIT
