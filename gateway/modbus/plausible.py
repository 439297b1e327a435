"""Can a quantity have this value, and how much does it say that it can? Pure.

A device gives words for any register, and a profile that is only looked for explains many of them
by chance. So what a value says is reckoned: how likely words that mean nothing would have become
one that such a meter usually shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, TypeAlias

from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import RawWords
from gateway.metering.register import Register, value_of

Range: TypeAlias = tuple[Decimal, Decimal]

LARGE: Final = Decimal("1e10")
TINY: Final = Decimal("1e-20")
"""What a float does not show but where its words are no float."""
_POSSIBLE: Final[dict[str, Range]] = {
    "V": (Decimal(0), Decimal("1e6")),
    "A": (Decimal("-1e5"), Decimal("1e5")),
    "Hz": (Decimal(45), Decimal("65.5")),
    "": (Decimal("-1.01"), Decimal("1.01")),
    "°C": (Decimal(-60), Decimal(300)),
    "K": (Decimal(-300), Decimal(300)),
}
"""By unit, what a value can be that is not zero."""
_USUAL: Final[dict[str, Range]] = {
    "V": (Decimal(80), Decimal(900)),
    "Hz": (Decimal(45), Decimal("65.5")),
    "": (Decimal("0.01"), Decimal("1.01")),
    "°C": (Decimal("0.1"), Decimal(150)),
    "K": (Decimal("0.1"), Decimal(150)),
    "A": (Decimal("0.001"), Decimal(5000)),
    "W": (Decimal("0.1"), Decimal("1e7")),
    "kWh": (Decimal("0.001"), Decimal("1e8")),
}
"""By unit, the sizes that say something."""
_OCTAVES: Final = 256
"""Sizes that a float of 32 bits may have, each twice the other."""


def possible(register: Register, raw: RawWords) -> bool:
    """Can its quantity have this value? True also where it has none now, or was not read."""
    try:
        value = value_of(register, raw.lookup)
    except ValueError:
        return False
    if not isinstance(value, Decimal) or not value:
        return True
    quantity = QUANTITIES.get(register.name)
    least = Decimal(0) if quantity is not None and quantity.counter else -LARGE
    low, high = _POSSIBLE.get(register.unit, (least, LARGE))
    return abs(value) > TINY and low <= value <= high


def by_chance(values: Mapping[Register, Decimal]) -> float:
    """How likely words that mean nothing would all have become values as usual as these."""
    return math.prod(_chance(register, value) for register, value in values.items())


def _chance(register: Register, value: Decimal) -> float:
    """Of words that mean nothing each size is as likely: small numbers are found everywhere."""
    low, high = _USUAL.get(register.unit, (TINY, LARGE))
    if not low <= abs(value) <= high:
        return 1.0
    sizes = _OCTAVES if register.encoding.type in ("f32", "f64") else 16 * register.count
    return min(1.0, math.log2(high / low) / sizes)
