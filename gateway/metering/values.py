"""The values of one meterID, whatever they are made of: which boundary they wait for.

They wait for one boundary at a time, the one that is `due`. A sample that falls into its window
answers it; when the window has ended without one, the boundary is missing. So every interval has
one reading or one gap, in order, whatever is asked, answered or slept through in between.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from attrs import define, field

from gateway.clock import DAY, Instant, Millis
from gateway.metering.interval import (
    count_boundaries,
    latest_boundary,
    next_boundary,
    previous_boundary,
    window,
)
from gateway.metering.reading import Gap, KeptSample, RawWords, Reading
from gateway.metering.settings import Label, SendSettings
from gateway.metering.source import Source

REFUSED: Final = frozenset({"exception_1", "exception_2", "exception_3"})
"""Reasons that asking again within the window does not mend."""

EMPTY: Final = frozenset({"not_available", "undecodable"})
"""Reasons that it may mend, of a meter that has just started or a bad read; not where the boundary
before was missing for the same."""


@define
class Formed:
    """What a step brings to light, gathered over the values of a meter."""

    readings: list[Reading] = field(factory=list)
    gaps: list[Gap] = field(factory=list)
    events: list[tuple[str, dict[str, object]]] = field(factory=list)
    kept: list[KeptSample] = field(factory=list)
    unsaid: bool = False
    """Was something settled that the last readings do not tell, so that state has to be saved?"""


class Values:
    """What all kinds of values have in common: the boundary that is due."""

    def __init__(self, send: SendSettings, source: Source, zone: ZoneInfo, label: Label) -> None:
        self.send = send
        self.source = source
        self.done: Instant | None = None
        """The last boundary that has its reading or gap; None before the first."""
        self.due: Instant = 0
        self.given: Instant | None = None
        """The boundary of the last reading: after `done` where the clock was set back since."""
        self.reason = ""
        """Why the last answer did not serve the boundary that is due."""
        self._was = self._now = ""
        """Why the boundary before, and the one that is being settled, has no value."""
        self._zone = zone
        self._every = send.every
        self._window = window(send.every)
        self._stamp_is_end = send.as_ == "counter" or label == "end"

    def advance(self, now: Instant, reason: str, formed: Formed) -> None:
        """Settle every boundary whose window ended before `now`.

        `reason` is for those of which nothing else is known. Begins with the interval that is
        open at `now` where there was none before, and where the clock had been ahead by more than
        a day: to wait until then would be silence as long as that.
        """
        if self.done is None or now < self.done - DAY:
            self.begin(now)
            formed.unsaid = True
        if now <= self.due + self._window:
            return
        final = latest_boundary(now, self._every, self._zone)
        if now <= final + self._window:
            final = previous_boundary(final, self._every, self._zone)
        self.missing(self.reason or reason, formed)
        if final >= self.due:
            assert self.done is not None
            first = self._stamp()
            count = count_boundaries(self.done, final, self._every, self._zone)
            self._settled(previous_boundary(final, self._every, self._zone))
            last = self._stamp() if count > 1 else None
            self._settled(final)
            formed.gaps.append(Gap(self.send.key, first, reason, last, count))
            formed.unsaid = True

    def leap(self, now: Instant, formed: Formed) -> None:
        """The clock was set: where by more than a day, begin anew and call nothing missing."""
        if self.done is not None and now > self.due + DAY:
            self.begin(now)
            formed.unsaid = True

    def begin(self, now: Instant) -> None:
        """Wait for the first boundary that can still be sampled at `now`."""
        self._settled(latest_boundary(now - self._window - 1, self._every, self._zone))

    def awaited(self, now: Instant) -> bool:
        """Is a boundary open that asking (again) may answer?"""
        return self.due <= now and not self.lasts(self.reason)

    def lasts(self, reason: str) -> bool:
        """Does asking again for the boundary that is due not mend this?"""
        return reason in REFUSED or (reason in EMPTY and reason == self._was)

    def missing(self, reason: str, formed: Formed) -> None:
        """Settle the boundary that is due without a sample."""
        raise NotImplementedError

    def restore(self, reading: Reading | None) -> None:
        """Go on after the reading that was stored last."""
        if reading is not None:
            end = self._stamp_is_end
            stamp = reading.stamp
            self._settled(stamp if end else next_boundary(stamp, self._every, self._zone))
            self.given = self.done

    def shift(self, by: Millis) -> None:
        """The clock was set by so much while it was believed, before and after."""

    def forget(self) -> None:
        """The reading that was stored last is not of this meter."""

    def saved(self) -> list[Any]:
        """What `resume` needs, for JSON."""
        return [self.done, self.given]

    def resume(self, saved: list[Any]) -> None:
        """Go on from saved state, where that is as new as the reading that was stored last."""
        if self._is_new(saved):
            self._settled(saved[0])

    def _is_new(self, saved: list[Any]) -> bool:
        return self.done is None or saved[0] >= self.done or saved[-1] == self.given

    @property
    def deadline(self) -> Instant:
        """The last instant at which the boundary that is due may be sampled."""
        return self.due + self._window

    def _stamp(self) -> Instant:
        """The stamp of the boundary that is due."""
        assert self.done is not None
        return self.due if self._stamp_is_end else self.done

    def _settled(self, boundary: Instant) -> None:
        self.done = boundary
        self.due = next_boundary(boundary, self._every, self._zone)
        self.reason = ""
        self._was, self._now = self._now, ""

    def _give(self, value: Decimal, raw: RawWords, formed: Formed) -> None:
        self.given = self.due
        formed.readings.append(Reading(self.send.key, self._stamp(), value, raw))

    def _gap(self, reason: str, formed: Formed) -> None:
        self._now = reason
        formed.gaps.append(Gap(self.send.key, self._stamp(), reason))
        formed.unsaid = True
