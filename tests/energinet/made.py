"""A sender, its buffer and Energinet in virtual time, over restarts, reboots and clock steps."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

from attrs import field, frozen

from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.clock import DAY, HOUR, Instant, Millis
from gateway.energinet.limits import REQUEST_INTERVAL
from gateway.energinet.response import Response
from gateway.energinet.settings import EnerginetSettings, Secret, SenderSettings
from gateway.energinet.slots import Slots
from gateway.energinet.standin import PATH, Request, StandIn
from gateway.energinet.uploader import Uploader
from gateway.errors import NoAnswer
from gateway.metering.reading import As, Commit, Reading, Series, SeriesKey
from tests.clocks import FakeClock

T = TypeVar("T")

START: Instant = 1_767_225_600_000  # 2026-01-01T00:00Z
SLOT = REQUEST_INTERVAL
SENDER = "basement"
TOKEN = "s3cret-t0ken-of-the-basement"
ZONE = "Europe/Oslo"


def settings(**more: object) -> EnerginetSettings:
    """One sender with the documented limits, unless told otherwise."""
    sender = SenderSettings(SENDER, "", lambda: Secret(TOKEN))
    fields: dict[str, object] = {"senders": (sender,), "linger": 0}
    return EnerginetSettings(**(fields | more))  # type: ignore[arg-type]


def series(
    meter_id: str,
    sender: str = SENDER,
    import_name: str = "",
    *,
    as_: As = "counter",
    every: Millis = HOUR,
) -> Series:
    key = SeriesKey(import_name, meter_id)
    return Series(key, "main", "active_energy_import_total", as_, every, sender)


def readings(meter_id: str, stamps: Sequence[Instant], import_name: str = "") -> Commit:
    """A value a stamp that tells which it is."""
    key = SeriesKey(import_name, meter_id)
    return Commit(tuple(Reading(key, at, value_of(meter_id, at)) for at in stamps))


def value_of(meter_id: str, at: Instant) -> Decimal:
    return Decimal(at // 1000 % 10_000_000) / 100 + len(meter_id)


def hours(count: int, *, before: Instant = START) -> list[Instant]:
    """So many hourly stamps, the last one at `before`."""
    return [before - (count - 1 - nth) * HOUR for nth in range(count)]


class InlineStore(Store):
    """The real store on a real file, in the loop's own thread: virtual time waits for no thread."""

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        return self._safely(work, *arguments)


@frozen
class Reply:
    """What Energinet answers, after so many seconds; `store`: it takes the values first."""

    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""
    whole: bool = True
    took: float = 1.0
    store: bool = False
    error: str = ""
    """A reason for no answer at all."""


@frozen
class Sent:
    """One request as it left, by the time that never steps."""

    began: Millis
    ended: Millis
    data: bytes
    token: str

    @property
    def values(self) -> dict[str, list[str]]:
        """MeterID to the stamps it carried."""
        return {one["meterID"]: [at for at, _ in one["values"]] for one in json.loads(self.data)}


Script = Callable[[bytes], Reply | None]


