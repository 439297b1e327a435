"""Which of the waiting values the next body carries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from attrs import frozen

from gateway.clock import DAY, MINUTE, Clock, Instant, Millis
from gateway.energinet.batch import Batch, Body
from gateway.energinet.limits import oldest_allowed
from gateway.energinet.settings import EnerginetSettings
from gateway.energinet.slot import SlotState
from gateway.energinet.twins import PATIENCE, Night, Twins, with_more
from gateway.energinet.verdicts import A_DAY, on_trial, probes_due
from gateway.metering.interval import repeats
from gateway.metering.reading import Offer, Series, SeriesKey, Waiting

_STEP: Final[Millis] = MINUTE
"""Wall and boot time that move apart by more than this were set apart."""

_SMALLEST_VALUE: Final = 22
"""Bytes that a value without an offset takes in a body at least."""


class Shows(Protocol):
    """What looking at what waits needs of the buffer."""

    async def collect(
        self,
        sender: str,
        offer: Callable[[Waiting], Offer],
        *,
        only: frozenset[SeriesKey] | None = None,
        probes: frozenset[SeriesKey] = frozenset(),
        within: tuple[Instant, Instant] | None = None,
    ) -> None: ...

    async def series(self, sender: str) -> Mapping[SeriesKey, Series]: ...


@frozen
class Chosen:
    """A body, and whether more waits than it holds."""

    batch: Batch
    more: bool


class Chooser:
    """Fills the bodies of one sender."""

    def __init__(
        self, sender: str, settings: EnerginetSettings, shows: Shows, clock: Clock, zone: ZoneInfo
    ) -> None:
        self._sender = sender
        self._settings = settings
        self._shows = shows
        self._clock = clock
        self._zone = zone
        self._apart = clock.now() - clock.boottime()
        self._stepped: float | None = None

    async def choose(self, state: SlotState, parked: frozenset[SeriesKey]) -> Chosen:
        """The newest of each meter, then the oldest of all. What is taken is in flight.

        What is too old, or lies ahead, is passed over.
        A meterID that the last answer left out adds its backlog only where room is left.
        """
        now = self._clock.now()
        oldest = oldest_allowed(now)
        trusted = self._clock_can_be_trusted()
        due = probes_due(state, now, self._settings.request_interval)
        probes = frozenset(key for key in parked if key.meter_id in due)
        limit = min(state.limit or self._settings.max_payload, self._settings.max_payload)
        twins = Twins()
        if self._settings.timestamps == "local":
            most = limit // _SMALLEST_VALUE
            twins = await twins_of(
                self._shows, self._sender, self._settings, self._zone, state, now,
                sure=trusted, most=most, probes=probes,
            )  # fmt: skip
        while True:
            body = Body(
                limit=limit,
                zone=self._zone,
                timestamps=self._settings.timestamps,
                twins=twins,
                caps=state.caps,
                oldest=oldest,
                newest=now,
            )
            walk = _Walk(body, state)
            await self._shows.collect(self._sender, walk.offer, probes=probes)
            if walk.later and not walk.full:
                later = frozenset(walk.later)
                await self._shows.collect(self._sender, walk.offer_more, only=later)
            for night in twins.nights:
                if owed := body.owed(night.repeat):
                    within = night.repeat.start, night.repeat.end
                    await self._shows.collect(
                        self._sender, body.claim, only=owed, probes=probes, within=within
                    )
            batch = body.encode()
            if batch.values or not state.suspects:
                break
            # What was to be sent does not wait any more.
            trial, state.others_first = on_trial(state), False
            state.suspects = [name for name in state.suspects if name not in trial]
        if not walk.full and not state.suspects:  # all that waits was offered
            state.missing = [name for name in state.missing if name in walk.names]
            state.caps = {name: cap for name, cap in state.caps.items() if name in walk.names}
        state.alone = with_more(state.alone, batch.alone, oldest if trusted else 0)
        return Chosen(batch, walk.full or bool(state.suspects or state.missing or state.caps))

    def _clock_can_be_trusted(self) -> bool:
        """Is a night over when it says so? Not for a day after the clock was set."""
        was, self._apart = self._apart, self._clock.now() - self._clock.boottime()
        now = self._clock.monotonic()
        if abs(self._apart - was) > _STEP:
            self._stepped = now
        a_day = A_DAY * self._settings.request_interval / 1000
        if self._stepped is not None and now - self._stepped >= a_day:
            self._stepped = None
        return self._clock.synchronised() and self._stepped is None


async def twins_of(
    shows: Shows,
    sender: str,
    settings: EnerginetSettings,
    zone: ZoneInfo,
    state: SlotState,
    now: Instant,
    *,
    sure: bool,
    most: int = 1 << 62,
    probes: frozenset[SeriesKey] = frozenset(),
    looked_at: Callable[[Waiting], None] = lambda waiting: None,
) -> Twins:
    """What waits of every hour that the site's clock has shown twice."""
    today = now // DAY * DAY
    nights: list[Night] = []
    for repeat in repeats(oldest_allowed(today) - DAY, today + 2 * DAY, zone):
        over = sure and now >= repeat.end + repeat.length + PATIENCE
        known = state.alone_since <= repeat.start
        night = Night(repeat, zone, settings.label, over, known, most)

        def see(waiting: Waiting, night: Night = night) -> Offer:
            looked_at(waiting)
            return night.see(waiting)

        within = repeat.start, repeat.end - 1
        await shows.collect(sender, see, probes=probes, within=within)
        nights.append(night)
        most -= night.names  # no body can hold more of them all
    return Twins(nights, await shows.series(sender), state.alone)


class _Walk:
    """Once over what waits."""

    def __init__(self, body: Body, state: SlotState) -> None:
        self.names: set[str] = set()
        """MeterIDs that have something waiting."""
        self._begun: set[str] = set()
        """MeterIDs whose newest was offered, or the value in its place."""
        self.later: set[SeriesKey] = set()
        """Whose backlog has not been offered to the body yet."""
        self.full = False
        self._body = body
        self._trial = on_trial(state)
        self._last = frozenset(state.suspects) if state.others_first else frozenset()
        self._missing = frozenset(state.missing)
        self._passed_over = {name for name in state.oldest_turns if state.caps.get(name) == 1}

    def offer(self, waiting: Waiting) -> Offer:
        name = waiting.key.meter_id
        first = name not in self._begun
        self.names.add(name)
        self._begun.add(name)
        if (self._trial and name not in self._trial) or name in self._last:
            return Offer.SKIP
        if first and name in self._passed_over:
            return Offer.SKIP
        if not first and name in self._missing:
            self.later.add(waiting.key)
            return Offer.SKIP
        answer = self.offer_more(waiting)
        if first and answer is Offer.EARLIER:
            self._begun.remove(name)
        return answer

    def offer_more(self, waiting: Waiting) -> Offer:
        taken = self._body.offer(waiting)
        self.full = self.full or taken is Offer.FULL
        return taken
