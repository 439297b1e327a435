"""`meter-gateway parked`: what is kept and not sent, and what is to become of it."""

from __future__ import annotations

import asyncio
import csv
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click
from attrs import define

from gateway.cli.output import buffer_of, config_option, counted, print_json
from gateway.clock import Instant, utc
from gateway.config import find_path, load
from gateway.config.settings import GatewayConfig
from gateway.control import NotRunning, ask, socket_path
from gateway.errors import GatewayError
from gateway.metering.reading import NO_TIME, SeriesKey

if TYPE_CHECKING:
    from gateway.buffer.reads import ReadOnlyStore

_REASONS: Final = {
    "too_old": "older than five years: Energinet does not take it",
    "in_future": "stamped by a clock that was ahead",
    "damaged": "the card altered it; only the count is left",
    NO_TIME: "read in a boot that lost its power before it ever had the time",
    "dst": "another value was sent under its stamp, in the hour that the clock shows twice",
}
"""In words; any other is the status with which Energinet refused it."""

meters_argument = click.argument("meters", nargs=-1, metavar="[METER|METERID]...")
reason_option = click.option("--reason", default="", help="Only what is parked for this reason.")


@click.group()
def parked() -> None:
    """What is kept and not sent: see it, try it again, export it, drop it."""


@parked.command("list")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@config_option
def list_(as_json: bool, config: str | None) -> None:
    """What is parked: by meterID and reason, how much, and of when."""
    settings = load(find_path(config), tokens=False).config
    lines = asyncio.run(_lines(settings))
    if as_json:
        print_json([_view(line) for line in lines])
        return
    for line in lines:
        click.echo(_text(line))
    if not lines:
        click.echo("nothing is parked")


@parked.command()
@meters_argument
@reason_option
@click.option("--yes", is_flag=True, help="Do not ask before.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@config_option
def retry(
    meters: tuple[str, ...], reason: str, yes: bool, as_json: bool, config: str | None
) -> None:
    """Let what is parked be sent again: of these meters, or all.

    After what Energinet refused was mended there. What is too old, or lies in the future, stays
    parked. Ends with 3 where some stays.
    """
    if not meters and not yes and sys.stdin.isatty():
        click.confirm("Send all that is parked again?", abort=True, err=True)
    view = _settle(config, meters, reason, discard=False)
    if as_json:
        print_json(view)
    else:
        click.echo(f"{counted(view['count'], 'value')} will be sent again")
        for why, count in view["stay"].items():
            click.echo(f"  {count} stay parked: {_REASONS.get(why, why)}")
    if view["stay"]:
        raise SystemExit(3)


@parked.command()
@meters_argument
@reason_option
@click.option("--yes", is_flag=True, help="Drop them, without asking.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@config_option
def discard(
    meters: tuple[str, ...], reason: str, yes: bool, as_json: bool, config: str | None
) -> None:
    """Drop what is parked of these meters for good; it is counted as dropped: discarded.

    `parked export` keeps a copy. Without a meter, --reason says what; --yes on its own drops all.
    """
    settings = load(find_path(config), tokens=False).config
    lines = [
        line
        for line in asyncio.run(_lines(settings))
        if reason in ("", line.reason)
        and (not meters or line.meter in meters or line.key.meter_id in meters)
    ]
    count = sum(line.count for line in lines)
    if not yes:
        for line in lines:
            click.echo(_text(line), err=as_json)
        if not sys.stdin.isatty() or not count:
            click.echo("nothing is dropped without --yes", err=True)
            return
        click.confirm(f"Drop {counted(count, 'value')} for good?", abort=True, err=True)
    view = _settle(config, meters, reason, discard=True)
    if as_json:
        print_json(view)
    else:
        click.echo(f"{counted(view['count'], 'value')} dropped")


@parked.command()
@meters_argument
@reason_option
@config_option
def export(meters: tuple[str, ...], reason: str, config: str | None) -> None:
    """Write what is parked as CSV, as `export` does: meterID,time,value,state."""
    settings = load(find_path(config), tokens=False).config
    asyncio.run(_export(settings, meters, reason))


def _settle(
    config: str | None, meters: Sequence[str], reason: str, *, discard: bool
) -> dict[str, Any]:
    path = find_path(config)
    settings = load(path, tokens=False).config
    address = socket_path(settings.buffer.path)
    try:
        view: dict[str, Any] = ask(
            address, "parked", timeout=600, discard=discard, names=list(meters), reason=reason
        )
    except NotRunning:
        if buffer_of(settings) is None:
            raise GatewayError(
                "there is no buffer yet", hint="`meter-gateway check` shows where"
            ) from None
        from gateway.questions import Parked, parked_alone

        wanted = Parked(discard, tuple(meters), reason)
        return asyncio.run(parked_alone(settings, wanted))
    return view


@define
class _Line:
    """Values that are parked for one reason."""

    key: SeriesKey
    meter: str
    sender: str
    reason: str
    whole: bool
    count: int
    first: Instant | None = None
    last: Instant | None = None


async def _lines(settings: GatewayConfig) -> list[_Line]:
    path = buffer_of(settings)
    if path is None:
        return []
    store = _reader(path)
    await store.open()
    try:
        lines = {
            (one.key, one.reason, one.whole): _Line(
                one.key, "", one.sender, one.reason, one.whole, one.count
            )
            for one in await store.parked()
        }
        for key, eras in (await store.eras()).items():
            for line in lines.values():
                if line.key == key:
                    line.meter = eras[-1].series.meter
        for row in await store.parked_rows():
            found = lines.get((row.key, row.reason, row.whole))
            if found is not None:
                found.first = row.stamp if found.first is None else min(found.first, row.stamp)
                found.last = row.stamp if found.last is None else max(found.last, row.stamp)
    finally:
        await store.close()
    return list(lines.values())


async def _export(settings: GatewayConfig, meters: Sequence[str], reason: str) -> None:
    path = buffer_of(settings)
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("meterID", "time", "value", "state"))
    if path is None:
        return
    store = _reader(path)
    await store.open()
    try:
        keys = {line.key for line in await store.parked()}
        async for rows in store.export(keys=keys):
            out.writerows(
                (row.key.meter_id, utc(row.stamp), f"{row.value:f}", row.state)
                for row in rows
                if row.state.startswith("parked:")
                and (not meters or row.meter in meters or row.key.meter_id in meters)
                and reason in ("", row.state.removeprefix("parked:"))
            )
    finally:
        await store.close()


def _reader(path: Any) -> ReadOnlyStore:
    from gateway.buffer.reads import ReadOnlyStore

    return ReadOnlyStore(path)


def _view(line: _Line) -> dict[str, Any]:
    return {
        "meterID": line.key.meter_id,
        "meter": line.meter,
        "sender": line.sender,
        "reason": line.reason,
        "count": line.count,
        "first": None if line.first is None else utc(line.first),
        "last": None if line.last is None else utc(line.last),
        "whole": line.whole,
    }


def _text(line: _Line) -> str:
    status = f"Energinet refuses it with {line.reason}" if line.reason.isdigit() else line.reason
    why = _REASONS.get(line.reason, status)
    what = "all of it waits, one is tried every 6 h" if line.whole else ""
    when = "" if line.first is None or line.last is None else (
        f", {utc(line.first)} to {utc(line.last)}"
    )  # fmt: skip
    tail = f"; {what}" if what else ""
    return f"{line.key.meter_id} ({line.meter}): {counted(line.count, 'value')}{when}: {why}{tail}"
