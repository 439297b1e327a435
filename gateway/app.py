"""The one place that knows every class: configuration → objects → run, reload, stop."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from gateway import __version__
from gateway.buffer.store import Store
from gateway.clock import Clock, SystemClock
from gateway.commits import RETRY, either, log_failure
from gateway.config import Loaded, load
from gateway.config.settings import GatewayConfig
from gateway.control import ControlServer, socket_path
from gateway.diary import Diary
from gateway.errors import ConfigurationError, GatewayError, NotPermitted, StoreError
from gateway.logbook import log, set_up
from gateway.plant import Plant
from gateway.questions import Questions
from gateway.service import InstanceLock, Systemd, leave, on_signals
from gateway.status import Status
from gateway.summary import Summary

_HEARTBEAT: Final = 10.0
"""Seconds between two looks at whether everything makes progress."""
_STOP_WITHIN: Final = 4.5
"""Seconds after which a stop no longer waits: for a card or a name server that does not answer."""


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
        self._hour = asyncio.Event()
        self.plant = self._plant(config)
        self.summary = Summary(self.clock)
        self.diary = Diary(self.store, self.clock)
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._reason = "asked to"
        self._error: GatewayError | None = None
        """What makes it end by itself."""
        self._refused = ""
        """Why an old configuration is in force; empty: it is the one on disk."""
        self._since = self.clock.now()

    def _plant(self, config: GatewayConfig, before: str = "stopped") -> Plant:
        return Plant(config, self.store, self.clock, self._random, self._hour.set, before)

    # ------------------------------------------------------------------------------ from outside

    def stop(self, reason: str = "signal") -> None:
        """End in order."""
        self._reason = reason
        self._stop.set()

    async def stopping(self) -> str:
        """Wait until it was told to stop; why."""
        await self._stop.wait()
        return self._reason

    def reload(self) -> None:
        """Read the configuration again; keep the old one where the new one has mistakes."""
        self._reload.set()

    async def status(self) -> dict[str, Any]:
        """All that `status --json` shows."""
        return await Status(self.plant, self.store, self.clock).view(
            since=self._since, config=str(self.config.path), refused=self._refused
        )

    async def run(self) -> None:
        """Until `stop`. Raises AlreadyRunning, NotPermitted, StoreError; GatewayError where a part
        of it ended that must not."""
        with InstanceLock(Path(f"{self.config.buffer.path}.lock")), self.diary.open():
            pending = await self._open()
            try:
                await self._serve(pending)
            finally:
                await self.diary.write()
                await self.store.close()
        if self._error is not None:
            raise self._error

    # -------------------------------------------------------------------------------- the service

    async def _open(self) -> int:
        patience = asyncio.create_task(self._ask_for_patience())
        try:
            return await self.plant.open()
        finally:
            patience.cancel()

    async def _ask_for_patience(self) -> None:
        """A large buffer that has to be salvaged takes longer than systemd waits for a start."""
        while True:
            await self.clock.sleep(_HEARTBEAT)
            extended = f"EXTEND_TIMEOUT_USEC={round(6 * _HEARTBEAT * 1e6)}"
            self._systemd.notify(extended, "STATUS=opening the buffer")

    async def _serve(self, pending: int) -> None:
        asked = Questions(lambda: self.plant, self.status, self.store, self.clock)
        at = socket_path(self.config.buffer.path)
        control = ControlServer(at, asked.verbs(), asked.leases())
        beside: list[asyncio.Task[None]] = []
        try:
            await self.plant.start()
            await self._listen(control)
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
            await self.summary.begin(self.store)
            lasting = (self._heartbeat(), self._hours(), self.diary.run())
            beside += [asyncio.create_task(one) for one in lasting]
            await self._until_stopped()
        except Exception as error:
            self._reason = str(error) or repr(error)
            raise
        finally:
            self._systemd.notify("STOPPING=1")
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await control.close()
            await self.plant.stop()
            self.plant.committer.give_up("stopped")
            log("gateway.stopped", reason=self._reason, pending=await self._pending())

    async def _listen(self, control: ControlServer) -> None:
        """Commands are for people; readings are brought home without them too."""
        try:
            await control.open()
        except NotPermitted as error:
            log("task.failed", task="control", error=str(error), where="opening the socket")

    async def _pending(self) -> int | None:
        try:
            return (await self.store.counts()).pending
        except StoreError:
            return None

    async def _until_stopped(self) -> None:
        while not self._stop.is_set():
            waits = [asyncio.create_task(e.wait()) for e in (self._stop, self._reload)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if self._reload.is_set() and not self._stop.is_set():
                self._reload.clear()
                now = f"MONOTONIC_USEC={round(self.clock.monotonic() * 1e6)}"
                self._systemd.notify("RELOADING=1", now)
                await self._take_new_configuration()
                self._systemd.notify("READY=1")

    async def _take_new_configuration(self) -> None:
        try:
            config = await self._read_again()
            if config is None:
                return
            self._judge(config)
            plant = self._plant(config, before="config")
        except ConfigurationError as error:
            first = error.mistakes[0]
            where = f"{first.file}:{first.line}:{first.column}: {first.message}"
            self._refuse(len(error.mistakes), where, "the file has mistakes")
        except GatewayError as error:
            self._refuse(1, str(error), str(error))
        except Exception as error:  # the border of a reload: what is in force stays so
            log_failure("reload", error)
            self._refuse(1, repr(error), "the new one could not be read")
        else:
            await self._change_over(config, plant)

    async def _read_again(self) -> GatewayConfig | None:
        """In a thread: hundreds of meters take seconds, in which the others are asked on."""
        if self._reread is None:
            return None
        reading = asyncio.create_task(asyncio.to_thread(self._reread))
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait([reading, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        return None if self._stop.is_set() else (await reading).config

    def _judge(self, config: GatewayConfig) -> None:
        if config.buffer != self.config.buffer or config.clock != self.config.clock:
            raise GatewayError("a changed buffer or clock takes effect at the next start")
        if self.plant.committer.failing:
            raise GatewayError("the buffer cannot be written, reload again when it can")

    def _refuse(self, mistakes: int, first: str, why: str) -> None:
        log("config.refused", config=self.config.path, mistakes=mistakes, first=first)
        self._refused = why

    async def _change_over(self, config: GatewayConfig, plant: Plant) -> None:
        await self.plant.stop()
        # What the new plant goes on from has to be stored before.
        while not await self.plant.committer.flush() and not self._stop.is_set():
            await either(self._stop, RETRY, self.clock)
        self.plant.committer.give_up("stopped")
        self.summary.carry(self.plant)
        self.config, self.plant, self._refused = config, plant, ""
        set_up(format=config.log.format, level=config.log.level)
        while not self._stop.is_set():
            try:
                await plant.start()
                break
            except StoreError as error:
                log("task.failed", task="reload", error=str(error), where="buffer")
                await either(self._stop, 60.0, self.clock)
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
        said = ""
        while True:
            if (failed := self.plant.failed()) is not None:
                name, error = failed
                if isinstance(error, Exception):
                    log_failure(name, error)
                self._error = GatewayError(f"{name} ended", hint="report this with its log")
                self.stop(f"{name} ended")
                return
            what = self.plant.stuck()
            if not what:
                self._systemd.notify("WATCHDOG=1")
            elif what != said:
                log("task.failed", task="watchdog", error="no progress", where=what)
            said = what
            await self.clock.sleep(every)

    async def _hours(self) -> None:
        while True:
            await self._hour.wait()
            self._hour.clear()
            try:
                await self.plant.tidy()
                await self.summary.say(self.plant, self.store)
            except StoreError as error:  # said by the committer; the next hour tries again
                log("task.failed", task="hourly", error=str(error), where="buffer")
            except Exception as error:  # the border of an hour
                log_failure("hourly", error)


async def run_service(path: Path, config: GatewayConfig) -> int:
    """`meter-gateway run`: the service until a signal; its exit code."""
    gateway = Gateway(config, reread=lambda: load(path), systemd=Systemd())
    undo = on_signals(gateway.stop, gateway.reload)
    running = asyncio.create_task(gateway.run())
    stopping = asyncio.create_task(gateway.stopping())
    await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        await asyncio.wait([running], timeout=_STOP_WITHIN)
    if not running.done():  # what was stored is safe; only this process knows what was not
        gateway.plant.committer.give_up("stopped")
        log("gateway.stopped", reason=f"{stopping.result()}, cut after {_STOP_WITHIN} s")
        leave(0)
    stopping.cancel()
    undo()
    running.result()
    if threading.active_count() > 1:  # one that waits for a name server holds nobody up
        leave(0)
    return 0
