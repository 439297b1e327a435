"""Gateways through years of faults, each drawn from one number, in true time.

The real rounds, metering, committer, buffer, poller, uploader and timetable; fake meters that know
their true energy at every instant, a fake wire, a fake Energinet and a fake machine. What must
hold is in `oracle.py` and `site.py`, what goes wrong in `faults.py`.

    python -m tests.simulation.years --seed 7 --years 1 --every 3 --calm 16

plays one number again and prints what happened before it failed.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from attrs import define, field

from gateway.clock import DAY, Instant, Millis
from gateway.logbook import EVENTS
from tests.simulation.years.faults import Faults
from tests.simulation.years.importing import ROWS
from tests.simulation.years.oracle import Broken
from tests.simulation.years.site import Events, Site, world

EVERY: Final = 3 * DAY
"""About so often something goes wrong."""
CALM_AT_THE_END: Final = 16 * DAY
"""After the last fault may have ended, until everything has to be in its place."""
MOST_LINES: Final = 30
"""Lines a day about one thing, whatever it does."""

FAULTS: Final = (
    "kill -9",
    "kill -9 in the buffer",
    "crash loop",
    "stopped",
    "disk full",
    "more waits than a body holds",
    "values older than five years",
    "clock set forward",
    "clock set back",
    "an hour that the clock shows twice",
    "an hour that the clock leaves out",
    "clock not synchronised at boot, then set",
    "power cut before the first synchronisation",
    "crc",
    "noise",
    "timeout",
    "exception_2",
    "exception_4",
    "exception_6",
    "exception_11",
    "link down",
    "not available",
    "zero",
    "garbage",
    "high word stale",
    "counter of another meter",
    "rollover",
    "meter replaced, told by its serial number",
    "meter replaced, told by agreeing reads",
    "meter replaced by one that shows more",
    "meter replaced by one that shows more, which nothing tells",
    "meter reset",
    "meter taken out of the configuration, and back",
    "meter moved to another sender",
    "power cut, synchronised at boot",
)
"""What can be drawn."""

KINDS: Final = (
    "counter", "consumption", "mean", "minimum", "maximum", "last", "integral", "f32", "u32",
    "u64", "bcd32",
)  # fmt: skip
"""What the values of a site are, and what its counters are written as."""

NEVER: Final = ("meter.wrong_model", "upload.request", "upload.ambiguous")
"""Not asked for here, or too seldom: tests/proofs/test_repeated_hour.py has the last."""

SAID: Final = frozenset(
    event
    for event in EVENTS
    if event.startswith(("meter.", "counter.", "clock.", "upload.", "bus.up", "bus.down"))
    and event not in NEVER
) | {"buffer.opened", "buffer.full", "buffer.recovered", "buffer.dropped", "buffer.volatile"}
"""Events that these faults cause."""


@define
class Figures:
    """What all numbers together came to."""

    years: float = 0
    seconds: float = 0
    fired: Counter[str] = field(factory=Counter)
    rows: Counter[str] = field(factory=Counter)
    kinds: Counter[str] = field(factory=Counter)
    events: Counter[str] = field(factory=Counter)
    gaps: Counter[str] = field(factory=Counter)
    fates: Counter[str] = field(factory=Counter)
    energy: Counter[str] = field(factory=Counter)
    stored: int = 0
    requests: int = 0
    values: int = 0
    largest: int = 0
    false_holds: int = 0
    most_lines: int = 0

    def add(self, site: Site, events: Events) -> None:
        """One more."""
        self.fired += site.fired
        self.rows += site.api.rows
        for row in site.oracle.rows.values():
            self.kinds[row.kind] += len(row.stored)
            self.kinds[row.place.counter.encoding.type] += len(row.stored)
        self.events += events.counts
        self.gaps += site.oracle.gaps
        self.fates += site.judge.fates
        self.energy.update(site.oracle.energy)
        self.stored += site.oracle.count
        self.requests += site.api.requests
        self.values += site.api.values
        self.largest = max(self.largest, site.api.largest)
        self.false_holds += site.judge.false_holds
        self.most_lines = max(self.most_lines, *events.lines.values())

    def lacking(self) -> list[str]:
        """What should have happened and did not."""
        return [
            *(fault for fault in FAULTS if not self.fired[fault]),
            *(f"answer {row}" for row in ROWS if not self.rows[row]),
            *(f"event {event}" for event in sorted(SAID) if not self.events[event]),
            *(f"values {kind}" for kind in KINDS if not self.kinds[kind]),
        ]

    def table(self) -> str:
        """For people."""
        lines = [
            f"{self.years:g} gateway-years in {self.seconds:.0f} s of one core:"
            f" {self.stored} readings, {self.requests} requests with {self.values} values,"
            f" the largest of {self.largest} bytes; false accepts 0, false holds"
            f" {self.false_holds}; at most {self.most_lines} lines a day about one thing",
            f"where the readings are: {_listed(self.fates)}",
            f"what is missing: {_listed(self.gaps)}",
            f"consumption: {_listed(self.energy)}",
            f"values: {_listed(self.kinds)}",
            "faults: " + ", ".join(f"{name} {self.fired[name]}" for name in FAULTS),
            "answers of Energinet: "
            + ", ".join(f"{ROWS[name]} {self.rows[name]}" for name in ROWS),
            f"events: {_listed(self.events)}",
        ]
        return "\n".join(lines)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def command(
    seed: int, years: float, every: Millis, calm: Millis, only: Collection[str] = ()
) -> str:
    """What plays one number again, as `__main__` takes it."""
    kinds = f" --only {' '.join(only)}" if only else ""
    days = f"--every {every / DAY:g} --calm {calm / DAY:g}"
    return f"python -m tests.simulation.years --seed {seed} --years {years:g} {days}{kinds}"


def play(
    seed: int,
    years: float,
    figures: Figures,
    *,
    every: Millis = EVERY,
    calm: Millis = CALM_AT_THE_END,
    only: Collection[str] = (),
) -> None:
    """Let a site live for so many years, with a fault in about `every`; `only`: of these kinds.

    Raises AssertionError.
    """
    again = command(seed, years, every, calm, only)
    began, thresholds = time.process_time(), gc.get_threshold()
    gc.set_threshold(200_000, 50, 1_000)  # all that is remembered need not be looked through
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        events = Events()
        site = Site(seed, Path(folder), events)
        end = site.start_at + round(years * 365 * DAY)
        with world(events, lambda: site.steps.micros / 1e6):
            try:
                site.start()
                Faults(site, every, only).begin(end - calm)
                site.run(end)
                site.judge.check()
                if (most := max(events.lines.values())) > MOST_LINES:
                    raise Broken(f"{most} lines a day: {events.lines.most_common(1)}")
            except BaseException as error:
                raise AssertionError(told(site, events, error, again)) from error
            finally:
                site.end()
                gc.set_threshold(*thresholds)
                gc.collect()  # a site holds on to itself
    figures.years += years
    figures.seconds += time.process_time() - began
    figures.add(site, events)


def told(site: Site, events: Events, error: BaseException, again: str) -> str:
    """What happened before it failed."""
    config = site.config
    rules = sorted({send.gap for meter in config.meters for send in meter.send})
    lines = [
        f"{error!r} at {shown(site.steps.true)}",
        f"{site.zone_name}, timestamps {config.energinet.timestamps}, label"
        f" {config.energinet.label}, gap {rules}, poll {config.buses[0].poll // 1000} s, linger"
        f" {config.energinet.linger // 1000} s; clock off {site.machine.off} ms",
        *(f"  {shown(at)} {what}" for at, what in site.story[-12:]),
        *(f"    {shown(at)} {event} {fields}" for at, event, fields in events.last),
        f"again: {again}",
    ]
    return "\n".join(lines)


def shown(at: Instant) -> str:
    """A true instant for people."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")


__all__ = ["Figures", "command", "play"]
