"""Numbers with a unit: durations, sizes, powers. A bare number is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from typing import Final

from gateway.clock import DAY, HOUR, MINUTE, SECOND, Millis
from gateway.config.document import Node
from gateway.config.report import quoted
from gateway.config.values import Reader, Wrong, listed, scalar, without_comma
from gateway.metering.register import plain

_DURATIONS: Final = {"ms": 1, "s": SECOND, "min": MINUTE, "h": HOUR, "d": DAY}
_SIZES: Final = {"kB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}
_POWERS: Final = {"W": 1, "kW": 1_000, "MW": 1_000_000}
_MEANT: Final = {
    "m": "min", "mins": "min", "minute": "min", "minutes": "min", "sec": "s", "secs": "s",
    "second": "s", "seconds": "s", "hour": "h", "hours": "h", "hr": "h", "hrs": "h", "day": "d",
    "days": "d", "msec": "ms", "millis": "ms", "milliseconds": "ms", "k": "kB", "kb": "kB",
    "kib": "kB", "kilobytes": "kB", "mb": "MB", "mib": "MB", "megabytes": "MB", "g": "GB",
    "gb": "GB", "gib": "GB", "gigabytes": "GB", "w": "W", "watt": "W", "kw": "kW", "mw": "MW",
}  # fmt: skip
_DAYS: Final = {"week": 7, "month": 30, "year": 365}
_WITH_UNIT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([^\W\d_]*)")


def duration(low: Millis = 0, high: Millis = 10_000 * DAY) -> Reader[Millis]:
    """`10 min`, `1 h`, `400 d` in milliseconds, from `low` to `high`."""
    return _with_unit("a duration", _DURATIONS, low, high, show_duration)


def size(low: int, high: int) -> Reader[int]:
    """`500 kB`, `1 GB` in bytes; kB is 1,000 bytes."""
    return _with_unit("a size", _SIZES, low, high, show_size)


def power(node: Node) -> Decimal:
    """`100 kW` in W; above zero."""
    read = _with_unit("a power", _POWERS, 1, 1_000_000_000_000, lambda watts: f"{watts} W")
    return Decimal(read(node))


def _with_unit(
    kind: str, units: Mapping[str, int], low: int, high: int, show: Callable[[int], str]
) -> Reader[int]:
    def read(node: Node) -> int:
        found = scalar(node, kind).text
        match = _WITH_UNIT.fullmatch(found.strip())
        if match is None:
            hint = without_comma(found.strip()) or f"a number and {listed([*units])}"
            raise Wrong(f"{quoted(found)} is not {kind}", hint)
        number, unit = Decimal(match[1]), match[2]
        if unit not in units:
            raise Wrong(*_unit_mistake(kind, match[1], unit, units, low, high))
        with localcontext() as context:
            context.prec = 40
            total = number * units[unit]
        if total != total.to_integral_value():
            raise Wrong(f"{quoted(found)} is finer than can be held")
        if not low <= total <= high:
            message = f"{found} is out of range: it has to be {show(low)} to {show(high)}"
            near = f"{show(low)} is the least" if total < low else f"{show(high)} is the most"
            raise Wrong(message, near)
        return int(total)

    return read


def _unit_mistake(
    kind: str, number: str, unit: str, units: Mapping[str, int], low: int, high: int
) -> tuple[str, str]:
    if not unit:
        fitting = [u for u in units if low <= Decimal(number) * units[u] <= high] or list(units)
        options = [u for u in fitting if u != "ms"] or fitting
        hint = " ".join(f"{number} {u}?" for u in options[:2])
        return f"{quoted(number)} has no unit: {kind} needs one", hint
    meant = _MEANT.get(unit.casefold(), unit.casefold())
    hint = f'did you mean "{number} {meant}"?' if meant in units else ""
    days = _DAYS.get(unit.casefold().removesuffix("s"))
    if days and "d" in units:
        hint = f"write {plain(Decimal(number) * days)} d"
    return f"{quoted(unit)} is not a unit here: use {listed([*units])}", hint


def show_duration(span: Millis) -> str:
    """A duration in the largest unit that holds it evenly."""
    for unit, width in reversed(_DURATIONS.items()):
        if span % width == 0 and span >= width:
            return f"{span // width} {unit}"
    return f"{span} ms"


def show_size(count: int) -> str:
    """A size in the largest unit that holds it evenly."""
    for unit, width in reversed(_SIZES.items()):
        if count % width == 0 and count >= width:
            return f"{count // width} {unit}"
    return f"{count} bytes"
