"""Pending readings → one body within the limits. Pure.

The body is a list of value sets, one a meter: {"meterID": …, "values": [[stamp, value], …]}, as
compact JSON. Its size is known to the byte before it is encoded, so that it is filled up to the
last value that fits.

Where stamps are written without an offset, the hour that the site's clock shows twice has one
name for two instants: their two readings become one value (`twins.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from attrs import define, evolve, field, frozen

from gateway.clock import Instant
from gateway.energinet.settings import Timestamps
from gateway.energinet.twins import Fate, Pair, Twins
from gateway.metering.interval import Repeat
from gateway.metering.reading import Offer, SeriesKey, Waiting
from gateway.metering.register import plain


@frozen
class Batch:
    """One body, and the values it carries by meterID."""

    data: bytes
    values: Mapping[SeriesKey, tuple[Waiting, ...]]
    """As they are sent; a value of two readings has the id of the first."""
    twins: Mapping[int, int] = field(factory=dict)
    """Id of a value that is made of two readings to the id of the second."""
    alone: tuple[Waiting, ...] = ()
    """Values of a repeated hour that go without their twins."""
    late: Mapping[SeriesKey, tuple[Waiting, ...]] = field(factory=dict)
    """Taken, but not in the body: their stamps, as they are written, belong to other values."""

    @property
    def count(self) -> int:
        """How many values it carries."""
        return sum(len(values) for values in self.values.values())

    @property
    def sent(self) -> dict[str, int]:
        """How many values of each meterID it carries."""
        return {key.meter_id: len(values) for key, values in self.values.items()}

    def readings(self, ids: Iterable[int]) -> tuple[int, ...]:
        """The ids of all readings that values with these ids are made of."""
        return tuple(one for id in ids for one in (id, self.twins.get(id)) if one is not None)


@define
class _Shared:
    """A value that is in the body, and which of its two readings were taken, by stamp."""

    pair: Pair
    taken: set[Instant] = field(factory=set)

    @property
    def owed(self) -> bool:
        """Is one of the two still to be taken?"""
        return len(self.taken) < 2

    @property
    def both(self) -> tuple[int, int]:
        """The ids of the two."""
        return self.pair.first.id, self.pair.second.id


class Body:
    """Takes values until the limit; what it is offered first it takes first."""

    def __init__(
        self,
        *,
        limit: int,
        zone: ZoneInfo,
        timestamps: Timestamps,
        twins: Twins,
        caps: Mapping[str, int] | None = None,
        oldest: Instant | None = None,
        newest: Instant | None = None,
    ) -> None:
        """`caps`: meterID to its most values; `oldest`, `newest`: what may be sent of stamps."""
        self._limit = limit
        self._zone = zone
        self._timestamps = timestamps
        self._twins = twins
        self._caps = caps or {}
        self._oldest = -(1 << 62) if oldest is None else oldest
        self._newest = 1 << 62 if newest is None else newest
        self._size = 2  # the brackets of the list
        self._stamps: dict[Instant, str] = {}
        self._taken: dict[str, tuple[SeriesKey, list[tuple[Waiting, str]]]] = {}
        self._shared: dict[tuple[SeriesKey, Instant], _Shared] = {}
        self._alone: list[Waiting] = []
        self._late: dict[SeriesKey, list[Waiting]] = {}

    @property
    def size(self) -> int:
        """Bytes that `encode` would give now."""
        return self._size

    def offer(self, waiting: Waiting) -> Offer:
        """Take a value, pass over it, or say that the body is full."""
        fate = self._twins.fate(waiting)
        if isinstance(fate, Pair):
            return self._offer_half(fate, waiting)
        if fate is Fate.HELD:
            return Offer.EARLIER
        if not self._may_go(waiting):
            return Offer.SKIP
        if fate is Fate.LATE:
            self._late.setdefault(waiting.key, []).append(waiting)
            return Offer.TAKEN
        answer = self._add(waiting)
        if fate is Fate.ALONE and answer is Offer.TAKEN:
            self._alone.append(waiting)
        return answer

    def owed(self, repeat: Repeat) -> frozenset[SeriesKey]:
        """Series of which a value of this stretch is in the body, but not all of its readings are
        taken: offer them to `claim`."""
        return frozenset(
            key
            for (key, at), shared in self._shared.items()
            if shared.owed and repeat.start <= at < repeat.end
        )

    def claim(self, waiting: Waiting) -> Offer:
        """Take a reading whose value is in the body; the body does not grow."""
        fate = self._twins.fate(waiting)
        if isinstance(fate, Pair) and (waiting.key, fate.first.stamp) in self._shared:
            return self._offer_half(fate, waiting)
        return Offer.SKIP

    def encode(self) -> Batch:
        """The body as it is sent, each meter's values in the order of time."""
        for owed in [name for name, shared in self._shared.items() if shared.owed]:
            self._let_go(*owed)  # one of its readings is not to be had any more
        sets: list[str] = []
        values: dict[SeriesKey, tuple[Waiting, ...]] = {}
        for name, (key, taken) in self._taken.items():
            taken.sort(key=lambda pair: pair[0].stamp)
            texts = ",".join(text for _, text in taken)
            sets.append(_frame(name)[:-2] + texts + "]}")
            values[key] = tuple(waiting for waiting, _ in taken)
        data = f"[{','.join(sets)}]".encode("ascii")
        assert len(data) == self._size
        twins = dict(shared.both for shared in self._shared.values())
        late = {key: tuple(some) for key, some in self._late.items()}
        return Batch(data, values, twins, tuple(self._alone), late)

    def _offer_half(self, pair: Pair, waiting: Waiting) -> Offer:
        name = waiting.key, pair.first.stamp
        shared = self._shared.get(name)
        if shared is None:
            if not (self._may_go(pair.first) and self._may_go(pair.second)):
                return Offer.SKIP
            answer = self._add(evolve(pair.first, value=pair.value))
            if answer is not Offer.TAKEN:
                return answer
            shared = self._shared[name] = _Shared(pair)
        shared.taken.add(waiting.stamp)
        return Offer.TAKEN

    def _may_go(self, waiting: Waiting) -> bool:
        return self._oldest <= waiting.stamp <= self._newest

    def _add(self, waiting: Waiting) -> Offer:
        name = waiting.key.meter_id
        key, values = self._taken.get(name, (waiting.key, []))
        if key != waiting.key or len(values) >= self._caps.get(name, 1 << 62):
            return Offer.SKIP  # of two imports' series of one meterID one goes at a time
        if waiting.stamp not in self._stamps:
            self._stamps[waiting.stamp] = stamp_text(waiting.stamp, self._zone, self._timestamps)
        text = f'["{self._stamps[waiting.stamp]}",{number(waiting.value)}]'
        added = len(text) + self._between(name)
        if self._size + added > self._limit:
            return Offer.FULL
        self._size += added
        values.append((waiting, text))
        self._taken[name] = key, values
        return Offer.TAKEN

    def _let_go(self, key: SeriesKey, at: Instant) -> None:
        del self._shared[key, at]
        _, values = self._taken[key.meter_id]
        nth = next(nth for nth, (waiting, _) in enumerate(values) if waiting.stamp == at)
        self._size -= len(values.pop(nth)[1])
        if not values:
            del self._taken[key.meter_id]
        self._size -= self._between(key.meter_id)

    def _between(self, name: str) -> int:
        """Bytes around one more value of a meterID."""
        return 1 if name in self._taken else len(_frame(name)) + bool(self._taken)


