"""The names of what meters measure, and the one unit in which each is stored and sent."""

from __future__ import annotations

from collections.abc import Collection

from attrs import frozen

UNITS = ("kWh", "kvarh", "kVAh", "W", "var", "VA", "V", "A", "Hz", "m³", "m³/h", "°C", "K", "")
"""Every canonical unit; the empty one is that of power factors."""


@frozen
class Quantity:
    """One measured quantity. `counter` marks a total that only grows in normal service."""

    name: str
    unit: str
    counter: bool
    title: str


_PHASES = ("l1", "l2", "l3")


def _all() -> dict[str, Quantity]:
    found: dict[str, Quantity] = {}

    def add(name: str, unit: str, title: str, *, counter: bool = False) -> None:
        found[name] = Quantity(name, unit, counter, title)

    energies = (
        ("active_energy", "kWh", "Active energy"),
        ("reactive_energy", "kvarh", "Reactive energy"),
        ("apparent_energy", "kVAh", "Apparent energy"),
    )
    for base, unit, title in energies:
        for way in ("import", "export", "sum", "net"):
            for part in ("total", *_PHASES, "tariff1", "tariff2", "tariff3", "tariff4", "partial"):
                # Import minus export runs both ways: a number, not a counter.
                add(f"{base}_{way}_{part}", unit, f"{title}, {way}, {part}", counter=way != "net")
    powers = (
        ("active_power", "W", "Active power"),
        ("reactive_power", "var", "Reactive power"),
        ("apparent_power", "VA", "Apparent power"),
    )
    for base, unit, title in powers:
        for part in ("total", *_PHASES):
            add(f"{base}_{part}", unit, f"{title}, {part}")
            for way in ("import", "export"):
                add(f"{base}_{way}_{part}", unit, f"{title}, {way}, {part}")
    for part in ("total", *_PHASES):
        add(f"power_factor_{part}", "", f"Power factor, {part}")
    for part in (*_PHASES, "l1_l2", "l2_l3", "l3_l1", "average", "line_average"):
        add(f"voltage_{part}", "V", f"Voltage, {part}")
    for part in (*_PHASES, "neutral", "average", "total"):
        add(f"current_{part}", "A", f"Current, {part}")
    add("frequency", "Hz", "Frequency")
    for part in ("total", "heating_total", "hot_water_total", "pool_total"):
        add(f"heat_energy_{part}", "kWh", f"Heat energy, {part}", counter=True)
    add("cooling_energy_total", "kWh", "Cooling energy, total", counter=True)
    add("volume_total", "m³", "Volume, total", counter=True)
    add("volume_total_reverse", "m³", "Volume, backwards, total", counter=True)
    add("volume_corrected_total", "m³", "Volume at standard conditions, total", counter=True)
    add("flow", "m³/h", "Flow")
    add("flow_v2", "m³/h", "Flow, second sensor")
    add("thermal_power", "W", "Thermal power")
    for part in ("supply_temperature", "return_temperature", "temperature_t3", "temperature_t4"):
        add(part, "°C", part.replace("_", " ").capitalize())
    add("gas_temperature", "°C", "Gas temperature")
    add("temperature_difference", "K", "Temperature difference")
    return found


QUANTITIES: dict[str, Quantity] = _all()


def integrand(counter: str, known: Collection[str]) -> str:
    """The power or flow of which a counter is the integral, among what is known; empty: none is.

    Of a power that runs both ways the import is what is above zero, the export what is below.
    """
    candidates = {"heat_energy_total": ["thermal_power"], "volume_total": ["flow"]}
    for kind in ("active", "reactive"):
        for way in ("import", "export"):
            for part in ("total", *_PHASES):
                powers = [f"{kind}_power_{way}_{part}", f"{kind}_power_{part}"]
                candidates[f"{kind}_energy_{way}_{part}"] = powers
    return next((power for power in candidates.get(counter, ()) if power in known), "")
