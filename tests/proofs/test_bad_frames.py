"""Faults 15 to 18: whatever comes over a wire, no word is taken that was not asked for.

Meters whose every register holds its own address are asked while a share of their answers is
damaged, late, another's, cut, merged or missing: a million calls of the checks in virtual time,
20,000 frames over ptys at wire speed, and some over RTU over TCP and Modbus TCP. With the checks
taken out, the same harness finds wrong words.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
from attrs import define, field

from gateway.clock import Instant, SystemClock
from gateway.metering.profile import DeviceProfile
from gateway.metering.reading import Sample
from gateway.metering.register import Encoding, Register, Words
from gateway.metering.settings import MeterSettings
from gateway.modbus.faults import FAULTS, Fault, FaultKind
from gateway.modbus.frames import Request, Watch, crc16
from gateway.modbus.health import Unit
from gateway.modbus.poller import Ask, Poller
from gateway.modbus.served import SimulatedEndpoint, SimulatedLine, wall
from gateway.modbus.settings import BusSettings, Link, SerialLink, TcpLink
from gateway.modbus.simulator import SimulatedMeter
from tests.modbus.wires import QuickClock
from tests.proofs.noisy_wire import FRAMINGS, Kind, NoisyWire, gross

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
UNITS = (1, 2)
NOISE = (0.01, 0.1, 0.5)
"""Share of the answers that are damaged."""
RATES: Mapping[FaultKind, tuple[float, ...]] = {"crc": NOISE}
CALLS = 1_000_000
FRAMES = 20_000
AT_ONCE = 4
"""Lines that are asked at a time: most of the time is waited."""
EVENTS = (
    "meter.offline",
    "meter.still_offline",
    "meter.noisy",
    "meter.register_refused",
    "bus.down",
)
LATE = (0.15, 0.4, 0.9, 2.0, 6.0)
"""Seconds that answers come late."""


class AddressMeter(SimulatedMeter):
    """Each register holds its own address; function 4 has them turned over."""

    def words(self, function: int, address: int, count: int, at: Instant) -> Words | int:
        turn = 0xFFFF if function == 4 else 0
        return tuple(n ^ turn for n in range(address, address + count))


def right(register: Register) -> Words:
    turn = 0xFFFF if register.function == 4 else 0
    return tuple(n ^ turn for n in range(register.address, register.end))


@define
class Tally:
    """What came of asking."""

    frames: int = 0
    given: int = 0
    wrong: int = 0
    faults: Counter[str] = field(factory=Counter)

    def add(self, samples: Iterable[Sample]) -> None:
        """Compare every word with what it must be."""
        for sample in samples:
            self.faults.update(sample.faults.values())
            for register in REGISTERS:
                words = sample.raw.lookup(register)
                self.given += words is not None
                self.wrong += words is not None and words != right(register)


def meters_with(faults: Sequence[Fault], at: Instant) -> list[AddressMeter]:
    return [AddressMeter(PROFILE, unit, at, seed=unit, faults=faults) for unit in UNITS]


SETTINGS = [MeterSettings(f"m{unit}", "riser", unit, PROFILE, ()) for unit in UNITS]


# ------------------------------------------------------------------- a million calls of the checks


async def in_virtual_time(kind: Kind, noise: float, calls: int) -> Tally:
    """Rounds until the checks were called so often. On the way one answer in ten is wrong in
    another way than by noise: of another unit, function or length, merged, late, an exception.
    """
    clock, draw = QuickClock(), random.Random(f"{kind} {noise} {SEED}")
    kinds: list[FaultKind] = [one for one in FAULTS if one not in ("crc", "late")]
    rate = 0.1 / (len(kinds) + len(LATE))
    faults = [Fault(one, rate=rate) for one in kinds]
    faults += [Fault("late", rate=rate, seconds=late) for late in LATE]
    meters = {meter.unit: meter for meter in meters_with(faults, clock.now())}
    wire = NoisyWire(kind, clock, meters, noise if kind != "tcp" else 0.0, draw)
    framing = FRAMINGS[kind]
    link = SerialLink("", framing=framing) if "line" in kind else TcpLink("", framing=framing)  # type: ignore[arg-type]
    poller = Poller(BusSettings("riser", link), SETTINGS, clock, random=draw, wire=wire)
    tally = Tally()
    while wire.calls < calls:
        asks = [Ask(one, REGISTERS, by_hand=draw.random() < 0.5) for one in SETTINGS]
        tally.add((await poller.round(asks)).samples)
        await clock.sleep(draw.random())
    tally.frames = wire.calls
    return tally


async def test_a_million_calls_of_the_checks_let_no_wrong_word_through(
    short: bool, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    cases = [(kind, noise) for kind in FRAMINGS for noise in (NOISE if kind != "tcp" else (0.0,))]
    calls = (CALLS // 20 if short else CALLS) // len(cases) + 1
    in_all = Tally()
    for kind, noise in cases:
        tally = await in_virtual_time(kind, noise, calls)
        in_all.frames += tally.frames
        in_all.given += tally.given
        in_all.wrong += tally.wrong
        print(
            f"{kind}, noise {noise:.0%}: {tally.wrong} wrong of {tally.given} words' values"
            f" in {tally.frames} calls; {dict(tally.faults)}"
        )
        assert tally.given > 0
    print(f"in all {in_all.wrong} wrong of {in_all.given} in {in_all.frames} calls")
    assert in_all.wrong == 0


def first_that_is_long_enough(self: Watch, data: bytes) -> tuple[bytes, str]:
    """Checks that look at nothing but the length."""
    request = self._request
    if request is None or len(data) < 5 + request.data_bytes:
        return b"", "nothing"
    self._request = None
    return data[: 5 + request.data_bytes], "nothing"


@pytest.mark.parametrize("taken_out", ["the checks", "another shape after a timeout"])
async def test_the_million_finds_what_is_taken_out(
    taken_out: str,
    short: bool,
    expected_events: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected_events(*EVENTS)
    if taken_out == "the checks":
        monkeypatch.setattr(Watch, "arrived", first_that_is_long_enough)
    if taken_out == "another shape after a timeout":
        monkeypatch.setattr(Unit, "doubtful", lambda self, question, now: False)
        monkeypatch.setattr(Unit, "doubted", lambda self, now: set())
    tally = await in_virtual_time("line", 0.1, 5000 if short else 50_000)
    print(f"without {taken_out}: {tally.wrong} wrong of {tally.given}")
    assert tally.wrong > 0


def test_of_gross_damage_the_check_sum_misses_as_many_as_it_must(short: bool) -> None:
    """What no check can promise: one in 65,536 of the answers that are random behind their head."""
    draw = random.Random(SEED)
    calls = 100_000 if short else 2_000_000
    data = bytes((1, 3, 4, 0, 100, 0, 101))
    sound = data + crc16(data)
    request = Request(1, 3, 4, frame=bytes((1, 3, 0, 100, 0, 2)))
    watch, missed = Watch("rtu"), 0
    for _ in range(calls):
        watch.expect(request)
        frame, _ = watch.arrived(gross(sound, draw))
        missed += bool(frame) and frame != sound
    print(f"{missed} of {calls} grossly damaged answers passed; by chance {calls / 65536:.1f}")
    assert missed <= calls / 65536 + 5 * (calls / 65536) ** 0.5


# ------------------------------------------------------------------------- over ptys and sockets


@asynccontextmanager
async def served(wire: str, meters: list[AddressMeter]) -> AsyncIterator[Link]:
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


async def in_real_time(
    wire: str,
    kind: FaultKind,
    rate: float,
    *,
    frames: float = math.inf,
    seconds: float = math.inf,
    until_wrong: bool = False,
) -> Tally:
    """Rounds for so many requests, or so long."""
    tally = Tally()
    async with served(wire, meters_with([Fault(kind, rate=rate, seconds=0.25)], wall())) as link:
        bus = BusSettings("riser", link, timeout=100)
        poller = Poller(bus, SETTINGS, SystemClock(), random=random.Random(SEED))
        end = time.monotonic() + seconds
        while tally.frames < frames and time.monotonic() < end:
            done = await poller.round([Ask(one, REGISTERS, by_hand=True) for one in SETTINGS])
            tally.add(done.samples)
            tally.frames += done.requests
            if until_wrong and tally.wrong:
                break
        await poller.close()
    return tally


ON_A_LINE = [(kind, rate) for kind in FAULTS if kind != "drop" for rate in RATES.get(kind, (0.2,))]
ON_A_STREAM = [
    *(("rtu", kind) for kind in FAULTS if kind != "crc"),
    *(("tcp", kind) for kind in FAULTS if kind not in ("crc", "glitch")),
]
"""TCP has a check sum of its own below Modbus."""


async def over_ptys(frames: int) -> list[Tally]:
    """Each fault on a line of its own, some lines at a time."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(kind: FaultKind, rate: float) -> Tally:
        async with free:
            return await in_real_time("line", kind, rate, frames=frames / len(ON_A_LINE))

    return await asyncio.gather(*(one(*case) for case in ON_A_LINE))


