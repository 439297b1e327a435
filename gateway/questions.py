"""What commands ask: of the running service, or of this process where none runs."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from attrs import frozen

from gateway.buffer.store import Store
from gateway.clock import SystemClock
from gateway.config.settings import GatewayConfig
from gateway.control import Lease, Verb
from gateway.metering.settings import MeterSettings
from gateway.modbus.looking import asked_for
from gateway.modbus.plan import Read
from gateway.modbus.poller import Ask, Poller
from gateway.modbus.settings import BusSettings
from gateway.plant import Plant, sender_named
from gateway.service import InstanceLock
from gateway.status import accepted_view, looked_view, meter_view, report_view

Request = Mapping[str, Any]


@frozen
class Questions:
    """What the running service answers. `plant`: the one at work, which a reload replaces."""

    plant: Callable[[], Plant]
    status: Callable[[], Awaitable[dict[str, Any]]]

    def verbs(self) -> dict[str, Verb]:
        """By the name under which a command asks."""
        return {
            "status": self._status,
            "read": self._read,
            "look": self._look,
            "send": self._send,
            "accept": self._accept,
        }

    def leases(self) -> dict[str, Lease]:
        """What is lent for as long as a command wants it."""
        return {"lend": self._lend}

    async def _status(self, _: Request) -> Any:
        return await self.status()

    async def _read(self, request: Request) -> Any:
        plant = self.plant()
        settings = plant.config.meter(str(request.get("meter")))
        sample = await plant.answer(plant.read(settings.name))
        return meter_view(settings, sample, plant.pollers[settings.bus].link())

    async def _look(self, request: Request) -> Any:
        """None where this gateway does not ask there."""
        plant = self.plant()
        bus = plant.bus_at(str(request.get("bus")))
        if bus is None:
            return None
        poller = plant.pollers[bus.name]
        unit, reads = asked_for(request.get("unit"), request.get("reads"), bus.link.framing)
        return looked_view(await plant.answer(poller.look(unit, reads)), poller.link())

    async def _send(self, request: Request) -> Any:
        plant = self.plant()
        uploader = sender_named(plant, request.get("sender"))
        dry_run = bool(request.get("dry_run"))
        return report_view(await plant.answer(uploader.once(dry_run=dry_run)))

    async def _accept(self, request: Request) -> Any:
        name = str(request.get("meter"))
        return accepted_view(name, self.plant().accept(name))

    def _lend(self, request: Request) -> AbstractAsyncContextManager[str | None]:
        return self.plant().lend(str(request.get("bus")))


async def read_meter(config: GatewayConfig, name: str) -> dict[str, Any]:
    """What a meter shows, asked by this process itself: the service does not run."""
    settings = config.meter(name)
    poller = Poller(config.bus_of(settings), [settings], SystemClock(), random=random.Random())
    try:
        done = await poller.round([Ask(settings, settings.profile.everything(), by_hand=True)])
    finally:
        await poller.close()
    return meter_view(settings, done.samples[0], poller.link())


@contextlib.asynccontextmanager
async def looking(
    bus: BusSettings, meters: Sequence[MeterSettings], unit: int
) -> AsyncIterator[Callable[[Sequence[Read]], Awaitable[dict[str, Any]]]]:
    """Look at registers of a unit over a line of this process's own: the service does not run."""
    poller = Poller(bus, meters, SystemClock(), random=random.Random())

    async def look(reads: Sequence[Read]) -> dict[str, Any]:
        return looked_view(await poller.look(unit, reads), poller.link())

    try:
        yield look
    finally:
        await poller.close()


async def send_alone(config: GatewayConfig, sender: str | None, *, dry_run: bool) -> Any:
    """`send` without a running service: the buffer is ours for as long as it takes."""
    with InstanceLock(Path(f"{config.buffer.path}.lock")):
        clock = SystemClock(assume_synchronised=config.clock.assume_synchronised)
        store = Store(config.buffer, clock)
        plant = Plant(config, store, clock, random.Random())
        await plant.open()
        try:
            series = [one for meter in plant.meters.values() for one in meter.series()]
            await store.declare(series)
            report = await sender_named(plant, sender).once(dry_run=dry_run)
            await plant.stop()
        finally:
            await store.close()
    return report_view(report)
