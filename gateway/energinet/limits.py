"""The limits of the import API as its documentation gives them, and how its gaps are read.

Source: Energinet's description of the import API (POST /apiImport/data). What it leaves open and
what is assumed for it stands in docs/reference/energinet-api.md; each assumption is one constant
or one function here, so that it can be changed in one place.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from gateway.clock import MINUTE, Instant, Millis

REQUEST_INTERVAL: Final[Millis] = 10 * MINUTE
"""One request in 10 minutes for each sender. Assumed: from the end of one to the start of the
next, whatever came of it."""

MAX_BODY: Final = 500_000
"""A payload is at most 0.5 MB. Assumed: 500,000 bytes of the body as it is sent."""

MAX_SENDERS: Final = 50
"""Senders an import."""

MAX_AGE_YEARS: Final = 5
"""A timestamp must not be older than five years."""

SMALLEST_BODY: Final = 16_000
"""Our own: a body that was called too large is halved, but not below this."""

MAX_ANSWER: Final = 1 << 20
"""Our own: bytes of an answer that are read."""

MAX_COMMAS: Final = 50_000
"""Our own: in an answer to the largest body of single values there are a third of them. To read
many more would take so long that meters wait for it."""


def oldest_allowed(now: Instant) -> Instant:
    """The earliest stamp that may still be sent: five calendar years back."""
    at = datetime.fromtimestamp(now / 1000, UTC)
    try:
        back = at.replace(year=at.year - MAX_AGE_YEARS)
    except ValueError:  # 29 February
        back = at.replace(year=at.year - MAX_AGE_YEARS, month=3, day=1)
    return int(back.timestamp() * 1000)
