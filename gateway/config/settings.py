"""The configuration as the program holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import field, frozen

from gateway.buffer.settings import BufferSettings
from gateway.energinet.settings import EnerginetSettings
from gateway.errors import GatewayError
from gateway.metering.settings import MeterSettings
from gateway.modbus.settings import BusSettings


@frozen
class ClockSettings:
    """The whole of `clock`."""

    assume_synchronised: bool = False


@frozen
class LogSettings:
    """The whole of `log`."""

    format: Literal["auto", "logfmt", "json"] = "auto"
    level: Literal["error", "warning", "info", "debug"] = "info"


@frozen
class GatewayConfig:
    """One gateway.yaml, checked and resolved."""

    path: Path
    timezone: str
    energinet: EnerginetSettings
    buses: tuple[BusSettings, ...]
    meters: tuple[MeterSettings, ...]
    buffer: BufferSettings = field(factory=BufferSettings)
    clock: ClockSettings = field(factory=ClockSettings)
    log: LogSettings = field(factory=LogSettings)
    profiles: Path | None = None

    def meter(self, name: str) -> MeterSettings:
        """The meter of that name. Raises GatewayError."""
        for meter in self.meters:
            if meter.name == name:
                return meter
        names = ", ".join(meter.name for meter in self.meters)
        raise GatewayError(f'no meter is named "{name}"', hint=f"one of {names}")

    def bus_of(self, meter: MeterSettings) -> BusSettings:
        """The bus that a meter is on."""
        return next(bus for bus in self.buses if bus.name == meter.bus)
