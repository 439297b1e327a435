"""A profile tried at once: planned, served by a simulated meter, read back, and recognised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Final

from attrs import frozen

from gateway.cli.costs import ANSWER
from gateway.clock import HOUR, Instant
from gateway.errors import DeviceException, GatewayError
from gateway.metering.profile import DeviceProfile
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import Block, RawWords
from gateway.metering.settings import MeterSettings
from gateway.metering.source import Source
from gateway.modbus.plan import Read, Timing, plan
from gateway.modbus.recognising import Claim, Witness, recognise
from gateway.modbus.settings import Link, SerialLink, TcpLink
from gateway.modbus.simulator import SimulatedMeter

_UNIT: Final = 1
_SERIAL_NUMBER: Final = "1234"
"""Fits a single register."""
_BEGAN: Final[Instant] = 1_760_000_000_000
_NOW: Final[Instant] = _BEGAN + HOUR


@frozen
class Trial:
    """What a simulated meter of the profile gave for it."""

    values: tuple[tuple[str, Decimal, RawWords], ...]
    """Quantity, value, and the words that it was made of."""
    reads: tuple[Read, ...]
    seconds: float
    """What a poll of all its quantities takes."""
    link: Link
    claims: tuple[Claim, ...]
    """The profiles that a scan takes the meter for, the likeliest first."""


def usual_link(profile: DeviceProfile) -> Link:
    """A line with the settings that the model leaves the factory with; else its Ethernet."""
    serial, tcp = profile.serial, profile.tcp
    if serial.baudrate is None and tcp.port is not None:
        return TcpLink("meter", tcp.port)
    return SerialLink(
        "line", serial.baudrate or 9600, serial.parity or "none", serial.stopbits or 1
    )


def reads_of(profile: DeviceProfile, quantities: Sequence[str], link: Link) -> tuple[Read, ...]:
    """The requests that a poll of these takes."""
    wanted = dict.fromkeys(part for name in quantities for part in profile.needs(name))
    return plan(wanted, profile.limits, timing_of(profile, link), known=profile.everything())


def timing_of(profile: DeviceProfile, link: Link) -> Timing:
    return Timing.of(link, ANSWER, profile.limits.pause)


def try_out(profile: DeviceProfile, others: Sequence[DeviceProfile]) -> Trial:
    """Simulates a meter of the profile and reads all of it.

    Raises GatewayError where the profile cannot be simulated, or not read back.
    """
    hint = "compare the addresses, types and words of its registers with the document"
    try:
        meter = SimulatedMeter(profile, _UNIT, _BEGAN, serial_number=_SERIAL_NUMBER)
    except ValueError as error:
        raise GatewayError(f"{profile.name} cannot be simulated: {error}", hint=hint) from error
    link = usual_link(profile)
    reads = reads_of(profile, profile.quantities(), link)
    blocks = []
    for read in reads:
        words = meter.words(read.function, read.address, read.count, _NOW)
        if isinstance(words, int):
            raise GatewayError(f"the simulated meter refuses {read}", hint=hint)
        blocks.append(Block(read.function, read.address, words))
    raw = RawWords(tuple(blocks))
    settings = MeterSettings("", "", _UNIT, profile, ())
    values = []
    for quantity in profile.quantities():
        value = Source(settings, quantity).decode(raw)
        if not isinstance(value, Decimal):
            raise GatewayError(f"{quantity} has no value in the simulated meter", hint=hint)
        values.append((quantity, value, raw.only(profile.needs(quantity))))
    same = [other for other in others if other.name != profile.name]
    claims = asyncio.run(recognise([*same, profile], Witness(_UNIT, _asking(meter))))
    seconds = timing_of(profile, link).of_all(reads)
    return Trial(tuple(values), reads, seconds, link, claims)


def told(profile: DeviceProfile, trial: Trial) -> list[str]:
    """A trial in lines for people."""
    where = f"at {trial.link.baudrate} baud" if isinstance(trial.link, SerialLink) else "over TCP"
    requests = "1 request" if len(trial.reads) == 1 else f"{len(trial.reads)} requests"
    lines = [
        f"a simulated meter gives all of it {where} in {requests}, {trial.seconds * 1000:.0f} ms:",
        "",
    ]
    width = max(len(quantity) for quantity, _, _ in trial.values)
    for quantity, value, raw in trial.values:
        words = " ".join(f"{word:04X}" for block in raw.blocks for word in block.words)
        lines.append(f"  {quantity:<{width}}  {value:f} {QUANTITIES[quantity].unit}".rstrip())
        lines[-1] += f"  ({words})"
    return [*lines, "", _recognised(profile, trial)]


def _recognised(profile: DeviceProfile, trial: Trial) -> str:
    """What a scan makes of such a meter."""
    others = [claim.profile.name for claim in trial.claims if claim.profile is not profile]
    own = next((claim for claim in trial.claims if claim.profile is profile), None)
    also = f", as well as for {', '.join(others)}" if others else ""
    if own is None and others:
        return f"a scan would take such a meter for {', '.join(others)}, and not for this"
    if own is None:
        return "a scan would not know such a meter: nothing in it says its model"
    if own.named_by:
        return f"a scan knows such a meter by its {own.named_by}{also}"
    return f"a scan would take such a meter for this by its values{also}"


def _asking(meter: SimulatedMeter) -> Callable[[Read], Awaitable[Block]]:
    async def ask(read: Read) -> Block:
        words = meter.words(read.function, read.address, read.count, _NOW)
        if isinstance(words, int):
            raise DeviceException("", meter.unit, str(read), words)
        return Block(read.function, read.address, words)

    return ask
