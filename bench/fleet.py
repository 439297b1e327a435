"""CPU and memory of whole gateways at 10, 100 and 500 Modbus TCP meters, one after the other.

    python -m bench.fleet [--meters 10,100,500] [--window 40] [--peers modpoll,thingsboard]

Ten single precision values of each meter every 5 s. Ours stores every value on disk in
transactions that survive a power cut; modpoll writes its values to a file, thingsboard-gateway
hands them to a local MQTT broker (Debian's mosquitto) and keeps them in memory. Our upload, once
in 10 minutes, is left out of the window. modpoll knows one
host a process, so its meters are units behind one address. One server in C feeds all of them
(meters.c). How many values arrived is counted: ours in its store, the others by the requests that
the server answered.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.figures import OURS, Goal, Measure, Missing, gather, lines
from bench.processes import (
    as_installed,
    free_ports,
    need,
    over,
    own_environment,
    packages_of,
    running,
    tcp_meters,
)

VALUES = 10
PERIOD = 5

PROFILE = """
maker: Bench
model: Ten floats
kind: electricity
sources: {bench: "bench/meters.c"}
requests: {max_registers: 60}
defaults: {function: 3, type: f32, sources: [bench]}
registers:
"""
QUANTITIES = [
    *(f"voltage_l{i}" for i in (1, 2, 3)),
    *(f"current_l{i}" for i in (1, 2, 3)),
    *(f"active_power_l{i}" for i in (1, 2, 3)),
    "active_power_total",
]
UNITS = {"voltage": "V", "current": "A", "active": "W"}


def configure(folder: Path, first: int, count: int) -> None:
    """Our configuration, with a profile of its own; its one upload in 10 minutes comes later."""
    profiles = folder / "profiles"
    profiles.mkdir()
    registers = "".join(
        f"  - {{quantity: {q}, address: {2 * i}, unit: {UNITS[q.split('_')[0]]}}}\n"
        for i, q in enumerate(QUANTITIES)
    )
    (profiles / "bench-ten.yaml").write_text(PROFILE + registers)
    token = folder / "token"
    token.write_text("bench-token")
    token.chmod(0o600)
    text = [
        "timezone: Europe/Oslo",
        "energinet:",
        "  url: http://127.0.0.1:9/apiImport/data",
        "  linger: 10 min",
        "  senders: [{name: bench, token: {file: token}}]",
        f"defaults: {{every: {PERIOD} s, as: last}}",
        "profiles: profiles/",
        "buffer: {path: readings.db}",
        "clock: {assume_synchronised: true}",
        "buses:",
    ]
    text += [f"  bus{i}: {{tcp: '127.0.0.1:{first + i}', poll: {PERIOD} s}}" for i in range(count)]
    text.append("meters:")
    for i in range(count):
        text.append(f"  - {{name: m{i}, bus: bus{i}, unit: 1, profile: bench-ten, send: [")
        text += [f'      {{meterID: "{i}-{j}", quantity: {q}}},' for j, q in enumerate(QUANTITIES)]
        text.append("    ]}")
    (folder / "gateway.yaml").write_text("\n".join(text))


@contextmanager
def ours(first: int, count: int, folder: Path) -> Iterator[int]:
    """The gateway as `run` runs it."""
    configure(folder, first, count)
    command = [sys.executable, "-m", "gateway.cli.main", "run", "--config", "gateway.yaml"]
    with running(command, log=folder / "ours.log", cwd=folder, env=as_installed()) as process:
        yield process.pid
    told = subprocess.run(
        [*command[:3], "status", "--config", "gateway.yaml", "--json"],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (folder / "stored").write_text(str(json.loads(told)["buffer"]["stored"]))


@contextmanager
def modpoll(first: int, count: int, folder: Path) -> Iterator[int]:
    """modpoll 1.6.0: one address, units 1 … count, written to a file each period."""
    python = own_environment("modpoll", "modpoll==1.6.0")
    text = []
    for i in range(count):
        text.append(f"device,m{i},{i % 247 + 1},BE_BE")
        text.append(f"poll,holding_register,0,{2 * VALUES},BE_BE")
        text += [f"ref,v{i}_{j},{2 * j},float32,r" for j in range(VALUES)]
    (folder / "modpoll.csv").write_text("\n".join(text))
    command = [
        *(str(python.parent / "modpoll"), "-d", "-f", "modpoll.csv", "--tcp", "127.0.0.1"),
        *("--tcp-port", str(first), "-r", str(PERIOD), "--interval", "0"),
        *("-o", "out.json", "--loglevel", "ERROR"),
    ]
    with running(command, log=folder / "modpoll.log", cwd=folder) as process:
        yield process.pid


@contextmanager
def thingsboard(first: int, count: int, folder: Path) -> Iterator[int]:
    """thingsboard-gateway 3.8.5, memory store, to a local mosquitto; one request a value."""
    python = own_environment("thingsboard", "thingsboard-gateway==3.8.5")
    mosquitto = need("mosquitto", "mosquitto")
    mqtt = free_ports(1) + 650
    (folder / "mosquitto.conf").write_text(f"listener {mqtt} 127.0.0.1\nallow_anonymous true\n")
    shipped = Path(packages_of(python)) / "thingsboard_gateway" / "config"
    shutil.copytree(shipped, folder / "config")
    settings = json.loads((folder / "config" / "tb_gateway.json").read_text())
    settings["thingsboard"] |= {"host": "127.0.0.1", "port": mqtt, "remoteConfiguration": False}
    settings["thingsboard"]["statistics"] = {"enable": False}
    for limit in [key for key in settings["thingsboard"] if key.lower().endswith("ratelimits")]:
        settings["thingsboard"][limit] = "0:0,"
    settings["connectors"] = [
        {"type": "modbus", "name": "bench", "configuration": "bench.json", "logLevel": "ERROR"}
    ]
    (folder / "config" / "tb_gateway.json").write_text(json.dumps(settings))
    tags = [
        {
            "tag": f"v{j}",
            "type": "32float",
            "functionCode": 3,
            "objectsCount": 2,
            "address": 2 * j,
        }
        for j in range(VALUES)
    ]
    slaves = [
        {
            "host": "127.0.0.1",
            "port": first + i,
            "type": "tcp",
            "method": "socket",
            "unitId": 1,
            "deviceName": f"m{i}",
            "deviceType": "default",
            "timeout": 3,
            "byteOrder": "BIG",
            "wordOrder": "BIG",
            "pollPeriod": PERIOD * 1000,
            "timeseries": tags,
        }
        for i in range(count)
    ]
    (folder / "config" / "bench.json").write_text(json.dumps({"master": {"slaves": slaves}}))
    for level in (folder / "config").glob("logs.json"):
        level.write_text(level.read_text().replace('"INFO"', '"ERROR"'))
    broker = [mosquitto, "-c", str(folder / "mosquitto.conf")]
    command = [str(python.parent / "thingsboard-gateway")]
    environment = {"TB_GW_CONFIG_DIR": str(folder / "config") + "/", "PATH": "/usr/bin:/bin"}
    with (
        running(broker, log=folder / "mosquitto.log"),
        running(command, log=folder / "tb.log", cwd=folder, env=environment) as process,
    ):
        yield process.pid


RUNNERS = {OURS: ours, "modpoll": modpoll, "thingsboard-gateway": thingsboard}
REQUESTS = {OURS: 1, "modpoll": 1, "thingsboard-gateway": VALUES}
"""Requests in which each of them reads a meter."""
CPU_GOALS = {100: 0.03, 500: 0.02}
MEMORY_GOALS = {100: 50.0, 500: 60.0}


@dataclass(frozen=True)
class Cell:
    """What one gateway took at one number of meters."""

    cpu: float
    """Seconds for 1,000 readings that it got."""
    memory: float
    """Megabytes resident at the end."""
    got: float
    """Share of the readings that were due."""


def one(who: str, count: int, window: float, settle: float) -> Cell:
    """One cell of the table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet")))
        first = free_ports(count)
        answered = stack.enter_context(tcp_meters(first, count, folder))
        with RUNNERS[who](first, count, folder) as pid:
            time.sleep(settle)
            asked = -answered()
            before, after = over(pid, window)
            asked += answered()
        due = count * VALUES * window / PERIOD
        got = asked / REQUESTS[who] * VALUES
        if got < 0.5 * due:
            log = max(folder.glob("*.log"), key=lambda path: path.stat().st_size)
            raise OSError(f"{who} got {got:.0f} of {due:.0f} readings: {log.read_text()[-300:]}")
        if who == OURS:
            stored = int((folder / "stored").read_text())
            if stored < 0.9 * due:
                raise OSError(f"{stored} readings stored of {due:.0f} that were due")
        return Cell((after.cpu - before.cpu) / got * 1000, after.rss, got / due)


