"""One request to Energinet. The only file that imports httpx.

TLS is always verified and there is no switch to turn that off; nothing of the environment is used,
no proxy, no authorities, no file for the keys of TLS; redirects are not followed, so that the token
goes nowhere else; time and bytes are bounded. Each request has a connection of its own: they are
minutes apart, and none shares another's fate.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from pathlib import Path

import httpx

from gateway import __version__
from gateway.energinet.limits import MAX_ANSWER
from gateway.energinet.response import Response
from gateway.energinet.settings import EnerginetSettings, Secret
from gateway.errors import NoAnswer


class Client:
    """Makes the requests of all senders."""

    def __init__(self, settings: EnerginetSettings) -> None:
        self._settings = settings
        self._context: ssl.SSLContext | None = None

    async def post(self, data: bytes, token: Secret, *, deadline: float) -> Response:
        """Send a body; `deadline`: seconds for everything together.

        Raises NoAnswer with the reason, and whether the server may have got the body; GatewayError
        where the credentials of the proxy cannot be read.
        """
        began = time.monotonic()
        headers = {
            "Authorization": f"Bearer {token.reveal()}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"meter-gateway/{__version__}",
        }
        try:
            async with (
                asyncio.timeout(deadline),
                self._opened() as client,
                client.stream(
                    "POST", self._settings.url, content=data, headers=headers
                ) as response,
            ):
                body, whole = await _bounded(response)
                return Response(
                    response.status_code,
                    {name.lower(): value for name, value in response.headers.items()},
                    body,
                    whole,
                    time.monotonic() - began,
                )
        except TimeoutError:
            message = f"no whole answer within {deadline:.0f} s"
            raise NoAnswer("timeout", message, sent=True) from None
        except (httpx.HTTPError, OSError) as error:
            self._context = None  # certificates may be mended on disk before the next request
            raise _no_answer(error) from None  # its text could hold a header

    def _opened(self) -> httpx.AsyncClient:
        settings = self._settings
        if self._context is None:
            # Reading the authorities takes longer than a request: once for all requests.
            self._context = _context(settings.ca)
        proxy = None
        if settings.proxy is not None:
            auth = None
            if settings.proxy.credentials is not None:
                user, _, password = settings.proxy.credentials().reveal().partition(":")
                auth = (user, password)
            secure = settings.proxy.url.startswith("https:")
            context = self._context if secure else None
            proxy = httpx.Proxy(settings.proxy.url, auth=auth, ssl_context=context)
        return httpx.AsyncClient(
            verify=self._context,
            proxy=proxy,
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # noqa: S113 - one deadline for all of it is kept above
        )


def _context(ca: str | None) -> ssl.SSLContext:
    """Verifies by `ca`, or by the authorities of this machine."""
    # Not ssl.create_default_context: SSLKEYLOGFILE, SSL_CERT_FILE and SSL_CERT_DIR would be heard.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is not None:
        context.load_verify_locations(ca)
        return context
    # Where OpenSSL itself was built to look, which on Debian is a link to /etc/ssl/certs.
    built = ssl.get_default_verify_paths()
    if Path(built.openssl_cafile).is_file():
        context.load_verify_locations(cafile=built.openssl_cafile)
    if Path(built.openssl_capath).is_dir():
        context.load_verify_locations(capath=built.openssl_capath)
    return context


async def _bounded(response: httpx.Response) -> tuple[bytes, bool]:
    """At most MAX_ANSWER bytes as they came over the wire, and whether that was all."""
    body = bytearray()
    if response.headers.get("content-encoding", "identity") != "identity":
        return b"", False  # we asked for none; a small packed body may be a huge one
    try:
        async for part in response.aiter_raw():
            body += part
            if len(body) > MAX_ANSWER:
                return b"", False
    except (httpx.RemoteProtocolError, httpx.ReadError):
        return bytes(body), False  # cut off: the status stands, the body does not
    return bytes(body), True


def _no_answer(error: Exception) -> NoAnswer:
    """httpx's and the system's errors as the gateway's, by what a person can do about it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            # X509_V_ERR_CERT_NOT_YET_VALID: our own clock is late, as after a boot without one.
            reason = "clock" if cause.verify_code == 9 else "tls"
            return NoAnswer(reason, cause.verify_message or "certificate", sent=False)
        if isinstance(cause, ssl.SSLError):
            return NoAnswer("tls", cause.reason or "TLS failed", sent=False)
        if isinstance(cause, socket.gaierror):
            return NoAnswer("dns", "the name of the server is not known", sent=False)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ProxyError):
        return NoAnswer("proxy", "the proxy refused", sent=False)
    if isinstance(error, httpx.ConnectError):
        return NoAnswer("refused", "no connection to the server", sent=False)
    if isinstance(error, OSError):
        return NoAnswer("tls", error.strerror or "the file of `ca` cannot be read", sent=False)
    return NoAnswer("protocol", type(error).__name__, sent=True)
