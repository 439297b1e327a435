"""Every YAML block in the documentation is read by the reader it is meant for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from gateway.cli.main import COMMANDS
from gateway.config import Library, identity, keys, load, profile, registers, traits
from gateway.metering.register import TYPES

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("deploy/**/*.md")])
BLOCK = re.compile(r"^( *)```ya?ml\n(.*?)^\1```", re.MULTILINE | re.DOTALL)

BASE = {
    "timezone": "timezone: Europe/Oslo\n",
    "energinet": "energinet:\n  senders: [{name: basement, token: {file: basement.token}}]\n",
    "defaults": "defaults: {every: 1 h, as: consumption}\n",
    "buses": "buses:\n  riser: {serial: riser.port}\n  plant-room: {tcp: 192.0.2.1:502}\n",
    "meters": "meters: []\n",
}


def blocks() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in BLOCK.finditer(text):
            line = text[: match.start()].count("\n") + 1
            found.append((f"{page.relative_to(ROOT)}:{line}", match[2]))
    return found


def completed(block: str) -> str:
    """A part of a configuration, with a plain rest around it."""
    given = set(YAML(typ="safe", pure=True).load(block))
    return block + "\n" + "".join(text for key, text in BASE.items() if key not in given)


@pytest.mark.parametrize(("place", "block"), blocks(), ids=[place for place, _ in blocks()])
def test_a_block_of_the_documentation_is_sound(place: str, block: str, tmp_path: Path) -> None:
    if re.search(r"^(maker|extends):", block, re.MULTILINE):
        path = tmp_path / "documented.yaml"
        path.write_text(block, "utf-8")
        assert Library().check(path).quantities(), place
        return
    (tmp_path / "profiles").mkdir()
    (tmp_path / "gateway.yaml").write_text(completed(block), "utf-8")
    assert load(tmp_path / "gateway.yaml", environment={}, tokens=False), place


def test_the_page_of_the_configuration_names_every_key() -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text("utf-8")
    known = {*keys.BELONGS, *keys.DEFAULTS, *keys.TLS, *keys.PROXY}
    assert [key for key in sorted(known) if not re.search(rf"\b{key}\b", page)] == []


def test_the_page_of_profiles_names_every_key_and_type() -> None:
    page = (ROOT / "docs/reference/profiles.md").read_text("utf-8")
    known = {*profile.KEYS, *traits.REQUESTS, *traits.SERIAL, *traits.SUNSPEC, *profile.COMPUTED}
    known |= {*registers.REGISTER, *identity.IDENTITY, *registers.UNIT_REGISTER, *TYPES}
    assert [key for key in sorted(known) if not re.search(rf"\b{key}\b", page)] == []


def test_the_page_of_commands_names_every_command_and_no_other() -> None:
    page = (ROOT / "docs/reference/commands.md").read_text("utf-8")
    named = {match[1] for match in re.finditer(r"^\| `(\w+)", page, re.MULTILINE)}
    assert named == set(COMMANDS)


def test_the_schemas_accept_what_is_documented() -> None:

    folder = Path(profile.__file__).parent / "schemas"
    for place, block in blocks():
        is_profile = re.search(r"^(maker|extends):", block, re.MULTILINE)
        name, text = ("profile", block) if is_profile else ("gateway", completed(block))
        schema = json.loads((folder / f"{name}.schema.json").read_text("utf-8"))
        data = json.loads(json.dumps(YAML(typ="safe", pure=True).load(text)))
        errors = [error.message for error in Draft7Validator(schema).iter_errors(data)]
        assert errors == [], place
