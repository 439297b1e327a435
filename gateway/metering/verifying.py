"""Which mistake in a profile or configuration explains what a display shows. Pure.

Every way in which the words around a register could be the value shown is tried: the registers
beside it, the other function, each type and order, other powers of ten, the ratio of a
transformer. What fits is ranked by its likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from decimal import Decimal
from typing import Final

from attrs import evolve, frozen

from gateway.metering.counter import resolution_of
from gateway.metering.display import Shown
from gateway.metering.interpreting import encodings
from gateway.metering.likelihood import (
    ALREADY,
    Fit,
    Mistake,
    Yardstick,
    cost_of,
    encoding_mistakes,
    ratios,
    scale_cost,
)
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import RawWords
from gateway.metering.register import (
    EXACT,
    Encoding,
    Register,
    Value,
    Words,
    decode,
    factor_of,
    plain,
    value_of,
)
from gateway.metering.settings import MeterSettings
from gateway.metering.source import Source

_MOST_MISTAKES: Final = 3
_WORTH_SAYING: Final = 4.5
"""A candidate that costs so much more than the best one is not worth a person's time."""
_NOTATIONS: Final = (30_000, 30_001, 40_000, 40_001)
"""What documents add to an address to tell input registers (3) from holding registers (4)."""
_WIDTHS: Final = (2, 1, 4, 3)
_LARGEST: Final = 1e10
"""A power of ten that somebody may be wrong by."""


@frozen
class Place:
    """Registers that may hold the value."""

    function: int
    address: int
    words: int
    mistakes: tuple[Mistake, ...]
    """It takes for the value to be there."""


@frozen
class Candidate:
    """One explanation of what the display shows."""

    mistakes: tuple[Mistake, ...]
    """None: all is right."""
    value: Decimal
    """What is read by it, to hold against the display."""
    exact: bool
    """As close as the display can tell; else as close as can be expected some seconds later."""
    cost: float
    """The less, the likelier."""
    register: Register | None = None
    """As the profile should have it; None where its registers are not at fault."""
    multiplier: Decimal | None = None
    """As the configuration should have it; None where that is not at fault."""
    types: tuple[str, ...] = ()
    """Other types that give the same."""
    or_multiplier: Decimal | None = None
    """Or the profile is right, and this the multiplier: a ratio of a power of ten looks like a
    scale."""


def places(register: Register) -> Iterator[Place]:
    """Where to look: at the register, beside it, with the other function, and where a document's
    notation may have been taken for the address.
    """
    widths = dict.fromkeys((register.count, *_WIDTHS))
    functions = [register.function]
    functions += [7 - register.function] if register.function in (3, 4) else []
    for function in functions:
        other: tuple[Mistake, ...] = () if function == register.function else ("function",)
        for words in widths:
            for step in (0, -1, 1):
                nearby: tuple[Mistake, ...] = ("address",) if step else ()
                if 0 <= register.address + step <= 0x10000 - words:
                    yield Place(function, register.address + step, words, (*other, *nearby))
        for added in _NOTATIONS:
            address = register.address - added
            if 0 <= address < 10_000:
                yield Place(function, address, register.count, ("notation", *other))


def beside(meter: MeterSettings, quantity: str) -> tuple[Register, ...]:
    """Registers of the same unit, one of which the display may have shown instead."""
    unit = QUANTITIES[quantity].unit
    return tuple(
        register
        for register in meter.profile.registers
        if register.name != quantity and register.name in QUANTITIES and register.unit == unit
    )


def own_value(meter: MeterSettings, quantity: str, raw: RawWords) -> Value | None:
    """What the profile makes of these words, without the multiplier; None where it makes nothing
    of them or some are missing."""
    try:
        return Source(meter, quantity).decode(raw)
    except ValueError:
        return None


def terms(meter: MeterSettings, quantity: str) -> tuple[Register, ...]:
    """The registers that the quantity is made of: one, or those of a sum."""
    return tuple(register for _, register in _terms(meter, quantity))


def candidates(
    meter: MeterSettings,
    quantity: str,
    raw: RawWords,
    shown: Shown,
    refused: Collection[tuple[int, int, int]] = (),
    *,
    as_it_is: bool = True,
) -> list[Candidate]:
    """What explains the value shown, the likeliest first; all that is worth saying. `refused`:
    function, address and count that the meter refused: it would do so again. `as_it_is`: the
    meter gives the registers of the profile when it is asked for them.
    """
    search = _Search(meter, quantity, raw, shown)
    if as_it_is:
        search.profile_itself()
    if not shown.value:  # registers that hold nothing are everywhere
        return search.ranked()
    for sign, register in _terms(meter, quantity):
        others = search.others(register)
        if others is not None:
            _Term(search, sign, register, others, refused).search()
    search.other_quantities()
    return search.ranked()


def _terms(meter: MeterSettings, quantity: str) -> list[tuple[int, Register]]:
    for computed in meter.profile.computed:
        if computed.quantity == quantity:
            return [(1, r) for r in computed.plus] + [(-1, r) for r in computed.minus]
    return [(1, meter.profile.needs(quantity)[0])]


