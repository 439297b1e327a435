"""CPU until the first poll over a bare asyncio process, and over the usual stack imported whole.

python -m bench.start_up [--rounds 9] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.fleet import free_ports, meters, ours
from bench.processes import median

BARE = "import asyncio\nasyncio.run(asyncio.sleep(0))"
USUAL = (
    "import asyncio, sqlite3, yaml, apscheduler.schedulers.asyncio, pymodbus.client, httpx\n"
    "httpx.AsyncClient()\nasyncio.run(asyncio.sleep(0))"
)


def cpu_of(command: list[str]) -> float:
    """Seconds of CPU that a command takes from start to end."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user - before.children_user
    return used + after.children_system - before.children_system


def first_poll(folder: Path, port: int) -> float:
    """CPU of the gateway with one meter until its first sample is in the status."""
    from bench.processes import usage

    with ours(port, 1, folder) as pid:
        connected = f"{port:04X}"
        while True:
            table = Path("/proc/net/tcp").read_text().splitlines()[1:]
            if any(row.split()[2].endswith(connected) and row.split()[3] == "01" for row in table):
                return usage(pid).cpu
            time.sleep(0.005)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    results: dict[str, list[float]] = {"gateway, first poll": [], "usual stack, imports": []}
    with tempfile.TemporaryDirectory() as name:
        port = free_ports(1)
        with meters(port, 1, Path(name)):
            for turn in range(asked.rounds):
                bare = cpu_of([sys.executable, "-c", BARE])
                folder = Path(name) / str(turn)
                folder.mkdir()
                results["gateway, first poll"].append(first_poll(folder, port) / bare)
                if have("yaml"):
                    usual = cpu_of([sys.executable, "-c", USUAL])
                    results["usual stack, imports"].append(usual / bare)
    medians = {name: median(values) for name, values in results.items() if values}
    if asked.json:
        print(json.dumps(medians))
        return
    for name, value in medians.items():
        print(f"{name:22} {value:5.2f} x bare asyncio")


def have(module: str) -> bool:
    """Is it installed here?"""
    import importlib.util

    return importlib.util.find_spec(module) is not None


if __name__ == "__main__":
    main()
