"""`meter-gateway status`: one screen of what the gateway does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import click

from gateway.cli.output import buffer_of, config_option, counted, declared_by, print_json
from gateway.clock import DAY, Instant
from gateway.config import buffer_path, find_path, load
from gateway.config.settings import GatewayConfig
from gateway.control import NotRunning, ask, socket_path
from gateway.errors import ConfigurationError, GatewayError
from gateway.metering.quantity import QUANTITIES

View = dict[str, Any]

_LAST: Final = {
    "refused": "none: connection refused",
    "dns": "none: the server's name is not known",
    "timeout": "none in time",
    "tls": "none: its certificate or TLS",
    "clock": "none: the clock here is wrong",
    "proxy": "none: the proxy",
    "protocol": "none that can be read",
    "server": "an error of the server",
}
"""What came of a sender's last request, where its short word alone would not be understood."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="All of it, for scripts.")
@config_option
def status(as_json: bool, config: str | None) -> None:
    """Show buses, meters, last values, what waits, the next request and what is parked.

    Where the service does not run, what is in the buffer. Mistakes in the configuration are told
    last, and end it with 78.
    """
    path = find_path(config)
    try:
        settings = load(path, tokens=False).config
    except ConfigurationError:
        with contextlib.suppress(GatewayError):  # a service may run on what the file said before
            _show(ask(socket_path(buffer_path(path)), "status"), as_json=as_json)
        raise
    try:
        view: View = ask(socket_path(settings.buffer.path), "status")
    except NotRunning:
        view = asyncio.run(_at_rest(settings))
    _show(view, as_json=as_json)


