"""Finding the meters of a line: which settings and units are asked, in what order, and how long.

Every unit is asked for two registers; whatever answers, be it with an exception, is there. The
likely settings and units come first, so that most lines are known after a minute of many. Nothing
is sent but reads of functions 3 and 4, and of those that profiles name; and to a unit that no
profile knows one request for what it tells of itself (43/14).
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Final, TypeAlias, TypeVar

from attrs import evolve, frozen

from gateway.clock import Clock
from gateway.errors import BadAnswer, DeviceException, LinkDown, MeterTimeout
from gateway.metering.inquiry import IDENTIFICATION, Inquiry, Told
from gateway.metering.profile import DeviceProfile
from gateway.metering.reading import Block
from gateway.modbus.line import Wire
from gateway.modbus.plan import Question, Read, character_time, silence_time
from gateway.modbus.recognising import Claim, Witness, recognise
from gateway.modbus.settings import Link, Parity, SerialLink

BAUDRATES: Final = (9600, 19200, 2400, 38400, 115200, 4800, 57600, 1200)
PARITIES: Final[tuple[Parity, ...]] = ("none", "even", "odd")
_FIRST: Final[tuple[tuple[int, Parity], ...]] = (
    (9600, "none"),
    (9600, "even"),
    (19200, "even"),
    (19200, "none"),
)
"""How most meters leave the factory; 19200 8E1 is what the standard asks for."""
_FIRST_UNITS: Final = 10

PROBE: Final = Read(3, 0, 2)
"""An even start and an even count, which no meter refuses without a word."""
_T = TypeVar("_T")
_NAME: Final = Inquiry(IDENTIFICATION, 2)
"""The last of the texts that each device has which tells any: maker, product code, revision."""
_OVERHEAD: Final = 0.015
"""Seconds that asking takes besides the wire and the wait."""
_ABSENT: Final = (10, 11)
"""Exceptions by which a gateway says that nobody is there (Modbus v1.1b3, §7)."""
_TRIES: Final = 3
"""An answer that cannot be trusted is asked for so often."""
_PATIENCE: Final = 4
"""A unit that was heard too late is given so many times the wait."""
_RECONNECTS: Final = 3
_RECONNECT_PAUSE: Final = 0.5  # seconds
_SAME: Final = 3
"""So many units that show one serial number are one device that answers to every unit."""


@frozen
class Step:
    """Units to be asked with one setting."""

    link: Link
    units: tuple[int, ...]


@frozen
class Asked:
    """One unit was asked; `left`: seconds to go, as far as can be told."""

    link: Link
    unit: int
    done: int
    total: int
    left: float


@frozen
class Refused:
    """The port does not take a setting: it was passed over."""

    link: Link
    reason: str


@frozen
class Found:
    """A unit that answers."""

    link: Link
    unit: int
    claims: tuple[Claim, ...]
    """Profiles that it may have, the likeliest first; none: it is unknown."""
    blocks: tuple[Block, ...]
    """All that it gave."""
    refused: tuple[tuple[Read, str], ...]
    """What it did not, and why."""
    told: tuple[Told, ...] = ()
    """What it tells of itself."""

    @property
    def certain(self) -> bool:
        """Did it name its model?"""
        return bool(self.claims) and bool(self.claims[0].named_by)


@frozen
class Damaged:
    """Something answers, and not one answer of it can be trusted."""

    link: Link
    unit: int
    reason: str


@frozen
class AnswersToAll:
    """The device answers to every unit: the others are not asked."""

    link: Link
    unit: int


Event: TypeAlias = Asked | Refused | Found | Damaged | AnswersToAll


def settings(
    link: SerialLink, baudrates: Iterable[int], parities: Iterable[Parity]
) -> tuple[SerialLink, ...]:
    """Every setting to try, the likely ones first; that of the link before all if it is one."""
    rates, kinds = tuple(baudrates), tuple(parities)
    pairs = [(rate, parity) for parity in kinds for rate in rates]
    own = (link.baudrate, link.parity)
    order = [own, *_FIRST]
    ranked = sorted(pairs, key=lambda pair: order.index(pair) if pair in order else len(order))
    return tuple(
        link if pair == own else evolve(link, baudrate=pair[0], parity=pair[1], stopbits=1)
        for pair in ranked
    )


def steps(
    links: Sequence[Link], units: Sequence[int], profiles: Iterable[DeviceProfile]
) -> tuple[Step, ...]:
    """The likely units with every setting, then all others."""
    likely = {profile.serial.unit for profile in profiles} | set(range(1, _FIRST_UNITS + 1))
    first = tuple(unit for unit in units if unit in likely)
    rest = tuple(unit for unit in units if unit not in likely)
    if len(links) == 1:
        return (Step(links[0], first + rest),)
    return tuple(Step(link, some) for some in (first, rest) if some for link in links)


def seconds(todo: Iterable[Step], wait: float) -> float:
    """How long steps take where nobody answers; each unit that does takes a few seconds more."""
    return sum(len(step.units) * seconds_a_unit(step.link, wait) for step in todo)


def seconds_a_unit(link: Link, wait: float) -> float:
    """How long a unit that is not there takes."""
    if not isinstance(link, SerialLink):
        return wait + _OVERHEAD
    characters = 28 + 2 * PROBE.data_bytes if link.framing == "ascii" else 13 + PROBE.data_bytes
    return characters * character_time(link) + wait + silence_time(link) + _OVERHEAD


class Scan:
    """Asks everybody. `wire` gives what a link is asked over."""

    def __init__(
        self,
        profiles: Sequence[DeviceProfile],
        wire: Callable[[Link], Wire],
        clock: Clock,
        *,
        wait: float,
    ) -> None:
        self._profiles = profiles
        self._wire = wire
        self._clock = clock
        self._wait = wait
        """Seconds that a unit may take to begin its answer."""
        self._pause = max((p.limits.pause for p in profiles), default=0) / 1000
        """Silence that some model needs between two requests."""
        self._taken: set[tuple[int, int]] = set()
        """Baud rate and unit of those found: they could answer with another parity as well."""
        self._refused: set[Link] = set()

    async def run(self, todo: Sequence[Step]) -> AsyncGenerator[Event, None]:
        """Raises LinkDown where the port or the connection cannot be had, or is lost."""
        total, done = sum(len(step.units) for step in todo), 0
        for number, step in enumerate(todo):
            if step.link not in self._refused:
                later = todo[number + 1 :]
                async with aclosing(self._step(step)) as events:
                    async for event in events:
                        if isinstance(event, Asked):
                            event = evolve(event, done=done + event.done, total=total)
                            event = evolve(event, left=event.left + self._seconds(later))
                        yield event
            done += len(step.units)

    def _seconds(self, later: Iterable[Step]) -> float:
        return seconds((step for step in later if step.link not in self._refused), self._wait)

    async def _step(self, step: Step) -> AsyncGenerator[Event, None]:
        link, units = step.link, step.units
        wire = self._wire(link)
        try:
            await wire.open()
        except LinkDown as error:
            if not _refuses(link, error):
                raise
            self._refused.add(link)
            yield Refused(link, str(error))
            return
        seen: Counter[tuple[str, str]] = Counter()
        try:
            for number, unit in enumerate(units):
                before = units[number - 1] if number else None
                for event in await self._unit(wire, link, unit, before):
                    yield event
                    if isinstance(event, Found) and _is_everywhere(event, seen):
                        yield AnswersToAll(link, unit)
                        return
                rest = Step(link, units[number + 1 :])
                yield Asked(link, unit, number + 1, len(units), seconds([rest], self._wait))
        finally:
            await wire.close()

    async def _unit(self, wire: Wire, link: Link, unit: int, before: int | None) -> list[Event]:
        """What there is to tell of a unit, and of the one before it that may have been late."""
        if self._is_taken(link, unit):
            return []
        found: list[Event] = []
        state = await self._state(wire, unit, self._wait)
        late = state == "unit" and link.framing not in ("tcp", "tls")
        if late and before is not None and not self._is_taken(link, before):
            patience = _PATIENCE * self._wait
            await self._clock.sleep(patience)
            if await self._state(wire, before, patience) == "there":
                found.append(await self._look(wire, link, before, patience))
            state = await self._state(wire, unit, self._wait)
        if state == "there":
            found.append(await self._look(wire, link, unit, self._wait))
        elif state != "absent" and not late:
            found.append(Damaged(link, unit, state))
        return found

    def _is_taken(self, link: Link, unit: int) -> bool:
        return (_baudrate(link), unit) in self._taken

    async def _state(self, wire: Wire, unit: int, wait: float) -> str:
        """there, absent, or the reason why no answer could be trusted."""
        reason = ""
        for _ in range(_TRIES):
            try:
                await self._request(wire, unit, PROBE, wire.read, wait, 0)
            except MeterTimeout:
                return reason or "absent"
            except BadAnswer as error:
                reason = error.reason
                if reason == "unit":
                    break
            except DeviceException as error:
                return "absent" if error.code in _ABSENT else "there"
            else:
                return "there"
        return reason

    async def _look(self, wire: Wire, link: Link, unit: int, wait: float) -> Found:
        async def patiently(question: Question, ask: Callable[..., Awaitable[_T]]) -> _T:
            try:
                return await self._request(wire, unit, question, ask, wait, self._pause)
            except MeterTimeout:
                await self._clock.sleep(wait)  # what comes late must not meet the next request
                raise

        witness = Witness(
            unit,
            lambda read: patiently(read, wire.read),
            lambda inquiry: patiently(inquiry, wire.identify),
        )
        claims = await recognise(self._profiles, witness)
        if not claims:
            await witness.says(_NAME)
        self._taken.add((_baudrate(link), unit))
        blocks, refused = tuple(witness.blocks.values()), tuple(witness.refused.items())
        return Found(link, unit, claims, blocks, refused, tuple(witness.told))

    async def _request(
        self,
        wire: Wire,
        unit: int,
        question: Question,
        ask: Callable[..., Awaitable[_T]],
        wait: float,
        pause: float,
    ) -> _T:
        """Ask once; a connection that a device closed is made again."""
        left = _RECONNECTS
        while True:
            try:
                if not wire.is_open:
                    await wire.open()
                return await ask(unit, question, timeout=wait, pause=pause)
            except LinkDown:
                if not left:
                    raise
            left -= 1
            await self._clock.sleep(_RECONNECT_PAUSE)


def _baudrate(link: Link) -> int:
    return link.baudrate if isinstance(link, SerialLink) else 0


def _refuses(link: Link, error: LinkDown) -> bool:
    """Is it the setting that the port does not take?"""
    cause = error.__cause__
    if not isinstance(link, SerialLink) or cause is None:
        return False
    return isinstance(cause, ValueError) or errno.EINVAL in cause.args[:1]


def _is_everywhere(found: Found, seen: Counter[tuple[str, str]]) -> bool:
    """Is it one device that answers to every unit? Only over TCP there is that."""
    if isinstance(found.link, SerialLink) or not found.claims:
        return False
    serial_number = found.claims[0].serial_number
    if not serial_number:
        return False
    key = (found.claims[0].profile.name, serial_number)
    seen[key] += 1
    return seen[key] >= _SAME
