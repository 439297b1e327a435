"""Mistakes people make, one a folder: what they wrote, and what they are told.

A case is tests/cases/mistakes/NN-name/ with gateway.yaml and expected.txt, which is what is
printed. FOLDER stands for where the configuration lies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.cli.output import render
from gateway.config import load
from gateway.errors import ConfigurationError

CASES = sorted((Path(__file__).parents[1] / "cases" / "mistakes").iterdir())
PROFILES = Path(__file__).parent / "profiles"


def prepare(folder: Path) -> None:
    """Tokens, of which one can be read by everyone, a port and the profiles."""
    for name, mode in (("basement", 0o600), ("other", 0o600), ("open", 0o644)):
        path = folder / f"{name}.token"
        path.write_text(f"{name}-token\n")
        path.chmod(mode)
    (folder / "riser.port").touch()
    (folder / "profiles").symlink_to(PROFILES)


def told(folder: Path, text: str) -> tuple[str, int]:
    """What is printed, and how many mistakes that are."""
    (folder / "gateway.yaml").write_text(text, encoding="utf-8")
    try:
        load(folder / "gateway.yaml", environment={})
    except ConfigurationError as error:
        count = sum(mistake.level == "error" for mistake in error.mistakes)
        shown = click.unstyle(render(error.mistakes))
        return shown.replace(f"{folder}/gateway.yaml", "gateway.yaml").replace(
            str(folder), "FOLDER"
        ), count
    return "", 0


def test_there_are_enough_cases_to_speak_of() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_is_told_once_on_its_line_with_a_suggestion(case: Path, tmp_path: Path) -> None:
    prepare(tmp_path)
    shown, count = told(tmp_path, (case / "gateway.yaml").read_text("utf-8"))
    assert shown + "\n" == (case / "expected.txt").read_text("utf-8")
    assert count == 1


def test_all_mistakes_are_told_at_once(tmp_path: Path, whole: str) -> None:
    prepare(tmp_path)
    text = whole.replace("Europe/Oslo", "Europe/Olso").replace("unit: 1\n", "unit: 300\n")
    text = text.replace("as: mean", "as: men").replace("basement.token", "none.token")
    shown, count = told(tmp_path, text)
    assert count == 4
    lines = [int(line.split(":")[1]) for line in shown.splitlines() if ": error: " in line]
    assert lines == sorted(lines)


MUTATIONS = st.sampled_from(["delete", "double", "swap", "insert", "replace"])
BITS = st.sampled_from(
    ["", "'", '"', "{", "}", "[", "]", ": ", "- ", "#", "&a ", "*a", "!x ", "\t", "\n", "  ",
     "0x", "-1", "1e9", "null", "~", "no", "10", "10 s", "<<: ", "|\n", ">", "%", "@", "\x00",
     "é", "\u2028", "\ud7ff", "true", "[[]]", "{}", "---\n", "? "]
)  # fmt: skip


@settings(
    derandomize=True,
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(MUTATIONS, BITS, st.integers(0, 10_000), st.integers(1, 40))
def test_no_change_of_a_sound_configuration_makes_the_reader_crash(
    loaded: Callable[..., object], whole: str, mutation: str, bit: str, place: int, width: int
) -> None:
    at = place % len(whole)
    part = whole[at : at + width]
    changed = {
        "delete": whole[:at] + whole[at + width :],
        "double": whole[:at] + part + part + whole[at + width :],
        "swap": whole[:at] + part[::-1] + whole[at + width :],
        "insert": whole[:at] + bit + whole[at:],
        "replace": whole[:at] + bit + whole[at + width :],
    }[mutation]
    try:
        loaded(changed)
    except ConfigurationError as refused:
        found = refused.mistakes
    else:
        return
    assert any(mistake.level == "error" for mistake in found)
    assert all(1 <= mistake.line <= changed.count("\n") + 2 for mistake in found)
    assert "\x00" not in render(found)


@settings(
    derandomize=True,
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_no_change_of_a_value_makes_the_reader_crash(
    loaded: Callable[..., object], whole: str, data: st.DataObject
) -> None:
    lines = whole.splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    key, colon, _ = lines[number].partition(": ")
    scalars = BITS | st.text(max_size=20).map(repr) | st.integers().map(str)
    lines[number] = key + (colon or ": ") + data.draw(scalars)
    with contextlib.suppress(ConfigurationError):
        loaded("\n".join(lines) + "\n")