def measure(*, short: bool = False, counts: tuple[int, ...] = (10, 100, 500),
            who: tuple[str, ...] = tuple(RUNNERS), window: float = 40,
            settle: float = 15) -> list[Measure]:  # fmt: skip
    """CPU and memory of each at each number of meters."""
    if short:
        counts, window = counts[:2], 10
    measures = []
    for count in counts:
        cells: dict[str, Cell] = {}
        missing: dict[str, str] = {}
        for name in who:
            try:
                cells[name] = one(name, count, window, settle)
            except (Missing, OSError) as reason:
                missing[name] = str(reason)
        got = ", ".join(f"{name} {100 * cell.got:.0f} %" for name, cell in cells.items())
        cpu = gather({name: [cell.cpu] for name, cell in cells.items()}, missing)
        memory = gather({name: [cell.memory] for name, cell in cells.items()}, missing)
        goal = Goal(CPU_GOALS[count]) if count in CPU_GOALS else None
        measures.append(
            Measure(f"CPU s for 1,000 readings, {count} TCP meters, 10 values in 5 s", *cpu, goal,
                    digits=3, note=f"readings got of those due: {got}")
        )  # fmt: skip
        goal = Goal(MEMORY_GOALS[count]) if count in MEMORY_GOALS else None
        measures.append(Measure(f"Memory at {count} TCP meters", *memory, goal, " MB", 0))
    return measures


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", default="10,100,500")
    parser.add_argument("--peers", default="modpoll,thingsboard-gateway")
    parser.add_argument("--window", type=float, default=40)
    parser.add_argument("--settle", type=float, default=15)
    asked = parser.parse_args()
    counts = tuple(map(int, asked.meters.split(",")))
    who = (OURS, *filter(None, asked.peers.split(",")))
    print(lines(measure(counts=counts, who=who, window=asked.window, settle=asked.settle)))


if __name__ == "__main__":
    main()
