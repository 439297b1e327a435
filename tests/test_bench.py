"""The benches: all are there and listed, the instrument keeps time, figures land in the table."""

from __future__ import annotations

import importlib
import json
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from bench import run, wire
from bench.figures import OURS, Figure, Goal, Measure, Missing
from bench.processes import compiled, output

BENCH = Path(run.__file__).parent


@pytest.mark.parametrize("name", run.BENCHES)
def test_a_bench_imports_and_says_how_to_repeat_it(name: str) -> None:
    module = importlib.import_module(f"bench.{name}")
    assert callable(module.measure)
    assert f"python -m bench.{name}" in module.__doc__


def test_every_module_that_measures_is_listed_and_explained() -> None:
    modules = BENCH.glob("*.py")
    measuring = {path.stem for path in modules if "\ndef measure(" in path.read_text()}
    assert measuring == set(run.BENCHES)
    explained = run.README.read_text().partition(run.END)[2]
    assert all(f"`{name}`" in explained for name in run.BENCHES)


def test_the_table_in_the_readme_is_that_of_the_results_kept() -> None:
    results = json.loads(run.RESULTS.read_text())
    assert run.table(results) in run.README.read_text()


def test_a_bench_that_misses_a_package_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measure(*, short: bool) -> list[Measure]:
        raise Missing("mosquitto is missing: apt-get install mosquitto")

    monkeypatch.setattr("bench.fleet.measure", measure)
    result = run.run("fleet", short=True)
    assert result["measures"] == []
    assert "left out: mosquitto is missing: apt-get install mosquitto" in run.table(
        {"fleet": result | {"note": ""}}
    )


def test_a_missing_figure_is_no_number_and_meets_nothing() -> None:
    measure = Measure("time", Figure(OURS, missing="no uvloop"), goal=Goal(5))
    assert measure.met is None
    assert measure.shown(measure.ours) == "not measured: no uvloop"


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (Goal(1.01), 1.01, True),
        (Goal(1.01), 1.02, False),
        (Goal(99.9, at_least=True), 99.95, True),
        (Goal(99.9, at_least=True), 99.8, False),
    ],
)
def test_a_goal_is_judged_by_the_median(goal: Goal, value: float, met: bool) -> None:
    assert Measure("x", Figure(OURS, (0.0, value, 1e6)), goal=goal).met is met


def test_figures_of_one_run_leave_those_of_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{run.BEGIN}\nold\n{run.END}\nafter\n")
    monkeypatch.setattr(run, "README", readme)
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr("sys.argv", ["bench.run", "plans", "--note", "nothing else"])
    assert run.main() == 0
    kept = json.loads((tmp_path / "results.json").read_text())
    kept["wire"] = kept["plans"] | {"measures": [], "missing": "libmodbus is missing"}
    (tmp_path / "results.json").write_text(json.dumps(kept))
    assert run.main() == 0
    run.write(json.loads((tmp_path / "results.json").read_text()))
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "left out: libmodbus is missing" in text
    assert "nothing else" in text


def test_planned_reads_take_the_least_time_for_every_shipped_profile() -> None:
    (measure,) = importlib.import_module("bench.plans").measure()
    assert measure.met


def test_the_line_is_no_quicker_than_the_wire_and_tells_who_is_early(
    tmp_path: Path, debian: Callable[[str, str], None]
) -> None:
    debian("gcc", "gcc libc6-dev")
    debian("pkg-config", "pkg-config")
    debian("/usr/include/modbus/modbus.h", "libmodbus-dev")
    line = compiled("line", tmp_path, "libmodbus")
    reads = compiled("reads", tmp_path, "libmodbus")
    silence = wire.silence(19200)
    for slept in (0, round(silence * 1e6)):
        with wire.paced_line(line, 19200, tmp_path) as (path, told):
            output([str(reads), "rtu", path, "19200", "8", str(slept)])
            seen = wire.requests(told)
        took = statistics.median(b.at - a.at for a, b in pairwise(seen))
        assert took >= wire.least(19200) - silence * (not slept)
        assert all(request.silence >= silence for request in seen) or not slept
