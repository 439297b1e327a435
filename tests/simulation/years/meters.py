"""Meters that know their true energy at every instant, on a wire that can be told to fail."""

from __future__ import annotations

import random
import struct
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final

from attrs import define, field, frozen

from gateway.clock import DAY, HOUR, Instant, Millis
from gateway.errors import BadAnswer, DeviceException, LinkDown, MeterTimeout
from gateway.metering.profile import DeviceProfile, Identity
from gateway.metering.reading import Block
from gateway.metering.register import Encoding, Register
from gateway.modbus.line import Overheard
from gateway.modbus.plan import Read
from tests.simulation.years.steps import Machine, Steps

POWER: Final = Register("active_power_total", 3, 20, Encoding("s32"), Decimal("0.1"), "W")
SERIAL: Final = Register("serial_number", 3, 100, Encoding("string", words=4))


def profile(counter: Register, *, serial: bool) -> DeviceProfile:
    """A meter with one counter and its power; it may tell its serial number."""
    identity = (Identity("serial_number", SERIAL),) if serial else ()
    return DeviceProfile(
        "simulated", "Test", "Meter", "electricity", (counter, POWER), identity=identity
    )


def digits(register: Register) -> int:
    """How many different numbers a counter can show; of a float, to its last digit."""
    if register.encoding.type == "f32":
        return 1 << 24
    if register.modulus is not None:
        return int(register.modulus / register.scale)
    words = register.encoding.words
    if register.encoding.type.startswith("bcd"):
        return int(10 ** (4 * words))
    return 1 << (16 * words)


