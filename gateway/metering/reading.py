"""What the rooms hand each other: samples from the poller, readings and gaps for the buffer."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Final, Literal, TypeAlias

from attrs import field, frozen

from gateway.clock import Instant, Millis
from gateway.metering.register import Register, Words

As: TypeAlias = Literal["counter", "consumption", "mean", "minimum", "maximum", "last"]

AS: tuple[As, ...] = ("counter", "consumption", "mean", "minimum", "maximum", "last")


@frozen
class Block:
    """One read that was answered: `words` stand at `address`, `address + 1`, …"""

    function: int
    address: int
    words: Words

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.address + len(self.words)


@cache
def _layout(words: int) -> struct.Struct:
    """Of a packed block with so many words."""
    return struct.Struct(f">BBH{words}H")


@frozen
class RawWords:
    """Registers as a meter gave them, each at its own address. Blocks are never joined."""

    blocks: tuple[Block, ...] = ()

    def lookup(self, register: Register) -> Words | None:
        """The words of a register, from the one block that holds all of it; None if not read."""
        for block in self.blocks:
            start = register.address - block.address
            if start >= 0 and block.function == register.function:
                words = block.words[start : start + register.count]
                if len(words) == register.count:
                    return words
        return None

    def only(self, registers: Sequence[Register]) -> RawWords:
        """Just the words of these registers, in address order; those not read are left out."""
        if len(registers) == 1:  # as nearly always: the way without sorting
            words = self.lookup(register := registers[0])
            block = words and Block(register.function, register.address, words)
            return RawWords((block,) if block else ())
        kept: dict[tuple[int, int, int], Block] = {}
        for register in registers:
            words = self.lookup(register)
            if words is not None:
                key = (register.function, register.address, register.count)
                kept[key] = Block(register.function, register.address, words)
        return RawWords(tuple(kept[key] for key in sorted(kept)))

    def before(self) -> RawWords:
        """What stands behind the registers' own words: those of them at an earlier moment."""
        own: set[tuple[int, int, int]] = set()
        earlier = []
        for block in self.blocks:
            place = block.function, block.address, len(block.words)
            if place in own:
                earlier.append(block)
            own.add(place)
        return RawWords(tuple(earlier))

    def pack(self) -> bytes:
        """The form in which the buffer keeps them: function, count, address, words, …"""
        return b"".join(
            [
                _layout(len(b.words)).pack(b.function, len(b.words), b.address, *b.words)
                for b in self.blocks
            ]
        )

    @classmethod
    def unpack(cls, data: bytes) -> RawWords:
        """The reverse of `pack`. Raises ValueError where the bytes are not whole."""
        blocks, at = [], 0
        try:
            while at < len(data):
                function, count, address = struct.unpack_from(">BBH", data, at)
                words = struct.unpack_from(f">{count}H", data, at + 4)
                blocks.append(Block(function, address, words))
                at += 4 + 2 * count
        except struct.error as error:
            raise ValueError(f"packed words are cut off: {error}") from None
        return cls(tuple(blocks))


@frozen
class Sample:
    """What one meter answered in one round, with when and what failed."""

    meter: str
    at: Instant
    """Wall time when the first of its answers arrived. Not to be trusted before synchronisation."""
    boot_id: str
    boottime: Millis
    """The same moment since boot: what a late synchronisation is reckoned from."""
    raw: RawWords
    faults: Mapping[str, str] = field(factory=dict)
    """Register name to the reason why it was not read; a meter that is silent has all of them."""
    synchronised: bool = True
    took: Millis = 0
    """From the first of its answers to the last: so much later than `at` a value may be."""


@frozen
class SeriesKey:
    """What Energinet knows a row of values by: a meterID within an import ("" without one)."""

    import_name: str
    meter_id: str


@frozen
class Series:
    """One meterID: where its values come from and who sends them."""

    key: SeriesKey
    meter: str
    quantity: str
    as_: As
    every: Millis
    sender: str


NO_TIME: Final = "no_time"
"""Why a reading is held whose boot never had the time; its stamp is the latest it can be of."""


@frozen
class Reading:
    """A value for one meterID and stamp, with the raw words of its boundary."""

    key: SeriesKey
    stamp: Instant
    """What is sent, in whole seconds (a multiple of 1,000 ms)."""
    value: Decimal
    raw: RawWords = RawWords()
    """A consumption that is not reckoned from the reading stored before it has, behind its own
    words, those from which it is reckoned."""
    held: str = ""
    """Why it may not be sent yet, or never (`NO_TIME`); empty: it may."""


@frozen
class Correction:
    """A stored reading that a person wants sent with another value, or once more with its own."""

    key: SeriesKey
    stamp: Instant
    was: Decimal
    value: Decimal


@frozen
class Gap:
    """A stamp that has no value, and why: a line of the ledger, never a stored reading.

    After a long stop it is a run of them: `count` neighbouring stamps from `stamp` to `last`.
    """

    key: SeriesKey
    stamp: Instant
    reason: str
    last: Instant | None = None
    """None: only `stamp`."""
    count: int = 1


@frozen
class KeptSample:
    """A poll kept because a mean, an extreme or a clock not yet synchronised needs it.

    `until`: it may be pruned once every reading up to this stamp is confirmed.
    """

    sample: Sample
    until: Instant | None = None
    doubted: str = ""
    """Why nothing was made of it: it is kept for a profile that may make sense of it (`resend`)."""


@frozen
class Commit:
    """All that one round adds to the buffer, in one transaction."""

    readings: tuple[Reading, ...] = ()
    gaps: tuple[Gap, ...] = ()
    samples: tuple[KeptSample, ...] = ()
    states: Mapping[str, bytes] = field(factory=dict)
    """Meter name to its saved state, only where it cannot be told from its last readings."""
    restamped: Mapping[int, Instant] = field(factory=dict)
    """Id of a kept sample to its right time, once the clock is synchronised."""

    def __bool__(self) -> bool:
        return bool(self.readings or self.gaps or self.samples or self.states or self.restamped)


@frozen
class Counts:
    """P6: stored = pending + in_flight + confirmed + parked + dropped, over the buffer's life."""

    stored: int = 0
    pending: int = 0
    in_flight: int = 0
    confirmed: int = 0
    parked: int = 0
    dropped: Mapping[str, int] = field(factory=dict)
    held: int = 0
    """How many of the pending may not be sent yet."""

    @property
    def balanced(self) -> bool:
        """Is nothing unaccounted for?"""
        settled = self.confirmed + self.parked + sum(self.dropped.values())
        return self.stored == self.pending + self.in_flight + settled


@frozen
class Waiting:
    """A stored reading that waits to be sent, as the buffer offers it."""

    id: int
    key: SeriesKey
    stamp: Instant
    value: Decimal


class Offer(Enum):
    """What a sender answers to a waiting value that the buffer offers it."""

    TAKEN = "taken"
    SKIP = "skip"
    """Not this one; go on with the others."""
    EARLIER = "earlier"
    """Not this one; if it is the newest of its series, the one before it stands in for it."""
    FULL = "full"
    """No more."""


@frozen
class Settlement:
    """What became of some values of one meterID in one request.

    confirmed: done with. kept: still pending. parked: these values only, with the reason.
    park_series: everything pending of this meterID, now and later, until `unpark_series`.
    """

    key: SeriesKey
    outcome: Literal["confirmed", "kept", "parked", "park_series", "unpark_series"]
    ids: tuple[int, ...] = ()
    reason: str = ""
