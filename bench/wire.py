"""The time of a round over a serial line, over what the wire alone takes; and who is too early.

    python -m bench.wire [--rounds 3] [--seconds 5] [--bauds 9600,19200,115200]

One meter that libmodbus serves stands at the far end of a pty paced at wire speed (line.c), and
tells when each request came and how long the line had been silent. Least time of a round of 60
registers: 8 characters of request and 125 of answer, 10 ms that the meter takes, and 3.5
characters of silence after each of both. Beside ours: pymodbus, tmodbus and minimalmodbus as they
are documented, libmodbus in C as it comes and with the silence slept, mbpoll with its least pause.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.figures import OURS, Goal, Measure, Missing, gather, lines
from bench.processes import compiled, need, newer_python, output, own_environment, running

if TYPE_CHECKING:
    from collections.abc import Iterator

REGISTERS = 60
TURNAROUND = 0.010
BITS = 10  # a pty refuses parity: 8N1 at every rate
GOALS = {9600: 1.01, 19200: 1.01, 115200: 1.03}
OF_THEIR_OWN = {
    "tmodbus": (("tmodbus[async-serial]==1.1.0", "serialx==1.15.1"), (3, 12)),
    "minimalmodbus": (("minimalmodbus==2.1.1",), (3, 9)),
}
"""Packages of those that have an environment of their own, and the least Python."""


class Request(NamedTuple):
    """What the far end saw. Instants are monotonic seconds."""

    at: float
    """When it began."""
    silence: float
    """Seconds without a byte before it."""
    unit: int
    answered: float
    """When the last byte of the answer had left; 0: there was none."""


def character(baud: int) -> float:
    """Seconds a character takes on the wire."""
    return BITS / baud


def silence(baud: int) -> float:
    """Seconds that end a frame (Modbus over serial line v1.02, §2.5.1.1)."""
    return 0.00175 if baud > 19200 else 3.5 * character(baud)


def least(baud: int, registers: int = REGISTERS) -> float:
    """Seconds of a round that nobody can do without."""
    return (8 + 5 + 2 * registers) * character(baud) + TURNAROUND + 2 * silence(baud)


@contextmanager
def paced_line(
    binary: Path, baud: int, folder: Path, *, units: int = 1
) -> Iterator[tuple[str, Path]]:
    """A line with units 1 and up: the path to open, and the file that tells of its requests."""
    told = folder / f"line-{time.monotonic_ns()}"
    command = [str(binary), str(baud), str(units), str(round(TURNAROUND * 1e6))]
    with running(command, log=told):
        until = time.monotonic() + 10
        while not told.read_text().endswith("\n"):
            if time.monotonic() > until:
                raise OSError("the line did not come up")
            time.sleep(0.02)
        yield told.read_text().strip(), told


def requests(told: Path, *, opening: int = 3) -> list[Request]:
    """What the far end saw, but for the first requests, in which a client may still be opening."""
    seen = [list(map(int, line.split())) for line in told.read_text().splitlines()[1:]]
    return [
        Request(at / 1e6, quiet / 1e6, unit, answered / 1e6) for at, quiet, unit, answered in seen
    ][opening:]


# ----------------------------------------------------------------------------------- the clients


async def ours(path: str, baud: int, reads: int) -> None:
    """Rounds of the gateway's poller over one meter of thirty floats."""
    from gateway.clock import SystemClock
    from gateway.metering.profile import DeviceProfile
    from gateway.metering.register import Encoding, Register
    from gateway.metering.settings import MeterSettings
    from gateway.modbus.poller import Ask, Poller
    from gateway.modbus.settings import BusSettings, SerialLink

    registers = tuple(
        Register(f"r{n}", 3, 2 * n, Encoding("f32"), Decimal(1)) for n in range(REGISTERS // 2)
    )
    profile = DeviceProfile("bench", "Bench", "Thirty floats", "electricity", registers)
    meter = MeterSettings("meter", "line", 1, profile, ())
    settings = BusSettings("line", SerialLink(path, baud))
    poller = Poller(settings, [meter], SystemClock(), random=random.Random(1))
    for _ in range(reads):
        done = await poller.round([Ask(meter, registers)])
        assert (done.requests, done.errors, done.samples[0].faults) == (1, 0, {}), done
    await poller.close()


async def pymodbus(path: str, baud: int, reads: int) -> None:
    """The asynchronous client as its documentation shows it."""
    from pymodbus.client import AsyncModbusSerialClient

    client = AsyncModbusSerialClient(path, baudrate=baud)
    await client.connect()
    for _ in range(reads):
        await client.read_holding_registers(0, count=REGISTERS, device_id=1)
    client.close()


async def tmodbus(path: str, baud: int, reads: int) -> None:
    """The asynchronous client as its documentation shows it."""
    from tmodbus import create_async_rtu_client  # type: ignore[import-not-found, unused-ignore]

    async with create_async_rtu_client(path, unit_id=1, baudrate=baud) as client:
        for _ in range(reads):
            await client.read_holding_registers(start_address=0, quantity=REGISTERS)


async def minimalmodbus(path: str, baud: int, reads: int) -> None:
    """As its documentation shows it, but for its timeout of 50 ms: at 9600 baud it is too short."""
    from minimalmodbus import Instrument

    instrument = Instrument(path, 1)
    instrument.serial.baudrate = baud
    instrument.serial.timeout = 1.0
    for _ in range(reads):
        instrument.read_registers(0, REGISTERS)


CHILDREN = {OURS: ours, "pymodbus": pymodbus, "tmodbus": tmodbus, "minimalmodbus": minimalmodbus}


class Clients:
    """The command of each client; what is missing is remembered with its reason."""

    def __init__(self, folder: Path) -> None:
        self.missing: dict[str, str] = {}
        self._c = compiled("reads", folder, "libmodbus")
        self._pythons = {OURS: sys.executable, "pymodbus": sys.executable}
        for who, (packages, least_python) in OF_THEIR_OWN.items():
            try:
                python = own_environment(who, *packages, python=newer_python(least_python))
                self._pythons[who] = str(python)
            except Missing as reason:
                self.missing[who] = str(reason)
        try:
            self._mbpoll = need("mbpoll", "mbpoll")
        except Missing as reason:
            self.missing["mbpoll -l 11"] = str(reason)
        every = [*CHILDREN, "libmodbus C", "libmodbus C, silence slept", "mbpoll -l 11"]
        self.names = [name for name in every if name not in self.missing]

    def run(self, who: str, path: str, baud: int, reads: int, folder: Path) -> None:
        """Let a client read so often."""
        if who in CHILDREN:
            child = [self._pythons[who], "-m", "bench.wire", "--child", who, path, str(baud)]
            output([*child, str(reads)])
        elif who.startswith("libmodbus"):
            slept = round(silence(baud) * 1e6) if "slept" in who else 0
            output([str(self._c), "rtu", path, str(baud), str(reads), str(slept)])
        else:
            command = [self._mbpoll, "-q", "-m", "rtu", "-a", "1", "-P", "none", "-l", "11"]
            command += ["-t", "4", "-r", "1", "-c", str(REGISTERS), "-b", str(baud), path]
            with running(command, log=folder / "mbpoll.log"):
                time.sleep(reads * (least(baud) + 0.012))


def measure(*, short: bool = False, rounds: int = 3, seconds: float = 5.0,
            bauds: tuple[int, ...] = tuple(GOALS)) -> list[Measure]:  # fmt: skip
    """Time of a round over the least, and requests inside the silence, at each rate."""
    if short:
        rounds, seconds = 1, 1.0
    over: dict[int, dict[str, list[float]]] = {baud: {} for baud in bauds}
    early: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="wire") as name:
        folder = Path(name)
        line = compiled("line", folder, "libmodbus")
        clients = Clients(folder)
        for _ in range(rounds):
            for baud in bauds:
                for who in clients.names:
                    with paced_line(line, baud, folder) as (path, told):
                        clients.run(who, path, baud, max(10, int(seconds / least(baud))), folder)
                        seen = requests(told)
                    spans = [b.at - a.at for a, b in pairwise(seen)]
                    inside = sum(request.silence < silence(baud) for request in seen)
                    over[baud].setdefault(who, []).append(statistics.median(spans) / least(baud))
                    early.setdefault(who, []).append(100 * inside / len(seen))
    found = []
    for baud in bauds:
        mine, others = gather(over[baud], clients.missing)
        found.append(
            Measure(f"RTU round over the wire's bound, {baud} baud", mine, others,
                    Goal(GOALS.get(baud, 1.03)), digits=3)
        )  # fmt: skip
    mine, others = gather(early, clients.missing)
    what = "Requests inside 3.5 characters of silence, all rates"
    found.append(Measure(what, mine, others, Goal(0), unit=" %", digits=1))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--bauds", default="9600,19200,115200")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        who, path, baud, reads = asked.child
        asyncio.run(CHILDREN[who](path, int(baud), int(reads)))
        return
    bauds = tuple(map(int, asked.bauds.split(",")))
    print(lines(measure(rounds=asked.rounds, seconds=asked.seconds, bauds=bauds)))


if __name__ == "__main__":
    main()
