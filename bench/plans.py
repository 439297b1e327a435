"""Time on the bus for a meter's registers over the least possible, for every shipped profile.

    python -m bench.plans

Arithmetic only. For each profile, at 9600, 19200 and 115200 baud with a turnaround of 10 ms, what
is asked is: all its quantities; its energy counters; what many sites send (an import counter, power
and the voltages). The least possible is found here by trying every legal way to cut the sorted
registers into requests. Legal: within the profile's most registers, over no address that it does
not name unless its holes may be read, from below to none of its splits, and what is only given in a
whole block in that block. Beside ours, over the same least:

    Telegraf, default       registers side by side share a request, cut at the most registers
    Telegraf, max_insert    a request goes on while the gap is at most 50 registers, where legal
    one request a value     what most configurations of other programs come to
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from bench.figures import OURS, Figure, Goal, Measure, lines
from gateway.config.library import Library
from gateway.metering.profile import DeviceProfile
from gateway.metering.register import Register
from gateway.modbus.plan import MAX_BITS, Read, Timing, plan
from gateway.modbus.settings import SerialLink

BAUDS = (9600, 19200, 115200)
TURNAROUND = 0.010
FILL = 50
"""Telegraf's `optimization_max_register_fill`."""


def selections(profile: DeviceProfile) -> Iterator[tuple[Register, ...]]:
    """Registers that a site may want of this model."""
    every = profile.quantities()
    energy = [name for name in every if "energy" in name]
    usual = [
        name
        for name in every
        if name in ("active_energy_import_total", "active_power_total")
        or name.startswith("voltage_l")
    ]
    for names in (every, energy, usual):
        needed = dict.fromkeys(part for name in names for part in profile.needs(name))
        if needed:
            yield tuple(sorted(needed, key=lambda r: (r.function, r.address)))


class Ways:
    """Requests for the registers of one function, sorted, each way as a list of reads."""

    def __init__(self, profile: DeviceProfile, registers: Sequence[Register]) -> None:
        self._limits = profile.limits
        self._function = registers[0].function
        self._most = MAX_BITS if self._function in (1, 2) else profile.limits.max_registers
        whole = [Read(*block) for block in profile.limits.whole_blocks]
        self._blocks = [block for block in whole if any(map(block.holds, registers))]
        self._registers = [r for r in registers if not any(b.holds(r) for b in whole)]
        self._named = {
            address
            for register in (*profile.registers, *registers)
            if register.function == self._function
            for address in range(register.address, register.end)
        }

    def legal(self, start: int, end: int) -> Read | None:
        """Registers start … end-1 in one request; None where the meter would not take it."""
        part = self._registers[start:end]
        low, high = part[0].address, max(register.end for register in part)
        if self._limits.even:
            low, high = low - low % 2, high + (high - (low - low % 2)) % 2
        if len(part) > 1:
            if self._limits.single or high - low > self._most:
                return None
            splits = (at for function, at in self._limits.splits if function == self._function)
            if any(part[0].address < at <= part[-1].address for at in splits):
                return None
            held = {a for r in part for a in range(r.address, r.end)}
            for address in range(part[0].address, part[-1].address):
                if address not in held and not self._may_pass(address):
                    return None
        return Read(self._function, low, high - low)

    def _may_pass(self, address: int) -> bool:
        ranges = any(low <= address <= high for low, high in self._limits.hole_ranges)
        return self._limits.holes or ranges or address in self._named

    def least(self, timing: Timing) -> float:
        """Seconds of the quickest way."""
        count = len(self._registers)

        @cache
        def from_here(start: int) -> float:
            if start == count:
                return 0.0
            reads = ((end, self.legal(start, end)) for end in range(start + 1, count + 1))
            return min(timing.of_read(read) + from_here(end) for end, read in reads if read)

        return timing.of_all(self._blocks) + from_here(0)

    def greedy(self, gap: int) -> list[Read]:
        """A request goes on while the gap is no wider and it stays legal."""
        found = list(self._blocks)
        start = 0
        for end in range(1, len(self._registers) + 1):
            done = end == len(self._registers)
            if not done:
                hole = self._registers[end].address - self._registers[end - 1].end
                done = hole > gap or self.legal(start, end + 1) is None
            if done:
                read = self.legal(start, end)
                assert read is not None
                found.append(read)
                start = end
        return found

    def single(self) -> list[Read]:
        """One request a register."""
        reads = [self.legal(n, n + 1) for n in range(len(self._registers))]
        return [*self._blocks, *(read for read in reads if read is not None)]


OTHERS: dict[str, Callable[[Ways], list[Read]]] = {
    "Telegraf, default": lambda ways: ways.greedy(0),
    "Telegraf, max_insert": lambda ways: ways.greedy(FILL),
    "one request a value": Ways.single,
}


def measure(*, short: bool = False) -> list[Measure]:
    """Each way's time over the least, over all cases; ours at its worst."""
    ratios: dict[str, list[float]] = {}
    for profile in Library().all():
        for registers in selections(profile):
            functions = sorted({register.function for register in registers})
            ways = [Ways(profile, [r for r in registers if r.function == f]) for f in functions]
            for baud in BAUDS:
                link = SerialLink("/dev/null", baud)
                timing = Timing.of(link, TURNAROUND, profile.limits.pause)
                least = sum(way.least(timing) for way in ways)
                mine = plan(registers, profile.limits, timing, known=profile.registers)
                ratios.setdefault(OURS, []).append(round(timing.of_all(mine) / least, 6))
                for who, group in OTHERS.items():
                    took = sum(timing.of_all(group(way)) for way in ways)
                    ratios.setdefault(who, []).append(took / least)
    ours = Figure(OURS, (max(ratios[OURS]),))
    beside = tuple(Figure(who, tuple(ratios[who])) for who in OTHERS)
    what = "Time on the bus for a meter's registers over the least possible"
    told = f"ours is the worst of {len(ratios[OURS])} cases, the others' the median and the range"
    return [Measure(what, ours, beside, Goal(1.0), note=told)]


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(lines(measure()))


if __name__ == "__main__":
    main()
