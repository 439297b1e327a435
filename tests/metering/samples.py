"""A small meter for tests, and samples of it without a wire."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from zoneinfo import ZoneInfo

from gateway.clock import HOUR, MINUTE, Instant, Millis
from gateway.metering.meter import Meter
from gateway.metering.profile import DeviceProfile
from gateway.metering.reading import As, Block, RawWords, Sample, SeriesKey
from gateway.metering.register import Encoding, Register, encode
from gateway.metering.settings import GapRule, Label, MeterSettings, SendSettings

OSLO = ZoneInfo("Europe/Oslo")
UTC = ZoneInfo("UTC")

ENERGY = Register("active_energy_import_total", 3, 100, Encoding("u32"), Decimal("0.01"), "kWh")
POWER = Register("active_power_total", 4, 10, Encoding("f32"), Decimal(1), "W")
VOLTAGE = Register(
    "voltage_l1", 4, 20, Encoding("u16"), Decimal("0.1"), "V", not_available=frozenset({0xFFFF})
)
PROFILE = DeviceProfile("test-meter", "Test", "Meter", "electricity", (ENERGY, POWER, VOLTAGE))
KEY = SeriesKey("", "1")


def send(
    as_: As = "consumption",
    *,
    quantity: str = "active_energy_import_total",
    every: Millis = HOUR,
    gap: GapRule = "return",
    key: SeriesKey = KEY,
) -> SendSettings:
    return SendSettings(key, quantity, as_, every, "basement", gap)


def settings(
    *sends: SendSettings,
    profile: DeviceProfile = PROFILE,
    multiplier: str = "1",
    max_power: str | None = None,
) -> MeterSettings:
    return MeterSettings(
        "main",
        "riser",
        1,
        profile,
        sends,
        Decimal(multiplier),
        None,
        None if max_power is None else Decimal(max_power),
    )


def meter(
    *sends: SendSettings,
    zone: ZoneInfo = UTC,
    label: Label = "start",
    poll: Millis = MINUTE,
    profile: DeviceProfile = PROFILE,
    multiplier: str = "1",
    max_power: str | None = None,
) -> Meter:
    made = settings(*sends, profile=profile, multiplier=multiplier, max_power=max_power)
    return Meter(made, zone, label, poll)


def sample(
    at: Instant,
    values: Mapping[Register, str | int],
    faults: Mapping[str, str] | None = None,
) -> Sample:
    """A sample that shows these values: text in the unit, or the raw number."""
    blocks = []
    for register, shown in values.items():
        raw = Decimal(shown) if isinstance(shown, int) else Decimal(shown) / register.scale
        words = encode(raw, register.encoding)
        blocks.append(Block(register.function, register.address, words))
    return Sample("main", at, "boot", at, RawWords(tuple(blocks)), faults or {})


def energy(at: Instant, kwh: str) -> Sample:
    return sample(at, {ENERGY: kwh})


def silent(at: Instant, reason: str = "timeout") -> Sample:
    return sample(at, {}, {r.name: reason for r in (ENERGY, POWER, VOLTAGE)})
