"""P1, P2, P5, fault 1: kill -9 of the real process while values flow to the stand-in.

After each kill the buffer is read beside it, without changing it: every reading that was there
before is still there with the same value, and all that `status` counted as stored. In the end
Energinet holds each of them, unchanged, as its meter stood, and no request was early.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.energinet.standin import Request, Scripted
from gateway.errors import GatewayError
from gateway.metering.register import Value
from tests.service import Service, Site, stored, until

SEED = 20261125
METERS = ("main", "lift", "roof", "cooling")
LATE = 1_200
"""Milliseconds after its boundary in which a value every 5 s may be sampled, and some."""


def held(site: Site) -> dict[tuple[str, int], Decimal]:
    """What Energinet holds: meterID and stamp to value."""
    found = {}
    for meter_id, values in site.standin.received.items():
        for stamp, value in values.items():
            at = datetime.fromisoformat(stamp).replace(tzinfo=UTC)
            found[meter_id, int(at.timestamp() * 1000)] = value
    return found


async def answer(request: Request) -> Scripted | None:
    """Slowly, so that kills fall between a request and its answer; every third is lost."""
    if request.number % 3 == 0:
        return Scripted(store=True, delay=1.0, raw=b"")
    await asyncio.sleep(0.7 * (request.number % 3 - 1))
    return None


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    """What is done in the end, however it ends."""
    with ExitStack() as stack:
        yield stack


async def test_what_was_stored_survives_every_kill_and_no_request_is_early(
    tmp_path: Path, short: bool, ends: ExitStack
) -> None:
    kills = 26 if short else 200
    draw = random.Random(SEED)
    site = await Site(tmp_path, window=2, zone="UTC").open(answer)
    meters = {name: await site.meter(name) for name in METERS}
    config = site.write()
    known: dict[tuple[str, int], Decimal] = {}
    in_flight = cut_while_starting = 0
    for nth in range(kills):
        service = await Service.start(config)
        ends.callback(service.kill)
        if draw.random() < 0.8:  # else it may be killed while it starts
            await service.says("gateway.started")
        await asyncio.sleep(draw.uniform(0.3, 5.0))
        counted = 0
        try:
            counts = (await service.status())["buffer"]
            counted = counts["stored"]
            in_flight += counts["in_flight"] > 0
            assert counts["balanced"]
        except GatewayError:
            cut_while_starting += 1
        await asyncio.sleep(draw.uniform(0, 0.05))
        assert service.process.returncode is None, service.log
        service.kill()
        await service.process.wait()
        rows = {}
        if service.buffer.exists():
            rows = {(r.key.meter_id, r.stamp): r.value for r in await stored(service.buffer)}
        assert len(rows) >= counted, f"kill {nth}: {len(rows)} of {counted} are left"
        for one, value in known.items():
            assert rows.get(one) == value, f"kill {nth}: {one} was {value}, is {rows.get(one)}"
        for one, value in held(site).items():
            assert rows.get(one) == value, f"kill {nth}: Energinet holds {one} {value}"
        known = rows
    last = await Service.start(config)
    ends.callback(last.kill)
    await last.says("gateway.started")
    await until(lambda: known.items() <= held(site).items())
    await last.stop()
    await site.close()
    assert site.standin.violations == []
    for (name, stamp), value in held(site).items():
        low, high = (
            shown(meters[name].value("active_energy_import_total", at))
            for at in (stamp, stamp + LATE)
        )
        assert low <= value <= high, f"{name} at {stamp}: {value} is not in {low} to {high}"
    print(
        f"seed {SEED}: {kills} kills, {cut_while_starting} of them before it answered,"
        f" {in_flight} with values in flight; {len(known)} readings stored, lost 0, changed 0;"
        f" {len(site.standin.requests)} requests, early 0"
    )
    assert len(known) > kills
    assert len(site.standin.requests) > kills / 4


def shown(value: Value) -> Decimal:
    assert isinstance(value, Decimal)
    return value
