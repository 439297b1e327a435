"""The shipped profiles, and what was gathered about each: facts/NAME.jsonl, one object a line.

A *fact* is what a source says of a register: `quantity` (or a part, or what an identity tells),
`sources`, `function`, `address`, `type`, `word_order`, `scale` to the quantity's unit. Where the
profile does otherwise, `differs` says why. An *example* has `words` instead, those of `others` by
address, the `value` they mean (null: not available), and where it is `from`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeAlias

from gateway.config.library import SHIPPED, Library

Line: TypeAlias = dict[str, Any]

FACTS = Path(__file__).parent / "facts"
LIBRARY = Library()
PROFILES = LIBRARY.all()
BY_NAME = {profile.name: profile for profile in PROFILES}
FILES = {path.stem: path.read_text("utf-8") for path in sorted(SHIPPED.glob("*.yaml"))}
LINES: dict[str, list[Line]] = {
    path.stem: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for path in sorted(FACTS.glob("*.jsonl"))
}


def family(name: str) -> list[str]:
    """A profile and those that it extends."""
    found = re.search(r"^extends: *(\S+)", FILES[name], re.MULTILINE)
    return [name, *family(found[1])] if found else [name]


def facts(name: str) -> list[Line]:
    """What sources say of a model; of what it extends where nothing is said of it itself."""
    found: list[Line] = []
    for each in family(name):
        said = {line["quantity"] for line in found}
        found += [line for line in LINES.get(each, []) if line["quantity"] not in said]
    return [line for line in found if "value" not in line]


def examples(name: str) -> list[Line]:
    """Words and what they mean, its own and those of what it extends."""
    every = [line for each in family(name) for line in LINES.get(each, [])]
    return [line for line in every if "value" in line]


def agreeing(name: str) -> list[Line]:
    """The facts that the profile goes by."""
    return [line for line in facts(name) if "differs" not in line]
