"""What a person reads off a meter's display: a number, how fine it is, perhaps a unit. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Context, Decimal
from fractions import Fraction
from typing import Final

from attrs import frozen

_ENERGY: Final = {
    "": Fraction(1, 1000),
    "k": Fraction(1),
    "M": Fraction(1000),
    "G": Fraction(10**6),
}
_POWER: Final = {"": Fraction(1), "k": Fraction(1000), "M": Fraction(10**6)}


def _with_prefixes(prefixes: Mapping[str, Fraction], unit: str) -> dict[str, Fraction]:
    return {prefix + unit: factor for prefix, factor in prefixes.items()}


_SPELLED: Final[dict[str, dict[str, Fraction]]] = {
    "kWh": {
        **_with_prefixes(_ENERGY, "Wh"),
        "MJ": Fraction(10, 36),
        "GJ": Fraction(10_000, 36),
        "Gcal": Fraction(1163),  # a calorie of the International Steam Table is 4.1868 J
    },
    "kvarh": _with_prefixes(_ENERGY, "varh"),
    "kVAh": _with_prefixes(_ENERGY, "VAh"),
    "W": _with_prefixes(_POWER, "W"),
    "var": _with_prefixes(_POWER, "var"),
    "VA": _with_prefixes(_POWER, "VA"),
    "V": {"V": Fraction(1), "kV": Fraction(1000)},
    "A": {"A": Fraction(1), "mA": Fraction(1, 1000), "kA": Fraction(1000)},
    "Hz": {"Hz": Fraction(1)},
    "m³": {"m³": Fraction(1), "m3": Fraction(1), "l": Fraction(1, 1000)},
    "m³/h": {
        "m³/h": Fraction(1),
        "m3/h": Fraction(1),
        "l/h": Fraction(1, 1000),
        "l/min": Fraction(60, 1000),
        "l/s": Fraction(3600, 1000),
    },
    "°C": {"°C": Fraction(1), "C": Fraction(1)},
    "K": {"K": Fraction(1)},
    "": {"%": Fraction(1, 100)},
}
"""Canonical unit to how displays write it and others, with the factor that brings them to it."""

_MOST: Final = 20
_EXACT: Final = Context(prec=28)
_NUMBER: Final = re.compile(
    r"(?P<number>[-+−]?[0-9][0-9., '’\u00a0\u202f]*|[-+−]?[.,][0-9]+)(?P<unit>.*)"
)


@frozen
class Shown:
    """A value on a display, in the canonical unit of its quantity."""

    value: Decimal
    step: Decimal
    """What its last digit is worth."""


def read_display(text: str, unit: str) -> Shown:
    """What somebody typed: `12345.6`, `12 345,6 kWh`, `1.234,5`. `unit`: the canonical one of its
    quantity, and the one that is meant where none is written.

    A comma or point that stands once is the decimal one. Raises ValueError with what to write.
    """
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text.strip() or 'nothing'} is no number: write 12345.6")
    number = _number(match["number"])
    factor = _factor(match["unit"].strip(), unit)
    step = Decimal((0, (1,), int(number.as_tuple().exponent)))
    return Shown(_times(number, factor), _times(step, factor))


def _number(text: str) -> Decimal:
    digits = re.sub(r"[ '’\u00a0\u202f]", "", text).replace("−", "-")
    if len(digits) > _MOST:
        raise ValueError(f"{text[:_MOST]}… is longer than any display: write 12345.6")
    points = {mark: digits.count(mark) for mark in ".," if mark in digits}
    if len(points) == 2:
        thousands = min(points, key=digits.rindex)
        digits = digits.replace(thousands, "")
    elif sum(points.values()) > 1:
        digits = re.sub("[.,]", "", digits)
    if digits.count(",") + digits.count(".") > 1:
        raise ValueError(f"{text} is no number: write 12345.6")
    return Decimal(digits.replace(",", ".").rstrip("."))


def _factor(written: str, unit: str) -> Fraction:
    if not written:
        return Fraction(1)
    known = _SPELLED[unit]
    if written in known:
        return known[written]
    near = {spelled: factor for spelled, factor in known.items() if _same(spelled, written)}
    if len(near) == 1:
        return next(iter(near.values()))
    raise ValueError(f"{written} is no unit of it: write {', '.join(known)}, or none for {unit}")


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def _times(number: Decimal, factor: Fraction) -> Decimal:
    product = _EXACT.multiply(number, Decimal(factor.numerator))
    return _EXACT.divide(product, Decimal(factor.denominator))
