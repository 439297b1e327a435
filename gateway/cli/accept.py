"""`meter-gateway accept METER`: a person says that the meter, or what it shows, is right."""

from __future__ import annotations

from typing import Any

import click

from gateway.cli.output import config_option, print_json
from gateway.config import find_path, load
from gateway.control import ask, socket_path


@click.command()
@click.argument("meter")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@config_option
def accept(meter: str, as_json: bool, config: str | None) -> None:
    """Take the serial number that METER tells, and its counters that are held, for right.

    For a meter that was replaced: consumption begins anew, and nothing is reckoned from what the
    former one showed. The service has to run.
    """
    settings = load(find_path(config), tokens=False).config
    view = ask(socket_path(settings.buffer.path), "accept", meter=meter)
    if as_json:
        print_json(view)
    else:
        click.echo("\n".join(_lines(view)))


def _lines(view: dict[str, Any]) -> list[str]:
    name, number = view["meter"], view["serial_number"]
    lines = []
    if number and number != view["was"]:
        before = f", before {view['was']}" if view["was"] else ""
        lines.append(f"{name}: serial number {number}{before}")
    for counter in view["counters"]:
        was = counter["was"] or "nothing"
        lines.append(f"{name}: {counter['quantity']} goes on from {counter['is']}, after {was}")
    return lines or [f"{name}: nothing was held, and its serial number is the one it had"]
