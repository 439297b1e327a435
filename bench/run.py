"""Runs the benches and writes their figures into bench/README.md, goals beside them.

    python -m bench.run [NAME …] [--short] [--json] [--note TEXT]

Without names all of them, about 25 minutes. A bench that cannot run here says what it needs and
stands in the table with that reason. Figures of the benches not named stay as they were, with
their date. `--short`: a look that everything works; nothing is written.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.figures import Figure, Goal, Measure, Missing, lines
from bench.processes import HERE

BENCHES = (
    "wire",
    "dead_unit",
    "half_dead",
    "plans",
    "tcp_cpu",
    "fleet",
    "store_bytes",
    "body_fill",
    "start_up",
)
RESULTS = HERE / "results.json"
README = HERE / "README.md"
BEGIN, END = "<!-- results: written by bench.run -->", "<!-- end of results -->"


def machine() -> str:
    """What this runs on, in a line."""
    model = "a processor without a name"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            model = line.partition(":")[2].strip()
            break
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1e6
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("pymodbus", "httpx"))
    return (
        f"{os.cpu_count()} × {model}, {memory:.0f} GB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {versions}"
    )


def commit() -> str:
    """The commit that is measured, with a + where files differ from it; empty outside git."""
    asked = ["git", "describe", "--always", "--dirty=+", "--abbrev=7", "--exclude=*"]
    done = subprocess.run(asked, cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def run(name: str, *, short: bool) -> dict[str, Any]:
    """One bench: its measures, or why it is left out."""
    before, began = os.getloadavg()[0], time.monotonic()
    measures: list[Measure] = []
    missing = ""
    try:
        measures = importlib.import_module(f"bench.{name}").measure(short=short)
    except Missing as reason:
        missing = str(reason)
    except OSError as error:
        missing = f"it failed: {error}"
    return {
        "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        "commit": commit(),
        "machine": machine(),
        "load": [round(before, 1), round(os.getloadavg()[0], 1)],
        "seconds": round(time.monotonic() - began),
        "missing": missing,
        "measures": [asdict(measure) for measure in measures],
    }


def measures_of(result: dict[str, Any]) -> list[Measure]:
    """The measures of a bench as they were kept."""
    return [
        Measure(
            **{
                **kept,
                "ours": figure(kept["ours"]),
                "beside": tuple(map(figure, kept["beside"])),
                "goal": kept["goal"] and Goal(**kept["goal"]),
            }
        )
        for kept in result["measures"]
    ]


def figure(kept: dict[str, Any]) -> Figure:
    """A figure as it was kept."""
    return Figure(kept["who"], tuple(kept["rounds"]), kept["missing"])


def table(results: dict[str, dict[str, Any]]) -> str:
    """All figures, as the README shows them."""
    rows = [
        "| | Goal | meter-gateway | Met | Beside it, in the same run | Bench |",
        "|---|---|---|---|---|---|",
    ]
    for name in BENCHES:
        result = results.get(name)
        if result is None:
            rows.append(f"| `{name}` | | not run | | | `{name}` |")
            continue
        if result["missing"]:
            rows.append(f"| `{name}` | | left out: {cell(result['missing'])} | | | `{name}` |")
        for measure in measures_of(result):
            goal = ""
            if measure.goal is not None:
                sign = "≥" if measure.goal.at_least else "≤"
                goal = f"{sign} {measure.text(measure.goal.limit)}"
            met = {True: "yes", False: "**no**", None: ""}[measure.met]
            beside = "; ".join(f"{f.who} {measure.shown(f)}" for f in measure.beside)
            shown = f"**{measure.shown(measure.ours)}**"
            what = measure.what + (f" ({measure.note})" if measure.note else "")
            rows.append(f"| {cell(what)} | {goal} | {shown} | {met} | {cell(beside)} | `{name}` |")
    rows += ["", "| Bench | Run at (UTC) | Commit | Load before and after, what else ran | Took |"]
    rows.append("|---|---|---|---|---|")
    for name in BENCHES:
        if result := results.get(name):
            load = " and ".join(map(str, result["load"]))
            note = f"; {cell(result['note'])}" if result.get("note") else ""
            run_at = f"`{name}` | {result['at']} | {result['commit']}"
            rows.append(f"| {run_at} | {load}{note} | {result['seconds']} s |")
    machines = sorted({result["machine"] for result in results.values()})
    rows += ["", *(f"Machine: {one}." for one in machines)]
    return "\n".join(rows)


def cell(text: str) -> str:
    """A text that fits a cell of a table."""
    return " ".join(text.split()).replace("|", "/")


def write(results: dict[str, dict[str, Any]]) -> None:
    """Put the table in the place of the one before."""
    text = README.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    README.write_text(f"{head}{BEGIN}\n\n{table(results)}\n\n{END}{tail}")


def main() -> int:
    """Run them; 1 where one failed, which a missing package is not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--short", action="store_true", help="quick, and nothing is written")
    parser.add_argument("--json", action="store_true", help="figures to standard output")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in BENCHES]:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    done = {}
    for name in asked.names or BENCHES:
        print(f"{name} …", file=sys.stderr, flush=True)
        result = done[name] = run(name, short=asked.short) | {"note": asked.note}
        said = result["missing"] and f"left out: {result['missing']}"
        print(said or lines(measures_of(result)), f"{result['seconds']} s", sep="\n",
              file=sys.stderr, flush=True)  # fmt: skip
        if not asked.short:
            results[name] = result
            RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
            write(results)
    if asked.json:
        print(json.dumps(done, indent=1, ensure_ascii=False))
    return any(result["missing"].startswith("it failed") for result in done.values())


if __name__ == "__main__":
    sys.exit(main())
