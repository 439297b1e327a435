"""Why a text is not YAML, in the words of the person who wrote it and on the line to mend."""

from __future__ import annotations

import re
from typing import Final

from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from gateway.config.hiding import HIDDEN, hide_by_eye
from gateway.config.report import lines_of
from gateway.errors import Mistake

_TWO_COLONS: Final = 'a ":" where none can be'
_NO_COLON: Final = 'a key without its ":"'

# What the parser says → what is wrong, what to do. The first that fits counts.
_PROBLEMS: Final = (
    ("mapping values are not allowed", _TWO_COLONS,
     'check the indentation; a text with ": " in it needs quotes'),
    ("could not find expected ':'", _NO_COLON, 'write "key: value"'),
    ("expected <block end>", "this does not fit the lines above", "line it up with them"),
    ("expected ',' or ']'", 'a list in brackets needs "," or "]" here', "close it with ]"),
    ("expected ',' or '}'", 'braces need "," or "}" here', "close them with }"),
    ("did not find expected", "something is missing before this", ""),
    ("unexpected end of stream", "a quote is opened and not closed", "close it on this line"),
    ("unknown escape character", "a backslash in double quotes", "use single quotes"),
    ("escape sequence", "a backslash in double quotes", "use single quotes"),
    ("cannot start any token", "this character cannot begin a value", "put the value in quotes"),
    ("block sequence entries are not allowed", 'a "- " where no list can begin',
     "begin the list on a line of its own"),
    ("mapping keys are not allowed", "a key cannot stand here", "check the indentation"),
    ("tag", "tags (words that begin with !) are not used here", "remove it"),
    ("anchor", "anchors and aliases are not used here", "write the value out"),
    ("alias", "anchors and aliases are not used here", "write the value out"),
    ("unacceptable character", "a control character", "remove it"),
    ("special characters are not allowed", "a control character", "remove it"),
)  # fmt: skip


def explain(error: Exception, reached: int, text: str, file: str) -> Mistake:
    """One mistake for what stopped the parser; `reached`: the line (from 0) it had come to."""
    lines = lines_of(text)
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    line, column = _place(error, reached, text, lines)
    message, hint = f"not YAML: {problem}", ""
    for words, ours, advice in _PROBLEMS:
        if words in problem:
            message, hint = ours, advice
            break
    bare = lines[line] if line < len(lines) else ""
    if message == _TWO_COLONS and re.match(r"\s*(- )?[\w-]+:\s+[\w-]+:(\s|$)", bare):
        hint = "put braces around it: {key: value}"
    joined = re.match(r"\s*(?:- )?([A-Za-z_]\w*):[^\s/]", bare)
    if message == _NO_COLON and joined is not None:
        message, hint = f'a space is missing after "{joined[1]}:"', f'write "{joined[1]}: …"'
    if re.match(r"\s*-[A-Za-z_]+:", bare):
        message, hint = 'a space is missing after "-"', 'write "- key: value"'
    opened = _open_quote(lines, line)
    if opened is not None:
        (line, column), message, hint = opened, "a quote is opened and not closed", "close it"
    source = hide_by_eye(lines, line + 1)
    if HIDDEN in source:
        column = min(column, source.index(HIDDEN))
    return Mistake(file, line + 1, column + 1, message, source, 1, hint)


def _place(error: Exception, reached: int, text: str, lines: list[str]) -> tuple[int, int]:
    """Line and column of what a person has to mend, both from 0."""
    if isinstance(error, ReaderError):
        before = lines_of(text[: error.position])
        return len(before) - 1, len(before[-1])
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return min(reached, len(lines) - 1), 0
    at, context = error.problem_mark, error.context_mark
    if context is not None and context.line < at.line:
        doing = str(error.context)
        # A bracket that was never closed is noticed only at the next key outside of it.
        outside = _indent(lines, at.line) <= _indent(lines, context.line)
        if "simple key" in doing or "scalar" in doing or ("flow" in doing and outside):
            at = context
    return min(at.line, len(lines) - 1), at.column


def _indent(lines: list[str], number: int) -> int:
    line = lines[number] if number < len(lines) else ""
    return len(line) - len(line.lstrip())


def _open_quote(lines: list[str], reached: int) -> tuple[int, int] | None:
    """The first value up to a line whose quote is not closed on its line."""
    for number, line in enumerate(lines[: reached + 1]):
        for found in re.finditer(r"""(?:(?<=[\s,\[{])|^)(["'])""", line):
            before, rest = line[: found.start()], line[found.end() :]
            if re.search(r"(^|\s)#", before) or before.count('"') % 2 or before.count("'") % 2:
                continue
            if found[1] not in rest:
                return number, found.start()
    return None
