"""What the text of one value means: durations, sizes, numbers, names, addresses.

A reader takes a node and returns a value, or raises Wrong with what is the matter in the words of
the person who wrote it. Nothing is guessed: `10` is no duration, `1.9` no whole number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TypeAlias, TypeVar

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
    one = scalar(node, "a text")
    found = one.text
    if one.torn:
        raise Wrong("inside braces a comma ends the value", f'write "{found}"')
    if one.plain and found.casefold() in ("~", "null"):
        raise Wrong("expected a text, found nothing", f'write "{found}" if it is one')
    if not found.isprintable():
        raise Wrong("a text may not hold line breaks or control characters")
    bare = found.strip("“”„‟‘’‚‛«»")
    if bare != found and (found[0] in "“”„‟‘‚‛«»" or found[-1] in "“”«»"):  # a word processor's
        raise Wrong(f"{quoted(found)}: these quotes would be part of the text", f'write "{bare}"')
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
        words = [str(option) for option in options]
        hint = did_you_mean(found, words)
        short = found.strip().casefold()
        begun = [word for word in words if word.startswith(short) or short.startswith(word)]
        if not hint and len(begun) == 1:  # E for even, rtuovertcp for rtu
            hint = f'did you mean "{begun[0]}"?'
        raise Wrong(f"{quoted(found)} is not one of {listed(options)}", hint)

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
            meant = _meant(found.text)
            hint = f"write {meant}" if meant is not None and low <= meant <= high else ""
            if hint and "#" in found.text:
                hint = f"write {meant} #…: a comment needs a space before it"
            raise Wrong(f"{quoted(found.text)} is not a whole number", hint)
        if not found.plain:
            raise Wrong("a number stands without quotes", f"write {found.text}")
        number = int(found.text, 16 if found.text[:2].lower() == "0x" else 10)
        if not low <= number <= high:
            raise Wrong(f"{found.text} is out of range: it has to be {span}")
        return number

    return read


def _meant(written: str) -> int | None:
    """What a whole number that is none was probably meant to be."""
    for pattern in (
        r"0([0-9]{1,18})",  # 010
        r"([0-9]{1,18})\.0{1,2}",  # 1.0
        r"([0-9]{1,3}(?:[ .,_'][0-9]{3}){1,5})",  # 9.600, 19 200
        r"([0-9]{1,18})(?: ?[A-Za-z]+|[,;]|#.*)",  # 9600 baud, 1,  1#the address
    ):
        if match := re.fullmatch(pattern, written):
            return int(re.sub("[^0-9]", "", match[1]))
    return None


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
    number = exact(found.text, '"')
    if found.plain:
        raise Wrong(
            "this number has to be a text, so that no program rounds it", f'write "{found.text}"'
        )
    return number


def exact(written: str, quote: str = "") -> Decimal:
    """The number, exactly; Wrong where it is none. `quote`: what a number has around it here."""
    if not _DECIMAL.fullmatch(written):
        hint = _ratio(written, quote)
        if _DECIMAL.fullmatch(written.replace(",", ".")):
            hint = without_comma(written, quote)
        raise Wrong(f"{quoted(written)} is not a number", hint)
    return Decimal(written)


def without_comma(written: str, quote: str = "") -> str:
    """How to write a number with a comma in it; empty where that does not make it one."""
    number, unit = re.fullmatch(r"(-?[0-9,]*)(.*)", written, re.DOTALL).groups()  # type: ignore[union-attr]
    if not re.fullmatch(r"-?[0-9]+,[0-9]+", number):
        return ""
    point = number.replace(",", ".")
    if re.fullmatch(r"-?[1-9][0-9]{0,2},[0-9]{3}", number):
        whole = quote + number.replace(",", "") + unit + quote
        decimals = quote + point.rstrip("0") + "0" * point.endswith("000") + unit + quote
        return f"write {whole} or {decimals}: a comma has two readings"
    return f"write {quote}{point}{unit}{quote}"


def _ratio(written: str, quote: str) -> str:
    """200/5 as it stands on a transformer."""
    match = re.fullmatch(r"([1-9][0-9]{0,5}) ?[/:] ?([1-9][0-9]{0,3})", written)
    if match is None:
        return ""
    ratio = Decimal(match[1]) / Decimal(match[2])
    shown = f"{ratio.normalize():f}"
    return f"write {quote}{shown}{quote}" if _DECIMAL.fullmatch(shown) else ""


def positive(read: Reader[Decimal]) -> Reader[Decimal]:
    """The same, but above zero."""

    def check(node: Node) -> Decimal:
        number = read(node)
        if number <= 0:
            raise Wrong(f"{number} has to be above 0")
        return number

    return check
