"""Time that a unit which does not answer takes from the others on its line.

    python -m bench.dead_unit [--seconds 60]

On the line of bench.wire at 19200 baud: unit 1 answers, unit 9 was never there. Rounds over both
follow one another without a rest, so that all the time between a request to unit 9 and the next
request is time that unit 1 did not get. Counted at the far end: the longest such time, and their
share of the whole. Beside ours, pymodbus as its documentation shows it, asking both in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from bench.figures import OURS, Goal, Measure, gather, lines
from bench.processes import compiled, output
from bench.wire import paced_line, requests

BAUD = 19200
ALIVE, DEAD = 1, 9


async def ours(path: str, seconds: float) -> None:
    """Rounds of the gateway's poller over both."""
    from gateway.clock import SystemClock
    from gateway.metering.profile import DeviceProfile
    from gateway.metering.register import Encoding, Register
    from gateway.metering.settings import MeterSettings
    from gateway.modbus.poller import Ask, Poller
    from gateway.modbus.settings import BusSettings, SerialLink

    registers = tuple(Register(f"r{n}", 3, 2 * n, Encoding("f32"), Decimal(1)) for n in range(30))
    profile = DeviceProfile("bench", "Bench", "Thirty floats", "electricity", registers)
    meters = [MeterSettings(f"m{unit}", "line", unit, profile, ()) for unit in (ALIVE, DEAD)]
    settings = BusSettings("line", SerialLink(path, BAUD))
    poller = Poller(settings, meters, SystemClock(), random=random.Random(1))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await poller.round([Ask(meter, registers) for meter in meters])
    await poller.close()


async def pymodbus(path: str, seconds: float) -> None:
    """The asynchronous client as its documentation shows it."""
    from pymodbus.client import AsyncModbusSerialClient
    from pymodbus.exceptions import ModbusException

    client = AsyncModbusSerialClient(path, baudrate=BAUD)
    await client.connect()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for unit in (ALIVE, DEAD):
            with contextlib.suppress(ModbusException):
                await client.read_holding_registers(0, count=60, device_id=unit)
            if not client.connected:
                await client.connect()
    client.close()


CHILDREN = {OURS: ours, "pymodbus": pymodbus}


def measure(*, short: bool = False, seconds: float = 60) -> list[Measure]:
    """The longest time in one piece, and the share of all."""
    seconds = 10 if short else seconds
    longest: dict[str, list[float]] = {}
    share: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="dead-unit") as name:
        folder = Path(name)
        line = compiled("line", folder, "libmodbus")
        for who in CHILDREN:
            with paced_line(line, BAUD, folder) as (path, told):
                output(
                    [sys.executable, "-m", "bench.dead_unit", "--child", who, path, str(seconds)]
                )
                seen = requests(told, opening=0)
            spans: list[float] = []
            before = ALIVE
            for this, following in pairwise(seen):
                if this.unit == DEAD and before == DEAD:  # asked again at once: one wait
                    spans[-1] += following.at - this.at
                elif this.unit == DEAD:
                    spans.append(following.at - this.at)
                before = this.unit
            longest[who] = [max(spans)]
            share[who] = [100 * sum(spans) / (seen[-1].at - seen[0].at)]
    what = "a unit that never answers"
    return [
        Measure(f"Bus time at most in one piece for {what}", *gather(longest, {}), Goal(1.0), " s"),
        Measure(f"Bus time in all for {what}", *gather(share, {}), Goal(10), " %", 1),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        who, path, seconds = asked.child
        asyncio.run(CHILDREN[who](path, float(seconds)))
        return
    print(lines(measure(seconds=asked.seconds)))


if __name__ == "__main__":
    main()
