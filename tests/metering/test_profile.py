"""What is known of a meter model, and the names of what meters measure."""

from __future__ import annotations

import pytest

from gateway.metering.profile import Computed, DeviceProfile
from gateway.metering.quantity import QUANTITIES, UNITS
from gateway.metering.register import Encoding, Register

WORD = Encoding("u16")
POWER_OF_TEN = Register("energy_scale", 3, 9, WORD)
WHOLE = Register("energy_whole", 3, 0, WORD, scale_register=POWER_OF_TEN)
PART = Register("energy_part", 3, 1, WORD, scale_register=POWER_OF_TEN)
VOLTAGE = Register("voltage_l1", 3, 2, WORD)
PROFILE = DeviceProfile(
    "p", "T", "M", "electricity", (WHOLE, PART, VOLTAGE),
    (Computed("active_energy_import_total", (WHOLE,), (PART,)),),
)  # fmt: skip


def test_a_quantity_needs_its_registers_and_those_of_their_scale_once():
    assert PROFILE.needs("voltage_l1") == (VOLTAGE,)
    assert PROFILE.needs("active_energy_import_total") == (WHOLE, POWER_OF_TEN, PART)
    with pytest.raises(KeyError):
        PROFILE.needs("frequency")


def test_parts_of_a_computed_quantity_are_no_quantities():
    assert PROFILE.quantities() == ("voltage_l1", "active_energy_import_total")


def test_every_quantity_has_a_canonical_unit_and_its_own_name():
    for name, quantity in QUANTITIES.items():
        assert quantity.name == name
        assert quantity.unit in UNITS
        assert quantity.title


def test_counters_are_the_totals_that_only_grow():
    counters = {name for name, quantity in QUANTITIES.items() if quantity.counter}
    assert {"active_energy_import_total", "heat_energy_total", "volume_total"} <= counters
    assert not any("net" in name or "power" in name or "voltage" in name for name in counters)
    assert all(QUANTITIES[name].unit in ("kWh", "kvarh", "kVAh", "m³") for name in counters)
