from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.config import Library, UnknownProfile
from gateway.config.library import file_name
from gateway.errors import ConfigurationError, Mistake
from gateway.metering.inquiry import Inquiry
from gateway.metering.profile import Identity, Limits, SerialDefaults, SunSpec, TcpDefaults
from gateway.metering.register import Encoding

PROFILES = Path(__file__).parent / "profiles"

START = """\
maker: Acme
model: T
kind: electricity
sources: {manual: "a document"}
defaults: {function: 4, type: f32, sources: [manual]}
registers:
"""
REGISTER = "  - {quantity: active_energy_import_total, address: 0, unit: kWh}\n"


def library(own: Path = PROFILES) -> Library:
    return Library(own, shipped=own)


def wrong(tmp_path: Path, text: str, name: str = "tried") -> list[Mistake]:
    (tmp_path / f"{name}.yaml").write_text(text)
    try:
        library(tmp_path).get(name)
    except ConfigurationError as error:
        return list(error.mistakes)
    return []


def test_a_profile_becomes_registers_with_its_defaults() -> None:
    profile = library().get("acme-e1")
    assert (profile.name, profile.maker, profile.model) == ("acme-e1", "Acme", "E1")
    by_name = {register.name: register for register in profile.registers}
    voltage = by_name["voltage_l1"]
    assert (voltage.function, voltage.address, voltage.encoding) == (4, 0, Encoding("f32"))
    assert (voltage.scale, voltage.unit, voltage.sources) == (Decimal(1), "V", ("manual",))
    assert by_name["power_factor_total"].unit == ""
    assert by_name["active_power_total"].not_available == {0x7F800000, 0xFFC00000}
    export = by_name["active_energy_export_total"]
    assert (export.encoding.type, export.scale) == ("u32", Decimal("0.01"))
    assert export.not_available == {0xFFFFFFFF}
    assert profile.serial == SerialDefaults(19200, "even", 1, 1)
    assert profile.limits == Limits(max_registers=80, even=True, pause=60, answer_time=500)
    serial, model = profile.identity
    assert (serial.what, serial.told_by.address, serial.expected) == ("serial_number", 0xFC00, ())
    assert model.expected == ("137", "138")
    net = profile.computed[0]
    assert (net.quantity, net.unit) == ("active_energy_net_total", "kWh")
    assert [r.name for r in net.minus] == ["active_energy_export_total"]
    assert profile.sources == (("manual", "Acme E1 Modbus map, revision 3"),)


def test_every_feature_of_a_register_is_read() -> None:
    profile = library().get("acme-heat")
    heat, volume, power = profile.registers
    assert heat.unit_register is not None
    assert (heat.unit_register.address, heat.unit_register.encoding.type) == (9, "u16")
    assert heat.unit_factors == ((2, Decimal("0.001")), (3, Decimal(1)))
    assert heat.modulus == 100_000_000
    assert volume.encoding == Encoding("mod10k", "little", "big", 4)
    assert power.scale_register is not None
    assert power.scale_register.address == 21
    assert power.not_available == {0x8000}
    assert profile.limits.hole_ranges == ((0, 63),)
    assert profile.limits.whole_blocks == ((3, 64001, 27),)
    assert profile.limits.splits == ((3, 40), (3, 48))
    assert profile.sunspec == SunSpec((203,), 40070, (40000, 50000, 0))
    assert profile.identity == (
        Identity("model_name", Inquiry(43, 1), ("Heat 7", "Heat 7 C")),
        Identity("firmware_version", Inquiry(17)),
    )
    assert profile.identity_registers() == ()


