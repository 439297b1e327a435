"""What a sender holds though the buffer would let it go: one of two values with the same stamp."""

from __future__ import annotations

from typing import Protocol
from zoneinfo import ZoneInfo

from attrs import evolve

from gateway.energinet.choosing import Shows, twins_of
from gateway.energinet.settings import EnerginetSettings
from gateway.energinet.slot import Now, SlotState
from gateway.energinet.twins import Fate
from gateway.metering.reading import Counts, Waiting


class Pending(Shows, Protocol):
    """What is asked of the buffer about what waits."""

    async def slot(self, sender: str) -> bytes | None: ...


async def with_held(
    counts: Counts, pending: Pending, settings: EnerginetSettings, zone: ZoneInfo, now: Now
) -> Counts:
    """The counts with what is held for its stamp, which a second value will have too: of that the
    buffer does not know."""
    if settings.timestamps != "local":
        return counts
    held = counts.held
    for sender in settings.senders:
        state = SlotState.unpack(await pending.slot(sender.name), now, settings.request_interval)
        seen: list[Waiting] = []
        twins = await twins_of(
            pending, sender.name, settings, zone, state, now.wall,
            sure=now.synchronised, looked_at=seen.append,
        )  # fmt: skip
        held += sum(twins.fate(waiting) is Fate.HELD for waiting in seen)
    return evolve(counts, held=held)
