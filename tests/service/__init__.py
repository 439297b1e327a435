"""The real process, `python -m gateway.cli.main run`, beside simulated meters and the stand-in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.buffer.reads import ReadOnlyStore
from gateway.buffer.views import ExportRow
from gateway.config import Library
from gateway.control import ask, socket_path
from gateway.energinet.standin import Script, StandIn
from gateway.errors import StoreDamaged, StoreUnavailable
from gateway.modbus.served import SimulatedEndpoint, wall
from gateway.modbus.simulator import Fault, SimulatedMeter

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds that something is waited for on a slow machine."""
TOKEN = "token-of-the-tests"
PROFILE = "eastron-sdm630"


class Service:
    """A `run` that was started; its log is kept in a file."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, buffer: Path) -> None:
        self.process = process
        self.buffer = buffer
        self._log = log

    @classmethod
    async def start(
        cls,
        config: Path,
        *,
        patch: str = "",
        environment: Mapping[str, str] | None = None,
        python: Iterable[str] = ("-W", "always::ResourceWarning"),
    ) -> Service:
        """Start it. `patch`: Python that is run first, to make something hang or fail."""
        log = config.parent / f"log-{time.monotonic_ns()}"
        what = ["-m", "gateway.cli.main"]
        if patch:
            what = ["-c", f"{patch}\nfrom gateway.cli.main import main; main()"]
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *python, *what, "run", "--config", str(config),
                stderr=out, cwd=ROOT, env={**os.environ, **(environment or {})},
            )  # fmt: skip
        return cls(process, log, config.parent / "readings.db")

    @property
    def log(self) -> str:
        """All that it has written to standard error."""
        return self._log.read_text()

    def lines(self, event: str) -> list[str]:
        """The lines of an event."""
        return [line for line in self.log.splitlines() if f" event={event} " in f"{line} "]

    def levels(self) -> set[str]:
        """The levels of all lines, "" for one that is none of ours."""
        found = (re.match(r"level=(\w+) ", line) for line in self.log.splitlines())
        return {match[1] if match else "" for match in found}

    async def says(self, event: str, times: int = 1) -> str:
        """Wait until it has said so; the last such line."""
        end = time.monotonic() + PATIENCE
        while len(found := self.lines(event)) < times:
            assert self.process.returncode is None, self.log
            assert time.monotonic() < end, f"no {event} in\n{self.log}"
            await asyncio.sleep(0.02)
        return found[-1]

    async def status(self) -> dict[str, Any]:
        """What `status --json` shows."""
        view: dict[str, Any] = await asyncio.to_thread(ask, socket_path(self.buffer), "status")
        return view

    async def stored(self, at_least: int, of: str | None = None) -> list[ExportRow]:
        """Wait until the buffer holds so many readings; all of them, read beside the service."""
        return await stored(self.buffer, at_least, of)

    def descriptors(self, of: str = "") -> int:
        """How many files and sockets it has open, or those whose name begins so."""
        folder = Path(f"/proc/{self.process.pid}/fd")
        names = []
        for link in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                names.append(os.readlink(link))
        return sum(name.startswith(of) for name in names)

    async def stop(self, number: int = signal.SIGTERM) -> float:
        """Tell it to end; the seconds it took. It has to end with 0."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = await asyncio.wait_for(self.process.wait(), PATIENCE)
        took = time.monotonic() - began
        assert code == 0, self.log
        return took

    async def ended(self) -> int:
        """Wait until it ends by itself; its exit code."""
        return await asyncio.wait_for(self.process.wait(), PATIENCE)

    def kill(self) -> None:
        """As a power cut would."""
        if self.process.returncode is None:
            self.process.kill()


async def stored(buffer: Path, at_least: int = 0, of: str | None = None) -> list[ExportRow]:
    """What a buffer holds, of one meterID or of all, once it is so much."""
    end = time.monotonic() + PATIENCE
    while True:
        store = ReadOnlyStore(buffer)
        rows: list[ExportRow] = []
        try:
            await store.open()
            rows = [row async for some in store.export(meter_id=of) for row in some]
        except (StoreUnavailable, StoreDamaged):  # not there yet, or being replaced
            pass
        finally:
            await store.close()
        if len(rows) >= at_least:
            return rows
        assert time.monotonic() < end, f"{len(rows)} of {at_least} readings"
        await asyncio.sleep(0.1)


async def until(true: Any) -> None:
    """Wait until a function says yes."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


class Site:
    """Meters on TCP, a stand-in for Energinet, and a configuration for them."""

    def __init__(self, folder: Path, *, window: int = 2, zone: str = "Europe/Oslo") -> None:
        self.folder = folder
        self.window = window
        self.zone = zone
        self.standin = StandIn({TOKEN: "basement"}, window=window * 1000, zone=zone)
        self.endpoints: dict[str, SimulatedEndpoint] = {}
        self.buses: dict[str, str] = {}
        self.meters: dict[str, str] = {}
        self.url = ""
        self.more = ""
        self.buffer = "readings.db"

    async def open(self, script: Script | None = None) -> Site:
        """Begin to serve."""
        self.standin.script = script
        self.url = await self.standin.start()
        token = self.folder / "basement.token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        return self

    async def close(self) -> None:
        """All of it is gone."""
        for endpoint in self.endpoints.values():
            await endpoint.close()
        await self.standin.stop()

    async def meter(
        self, name: str, *faults: Fault, bus: str = "", serves: bool = True
    ) -> SimulatedMeter:
        """A meter on an endpoint of its own; its meterID is its name."""
        bus = bus or f"bus-{name}"
        meter = SimulatedMeter(Library(None).get(PROFILE), 1, wall(), len(name), faults=faults)
        endpoint = SimulatedEndpoint([meter])
        port = await endpoint.open()
        self.endpoints[name] = endpoint
        self.buses[bus] = f'{{tcp: "127.0.0.1:{port}", poll: 1 s}}'
        self.add(name, bus)
        if not serves:
            await endpoint.close()
        return meter

    def add(self, name: str, bus: str, unit: int = 1) -> None:
        """An entry under `meters`."""
        self.meters[name] = (
            f"{{name: {name}, bus: {bus}, unit: {unit}, profile: {PROFILE},"
            f" send: [{{meterID: {name}, quantity: active_energy_import_total}}]}}"
        )

    def write(self) -> Path:
        """The configuration file."""
        path = self.folder / "gateway.yaml"
        lines = [
            f"timezone: {self.zone}",
            "energinet:",
            f"  url: {self.url}",
            f"  request_interval: {self.window} s",
            "  linger: 0 s",
            "  senders: [{name: basement, token: {file: basement.token}}]",
            "defaults: {every: 5 s, as: counter}",
            f"buffer: {{path: {self.buffer}}}",
            "clock: {assume_synchronised: true}",
            self.more,
            "buses:",
            *(f"  {name}: {text}" for name, text in self.buses.items()),
            "meters:",
            *(f"  - {text}" for text in self.meters.values()),
        ]
        path.write_text("\n".join(lines) + "\n")
        return path
