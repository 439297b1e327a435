"""One meter on a bus: in which reads it is asked, how often again, and what it was seen to refuse.

After a timeout, or an answer that could not be trusted, what comes late could be taken for the
answer to the next request of the same shape. Over a line nothing else tells them apart, so a
request of another shape has to be answered before.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar

from attrs import define

from gateway.clock import Clock
from gateway.errors import BadAnswer, DeviceException, LinkDown, MeterError, MeterTimeout
from gateway.logbook import LOGGER, log
from gateway.metering.inquiry import Inquiry, Told
from gateway.metering.reading import Block, RawWords, Sample
from gateway.metering.register import Register
from gateway.metering.settings import MeterSettings
from gateway.modbus.discovery import locate
from gateway.modbus.health import Unit
from gateway.modbus.identity import Identification, Shown
from gateway.modbus.line import Line
from gateway.modbus.map import TOO_LONG, RegisterMap
from gateway.modbus.plan import Question, Read, Timing
from gateway.modbus.settings import BusSettings

Keep: TypeAlias = Callable[[str, bytes], None]
"""Takes a key and what was learnt, to be kept over a restart; by and by is soon enough."""

_T = TypeVar("_T")

_ASSUMED_TURNAROUND: Final = 0.01  # seconds, before a unit was heard
_BUSY_PAUSE: Final = 0.1  # seconds, before a busy unit (exceptions 5 and 6) is asked again
_REFUSES = (1, 2, 3)
_BUSY = (5, 6)
_NO_PATH = 10
_GATEWAY_TIMEOUT = 11


def map_key(meter: MeterSettings) -> str:
    """What is learnt of its registers is kept under; another meter learns anew."""
    return f"modbus/{_place(meter)}"


def _place(meter: MeterSettings) -> str:
    return f"{meter.bus}/{meter.name}/{meter.unit}/{meter.profile.name}"


@define
class Tally:
    """Requests, how many of them failed, and the seconds of those that nothing came of."""

    requests: int = 0
    errors: int = 0
    in_vain: float = 0.0


class Answer:
    """What one meter answered so far in a round."""

    def __init__(self, clock: Clock, registers: tuple[Register, ...]) -> None:
        self._clock = clock
        self.registers = registers
        self.blocks: list[Block] = []
        self.told: list[Told] = []
        self.faults: dict[str, str] = {}
        self._at = clock.now()
        self._boottime = self._until = clock.boottime()

    def add(self, blocks: Iterable[Block]) -> None:
        """Answers that can be trusted."""
        if not self.blocks:
            self._at, self._boottime = self._clock.now(), self._clock.boottime()
        self._until = self._clock.boottime()
        self.blocks.extend(blocks)

    @property
    def raw(self) -> RawWords:
        """All words so far."""
        return RawWords(tuple(self.blocks))

    @property
    def shown(self) -> Shown:
        """What it says of what it is."""
        return Shown(self.raw, tuple(self.told))

    def fail(self, registers: Iterable[Register], reason: str) -> None:
        """These were not read; the first reason stays."""
        raw = self.raw
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
            self.raw,
            self.faults,
            self._clock.synchronised(),
            self._until - self._boottime if self.blocks else 0,
        )


class MeterReader:
    """Asks one meter, over a line that all meters of the bus share."""

    def __init__(
        self,
        settings: BusSettings,
        meter: MeterSettings,
        unit: Unit,
        line: Line,
        clock: Clock,
        keep: Keep,
    ) -> None:
        self.meter = meter
        self.unit = unit
        self.tally = Tally()
        self._map_key, self._serial_key = map_key(meter), f"serial/{_place(meter)}"
        self._settings = settings
        self._line = line
        self._clock = clock
        self._keep = keep
        # A serial server may give a late answer to whoever is connected then.
        self._told_apart = settings.link.framing in ("tcp", "tls")
        self._map = RegisterMap(meter.profile)
        self._identity = Identification(meter)
        self._outages = line.outages

    # ------------------------------------------------------------------------------- the round

    async def read(self, registers: tuple[Register, ...], answer: Answer) -> None:
        """Ask for these registers. What the unit or a gateway does ends in the answer's faults.

        Raises LinkDown.
        """
        last_answer = self.unit.last_answer
        if self._outages != self._line.outages:  # another device may be at the other end now
            self._outages, last_answer = self._line.outages, None
            self._map.settle(None)
        try:
            if self.unit.silent:
                await self._probe()
            await self._find_place()
            await self._identify(last_answer)
            if refusal := self._identity.refusal:
                answer.fail(registers, refusal)
                return
            await self._ask_all(registers, answer)
            await self._look_behind()
        except MeterError as error:
            answer.fail(registers, error.reason)

    async def _ask_all(self, registers: tuple[Register, ...], answer: Answer) -> None:
        reads, left_out = self._map.reads(registers, self._timing(), self._clock.now())
        for register, code in left_out.items():
            answer.fail((register,), f"exception_{code}")
        for read in reads:
            await self._ask(read, registers, answer)

    async def _ask(self, read: Read, registers: Sequence[Register], answer: Answer) -> bool:
        """One read, in parts where the whole is refused; was all of it given?

        Raises LinkDown; MeterTimeout, a gateway's exceptions and the last of many answers that
        cannot be trusted, after which nothing more is to be had of the unit.
        """
        try:
            block = await self._trusted(read)
        except DeviceException as error:
            if error.code in (_NO_PATH, _GATEWAY_TIMEOUT):
                raise
            inside = self._map.inside(read, registers)
            if error.code in _REFUSES:
                return await self._split(read, inside, error, answer)
            answer.fail(inside, error.reason)
            return False
        except BadAnswer as error:
            answer.fail(self._map.inside(read, registers), error.reason)
            await self._go_on(error)
            return False
        answer.add(self._map.blocks(block))
        news = self._map.took(read)
        if self._map.has_refusals:
            news |= self._map.give(self._map.inside(read, registers))
        if news:
            self._learnt()
        return True

    async def _go_on(self, error: BadAnswer) -> None:
        """After an answer that cannot be trusted: one of too many, or one that cost the connection,
        ends the round."""
        if self.unit.silent:
            raise error
        if not await self._line.ready():
            raise LinkDown(self._settings.name, "the connection was lost") from error

    async def words(self, read: Read) -> Block:
        """What the unit gives for one read, whatever its profile knows of that.

        Raises MeterError, LinkDown.
        """
        return await self._trusted(read)

    async def _trusted(self, read: Read) -> Block:
        return await self._until_trusted(read, self._line.wire.read)

    async def _until_trusted(self, question: Question, ask: Callable[..., Awaitable[_T]]) -> _T:
        """Ask until the answer can be trusted, at most `retries` times more."""
        left = self._settings.retries
        while True:
            waited = self.unit.timeout(question)
            try:
                if self.unit.silent or self.unit.doubtful(question, self._clock.monotonic()):
                    await self._probe()
                return await self._once(question, ask)
            except LinkDown:
                if not left or not await self._line.renewed():
                    raise
            except MeterTimeout:
                if not left or not self.unit.worth_another(waited):
                    raise
                if not await self._line.ready():
                    raise
            except BadAnswer:
                if not left or self.unit.silent or not await self._line.ready():
                    raise
            except DeviceException as error:
                if error.code not in _BUSY or not left:
                    raise
                await self._clock.sleep(_BUSY_PAUSE)
            left -= 1

    async def _once(self, question: Question, ask: Callable[..., Awaitable[_T]]) -> _T:
        unit, line = self.unit, self._line
        began = self._clock.monotonic()
        self.tally.requests += 1
        outcome = "link_down"
        try:
            pause = self.meter.profile.limits.pause / 1000
            timeout = unit.timeout(question)
            answer = await ask(unit.unit, question, timeout=timeout, pause=pause)
        except LinkDown:
            self._doubt(question)
            self.tally.errors += 1
            raise
        except MeterError as error:
            outcome = error.reason
            self.tally.errors += 1
            if not isinstance(error, DeviceException) or error.code == _GATEWAY_TIMEOUT:
                self.tally.in_vain += self._clock.monotonic() - began
            self._judge(question, error)
            raise
        else:
            outcome = "ok"
            line.heard()
            unit.answered(question, line.wire.turnaround, self._clock.monotonic())
            return answer
        finally:
            if LOGGER.isEnabledFor(logging.DEBUG):
                took = f"{(self._clock.monotonic() - began) * 1000:.1f}ms"
                log(
                    "modbus.request",
                    bus=self._settings.name,
                    unit=unit.unit,
                    block=question,
                    duration=took,
                    outcome=outcome,
                )

    def _judge(self, question: Question, error: MeterError) -> None:
        """What an error says of the unit, and of the line."""
        unit, now = self.unit, self._clock.monotonic()
        if isinstance(error, DeviceException):
            self._line.heard()
            if error.code == _GATEWAY_TIMEOUT:
                unit.fell_silent(question, error.reason, now)
            elif error.code == _NO_PATH:
                unit.failed(question, error.reason)
            else:
                unit.errors[error.reason] += 1
                unit.reason = error.reason
                unit.answered(question, self._line.wire.turnaround, now)
            return
        self._line.works()
        self._doubt(question)
        if isinstance(error, MeterTimeout):
            unit.fell_silent(question, error.reason, now)
        else:
            unit.garbled(question, error.reason, now)

    def _doubt(self, question: Question) -> None:
        if not self._told_apart:
            self.unit.doubts[question] = self._clock.monotonic()

    # ------------------------------------------------------------------------------ the probe

    async def _probe(self) -> None:
        """One short read of another shape than the one that is in doubt. Its words are not used:
        once it was answered, no answer to what went before can come.
        """
        unit = self.unit
        doubted = unit.doubted(self._clock.monotonic())
        try:
            await self._once(self._map.probe(doubted, self._timing()), self._line.wire.read)
        except DeviceException as error:
            if error.code in (_NO_PATH, _GATEWAY_TIMEOUT):
                raise
            if doubted:
                # Or was it a late answer to one in doubt? Exceptions look alike: wait until
                # nothing is likely to come any more.
                await self._clock.sleep(unit.longest)
        unit.doubts.clear()

    def _timing(self) -> Timing:
        turnaround = self.unit.turnaround
        if turnaround is None:
            turnaround = _ASSUMED_TURNAROUND
        pause = max(self._settings.pause, self.meter.profile.limits.pause)
        return Timing.of(self._settings.link, turnaround, pause)

    # ---------------------------------------------------------------------------- what is learnt

    async def _split(
        self, read: Read, inside: Sequence[Register], error: DeviceException, answer: Answer
    ) -> bool:
        """Ask for the halves of a read that was refused; False where a register is at fault."""
        parts = self._map.halves(read, inside, self._timing())
        if not parts:
            for register in inside:
                news = self._map.refuse(register, error.code, self._clock.now())
                if news and not self._identity.uses(register):
                    self._say_refused(register, error.code)
            answer.fail(inside, error.reason)
        given = bool(parts)
        for part in parts:
            given &= await self._ask(part, inside, answer)
        if given and error.code == TOO_LONG:
            self._map.too_long(read)
        elif given:
            self._map.cut(inside)
        self._learnt()
        return given

    def _say_refused(self, register: Register, code: int) -> None:
        log(
            "meter.register_refused",
            meter=self.meter.name,
            bus=self._settings.name,
            unit=self.unit.unit,
            register=register.name,
            exception=code,
        )

    def _learnt(self) -> None:
        self._keep(self._map_key, self._map.learnt())

    def recall(self, learnt: Mapping[str, bytes]) -> None:
        """Go on from what `keep` was given before."""
        if (known := learnt.get(self._map_key)) is not None:
            self._map.recall(known)
        if (number := learnt.get(self._serial_key)) is not None:
            self._identity.recall(number.decode(errors="replace"))

    def accept(self) -> tuple[str, str]:
        """Take the meter that answers for the right one: the serial number it was known by, and
        the one it has; empty for none."""
        before, number = self._identity.wanted, self._identity.accept()
        if (known := self._identity.wanted) != before:
            self._keep(self._serial_key, known.encode())
        return before, number

    # ------------------------------------------------------------------------- who answers, where

    async def _identify(self, last_answer: float | None) -> None:
        """Read its serial number, if that is to be known before its values are taken."""
        serial = self._identity.before(self._clock.monotonic(), last_answer)
        if serial is not None:
            found = Answer(self._clock, ())
            await self._ask_what_it_is((serial,), found)
            for event, fields in self._identity.serial_read(found.shown, self._clock.monotonic()):
                log(event, **fields)

    async def _look_behind(self) -> None:
        """Read what tells its model, and its number where none is known, now and then; a meter may
        be silent to that."""
        if wanted := self._identity.behind(self._clock.monotonic()):
            found = Answer(self._clock, ())
            with contextlib.suppress(MeterError):
                await self._ask_what_it_is(wanted, found)
            for event, fields in self._identity.models_read(found.shown):
                log(event, **fields)
            if number := self._identity.first_told(found.shown, self._clock.monotonic()):
                self._keep(self._serial_key, number.encode())

    async def _ask_what_it_is(self, wanted: Sequence[Register | Inquiry], found: Answer) -> None:
        """Registers first: a meter may be silent to functions that it does not know."""
        await self._ask_all(tuple(one for one in wanted if isinstance(one, Register)), found)
        for one in wanted:
            if isinstance(one, Inquiry) and found.shown.by(one) is None:
                await self._inquire(one, found)

    async def _inquire(self, inquiry: Inquiry, found: Answer) -> None:
        try:
            found.told.append(await self._until_trusted(inquiry, self._line.wire.identify))
        except DeviceException as error:
            if error.code in (_NO_PATH, _GATEWAY_TIMEOUT):
                raise
        except BadAnswer as error:
            await self._go_on(error)

    async def _find_place(self) -> None:
        """Where a SunSpec meter has its registers; each base is tried in turn."""
        sunspec, known = self.meter.profile.sunspec, self._map
        if sunspec is None or known.place is not None:
            return
        for _ in sunspec.bases:
            try:
                base = sunspec.bases[known.base % len(sunspec.bases)]
                place = await locate(sunspec, base, self._trusted)
            except MeterError:
                known.base += 1  # perhaps it is silent only where it has nothing
                raise
            if place is not None:
                known.settle(place)
                self._learnt()
                return
            known.base += 1
        raise DeviceException(self._settings.name, self.unit.unit, "SunSpec meter model", 2)
