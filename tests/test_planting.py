"""The mistakes of tests/proofs/test_planted.py can still be planted: what was changed is noticed
here, and not only when that proof runs."""

from __future__ import annotations

import ast

import pytest

from tests.proofs.test_planted import PLANTS, ROOT, Plant


@pytest.mark.parametrize("plant", PLANTS, ids=[plant.name for plant in PLANTS])
def test_its_text_stands_once_in_the_program_and_its_tests_are_there(plant: Plant) -> None:
    for file, right, wrong in plant.edits:
        text = (ROOT / file).read_text()
        assert text.count(right) == 1, f"{file} has changed: {right}"
        ast.parse(text.replace(right, wrong))
    for test in plant.tests:
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / file).read_text(), test
