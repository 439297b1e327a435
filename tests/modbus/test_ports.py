"""What a port is opened with, and what is said of one that cannot be opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.modbus.lines import at_once, line
from tests.ordinary import ORDINARY

ROOT = Path(__file__).parents[2]
OPENS = """
import asyncio, random, sys
from gateway.clock import SystemClock
from gateway.modbus.bus import Bus
from gateway.modbus.settings import BusSettings, SerialLink
async def main():
    bus = Bus(BusSettings("riser", SerialLink(sys.argv[1])), SystemClock(), random=random.Random())
    await bus.open()
    print("open", flush=True)
    sys.stdin.readline()
    await bus.close()
asyncio.run(main())
"""


def test_a_pty_can_be_opened_again_by_an_ordinary_user_though_its_gateway_was_killed() -> None:
    """The kernel keeps TIOCEXCL on a pty for as long as its other side is there."""
    opens = [*ORDINARY, sys.executable, "-c", OPENS]
    with line(at_once) as served:
        for end in (subprocess.Popen.kill, subprocess.Popen.communicate, subprocess.Popen.kill):
            with subprocess.Popen(
                [*opens, served.path],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            ) as one:  # fmt: skip
                assert one.stdout is not None
                assert one.stdout.readline() == "open\n"
                end(one)
