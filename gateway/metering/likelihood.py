"""How likely a mistake is, and how well a value meets what a display shows. Pure.

Costs are negative logarithms of probabilities, so that they add up: how seldom people make the
mistakes, how far off the value is, and how coarse: a coarse register meets a value more easily
than a fine one. The value has moved on since it was read off: a counter a little and only upwards,
a power by much either way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from attrs import field, frozen

from gateway.metering.display import Shown
from gateway.metering.quantity import Quantity
from gateway.metering.register import EXACT, Encoding

Mistake: TypeAlias = Literal[
    "word order",
    "byte order",
    "type",
    "address",
    "notation",
    "function",
    "scale",
    "sign",
    "multiplier",
    "quantity",
]

_COSTS: Final[Mapping[Mistake, float]] = {
    "word order": 2.0,
    "address": 2.3,
    "function": 2.3,
    "notation": 2.5,
    "byte order": 3.2,
    "sign": 3.0,
    "quantity": 3.3,
}
"""Those that are alike likely whatever they are in particular; type, scale, multiplier: below."""
_TOGETHER: Final = 1.0
"""Two mistakes are seldom made independently of one another."""
_TYPE_AND_SCALE: Final = 0.3
"""So much less these two: whoever takes another type may take the scale that goes with it."""
ALREADY: Final = 1.0
"""What it costs that the meter reckons the multiplier in already, where one is configured."""

_EXOTIC: Final = ("bcd", "mod10k", "iskra", "u48", "s48", "f64")

_PRIMARY: Final = (50, 60, 75, 100, 150, 200, 250, 300, 400, 500, 600, 750, 800, 1000)
_SELDOM: Final = (10, 15, 20, 25, 30, 40, 80, 120, 125, 160, 1200, 1250, 1500, 1600, 2000, 2500,
                  3000, 4000, 5000)  # fmt: skip
_RATIOS: Final = {
    **{primary / 5: 4.3 for primary in _SELDOM},
    **dict.fromkeys((1200.0, 1500.0, 2000.0), 4.3),
    **{primary / 5: 3.6 for primary in _PRIMARY},
    **{float(primary): 3.6 for primary in _PRIMARY},
}
"""Current transformers to 5 A and to 1 A (IEC 61869-2 §5.5), with what each costs."""
_NEAREST: Final = 3  # ratios that are tried: a power moves by more than they differ

_MOVES: Final[Mapping[str, tuple[float, float]]] = {
    "V": (0.005, 0.1), "A": (0.1, 0.02), "W": (0.1, 5.0), "var": (0.1, 5.0), "VA": (0.1, 5.0),
    "Hz": (0.001, 0.0), "": (0.0, 0.03), "m³/h": (0.1, 0.01), "°C": (0.0, 0.5), "K": (0.0, 0.5),
}  # fmt: skip
"""By how much a momentary value moves while somebody types: a share of it, and at least."""
_COUNTS: Final[Mapping[str, float]] = {"m³": 0.01}
"""What a counter counts meanwhile; 0.1 kWh, kvarh or kVAh where nothing is said."""
_COUNTS_OF: Final = 1e-5  # of what it stands at, where that is more
_A_FEW_MINUTES: Final = 1 / 20  # h

_FITS: Final = 4.0
"""A value fits that is so many times as far off as it may be expected."""
_FITS_OWN: Final = 6.0
"""What the profile itself gives is believed further: somebody may have read it an hour ago."""
_SOME: Final = 0.25
_LEAST_TOLD: Final = 5.5
"""What one mistake may cost, with a value that has moved on."""


def cost_of(mistakes: Sequence[Mistake]) -> float:
    """Of mistakes made together; those that cost by what they are in particular are left out."""
    single = sum(_COSTS.get(mistake, 0.0) for mistake in mistakes)
    together = _TOGETHER * max(0, len(mistakes) - 1)
    if {"type", "scale"} <= set(mistakes):
        together -= _TYPE_AND_SCALE
    return single + together


def encoding_mistakes(own: Encoding, other: Encoding) -> tuple[list[Mistake], float]:
    """What is otherwise in the other, and what the type among that costs."""
    mistakes: list[Mistake] = []
    cost = 0.0
    if (own.type, own.words) != (other.type, other.words):
        mistakes.append("type")
        cost = _type_cost(own, other)
    if other.words > 1 and own.word_order != other.word_order:
        mistakes.append("word order")
    if own.byte_order != other.byte_order:
        mistakes.append("byte order")
    return mistakes, cost


def _type_cost(own: Encoding, other: Encoding) -> float:
    if other.type.startswith(_EXOTIC):
        return 4.0
    if own.words != other.words:
        return 2.8
    return 2.2 if own.type[1:] == other.type[1:] else 2.6


def scale_cost(power: int) -> float:
    """Of a scale that is wrong by this power of ten."""
    return 2.2 + 0.4 * max(0, abs(power) - 3)


def ratios(wanted: float) -> Iterator[tuple[Decimal, float]]:
    """Those of transformers that come near, each with its cost."""
    if min(_RATIOS) / 2 < wanted < 2 * max(_RATIOS):
        near = sorted(_RATIOS, key=lambda ratio: abs(math.log(ratio / wanted)))
        for ratio in near[:_NEAREST]:
            yield Decimal(repr(ratio)), _RATIOS[ratio]


@frozen
class Fit:
    """How well a value meets what is shown."""

    cost: float
    exact: bool
    """As close as the display can tell; else as close as can be expected some seconds later."""


@frozen
class Yardstick:
    """What a display shows, to hold values against."""

    display: Shown
    quantity: Quantity
    max_power: Decimal | None
    """W, of the meter."""
    shown: float = field(init=False)
    _step: float = field(init=False)
    _moves: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "shown", float(self.display.value))
        object.__setattr__(self, "_step", float(self.display.step))
        object.__setattr__(self, "_moves", self._expected_move())

    def _expected_move(self) -> float:
        unit, size = self.quantity.unit, abs(self.shown)
        if not self.quantity.counter and unit in _MOVES:
            share, least = _MOVES[unit]
            return max(share * size, least)
        if self.max_power is not None and unit == "kWh":
            return float(self.max_power) / 1000 * _A_FEW_MINUTES
        return max(_COUNTS_OF * size, _COUNTS.get(unit, 0.1))

    def fit(self, value: Decimal, resolution: float, *, own: bool = False) -> Fit | None:
        """None: it does not fit. `resolution`: the step of its register. `own`: it is what the
        profile as it is reads."""
        fine = self._step + resolution
        usual = self._step + self._moves
        moves = self._moves if not self.quantity.counter or value > self.display.value else 0.0
        off = float(abs(EXACT.subtract(value, self.display.value)))
        if off > (_FITS_OWN if own else _FITS) * (fine + moves):
            return None
        if not own and abs(float(value)) < _SOME * abs(self.shown):
            return None  # as good as nothing beside a small value that moves by more
        coarse = math.log((usual + resolution) / usual)
        return Fit(coarse + math.log1p((off / (fine + moves)) ** 2), off <= fine)

    @property
    def most(self) -> float:
        """The cost above which it is rather by chance that something fits: so many explanations
        are tried that few digits are met by one or the other."""
        told = math.log(max(abs(self.shown), self._step) / (self._step + self._moves))
        return max(_LEAST_TOLD, told + 1)
