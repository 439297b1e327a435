"""Every shipped profile loads, plans, and says what its sources say."""

from __future__ import annotations

import json
import struct
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.config.library import Library
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import Block, RawWords
from gateway.metering.register import NOT_AVAILABLE, Register, value_of
from gateway.modbus.plan import Timing, plan
from gateway.modbus.settings import SerialLink, TcpLink

LIBRARY = Library(None)
NAMES = LIBRARY.names()
FACTS = [
    json.loads(line) for line in (Path(__file__).parent / "facts.jsonl").read_text().splitlines()
]

REQUIRED = {
    "eastron-sdm630",
    "eastron-sdm120",
    "eastron-sdm72d-m-2",
    "carlo-gavazzi-em340",
    "carlo-gavazzi-em111",
    "carlo-gavazzi-em24-e1",
    "abb-b23",
    "abb-b21",
    "schneider-iem3155",
    "siemens-pac2200",
    "janitza-umg96rm",
    "inepro-pro380",
    "socomec-countis-e24",
    "equysis-ultra-e-f",
    "shelly-pro-3em",
    "sunspec-meter",
}


def test_the_models_that_are_promised_are_there() -> None:
    assert set(NAMES) >= REQUIRED


@pytest.mark.parametrize("name", NAMES)
def test_each_register_has_its_source_and_the_canonical_unit(name: str) -> None:
    profile = LIBRARY.get(name)
    known = dict(profile.sources)
    assert profile.registers
    for register in profile.registers:
        assert register.sources, register.name
        assert set(register.sources) <= known.keys(), register.name
        if register.name in QUANTITIES:
            assert register.unit == QUANTITIES[register.name].unit, register.name
    counters = [q for q in profile.quantities() if QUANTITIES[q].counter]
    assert counters, f"{name} counts nothing"


@pytest.mark.parametrize("name", NAMES)
def test_every_register_can_be_read_within_the_limits_of_its_model(name: str) -> None:
    profile = LIBRARY.get(name)
    limits = profile.limits
    wanted = [part for q in profile.quantities() for part in profile.needs(q)]
    wanted += profile.identity_registers()
    reads = plan(wanted, limits, Timing.of(SerialLink("x"), 0.01), known=wanted)
    for register in wanted:
        holding = [
            read
            for read in reads
            if read.function == register.function
            and read.address <= register.address
            and register.end <= read.end
        ]
        assert len(holding) == 1, register.name
    for read in reads:
        assert read.count <= min(limits.max_registers, 125)
        if limits.even:
            assert read.address % 2 == 0
            assert read.count % 2 == 0


SCALED = [
    (name, register.name)
    for name in NAMES
    for register in LIBRARY.get(name).registers
    if register.scale_register is not None
]


@pytest.mark.parametrize(("name", "quantity"), SCALED)
def test_a_value_and_its_scale_factor_come_in_one_request(name: str, quantity: str) -> None:
    """A meter may change the factor between two requests, and the value would be tenfold."""
    profile = LIBRARY.get(name)
    known = [part for q in profile.quantities() for part in profile.needs(q)]
    register = next(r for r in profile.registers if r.name == quantity)
    for link in (SerialLink("x", 9600), TcpLink("x", 502)):
        reads = plan(register.parts, profile.limits, Timing.of(link, 0.02), known=known)
        assert len(reads) == 1


@pytest.mark.parametrize("name", NAMES)
def test_energy_and_power_have_two_sources(name: str) -> None:
    if name == "equysis-ultra-e-f":
        return  # its maker's manual alone; the frames in it were checked by their CRC
    profile = LIBRARY.get(name)
    for quantity in ("active_energy_import_total", "active_power_total"):
        for register in profile.needs(quantity)[:1]:
            assert len(register.sources) >= 2, register.name


@pytest.mark.parametrize("fact", FACTS, ids=lambda f: f"{f['profile']}-{f['quantity']}")
def test_a_register_is_where_its_sources_have_it(fact: dict[str, object]) -> None:
    profile = LIBRARY.get(str(fact["profile"]))
    register = next(r for r in profile.registers if r.name == fact["quantity"])
    assert register.function == fact["function"]
    assert register.address == fact["address"]
    assert register.encoding.type == fact["type"]
    if register.encoding.words > 1:
        assert register.encoding.word_order == fact["word_order"]
    assert register.scale == Decimal(str(fact["scale"]))
    assert register.unit == fact["unit"]
    scale = register.scale_register
    assert (scale.address if scale else None) == fact.get("scale_register")
    if "not_available" in fact:
        assert register.not_available == {int(str(fact["not_available"]), 0)}


def f32(number: float) -> tuple[int, ...]:
    return struct.unpack(">HH", struct.pack(">f", number))


def f32_low_first(number: float) -> tuple[int, ...]:
    return f32(number)[::-1]


