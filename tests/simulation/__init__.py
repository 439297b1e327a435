"""The whole gateway in virtual time: its real classes, real sockets and SQLite, days in seconds.

The loop's time stands still while a socket has something to say or a thread is at work; else it
jumps to the next timer. So pymodbus, httpx, APScheduler and the gateway all see the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import pytest

from gateway.app import Gateway
from gateway.clock import DAY, HOUR, MINUTE, SECOND, Instant, Millis
from gateway.config import Library, load
from gateway.energinet.standin import StandIn
from gateway.logbook import LOGGER
from gateway.modbus.served import SimulatedEndpoint
from gateway.modbus.simulator import Fault, SimulatedMeter

T = TypeVar("T")

HANGS = 30.0
"""Real seconds after which a thread that works, or a loop without a timer, is taken to hang."""
TURN_MICROS = 1
"""What a turn of the loop takes."""
LOOKS = 2
"""How often nothing has to be there to be read before time jumps: loopback takes no time."""


class _Selector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.micros = 1_000_000_000
        self.at_work = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.micros += TURN_MICROS
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.at_work or timeout is None:
            if not (ready := super().select(HANGS)):
                raise RuntimeError("nothing happens any more")
            return ready
        for _ in range(LOOKS):
            if ready := super().select(0):
                return ready
        self.micros += math.ceil(timeout * 1e6)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time jumps from timer to timer."""

    def __init__(self) -> None:
        self.virtual = _Selector()
        super().__init__(self.virtual)

    def time(self) -> float:
        return self.virtual.micros / 1e6

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = super().run_in_executor(executor, func, *args)
        self.virtual.at_work += 1

        def done(_: object) -> None:
            self.virtual.at_work -= 1

        future.add_done_callback(done)
        return future


class VirtualClock:
    """The gateway's clock on such a loop. `true` is what a perfect clock shows."""

    def __init__(self, start: Instant, *, synchronised: bool = True) -> None:
        self.boot_id = "boot-1"
        self.is_synchronised = synchronised
        self.off: Millis = 0
        """How far the wall clock is wrong."""
        self._loop = asyncio.get_running_loop()
        self._booted = 0
        self._epoch = start - self.boottime()

    def reboot(self) -> None:
        """The machine starts anew, after its program has ended."""
        self._booted += self.boottime()
        self.boot_id = f"boot-{int(self.boot_id[5:]) + 1}"

    def true(self) -> Instant:
        return self._epoch + self._booted + self.boottime()

    def now(self) -> Instant:
        return self.true() + self.off

    def boottime(self) -> Millis:
        return int(self.monotonic() * 1000) - self._booted

    def monotonic(self) -> float:
        return self._loop.time()

    def synchronised(self) -> bool:
        return self.is_synchronised

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def until(self, monotonic: float) -> None:
        await asyncio.sleep(monotonic - self.monotonic())

    async def at(self, true: Instant) -> None:
        """Wait for a true instant."""
        await asyncio.sleep((true - self.true()) / 1000)


