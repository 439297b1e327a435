"""Finding where a SunSpec meter's registers stand.

SunSpec Device Information Model Specification v1.1, §6: the marker "SunS" at one of three base
addresses, then models one after the other, each an id and a length; 0xFFFF ends the chain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from attrs import frozen

from gateway.errors import DeviceException
from gateway.metering.profile import SunSpec
from gateway.metering.reading import Block
from gateway.metering.register import Register
from gateway.modbus.plan import Read

_MARKER: Final = (0x5375, 0x6E53)
_END: Final = 0xFFFF
_MOST_MODELS: Final = 64
FUNCTION: Final = 3

Reader = Callable[[Read], Awaitable[Block]]


@frozen
class Place:
    """How far a meter's registers stand from where its profile has them."""

    common: int
    """What to add to addresses of the common block."""
    model: int
    """What to add to addresses of the meter model, from its header on."""
    header: int
    """The header's address in the profile."""

    def shift(self, address: int) -> int:
        """Where an address of the profile is on this meter."""
        return address + (self.model if address >= self.header else self.common)

    def unshift(self, block: Block) -> Block:
        """A block of this meter at the addresses of the profile."""
        model = block.address >= self.header + self.model
        moved = self.model if model else self.common
        return Block(block.function, block.address - moved, block.words)

    def moved(self, register: Register) -> Register:
        """A register of the profile where this meter has it."""
        from attrs import evolve

        return evolve(register, address=self.shift(register.address))


async def locate(sunspec: SunSpec, read: Reader) -> Place | None:
    """Find the meter model; None where the unit has no such model.

    Raises what `read` raises, but for exceptions 1 to 3 on a base that is not there.
    """
    for base in sunspec.bases:
        try:
            marker = await read(Read(FUNCTION, base, 2))
        except DeviceException as error:
            if error.code in (1, 2, 3):
                continue
            raise
        if marker.words == _MARKER:
            return await _walk(sunspec, base, read)
    return None


async def _walk(sunspec: SunSpec, base: int, read: Reader) -> Place | None:
    at = base + 2
    for _ in range(_MOST_MODELS):
        model, length = (await read(Read(FUNCTION, at, 2))).words
        if model == _END or at + 2 + length > 0xFFFF:
            return None
        if model in sunspec.models:
            return Place(base - sunspec.bases[0], at - sunspec.header, sunspec.header)
        at += 2 + length
    return None
