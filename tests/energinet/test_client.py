"""One request over real sockets: TLS, proxies, redirects, hostile answers, and a token unseen."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import logging
import shutil
import socket
import ssl
import subprocess
import time
import traceback
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway import __version__
from gateway.energinet import late
from gateway.energinet.answer import Row, read_answer
from gateway.energinet.client import Client
from gateway.energinet.limits import MAX_ANSWER, MAX_COMMAS
from gateway.energinet.response import Response
from gateway.energinet.settings import EnerginetSettings, Proxy, Secret
from gateway.energinet.standin import Scripted, StandIn
from gateway.errors import GatewayError, NoAnswer
from tests.conftest import Authority

TOKEN = "s3cret-t0ken-of-the-basement"
BODY = b'[{"meterID":"7777777777","values":[["2026-01-01T00:00",45]]}]'
GENEROUS = 30
"""Seconds: nothing here takes that long, on any machine."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def post(url: str, deadline: float = GENEROUS, **more: object) -> Response:
    client = Client(EnerginetSettings((), url, **more))  # type: ignore[arg-type]
    return await client.post(BODY, Secret(TOKEN), deadline=deadline)


async def refused(url: str, deadline: float = GENEROUS, **more: object) -> str:
    """The reason why there is no answer, told without the token."""
    with pytest.raises(NoAnswer) as caught:
        await post(url, deadline, **more)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert TOKEN not in told
    return caught.value.reason


@pytest.fixture(autouse=True)
def token_in_no_log(caplog: pytest.LogCaptureFixture) -> object:
    """Whatever happens, no logger of any library shows the token, not even at debug level."""
    caplog.set_level(logging.DEBUG)
    yield
    assert TOKEN not in caplog.text
    for record in caplog.records:
        assert TOKEN not in repr(record.__dict__)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """`await serve(handler)`: its address; `tls`: a context of the server."""
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[None]] = set()

    async def start(handler: Serve, tls: ssl.SSLContext | None = None) -> str:
        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            # Cancelled is ended: Python 3.11's streams would log it as an error.
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await handler(reader, writer)
            writer.transport.abort()
            tasks.discard(task)

        server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=tls)
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        return f"https://localhost:{port}/" if tls else f"http://127.0.0.1:{port}/"

    yield start
    for server in servers:
        server.close()
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """The whole request."""
    head = await reader.readuntil(b"\r\n\r\n")
    return head + await reader.readexactly(len(BODY))


