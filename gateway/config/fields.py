"""The keys of one mapping, each read by its type; every mistake goes into the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from gateway.config.document import Items, Node, Scalar, Table
from gateway.config.keys import MEANT
from gateway.config.report import Report, Span, closest, quoted
from gateway.config.values import Reader, Refused, Wrong

T = TypeVar("T")

Elsewhere = Mapping[str, str]
"""A key to where it belongs: `poll` to "a bus"."""


class Fields:
    """Reads one mapping. `what` names it in messages: "meter main-supply".

    A value that cannot be read is reported and stands as its default; `sound` tells whether
    what was read may be judged further, so that one mistake is not reported twice.
    """

    def __init__(
        self,
        report: Report,
        table: Table,
        what: str,
        keys: Sequence[str],
        *,
        at: Span | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.report = report
        self.what = what
        self._entries = {key.text: (key, value) for key, value in table.entries}
        self._complete = table.complete
        self._bad: set[str] = set()
        self._at = at or (table.entries[0][0].span if table.entries else table.span)
        for key, (node, _) in self._entries.items():
            if key not in keys:
                self._unknown(node, keys, elsewhere or {})

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    @property
    def at(self) -> Span:
        """Where a missing key is reported."""
        return self._at

    def at_key(self, key: str) -> Span:
        """The place of a key; that of the mapping where it is missing."""
        return self._entries[key][0].span if key in self._entries else self._at

    def at_value(self, key: str) -> Span:
        """The place of a key's value; that of the mapping where it is missing."""
        return self._entries[key][1].span if key in self._entries else self._at

    def node(self, key: str) -> Node | None:
        """What stands under a key."""
        return self._entries[key][1] if key in self._entries else None

    def sound(self, *keys: str) -> bool:
        """Were these keys all there, or left to their defaults, and all readable?"""
        return not self._bad.intersection(keys)

    def spoil(self, *keys: str) -> None:
        """Their mistake is reported: they are not sound."""
        self._bad.update(keys)

    def get(self, key: str, read: Reader[T], default: T) -> T:
        """The value of an optional key."""
        if key not in self._entries:
            return default
        node = self._entries[key][1]
        try:
            return read(node)
        except Wrong as wrong:
            self._wrong(key, node, wrong)
        except Refused:
            self.spoil(key)
        return default

    def many(
        self, key: str, read: Reader[T], default: tuple[T, ...] = (), *, most: int = 100
    ) -> tuple[T, ...]:
        """The values of an optional list."""
        return self.get(key, list_of(read, most=most), default)

    def require(self, key: str, read: Reader[T], default: T, *, example: str = "") -> T:
        """The value of a key that has to be there; `default` stands in after a mistake."""
        if key in self._entries:
            return self.get(key, read, default)
        self.missing(key, example)
        return default

    def missing(self, key: str, suggestion: str = "", message: str = "") -> None:
        """Report a key that is not there, unless a mistake that is known explains it."""
        if self._complete and self.sound(key):
            words = message or f'"{key}" is missing in {self.what}'
            self.report.error(self._at, words, suggestion)
        self.spoil(key)

    def error(
        self, key: str, message: str, suggestion: str = "", *, first: Span | None = None
    ) -> None:
        """Report what is wrong with a value that could be read."""
        self.spoil(key)
        self.report.error(self.at_value(key), message, suggestion, first=first)

    def _wrong(self, key: str, node: Node, wrong: Wrong) -> None:
        self.spoil(key)
        self.report.error(wrong.at or head(node), f"{key}: {wrong.message}", wrong.suggestion)

    def _unknown(self, node: Scalar, keys: Sequence[str], elsewhere: Elsewhere) -> None:
        message = f"unknown key {quoted(node.text)} in {self.what}"
        before = node.text.partition(":")[0].strip()
        word = closest(node.text, keys)
        if word is None and node.text not in elsewhere:
            others = MEANT.get(node.text.casefold().replace(" ", "_"), ())
            word = next((other for other in others if other in keys and other not in self), None)
        if before != node.text and before in keys:  # meterID:"7"
            self.spoil(before)
            message = f'a space is missing after "{before}:"'
            suggestion = f'write "{before}: …"'
        elif node.text == "port" and "tcp" in keys and self._is_number("port"):
            suggestion = "write it behind the address: tcp: HOST:502"
        elif word is not None:
            suggestion = f'did you mean "{word}"?'
            if word not in self:
                self.spoil(word)
        elif node.text in elsewhere:
            suggestion = f"it belongs to {elsewhere[node.text]}"
            self.report.misplaced.add(node.text)
            self.spoil(elsewhere[node.text].strip("`"))  # so that section is not missing as well
        else:
            suggestion = f"known keys: {', '.join(keys)}"
        self.report.error(node.span, message, suggestion)

    def _is_number(self, key: str) -> bool:
        value = self._entries[key][1]
        return isinstance(value, Scalar) and value.text.isdecimal()


def head(node: Node) -> Span:
    """The place of a node that is good to underline: of a block only where it begins."""
    if isinstance(node, Table) and node.entries and node.span.end_line > node.span.line:
        return node.entries[0][0].span
    return node.span


EMPTY: Final = Table((), Span(1, 1, 1, 1))


def table(report: Report, node: Node, what: str) -> Table | None:
    """The node as a mapping; None where it is none, which is reported."""
    if isinstance(node, Table) and not node.refused:
        return node
    if not node.refused:
        hint = 'write "NAME: …" without "- "' if isinstance(node, Items) else ""
        report.error(head(node), f"expected keys in {what}, found {_found(node)}", hint)
    return None


def items(report: Report, node: Node, what: str) -> tuple[Node, ...] | None:
    """The node as a list; None where it is none, which is reported."""
    if isinstance(node, Items) and not node.refused:
        return node.items
    if not node.refused:
        hint = 'begin each entry with "- "' if isinstance(node, Table) else ""
        report.error(head(node), f"expected a list in {what}, found {_found(node)}", hint)
    return None


def _found(node: Node) -> str:
    if isinstance(node, Scalar):
        return "a value" if node.text else "nothing"
    return "keys" if isinstance(node, Table) else "a list"


def list_of(read: Reader[T], *, most: int) -> Reader[tuple[T, ...]]:
    """A list of values of one type."""

    def read_list(node: Node) -> tuple[T, ...]:
        if node.refused:
            raise Refused
        if not isinstance(node, Items):
            raise Wrong(f"expected a list, found {_found(node)}", "write [ … ]")
        if len(node.items) > most:
            raise Wrong(f"at most {most} entries")
        found = []
        for item in node.items:
            try:
                found.append(read(item))
            except Wrong as wrong:
                raise Wrong(wrong.message, wrong.suggestion, wrong.at or head(item)) from None
        return tuple(found)

    return read_list