class _Search:
    """One value on a display, held against all that was read."""

    def __init__(self, meter: MeterSettings, quantity: str, raw: RawWords, shown: Shown) -> None:
        self.raw = raw
        self.yardstick = Yardstick(shown, QUANTITIES[quantity], meter.max_power)
        self._meter = meter
        self._quantity = quantity
        self._terms = _terms(meter, quantity)
        self._multiplier = Source(meter, quantity).multiplier
        self._is_multiplied = Source(_multiplied(meter), quantity).multiplier != 1
        self._found: list[Candidate] = []

    def ranked(self) -> list[Candidate]:
        """The likeliest first."""
        best: dict[object, Candidate] = {}
        for one in sorted(self._found, key=lambda one: one.cost):
            first = best.setdefault(_same_to_a_person(one), one)
            if first is not one and one.register is not None:
                types = dict.fromkeys((*first.types, one.register.encoding.type))
                best[_same_to_a_person(one)] = evolve(first, types=tuple(types))
        found: list[Candidate] = []
        for one in best.values():
            if any(_says_as_much(other, one) for other in found):
                continue
            if one.mistakes == ("multiplier",) and one.multiplier != 1:
                alike = [o for o in found if (o.mistakes, o.value) == (("scale",), one.value)]
                if alike:
                    at = found.index(alike[0])
                    found[at] = evolve(found[at], or_multiplier=one.multiplier)
                    continue
            found.append(one)
        if not found:
            return []
        most = min(found[0].cost + _WORTH_SAYING, self.yardstick.most)
        return [one for one in found if one.cost <= most or not one.mistakes]

    def add(
        self,
        mistakes: Sequence[Mistake],
        cost: float,
        value: Decimal,
        fit: Fit | None,
        register: Register | None = None,
        multiplier: Decimal | None = None,
    ) -> None:
        """Keep it, if it fits. `cost`: of what costs by what it is in particular."""
        if fit is not None:
            cost += cost_of(mistakes) + fit.cost
            one = Candidate(tuple(mistakes), plain(value), fit.exact, cost, register, multiplier)
            self._found.append(one)

    def as_shown(self, value: Decimal, resolution: float) -> Iterator[tuple[Decimal, float]]:
        """The value itself, and what a display shows that has the transformers in."""
        yield value, resolution
        if self._multiplier != 1:
            yield EXACT.multiply(value, self._multiplier), resolution * float(self._multiplier)

    # -------------------------------------------------------------------------------- the kinds

    def profile_itself(self) -> None:
        """All is right, or only the multiplier is not."""
        value = own_value(self._meter, self._quantity, self.raw)
        if not isinstance(value, Decimal):
            return
        resolution = 0.0
        for _, register in self._terms:
            factor = _factor(register, self.raw)
            assert factor is not None  # its value was read with it
            resolution += float(resolution_of(register, factor, value))
        for each, step in self.as_shown(value, resolution):
            self.add((), 0.0, each, self.yardstick.fit(each, step, own=True))
        self.multiplied((), 0.0, value, resolution, None)

    def multiplied(
        self,
        mistakes: Sequence[Mistake],
        cost: float,
        value: Decimal,
        resolution: float,
        register: Register | None,
    ) -> None:
        """Another ratio than the configuration has explains it."""
        if not self._is_multiplied:
            return
        mistakes = (*mistakes, "multiplier")
        if self._multiplier != 1:
            fit = self.yardstick.fit(value, resolution)
            self.add(mistakes, cost + ALREADY, value, fit, register, Decimal(1))
        for ratio, price in ratios(_ratio(self.yardstick.shown, value)):
            if ratio != self._multiplier:
                product = EXACT.multiply(value, ratio)
                fit = self.yardstick.fit(product, resolution * float(ratio))
                self.add(mistakes, cost + price, product, fit, register, plain(ratio))

    def other_quantities(self) -> None:
        """The display shows another quantity of the profile. One is enough to say so: phases are
        alike, and so are a total and its only tariff."""
        if len(self._terms) > 1:
            return
        before = len(self._found)
        for register in beside(self._meter, self._quantity):
            value, factor = _decoded(register, self.raw), _factor(register, self.raw)
            if value is not None and factor is not None:
                resolution = float(resolution_of(register, factor, value))
                mended = evolve(register, name=self._quantity)
                for each, step in self.as_shown(value, resolution):
                    self.add(("quantity",), 0.0, each, self.yardstick.fit(each, step), mended)
        self._found[before:] = sorted(self._found[before:], key=lambda one: one.cost)[:1]

    def others(self, register: Register) -> Decimal | None:
        """What the other terms of a sum come to; None where one of them is not known."""
        total = Decimal(0)
        for sign, other in self._terms:
            if other != register:
                value = _decoded(other, self.raw)
                if value is None:
                    return None
                total += sign * value
        return total


