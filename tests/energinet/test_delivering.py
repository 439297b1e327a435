"""The whole room in real time: the store's own thread, real HTTP, slots of a third of a second."""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from attrs import evolve

from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.clock import DAY, HOUR, Clock, SystemClock
from gateway.energinet.late import LateClient
from gateway.energinet.limits import MAX_SENDERS
from gateway.energinet.settings import EnerginetSettings, Secret, SenderSettings
from gateway.energinet.slots import Slots
from gateway.energinet.standin import Request, Scripted, StandIn
from gateway.energinet.uploader import Uploader
from gateway.metering.reading import Commit, Counts, Reading, Series, SeriesKey
from tests.conftest import Authority

WINDOW = 300
SHORT = 100
ZONE = "Europe/Oslo"
GENEROUS = 90


class Site:
    """Senders as the service runs them, on one buffer and one client."""

    def __init__(self, path: Path, standin: StandIn, **more: object) -> None:
        self.clock: Clock = SystemClock(assume_synchronised=True)
        self.store = Store(BufferSettings(str(path)), self.clock)
        self.standin = standin
        self._more = more
        self._first = self.clock.now() // 1000 * 1000 - 365 * DAY
        self._put = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, *sent_by: tuple[str, str]) -> None:
        """`sent_by`: meterID and sender; a sender's token is its name."""
        url = await self.standin.start()
        names = list(dict.fromkeys(sender for _, sender in sent_by))
        senders = tuple(SenderSettings(n, "", lambda n=n: Secret(n)) for n in names)
        fields: dict[str, object] = {
            "linger": 0,
            "request_interval": WINDOW,
            "timestamps": "utc",
            "url": url,
        }
        settings = EnerginetSettings(senders, **(fields | self._more))  # type: ignore[arg-type]
        await self.store.open()
        await self.store.declare(
            [
                Series(SeriesKey("", meter), meter, "volume_total", "counter", HOUR, sender)
                for meter, sender in sent_by
            ]
        )
        client, slots = LateClient(settings), Slots(self.store, settings, self.clock)
        zone = ZoneInfo(ZONE)
        self.uploaders = [
            Uploader(one, settings, self.store, client, self.clock, zone, random.Random(1), slots)
            for one in senders
        ]
        self._tasks = [asyncio.create_task(one.run()) for one in self.uploaders]

    async def put(self, meters: list[str], count: int) -> None:
        """Store so many values of each, with stamps that none had before."""
        first = self._first + self._put * 1000
        stamps = [first + nth * 1000 for nth in range(count)]
        self._put += count
        readings = [
            Reading(SeriesKey("", meter), at, Decimal(at % 9973) / 10)
            for at in stamps
            for meter in meters
        ]
        await self.store.append(Commit(tuple(readings)))
        for one in self.uploaders:
            one.poke()

    async def until(self, done: Callable[[Counts], bool]) -> Counts:
        """Wait until the counts of the buffer are so."""
        began = time.monotonic()
        while True:
            counts = await self.store.counts()
            assert counts.balanced
            if done(counts):
                return counts
            assert time.monotonic() - began < GENEROUS, counts
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        await asyncio.gather(*(one.stop(5) for one in self.uploaders))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.store.close()
        await self.standin.stop()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path / "readings.db", StandIn({"basement": "basement"}, window=WINDOW))
    yield made
    await made.close()


def answered(request: Request, **other: dict[str, int] | None) -> bytes:
    """The documented answer, but of some meterIDs another entry or none."""
    entries = []
    for one in json.loads(request.body):
        entry = {"meterID": one["meterID"], "number_of_values": len(one["values"]), "status": 201}
        change = other.get(one["meterID"], {})
        if change is not None:
            entries.append({**entry, **change})
    return json.dumps(entries).encode()


GOOD = b'[{"meterID":"b","number_of_values":1,"status":201}]'