class World:
    """True time, this machine's clocks, the buffer file, a sender, and Energinet."""

    def __init__(
        self, path: Path, *, start: Instant = START, zone: str = ZONE, **more: object
    ) -> None:
        self.settings = settings(**more)
        self.path = path
        self.zone = zone
        self.clock = FakeClock(start, boottime=1_000_000)
        self._base = start - 1_000_000
        self._boots = 1
        self.standin = StandIn(
            {TOKEN: SENDER}, window=self.settings.request_interval, zone=zone, now=self.true
        )
        self.script: Script = lambda _: None
        self.sent: list[Sent] = []
        self.store = InlineStore(BufferSettings(str(path), keep=2000 * DAY), self.clock)
        self.uploader: Uploader
        """The first of them."""
        self._uploaders: list[Uploader] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._known: list[Series] = []

    # ----------------------------------------------------------------------------- this machine

    def true(self) -> Instant:
        """What time it is, whatever this machine's clock says."""
        return self._base + self.clock.boottime()

    async def start(self, *declared: Series) -> World:
        """Open the buffer and begin to send."""
        self._known += declared
        opened = await self.store.open()
        await self.store.declare(self._known)
        slots = Slots(self.store, self.settings, self.clock)
        zone, draw = ZoneInfo(self.zone), random.Random(1)
        self._uploaders = [
            Uploader(sender, self.settings, self.store, self, self.clock, zone, draw, slots)
            for sender in self.settings.senders
        ]
        self.uploader = self._uploaders[0]
        for uploader in self._uploaders if opened.slots_lost else ():
            await uploader.hold()
        self._tasks = [asyncio.create_task(uploader.run()) for uploader in self._uploaders]
        return self

    async def kill(self) -> None:
        """End without a word: nothing is settled, nothing is released."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.store.close()
        self.store = InlineStore(BufferSettings(str(self.path), keep=2000 * DAY), self.clock)

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    async def reboot(
        self, *, off: Millis = 0, wrong_by: Millis = 0, synchronised: bool = True
    ) -> None:
        """A new boot after so long, with a wall clock that is wrong by so much."""
        await self.kill()
        true = self.true() + off
        self.clock = FakeClock(true + wrong_by, boottime=5_000, synchronised=synchronised)
        self._base = true - 5_000
        self._boots += 1
        self.clock.boot_id = f"boot-{self._boots}"
        self.store = InlineStore(BufferSettings(str(self.path), keep=2000 * DAY), self.clock)
        await self.start()

    async def store_hours(self, meter_id: str, count: int, **more: Instant) -> None:
        """Store so many hourly values and tell the senders."""
        await self.store.append(readings(meter_id, hours(count, **more)))
        for uploader in self._uploaders:
            uploader.poke()

    async def slots(self, count: float) -> None:
        """Let so many slots pass."""
        await self.clock.pass_(count * self.settings.request_interval / 1000)

    async def until_sent(self, count: int, *, most: float = 200) -> None:
        """Let time pass until so many requests were answered."""
        for _ in range(int(most * 4)):
            if len(self.sent) >= count:
                return
            await self.slots(0.25)
        raise AssertionError(f"only {len(self.sent)} requests in {most} slots")

    async def end(self) -> None:
        await self.kill()

    # -------------------------------------------------------------------------------- Energinet

    async def post(self, data: bytes, token: Secret, *, deadline: float) -> Response:
        """One request over a wire that takes the time it is told to."""
        began = self.true()
        reply = self.script(data)
        headers = {
            "authorization": f"Bearer {token.reveal()}",
            "content-type": "application/json",
            "accept": "application/json",
        }
        request = Request(len(self.sent) + 1, "POST", PATH, headers, data, began)
        status, more, answer = self.standin.judge(request, take=reply is None or reply.store)
        if reply is None:
            reply = Reply(
                status, {k.lower(): v for k, v in more.items()}, json.dumps(answer).encode()
            )
        late = reply.took > deadline
        await self.clock.sleep(min(reply.took, deadline))
        self.standin.ended(self.standin.tokens[token.reveal()])
        self.sent.append(Sent(began, self.true(), data, token.reveal()))
        if late or reply.error:
            reason = "timeout" if late else reply.error
            raise NoAnswer(reason, f"{reason} on purpose", sent=True)
        return Response(reply.status, reply.headers, reply.body, reply.whole, reply.took)

    @property
    def gaps(self) -> list[float]:
        """From the end of each request to the start of the next, in slots."""
        pairs = zip(self.sent, self.sent[1:], strict=False)
        return [(b.began - a.ended) / self.settings.request_interval for a, b in pairs]

    def accept(self, data: bytes, **other: Mapping[str, object] | None) -> bytes:
        """The documented answer to a body; of some meterIDs another entry, or none at all."""
        entries = []
        for one in json.loads(data):
            name = one["meterID"]
            entry = {"meterID": name, "number_of_values": len(one["values"]), "status": 201}
            change = other.get(name, {})
            if change is not None:
                entries.append({**entry, **change})
        return json.dumps(entries).encode()
