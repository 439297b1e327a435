"""One round over a bus: what was asked for becomes samples and a report."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from attrs import define, field, frozen

from gateway.clock import DAY, HOUR, Clock, Millis
from gateway.errors import BadAnswer, DeviceException, LinkDown, MeterError, MeterTimeout
from gateway.logbook import log
from gateway.metering.reading import Block, RawWords, Sample
from gateway.metering.register import Register
from gateway.metering.settings import MeterSettings
from gateway.modbus.bus import Bus
from gateway.modbus.discovery import Place, locate
from gateway.modbus.health import OFFLINE_AFTER, Budget, Unit, UnitReport
from gateway.modbus.plan import Read, Timing, plan
from gateway.modbus.settings import BusSettings, SerialLink, TcpLink

_ASSUMED_TURNAROUND: Final = 0.01  # seconds, before a unit was heard
_BUSY_PAUSE: Final = 0.1  # seconds, before a busy unit (exceptions 5 and 6) is asked again
_STILL_OFFLINE: Final = (HOUR, 6 * HOUR, DAY)  # then once a day
_FIRST_RECONNECT: Final = 1.0
_LONGEST_RECONNECT: Final = 60.0
_NOISY: Final = 0.1  # share of damaged answers that is worth a line
_NOISY_AFTER: Final = 100  # requests


@frozen
class Ask:
    """What one meter is to be asked in a round."""

    meter: MeterSettings
    registers: tuple[Register, ...]
    urgent: bool = False
    """The boundary of an interval: goes first."""


@frozen
class Round:
    """What came of a round: one sample an ask."""

    samples: tuple[Sample, ...]
    requests: int
    errors: int
    link_up: bool
    duration: float


@frozen
class LinkReport:
    """A bus as `status` shows it."""

    bus: str
    up: bool
    since: float
    """Monotonic instant of the last change."""
    error: str
    busy: float
    """Share of the time since the start in which requests were under way."""


@define
class _Known:
    """A meter of this bus, and what was learnt of it."""

    settings: MeterSettings
    unit: Unit
    refused: set[tuple[int, int]] = field(factory=set)
    refused_until: float = 0.0
    plans: dict[tuple[Register, ...], tuple[Read, ...]] = field(factory=dict)
    place: Place | None = None
    offline_at: Millis | None = None
    said: int = 0
    noise: int = 0
    noise_of: int = 0


class Poller:
    """Asks the meters of one bus; the only one who touches it."""

    def __init__(
        self,
        settings: BusSettings,
        meters: Sequence[MeterSettings],
        clock: Clock,
        *,
        random: random.Random,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._random = random
        self._bus = Bus(settings, clock, random=random)
        self._budget = Budget()
        self._began = clock.monotonic()
        self._link_up: bool | None = None
        self._link_since = self._began
        self._link_error = ""
        self._reconnect_at = 0.0
        self._reconnect_pause = _FIRST_RECONNECT
        self._requests = self._errors = 0
        self._asking = asyncio.Lock()
        self.asking_since: float | None = None
        """Monotonic instant at which the round under way began."""
        # Responses may come from a line behind a serial server long after its connection.
        self._tells_answers_apart = settings.link.framing in ("tcp", "tls")
        self._known = {
            m.name: _Known(
                m,
                Unit(
                    m.name,
                    m.unit,
                    settings.timeout / 1000,
                    m.profile.limits.answer_time / 1000,
                    since=self._began,
                ),
            )
            for m in meters
        }

    def units(self) -> tuple[UnitReport, ...]:
        """Every meter of the bus."""
        return tuple(known.unit.report() for known in self._known.values())

    def link(self) -> LinkReport:
        """The line or endpoint itself."""
        elapsed = max(self._clock.monotonic() - self._began, 1e-9)
        share = min(1.0, self._bus.busy / elapsed)
        up = bool(self._link_up)
        return LinkReport(self._settings.name, up, self._link_since, self._link_error, share)

    async def close(self) -> None:
        """Close the port or connection."""
        await self._bus.close()

    # ------------------------------------------------------------------------------------ round

    async def round(self, asks: Sequence[Ask]) -> Round:
        """One pass: boundaries first, units that answer before those that do not.

        Never raises for what a line or a meter does; it is in the samples.
        """
        async with self._asking:
            self.asking_since = self._clock.monotonic()
            try:
                return await self._round(asks)
            finally:
                self.asking_since = None

    async def _round(self, asks: Sequence[Ask]) -> Round:
        began = self._clock.monotonic()
        self._requests = self._errors = 0
        samples: list[Sample] = []
        order = sorted(
            asks, key=lambda ask: (self._known[ask.meter.name].unit.suspect, not ask.urgent)
        )
        for ask in order:
            samples.append(await self._sample(ask))
        link = self._settings.link
        if isinstance(link, TcpLink) and link.disconnect == "after_round":
            await self._bus.close()
        duration = self._clock.monotonic() - began
        up = bool(self._link_up)
        return Round(tuple(samples), self._requests, self._errors, up, duration)

    async def _sample(self, ask: Ask) -> Sample:
        known = self._known[ask.meter.name]
        result = _Result(self._clock, ask.registers)
        if not await self._link_is_up():
            result.fail(ask.registers, "link_down")
        elif await self._reachable(known, urgent=ask.urgent, result=result):
            try:
                await self._ask_all(known, ask.registers, result)
            except LinkDown as error:
                self._link_lost(error)
                result.fail(ask.registers, "link_down")
        self._judge(known, result)
        return result.sample(ask.meter.name)

    async def _link_is_up(self) -> bool:
        if self._bus.is_open:
            return True
        now = self._clock.monotonic()
        if now < self._reconnect_at:
            return False
        try:
            await self._bus.open()
        except LinkDown as error:
            self._link_lost(error)
            return False
        self._reconnect_pause = _FIRST_RECONNECT
        if not self._link_up:
            down = None if self._link_up is None else f"{now - self._link_since:.0f}s"
            log("bus.up", bus=self._settings.name, link=_shown(self._settings), **{"for": down})
            self._link_up, self._link_since, self._link_error = True, now, ""
        return True

    def _link_lost(self, error: LinkDown) -> None:
        now = self._clock.monotonic()
        if self._link_up is not False:
            self._link_up, self._link_since = False, now
            log("bus.down", bus=self._settings.name, link=_shown(self._settings), error=str(error))
        self._link_error = str(error)
        self._reconnect_at = now + self._reconnect_pause * self._random.uniform(0.8, 1.2)
        self._reconnect_pause = min(2 * self._reconnect_pause, _LONGEST_RECONNECT)

    # ----------------------------------------------------------------------------------- a unit

    async def _reachable(self, known: _Known, *, urgent: bool, result: _Result) -> bool:
        """Is the unit worth all its reads? A silent one is probed by one short read first."""
        unit = known.unit
        if not unit.suspect and (known.settings.profile.sunspec is None or known.place):
            return True
        now = self._clock.monotonic()
        cost = 2 * unit.timeout  # the wait, and draining after it
        if not unit.due(now, urgent=urgent) or not (
            unit.state == "unknown" or self._budget.allows(cost, now)
        ):
            result.fail(result.registers, "offline")
            return False
        try:
            if unit.suspect:
                await self._probe(known)
            if known.settings.profile.sunspec is not None:
                await self._locate(known)
        except LinkDown as error:
            self._link_lost(error)
            result.fail(result.registers, "link_down")
            return False
        except MeterError as error:
            if unit.silent:
                self._budget.spend(self._clock.monotonic() - now)
            result.fail(result.registers, error.reason)
            return False
        return True

    async def _probe(self, known: _Known) -> None:
        """One short read of another shape than the one that timed out.

        Units answer in order: once this was answered, no answer to what went before can come.
        Its own words are not used.
        """
        read = self._probe_read(known)
        try:
            await self._once(known, read)
        except DeviceException as error:
            if error.code in (10, 11):
                raise
        known.unit.stale = None

    def _probe_read(self, known: _Known) -> Read:
        stale = known.unit.stale
        reads = [
            read
            for register in known.settings.profile.registers
            for read in self._plan_of(known, (register,))
        ]
        legal = sorted({read for read in reads if read.shape != stale}, key=lambda r: r.count)
        if legal:
            return legal[0]
        # Refused or not, an exception too shows that the unit has done with the one before.
        first = reads[0]
        return Read(first.function, first.address, 2 if stale == (first.function, 1) else 1)

    async def _locate(self, known: _Known) -> None:
        sunspec = known.settings.profile.sunspec
        if sunspec is None or known.place is not None:
            return
        known.place = await locate(sunspec, lambda read: self._attempts(known, read))
        if known.place is None:
            raise DeviceException(self._settings.name, known.unit.unit, "SunSpec meter model", 2)

    async def _ask_all(
        self, known: _Known, registers: tuple[Register, ...], result: _Result
    ) -> None:
        refused = [r for r in registers if (r.function, r.address) in known.refused]
        now = self._clock.monotonic()
        if len(refused) == len(registers) and now >= known.refused_until:
            known.refused.clear()  # it refuses all: perhaps only for now
            refused = []
        result.fail(refused, "exception_2")
        pending = list(self._reads(known, registers))
        while pending:
            read = pending.pop(0)
            inside = [r for r in registers if _holds(read, self._there(known, r))]
            try:
                block = await self._attempts(known, read)
            except DeviceException as error:
                if error.code in (1, 2, 3):
                    pending = [*self._split(known, read, inside, error, result), *pending]
                    continue
                result.fail(inside, error.reason)
                if error.code in (10, 11):
                    result.fail(registers, error.reason)
                    return
            except MeterError as error:
                result.fail(inside, error.reason)
                if isinstance(error, MeterTimeout):
                    result.fail(registers, error.reason)
                    return
                if not await self._link_is_up():
                    result.fail(registers, "link_down")
                    return
            else:
                result.add(known.place.unshift(block) if known.place else block)

    async def _attempts(self, known: _Known, read: Read) -> Block:
        """Ask until the answer can be trusted, at most `retries` times more."""
        left = self._settings.retries
        while True:
            try:
                if known.unit.stale == read.shape:
                    await self._probe(known)
                return await self._once(known, read)
            except BadAnswer:
                if not left or not await self._link_is_up():
                    raise
            except DeviceException as error:
                if error.code not in (5, 6) or not left:
                    raise
                await self._clock.sleep(_BUSY_PAUSE)
            left -= 1

    async def _once(self, known: _Known, read: Read) -> Block:
        unit = known.unit
        self._requests += 1
        known.noise_of += 1
        began = self._clock.monotonic()
        outcome = "ok"
        try:
            block = await self._bus.read(unit.unit, read, timeout=unit.timeout)
        except LinkDown:
            outcome = "link_down"
            self._errors += 1
            raise
        except MeterError as error:
            outcome = error.reason
            self._errors += 1
            if isinstance(error, DeviceException) and error.code not in (10, 11):
                unit.errors[error.reason] += 1
                unit.answered(self._turnaround(read, began))
            else:
                silent = isinstance(error, MeterTimeout) or error.reason == "exception_11"
                unit.failed("timeout" if silent else error.reason, self._clock.monotonic())
                if not self._tells_answers_apart:
                    unit.stale = read.shape
                if isinstance(error, BadAnswer):
                    self._heard_noise(known, error.reason)
            raise
        else:
            unit.answered(self._turnaround(read, began))
            if unit.stale is not None and unit.stale != read.shape:
                unit.stale = None
            return block
        finally:
            took = f"{(self._clock.monotonic() - began) * 1000:.1f}ms"
            log(
                "modbus.request",
                bus=self._settings.name,
                unit=unit.unit,
                block=read,
                duration=took,
                outcome=outcome,
            )

    def _turnaround(self, read: Read, began: float) -> float:
        """Seconds the unit took to answer, without the time on the wire."""
        return max(0.0, self._clock.monotonic() - began - self._bus.wire_time(read))

    def _heard_noise(self, known: _Known, kind: str) -> None:
        known.noise += 1
        if known.noise_of < _NOISY_AFTER:
            return
        if known.noise > _NOISY * known.noise_of:
            log(
                "meter.noisy",
                meter=known.settings.name,
                bus=self._settings.name,
                unit=known.unit.unit,
                errors=known.noise,
                requests=known.noise_of,
                kind=kind,
            )
            # Said again only after ten times as many requests: a bad line is bad for weeks.
            known.noise_of = -9 * known.noise_of
        known.noise = 0
        known.noise_of = min(known.noise_of, 0)

    # -------------------------------------------------------------------------------- the plans

    def _timing(self, known: _Known) -> Timing:
        turnaround = known.unit.turnaround or _ASSUMED_TURNAROUND
        pause = max(self._settings.pause, known.settings.profile.limits.pause)
        return Timing.of(self._settings.link, turnaround, pause)

    def _there(self, known: _Known, register: Register) -> Register:
        return known.place.moved(register) if known.place else register

    def _plan_of(self, known: _Known, registers: Iterable[Register]) -> tuple[Read, ...]:
        profile = known.settings.profile
        parts = (p for r in profile.registers for p in r.parts)
        return plan(
            [self._there(known, register) for register in registers],
            profile.limits,
            self._timing(known),
            known=[self._there(known, part) for part in parts],
            refused=known.refused,
        )

    def _reads(self, known: _Known, registers: tuple[Register, ...]) -> Collection[Read]:
        reads = known.plans.get(registers)
        if reads is None:
            left = [r for r in registers if (r.function, r.address) not in known.refused]
            reads = self._plan_of(known, left)
            known.plans[registers] = reads
        if known.unit.stale is not None:
            # Nothing of the shape that timed out goes first: a late answer would fit it.
            return sorted(reads, key=lambda read: read.shape == known.unit.stale)
        return reads

    def _split(
        self,
        known: _Known,
        read: Read,
        inside: list[Register],
        error: DeviceException,
        result: _Result,
    ) -> list[Read]:
        """Halves of a read that was refused; one register alone is at fault and remembered."""
        starts = sorted({(r.function, r.address, r.end) for r in inside})
        if len(starts) <= 1:
            known.refused_until = self._clock.monotonic() + HOUR / 1000
            for register in inside:
                known.refused.add((register.function, register.address))
                result.fail((register,), error.reason)
                log(
                    "meter.register_refused",
                    meter=known.settings.name,
                    bus=self._settings.name,
                    unit=known.unit.unit,
                    register=register.name,
                    exception=error.code,
                )
            known.plans.clear()
            return []
        known.plans.clear()
        half = len(starts) // 2
        first = set(starts[:half])
        parts = (
            [r for r in inside if (r.function, r.address, r.end) in first],
            [r for r in inside if (r.function, r.address, r.end) not in first],
        )
        reads: list[Read] = []
        for part in parts:
            ends = [self._there(known, r) for r in part]
            start = min(r.address for r in ends)
            reads.append(Read(read.function, start, max(r.end for r in ends) - start))
        return reads

    # ------------------------------------------------------------------------------- its health

    def _judge(self, known: _Known, result: _Result) -> None:
        """State changes are logged, repetitions counted."""
        unit = known.unit
        now = self._clock.monotonic()
        boottime = self._clock.boottime()
        where = {"meter": known.settings.name, "bus": self._settings.name, "unit": unit.unit}
        if result.blocks:
            if unit.state == "offline" and known.offline_at is not None:
                gone = _span(boottime - known.offline_at)
                log("meter.online", **where, lost=unit.lost, **{"for": gone})
            if unit.state != "online":
                unit.state, unit.since = "online", now
            unit.lost, unit.reason, known.offline_at, known.said = 0, "", None, 0
            return
        unit.lost += 1
        reason = next(iter(result.faults.values()), "")
        if reason == "link_down":
            return  # the line's fault, and said so; no unit is blamed
        if reason != "offline":
            unit.reason = reason
        if unit.state != "offline":
            if unit.silent >= OFFLINE_AFTER or unit.lost >= OFFLINE_AFTER:
                unit.state, unit.since, known.offline_at = "offline", now, boottime
                log("meter.offline", **where, reason=unit.reason)
            return
        assert known.offline_at is not None
        gone_for = boottime - known.offline_at
        steps = _STILL_OFFLINE
        due = steps[known.said] if known.said < len(steps) else DAY * (known.said - 1)
        if gone_for >= due:
            known.said += 1
            span = {"for": _span(gone_for)}
            log("meter.still_offline", **where, reason=unit.reason, lost=unit.lost, **span)


class _Result:
    """What one meter answered so far."""

    def __init__(self, clock: Clock, registers: tuple[Register, ...]) -> None:
        self._clock = clock
        self.registers = registers
        self.blocks: list[Block] = []
        self.faults: dict[str, str] = {}
        self._at = clock.now()
        self._boottime = clock.boottime()

    def add(self, block: Block) -> None:
        """An answer that can be trusted."""
        if not self.blocks:
            self._at, self._boottime = self._clock.now(), self._clock.boottime()
        self.blocks.append(block)

    def fail(self, registers: Iterable[Register], reason: str) -> None:
        """These were not read; the first reason stays."""
        raw = RawWords(tuple(self.blocks))
        for register in registers:
            if raw.lookup(register) is None:
                self.faults.setdefault(register.name, reason)

    def sample(self, meter: str) -> Sample:
        """As the rooms above take it."""
        return Sample(
            meter,
            self._at,
            self._clock.boot_id,
            self._boottime,
            RawWords(tuple(self.blocks)),
            self.faults,
            self._clock.synchronised(),
        )


def _holds(read: Read, register: Register) -> bool:
    return (
        register.function == read.function
        and read.address <= register.address
        and register.end <= read.end
    )


def _shown(settings: BusSettings) -> str:
    link = settings.link
    return link.path if isinstance(link, SerialLink) else f"{link.host}:{link.port}"


def _span(millis: Millis) -> str:
    minutes, seconds = divmod(millis // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
