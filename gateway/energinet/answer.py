"""(status, headers, body) → what it means for each meter and for the next request. Pure, total.

Every answer falls in exactly one row of the table in docs/reference/answers.md. Nothing of an
answer is trusted: what is not exactly the documented form confirms nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final, Literal, TypeAlias

from attrs import field, frozen

from gateway.clock import Instant, Millis
from gateway.energinet.limits import MAX_COMMAS


class Row(Enum):
    """The rows of the answer table."""

    LIST = "answered"
    """2xx with a list: each meter has its verdict."""
    UNREADABLE = "unreadable"
    """2xx with anything else: nothing is confirmed."""
    REDIRECT = "redirect"
    """3xx: never followed."""
    BODY = "body refused"
    """400, 422: some meter's values are at fault."""
    TOKEN = "token refused"  # noqa: S105 - a row, no password
    """401, 403."""
    CONFIGURATION = "wrong address"
    """404, 405 and all other 4xx."""
    CONFLICT = "conflict"
    """409."""
    TOO_LARGE = "too large"
    """413."""
    TOO_MANY = "too many requests"
    """429."""
    SERVER = "server"
    """1xx, 5xx, anything that is no status, and no answer at all."""


_LONG_ID: Final = 256
"""Bits of a meterID that is a number; `str` takes long for those of thousands of digits."""

VerdictKind: TypeAlias = Literal["confirmed", "missing", "short", "refused"]


@frozen
class Verdict:
    """What the answer says of one meterID."""

    kind: VerdictKind
    status: int = 0
    counted: int = 0


@frozen
class Answer:
    """One answer, read."""

    row: Row
    status: int = 0
    verdicts: Mapping[str, Verdict] = field(factory=dict)
    """For LIST: every meterID that was sent."""
    retry_after: Millis | None = None
    """For TOO_MANY: as the server says it, not yet held within bounds."""


_ROWS = {
    400: Row.BODY,
    422: Row.BODY,
    401: Row.TOKEN,
    403: Row.TOKEN,
    409: Row.CONFLICT,
    413: Row.TOO_LARGE,
    429: Row.TOO_MANY,
}


def row_of(status: int) -> Row:
    """The row of a status, as if every 2xx had a list."""
    if status in _ROWS:
        return _ROWS[status]
    by_class = {2: Row.LIST, 3: Row.REDIRECT, 4: Row.CONFIGURATION}
    return by_class.get(status // 100, Row.SERVER)


def read_answer(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    sent: Mapping[str, int],
    *,
    whole: bool = True,
    now: Instant = 0,
) -> Answer:
    """Read an answer to a request that carried `sent` values by meterID. Never raises.

    `headers` by lower-case name; `whole`: the body was read to its end; `now`: for a Retry-After
    that is a date.
    """
    row = row_of(status)
    if row is Row.TOO_MANY:
        return Answer(row, status, retry_after=_retry_after(headers.get("retry-after", ""), now))
    if row is not Row.LIST:
        return Answer(row, status)
    entries = _list(body) if whole else None
    if entries is None:
        return Answer(Row.UNREADABLE, status)
    return Answer(Row.LIST, status, _verdicts(entries, sent))


def _list(body: bytes) -> list[object] | None:
    if body.count(b",") > MAX_COMMAS:
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, a number of 5,000 digits, too deep
        return None
    return found if isinstance(found, list) else None


def _verdicts(entries: list[object], sent: Mapping[str, int]) -> dict[str, Verdict]:
    missing = Verdict("missing")
    read: dict[str, tuple[int, int]] = {}
    differ: set[str] = set()
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        meter_id, status = entry.get("meterID"), entry.get("status")
        count = entry.get("number_of_values")
        if isinstance(meter_id, int) and not isinstance(meter_id, bool):
            meter_id = str(meter_id) if meter_id.bit_length() < _LONG_ID else None
        if not isinstance(meter_id, str) or meter_id not in sent:
            continue
        if not (_is_integer(status) and _is_integer(count)):
            continue
        assert isinstance(status, int)
        assert isinstance(count, int)
        if read.setdefault(meter_id, (status, count)) != (status, count):
            differ.add(meter_id)  # two that contradict each other confirm nothing
    verdicts = {}
    for meter_id, number in sent.items():
        if meter_id not in read or meter_id in differ:
            verdicts[meter_id] = missing
            continue
        status, count = read[meter_id]
        if not 200 <= status <= 299:
            verdicts[meter_id] = Verdict("refused", status, count)
        elif count != number:
            verdicts[meter_id] = Verdict("short", status, count)
        else:
            verdicts[meter_id] = Verdict("confirmed", status, count)
    return verdicts


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) < value < 1 << 63


def _retry_after(text: str, now: Instant) -> Millis | None:
    """RFC 9110, §10.2.3: seconds, or a date."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return int(text[:12]) * 1000
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0, int((at - datetime.fromtimestamp(0, UTC)).total_seconds() * 1000) - now)