def test_what_a_profile_extends_is_its_own_unless_it_says_otherwise() -> None:
    profile = library().get("acme-e1-pro")
    assert (profile.maker, profile.model, profile.kind) == ("Acme", "E1 Pro", "electricity")
    assert profile.serial == SerialDefaults(9600, "even", 1, 1)
    assert profile.limits.max_registers == 80
    names = [register.name for register in profile.registers]
    assert names == ["voltage_l1", "current_l1", "power_factor_total", "active_power_total"]
    voltage = profile.registers[0]
    assert (voltage.address, voltage.encoding.type, voltage.unit) == (256, "u16", "V")
    # A sum takes the place of the register of its name.
    assert [total.quantity for total in profile.computed] == ["active_energy_import_total"]
    assert [r.name for r in profile.needs("active_energy_import_total")] == [
        "import_integer",
        "import_decimal",
    ]
    assert [source for source, _ in profile.sources] == ["manual", "sheet"]
    assert profile.notes == library().get("acme-e1").notes


def test_a_profile_says_how_it_is_sold_set_and_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "tried.yaml").write_text(
        START + REGISTER + "aliases: [T-MID, Beta T]\ntcp: {port: 1502, unit: 255}\n"
        'left_out: {voltage_l1: "has none", serial_number: "not told"}\nsetup: ["Set it."]\n'
    )
    (tmp_path / "variant.yaml").write_text(
        'extends: tried\nmodel: T2\nleft_out: {frequency: "has none"}\nregisters:\n'
        "  - {quantity: voltage_l1, address: 4, unit: V}\n"
    )
    profile, variant = (library(tmp_path).get(name) for name in ("tried", "variant"))
    assert profile.aliases == ("T-MID", "Beta T")
    assert profile.tcp == TcpDefaults(1502, 255)
    assert profile.left_out == (("voltage_l1", "has none"), ("serial_number", "not told"))
    assert profile.why_not("voltage_l1") == "has none"
    assert profile.setup == ("Set it.",)
    # A variant is not sold as the other; what it has is not left out.
    assert variant.aliases == ()
    assert (variant.tcp, variant.setup) == (profile.tcp, profile.setup)
    assert variant.left_out == (("serial_number", "not told"), ("frequency", "has none"))


def test_who_asks_for_what_a_profile_leaves_out_is_told_why(
    mistakes: Callable[..., list[Mistake]], whole: str
) -> None:
    found = mistakes(whole.replace("active_energy_import_total", "power_factor_l1"))
    why = "has no power_factor_l1: folds four quadrants into one number"
    assert why in found[0].message


def test_how_sure_a_register_is_follows_from_its_sources(tmp_path: Path) -> None:
    rest = """\
  - {quantity: voltage_l1, address: 2, unit: V, sources: [manual, reader]}
  - {quantity: voltage_l2, address: 4, unit: V, sources: [manual], conflict: "the reader has 6"}
"""
    text = START.replace('"a document"', '"a document", reader: "a program"') + REGISTER + rest
    assert wrong(tmp_path, text) == []
    found = [register.confidence for register in library(tmp_path).get("tried").registers]
    assert found == ["one source", "two sources", "conflict"]


