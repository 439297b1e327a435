"""`meter-gateway export`: stored readings as CSV."""

from __future__ import annotations

import asyncio
import csv
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from gateway.cli.output import buffer_of, config_option
from gateway.cli.spans import instant
from gateway.clock import Instant, utc
from gateway.config import find_path, load
from gateway.config.settings import GatewayConfig
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.buffer.views import ExportRow


@click.command()
@click.option("--meter", help="Only this meter, or this meterID.")
@click.option("--from", "since", metavar="TIME", help="From this day or ISO 8601 time on.")
@click.option("--to", "until", metavar="TIME", help="To before this day or ISO 8601 time.")
@config_option
def export(meter: str | None, since: str | None, until: str | None, config: str | None) -> None:
    """Write all readings as CSV, newest last: meterID,time,value,state.

    Times are in UTC. Times given without an offset are the site's own.
    """
    settings = load(find_path(config), tokens=False).config
    zone = ZoneInfo(settings.timezone)
    first, end = instant(since, zone), instant(until, zone)
    if first is not None and end is not None and first >= end:
        raise click.UsageError(f"--from {since} is not before --to {until}")
    asyncio.run(_write(settings, meter, first, end))


async def _write(
    settings: GatewayConfig, meter: str | None, since: Instant | None, until: Instant | None
) -> None:
    from gateway.buffer.reads import ReadOnlyStore

    names = {one.name for one in settings.meters}
    ids = {send.key.meter_id for one in settings.meters for send in one.send}
    out = csv.writer(sys.stdout, lineterminator="\n")
    count = 0
    path = buffer_of(settings)
    out.writerow(("meterID", "time", "value", "state"))
    if path is not None:
        store = ReadOnlyStore(path)
        await store.open()
        try:
            # One that is in the configuration no more may still have readings.
            for chosen in _ways(meter, names, ids):
                async for rows in store.export(**chosen, since=since, until=until):
                    count += len(rows)
                    out.writerows(map(_row, rows))
        finally:
            await store.close()
    if not count and meter is not None and meter not in names | ids:
        raise GatewayError(
            f'no meter or meterID "{meter}" has readings', hint=f"one of {', '.join(sorted(names))}"
        )


def _ways(meter: str | None, names: set[str], ids: set[str]) -> Iterable[dict[str, Any]]:
    """By what to choose: the name of a meter, a meterID, or all."""
    if meter is None:
        return [{}]
    if meter in names:
        return [{"meter": meter}]
    return [{"meter_id": meter}] if meter in ids else [{"meter": meter}, {"meter_id": meter}]


def _row(row: ExportRow) -> tuple[str, str, str, str]:
    return row.key.meter_id, utc(row.stamp), f"{row.value:f}", row.state
