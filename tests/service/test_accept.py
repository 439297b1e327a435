"""A meter that was replaced, through the running service: refused, until a person accepts it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.modbus.simulator import Fault
from tests.cli.world import call
from tests.service import Service, Site, stored

Start = Callable[..., Awaitable[Service]]
SWAP_AT = 4_000


async def accept(config: object, *more: str, code: int = 0) -> str:
    done = await asyncio.to_thread(call, "accept", "main", *more, "--config", str(config))
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


async def test_a_replaced_meter_is_refused_until_a_person_accepts_it(
    site: Site, start: Start
) -> None:
    """Another serial number, and counters that begin at zero."""
    await site.meter(
        "main", Fault("swapped", SWAP_AT, serial_number="555"), Fault("reset", SWAP_AT)
    )
    config = site.write()
    before = await start(config)
    await before.stored(1)
    await asyncio.sleep(SWAP_AT / 1000)
    await before.stop()
    rows = await stored(site.folder / "readings.db")

    service = await start(config)
    line = await service.says("meter.identity_changed")
    assert line.endswith('hint="check the meter; if it is the right one, accept it '
                         '(meter-gateway accept METER)"')  # fmt: skip
    assert " is=555 " in line
    await asyncio.sleep(6)
    assert len(await service.stored(0)) == len(rows)  # nothing of it was taken

    view: dict[str, Any] = json.loads(await accept(config, "--json"))
    assert view["serial_number"] == "555"
    assert view["was"] not in (None, "555")
    found = await service.stored(len(rows) + 1)
    assert float(found[-1].value) < 1  # the new meter's own count
    assert "its serial number is the one it had" in await accept(config)


async def test_where_the_configuration_has_the_number_that_is_to_be_changed(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    site.meters["main"] = site.meters["main"].replace("unit: 1", "unit: 1, serial_number: '999'")
    config = site.write()
    service = await start(config)
    await service.says("meter.identity_changed")
    shown = await accept(config, code=1)
    assert "the configuration has serial_number 999" in shown
    assert "try: write the new number there and reload" in shown


async def test_without_the_service_it_is_said_what_to_start(site: Site) -> None:
    await site.meter("main")
    assert "start it with `meter-gateway run`" in await accept(site.write(), code=1)
