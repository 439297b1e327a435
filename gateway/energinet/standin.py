"""A server that enforces the documented API over real HTTP or HTTPS, for the demo and for tests.

It holds what it accepted, and what rule was broken by whom. Where the documentation is silent it
does what docs/reference/energinet-api.md assumes. A script may answer in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from email.utils import formatdate
from typing import Any, Final
from zoneinfo import ZoneInfo

from attrs import define, field, frozen

from gateway.clock import Instant, Millis
from gateway.energinet.limits import MAX_BODY, REQUEST_INTERVAL, oldest_allowed

PATH: Final = "/apiImport/data"
_SLACK: Final[Millis] = 20  # two clocks of one machine, read one after the other


@frozen
class Request:
    """One request as it came over the wire."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: Instant


@frozen
class Accepted:
    """One value that was taken."""

    at: Instant
    sender: str
    meter_id: str
    stamp: str
    value: Decimal


@frozen
class Scripted:
    """An answer instead of the documented one. `raw` goes out as it is, then the line is cut."""

    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""
    delay: float = 0.0
    drip: float = 0.0
    """Seconds between the bytes of the body."""
    raw: bytes | None = None
    store: bool = False
    """The values are taken all the same: an answer that was lost on its way."""


Script = Callable[[Request], Scripted | Awaitable[Scripted | None] | None]


