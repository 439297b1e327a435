"""`meter-gateway read METER`: what a meter shows right now."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import click

from gateway.cli.output import config_option
from gateway.config import find_path, load
from gateway.config.settings import GatewayConfig
from gateway.control import NotRunning, ask, socket_path
from gateway.errors import TargetUnreachable

View = dict[str, Any]


@click.command()
@click.argument("meter")
@click.option("--once", is_flag=True, help="Read once and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a read.")
@click.option("--raw", is_flag=True, help="Also the registers' raw words.")
@config_option
def read(meter: str, once: bool, as_json: bool, raw: bool, config: str | None) -> None:
    """Show every value of METER, read live; works while the service runs.

    Ends with 0, with 3 where some registers could not be read, and with 69 where the meter does
    not answer.
    """
    settings = load(find_path(config)).config
    look = _source(settings, meter)
    if once or as_json:
        view = look()
        click.echo(json.dumps(view, ensure_ascii=False) if as_json else _plain(view, raw=raw))
        if not once:
            _again(look, lambda v: click.echo(json.dumps(v, ensure_ascii=False)))
        if not view["values"]:
            raise TargetUnreachable(
                f"{meter} does not answer: {', '.join(sorted(set(view['faults'].values())))}",
                hint="check its power, the wires (A and B may be swapped), unit and baud rate",
            )
        raise SystemExit(3 if view["faults"] else 0)
    _live(look, raw=raw)


def _again(look: Callable[[], View], show: Callable[[View], object]) -> None:
    try:
        while True:
            time.sleep(1)
            show(look())
    except KeyboardInterrupt:
        pass


def _source(settings: GatewayConfig, name: str) -> Callable[[], View]:
    """A function that reads the meter: through the running service, else by itself."""
    from gateway.app import read_meter

    address = socket_path(settings.buffer.path)

    def look() -> View:
        try:
            view: View = ask(address, "read", timeout=60, meter=name)
        except NotRunning:
            view = asyncio.run(read_meter(settings, name))
        return view

    return look


def _plain(view: View, *, raw: bool) -> str:
    lines = [f"{view['meter']}  {view['profile']}  unit {view['unit']} on {view['bus']}"]
    width = max((len(v["quantity"]) for v in view["values"]), default=0)
    for value in view["values"]:
        shown = "not available" if value["value"] is None else f"{value['value']} {value['unit']}"
        lines.append(f"  {value['quantity']:<{width}}  {shown}")
    lines += [f"  {name:<{width}}  not read: {why}" for name, why in view["faults"].items()]
    if raw:
        for block in view["raw"]:
            words = " ".join(f"{word:04x}" for word in block["words"])
            lines.append(f"  function {block['function']} address {block['address']}: {words}")
    return "\n".join(lines)


def _live(look: Callable[[], View], *, raw: bool) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    def table(view: View) -> Table:
        out = Table(title=f"{view['meter']} · {view['profile']} · {view['at']}", expand=False)
        out.add_column("quantity")
        out.add_column("value", justify="right")
        out.add_column("unit")
        if raw:
            out.add_column("raw words")
        for value in view["values"]:
            shown = "not available" if value["value"] is None else value["value"]
            row = [value["quantity"], shown, value["unit"]]
            if raw:
                row.append(value["words"])
            out.add_row(*row)
        for name, why in view["faults"].items():
            out.add_row(name, f"[red]{why}[/red]", "", *([""] if raw else []))
        return out

    console = Console()
    if not console.is_terminal:
        click.echo(_plain(look(), raw=raw))
        return
    try:
        with Live(table(look()), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(1)
                live.update(table(look()), refresh=True)
    except KeyboardInterrupt:
        pass
