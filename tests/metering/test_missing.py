"""Every reason for which a value may be missing is explained, and no other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from gateway.metering.missing import REASONS, explained
from gateway.modbus.frames import Seen

GATEWAY = Path(__file__).parents[2] / "gateway"
ROOMS = (
    "errors.py",
    "rounds.py",
    "commits.py",
    "app.py",
    "plant.py",
    "buffer/appending.py",
    "modbus/reader.py",
    "modbus/poller.py",
    "modbus/identity.py",
    *(f"metering/{path.name}" for path in (GATEWAY / "metering").glob("*.py")),
)
GIVES = {"_gap", "Gap", "Found", "fail", "missing", "_plant", "Plant"}
"""Calls that are given a reason; so is what is called `reason`, `why` or `refusal`."""
NAMES = {"reason", "why", "_reason", "refusal", "NO_TIME", "REPEATED"}
NOT_OURS = {"error", "zero", "drop", "jump", "asked to", "a person", "signal", "memory"}
"""Of errors, held counters and endings: `reason` in a log line."""


def texts(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value:
            yield part.value


def given(room: str) -> Iterator[str]:
    """The texts that stand where a reason does."""
    for node in ast.walk(ast.parse((GATEWAY / room).read_text())):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            for part in node.args if called in GIVES else ():
                if isinstance(part, ast.Constant):
                    yield from texts(part)
            for word in node.keywords if called in GIVES else ():
                yield from texts(word) if word.arg == "before" else ()
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {getattr(one, "attr", getattr(one, "id", "")) for one in targets}
            if names & NAMES and isinstance(node.value, ast.Constant):
                yield from texts(node.value)
        elif isinstance(node, ast.arguments):
            named = zip(node.args[::-1], node.defaults[::-1], strict=False)
            for arg, default in named:
                yield from texts(default) if arg.arg == "before" else ()
        elif isinstance(node, ast.FunctionDef) and node.name == "refusal":
            for part in ast.walk(node):
                if isinstance(part, ast.Return) and part.value is not None:
                    yield from texts(part.value)


def test_every_reason_in_the_program_is_explained_and_every_explained_one_is_in_it() -> None:
    found = {text for room in ROOMS for text in given(room)} - NOT_OURS
    found |= set(get_args(Seen)) - {"nothing", "echo"}
    by_number = {name for name in REASONS if name.startswith("exception_")}
    assert found - REASONS.keys() == set()
    assert REASONS.keys() - found - by_number == set()


def test_an_exception_that_no_document_names_is_told_by_its_number() -> None:
    assert "exception_131" in explained("exception_131").meaning
    assert explained("exception_2") is REASONS["exception_2"]
