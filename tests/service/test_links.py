"""Lines and connections that go and come back, below the real process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.config import Library
from gateway.modbus.served import SimulatedLine, wall
from gateway.modbus.settings import SerialLink
from gateway.modbus.simulator import Fault, SimulatedMeter
from tests.service import PROFILE, Service, Site

Start = Callable[..., Awaitable[Service]]


async def test_a_usb_adapter_that_is_pulled_is_found_again_by_its_stable_path(
    site: Site, start: Start, tmp_path: Path
) -> None:
    meter = SimulatedMeter(Library(None).get(PROFILE), 1, wall())
    stable = tmp_path / "usb-FTDI_USB-RS485-if00-port0"
    line = SimulatedLine([meter], SerialLink("", 9600))
    stable.symlink_to(line.open())
    first_port = line.path
    site.buses["riser"] = f"{{serial: {stable}, baudrate: 9600, poll: 1 s}}"
    site.add("main", "riser")
    service = await start(site.write())
    await service.stored(1)
    line.close()
    stable.unlink()
    await service.says("bus.down")
    two = [SimulatedLine([meter], SerialLink("", 9600)) for _ in range(2)]
    for one in two:
        one.open()
    line = next(one for one in two if one.path != first_port)  # as /dev/ttyUSB1
    stable.symlink_to(line.path)
    put_back = time.monotonic()
    before = len(await service.stored(1))
    await service.says("bus.up", 2)
    await service.stored(before + 1)
    assert time.monotonic() - put_back < 30
    assert service.descriptors("/dev/pts/") == 1
    await service.stop()
    for one in two:
        one.close()
    assert service.levels() == {"info", "warning"}
    assert len(service.lines("bus.down")) == 1


async def test_a_tcp_meter_that_refuses_resets_or_is_silent_comes_back_each_time(
    site: Site, start: Start
) -> None:
    meter = await site.meter("main")
    await site.meter("other")
    endpoint = site.endpoints["main"]
    service = await start(site.write())
    await service.stored(1, of="main")
    await endpoint.close()  # cut off, then refused
    await service.says("bus.down")
    await asyncio.sleep(2)
    await endpoint.open()
    await service.says("bus.up", 3)  # of the other bus, and twice of this
    count = len(await service.stored(1, of="main"))
    await service.stored(count + 1, of="main")

    # Half open: the connection is there, and nobody on the other end any more.
    meter.faults = [Fault("silent")]
    await service.says("meter.offline")
    meter.faults = []
    await endpoint.close()
    await endpoint.open()
    await service.says("meter.online")
    count = len(await service.stored(1, of="main"))
    await service.stored(count + 1, of="main")
    assert await service.stop() < 5
    rows = await service.stored(1, of="other")
    stamps = sorted(row.stamp for row in rows)
    assert stamps == list(range(stamps[0], stamps[-1] + 1, 5000))  # it missed nothing
    assert "error" not in service.levels()