# Profile, quantity, words at the register's address, other words by address, what it means.
EXAMPLES = [
    ("eastron-sdm630", "voltage_l1", (0x4366, 0x3333), {}, "230.2"),
    ("eastron-sdm630", "active_energy_import_total", f32(12345.67), {}, "12345.67"),
    ("eastron-sdm630", "active_power_total", f32(-1500.5), {}, "-1500.5"),
    ("eastron-sdm120", "active_energy_import_total", f32(0.1), {}, "0.1"),
    ("eastron-sdm120", "frequency", f32(50.01), {}, "50.01"),
    ("eastron-sdm120", "active_power_total", (0x7FC0, 0), {}, None),
    ("eastron-sdm72d-m-2", "active_energy_import_total", f32(98765.4), {}, "98765.4"),
    ("eastron-sdm72d-m-2", "active_energy_export_total", f32(2.5), {}, "2.5"),
    ("eastron-sdm72d-m-2", "voltage_l3", f32(229.9), {}, "229.9"),
    ("carlo-gavazzi-em340", "active_energy_import_total", (0x86A0, 0x0001), {}, "10000"),
    ("carlo-gavazzi-em340", "active_power_total", (0xFF38, 0xFFFF), {}, "-20"),
    ("carlo-gavazzi-em340", "active_energy_import_total", (0xFFFF, 0x7FFF), {}, None),
    ("carlo-gavazzi-em111", "voltage_l1", (2301, 0), {}, "230.1"),
    ("carlo-gavazzi-em111", "current_l1", (5250, 0), {}, "5.25"),
    ("carlo-gavazzi-em111", "power_factor_total", (0xFC19,), {}, "-0.999"),
    ("carlo-gavazzi-em24-e1", "active_energy_import_total", (0x000A, 0x0002), {}, "13108.2"),
    ("carlo-gavazzi-em24-e1", "frequency", (500,), {}, "50"),
    ("carlo-gavazzi-em24-e1", "active_power_l1", (0xFFFF, 0x7FFF), {}, None),
    ("abb-b23", "active_energy_import_total", (0, 0, 0x0001, 0x0000), {}, "655.36"),
    ("abb-b23", "active_power_total", (0xFFFF, 0xFC18), {}, "-10"),
    ("abb-b23", "active_energy_export_total", (0xFFFF,) * 4, {}, None),
    ("abb-b21", "voltage_l1", (0, 2305), {}, "230.5"),
    ("abb-b21", "active_energy_import_total", (0, 0, 0, 123), {}, "1.23"),
    ("abb-b21", "active_power_total", (0x7FFF, 0xFFFF), {}, None),
    ("schneider-iem3155", "active_energy_import_total", f32(4321.125), {}, "4321.125"),
    ("schneider-iem3155", "active_power_total", f32(1.25), {}, "1250"),
    ("schneider-iem3155", "voltage_l1", (0xFFC0, 0), {}, None),
    (
        "siemens-pac2200",
        "active_energy_import_total",
        struct.unpack(">4H", struct.pack(">d", 1234567.5)),
        {},
        "1234.5675",
    ),
    ("siemens-pac2200", "voltage_l1", f32(231.4), {}, "231.4"),
    ("siemens-pac2200", "active_power_total", f32(-12.5), {}, "-12.5"),
    ("janitza-umg96rm", "active_energy_import_total", f32(1234567.0), {}, "1234.567"),
    ("janitza-umg96rm", "voltage_l1", f32(230.7), {}, "230.7"),
    ("janitza-umg96rm", "frequency", f32(49.98), {}, "49.98"),
    ("inepro-pro380", "active_energy_import_total", f32(77.7), {}, "77.7"),
    ("inepro-pro380", "active_power_total", f32(0.5), {}, "500"),
    ("inepro-pro380", "frequency", f32(50.0), {}, "50"),
    ("socomec-countis-e24", "active_energy_import_total", (0x0001, 0x0000), {}, "655.36"),
    ("socomec-countis-e24", "active_power_total", (0xFFFF, 0xFFFF), {}, "-10"),
    ("socomec-countis-e24", "frequency", (0, 50012), {}, "50.012"),
    ("equysis-ultra-e-f", "heat_energy_total", (0x42C8, 0x0000), {}, "100"),
    ("equysis-ultra-e-f", "supply_temperature", f32(72.5), {}, "72.5"),
    ("equysis-ultra-e-f", "return_temperature", f32(41.25), {}, "41.25"),
    ("shelly-pro-3em", "active_energy_import_total", f32_low_first(1234.5), {}, "1.2345"),
    ("shelly-pro-3em", "active_power_total", f32_low_first(-250.5), {}, "-250.5"),
    ("shelly-pro-3em", "voltage_l2", f32_low_first(229.8), {}, "229.8"),
    ("sunspec-meter", "active_power_total", (0xFF9C,), {40092: (1,)}, "-1000"),
    ("sunspec-meter", "active_energy_import_total", (0x0001, 0), {40124: (0xFFFF,)}, "6.5536"),
    ("sunspec-meter", "active_energy_import_total", (0, 0), {40124: (0,)}, None),
    ("sunspec-meter", "voltage_l1", (0x8000,), {40085: (0xFFFF,)}, None),
]


@pytest.mark.parametrize(("name", "quantity", "words", "others", "meaning"), EXAMPLES)
def test_words_mean_what_the_document_says(
    name: str,
    quantity: str,
    words: tuple[int, ...],
    others: dict[int, tuple[int, ...]],
    meaning: str | None,
) -> None:
    register = next(r for r in LIBRARY.get(name).registers if r.name == quantity)
    blocks = [Block(register.function, register.address, words)]
    blocks += [Block(register.function, address, more) for address, more in others.items()]
    raw = RawWords(tuple(blocks))

    def lookup(wanted: Register) -> tuple[int, ...] | None:
        return raw.lookup(wanted)

    value = value_of(register, lookup)
    assert value == (NOT_AVAILABLE if meaning is None else Decimal(meaning))


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_each_profile_has_three_examples(name: str) -> None:
    assert sum(1 for example in EXAMPLES if example[0] == name) >= 3
