from __future__ import annotations

import json
from pathlib import Path

from gateway.cli.main import run
from gateway.config import Library


def out(capsys) -> str:  # type: ignore[no-untyped-def]
    return str(capsys.readouterr().out)


def test_profiles_are_listed_with_maker_model_and_kind(capsys, site: Path) -> None:  # type: ignore[no-untyped-def]
    assert run(["profiles", "list", "--json", "--config", str(site)]) == 0
    found = {profile["name"]: profile for profile in json.loads(out(capsys))}
    assert found["acme-e1"] == {
        "name": "acme-e1",
        "maker": "Acme",
        "model": "E1",
        "kind": "electricity",
    }
    assert set(Library().names()) <= set(found)
    assert run(["profiles", "list", "--config", str(site)]) == 0
    lines = out(capsys).splitlines()
    assert len(lines) == len(found) + 1
    assert lines[0].split() == ["NAME", "MAKER", "MODEL", "KIND"]


def test_shipped_profiles_are_listed_without_a_configuration(capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delenv("METER_GATEWAY_CONFIG", raising=False)
    assert run(["profiles", "list", "--json"]) == 0
    assert [p["name"] for p in json.loads(out(capsys))] == list(Library().names())


def listed(capsys, *arguments: str) -> list[str]:  # type: ignore[no-untyped-def]
    assert run(["profiles", "list", *arguments, "--json"]) == 0
    return [profile["name"] for profile in json.loads(out(capsys))]


def test_profiles_are_found_by_words_maker_kind_and_identity(capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delenv("METER_GATEWAY_CONFIG", raising=False)
    assert listed(capsys, "em340") == ["carlo-gavazzi-em340"]
    assert listed(capsys, "KEM-C") == ["carlo-gavazzi-em340"]  # by what else stands on its label
    assert listed(capsys, "--identity", "341") == ["carlo-gavazzi-em340"]
    assert listed(capsys, "--identity", "iem3155") == ["schneider-iem3155"]
    assert set(listed(capsys, "--maker", "siemens", "pac")) >= {"siemens-pac2200"}
    kinds = {kind: set(listed(capsys, "--kind", kind)) for kind in ("electricity", "heat")}
    assert "equysis-ultra-e-f" in kinds["heat"]
    assert not kinds["heat"] & kinds["electricity"]
    assert listed(capsys, "em340", "siemens") == []
    assert set(listed(capsys, "heat")) >= kinds["heat"]  # and what has it in its name
    assert listed(capsys, "gas") == listed(capsys, "--kind", "gas") != []
    assert listed(capsys, "341", "gavazzi") == ["carlo-gavazzi-em340"]
    assert listed(capsys, "iEM3155") == ["schneider-iem3155"]


def test_where_no_profile_fits_it_is_said_what_to_try(capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delenv("METER_GATEWAY_CONFIG", raising=False)
    assert run(["profiles", "list", "no such meter"]) == 1
    assert "no profile fits" in capsys.readouterr().err


def test_a_file_whose_name_is_no_name_of_a_profile_is_told_where_it_matters(  # type: ignore[no-untyped-def]
    capsys, site: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    file = own / "My Meter.yaml"
    file.write_text("extends: eastron-sdm630\nmodel: mine\n")
    site.write_text(site.read_text().partition("profiles: ")[0] + f"profiles: {own}\n")
    for arguments in (["list", "sdm630"], ["check", str(file)]):
        assert run(["profiles", *arguments, "--config", str(site)]) == 0
        assert "rename it to my-meter.yaml" in capsys.readouterr().err
    assert run(["profiles", "show", "My Meter", "--config", str(site)]) == 1
    assert 'rename "My Meter.yaml" to my-meter.yaml' in capsys.readouterr().err
    file.rename(own / "my-meter.yaml")
    assert run(["profiles", "list", "mine", "--config", str(site)]) == 0
    assert capsys.readouterr().err == ""


def test_a_sound_profile_is_tried_though_another_of_the_folder_is_not(  # type: ignore[no-untyped-def]
    capsys, site: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "broken.yaml").write_text("a: [")
    (own / "mine.yaml").write_text("extends: eastron-sdm630\nmodel: mine\n")
    site.write_text(site.read_text().partition("profiles: ")[0] + f"profiles: {own}\n")
    assert run(["profiles", "check", str(own / "mine.yaml"), "--config", str(site)]) == 0
    assert "is sound" in out(capsys)


def test_after_a_mistake_the_same_check_is_what_to_run_again(  # type: ignore[no-untyped-def]
    capsys, monkeypatch, tmp_path: Path
) -> None:
    def refused(file: str) -> str:
        assert run(["profiles", "check", file]) == 78
        return str(capsys.readouterr().err)

    monkeypatch.delenv("METER_GATEWAY_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("my meter.yaml").write_text("maker: [")
    shown = refused("my meter.yaml")
    assert "1 mistake in the profile" in shown
    assert "run `meter-gateway profiles check 'my meter.yaml'` again" in shown
    missing = refused("none.yaml")
    assert "the file does not exist" in missing
    assert "try: name the file of a profile" in missing
    assert "--config" not in missing
    assert "try: `meter-gateway profiles show eastron-sdm630`" in refused("eastron-sdm630")


def test_what_to_look_at_is_shown_beside_a_sound_profile(  # type: ignore[no-untyped-def]
    capsys, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("METER_GATEWAY_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("extends: eastron-sdm630\nserial: {baudrate: 9601}\n")
    assert run(["profiles", "check", "mine.yaml"]) == 0
    shown = capsys.readouterr()
    assert "mine.yaml:2:20: warning: baudrate: 9601 is not a usual rate" in shown.err
    assert "mine.yaml is sound" in shown.out


def test_a_sound_profile_is_tried_on_a_simulated_meter(capsys, site: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    own = tmp_path / "acme-x1.yaml"
    own.write_text("""\
maker: Acme
model: X1
kind: electricity
sources: {manual: "a document"}
serial: {baudrate: 19200}
defaults: {function: 4, type: u32, sources: [manual]}
identity:
  - {what: model_name, function: 3, address: 10, type: string, words: 4, expected: [ACME-X1]}
  - {what: serial_number, function: 3, address: 20, type: u16}
registers:
  - {quantity: active_energy_import_total, address: 0, scale: "0.01", unit: kWh}
  - {quantity: voltage_l1, address: 2, type: u16, scale: "0.1", unit: V}
""")
    assert run(["profiles", "check", str(own), "--config", str(site)]) == 0
    shown = out(capsys)
    assert "at 19200 baud in 1 request, " in shown
    (volts,) = (line for line in shown.splitlines() if "voltage_l1" in line)
    _, value, unit, words = volts.split()
    assert unit == "V"
    assert int(words.strip("()"), 16) == round(float(value) * 10)
    assert "a scan knows such a meter by its model_name ACME-X1" in shown


def test_a_profile_that_cannot_be_simulated_is_not_called_sound(  # type: ignore[no-untyped-def]
    capsys, site: Path, tmp_path: Path
) -> None:
    own = tmp_path / "acme-x2.yaml"
    own.write_text(f"""\
maker: Acme
model: X2
kind: electricity
sources: {{manual: "a document"}}
defaults: {{function: 4, type: u32, sources: [manual]}}
identity: [{{what: model_name, object: 1, expected: [{"X" * 300}]}}]
registers:
  - {{quantity: active_energy_import_total, address: 0, scale: "0.01", unit: kWh}}
""")
    assert run(["profiles", "check", str(own), "--config", str(site)]) == 1
    shown = capsys.readouterr()
    assert "cannot be simulated: XXX" in shown.err
    assert shown.out == ""


def test_registers_that_lie_across_one_another_are_a_mistake_of_the_file(  # type: ignore[no-untyped-def]
    capsys, site: Path, tmp_path: Path
) -> None:
    own = tmp_path / "acme-x3.yaml"
    own.write_text("""\
maker: Acme
model: X3
kind: electricity
sources: {manual: "a document"}
defaults: {function: 4, type: u32, sources: [manual]}
registers:
  - {quantity: active_power_total, address: 52, type: s32, unit: W}
  - {quantity: active_energy_import_total, address: 53, unit: kWh}
""")
    assert run(["profiles", "check", str(own), "--config", str(site)]) == 78
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "acme-x3.yaml:8:53: error: address: " in shown.err
    assert "   7 |   - {quantity: active_power_total" in shown.err


def test_a_profile_is_shown_with_what_it_extends_resolved(capsys, site: Path) -> None:  # type: ignore[no-untyped-def]
    assert run(["profiles", "show", "acme-e1-pro", "--json", "--config", str(site)]) == 0
    found = json.loads(out(capsys))
    assert [found[key] for key in ("name", "maker", "model", "kind")] == [
        "acme-e1-pro",
        "Acme",
        "E1 Pro",
        "electricity",
    ]
    registers = {register["quantity"]: register for register in found["registers"]}
    voltage = registers["voltage_l1"]
    assert {key: voltage[key] for key in ("function", "address", "type", "word_order")} == {
        "function": 4,
        "address": 256,
        "type": "u16",
        "word_order": "big",
    }
    assert (voltage["scale"], voltage["unit"]) == ("0.1", "V")
    assert registers["active_power_total"]["scale"] == "1"
    total = found["computed"][0]
    assert (total["quantity"], total["unit"]) == ("active_energy_import_total", "kWh")
    assert [(term["name"], term["scale"]) for term in total["plus"]] == [
        ("import_integer", "1"),
        ("import_decimal", "0.001"),
    ]


def test_registers_beside_a_value_are_shown_with_it(capsys, site: Path) -> None:  # type: ignore[no-untyped-def]
    assert run(["profiles", "show", "acme-heat", "--json", "--config", str(site)]) == 0
    heat, volume, power = json.loads(out(capsys))["registers"]
    assert heat["unit_register"]["factors"] == {"2": "0.001", "3": "1"}
    assert heat["modulus"] == "100000000"
    assert (volume["type"], volume["words"], volume["word_order"]) == ("mod10k", 4, "little")
    assert power["scale_register"]["address"] == 21
    assert power["not_available"] == [0x8000]


def test_a_page_for_people_names_every_quantity_and_source(capsys, site: Path) -> None:  # type: ignore[no-untyped-def]
    assert run(["profiles", "show", "acme-e1", "--config", str(site)]) == 0
    page = out(capsys)
    for word in ("voltage_l1", "serial_number", "19200 baud", "Acme E1 Modbus map", "137, 138"):
        assert word in page
    assert "active_energy_import_total - active_energy_export_total" in page


def test_an_unknown_profile_suggests_the_nearest(capsys, site: Path) -> None:  # type: ignore[no-untyped-def]
    assert run(["profiles", "show", "acme-e1-por", "--config", str(site)]) == 1
    assert 'did you mean "acme-e1-pro"?' in capsys.readouterr().err


def test_a_profile_file_is_checked_and_every_mistake_explained(  # type: ignore[no-untyped-def]
    capsys, site: Path, tmp_path: Path
) -> None:
    sound = Path(__file__).parents[1] / "config" / "profiles" / "acme-heat.yaml"
    assert run(["profiles", "check", str(sound), "--config", str(site)]) == 0
    assert "Acme Heat 7, 3 quantities" in out(capsys)
    broken = tmp_path / "broken.yaml"
    broken.write_text(
        sound.read_text()
        .replace("unit: kWh", "unit: MWh")
        .replace("type: s16, unit", "type: s17, unit")
    )
    assert run(["profiles", "check", str(broken), "--config", str(site)]) == 78
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [
        line.partition(": error: ")[0].rpartition("/")[2]
        for line in shown.err.splitlines()
        if ": error: " in line
    ] == ["broken.yaml:10:11", "broken.yaml:14:50"]
    assert run(["profiles", "check", str(tmp_path / "none.yaml"), "--config", str(site)]) == 78


def test_a_profile_that_extends_a_shipped_one_can_be_checked_anywhere(  # type: ignore[no-untyped-def]
    capsys, site: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: acme-e1\nmodel: mine\n")
    assert run(["profiles", "check", str(mine), "--config", str(site)]) == 0
    assert "Acme mine" in out(capsys)