class Log(logging.Handler):
    """What was logged, with the true time."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(logging.INFO)
        self._clock = clock
        self.lines: list[tuple[Instant, str, Mapping[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", record.getMessage())
        self.lines.append((self._clock.true(), event, getattr(record, "fields", {})))

    def events(self, *but: str) -> list[str]:
        """The names in their order, without these."""
        return [event for _, event, _ in self.lines if event not in but]

    def of(self, event: str) -> list[Mapping[str, Any]]:
        """The fields of each line of an event."""
        return [fields for _, name, fields in self.lines if name == event]


class World:
    """A site: meters on TCP buses, a stand-in for Energinet, and the gateway between them."""

    def __init__(self, folder: Path, start: Instant, zone: str = "Europe/Oslo") -> None:
        self.folder = folder
        self.clock = VirtualClock(start)
        self.zone = zone
        self.log = Log(self.clock)
        self.meters: dict[str, SimulatedMeter] = {}
        self.endpoints: dict[str, SimulatedEndpoint] = {}
        self.standin = StandIn({"token": "basement"}, zone=zone, now=self.clock.true)
        self.url = ""
        self._entries: list[str] = []
        self._buses: list[str] = []
        self.gateway: Gateway

    async def bus(
        self,
        name: str,
        meters: Mapping[str, Sequence[Fault]],
        *,
        poll: str = "1 min",
        more: str = "",
    ) -> SimulatedEndpoint:
        """A TCP bus with these meters, units 1, 2, …"""
        profile = Library(None).get("eastron-sdm630")
        served = []
        for unit, (meter, faults) in enumerate(meters.items(), start=1):
            simulated = SimulatedMeter(
                profile, unit, self.clock.true(), seed=len(self.meters), faults=faults
            )
            self.meters[meter] = simulated
            served.append(simulated)
        endpoint = SimulatedEndpoint(served, now=self.clock.true)
        port = await endpoint.open()
        self.endpoints[name] = endpoint
        self._buses.append(f'  {name}: {{tcp: "127.0.0.1:{port}", poll: {poll}}}')
        for unit, meter in enumerate(meters, start=1):
            self._entries.append(
                f"  - {{name: {meter}, bus: {name}, unit: {unit}, profile: eastron-sdm630, send: ["
                f"{{meterID: {meter}, quantity: active_energy_import_total}},"
                f"{{meterID: {meter}-moved, quantity: active_energy_import_total,"
                " as: consumption},"
                f"{{meterID: {meter}-mean, quantity: active_power_total, as: mean}}]}}"
            )
        return endpoint

    def write(self, *, every: str = "15 min", timestamps: str = "offset", more: str = "") -> Path:
        """The configuration of all that."""
        token = self.folder / "basement.token"
        token.write_text("token")
        token.chmod(0o600)
        path = self.folder / "gateway.yaml"
        path.write_text(
            "\n".join(
                [
                    f"timezone: {self.zone}",
                    "energinet:",
                    f"  url: {self.url}",
                    f"  timestamps: {timestamps}",
                    "  senders: [{name: basement, token: {file: basement.token}}]",
                    f"defaults: {{every: {every}, as: counter}}",
                    "buffer: {path: readings.db}",
                    more,
                    "buses:",
                    *self._buses,
                    "meters:",
                    *self._entries,
                    "",
                ]
            )
        )
        return path

    @contextlib.asynccontextmanager
    async def running(self, path: Path) -> AsyncIterator[Gateway]:
        """The gateway at work on that configuration."""
        config = load(path)
        self.gateway = Gateway(
            config.config,
            clock=self.clock,
            seed=random.Random(7),
            reread=lambda: load(path),
        )
        running = asyncio.create_task(self.gateway.run())
        try:
            yield self.gateway
        finally:
            self.gateway.stop("the story ends")
            await running

    async def close(self) -> None:
        """Meters and stand-in are gone."""
        for endpoint in self.endpoints.values():
            await endpoint.close()
        await self.standin.stop()

    # ------------------------------------------------------------------------------- the truth

    def shown(self, meter: str, at: Instant) -> Decimal:
        """What a meter's counter stood at."""
        value = self.meters[meter].value("active_energy_import_total", at)
        assert isinstance(value, Decimal)
        return value

    def received(self, meter_id: str) -> dict[Instant, Decimal]:
        """What Energinet holds of a meterID, in the order of time."""
        zone = ZoneInfo(self.zone)
        found = {}
        for stamp, value in self.standin.received.get(meter_id, {}).items():
            at = datetime.fromisoformat(stamp)
            at = at if at.tzinfo else at.replace(tzinfo=zone)
            found[int(at.timestamp() * 1000)] = value
        return dict(sorted(found.items()))

    def check(self, meter: str, *, every: Millis, early: Millis = 0, late: Millis) -> None:
        """Each counter that Energinet holds is what the meter stood at on its stamp: between so
        much before and after it. What moved adds up to what the counter moved.
        """
        counter, moved = self.received(meter), self.received(f"{meter}-moved")
        for stamp, value in counter.items():
            low, high = self.shown(meter, stamp - early), self.shown(meter, stamp + late)
            assert low <= value <= high, f"{meter} {datetime.fromtimestamp(stamp / 1000, UTC)}"
        if moved:
            first, last = min(moved), max(moved) + every
            assert sum(moved.values()) == counter[last] - counter[first]
        assert self.standin.violations == []


def play(
    story: Callable[[World], Coroutine[Any, Any, T]],
    folder: Path,
    start: Instant,
    *,
    zone: str = "Europe/Oslo",
) -> T:
    """Let a story happen in virtual time, in a world of its own."""

    async def whole() -> T:
        world = World(folder, start, zone)
        world.url = await world.standin.start()
        LOGGER.addHandler(world.log)
        with _outside_on(world.clock), _info():
            try:
                return await story(world)
            finally:
                LOGGER.removeHandler(world.log)
                await world.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(whole())


@contextlib.contextmanager
def _outside_on(clock: VirtualClock) -> Iterator[None]:
    class Shown(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(clock.now() / 1000, tz)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("apscheduler.schedulers.base.datetime", Shown)
        patch.setattr("gateway.logbook.monotonic", clock.monotonic)
        yield


@contextlib.contextmanager
def _info() -> Iterator[None]:
    level, handlers, propagate = LOGGER.level, list(LOGGER.handlers), LOGGER.propagate
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        LOGGER.handlers[:] = handlers
        LOGGER.propagate = propagate


def instant(text: str) -> Instant:
    """2026-03-10T12:00 in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


__all__ = ["DAY", "HOUR", "MINUTE", "SECOND", "Fault", "World", "instant", "play"]
