"""Simulated meters: what one is at each instant, and how it answers a request. Pure.

A meter is made from its profile alone. Its values follow a load that swings about a mean; its
counters are the integral of that load, in steps of the register's own resolution, so that what a
meter stood at can be told for any instant. It refuses what the model would refuse.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from attrs import define, field

from gateway.clock import HOUR, MINUTE, SECOND, Instant
from gateway.metering.inquiry import IDENTIFICATION, SERVER_ID, Inquiry
from gateway.metering.profile import DeviceProfile
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import Block, RawWords
from gateway.metering.register import (
    Register,
    Value,
    Words,
    encode,
    encode_text,
    value_of,
)
from gateway.modbus.faults import ConditionKind, Fault
from gateway.modbus.plan import MAX_BITS, MAX_REGISTERS

SERIAL_NUMBER: Final = "12345678"
"""Where no other is said."""
ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_COUNT: Final = 3
_MOST_OBJECTS: Final = 246
"""Bytes that objects have in one answer to 43/14."""
_MOST_TEXT: Final = _MOST_OBJECTS - 2

_EXPONENTS: Final = {"A": -2, "V": -1, "W": 0, "var": 0, "VA": 0, "Hz": -2, "": -2, "kWh": 0}
"""What a simulated meter has in its scale registers, by the unit of what they scale."""


@define
class SimulatedMeter:
    """One meter. The same seed and start give the same meter.

    Raises ValueError where it cannot show the serial numbers that it is to show.
    """

    profile: DeviceProfile
    unit: int
    started: Instant
    seed: int = 0
    serial_number: str = SERIAL_NUMBER
    faults: Sequence[Fault] = ()
    baudrate: int | None = None
    """Its own, where that is not its line's."""
    _map: dict[int, dict[int, Register]] = field(factory=dict, init=False)
    _fixed: dict[tuple[int, int], Words] = field(factory=dict, init=False)
    _serial: Register | Inquiry | None = field(default=None, init=False)
    _texts: dict[Inquiry, str] = field(factory=dict, init=False)
    """What it tells of itself by functions 17 and 43/14."""
    _open: list[tuple[int, int, int]] = field(factory=list, init=False)
    """(function, first, end) of spans in which registers that nobody names read 0."""

    _mean: float = field(default=0.0, init=False)
    _swing: float = field(default=0.0, init=False)
    _period: float = field(default=1.0, init=False)
    _phase: float = field(default=0.0, init=False)
    _before: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        draw = random.Random(f"{self.profile.name} {self.unit} {self.seed}")
        self._mean = draw.uniform(2_000, 12_000)  # W
        self._swing = draw.uniform(0.2, 0.6)
        self._period = draw.uniform(5 * MINUTE, 20 * MINUTE)
        self._phase = draw.uniform(0, 2 * math.pi)
        self._before = draw.uniform(1_000, 90_000)  # kWh at the start
        for register in self._everything():
            for address in range(register.address, register.end):
                self._map.setdefault(register.function, {}).setdefault(address, register)
        self._fill()

    def _everything(self) -> Iterable[Register]:
        for quantity in self.profile.quantities():
            yield from self.profile.needs(quantity)
        for register in self.profile.registers:
            yield from register.parts
        yield from self.profile.identity_registers()

    def _fill(self) -> None:
        """What does not change: identity, scale and unit registers, the SunSpec chain."""
        for identity in self.profile.identity:
            told_by = identity.told_by
            text = identity.expected[0] if identity.expected else ""
            if identity.what == "serial_number":
                self._serial, text = told_by, self.serial_number
                for fault in self.faults:
                    _check(fault.serial_number, told_by)
            elif identity.what == "meter_address":
                text = str(self.unit)
            _check(text, told_by)
            if isinstance(told_by, Register):
                self._fixed[told_by.function, told_by.address] = _shown(text, told_by)
            else:
                self._texts[told_by] = text or identity.what
        for register in self._everything():
            if (scale := register.scale_register) is not None:
                exponent = Decimal(_EXPONENTS.get(register.unit, 0))
                self._fixed[scale.function, scale.address] = encode(exponent, scale.encoding)
            if (code := register.unit_register) is not None:
                first = Decimal(register.unit_factors[0][0])
                self._fixed[code.function, code.address] = encode(first, code.encoding)
        limits = self.profile.limits
        functions = self._map.keys()
        if limits.holes:
            self._open += [(function, 0, 0x10000) for function in functions]
        self._open += [
            (function, first, last + 1)
            for first, last in limits.hole_ranges
            for function in functions
        ]
        self._open += [(f, first, first + count) for f, first, count in limits.whole_blocks]
        if limits.even:  # what fills up an odd value has to be there
            self._open += [(r.function, r.end, r.end + 1) for r in self._everything() if r.end % 2]
            odd = [r for r in self._everything() if r.address % 2]
            self._open += [(r.function, r.address - 1, r.address) for r in odd]
        if self.profile.sunspec is not None:
            self._lay_sunspec()

    def _lay_sunspec(self) -> None:
        sunspec = self.profile.sunspec
        assert sunspec is not None
        base, header = sunspec.bases[0], sunspec.header
        common, length = header - base - 4, 105
        end = header + 2 + length
        for address, words in (
            (base, (0x5375, 0x6E53)),
            (base + 2, (1, common)),
            (header, (sunspec.models[-1], length)),
            (end, (0xFFFF, 0)),
        ):
            for i, word in enumerate(words):
                self._fixed[3, address + i] = (word,)
                self._map.setdefault(3, {}).pop(address + i, None)
        self._open.append((3, base, end + 2))

    # ----------------------------------------------------------------------------------- values

    def value(self, quantity: str, at: Instant) -> Value:
        """What the meter stands at, as its own words say it. Raises KeyError."""
        for computed in self.profile.computed:
            if computed.quantity == quantity:
                terms = [(1, r) for r in computed.plus] + [(-1, r) for r in computed.minus]
                total = Decimal(0)
                for sign, register in terms:
                    part = self._of(register, at)
                    assert isinstance(part, Decimal)
                    total += sign * part
                return total
        return self._of(next(r for r in self.profile.needs(quantity)), at)

    def _of(self, register: Register, at: Instant) -> Value:
        blocks = [
            Block(part.function, part.address, self._register(part, at)) for part in register.parts
        ]
        value = value_of(register, RawWords(tuple(blocks)).lookup)
        assert value is not None
        return value

    def _register(self, register: Register, at: Instant) -> Words:
        if register == self._serial and (swapped := self._condition("swapped", at)):
            return _shown(swapped.serial_number, register)
        fixed = self._fixed.get((register.function, register.address))
        if fixed is not None:
            return fixed
        number = self._number(register.name, at)
        factor = register.scale
        if register.scale_register is not None:
            factor = factor.scaleb(_EXPONENTS.get(register.unit, 0))
        if register.unit_factors:
            factor *= register.unit_factors[0][1]
        if register.encoding.type in ("f32", "f64"):
            step = Decimal("0.001") if QUANTITIES.get(register.name) else Decimal(1)
            return encode((number // step) * step / factor, register.encoding)
        whole = int(number / factor)
        if register.encoding.type.startswith("u"):  # a counter goes on from 0 where it is full
            whole %= 1 << 16 * register.count
        return encode(Decimal(whole), register.encoding)

    def _number(self, name: str, at: Instant) -> Decimal:
        """A value in its canonical unit, before it becomes words."""
        quantity = QUANTITIES.get(name)
        unit = quantity.unit if quantity else "kWh"
        load = self._load(at)
        share = 1 / 3 if name.endswith(("_l1", "_l2", "_l3")) else 1.0
        way = 0.1 if "export" in name or "reverse" in name else 1.0
        if quantity is None or quantity.counter or unit == "kWh":
            energy = self._energy(at) * share * way
            if unit == "m³":
                energy /= 50
            return Decimal(repr(energy if not name.endswith("decimal_part") else energy % 1))
        by_unit = {
            "W": load * share * way,
            "var": 0.1 * load * share,
            "VA": 1.01 * load * share,
            "V": 230 * (math.sqrt(3) if name.count("_l") > 1 else 1) + 2 * math.sin(at / 17_000),
            "A": load / 3 / 230,
            "Hz": 50 + 0.02 * math.sin(at / 23_000),
            "": 0.97,
            "m³/h": load / 40_000,
            "°C": 72.0 if name.startswith("supply") else 41.5,
            "K": 30.5,
        }
        return Decimal(repr(by_unit[unit]))

    def _load(self, at: Instant) -> float:
        return self._mean * (1 + self._swing * math.sin(self._angle(at)))

    def _angle(self, at: Instant) -> float:
        return 2 * math.pi * (at - self.started) / self._period + self._phase

    def _energy(self, at: Instant) -> float:
        """kWh: what was counted before, and the load since the start while it had power."""
        since, counted = self.started, self._before
        for fault in self.faults:
            if fault.kind == "reset" and since <= (reset := self.started + fault.start) <= at:
                since, counted = reset, 0.0
        counted += self._moved(since, at)
        for off, on in self._power_cuts():
            if since < on and off < at:
                counted -= self._moved(max(since, off), min(on, at))
        return counted

    def _moved(self, since: Instant, until: Instant) -> float:
        """kWh: the integral of the load."""
        swing = self._swing * self._period / (2 * math.pi)
        turned = math.cos(self._angle(until)) - math.cos(self._angle(since))
        return self._mean * (until - since - swing * turned) / HOUR / 1000

    def _power_cuts(self) -> Iterable[tuple[Instant, Instant]]:
        for fault in self.faults:
            if fault.kind == "restart":
                off = self.started + fault.start
                yield off, off + round(fault.lasting * SECOND)

    def _condition(self, kind: ConditionKind, at: Instant) -> Fault | None:
        elapsed = at - self.started
        return next((f for f in self.faults if f.kind == kind and f.holds(elapsed)), None)

    def has(self, kind: ConditionKind, at: Instant) -> bool:
        """Is it like that now?"""
        return self._condition(kind, at) is not None

    def powered(self, at: Instant) -> bool:
        """Is it not just being restarted?"""
        return not any(off <= at < on for off, on in self._power_cuts())

    # ---------------------------------------------------------------------------------- answers

    def words(self, function: int, address: int, count: int, at: Instant) -> Words | int:
        """The registers asked for, or the exception code of the refusal."""
        limits = self.profile.limits
        most = MAX_BITS if function in (1, 2) else min(MAX_REGISTERS, limits.max_registers)
        if function not in self._map:
            return ILLEGAL_FUNCTION
        if not 1 <= count <= most:
            return ILLEGAL_COUNT
        if limits.even and (address % 2 or count % 2):
            return ILLEGAL_ADDRESS
        if any(f == function and address < split < address + count for f, split in limits.splits):
            return ILLEGAL_ADDRESS
        for fault in self.faults:
            if fault.kind == "hole" and fault.holds(at - self.started):
                first, last = fault.registers
                if address <= last and first < address + count:
                    return ILLEGAL_ADDRESS
        for f, first, size in limits.whole_blocks:
            inside = f == function and first <= address < first + size
            if inside and (address, count) != (first, size):
                return ILLEGAL_ADDRESS
        found: list[int] = []
        at_address, end = address, address + count
        while at_address < end:
            register = self._map[function].get(at_address)
            if register is None and (fixed := self._fixed.get((function, at_address))):
                found += fixed  # of the chain of SunSpec models, word by word
                at_address += 1
                continue
            if register is None:
                if not any(f == function and a <= at_address < b for f, a, b in self._open):
                    return ILLEGAL_ADDRESS
                found.append(0)
                at_address += 1
                continue
            if register.address != at_address or register.end > end:
                return ILLEGAL_ADDRESS  # a read that starts or ends inside a value
            found += self._register(register, at)
            at_address = register.end
        return tuple(found)

    def fault(self, at: Instant, random: random.Random) -> Fault | None:
        """The first of its faults that happens to an answer now."""
        elapsed = at - self.started
        return next((fault for fault in self.faults if fault.happens(elapsed, random)), None)

    def answer(self, pdu: bytes, at: Instant) -> bytes:
        """The PDU of the answer to the PDU of a request."""
        function = pdu[0]
        if function == SERVER_ID and len(pdu) == 1 and Inquiry(SERVER_ID) in self._texts:
            text = self._text(Inquiry(SERVER_ID), at) + b"\xff"  # it runs
            return bytes([function, len(text)]) + text
        if function == IDENTIFICATION and len(pdu) == 4 and pdu[1] == 14:
            return self._objects(pdu[2], pdu[3], at)
        if function not in (1, 2, 3, 4) or len(pdu) != 5:
            return bytes([function | 0x80, ILLEGAL_FUNCTION])
        address, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
        words = self.words(function, address, count, at)
        if isinstance(words, int):
            return bytes([function | 0x80, words])
        if function in (1, 2):
            bits = sum((word & 1) << i for i, word in enumerate(words))
            data = bits.to_bytes((count + 7) // 8, "little")
        else:
            data = b"".join(word.to_bytes(2, "big") for word in words)
        return bytes([function, len(data)]) + data

    def _text(self, inquiry: Inquiry, at: Instant) -> bytes:
        swapped = self._condition("swapped", at) if inquiry == self._serial else None
        return (swapped.serial_number if swapped else self._texts[inquiry]).encode("ascii")

    def _objects(self, category: int, first: int, at: Instant) -> bytes:
        """The answer to 43/14: a stream of objects from one on, as many as it holds."""
        own = {i.object: i for i in self._texts if i.function == IDENTIFICATION}
        if not own:
            return bytes([IDENTIFICATION | 0x80, ILLEGAL_FUNCTION])
        if category not in (1, 2, 3):
            return bytes([IDENTIFICATION | 0x80, ILLEGAL_COUNT])
        texts = {0: self.profile.maker, 1: self.profile.model, 2: "1.0"}
        given = {n: text.encode("ascii", "replace") for n, text in texts.items()}
        given |= {number: self._text(inquiry, at) for number, inquiry in own.items()}
        order = sorted(n for n in given if Inquiry(IDENTIFICATION, n).category <= category)
        order = order[order.index(first) if first in order else 0 :]
        data, told = b"", 0
        while told < len(order) and len(data) + 2 + len(given[order[told]]) <= _MOST_OBJECTS:
            value = given[order[told]]
            data += bytes([order[told], len(value)]) + value
            told += 1
        more = (0xFF, order[told]) if told < len(order) else (0, 0)
        return bytes([IDENTIFICATION, 14, category, category, *more, told]) + data


def _check(text: str, told_by: Register | Inquiry) -> None:
    """Raises ValueError where it cannot show the text."""
    if isinstance(told_by, Register):
        _shown(text, told_by)
    elif not text.isascii() or len(text) > _MOST_TEXT:
        raise ValueError(f"{text}: the meter shows up to {_MOST_TEXT} letters without accents")


def _shown(text: str, register: Register) -> Words:
    """The words of an identity register that shows a text or a number.

    Raises ValueError where the register cannot hold it.
    """
    if register.encoding.type == "string":
        return encode_text(text or register.name, register.encoding)
    if text and not text.isdecimal():
        raise ValueError(f"{register.name}: the meter shows a number, and {text} is none")
    return encode(Decimal(text or 1), register.encoding)
