"""500 meters for a day: the memory that the gateway has after two hours is what it has at the end.

The whole gateway in virtual time: schedule, rounds, metering, buffer and upload are real, only the
connections are not: a wire of this test's own answers, so that a day takes minutes.
"""

from __future__ import annotations

import gc
import random
import re
import struct
import sys
from collections import deque
from pathlib import Path

import pytest
from attrs import frozen

from gateway.clock import HOUR, MINUTE, Clock
from gateway.metering.reading import Block
from gateway.modbus import poller
from gateway.modbus.line import Overheard
from gateway.modbus.plan import Read
from gateway.modbus.settings import BusSettings
from tests.simulation import World, instant, play

NOON = instant("2026-03-10T12:00")
QUANTITIES = {
    **{f"voltage_l{n}": "V" for n in (1, 2, 3)},
    **{f"current_l{n}": "A" for n in (1, 2, 3)},
    **{f"active_power_l{n}": "W" for n in (1, 2, 3)},
    "active_power_total": "W",
}
SETTLED = 2
"""Hours until all that is kept was kept once."""


class Wire:
    """A connection on which ten floats answer, each time others."""

    asked = 0

    def __init__(self, settings: BusSettings, clock: Clock, *, random: random.Random) -> None:
        self.busy = 0.0
        self.turnaround = 0.01
        self.overheard: deque[Overheard] = deque()
        self.is_open = False
        self._clock = clock
        self._random = random

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def read(self, unit: int, read: Read, *, timeout: float, pause: float = 0.0) -> Block:
        Wire.asked += 1
        await self._clock.sleep(self.turnaround)
        values = [self._random.uniform(0, 1000) for _ in range(read.count // 2)]
        words = struct.unpack(f">{read.count}H", struct.pack(f">{len(values)}f", *values))
        return Block(read.function, read.address, words)


@frozen
class Memory:
    """Of this process, at one moment."""

    rss: float
    """Megabytes resident."""
    blocks: int
    """That Python holds: exact, where the resident memory also has what was freed."""


def memory() -> Memory:
    gc.collect()
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return Memory(int(found[1]) * 1024 / 1e6, sys.getallocatedblocks())


def configure(folder: Path, url: str, meters: int, poll: str) -> Path:
    """So many meters, each behind an address of its own."""
    registers = "".join(
        f"  - {{quantity: {name}, address: {2 * n}, unit: {unit}}}\n"
        for n, (name, unit) in enumerate(QUANTITIES.items())
    )
    (folder / "ten-floats.yaml").write_text(
        "maker: Test\nmodel: Ten floats\nkind: electricity\nsources: {test: test_memory.py}\n"
        "requests: {max_registers: 60}\ndefaults: {function: 3, type: f32, sources: [test]}\n"
        f"registers:\n{registers}"
    )
    (folder / "token").write_text("token")
    (folder / "token").chmod(0o600)
    buses = [
        f"  bus{n}: {{tcp: 10.0.{n // 250}.{n % 250 + 1}, poll: {poll}}}\n" for n in range(meters)
    ]
    entries = [
        f"  - {{name: m{n}, bus: bus{n}, unit: 1, profile: ten-floats, send: ["
        + ", ".join(f"{{meterID: {n}-{name}, quantity: {name}}}" for name in QUANTITIES)
        + "]}\n"
        for n in range(meters)
    ]
    path = folder / "gateway.yaml"
    path.write_text(
        "timezone: Europe/Oslo\n"
        f"energinet:\n  url: {url}\n  senders: [{{name: basement, token: {{file: token}}}}]\n"
        "defaults: {every: 15 min, as: last}\nprofiles: ./\nbuffer: {path: readings.db}\n"
        f"buses:\n{''.join(buses)}meters:\n{''.join(entries)}"
    )
    return path


def test_the_memory_of_500_meters_is_flat_over_a_day(
    tmp_path: Path,
    short: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meters, hours = (60, 5) if short else (500, 24)
    monkeypatch.setattr(poller, "Bus", Wire)
    each: list[Memory] = []

    async def story(world: World) -> None:
        async with world.running(configure(tmp_path, world.url, meters, "5 min")) as gateway:
            for hour in range(1, hours + 1):
                await world.clock.at(NOON + hour * HOUR + 7 * MINUTE)
                assert world.standin.violations == []
                for kept in (world.log.lines, world.standin.requests, world.standin.accepted):
                    kept.clear()
                world.standin.received.clear()
                world.standin.answers.clear()
                each.append(memory())
            counts = await gateway.store.check_counts()
            assert counts.balanced
            assert counts.stored >= meters * len(QUANTITIES) * 4 * hours

    play(story, tmp_path, NOON - MINUTE)
    settled, last = each[SETTLED - 1], each[-1]
    rss = " ".join(f"{one.rss:.1f}" for one in each)
    print(
        f"{meters} meters, {Wire.asked} requests in {hours} h: {settled.rss:.1f} MB after"
        f" {SETTLED} h, {last.rss:.1f} MB at the end; blocks {settled.blocks} and {last.blocks}"
        f"\nMB each hour: {rss}"
    )
    assert last.blocks <= 1.02 * settled.blocks
    assert last.rss <= settled.rss + 4