@pytest.mark.parametrize(
    ("register", "part", "suggestion"),
    [
        ("{quantity: active_enrgy_import_total, address: 0, unit: kWh}", "is not a quantity",
         'did you mean "active_energy_import_total"?'),
        ("{quantity: voltage_l1, address: 0, unit: kV}", 'is in V, not "kV"', None),
        ("{quantity: voltage_l1, address: 0, unit: A}", 'is in V, not "A"',
         "write unit: V and the scale for it"),
        ("{quantity: active_energy_export_total, address: 2, unit: Wh}", 'is in kWh, not "Wh"',
         "write unit: kWh and 0.001 times the scale"),
        ("{quantity: active_power_total, address: 2, unit: kW}", 'is in W, not "kW"',
         "write unit: W and 1000 times the scale"),
        ("{quantity: active_power, address: 2, unit: kW}", "is not a quantity",
         'did you mean "active_power_total"?'),
        ("{quantity: voltage_l1, address: 2, unit: V, type: uint64, not_available: 0xFFFFFFFFFF}",
         "is not one of", "write u64"),
        ("{quantity: voltage_l1, address: 2, unit: V, word_order: CDAB}", "is not one of",
         "write little"),
        ("{quantity: voltage_l1, address: 2, unit: V, word_order: BADC}", "is not one of",
         "write big, and byte_order: little"),
        ("{quantity: voltage_l1, address: 2, unit: V, type: mod10k, length: 8}", "unknown key",
         'did you mean "words"?'),
        ("{quantity: voltage_l1, address: 0}", '"unit" is missing', None),
        ("{quantity: power_factor_total, address: 0, unit: W}", "without a unit", None),
        ("{quantity: voltage_l1, unit: V}", '"address" is missing', None),
        ("{quantity: voltage_l1, address: 70000, unit: V}", "out of range", None),
        ("{quantity: voltage_l1, address: 65535, unit: V}", "would end above", None),
        ("{quantity: voltage_l1, address: 0, unit: V, type: u33}", "is not one of", None),
        ("{quantity: voltage_l1, address: 0, unit: V, type: string, words: 2}", "no number", None),
        ("{quantity: voltage_l1, address: 0, unit: V, type: mod10k}", '"words" is missing', None),
        ("{quantity: voltage_l1, address: 0, unit: V, words: 3}", "f32 takes 2", "remove it"),
        ("{quantity: voltage_l1, address: 0, unit: V, function: 5}", "out of range", None),
        ("{quantity: voltage_l1, address: 0, unit: V, scale: 0.1}", "has to be a text",
         'write "0.1"'),
        ('{quantity: voltage_l1, address: 0, unit: V, scale: "0"}', "every value 0", None),
        ('{quantity: voltage_l1, address: 0, unit: V, scale: "0,1"}', "not a number",
         'write "0.1"'),
        ("{quantity: voltage_l1, address: 0, unit: V, scale: 0,01}", '"0,01" is not a number',
         'write "0.01"'),
        ("{quantity: voltage_l1, address: 0, scale: -0,01, unit: V}", '"-0,01" is not a number',
         'write "-0.01"'),
        ("{quantity: voltage_l1, address: 0, scale: 1,000, unit: V}", "not a number",
         'write "1000" or "1.0": a comma has two readings'),
        ('{quantity: voltage_l1, address: 0, unit: V, scale: "1,000"}', "not a number",
         'write "1000" or "1.0": a comma has two readings'),
        ('{quantity: voltage_l1, address: 0, unit: V, scale: "200/5"}', "not a number",
         'write "40"'),
        ("{quantity: voltage_l1, address: 0, unit: V, note: 1,5}", "a comma ends the value",
         'write "1,5"'),
        ("{quantity: voltage_l1, address: 0, unit: V, type: int32}", "is not one of", "write s32"),
        ("{quantity: voltage_l1, address: 0, unit: V, type: UINT16}", "is not one of", "write u16"),
        ("{quantity: voltage_l1, address: 0, unit: V, type: uint64}", "is not one of", "write u64"),
        ("{quantity: voltage_l1, address: 0, unit: V, type: float}", "is not one of", "write f32"),
        ("{quantity: voltage_l1, address: 0, unit: V, type: Float-64}", "not one of", "write f64"),
        ("{quantity: voltage_l1, address: 0, unit: V, type: double}", "is not one of", "write f64"),
        ("{quantity: voltage_l1, address: 0, unit: V, type: real}", "is not one of", "write f32"),
        ("{quantity: voltage_l1, address: 0, unit: V, type: bcd}", "is not one of",
         "write bcd16 where it is one register, bcd32 where it is two"),
        ("{quantity: voltage_l1, address: 400074, unit: V}", "out of range",
         "write 73, or 74 where the document counts from 400000, with function: 3"),
        ("{quantity: voltage_l1, address: 1, unit: V}",
         "voltage_l1 at 1 to 2 and active_energy_import_total at 0 to 1 lie across one another,"
         " first on line 7", "compare address, type and words of both with the document"),
        ("{quantity: voltage_l1, address: 0, type: u16, unit: V}", "voltage_l1 at 0 and", None),
        ("{quantity: voltage_l1, address: 4, unit: V, scale_register: {address: 5, type: s16}}",
         "voltage_l1.scale_register at 5 and voltage_l1 at 4 to 5 lie across", None),
        ("{quantity: voltage_l1, address: 0, unit: V, sources: [manuel]}", "no source",
         'did you mean "manual"?'),
        ("{quantity: voltage_l1, address: 0, unit: V, sources: []}", '"sources" is missing', None),
        ("{quantity: voltage_l1, address: 0, unit: V, not_available: -1}", "out of range", None),
        ("{quantity: voltage_l1, address: 8, unit: V, type: u16, not_available: 65536}",
         "out of range", None),
        ("{quantity: voltage_l1, address: 8, unit: V, type: u16, not_available: nan}",
         "u16 has no nan", None),
        ("{quantity: voltage_l1, address: 0, unit: V, word_ordr: big}", "unknown key",
         'did you mean "word_order"?'),
        ("{quantity: voltage_l1, address: 0, unit: V, scale_register: {address: 1}}",
         '"type" is missing in scale_register', None),
        ("{quantity: voltage_l1, address: 0, unit: V, unit_register: {address: 9, type: u16}}",
         '"factors" is missing', None),
        ("{quantity: voltage_l1, address: 0, unit: V,"
         " unit_register: {address: 9, type: u16, factors: {a: \"1\"}}}", "whole number", None),
        ("{quantity: voltage_l1, address: 0, unit: V,"
         " unit_register: {address: 9, type: u16, factors: {}}}", "at least one", None),
        ("{name: x, address: 0, unit: V}", "unknown key", None),
        ("[voltage_l1]", "expected keys", None),
    ],
)  # fmt: skip
def test_a_mistake_in_a_register_is_reported_once_on_its_line(
    tmp_path: Path, register: str, part: str, suggestion: str | None
) -> None:
    found = wrong(tmp_path, f"{START}{REGISTER}  - {register}\n")
    shown = [m for m in found if '"quantity" is missing' not in m.message]
    assert [m.line for m in shown] == [8], found
    assert part in shown[0].message
    if suggestion is not None:
        assert shown[0].suggestion == suggestion


