"""The hourly line: what was read and sent since the last one, and where every value is."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from gateway.buffer.store import Store
from gateway.clock import Clock
from gateway.energinet.holding import with_held
from gateway.energinet.slot import Now
from gateway.logbook import log
from gateway.modbus.figures import worst
from gateway.plant import Plant
from gateway.status import iso, online


class Summary:
    """Counts from one hour to the next."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._read = self._missed = self._confirmed = 0
        """What there was at the last line."""

    async def begin(self, store: Store) -> None:
        """What was sent before this start is not of this hour. Raises StoreError."""
        self._confirmed = (await store.counts()).confirmed

    def carry(self, ended: Plant) -> None:
        """A plant ended, and the next one counts anew: what it had read is of this hour."""
        self._read -= sum(rounds.read for rounds in ended.rounds.values())
        self._missed -= sum(rounds.missed for rounds in ended.rounds.values())

    async def say(self, plant: Plant, store: Store) -> None:
        """Write the line; where the sums of the buffer do not add up, say that too."""
        counts = await store.check_counts()
        config, now = plant.config, Now.of(self._clock)
        zone = ZoneInfo(config.timezone)
        counts = await with_held(counts, store, config.energinet, zone, now)
        read = sum(rounds.read for rounds in plant.rounds.values())
        missed = sum(rounds.missed for rounds in plant.rounds.values())
        dropped = sum(counts.dropped.values())
        sums = {
            "stored": counts.stored,
            "pending": counts.pending,
            "in_flight": counts.in_flight,
            "confirmed": counts.confirmed,
            "parked": counts.parked,
            "dropped": dropped,
        }
        waiting = (await store.pending_by_sender()).values()
        oldest = min((at for _, at in waiting if at is not None), default=None)
        senders = [uploader.status() for uploader in plant.uploaders.values()]
        log(
            "gateway.summary",
            read=read - self._read,
            missed=missed - self._missed,
            sent=counts.confirmed - self._confirmed,
            **sums,
            held=counts.held,
            balanced="yes" if counts.balanced else "no",
            oldest=iso(oldest),
            meters_online=sum(online(plant).values()),
            meters=len(plant.meters),
            **worst((poller.link(), poller.units()) for poller in plant.pollers.values()),
            left_out=sum(len(sender.missing) for sender in senders) or None,
            clock="synchronised" if self._clock.synchronised() else "not synchronised",
            buffer_bytes=store.size,
            next_request=iso(
                min((s.next_request for s in senders if s.next_request), default=None)
            ),
        )
        if not counts.balanced:
            log("gateway.unbalanced", **sums)
        self._read, self._missed, self._confirmed = read, missed, counts.confirmed
