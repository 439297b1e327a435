"""What a person sees of the demo while it runs: a page on a terminal, else a few lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gateway.cli.output import counted
from gateway.cli.stage import BAUDRATE, Stage
from gateway.energinet.standin import StandIn

_STYLES: Final = {"online": "green", "offline": "red"}
_WITH_PROFILE: Final = 78
"""Columns from which there is room for the profiles."""


def plain_lines(view: dict[str, Any], standin: StandIn) -> Iterable[str]:
    """A line for a pipe or a log, and one for each meter that does not answer."""
    buffer, meters, sender = view["buffer"], view["meters"], view["senders"][0]
    online = sum(meter["state"] == "online" for meter in meters)
    yield (
        f"{_clock(view['service']['now'])}  {online} of {len(meters)} meters answer; "
        f"{_buffer(buffer)}; Energinet {_energinet(standin)}; "
        f"next request {_clock(sender['next_request']) or 'when there is something'}"
    )
    for meter in meters:
        if meter["state"] == "offline":
            yield f"          {meter['name']} is offline: {meter['reason']}"


def screen(
    view: dict[str, Any], stage: Stage, log: Iterable[str], left: int | None, width: int
) -> Any:
    """The page: meters, buffer, next request, what Energinet accepted, the last log lines."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    ends = "ends with Ctrl-C" if left is None else f"ends in {left} s"
    meters = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    wide = width >= _WITH_PROFILE
    for head in ("meter", *(("profile",) if wide else ()), "link", "state"):
        meters.add_column(head, no_wrap=True)
    for head in ("value", "took"):
        meters.add_column(head, no_wrap=True, justify="right")
    for meter in view["meters"]:
        state = Text(meter["state"], style=_STYLES.get(meter["state"], "yellow"))
        took = meter["turnaround_ms"]
        meters.add_row(
            meter["name"],
            *((meter["profile"],) if wide else ()),
            f"RTU {BAUDRATE}" if meter["bus"] == "riser" else "TCP",
            state,
            _value(meter),
            f"{took:.0f} ms" if took is not None else "",
        )
    sender, standin = view["senders"][0], stage.standin
    last = ""
    if standin.accepted:
        one = standin.accepted[-1]
        last = f"{stage.lines[one.meter_id].meter} {one.stamp[11:]} {one.value}"
    lines = [
        f"buffer     {_buffer(view['buffer'])}",
        f"sender     next request {_clock(sender['next_request']) or 'when there is something'};"
        f" last: {sender['last'] or 'none yet'}",
        f"Energinet  {_energinet(standin)}",
        f"           last {last}" if last else "",
    ]
    shown = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in log]
    head = [
        f"demo: six simulated meters; {ends}",
        Text("Energinet is a stand-in; its window is 5 s here, the real one's is 10 min", "dim"),
    ]
    return Group(*head, "", meters, "", *lines, "", *shown)


def _value(meter: dict[str, Any]) -> str:
    for value in meter["values"]:
        if value["value"] is not None:
            return f"{value['value']} {value['unit']}"
    return ""


def _buffer(buffer: dict[str, Any]) -> str:
    return (
        f"stored {buffer['stored']} = {buffer['pending']} pending + {buffer['in_flight']} in flight"
        f" + {buffer['confirmed']} confirmed"
    )


def _energinet(standin: StandIn) -> str:
    broken = len(standin.violations)
    return (
        f"took {counted(len(standin.accepted), 'value')} in"
        f" {counted(len(standin.requests), 'request')},"
        f" {counted(broken, 'limit') if broken else 'no limit'} broken"
    )


def _clock(at: str | None) -> str:
    """HH:MM:SSZ of an ISO time."""
    return at[11:] if at else ""
