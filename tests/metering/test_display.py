"""What somebody typed from a display is the number that stood there, and how fine it is."""

from __future__ import annotations

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metering.display import Shown, read_display
from gateway.metering.quantity import UNITS


@pytest.mark.parametrize(
    ("typed", "unit", "value", "step"),
    [
        ("12345.6", "kWh", "12345.6", "0.1"),
        ("12345,6", "kWh", "12345.6", "0.1"),
        ("12345,6 kWh", "kWh", "12345.6", "0.1"),
        ("12345", "kWh", "12345", "1"),
        ("12345.", "kWh", "12345", "1"),
        ("0012345.60", "kWh", "12345.60", "0.01"),
        ("12 345,6", "kWh", "12345.6", "0.1"),
        ("12\u202f345,6\u00a0kWh", "kWh", "12345.6", "0.1"),
        ("12'345.6", "kWh", "12345.6", "0.1"),
        ("12.345,6", "kWh", "12345.6", "0.1"),
        ("1,012,345.6", "kWh", "1012345.6", "0.1"),
        ("1.012.345", "kWh", "1012345", "1"),
        ("12,3456 MWh", "kWh", "12345.6", "0.1"),
        ("12.3456MWH", "kWh", "12345.6", "0.1"),
        ("12345600 Wh", "kWh", "12345.6", "0.001"),
        ("3.6 GJ", "kWh", "1000", "27.77777777777777777777777778"),
        ("1 Gcal", "kWh", "1163", "1163"),
        ("4.3 kW", "W", "4300", "100"),
        ("-4.3 kW", "W", "-4300", "100"),
        ("−120 W", "W", "-120", "1"),
        (".97", "", "0.97", "0.01"),
        ("97 %", "", "0.97", "0.01"),
        ("350 mA", "A", "0.350", "0.001"),
        ("1234 l", "m³", "1.234", "0.001"),
        ("12.3 m3", "m³", "12.3", "0.1"),
        ("2 l/s", "m³/h", "7.2", "3.6"),
        ("41.5 C", "°C", "41.5", "0.1"),
        ("0.4 kV", "V", "400", "100"),
    ],
)  # fmt: skip
def test_a_value_is_read_as_displays_show_it(typed: str, unit: str, value: str, step: str) -> None:
    assert read_display(typed, unit) == Shown(Decimal(value), Decimal(step))


@pytest.mark.parametrize(
    ("typed", "unit", "said"),
    [
        ("", "kWh", "write 12345.6"),
        ("abc", "kWh", "write 12345.6"),
        ("1.2.3,4,5", "kWh", "write 12345.6"),
        ("12345.6 kW", "kWh", "kW is no unit of it: write Wh, kWh, MWh"),
        ("230 V", "W", "V is no unit of it"),
        ("nan", "W", "write 12345.6"),
        ("1" * 21, "kWh", "longer than any display"),
        ("1." + "0" * 600, "W", "longer than any display"),
        ("1e5", "W", "e5 is no unit"),
    ],
)
def test_what_is_no_value_of_the_quantity_is_refused_with_what_to_write(
    typed: str, unit: str, said: str
) -> None:
    with pytest.raises(ValueError, match="write") as refused:
        read_display(typed, unit)
    assert said in str(refused.value)


@given(st.decimals(-(10**9), 10**9, places=3), st.sampled_from(UNITS), st.sampled_from(".,"))
def test_a_number_in_the_quantity_s_own_unit_is_taken_exactly(
    number: Decimal, unit: str, point: str
) -> None:
    shown = read_display(f"{number:f} {unit}".replace(".", point), unit)
    assert shown == Shown(number, Decimal("0.001"))


@given(st.text(max_size=12), st.sampled_from(UNITS))
def test_whatever_is_typed_is_a_value_or_refused(text: str, unit: str) -> None:
    with contextlib.suppress(ValueError):
        assert read_display(text, unit).step > 0