def stamp_text(at: Instant, zone: ZoneInfo, timestamps: Timestamps) -> str:
    """A stamp as it is sent, ISO 8601; seconds only where they are not zero."""
    moment = datetime.fromtimestamp(at // 1000, UTC) if timestamps == "utc" else _local(at, zone)
    if timestamps != "offset":
        moment = moment.replace(tzinfo=None)
    text = moment.isoformat(timespec="seconds" if moment.second else "minutes")
    return text + "Z" if timestamps == "utc" else text


def number(value: Decimal) -> str:
    """A decimal as JSON has it: every digit, no exponent, no zeros at the end."""
    return f"{plain(value):f}" if value else "0"


def value_bytes(at: Instant, value: Decimal, zone: ZoneInfo, timestamps: Timestamps) -> int:
    """Bytes that a value takes in a body, behind another of its meterID."""
    return len(f'["{stamp_text(at, zone, timestamps)}",{number(value)}],')


def fewest_requests(sizes: Iterable[int], most: int) -> int:
    """Bytes of values by sender → the requests that the one with the most of them needs."""
    return max((-(-size // most) for size in sizes), default=0)


def _local(at: Instant, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at // 1000, zone)


def _frame(meter_id: str) -> str:
    return f'{{"meterID":{json.dumps(meter_id)},"values":[]}}'
