"""The client as the service has it: imported at the first request."""

from __future__ import annotations

import asyncio
import time

from gateway.energinet.response import Poster, Response
from gateway.energinet.settings import EnerginetSettings, Secret
from gateway.errors import NoAnswer


class LateClient:
    """Imports httpx only once something is sent: that takes as long as starting up, and so is done
    in a thread, while meters are asked on.
    """

    def __init__(self, settings: EnerginetSettings) -> None:
        self._settings = settings
        self._client: Poster | None = None

    async def post(self, data: bytes, token: Secret, *, deadline: float) -> Response:
        """As `Client.post`; importing it takes of the deadline too."""
        began = time.monotonic()
        if self._client is None:
            self._client = await asyncio.to_thread(_client, self._settings)
        left = began + deadline - time.monotonic()
        if left <= 0:
            raise NoAnswer("timeout", f"not ready to ask within {deadline:.0f} s", sent=False)
        return await self._client.post(data, token, deadline=left)


def _client(settings: EnerginetSettings) -> Poster:
    from gateway.energinet.client import Client

    return Client(settings)