def _show(view: View, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
    else:
        click.echo("\n".join(_screen(view)))


async def _at_rest(settings: GatewayConfig) -> View:
    """What the buffer alone tells."""
    from gateway.buffer.reads import ReadOnlyStore
    from gateway.clock import SystemClock
    from gateway.config.heirs import unserved
    from gateway.energinet.holding import with_held
    from gateway.energinet.slot import Now, SlotState
    from gateway.metering.reading import Counts
    from gateway.status import counts_view, iso, missing_view, unserved_view

    now = Now.of(SystemClock(assume_synchronised=settings.clock.assume_synchronised))
    counts, pending, parked, last = Counts(), {}, [], {}
    missing: dict[str, dict[str, int]] = {}
    next_request: dict[str, Instant | None] = {}
    path = buffer_of(settings)
    if path is not None:
        store = ReadOnlyStore(path, declared_by(settings))
        await store.open()
        try:
            zone = ZoneInfo(settings.timezone)
            counts = await store.counts()
            counts = await with_held(counts, store, settings.energinet, zone, now)
            pending = dict(await store.pending_by_sender())
            parked = list(await store.parked())
            last = dict(await store.last())
            yesterday = now.wall - DAY
            missing = missing_view(await store.gaps(yesterday), yesterday, settings.meters)
            for sender in settings.energinet.senders:
                kept = await store.slot(sender.name)
                wait = SlotState.unpack(kept, now, settings.energinet.request_interval).wait(now)
                next_request[sender.name] = now.wall + wait if wait else None
        finally:
            await store.close()
    return {
        "service": {"running": False, "config": str(settings.path), "now": iso(now.wall)},
        "buffer": {**counts_view(counts), "bytes": path.stat().st_size if path else 0},
        "buses": [{"name": bus.name, "state": "not asked"} for bus in settings.buses],
        "meters": [
            {
                "name": meter.name,
                "bus": meter.bus,
                "unit": meter.unit,
                "profile": meter.profile.name,
                "state": "not asked",
                "values": [
                    {
                        "quantity": send.quantity,
                        "value": f"{last[send.key].value:f}",
                        "unit": QUANTITIES[send.quantity].unit,
                        "at": iso(last[send.key].stamp),
                    }
                    for send in meter.send
                    if send.key in last
                ],
                "missing": missing.get(meter.name, {}),
            }
            for meter in settings.meters
        ],
        "senders": [
            {
                "name": sender.name,
                "pending": pending.get(sender.name, (0, None))[0],
                "oldest": iso(pending.get(sender.name, (0, None))[1]),
                "next_request": iso(next_request.get(sender.name)),
            }
            for sender in settings.energinet.senders
        ],
        "unserved": unserved_view(
            unserved(settings, {name: count for name, (count, _) in pending.items()})
        ),
        "parked": [
            {"meterID": line.key.meter_id, "reason": line.reason, "count": line.count}
            for line in parked
        ],
    }


def _screen(view: View) -> Iterable[str]:
    service, buffer = view["service"], view["buffer"]
    if service["running"]:
        yield f"running since {service['since']}, version {service['version']}"
        if service["config_in_force"] != "current":
            yield "  the configuration in force is " + service["config_in_force"]
        if not service["clock_synchronised"]:
            yield "  the clock is not synchronised: samples are kept and stamped later"
    else:
        holds = "this is what its buffer holds" if buffer["bytes"] else "it has no buffer yet"
        yield f"the gateway does not run; {holds}"
    yield ""
    dropped = sum(buffer["dropped"].values())
    held = f" (held {buffer['held']})" if buffer["held"] else ""
    yield (
        f"buffer   stored {buffer['stored']} = pending {buffer['pending']}{held}"
        f" + in flight {buffer['in_flight']} + confirmed {buffer['confirmed']}"
        f" + parked {buffer['parked']} + dropped {dropped}"
        + ("" if buffer["balanced"] else "   THE SUM IS WRONG")
    )
    if buffer.get("failing"):
        yield "         it cannot be written: readings are kept in memory, see the log for why"
    for reason, count in buffer["dropped"].items():
        yield f"         dropped {count}: {reason}"
    yield ""
    yield from _table(
        ("bus", "state", "load", "error"),
        (
            (
                bus["name"],
                bus["state"],
                f"{bus['load']:.1%}" if "load" in bus else "",
                f"{bus['link']}: {bus['error']}" if bus.get("error") else "",
            )
            for bus in view["buses"]
        ),
    )
    yield ""
    yield from _table(
        ("meter", "bus", "unit", "state", "answers in", "errors", "last value"),
        (
            (
                meter["name"],
                meter["bus"],
                str(meter["unit"]),
                meter["state"] + (f" ({meter['reason']})" if meter.get("reason") else ""),
                f"{meter['turnaround_ms']:.0f} ms" if meter.get("turnaround_ms") else "",
                _errors(meter),
                _last(meter, service["now"]),
            )
            for meter in view["meters"]
        ),
    )
    yield from (
        f"likely   {meter['name']}: {meter['cause']}"
        for meter in view["meters"]
        if meter.get("cause")
    )
    for meter in view["meters"]:
        if missing := meter["missing"]:
            why = ", ".join(f"{count} {reason}" for reason, count in missing.items())
            values = counted(sum(missing.values()), "value")
            yield f"missing  {meter['name']}: {values} of the last day: {why}"
    yield ""
    yield from _table(
        ("sender", "pending", "next request", "last answer"),
        (
            (
                sender["name"],
                str(sender["pending"]),
                sender["next_request"] or _when(sender),
                _LAST.get(last := sender.get("last", ""), last),
            )
            for sender in view["senders"]
        ),
    )
    for one in view["unserved"]:
        values = counted(one["pending"], "value")
        yield f"unserved {one['sender']}: {values} for a sender that is not configured any more"
    for parked in view["parked"]:
        count = counted(parked["count"], "value")
        yield f"parked   {parked['meterID']}: {count}, {parked['reason']}"


def _when(sender: View) -> str:
    """Where the slot is free."""
    if "last" not in sender:  # the service does not run
        return ""
    return "soon" if sender["pending"] else "when there is something"


def _errors(meter: View) -> str:
    """The share of its requests that failed, with the kind that did so most."""
    errors = meter.get("errors")
    if not errors:
        return ""
    most = max(errors, key=errors.__getitem__)
    return f"{sum(errors.values()) / meter['requests']:.1%} {most}"


def _last(meter: View, now: str) -> str:
    """The first that there is, else why there is none."""
    values = meter.get("values", ())
    for value in sorted(values, key=lambda value: value["value"] is None):
        if value["value"] is None:
            shown = f"no value: {value['reason']}"
        else:
            shown = f"{value['value']} {value['unit']}".strip()
        return f"{value['quantity']} {shown}, {_age(value['at'], now)}"
    return ""


def _age(at: str, now: str) -> str:
    """How long ago, in the largest unit that tells it."""
    seconds = (datetime.fromisoformat(now) - datetime.fromisoformat(at)).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{max(0, seconds):.0f} s ago"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterable[str]:
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield "  ".join(cells).rstrip()
