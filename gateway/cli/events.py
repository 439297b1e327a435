"""`meter-gateway events`: what the log said, from the buffer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from gateway.cli.output import buffer_of, config_option, print_json
from gateway.clock import utc
from gateway.config import find_path, load
from gateway.config.settings import GatewayConfig
from gateway.logbook import Entry, logfmt

if TYPE_CHECKING:
    from pathlib import Path

_LEVELS: Final = ("error", "warning", "info")


@click.command()
@click.option(
    "--level",
    type=click.Choice(_LEVELS),
    default="info",
    show_default=True,
    help="Only this level and what is graver.",
)
@click.option(
    "--last",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="So many, the newest.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@config_option
def events(level: str, last: int, as_json: bool, config: str | None) -> None:
    """Show what the log said, newest last; reboots do not take it.

    Times are in UTC; a ~ before one says that the clock was not known to be right.
    """
    settings: GatewayConfig = load(find_path(config), tokens=False).config
    path = buffer_of(settings)
    levels = _LEVELS[: _LEVELS.index(level) + 1]
    found = asyncio.run(_found(path, last, levels)) if path is not None else []
    if as_json:
        print_json([_view(entry) for entry in found])
        return
    for entry in found:
        doubt = "" if entry.sure else "~"
        click.echo(f"{doubt}{utc(entry.at)} {logfmt(entry.level, entry.event, entry.fields)}")


async def _found(path: Path, last: int, levels: Sequence[str]) -> Sequence[Entry]:
    from gateway.buffer.reads import ReadOnlyStore

    store = ReadOnlyStore(path)
    await store.open()
    try:
        return await store.events(last, levels)
    finally:
        await store.close()


def _view(entry: Entry) -> dict[str, object]:
    return {
        "time": utc(entry.at),
        "clock": "synchronised" if entry.sure else "not synchronised",
        "level": entry.level,
        "event": entry.event,
        "fields": dict(entry.fields),
    }
