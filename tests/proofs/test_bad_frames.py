"""Faults 15 to 18: whatever comes over a wire, no word is taken that was not asked for.

A meter whose every register holds its own address is asked over a pty at wire speed, RTU over TCP
and Modbus TCP, while a share of its answers is damaged, late, another's, cut, merged or missing.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from gateway.clock import Instant, SystemClock
from gateway.metering.profile import DeviceProfile
from gateway.metering.register import Encoding, Register, Words
from gateway.metering.settings import MeterSettings
from gateway.modbus.faults import FAULTS, Fault
from gateway.modbus.poller import Ask, Poller
from gateway.modbus.served import SimulatedEndpoint, SimulatedLine, wall
from gateway.modbus.settings import BusSettings, SerialLink, TcpLink
from gateway.modbus.simulator import SimulatedMeter

SEED = 20261125
BAUD = 115200
BLOCKS = ((0, 2), (100, 2), (200, 2), (300, 2), (400, 4), (500, 9))
"""Address and count of registers that cannot be joined: four answers that look alike."""
REGISTERS = tuple(
    Register(f"r{address}", function, address, Encoding("string", words=count), Decimal(1))
    for address, count in BLOCKS
    for function in (3, 4)
)
PROFILE = DeviceProfile("address-meter", "Test", "Meter", "electricity", REGISTERS)
RATES = {"crc": (0.01, 0.1, 0.5)}
ON_A_STREAM = [kind for kind in FAULTS if kind not in ("drop", "crc")]
"""TCP has a checksum of its own below Modbus, and a line cannot be dropped."""
CASES = [
    *(("line", kind) for kind in FAULTS if kind != "drop"),
    *(("rtu", kind) for kind in FAULTS if kind != "crc"),
    *(("tcp", kind) for kind in (*ON_A_STREAM, "drop") if kind != "glitch"),
]


class AddressMeter(SimulatedMeter):
    """Each register holds its own address; function 4 has them turned over."""

    def words(self, function: int, address: int, count: int, at: Instant) -> Words | int:
        turn = 0xFFFF if function == 4 else 0
        return tuple(n ^ turn for n in range(address, address + count))


def right(register: Register) -> Words:
    turn = 0xFFFF if register.function == 4 else 0
    return tuple(n ^ turn for n in range(register.address, register.end))


@asynccontextmanager
async def served(wire: str, meters: list[SimulatedMeter]):
    """The link to meters on such a wire."""
    if wire == "line":
        line = SimulatedLine(meters, SerialLink("", BAUD), turnaround=0.001, seed=SEED)
        try:
            yield SerialLink(line.open(), BAUD)
        finally:
            line.close()
    else:
        end = SimulatedEndpoint(meters, framing=wire, turnaround=0.001, seed=SEED)  # type: ignore[arg-type]
        try:
            yield TcpLink("127.0.0.1", await end.open(), wire)  # type: ignore[arg-type]
        finally:
            await end.close()


@pytest.mark.parametrize(("wire", "kind"), CASES)
async def test_no_wrong_word_is_taken(
    wire: str, kind: str, short: bool, expected_events, capsys: pytest.CaptureFixture[str]
) -> None:
    expected_events(
        "meter.offline", "meter.still_offline", "meter.noisy", "meter.register_refused", "bus.down"
    )
    for rate in RATES.get(kind, (0.2,)):
        fault = Fault(kind, rate=rate, seconds=0.25)  # type: ignore[arg-type]
        meters = [AddressMeter(PROFILE, unit, wall(), seed=unit, faults=[fault]) for unit in (1, 2)]
        settings = [MeterSettings(f"m{m.unit}", "riser", m.unit, PROFILE, ()) for m in meters]
        async with served(wire, meters) as link:
            bus = BusSettings("riser", link, timeout=100)
            poller = Poller(bus, settings, SystemClock(), random=random.Random(SEED))
            took, wrong = Counter[str](), 0
            requests = 0
            end = time.monotonic() + (0.8 if short else 8)
            while time.monotonic() < end:
                done = await poller.round([Ask(one, REGISTERS, urgent=True) for one in settings])
                requests += done.requests
                for sample in done.samples:
                    took.update(sample.faults.values())
                    for register in REGISTERS:
                        words = sample.raw.lookup(register)
                        took["given"] += words is not None
                        wrong += words is not None and words != right(register)
            await poller.close()
        with capsys.disabled():
            print(f"\n{wire} {kind} {rate:.0%}: wrong {wrong} of {requests} frames; {dict(took)}")
        assert wrong == 0
        assert took["given"] > 0
