"""A display is held against a profile with the mistakes that people make: few reads where all is
right, and the right answer among the first three where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest
from attrs import evolve

from gateway.config import Library
from gateway.metering.display import Shown
from gateway.metering.profile import DeviceProfile
from gateway.metering.reading import Block
from gateway.metering.settings import MeterSettings
from gateway.modbus.comparing import Comparison, compare
from gateway.modbus.plan import Read
from gateway.modbus.simulator import SimulatedMeter
from tests.modbus.displays import (
    NOON,
    cases,
    compared,
    quantities_of,
    rank_of,
    register_of,
    true_profiles,
)

METERED = [p for p in true_profiles() if any("energy" in name for name in quantities_of(p))]
PROFILES = METERED[:: len(METERED) // 32]
"""Some of every kind; all of them: tests/proofs."""


def counter_of(profile: DeviceProfile) -> str:
    return next(name for name in quantities_of(profile) if "energy" in name)


@pytest.mark.parametrize("true", PROFILES, ids=[profile.name for profile in PROFILES])
async def test_the_right_answer_is_among_the_first_three(true: DeviceProfile) -> None:
    """For a counter, whose display has digits enough to tell; all the others: tests/proofs."""
    for case in cases(true, counter_of(true)):
        shown, comparison = await compared(case)
        told = [(one.mistakes, one.value) for one in comparison.candidates]
        assert rank_of(case, comparison) in (1, 2, 3), (case.name, shown, told)


async def test_there_are_thirty_profiles() -> None:
    assert len(PROFILES) >= 30


async def asked_of(
    meter: SimulatedMeter, profile: DeviceProfile, quantity: str, shown: Shown
) -> tuple[Comparison, list[Read]]:
    asked: list[Read] = []

    async def look(reads: Sequence[Read]) -> list[Block | str]:
        asked.extend(reads)
        found: list[Block | str] = []
        for read in reads:
            words = meter.words(read.function, read.address, read.count, NOON)
            refused = isinstance(words, int)
            found.append(
                f"exception_{words}" if refused else Block(read.function, read.address, words)
            )
        return found

    settings = MeterSettings("m", "riser", 1, profile, ())
    return await compare(settings, quantity, shown, look), asked


@pytest.mark.parametrize("true", PROFILES, ids=[profile.name for profile in PROFILES])
async def test_where_all_is_right_only_the_quantity_itself_is_asked_for(
    true: DeviceProfile,
) -> None:
    quantity = counter_of(true)
    meter = SimulatedMeter(true, 1, NOON - 3_600_000)
    value = meter.value(quantity, NOON)
    assert isinstance(value, Decimal)
    found, asked = await asked_of(meter, true, quantity, Shown(value, Decimal("0.1")))
    assert [one.mistakes for one in found.candidates[:1]] == [()]
    chain = 0 if true.sunspec is None else 3  # where it is: the marker, and two models
    assert len(asked) <= chain + len(true.needs(quantity))
    assert found.faults == {}


async def test_a_meter_takes_few_reads_and_none_twice_nor_one_that_its_model_cannot_take() -> None:
    for true in PROFILES[::4]:
        for case in cases(true, counter_of(true)):
            meter = SimulatedMeter(true, 1, NOON - 3_600_000)
            value = meter.value(case.quantity, NOON)
            assert isinstance(value, Decimal)
            shown = Shown(value * case.multiplier, Decimal("0.1"))
            found, asked = await asked_of(meter, case.planted, case.quantity, shown)
            assert len(asked) == len(set(asked)) == found.requests
            assert len(asked) <= 45
            for read in asked:
                assert read.function in (3, 4)
                assert 1 <= read.count <= true.limits.max_registers
                if true.limits.even:
                    assert read.address % 2 == read.count % 2 == 0


async def test_a_function_that_the_meter_does_not_know_is_asked_for_no_further() -> None:
    true = Library().get("eastron-sdm630")
    meter = SimulatedMeter(true, 1, NOON - 3_600_000)
    shown = Shown(Decimal(7), Decimal(1))  # which nothing explains
    registers = tuple(r for r in true.registers)
    only = evolve(true, registers=registers, identity=())
    meter = SimulatedMeter(only, 1, NOON - 3_600_000)
    _, asked = await asked_of(meter, only, "active_energy_import_total", shown)
    assert len([read for read in asked if read.function == 3]) == 1


async def test_a_silent_unit_is_asked_for_its_own_registers_only() -> None:
    asked: list[Read] = []

    async def look(reads: Sequence[Read]) -> list[Block | str]:
        asked.extend(reads)
        return ["timeout"] * len(reads)

    for name in ("eastron-sdm630", "sunspec-meter"):
        profile = Library().get(name)
        settings = MeterSettings("m", "riser", 1, profile, ())
        shown = Shown(Decimal("12345.6"), Decimal("0.1"))
        asked.clear()
        found = await compare(settings, "active_energy_import_total", shown, look)
        assert set(found.faults.values()) == {"timeout"}
        assert found.candidates == ()
        assert len(asked) <= 3


async def test_a_register_that_the_meter_refuses_is_told_with_what_is_right() -> None:
    true = Library().get("abb-b23")
    quantity = "active_energy_import_total"
    for case in cases(true, quantity):
        if case.mistake == "address +1":
            break
    _, comparison = await compared(case)
    assert comparison.faults == {quantity: "exception_2"}
    assert comparison.candidates[0].mistakes == ("address",)
    assert comparison.candidates[0].register == register_of(true, quantity)


async def test_another_quantity_that_happens_to_fit_does_not_end_the_search() -> None:
    """The phases have much the same voltage."""
    true = Library().get("abb-b23")
    (case,) = (case for case in cases(true, "voltage_l1") if case.mistake == "type u16")
    _, comparison = await compared(case)
    assert [one.mistakes for one in comparison.candidates][:2] == [("type",), ("quantity",)]


async def test_of_a_sum_the_term_is_told_that_is_wrong() -> None:
    true = Library().get("eastron-sdm630")
    own = register_of(true, "active_energy_export_total")
    wrong = evolve(own, encoding=evolve(own.encoding, word_order="little"))
    (net,) = (c for c in true.computed if c.quantity == "active_energy_net_total")
    planted = evolve(
        true,
        registers=tuple(wrong if r == own else r for r in true.registers),
        computed=(evolve(net, minus=(wrong,)),),
    )
    meter = SimulatedMeter(true, 1, NOON - 3_600_000)
    value = meter.value(net.quantity, NOON)
    assert isinstance(value, Decimal)
    found, _ = await asked_of(meter, planted, net.quantity, Shown(value, Decimal("0.01")))
    assert found.candidates[0].mistakes == ("word order",)
    assert found.candidates[0].register == own


async def test_no_mistake_is_named_where_nothing_explains_the_value() -> None:
    true = Library().get("eastron-sdm630")
    meter = SimulatedMeter(true, 1, NOON - 3_600_000)
    shown = Shown(Decimal("3141592.6"), Decimal("0.1"))
    found, _ = await asked_of(meter, true, "active_energy_import_total", shown)
    assert found.candidates == ()
