"""A small outbox that is a real implementation of what the uploader needs, in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

from gateway.clock import Instant
from gateway.metering.reading import Offer, SeriesKey, Settlement, Waiting

SENDER = "basement"


class MemoryOutbox:
    """Pending, parked and confirmed values of one sender."""

    def __init__(self) -> None:
        self.values: dict[int, Waiting] = {}
        self.state: dict[int, str] = {}
        self.parked_series_of: dict[SeriesKey, str] = {}
        self.kept_slot: bytes | None = None
        self.slots_kept: list[bytes] = []

    def add(self, meter_id: str, stamp: Instant, value: str = "1") -> int:
        id = len(self.values) + 1
        self.values[id] = Waiting(id, SeriesKey("", meter_id), stamp, Decimal(value))
        self.state[id] = "pending"
        return id

    def count(self, state: str) -> int:
        return sum(1 for one in self.state.values() if one == state)

    async def expire(self, before: Instant) -> int:
        old = [i for i, v in self.values.items() if v.stamp < before and self.state[i] == "pending"]
        for id in old:
            self.state[id] = "parked"
        return len(old)

    async def collect(
        self,
        sender: str,
        offer: Callable[[Waiting], Offer],
        *,
        only: frozenset[SeriesKey] | None = None,
        probes: frozenset[SeriesKey] = frozenset(),
    ) -> None:
        assert sender == SENDER
        free = [v for i, v in self.values.items() if self.state[i] == "pending"]
        free = [v for v in free if only is None or v.key in only]
        newest: dict[SeriesKey, Waiting] = {}
        for value in free:
            if value.key not in newest or value.stamp > newest[value.key].stamp:
                newest[value.key] = value
        first = [v for k, v in newest.items() if k not in self.parked_series_of or k in probes]
        ids = {v.id for v in first}
        rest = [v for v in free if v.id not in ids and v.key not in self.parked_series_of]
        for value in [*first, *sorted(rest, key=lambda v: v.stamp)]:
            answer = offer(value)
            if answer is Offer.FULL:
                return
            if answer is Offer.TAKEN:
                self.state[value.id] = "in flight"

    async def settle(self, sender: str, settlements: Sequence[Settlement], slot: bytes) -> None:
        for one in settlements:
            if one.outcome == "park_series":
                self.parked_series_of[one.key] = one.reason
            elif one.outcome == "unpark_series":
                self.parked_series_of.pop(one.key, None)
            for id in one.ids:
                assert self.state[id] == "in flight", "settled, but not in flight"
                self.state[id] = {"kept": "pending"}.get(one.outcome, one.outcome)
        await self.release_flight(sender)
        await self.keep_slot(sender, slot)

    async def release_flight(self, sender: str) -> None:
        for id, state in self.state.items():
            if state == "in flight":
                self.state[id] = "pending"

    async def slot(self, sender: str) -> bytes | None:
        return self.kept_slot

    async def keep_slot(self, sender: str, state: bytes) -> None:
        self.kept_slot = state
        self.slots_kept.append(state)

    async def waiting(self, sender: str) -> int:
        return sum(
            1
            for id, value in self.values.items()
            if self.state[id] == "pending" and value.key not in self.parked_series_of
        )

    async def parked_series(self, sender: str) -> frozenset[SeriesKey]:
        return frozenset(self.parked_series_of)
