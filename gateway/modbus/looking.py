"""Looking at registers that no profile speaks of, for a person; no meter is judged by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.errors import GatewayError, LinkDown, MeterError
from gateway.metering.profile import DeviceProfile
from gateway.metering.reading import Block
from gateway.metering.settings import MeterSettings
from gateway.modbus.line import Line
from gateway.modbus.plan import MAX_BITS, MAX_REGISTERS, Read
from gateway.modbus.reader import MeterReader
from gateway.modbus.settings import Framing

_IN_VAIN: Final = 3
"""Reads in a row without an answer to trust, after which a unit is not asked for the rest."""
MOST_READS: Final = 100
"""Reads at once."""
_UNKNOWN: Final = DeviceProfile("", "", "", "electricity", ())


def asked_for(unit: object, reads: object, framing: Framing) -> tuple[int, list[Read]]:
    """The unit and the reads, [[function, address, count], …], that somebody asks for.

    Raises GatewayError where there can be no such request.
    """
    lowest, highest = (0, 255) if framing in ("tcp", "tls") else (1, 247)
    if type(unit) is not int or not lowest <= unit <= highest:
        raise GatewayError(f"unit {unit}: {lowest} to {highest}", hint="name another unit")
    if not isinstance(reads, list) or len(reads) > MOST_READS:
        raise GatewayError("no list of reads", hint=f"at most {MOST_READS} at once")
    return unit, [_read(each) for each in reads]


def _read(numbers: object) -> Read:
    if isinstance(numbers, list) and [type(n) for n in numbers] == [int, int, int]:
        read = Read(*numbers)
        most = MAX_BITS if read.function in (1, 2) else MAX_REGISTERS
        known = read.function in (1, 2, 3, 4) and 1 <= read.count <= most
        if known and read.address >= 0 and read.end <= 0x10000:
            return read
    hint = f"functions 1 to 4, {MAX_REGISTERS} registers or {MAX_BITS} bits from 0 to 65535"
    raise GatewayError(f"{numbers} is no request for registers", hint=hint)


def stranger(bus: str, unit: int) -> MeterSettings:
    """A unit that no configured meter has."""
    return MeterSettings(f"unit {unit}", bus, unit, _UNKNOWN, ())


def forget(key: str, data: bytes) -> None:
    """Nothing is learnt by looking."""


async def look(reader: MeterReader, line: Line, reads: Sequence[Read]) -> tuple[Block | str, ...]:
    """What the unit gives for each of these reads, or the reason why nothing. Never raises for
    what a line or a unit does.
    """
    found: list[Block | str] = []
    in_vain = 0
    for read in reads:
        if in_vain == _IN_VAIN:
            found.append(str(found[-1]))
            continue
        reader.unit.silent = 0  # that it gave nothing for another read says nothing of this one
        try:
            found.append(await _words(reader, line, read))
            in_vain = 0
        except LinkDown:
            found.append("link_down")
            in_vain += 1
        except MeterError as error:
            found.append(error.reason)
            in_vain = in_vain + 1 if reader.unit.silent else 0
    return tuple(found)


async def _words(reader: MeterReader, line: Line, read: Read) -> Block:
    if not await line.ready(at_once=True):
        raise LinkDown("", "")
    return await reader.words(read)
