"""What the configuration says of meters and of the values to send."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, TypeAlias

from attrs import frozen

from gateway.clock import Millis
from gateway.metering.profile import DeviceProfile
from gateway.metering.reading import As, SeriesKey

Label: TypeAlias = Literal["start", "end"]
GapRule: TypeAlias = Literal["return", "spread", "skip"]


@frozen
class SendSettings:
    """One entry under `send`: a quantity of a meter that goes to a meterID."""

    key: SeriesKey
    quantity: str
    as_: As
    every: Millis
    sender: str
    gap: GapRule = "return"
    integrates: str = ""
    """The power or flow that is summed up over each interval, where the meter has no counter of
    the quantity; empty: it has."""

    @property
    def measured(self) -> str:
        """What is read of the meter for it."""
        return self.integrates or self.quantity


@frozen
class MeterSettings:
    """One entry under `meters`."""

    name: str
    bus: str
    unit: int
    profile: DeviceProfile
    send: tuple[SendSettings, ...]
    multiplier: Decimal = Decimal(1)
    serial_number: str | None = None
    max_power: Decimal | None = None
    """W; None: only the modulus of the register bounds a step."""
