"""Pending readings → one body within the limits. Pure.

The body is a list of value sets, one a meter: {"meterID": …, "values": [[stamp, value], …]}, as
compact JSON. Its size is known to the byte before it is encoded, so that it is filled up to the
last value that fits.

Where stamps are written without an offset, the hour that the site's clock shows twice has one
name for two instants. The first keeps it; a value of the second would replace the first one's in
Energinet, so it is taken out of what waits, but never sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from attrs import field, frozen

from gateway.clock import Instant
from gateway.energinet.settings import Timestamps
from gateway.metering.reading import Offer, SeriesKey, Waiting
from gateway.metering.register import plain


@frozen
class Batch:
    """One body, and the readings it carries by meterID."""

    data: bytes
    values: Mapping[SeriesKey, tuple[Waiting, ...]]
    ambiguous: Mapping[SeriesKey, tuple[Waiting, ...]] = field(factory=dict)
    """Taken, but not in the body: their stamps, as they are written, belong to earlier values."""

    @property
    def count(self) -> int:
        """How many values it carries."""
        return sum(len(values) for values in self.values.values())

    @property
    def sent(self) -> dict[str, int]:
        """How many values of each meterID it carries."""
        return {key.meter_id: len(values) for key, values in self.values.items()}


class Body:
    """Takes values until the limit; what it is offered first it takes first."""

    def __init__(
        self,
        *,
        limit: int,
        zone: ZoneInfo,
        timestamps: Timestamps,
        caps: Mapping[str, int] | None = None,
        oldest: Instant | None = None,
        newest: Instant | None = None,
    ) -> None:
        """`caps`: meterID to its most values; `oldest`, `newest`: what may be sent of stamps."""
        self._limit = limit
        self._zone = zone
        self._timestamps = timestamps
        self._caps = caps or {}
        self._oldest = -(1 << 62) if oldest is None else oldest
        self._newest = 1 << 62 if newest is None else newest
        self._size = 2  # the brackets of the list
        self._stamps: dict[Instant, str | None] = {}
        self._taken: dict[str, tuple[SeriesKey, list[tuple[Waiting, str]]]] = {}
        self._ambiguous: dict[SeriesKey, list[Waiting]] = {}

    @property
    def size(self) -> int:
        """Bytes that `encode` would give now."""
        return self._size

    def offer(self, waiting: Waiting) -> Offer:
        """Take a value, pass over it, or say that the body is full."""
        if not self._oldest <= waiting.stamp <= self._newest:
            return Offer.SKIP
        name = waiting.key.meter_id
        key, values = self._taken.get(name, (waiting.key, []))
        if key != waiting.key or len(values) >= self._caps.get(name, 1 << 62):
            return Offer.SKIP  # of two imports' series of one meterID one goes at a time
        stamp = self._stamp(waiting.stamp)
        if stamp is None:
            self._ambiguous.setdefault(waiting.key, []).append(waiting)
            return Offer.TAKEN
        text = f'["{stamp}",{number(waiting.value)}]'
        added = len(text)
        if values:
            added += 1
        else:
            added += len(_frame(name)) + bool(self._taken)
        if self._size + added > self._limit:
            return Offer.FULL
        self._size += added
        values.append((waiting, text))
        self._taken[name] = key, values
        return Offer.TAKEN

    def encode(self) -> Batch:
        """The body as it is sent, each meter's values in the order of time."""
        sets: list[str] = []
        values: dict[SeriesKey, tuple[Waiting, ...]] = {}
        for name, (key, taken) in self._taken.items():
            taken.sort(key=lambda pair: pair[0].stamp)
            texts = ",".join(text for _, text in taken)
            sets.append(_frame(name)[:-2] + texts + "]}")
            values[key] = tuple(waiting for waiting, _ in taken)
        data = f"[{','.join(sets)}]".encode("ascii")
        assert len(data) == self._size
        ambiguous = {key: tuple(some) for key, some in self._ambiguous.items()}
        return Batch(data, values, ambiguous)

    def _stamp(self, at: Instant) -> str | None:
        """None: a local time that the site's clock shows for the second time."""
        if at not in self._stamps:
            again = self._timestamps == "local" and _local(at, self._zone).fold
            self._stamps[at] = None if again else stamp_text(at, self._zone, self._timestamps)
        return self._stamps[at]


def stamp_text(at: Instant, zone: ZoneInfo, timestamps: Timestamps) -> str:
    """A stamp as it is sent, ISO 8601; seconds only where they are not zero."""
    moment = datetime.fromtimestamp(at // 1000, UTC) if timestamps == "utc" else _local(at, zone)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S" if moment.second else "%Y-%m-%dT%H:%M")
    if timestamps == "utc":
        return text + "Z"
    if timestamps == "offset":
        offset = moment.strftime("%z")
        return f"{text}{offset[:3]}:{offset[3:5]}"
    return text


def number(value: Decimal) -> str:
    """A decimal as JSON has it: every digit, no exponent, no zeros at the end."""
    return f"{plain(value):f}" if value else "0"


def _local(at: Instant, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at // 1000, zone)


def _frame(meter_id: str) -> str:
    return f'{{"meterID":{json.dumps(meter_id)},"values":[]}}'
