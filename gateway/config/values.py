"""What the text of one value means: durations, sizes, numbers, names, addresses.

A reader takes a node and returns a value, or raises Wrong with what is the matter in the words of
the person who wrote it. Nothing is guessed: `10` is no duration, `1.9` no whole number.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Final, TypeAlias, TypeVar
from zoneinfo import ZoneInfo, available_timezones

from gateway.clock import DAY, HOUR, MINUTE, SECOND, Millis
from gateway.config.document import Node, Scalar, Table
from gateway.config.report import Span, did_you_mean, quoted

T = TypeVar("T")
Reader: TypeAlias = Callable[[Node], T]


class Wrong(Exception):
    """A value that cannot be used. `at`: the place, where it is not the whole value."""

    def __init__(self, message: str, suggestion: str = "", at: Span | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.suggestion = suggestion
        self.at = at


class Refused(Exception):
    """A value whose mistake is already reported."""


# ------------------------------------------------------------------------------------------ text


def scalar(node: Node, kind: str = "one value") -> Scalar:
    """The node as a single value that is not empty."""
    if node.refused:
        raise Refused
    if not isinstance(node, Scalar):
        what = "keys" if isinstance(node, Table) else "a list"
        raise Wrong(f"expected {kind}, found {what}")
    if not node.text.strip():
        raise Wrong(f"expected {kind}, found nothing")
    return node


def text(node: Node) -> str:
    """Any text of one line, with or without quotes."""
    found = scalar(node, "a text").text
    if not found.isprintable():
        raise Wrong("a text may not hold line breaks or control characters")
    if len(found) > 1000:
        raise Wrong("a text may have at most 1000 characters")
    return found


def name(node: Node) -> str:
    """A name that also has to be typed as an argument: 1 to 64 characters."""
    found = text(node)
    if found != found.strip() or found.startswith("-") or len(found) > 64:
        raise Wrong("a name has 1 to 64 characters, no space around it and no - in front")
    return found


def meter_id(node: Node) -> str:
    """The import identifier, as written: 0077 stays 0077."""
    found = text(node)
    if found != found.strip() or len(found) > 128:
        raise Wrong("a meterID has 1 to 128 characters and no space around it")
    return found


def choice(*options: T) -> Reader[T]:
    """One of these words."""

    def read(node: Node) -> T:
        found = scalar(node, f"one of {listed(options)}").text
        for option in options:
            if str(option) == found:
                return option
        raise Wrong(
            f"{quoted(found)} is not one of {listed(options)}",
            did_you_mean(found, map(str, options)),
        )

    return read


def listed(options: Sequence[object]) -> str:
    """a, b or c."""
    words = [str(option) for option in options]
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def boolean(node: Node) -> bool:
    """true or false, nothing else."""
    found = scalar(node, "true or false")
    if found.plain and found.text in ("true", "false"):
        return found.text == "true"
    meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}
    word = found.text.casefold()
    word = meant.get(word, word)
    hint = f"write {word}" if word in ("true", "false") else ""
    raise Wrong(f"{quoted(found.text)} is neither true nor false", hint)


# --------------------------------------------------------------------------------------- numbers

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})|0[xX][0-9A-Fa-f]{1,16}")
_DECIMAL = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?")


def integer(low: int, high: int, meaning: str = "") -> Reader[int]:
    """A whole number from `low` to `high`, decimal or 0x."""
    span = f"{low} to {high}" + (f" ({meaning})" if meaning else "")

    def read(node: Node) -> int:
        found = scalar(node, "a whole number")
        if not _INTEGER.fullmatch(found.text):
            hint = ""
            if re.fullmatch(r"0[0-9]{1,18}", found.text):
                hint = f"write {int(found.text)}"
            elif re.fullmatch(r"[0-9]{1,18}\.0+", found.text):
                hint = f"write {found.text.partition('.')[0]}"
            raise Wrong(f"{quoted(found.text)} is not a whole number", hint)
        if not found.plain:
            raise Wrong("a number stands without quotes", f"write {found.text}")
        number = int(found.text, 16 if found.text[:2].lower() == "0x" else 10)
        if not low <= number <= high:
            raise Wrong(f"{found.text} is out of range: it has to be {span}")
        return number

    return read


def decimal(node: Node) -> Decimal:
    """A number, exactly as it is written."""
    found = scalar(node, "a number")
    if not found.plain:
        hint = f"write {found.text}" if _DECIMAL.fullmatch(found.text) else ""
        raise Wrong("a number stands without quotes", hint)
    return exact(found.text)


def decimal_text(node: Node) -> Decimal:
    """A number that has to be written as a text, so that no reader of the file rounds it."""
    found = scalar(node, "a number in quotes")
    number = exact(found.text)
    if found.plain:
        raise Wrong(
            "this number has to be a text, so that no program rounds it", f'write "{found.text}"'
        )
    return number


def exact(written: str) -> Decimal:
    """The number, exactly; Wrong where it is none."""
    if not _DECIMAL.fullmatch(written):
        comma = written.replace(",", ".", 1)
        hint = f"write {comma}" if _DECIMAL.fullmatch(comma) else ""
        raise Wrong(f"{quoted(written)} is not a number", hint)
    return Decimal(written)


def positive(read: Reader[Decimal]) -> Reader[Decimal]:
    """The same, but above zero."""

    def check(node: Node) -> Decimal:
        number = read(node)
        if number <= 0:
            raise Wrong(f"{number} has to be above 0")
        return number

    return check


# ---------------------------------------------------------------------------- numbers with a unit

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
            raise Wrong(f"{quoted(found)} is not {kind}", f"a number and {listed([*units])}")
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


# -------------------------------------------------------------------------------- zones and hosts


def zone(node: Node) -> str:
    """An IANA time zone."""
    found = scalar(node, "a time zone such as Europe/Oslo").text
    try:
        if re.fullmatch(r"[A-Za-z0-9_+/-]{1,64}", found):
            ZoneInfo(found)
            return found
    except (KeyError, ValueError, OSError):
        pass
    names = available_timezones()
    by_city = {known.rpartition("/")[2].casefold(): known for known in sorted(names)}
    city = by_city.get(found.strip().replace(" ", "_").rpartition("/")[2].casefold())
    hint = f'did you mean "{city}"?' if city else did_you_mean(found, names)
    raise Wrong(f"{quoted(found)} is not a time zone", hint or "an IANA name such as Europe/Oslo")


_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")


def is_host(host: str) -> bool:
    """Is it an IP address or a host name?"""
    if re.fullmatch(r"[0-9.]+", host) or ":" in host:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True
    return len(host) <= 253 and _HOST.fullmatch(host) is not None


def host_port(node: Node) -> tuple[str, int]:
    """`192.168.10.20:502`, `meter.local:502`, `[::1]:502`; 502 where no port is given."""
    found = scalar(node, "an address such as 192.168.10.20:502").text.strip()
    if "://" in found:
        rest = found.partition("://")[2].strip("/")
        raise Wrong(f"{quoted(found)}: an address has no scheme", f'did you mean "{rest}"?')
    match = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?|([^:\[\]]+)(?::([0-9]{1,5}))?", found)
    if match is None:
        last = found.rpartition(":")
        hint = f'did you mean "[{last[0]}]:{last[2]}"?' if is_host(last[0]) else "host:port"
        raise Wrong(f"{quoted(found)} is not an address", hint)
    host, port = match[1] or match[3], int(match[2] or match[4] or 502)
    if not is_host(host) or (match[1] is not None and ":" not in host):
        raise Wrong(f"{quoted(host)} is neither an IP address nor a host name")
    if not 1 <= port <= 65535:
        raise Wrong(f"port {port} is out of range: it has to be 1 to 65535")
    return host, port


def is_loopback(host: str) -> bool:
    """Does an address never leave this machine?"""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
