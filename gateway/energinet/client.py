"""One request to Energinet. The only file that imports httpx.

TLS is always verified and there is no switch to turn that off; nothing of the environment is
used; redirects are not followed, so that the token goes nowhere else; time and bytes are bounded.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from attrs import frozen

from gateway import __version__
from gateway.energinet.limits import MAX_ANSWER
from gateway.energinet.settings import EnerginetSettings, Secret
from gateway.errors import NoAnswer

if TYPE_CHECKING:
    import httpx


@frozen
class Response:
    """What came back. `headers` by lower-case name; `whole`: the body was read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    duration: float


class Poster(Protocol):
    """What an uploader needs of a client."""

    async def post(self, data: bytes, token: Secret, *, deadline: float) -> Response:
        """Send a body. Raises NoAnswer."""


class Client:
    """The connection to Energinet that all senders share."""

    def __init__(self, settings: EnerginetSettings) -> None:
        self._settings = settings
        self._client: httpx.AsyncClient | None = None

    async def post(self, data: bytes, token: Secret, *, deadline: float) -> Response:
        """Send a body; `deadline`: seconds for everything together.

        Raises NoAnswer with the reason, and whether the server may have got the body.
        """
        import httpx  # at the first request: importing it takes as long as starting up

        began = time.monotonic()
        headers = {
            "Authorization": f"Bearer {token.reveal()}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"meter-gateway/{__version__}",
        }
        try:
            async with asyncio.timeout(deadline):
                client = self._opened()
                async with client.stream(
                    "POST", self._settings.url, content=data, headers=headers
                ) as response:
                    body, whole = await _bounded(response)
                    return Response(
                        response.status_code,
                        {name.lower(): value for name, value in response.headers.items()},
                        body,
                        whole,
                        time.monotonic() - began,
                    )
        except TimeoutError as error:
            message = f"no whole answer within {deadline:.0f} s"
            raise NoAnswer("timeout", message, sent=True) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            await self.close()
            raise _no_answer(error) from None  # its text could hold a header

    async def close(self) -> None:
        """Close the connection; the next request opens one."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _opened(self) -> httpx.AsyncClient:
        import httpx

        if self._client is None:
            settings = self._settings
            context: ssl.SSLContext | bool = True
            if settings.url.startswith("https:"):
                context = ssl.create_default_context(cafile=settings.ca)
                context.minimum_version = ssl.TLSVersion.TLSv1_2
            proxy = None
            if settings.proxy is not None:
                auth = None
                if settings.proxy.credentials is not None:
                    user, _, password = settings.proxy.credentials().reveal().partition(":")
                    auth = (quote(user, safe=""), quote(password, safe=""))
                proxy = httpx.Proxy(settings.proxy.url, auth=auth)
            self._client = httpx.AsyncClient(
                verify=context,
                proxy=proxy,
                trust_env=False,
                follow_redirects=False,
                timeout=settings.timeout / 1000,
                limits=httpx.Limits(max_connections=4, max_keepalive_connections=1),
            )
        return self._client


async def _bounded(response: httpx.Response) -> tuple[bytes, bool]:
    """At most MAX_ANSWER bytes as they came over the wire, and whether that was all."""
    import httpx

    body = b""
    if response.headers.get("content-encoding", "identity") != "identity":
        return b"", False  # we asked for none; a small packed body may be a huge one
    try:
        async for part in response.aiter_raw():
            body += part
            if len(body) > MAX_ANSWER:
                return b"", False
    except (httpx.RemoteProtocolError, httpx.ReadError):
        return body, False  # cut off: the status stands, the body does not
    return body, True


def _no_answer(error: Exception) -> NoAnswer:
    """httpx's and the system's errors as the gateway's, by what a person can do about it."""
    import httpx

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED: often our own clock.
            reason = "clock" if cause.verify_code == 9 else "tls"
            return NoAnswer(reason, cause.verify_message or "certificate", sent=False)
        if isinstance(cause, ssl.SSLError):
            return NoAnswer("tls", cause.reason or "TLS failed", sent=False)
        if isinstance(cause, OSError) and type(cause).__name__ == "gaierror":
            return NoAnswer("dns", "the name of the server is not known", sent=False)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ProxyError):
        return NoAnswer("proxy", "the proxy refused", sent=False)
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return NoAnswer("refused", "no connection to the server", sent=False)
    if isinstance(error, OSError):
        return NoAnswer("tls", error.strerror or "the file of `ca` cannot be read", sent=False)
    if isinstance(error, httpx.TimeoutException):
        return NoAnswer("timeout", "the server did not answer in time", sent=True)
    return NoAnswer("protocol", type(error).__name__, sent=True)
