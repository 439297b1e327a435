"""One gateway, its meters and Energinet, for some years: what is built, started, killed."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, cast
from zoneinfo import ZoneInfo

import pytest
from attrs import evolve

from gateway.buffer.appending import Appended
from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.clock import DAY, HOUR, MINUTE, SECOND, Instant
from gateway.config.heirs import series_of
from gateway.config.settings import GatewayConfig
from gateway.energinet.settings import EnerginetSettings, Secret, SenderSettings
from gateway.energinet.slots import Slots
from gateway.energinet.witness import Witness
from gateway.errors import StoreFull
from gateway.logbook import EVENTS, LOGGER, forget_repetitions
from gateway.metering.reading import As, Commit, Reading, Series, SeriesKey
from gateway.metering.register import Encoding, Register
from gateway.metering.settings import GapRule, MeterSettings, SendSettings
from gateway.modbus.settings import BusSettings, SerialLink, TcpLink
from gateway.plant import Plant
from gateway.rounds import restore
from tests.simulation.years.importing import Energinet
from tests.simulation.years.judging import Judge
from tests.simulation.years.meters import Device, Place, Wire, profile
from tests.simulation.years.oracle import Oracle
from tests.simulation.years.steps import Machine, SeldomLooking, Steps, at_once, either, wait

T = TypeVar("T")

ZONES = (
    "Europe/Oslo", "Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "Europe/London",
    "America/St_Johns", "UTC", "Asia/Kathmandu",
)  # fmt: skip


Kind: TypeAlias = As | Literal["integral"]
"""What a meterID is sent as; a power that is summed up is a consumption."""

_COUNTED = ("counter", "consumption", "integral")


class Killed(BaseException):
    """kill -9."""


class FusedStore(Store):
    """The real store in the caller's thread. It can be killed at its n-th call, and be full."""

    site: Site
    fuse: int | None = None
    before = True
    """Does the kill come before the work of that call, or after it?"""

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0 and self.before:
                raise Killed
        timeless = work == self._park_timeless
        stored = self._index.counts().stored if timeless else 0
        found = self._safely(work, *arguments)
        if isinstance(found, Appended):
            self.site.oracle.committed(cast(Commit, arguments[0]), found.repeated)
        if timeless:
            more = self._index.counts().stored - stored
            self.site.oracle.without_time(cast(Commit, arguments[0]).readings, more)
        if self.fuse is not None and self.fuse < 0:
            raise Killed
        return found

    async def append(self, commit: Commit) -> Appended:
        if self.site.full:
            raise StoreFull("no room")
        return await super().append(commit)

    async def park_timeless(self, readings: Sequence[Reading], samples: Sequence[int]) -> None:
        if self.site.full:
            raise StoreFull("no room")
        await super().park_timeless(readings, samples)


