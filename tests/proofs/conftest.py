"""The report card: what each proof measured, at the end of a run and in a page of the docs."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAD = """\
# Report card

What each proof measured in the last whole run of `make prove`, which writes this page. What the
proofs are for stands in [what is promised](promises.md).

"""
CUT = "**This run was cut short** (`SHORT=1`): a whole one has more trials of each.\n\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--card", metavar="FILE", help="write the report card there")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest comes first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name != "test_years.py")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Every proof with its figures, which is what it printed."""
    stats = terminalreporter.stats
    ended = [r for key in ("passed", "failed") for r in stats.get(key, ()) if r.when == "call"]
    terminalreporter.section("report card")
    for report in ended:
        terminalreporter.line(f"{report.outcome:<6} {report.duration:6.0f} s  {report.nodeid}")
        for line in report.capstdout.splitlines():
            terminalreporter.line(f"                 {line}")
    if file := terminalreporter.config.getoption("--card"):
        short = terminalreporter.config.getoption("--short")
        Path(file).write_text("".join(page(ended, short=short)))


def page(ended: Iterable[pytest.TestReport], *, short: bool) -> Iterator[str]:
    """The page of the docs."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "describe", "--always", "--dirty=+", "--exclude=*"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    cores, machine = os.cpu_count(), platform.machine()
    yield HEAD + CUT * short
    yield f"{datetime.now(UTC):%F %H:%M} UTC, commit {commit or 'unknown'}, {cores} cores of"
    yield f" {machine}, Python {platform.python_version()}.\n\n"
    yield "| Proof | Came to | Took |\n|---|---|---|\n"
    for report in sorted(ended, key=lambda report: report.nodeid):
        file, _, name = report.nodeid.partition("::")
        words = name.removeprefix("test_").replace("_", " ")
        lines = [line.strip() for line in report.capstdout.splitlines() if line.strip()]
        came_to = "<br>".join(lines).replace("|", "\\|")
        if report.failed:
            came_to = f"**failed** {came_to}"
        link = f"[`{Path(file).name}`](../{file})"
        yield f"| {words} {link} | {came_to} | {report.duration:.0f} s |\n"
