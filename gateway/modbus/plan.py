"""From registers to the reads that take the least time on the wire. Pure.

Reads hold whole registers only, stay within what the model takes (`Limits`), and never span an
address that the profile does not name, unless its source says that holes can be read. Among all
such sets of reads the one with the least total time is found by dynamic programming over the
sorted registers of each function.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Final, TypeAlias

from attrs import frozen

from gateway.clock import Millis
from gateway.metering.inquiry import Inquiry
from gateway.metering.profile import Limits
from gateway.metering.register import Register
from gateway.modbus.settings import Link, SerialLink

MAX_REGISTERS: Final = 125
"""Modbus application protocol v1.1b3, §6.3 and §6.4."""
MAX_BITS: Final = 2000
"""Modbus application protocol v1.1b3, §6.1 and §6.2."""

Address: TypeAlias = tuple[int, int]
"""Function and address."""
Span: TypeAlias = tuple[int, int]
"""First address of a register, and the first one after it."""


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
    def data_bytes(self) -> int:
        """Bytes of data in its answer."""
        return (self.count + 7) // 8 if self.function in (1, 2) else 2 * self.count

    @property
    def shape(self) -> tuple[int, int]:
        """All that an answer over a serial line shows of its request: function and length."""
        return self.function, self.data_bytes

    def holds(self, register: Register) -> bool:
        """Is all of the register in it?"""
        return (
            register.function == self.function
            and self.address <= register.address
            and register.end <= self.end
        )

    def __str__(self) -> str:
        return f"f{self.function}@{self.address}+{self.count}"


Question: TypeAlias = Read | Inquiry
"""All that a unit is ever asked."""


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

        `turnaround`: seconds from the silence that ends the request to the start of the answer.
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
        """Seconds that one read takes; eight bits cost half of what a register costs."""
        return self.request + read.data_bytes / 2 * self.register

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
    refused: Collection[Address] = (),
    cuts: Collection[Address] = (),
    longest: Mapping[int, int] = MappingProxyType({}),
) -> tuple[Read, ...]:
    """The reads for these registers, in the order of function and address.

    `known`: all registers of the profile; a read may pass over those. `refused`: registers that
    the meter was seen to refuse; no read passes over one. `cuts`: where a read was seen to fail
    that both its parts did not; none reaches from below to there. `longest`: function to the most
    registers of a read, where less than the model's own limit was learnt.
    """
    reads: set[Read] = set()
    wanted = list(dict.fromkeys(registers))
    for function in sorted({register.function for register in wanted}):
        named = [*known, *wanted]
        rules = _Rules(function, limits, named, refused, cuts, longest.get(function))
        spans = set()
        for register in wanted:
            if register.function != function:
                continue
            if (block := rules.whole_block(register)) is not None:
                reads.add(block)
            else:
                spans.add((register.address, register.end))
        reads.update(_least(sorted(spans), rules, timing))
    return tuple(sorted(reads, key=lambda read: (read.function, read.address, read.count)))


def _least(spans: Sequence[Span], rules: _Rules, timing: Timing) -> list[Read]:
    joined = [rules.may_join(*pair) for pair in pairwise(spans)]
    # For the first n spans: least seconds, with how many reads, and the last of those reads with
    # how many spans it leaves. Of equally quick ways the one with fewer reads.
    best: list[tuple[float, int, int, Read | None]] = [(0.0, 0, 0, None)]
    for n in range(1, len(spans) + 1):
        choices: list[tuple[float, int, int, Read | None]] = []
        end = 0
        for first in range(n - 1, -1, -1):
            if first < n - 1 and not joined[first]:
                break
            end = max(end, spans[first][1])
            read = rules.read(spans[first][0], end)
            # A register wider than any limit is asked for alone: the meter may still take it.
            if first < n - 1 and read.count > rules.most:
                break
            seconds, reads, _, _ = best[first]
            choices.append((seconds + timing.of_read(read), reads + 1, first, read))
        best.append(min(choices, key=lambda choice: choice[:2]))
    found: list[Read] = []
    at = len(spans)
    while at:
        _, _, at, read_or_none = best[at]
        assert read_or_none is not None
        found.append(read_or_none)
    return found


class _Rules:
    """What the reads of one function may be."""

    def __init__(
        self,
        function: int,
        limits: Limits,
        known: Iterable[Register],
        refused: Collection[Address],
        cuts: Collection[Address],
        longest: int | None,
    ) -> None:
        self._function = function
        self._limits = limits
        self._refused = {address for f, address in refused if f == function}
        self._cuts = {address for f, address in (*cuts, *limits.splits) if f == function}
        most = MAX_BITS if function in (1, 2) else min(limits.max_registers, MAX_REGISTERS)
        self.most = min(most, longest) if longest else most
        self._named: set[int] = set()
        for register in known:
            if register.function == function and register.address not in self._refused:
                self._named.update(range(register.address, register.end))

    def whole_block(self, register: Register) -> Read | None:
        """The block that can only be read in one piece and holds the register."""
        for function, first, count in self._limits.whole_blocks:
            block = Read(function, first, count)
            if block.holds(register):
                return block
        return None

    def read(self, start: int, end: int) -> Read:
        """The read that holds these addresses."""
        if self._limits.even:
            start -= start % 2
            end += (end - start) % 2
        return Read(self._function, start, end - start)

    def may_join(self, one: Span, other: Span) -> bool:
        """May neighbours in the order of addresses share a read, as far as it is not too long?"""
        if self._limits.single or other[0] - one[1] > self.most:
            return False
        if any(one[0] < cut <= other[0] for cut in self._cuts):
            return False
        return all(self._may_pass(address) for address in range(one[1], other[0]))

    def _may_pass(self, address: int) -> bool:
        if address in self._refused:
            return False
        return (
            self._limits.holes
            or address in self._named
            or any(low <= address <= high for low, high in self._limits.hole_ranges)
        )
