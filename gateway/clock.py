"""Wall, monotonic and boot time, and whether the kernel's clock is synchronised.

Instants and durations are whole milliseconds in the whole program; `Instant` counts from
1970-01-01T00:00Z. Nothing in modbus, metering, buffer or energinet asks the system for the time:
a `Clock` is handed in, so that years can be simulated in minutes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeAlias

Instant: TypeAlias = int
Millis: TypeAlias = int

SECOND: Millis = 1_000
MINUTE: Millis = 60 * SECOND
HOUR: Millis = 60 * MINUTE
DAY: Millis = 24 * HOUR


def utc(at: Instant) -> str:
    """An instant as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def about(span: float) -> str:
    """A length of time (ms) in words: 90 s, 40 min, 7 h, 12 d."""
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if span >= 2 * unit:
            return f"{span / unit:.{0 if unit == MINUTE else 1}f}".removesuffix(".0") + f" {name}"
    return f"{span / SECOND:.0f} s"


class Clock(Protocol):
    """What the rest of the program knows of time."""

    @property
    def boot_id(self) -> str:
        """Names this boot of the machine; boot times of two boots cannot be compared."""

    def now(self) -> Instant:
        """Wall time. May step."""

    def boottime(self) -> Millis:
        """Time since boot, suspended time included. Never steps."""

    def monotonic(self) -> float:
        """Seconds, as fine as the machine has them; for measuring short spans."""

    def synchronised(self) -> bool:
        """Is the wall clock known to be right? To be asked now and then: who sets it by hand is
        noticed by that."""

    async def sleep(self, seconds: float) -> None:
        """Let that much time pass."""

    async def until(self, monotonic: float) -> None:
        """Wait until that monotonic time, finer than the loop's whole milliseconds."""


# <sys/timex.h>: adjtimex() returns TIME_ERROR, and status has STA_UNSYNC, until the clock is set.
_TIME_ERROR = 5
_STA_UNSYNC = 0x40
_TIMEX_BYTES = 256  # struct timex is 208 bytes on 64-bit Linux, 128 on 32-bit
_TIMESYNCD = Path("/run/systemd/timesync/synchronized")  # touched at each synchronisation

STEP: Millis = SECOND
"""Wall and boot time that move apart by more than this between two looks: the clock was set. Less
is a clock that is slewed or drifts."""

_NAP = 0.0012  # seconds that `until` may hold the loop up


class SystemClock:
    """The machine's own clocks (Linux)."""

    def __init__(self, *, assume_synchronised: bool = False) -> None:
        self._assume = assume_synchronised
        self._adjtimex = _load_adjtimex()
        self.boot_id = _boot_id()
        self._looked: tuple[Millis, Millis] | None = None
        """At the last look: time since boot, and how far wall time was ahead of it."""
        self._doubted: float | None = None
        """When timesyncd's file had been touched when the clock was set."""

    def now(self) -> Instant:
        return time.time_ns() // 1_000_000

    def boottime(self) -> Millis:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def until(self, monotonic: float) -> None:
        # asyncio rounds timers up to whole milliseconds: it wakes us early, a nap does the rest.
        rest = monotonic - time.monotonic()
        if rest > _NAP:
            await asyncio.sleep(rest - _NAP)
            rest = monotonic - time.monotonic()
        if rest > 0:
            time.sleep(rest)  # noqa: ASYNC251 - about a millisecond, on purpose

    def synchronised(self) -> bool:
        boottime, now = self.boottime(), self.now()
        before, self._looked = self._looked, (boottime, now - boottime)
        if before is not None and abs(now - boottime - before[1]) > STEP:
            self._doubted = touched = _touched()
            # Who synchronises sets the clock and then touches the file.
            if touched is not None and -1 <= now - touched * 1000 <= boottime - before[0] + STEP:
                self._doubted = None
        return self._assume or self._kernel_says() or self._timesyncd_says()

    def _kernel_says(self) -> bool:
        if self._adjtimex is None:
            return False
        buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: asks, sets nothing
        state: int = self._adjtimex(buffer)
        if state in (-1, _TIME_ERROR):  # -1: forbidden, by systemd's ProtectClock for one
            return False
        # struct timex: int modes, 4 longs and then int status; longs are padded to their size.
        long = ctypes.sizeof(ctypes.c_long)
        status = int.from_bytes(buffer.raw[5 * long : 5 * long + 4], "little")
        return not status & _STA_UNSYNC

    def _timesyncd_says(self) -> bool:
        # The kernel forgets after some hours without a server, and whenever the clock is set; the
        # file does not. So it counts unless the clock was set since it was touched.
        touched = _touched()
        return touched is not None and touched != self._doubted


def _touched() -> float | None:
    """When timesyncd last synchronised the clock; None: not in this boot (/run is made anew)."""
    try:
        return _TIMESYNCD.stat().st_mtime
    except OSError:
        return None


def _load_adjtimex() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        # Without it two boots look alike; when init began tells them apart well enough.
        return (
            f"unknown-{os.stat('/proc/1').st_ctime_ns}" if Path("/proc/1").exists() else "unknown"
        )
