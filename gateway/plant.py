"""The buses, meters and senders of one configuration, at work on a buffer that outlives them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from attrs import frozen

from gateway.buffer.store import Store
from gateway.clock import DAY, MINUTE, SECOND, Clock, Instant, Millis
from gateway.commits import Committer
from gateway.config.heirs import heir, series_of, unserved
from gateway.config.settings import GatewayConfig
from gateway.energinet.late import LateClient
from gateway.energinet.limits import oldest_allowed
from gateway.energinet.slots import Slots
from gateway.energinet.uploader import Uploader
from gateway.energinet.witness import Witness
from gateway.errors import GatewayError, StoreError, TryLater
from gateway.logbook import log
from gateway.metering.interval import next_boundary
from gateway.metering.meter import Meter, Outcome
from gateway.metering.reading import Commit, Sample
from gateway.modbus.identity import same_serial
from gateway.modbus.poller import Ask, Poller
from gateway.modbus.settings import BusSettings, Link, SerialLink
from gateway.rounds import BusRounds, restore
from gateway.schedule import Schedule

ROUND_GRACE: Final = 1.5
"""Seconds that a round under way gets at the end."""
SEND_GRACE: Final = 2.0
"""Seconds that a request to Energinet gets at the end. A run ends within 5 s in all."""
STUCK: Final[Millis] = 10 * MINUTE
"""A bus that finishes no request, or a sender's request that has not ended, for this long makes no
progress any more."""

T = TypeVar("T")


@frozen
class Accepted:
    """What a person took for right: serial numbers before and now, and counters that were held."""

    was: str
    serial_number: str
    counters: tuple[Mapping[str, object], ...]


@frozen
class _Seen:
    """A round under way: when it began, how many requests the bus had made, and since when."""

    began: float
    requests: int
    since: float


class Plant:
    """Everything a reload replaces."""

    def __init__(
        self,
        config: GatewayConfig,
        store: Store,
        clock: Clock,
        random: random.Random,
        hourly: Callable[[], None] = lambda: None,
        before: str = "stopped",
    ) -> None:
        """`before`: why there are no values of the time before."""
        self.config = config
        self._store = store
        self._clock = clock
        zone = ZoneInfo(config.timezone)
        buses = {bus.name: bus for bus in config.buses}
        label = config.energinet.label
        self.meters = {m.name: Meter(m, zone, label, buses[m.bus].poll) for m in config.meters}
        self.committer = Committer(store, clock, config.buffer.path, self._stored)
        self.pollers: dict[str, Poller] = {}
        self.rounds: dict[str, BusRounds] = {}
        for bus in config.buses:
            settings = [meter for meter in config.meters if meter.bus == bus.name]
            if not settings:
                continue
            poller = Poller(bus, settings, clock, random=random, keep=self._keep)
            of_bus = [self.meters[meter.name] for meter in settings]
            self.pollers[bus.name] = poller
            self.rounds[bus.name] = BusRounds(
                bus, of_bus, poller, self.committer, store, clock, zone, before
            )
        energinet, slots = config.energinet, Slots(store, config.energinet, clock)
        client = self.witness = Witness(LateClient(energinet), clock)
        self.uploaders = {
            sender.name: Uploader(sender, energinet, store, client, clock, zone, random, slots)
            for sender in energinet.senders
        }
        self._sender_of = {send.key: send.sender for meter in config.meters for send in meter.send}
        self.schedule = Schedule(clock)
        for name, rounds in self.rounds.items():
            self.schedule.every(f"bus {name}", rounds.next, rounds.due)
        hour = 60 * MINUTE
        self.schedule.every("hourly", lambda at: next_boundary(at, hour, zone), lambda _: hourly())
        self._tasks: list[asyncio.Task[None]] = []
        self._round_tasks: list[asyncio.Task[None]] = []
        self._questions: set[asyncio.Task[Any]] = set()
        self._seen: dict[str, _Seen] = {}
        self._ending = False

    async def open(self) -> int:
        """Open the buffer for the senders; how many values are pending.

        Raises NotPermitted, StoreError.
        """
        opened = await self._store.open()
        if opened.slots_lost:
            for uploader in self.uploaders.values():
                await uploader.hold()
        return opened.pending

    async def declare(self) -> None:
        """Tell the buffer who sends what. Raises StoreError."""
        await self._store.declare(series_of(self.config), partial(heir, self.config))

    async def start(self) -> None:
        """Go on from what is stored. Raises StoreError."""
        await self.declare()
        for sender, count in unserved(self.config, await self._store.senders()).items():
            log("buffer.unserved", sender=sender, pending=count)
        await restore(list(self.meters.values()), self._store)
        learnt = await self._store.states()
        for poller in self.pollers.values():
            poller.recall(learnt)
        start = asyncio.create_task
        self._round_tasks = [
            start(rounds.run(), name=f"bus {name}") for name, rounds in self.rounds.items()
        ]
        self._tasks = [
            start(self.committer.run(), name="committer"),
            start(self.schedule.run(), name="schedule"),
            *(start(up.run(), name=f"sender {name}") for name, up in self.uploaders.items()),
        ]
        for uploader in self.uploaders.values():
            uploader.poke()

    async def stop(self) -> None:
        """End in order: what was read is committed, a request under way is let finish."""
        self._ending = True
        await asyncio.gather(
            self.drain(),
            *(uploader.stop(SEND_GRACE) for uploader in self.uploaders.values()),
        )
        ended = [*self._tasks, *self._questions]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        for name in self.uploaders:  # of a request that was cut the outcome is unknown
            with contextlib.suppress(StoreError):
                await self._store.release_flight(name)
        for poller in self.pollers.values():
            await poller.close()

    async def drain(self) -> None:
        """No more rounds. What they read is committed, and still goes to Energinet."""
        for rounds in self.rounds.values():
            rounds.stop()
        tasks, self._round_tasks = self._round_tasks, []
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=ROUND_GRACE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.committer.flush()

    async def tidy(self) -> None:
        """Park what waits and may never be sent, and delete what was kept long enough.

        Nothing of it is urgent: what may not be sent is not offered. So it waits until Energinet
        says that the clock is right. Raises StoreError.
        """
        sure = self.witness.agrees()
        if sure:
            await self._store.expire(*may_be_sent(self._clock.now()))
        await self._store.prune(by_age=sure)

    def _keep(self, key: str, learnt: bytes) -> None:
        """What a poller learnt of a meter goes to the buffer with the next commit."""
        self.committer.add(key, Outcome(state=learnt))

    def _stored(self, commit: Commit) -> None:
        for sender in {self._sender_of.get(reading.key) for reading in commit.readings}:
            if sender in self.uploaders:
                self.uploaders[sender].poke()

    async def answer(self, question: Coroutine[Any, Any, T]) -> T:
        """What a person asks for; it is given up when this plant ends. Raises TryLater then."""
        asked = asyncio.create_task(question)
        self._questions.add(asked)
        if self._ending:
            asked.cancel()
        try:
            await asyncio.wait([asked])
        finally:
            asked.cancel()
            self._questions.discard(asked)
        if asked.cancelled():
            raise TryLater("the gateway stops or takes a new configuration", hint="ask again")
        return asked.result()

    async def read(self, name: str) -> Sample:
        """Ask a meter for all it has, between the rounds of its bus. Raises GatewayError."""
        settings = self.config.meter(name)
        asked = Ask(settings, settings.profile.everything(), by_hand=True)
        return (await self.pollers[settings.bus].round([asked])).samples[0]

    def bus_at(self, where: str) -> BusSettings | None:
        """The bus with that path, or host and port; None: nobody asks there."""
        for bus in self.config.buses:
            if bus.name in self.pollers and _is_at(bus.link, where):
                return bus
        return None

    @contextlib.asynccontextmanager
    async def lend(self, where: str) -> AsyncIterator[str | None]:
        """Leave the bus with that path, or host and port, alone; its name, None: there is none."""
        bus = self.bus_at(where)
        if bus is None:
            yield None
            return
        async with self.pollers[bus.name].lent():
            yield bus.name

    def accept(self, name: str) -> Accepted:
        """Take the meter that answers, and what its counters show, for right. Raises GatewayError
        where the configuration names another one."""
        settings = self.config.meter(name)
        was, number = self.pollers[settings.bus].accept(name)
        if number and settings.serial_number and not same_serial(number, settings.serial_number):
            raise GatewayError(
                f"{name}: the configuration has serial_number {settings.serial_number}, but "
                f"{number} answers",
                hint="write the new number there and reload, or take the line out",
            )
        replaced = bool(number) and not same_serial(was, number)
        outcome = self.rounds[settings.bus].accept(name, replaced=replaced)
        return Accepted(was, number, tuple(fields for _, fields in outcome.events))

    def failed(self) -> tuple[str, BaseException | None] | None:
        """The first task that ended though nobody told it to, and why."""
        if self._ending:
            return None
        for task in (*self._tasks, *self._round_tasks):
            if task.done():
                return task.get_name(), None if task.cancelled() else task.exception()
        return None

    def stuck(self) -> str:
        """What makes no progress any more; empty: all is well."""
        now = self._clock.monotonic()
        for name, poller in self.pollers.items():
            if self._hangs(name, poller, now):
                return f"bus {name}"
        for name, uploader in self.uploaders.items():
            began = uploader.status().busy_since
            if began is not None and (now - began) * SECOND > STUCK:
                return f"sender {name}"
        return ""

    def _hangs(self, name: str, poller: Poller, now: float) -> bool:
        """A long round is none that hangs: a line full of silent meters takes many minutes."""
        began = poller.asking_since
        if began is None:
            return False
        requests = sum(unit.requests for unit in poller.units())
        seen = self._seen.get(name)
        if seen is None or (seen.began, seen.requests) != (began, requests):
            self._seen[name] = _Seen(began, requests, now)
            return False
        return (now - seen.since) * SECOND > STUCK

    def wall(self, monotonic: float) -> Instant:
        """The wall time of a monotonic instant of this boot."""
        return self._clock.now() - round((self._clock.monotonic() - monotonic) * SECOND)


def may_be_sent(now: Instant) -> tuple[Instant, Instant]:
    """The first and the last stamp of a value that may be sent, today or tomorrow: what lies
    further ahead of a clock that is right was stamped while it was wrong."""
    return oldest_allowed(now), now + DAY


def _is_at(link: Link, where: str) -> bool:
    if isinstance(link, SerialLink):  # a port has several names
        return os.path.realpath(link.path) == os.path.realpath(where)
    return link.address == where


def sender_named(plant: Plant, name: str | None) -> Uploader:
    """The sender of that name, or the only one. Raises GatewayError."""
    if name is None and len(plant.uploaders) == 1:
        return next(iter(plant.uploaders.values()))
    if name not in plant.uploaders:
        known = ", ".join(plant.uploaders)
        raise GatewayError(f"which sender? {name or ''}".strip(), hint=f"one of {known}")
    return plant.uploaders[name]
