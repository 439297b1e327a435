"""`mean`, `minimum`, `maximum` and `last`: what the polls of an interval come to; and a consumption
that is their integral, where a meter has no counter for it."""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from gateway.clock import HOUR, Instant, Millis
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import Sample
from gateway.metering.register import EXACT, plain
from gateway.metering.settings import Label, SendSettings
from gateway.metering.source import Found, Source
from gateway.metering.values import Formed, Values

_TWELVE_DIGITS: Final = Context(prec=12)


class PolledValues(Values):
    """`mean`, `minimum`, `maximum`, `last` and integrals, over the polls of each interval."""

    def __init__(
        self, send: SendSettings, source: Source, zone: ZoneInfo, label: Label, poll: Millis
    ) -> None:
        super().__init__(send, source, zone, label)
        self._poll = poll
        self._polls: list[Decimal] = []
        self._sample: Sample | None = None
        self._seen: tuple[str, Millis] | None = None
        """Boot and boot time of the last poll."""
        self.cut: tuple[str, Millis] | None = None
        """The same of the last before the clock was set: a restart does not count up to it."""
        self._was_set = False
        """Was the clock set, and has no interval with polls ended since?"""

    def offer(self, found: Found, sample: Sample, formed: Formed) -> Instant | None:
        """Count a poll; the first good one in the window of the boundary that is due ends it.

        The stamp of the reading that its words are to be kept for; None where there is no need.
        """
        self._seen = sample.boot_id, sample.boottime
        if found.value is None:
            self.reason = found.reason
            return None
        if self.done is not None and sample.at <= self.done:
            return None  # the clock was set back: that interval is over
        self.reason = ""  # what an earlier poll of the interval ran into is over
        self._polls.append(found.value)
        self._sample = sample
        if sample.at >= self.due:
            self.missing("", formed)
        return self._stamp() if self._poll < self._every else None

    def missing(self, reason: str, formed: Formed) -> None:
        """Settle the boundary that is due with the polls there are, if they are enough."""
        assert self.done is not None
        polls = self._polls
        expected = max(1, (self.due - self.done) // self._poll)
        few = len(polls) * 10 < expected * 8
        if not polls or self._sample is None:
            self._gap(reason, formed)
        elif few and self._was_set:
            self._gap("clock", formed)
        elif few:
            self._gap("too_few_polls", formed)
        else:
            value = self.source.multiplied(self._summary(polls))
            if self.send.as_ in ("mean", "consumption"):
                value = plain(_TWELVE_DIGITS.plus(value))
            self._give(value, self._sample.raw.only(self.source.registers), formed)
        self._was_set &= not polls
        self._drop()
        self._settled(self.due)

    def begin(self, now: Instant) -> None:
        self._drop()
        super().begin(now)

    def shift(self, by: Millis) -> None:
        """The polls so far are of another time than the clock showed."""
        self._drop()
        self.cut, self._was_set = self._seen or self.cut, True

    def _drop(self) -> None:
        self._polls, self._sample = [], None

    def saved(self) -> list[Any]:
        return [self.done, self.cut, self.given]

    def resume(self, saved: list[Any]) -> None:
        super().resume(saved)
        _, cut, *_ = [*saved, None]
        self.cut = cut and (cut[0], cut[1])

    def replay(self, polls: list[tuple[Found, Sample]]) -> None:
        """Count the kept polls of the interval that a restart broke into, oldest first.

        None of before the clock was set. The first good one in the window of the boundary last
        settled was that boundary's own.
        """
        ends = [n for n, (_, one) in enumerate(polls, 1) if (one.boot_id, one.boottime) == self.cut]
        polls = polls[max(ends, default=0) :]
        good = [(found.value, sample) for found, sample in polls if found.value is not None]
        if not good:
            return
        if self.done is None:
            self.begin(good[-1][1].at)
        assert self.done is not None
        good = [(value, sample) for value, sample in good if sample.at >= self.done]
        if good and good[0][1].at <= self.done + self._window:
            del good[0]
        for value, sample in good:
            self._polls.append(value)
            self._sample = sample

    def _summary(self, polls: list[Decimal]) -> Decimal:
        match self.send.as_:
            case "minimum":
                return min(polls)
            case "maximum":
                return max(polls)
            case "last":
                return polls[-1]
            case "consumption":
                assert self.done is not None
                return integral(polls, self.due - self.done, self.send)
        return mean(polls)


def integral(polls: list[Decimal], span: Millis, send: SendSettings) -> Decimal:
    """What a power (W, var) or flow (m³/h) comes to over `span`, in kWh, kvarh or m³: its mean
    times that. Of one that runs both ways, the way that is sent."""
    way = -1 if "_export_" in send.quantity and "_export_" not in send.integrates else 1
    total = sum((max(Decimal(0), way * poll) for poll in polls), Decimal(0))
    units = HOUR * (1 if QUANTITIES[send.integrates].unit == "m³/h" else 1000)
    return _TWELVE_DIGITS.divide(EXACT.multiply(total, Decimal(span)), Decimal(units * len(polls)))


def mean(values: list[Decimal]) -> Decimal:
    """The mean, with two digits more than the finest of the values has."""
    total = Decimal(0)
    for value in values:
        total = EXACT.add(total, value)
    finest = min(int(value.as_tuple().exponent) for value in values)
    digits = Decimal((0, (1,), finest - 2))
    return EXACT.quantize(EXACT.divide(total, Decimal(len(values))), digits)
