"""Mistakes of one file: collected, each once, with its line, and with secrets left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from attrs import frozen

from gateway.config.hiding import HIDDEN, hide_by_eye
from gateway.errors import ConfigurationError, Mistake

# The line breaks that the YAML reader counts; YAML 1.2 names only the first three.
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


@frozen
class Span:
    """A place in a file. Lines and columns count from 1; the end is the first place after it."""

    line: int
    column: int
    end_line: int
    end_column: int


def lines_of(text: str) -> list[str]:
    """The lines of a text, without their breaks."""
    return _BREAK.split(text)


def closest(text: str, known: Iterable[str]) -> str | None:
    """The known word that `text` was probably meant to be; None where none is near."""
    if len(text) > 80:
        return None
    by_folded = {word.casefold(): word for word in known}
    folded = text.strip().casefold()
    # Another order or another joint: energy_active_import for active_energy_import; and the total
    # rather than that of a phase.
    parts = re.split(r"[\s_-]+", folded)
    meant = (sorted(parts), sorted([*parts, "total"]))
    found = [word for word in by_folded if sorted(re.split(r"[\s_-]+", word)) in meant][:1]
    if not found:
        found = get_close_matches(folded, by_folded, n=1, cutoff=0.65)
    return by_folded[found[0]] if found else None


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """A suggestion for a word that is not known; empty where none is near."""
    word = closest(text, known)
    return f'did you mean "{word}"?' if word is not None else ""


def quoted(text: str) -> str:
    """A text from the file inside a message: in quotes, escaped and cut."""
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text[:61]
    )
    return f'"{shown[:60]}…"' if len(shown) > 60 else f'"{shown}"'


class Report:
    """What is wrong in one file, and in the files it draws in."""

    def __init__(self, file: Path | str, text: str = "") -> None:
        self.file = str(file)
        self._lines = lines_of(text)
        self._found: dict[tuple[int, int, str], tuple[Span, str, str, Span | None]] = {}
        self._others: list[Mistake] = []
        self._hidden: list[Span] = []
        self.misplaced: set[str] = set()
        """Keys that stand where they do not belong: they are not missing elsewhere as well."""

    def error(
        self, at: Span, message: str, suggestion: str = "", *, first: Span | None = None
    ) -> None:
        """Add a mistake; a second of the same words at the same place is not counted.

        first: where what is repeated stood first; that line is shown too.
        """
        self._add(at, message, suggestion, "error", first)

    def warning(
        self, at: Span, message: str, suggestion: str = "", *, first: Span | None = None
    ) -> None:
        """Add something that a person should look at, though it can be used."""
        self._add(at, message, suggestion, "warning", first)

    def stop(self, at: Span, message: str, suggestion: str = "") -> NoReturn:
        """Raise ConfigurationError with this mistake alone: nothing after it can be judged."""
        source = hide_by_eye(self._lines, at.line)
        width = max(1, at.end_column - at.column) if at.end_line == at.line else 1
        raise ConfigurationError(
            [Mistake(self.file, at.line, at.column, message, source, width, suggestion)]
        )

    def absorb(self, mistakes: Sequence[Mistake]) -> None:
        """Take over what was found in another file."""
        self._others += [mistake for mistake in mistakes if mistake not in self._others]

    def hide(self, span: Span) -> None:
        """Show *** in place of this part of the file, in every line that is printed."""
        self._hidden.append(span)

    @property
    def failed(self) -> bool:
        """Is there a mistake, warnings aside?"""
        return any(mistake.level == "error" for mistake in self.mistakes())

    def mistakes(self) -> tuple[Mistake, ...]:
        """Everything found, warnings included, in the order of the lines."""
        own = [
            self._mistake(span, message, suggestion, level, first)
            for (_, _, message), (span, suggestion, level, first) in self._found.items()
        ]
        own.sort(key=lambda mistake: (mistake.line, mistake.column))
        return (*own, *self._others)

    def warnings(self) -> tuple[Mistake, ...]:
        """Only the warnings."""
        return tuple(mistake for mistake in self.mistakes() if mistake.level == "warning")

    def raise_if_failed(self) -> None:
        """Raise ConfigurationError with everything found, if there is a mistake."""
        if self.failed:
            raise ConfigurationError(self.mistakes())

    def _add(self, at: Span, message: str, suggestion: str, level: str, first: Span | None) -> None:
        if first is not None:
            message += f", first on line {first.line}"
        self._found.setdefault((at.line, at.column, message), (at, suggestion, level, first))

    def _mistake(
        self, at: Span, message: str, suggestion: str, level: str, first: Span | None
    ) -> Mistake:
        source, caret = self._line(at.line), at.column
        end = at.end_column if at.end_line == at.line else len(source.rstrip()) + 1
        width = max(1, end - at.column)
        for start, stop in self._hidden_in(at.line, source):
            if start < at.column <= stop:
                width, caret = len(HIDDEN), caret - (at.column - start - 1)
            elif stop < at.column:
                caret -= stop - start - len(HIDDEN)
        shown = self._shown(at.line)
        other = (first.line, self._shown(first.line)) if first is not None else None
        return Mistake(
            file=self.file,
            line=at.line,
            column=at.column,
            message=message,
            source=shown,
            width=width,
            suggestion=suggestion,
            level=level,
            caret=caret,
            other=other,
        )

    def _line(self, number: int) -> str:
        return self._lines[number - 1] if number <= len(self._lines) else ""

    def _shown(self, number: int) -> str:
        line = self._line(number)
        for start, stop in reversed(self._hidden_in(number, line)):
            line = line[:start] + HIDDEN + line[stop:]
        return line

    def _hidden_in(self, line: int, source: str) -> list[tuple[int, int]]:
        """The parts of a line to hide, 0-based; overlapping ones as one."""
        found: list[tuple[int, int]] = []
        for span in self._hidden:
            if not span.line <= line <= span.end_line:
                continue
            start = span.column - 1 if line == span.line else len(source) - len(source.lstrip())
            stop = span.end_column - 1 if line == span.end_line else len(source)
            if start < stop:
                found.append((start, stop))
        merged: list[tuple[int, int]] = []
        for start, stop in sorted(found):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
            else:
                merged.append((start, stop))
        return merged
