"""Every answer falls in exactly one row, and nothing but the documented form confirms."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.energinet.answer import Row, read_answer, row_of
from gateway.energinet.limits import MAX_COMMAS

SENT = {"77": 2, "0077": 1}


def entry(meter_id: object, count: object = 2, status: object = 201) -> dict[str, object]:
    return {"meterID": meter_id, "number_of_values": count, "status": status}


def verdict(entries: object, meter_id: str = "77") -> str:
    return read_answer(200, {}, json.dumps(entries).encode(), SENT).verdicts[meter_id].kind


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        ([entry("77")], "confirmed"),
        ([entry(77)], "confirmed"),
        ([entry("77", status=299)], "confirmed"),
        ([entry("77", count=1)], "short"),
        ([entry("77", count=3)], "short"),
        ([entry("77", status=404)], "refused"),
        ([entry("77", status=0)], "refused"),
        ([], "missing"),
        ([entry("78")], "missing"),
        ([entry("77", count="2")], "missing"),
        ([entry("77", count=2.0)], "missing"),
        ([entry("77", count=True)], "missing"),
        ([entry("77", status="201")], "missing"),
        ([entry("77", status=None)], "missing"),
        ([entry(["77"])], "missing"),
        ([entry("77"), entry("77")], "confirmed"),
        ([entry("77"), entry("77", status=500)], "missing"),
        ([entry("77"), 5, None, "x", []], "confirmed"),
        ([{"meterID": "77", "status": 201}], "missing"),
    ],
)
def test_an_entry_confirms_only_what_it_says(entries: object, kind: str) -> None:
    assert verdict(entries) == kind


def test_an_identifier_with_zeros_in_front_is_not_its_number() -> None:
    assert verdict([entry(77, count=1)], "0077") == "missing"
    assert verdict([entry("0077", count=1)], "0077") == "confirmed"


def test_more_than_an_answer_can_have_is_not_read_at_all() -> None:
    filled = [entry("77"), *[{}] * (MAX_COMMAS - 3)]
    body = json.dumps(filled, separators=(",", ":")).encode()
    assert read_answer(200, {}, body, SENT).row is Row.LIST
    assert read_answer(200, {}, body[:-1] + b",1]", SENT).row is Row.LIST
    assert read_answer(200, {}, body[:-1] + b",1,1]", SENT).row is Row.UNREADABLE
    assert verdict([entry(10**200)]) == "missing"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Service unavailable</html>",
        b"{}",
        b'"text"',
        b"null",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'[{"meterID": "77"',
        b"\xff\xfe",
        b"[" + b"9" * 5_000 + b"]",
        json.dumps([entry("77")]).encode()[:-1],
    ],
)
def test_anything_but_a_list_confirms_nothing(body: bytes) -> None:
    answer = read_answer(200, {}, body, SENT)
    assert answer.row is Row.UNREADABLE
    assert answer.verdicts == {}


def test_an_answer_that_was_cut_off_confirms_nothing() -> None:
    whole = json.dumps([entry("77")]).encode()
    assert read_answer(200, {}, whole, SENT, whole=False).row is Row.UNREADABLE


@pytest.mark.parametrize(
    ("status", "row"),
    [
        (100, Row.SERVER),
        (101, Row.SERVER),
        (200, Row.LIST),
        (204, Row.LIST),
        (301, Row.REDIRECT),
        (308, Row.REDIRECT),
        (400, Row.BODY),
        (401, Row.TOKEN),
        (403, Row.TOKEN),
        (404, Row.CONFIGURATION),
        (405, Row.CONFIGURATION),
        (409, Row.CONFLICT),
        (413, Row.TOO_LARGE),
        (418, Row.CONFIGURATION),
        (422, Row.BODY),
        (429, Row.TOO_MANY),
        (500, Row.SERVER),
        (599, Row.SERVER),
        (600, Row.SERVER),
        (0, Row.SERVER),
        (-1, Row.SERVER),
    ],
)
def test_each_status_has_its_row(status: int, row: Row) -> None:
    assert row_of(status) is row


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("120", 120_000),
        (" 120 ", 120_000),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 60_000),
        ("Wed, 21 Oct 2015 07:20:00 GMT", 0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("9" * 400, 999_999_999_999_000),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, millis: int | None) -> None:
    now = 1_445_412_420_000  # a minute before that date
    answer = read_answer(429, {"retry-after": text}, b"", SENT, now=now)
    assert answer.retry_after == millis


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "meterID": st.sampled_from(["77", 77, "0077", "9"]) | json_values,
        "number_of_values": st.integers(-1, 3) | json_values,
        "status": st.sampled_from([200, 201, 299, 300, 404]) | json_values,
    },
)
bodies = (
    st.binary()
    | st.lists(entries | json_values).map(lambda v: json.dumps(v).encode())
    | json_values.map(lambda v: json.dumps(v).encode())
)


@given(st.integers(-10, 700), bodies, st.booleans())
def test_reading_is_total_and_never_confirms_another_count(
    status: int, body: bytes, whole: bool
) -> None:
    answer = read_answer(status, {}, body, SENT, whole=whole)
    assert isinstance(answer.row, Row)
    assert (answer.row in (Row.LIST, Row.UNREADABLE)) == (200 <= status <= 299)
    assert (set(answer.verdicts) == set(SENT)) == (answer.row is Row.LIST)
    for meter_id, one in answer.verdicts.items():
        if one.kind == "confirmed":
            assert whole
            found = [e for e in json.loads(body) if isinstance(e, dict)]
            assert any(str(e.get("meterID")) == meter_id for e in found)
            assert one.counted == SENT[meter_id]
