"""What Energinet's answers say of the time: a second opinion on a clock that is called right.

One with a battery (`assume_synchronised`) may wake up in 1970 or in 2035. Nothing that could not be
undone is done by its word alone: it has to agree with the date of an answer.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from gateway.clock import DAY, MINUTE, Clock, Instant, Millis
from gateway.energinet.response import Poster, Response
from gateway.energinet.settings import Secret

_CLOSE: Final = DAY
"""What is judged by the clock is years old: it agrees if it is no further off than this."""


class Witness:
    """Makes requests as its client does, and holds the clock against the date of each answer."""

    def __init__(self, client: Poster, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._ahead: Millis | None = None
        """How far wall time was ahead of boot time when the last answer agreed with it."""

    async def post(self, data: bytes, token: Secret, *, deadline: float) -> Response:
        """As `Client.post`."""
        response = await self._client.post(data, token, deadline=deadline)
        if (there := _instant(response.headers.get("date", ""))) is not None:
            now = self._clock.now()
            self._ahead = now - self._clock.boottime() if abs(now - there) <= _CLOSE else None
        return response

    def agrees(self) -> bool:
        """Is the clock right by the last answer that had a date, and was it not set since?"""
        if self._ahead is None or not self._clock.synchronised():
            return False
        return abs(self._clock.now() - self._clock.boottime() - self._ahead) <= MINUTE


def _instant(text: str) -> Instant | None:
    """A date of HTTP (RFC 9110, §5.6.7)."""
    try:
        at = parsedate_to_datetime(text)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
