"""A scan of a bus that the running service asks: it leaves the line alone until the scan ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from gateway.config import Library
from gateway.control import hold, socket_path
from gateway.modbus.served import SimulatedLine, wall
from gateway.modbus.settings import SerialLink
from gateway.modbus.simulator import SimulatedMeter
from tests.cli.world import call
from tests.service import PROFILE, Service, Site

Start = Callable[..., Awaitable[Service]]


async def test_the_running_service_lends_its_line_and_goes_on_when_the_scan_has_ended(
    site: Site, start: Start
) -> None:
    meters = [SimulatedMeter(Library(None).get(PROFILE), unit, wall(), unit) for unit in (1, 7)]
    line = SimulatedLine(meters, SerialLink("", 9600))
    path = line.open()
    try:
        site.buses["riser"] = f"{{serial: {path}, baudrate: 9600, parity: none, poll: 1 s}}"
        site.add("main", "riser")
        config = site.write()
        service = await start(config)
        before = len(await service.stored(1))
        done = await asyncio.to_thread(
            call, "scan", "riser", "--config", str(config), "--units", "1..8",
            "--baudrate", "9600", "--parity", "none", "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert [one["unit"] for one in json.loads(done.stdout)["found"]] == [1, 7]
        assert "the gateway leaves bus riser alone meanwhile" in done.stderr
        await service.says("bus.lent")
        await service.says("bus.returned")
        await service.stored(before + 2)
        assert service.levels() == {"info"}
    finally:
        line.close()


async def test_a_service_whose_line_is_lent_still_ends_in_order(site: Site, start: Start) -> None:
    await site.meter("main")
    service = await start(site.write())
    await service.stored(1)
    address = f"127.0.0.1:{site.endpoints['main'].port}"
    with hold(socket_path(service.buffer), "lend", bus=address) as bus:
        assert bus == "bus-main"
        assert await service.stop() < 5
    assert service.levels() == {"info"}, service.log


async def test_a_bus_of_which_the_service_knows_nothing_is_not_lent(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    service = await start(site.write())
    await service.says("bus.up")
    with hold(socket_path(service.buffer), "lend", bus="/dev/null") as bus:
        assert bus is None
    assert service.lines("bus.lent") == []
