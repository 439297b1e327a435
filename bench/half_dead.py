"""Ten meters on a line at 9600 baud, five of them dead: how late the live ones are at boundaries.

    python -m bench.half_dead [--seconds 300]

The whole gateway, as `run` runs it, on the line of bench.wire: ten floats of each meter every 2 s,
a value of each every 10 s. The meters stand in turn, one that answers and one that was never
there. Counted at the far end: how long after each boundary the answer to the first request since
then had left, for each live meter, once all ten have been asked (the first round, in which nobody
knows yet who is dead, is told beside it); and over all the share of time that went to the dead,
from each request to one of them to the next request, as long as the client waited. Beside ours,
pymodbus asking all ten in turn every 2 s, as it comes and with a timeout of 1 s and no second try;
all three at once, each on a line of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

from bench.figures import OURS, Goal, Measure, gather, lines
from bench.processes import as_installed, compiled, output, running
from bench.wire import Request, paced_line, requests

BAUD = 9600
LIVE = 5
UNITS = [unit for live in range(1, LIVE + 1) for unit in (live, LIVE + live)]
POLL, EVERY = 2, 10
WORDS = 20
QUANTITIES = [f"{kind}_l{n}" for kind in ("voltage", "current", "active_power") for n in (1, 2, 3)]
QUANTITIES += ["active_power_total"]
MEASURED_IN = {"v": "V", "c": "A", "a": "W"}
WAITS = {OURS: 1.0, "pymodbus": 3.0, "pymodbus, 1 s, no retries": 1.0}
"""Seconds that each waits for an answer; of ours with the quiet after it."""


def configure(folder: Path, path: str) -> None:
    """The gateway's configuration; its one upload in 10 minutes finds nobody."""
    registers = "".join(
        f"  - {{quantity: {quantity}, address: {2 * n}, unit: {MEASURED_IN[quantity[0]]}}}\n"
        for n, quantity in enumerate(QUANTITIES)
    )
    (folder / "ten-floats.yaml").write_text(
        "maker: Bench\nmodel: Ten floats\nkind: electricity\nsources: {bench: bench/line.c}\n"
        "requests: {max_registers: 60}\ndefaults: {function: 3, type: f32, sources: [bench]}\n"
        f"registers:\n{registers}"
    )
    (folder / "token").write_text("bench-token")
    (folder / "token").chmod(0o600)
    meters = [
        f"  - {{name: m{unit}, bus: riser, unit: {unit}, profile: ten-floats, send: ["
        + ", ".join(f"{{meterID: {unit}-{q}, quantity: {q}}}" for q in QUANTITIES)
        + "]}\n"
        for unit in UNITS
    ]
    (folder / "gateway.yaml").write_text(
        "timezone: Europe/Oslo\n"
        "energinet:\n"
        "  url: http://127.0.0.1:9/apiImport/data\n"
        "  linger: 10 min\n"
        "  senders: [{name: bench, token: {file: token}}]\n"
        f"defaults: {{every: {EVERY} s, as: last}}\n"
        "profiles: ./\n"
        "buffer: {path: readings.db}\n"
        "clock: {assume_synchronised: true}\n"
        f"buses:\n  riser: {{serial: {path}, baudrate: {BAUD}, parity: none, poll: {POLL} s}}\n"
        f"meters:\n{''.join(meters)}"
    )


async def pymodbus(path: str, seconds: float, *, timeout: float, retries: int) -> None:
    """The asynchronous client as its documentation shows it, asking all in turn."""
    from pymodbus.client import AsyncModbusSerialClient
    from pymodbus.exceptions import ModbusException

    client = AsyncModbusSerialClient(path, baudrate=BAUD, timeout=timeout, retries=retries)
    await client.connect()
    until = time.time() + seconds
    while time.time() < until:
        await asyncio.sleep(POLL - time.time() % POLL)
        for unit in UNITS:
            with contextlib.suppress(ModbusException):
                await client.read_holding_registers(0, count=WORDS, device_id=unit)
            if not client.connected:
                await client.connect()
    client.close()


def run(who: str, folder: Path, line: Path, seconds: float) -> list[Request]:
    """What the far end of a line of its own saw of a client."""
    folder.mkdir()
    with paced_line(line, BAUD, folder, units=LIVE) as (path, told):
        if who == OURS:
            configure(folder, path)
            command = [sys.executable, "-m", "gateway.cli.main", "run", "--config", "gateway.yaml"]
            log, env = folder / "ours.log", as_installed()
            with running(command, log=log, cwd=folder, env=env) as process:
                time.sleep(seconds)
                if process.poll() is not None:
                    raise OSError(f"the gateway ended: {log.read_text()[-300:]}")
        else:
            child = [sys.executable, "-m", "bench.half_dead", "--child", who, path, str(seconds)]
            output(child)
        return requests(told, opening=0)


def first_round(seen: list[Request]) -> float:
    """Seconds until the first meter was asked again."""
    return [request.at for request in seen if request.unit == seen[0].unit][1] - seen[0].at


def late(seen: list[Request], ahead: float) -> list[float]:
    """Seconds from each boundary to a live meter's answer; `ahead`: wall over monotonic time."""
    found = []
    began = seen[0].at + first_round(seen) + ahead
    last = seen[-1].at + ahead - EVERY
    for unit in range(1, LIVE + 1):
        answered = [r for r in seen if r.unit == unit and r.answered]
        boundary = math.ceil(began / EVERY) * EVERY
        while boundary < last:
            after = [r.answered for r in answered if r.at + ahead >= boundary]
            found.append(after[0] + ahead - boundary if after else last - boundary)
            boundary += EVERY
    return sorted(found)


def share(seen: list[Request], wait: float) -> float:
    """Of the time, what went to units that do not answer."""
    spent = sum(min(b.at - a.at, wait) for a, b in pairwise(seen) if a.unit > LIVE)
    return spent / (seen[-1].at - seen[0].at)


def measure(*, short: bool = False, seconds: float = 300) -> list[Measure]:
    """Lateness of the live ones, and the dead ones' share."""
    seconds = 45 if short else seconds
    ahead = time.time() - time.monotonic()
    lateness: dict[str, list[float]] = {}
    beside: list[str] = []
    shares: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="half-dead") as name, ThreadPoolExecutor() as pool:
        folder = Path(name)
        line = compiled("line", folder, "libmodbus")
        running_now = {
            who: pool.submit(run, who, folder / f"{n}", line, seconds)
            for n, who in enumerate(WAITS)
        }
        for who, wait in WAITS.items():
            seen = running_now[who].result()
            found = late(seen, ahead)
            lateness[who] = [found[math.ceil(0.99 * len(found)) - 1]]
            beside.append(f"{who} {found[-1]:.2f} s, {first_round(seen):.1f} s")
            shares[who] = [100 * share(seen, wait)]
    said = f"the worst, and the first round: {'; '.join(beside)}"
    what = "five live of ten meters, 9600 baud"
    return [
        Measure(f"Lateness at boundaries, p99, {what}", *gather(lateness, {}), Goal(1.0), " s",
                note=said),
        Measure("Bus time for the five dead of ten", *gather(shares, {}), Goal(10), " %", 1),
    ]  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        who, path, seconds = asked.child
        tries = (3.0, 3) if who == "pymodbus" else (1.0, 0)
        asyncio.run(pymodbus(path, float(seconds), timeout=tries[0], retries=tries[1]))
        return
    print(lines(measure(seconds=asked.seconds)))


if __name__ == "__main__":
    main()
