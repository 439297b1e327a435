"""Reading what a display is held against: the registers of a quantity, then those around them.

Few reads where all is right, more only where it is not. That a meter refuses a register which
nobody named is no failure: it has none there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from attrs import define, evolve, field, frozen

from gateway.errors import BadAnswer, DeviceException, MeterError
from gateway.metering.display import Shown
from gateway.metering.profile import SunSpec
from gateway.metering.reading import Block, RawWords
from gateway.metering.register import Encoding, Register
from gateway.metering.settings import MeterSettings
from gateway.metering.verifying import Candidate, Place, beside, candidates, places, terms
from gateway.modbus import discovery
from gateway.modbus.plan import Read, Timing, plan

Look: TypeAlias = Callable[[Sequence[Read]], Awaitable[Sequence[Block | str]]]
"""Asks one unit for several reads: the words, or the reason why there are none."""

_TIMING: Final = Timing(0.05, 0.002)
_NO_VALUE: Final = ("exception_2", "exception_3")
_SURE: Final = 3.4
"""Cost of a candidate that is sought no further: one mistake that people often make."""


@frozen
class Comparison:
    """What was read, and what explains the value shown."""

    raw: RawWords
    faults: dict[str, str]
    """Registers of the quantity that were not read, by name, with the reason."""
    candidates: tuple[Candidate, ...]
    requests: int


async def compare(meter: MeterSettings, quantity: str, shown: Shown, look: Look) -> Comparison:
    """Ask for the quantity and, where it is not what the display shows, around it."""
    asking = _Asking(meter, look)
    own = meter.profile.needs(quantity)
    await asking.ask(plan(own, meter.profile.limits, _TIMING))
    for part in own:
        if asking.raw.lookup(part) is None:
            asking.faults[part.name] = asking.reason(part)
    found = asking.explained(quantity, shown)
    if not any(one.exact and not one.mistakes for one in found) and not asking.silent:
        around = terms(meter, quantity)
        # Of those that were refused together one alone may be there.
        alone = (read for part in own for read in plan((part,), meter.profile.limits, _TIMING))
        for reads in (alone, _across(around, asking), _likely(around, asking, quantity)):
            await asking.ask(reads)
        found = asking.explained(quantity, shown)
        if not (found and _is_sure(found[0])):
            await asking.ask(_everywhere(around, asking))
            found = asking.explained(quantity, shown)
    return Comparison(asking.raw, asking.faults, tuple(found), asking.requests)


def _is_sure(best: Candidate) -> bool:
    return best.exact and best.cost < _SURE and "quantity" not in best.mistakes


@define
class _Asking:
    """One meter, and all it gave so far, at the addresses of its profile."""

    meter: MeterSettings
    look: Look
    raw: RawWords = field(factory=RawWords)
    requests: int = 0
    refused: dict[Read, str] = field(factory=dict)
    faults: dict[str, str] = field(factory=dict)
    """Of the quantity's own registers, when they were asked for as the profile says."""
    _place: discovery.Place | None = field(default=None, init=False)

    async def ask(self, reads: Iterable[Read]) -> None:
        """Ask for what is not known yet."""
        wanted = [
            read
            for read in dict.fromkeys(reads)
            if read not in self.refused and not self.has(read.function, read.address, read.count)
        ]
        if not wanted:
            return
        sunspec = self.meter.profile.sunspec
        if sunspec is not None and self._place is None:
            found = await self._locate(sunspec)
            if isinstance(found, str):
                self.refused.update(dict.fromkeys(wanted, found))
                return
            self._place = found
        there = [self._there(read) for read in wanted]
        self.requests += len(there)
        for read, answer in zip(wanted, await self.look(there), strict=True):
            if isinstance(answer, str):
                self.refused[read] = answer
            else:
                blocks = self._place.unshift(answer) if self._place else [answer]
                self.raw = RawWords((*self.raw.blocks, *blocks))

    def _there(self, read: Read) -> Read:
        return evolve(read, address=self._place.shift(read.address)) if self._place else read

    async def _locate(self, sunspec: SunSpec) -> discovery.Place | str:
        """Where a SunSpec meter has its registers, or why that is not known."""

        async def one(read: Read) -> Block:
            self.requests += 1
            (answer,) = await self.look([read])
            if isinstance(answer, Block):
                return answer
            if answer.startswith("exception_"):
                code = int(answer.removeprefix("exception_"))
                raise DeviceException("", self.meter.unit, str(read), code)
            raise BadAnswer("", self.meter.unit, str(read), answer, reason=answer)

        why = "exception_2"
        for base in sunspec.bases:
            try:
                if (place := await discovery.locate(sunspec, base, one)) is not None:
                    return place
            except MeterError as error:
                why = error.reason
        return why

    def explained(self, quantity: str, shown: Shown) -> list[Candidate]:
        """By what is known so far."""
        refused = {
            (read.function, read.address, read.count)
            for read, reason in self.refused.items()
            if reason in _NO_VALUE
        }
        return candidates(self.meter, quantity, self.raw, shown, refused, as_it_is=not self.faults)

    def has(self, function: int, address: int, words: int) -> bool:
        """Are all of these known?"""
        return self.raw.lookup(_bare(function, address, words)) is not None

    def reason(self, part: Register) -> str:
        """Why a register was not read."""
        for read, reason in self.refused.items():
            if read.holds(part):
                return reason
        return "not read"

    @property
    def silent(self) -> bool:
        """Has it answered nothing, not even a refusal?"""
        answered = self.raw.blocks or any(r.startswith("exception_") for r in self.refused.values())
        return not answered

    def knows(self, function: int) -> bool:
        """May it have such registers at all?"""
        return not any(
            read.function == function and reason == "exception_1"
            for read, reason in self.refused.items()
        )


def _bare(function: int, address: int, words: int) -> Register:
    return Register("", function, address, Encoding("string", words=words))


def _across(around: Sequence[Register], asking: _Asking) -> Iterator[Read]:
    """One read a function across the places nearby: a lax meter gives it."""
    limits = asking.meter.profile.limits
    for register in around:
        near: dict[int, list[int]] = {}
        for place in places(register):
            if "notation" not in place.mistakes:
                ends = (place.address, place.address + place.words)
                near.setdefault(place.function, []).extend(ends)
        for function, ends_of_all in near.items():
            first, end = min(ends_of_all), max(ends_of_all)
            if end - first <= limits.max_registers:
                yield from plan((_bare(function, first, end - first),), limits, _TIMING)


def _likely(around: Sequence[Register], asking: _Asking, quantity: str) -> Iterator[Read]:
    """The places where the whole register may be, and the registers of the same unit, which the
    profile knows how to ask for."""
    for register in around:
        yield from _reads(asking, (p for p in places(register) if p.words == register.count))
    profile = asking.meter.profile
    siblings = [part for register in beside(asking.meter, quantity) for part in register.parts]
    yield from plan(siblings, profile.limits, _TIMING, known=profile.registers)


def _everywhere(around: Sequence[Register], asking: _Asking) -> Iterator[Read]:
    """Each place alone: a strict meter gives only whole values."""
    for register in around:
        yield from _reads(asking, places(register))


def _reads(asking: _Asking, wanted: Iterable[Place]) -> Iterator[Read]:
    for place in wanted:
        if asking.knows(place.function):
            bare = _bare(place.function, place.address, place.words)
            yield from plan((bare,), asking.meter.profile.limits, _TIMING)
