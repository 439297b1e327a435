"""From registers to the reads that take the least time on the wire. Pure.

Reads hold whole registers only, stay within what the model takes (`Limits`), and never span an
address that the profile does not name, unless its source says that holes can be read. Among all
such sets of reads over neighbouring registers the one with the least total time is found by
dynamic programming over the sorted registers of each function.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import Final

from attrs import frozen

from gateway.clock import Millis
from gateway.metering.profile import Limits
from gateway.metering.register import Register
from gateway.modbus.settings import Link, SerialLink

MAX_REGISTERS: Final = 125
"""Modbus application protocol v1.1b3, §6.3 and §6.4."""
MAX_BITS: Final = 2000
"""Modbus application protocol v1.1b3, §6.1 and §6.2."""


@frozen
class Read:
    """One request: `count` registers (or bits) of `function` from `address` on."""

    function: int
    address: int
    count: int

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.address + self.count

    @property
    def shape(self) -> tuple[int, int]:
        """What an answer over a serial line shows of its request: function and count."""
        return self.function, self.count

    def __str__(self) -> str:
        return f"f{self.function}@{self.address}+{self.count}"


@frozen
class Timing:
    """What a read costs, in seconds."""

    request: float
    """All that does not depend on its length: fixed parts, silences, turnaround, pause."""
    register: float
    """One register more."""

    @classmethod
    def of(cls, link: Link, turnaround: float, pause: Millis = 0) -> Timing:
        """The arithmetic of a line, from its baud rate; over TCP, of the round trip.

        `turnaround` is the time from the end of the request to the start of the answer.
        """
        if not isinstance(link, SerialLink):
            return cls(turnaround + pause / 1000, 1e-6)
        character = character_time(link)
        silence = max(silence_time(link), pause / 1000)
        if link.framing == "ascii":  # ':' + 2 hex digits a byte + CR LF
            fixed, each = 17 + 11, 4
        else:  # request of 8 bytes; answer of 5 and two a register
            fixed, each = 8 + 5, 2
        quiet = turnaround + silence_time(link) + silence
        return cls(fixed * character + quiet, each * character)

    def of_read(self, read: Read) -> float:
        """Seconds that one read takes; 16 bits cost what a register costs."""
        words = (read.count + 15) // 16 if read.function in (1, 2) else read.count
        return self.request + words * self.register

    def of_all(self, reads: Iterable[Read]) -> float:
        """Seconds that several reads take, one after the other."""
        return sum(self.of_read(read) for read in reads)


def character_time(link: SerialLink) -> float:
    """Seconds a character takes on the wire."""
    return link.character_bits / link.baudrate


def silence_time(link: SerialLink) -> float:
    """Seconds of silence that end a frame: 3.5 characters, fixed at 1.75 ms above 19200 baud.

    Modbus over serial line v1.02, §2.5.1.1.
    """
    return 0.00175 if link.baudrate > 19200 else 3.5 * character_time(link)


def plan(
    registers: Iterable[Register],
    limits: Limits,
    timing: Timing,
    *,
    known: Iterable[Register] = (),
    refused: Collection[tuple[int, int]] = (),
    longest: int | None = None,
) -> tuple[Read, ...]:
    """The reads for these registers, in the order of function and address.

    `known`: all registers of the profile: a read may pass over those. `refused`: (function,
    address) of registers that the meter was seen to refuse: no read passes over them. `longest`:
    the most registers a read may have, where less than the profile's was learnt.
    """
    reads: list[Read] = []
    named = list(known)
    by_function: dict[int, list[Register]] = {}
    for register in dict.fromkeys(registers):
        by_function.setdefault(register.function, []).append(register)
    for function, wanted in sorted(by_function.items()):
        rules = _Rules(function, limits, named, refused, longest)
        whole = {block for r in wanted if (block := rules.whole_block(r)) is not None}
        reads += [Read(function, first, count) for first, count in whole]
        rest = [r for r in wanted if rules.whole_block(r) is None]
        reads += _least(rest, rules, timing)
    return tuple(sorted(reads, key=lambda read: (read.function, read.address)))


def _least(registers: list[Register], rules: _Rules, timing: Timing) -> list[Read]:
    spans = sorted({(r.address, r.end) for r in registers})
    best: list[tuple[float, int, Read | None]] = [(0.0, 0, None)]
    for end in range(1, len(spans) + 1):
        choices: list[tuple[float, int, Read | None]] = []
        for start in range(end - 1, -1, -1):
            read = rules.read(spans[start:end])
            if read is None:
                if start == end - 1:  # wider than any limit: the meter may still take it alone
                    read = rules.alone(spans[start])
                else:
                    if rules.over_limit(spans[start:end]):
                        break  # starting even earlier only makes it longer
                    continue
            choices.append((best[start][0] + timing.of_read(read), start, read))
        # Of equally quick ways the one with fewer reads, so that plans do not flicker.
        best.append(min(choices, key=lambda choice: (choice[0], -(end - choice[1]))))
    reads: list[Read] = []
    at = len(spans)
    while at:
        _, before, found = best[at]
        assert found is not None
        reads.append(found)
        at = before
    return reads


class _Rules:
    """What one function's reads of one model may be."""

    def __init__(
        self,
        function: int,
        limits: Limits,
        known: Sequence[Register],
        refused: Collection[tuple[int, int]],
        longest: int | None,
    ) -> None:
        self.function = function
        self.limits = limits
        self.refused = {address for f, address in refused if f == function}
        most = MAX_BITS if function in (1, 2) else min(limits.max_registers, MAX_REGISTERS)
        self.most = min(most, longest) if longest else most
        self.named: set[int] = set()
        for register in known:
            if register.function == function and register.address not in self.refused:
                self.named.update(range(register.address, register.end))

    def whole_block(self, register: Register) -> tuple[int, int] | None:
        """The block that can only be read in one piece and holds the register."""
        for function, first, count in self.limits.whole_blocks:
            inside = first <= register.address and register.end <= first + count
            if function == self.function and inside:
                return first, count
        return None

    def alone(self, span: tuple[int, int]) -> Read:
        """One register by itself, whatever the limits say."""
        start, end = self._even(*span)
        return Read(self.function, start, end - start)

    def read(self, spans: Sequence[tuple[int, int]]) -> Read | None:
        """The read that holds these registers; None where it is not allowed."""
        if len(spans) > 1 and self.limits.single:
            return None
        start, end = self._even(spans[0][0], max(end for _, end in spans))
        if end - start > self.most:
            return None
        reached = spans[0][1]
        for _, (next_start, next_end) in pairwise(spans):
            if next_start > reached and not self._may_pass(reached, next_start):
                return None
            reached = max(reached, next_end)
        return Read(self.function, start, end - start)

    def over_limit(self, spans: Sequence[tuple[int, int]]) -> bool:
        """Is it too long, rather than broken by a hole?"""
        start, end = self._even(spans[0][0], max(end for _, end in spans))
        return end - start > self.most or self.limits.single

    def _even(self, start: int, end: int) -> tuple[int, int]:
        if not self.limits.even:
            return start, end
        start -= start % 2
        return start, end + (end - start) % 2

    def _may_pass(self, first: int, end: int) -> bool:
        if any(first <= address < end for address in self.refused):
            return False
        if self.limits.holes:
            return True
        if any(low <= first and end - 1 <= high for low, high in self.limits.hole_ranges):
            return True
        return all(address in self.named for address in range(first, end))
