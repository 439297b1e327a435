"""A round's samples → metering → one commit.

Each bus has one task, `BusRounds`, woken by the schedule or by itself for what is still missing.
What its meters make of a round goes to the `Committer`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from attrs import evolve

from gateway.clock import HOUR, SECOND, STEP, Clock, Instant, Millis, utc
from gateway.commits import Committer, either, log_failure
from gateway.errors import StoreError
from gateway.logbook import log
from gateway.metering.interval import next_poll
from gateway.metering.meter import Meter, Outcome
from gateway.metering.reading import NO_TIME, KeptSample, Reading, Sample, SeriesKey
from gateway.metering.timeless import bounded
from gateway.modbus.poller import Ask, Round
from gateway.modbus.settings import BusSettings

__all__ = ["BusRounds", "Committer", "restore"]


UNTIMED_APART: Final[Millis] = 10 * SECOND
"""While the time is not known, samples are at most so far apart, or a fifth of the interval: one is
then within a tenth of wherever a boundary will turn out to have been."""


class Asker(Protocol):
    """What asks the meters of a bus."""

    async def round(self, asks: Sequence[Ask]) -> Round:
        """One pass; one sample an ask, in any order."""


class Shelf(Protocol):
    """What is remembered of meters."""

    async def last(self) -> Mapping[SeriesKey, Reading]:
        """The reading of each series that was stored last."""

    async def states(self) -> Mapping[str, bytes]:
        """The saved states of the meters, by name."""

    async def samples(self, meter: str | None = None) -> Sequence[tuple[int, KeptSample]]:
        """Kept samples that may still be needed, with their ids, oldest first."""

    async def park_timeless(self, readings: Sequence[Reading], samples: Sequence[int]) -> None:
        """Store readings whose boot never had the time in place of the samples with these ids."""


async def restore(meters: Sequence[Meter], shelf: Shelf) -> None:
    """Let meters go on from what is stored. Once, before their rounds begin."""
    last, states, kept = await shelf.last(), await shelf.states(), await shelf.samples()
    samples: dict[str, list[Sample]] = {}
    for _, one in kept:
        if one.sample.synchronised:
            samples.setdefault(one.sample.meter, []).append(one.sample)
    for meter in meters:
        meter.restore(last, states.get(meter.name), samples.get(meter.name, []))


class BusRounds:
    """The rounds over one bus and what its meters make of them."""

    def __init__(
        self,
        bus: BusSettings,
        meters: Sequence[Meter],
        asker: Asker,
        committer: Committer,
        shelf: Shelf,
        clock: Clock,
        zone: ZoneInfo,
        before: str = "stopped",
    ) -> None:
        """`before`: why there are no values of the time before."""
        self._bus = bus
        self._meters = {meter.name: meter for meter in meters}
        self._asker = asker
        self._committer = committer
        self._shelf = shelf
        self._clock = clock
        self._zone = zone
        self._wake = asyncio.Event()
        self._stopped = False
        self._poll_is_due = False
        self._is_due = True  # a start may fall into the window of a boundary
        self._due_at: Instant = 0
        self._timed = False
        """Is the wall clock known to be right? Once it was, it is, until somebody sets it."""
        self._reason = before
        self._drift: Millis | None = None
        self._retry: Instant | None = None
        self._mend: Millis | None = None
        """When a link that is down is to be tried again: boot time, which nobody sets."""
        self._unread: set[str] = set()
        """Meters that the last poll had nothing of, since the link was down."""
        shortest = min((send.every for m in meters for send in m.settings.send), default=bus.poll)
        self._untimed_apart: Millis = max(UNTIMED_APART, shortest // 5)
        self._next_untimed: Millis = 0
        self._complained: Millis | None = None
        self._failed = False
        self._last_failure: tuple[str, Millis] = ("", 0)
        self.read = 0
        self.missed = 0

    def next(self, after: Instant) -> Instant:
        """The first instant after `after` at which the bus has something to do."""
        poll = next_poll(after, self._bus.poll, self._zone)
        return min([poll, *(meter.next_due(after) for meter in self._meters.values())])

    def due(self, at: Instant) -> None:
        """The schedule says that an instant of `next` has come. Returns at once."""
        self._poll_is_due |= next_poll(at - 1, self._bus.poll, self._zone) == at
        self._is_due, self._due_at = True, at
        self._wake.set()

    def accept(self, meter: str, *, replaced: bool) -> Outcome:
        """A person knows better than what was made of this meter."""
        outcome = self._meters[meter].accept(replaced=replaced)
        self._keep(meter, outcome)
        return outcome

    def stop(self) -> None:
        """End after the round under way."""
        self._stopped = True
        self._wake.set()

    async def run(self) -> None:
        """Ask whenever something is due, until `stop`."""
        while not self._stopped:
            self._wake.clear()
            try:
                with self._committer.round():
                    await self._turn()
                self._failed = False
            except Exception as error:  # the border of a round
                self._failed = True
                self._retry = None
                self._report(error)
            if not self._stopped:
                await either(self._wake, self._pause(), self._clock)

    def _report(self, error: Exception) -> None:
        """Once an hour, where it is the same again."""
        what, now = repr(error), self._clock.boottime()
        before, at = self._last_failure
        if what != before or now - at >= HOUR:
            self._last_failure = what, now
            log_failure(f"bus {self._bus.name}", error)

    def _pause(self) -> float | None:
        """Seconds until something open is asked again or is given up."""
        if self._failed:
            return 1.0  # whatever is wrong, it does not spin
        if not self._timed:
            return max(0, self._next_untimed - self._clock.boottime()) / 1000
        now = self._clock.now()
        ends = [m.deadline(now) for m in self._meters.values()]
        instants = [end + 1 for end in ends if end is not None]
        if self._retry is not None:
            instants.append(self._retry)
        if self._mend is not None:
            instants.append(now + self._mend - self._clock.boottime())
        return max(0, min(instants) - now) / 1000 if instants else None

    async def _turn(self) -> None:
        early = self._due_at - self._clock.now()
        if self._is_due and 0 < early <= SECOND:  # a timer may fire a little before its time
            await self._clock.sleep(early / 1000)
        now = self._clock.now()
        polled, self._poll_is_due = self._poll_is_due, False
        again = self._is_due or (self._retry is not None and now >= self._retry)
        self._is_due = False
        late: set[str] = set()
        if self._mend is not None and self._clock.boottime() >= self._mend:
            self._mend, late, again = None, self._unread, True
        if self._clock_was_set(now):
            self._reason = "clock"
            self._timed &= self._clock.synchronised()
            again = True
        if not self._timed and self._clock.synchronised():
            await self._get_time()
        if not self._timed:
            if again or self._clock.boottime() >= self._next_untimed:
                self._retry = None
                await self._sample_without_time()
            return
        self._advance(now)
        asks = self._asks(now, polled=polled, again=again, late=late)
        if asks:
            found = await self._asker.round(asks)
            if self._clock_was_set(self._clock.now()):
                self._keep_without_time(found.samples)
                self._timed, self._is_due, self._reason = False, True, "clock"
                self._wake.set()
                return
            for sample in found.samples:
                self._keep(sample.meter, self._meters[sample.meter].take(sample, now))
            # A meter that is silent makes no line too slow for the others.
            self._watch_load(found.duration - found.in_vain, polled=polled)
            self._mend_later(found, polled=polled)
            now = self._clock.now()
        retries = [meter.retry(now) for meter in self._meters.values()]
        self._retry = min((at for at in retries if at is not None), default=None)

    def _mend_later(self, found: Round, *, polled: bool) -> None:
        """A link that is down is not to wait for the next poll, nor is what this one missed."""
        if polled:
            self._unread = {sample.meter for sample in found.samples}
        self._unread = self._unread - {s.meter for s in found.samples if s.raw.blocks}
        self._mend = None
        if found.down_for is not None:
            # Never a little before its time: the link would not be tried.
            self._mend = self._clock.boottime() + int(found.down_for * SECOND) + 2

    def _clock_was_set(self, now: Instant) -> bool:
        """Since it was last looked at. The meters are told by how much, if it was believed before
        and is now."""
        drift = now - self._clock.boottime()
        before, self._drift = self._drift, drift
        if before is None or abs(drift - before) <= STEP:
            return False
        if self._timed and self._clock.synchronised():
            for meter in self._meters.values():
                meter.clock_was_set(drift - before)
        return True

    def _advance(self, now: Instant) -> None:
        for meter in self._meters.values():
            self._keep(meter.name, meter.advance(now, self._reason))
        self._reason = "bus_busy"

    def _asks(self, now: Instant, *, polled: bool, again: bool, late: Set[str]) -> list[Ask]:
        """`late`: meters whose last poll is made up for."""
        asks = []
        for meter in self._meters.values():
            open_now = meter.boundary_registers(now) if again or polled else ()
            whole = polled or meter.name in late
            registers = meter.poll_registers() if whole else open_now
            if registers:
                asks.append(Ask(meter.settings, registers, urgent=bool(open_now)))
        return asks

    def _keep(self, meter: str, outcome: Outcome) -> None:
        self.read += len(outcome.readings)
        self.missed += sum(gap.count for gap in outcome.gaps)
        self._committer.add(meter, outcome)
        for event, fields in outcome.events:
            log(event, **fields)

    def _watch_load(self, duration: float, *, polled: bool) -> None:
        if not polled or duration * 1000 <= self._bus.poll:
            return
        now = self._clock.boottime()
        if self._complained is None or now - self._complained >= HOUR:
            self._complained = now
            interval = f"{self._bus.poll / 1000:g}s"
            log("bus.overloaded", bus=self._bus.name, round=f"{duration:.1f}s", interval=interval)

    # --------------------------------------------------------------------- without a sure time

    async def _sample_without_time(self) -> None:
        """Keep what is read; what it means is told when the clock is known to be right."""
        self._next_untimed = self._clock.boottime() + self._untimed_apart
        asks = [Ask(meter.settings, meter.poll_registers()) for meter in self._meters.values()]
        found = await self._asker.round(asks)
        self._keep_without_time(found.samples)

    def _keep_without_time(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            if sample.raw.blocks:
                kept = KeptSample(evolve(sample, synchronised=False))
                self._committer.add(sample.meter, Outcome(), samples=[kept])

    async def _get_time(self) -> None:
        """The clock is right now: give the samples of this boot their time, form intervals.

        Meter by meter: after weeks without a time server all samples at once would fill the memory.
        """
        try:
            if not await self._committer.flush():
                return  # later: what is not stored has no id to restamp
            for name, meter in self._meters.items():
                await self._time_samples(meter, await self._shelf.samples(name))
        except StoreError:
            return  # later: what has got its time is not looked at again
        self._timed = True

    async def _time_samples(self, meter: Meter, kept: Sequence[tuple[int, KeptSample]]) -> None:
        now, boot = self._clock.now(), self._clock.boot_id
        booted = now - self._clock.boottime()
        untimed = [(id, one.sample) for id, one in kept if not one.sample.synchronised]
        strays = [(id, sample) for id, sample in untimed if sample.boot_id != boot]
        ours = [(id, sample) for id, sample in untimed if sample.boot_id == boot]
        before = self._reason
        if strays:
            await self._park_strays(meter, strays, booted)
            before = NO_TIME
        if not ours:
            self._keep(meter.name, meter.advance(now, before) if strays else Outcome())
            return
        ours.sort(key=lambda one: one[1].boottime)
        timed = [
            evolve(sample, at=booted + sample.boottime, synchronised=True) for _, sample in ours
        ]
        self._keep(meter.name, meter.take_late(timed, now, before))
        restamped = {id: booted + sample.boottime for id, sample in ours}
        self._committer.add("", Outcome(), restamped=restamped)

    async def _park_strays(
        self, meter: Meter, strays: Sequence[tuple[int, Sample]], booted: Instant
    ) -> None:
        """Samples of boots that ended before they had the time will never have it."""
        readings = meter.without_time(bounded([sample for _, sample in strays], booted))
        await self._shelf.park_timeless(readings, [id for id, _ in strays])
        known = meter.settled
        if known is not None and known > booted:  # by a clock that was ahead
            known = None
        after = None if known is None else utc(known)
        log(
            "clock.no_time",
            meter=meter.name, values=len(readings), after=after, before=utc(booted),
        )  # fmt: skip
