from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.document import Items, Scalar, Table, compose
from gateway.config.report import Report
from gateway.errors import ConfigurationError, Mistake


def composed(text: str) -> tuple[object, tuple[Mistake, ...]]:
    report = Report("gateway.yaml", text)
    return compose(text, report), report.mistakes()


def refused(text: str) -> list[tuple[int, int, str]]:
    try:
        found = composed(text)[1]
    except ConfigurationError as error:
        found = error.mistakes
    return [(mistake.line, mistake.column, mistake.message) for mistake in found]


def test_a_scalar_keeps_its_text_and_place() -> None:
    root, found = composed("meterID: 0077\nname: no\nlist: [1.0, '1', 0x10]\n")
    assert found == ()
    assert isinstance(root, Table)
    values = [value for _, value in root.entries]
    assert isinstance(values[0], Scalar)
    assert (values[0].text, values[0].plain) == ("0077", True)
    assert (values[0].span.line, values[0].span.column, values[0].span.end_column) == (1, 10, 14)
    assert isinstance(values[1], Scalar)
    assert values[1].text == "no"
    assert isinstance(values[2], Items)
    assert [(i.text, i.plain) for i in values[2].items if isinstance(i, Scalar)] == [
        ("1.0", True),
        ("1", False),
        ("0x10", True),
    ]


def test_a_key_without_a_value_stands_on_its_own_line() -> None:
    root, _ = composed("a:\n\n\nb: 1\n")
    assert isinstance(root, Table)
    assert root.entries[0][1].span.line == 1


def test_an_empty_text_is_no_node() -> None:
    assert composed("") == (None, ())
    assert composed("# only a comment\n") == (None, ())


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("a: &x 1\nb: *x\n", 1, 4, "anchors"),
        ("a: *x\n", 1, 4, "anchors"),
        ("a: !!int 1\n", 1, 4, "tags"),
        ("a: !mine {b: 1}\n", 1, 4, "tags"),
        ("a: 1\nb: 2\na: 3\n", 3, 1, "stands twice"),
        ("a: {<<: {b: 1}, c: 1}\n", 1, 5, "merge keys"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", 1, 4, "anchors"),
        ("a: 1\n---\nb: 1\n", 2, 1, "second document"),
        ("? [a]\n: 1\n", 1, 3, "plain word"),
        ("a:\n\tb: 1\n", 2, 1, "a tab"),
        ("a:\t1\n", 1, 3, "a tab"),
        ("a:\xa01\n", 1, 3, "a space of another kind"),
        ("a:\n\u3000\u3000b: 1\n", 2, 1, "a space of another kind"),
        ("a: 1\nb:2\nc: 3\n", 2, 1, "a space is missing"),
        ("a: [1, 2\nb: 1\n", 1, 4, "brackets"),
        ("a: {b: 1\nc: 1\n", 1, 4, "braces"),
        ('a: 1\nb: "x\nc: 1\nd: "y"\n', 2, 4, "quote"),
        ("b: 'x\nc: 1\n", 1, 4, "quote"),
        ("a: b: c\n", 1, 5, '":" where none'),
        ("a:\n  b: 1\n c: 1\n", 3, 2, "does not fit"),
        ("a: 1\nbcd\ne: 2\n", 2, 1, 'without its ":"'),
        ("a: 1\n- b\n", 2, 1, "does not fit"),
        ("a: @b\n", 1, 4, "cannot begin"),
        ("a: b\x07\n", 1, 5, "control character"),
        ('a: "\\q"\n', 1, 6, "backslash"),
        ("%YAML 1.1\n---\na: 1\n", 1, 1, "directives"),
        ("a: " + "[" * 30 + "]" * 30, 1, 23, "deeper"),
    ],
)
def test_what_is_not_used_here_is_refused_where_it_stands(
    text: str, line: int, column: int, part: str
) -> None:
    found = refused(text)
    assert (found[0][0], found[0][1]) == (line, column), found
    assert part in found[0][2]


def test_a_merged_anchor_is_two_mistakes_at_two_places_and_no_third() -> None:
    found = refused("base: &b {x: 1}\nc:\n  <<: *b\n")
    assert [line for line, _, _ in found] == [1, 3]


def test_tabs_and_odd_spaces_in_comments_are_let_pass() -> None:
    assert refused("a: 1 # 500\xa0kB\n") == []
    assert refused("a: 1\t# not here\n") == [(1, 5, "a tab")]
    assert refused("a: 1 #\there\n") == []


def test_a_million_brackets_are_refused_quickly() -> None:
    assert "deeper" in refused("[" * 900_000)[0][2]


def test_a_megabyte_is_the_most() -> None:
    assert "1 MB" in refused("a: " + "x" * 1_000_000)[0][2]


# Characters that mean something to YAML, so that random texts are often nearly valid.
_TEXT = st.text(
    st.sampled_from("ab:- \n[]{},#&*!|>'\"%@`?\\<>~\t0") | st.characters(), max_size=200
)


@settings(derandomize=True, max_examples=1500, deadline=None)
@given(_TEXT)
def test_no_text_makes_it_fail_otherwise_than_with_a_mistake(text: str) -> None:
    for line, column, message in refused(text):
        assert line >= 1
        assert column >= 1
        assert message


@settings(derandomize=True, max_examples=500, deadline=None)
@given(st.sampled_from("xuU"), st.text("0123456789abcdefABCDEF\"'\\", max_size=10))
def test_no_escape_makes_it_fail_otherwise(letter: str, digits: str) -> None:
    refused(f'a: "\\{letter}{digits}"\n')
