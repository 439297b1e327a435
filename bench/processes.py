"""Measuring whole processes: CPU, memory and wake-ups from /proc, in one run beside each other."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Missing

HERE = Path(__file__).parent
PEERS = HERE / ".peers"

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


def as_installed() -> dict[str, str]:
    """The environment of a program whose modules were compiled when it was installed."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(PEERS / "compiled")}


def over(pid: int, seconds: float) -> tuple[Usage, Usage]:
    """Use at the start and at the end of a window."""
    before = usage(pid)
    time.sleep(seconds)
    return before, usage(pid)


def need(what: str, package: str) -> str:
    """Where a command is, or Missing with the Debian package that brings it."""
    found = shutil.which(what, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"{what} is missing: apt-get install {package}")
    return found


def compiled(name: str, folder: Path, *libraries: str) -> Path:
    """A program of ours in C beside this file, built into a folder."""
    gcc = need("gcc", "gcc libc6-dev")
    flags = ["-lutil", "-lpthread"]
    if libraries:
        asked = [need("pkg-config", "pkg-config"), "--cflags", "--libs", *libraries]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        if answer.returncode:
            packages = " ".join(f"{library}-dev" for library in libraries)
            raise Missing(f"{' '.join(libraries)} is missing: apt-get install {packages}")
        flags = [*answer.stdout.split(), *flags]
    binary = folder / name
    subprocess.run([gcc, "-O2", "-o", str(binary), str(HERE / f"{name}.c"), *flags], check=True)
    return binary


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody uses."""
    for first in range(21000, 31000, 700):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise OSError(f"no {count} free ports in a row")


@contextlib.contextmanager
def tcp_meters(first: int, count: int, folder: Path) -> Iterator[Callable[[], int]]:
    """Modbus TCP meters from that port on, all in one process in C (meters.c).

    Gives what tells how many requests they have answered.
    """
    binary, log = compiled("meters", folder), folder / "meters.log"

    def answered() -> int:
        before = log.read_text()
        process.send_signal(signal.SIGUSR1)
        while (told := log.read_text()) == before or not told.endswith("\n"):
            time.sleep(0.01)
        return int(told.split()[-1])

    with running([str(binary), str(first), str(count)], log=log) as process:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", first + count - 1)) == 0:
                    break
            time.sleep(0.05)
        else:
            raise OSError(f"nobody listens on port {first + count - 1}")
        yield answered


def own_environment(name: str, *packages: str, python: str = sys.executable) -> Path:
    """The python of a virtual environment below bench/.peers with these packages, made once.

    Raises Missing where they cannot be had.
    """
    folder = PEERS / name
    ours, made = folder / "bin" / "python", folder / "made-for"
    if made.exists() and made.read_text().split() == list(packages):
        return ours
    print(f"making {folder} for {', '.join(packages)}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [python, "-m", "venv", str(folder)],
        [str(ours), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise Missing(f"pip install {' '.join(packages)} failed: {last[:120]}")
    made.write_text("\n".join(packages))
    return ours


def newer_python(least: tuple[int, int]) -> str:
    """A Python of at least this version on the machine; Missing where there is none."""
    found = [sys.executable, *(shutil.which(f"python3.{minor}") or "" for minor in range(11, 20))]
    found += map(str, sorted(Path.home().glob(".pyenv/versions/3.*/bin/python")))
    asking = f"import sys; sys.exit(sys.version_info < {least})"
    for python in filter(None, found):
        if subprocess.run([python, "-c", asking], capture_output=True, check=False).returncode == 0:
            return python
    raise Missing(f"it needs Python {least[0]}.{least[1]}")


def packages_of(python: Path) -> str:
    """Where that environment keeps its packages, to be put on PYTHONPATH."""
    return str(next((python.parent.parent / "lib").glob("python3*/site-packages")))


def output(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> str:
    """Standard output of a command that has to succeed, run where `bench` can be imported."""
    done = subprocess.run(
        list(command), capture_output=True, text=True, check=False, cwd=HERE.parent,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    if done.returncode:
        raise OSError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-400:]}")
    return done.stdout
