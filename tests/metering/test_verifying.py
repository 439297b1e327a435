"""What explains a display's value: pure cases that simulated meters do not come to."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metering.display import Shown, read_display
from gateway.metering.profile import Computed, DeviceProfile
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import Block, RawWords
from gateway.metering.register import TYPES, Encoding, Register, encode
from gateway.metering.settings import MeterSettings
from gateway.metering.verifying import Candidate, candidates, own_value, places

ENERGY = "active_energy_import_total"
POWER = "active_power_total"


def register(
    name: str = ENERGY, type_: str = "u32", address: int = 100, scale: str = "0.1", **more: object
) -> Register:
    unit = QUANTITIES[name].unit if name in QUANTITIES else "kWh"
    return Register(name, 3, address, Encoding(type_), Decimal(scale), unit, **more)  # type: ignore[arg-type]


def meter(*registers: Register, **more: object) -> MeterSettings:
    profile = DeviceProfile("t", "T", "t", "electricity", registers)
    return MeterSettings("m", "riser", 1, profile, (), **more)  # type: ignore[arg-type]


def words(*blocks: tuple[int, Sequence[int]]) -> RawWords:
    return RawWords(tuple(Block(3, address, tuple(each)) for address, each in blocks))


def explained(
    of: MeterSettings, raw: RawWords, typed: str, quantity: str = ENERGY
) -> list[Candidate]:
    return candidates(of, quantity, raw, read_display(typed, QUANTITIES[quantity].unit))


def kinds(found: Sequence[Candidate]) -> list[tuple[str, ...]]:
    return [one.mistakes for one in found]


@pytest.mark.parametrize(
    ("typed", "exact"),
    [
        ("12345.6", True),
        ("12345.5", True),  # a display cuts off where a register rounds, or the reverse
        ("12345.4", True),  # one step of the display and one of the register
        ("12345", True),
        ("12345.1", False),  # it has counted on since
    ],
)
def test_a_counter_is_right_within_its_digits_and_what_it_counts_meanwhile(
    typed: str, exact: bool
) -> None:
    found = explained(
        meter(register()), words((100, encode(Decimal(123456), Encoding("u32")))), typed
    )
    assert (found[0].mistakes, found[0].exact) == ((), exact)


def test_a_counter_does_not_count_backwards() -> None:
    raw = words((100, encode(Decimal(123456), Encoding("u32"))))
    assert explained(meter(register()), raw, "12346.9") == []
    assert kinds(explained(meter(register()), raw, "12344.7")) == [()]


def test_what_the_meter_refused_to_give_is_not_right_however_well_it_would_fit() -> None:
    of, shown = meter(register(type_="u16", scale="1")), Shown(Decimal(1234), Decimal(1))
    raw = words((100, (1234, 0)))
    assert kinds(candidates(of, ENERGY, raw, shown)) == [()]
    found = candidates(of, ENERGY, raw, shown, {(3, 100, 1)}, as_it_is=False)
    assert () not in kinds(found)
    assert found[0].mistakes == ("type", "word order")


def test_no_place_is_named_that_the_meter_refuses_to_give() -> None:
    of, shown = meter(register(scale="1")), Shown(Decimal(1234), Decimal(1))
    raw = words((99, (0, 1234, 0, 0)))
    assert kinds(candidates(of, ENERGY, raw, shown))[:2] == [("word order",), ("address",)]
    found = candidates(of, ENERGY, raw, shown, {(3, 100, 2)}, as_it_is=False)
    assert found[0].mistakes == ("address",)
    at = [(one.register.address, one.register.count) for one in found if one.register]
    assert (100, 2) not in at


def test_how_far_a_counter_may_be_ahead_follows_the_meter_s_greatest_power() -> None:
    raw = words((100, encode(Decimal(123456), Encoding("u32"))))
    assert explained(meter(register()), raw, "12325.6") == []
    of = meter(register(), max_power=Decimal(200_000))
    assert kinds(explained(of, raw, "12325.6")) == [()]


def test_a_power_of_the_other_sign_is_told() -> None:
    of = meter(register(POWER, "s32", scale="1"))
    raw = words((100, encode(Decimal(-4321), Encoding("s32"))))
    found = explained(of, raw, "4.32 kW", POWER)
    assert found[0].mistakes == ("sign",)
    assert found[0].register is not None
    assert found[0].register.scale == -1


def test_an_unsigned_type_that_wraps_below_zero_is_told() -> None:
    of = meter(register(POWER, "u32", scale="1"))
    found = explained(of, words((100, encode(Decimal(-4321), Encoding("s32")))), "-4321", POWER)
    assert found[0].mistakes == ("type",)
    assert found[0].register is not None
    assert found[0].register.encoding.type == "s32"


def test_where_the_power_of_ten_in_another_register_is_no_good_a_fixed_scale_is_told() -> None:
    beside = Register("x.scale_register", 3, 110, Encoding("s16"))
    of = meter(register(scale="1", scale_register=beside))
    raw = words((100, encode(Decimal(1234567), Encoding("u32"))), (110, (0x8000,)))
    assert own_value(of, ENERGY, raw) is not None
    found = explained(of, raw, "12345.6")
    assert found[0].mistakes == ("scale",)
    assert found[0].register is not None
    assert (found[0].register.scale, found[0].register.scale_register) == (Decimal("0.01"), None)


def test_a_unit_code_that_the_profile_does_not_know_is_no_obstacle() -> None:
    beside = Register("x.unit_register", 3, 110, Encoding("u16"))
    factors = ((2, Decimal("0.001")), (3, Decimal(1)))
    of = meter(register(scale="1", unit_register=beside, unit_factors=factors))
    raw = words((100, encode(Decimal(12345), Encoding("u32"))), (110, (7,)))
    assert own_value(of, ENERGY, raw) is None
    found = explained(of, raw, "12345000")
    assert found[0].mistakes == ("scale",)


def test_a_value_that_means_none_in_the_profile_is_found_where_it_is() -> None:
    of = meter(register(not_available=frozenset({0xFFFFFFFF})))
    raw = words((99, (*encode(Decimal(123456), Encoding("u32")), 0xFFFF, 0xFFFF)), (100, (1, 2)))
    found = explained(of, words((99, raw.blocks[0].words)), "12345.6")
    assert found[0].mistakes == ("address",)
    assert found[0].register is not None
    assert found[0].register.address == 99


def test_nothing_explains_a_zero_but_a_zero() -> None:
    of = meter(register())
    zeros = words((99, (0, 0, 0, 0, 0)))
    assert kinds(explained(of, zeros, "0.0"))[0] == ()
    assert explained(of, words((100, encode(Decimal(123456), Encoding("u32")))), "0.0") == []
    assert explained(of, zeros, "12345.6") == []


def test_a_float_as_good_as_nothing_is_not_taken_for_a_small_power() -> None:
    of = meter(register(POWER, "s32", scale="1"))
    found = explained(of, words((100, (0, 77))), "3 W", POWER)
    assert [one for one in found if one.value < 1] == []


def test_of_a_sum_each_term_is_tried_and_none_where_another_is_not_known() -> None:
    whole, rest = register("whole", "u32", 100, "1"), register("rest", "u16", 102, "0.001")
    total = Computed(ENERGY, (whole, rest), (), "kWh")
    profile = DeviceProfile("t", "T", "t", "electricity", (), (total,))
    of = MeterSettings("m", "riser", 1, profile, ())
    high, low = encode(Decimal(12345), Encoding("u32"))
    found = explained(of, words((100, (low, high, 678))), "12345.678")
    assert found[0].mistakes == ("word order",)
    assert found[0].register is not None
    assert found[0].register.name == "whole"
    assert explained(of, words((100, (low, high))), "12345.678") == []


def test_a_place_is_never_outside_the_registers_there_are() -> None:
    for address in (0, 1, 65_533, 65_534):
        for place in places(register(address=address)):
            assert place.address >= 0
            assert place.address + place.words <= 0x10000


def test_coils_have_no_other_function() -> None:
    coil = Register(ENERGY, 1, 7, Encoding("u16"))
    assert {place.function for place in places(coil)} == {1}


@given(
    st.lists(st.integers(0, 65_535), min_size=10, max_size=10),
    st.sampled_from([name for name, width in TYPES.items() if width]),
    st.sampled_from([ENERGY, POWER, "voltage_l1", "power_factor_total", "volume_total"]),
    st.decimals(-(10**9), 10**9, places=2),
    st.sampled_from(["1", "0.001", "40"]),
)
def test_whatever_stands_there_is_ranked_and_fits(
    raw: list[int], type_: str, quantity: str, value: Decimal, multiplier: str
) -> None:
    of = meter(register(quantity, type_), multiplier=Decimal(multiplier))
    found = candidates(of, quantity, words((97, raw)), Shown(value, Decimal("0.01")))
    costs = [one.cost for one in found]
    assert costs == sorted(costs)
    for one in found:
        assert abs(one.value - value) <= max(abs(value), abs(one.value), Decimal(4)) * 2
        assert len(one.mistakes) <= 4
        assert len(set(one.mistakes)) == len(one.mistakes)