@pytest.mark.parametrize(
    ("rest", "line", "part"),
    [
        ("computed: [{quantity: active_energy_net_total, plus: [active_energy_import_totl]}]\n",
         8, "neither a register nor a part"),
        ("computed: [{quantity: voltage_l1, plus: [active_energy_import_total]}]\n", 8, "in kWh"),
        ("computed: [{quantity: active_energy_net_total, plus: []}]\n", 8, "at least one"),
        ("computed: [{quantity: active_energy_import_total, plus: [active_energy_import_total]}]\n",
         8, "stands twice"),
        ("parts: [{name: voltage_l1, address: 0, unit: V}]\n", 8, "name of a quantity"),
        ("parts: [{name: x, address: 0}]\n", 8, '"unit" is missing'),
        (REGISTER, 8, "stands twice"),
        ("requests: {max_registers: 126}\n", 8, "out of range"),
        ("requests: {hole_ranges: [[5, 1]]}\n", 8, "[first, last]"),
        ("requests: {whole_blocks: [[3, 1]]}\n", 8, "[function, first, count]"),
        ("requests: {splits: [[5, 1]]}\n", 8, "[function, address]"),
        ("requests: {max_registers: 1}\n", 7, "more than a request may have (1)"),
        ("requests: {holes: no}\n", 8, "neither true nor false"),
        ("requests: {pause: 60}\n", 8, "no unit"),
        ("serial: {parity: evn}\n", 8, "is not one of"),
        ("sunspec: {header: 40070}\n", 8, '"models" is missing'),
        ("without: [x]\n", 8, "nothing is extended"),
        ("extends: acme\n", 8, "no profile"),
        ("extends: ../tried\n", 8, "no profile"),
        ("extends: tried\n", 8, "no profile"),
        ("identity: [{what: model, address: 1, type: string}]\n", 8, '"words" is missing'),
        ("identity: [{what: model, address: 2, type: u16, expected: [abc]}]\n", 8, "whole number"),
        ("identity: [{what: model, address: 2, type: u16, expected: [70000]}]\n", 8,
         "70000 does not fit u16"),
        ("identity: [{what: model, address: 2, type: string, words: 2, expected: ABCDE}]\n", 8,
         "longer than two characters a register"),
        ("identity: [{what: model, address: 2, type: u16, expected: 341,342}]\n", 8,
         "several values are a list"),
        ("identity: [{what: model, address: 1, type: u16}]\n", 8, "lie across one another"),
        ("requests: {splits: [[4, 1]]}\n", 7, "no request may reach over 1"),
        ("identity: [{what: model, address: 2, type: u16, expected: [0]}]\n", 8, "mean no model"),
        ("identity: [{what: model, object: 1, expected: '00'}]\n", 8, "mean no model"),
        ("identity: [{what: model, object: 256}]\n", 8, "out of range: it has to be 0 to 255"),
        ("identity: [{what: model, object: 1, address: 1}]\n", 8, "address: an object has none"),
        ("identity: [{what: model, object: 1, function: 3}]\n", 8, "function: an object has none"),
        ("identity: [{what: model, function: 17, type: u16}]\n", 8, "type: function 17 has none"),
        ("identity: [{what: model, function: 17, object: 1}]\n", 8, "function: an object has none"),
        ("identity: [{what: model, function: 43}]\n", 8, '"object" is missing'),
        ("identity: [{what: model, function: 5, address: 1}]\n", 8, "out of range"),
        ("identity: [{what: model, object: 1, sources: [x]}]\n", 8, "no source"),
        ("identity: [{what: model, object: 1, expected: [1.5, [a]]}]\n", 8, "expected"),
        ("identity: [{object: 1}]\n", 8, '"what" is missing'),
        ("notes: text\n", 8, "expected a list"),
        ("setup: text\n", 8, "expected a list"),
        ("aliases: {a: b}\n", 8, "expected a list"),
        ("tcp: {port: 0}\n", 8, "out of range"),
        ("tcp: {host: a}\n", 8, "unknown key"),
        ("left_out: [voltage_l1]\n", 8, "expected keys"),
        ("left_out: {active_energy_import_total: x}\n", 8, "is in this profile"),
        ("maker: B\n", 8, "stands twice"),
        ("colour: red\n", 8, "unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_elsewhere_in_a_profile_is_reported_once_on_its_line(
    tmp_path: Path, rest: str, line: int, part: str
) -> None:
    found = wrong(tmp_path, START + REGISTER + rest)
    assert [m.line for m in found] == [line], found
    assert part in found[0].message


def test_registers_that_are_not_read_may_lie_across_others(tmp_path: Path) -> None:
    """Two of one place, of another function, and parts that an own register takes the place of."""
    rest = """\
  - {quantity: voltage_l1, address: 0, type: u32, unit: V}
  - {quantity: voltage_l2, address: 1, function: 3, unit: V}
"""
    assert wrong(tmp_path, START + REGISTER + rest) == []
    (tmp_path / "mine.yaml").write_text(
        "extends: acme-e1-pro\nregisters:\n"
        "  - {quantity: active_energy_import_total, function: 4, address: 0x11, unit: kWh}\n"
    )
    assert Library(tmp_path, shipped=PROFILES).get("mine").computed == ()


def test_a_register_across_an_inherited_one_is_told_which(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(START + REGISTER)
    text = "extends: base\nregisters:\n  - {quantity: voltage_l1, address: 1, unit: V, %s}\n"
    found = wrong(tmp_path, text % "function: 4, type: f32, sources: [manual]")
    assert [(m.line, m.column) for m in found] == [(3, 37)]
    assert "lie across one another" in found[0].message
    assert found[0].suggestion.endswith(
        "without: [active_energy_import_total] leaves out what is extended"
    )


def test_an_address_that_is_a_document_s_number_is_warned_of_once(tmp_path: Path) -> None:
    def warned(rest: str, more: str = "") -> list[tuple[int, str, str]]:
        path = tmp_path / "tried.yaml"
        path.write_text(START + REGISTER + rest + more)
        found = library(tmp_path).check(path).warnings
        return [(each.line, each.message, each.suggestion) for each in found]

    input_, holding = (
        f"  - {{quantity: voltage_l{i}, address: {address}, unit: V, function: {function}}}\n"
        for i, address, function in ((1, 30102, 4), (2, 40073, 3))
    )
    assert warned(input_ + holding) == [
        (8, "address: 30102, and 1 more, looks like the document's number of an input register",
         "write 101, or 102 where the document counts from 30000; if it is the address: 0x7596")
    ]  # fmt: skip
    assert warned(holding)[0][2].startswith("write 72, or 73 where the document counts from 40000;")
    assert "with function: 3" in warned(holding.replace("function: 3", "function: 4"))[0][2]
    # What is hexadecimal, or an address of function 3 below 40000, is hardly such a number.
    assert warned(holding.replace("40073", "0x9C89")) == []
    assert warned(input_.replace("function: 4", "function: 3")) == []
    assert warned(holding, "sunspec: {models: [203], header: 40070}\n") == []


def test_a_baud_rate_that_is_not_usual_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "tried.yaml"
    path.write_text(START + REGISTER + "serial: {baudrate: 9601}\n")
    (found,) = library(tmp_path).check(path).warnings
    assert (found.line, found.column, found.suggestion) == (8, 20, 'did you mean "9600"?')
    path.write_text(START + REGISTER + "serial: {baudrate: 9600}\n")
    assert library(tmp_path).check(path).warnings == ()


@pytest.mark.parametrize(
    ("sound", "mistake"),
    [("function: 4", "function: 04"), ("f32", "float"), ("[manual]", "[manul]")],
)
def test_a_mistake_in_the_defaults_is_not_one_of_each_register(
    tmp_path: Path, sound: str, mistake: str
) -> None:
    identity = "identity: [{what: model, address: 2}]\n"
    found = wrong(tmp_path, (START + REGISTER + identity).replace(sound, mistake))
    assert [m.line for m in found] == [5], found


def test_what_a_profile_has_to_say_is_missed_once(tmp_path: Path) -> None:
    found = [m.message for m in wrong(tmp_path, "notes: []\n")]
    assert found == [
        f'"{key}" is missing in the profile' for key in ("sources", "maker", "model", "kind")
    ]
    assert wrong(tmp_path, START.replace("registers:\n", ""))[0].message.startswith(
        '"registers" is missing'
    )


def test_a_register_takes_the_place_of_an_inherited_sum(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "extends: acme-e1-pro\nregisters:\n"
        "  - {quantity: active_energy_import_total, address: 0x48, unit: kWh}\n"
    )
    profile = Library(tmp_path, shipped=PROFILES).get("mine")
    assert profile.computed == ()
    assert [r.address for r in profile.needs("active_energy_import_total")] == [0x48]


def test_profiles_that_extend_one_another_in_a_ring_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\n")
    found = wrong(tmp_path, "extends: a\n", "b")
    assert ["a → b" in m.message or "b → a" in m.message for m in found] == [True]


def test_leaving_out_what_a_sum_needs_is_said(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text((PROFILES / "acme-e1.yaml").read_text())
    found = wrong(tmp_path, "extends: base\nwithout: [active_energy_export_total]\n")
    assert [(m.line, m.suggestion) for m in found] == [(2, "leave active_energy_net_total out too")]


def test_one_s_own_profile_wins_and_may_extend_the_shipped_one_of_its_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "acme-e1.yaml").write_text("extends: acme-e1\nmodel: mended\n")
    found = Library(tmp_path, shipped=PROFILES)
    assert (found.get("acme-e1").model, found.get("acme-e1").maker) == ("mended", "Acme")
    assert found.names() == ("acme-e1", "acme-e1-pro", "acme-heat")


@pytest.mark.parametrize("name", ["../secret", "/etc/x", "", "A", "a/b", "a b", "x" * 65, "a\n"])
def test_a_name_never_leaves_the_folders(tmp_path: Path, name: str) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "secret.yaml").write_text(START + REGISTER)
    with pytest.raises(KeyError):
        library(tmp_path / "own").get(name)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "secret.yaml").write_text(START + REGISTER)
    (tmp_path / "own" / "linked.yaml").symlink_to(tmp_path / "secret.yaml")
    with pytest.raises(KeyError):
        library(tmp_path / "own").get("linked")


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(KeyError) as caught:
        library().get("acme-e1-por")
    assert getattr(caught.value, "suggestion", "") == 'did you mean "acme-e1-pro"?'


def test_an_unknown_name_suggests_all_that_have_it(tmp_path: Path) -> None:
    def suggested(name: str) -> str:
        with pytest.raises(UnknownProfile) as caught:
            library(tmp_path).get(name)
        return caught.value.suggestion

    for i in range(3):
        (tmp_path / f"acme-em24-{i}.yaml").touch()
    assert suggested("EM 24") == 'did you mean "acme-em24-0", "acme-em24-1" or "acme-em24-2"?'
    assert suggested("em24-1") == 'did you mean "acme-em24-1"?'
    assert suggested("x") == ""
    for i in range(3, 9):
        (tmp_path / f"acme-em24-{i}.yaml").touch()
    assert suggested("em24") == "9 names have it: `meter-gateway profiles list em24`"


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("acme-e1.yaml", "acme-e1.yaml"),
        ("My Meter.yaml", "my-meter.yaml"),
        ("acme.yml", "acme.yaml"),
        ("acme.yaml.txt", "acme.yaml"),
        ("x.txt", "x.yaml"),
        ("x", "x.yaml"),
        ("Måler Ærø.YAML", "maler-aero.yaml"),
        ("電.yaml", "my-meter.yaml"),
        ("a" * 70 + ".yaml", "a" * 64 + ".yaml"),
    ],
)
def test_a_file_that_can_be_no_profile_has_a_name_to_take(
    tmp_path: Path, name: str, right: str
) -> None:
    assert file_name(Path(name)) == right
    (tmp_path / right).touch()
    assert library(tmp_path).names() == (right.removesuffix(".yaml"),)


def test_who_asks_for_a_misnamed_profile_is_told_what_to_call_it(tmp_path: Path) -> None:
    for name in ("My Meter.yaml", "README.txt", "._acme.yaml", "acme.yaml~"):
        (tmp_path / name).touch()
    own = Library(tmp_path)
    assert own.misnamed() == ((tmp_path / "My Meter.yaml", "my-meter.yaml"),)
    for name in ("My Meter", "my-meter", "My Meter.yaml"):
        with pytest.raises(UnknownProfile) as caught:
            own.get(name)
        assert caught.value.suggestion == (
            'rename "My Meter.yaml" to my-meter.yaml, and write my-meter'
        )


def test_only_the_profile_that_is_asked_for_is_read(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "sound.yaml").write_text(START + REGISTER)
    assert library(tmp_path).get("sound").model == "T"
    assert [profile.name for profile in library(tmp_path).sound()] == ["sound"]
    with pytest.raises(ConfigurationError):
        library(tmp_path).all()


def test_every_shipped_profile_can_be_read() -> None:
    for profile in Library().all():
        assert profile.quantities(), profile.name
        for quantity in profile.quantities():
            assert profile.needs(quantity)
