"""One sender's slots: choose, persist the slot, send, settle."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from attrs import frozen

from gateway.clock import Clock, Instant, Millis
from gateway.energinet.answer import Answer, Row, read_answer
from gateway.energinet.batch import Batch, Body
from gateway.energinet.client import Poster, Response
from gateway.energinet.limits import oldest_allowed
from gateway.energinet.settings import EnerginetSettings, Secret, SenderSettings
from gateway.energinet.slot import Now, SlotState
from gateway.energinet.verdicts import HOUR, Outcome, apply, left_out, probes_due
from gateway.errors import GatewayError, NoAnswer, StoreError, TryLater
from gateway.logbook import log
from gateway.metering.reading import Offer, SeriesKey, Settlement, Waiting

_LOOK: Final = 60.0
"""Seconds after which a sender with nothing to do looks again: parked values become due."""
_LOOPBACK: Final = ("127.", "localhost", "[::1]")


class Outbox(Protocol):
    """What an uploader needs of the buffer."""

    async def expire(self, before: Instant) -> int: ...

    async def collect(
        self,
        sender: str,
        offer: Callable[[Waiting], Offer],
        *,
        only: frozenset[SeriesKey] | None = None,
        probes: frozenset[SeriesKey] = frozenset(),
    ) -> None: ...

    async def settle(self, sender: str, settlements: Sequence[Settlement], slot: bytes) -> None: ...

    async def release_flight(self, sender: str) -> None: ...

    async def slot(self, sender: str) -> bytes | None: ...

    async def keep_slot(self, sender: str, state: bytes) -> None: ...

    async def waiting(self, sender: str) -> int: ...


@frozen
class SenderStatus:
    """A sender as `status` shows it."""

    name: str
    next_request: Instant | None
    """None: as soon as there is something to send."""
    last: str
    """What the last request came to: a row of the answer table, or why there was no answer."""
    failures: int
    limit: int
    parked: tuple[str, ...]
    busy_since: float | None
    """Monotonic instant at which the request under way began."""


@frozen
class SendReport:
    """What one request was, or would be."""

    sender: str
    data: bytes
    values: int
    meters: int
    waiting: int
    next_request: Instant | None
    answer: Answer | None = None
    reason: str = ""
    """Why there was no answer."""


class Uploader:
    """Sends what waits for one sender, never early, until it is confirmed."""

    def __init__(
        self,
        sender: SenderSettings,
        settings: EnerginetSettings,
        outbox: Outbox,
        client: Poster,
        clock: Clock,
        zone: ZoneInfo,
        random: random.Random,
    ) -> None:
        self.sender = sender
        self._settings = settings
        self._outbox = outbox
        self._client = client
        self._clock = clock
        self._zone = zone
        self._random = random
        self._state = SlotState()
        self._loaded = False
        self._poked = asyncio.Event()
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()
        self._since: float | None = None
        """Monotonic instant of the first value stored since the last request."""
        self._backlog = True
        self._last = ""
        self._trouble = ""
        self._trouble_since = 0.0
        self._requests_in_trouble = 0
        self._busy_since: float | None = None
        self._resting_until = 0.0
        interval = settings.request_interval
        timeout = settings.timeout
        host = settings.url.partition("://")[2]
        self._deadline: Millis = min(timeout, interval) if host.startswith(_LOOPBACK) else timeout

    # --------------------------------------------------------------------------------- outside

    def poke(self) -> None:
        """New readings were stored."""
        if self._since is None:
            self._since = self._clock.monotonic()
        self._poked.set()

    def hold(self) -> None:
        """The slot was lost: a request may have been made a moment ago. Before `run`."""
        self._state.hold(self._now(), self._deadline + self._settings.request_interval)
        self._loaded = True

    async def stop(self, grace: float) -> None:
        """No new request; one under way gets `grace` seconds, then its outcome is unknown."""
        self._stopping.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                async with self._turn:
                    pass

    def status(self) -> SenderStatus:
        """For `status`, without asking the buffer."""
        wait = self._state.wait(self._now())
        return SenderStatus(
            self.sender.name,
            self._clock.now() + wait if wait else None,
            self._last,
            self._state.failures,
            self._state.limit or self._settings.max_payload,
            tuple(sorted(self._state.probes)),
            self._busy_since,
        )

    async def run(self) -> None:
        """Until `stop`. An error that was not expected ends one turn, not the sender."""
        while not self._stopping.is_set():
            try:
                await self._load()
                if await self._until_due():
                    async with self._turn:
                        if not self._stopping.is_set():
                            await self._send()
            except StoreError:  # the buffer has said so itself
                await self._pause(self._settings.request_interval / 1000)
            except Exception as error:  # the border of one request
                where = f"sender {self.sender.name}"
                log("task.failed", task="uploader", error=repr(error), where=where)
                await self._pause(self._settings.request_interval / 1000)

    async def once(self, *, dry_run: bool = False) -> SendReport:
        """One request now, or what it would be. Raises TryLater where the slot is not free."""
        async with self._turn:
            await self._load()
            if dry_run:
                batch = await self._fill()
                await self._outbox.release_flight(self.sender.name)
                return await self._report(batch)
            if wait := self._state.wait(self._now()):
                raise TryLater(
                    f"sender {self.sender.name} may ask again in {wait / 60_000:.1f} min",
                    hint="the API allows one request in 10 minutes; `--dry-run` shows the body",
                )
            return await self._send()

    # ------------------------------------------------------------------------------------- when

    def _now(self) -> Now:
        clock = self._clock
        return Now(clock.boot_id, clock.boottime(), clock.now(), clock.synchronised())

    async def _load(self) -> None:
        if not self._loaded:
            kept = await self._outbox.slot(self.sender.name)
            span = self._deadline + self._settings.request_interval
            self._state = SlotState.unpack(kept, self._now(), span)
            self._state.carried_over(self._now())
            self._loaded = True

    async def _until_due(self) -> bool:
        """Wait for the slot and for something to send; False: look again."""
        if wait := self._state.wait(self._now()):
            await self._pause(wait / 1000)
            return False
        if (rest := self._resting_until - self._clock.monotonic()) > 0:
            await self._pause(rest)
            return False
        if not await self._outbox.waiting(self.sender.name) and not self._probes():
            self._poked.clear()
            self._since = None
            self._backlog = False
            await self._pause(_LOOK, wake=self._poked)
            return False
        if not self._backlog and self._since is not None:
            lingered = self._clock.monotonic() - self._since
            rest = self._settings.linger / 1000 - lingered
            if rest > 0:
                await self._pause(rest)
                return False
        return True

    def _rest(self, slots: float) -> None:
        """Nothing can be sent now; look again later. No slot is used for that."""
        interval = self._settings.request_interval / 1000
        self._resting_until = self._clock.monotonic() + slots * interval

    async def _pause(self, seconds: float, *, wake: asyncio.Event | None = None) -> None:
        """Sleep on the clock that was handed in, until stopped or woken."""
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(self._clock.sleep(seconds))]
        waits += [asyncio.ensure_future(event.wait()) for event in (self._stopping, wake) if event]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in waits:
                waiting.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _probes(self) -> frozenset[SeriesKey]:
        import_name = self.sender.import_name
        names = probes_due(self._state, self._clock.now())
        return frozenset(SeriesKey(import_name, name) for name in names)

    # ------------------------------------------------------------------------------ one request

    async def _fill(self) -> Batch:
        now = self._clock.now()
        await self._outbox.expire(oldest_allowed(now))
        state, import_name = self._state, self.sender.import_name
        body = Body(
            limit=state.limit or self._settings.max_payload,
            zone=self._zone,
            timestamps=self._settings.timestamps,
            per_series={SeriesKey(import_name, name): cap for name, cap in state.caps.items()},
            not_after=now,
        )
        skipped = left_out(state)
        state.oldest_turn = not state.oldest_turn
        # A meter of which one value is sent at a time sends its newest and its oldest in turn:
        # else the one at fault among the old ones would never stand alone.
        passed_over = {name for name, cap in state.caps.items() if cap == 1 and state.oldest_turn}
        self._backlog = False

        def offer(waiting: Waiting) -> Offer:
            name = waiting.key.meter_id
            if name in skipped:
                return Offer.SKIP
            if name in passed_over:
                passed_over.remove(name)
                return Offer.SKIP
            taken = body.offer(waiting)
            if taken is Offer.FULL:
                self._backlog = True
            return taken

        await self._outbox.collect(self.sender.name, offer, probes=self._probes())
        return body.encode()

    async def _send(self) -> SendReport:
        settings, state, name = self._settings, self._state, self.sender.name
        try:
            token = self.sender.token()
        except GatewayError as error:
            self._say("upload.token", "token unreadable", status="unreadable", source=str(error))
            self._last = "token unreadable"
            # No request is made, so no slot is used: only this process waits.
            self._rest(1 if state.refusals == 0 else HOUR)
            state.refusals += 1
            return await self._report(Batch(b"[]", {}))
        first = not state.ever
        batch = await self._fill()
        if not batch.values:
            await self._outbox.release_flight(name)
            state.suspects = []
            self._rest(1)
            return await self._report(batch)
        state.ever = True
        state.hold(self._now(), self._deadline + settings.request_interval)
        try:
            await self._outbox.keep_slot(name, state.pack())
        except StoreError:
            await self._outbox.release_flight(name)
            raise
        answer, response, reason = await self._post(batch, token)
        outcome = apply(
            answer,
            batch,
            state,
            interval=settings.request_interval,
            limit=settings.max_payload,
            now=self._clock.now(),
            random=self._random,
        )
        state.hold(self._now(), round(outcome.slots * settings.request_interval))
        self._since = None
        await self._outbox.settle(name, outcome.settlements, state.pack())
        if answer.row is not Row.LIST or state.missing or state.caps:
            self._backlog = True
        await self._log(answer, batch, outcome, response, reason, first=first)
        return await self._report(batch, answer, reason)

    async def _post(self, batch: Batch, token: Secret) -> tuple[Answer, Response | None, str]:
        self._busy_since = self._clock.monotonic()
        sent = {key.meter_id: len(values) for key, values in batch.values.items()}
        try:
            response = await self._client.post(
                batch.data,
                token,
                deadline=self._deadline / 1000,
            )
        except NoAnswer as error:
            return Answer(Row.SERVER), None, f"{error.reason}: {error}"
        except GatewayError as error:  # the proxy's credentials cannot be read
            return Answer(Row.SERVER), None, f"proxy: {error}"
        finally:
            self._busy_since = None
        answer = read_answer(
            response.status,
            response.headers,
            response.body,
            sent,
            whole=response.whole,
            now=self._clock.now(),
        )
        return answer, response, ""

    async def _report(
        self, batch: Batch, answer: Answer | None = None, reason: str = ""
    ) -> SendReport:
        return SendReport(
            self.sender.name,
            batch.data,
            batch.count,
            len(batch.values),
            await self._outbox.waiting(self.sender.name),
            self.status().next_request,
            answer,
            reason,
        )

    # ----------------------------------------------------------------------------------- saying

    async def _log(
        self,
        answer: Answer,
        batch: Batch,
        outcome: Outcome,
        response: Response | None,
        reason: str,
        *,
        first: bool,
    ) -> None:
        """A change is said once; what goes on is counted, and shown by `status`."""
        name = self.sender.name
        status = answer.status or None
        log("upload.request", sender=name, bytes=len(batch.data), values=batch.count, status=status)
        for event, fields in outcome.events:
            log(event, sender=name, **fields)
        retry = f"{outcome.slots * self._settings.request_interval / 60_000:.0f} min"
        if answer.row is Row.LIST:
            if self._trouble:
                took = f"{self._clock.monotonic() - self._trouble_since:.0f}s"
                requests = self._requests_in_trouble
                log("upload.recovered", sender=name, requests=requests, **{"for": took})
                self._trouble = ""
            elif not self._last:
                pending = await self._outbox.waiting(name)
                log(
                    "upload.sent",
                    sender=name,
                    values=batch.count,
                    bytes=len(batch.data),
                    meters=len(batch.values),
                    confirmed=outcome.confirmed,
                    pending=pending,
                    duration=f"{response.duration:.1f}s" if response else None,
                )
        elif answer.row is Row.TOKEN:
            self._say("upload.token", answer.row.value, status=status, source="its source")
        elif answer.row is Row.TOO_MANY and not first:
            self._say("upload.token_shared", answer.row.value)
        elif answer.row is Row.SERVER and response is None:
            why, _, text = reason.partition(": ")
            fields = {"error": text, "values": batch.count, "retry": retry}
            self._say("upload.unanswered", why, reason=why, **fields)
        elif answer.row is not Row.TOO_LARGE:
            fields = {"values": batch.count, "reason": answer.row.value, "retry": retry}
            self._say("upload.refused", f"{answer.row.value} {status}", status=status, **fields)
        self._last = reason.partition(":")[0] or answer.row.value

    def _say(self, event: str, trouble: str, **fields: object) -> None:
        if not self._trouble:
            self._trouble_since = self._clock.monotonic()
            self._requests_in_trouble = 0
        self._requests_in_trouble += 1
        if trouble != self._trouble:
            self._trouble = trouble
            log(event, sender=self.sender.name, **fields)