async def test_20_000_frames_over_a_pty_bring_no_wrong_word(
    short: bool, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    each = await over_ptys(FRAMES // 20 if short else FRAMES)
    for (kind, rate), tally in zip(ON_A_LINE, each, strict=True):
        print(
            f"{kind} {rate:.0%}: {tally.wrong} wrong in {tally.frames} frames,"
            f" {tally.given} given; {dict(tally.faults)}"
        )
    print(f"in all {sum(t.wrong for t in each)} wrong in {sum(t.frames for t in each)} frames")
    assert sum(tally.wrong for tally in each) == 0
    assert all(tally.given for tally in each)


async def test_the_pty_finds_a_bus_with_the_checks_taken_out(
    expected_events: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """pymodbus by itself takes late answers of another function or length for the right ones."""
    expected_events(*EVENTS)
    monkeypatch.setattr(Watch, "arrived", lambda self, data: (data, "nothing"))
    tally = await in_real_time("line", "late", 0.2, frames=6000, until_wrong=True)
    print(f"without the checks: {tally.wrong} wrong in {tally.frames} frames")
    assert tally.wrong > 0


@pytest.mark.parametrize(("wire", "kind"), ON_A_STREAM)
async def test_no_wrong_word_is_taken_over_a_connection(
    wire: str,
    kind: FaultKind,
    short: bool,
    expected_events: Callable[..., None],
) -> None:
    expected_events(*EVENTS)
    tally = await in_real_time(wire, kind, 0.2, seconds=0.8 if short else 8)
    print(f"{wire} {kind}: {tally.wrong} wrong in {tally.frames} frames; {dict(tally.faults)}")
    assert tally.wrong == 0
    assert tally.given > 0
