"""The JSON Schemas that editors use say the same as the readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from gateway.config import Library, Loaded, identity, keys, profile, registers, traits
from gateway.errors import ConfigurationError, Mistake
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import AS
from gateway.metering.register import TYPES

SCHEMAS = Path(profile.__file__).parent / "schemas"
SAMPLES = Path(__file__).parent / "profiles"


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    return found


def accepts(name: str, text: str) -> bool:
    data = YAML(typ="safe", pure=True).load(text)
    # As JSON has it, every key is a text.
    return Draft7Validator(schema(name)).is_valid(json.loads(json.dumps(data)))


@pytest.mark.parametrize("name", ["gateway", "profile"])
def test_the_schema_is_one(name: str) -> None:
    Draft7Validator.check_schema(schema(name))


def test_the_schema_of_the_configuration_has_every_key_that_is_read_and_no_other() -> None:
    found = schema("gateway")
    parts = found["definitions"]
    assert set(found["properties"]) == set(keys.ROOT)
    for key, known in (
        ("defaults", keys.DEFAULTS),
        ("buffer", keys.BUFFER),
        ("clock", keys.CLOCK),
        ("log", keys.LOG),
    ):
        assert set(found["properties"][key]["properties"]) == set(known)
    assert set(parts["energinet"]["properties"]) == set(keys.ENERGINET)
    assert set(parts["energinet"]["properties"]["proxy"]["properties"]) == set(keys.PROXY)
    sender = parts["energinet"]["properties"]["senders"]["items"]
    assert set(sender["properties"]) == set(keys.SENDER)
    assert set(parts["serialBus"]["properties"]) == {*keys.SERIAL, *keys.BUS}
    assert set(parts["tcpBus"]["properties"]) == {*keys.TCP, *keys.BUS}
    assert set(parts["tcpBus"]["properties"]["tls"]["properties"]) == set(keys.TLS)
    assert set(parts["meter"]["properties"]) == set(keys.METER)
    entry = parts["meter"]["properties"]["send"]["items"]
    assert set(entry["properties"]) == set(keys.SEND)
    assert set(entry["properties"]["quantity"]["enum"]) == set(QUANTITIES)
    assert tuple(entry["properties"]["as"]["enum"]) == AS


def test_the_schema_of_profiles_has_every_key_that_is_read_and_no_other() -> None:
    found = schema("profile")["properties"]
    assert set(found) == set(profile.KEYS)
    assert set(found["serial"]["properties"]) == set(traits.SERIAL)
    assert set(found["tcp"]["properties"]) == set(traits.TCP)
    assert set(found["requests"]["properties"]) == set(traits.REQUESTS)
    assert set(found["sunspec"]["properties"]) == set(traits.SUNSPEC)
    assert set(found["defaults"]["properties"]) == set(registers.DEFAULTS)
    assert set(found["identity"]["items"]["properties"]) == set(identity.IDENTITY)
    assert set(found["parts"]["items"]["properties"]) == set(registers.PART)
    assert set(found["computed"]["items"]["properties"]) == set(profile.COMPUTED)
    register = found["registers"]["items"]["properties"]
    assert set(register) == set(registers.REGISTER)
    assert set(register["scale_register"]["properties"]) == set(registers.SCALE_REGISTER)
    assert set(register["unit_register"]["properties"]) == set(registers.UNIT_REGISTER)
    assert set(register["quantity"]["enum"]) == set(QUANTITIES)
    assert set(register["type"]["enum"]) == set(TYPES)


def test_a_sound_configuration_is_accepted_by_both(
    loaded: Callable[..., Loaded], whole: str
) -> None:
    assert loaded(whole).config
    assert accepts("gateway", whole)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"7777777777"', "7777777777"),
        ('"7777777777"', "0077"),
        ('"7777777777"', "no"),
        ('"7777777777"', '"null"'),
        ("name: main-supply", "name: 12"),
        ("name: main-supply", 'name: "Ola’s hus (søndre)"'),
        ("unit: 1\n", "unit: 0x0A\n"),
        ("unit: 1\n", "unit: 1\n    serial_number: 00123\n"),
        ("unit: 1\n", "unit: 1\n    multiplier: 1e3\n    max_power: 1.5MW\n"),
        ("unit: 1\n", "unit: 1\n    import: north-gate\n"),
        ("every: 1 h", 'every: "1h"\n  gap: spread'),
        ("serial: riser.port", "serial: riser.port\n    poll: 1.5 s\n    echo: true"),
        ("tcp: 192.168.10.20:502", 'tcp: "[::1]:1502"'),
        ("tcp: 192.168.10.20:502", "tcp: meter_1.local"),
        ("energinet:\n", "energinet:\n  url: http://localhost:8080/x\n  request_interval: 5 s\n"),
        ("energinet:\n", 'energinet:\n  proxy: {url: "http://proxy:3128"}\n'),
        ("token: {file: basement.token}", "token: {credential: x}"),
        ("timezone: Europe/Oslo", "timezone: UTC"),
        ("defaults:\n", "log: {}\nbuffer: {path: x.db, keep: 10 d, max_size: 100 MB}\ndefaults:\n"),
    ],
)  # fmt: skip
def test_what_has_the_form_of_a_configuration_is_accepted_by_both(
    mistakes: Callable[..., list[Mistake]], whole: str, old: str, new: str
) -> None:
    assert old in whole
    text = whole.replace(old, new, 1)
    assert mistakes(text) == []
    assert accepts("gateway", text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("timezone:", "timezon:"),
        ("name: main-supply", "name: “main supply”"),
        ('"7777777777"', "„7777777777“"),
        ('"7777777777"', '" 7777777777"'),
        ('"7777777777"', "null"),
        ("timezone: Europe/Oslo\n", ""),
        ("every: 1 h", "every: 1"),
        ("every: 1 h", "every: 1 hour"),
        ("as: consumption", "as: sum"),
        ("    serial: riser.port\n", ""),
        ("    serial: riser.port\n", "    serial: riser.port\n    tcp: a:502\n"),
        ("    serial: riser.port\n", "    serial: riser.port\n    disconnect: never\n"),
        ("    serial: riser.port\n", "    serial: riser.port\n    parity: evn\n"),
        ("    serial: riser.port\n", "    serial: riser.port\n    echo: yes\n"),
        ("    serial: riser.port\n", "    serial: riser.port\n    stopbits: 3\n"),
        ("    tcp: 192.168.10.20:502\n", "    tcp: tcp://192.168.10.20:502\n"),
        ("    tcp: 192.168.10.20:502\n", "    tcp: 192.168.10.20:502\n    tls: {certificate: x}\n"),
        ("unit: 1\n", "unit: 1.9\n"),
        ("unit: 1\n", "unit: true\n"),
        ("unit: 1\n", "unit: 256\n"),
        ('unit: 1\n', 'unit: "1"\n'),
        ("unit: 1\n", "unit: 1\n    multiplier: 0\n"),
        ("unit: 1\n", "unit: 1\n    max_power: 100\n"),
        ("unit: 1\n", "unit: 1\n    sender: basement\n    import: north-gate\n"),
        ("    profile: acme-e1\n", ""),
        ("token: {file: basement.token}", "token: abc"),
        ("token: {file: basement.token}", "token: {file: a, env: b}"),
        ("token: {file: basement.token}", "token: {files: a}"),
        ("quantity: active_power_total", "quantity: active_power"),
        ('meterID: "7777777778", ', ""),
        ("energinet:\n", "energinet:\n  url: ftp://x\n"),
        ("energinet:\n", "energinet:\n  proxy: {}\n"),
        ("energinet:\n", "energinet:\n  max_payload: 500\n"),
        ("defaults:\n", "log: {level: verbose}\ndefaults:\n"),
        ("defaults:\n", "buffer: {max_size: 1}\ndefaults:\n"),
        ("defaults:\n", "clock: {assume_synchronised: 1}\ndefaults:\n"),
    ],
)  # fmt: skip
def test_what_has_not_the_form_of_a_configuration_is_refused_by_both(
    mistakes: Callable[..., list[Mistake]], whole: str, old: str, new: str
) -> None:
    assert old in whole
    text = whole.replace(old, new, 1)
    assert mistakes(text)
    assert not accepts("gateway", text)


def shipped_and_own() -> list[Path]:
    shipped = SCHEMAS.parents[2] / "device_profiles"
    return sorted([*SAMPLES.glob("*.yaml"), *shipped.glob("*.yaml")])


@pytest.mark.parametrize("path", shipped_and_own(), ids=lambda path: path.stem)
def test_a_sound_profile_is_accepted_by_both(path: Path) -> None:
    assert Library(path.parent).get(path.stem).registers
    assert accepts("profile", path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("maker: Acme\n", ""),
        ("kind: electricity", "kind: solar"),
        ("kind: electricity", "kind: electricity\ncolour: red"),
        ('sources:\n  manual: "Acme E1 Modbus map, revision 3"\n', ""),
        ("baudrate: 19200", "baudrate: fast"),
        ("pause: 60 ms", "pause: 60"),
        ("max_registers: 80", "max_registers: 126"),
        ("even: true", "even: yes"),
        ("address: 0x0000", "address: 65536"),
        ("address: 0x0000, ", ""),
        ("unit: A", "unit: mA"),
        ("function: 4", "function: 5"),
        ("type: f32", "type: float"),
        ("word_order: big", "word_order: middle"),
        ('scale: "0.01"', "scale: 0.01"),
        ('scale: "0.01"', 'scale: "1/100"'),
        ("quantity: voltage_l1", "quantity: voltage"),
        ("not_available: 0xFFFFFFFF", "not_available: none"),
        ("plus: [active_energy_import_total]", "plus: []"),
        ("notes: [", "notes: x\nwithout: ["),
        ("maker: Acme\n", "maker: Acme\naliases: E1-MID\n"),
        ('{power_factor_l1: "folds four quadrants into one number"}', "[power_factor_l1]"),
        ("maker: Acme\n", "maker: Acme\nsetup: {a: b}\n"),
        ("maker: Acme\n", "maker: Acme\ntcp: {port: 70000}\n"),
        ("function: 3, address: 0xFC00, type: u32", "object: 256"),
        ("function: 3, address: 0xFC00, type: u32", "object: 1, function: 3"),
        ("function: 3, address: 0xFC00, type: u32", "object: 1, address: 0xFC00"),
        ("function: 3, address: 0xFC00, type: u32", "object: 1, type: u32"),
        ("function: 3, address: 0xFC00, type: u32", "function: 17, address: 0xFC00"),
        ("function: 3, address: 0xFC00, type: u32", "function: 17, word_order: big"),
        ("function: 3, address: 0xFC00, type: u32", "function: 17, object: 1"),
        ("function: 3, address: 0xFC00, type: u32", 'function: "17"'),
        ("function: 3, address: 0xFC00, type: u32", "function: 43"),
        ("function: 3, address: 0xFC00, type: u32", "function: 18, address: 0xFC00"),
        ("maker: Acme\n", "maker: Acme\nsunspec: {header: 1}\n"),
        ("maker: Acme\n", "maker: Acme\nextends: ../x\n"),
    ],
)
def test_what_has_not_the_form_of_a_profile_is_refused_by_both(
    tmp_path: Path, old: str, new: str
) -> None:
    text = (SAMPLES / "acme-e1.yaml").read_text("utf-8")
    assert old in text
    changed = text.replace(old, new, 1)
    (tmp_path / "tried.yaml").write_text(changed)
    with pytest.raises(ConfigurationError):
        Library(tmp_path).get("tried")
    assert not accepts("profile", changed)
