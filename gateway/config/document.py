"""A YAML file as nodes that know their line and column and keep their text as it was written.

YAML 1.2 without what makes two readers disagree: no anchors, aliases, tags, merge keys, repeated
keys, tabs or second documents, at most 1 MB and 20 levels. A scalar has no type of its own: the
key that holds it decides, so 0077 can be a meterID and `no` a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

from attrs import evolve, frozen
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from gateway.config.hiding import is_secret_key
from gateway.config.report import Report, Span, lines_of, quoted
from gateway.config.syntax import explain
from gateway.errors import ConfigurationError, Mistake

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 20


@frozen(eq=False)
class Scalar:
    """One value. `plain`: written without quotes."""

    text: str
    plain: bool
    span: Span
    refused: bool = False
    """Its mistake is already reported: readers pass over it."""
    torn: bool = False
    """A number with a comma inside braces, where a comma ends the value: no reader may take it."""


@frozen(eq=False)
class Items:
    """A list."""

    items: tuple[Node, ...]
    span: Span
    refused: bool = False


@frozen(eq=False)
class Table:
    """Keys with their values, in the order of the file; no key twice."""

    entries: tuple[tuple[Scalar, Node], ...]
    span: Span
    refused: bool = False
    complete: bool = True
    """False where an entry was refused, so that no key can be said to be missing."""


Node: TypeAlias = Scalar | Items | Table


def read_text(path: Path, shown: Path | str | None = None) -> str:
    """The text of a configuration file. Raises ConfigurationError where it cannot be read."""
    name = str(shown or path)
    try:
        if not path.is_file():
            what = "this is not a file" if path.exists() else "the file does not exist"
            if path.is_dir():
                what = "this is a folder, not a file"
            hint = "name the file with --config FILE or METER_GATEWAY_CONFIG"
            raise ConfigurationError([Mistake(name, 1, 1, what)], hint=hint)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        problem = f"the file cannot be read: {error.strerror}"
        raise ConfigurationError([Mistake(name, 1, 1, problem)]) from error
    if len(data) > MAX_BYTES:
        raise ConfigurationError([Mistake(name, 1, 1, "the file is larger than 1 MB")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = lines_of(data[: error.start].decode("utf-8", "replace"))
        problem = f"byte 0x{data[error.start]:02x} is not UTF-8"
        hint = "save the file as UTF-8"
        place = len(before), len(before[-1]) + 1
        mistake = Mistake(name, *place, problem, before[-1] + "�", suggestion=hint)
        raise ConfigurationError([mistake]) from None


def compose(text: str, report: Report) -> Node | None:
    """The root node of a YAML text; None where there is nothing in it.

    Raises ConfigurationError with one mistake where the text is not YAML at all; what is YAML
    but refused here goes into the report.
    """
    if len(text) > MAX_BYTES:
        raise ConfigurationError([Mistake(report.file, 1, 1, "the file is larger than 1 MB")])
    _refuse_directives(text, report)
    _refuse_odd_spaces(text, report)
    yaml = YAML(typ="safe", pure=True)
    last: Event | None = None

    def events() -> Iterator[Event]:
        nonlocal last
        for event in yaml.parse(text):
            last = event
            yield event

    composer = _Composer(events(), report)
    try:
        return composer.document()
    # Beside its own errors the library lets those of chr() and int() pass, on odd escapes.
    except (YAMLError, ValueError, OverflowError) as error:
        line = last.end_mark.line if last is not None else 0
        raise ConfigurationError([explain(error, line, text, report.file)]) from None


def _refuse_directives(text: str, report: Report) -> None:
    for number, line in enumerate(lines_of(text), 1):
        if line.startswith("%"):
            at = Span(number, 1, number, len(line) + 1)
            message = "directives (lines that begin with %) are not used here"
            report.stop(at, message, "remove the line")
        if line.strip() and not line.lstrip().startswith("#"):
            return


_DIGITS: Final = re.compile("-?[0-9]+(,[0-9]+)*")
_ODD_SPACE: Final = re.compile("\t+|[\xa0\u1680\u2000-\u200b\u202f\u205f\u3000\ufeff]+")


def _refuse_odd_spaces(text: str, report: Report) -> None:
    for number, line in enumerate(lines_of(text), 1):
        found = _ODD_SPACE.search(line)
        comment = re.search(r"(^|\s)#", line)
        if found is None or (comment is not None and comment.start() < found.start()):
            continue
        at = Span(number, found.start() + 1, number, found.end() + 1)
        if "\t" in found[0]:
            report.stop(at, "a tab", "write spaces: YAML knows no tabs")
        message = "a space of another kind, as from a web page or a word processor"
        report.stop(at, message, "type it again with the space bar")


class _Composer:
    """Builds nodes from the parser's events."""

    def __init__(self, events: Iterator[Event], report: Report) -> None:
        self._events = events
        self._report = report
        self._anchors: dict[str, Span] = {}
        self._aliases: dict[str, list[Span]] = {}

    def document(self) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    message = "a second document: the file may hold only one"
                    self._report.stop(_span(event), message, "remove this line")
            elif isinstance(event, NodeEvent):
                root = self._node(event, 1)
        self._report_aliases()
        return root

    def _node(self, event: NodeEvent, depth: int) -> Node:
        span = _span(event)
        if isinstance(event, AliasEvent):
            self._aliases.setdefault(str(event.anchor), []).append(span)
            return Scalar("", True, span, refused=True)
        if depth > MAX_DEPTH:
            self._report.stop(span, f"nested deeper than {MAX_DEPTH} levels")
        if event.anchor is not None:
            self._anchors.setdefault(str(event.anchor), span)
        refused = self._refuse_tag(event, span)
        if isinstance(event, ScalarEvent):
            return Scalar(str(event.value), event.style is None, span, refused=refused)
        if isinstance(event, SequenceStartEvent):
            items, end = self._items(depth)
            return Items(tuple(items), _to(span, end), refused)
        assert isinstance(event, MappingStartEvent)
        table, end = self._table(span, depth)
        return evolve(table, span=_to(span, end), refused=refused)

    def _items(self, depth: int) -> tuple[list[Node], Event]:
        items: list[Node] = []
        for event in self._events:
            if isinstance(event, CollectionEndEvent):
                return items, event
            assert isinstance(event, NodeEvent)
            items.append(self._node(event, depth + 1))
        raise AssertionError("the parser closes every list")  # pragma: no cover

    def _table(self, span: Span, depth: int) -> tuple[Table, Event]:
        entries: dict[str, tuple[Scalar, Node]] = {}
        last, complete = "", True
        for event in self._events:
            if isinstance(event, CollectionEndEvent):
                return Table(tuple(entries.values()), span, complete=complete), event
            assert isinstance(event, NodeEvent)
            key = self._node(event, depth + 1)
            value = self._value(key, depth)
            if last in entries and (whole := _with_comma(entries[last][1], key, value)):
                entries[last] = entries[last][0], whole
                if is_secret_key(last):
                    self._report.hide(whole.span)
            elif not isinstance(key, Scalar) or key.refused:
                if not key.refused:
                    self._report.error(key.span, "a key has to be a plain word")
                complete = False
            elif key.text == "<<" and key.plain:
                hint = "write the keys out where they are needed"
                self._report.error(key.span, "merge keys are not used here", hint)
                self._forget_aliases(value)
                complete = False
            elif key.text in entries:
                message = f"key {quoted(key.text)} stands twice"
                first = entries[key.text][0].span
                self._report.error(key.span, message, "keep one of the two", first=first)
            else:
                entries[key.text] = key, value
                last = key.text
        raise AssertionError("the parser closes every mapping")  # pragma: no cover

    def _value(self, key: Node, depth: int) -> Node:
        event = next(self._events)
        assert isinstance(event, NodeEvent)
        value = self._node(event, depth + 1)
        if isinstance(value, Scalar) and value.plain and not value.text:
            # Nothing was written: the parser places it on a later line.
            return evolve(value, span=key.span)
        if isinstance(key, Scalar) and is_secret_key(key.text):
            self._report.hide(value.span)
        return value

    def _refuse_tag(self, event: NodeEvent, span: Span) -> bool:
        if getattr(event, "tag", None) is None:
            return False
        self._report.error(span, "tags (words that begin with !) are not used here", "remove it")
        return True

    def _forget_aliases(self, value: Node) -> None:
        nodes = value.items if isinstance(value, Items) else (value,)
        merged = {node.span for node in nodes}
        for spans in self._aliases.values():
            spans[:] = [span for span in spans if span not in merged]

    def _report_aliases(self) -> None:
        for name, span in self._anchors.items():
            lines = sorted({alias.line for alias in self._aliases.pop(name, [])})
            where = f" (used on line {', '.join(map(str, lines))})" if lines else ""
            at = Span(span.line, span.column, span.line, span.column + len(name) + 1)
            message = f"anchors and aliases are not used here: {quoted('&' + name)}{where}"
            self._report.error(at, message, "write the value out where it is needed")
        for name, spans in self._aliases.items():
            for span in spans:
                message = f"anchors and aliases are not used here: {quoted('*' + name)}"
                hint = "write the value out; a text that begins with * needs quotes"
                self._report.error(span, message, hint)


def _with_comma(before: Node, key: Node, value: Node) -> Scalar | None:
    """`{scale: 0,01}` is scale: 0 and a key 01 without a value: 0,01 as one value; else None."""
    if not (isinstance(before, Scalar) and isinstance(key, Scalar) and isinstance(value, Scalar)):
        return None
    start, end = before.span, key.span
    beside = (start.end_line, start.end_column + 1) == (end.line, end.column)
    if value.text or not (beside and before.plain and key.plain and value.plain):
        return None
    if not _DIGITS.fullmatch(before.text) or not re.fullmatch("[0-9]+([ a-zA-Z].*)?", key.text):
        return None
    span = evolve(start, end_line=end.end_line, end_column=end.end_column)
    return Scalar(f"{before.text},{key.text}", True, span, torn=True)


def _span(event: Event) -> Span:
    start, end = event.start_mark, event.end_mark
    return Span(start.line + 1, start.column + 1, end.line + 1, end.column + 1)


def _to(start: Span, end: Event) -> Span:
    """From the start of a collection to its end; that of a block is where the next thing begins."""
    stop = end.end_mark
    return evolve(start, end_line=stop.line + 1, end_column=stop.column + 1)
