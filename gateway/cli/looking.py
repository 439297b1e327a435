"""Asking a unit for raw words: through the running service, else over a line of one's own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from gateway.cli.hints import HINTS, ON_A_LINE, OVER_TCP
from gateway.config.settings import GatewayConfig
from gateway.control import NotRunning, ask, socket_path
from gateway.errors import GatewayError, TargetUnreachable, TryLater
from gateway.logbook import LOGGER
from gateway.metering.reading import Block
from gateway.modbus.looking import MOST_READS
from gateway.modbus.plan import Read
from gateway.modbus.settings import BusSettings, SerialLink

Answered: TypeAlias = Block | str
"""The words, or the reason why there are none."""
Look: TypeAlias = Callable[[Sequence[Read]], Awaitable[list[Answered]]]

_PATIENCE: Final = 120.0
"""Seconds: a round under way ends first, and a unit that is silent takes its timeouts."""
_HELD: Final = "another program has it open"

_HINTS: Final = HINTS | {
    "exception_1": "ask with the other function: --function 3 or 4",
    "exception_2": "ask one address lower, since many documents count from 1; with --function 3 or"
    " 4; for fewer registers, or an even number of them",
    "exception_3": "ask for fewer registers",
}
"""What to try next, by the reason why nothing was read."""
_REFUSALS: Final = {
    "exception_1": "does not know this function",
    "exception_2": "has no such registers",
    "exception_3": "does not give so many registers",
    "exception_4": "reports a fault",
    "exception_6": "is busy",
}


@contextlib.asynccontextmanager
async def looking_at(
    bus: BusSettings, unit: int, config: GatewayConfig | None
) -> AsyncIterator[Look]:
    """A function that asks one unit for several reads, between the rounds of the running service
    where it asks on that bus.

    It raises TargetUnreachable or TryLater where the line or endpoint cannot be used.
    """
    if config is not None and _is_asked_there(bus, unit, config):
        address = socket_path(config.buffer.path)

        async def ask_service(reads: Sequence[Read]) -> list[Answered]:
            where = {"bus": bus.link.address, "unit": unit}
            found: list[Answered] = []
            for first in range(0, len(reads), MOST_READS):
                some = reads[first : first + MOST_READS]
                asked = [[read.function, read.address, read.count] for read in some]
                view = ask(address, "look", timeout=_PATIENCE, reads=asked, **where)
                found += _answers(bus, some, view)
            return found

        yield ask_service
        return

    from gateway.questions import looking

    meters = [m for m in config.meters if m.bus == bus.name] if config is not None else []
    LOGGER.addHandler(quiet := logging.NullHandler())  # that the line is down ends the command
    try:
        async with looking(bus, meters, unit) as look:

            async def ask_ourselves(reads: Sequence[Read]) -> list[Answered]:
                return _answers(bus, reads, await look(reads))

            yield ask_ourselves
    finally:
        LOGGER.removeHandler(quiet)


def _is_asked_there(bus: BusSettings, unit: int, config: GatewayConfig) -> bool:
    address = socket_path(config.buffer.path)
    try:
        return ask(address, "look", bus=bus.link.address, unit=unit, reads=[]) is not None
    except NotRunning:
        return False


def _answers(bus: BusSettings, reads: Sequence[Read], view: dict[str, Any]) -> list[Answered]:
    found: list[Answered] = []
    for read, answer in zip(reads, view["answers"], strict=True):
        words = answer.get("words")
        found.append(
            answer["fault"] if words is None else Block(read.function, read.address, tuple(words))
        )
    if found and all(answer == "link_down" for answer in found):
        why = view["link_error"] or "the connection was lost"
        if why == _HELD:
            hint = "end it, and try again: a line has one master"
            raise TryLater(f"{view['link']}: {why}", hint=hint)
        raise TargetUnreachable(f"{view['link']}: {why}", hint=_of(bus)["link_down"])
    return found


def no_words(who: str, bus: BusSettings, read: Read, reason: str) -> GatewayError:
    """The error that says why a unit gave nothing, and what to try next."""
    hint = _HINTS.get(reason) or _of(bus)["timeout"]
    if reason in _REFUSALS:
        code = reason.removeprefix("exception_")
        message = f"{who} {_REFUSALS[reason]}: exception {code} to {told(read)}"
        return GatewayError(message, hint=hint if reason in _HINTS else "try again")
    return TargetUnreachable(f"{who} gave nothing for {told(read)}: {reason}", hint=hint)


def _of(bus: BusSettings) -> Mapping[str, str]:
    return ON_A_LINE if isinstance(bus.link, SerialLink) else OVER_TCP


def told(read: Read) -> str:
    """A read in words."""
    what = "bit" if read.function in (1, 2) else "register"
    count = f"{read.count} {what}{'' if read.count == 1 else 's'}"
    return f"function {read.function}, address {read.address}, {count}"
