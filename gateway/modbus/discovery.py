"""Finding where a SunSpec meter's registers stand.

SunSpec Device Information Model Specification v1.1, §6: the marker "SunS" at one of three base
addresses, then models one after the other, each an id and a length; 0xFFFF ends the chain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from attrs import evolve, frozen

from gateway.errors import DeviceException
from gateway.metering.profile import SunSpec
from gateway.metering.reading import Block
from gateway.metering.register import Register
from gateway.modbus.plan import Read

_MARKER: Final = (0x5375, 0x6E53)
_END: Final = 0xFFFF
_MOST_MODELS: Final = 64
_FUNCTION: Final = 3
_BASE: Final = 40000
"""The base that profiles are written for."""

Reader = Callable[[Read], Awaitable[Block]]


@frozen
class Place:
    """Where a meter has what its profile has at base 40000."""

    base: int
    """Of the marker, and so of the common block behind it."""
    header: int
    """Of the meter model."""
    named: int
    """The header's address in the profile."""

    def shift(self, address: int) -> int:
        """Where an address of the profile is on this meter."""
        if address >= self.named:
            return address - self.named + self.header
        return address - _BASE + self.base

    def moved(self, register: Register) -> Register:
        """A register of the profile, where this meter has it."""
        return evolve(register, address=self.shift(register.address))

    def unshift(self, block: Block) -> list[Block]:
        """A block of this meter at the addresses of the profile; one that reaches from the common
        block into the model becomes two."""
        before = min(max(self.header - block.address, 0), len(block.words))
        parts = (
            (block.address - self.base + _BASE, block.words[:before]),
            (block.address + before - self.header + self.named, block.words[before:]),
        )
        return [Block(block.function, address, words) for address, words in parts if words]


async def locate(sunspec: SunSpec, base: int, read: Reader) -> Place | None:
    """Look for the marker at one base and walk to the meter model; None where it has none.

    Raises what `read` raises, but for exceptions 1 to 3 on a base that is not there.
    """
    try:
        marker = await read(Read(_FUNCTION, base, 2))
    except DeviceException as error:
        if error.code in (1, 2, 3):
            return None
        raise
    if marker.words != _MARKER:
        return None
    at = base + 2
    for _ in range(_MOST_MODELS):
        model, length = (await read(Read(_FUNCTION, at, 2))).words
        if model in sunspec.models:
            return Place(base, at, sunspec.header)
        if model == _END or at + 2 + length > 0xFFFD:
            return None
        at += 2 + length
    return None