class _Term:
    """One register of the quantity, and where else its value may be, in which form."""

    def __init__(
        self,
        search: _Search,
        sign: int,
        register: Register,
        others: Decimal,
        refused: Collection[tuple[int, int, int]],
    ) -> None:
        self._search = search
        self._yardstick = search.yardstick
        self._sign = sign
        self._own = register
        self._others = others
        self._refused = refused
        self._factor = _factor(register, search.raw)

    def search(self) -> None:
        """Every place, every encoding."""
        for place in places(self._own):
            at = (place.function, place.address, place.words)
            if self._covers_its_factor(place):
                continue
            words = self._search.raw.lookup(self._there(place, Encoding("string", words=at[2])))
            if words is not None and at not in self._refused:
                for encoding in encodings(place.words):
                    self._try(place, encoding, words)

    def _covers_its_factor(self, place: Place) -> bool:
        """No value has its own exponent or unit inside."""
        return any(
            part.function == place.function
            and place.address <= part.address < place.address + place.words
            for part in (self._own.scale_register, self._own.unit_register)
            if part is not None
        )

    def _there(self, place: Place, encoding: Encoding) -> Register:
        own = self._own
        if encoding.words != own.count:  # its values that mean none have another width
            own = evolve(own, not_available=frozenset())
        return evolve(own, function=place.function, address=place.address, encoding=encoding)

    def _try(self, place: Place, encoding: Encoding, words: Words) -> None:
        found, cost = encoding_mistakes(self._own.encoding, encoding)
        mistakes = [*place.mistakes, *found]
        number = _number(words, encoding)
        if len(mistakes) > _MOST_MISTAKES or not number:
            return
        there, factor = self._there(place, encoding), self._factor
        if factor is None:  # what stands in other registers is not to be had
            there = evolve(there, scale_register=None, unit_register=None, unit_factors=())
            factor = self._own.scale
        if mistakes:
            self._as_it_stands(there, mistakes, cost, number, factor)
        if len(mistakes) < _MOST_MISTAKES:
            self._scaled(there, mistakes, cost, number, factor)

    def _as_it_stands(
        self,
        there: Register,
        mistakes: list[Mistake],
        cost: float,
        number: Decimal,
        factor: Decimal,
    ) -> None:
        search = self._search
        value = self._total(number, factor)
        resolution = _step(there, number, factor)
        for each, step in search.as_shown(value, resolution):
            search.add(mistakes, cost, each, self._yardstick.fit(each, step), there)
        search.multiplied(mistakes, cost, value, resolution, there)

    def _scaled(
        self,
        there: Register,
        mistakes: list[Mistake],
        cost: float,
        number: Decimal,
        factor: Decimal,
    ) -> None:
        """By another power of ten, or turned round, it fits."""
        wanted = self._sign * (self._yardstick.shown - float(self._others))
        ratio = _ratio(wanted, EXACT.multiply(number, factor))
        if not 1 / _LARGEST < abs(ratio) < _LARGEST:
            return
        power = round(math.log10(abs(ratio)))
        changed: list[Mistake] = ["scale"] if power else []
        if ratio < 0:
            if self._yardstick.quantity.counter:
                return
            changed.append("sign")
            there, factor = evolve(there, scale=-there.scale), -factor
        if not changed or len(mistakes) + len(changed) > _MOST_MISTAKES:
            return
        scaled = factor.scaleb(power)
        value = self._total(number, scaled)
        fit = self._yardstick.fit(value, _step(there, number, scaled))
        mended = evolve(there, scale=plain(there.scale.scaleb(power)))
        price = scale_cost(power) if power else 0.0
        self._search.add([*mistakes, *changed], cost + price, value, fit, mended)

    def _total(self, number: Decimal, factor: Decimal) -> Decimal:
        return EXACT.add(self._others, self._sign * EXACT.multiply(number, factor))


def _multiplied(meter: MeterSettings) -> MeterSettings:
    """The same meter behind some transformer."""
    return evolve(meter, multiplier=Decimal(2))


def _step(register: Register, number: Decimal, factor: Decimal) -> float:
    return float(resolution_of(register, factor, EXACT.multiply(number, factor)))


def _ratio(wanted: float, value: Decimal) -> float:
    """How many times the value is wanted; 0 where that says nothing."""
    size = float(value)
    return wanted / size if size else 0.0


def _number(words: Words, encoding: Encoding) -> Decimal | None:
    return _or_none(lambda: decode(words, encoding))


def _decoded(register: Register, raw: RawWords) -> Decimal | None:
    return _or_none(lambda: value_of(register, raw.lookup))


def _factor(register: Register, raw: RawWords) -> Decimal | None:
    return _or_none(lambda: factor_of(register, raw.lookup))


def _or_none(look: Callable[[], Value | None]) -> Decimal | None:
    try:
        found = look()
    except ValueError:
        return None
    return found if isinstance(found, Decimal) else None


def _says_as_much(one: Candidate, other: Candidate) -> bool:
    """Do fewer of the mistakes give the same number?"""
    same = (one.value, one.multiplier) == (other.value, other.multiplier)
    return same and set(one.mistakes) < set(other.mistakes)


def _same_to_a_person(one: Candidate) -> object:
    """Types that give the same number of the same registers are one explanation."""
    register = one.register
    if register is None:
        return one.value, one.multiplier
    at = (register.name, register.function, register.address, register.count)
    return at, one.value, register.scale, one.multiplier
