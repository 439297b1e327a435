"""What became of readings, as runs: the same as a dictionary says, in fewer words."""

from __future__ import annotations

from itertools import count, groupby

from hypothesis import given
from hypothesis import strategies as st

from gateway.buffer.spans import CONFIRMED, PENDING, Spans, parked, runs, unsettled

TOP = 40
STATES = [PENDING, CONFIRMED, parked("refused"), parked("too_old"), "h:clock"]

marks = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(1, TOP), st.integers(0, 9)), min_size=1, max_size=3),
        st.sampled_from(STATES),
    ),
    max_size=12,
)


@given(marks)
def test_spans_say_what_a_dictionary_of_every_number_says(marked: list) -> None:
    model: dict[int, str] = {}
    spans = Spans()
    table: dict[int, tuple[int, int, str]] = {}
    ids = count(1)
    for some, state in marked:
        chosen = [(first, first + more) for first, more in some]
        before, spans = spans, spans.marked(chosen, state, lambda: next(ids))
        for first, last in chosen:
            model.update(dict.fromkeys(range(first, last + 1), state))
        written, gone = spans.changed_from(before)
        for id in gone:
            del table[id]
        table.update({span.id: (span.first, span.last, span.state) for span in written})

        states = [model.get(n, PENDING) for n in range(1, TOP + 11)]
        assert [spans.state_of(n) for n in range(1, TOP + 11)] == states
        assert sum(spans.totals().values()) == sum(state != PENDING for state in states)
        # Neighbours of one state are one span, and the table holds just the spans.
        assert len(spans) == sum(1 for state, _ in groupby(states) if state != PENDING)
        assert sorted(table.values()) == sorted((s.first, s.last, s.state) for s in spans)


@given(marks, st.integers(1, TOP), st.integers(0, TOP))
def test_outside_gives_the_runs_that_no_span_covers(marked: list, first: int, more: int) -> None:
    spans = Spans()
    ids = count(1)
    for some, state in marked:
        spans = spans.marked([(a, a + b) for a, b in some], state, lambda: next(ids))
    free = [n for n in range(first, first + more + 1) if spans.state_of(n) == PENDING]
    assert spans.outside(first, first + more) == runs(free)


def test_held_readings_still_wait_and_parked_ones_do_not() -> None:
    assert unsettled("h:clock")
    assert unsettled(PENDING)
    assert not unsettled(parked("refused"))
    assert not unsettled(CONFIRMED)
