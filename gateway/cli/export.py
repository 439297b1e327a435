"""`meter-gateway export`: stored readings as CSV."""

from __future__ import annotations

import asyncio
import csv
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from gateway.cli.output import config_option
from gateway.clock import Instant
from gateway.config import find_path, load
from gateway.config.settings import GatewayConfig
from gateway.errors import GatewayError


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
    asyncio.run(_write(settings, meter, _instant(since, zone), _instant(until, zone)))


def _instant(text: str | None, zone: ZoneInfo) -> Instant | None:
    if text is None:
        return None
    try:
        if len(text) == 10:
            day = date.fromisoformat(text)
            at = datetime(day.year, day.month, day.day, tzinfo=zone)
        else:
            at = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"{text} is no time: write 2026-01-31, 2026-01-31T12:00 or 2026-01-31T12:00Z"
        ) from None
    return int((at if at.tzinfo else at.replace(tzinfo=zone)).timestamp() * 1000)


async def _write(
    settings: GatewayConfig, meter: str | None, since: Instant | None, until: Instant | None
) -> None:
    from gateway.buffer.reads import ReadOnlyStore

    path = Path(settings.buffer.path)
    names = {one.name for one in settings.meters}
    ids = {send.key.meter_id for one in settings.meters for send in one.send}
    if meter is not None and meter not in names | ids:
        raise GatewayError(
            f'no meter or meterID "{meter}"', hint=f"meters: {', '.join(sorted(names))}"
        )
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("meterID", "time", "value", "state"))
    if not path.exists():
        return
    store = ReadOnlyStore(path)
    await store.open()
    try:
        by_id = meter if meter in ids else None
        by_name = None if by_id else meter
        async for rows in store.export(meter_id=by_id, meter=by_name, since=since, until=until):
            for row in rows:
                at = datetime.fromtimestamp(row.stamp / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                out.writerow((row.key.meter_id, at, f"{row.value:f}", row.state))
    finally:
        await store.close()
