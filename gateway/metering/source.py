"""One quantity of one meter: from the words of a sample to its value, and whether to believe it."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from attrs import evolve, frozen

from gateway.clock import MINUTE, Instant, Millis
from gateway.metering.counter import (
    A_DAY,
    Bound,
    Known,
    Suspect,
    Verdict,
    judge,
    modulus_of,
    resolution_of,
)
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import RawWords, Sample
from gateway.metering.register import (
    EXACT,
    NOT_AVAILABLE,
    Register,
    Value,
    factor_of,
    plain,
    value_of,
)
from gateway.metering.settings import MeterSettings

_UNSCALED: Final = frozenset({"V", "Hz", "°C", "K", ""})
"""Units the multiplier leaves alone: a current transformer or a pulse ratio does not touch them."""

_W_IN_KW: Final = 1000

ZERO_STANDS: Final[Millis] = 30 * MINUTE
"""A zero that is shown for so long is no meter that starts up."""


@frozen
class Found:
    """What a sample says of a quantity: its value, or the reason why there is none."""

    value: Decimal | None
    reason: str = ""


_ABSENT: Final = Found(None, "not_available")
_UNDECODABLE: Final = Found(None, "undecodable")


def most_an_hour(settings: MeterSettings, quantity: str) -> Decimal | None:
    """The kWh that a counter can move in an hour, behind the multiplier; None: nothing tells."""
    if settings.max_power is None or QUANTITIES[quantity].unit != "kWh":
        return None
    return settings.max_power / _W_IN_KW


class Source:
    """A quantity's registers, its multiplier and, of a counter, what is known and suspected."""

    def __init__(self, settings: MeterSettings, quantity: str) -> None:
        profile = settings.profile
        self.quantity = quantity
        self.registers: tuple[Register, ...] = profile.needs(quantity)
        terms = [(c.plus, c.minus) for c in profile.computed if c.quantity == quantity]
        self._plus, self._minus = terms[0] if terms else (self.registers[:1], ())
        self._alone = self._plus[0] if len(self._plus) == 1 and not self._minus else None
        facts = QUANTITIES[quantity]
        self.counter = facts.counter
        self.multiplier = Decimal(1) if facts.unit in _UNSCALED else settings.multiplier
        self._plainly = self.multiplier == 1
        self._a_day = A_DAY / self.multiplier
        most = most_an_hour(settings, quantity)
        self._per_hour = None if most is None else most / self.multiplier
        self.known: Known | None = None
        self.suspect: Suspect | None = None
        self.zero_since: Instant | None = None
        """When it was believed that the counter stands at zero."""

    def read(self, sample: Sample) -> Found | None:
        """The value before the multiplier, or why there is none; None where it was not asked."""
        try:
            value = self.decode(sample.raw)
        except ValueError:
            return _UNDECODABLE
        if isinstance(value, Decimal):
            return Found(value)
        if value is NOT_AVAILABLE:
            return _ABSENT
        for register in self.registers:
            if reason := sample.faults.get(register.name):
                return Found(None, reason)
        return None

    def decode(self, raw: RawWords) -> Value | None:
        """The value in these words; None where some are missing. Raises ValueError."""
        if self._alone is not None:
            return value_of(self._alone, raw.lookup)
        total = Decimal(0)
        for terms, add in ((self._plus, EXACT.add), (self._minus, EXACT.subtract)):
            for term in terms:
                value = value_of(term, raw.lookup)
                if not isinstance(value, Decimal):
                    return value
                total = add(total, value)
        return total

    def multiplied(self, value: Decimal) -> Decimal:
        """The value as it is sent, exact."""
        return plain(value if self._plainly else EXACT.multiply(value, self.multiplier))

    def judge(self, value: Decimal, at: Instant, raw: RawWords) -> Verdict:
        """Whether to believe a counter's value; changes nothing."""
        return judge(self.known, self.suspect, value, at, self.bound(raw, value))

    def bound(self, raw: RawWords, value: Decimal) -> Bound:
        """What this counter can do, at this value."""
        modulus, resolution = None, Decimal(0)
        for term in (*self._plus, *self._minus):
            factor = factor_of(term, raw.lookup)
            assert isinstance(factor, Decimal)  # its value was read with it
            resolution += resolution_of(term, factor, value)
            modulus = modulus_of(term, factor)
        if len(self._plus) + len(self._minus) > 1:
            modulus = None  # a sum of several counters wraps nowhere in particular
        return Bound(self._per_hour, modulus, resolution, self._a_day)

    def begin(self, value: Decimal, at: Instant) -> None:
        """Reads agreed, or a person said, that it stands there, whatever it was before."""
        self.known, self.suspect = Known(value, at), None
        self.zero_since = None if value else at

    def may_reckon_from(self, value: Decimal, at: Instant) -> bool:
        """Is what it stood at then more than the zero that a meter shows while it starts up?"""
        since = self.zero_since
        return bool(value) or (since is not None and at - since >= ZERO_STANDS)

    def learn(self, value: Decimal, at: Instant) -> None:
        """Take a value that was believed and kept as what the next ones are held against."""
        if self.known is None or at >= self.known.at:
            self.known = Known(value, at)

    def clock_was_set(self, by: Millis) -> None:
        """Keep the time since what is known and suspected as it was."""
        if self.known is not None:
            self.known = evolve(self.known, at=self.known.at + by)
        if self.suspect is not None:
            self.suspect = evolve(self.suspect, at=self.suspect.at + by)
        if self.zero_since is not None:
            self.zero_since += by
