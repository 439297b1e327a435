"""The suite is itself tested: ten mistakes planted in a copy of the program, each has to be found.

Each is planted by exact text that stands once in its file. The tests that have to find it pass in
the same copy before, and fail after.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest
from attrs import frozen

ROOT = Path(__file__).parents[2]

UPLOADER = "gateway/energinet/uploader.py"
ANSWER = "gateway/energinet/answer.py"
VALUES = "gateway/metering/values.py"
STORE = "gateway/buffer/store.py"


@frozen
class Plant:
    """A mistake: (file, the text that is right, what is put in its place), and who finds it."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]


PLANTS: Final = (
    Plant(
        "synchronous=NORMAL",
        (
            (
                "gateway/buffer/schema.py",
                "PRAGMA synchronous = {'FULL' if mode == 'wal' else 'EXTRA'}",
                "PRAGMA synchronous = NORMAL",
            ),
        ),
        ("tests/buffer/test_syncing.py",),
    ),
    Plant(
        "confirm before the answer",
        (
            (
                UPLOADER,
                "        answer, response, reason = await self._post(batch, token, until)\n",
                "        taken = [\n"
                "            Settlement(key, 'confirmed', tuple(value.id for value in values))\n"
                "            for key, values in batch.values.items()\n"
                "        ]\n"
                "        await self._outbox.settle(self.sender.name, taken, state.pack())\n"
                "        answer, response, reason = await self._post(batch, token, until)\n",
            ),
        ),
        (
            "tests/energinet/test_uploader.py"
            "::test_an_answer_that_confirms_nothing_keeps_everything_for_the_next_slot",
        ),
    ),
    Plant(
        "slot kept in memory only",
        (
            (
                STORE,
                "        self._change(Change(self._index), slot=(sender, state))\n",
                "        pass\n",
            ),
            (STORE, "sender, settlements), slot=(sender, slot))", "sender, settlements))"),
        ),
        (
            "tests/energinet/test_slot.py::test_the_slot_is_on_disk_before_the_request_leaves",
            "tests/energinet/test_slot.py"
            "::test_a_kill_between_slot_and_answer_makes_the_next_process_wait_both",
        ),
    ),
    Plant(
        "a missing entry taken as accepted",
        (
            (
                ANSWER,
                "            verdicts[meter_id] = missing\n",
                '            verdicts[meter_id] = Verdict("confirmed", 200, number)\n',
            ),
        ),
        ("tests/energinet/test_answer.py::test_an_entry_confirms_only_what_it_says",),
    ),
    Plant(
        "the count ignored",
        ((ANSWER, "elif count != number:", "elif False:"),),
        ("tests/energinet/test_answer.py::test_an_entry_confirms_only_what_it_says",),
    ),
    Plant(
        "a late answer accepted",
        (
            (
                "gateway/modbus/health.py",
                "LATEST_ANSWER: Final = 30.0",
                "LATEST_ANSWER: Final = 0.0",
            ),
        ),
        ("tests/modbus/test_reader.py::test_a_late_answer_is_never_taken_for_another_s",),
    ),
    Plant(
        "local time stored",
        (
            (
                VALUES,
                "import (\n    count_boundaries,",
                "import (\n    _offset,\n    count_boundaries,",
            ),
            (
                VALUES,
                "return self.due if self._stamp_is_end else self.done\n",
                "at = self.due if self._stamp_is_end else self.done\n"
                "        return at + _offset(at, self._zone)\n",
            ),
        ),
        (
            "tests/metering/test_meter.py"
            "::test_days_of_a_site_in_oslo_are_stamped_at_local_midnight",
        ),
    ),
    Plant(
        "giving up after an hour",
        (
            (
                UPLOADER,
                "        while not self._stopping.is_set():\n            try:\n",
                "        while not self._stopping.is_set() and self._state.failures < 6:\n"
                "            try:\n",
            ),
        ),
        (
            "tests/energinet/test_uploader.py"
            "::test_a_dead_api_for_a_day_is_asked_less_and_less_and_said_once",
        ),
    ),
    Plant(
        "a dropped reading not counted",
        (
            (
                "gateway/buffer/pruning.py",
                'if unsettled(state) or state[0] == "p":',
                "if False:",
            ),
        ),
        (
            "tests/buffer/test_store.py"
            "::test_within_max_size_confirmed_readings_go_first_and_every_drop_is_counted",
        ),
    ),
    Plant(
        "a zero accepted as a counter",
        (
            (
                "gateway/metering/counter.py",
                '    if value < known.value:\n        return "drop" if value else "zero"\n',
                '    if value < known.value:\n        return "drop" if value else ""\n',
            ),
        ),
        ("tests/metering/test_counter.py::test_a_single_bad_read_is_held_and_forgotten",),
    ),
)


class Copy:
    """The program and its tests in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("gateway", "device_profiles", "tests"):
            leave = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=leave)
        shutil.copy(ROOT / "pyproject.toml", folder)

    def write(self, plant: Plant) -> Callable[[], None]:
        """Plant it; the answer takes it out again."""
        files = {file: (self._folder / file).read_text() for file, _, _ in plant.edits}
        after = dict(files)
        for file, right, wrong in plant.edits:
            assert after[file].count(right) == 1, f"{file} does not have once: {right}"
            after[file] = after[file].replace(right, wrong)
        for file, text in after.items():
            (self._folder / file).write_text(text)

        def undo() -> None:
            for file, text in files.items():
                (self._folder / file).write_text(text)

        return undo

    def test(self, tests: Sequence[str]) -> tuple[int, str]:
        """pytest's exit code and what it said."""
        command = [
            sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
            "--override-ini", "addopts=--import-mode=importlib --strict-markers", *tests,
        ]  # fmt: skip
        ended = subprocess.run(
            command, cwd=self._folder, capture_output=True, text=True, check=False, timeout=600,
            env={**os.environ, "PYTHONPATH": str(self._folder)},
        )  # fmt: skip
        return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.timeout(1800)
def test_the_suite_finds_each_of_the_ten_planted_mistakes(
    tmp_path: Path, debian: Callable[[str, str], None]
) -> None:
    debian("strace", "strace")
    copy = Copy(tmp_path / "copy")
    every = dict.fromkeys(test for plant in PLANTS for test in plant.tests)
    code, said = copy.test(list(every))
    assert code == 0, said
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    print(f"\n{passed[1]} tests pass before anything is planted")
    found = 0
    for plant in PLANTS:
        undo = copy.write(plant)
        began = time.monotonic()
        code, said = copy.test(plant.tests)
        undo()
        # 1: a test failed. That it cannot even be imported would be another code.
        by = re.search(r"^FAILED \S+::(\w+)", said, re.MULTILINE)
        found += code == 1 and by is not None
        seconds = f"{time.monotonic() - began:.1f} s"
        print(f"  {plant.name:<34} {seconds:>6}  {by[1] if by else 'NOT FOUND'}")
        assert code in (0, 1), said
    print(f"{found} of {len(PLANTS)}")
    assert found == len(PLANTS) == 10
