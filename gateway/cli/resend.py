"""`meter-gateway resend METER`: decode again what is stored, and send what was wrong once more."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from typing import Any, Final
from zoneinfo import ZoneInfo

import click
from attrs import define, field

from gateway.buffer.again import MISSING
from gateway.cli.output import buffer_of, config_option, counted, print_json
from gateway.cli.spans import instant
from gateway.clock import Instant, utc
from gateway.config import find_path, load
from gateway.config.settings import GatewayConfig
from gateway.control import NotRunning, ask, socket_path
from gateway.energinet.batch import fewest_requests, number, value_bytes
from gateway.errors import GatewayError
from gateway.metering.again import REASONS
from gateway.resending import Digest, Item, Resending, Wish

_SHOWN: Final = 20
"""Rows of the table; `--json` has all of them."""


@click.command()
@click.argument("meter")
@click.option("--from", "since", metavar="TIME", help="From this day or ISO 8601 time on.")
@click.option("--to", "until", metavar="TIME", help="To before this day or ISO 8601 time.")
@click.option("--was", "former", default="", metavar="METERID", help="They were sent to this one.")
@click.option("--history", is_flag=True, help="What was corrected before, and nothing else.")
@click.option("--yes", is_flag=True, help="Send them again, without asking.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@config_option
def resend(
    meter: str,
    since: str | None,
    until: str | None,
    former: str,
    history: bool,
    yes: bool,
    as_json: bool,
    config: str | None,
) -> None:
    """Decode the stored readings of METER by today's configuration and profile, show them beside
    what was sent, and send again those that are another value now.

    For a mistake in a profile, a word order, a multiplier or, with --was, a meterID. Nothing is
    sent again without --yes, or a yes on a terminal. Ends with 3 where some had to be left.
    """
    path = find_path(config)
    settings = load(path, tokens=False).config
    settings.meter(meter)
    if history:
        asyncio.run(_show_history(settings, meter, as_json=as_json))
        return
    zone = ZoneInfo(settings.timezone)
    first, end = instant(since, zone), instant(until, zone)
    if first is None:
        raise click.UsageError("say --from: since when were the values wrong?")
    end = end or int(time.time() * 1000)
    if first >= end:
        raise click.UsageError(f"--from {since} is not before --to {until or 'now'}")
    wish = Wish(meter, first, end, former)
    found = asyncio.run(_look(settings, wish, all_of_it=as_json))
    view = found.view(settings)
    if not as_json:
        click.echo(_text(view, zone, settings))
    if not found.count:
        _end(found, view, as_json=as_json)
        return
    if not yes and not as_json and sys.stdin.isatty():
        yes = click.confirm(f"Send {counted(found.count, 'value')} again?", err=True)
    if yes:
        view["sent_again"] = _send_again(path, settings, wish, found.digest)["sent_again"]
        if not as_json:
            click.echo(f"{counted(view['sent_again'], 'value')} will be sent again")
    elif not as_json:
        click.echo("nothing is sent again without --yes", err=True)
    _end(found, view, as_json=as_json, done=yes)


def _send_again(path: Any, settings: GatewayConfig, wish: Wish, digest: str) -> dict[str, Any]:
    request = {"meter": wish.meter, "since": wish.since, "until": wish.until, "former": wish.former}
    address = socket_path(settings.buffer.path)
    try:
        view: dict[str, Any] = ask(address, "resend", timeout=600, digest=digest, **request)
    except NotRunning:
        from gateway.questions import resend_alone

        return asyncio.run(resend_alone(load(path, tokens=False).config, wish, digest))
    return view


def _end(found: _Found, view: dict[str, Any], *, as_json: bool, done: bool = False) -> None:
    if as_json:
        print_json(view)
    if (done or not found.count) and found.left:
        raise SystemExit(3)


# ------------------------------------------------------------------------------------- looking


@define
class _Row:
    """A line of the table."""

    meter_id: str
    at: Instant
    sent: str | None
    """None: nothing, there was no reading."""
    now: str
    state: str


@define
class _Series:
    """What is told of a meterID."""

    meter_id: str
    sender: str
    again: int = 0
    unchanged: int = 0
    bytes: int = 0
    first: Instant | None = None
    last: Instant | None = None
    left: Counter[str] = field(factory=Counter)


@define
class _Found:
    """What the stored readings come to."""

    meter: str
    former: str
    all_of_it: bool
    digest: str = ""
    series: dict[str, _Series] = field(factory=dict)
    head: list[_Row] = field(factory=list)
    tail: list[_Row] = field(factory=list)

    @property
    def count(self) -> int:
        """How many are to be sent again."""
        return sum(one.again for one in self.series.values())

    @property
    def left(self) -> int:
        """How many are left as they are, though what they should be is not known."""
        left = sum((one.left for one in self.series.values()), Counter[str]())
        return left.total() - left["has_own"]

    def take(self, item: Item, settings: GatewayConfig) -> None:
        row, one = item.row, self.series[item.key.meter_id]
        if not item.again:
            if item.now.reason:
                one.left[item.now.reason] += 1
            else:
                one.unchanged += 1
            return
        assert item.now.value is not None
        one.again += 1
        one.first = row.stamp if one.first is None else min(one.first, row.stamp)
        one.last = row.stamp if one.last is None else max(one.last, row.stamp)
        now = number(item.now.value)
        sent = None if row.state == MISSING else number(row.value)
        shown = _Row(item.key.meter_id, row.stamp, sent, now, row.state)
        zone, timestamps = ZoneInfo(settings.timezone), settings.energinet.timestamps
        one.bytes += value_bytes(row.stamp, item.now.value, zone, timestamps)
        if self.all_of_it or len(self.head) < _SHOWN // 2:
            self.head.append(shown)
        else:
            self.tail = [*self.tail[-(_SHOWN // 2) + 1 :], shown]

    def view(self, settings: GatewayConfig) -> dict[str, Any]:
        """All of it, for JSON."""
        by_sender: Counter[str] = Counter()
        for one in self.series.values():
            by_sender[one.sender] += one.bytes
        return {
            "meter": self.meter,
            "former": self.former or None,
            "requests": fewest_requests(by_sender.values(), settings.energinet.max_payload),
            "series": [
                {
                    "meterID": one.meter_id,
                    "sender": one.sender,
                    "changed": one.again,
                    "unchanged": one.unchanged,
                    "left": dict(one.left),
                    "first": None if one.first is None else utc(one.first),
                    "last": None if one.last is None else utc(one.last),
                }
                for one in self.series.values()
            ],
            "values": [
                {
                    "meterID": row.meter_id,
                    "time": utc(row.at),
                    "sent": row.sent,
                    "now": row.now,
                    "state": row.state,
                }
                for row in (*self.head, *self.tail)
            ],
            "sent_again": 0,
        }


async def _look(settings: GatewayConfig, wish: Wish, *, all_of_it: bool) -> _Found:
    from gateway.buffer.reads import ReadOnlyStore

    path = buffer_of(settings)
    if path is None:
        raise GatewayError("there is no buffer yet", hint="`meter-gateway check` shows where")
    found = _Found(wish.meter, wish.former, all_of_it)
    for send in settings.meter(wish.meter).send:
        found.series[send.key.meter_id] = _Series(send.key.meter_id, send.sender)
    resending = Resending(settings, wish, int(time.time() * 1000))
    store = ReadOnlyStore(path)
    await store.open()
    try:
        digest = Digest()
        async for items in resending.items(store):
            digest.add(items)
            for item in items:
                found.take(item, settings)
        found.digest = str(digest)
    finally:
        await store.close()
    return found


async def _show_history(settings: GatewayConfig, meter: str, *, as_json: bool) -> None:
    from gateway.buffer.reads import ReadOnlyStore

    rows = []
    path = buffer_of(settings)
    if path is not None:
        store = ReadOnlyStore(path)
        await store.open()
        try:
            keys = [send.key for send in settings.meter(meter).send]
            rows = [
                {
                    "meterID": one.key.meter_id,
                    "time": utc(one.stamp),
                    "was": number(one.was),
                    "state": one.state,
                    "corrected": utc(one.at),
                }
                for one in await store.formers(keys)
            ]
        finally:
            await store.close()
    if as_json:
        print_json(rows)
        return
    for row in rows:
        click.echo("  ".join(str(value) for value in row.values()))
    if not rows:
        click.echo(f"{meter}: nothing was corrected")


# ------------------------------------------------------------------------------------- showing


def _text(view: dict[str, Any], zone: ZoneInfo, settings: GatewayConfig) -> str:
    rows, lines = view["values"], []
    if rows:
        columns = [("time", "meterID", "sent", "now"), *map(_cells, rows)]
        widths = [max(len(row[nth]) for row in columns) for nth in range(4)]
        shown = [
            f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}"
            f"  {row[3]:>{widths[3]}}"
            for row in columns
        ]
        total = sum(one["changed"] for one in view["series"])
        half = 1 + _SHOWN // 2
        if total > len(rows):
            shown.insert(half, f"… {total - len(rows)} more (all of them: --json) …")
        if any(row["state"] not in ("confirmed", MISSING) for row in rows):
            shown.append("(in brackets: not confirmed by Energinet yet)")
        lines += [*shown, ""]
    for one in view["series"]:
        lines.append(_series_line(one, view["former"]))
        lines += [f"  {n} left: {REASONS[why]}" for why, n in sorted(one["left"].items())]
    if view["former"] and rows:
        lines.append(
            f"What was sent to {view['former']} cannot be recalled: it is to be deleted in"
            " Energinet by hand. What waits for it does not go there any more."
        )
    if rows:
        requests = counted(view["requests"], "request")
        minutes = view["requests"] * settings.energinet.request_interval // 60_000
        lines.append(f"{requests}, about {max(1, minutes)} min")
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    sent = row["sent"] if row["state"] == "confirmed" else f"({row['sent']})"
    if row["sent"] is None:
        sent = "missing"
    return row["time"], row["meterID"], sent, row["now"]


def _series_line(one: dict[str, Any], former: str | None) -> str:
    if not one["changed"]:
        return f"{one['meterID']}: nothing to send again, {one['unchanged']} unchanged"
    what = f"from {former}" if former else "changed"
    return (
        f"{one['meterID']}: {counted(one['changed'], 'value')} {what}, {one['first']} to"
        f" {one['last']}; {one['unchanged']} unchanged"
    )
