"""The register map of one meter: its profile, where it stands, and what was seen to be refused.

From these follow the reads. Addresses of the profile are shifted where a SunSpec meter has its
registers elsewhere; refusals and cuts are kept by the profile's addresses. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from attrs import frozen

from gateway.clock import DAY, MINUTE, Instant, Millis
from gateway.metering.profile import DeviceProfile
from gateway.metering.reading import Block
from gateway.metering.register import Register
from gateway.modbus.discovery import Place
from gateway.modbus.plan import MAX_REGISTERS, Address, Read, Timing, plan

_VERSION: Final = 1
TOO_LONG: Final = 3
"""Exception "illegal data value": what a meter says to a count that it does not take."""


@frozen
class Lessons:
    """What a meter was seen to refuse: registers, each with the exception's code; where no
    request may reach over, as (function, address); the most registers of a request, None: as its
    profile says."""

    refused: tuple[tuple[Register, int], ...]
    splits: tuple[Address, ...]
    max_registers: int | None = None

    def __bool__(self) -> bool:
        return bool(self.refused or self.splits or self.max_registers)


@frozen
class Refusal:
    """A register that the meter would not give. It is asked for again, alone, after a pause that
    doubles up to a day, or stays a minute where it tells who the meter is and no value is taken
    before: a meter that starts up may refuse everything for a while."""

    code: int
    at: Instant
    pause: Millis = MINUTE

    def over(self, now: Instant) -> bool:
        """Is it time to ask again? A clock that was set back does not keep it from that."""
        return not self.at <= now < self.at + self.pause


class RegisterMap:
    """What can be read of one meter, and in which reads."""

    def __init__(self, profile: DeviceProfile) -> None:
        self.place: Place | None = None
        self.base = 0
        """Which base a SunSpec meter is looked for at next."""
        self._limits = profile.limits
        everything = (*profile.registers, *profile.identity_registers())
        self._named = tuple(dict.fromkeys(part for one in everything for part in one.parts))
        self._telling = {(r.function, r.address) for r in profile.identity_registers()}
        self._refused: dict[Address, Refusal] = {}
        self._cuts: set[Address] = set()
        self._fits: dict[int, int] = {}
        """Function to the most registers of a read that was answered, and …"""
        self._too_long: dict[int, int] = {}
        """… to the fewest that were too many: only known where there was one."""
        self._plans: dict[tuple[tuple[Register, ...], int], tuple[Read, ...]] = {}

    # ------------------------------------------------------------------------------- the reads

    def reads(
        self, registers: Sequence[Register], timing: Timing, now: Instant
    ) -> tuple[tuple[Read, ...], dict[Register, int]]:
        """The planned reads, those of registers that were refused alone and only now and then;
        and the registers that are left out this time, with the code of their refusal."""
        again: list[Register] = []
        left_out: dict[Register, int] = {}
        for register in registers if self._refused else ():
            refusal = self._refused.get((register.function, register.address))
            if refusal is not None and refusal.over(now):
                again.append(register)
            elif refusal is not None:
                left_out[register] = refusal.code
        given = tuple(registers)
        if self._refused:
            given = tuple(r for r in given if (r.function, r.address) not in self._refused)
        # What a plan depends on is how many registers a request costs; above 125 not even on that.
        key = given, min(round(timing.request / timing.register), MAX_REGISTERS + 1)
        planned = self._plans.get(key)
        if planned is None:
            planned = self._plans[key] = self._plan(given, timing)
        if not again:
            return planned, left_out
        alone = (read for register in again for read in self._plan((register,), timing))
        return (*planned, *alone), left_out

    def inside(self, read: Read, registers: Iterable[Register]) -> list[Register]:
        """Which of these registers a read holds."""
        return [r for r in registers if read.holds(self._there(r))]

    def halves(self, read: Read, inside: Sequence[Register], timing: Timing) -> list[Read]:
        """The reads to ask instead of one that was refused; none where it cannot be parted."""
        middle = _middle(inside)
        halves = (
            [r for r in inside if r.address < middle],
            [r for r in inside if r.address >= middle],
        )
        parts = [part for half in halves for part in self._plan(half, timing)]
        return [] if not halves[0] or read in parts else parts

    def probe(self, doubted: Collection[tuple[int, int]], timing: Timing) -> Read:
        """A short read of a shape that is not in doubt."""
        reads = {
            read
            for register in self._named
            if (register.function, register.address) not in self._refused
            for read in self._plan((register,), timing)
        }
        short = sorted(reads, key=lambda r: (r.count, r.function, r.address))
        for read in short:
            if read.shape not in doubted:
                return read
        # All are in doubt, or refused. What is refused for its length shows as much.
        first = short[0] if short else Read(3, 0, 1)
        step = 8 if first.function < 3 else 1 + self._limits.even
        counts = (first.count + n * step for n in range(1, MAX_REGISTERS))
        longer = (Read(first.function, first.address, count) for count in counts)
        return next((read for read in longer if read.shape not in doubted), first)

    def blocks(self, block: Block) -> Sequence[Block]:
        """An answer at the addresses of the profile."""
        return self.place.unshift(block) if self.place else (block,)

    def _there(self, register: Register) -> Register:
        return self.place.moved(register) if self.place else register

    def _plan(self, registers: Iterable[Register], timing: Timing) -> tuple[Read, ...]:
        shift = self.place.shift if self.place else int
        return plan(
            map(self._there, registers),
            self._limits,
            timing,
            known=map(self._there, self._named),
            refused={(function, shift(address)) for function, address in self._refused},
            cuts={(function, shift(address)) for function, address in self._cuts},
            longest={function: self._longest(function) for function in self._too_long},
        )

    def _longest(self, function: int) -> int:
        """The next one to try: half way between what is taken and what is not."""
        return max(1, (self._fits.get(function, 1) + self._too_long[function]) // 2)

    # ---------------------------------------------------------------------------- what is learnt

    def refuse(self, register: Register, code: int, now: Instant) -> bool:
        """It was asked for alone and refused; is that news?"""
        address = register.function, register.address
        before = self._refused.get(address)
        longest = MINUTE if address in self._telling else DAY
        pause = min(2 * before.pause, longest) if before else MINUTE
        self._refused[address] = Refusal(code, now, pause)
        self._plans.clear()
        return before is None

    @property
    def has_refusals(self) -> bool:
        """Is a register known to be refused?"""
        return bool(self._refused)

    def give(self, registers: Iterable[Register]) -> bool:
        """These were given; is that news of one of them?"""
        addresses = {(r.function, r.address) for r in registers} & self._refused.keys()
        for address in addresses:
            del self._refused[address]
        if addresses:
            self._plans.clear()
        return bool(addresses)

    def cut(self, inside: Sequence[Register]) -> None:
        """The whole was refused and both halves were given: its length or the joint is at fault,
        and it is not asked so again."""
        self._cuts.add((inside[0].function, _middle(inside)))
        self._plans.clear()

    def too_long(self, read: Read) -> None:
        """The whole was refused for its length, and both halves were given."""
        self._too_long[read.function] = read.count
        if self._fits.get(read.function, 0) >= read.count:
            self._fits[read.function] = 1  # it took more once: another device, or another setting
        self._plans.clear()

    def took(self, read: Read) -> bool:
        """A read was answered; is it the longest since one was too long?"""
        function = read.function
        if function not in self._too_long or read.count <= self._fits.get(function, 0):
            return False
        self._fits[function] = read.count
        self._plans.clear()
        return True

    def settle(self, place: Place | None) -> None:
        """Where a SunSpec meter was found."""
        self.place = place
        self._plans.clear()

    def learnt(self) -> bytes:
        """What `recall` goes on from."""
        found = {
            "version": _VERSION,
            "refused": [[*a, r.code, r.at, r.pause] for a, r in sorted(self._refused.items())],
            "cuts": sorted(self._cuts),
            "lengths": [[f, self._fits.get(f, 1), most] for f, most in self._too_long.items()],
            "base": self.base,
        }
        return json.dumps(found, separators=(",", ":")).encode()

    def lessons(self) -> Lessons:
        """What was learnt, for people to put into a profile."""
        refused = (
            (register, self._refused[at].code)
            for register in self._named
            if (at := (register.function, register.address)) in self._refused
        )
        longest = min((self._fits.get(function, 1) for function in self._too_long), default=None)
        return Lessons(tuple(refused), tuple(sorted(self._cuts)), longest)

    def recall(self, learnt: bytes) -> None:
        """Go on from what was learnt; what cannot be read is learnt again."""
        try:
            found: Any = json.loads(learnt)
            if found["version"] != _VERSION:
                return
            refused = {(f, a): Refusal(*map(int, rest)) for f, a, *rest in found["refused"]}
            cuts = {(int(function), int(address)) for function, address in found["cuts"]}
            lengths = [(int(f), int(fits), int(most)) for f, fits, most in found["lengths"]]
            base = int(found["base"])
        except (ValueError, TypeError, KeyError):
            return
        self._refused, self._cuts, self.base = refused, cuts, base
        self._fits = {function: fits for function, fits, _ in lengths}
        self._too_long = {function: most for function, _, most in lengths}


def _middle(inside: Sequence[Register]) -> int:
    """Where the second half of these registers begins."""
    starts = sorted({r.address for r in inside})
    return starts[len(starts) // 2]
