"""One sender's slots: choose, persist the slot, send, settle."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from attrs import frozen

from gateway.clock import Clock, Instant, Millis, about
from gateway.energinet.answer import Answer, Row, read_answer
from gateway.energinet.batch import Batch
from gateway.energinet.choosing import Chooser, Chosen, Shows
from gateway.energinet.response import Poster, Response
from gateway.energinet.settings import EnerginetSettings, Secret, SenderSettings
from gateway.energinet.slot import Now, SlotState
from gateway.energinet.slots import Shelf, Slots
from gateway.energinet.telling import Telling
from gateway.energinet.verdicts import apply, probes_due, take_turns
from gateway.errors import GatewayError, NoAnswer, StoreError, TryLater
from gateway.logbook import log
from gateway.metering.reading import SeriesKey, Settlement

_LOOKS: Final = 10
"""How often in a slot a sender looks again: parked values become due, the clock may be set."""


class Outbox(Shows, Shelf, Protocol):
    """What an uploader needs of the buffer."""

    async def settle(self, sender: str, settlements: Sequence[Settlement], slot: bytes) -> None: ...

    async def release_flight(self, sender: str) -> None: ...

    async def waiting(self, sender: str) -> int: ...

    async def parked_series(self, sender: str) -> frozenset[SeriesKey]: ...


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
    missing: tuple[str, ...]
    """MeterIDs that answers leave out."""
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
        slots: Slots,
    ) -> None:
        """`slots`: of all senders that share the buffer."""
        self.sender = sender
        self._settings = settings
        self._outbox = outbox
        self._client = client
        self._clock = clock
        self._random = random
        self._slots = slots
        self._chooser = Chooser(sender.name, settings, outbox, clock, zone)
        self._telling = Telling(sender.name, settings.request_interval, clock)
        self._state = SlotState()
        self._parked: frozenset[SeriesKey] = frozenset()
        self._loaded = False
        self._poked = asyncio.Event()
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()
        self._since: float | None = None
        """Monotonic instant of the first value stored since the last request."""
        self._backlog = True
        self._busy_since: float | None = None
        self._resting_until = 0.0
        self._deadline: Millis = settings.deadline

    # --------------------------------------------------------------------------------- outside

    def poke(self) -> None:
        """New readings were stored."""
        if self._since is None:
            self._since = self._clock.monotonic()
        self._resting_until = 0.0
        self._poked.set()

    async def hold(self) -> None:
        """The slot was lost: a request may have been made a moment ago. Before `run`."""
        self._state = await self._slots.lose(self.sender.name)

    @contextlib.asynccontextmanager
    async def between(self) -> AsyncIterator[None]:
        """Between two requests: none is made, and nothing is in flight, until the end of it."""
        async with self._turn:
            yield

    async def take_anew(self, corrected: Mapping[str, Collection[Instant]]) -> None:
        """Readings of an hour that is shown twice were corrected, by meterID: those that went alone
        go with their twins now. Within `between`."""
        await self._load()
        await self._slots.take_anew(corrected)

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
            self._telling.last,
            self._state.failures,
            self._state.limit or self._settings.max_payload,
            tuple(sorted(self._state.probes)),
            tuple(self._state.missing),
            self._busy_since,
        )

    async def run(self) -> None:
        """Until `stop`. An error that was not expected ends one turn, not the sender."""
        interval = self._settings.request_interval / 1000
        while not self._stopping.is_set():
            try:
                await self._load()
                if await self._until_due():
                    async with self._turn:
                        if not self._stopping.is_set():
                            await self._send()
            except StoreError:  # the buffer has said so itself
                await self._pause(interval)
            except TryLater:
                continue  # another sender asked with this token: the slot is held till then
            except GatewayError as error:  # the token: no request was made, no slot used
                self._telling.unreadable(error)
                await self._pause(interval)
            except Exception as error:  # the border of one request
                where = f"sender {self.sender.name}"
                log("task.failed", task="uploader", error=repr(error), where=where)
                await self._pause(interval)

    async def once(self, *, dry_run: bool = False) -> SendReport:
        """One request now, or what it would be.

        Raises TryLater where the slot is not free, GatewayError where there is no token.
        """
        async with self._turn:
            await self._load()
            await self._look_what_is_parked()
            if dry_run:
                state = copy.deepcopy(self._state)
                chosen = await self._chooser.choose(state, self._parked)
                await self._outbox.release_flight(self.sender.name)
                return await self._report(chosen.batch)
            if wait := self._state.wait(self._now()):
                raise self._too_early(wait)
            return await self._send()

    # ------------------------------------------------------------------------------------- when

    def _now(self) -> Now:
        return Now.of(self._clock)

    def _too_early(self, wait: Millis) -> TryLater:
        return TryLater(
            f"sender {self.sender.name} may ask again in {about(wait)}",
            hint="the API allows one request in 10 minutes; `--dry-run` shows the body",
        )

    async def _load(self) -> None:
        if not self._loaded:
            self._state = await self._slots.of(self.sender.name)
            self._loaded = True

    async def _look_what_is_parked(self) -> None:
        """The buffer knows: a series may have come from another sender, or have been let go."""
        self._parked = await self._outbox.parked_series(self.sender.name)
        known, names = self._state.probes, {key.meter_id for key in self._parked}
        self._state.probes = {name: known.get(name, 0) for name in sorted(names)}

    async def _until_due(self) -> bool:
        """Wait for the slot and for something to send; False: look again."""
        interval = self._settings.request_interval
        now = self._now()
        if wait := self._state.wait(now):
            if self._state.stepped(now):
                self._state.hold(now, wait)
                await self._slots.keep(self.sender.name)
            await self._pause(min(wait, interval / _LOOKS) / 1000)
            return False
        if (rest := self._resting_until - self._clock.monotonic()) > 0:
            await self._pause(rest, wake=self._poked)
            return False
        await self._look_what_is_parked()
        due = probes_due(self._state, self._clock.now(), interval)
        self._poked.clear()  # before looking: what is stored from here on wakes it
        if not due and not await self._outbox.waiting(self.sender.name):
            if not self._poked.is_set():
                self._since = None
            self._backlog = False
            await self._pause(interval / 1000 / _LOOKS, wake=self._poked)
            return False
        if not self._backlog and self._since is not None:
            lingered = self._clock.monotonic() - self._since
            rest = self._settings.linger / 1000 - lingered
            if rest > 0:
                await self._pause(rest)
                return False
        return True

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

    # ------------------------------------------------------------------------------ one request

    async def _send(self) -> SendReport:
        token = self.sender.token()  # from its source, before each try
        try:
            async with self._slots.asking:
                if wait := self._slots.wait(token):
                    self._state.hold(self._now(), wait)
                    raise self._too_early(wait)
                take_turns(self._state)
                chosen = await self._chooser.choose(self._state, self._parked)
                self._backlog = chosen.more
                if not chosen.batch.values:
                    return await self._nothing(chosen.batch)
                first = not self._state.ever
                until = await self._take_slot(token)
            return await self._request(chosen, token, until, first=first)
        except Exception:
            with contextlib.suppress(StoreError):
                await self._outbox.release_flight(self.sender.name)
            raise

    async def _nothing(self, batch: Batch) -> SendReport:
        """What waits may not be sent now; look again later, or when there is more. No slot is used
        for that."""
        if batch.late:
            await self._settle(batch, [])
        else:
            await self._outbox.release_flight(self.sender.name)
        self._since = None
        if not self._poked.is_set():  # nothing was stored since it looked
            interval = self._settings.request_interval / 1000
            self._resting_until = self._clock.monotonic() + interval
        return await self._report(batch)

    async def _take_slot(self, token: Secret) -> Millis:
        """Have it on disk that a request is made; when in boot time that has to be over: keeping it
        may take long."""
        now, state = self._now(), self._state
        state.ever, state.asked_as = True, token.digest()
        state.hold(now, self._deadline + self._settings.request_interval)
        await self._slots.keep(self.sender.name)
        return now.boottime + self._deadline

    async def _request(
        self, chosen: Chosen, token: Secret, until: Millis, *, first: bool
    ) -> SendReport:
        settings, state, batch = self._settings, self._state, chosen.batch
        answer, response, reason = await self._post(batch, token, until)
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
        await self._settle(batch, outcome.settlements)
        if answer.row is not Row.LIST or state.missing or state.caps:
            self._backlog = True
        report = await self._report(batch, answer, reason)
        self._telling.answered(
            answer,
            batch,
            outcome,
            response=response,
            reason=reason,
            first=first,
            pending=report.waiting,
            more=chosen.more,
        )
        return report

    async def _settle(self, batch: Batch, settlements: list[Settlement]) -> None:
        aside = [
            Settlement(key, "parked", tuple(value.id for value in values), "dst")
            for key, values in batch.late.items()
        ]
        await self._outbox.settle(self.sender.name, [*settlements, *aside], self._state.pack())
        if aside:
            count = sum(len(one.ids) for one in aside)
            log("upload.ambiguous", sender=self.sender.name, meters=len(aside), values=count)

    async def _post(
        self, batch: Batch, token: Secret, until: Millis
    ) -> tuple[Answer, Response | None, str]:
        self._busy_since = self._clock.monotonic()
        try:
            left = until - self._clock.boottime()
            if left <= 0:
                return Answer(Row.SERVER), None, "buffer: it took too long to keep the slot"
            response = await self._client.post(batch.data, token, deadline=left / 1000)
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
            batch.sent,
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
