"""`meter-gateway read METER`: what a meter shows right now."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Collection
from typing import Any, Final

import click

from gateway.cli.hints import HINTS, ON_A_LINE, OVER_TCP, WIRES
from gateway.cli.output import config_option
from gateway.config import find_path, load
from gateway.config.settings import GatewayConfig
from gateway.control import NotRunning, ask, socket_path
from gateway.errors import TargetUnreachable
from gateway.logbook import LOGGER, LogfmtFormatter

View = dict[str, Any]

_PROFILE: Final = "check that the profile fits the meter's model"
_HINTS: Final = HINTS | {
    "exception_1": _PROFILE,
    "exception_2": _PROFILE,
    "exception_3": _PROFILE,
    "other_meter": "another serial number answers: check the wiring, or serial_number in the file",
}
"""What to try next, by the reason why nothing was read."""


@click.command()
@click.argument("meter")
@click.option("--once", is_flag=True, help="Read once and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a read.")
@click.option("--raw", is_flag=True, help="Also the registers' raw words.")
@config_option
def read(meter: str, once: bool, as_json: bool, raw: bool, config: str | None) -> None:
    """Show every value of METER, read live; works while the service runs.

    On a terminal a table that is read anew every second, else one read. Ends with 0, with 3 where
    some registers could not be read, and with 69 where the meter gave nothing.
    """
    settings = load(find_path(config), tokens=False).config
    look = _source(settings, meter)
    live = sys.stdout.isatty() and not once and not as_json
    LOGGER.addHandler(heard := _Heard(quiet=live))
    try:
        if live:
            sent = {s.measured for m in settings.meters if m.name == meter for s in m.send}
            _live(look, sent, raw=raw)
            return
        view = look()
        if as_json:
            click.echo(json.dumps(view, ensure_ascii=False))
            if not once:
                _again(look)
        elif view["values"]:
            click.echo(_plain(view, raw=raw))
    finally:
        LOGGER.removeHandler(heard)
    _end(view)


class _Heard(logging.Handler):
    """What was noticed of the meter while this process read it: a wrong model, refusals.

    Not that the line is down: that ends the command.
    """

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(logging.CRITICAL if quiet else logging.WARNING)
        self.setFormatter(LogfmtFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", "") != "bus.down":
            click.echo(self.format(record), err=True)


def _again(look: Callable[[], View]) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
            click.echo(json.dumps(look(), ensure_ascii=False))


def _end(view: View) -> None:
    """Exit code and error of one read."""
    if view["values"]:
        raise SystemExit(3 if view["faults"] else 0)
    known = _HINTS | (ON_A_LINE if view["link"].startswith("/") else OVER_TCP)
    hints = dict.fromkeys(known.get(reason, WIRES) for reason in view["faults"].values())
    raise TargetUnreachable(
        f"{view['meter']} gave no value: {_why_nothing(view)}", hint="; ".join(hints)
    )


def _why_nothing(view: View) -> str:
    reasons = sorted(set(view["faults"].values()))
    if reasons == ["link_down"] and view["link_error"]:
        return f"{view['link']}: {view['link_error']}"
    return ", ".join(reasons)


def _source(settings: GatewayConfig, name: str) -> Callable[[], View]:
    """A function that reads the meter: through the running service, else by itself."""
    address = socket_path(settings.buffer.path)

    def look() -> View:
        try:
            view: View = ask(address, "read", timeout=60, meter=name)
        except NotRunning:
            from gateway.questions import read_meter

            view = asyncio.run(read_meter(settings, name))
        return view

    return look


def _plain(view: View, *, raw: bool) -> str:
    lines = [f"{view['meter']}  {view['profile']}  unit {view['unit']} on {view['bus']}"]
    width = max(len(name) for name in (*(v["quantity"] for v in view["values"]), *view["faults"]))
    for value in view["values"]:
        shown = "not available" if value["value"] is None else f"{value['value']} {value['unit']}"
        lines.append(f"  {value['quantity']:<{width}}  {shown}".rstrip())
    lines += [f"  {name:<{width}}  not read: {why}" for name, why in view["faults"].items()]
    if raw:
        for block in view["raw"]:
            words = " ".join(f"{word:04x}" for word in block["words"])
            lines.append(f"  function {block['function']} address {block['address']}: {words}")
    return "\n".join(lines)


def _live(look: Callable[[], View], sent: Collection[str], *, raw: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()

    def page() -> Any:
        return _table(look(), sent, raw=raw, rows=max(1, console.height - 4))

    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(page(), console=console, auto_refresh=False) as live,
    ):
        while True:
            time.sleep(1)
            live.update(page(), refresh=True)


def _table(view: View, sent: Collection[str], *, raw: bool, rows: int) -> Any:
    """What is sent comes first; what the terminal has no room for is counted."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    where = f"{view['meter']}  {view['profile']}  unit {view['unit']} on {view['bus']}"
    head = f"{where}  {view['at'][11:]}"
    if not view["values"]:
        return Group(head, Text(f"gave no value: {_why_nothing(view)}", style="red"))
    out = Table(box=None, header_style="bold", pad_edge=False)
    out.add_column("quantity")
    out.add_column("value", justify="right")
    out.add_column("unit")
    if raw:
        out.add_column("raw words")
    found = sorted(view["values"], key=lambda value: value["quantity"] not in sent)
    for value in found[:rows]:
        shown = "not available" if value["value"] is None else value["value"]
        out.add_row(value["quantity"], shown, value["unit"], *([value["words"]] if raw else []))
    faults = list(view["faults"].items())[: max(0, rows - len(found))]
    for name, why in faults:
        out.add_row(name, Text(why, style="red"))
    left = len(found) + len(view["faults"]) - min(rows, len(found)) - len(faults)
    more = [Text(f"and {left} more: --once shows all", style="dim")] if left else []
    return Group(head, out, *more)
