"""CPU until the first poll is in, over a bare asyncio process; beside the usual stack's imports.

    python -m bench.start_up [--rounds 9]

The gateway as `run` starts it where it is installed, with nothing beside it but what it needs
(requirements.lock), and one Modbus TCP meter: from the interpreter's start until the
first request was answered and a moment was left to store it, then it is killed; what the kernel
says it used is what counts. Bare: `asyncio.run(asyncio.sleep(0))`. The usual stack: pymodbus, an
httpx client, APScheduler, pydantic with one model, PyYAML and sqlite3, imported and no more.
"""

from __future__ import annotations

import argparse
import resource
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from bench.figures import OURS, Goal, Measure, Missing, gather, lines
from bench.fleet import configure
from bench.processes import HERE, as_installed, own_environment

BARE = "import asyncio\nasyncio.run(asyncio.sleep(0))"
USUAL = (
    "import asyncio, sqlite3, yaml, pydantic, pymodbus.client, httpx\n"
    "import apscheduler.schedulers.asyncio\n"
    "class Meter(pydantic.BaseModel):\n    name: str\n    unit: int = 1\n"
    "httpx.AsyncClient()\nasyncio.run(asyncio.sleep(0))"
)
USUAL_PACKAGES = (
    *("pymodbus==3.16.1", "httpx==0.28.1", "apscheduler==3.11.3"),
    *("pydantic==2.14.3", "PyYAML==6.0.3"),
)
LOCKED = HERE.parent / "requirements.lock"
STORING = 0.3
"""Seconds left to the gateway after its first answer."""


def ended() -> float:
    """Seconds of CPU that children took that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_of(*command: str) -> float:
    """Seconds of CPU that a command takes from start to end."""
    before = ended()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=as_installed())
    return ended() - before


def installed() -> Path:
    """The python of an environment as a package of ours brings it. Raises Missing."""
    lines = LOCKED.read_text().splitlines()
    return own_environment("installed", *(line.split()[0] for line in lines if "==" in line))


def first_poll(python: Path, folder: Path) -> float:
    """Seconds of CPU of the gateway until its first request was answered and stored."""
    before = ended()
    with socket.create_server(("127.0.0.1", 0)) as meter:
        meter.settimeout(60)
        configure(folder, meter.getsockname()[1], 1)
        command = [str(python), "-m", "gateway.cli.main", "run", "--config", "gateway.yaml"]
        environment = as_installed() | {"PYTHONPATH": str(HERE.parent)}
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen(command, cwd=folder, stderr=log, stdout=log, env=environment)
        try:
            connection, _ = meter.accept()
            with connection:
                request = connection.recv(12)
                count = request[11]
                length = (3 + 2 * count).to_bytes(2, "big")
                answer = request[:4] + length + request[6:8] + bytes([2 * count])
                connection.sendall(answer + bytes.fromhex("43660000") * (count // 2))
                try:
                    child.wait(STORING)
                except subprocess.TimeoutExpired:
                    pass
                else:
                    raise OSError(f"it ended by itself: {(folder / 'log').read_text()[-300:]}")
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
    return ended() - before


def measure(*, short: bool = False, rounds: int = 9) -> list[Measure]:
    """CPU over a bare process', round by round."""
    rounds = 2 if short else rounds
    usual, missing = "the usual stack, imported", {}
    ours = installed()
    python = None
    try:
        python = own_environment("usual", *USUAL_PACKAGES)
    except Missing as reason:
        missing[usual] = str(reason)
    ratios: dict[str, list[float]] = {OURS: []}
    with tempfile.TemporaryDirectory(prefix="start-up") as name:
        for turn in range(rounds + 1):
            folder = Path(name) / str(turn)
            folder.mkdir()
            bare = cpu_of(str(ours), "-c", BARE)
            mine = first_poll(ours, folder)
            theirs = cpu_of(str(python), "-c", USUAL) if python else 0.0
            if turn:  # the first writes what Python compiles
                ratios[OURS].append(mine / bare)
                ratios.setdefault(usual, []).append(theirs / bare)
    if python is None:
        del ratios[usual]
    what = "CPU to the first poll over a bare asyncio process"
    return [Measure(what, *gather(ratios, missing), Goal(3))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    print(lines(measure(rounds=asked.rounds)))


if __name__ == "__main__":
    main()
