"""Pending readings → one body within the limits. Pure.

The body is a list of value sets, one a meter: {"meterID": …, "values": [[stamp, value], …]}, as
compact JSON. Its size is known to the byte before it is encoded, so that it is filled up to the
last value that fits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from attrs import frozen

from gateway.clock import Instant
from gateway.energinet.settings import Timestamps
from gateway.metering.reading import Offer, SeriesKey, Waiting
from gateway.metering.register import plain


@frozen
class Batch:
    """One body, and the readings it carries by meterID."""

    data: bytes
    values: Mapping[SeriesKey, tuple[Waiting, ...]]

    @property
    def count(self) -> int:
        """How many values it carries."""
        return sum(len(values) for values in self.values.values())


class Body:
    """Takes values until the limit; what it is offered first it takes first."""

    def __init__(
        self,
        *,
        limit: int,
        zone: ZoneInfo,
        timestamps: Timestamps,
        per_series: Mapping[SeriesKey, int] | None = None,
        not_after: Instant | None = None,
    ) -> None:
        self._limit = limit
        self._zone = zone
        self._timestamps = timestamps
        self._per_series = per_series or {}
        self._not_after = not_after
        self._size = 2  # the brackets of the list
        self._stamps: dict[Instant, str] = {}
        self._taken: dict[SeriesKey, dict[str, tuple[Waiting, str]]] = {}

    @property
    def size(self) -> int:
        """Bytes that `encode` would give now."""
        return self._size

    def offer(self, waiting: Waiting) -> Offer:
        """Take a value, pass over it, or say that the body is full."""
        if self._not_after is not None and waiting.stamp > self._not_after:
            return Offer.SKIP  # a stamp in the future
        values = self._taken.get(waiting.key)
        if values is not None and len(values) >= self._per_series.get(waiting.key, 1 << 62):
            return Offer.SKIP
        stamp = self._stamp(waiting.stamp)
        if values is not None and stamp in values:
            return Offer.SKIP  # the repeated hour: two values under one text would lose one
        text = f'["{stamp}",{number(waiting.value)}]'
        added = len(text)
        if values is None:
            added += len(_frame(waiting.key)) + bool(self._taken)
        else:
            added += 1
        if self._size + added > self._limit:
            return Offer.FULL
        self._size += added
        self._taken.setdefault(waiting.key, {})[stamp] = (waiting, text)
        return Offer.TAKEN

    def encode(self) -> Batch:
        """The body as it is sent, each meter's values in the order of time."""
        sets: list[str] = []
        values: dict[SeriesKey, tuple[Waiting, ...]] = {}
        for key, taken in self._taken.items():
            ordered = sorted(taken.values(), key=lambda pair: pair[0].stamp)
            texts = ",".join(text for _, text in ordered)
            sets.append(_frame(key)[:-2] + texts + "]}")
            values[key] = tuple(waiting for waiting, _ in ordered)
        data = f"[{','.join(sets)}]".encode("ascii")
        assert len(data) == self._size
        return Batch(data, values)

    def _stamp(self, at: Instant) -> str:
        text = self._stamps.get(at)
        if text is None:
            text = self._stamps[at] = stamp_text(at, self._zone, self._timestamps)
        return text


def stamp_text(at: Instant, zone: ZoneInfo, timestamps: Timestamps) -> str:
    """A stamp as it is sent, ISO 8601; seconds only where they are not zero."""
    moment = datetime.fromtimestamp(at / 1000, UTC if timestamps == "utc" else zone)
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


def _frame(key: SeriesKey) -> str:
    return f'{{"meterID":{json.dumps(key.meter_id)},"values":[]}}'
