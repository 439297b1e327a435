"""`meter-gateway registers`: raw words of any unit, in every type and word order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal

import click
from attrs import evolve

from gateway.cli.looking import looking_at, no_words, told
from gateway.cli.output import config_option, escaped, print_json
from gateway.cli.places import bus_at, configured
from gateway.metering.interpreting import Interpretation, Orders, interpretations, texts
from gateway.metering.reading import Block
from gateway.metering.register import NOT_AVAILABLE, Value, Words
from gateway.modbus.looking import asked_for
from gateway.modbus.plan import Read
from gateway.modbus.settings import BusSettings, Parity, SerialLink

_COLUMNS: Final[dict[Orders, str]] = {
    ("big", "big"): "big",
    ("little", "big"): "little",
    ("big", "little"): "big, swapped",
    ("little", "little"): "little, swapped",
}
"""Orders of words and bytes to how the table calls them."""


@click.command()
@click.argument("bus")
@click.argument("unit", type=click.IntRange(0, 255))
@click.option(
    "--function",
    type=click.IntRange(1, 4),
    default=3,
    show_default=True,
    help="1 coils, 2 discrete inputs, 3 holding registers, 4 input registers.",
)
@click.option("--address", metavar="N", required=True, help="From 0, as on the wire; also 0x156.")
@click.option("--count", type=click.IntRange(1, 2000), default=2, show_default=True)
@click.option(
    "--framing",
    type=click.Choice(("rtu", "ascii", "tcp")),
    help="Where BUS is a port or an address. Default: rtu on a line, else tcp.",
)
@click.option("--baudrate", type=click.IntRange(110, 4_000_000), help="Where BUS is a port.")
@click.option("--parity", type=click.Choice(("none", "even", "odd")), help="Where BUS is a port.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@config_option
def registers(
    bus: str,
    unit: int,
    function: int,
    address: str,
    count: int,
    framing: Literal["rtu", "ascii", "tcp"] | None,
    baudrate: int | None,
    parity: Parity | None,
    as_json: bool,
    config: str | None,
) -> None:
    """Show the registers of UNIT on BUS in every type, word order and byte order.

    BUS is one of the configuration, a serial port, or HOST:PORT. Works while the service runs, and
    for units that no meter of the configuration has. Ends with 3 where the unit refuses some of
    them, with 1 where it refuses all, with 69 where it does not answer.
    """
    where = _set(bus_at(bus, framing, config), bus, baudrate, parity)
    number, (read,) = asked_for(unit, [[function, _address(address), count]], where.link.framing)
    blocks, refused = asyncio.run(_ask(where, number, read, config))
    who = f"unit {unit} on {bus}"
    if not blocks:
        raise no_words(who, where, read, next(iter(refused.values())))
    if as_json:
        print_json({"bus": bus, "unit": unit, "function": function, **_view(blocks, refused)})
    else:
        click.echo("\n".join(_page(who, read, blocks)))
        for part, reason in refused.items():
            click.echo(f"not given: {told(part)}: {reason}", err=True)
    if refused:
        raise SystemExit(3)


def _set(where: BusSettings, text: str, baudrate: int | None, parity: Parity | None) -> BusSettings:
    if baudrate is None and parity is None:
        return where
    if "/" not in text or not isinstance(where.link, SerialLink):
        raise click.UsageError("--baudrate and --parity are for a serial port that BUS names")
    link = where.link
    return evolve(
        where,
        link=evolve(link, baudrate=baudrate or link.baudrate, parity=parity or link.parity),
    )


def _address(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        message = f"{text}: write 342 or 0x156"
        raise click.BadParameter(message, param_hint="--address") from None


async def _ask(
    where: BusSettings, unit: int, read: Read, config: str | None
) -> tuple[list[Block], dict[Read, str]]:
    """What the unit gives; it is asked for the halves of what it refuses as a whole."""
    blocks: list[Block] = []
    refused: dict[Read, str] = {}
    async with looking_at(where, unit, configured(config)) as look:
        reads = [read]
        while reads:
            left: list[Read] = []
            for asked, answer in zip(reads, await look(reads), strict=True):
                if isinstance(answer, Block):
                    blocks.append(answer)
                elif answer in ("exception_2", "exception_3") and asked.count > 1:
                    left += _halves(asked)
                else:
                    refused[asked] = answer
            reads = left
    if not blocks:  # the reason for the whole says more than those for its parts
        refused = {read: next(iter(refused.values()))}
    return sorted(blocks, key=lambda block: block.address), _joined(refused)


def _halves(read: Read) -> list[Read]:
    """Cut at an even number of registers: most values have two."""
    first = read.count // 2 + read.count // 2 % 2 if read.count > 2 else 1
    return [
        Read(read.function, read.address, first),
        Read(read.function, read.address + first, read.count - first),
    ]


def _joined(refused: Mapping[Read, str]) -> dict[Read, str]:
    """Neighbours that were refused for the same reason as one."""
    found: list[tuple[Read, str]] = []
    for part, reason in sorted(refused.items(), key=lambda item: item[0].address):
        first = part.address
        if found and (found[-1][0].end, found[-1][1]) == (first, reason):
            first = found.pop()[0].address
        found.append((Read(part.function, first, part.end - first), reason))
    return dict(found)


# -------------------------------------------------------------------------------------- shown


def _view(blocks: Sequence[Block], refused: Mapping[Read, str]) -> dict[str, Any]:
    numbers = [block for block in blocks if block.function > 2]
    return {
        "blocks": [{"address": block.address, "words": list(block.words)} for block in blocks],
        "refused": [
            {"address": part.address, "count": part.count, "reason": reason}
            for part, reason in refused.items()
        ],
        "values": [
            {
                "address": one.address,
                "words": len(one.words),
                "type": one.type,
                "word_order": word_order,
                "byte_order": byte_order,
                "value": None if value is NOT_AVAILABLE else str(value),
            }
            for block in numbers
            for one in interpretations(block.address, block.words)
            for (word_order, byte_order), value in one.values.items()
        ],
        "texts": [
            {"address": block.address, "byte_order": order, "text": text}
            for block in numbers
            for order, text in texts(block.words).items()
        ],
    }


def _page(who: str, read: Read, blocks: Sequence[Block]) -> Iterator[str]:
    yield f"{who}: {told(read)}"
    for block in blocks:
        if block.function < 3:
            for address, bit in enumerate(block.words, block.address):
                yield f"{address:>7}  {bit}"
            continue
        yield ""
        yield from _table(interpretations(block.address, block.words))
        for order, text in texts(block.words).items():
            yield f"text{', bytes swapped' if order == 'little' else ''}: {escaped(text)}"


def _table(found: Sequence[Interpretation]) -> Iterator[str]:
    """One line a type; types that give the same in every order share it."""
    lines: dict[tuple[int, Words, tuple[str, ...]], list[str]] = {}
    for one in found:
        values = tuple(_told(one.values.get(order)) for order in _COLUMNS)
        lines.setdefault((one.address, one.words, values), []).append(one.type)
    rows = [["address", "words", "type", *_COLUMNS.values()]]
    said: tuple[int, Words] | None = None
    for (address, words, values), types in lines.items():
        again = said == (said := (address, words))
        shown = ["", ""] if again else [str(address), " ".join(f"{word:04x}" for word in words)]
        rows.append([*shown, ", ".join(types), *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        left = [f"{cell:<{width}}" for cell, width in zip(row[:3], widths[:3], strict=True)]
        right = [f"{cell:>{width}}" for cell, width in zip(row[3:], widths[3:], strict=True)]
        yield "  ".join((*left, *right)).rstrip()


def _told(value: Value | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, Decimal) else "no value"
