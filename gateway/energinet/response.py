"""What comes back from Energinet, and what an uploader needs of whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import frozen

from gateway.energinet.settings import Secret


@frozen
class Response:
    """What came back. `headers` by lower-case name; `whole`: the body was read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    duration: float


class Poster(Protocol):
    """Makes one request."""

    async def post(self, data: bytes, token: Secret, *, deadline: float) -> Response:
        """Send a body; `deadline`: seconds for everything together. Raises NoAnswer."""
