"""CPU of one Modbus TCP read of 60 registers over libmodbus in C, in interleaved rounds.

Client and server share one core, so that waking an idle core is not counted. Beside ours and
ours on uvloop: pymodbus as it comes.

    python -m bench.tcp_cpu [--rounds 5] [--reads 3000] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.fleet import free_ports, meters
from bench.processes import median

HERE = Path(__file__).parent


async def ours(port: int, reads: int) -> float:
    """Through the bus of the gateway: checks, pacing, drains and all."""
    from gateway.clock import SystemClock
    from gateway.modbus.bus import Bus
    from gateway.modbus.plan import Read
    from gateway.modbus.settings import BusSettings, TcpLink

    settings = BusSettings("bench", TcpLink("127.0.0.1", port))
    bus = Bus(settings, SystemClock(), random=random.Random(1))
    await bus.open()
    read = Read(3, 0, 60)
    for _ in range(50):
        await bus.read(1, read, timeout=1.0)
    before = cpu()
    for _ in range(reads):
        await bus.read(1, read, timeout=1.0)
    spent = cpu() - before
    await bus.close()
    return spent


async def pymodbus(port: int, reads: int) -> float:
    """The asynchronous client as its documentation shows it."""
    from pymodbus.client import AsyncModbusTcpClient

    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    await client.connect()
    for _ in range(50):
        await client.read_holding_registers(0, count=60, device_id=1)
    before = cpu()
    for _ in range(reads):
        await client.read_holding_registers(0, count=60, device_id=1)
    spent = cpu() - before
    client.close()
    return spent


def cpu() -> float:
    """Seconds this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def child(which: str, port: int, reads: int) -> None:
    """One client in a process of its own."""
    loop_factory = None
    if which.endswith("uvloop"):
        import uvloop  # type: ignore[import-not-found, unused-ignore]

        loop_factory = uvloop.new_event_loop
    work = {"ours": ours, "pymodbus": pymodbus}[which.partition("+")[0]]
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        print(runner.run(work(port, reads)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reads", type=int, default=3000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("WHICH", "PORT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child[0], int(asked.child[1]), asked.reads)
        return
    clients = ["ours", "pymodbus"]
    if importlib.util.find_spec("uvloop"):
        clients.insert(1, "ours+uvloop")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        c_client = folder / "reads"
        flags = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "libmodbus"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        source = str(HERE / "reads.c")
        subprocess.run(["gcc", "-O2", "-o", str(c_client), source, *flags], check=True)
        first = free_ports(1)
        ratios: dict[str, list[float]] = {name: [] for name in clients}
        c_reads = asked.reads * 10
        with meters(first, 1, folder):
            for _ in range(asked.rounds):
                c = float(run([str(c_client), str(first), str(c_reads)])) / c_reads
                for name in clients:
                    command = [sys.executable, "-m", "bench.tcp_cpu", "--reads", str(asked.reads)]
                    spent = float(run([*command, "--child", name, str(first)]))
                    ratios[name].append(spent / asked.reads / c)
    if asked.json:
        print(json.dumps({name: median(values) for name, values in ratios.items()}))
        return
    for name, values in ratios.items():
        low, high = min(values), max(values)
        print(f"{name:12} {median(values):6.2f} x libmodbus C ({low:.2f} to {high:.2f})")


def run(command: list[str]) -> str:
    """Standard output of a command that has to succeed."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
