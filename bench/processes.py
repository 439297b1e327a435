"""Measuring whole processes: CPU, memory and wake-ups from /proc, in one run beside each other."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """What a process and its children had used at one moment."""

    cpu: float
    """Seconds of CPU."""
    rss: float
    """Megabytes resident."""
    switches: int
    """Context switches it made by itself: its wake-ups."""


def usage(pid: int) -> Usage:
    """Use so far of a process and all its threads; dead children are counted, live ones added."""
    pids = [pid, *_children(pid)]
    cpu = rss = 0.0
    switches = 0
    for one in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            stat = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            cpu += sum(int(stat[i]) for i in (11, 12, 13, 14)) / _TICK
            rss += int(stat[21]) * _PAGE / 1e6
            for task in Path(f"/proc/{one}/task").iterdir():
                status = (task / "status").read_text()
                switches += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return Usage(cpu, rss, switches)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_children(int(child))]
    return found


@contextlib.contextmanager
def running(command: Sequence[str], *, log: Path, **more: object) -> Iterator[subprocess.Popen]:
    """A process for as long as the block lasts; ended in order, by its pid."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(command), stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **more
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def over(pid: int, seconds: float) -> tuple[Usage, Usage]:
    """Use at the start and at the end of a window."""
    before = usage(pid)
    time.sleep(seconds)
    return before, usage(pid)


def median(values: Sequence[float]) -> float:
    """The middle of the rounds."""
    return statistics.median(values)


def own_environment(folder: Path, *packages: str) -> Path:
    """The python of a virtual environment with these packages, made once; peers live there."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder} for {', '.join(packages)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(install, check=True)
    return python
