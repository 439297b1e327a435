"""The lines that mend a mistake are sound, and say just what was found."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from attrs import evolve
from ruamel.yaml import YAML

from gateway.cli.mending import mended, mistake_in_words
from gateway.config import Library
from gateway.metering.profile import DeviceProfile
from gateway.metering.register import Encoding, Register
from gateway.metering.settings import MeterSettings
from gateway.metering.verifying import Candidate
from tests.modbus.displays import cases, compared, quantities_of

SHIPPED = [
    profile
    for profile in Library().all()
    if any("energy" in name for name in quantities_of(profile))
][::3]


def of(profile: DeviceProfile, multiplier: Decimal = Decimal(1)) -> MeterSettings:
    return MeterSettings("lift", "riser", 1, profile, (), multiplier)


def same(one: Register, other: Register) -> bool:
    """But for what is said of it, and the names of registers beside it."""
    unsaid = {"sources": (), "conflict": "", "note": ""}
    return evolve(one, **unsaid) == evolve(other, **unsaid)  # type: ignore[arg-type]


def lies_across_another(one: Register, profile: DeviceProfile) -> bool:
    places = ((r.function, r.address, r.count) for r in profile.registers if r.name != one.name)
    return any(
        function == one.function
        and one.address < address + count
        and address < one.address + one.count
        and (address, count) != (one.address, one.count)
        for function, address, count in places
    )


@pytest.mark.parametrize("profile", SHIPPED, ids=[profile.name for profile in SHIPPED])
async def test_saved_as_a_profile_of_one_s_own_it_has_the_register_that_was_found(
    profile: DeviceProfile, tmp_path: Path
) -> None:
    quantity = next(name for name in quantities_of(profile) if "energy" in name)
    file = tmp_path / f"{profile.name}.yaml"
    saved = 0
    for case in cases(profile, quantity):
        _, comparison = await compared(case)
        meter = of(case.planted, case.configured)
        for one in comparison.candidates[:1]:
            if one.mistakes:
                assert mistake_in_words(meter, quantity, one)
            if one.register is None or lies_across_another(one.register, profile):
                continue  # such a profile is refused: one of the two is elsewhere
            file.write_text(mended(meter, one, is_own=False)[0].yaml)
            found = Library(tmp_path).get(profile.name)
            (register,) = (r for r in found.registers if r.name == quantity)
            assert same(register, one.register), file.read_text()
            assert found.quantities() == profile.quantities()
            saved += 1
    assert saved > 10


def test_where_the_profile_is_one_s_own_only_its_line_is_given() -> None:
    profile = Library().get("abb-b23")
    register = evolve(profile.registers[0], address=7)
    one = Candidate(("address",), Decimal(1), True, 0.0, register)
    (mend,) = mended(of(profile), one, is_own=True)
    (line,) = YAML(typ="safe").load(mend.yaml)
    assert (line["quantity"], line["address"]) == (register.name, 7)
    assert mend.where == "abb-b23.yaml, among its registers"


def test_a_register_of_a_sum_is_mended_among_the_parts(tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").write_text("""\
maker: Acme
model: E3
kind: electricity
sources: {manual: "Acme E3"}
defaults: {function: 4, type: u32, sources: [manual]}
registers:
  - {quantity: frequency, address: 0, type: u16, scale: "0.01", unit: Hz}
parts:
  - {name: whole, address: 16, unit: kWh}
  - {name: rest, address: 18, type: u16, scale: "0.001", unit: kWh}
computed:
  - {quantity: active_energy_import_total, plus: [whole, rest]}
""")
    profile = Library(tmp_path).get("acme")
    whole = evolve(profile.computed[0].plus[0], encoding=Encoding("u32", "little"))
    one = Candidate(("word order",), Decimal(1), True, 0.0, whole)
    assert mistake_in_words(of(profile), "active_energy_import_total", one) == (
        "the word order is little, not big"
    )
    (tmp_path / "mended.yaml").write_text(mended(of(profile), one, is_own=False)[0].yaml)
    again = Library(tmp_path).get("mended")
    assert again.computed[0].plus[0].encoding.word_order == "little"
    assert again.computed[0].plus[1] == profile.computed[0].plus[1]


def test_what_stands_beside_a_register_is_kept(tmp_path: Path) -> None:
    (tmp_path / "heat.yaml").write_text("""\
maker: Acme
model: H
kind: heat
sources: {manual: "Acme H"}
defaults: {function: 3, byte_order: little, sources: [manual]}
registers:
  - quantity: heat_energy_total
    address: 0
    type: u32
    unit: kWh
    unit_register: {address: 9, type: u16, factors: {2: "0.001", 3: "1"}}
    modulus: "100000000"
    not_available: 0xFFFFFFFF
  - {quantity: volume_total, address: 4, type: mod10k, words: 3, scale: "0.001", unit: m³}
""")
    profile = Library(tmp_path).get("heat")
    for register in profile.registers:
        moved = evolve(register, function=4, address=register.address + 1)
        one = Candidate(("function", "address"), Decimal(1), True, 0.0, moved)
        (tmp_path / "mended.yaml").write_text(mended(of(profile), one, is_own=False)[0].yaml)
        found = Library(tmp_path).get("mended")
        (again,) = (r for r in found.registers if r.name == register.name)
        assert same(again, moved)


def test_a_multiplier_is_mended_at_the_meter() -> None:
    meter = of(Library().get("abb-b23"), Decimal(30))
    one = Candidate(("multiplier",), Decimal(1), True, 0.0, None, Decimal(40))
    (mend,) = mended(meter, one, is_own=False)
    assert (mend.where, mend.yaml) == ("gateway.yaml, at the meter lift", "multiplier: 40")
    words = mistake_in_words(meter, "active_energy_import_total", one)
    assert words == "multiplier is 40, not 30"
