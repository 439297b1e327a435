"""One round over a bus: what was asked for becomes samples and a report."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from attrs import define, evolve, frozen

from gateway.clock import DAY, HOUR, SECOND, Clock, Millis
from gateway.errors import LinkDown
from gateway.logbook import log
from gateway.metering.reading import Block, Sample
from gateway.metering.register import Register
from gateway.metering.settings import MeterSettings
from gateway.modbus.bus import Bus
from gateway.modbus.diagnosis import likely_cause
from gateway.modbus.health import NEVER_SEEN_AFTER, OFFLINE_AFTER, Budget, Unit, UnitReport
from gateway.modbus.line import Line, LinkReport, Wire
from gateway.modbus.looking import forget, look, stranger
from gateway.modbus.plan import Read
from gateway.modbus.reader import Answer, Keep, MeterReader, Tally
from gateway.modbus.settings import BusSettings, SerialLink, TcpLink

_SHORTEST_ON_A_LINE: Final = 0.1  # seconds; below, a busy machine would make timeouts of its own
_SHORTEST_OVER_TCP: Final = 0.3  # a segment that is lost is sent again after 0.2 s
_STILL_OFFLINE: Final = (HOUR, 6 * HOUR, DAY)  # then once a day


@frozen
class Ask:
    """What one meter is to be asked in a round."""

    meter: MeterSettings
    registers: tuple[Register, ...]
    urgent: bool = False
    """The boundary of an interval: goes first."""
    by_hand: bool = False
    """A person wants to know: asked whatever is known of it."""


@frozen
class Round:
    """What came of a round: one sample an ask."""

    samples: tuple[Sample, ...]
    requests: int
    errors: int
    link_up: bool
    duration: float
    in_vain: float = 0.0
    """Seconds of requests that nothing came of."""
    down_for: float | None = None
    """Seconds until a link that is down is worth another try; None where it is not down."""


@define
class _Told:
    """What the log has said of a meter that is offline."""

    since: Millis = 0
    times: int = 0


class Poller:
    """Asks the meters of one bus; the only one who touches it."""

    def __init__(
        self,
        settings: BusSettings,
        meters: Sequence[MeterSettings],
        clock: Clock,
        *,
        random: random.Random,
        keep: Keep = lambda key, data: None,
        wire: Wire | None = None,
    ) -> None:
        """`wire`: what is asked over; a `Bus` of its own where none is given."""
        self._settings = settings
        self._clock = clock
        opening = max(m.profile.limits.pause_after_open for m in meters) if meters else 0
        paused = evolve(settings, pause_after_open=max(settings.pause_after_open, opening))
        self._wire = wire or Bus(paused, clock, random=random)
        self._line = Line(settings, self._wire, clock, random)
        self._budget = Budget(clock.monotonic())
        self._asking = asyncio.Lock()
        self.asking_since: float | None = None
        """Monotonic instant at which the round under way began."""
        self._on_a_line = isinstance(settings.link, SerialLink)
        self._readers: dict[str, MeterReader] = {}
        self._looked: dict[int, Unit] = {}
        """Units that somebody looked at, with what may still be on its way from them."""
        self._told: dict[str, _Told] = {}
        for meter in meters:
            unit = self._unit(meter)
            self._readers[meter.name] = MeterReader(settings, meter, unit, self._line, clock, keep)
            self._told[meter.name] = _Told()

    def _unit(self, meter: MeterSettings) -> Unit:
        return Unit(
            meter.name,
            meter.unit,
            longest=self._settings.timeout / 1000,
            shortest=_SHORTEST_ON_A_LINE if self._on_a_line else _SHORTEST_OVER_TCP,
            answer_time=meter.profile.limits.answer_time / 1000,
            since=self._clock.monotonic(),
        )

    def recall(self, learnt: Mapping[str, bytes]) -> None:
        """Go on from what `keep` was given before."""
        for reader in self._readers.values():
            reader.recall(learnt)

    def accept(self, meter: str) -> tuple[str, str]:
        """Take the meter that answers for the right one, but where the configuration has another:
        the serial number it was known by, and the one it has; empty for none.
        """
        return self._readers[meter].accept()

    def units(self) -> tuple[UnitReport, ...]:
        """Every meter of the bus."""
        return tuple(reader.unit.report() for reader in self._readers.values())

    def likely_cause(self, meter: str) -> str:
        """What is probably wrong with a meter that is silent or damaged; empty: nothing."""
        return likely_cause(self._readers[meter].unit.report(), self.units(), self.link())

    def link(self) -> LinkReport:
        """The line or endpoint itself."""
        return self._line.report()

    async def close(self) -> None:
        """Close the port or connection."""
        await self._wire.close()

    @contextlib.asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """Leave the line or endpoint alone while this is open: another program asks there."""
        async with self._asking:
            await self._wire.close()
            began = self._clock.monotonic()
            log("bus.lent", bus=self._settings.name)
            try:
                yield
            finally:
                lasted = _span(round((self._clock.monotonic() - began) * SECOND))
                log("bus.returned", bus=self._settings.name, **{"for": lasted})

    async def look(self, unit: int, reads: Sequence[Read]) -> tuple[Block | str, ...]:
        """What a unit gives for each of these reads, or the reason why nothing: be it a meter of
        the bus or none. It is a person who wants to know, and no meter is judged by it.

        Never raises for what a line or a unit does. A unit that stays silent is not asked for the
        rest.
        """
        async with self._at_work():
            try:
                return await self._look(unit, reads)
            finally:
                await self._hang_up()

    async def _look(self, number: int, reads: Sequence[Read]) -> tuple[Block | str, ...]:
        own = next((each for each in self._readers.values() if each.unit.unit == number), None)
        meter = own.meter if own else stranger(self._settings.name, number)
        unit = self._looked.setdefault(number, self._unit(meter))
        reader = MeterReader(self._settings, meter, unit, self._line, self._clock, forget)
        if own is None:
            return await look(reader, self._line, reads)
        # What may still be on its way could be taken for the answer to the other's next request.
        unit.doubts = own.unit.doubts
        try:
            return await look(reader, self._line, reads)
        finally:
            own.unit.doubts = unit.doubts

    # ------------------------------------------------------------------------------------ round

    async def round(self, asks: Sequence[Ask]) -> Round:
        """One pass: units that answer before those that do not, boundaries first.

        Never raises for what a line or a meter does; it is in the samples.
        """
        async with self._at_work():
            return await self._round(asks)

    @contextlib.asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        """Alone on the line, and seen to be by the watchdog."""
        async with self._asking:
            self.asking_since = self._clock.monotonic()
            try:
                yield
            finally:
                self.asking_since = None

    async def _round(self, asks: Sequence[Ask]) -> Round:
        began = self._clock.monotonic()
        before = self._tally()
        order = sorted(asks, key=self._turn)
        samples = tuple([await self._sample(ask) for ask in order])
        await self._hang_up()
        now = self._tally()
        return Round(
            samples,
            now.requests - before.requests,
            now.errors - before.errors,
            self._line.up,
            self._clock.monotonic() - began,
            now.in_vain - before.in_vain,
            self._line.down_for(),
        )

    async def _hang_up(self) -> None:
        link = self._settings.link
        if isinstance(link, TcpLink) and link.disconnect == "after_round":
            await self._wire.close()

    def _turn(self, ask: Ask) -> tuple[bool, bool, float]:
        """Who gave nothing last time comes last. Of the silent ones first who has waited longest:
        their time is short."""
        unit = self._reader(ask).unit
        return (
            unit.silent > 0 or unit.lost > 0,
            not ask.urgent,
            unit.next_try if unit.silent else 0.0,
        )

    def _reader(self, ask: Ask) -> MeterReader:
        return self._readers[ask.meter.name]

    def _tally(self) -> Tally:
        tallies = [reader.tally for reader in self._readers.values()]
        return Tally(
            sum(t.requests for t in tallies),
            sum(t.errors for t in tallies),
            sum(t.in_vain for t in tallies),
        )

    async def _sample(self, ask: Ask) -> Sample:
        reader = self._reader(ask)
        answer = Answer(self._clock, ask.registers)
        asked_before = reader.tally.requests
        if not await self._line.ready(at_once=ask.by_hand):
            answer.fail(ask.registers, "link_down")
        elif not ask.by_hand and not self._worth_asking(reader.unit, urgent=ask.urgent):
            answer.fail(ask.registers, "offline")
            self._judge(reader, answer)
        else:
            await self._read(reader, ask, answer)
            if reader.tally.requests > asked_before:
                self._judge(reader, answer)
        return answer.sample(ask.meter.name)

    async def _read(self, reader: MeterReader, ask: Ask, answer: Answer) -> None:
        unit, in_vain = reader.unit, reader.tally.in_vain
        was_alive, somebody_answered = not unit.silent, self._somebody_answers()
        try:
            await reader.read(ask.registers, answer)
        except LinkDown as error:
            self._line.lost(error)
            answer.fail(ask.registers, "link_down")
        now = self._clock.monotonic()
        if not somebody_answered and not unit.silent:
            self._budget.refill()
            for other in self._readers.values():
                other.unit.next_try = now
        elif self._somebody_answers() and not (was_alive and unit.seen):
            self._budget.spend(self._cost(reader.tally.in_vain - in_vain))

    # ------------------------------------------------------------------------------- its health

    def _somebody_answers(self) -> bool:
        """Is there a unit that what the silent ones cost would be taken from?"""
        return any(not reader.unit.silent for reader in self._readers.values())

    def _cost(self, waited: float) -> float:
        """Seconds of the bus that a wait in vain takes: a line is left quiet after it."""
        longest = self._settings.timeout / 1000
        return max(waited, min(2 * waited, longest)) if self._on_a_line else waited

    def _worth_asking(self, unit: Unit, *, urgent: bool) -> bool:
        """Is there time for it, if it does not answer?"""
        if not unit.silent:
            return True
        now = self._clock.monotonic()
        if not unit.due(now, urgent=urgent):
            return False
        if now >= unit.next_try and not self._somebody_answers():
            return True
        return self._budget.allows(self._cost(unit.waited_for), now)

    def _judge(self, reader: MeterReader, answer: Answer) -> None:
        """State changes are logged, repetitions counted."""
        unit, told = reader.unit, self._told[reader.meter.name]
        now = self._clock.monotonic()
        where = {"meter": reader.meter.name, "bus": self._settings.name, "unit": unit.unit}
        if (noise := unit.noise(now)) is not None:
            cause = self.likely_cause(reader.meter.name) or None
            errors, requests = noise
            kind = unit.reason
            log("meter.noisy", **where, errors=errors, requests=requests, kind=kind, cause=cause)
        if answer.blocks:
            if unit.state == "offline":
                gone = _span(self._clock.boottime() - told.since)
                log("meter.online", **where, lost=unit.lost, **{"for": gone})
            if unit.state != "online":
                unit.state, unit.since = "online", now
            unit.lost, unit.reason = 0, ""
            return
        reason = next(iter(answer.faults.values()), "")
        if reason == "link_down":
            return  # the line's fault, and said so; no unit is blamed
        if reason == "other_meter":  # said so too
            unit.reason = reason
            if unit.state != "offline":
                unit.state, unit.since, told.since = "offline", now, self._clock.boottime()
            return
        unit.lost += 1
        if reason != "offline":
            unit.reason = reason
        if unit.state == "offline":
            self._say_still_offline(unit, told, where)
        elif unit.lost >= (NEVER_SEEN_AFTER if unit.state == "unknown" else OFFLINE_AFTER):
            unit.state, unit.since = "offline", now
            told.since, told.times = self._clock.boottime(), 0
            cause = self.likely_cause(reader.meter.name) or None
            log("meter.offline", **where, reason=unit.reason, cause=cause)

    def _say_still_offline(self, unit: Unit, told: _Told, where: Mapping[str, object]) -> None:
        gone_for = self._clock.boottime() - told.since
        steps = _STILL_OFFLINE
        due = steps[told.times] if told.times < len(steps) else DAY * (told.times - 1)
        if gone_for >= due:
            told.times += 1
            span = {"for": _span(gone_for), "cause": self.likely_cause(unit.meter) or None}
            log("meter.still_offline", **where, reason=unit.reason, lost=unit.lost, **span)


def _span(millis: Millis) -> str:
    minutes, seconds = divmod(millis // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