def context(pem: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(pem)
    return made


class Recorder:
    """A relay that keeps every byte that the client sends."""

    def __init__(self, to: str) -> None:
        self.seen = b""
        self._port = int(to.partition("//")[2].partition(":")[2].partition("/")[0])

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)

        async def up() -> None:
            while data := await reader.read(65536):
                self.seen += data
                back.write(data)
            back.write_eof()

        async def down() -> None:
            while data := await there.read(65536):
                writer.write(data)

        ways = [asyncio.create_task(up()), asyncio.create_task(down())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            await writer.drain()
        finally:
            back.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def assert_nothing_in_clear(self) -> None:
        assert self.seen, "the client did not come"
        for secret in (TOKEN.encode(), BODY, b"Bearer", b"7777777777"):
            assert secret not in self.seen


@pytest.fixture
async def standin(tls_authority: Authority) -> AsyncIterator[StandIn]:
    """Energinet over HTTPS, with a certificate for localhost."""
    made = StandIn({TOKEN: "basement"}, tls=context(tls_authority.issue("localhost")))
    yield made
    await made.stop()


# -------------------------------------------------------------------------------- the request


async def test_a_request_is_as_documented(standin: StandIn, tls_authority: Authority) -> None:
    response = await post(await standin.start(), ca=str(tls_authority.ca))
    assert (response.status, response.whole) == (200, True)
    assert response.body == (b'[{"meterID": "7777777777", "number_of_values": 1, "status": 201}]')
    [request] = standin.requests
    assert (request.method, request.path, request.body) == ("POST", "/apiImport/data", BODY)
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "application/json"
    assert request.headers["content-length"] == str(len(BODY))
    assert request.headers["user-agent"] == f"meter-gateway/{__version__}"
    assert standin.violations == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_nobody_goes_there(
    standin: StandIn, tls_authority: Authority, serve: Callable[..., Awaitable[str]], status: int
) -> None:
    visits: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        visits.append(await reader.read(10))

    url = await serve(elsewhere)
    standin.script = lambda _: Scripted(status, {"Location": url})
    response = await post(await standin.start(), ca=str(tls_authority.ca))
    assert response.status == status
    assert read_answer(status, response.headers, response.body, {}).row is Row.REDIRECT
    await asyncio.sleep(0.05)
    assert visits == []
    assert len(standin.requests) == 1


async def test_one_senders_failure_does_not_cut_the_request_of_another(
    serve: Callable[..., Awaitable[str]],
) -> None:
    first = asyncio.Event()
    arrived = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        if not arrived.is_set():
            arrived.set()
            await first.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
            await writer.drain()

    client = Client(EnerginetSettings((), await serve(handler)))
    slow = asyncio.create_task(client.post(BODY, Secret(TOKEN), deadline=GENEROUS))
    await arrived.wait()
    with pytest.raises(NoAnswer):
        await client.post(BODY, Secret(TOKEN), deadline=GENEROUS)
    first.set()
    assert (await slow).body == b"[]"


# ---------------------------------------------------------------------------------------- TLS


@pytest.mark.parametrize("fault", ["expired", "not yet valid", "wrong host", "unknown authority"])
async def test_a_certificate_that_is_not_right_gets_no_byte_in_clear(
    tls_authority: Authority,
    tmp_path: Path,
    serve: Callable[..., Awaitable[str]],
    fault: str,
    expected_events: Callable[..., None],
) -> None:
    now = datetime.now(UTC)
    pem = {
        "expired": lambda: tls_authority.issue("localhost", not_after=now - timedelta(days=1)),
        "not yet valid": lambda: tls_authority.issue(
            "localhost", not_before=now + timedelta(days=1)
        ),
        "wrong host": lambda: tls_authority.issue("energinet.example"),
        "unknown authority": lambda: _other(tmp_path).issue("localhost"),
    }[fault]()
    standin = StandIn({TOKEN: "basement"}, tls=context(pem))
    relay = Recorder(await standin.start())
    url = (await serve(relay)).replace("http://127.0.0.1", "https://localhost")
    try:
        reason = await refused(url, ca=str(tls_authority.ca))
    finally:
        await standin.stop()
    # "Not yet valid" is what a machine sees whose own clock is late.
    assert reason == ("clock" if fault == "not yet valid" else "tls")
    relay.assert_nothing_in_clear()
    assert standin.requests == []


def _other(folder: Path) -> Authority:
    (folder / "other").mkdir()
    return Authority(folder / "other")


async def test_the_machines_own_authorities_are_asked_where_none_is_configured(
    standin: StandIn,
) -> None:
    assert await refused(await standin.start()) == "tls"
    assert standin.requests == []


async def test_an_old_version_of_tls_is_refused(
    tls_authority: Authority, serve: Callable[..., Awaitable[str]]
) -> None:
    old = context(tls_authority.issue("localhost"))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # In a thread, since asyncio cuts the line without the alert that a server sends.
        serving = asyncio.create_task(asyncio.to_thread(_shake_hands, listening, old))
        relay = Recorder(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        url = (await serve(relay)).replace("http://127.0.0.1", "https://localhost")
        assert await refused(url, ca=str(tls_authority.ca)) == "tls"
        assert "version" in await serving or "protocol" in await serving
    relay.assert_nothing_in_clear()


def _shake_hands(listening: socket.socket, tls: ssl.SSLContext) -> str:
    listening.settimeout(GENEROUS)
    connection, _ = listening.accept()
    with connection:
        connection.settimeout(GENEROUS)
        try:
            with tls.wrap_socket(connection, server_side=True) as secured:
                return f"spoke {secured.version()}"
        except OSError as error:
            return str(error).lower()


async def test_a_server_that_speaks_no_tls_gets_no_byte_in_clear(
    tls_authority: Authority, serve: Callable[..., Awaitable[str]]
) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whatever came: a greeting holds a newline only by chance, and no server waits for one.
        await reader.read(65536)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    relay = Recorder(await serve(plain))
    url = (await serve(relay)).replace("http://127.0.0.1", "https://localhost")
    assert await refused(url, ca=str(tls_authority.ca)) == "tls"
    relay.assert_nothing_in_clear()


async def test_authorities_mended_on_disk_are_used_at_the_next_request(
    standin: StandIn, tls_authority: Authority, tmp_path: Path
) -> None:
    ca = tmp_path / "configured.pem"
    settings = EnerginetSettings((), await standin.start(), ca=str(ca))
    client = Client(settings)
    for found in (None, b"", _other(tmp_path).ca.read_bytes()):
        if found is not None:
            ca.write_bytes(found)
        with pytest.raises(NoAnswer) as caught:
            await client.post(BODY, Secret(TOKEN), deadline=GENEROUS)
        assert caught.value.reason == "tls"
    ca.write_bytes(tls_authority.ca.read_bytes())
    assert (await client.post(BODY, Secret(TOKEN), deadline=GENEROUS)).status == 200


# ---------------------------------------------------------------------------------------- proxy


class ConnectProxy:
    """A proxy that asks for a password."""

    def __init__(self, password: str) -> None:
        self._expected = b"Basic " + base64.b64encode(password.encode())
        self.asked: list[bytes] = []
        self.relay: Recorder | None = None

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        first, *lines = head.split(b"\r\n")
        given = dict(line.split(b": ", 1) for line in lines if line)
        if given.get(b"Proxy-Authorization") != self._expected:
            writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        self.relay = Recorder(f"http://{first.split()[1].decode()}/")
        await self.relay(reader, writer)


async def test_a_proxy_is_told_the_host_and_the_password_and_nothing_else(
    standin: StandIn, tls_authority: Authority, serve: Callable[..., Awaitable[str]]
) -> None:
    password = "käthe:p@ss/w:rd 100%"
    proxy = ConnectProxy(password)
    url = await standin.start()
    address = await serve(proxy)
    response = await post(
        url, ca=str(tls_authority.ca), proxy=Proxy(address, lambda: Secret(password))
    )
    assert response.status == 200
    [asked] = proxy.asked
    assert asked.startswith(b"CONNECT localhost:")
    assert TOKEN.encode() not in asked
    assert proxy.relay is not None
    proxy.relay.assert_nothing_in_clear()


async def test_a_proxy_that_refuses_is_named_and_its_password_is_not(
    standin: StandIn,
    tls_authority: Authority,
    serve: Callable[..., Awaitable[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy = ConnectProxy("someone:else")
    settings = EnerginetSettings(
        (), await standin.start(), ca=str(tls_authority.ca),
        proxy=Proxy(await serve(proxy), lambda: Secret("user:hunter2")),
    )  # fmt: skip
    with pytest.raises(NoAnswer) as caught:
        await Client(settings).post(BODY, Secret(TOKEN), deadline=GENEROUS)
    assert caught.value.reason == "proxy"
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "hunter2" not in told
    assert standin.requests == []


async def test_credentials_of_a_proxy_that_cannot_be_read_are_the_callers_to_tell(
    standin: StandIn,
) -> None:
    def unreadable() -> Secret:
        raise GatewayError("the credentials of the proxy: its file cannot be read")

    with pytest.raises(GatewayError, match="credentials"):
        await post(await standin.start(), proxy=Proxy("http://127.0.0.1:9", unreadable))


async def test_the_environment_names_no_proxy_and_no_authorities_and_gets_no_keys(
    standin: StandIn, tls_authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = await standin.start()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_authority.ca))
    monkeypatch.setenv("SSL_CERT_DIR", str(hashed(tls_authority.ca, tmp_path / "named")))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert await refused(url) == "tls"
    assert (await post(url, ca=str(tls_authority.ca))).status == 200
    assert not (tmp_path / "keys").exists()


def hashed(ca: Path, folder: Path) -> Path:
    """A folder in which OpenSSL finds this authority."""
    folder.mkdir()
    asked = ["openssl", "x509", "-noout", "-subject_hash", "-in", ca]
    name = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    shutil.copy(ca, folder / f"{name}.0")
    return folder


@pytest.mark.parametrize("where", ["file", "folder", "nowhere"])
async def test_the_machines_authorities_are_where_its_openssl_was_built_to_look(
    standin: StandIn, tls_authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    where: str, debian: Callable[[str, str], None],
) -> None:  # fmt: skip
    debian("openssl", "openssl")
    folder = hashed(tls_authority.ca, tmp_path / "certs")
    built = ssl.get_default_verify_paths()._replace(
        openssl_cafile=str(tls_authority.ca if where == "file" else tmp_path / "cert.pem"),
        openssl_capath=str(folder if where == "folder" else tmp_path / "no-certs"),
    )
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: built)
    url = await standin.start()
    if where == "nowhere":
        assert await refused(url) == "tls"
    else:
        assert (await post(url)).status == 200


async def test_loading_the_client_takes_of_the_deadline_of_the_first_request(
    standin: StandIn, tls_authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = late._client
    given: list[float] = []

    class Noting(Client):
        async def post(self, data: bytes, token: Secret, *, deadline: float) -> Response:
            given.append(deadline)
            return await super().post(data, token, deadline=deadline)

    def slowly(settings: EnerginetSettings) -> Client:
        time.sleep(0.3)
        load(settings)
        return Noting(settings)

    monkeypatch.setattr(late, "_client", slowly)
    client = late.LateClient(EnerginetSettings((), await standin.start(), ca=str(tls_authority.ca)))
    with pytest.raises(NoAnswer) as caught:  # the slot was kept for a request of this length
        await client.post(BODY, Secret(TOKEN), deadline=0.2)
    assert (caught.value.reason, given, standin.requests) == ("timeout", [], [])
    client._client = None
    assert (await client.post(BODY, Secret(TOKEN), deadline=GENEROUS)).status == 200
    assert given[0] <= GENEROUS - 0.3
    assert (await client.post(BODY, Secret(TOKEN), deadline=GENEROUS)).status == 429
    assert GENEROUS - 0.3 < given[1] <= GENEROUS


# ------------------------------------------------------------------------------ hostile answers


def peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000
    raise AssertionError("no VmHWM")


@pytest.mark.parametrize("chunked", [True, False])
async def test_of_an_answer_of_a_gigabyte_a_megabyte_is_read(
    serve: Callable[..., Awaitable[str]], chunked: bool
) -> None:
    wrote = 0
    gigabyte = 1 << 30

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal wrote
        await request_of(reader)
        how = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % gigabyte
        writer.write(b"HTTP/1.1 200 OK\r\n" + how + b"\r\n\r\n")
        part = b"[" * 65536
        framed = b"%x\r\n%s\r\n" % (len(part), part) if chunked else part
        while wrote < gigabyte:
            writer.write(framed)
            await writer.drain()
            wrote += len(part)

    url = await serve(handler)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_mb()
    response = await post(url)
    assert (response.status, response.whole, response.body) == (200, False, b"")
    assert wrote < 64 * MAX_ANSWER, "the rest was not waited for"
    assert peak_mb() - before < 30
    row = read_answer(200, response.headers, response.body, {"7": 1}, whole=response.whole).row
    assert row is Row.UNREADABLE


async def test_an_answer_in_chunks_of_a_byte_costs_no_more_than_its_bytes(
    serve: Callable[..., Awaitable[str]],
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            writer.write(b"1\r\n \r\n" * 5_000)
            await writer.drain()
        writer.write(b"2\r\n[]\r\n0\r\n\r\n")
        await writer.drain()

    response = await post(await serve(handler))
    assert response.whole
    assert response.body.strip() == b"[]"


async def test_a_packed_answer_is_not_unpacked(serve: Callable[..., Awaitable[str]]) -> None:
    bomb = gzip.compress(b" " * 50_000_000)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(bomb) + bomb)
        await writer.drain()

    response = await post(await serve(handler))
    assert (response.body, response.whole) == (b"", False)


async def test_a_deeply_nested_answer_confirms_nothing(standin: StandIn) -> None:
    standin.tls = None
    standin.script = lambda _: Scripted(body=b"[" * 100_000 + b"]" * 100_000)
    response = await post(await standin.start())
    assert response.whole
    assert read_answer(200, response.headers, response.body, {"7": 1}).row is Row.UNREADABLE


async def test_a_megabyte_of_empty_objects_is_read_in_bounded_memory(standin: StandIn) -> None:
    standin.tls = None
    lengths = (MAX_COMMAS, 349_000)
    standin.script = lambda r: Scripted(body=b"[" + b"{}," * lengths[r.number - 1] + b"{}]")
    url = await standin.start()
    few, many = [await post(url) for _ in lengths]
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_mb()
    answer = read_answer(200, few.headers, few.body, {"7": 1}, whole=few.whole)
    assert answer.verdicts["7"].kind == "missing"
    answer = read_answer(200, many.headers, many.body, {"7": 1}, whole=many.whole)
    assert answer.row is Row.UNREADABLE
    assert peak_mb() - before < 80


def says(data: bytes, *, drip: float = 0, stay: float = 60) -> Serve:
    """A server that says this, perhaps a byte at a time, and then nothing for a while."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        for byte in data if drip else ():
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(drip)
        if not drip:
            writer.write(data)
            await writer.drain()
        await asyncio.sleep(stay)

    return handler


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    "handler",
    [
        says(b""),
        says(HEAD + b" " * 1000, drip=0.05),
        says(HEAD + b"["),
        says(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 2000, drip=0.05),
        says(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, drip=0.001),
    ],
    ids=["says nothing", "a byte at a time", "stops", "headers a byte at a time", "continue, …"],
)
async def test_one_deadline_holds_for_everything_together(
    serve: Callable[..., Awaitable[str]], handler: Serve
) -> None:
    url = await serve(handler)
    began = time.monotonic()
    assert await refused(url, deadline=0.5) == "timeout"
    assert 0.5 <= time.monotonic() - began < GENEROUS


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (HEAD + b"[", 200),
        (HEAD, 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1", 200),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 99\r\n\r\n{}", 503),
    ],
)
async def test_of_a_body_that_is_cut_off_the_status_stands(
    serve: Callable[..., Awaitable[str]], data: bytes, status: int
) -> None:
    response = await post(await serve(says(data, stay=0)))
    assert (response.status, response.whole) == (status, False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"\x00" * 1000,
    ],
)
async def test_what_is_not_http_is_no_answer(
    serve: Callable[..., Awaitable[str]], data: bytes
) -> None:
    assert await refused(await serve(says(data, stay=0))) == "protocol"


async def test_an_answer_before_the_whole_body_was_sent_is_an_answer(
    serve: Callable[..., Awaitable[str]],
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        while await reader.read(65536):
            pass

    client = Client(EnerginetSettings((), await serve(handler)))
    response = await client.post(b" " * 5_000_000, Secret(TOKEN), deadline=GENEROUS)
    assert response.status == 413


# ------------------------------------------------------------------------------ nobody there


async def test_nobody_listening_is_refused_and_a_name_nobody_knows_is_dns(
    free_tcp_port: int,
) -> None:
    assert await refused(f"http://127.0.0.1:{free_tcp_port}/") == "refused"
    assert await refused("https://energinet.invalid/") == "dns"


async def test_a_token_that_cannot_stand_in_a_header_is_not_shown(
    serve: Callable[..., Awaitable[str]],
) -> None:
    client = Client(EnerginetSettings((), await serve(says(b""))))
    with pytest.raises(NoAnswer) as caught:
        await client.post(BODY, Secret(f"{TOKEN}\r\nX-Evil: 1"), deadline=GENEROUS)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert caught.value.reason == "protocol"
