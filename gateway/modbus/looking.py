"""Looking at registers that no profile speaks of, for a person; no meter is judged by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.errors import LinkDown, MeterError, MeterTimeout
from gateway.metering.profile import DeviceProfile
from gateway.metering.reading import Block
from gateway.metering.settings import MeterSettings
from gateway.modbus.line import Line
from gateway.modbus.plan import Read
from gateway.modbus.reader import MeterReader

_IN_VAIN: Final = 3
"""Reads in a row without an answer, after which a unit is not asked for the rest."""
_UNKNOWN: Final = DeviceProfile("", "", "", "electricity", ())


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
            in_vain = in_vain + 1 if isinstance(error, MeterTimeout) else 0
    return tuple(found)


async def _words(reader: MeterReader, line: Line, read: Read) -> Block:
    if not await line.ready(at_once=True):
        raise LinkDown("", "")
    return await reader.words(read)
