"""systemd is told when it runs, that it makes progress, and that it ends: over a real socket."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.service import PATIENCE, Service, Site

Start = Callable[..., Awaitable[Service]]


class Manager:
    """What systemd hears."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path = str(folder / "notify")
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def environment(self, watchdog: float) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": str(int(watchdog * 1e6))}

    def listen(self) -> list[str]:
        """All lines so far."""
        while True:
            try:
                self.heard += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.heard

    async def hears(self, line: str, times: int = 1) -> None:
        end = time.monotonic() + PATIENCE
        while sum(heard.startswith(line) for heard in self.listen()) < times:
            assert time.monotonic() < end, self.heard
            await asyncio.sleep(0.02)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    yield manager
    manager.close()


async def test_it_is_ready_once_it_runs_feeds_the_watchdog_and_says_that_it_stops(
    site: Site, start: Start, systemd: Manager
) -> None:
    await site.meter("main")
    service = await start(site.write(), environment=systemd.environment(2))
    await systemd.hears("READY=1")
    await service.says("gateway.started")
    await systemd.hears("WATCHDOG=1", 3)
    assert "STOPPING=1" not in systemd.heard
    await service.stop()
    await systemd.hears("STOPPING=1")


async def test_a_reload_is_told_with_its_end(site: Site, start: Start, systemd: Manager) -> None:
    await site.meter("main")
    service = await start(site.write(), environment=systemd.environment(60))
    await systemd.hears("READY=1")
    service.process.send_signal(1)
    await systemd.hears("RELOADING=1")
    await systemd.hears("READY=1", 2)
    reloading = systemd.heard.index("RELOADING=1")
    assert systemd.heard[reloading + 1].startswith("MONOTONIC_USEC=")
    await service.stop()


BUS_HANGS = """
import asyncio
import gateway.plant as plant
from gateway.modbus.bus import Bus
plant.STUCK = 1000
async def hang(*_, **__): await asyncio.sleep(600)
Bus.read = hang
"""


async def test_a_bus_without_progress_starves_the_watchdog_and_is_said_once(
    site: Site, start: Start, systemd: Manager
) -> None:
    await site.meter("main")
    environment = systemd.environment(1)
    service = await start(site.write(), patch=BUS_HANGS, environment=environment)
    await service.says("task.failed")
    fed = systemd.listen().count("WATCHDOG=1")
    await asyncio.sleep(1.5)
    assert systemd.listen().count("WATCHDOG=1") == fed
    (line,) = service.lines("task.failed")
    assert 'task=watchdog error="no progress" where="bus bus-main"' in line
    assert await service.stop() < 5


OPENING_TAKES_TIME = """
import time
import gateway.app as app
import gateway.buffer.salvage as salvage
app._HEARTBEAT = 0.2
prepare = salvage.prepare
def slowly(*arguments):
    time.sleep(2)
    return prepare(*arguments)
salvage.prepare = slowly
"""


async def test_while_a_large_buffer_is_opened_systemd_is_asked_for_patience(
    site: Site, start: Start, systemd: Manager
) -> None:
    await site.meter("main")
    environment = systemd.environment(60)
    service = await start(site.write(), patch=OPENING_TAKES_TIME, environment=environment)
    await systemd.hears("READY=1")
    before = systemd.heard[: systemd.heard.index("READY=1")]
    assert sum(line.startswith("EXTEND_TIMEOUT_USEC=") for line in before) >= 3
    await service.stop()


PART_ENDS = """
from gateway.schedule import Schedule
async def end(self): raise RuntimeError("out of time")
Schedule.run = end
"""


async def test_a_part_that_ended_ends_the_service_so_that_it_is_started_again(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    service = await start(site.write(), patch=PART_ENDS)
    assert await service.ended() == 1
    assert "out of time" in service.lines("task.failed")[0]
    assert 'reason="schedule ended"' in service.lines("gateway.stopped")[0]
    assert os.path.exists(service.buffer)
