"""CPU of one Modbus TCP read of 60 registers over libmodbus in C, in interleaved rounds.

    python -m bench.tcp_cpu [--rounds 5] [--reads 3000]

Client and server share one core, so that waking an idle core is not counted. Ours goes through
the gateway's bus with all its checks, on asyncio and on uvloop; beside it pymodbus and tmodbus as
their documents show them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import statistics
import sys
import tempfile
from pathlib import Path

from bench.figures import OURS, Goal, Measure, Missing, gather, lines
from bench.processes import (
    compiled,
    free_ports,
    newer_python,
    output,
    own_environment,
    packages_of,
    tcp_meters,
)
from bench.wire import OF_THEIR_OWN

REGISTERS = 60
UVLOOP = "uvloop==0.23.0"


async def ours(port: int, reads: int) -> float:
    """Through the bus of the gateway: checks, pacing, drains and all."""
    from gateway.clock import SystemClock
    from gateway.modbus.bus import Bus
    from gateway.modbus.plan import Read
    from gateway.modbus.settings import BusSettings, TcpLink

    settings = BusSettings("bench", TcpLink("127.0.0.1", port))
    bus = Bus(settings, SystemClock(), random=random.Random(1))
    await bus.open()
    read = Read(3, 0, REGISTERS)
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
        await client.read_holding_registers(0, count=REGISTERS, device_id=1)
    before = cpu()
    for _ in range(reads):
        await client.read_holding_registers(0, count=REGISTERS, device_id=1)
    spent = cpu() - before
    client.close()
    return spent


async def tmodbus(port: int, reads: int) -> float:
    """The asynchronous client as its documentation shows it."""
    from tmodbus import create_async_tcp_client  # type: ignore[import-not-found, unused-ignore]

    async with create_async_tcp_client("127.0.0.1", port, unit_id=1) as client:
        for _ in range(50):
            await client.read_holding_registers(start_address=0, quantity=REGISTERS)
        before = cpu()
        for _ in range(reads):
            await client.read_holding_registers(start_address=0, quantity=REGISTERS)
        return cpu() - before


CHILDREN = {OURS: ours, "pymodbus": pymodbus, "tmodbus": tmodbus}


def cpu() -> float:
    """Seconds this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def child(which: str, port: int, reads: int, loop: str) -> None:
    """One client in a process of its own."""
    loop_factory = None
    if loop == "uvloop":
        import uvloop  # type: ignore[import-not-found, unused-ignore]

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        print(runner.run(CHILDREN[which](port, reads)))


def measure(*, short: bool = False, rounds: int = 5, reads: int = 3000) -> list[Measure]:
    """CPU a read over libmodbus', round by round."""
    if short:
        rounds, reads = 1, 500
    clients: dict[str, tuple[str, str, str, dict[str, str]]] = {
        OURS: (sys.executable, OURS, "asyncio", {}),
        "pymodbus": (sys.executable, "pymodbus", "asyncio", {}),
    }
    fast = f"{OURS} on uvloop"
    missing: dict[str, str] = {}
    try:
        path = packages_of(own_environment("uvloop", UVLOOP))
        clients[fast] = (sys.executable, OURS, "uvloop", {"PYTHONPATH": path})
    except Missing as reason:
        missing[fast] = str(reason)
    try:
        packages, least = OF_THEIR_OWN["tmodbus"]
        python = own_environment("tmodbus", *packages, python=newer_python(least))
        clients["tmodbus"] = (str(python), "tmodbus", "asyncio", {})
    except Missing as reason:
        missing["tmodbus"] = str(reason)
    ratios: dict[str, list[float]] = {}
    took: list[float] = []
    allowed = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="tcp-cpu") as name:
        folder = Path(name)
        reader = str(compiled("reads", folder, "libmodbus"))
        port = free_ports(1)
        os.sched_setaffinity(0, {min(allowed)})
        try:
            with tcp_meters(port, 1, folder):
                for _ in range(rounds):
                    c = float(output([reader, "tcp", str(port), str(10 * reads)])) / (10 * reads)
                    took.append(1e6 * c)
                    for who, (python_of, which, loop, env) in clients.items():
                        command = [python_of, "-m", "bench.tcp_cpu", "--reads", str(reads)]
                        command += ["--child", which, str(port), loop]
                        spent = float(output(command, env=env))
                        ratios.setdefault(who, []).append(spent / reads / c)
        finally:
            os.sched_setaffinity(0, allowed)
    mine, others = gather(ratios, missing)
    quick = [figure for figure in others if figure.who == fast]
    beside = tuple(figure for figure in others if figure.who != fast)
    what = "CPU a TCP read over libmodbus in C"
    told = f"libmodbus takes {statistics.median(took):.1f} µs a read here"
    return [
        Measure(what, mine, beside, Goal(13), digits=1, note=told),
        Measure(f"{what}, on uvloop", quick[0], (), Goal(5), digits=1),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reads", type=int, default=3000)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child[0], int(asked.child[1]), asked.reads, asked.child[2])
        return
    print(lines(measure(rounds=asked.rounds, reads=asked.reads)))


if __name__ == "__main__":
    main()
