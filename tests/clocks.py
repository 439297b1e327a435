"""A clock that stands still until a test lets time pass."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from gateway.clock import Instant, Millis

IDLE_TURNS = 3
"""The loop is taken to be idle when it had nothing to run so often."""


class FakeClock:
    """Virtual time for one event loop. Wall and boot time may drift apart: `step`."""

    def __init__(
        self, now: Instant, *, boottime: Millis = 1_000_000, synchronised: bool = True
    ) -> None:
        self.boot_id = "boot-1"
        self.is_synchronised = synchronised
        self._wall = now - boottime
        self._micros = boottime * 1000
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> Instant:
        return self._wall + self._micros // 1000

    def boottime(self) -> Millis:
        return self._micros // 1000

    def monotonic(self) -> float:
        return self._micros / 1e6

    def synchronised(self) -> bool:
        return self.is_synchronised

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        at = self._micros + max(1, round(seconds * 1e6))  # a wait that takes no time would not end
        heapq.heappush(self._sleepers, (at, next(self._order), woken))
        await woken

    def step(self, by: Millis) -> None:
        """Set the wall clock by this much."""
        self._wall += by

    async def settle(self) -> None:
        """Let everything run that needs no time. Does not wait for threads or sockets."""
        ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
        idle = 0
        while idle < IDLE_TURNS:
            await asyncio.sleep(0)
            idle = 0 if ready else idle + 1

    async def pass_(self, seconds: float) -> None:
        """Let time pass, waking each sleeper at its instant."""
        end = self._micros + round(seconds * 1e6)
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, woken = heapq.heappop(self._sleepers)
            if woken.done():  # whoever slept was cancelled
                continue
            self._micros = max(self._micros, at)
            woken.set_result(None)
            await self.settle()
        self._micros = max(self._micros, end)
        await self.settle()

    async def pass_until(self, at: Instant) -> None:
        """Let time pass up to a wall time."""
        await self.pass_(max(0, at - self.now()) / 1000)
