"""Wires in virtual time: a meter that does as it is told, and one whose answers come late."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from gateway.errors import BadAnswer, DeviceException, LinkDown, MeterTimeout
from gateway.metering.inquiry import Inquiry, Told
from gateway.metering.reading import Block
from gateway.modbus.line import Overheard
from gateway.modbus.plan import Question, Read
from tests.clocks import FakeClock

Q = TypeVar("Q", Read, Inquiry)
T = TypeVar("T", Block, Told)
NOON = 1_700_000_000_000

Behaviour: TypeAlias = Callable[[int, Read], Block | Exception | None]
"""From unit and read to the answer; None: silence."""
Telling: TypeAlias = Callable[[int, Inquiry], Told | Exception | None]


class QuickClock(FakeClock):
    """Virtual time of one task: whoever sleeps lets it pass."""

    def __init__(self, now: int = NOON) -> None:
        super().__init__(now)

    async def sleep(self, seconds: float) -> None:
        self._micros += round(max(seconds, 0) * 1e6)


def truth(read: Read) -> Block:
    """What a sound meter answers: each register holds its own address."""
    return Block(read.function, read.address, tuple(range(read.address, read.end)))


def mute(unit: int, inquiry: Inquiry) -> Exception:
    """What a meter answers that tells nothing of itself."""
    return DeviceException("riser", unit, str(inquiry), 1)


class ToldWire:
    """Every request is answered by `behave`, a round trip later, or not at all."""

    def __init__(self, clock: QuickClock, behave: Behaviour = lambda unit, read: truth(read)):
        self.behave = behave
        self.tell: Telling = mute
        self.clock = clock
        self.busy = 0.0
        self.turnaround = 0.02
        self.overheard: list[Overheard] = []
        self.asked: list[tuple[float, int, Question, float]] = []
        """When, unit, read or inquiry, timeout."""
        self.down = False
        self.opened = 0
        self.hung_up = False
        self._open = False

    @property
    def is_open(self) -> bool:
        return self._open

    async def open(self) -> None:
        if self.down:
            raise LinkDown("riser", "no such port")
        self.opened += 1
        self._open = True

    async def close(self) -> None:
        self._open = False

    @property
    def reads(self) -> list[Read]:
        return [read for _, _, read, _ in self.asked if isinstance(read, Read)]

    @property
    def inquiries(self) -> list[Inquiry]:
        return [inquiry for _, _, inquiry, _ in self.asked if isinstance(inquiry, Inquiry)]

    async def read(self, unit: int, read: Read, *, timeout: float, pause: float = 0.0) -> Block:
        return await self._answered(unit, read, timeout, self.behave)

    async def identify(
        self, unit: int, inquiry: Inquiry, *, timeout: float, pause: float = 0.0
    ) -> Told:
        return await self._answered(unit, inquiry, timeout, self.tell)

    async def _answered(
        self,
        unit: int,
        question: Q,
        timeout: float,
        behave: Callable[[int, Q], T | Exception | None],
    ) -> T:
        if self.down or not self._open:
            self._open = False
            raise LinkDown("riser", "not open")
        self.asked.append((self.clock.monotonic(), unit, question, timeout))
        if self.hung_up:
            self.hung_up = self._open = False
            raise LinkDown("riser", "the connection was lost")
        answer = behave(unit, question)
        # Behind what is damaged the right answer may yet come.
        in_vain = answer is None or isinstance(answer, BadAnswer)
        took = timeout if in_vain else self.turnaround
        await self.clock.sleep(took)
        self.busy += took
        if answer is None:
            raise MeterTimeout("riser", unit, str(question), "no answer")
        if isinstance(answer, Exception):
            raise answer
        return answer


class LateWire(ToldWire):
    """A line on which one meter answers each request in turn, at times long after it was asked.

    As on a real line nothing but function and length tells an answer's request: whatever arrives
    first and fits is taken. `late` draws the seconds; None: the request was lost.
    """

    def __init__(self, clock: QuickClock, late: Callable[[], float | None]) -> None:
        super().__init__(clock)
        self._late = late
        self._coming: list[tuple[float, Read]] = []
        self.longest = 1.0
        """Seconds that a wait and the quiet after it take at most."""
        self._quiet_for = 0.0

    async def read(self, unit: int, read: Read, *, timeout: float, pause: float = 0.0) -> Block:
        clock = self.clock
        await self._drain()
        now = clock.monotonic()
        self._coming = [(at, one) for at, one in self._coming if at > now]
        self.asked.append((now, unit, read, timeout))
        if (late := self._late()) is not None:
            last = self._coming[-1][0] if self._coming else now
            self._coming.append((max(now + late, last), read))
        while self._coming and self._coming[0][0] <= now + timeout:
            at, answered = self._coming.pop(0)
            await clock.sleep(max(0.0, at - clock.monotonic()))
            if answered.shape == read.shape:
                self.turnaround = at - now
                return Block(read.function, read.address, truth(answered).words)
            self._quiet_for = min(timeout, self.longest - timeout)
            raise BadAnswer("riser", unit, str(read), "of another length", reason="length")
        await clock.sleep(now + timeout - clock.monotonic())
        self._quiet_for = min(timeout, self.longest - timeout)
        raise MeterTimeout("riser", unit, str(read), "no answer")

    async def _drain(self) -> None:
        """As the bus does before it asks another unit: until nothing has come for so long as was
        waited, or for three times that, both together at most the longest wait; what comes
        meanwhile is forgotten."""
        end = self.clock.monotonic() + 3 * self._quiet_for
        while self._quiet_for and (now := self.clock.monotonic()) < end:
            if not self._coming or self._coming[0][0] > now + self._quiet_for:
                await self.clock.sleep(self._quiet_for)
                break
            at, _ = self._coming.pop(0)
            await self.clock.sleep(at - now)
        self._quiet_for = 0.0


def seldom(seed: int, share: float, longest: float) -> Callable[[], float | None]:
    """Quick answers; a share of them up to `longest` late, or lost."""
    draw = random.Random(seed)

    def late() -> float | None:
        if draw.random() >= share:
            return 0.02
        return None if draw.random() < 0.2 else draw.uniform(0.02, longest)

    return late
