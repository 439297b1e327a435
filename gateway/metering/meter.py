"""One configured meter: samples in, readings and gaps out.

Nothing here asks the time or touches a disk. What a meter knows follows from its last stored
readings, the polls kept for means and, where those do not tell it, a small saved state; so that it
goes on after a kill between any two samples as if nothing had been.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from attrs import astuple, define, evolve, frozen

from gateway.clock import SECOND, Instant, Millis
from gateway.metering.counted import CounterValues
from gateway.metering.counter import READS, Known, Suspect
from gateway.metering.interval import next_boundary
from gateway.metering.polled import PolledValues
from gateway.metering.reading import (
    NO_TIME,
    Gap,
    KeptSample,
    Reading,
    Sample,
    SeriesKey,
)
from gateway.metering.register import Register
from gateway.metering.settings import Label, MeterSettings
from gateway.metering.source import Found, Source
from gateway.metering.timeless import Bounded
from gateway.metering.values import Formed, Values

_VERSION: Final = 2

DOUBTED: Final = frozenset({"held", "not_available", "undecodable"})
"""Words of which nothing was made, though the meter gave them: the profile may be wrong."""


@frozen
class Outcome:
    """What a step of a meter adds to the buffer and the log."""

    readings: tuple[Reading, ...] = ()
    gaps: tuple[Gap, ...] = ()
    samples: tuple[KeptSample, ...] = ()
    events: tuple[tuple[str, Mapping[str, object]], ...] = ()
    """Names and fields for `logbook.log`."""
    state: bytes | None = None
    """To be saved in place of the meter's former state; None: that still holds."""


@frozen
class Shown:
    """A quantity as it was last read, multiplied as it is sent."""

    value: Decimal | None
    reason: str
    """Why there is no value."""
    at: Instant


@define(eq=False)
class _Measured:
    """A quantity of the meter: the values that are made of it, and how it was last read."""

    source: Source
    counters: tuple[CounterValues, ...]
    polled: tuple[PolledValues, ...]
    found: Found | None = None
    at: Instant = 0
    news: bool = False
    """Was it held just now, and not before?"""

    @property
    def why(self) -> str:
        """Why nothing was made of what it showed."""
        assert self.found is not None
        suspect = self.source.suspect
        return suspect.reason if suspect and self.found.reason == "held" else self.found.reason

    def is_due(self, asked: Instant) -> bool:
        """Was a boundary of a counter's value asked for?"""
        return any(counter.due <= asked <= counter.deadline for counter in self.counters)


