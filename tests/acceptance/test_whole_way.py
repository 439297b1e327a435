"""Meters that are not ours, the real process, the stand-in that enforces the limits."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.independent import STEP_KWH, build, line, served, stood_at

ZONE = "Europe/Oslo"
EVERY = 5
METERS = {
    # meterID: (kind, start) with a start of its own each, so that no two ever show the same
    "sdm-counter": ("sdm630", 1_000_000),
    "abb-counter": ("b23", 50_000_000),
    "em24-counter": ("em24", 90_000_000),
}


def configuration(folder: Path, url: str, serial: str, port: int) -> Path:
    """As a person would write it."""
    token = folder / "basement.token"
    token.write_text("acceptance-token\n")
    token.chmod(0o600)
    path = folder / "gateway.yaml"
    path.write_text(
        f"""
timezone: {ZONE}
energinet:
  url: {url}
  linger: 1 s
  request_interval: 6 s
  senders:
    - name: basement
      token: {{file: basement.token}}
defaults: {{every: {EVERY} s, as: counter}}
clock: {{assume_synchronised: true}}
buffer: {{path: readings.db}}
buses:
  riser: {{serial: {serial}, baudrate: 9600, poll: 10 s}}
  plant: {{tcp: "127.0.0.1:{port}", poll: 10 s}}
meters:
  - name: main
    bus: riser
    unit: 1
    profile: eastron-sdm630
    send:
      - {{meterID: sdm-counter, quantity: active_energy_import_total}}
      - {{meterID: sdm-moved, quantity: active_energy_import_total, as: consumption}}
  - name: lift
    bus: riser
    unit: 2
    profile: abb-b23
    send: [{{meterID: abb-counter, quantity: active_energy_import_total}}]
  - name: roof
    bus: plant
    unit: 1
    profile: carlo-gavazzi-em24-e1
    send: [{{meterID: em24-counter, quantity: active_energy_import_total}}]
"""
    )
    return path


async def run_for(seconds: float, folder: Path, meter: Path, free_tcp_port: int) -> None:
    from gateway.energinet.standin import StandIn

    standin = StandIn({"acceptance-token": "basement"}, window=6_000, zone=ZONE)
    url = await standin.start()
    now = int(time.time() * 1000)
    starts = {name: now - before for name, (_, before) in METERS.items()}
    with ExitStack() as stack:
        units = [(1, "sdm630", starts["sdm-counter"]), (2, "b23", starts["abb-counter"])]
        serial = stack.enter_context(line(meter, 9600, units))
        start = str(starts["em24-counter"])
        stack.enter_context(served(meter, "tcp", str(free_tcp_port), "1", "em24", start))
        config = configuration(folder, url, serial, free_tcp_port)
        log = stack.enter_context((folder / "log").open("wb"))
        began = time.time()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.cli.main", "run", "--config", str(config)), stderr=log
        )
        await asyncio.sleep(seconds)
        ended = time.time()
        await asyncio.sleep(14)  # two windows, so that what was read has been sent
        process.send_signal(signal.SIGTERM)
        before = time.monotonic()
        assert await process.wait() == 0
        assert time.monotonic() - before < 5
    await standin.stop()
    text = (folder / "log").read_text()
    assert standin.violations == [], text
    for line_of_log in text.splitlines():
        assert "level=info" in line_of_log, text
    check_counters(standin.received, starts, began, ended)
    check_consumption(standin.received, len(stamps(began, ended)) - 1)


def stamps(began: float, ended: float) -> list[int]:
    """The boundaries that a gateway which ran all that time has to have read."""
    first = (int(began + 3) // EVERY + 1) * EVERY  # it may take 3 s to start on a slow machine
    return list(range(first, int(ended) - 1, EVERY))


def local(stamp: int) -> str:
    text = datetime.fromtimestamp(stamp, ZoneInfo(ZONE)).strftime("%Y-%m-%dT%H:%M:%S")
    return text.removesuffix(":00") if text.endswith(":00") else text


def check_counters(
    received: dict[str, dict[str, Decimal]], starts: dict[str, int], began: float, ended: float
) -> None:
    for meter_id, (kind, _) in METERS.items():
        got = dict(received[meter_id])
        for stamp in stamps(began, ended):
            value = got.pop(local(stamp))
            low = stood_at(kind, starts[meter_id], stamp * 1000)
            high = stood_at(kind, starts[meter_id], stamp * 1000 + 1000)
            # A single has 24 bits: near 1,000 kWh its steps are finer than the meter's own.
            assert low - STEP_KWH[kind] / 2 <= value <= high + STEP_KWH[kind] / 2, (meter_id, stamp)
        for text in got:  # boundaries at the edges of the run: right, if they are there at all
            at = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE)).timestamp()
            assert began - EVERY <= at <= ended + 20


def check_consumption(received: dict[str, dict[str, Decimal]], at_least: int) -> None:
    """What moved in an interval is what the counter stood at on its two ends."""
    counter, moved = received["sdm-counter"], received["sdm-moved"]
    compared = 0
    for start, value in moved.items():
        end = (datetime.fromisoformat(start) + timedelta(seconds=EVERY)).isoformat()
        end = end.removesuffix(":00") if end.count(":") == 2 else end
        if start in counter and end in counter:
            assert counter[end] - counter[start] == value, (start, end)
            compared += 1
    assert compared >= at_least


@pytest.fixture
def meter(tmp_path: Path, debian: Callable[[str, str], None]) -> Path:
    debian("/usr/include/modbus/modbus.h", "libmodbus-dev")
    debian("gcc", "gcc")
    return build(tmp_path)


async def test_every_value_is_what_the_meter_stood_at_on_its_stamp(
    tmp_path: Path, meter: Path, free_tcp_port: int
) -> None:
    await run_for(20, tmp_path, meter, free_tcp_port)