class Events(logging.Handler):
    """Counts what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.counts: Counter[str] = Counter()
        self.lines: Counter[tuple[object, ...]] = Counter()
        self.last: deque[tuple[Instant, str, Any]] = deque(maxlen=20)
        self.true: Callable[[], Instant] = lambda: 0
        self.said: Callable[[str, Any], None] = lambda event, fields: None

    def emit(self, record: logging.LogRecord) -> None:
        event, fields = getattr(record, "event", "?"), getattr(record, "fields", {})
        self.counts[event] += 1
        at = self.true()
        about = tuple(fields.get(name) for name in ("meter", "sender", "meterID", "bus"))
        self.lines[event, at // DAY, about] += 1
        self.last.append((at, event, fields))
        self.said(event, fields)


class Site:
    """What there is; `years` of it are let pass by `run`."""

    def __init__(self, seed: int, folder: Path, events: Events) -> None:
        draw = self.draw = random.Random(seed)
        self.events = events
        self.fired: Counter[str] = Counter()
        year = draw.choice([2022, 2024, 2026])
        begin = datetime(year, draw.randint(1, 12), draw.randint(1, 28), tzinfo=UTC)
        self.start_at = int(begin.timestamp() * 1000) + draw.randrange(DAY)
        self.steps = Steps(self.start_at)
        self.machine = Machine(self.steps)
        self.zone_name = draw.choice(ZONES)
        self.zone = ZoneInfo(self.zone_name)
        self.oracle = Oracle(self.zone, self.machine, draw.choice(["start", "end"]))
        judge = self.judge = Judge(self)
        lot = random.Random(seed + 1)
        self.api = Energinet(
            self.steps, self.machine, self.zone, lot, judge.received, judge.took, judge.ambiguous
        )
        self.places = {place.name: place for place in self._places()}
        self.wire = Wire(self.places.values(), self.steps, self.machine, random.Random(seed + 2))
        self.wire.fired = lambda fault: self.fired.update([fault])
        self.config = self._config(folder)
        self.store: FusedStore
        self.plant: Plant
        self.up = False
        self.full = False
        """Is the disk?"""
        self.story: list[tuple[Instant, str]] = []
        self.backfilled: set[SeriesKey] = set()
        self._others: list[Series] = []
        self._queue: list[tuple[Instant, int, Callable[[], None]]] = []
        self._order = itertools.count()
        events.true = lambda: self.steps.true
        events.said = self.judge.said
        self.oracle.fired = lambda fault: self.fired.update([fault])
        self._hours = 0

    # -------------------------------------------------------------------------------- the plant

    def _places(self) -> Iterator[Place]:
        draw, now = self.draw, self.steps.true
        energy = "active_energy_import_total"
        kinds = (
            ("main", energy, "u32", "0.01", None, 2_000, draw.choice(["100000", "100000", None])),
            ("sub", energy, "bcd32", "0.1", "10000", 9, None)
            if draw.random() < 0.6
            else ("sub", energy, "f32", "0.001", None, 100, draw.choice(["1000", None])),
            ("water", "volume_total", "u64", "0.001", "100000", 300, None),
        )
        for unit, one in enumerate(kinds, start=1):
            name, quantity, kind, scale, modulus, per_hour, power = one
            encoding = Encoding(kind)
            sentinel = (1 << 16 * encoding.words) - 1
            register = Register(
                quantity, 3, 20 - encoding.words, encoding, Decimal(scale),
                "m³" if quantity == "volume_total" else "kWh",
                not_available=frozenset({sentinel}),
                modulus=None if modulus is None else Decimal(modulus),
            )  # fmt: skip
            device = Device(f"{unit}000001", 0, now - DAY, per_hour, draw.randrange(1 << 30))
            place = Place(name, unit, register, draw.random() < 0.4, device)
            place.max_power = power and Decimal(power)
            near_the_end = place.modulus - per_hour * draw.randint(100, 5_000)
            start = 5_000 if kind == "f32" else draw.choice([5_000, near_the_end])
            place.device = evolve(device, start=start)
            yield place

    def _config(self, folder: Path) -> GatewayConfig:
        draw = self.draw
        gap: GapRule = draw.choice(["return", "return", "spread", "skip"])
        polled = draw.random() < 0.4
        poll = draw.choice([HOUR, 30 * MINUTE, 20 * MINUTE]) if polled else HOUR
        more: tuple[Kind, ...] = ("mean", "minimum", "maximum", "last", "integral")
        sends: dict[str, tuple[Kind, ...]] = {
            "main": ("consumption", *([draw.choice(more)] if polled else [])),
            "sub": ("consumption", *(["counter"] if draw.random() < 0.3 else [])),
            "water": (draw.choice(["counter", "consumption"]),),
        }
        meters = []
        for nth, place in enumerate(self.places.values(), start=1):
            made = profile(place.counter, serial=place.serial)
            send = tuple(
                SendSettings(
                    SeriesKey("", f"{nth}00{which}"),
                    place.counter.name if kind in _COUNTED else "active_power_total",
                    "consumption" if kind == "integral" else kind, HOUR, "basement", gap,
                    "active_power_total" if kind == "integral" else "",
                )
                for which, kind in enumerate(sends[place.name], start=1)
            )  # fmt: skip
            multiplier = Decimal(draw.choice(["1", "40", "0.5"])) if nth == 2 else Decimal(1)
            serial = place.device.serial if place.serial and draw.random() < 0.5 else None
            power = None if place.max_power is None else place.max_power * multiplier
            meters.append(
                MeterSettings(
                    place.name, "riser", place.unit, made, send, multiplier, serial, power
                )
            )
        link = draw.choice([TcpLink("meters"), SerialLink("/dev/ttyUSB0")])
        senders = tuple(
            SenderSettings(name, "", lambda name=name: Secret(name))  # type: ignore[misc]
            for name in ("basement", "attic")
        )
        energinet = EnerginetSettings(
            senders,
            timestamps=draw.choice(["local", "local", "offset", "utc"]),
            label=cast(Any, self.oracle.label),
            linger=draw.choice([30 * SECOND, 3 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR]),
            max_payload=draw.choice([500_000, 500_000, 20_000]),
        )
        return GatewayConfig(
            folder / "gateway.yaml",
            self.zone_name,
            energinet,
            (BusSettings("riser", link, poll=poll),),
            tuple(meters),
            BufferSettings(str(folder / "readings.db"), keep=400 * DAY),
        )

    # ----------------------------------------------------------------------------- its life

    def start(self) -> None:
        """The service begins."""
        self.store = FusedStore(self.config.buffer, self.machine)
        self.store.site = self
        self._build()
        opened = at_once(self.plant.open())
        assert opened >= 0
        self._begin()

    def _build(self) -> None:
        config = self.config
        self.plant = Plant(config, self.store, self.machine, self.draw, self._hour)
        for poller in self.plant.pollers.values():
            poller._wire = poller._line.wire = self.wire
        energinet, slots = config.energinet, Slots(self.store, config.energinet, self.machine)
        witness = self.plant.witness = Witness(self.api, self.machine)
        self.plant.uploaders = {
            sender.name: SeldomLooking(
                sender, energinet, self.store, witness, self.machine, self.zone, self.draw, slots
            )
            for sender in config.energinet.senders
        }

    def _begin(self) -> None:
        plant, store = self.plant, self.store
        self.oracle.configure(self.config.meters, self.places)
        at_once(store.declare(self._series()))
        at_once(restore(list(plant.meters.values()), store))
        learnt = at_once(store.states())
        for poller in plant.pollers.values():
            poller.recall(learnt)
        for name, rounds in plant.rounds.items():
            self.steps.start(f"bus {name}", rounds.run())
        self.steps.start("committer", plant.committer.run())
        self.steps.start("schedule", self._schedule(plant))
        for name, uploader in plant.uploaders.items():
            self.steps.start(f"sender {name}", uploader.run())
            uploader.poke()
        self.up = True

    def _series(self) -> list[Series]:
        return [*series_of(self.config), *self._others]

    def declare(self, series: Series) -> None:
        """One more, of which the values come from elsewhere."""
        self._others.append(series)
        at_once(self.store.declare(self._series()))

    def tell(self, what: str) -> None:
        """For whoever has to find out why a number fails."""
        self.story.append((self.steps.true, what))

    async def _schedule(self, plant: Plant) -> None:
        """The real timetable, without APScheduler's timers and the looks every two seconds."""
        schedule = plant.schedule
        schedule.look()
        self._looked = (self.machine.off, self.machine.is_synchronised)
        previous = None
        while True:
            table = schedule._timetable
            now = datetime.fromtimestamp(self.machine.now() / 1000, UTC)
            at = table.get_next_fire_time(previous, now)
            left = at.timestamp() - self.machine.now() / 1000
            await wait((), max(left, 0.0))
            if not self.machine.is_synchronised:
                schedule.look()  # may say so
            if self._looked != (self.machine.off, self.machine.is_synchronised):
                self._looked = (self.machine.off, self.machine.is_synchronised)
                schedule.look()
                previous = None
                continue
            previous = at
            table.get_next_fire_time(at, at)
            await table.fire()

    def kill(self) -> None:
        """Gone, at whatever it was."""
        self.steps.drop()
        self.api.forgotten()
        if self.up:
            assert self.store._connection is not None
            self.store._connection.close()
            self.store._connection = None
        self.up = False

    def stop(self) -> None:
        """SIGTERM."""
        for rounds in self.plant.rounds.values():
            rounds.stop()
        buses = [f"bus {name}" for name in self.plant.rounds]
        self.steps.run(
            self.steps.true + 1_500, over=lambda: not any(b in self.steps.tasks for b in buses)
        )
        at_once(self.plant.committer.flush())
        self.steps.drop()
        self.api.forgotten()
        for name in self.plant.uploaders:
            at_once(self.store.release_flight(name))
        self.plant.committer.give_up("stopped")
        at_once(self.store.close())
        self.up = False

    def change(self, config: GatewayConfig) -> None:
        """Reload another configuration."""
        self.config = config
        if self.up:
            self.stop()
            self.start()

    def _hour(self) -> None:
        """The hourly work, once a day: P6."""
        self._hours += 1
        if self._hours % 24:
            return
        now = self.steps.true
        if self._offset(now) > self._offset(now - DAY):
            self.fired["an hour that the clock leaves out"] += 1
        at_once(self.plant.tidy())
        whole = self._hours % (24 * 30) == 0
        self.judge.check_counts(
            at_once(self.store.check_counts() if whole else self.store.counts())
        )

    def _offset(self, at: Instant) -> timedelta:
        offset = datetime.fromtimestamp(at / 1000, self.zone).utcoffset()
        assert offset is not None
        return offset

    # ------------------------------------------------------------------------------------ time

    def at(self, true: Instant, what: Callable[[], None]) -> None:
        """Let something happen at a true instant."""
        heapq.heappush(self._queue, (true, next(self._order), what))

    def run(self, until: Instant) -> None:
        """Let time pass."""
        while True:
            at = min(self._queue[0][0] if self._queue else until, until)
            try:
                self.steps.run(at)
                if not self._queue or self._queue[0][0] > until:
                    return
                _, _, what = heapq.heappop(self._queue)
                what()
            except Killed:
                self.fired["kill -9 in the buffer"] += 1
                self.kill()
                self.at(self.steps.true + self.draw.choice([2, 60, 3600]) * SECOND, self.revive)

    def end(self) -> None:
        """Nothing of it is left but what was counted."""
        self.steps.drop()
        if self.up and self.store._connection is not None:
            self.store._connection.close()

    def revive(self) -> None:
        """Start it, if it is down."""
        if not self.up:
            self.start()


@contextlib.contextmanager
def world(events: Events, monotonic: Callable[[], float]) -> Iterator[None]:
    """The gateway waits as `Steps` has it, and its log is counted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.rounds.either", either)
        patch.setattr("gateway.commits.either", either)
        patch.setattr("gateway.logbook.monotonic", monotonic)
        level, handlers, propagate = LOGGER.level, list(LOGGER.handlers), LOGGER.propagate
        LOGGER.setLevel(logging.INFO)
        LOGGER.handlers[:] = [events]
        LOGGER.propagate = False
        forget_repetitions()
        try:
            yield
        finally:
            LOGGER.setLevel(level)
            LOGGER.handlers[:] = handlers
            LOGGER.propagate = propagate


__all__ = ["EVENTS", "Site", "world"]
