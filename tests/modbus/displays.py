"""Mistakes that people make in a profile, beside a meter whose display shows the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import ROUND_DOWN, Decimal

from attrs import evolve, frozen

from gateway.config import Library
from gateway.metering.display import Shown
from gateway.metering.profile import DeviceProfile
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import Block, RawWords
from gateway.metering.register import TYPES, Encoding, Register
from gateway.metering.settings import MeterSettings
from gateway.metering.verifying import Candidate, own_value
from gateway.modbus.comparing import Comparison, compare
from gateway.modbus.plan import Read, Timing, plan
from gateway.modbus.simulator import SimulatedMeter

NOON = 1_790_000_000_000
TYPING = 15_000
"""Milliseconds between the look at the display and the answer of the meter."""
_STEPS = {"V": "0.1", "A": "0.01", "W": "1", "var": "1", "VA": "1", "Hz": "0.01", "": "0.01",
          "m³/h": "0.001", "°C": "0.1", "K": "0.1", "m³": "0.01"}  # fmt: skip
_MULTIPLIED = ("kWh", "kvarh", "kVAh", "W", "var", "VA", "A", "m³", "m³/h")


@frozen
class Case:
    """A meter as it is, and as somebody configured it."""

    mistake: str
    true: DeviceProfile
    quantity: str
    planted: DeviceProfile
    multiplier: Decimal = Decimal(1)
    """As it should be."""
    configured: Decimal = Decimal(1)
    seed: int = 0

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.true.name} {self.quantity}: {self.mistake}"


def register_of(profile: DeviceProfile, quantity: str) -> Register:
    """The one register of a quantity."""
    return next(r for r in profile.registers if r.name == quantity)


def with_register(profile: DeviceProfile, register: Register) -> DeviceProfile:
    """The profile with one register changed."""
    registers = tuple(register if r.name == register.name else r for r in profile.registers)
    return evolve(profile, registers=registers)


def true_profiles() -> list[DeviceProfile]:
    """Those that are shipped, and for each a meter that has the same in another form."""
    shipped = list(Library().all())
    return [*shipped, *(_otherwise(profile, n) for n, profile in enumerate(shipped))]


def _otherwise(profile: DeviceProfile, number: int) -> DeviceProfile:
    """The same registers with the other word order, and integers for floats, or the reverse."""
    function = 3 if number % 2 else 4

    def other(register: Register) -> Register:
        own = register.encoding
        type_, scale = own.type, register.scale
        if own.type == "f32":
            type_ = "u32" if QUANTITIES[register.name].counter else "s32"
            finest = 10_000 if register.unit == "m³/h" else 100
            scale = scale / finest if scale >= 1 else scale
        elif own.type in ("u32", "s32") and register.scale_register is None:
            type_, scale = "f32", Decimal(1)
        order = "big" if own.word_order == "little" else "little"
        encoding = Encoding(type_, order, ("big", "little")[number % 4 == 3], own.words)
        return evolve(
            register, function=function, encoding=encoding, scale=scale,
            not_available=frozenset(),
        )  # fmt: skip

    return evolve(
        profile,
        name=f"{profile.name}-otherwise",
        registers=tuple(map(other, profile.registers)),
        computed=(),
        identity=(),
        sunspec=None,
    ) if profile.sunspec is None else evolve(
        profile, name=f"{profile.name}-otherwise", limits=evolve(profile.limits, holes=False)
    )  # fmt: skip


def quantities_of(profile: DeviceProfile) -> list[str]:
    """One of each unit."""
    found: dict[str, str] = {}
    for register in profile.registers:
        if register.name in QUANTITIES:
            found.setdefault(QUANTITIES[register.name].unit, register.name)
    for name in ("active_energy_import_total", "heat_energy_total"):
        if name in [register.name for register in profile.registers]:
            found["kWh"] = name
    return list(found.values())


def cases(true: DeviceProfile, quantity: str, seed: int = 0) -> Iterator[Case]:
    """No mistake, and every mistake that this register leaves room for."""
    register = register_of(true, quantity)
    unit = QUANTITIES[quantity].unit
    yield Case("none", true, quantity, true, seed=seed)
    for mistake, wrong in _mistakes(register):
        yield Case(mistake, true, quantity, with_register(true, wrong), seed=seed)
    if unit in _MULTIPLIED:
        for ratio in ("10", "30", "40", "60", "100", "250"):
            yield Case(f"multiplier {ratio}", true, quantity, true, Decimal(ratio), seed=seed)
        yield Case("multiplied twice", true, quantity, true, Decimal(1), Decimal(40), seed=seed)
        yield Case(
            "multiplier 40, right", true, quantity, true, Decimal(40), Decimal(40), seed=seed
        )


def _mistakes(register: Register) -> Iterator[tuple[str, Register]]:
    own = register.encoding
    if own.words > 1:
        order = "big" if own.word_order == "little" else "little"
        yield "word order", evolve(register, encoding=evolve(own, word_order=order))
    swapped = "big" if own.byte_order == "little" else "little"
    yield "byte order", evolve(register, encoding=evolve(own, byte_order=swapped))
    for step in (1, -1):
        if register.address + step >= 0:
            yield f"address {step:+}", evolve(register, address=register.address + step)
    yield "function", evolve(register, function=7 - register.function)
    base = 30_000 if register.function == 4 else 40_000
    for added in (base, base + 1):
        if register.address < 10_000:
            yield f"notation +{added}", evolve(register, address=register.address + added)
    for type_ in ("u16", "s16", "u32", "s32", "f32", "u64", "bcd32"):
        if type_ != own.type:
            encoding = evolve(own, type=type_, words=TYPES[type_])
            yield f"type {type_}", evolve(register, encoding=encoding, not_available=frozenset())
    for power in (-3, -2, -1, 1, 2, 3):
        yield f"scale 10^{power}", evolve(register, scale=register.scale.scaleb(power))


def meter_of(case: Case) -> SimulatedMeter:
    """As it is."""
    return SimulatedMeter(case.true, 1, NOON - 3_600_000, seed=case.seed)


def shown_by(meter: SimulatedMeter, case: Case) -> Shown:
    """What a person read off its display."""
    value = meter.value(case.quantity, NOON - TYPING)
    assert isinstance(value, Decimal)
    step = Decimal(_STEPS.get(QUANTITIES[case.quantity].unit, "0.1"))
    return Shown((value * case.multiplier).quantize(step, ROUND_DOWN), step)


async def compared(case: Case) -> tuple[Shown, Comparison]:
    """What `verify` makes of it."""
    meter = meter_of(case)
    shown = shown_by(meter, case)

    async def look(reads: Sequence[Read]) -> list[Block | str]:
        found: list[Block | str] = []
        for read in reads:
            words = meter.words(read.function, read.address, read.count, NOON)
            found.append(
                f"exception_{words}"
                if isinstance(words, int)
                else Block(read.function, read.address, words)
            )
        return found

    settings = MeterSettings("m", "riser", 1, case.planted, (), case.configured)
    return shown, await compare(settings, case.quantity, shown, look)


def is_seen(case: Case) -> bool:
    """Does the mistake change what is read now? A sign that is not needed does not, and neither
    does a neighbour that holds the same."""
    if case.configured != case.multiplier:
        return True
    meter = meter_of(case)
    blocks = []
    parts = register_of(case.planted, case.quantity).parts
    for read in plan(parts, case.planted.limits, Timing(0.05, 0.002)):
        words = meter.words(read.function, read.address, read.count, NOON)
        if isinstance(words, int):
            return True
        blocks.append(Block(read.function, read.address, words))
    settings = MeterSettings("m", "riser", 1, case.planted, ())
    read = own_value(settings, case.quantity, RawWords(tuple(blocks)))
    return read != meter.value(case.quantity, NOON)


def rank_of(case: Case, comparison: Comparison) -> int:
    """At which place the right answer stands, from 1; 0: nowhere."""
    for rank, candidate in enumerate(comparison.candidates, 1):
        if is_right(case, candidate):
            return rank
    return 0


def is_right(case: Case, candidate: Candidate) -> bool:
    """Does it mend what is wrong, and nothing else? Where the mistake is not seen, or the profile
    reads just what the display shows, nothing is to be mended."""
    if not candidate.mistakes and case.configured == case.multiplier:
        return candidate.exact or not is_seen(case)
    if candidate.or_multiplier is not None:
        instead = evolve(
            candidate, register=None, multiplier=candidate.or_multiplier, or_multiplier=None
        )
        if is_right(case, instead):
            return True
    true = register_of(case.true, case.quantity)
    found = candidate.register or register_of(case.planted, case.quantity)
    own, other = found.encoding, true.encoding
    same_type = other.type in (own.type, *candidate.types)
    multiplier = case.configured if candidate.multiplier is None else candidate.multiplier
    return (
        (found.function, found.address, found.count) == (true.function, true.address, true.count)
        and same_type
        and (own.word_order == other.word_order or own.words == 1)
        and own.byte_order == other.byte_order
        and found.scale == true.scale
        and multiplier == case.multiplier
    )
