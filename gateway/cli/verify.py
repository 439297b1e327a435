"""`meter-gateway verify`: what a person reads off a display against what the profile says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, Final

import click

from gateway.cli.looking import looking_at, no_words
from gateway.cli.mending import mended, mistake_in_words
from gateway.cli.output import config_option, escaped, print_json
from gateway.config import find_path, load, own_profiles
from gateway.config.settings import GatewayConfig
from gateway.errors import GatewayError
from gateway.metering.display import Shown, read_display
from gateway.metering.quantity import QUANTITIES
from gateway.metering.register import NOT_AVAILABLE, Register, Value, plain
from gateway.metering.settings import MeterSettings
from gateway.metering.verifying import Candidate, own_value, terms
from gateway.modbus.comparing import Comparison, compare
from gateway.modbus.plan import Read
from gateway.modbus.settings import BusSettings

_SHOWN: Final = 3
"""Mistakes that are told."""
_SELDOM_ALONE: Final = {"word order", "byte order", "address", "notation", "function"}
_TELLS_LITTLE: Final = 3
"""Digits that a value should have at least: many registers show 5 by chance."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("meter")
@click.argument("quantity")
@click.argument("value", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@config_option
def verify(
    meter: str, quantity: str, value: tuple[str, ...], as_json: bool, config: str | None
) -> None:
    """Hold the VALUE that a person reads off METER's display against what its profile reads.

    VALUE as it is shown: 12345.6, or 12345,6, perhaps with its unit, as in 12.3456 MWh. Where the
    two differ, the likely mistake is looked for: another address, function, type or order, another
    power of ten, a transformer's ratio; and the line is printed that mends it. Works while the
    service runs. Ends with 0 where both agree, with 1 where not, with 69 where the meter does not
    answer.
    """
    path = find_path(config)
    settings = load(path, tokens=False).config
    found = settings.meter(meter)
    _known(found, quantity)
    try:
        shown = read_display(" ".join(value), QUANTITIES[quantity].unit)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="VALUE") from None
    bus = settings.bus_of(found)
    result = asyncio.run(_ask(settings, bus, found, quantity, shown))
    _raise_if_silent(bus, found, quantity, result)
    own = own_value(found, quantity, result.raw)
    right = bool(result.candidates) and not result.candidates[0].mistakes
    folder = own_profiles(path)
    is_own = folder is not None and (folder / f"{found.profile.name}.yaml").is_file()
    if as_json:
        print_json(_view(found, quantity, shown, own, result, is_own=is_own))
    else:
        typed = " ".join(value)
        click.echo("\n".join(_page(found, quantity, typed, shown, own, result, is_own=is_own)))
    if not right:
        raise SystemExit(1)