ROWS: dict[str, Callable[[Request], Scripted | None]] = {
    "confirmed": lambda _: None,
    "missing": lambda r: Scripted(body=answered(r, a=None), store=True),
    "empty list": lambda _: Scripted(body=b"[]", store=True),
    "short": lambda r: Scripted(body=answered(r, a={"number_of_values": 0}), store=True),
    "HTML": lambda _: Scripted(200, body=b"<html>"),
    "not JSON": lambda _: Scripted(201, body=GOOD[:-2]),
    "no list": lambda _: Scripted(body=b'{"status": 201}'),
    "over 1 MiB": lambda _: Scripted(body=b" " * 2_000_000 + GOOD),
    "too deep": lambda _: Scripted(body=b"[" * 100_000),
    "cut off": lambda _: Scripted(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + GOOD),
    "empty": lambda _: Scripted(204),
    "3xx": lambda _: Scripted(307, {"Location": "http://127.0.0.1:9/"}),
    "400": lambda _: Scripted(400),
    "422": lambda _: Scripted(422),
    "401": lambda _: Scripted(401),
    "403": lambda _: Scripted(403),
    "404": lambda _: Scripted(404),
    "405": lambda _: Scripted(405),
    "other 4xx": lambda _: Scripted(418),
    "409": lambda _: Scripted(409),
    "409 again": lambda _: Scripted(409),
    "the third 409": lambda _: Scripted(409),
    "413": lambda _: Scripted(413),
    "429 in seconds": lambda _: Scripted(429, {"Retry-After": "1"}),
    "429 with a date": lambda _: Scripted(429, {"Retry-After": "Thu, 01 Jan 2026 01:00:00 GMT"}),
    "1xx": lambda _: Scripted(raw=b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "5xx": lambda _: Scripted(503, body=GOOD),
    "no answer": lambda _: Scripted(raw=b""),
    "no answer, but taken": lambda _: Scripted(raw=b"", store=True),
    "timeout": lambda _: Scripted(delay=5, store=True),  # longer than the deadline
    "refused": lambda r: Scripted(body=answered(r, a={"status": 404}), store=True),
}
"""Every row of the answer table, some in several forms. The last one takes six hours to mend."""


@pytest.fixture
async def secure(tmp_path: Path, tls_authority: Authority) -> AsyncIterator[Site]:
    """A site that sends over HTTPS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_authority.issue("localhost"))
    standin = StandIn({"basement": "basement"}, window=SHORT, tls=context)
    path = tmp_path / "readings.db"
    made = Site(path, standin, ca=str(tls_authority.ca), request_interval=SHORT)
    yield made
    await made.close()


async def test_a_course_of_every_row_of_the_answer_table_over_https_loses_nothing_and_is_not_early(
    secure: Site, expected_events: Callable[..., None]
) -> None:
    expected_events(
        "upload.refused", "upload.unanswered", "upload.token", "upload.token_shared",
        "upload.smaller", "upload.missing", "upload.short", "upload.parked",
    )  # fmt: skip
    site, course = secure, list(ROWS.values())
    site.standin.script = lambda r: course[r.number - 1](r) if r.number <= len(course) else None
    await site.open(("a", "basement"), ("b", "basement"))
    for uploader in site.uploaders:
        uploader._deadline = 2_000  # a busy machine takes longer than a slot for a handshake
    await site.put(["a", "b"], 40)
    while len(site.standin.requests) < len(course):
        await site.put(["a", "b"], 1)
        await asyncio.sleep(0.1)
    # The refused one rides along after 36 slots, and both are delivered.
    counts = await site.until(lambda c: c.confirmed == c.stored)
    assert site.standin.violations == []
    assert not counts.dropped
    held = {
        (meter, at): v for meter, some in site.standin.received.items() for at, v in some.items()
    }
    assert len(held) == counts.stored


async def test_whoever_cannot_be_reached_over_https_loses_nothing(
    secure: Site, tls_authority: Authority, expected_events: Callable[..., None]
) -> None:
    """Refused connections, an unknown host, and a certificate of another."""
    expected_events("upload.unanswered")
    site = secure
    await site.open(("a", "basement"))
    site.uploaders[0]._deadline = GENEROUS * 1000
    client = site.uploaders[0]._client
    right = site.uploaders[0]._settings
    wrong = [
        evolve(right, url="https://127.0.0.1:9/"),
        evolve(right, url="https://energinet.invalid/"),
        evolve(right, ca=None),
    ]
    reasons = []
    for settings in wrong:
        site.uploaders[0]._client = LateClient(settings)
        before = site.uploaders[0].status().last
        await site.put(["a"], 1)
        while (last := site.uploaders[0].status().last) == before:
            await asyncio.sleep(0.05)
        reasons.append(last)
    assert reasons == ["refused", "dns", "tls"]
    assert site.standin.requests == []
    assert (await site.store.counts()).confirmed == 0
    site.uploaders[0]._client = client
    await site.until(lambda c: c.confirmed == c.stored == len(wrong))
    assert site.standin.violations == []


async def test_each_of_fifty_senders_keeps_its_own_slot_on_one_client(tmp_path: Path) -> None:
    names = [f"sender-{nth}" for nth in range(MAX_SENDERS)]
    site = Site(
        tmp_path / "readings.db",
        StandIn({name: name for name in names}, window=1500),
        request_interval=1500,
    )
    # All ask at once, and none is answered before all have asked.
    arrived: set[str] = set()
    everyone = asyncio.Event()

    async def script(request: Request) -> None:
        sender = site.standin.sender_of(request)
        assert sender is not None
        arrived.add(sender)
        if len(arrived) == MAX_SENDERS:
            everyone.set()
        await asyncio.wait_for(everyone.wait(), GENEROUS)

    site.standin.script = script
    await site.open(*((f"meter-{name}", name) for name in names))
    for uploader in site.uploaders:
        uploader._deadline = GENEROUS * 1000  # a slow machine may take longer than a slot for 50
    try:
        await site.put([f"meter-{name}" for name in names], 3)
        await site.until(lambda c: c.confirmed == 3 * MAX_SENDERS)
        await site.put([f"meter-{name}" for name in names], 1)
        await site.until(lambda c: c.confirmed == c.stored > 3 * MAX_SENDERS)
    finally:
        await site.close()
    assert site.standin.violations == []
    assert len(site.standin.requests) >= 2 * MAX_SENDERS
    by_meter = {(one.sender, one.meter_id) for one in site.standin.accepted}
    assert by_meter == {(name, f"meter-{name}") for name in names}


async def test_nothing_is_left_open_by_requests_that_fail(
    site: Site, expected_events: Callable[..., None]
) -> None:
    expected_events("upload.refused", "upload.unanswered")
    cuts = [Scripted(raw=b""), Scripted(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n["),
            Scripted(delay=5), Scripted(500)]  # fmt: skip
    site.standin.script = lambda r: cuts[r.number % 4] if r.number < 12 else None
    await site.open(("a", "basement"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(8):
        await site.put(["a"], 1)
        await asyncio.sleep(0.4)
    await site.until(lambda c: c.confirmed == c.stored)
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert site.standin.violations == []
