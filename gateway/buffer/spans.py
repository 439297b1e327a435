"""What became of the readings of one series, as runs of their numbers.

The readings of a series are numbered 1, 2, 3, … as they are stored. A span says that all from
`first` to `last` are in one state; what is in no span is pending. So when all is confirmed there
is one span, and no row of a reading is ever written again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from attrs import evolve, frozen

from gateway.metering.reading import NO_TIME

State: TypeAlias = str
"""One letter, and after a colon its reason where it has one."""

PENDING: Final[State] = ""
CONFIRMED: Final[State] = "c"


def parked(reason: str) -> State:
    """Kept, not sent until a person or the server's mind changes."""
    return f"p:{reason}"


def dropped(reason: str) -> State:
    """Gone for good, and counted."""
    return f"d:{reason}"


def held(reason: str) -> State:
    """Pending, but it may not be sent yet."""
    return f"h:{reason}"


def at_first(why: str) -> State:
    """What a reading is stored as that is held for this reason; one without a time for good."""
    return parked(why) if why == NO_TIME else held(why)


def unsettled(state: State) -> bool:
    """Does a reading in this state still wait?"""
    return not state or state[0] == "h"


def reason_of(state: State) -> str:
    """What stands after the colon."""
    return state[2:]


Run: TypeAlias = tuple[int, int]
"""First and last number, both included."""


def runs(numbers: Iterable[int]) -> list[Run]:
    """Numbers in any order as the fewest runs."""
    found: list[Run] = []
    for n in sorted(set(numbers)):
        if found and found[-1][1] == n - 1:
            found[-1] = (found[-1][0], n)
        else:
            found.append((n, n))
    return found


@frozen
class Span:
    """A run and its state; `id` is its row in the table."""

    id: int
    first: int
    last: int
    state: State

    def __len__(self) -> int:
        return self.last - self.first + 1


class Spans:
    """The spans of one series: disjoint, in order, neighbours of equal state joined. Immutable."""

    __slots__ = ("_firsts", "_spans")

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans = sorted(spans, key=lambda span: span.first)
        self._firsts = [span.first for span in self._spans]

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    @property
    def last(self) -> int:
        """The highest number that is in a span."""
        return self._spans[-1].last if self._spans else 0

    def state_of(self, n: int) -> State:
        """The state of one reading."""
        at = bisect_right(self._firsts, n) - 1
        if at >= 0 and self._spans[at].last >= n:
            return self._spans[at].state
        return PENDING

    def totals(self) -> dict[State, int]:
        """How many are in each state, but for the pending."""
        sums: dict[State, int] = {}
        for span in self._spans:
            sums[span.state] = sums.get(span.state, 0) + len(span)
        return sums

    def outside(self, first: int, last: int) -> list[Run]:
        """The runs between two numbers that are in no span."""
        found, at = [], first
        for nth in range(max(0, bisect_right(self._firsts, first) - 1), len(self._spans)):
            span = self._spans[nth]
            if span.last < at:
                continue
            if span.first > last:
                break
            if span.first > at:
                found.append((at, span.first - 1))
            at = span.last + 1
        if at <= last:
            found.append((at, last))
        return found

    def marked(self, marks: Iterable[Run], state: State, new_id: Callable[[], int]) -> Spans:
        """The same with these runs in another state, whatever theirs was before."""
        cover = Spans(Span(0, first, last, state) for first, last in _joined(marks))
        pieces: list[Span] = []
        for span in self._spans:
            kept = cover.outside(span.first, span.last)
            for nth, (first, last) in enumerate(kept):
                pieces.append(Span(span.id if nth == 0 else 0, first, last, span.state))
        if state != PENDING:
            pieces.extend(cover)
        pieces.sort(key=lambda span: span.first)
        joined: list[Span] = []
        for piece in pieces:
            before = joined[-1] if joined else None
            if before and before.last + 1 == piece.first and before.state == piece.state:
                joined[-1] = evolve(before, id=before.id or piece.id, last=piece.last)
            else:
                joined.append(piece)
        return Spans(span if span.id else evolve(span, id=new_id()) for span in joined)

    def changed_from(self, old: Spans) -> tuple[list[Span], list[int]]:
        """What to write to the table: spans that are new or other, and ids that are gone."""
        before = {span.id: span for span in old}
        written = [span for span in self._spans if before.get(span.id) != span]
        gone = before.keys() - {span.id for span in self._spans}
        return written, sorted(gone)


def _joined(marks: Iterable[Run]) -> list[Run]:
    found: list[Run] = []
    for first, last in sorted(marks):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found