@define
class StandIn:
    """`tokens`: token to the name of its sender; `known`: meterIDs that exist, None for any."""

    tokens: Mapping[str, str]
    window: Millis = REQUEST_INTERVAL
    zone: str = "Europe/Oslo"
    known: set[str] | None = None
    tls: ssl.SSLContext | None = None
    script: Script | None = None
    now: Callable[[], Instant] = lambda: time.time_ns() // 1_000_000
    received: dict[str, dict[str, Decimal]] = field(factory=dict)
    """MeterID to stamp, as it was sent, to value."""
    accepted: list[Accepted] = field(factory=list)
    requests: list[Request] = field(factory=list)
    violations: list[str] = field(factory=list)
    answers: list[int] = field(factory=list)
    _ended: dict[str, Instant] = field(factory=dict)
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(factory=set)
    _tasks: set[asyncio.Task[None]] = field(factory=set)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; the address to send to."""
        self._server = await asyncio.start_server(self._serve, host, port, ssl=self.tls)
        bound = self._server.sockets[0].getsockname()[1]
        name = "localhost" if self.tls else host
        return f"{'https' if self.tls else 'http'}://{name}:{bound}{PATH}"

    async def stop(self) -> None:
        """Stop listening and cut what is open."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (request := await self._receive(reader)) is not None:
                self.requests.append(request)
                sender = self.sender_of(request)
                try:
                    if not await self._respond(request, reader, writer):
                        break
                finally:
                    if sender is not None:  # answered, cut, or left by its sender
                        self.ended(sender)
        except ValueError:
            self.violations.append("400: not HTTP/1.1")
            writer.write(b"HTTP/1.1 400 Stand-in\r\nContent-Length: 0\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError, ssl.SSLError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
            self._open.discard(writer)
            self._tasks.discard(task)

    async def _receive(self, reader: asyncio.StreamReader) -> Request | None:
        head = await reader.readline()
        if not head:
            return None
        at = self.now()
        method, path, _ = head.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Request(len(self.requests) + 1, method, path, headers, body, at)

    async def _respond(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        scripted = self.script(request) if self.script else None
        if isinstance(scripted, Awaitable):
            scripted = await scripted
        # What breaks a limit is noted, whatever the script answers.
        status, headers, answer = self.judge(request, take=scripted is None or scripted.store)
        if scripted is None:
            scripted = Scripted(status, headers, json.dumps(answer).encode())
        if scripted.delay and await _left(reader, scripted.delay):
            return False
        if scripted.raw is not None:
            writer.write(scripted.raw)
            await writer.drain()
            return False
        self.answers.append(scripted.status)
        lines = [f"HTTP/1.1 {scripted.status} Stand-in", f"Content-Length: {len(scripted.body)}"]
        date = formatdate(self.now() / 1000, usegmt=True)
        lines += ["Content-Type: application/json", f"Date: {date}"]
        lines += [f"{name}: {value}" for name, value in scripted.headers.items()]
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        if scripted.drip:
            for byte in scripted.body:
                writer.write(bytes([byte]))
                await writer.drain()
                if await _left(reader, scripted.drip):
                    return False
        else:
            writer.write(scripted.body)
        await writer.drain()
        return True

    # ------------------------------------------------------------------------------- the rules

    def sender_of(self, request: Request) -> str | None:
        """Whose token it carries; None: nobody's."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return self.tokens.get(token) if scheme == "Bearer" else None

    def ended(self, sender: str) -> None:
        """A request of this sender is over: its window runs from now."""
        self._ended[sender] = self.now()

    def judge(self, request: Request, *, take: bool) -> tuple[int, dict[str, str], Any]:
        """Status, headers and answer, as documented; what breaks a rule is noted.

        `take`: hold the values; without it the rules are only checked.
        """
        if (request.method, request.path) != ("POST", PATH):
            return self._wrong(404 if request.path != PATH else 405, "no such endpoint")
        sender = self.sender_of(request)
        if sender is None:
            return self._wrong(401, "no known token")
        last, self._ended[sender] = self._ended.get(sender), request.at
        if last is not None and request.at - last < self.window - _SLACK:
            early = self.window - (request.at - last)
            status, _, answer = self._wrong(429, f"sender {sender} asked {early} ms early")
            return status, {"Retry-After": str(-(-self.window // 1000))}, answer
        for name in ("content-type", "accept"):
            if request.headers.get(name) != "application/json":
                return self._wrong(400, f"{name} is not application/json")
        if len(request.body) > MAX_BODY:
            return self._wrong(413, f"{len(request.body)} bytes")
        try:
            sets = json.loads(request.body, parse_float=Decimal, parse_int=Decimal)
        except (ValueError, RecursionError):
            return self._wrong(400, "not JSON")
        if not isinstance(sets, list):
            return self._wrong(400, "not a list")
        names = [one.get("meterID") for one in sets if isinstance(one, dict)]
        if len(names) != len({str(name) for name in names}):
            return self._wrong(400, "a meterID stands twice")
        return 200, {}, [self._take(sender, one, request.at, take=take) for one in sets]

    def _wrong(self, status: int, what: str) -> tuple[int, dict[str, str], Any]:
        self.violations.append(f"{status}: {what}")
        return status, {}, {"message": what}

    def _take(self, sender: str, one: Any, now: Instant, *, take: bool) -> dict[str, Any]:
        fields = one if isinstance(one, dict) else {}
        meter_id, values = fields.get("meterID"), fields.get("values")
        documented = fields.keys() == {"meterID", "values"}
        if not (documented and isinstance(meter_id, str) and isinstance(values, list)):
            self.violations.append(f"form: {str(one)[:80]}")
            return {"meterID": str(meter_id), "number_of_values": 0, "status": 422}
        if self.known is not None and meter_id not in self.known:
            return {"meterID": meter_id, "number_of_values": 0, "status": 404}
        for pair in values:
            if wrong := self._wrong_value(pair, now):
                self.violations.append(f"{meter_id}: {wrong}: {str(pair)[:60]}")
                return {"meterID": meter_id, "number_of_values": 0, "status": 422}
        if len({stamp for stamp, _ in values}) != len(values):
            self.violations.append(f"{meter_id}: a dateTime stands twice in one body")
        held = self.received.setdefault(meter_id, {}) if take else {}
        for stamp, value in values if take else ():
            if held.get(stamp, value) != value:
                self.violations.append(f"{meter_id}: {stamp} was {held[stamp]}, now {value}")
            held[stamp] = value
            self.accepted.append(Accepted(now, sender, meter_id, stamp, value))
        return {"meterID": meter_id, "number_of_values": len(values), "status": 201}

    def _wrong_value(self, pair: Any, now: Instant) -> str:
        if not isinstance(pair, list) or len(pair) != 2:
            return "not [dateTime, value]"
        stamp, value = pair
        if not isinstance(value, Decimal) or not value.is_finite():
            return "not a number"
        try:
            at = datetime.fromisoformat(stamp)
        except (TypeError, ValueError, InvalidOperation):
            return "not ISO 8601"
        # Without an offset it is the site's own time; of a repeated hour the earlier one.
        moment = at if at.tzinfo else at.replace(tzinfo=ZoneInfo(self.zone))
        millis = int(moment.timestamp() * 1000)
        if millis > now + _SLACK:
            return "in the future"
        if millis < oldest_allowed(now):
            return "older than five years"
        return ""


async def _left(reader: asyncio.StreamReader, seconds: float) -> bool:
    """Let time pass; did the other end go away meanwhile?"""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return not await reader.read(1)
    return False
