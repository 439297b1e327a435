"""The states of all senders, of those too that are not configured any more.

Energinet knows a sender by its token, whatever the configuration calls it: a token that was given
to another sender takes its slot along. And a meter that moved takes along what of it went alone in
a repeated hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Protocol

from gateway.clock import Clock, Instant, Millis
from gateway.energinet.settings import EnerginetSettings, Secret
from gateway.energinet.slot import Now, SlotState
from gateway.energinet.twins import together_alone, without
from gateway.metering.reading import Series, SeriesKey


class Shelf(Protocol):
    """Where they are kept."""

    async def slot(self, sender: str) -> bytes | None: ...

    async def slots(self) -> Mapping[str, bytes]: ...

    async def keep_slot(self, sender: str, state: bytes) -> None: ...

    async def series(self, sender: str) -> Mapping[SeriesKey, Series]: ...


class Slots:
    """What all senders of one buffer share. Raises StoreError where it reads or keeps."""

    def __init__(self, shelf: Shelf, settings: EnerginetSettings, clock: Clock) -> None:
        self.asking = asyncio.Lock()
        """Held from the look whether a token may ask until it is kept that it does."""
        self._shelf = shelf
        self._span = settings.whole_slot
        self._imports = {sender.name: sender.import_name for sender in settings.senders}
        self._clock = clock
        self._states: dict[str, SlotState] = {}
        self._loaded = False
        self._loading = asyncio.Lock()

    async def of(self, sender: str) -> SlotState:
        """The one object with a sender's state; what is changed in it has to be kept."""
        async with self._loading:
            if not self._loaded:
                for name, kept in (await self._shelf.slots()).items():
                    await self._take_up(name, kept)
                self._loaded = True
            if sender not in self._states:
                await self._take_up(sender, await self._shelf.slot(sender))
            await self._take_along(sender)
        return self._states[sender]

    async def keep(self, sender: str) -> None:
        """Have a sender's state on disk."""
        await self._shelf.keep_slot(sender, self._states[sender].pack())

    async def lose(self, sender: str) -> SlotState:
        """Nothing is known of a sender: it may have asked a moment ago."""
        state = self._states[sender] = SlotState.lost(self._now(), self._span)
        await self.keep(sender)
        return state

    def wait(self, token: Secret) -> Millis:
        """How long until a request with this token may go, whoever asked with it last."""
        now, digest = self._now(), token.digest()
        states = self._states.values()
        return max((state.wait(now) for state in states if state.asked_as == digest), default=0)

    async def take_anew(self, corrected: Mapping[str, Collection[Instant]]) -> None:
        """Of these readings, by meterID, it is not to be known any more that they went alone."""
        for sender, state in self._states.items():
            left = without(state.alone, corrected)
            if left != state.alone:
                state.alone = left
                await self.keep(sender)

    def _now(self) -> Now:
        return Now.of(self._clock)

    async def _take_up(self, sender: str, kept: bytes | None) -> None:
        """In this boot's time, and kept so at once: else each start of a crash loop would wait from
        its beginning."""
        if sender in self._states:
            return
        now = self._now()
        state = SlotState.unpack(kept, now, self._span)
        state.carry_over(now)
        if kept is not None and state.pack() != kept:
            await self._shelf.keep_slot(sender, state.pack())
        self._states[sender] = state

    async def _take_along(self, sender: str) -> None:
        """What another one, which may have sent this sender's meters before, knows of them."""
        mine = self._states[sender]
        keys = await self._shelf.series(sender)
        for name, other in self._states.items():
            import_name = self._imports.get(name)
            names = {key.meter_id for key in keys if import_name in (None, key.import_name)}
            if other is not mine and names:
                moved = {one: ranges for one, ranges in other.alone.items() if one in names}
                mine.alone = together_alone(mine.alone, moved)
                mine.alone_since = max(mine.alone_since, other.alone_since)
