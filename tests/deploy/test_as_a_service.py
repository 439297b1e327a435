"""The real process with what systemd hands it: a socket to notify, a watchdog, a credential."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.energinet.standin import StandIn

WATCHDOG = 4.0
PATIENCE = 60.0
"""Seconds: what a busy machine may take."""


class Manager:
    """The end of systemd: what it is told, and the process it started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(PATIENCE)
        self.process: subprocess.Popen[bytes] | None = None

    def told(self, *, but: str = "") -> dict[str, str]:
        """The next message, other than `but`."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            lines = self._socket.recv(10_000).decode().splitlines()
            said = dict(line.split("=", 1) for line in lines)
            if but not in said:
                return said
        raise TimeoutError(self.log)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def log(self) -> str:
        return (self._folder / "journal").read_text()

    @contextmanager
    def service(self) -> Iterator[None]:
        """From its start to its end, which the test has to bring about."""
        given = {
            "NOTIFY_SOCKET": str(self._folder / "notify"),
            "WATCHDOG_USEC": str(round(WATCHDOG * 1e6)),
            "CREDENTIALS_DIRECTORY": str(self._folder / "credentials"),
            "METER_GATEWAY_CONFIG": str(self._folder / "gateway.yaml"),
        }
        with (self._folder / "journal").open("wb") as journal:
            where = os.fstat(journal.fileno())
            given["JOURNAL_STREAM"] = f"{where.st_dev}:{where.st_ino}"
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli.main", "run"],
                stderr=journal,
                env={**os.environ, **given},
            )
            try:
                yield
            finally:
                self.process.kill()
                self.process.wait()
                self._socket.close()


def configuration(folder: Path, url: str, *, every: str = "5 s") -> None:
    (folder / "gateway.yaml").write_text(f"""\
timezone: Europe/Oslo
energinet:
  url: {url}
  request_interval: 2 s
  linger: 0 s
  senders: [{{name: basement, token: {{credential: token_basement}}}}]
defaults: {{every: {every}, as: counter}}
clock: {{assume_synchronised: true}}
buffer: {{path: readings.db}}
buses: {{riser: {{tcp: "127.0.0.1:9"}}}}
meters:
  - name: main-supply
    bus: riser
    unit: 1
    profile: eastron-sdm630
    send: [{{meterID: "7", quantity: active_energy_import_total}}]
""")


def lived(manager: Manager, folder: Path, url: str) -> None:
    ready = manager.told()
    assert ready["READY"] == "1", manager.log

    fed = [manager.told() for _ in range(3)]
    assert all(said == {"WATCHDOG": "1"} for said in fed)

    configuration(folder, url, every="10 s")
    manager.send(signal.SIGHUP)
    reloading = manager.told(but="WATCHDOG")
    assert reloading["RELOADING"] == "1"
    assert reloading["MONOTONIC_USEC"].isdecimal()
    assert manager.told(but="WATCHDOG")["READY"] == "1"
    assert "event=config.reloaded" in manager.log

    (folder / "gateway.yaml").write_text("timezone: Europe/Olso\n")
    manager.send(signal.SIGHUP)
    assert manager.told(but="WATCHDOG")["RELOADING"] == "1"
    assert manager.told(but="WATCHDOG")["READY"] == "1"
    assert "\n<4>level=warning event=config.refused " in manager.log
    assert manager.told() == {"WATCHDOG": "1"}  # it works on

    manager.send(signal.SIGTERM)
    asked = time.monotonic()
    assert manager.told(but="WATCHDOG")["STOPPING"] == "1"
    assert manager.process is not None
    assert manager.process.wait(PATIENCE) == 0
    assert time.monotonic() - asked < 15  # 5 s are promised, on a machine that is not busy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/token_basement").write_text("handed-over\n")
    (tmp_path / "credentials/token_basement").chmod(0o400)
    return tmp_path


async def test_systemd_hears_of_start_progress_reload_and_end(folder: Path) -> None:
    standin = StandIn({"handed-over": "basement"}, window=2_000, zone="Europe/Oslo")
    url = await standin.start()
    configuration(folder, url)
    manager = Manager(folder)
    try:
        with manager.service():
            await asyncio.to_thread(lived, manager, folder, url)
    finally:
        await standin.stop()
    lines = manager.log.splitlines()
    assert all(re.match(r"<[3467]>level=(error|warning|info|debug) event=", line) for line in lines)
    assert not any(line.startswith("<3>") for line in lines), manager.log


def test_a_service_whose_configuration_is_wrong_says_so_and_is_not_started_again(
    folder: Path,
) -> None:
    configuration(folder, "http://127.0.0.1:9/")
    (folder / "credentials/token_basement").unlink()
    manager = Manager(folder)
    with manager.service():
        assert manager.process is not None
        assert manager.process.wait(PATIENCE) == 78
    assert "token of sender basement: systemd hands over no credential of this name" in manager.log
    assert "/etc/meter-gateway/tokens/NAME" in manager.log