@frozen
class Device:
    """A meter of flesh and blood: it counts on, whoever reads it."""

    serial: str
    start: int
    """What it stood at when it was put in place, in its last digit, turns included."""
    since: Instant
    per_hour: int
    salt: int

    def total(self, at: Instant) -> int:
        """What it has counted, in its last digit, as if it never wrapped."""
        hour, rest = divmod(at - self.since, HOUR)
        low, high = self._point(hour), self._point(hour + 1)
        return self.start + low + (high - low) * rest // HOUR

    def power(self, at: Instant) -> int:
        """In tenths of a watt; another one every second."""
        return (at // 1000 * 2_654_435_761 + self.salt) % 90_000 - 9_000

    def _point(self, hour: int) -> int:
        wobble = (hour * 2_654_435_761 + self.salt) % (self.per_hour + 1)
        return self.per_hour * hour + wobble - self.salt % (self.per_hour + 1)


@frozen
class Seen:
    """A value that a meter really showed when it was asked."""

    true: Instant
    wall: Instant
    boot_id: str
    synchronised: bool
    device: Device
    total: int


@frozen
class Poll:
    """A power that a meter showed."""

    true: Instant
    wall: Instant
    synchronised: bool
    power: int


@frozen
class Spike:
    """A false value of the counter, for so many reads."""

    kind: str
    shown: Callable[[int], int | None]
    """From what it should show; None: it is not this one's turn."""


@define(eq=False)
class Place:
    """Where a meter of the configuration stands: the device there, and what is wrong with it."""

    name: str
    unit: int
    counter: Register
    serial: bool
    device: Device
    max_power: Decimal | None = None
    """As configured."""
    trouble: str = ""
    """What every request meets, until it is over."""
    spikes: list[Spike] = field(factory=list)
    """What the next reads of the counter show."""
    absent: bool = False
    """Does the counter show its value for "not available"?"""
    seen: dict[int, list[Seen]] = field(factory=lambda: defaultdict(list))
    """What the counter really showed, by that."""
    history: list[Seen] = field(factory=list)
    """The same, oldest first."""
    powers: list[Poll] = field(factory=list)
    """Oldest first."""
    changes: list[Instant] = field(factory=list)
    """When another meter took its place, or it was reset."""
    doubtful_until: Instant = 0
    """A value may rightly be held up to then."""
    last: Seen | None = None
    """What it really showed last."""

    @property
    def modulus(self) -> int:
        return digits(self.counter)

    @property
    def most_per_hour(self) -> int:
        """The most that `max_power` lets it count in an hour, in its last digit."""
        assert self.max_power is not None
        return int(self.max_power / 1000 / self.counter.scale)

    @property
    def bounded(self) -> bool:
        """Is it known how far the counter may move at most?"""
        return self.max_power is not None or self.counter.encoding.type != "f32"

    def polls(self, first: Instant, last: Instant) -> list[Poll]:
        """Those of a stretch of true time."""
        low = bisect_left(self.powers, first, key=lambda one: one.true)
        return self.powers[low : bisect_right(self.powers, last, lo=low, key=lambda one: one.true)]

    def counts(self, first: Instant, last: Instant) -> list[Seen]:
        """What the counter showed in a stretch of true time."""
        low = bisect_left(self.history, first, key=lambda one: one.true)
        high = bisect_right(self.history, last, lo=low, key=lambda one: one.true)
        return self.history[low:high]

    def shown(self, at: Instant) -> int:
        """What its display shows."""
        return self.device.total(at) % self.modulus


class Wire:
    """A bus with these meters."""

    def __init__(
        self, places: Iterable[Place], steps: Steps, machine: Machine, draw: random.Random
    ) -> None:
        self.places = {place.unit: place for place in places}
        self.busy = 0.0
        self.turnaround = 0.03
        self.overheard: list[Overheard] = []
        self.down = False
        self.fired: Callable[[str], None] = lambda fault: None
        self._steps = steps
        self._machine = machine
        self._draw = draw
        self._open = False

    @property
    def is_open(self) -> bool:
        return self._open

    async def open(self) -> None:
        if self.down:
            raise LinkDown("riser", "no such port")
        self._open = True

    async def close(self) -> None:
        self._open = False

    async def read(self, unit: int, read: Read, *, timeout: float, pause: float = 0.0) -> Block:
        """Ask once."""
        if self.down or not self._open:
            self._open = False
            self.fired("link down")
            raise LinkDown("riser", "gone")
        place = self.places[unit]
        if place.trouble:
            await self._fail(place, read, timeout)
        self._steps.micros += 30_000
        return Block(read.function, read.address, self._words(place, read))

    async def _fail(self, place: Place, read: Read, timeout: float) -> None:
        what, text = place.trouble, str(read)
        if what == "noise" and self._draw.random() < 0.5:
            return
        self.fired(what)
        if what == "timeout":
            await self._machine.sleep(timeout)
            raise MeterTimeout("riser", place.unit, text, "no answer")
        self._steps.micros += 30_000
        if what in ("crc", "noise"):
            raise BadAnswer("riser", place.unit, text, "damaged", reason="crc")
        raise DeviceException("riser", place.unit, text, int(what.removeprefix("exception_")))

    def _words(self, place: Place, read: Read) -> tuple[int, ...]:
        words = [0] * read.count
        at, wall = self._steps.true, self._machine.now()
        for register in (place.counter, POWER, SERIAL):
            if not read.holds(register):
                continue
            if register is SERIAL:
                data = place.device.serial.encode().ljust(8, b"\0")
            elif register is POWER:
                power = place.device.power(at)
                place.powers.append(Poll(at, wall, self._machine.is_synchronised, power))
                data = power.to_bytes(4, "big", signed=True)
            else:
                data = self._counter(place, at, wall)
            start = register.address - read.address
            for nth in range(0, len(data), 2):
                words[start + nth // 2] = data[nth] << 8 | data[nth + 1]
        return tuple(words)

    def _counter(self, place: Place, at: Instant, wall: Instant) -> bytes:
        register, total = place.counter, place.device.total(at)
        right = total % place.modulus
        number: int | None = None
        if place.absent:
            self.fired("not available")
            number = next(iter(register.not_available))
        elif place.spikes:
            spike = place.spikes.pop(0)
            number = spike.shown(right)
            if number is not None:
                self.fired(spike.kind)
        if number is None or number == right:
            machine = self._machine
            seen = Seen(at, wall, machine.boot_id, machine.is_synchronised, place.device, total)
            place.seen[right].append(seen)
            place.history.append(seen)
            before = place.last
            same = before is not None and before.device is place.device
            if before and same and before.total // place.modulus != total // place.modulus:
                self.fired("rollover")
                place.doubtful_until = at + DAY
            elif before and not same:
                place.doubtful_until = at + 2 * DAY
            place.last = seen
            number = right
        size = 2 * register.encoding.words
        if number not in register.not_available:
            if register.encoding.type == "f32":
                return struct.pack(">f", number)
            if register.encoding.type.startswith("bcd"):
                number = int(str(number), 16)
        return number.to_bytes(size, "big")


def window(every: Millis) -> Millis:
    """How long after a boundary its value may be sampled, as the documents say."""
    return min(max(every // 10, 1000), 60_000)