class Meter:
    """A meter of the configuration. `poll` is how often its bus is polled."""

    def __init__(self, settings: MeterSettings, zone: ZoneInfo, label: Label, poll: Millis) -> None:
        self.settings = settings
        self.name = settings.name
        self._measured: dict[str, _Measured] = {}
        for quantity in dict.fromkeys(send.measured for send in settings.send):
            source = Source(settings, quantity)
            counters, polled = [], []
            for send in settings.send:
                if send.measured != quantity:
                    continue
                if send.as_ in ("counter", "consumption") and not send.integrates:
                    counters.append(CounterValues(send, source, zone, label))
                else:
                    polled.append(PolledValues(send, source, zone, label, poll))
            self._measured[quantity] = _Measured(source, tuple(counters), tuple(polled))
        self._all: tuple[Values, ...] = tuple(
            values for one in self._measured.values() for values in (*one.counters, *one.polled)
        )
        self._everies = {send.every for send in settings.send}
        self._zone = zone
        self._registers = _union(one.source for one in self._measured.values())
        self._kept = _union(one.source for one in self._measured.values() if one.polled)
        self._unions: dict[tuple[str, ...], tuple[Register, ...]] = {}
        self._place = [settings.bus, settings.unit]
        """Another one, another meter: what was known of the former is not taken for it."""
        self._unsaid = False
        """Is state to be saved with the next step?"""

    # ------------------------------------------------------------------------------- asking

    def poll_registers(self) -> tuple[Register, ...]:
        """What to read at a poll."""
        return self._registers

    def boundary_registers(self, now: Instant) -> tuple[Register, ...]:
        """What to read for the boundaries that are open at `now`; call `advance` first."""
        wanted = tuple(values.source.quantity for values in self._all if values.awaited(now))
        if wanted not in self._unions:
            self._unions[wanted] = _union(self._measured[q].source for q in wanted)
        return self._unions[wanted]

    def next_due(self, after: Instant) -> Instant:
        """The first boundary of any of its values after `after`."""
        return min(next_boundary(after, every, self._zone) for every in self._everies)

    def deadline(self, now: Instant) -> Instant | None:
        """When the first of the windows open at `now` ends; None where none is open."""
        return min((v.deadline for v in self._all if v.due <= now), default=None)

    def retry(self, now: Instant) -> Instant | None:
        """When to ask again for what is open at `now`: five times in a window; None: not at all."""
        pauses = [max(v.deadline - v.due, SECOND) // 5 for v in self._all if v.awaited(now)]
        return now + min(pauses) if pauses else None

    @property
    def settled(self) -> Instant | None:
        """The last boundary of which it is known what became of it; None before the first."""
        return max((v.done for v in self._all if v.done is not None), default=None)

    def values(self) -> Mapping[str, Shown]:
        """Each quantity as it was last read, for people to look at."""
        shown = {}
        for quantity, one in self._measured.items():
            if one.found is None:
                continue
            value = one.found.value
            if value is not None:
                value = one.source.multiplied(value)
            shown[quantity] = Shown(value, one.found.reason, one.at)
        return shown

    # ------------------------------------------------------------------------------ sampling

    def take(self, sample: Sample, asked: Instant) -> Outcome:
        """A sample whose time is right, of a round that began at `asked`.

        It answers the boundaries whose window it lies in, if it was asked for after them.
        """
        formed = Formed()
        self._advance(sample.at, "bus_busy", formed)
        keep: Instant | None = None
        registers = self._kept
        doubted: dict[Source, str] = {}
        for one, found in self._read(sample, formed):
            if found.reason in DOUBTED and (one.polled or one.news or one.is_due(asked)):
                doubted[one.source] = one.why
            for counter in one.counters:
                counter.offer(found, sample, asked, formed)
            for polled in one.polled:
                until = polled.offer(found, sample, formed)
                keep = until if keep is None else max(keep, until or keep)
            if found.reason == "held":  # after a restart nothing would tell that it is not believed
                registers = tuple(r for r in registers if r not in one.source.registers)
        if keep is not None:
            raw = sample.raw.only(registers)
            lean = evolve(sample, raw=raw, faults={}, synchronised=True)
            formed.kept.append(KeptSample(lean, keep))
        self._keep_doubted(sample, doubted, formed)
        return self._outcome(formed)

    def take_late(
        self, samples: Sequence[Sample], now: Instant, before: str = "stopped"
    ) -> Outcome:
        """Samples of this boot that got their time only now, oldest first. `before`: why there are
        none of before.

        A counter takes the one nearest to a boundary, within a tenth of the interval; what has
        none is missing for the reason `clock`.
        """
        formed = Formed()
        if samples:
            self._advance(samples[0].at, before, formed)
        for sample in samples:
            held: dict[Source, str] = {}
            for one, found in self._read(sample, formed):
                if one.news:
                    held[one.source] = one.why
                for counter in one.counters:
                    counter.offer_late(found, sample, formed)
                for polled in one.polled:
                    polled.advance(sample.at, "clock", formed)
                    polled.offer(found, sample, formed)
            self._keep_doubted(sample, held, formed)
        for measured in self._measured.values():
            for counter in measured.counters:
                counter.end_late(now, formed)
        self._advance(now, "clock", formed)
        return self._outcome(formed)

    def advance(self, now: Instant, reason: str) -> Outcome:
        """Settle the boundaries whose window has ended; `reason` where nothing else is known.

        `clock`: the wall clock was set, and what it passed over may never have been.
        """
        formed = Formed()
        if reason == "clock":
            for one in self._measured.values():
                for counter in one.counters:
                    counter.clock_was_set = True
            for values in self._all:
                values.leap(now, formed)
        self._advance(now, reason, formed)
        return self._outcome(formed)

    def clock_was_set(self, by: Millis) -> None:
        """What the wall clock showed earlier it would show `by` later now. Counters move by the
        time that went by, whatever it shows."""
        for one in self._measured.values():
            one.source.clock_was_set(by)
        for values in self._all:
            values.shift(by)
        self._unsaid = True

    def without_time(self, samples: Sequence[Bounded]) -> tuple[Reading, ...]:
        """What it showed at moments of which only bounds are known, once an interval of each boot.

        Where intervals began is not known: there is no consumption, no mean and no extreme.
        """
        found = []
        for values in self._all:
            next_one: dict[str, Instant] = {}
            for sample, latest in samples if values.send.as_ in ("counter", "last") else ():
                if latest < next_one.get(sample.boot_id, 0):
                    continue
                shown = values.source.read(sample)
                if shown is not None and shown.value is not None:
                    next_one[sample.boot_id] = latest + values.send.every
                    value = values.source.multiplied(shown.value)
                    raw = sample.raw.only(values.source.registers)
                    stamp = latest // SECOND * SECOND
                    found.append(Reading(values.send.key, stamp, value, raw, NO_TIME))
        return tuple(found)

    def accept(self, *, replaced: bool) -> Outcome:
        """A person knows better: believe the counters that are held. `replaced`: another meter
        stands there, and nothing is reckoned from what the former showed.
        """
        formed = Formed()
        for quantity, one in self._measured.items():
            source = one.source
            suspect, known = source.suspect, source.known
            if not source.counter or (suspect is None and not replaced):
                continue
            source.known = source.suspect = None
            moved_on = not replaced and suspect is not None and suspect.moved_on
            if suspect is not None:
                source.begin(suspect.value, suspect.at)
                fields: dict[str, object] = {
                    "meter": self.name,
                    "quantity": quantity,
                    "was": known.value if known else None,
                    "is": suspect.value,
                    "reason": "a person",
                }
                formed.events.append(("counter.accepted", fields))
            for counter in () if moved_on else one.counters:
                counter.forget()
            formed.unsaid = True
        return self._outcome(formed)

    def _keep_doubted(self, sample: Sample, doubted: Mapping[Source, str], formed: Formed) -> None:
        if doubted:
            why = ", ".join(dict.fromkeys(doubted.values()))
            lean = evolve(sample, raw=sample.raw.only(_union(doubted)), faults={})
            formed.kept.append(KeptSample(lean, doubted=why))

    def _advance(self, now: Instant, reason: str, formed: Formed) -> None:
        for values in self._all:
            values.advance(now, reason, formed)

    def _read(self, sample: Sample, formed: Formed) -> Iterable[tuple[_Measured, Found]]:
        """Each quantity that was asked for, with its value where it can be believed."""
        for one in self._measured.values():
            found = one.source.read(sample)
            one.news = False
            if found is None:
                continue
            if one.source.counter and found.value is not None:
                found = self._judged(one, found, found.value, sample, formed)
            if found.reason == "not_available" and one.found != found:
                fields: dict[str, object] = {"meter": self.name, "quantity": one.source.quantity}
                formed.events.append(("meter.not_available", fields))
            one.found, one.at = found, sample.at
            yield one, found

    def _judged(
        self, one: _Measured, found: Found, value: Decimal, sample: Sample, formed: Formed
    ) -> Found:
        source = one.source
        known, suspect = source.known, source.suspect
        verdict = source.judge(value, sample.at, sample.raw)
        source.suspect = verdict.suspect
        one.news = verdict.suspect is not None and verdict.suspect.is_news_after(suspect)
        formed.unsaid |= one.news or _told(source.suspect) != _told(suspect)
        fields: dict[str, object] = {
            "meter": self.name,
            "quantity": source.quantity,
            "was": known.value if known else None,
            "is": value,
        }
        if verdict.suspect is not None:
            if one.news:
                formed.events.append(("counter.held", fields | {"reason": verdict.suspect.reason}))
            return Found(None, "held")
        if verdict.judgement == "plausible":
            if known is None or sample.at < known.at:  # the first one, or the clock was set back
                source.known = Known(value, sample.at)
                formed.unsaid = True
            return found
        reason = verdict.judgement if known else f"{READS} reads agree"
        formed.events.append(("counter.accepted", fields | {"reason": reason}))
        modulus = source.bound(sample.raw, value).modulus
        for counter in one.counters:
            if verdict.judgement == "rollover" and modulus is not None:
                counter.rolled_over(modulus, sample.at, formed)
            else:
                counter.replaced(sample.at, formed)
        source.begin(value, sample.at)
        formed.unsaid = True
        return found

    def _outcome(self, formed: Formed) -> Outcome:
        unsaid, self._unsaid = formed.unsaid or self._unsaid, False
        return Outcome(
            tuple(formed.readings),
            tuple(formed.gaps),
            tuple(formed.kept),
            tuple(formed.events),
            self._state() if unsaid else None,
        )

    # --------------------------------------------------------------------------- remembering

    def restore(
        self,
        last: Mapping[SeriesKey, Reading],
        state: bytes | None,
        samples: Sequence[Sample] = (),
    ) -> None:
        """Go on after what is stored: the last reading of each series, the saved state, and the
        kept samples of this meter, oldest first. Call it once, before anything else."""
        saved = _parsed(state)
        ours = saved["place"] == self._place
        for values in self._all:
            reading = last.get(values.send.key)
            values.restore(reading)
            row = saved["values"].get(_name(values.send.key)) if ours else None
            if row is None and reading is not None:
                values.forget()
                self._unsaid = True
            elif row is not None:
                values.resume(row)
        for quantity, one in self._measured.items() if ours else ():
            source = one.source
            known, suspect, *zero = saved["counters"].get(quantity, (None, None))
            source.zero_since = zero[0] if zero else None
            if known:
                source.known = Known(Decimal(known[0]), known[1])
            if suspect:
                source.suspect = Suspect(Decimal(suspect[0]), *suspect[1:])
            for counter in one.counters:
                if counter.base is not None:
                    source.learn(counter.base.value, counter.base.at)
            polls = [(source.read(sample), sample) for sample in samples]
            for polled in one.polled:
                polled.replay([(found, sample) for found, sample in polls if found])

    def _state(self) -> bytes:
        rows = {_name(v.send.key): v.saved() for v in self._all if v.done is not None}
        counters: dict[str, Any] = {}
        for quantity, one in self._measured.items():
            known, suspect = one.source.known, one.source.suspect
            if known or suspect:
                counters[quantity] = [
                    known and [str(known.value), known.at],
                    suspect and [str(suspect.value), *astuple(suspect)[1:]],
                    one.source.zero_since,
                ]
        whole = {"version": _VERSION, "place": self._place, "values": rows, "counters": counters}
        return json.dumps(whole, separators=(",", ":")).encode()


def _parsed(state: bytes | None) -> dict[str, Any]:
    """Saved state; none at all where it is missing, or of another make."""
    nothing: dict[str, Any] = {"place": None, "values": {}, "counters": {}}
    try:
        found = json.loads(state or b"{}")
    except ValueError:
        return nothing
    ours = isinstance(found, dict) and found.get("version") == _VERSION
    return found if ours else nothing


def _told(suspect: Suspect | None) -> tuple[int, str] | None:
    """What of it has to outlast a restart."""
    return None if suspect is None else (suspect.reads, suspect.reason)


def _name(key: SeriesKey) -> str:
    return f"{key.import_name}\n{key.meter_id}"


def _union(sources: Iterable[Source]) -> tuple[Register, ...]:
    return tuple(dict.fromkeys(r for source in sources for r in source.registers))
