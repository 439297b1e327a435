"""A site for commands to work on: a configuration, a stand-in for Energinet, processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from gateway.energinet.standin import StandIn

T = TypeVar("T")

ENTRY = [sys.executable, "-m", "gateway.cli.main"]
TOKEN = "token-of-basement"
PATIENCE = 60.0
"""Seconds that a slow machine may take for what takes one."""


def environment() -> dict[str, str]:
    """Ours, without what would point a command at another configuration."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("METER_GATEWAY")}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def call(
    *arguments: str | Path, timeout: float = PATIENCE, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with nothing to type on. `before`: what runs it."""
    return subprocess.run(
        [*before, *ENTRY, *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment(),
        timeout=timeout,
        check=False,
    )


class Background:
    """A command that goes on; what it prints goes to files."""

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = (folder / f"{arguments[0]}.out", folder / f"{arguments[0]}.err")
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self.process = subprocess.Popen(
                [*ENTRY, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment(),
            )

    @property
    def out(self) -> str:
        """Its standard output so far."""
        return self._files[0].read_text()

    @property
    def err(self) -> str:
        """Its standard error so far."""
        return self._files[1].read_text()

    def wait_for(self, seen: Callable[[], object], what: str = "it") -> None:
        """Until `seen` is true, for as long as the process lives."""
        until = time.monotonic() + PATIENCE
        while not seen():
            assert self.process.poll() is None, f"ended early:\n{self.out}{self.err}"
            assert time.monotonic() < until, f"{what} never came:\n{self.out}{self.err}"
            time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """If it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Loop:
    """An event loop in a thread of its own, for servers beside a test that waits."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in it; its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def energinet(standin: StandIn) -> Iterator[str]:
    """The stand-in at work; its address."""
    loop = Loop()
    try:
        yield loop.do(standin.start())
        loop.do(standin.stop())
    finally:
        loop.close()


def site(
    folder: Path,
    url: str,
    meters: Sequence[str],
    *,
    buses: Sequence[str] = ('plant: {tcp: "127.0.0.1:1"}',),
    interval: str = "10 min",
    every: str = "1 h",
) -> Path:
    """A configuration in a folder, as a person would write it, and its token."""
    token = folder / "basement.token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    path = folder / "gateway.yaml"
    lines = [
        "timezone: Europe/Oslo",
        "energinet:",
        f"  url: {url}",
        f"  request_interval: {interval}",
        "  linger: 1 s",
        "  senders: [{name: basement, token: {file: basement.token}}]",
        f"defaults: {{every: {every}, as: counter}}",
        "clock: {assume_synchronised: true}",
        "buffer: {path: readings.db}",
        "buses:",
        *(f"  {bus}" for bus in buses),
        "meters:",
        *(f"  - {meter}" for meter in meters),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
