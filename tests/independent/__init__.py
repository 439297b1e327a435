"""Meters served by libmodbus, an implementation that is not ours, on a wire and on TCP."""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path

HERE = Path(__file__).parent


def build(folder: Path) -> Path:
    """Compile the meter; needs gcc and Debian's libmodbus-dev."""
    binary = folder / "meter"
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libmodbus"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    subprocess.run(["gcc", "-O2", "-o", str(binary), str(HERE / "meter.c"), *flags], check=True)
    return binary


@contextmanager
def served(binary: Path, *arguments: str) -> Iterator[None]:
    """A meter process for as long as the block lasts."""
    with subprocess.Popen([str(binary), *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


STEP_MS = {"sdm630": 10, "b23": 10, "em24": 100}
STEP_KWH = {"sdm630": Decimal("0.01"), "b23": Decimal("0.01"), "em24": Decimal("0.1")}


def stood_at(kind: str, start_ms: int, at_ms: int) -> Decimal:
    """What the counter of a meter showed at an instant (see meter.c)."""
    return (at_ms - start_ms) // STEP_MS[kind] * STEP_KWH[kind]


@contextmanager
def line(binary: Path, baudrate: int, units: list[tuple[int, str, int]]) -> Iterator[str]:
    """An RS-485 line with a libmodbus process for each (unit, kind, start_ms).

    Every byte takes its time on the wire. Yields the path of the port that the gateway opens.
    """
    with ExitStack() as stack:
        ours, port = os.openpty()
        stack.callback(os.close, ours)
        stack.callback(os.close, port)
        tty.setraw(port)
        theirs: list[int] = []
        for unit, kind, start in units:
            end, their_port = os.openpty()
            tty.setraw(their_port)
            stack.callback(os.close, end)
            stack.callback(os.close, their_port)
            theirs.append(end)
            path = os.ttyname(their_port)
            stack.enter_context(
                served(binary, "rtu", path, str(baudrate), str(unit), kind, str(start))
            )
        stop = threading.Event()
        wire = threading.Thread(
            target=_carry, args=(ours, theirs, 10 / baudrate, stop), daemon=True
        )
        wire.start()
        try:
            yield os.ttyname(port)
        finally:
            stop.set()
            wire.join()


def _carry(ours: int, theirs: list[int], character: float, stop: threading.Event) -> None:
    while not stop.is_set():
        ready, _, _ = select.select([ours, *theirs], [], [], 0.1)
        for end in ready:
            data = os.read(end, 512)
            time.sleep(len(data) * character)
            for other in {ours, *theirs} - {end}:  # everybody on the line hears everything
                os.write(other, data)
