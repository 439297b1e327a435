"""The one place that knows every class: configuration → objects → run, reload, stop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway import __version__
from gateway.buffer.store import Store
from gateway.clock import Clock, SystemClock
from gateway.config import Loaded, load
from gateway.config.settings import GatewayConfig
from gateway.control import ControlServer, socket_path
from gateway.errors import ConfigurationError, StoreError
from gateway.logbook import log, set_up
from gateway.modbus.poller import Ask, Poller
from gateway.plant import Plant, meter_named, sender_named
from gateway.service import InstanceLock, Systemd, on_signals
from gateway.status import Status, meter_view, report_view
from gateway.summary import Summary

_HEARTBEAT: Final = 10.0
"""Seconds between two looks at whether everything makes progress."""


class Gateway:
    """The service: one buffer, one plant that a reload replaces."""

    def __init__(
        self,
        config: GatewayConfig,
        *,
        clock: Clock | None = None,
        seed: random.Random | None = None,
        reread: Callable[[], Loaded] | None = None,
        systemd: Systemd | None = None,
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock(assume_synchronised=config.clock.assume_synchronised)
        self._random = seed or random.Random()
        self._reread = reread
        self._systemd = systemd or Systemd({})
        self.store = Store(config.buffer, self.clock)
        self.plant = Plant(config, self.store, self.clock, self._random)
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._reason = "asked to"
        self._refused = False
        """Is an old configuration in force because the file on disk has mistakes?"""
        self._since = self.clock.now()

    # ------------------------------------------------------------------------------ from outside

    def stop(self, reason: str = "signal") -> None:
        """End in order."""
        self._reason = reason
        self._stop.set()

    def reload(self) -> None:
        """Read the configuration again; keep the old one where the new one has mistakes."""
        self._reload.set()

    async def status(self) -> dict[str, Any]:
        """All that `status --json` shows."""
        return await Status(self.plant, self.store, self.clock).view(
            since=self._since, config=str(self.config.path), refused=self._refused
        )

    async def run(self) -> None:
        """Until `stop`. Raises AlreadyRunning, NotPermitted, StoreError."""
        with InstanceLock(Path(f"{self.config.buffer.path}.lock")):
            opened = await self.store.open()
            try:
                if opened.slots_lost:
                    for uploader in self.plant.uploaders.values():
                        uploader.hold()
                await self._serve(opened.pending)
            finally:
                await self.store.close()

    # -------------------------------------------------------------------------------- the service

    async def _serve(self, pending: int) -> None:
        control = ControlServer(socket_path(self.config.buffer.path), self._verbs())
        await self.plant.start()
        await control.open()
        config = self.config
        log(
            "gateway.started",
            version=__version__,
            config=config.path,
            buses=len(config.buses),
            meters=len(config.meters),
            senders=len(config.energinet.senders),
            pending=pending,
            clock="synchronised" if self.clock.synchronised() else "not synchronised",
        )
        self._systemd.notify("READY=1", "STATUS=running")
        heart = asyncio.create_task(self._heartbeat())
        hours = asyncio.create_task(self._hours())
        try:
            await self._until_stopped()
        finally:
            self._systemd.notify("STOPPING=1")
            for task in (heart, hours):
                task.cancel()
            await asyncio.gather(heart, hours, return_exceptions=True)
            await control.close()
            await self.plant.stop()
            pending = (await self.store.counts()).pending
            log("gateway.stopped", reason=self._reason, pending=pending)

    async def _until_stopped(self) -> None:
        while not self._stop.is_set():
            waits = [asyncio.create_task(e.wait()) for e in (self._stop, self._reload)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if self._reload.is_set() and not self._stop.is_set():
                self._reload.clear()
                await self._take_new_configuration()

    async def _take_new_configuration(self) -> None:
        if self._reread is None:
            return
        self._systemd.notify("RELOADING=1")
        try:
            config = self._reread().config
            if config.buffer != self.config.buffer:
                log(
                    "config.refused",
                    config=config.path,
                    mistakes=1,
                    first="a changed buffer takes effect at the next start",
                )
                self._refused = True
                return
        except ConfigurationError as error:
            first = error.mistakes[0]
            log(
                "config.refused",
                config=self.config.path,
                mistakes=len(error.mistakes),
                first=f"{first.file}:{first.line}:{first.column}: {first.message}",
            )
            self._refused = True
            return
        finally:
            self._systemd.notify("READY=1")
        await self.plant.stop()
        self.config, self._refused = config, False
        set_up(format=config.log.format, level=config.log.level)
        self.plant = Plant(config, self.store, self.clock, self._random)
        await self.plant.start()
        log(
            "config.reloaded",
            config=config.path,
            meters=len(config.meters),
            buses=len(config.buses),
            senders=len(config.energinet.senders),
        )

    async def _heartbeat(self) -> None:
        """Feed the watchdog for as long as everything makes progress."""
        every = min(_HEARTBEAT, (self._systemd.watchdog or 60) / 4)
        while True:
            if not (what := self.plant.stuck()):
                self._systemd.notify("WATCHDOG=1")
            else:
                log("task.failed", task="watchdog", error="no progress", where=what)
            await self.clock.sleep(every)

    async def _hours(self) -> None:
        summary = Summary(self.clock)
        while True:
            await self.plant.hourly.wait()
            self.plant.hourly.clear()
            try:
                await self.store.prune()
                await summary.say(self.plant, self.store)
            except StoreError as error:  # said by the committer; the next hour tries again
                log("task.failed", task="hourly", error=repr(error), where="buffer")

    # ------------------------------------------------------------------------------ for commands

    def _verbs(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        return {"status": self._on_status, "read": self._on_read, "send": self._on_send}

    async def _on_status(self, _: Mapping[str, Any]) -> Any:
        return await self.status()

    async def _on_read(self, request: Mapping[str, Any]) -> Any:
        meter = meter_named(self.plant.meters, str(request.get("meter")))
        return meter_view(meter.settings, await self.plant.read(meter.name))

    async def _on_send(self, request: Mapping[str, Any]) -> Any:
        uploader = sender_named(self.plant, request.get("sender"))
        report = await uploader.once(dry_run=bool(request.get("dry_run")))
        return report_view(report)


async def run_service(path: Path, config: GatewayConfig) -> int:
    """`meter-gateway run`: the service until a signal; its exit code."""
    gateway = Gateway(config, reread=lambda: load(path), systemd=Systemd())
    undo = on_signals(gateway.stop, gateway.reload)
    try:
        await gateway.run()
    finally:
        undo()
    return 0


async def read_meter(config: GatewayConfig, name: str) -> dict[str, Any]:
    """What a meter shows, asked by this process itself: the service does not run."""
    settings = meter_named({meter.name: meter for meter in config.meters}, name)
    bus = next(bus for bus in config.buses if bus.name == settings.bus)
    poller = Poller(bus, [settings], SystemClock(), random=random.Random())
    profile = settings.profile
    registers = dict.fromkeys(part for q in profile.quantities() for part in profile.needs(q))
    try:
        done = await poller.round([Ask(settings, tuple(registers), urgent=True)])
    finally:
        await poller.close()
    return meter_view(settings, done.samples[0])


async def send_alone(config: GatewayConfig, sender: str | None, *, dry_run: bool) -> Any:
    """`send` without a running service: the buffer is ours for as long as it takes."""
    with InstanceLock(Path(f"{config.buffer.path}.lock")):
        clock = SystemClock(assume_synchronised=config.clock.assume_synchronised)
        store = Store(config.buffer, clock)
        await store.open()
        try:
            plant = Plant(config, store, clock, random.Random())
            series = [one for meter in plant.meters.values() for one in meter.series()]
            await store.declare(series)
            report = await sender_named(plant, sender).once(dry_run=dry_run)
            await plant.stop()
        finally:
            await store.close()
    return report_view(report)