def _known(meter: MeterSettings, quantity: str) -> None:
    names = meter.profile.quantities()
    if quantity in names:
        return
    near = get_close_matches(quantity, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise GatewayError(
        f"{meter.profile.name} has no {quantity}",
        hint=f"{hint}`meter-gateway profiles show {meter.profile.name}` lists what it has",
    )


async def _ask(
    settings: GatewayConfig, bus: BusSettings, meter: MeterSettings, quantity: str, shown: Shown
) -> Comparison:
    async with looking_at(bus, meter.unit, settings) as look:
        return await compare(meter, quantity, shown, look)


def _raise_if_silent(
    bus: BusSettings, meter: MeterSettings, quantity: str, result: Comparison
) -> None:
    if result.raw.blocks or any(why.startswith("exception") for why in result.faults.values()):
        return
    first = meter.profile.needs(quantity)[0]
    reason = result.faults.get(first.name, "timeout")
    raise no_words(meter.name, bus, Read(first.function, first.address, first.count), reason)


# -------------------------------------------------------------------------------------- shown


def _page(
    meter: MeterSettings,
    quantity: str,
    typed: str,
    shown: Shown,
    own: Value | None,
    result: Comparison,
    *,
    is_own: bool,
) -> Iterator[str]:
    unit = QUANTITIES[quantity].unit
    canonical = f"{plain(shown.value):f} {unit}".rstrip()
    yield f"{meter.name}  {quantity}"
    yield f"  display  {escaped(typed)}" + ("" if typed == canonical else f" = {canonical}")
    yield f"  profile  {_own_in_words(own, unit, result)}"
    for register in terms(meter, quantity):
        yield f"           {_where(register, result)}"
    yield ""
    found = result.candidates
    if found and not found[0].mistakes:
        yield from _agreeing(meter, shown, found)
        return
    if not found:
        yield "no single mistake explains the difference; " + _try_next(meter, quantity, shown)
        return
    for number, one in enumerate(found[:_SHOWN], 1):
        start = "likely mistake" if number == 1 else "or"
        value = f"{one.value:f} {unit}".rstrip()
        yield f"{start}: {mistake_in_words(meter, quantity, one)}: {value}"
        for mend in mended(meter, one, is_own=is_own):
            yield f"  {mend.where}:"
            yield from (f"    {line}" for line in mend.yaml.splitlines())
        yield ""
    if _SELDOM_ALONE & set(found[0].mistakes):
        yield "such a mistake is seldom alone: verify other quantities of this profile as well"
    if _is_vague(shown):
        yield _VAGUE


def _own_in_words(own: Value | None, unit: str, result: Comparison) -> str:
    if own is NOT_AVAILABLE:
        return "has no value there"
    if own is None:
        reasons = ", ".join(dict.fromkeys(result.faults.values()))
        return f"not read: {reasons}" if reasons else "these words are no number of its type"
    return f"{own:f} {unit}".rstrip()


def _where(register: Register, result: Comparison) -> str:
    encoding = register.encoding
    order = f" {encoding.word_order}" if encoding.words > 1 else ""
    words = result.raw.lookup(register)
    shown = f": {' '.join(f'{word:04x}' for word in words)}" if words is not None else ""
    where = f"function {register.function}, address {register.address}"
    return f"{where}, {encoding.type}{order}, scale {register.scale:f}{shown}"


_VAGUE: Final = "few digits fit many registers: a value with more of them tells more"


def _is_vague(shown: Shown) -> bool:
    return abs(shown.value) < shown.step.scaleb(_TELLS_LITTLE - 1)


def _agreeing(meter: MeterSettings, shown: Shown, found: Sequence[Candidate]) -> Iterator[str]:
    if found[0].exact:
        yield f"all is right: the profile {meter.profile.name} reads what the display shows"
    else:
        yield f"they agree: {found[0].value - shown.value:+f} since, as is to be expected"
    if any(one.multiplier == 1 for one in found):
        yield (
            f"its multiplier {meter.multiplier:f} is right where the display shows what the meter"
            " itself counts; where it has the transformers in already, it has to be 1"
        )
    if _is_vague(shown):
        yield _VAGUE


def _try_next(meter: MeterSettings, quantity: str, shown: Shown) -> str:
    if _is_vague(shown):
        return "take a value with more digits, such as that of a counter"
    first = terms(meter, quantity)[0]
    where = f"--function {first.function} --address {max(0, first.address - 8)} --count 20"
    command = f"meter-gateway registers {meter.bus} {meter.unit} {where}"
    return f"look for it with `{command}`, and see whether the display shows this quantity"


def _view(
    meter: MeterSettings,
    quantity: str,
    shown: Shown,
    own: Value | None,
    result: Comparison,
    *,
    is_own: bool,
) -> dict[str, Any]:
    found = result.candidates
    verdict = "unknown" if not found else "mistaken" if found[0].mistakes else "right"
    return {
        "meter": meter.name,
        "profile": meter.profile.name,
        "quantity": quantity,
        "unit": QUANTITIES[quantity].unit,
        "display": f"{plain(shown.value):f}",
        "reads": None if own is None or own is NOT_AVAILABLE else f"{own:f}",
        "verdict": verdict,
        "faults": result.faults,
        "requests": result.requests,
        "candidates": [
            {
                "mistakes": list(one.mistakes),
                "value": f"{one.value:f}",
                "exact": one.exact,
                "mend": [
                    {"where": mend.where, "yaml": mend.yaml}
                    for mend in mended(meter, one, is_own=is_own)
                ],
            }
            for one in found
        ],
        "raw": [
            {"function": block.function, "address": block.address, "words": list(block.words)}
            for block in result.raw.blocks
        ],
    }
