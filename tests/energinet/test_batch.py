"""Bodies: filled to the byte, each value once, numbers and stamps as the API has them."""

from __future__ import annotations

import json
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.energinet.batch import Body, number, stamp_text
from gateway.energinet.twins import Twins
from gateway.metering.reading import Offer, SeriesKey, Waiting

OSLO = ZoneInfo("Europe/Oslo")
HOUR = 3_600_000
FEBRUARY = 1_675_209_600_000  # 2023-02-01T00:00Z


def waiting(id: int, meter: str, stamp: int, value: str) -> Waiting:
    return Waiting(id, SeriesKey("", meter), stamp, Decimal(value))


def body(limit: int = 500_000, **more: object) -> Body:
    return Body(limit=limit, zone=OSLO, timestamps="local", twins=Twins(), **more)  # type: ignore[arg-type]


def test_a_body_has_the_documented_form() -> None:
    made = body()
    made.offer(waiting(1, "7777777777", FEBRUARY + 2 * HOUR, "46"))
    made.offer(waiting(2, "7777777777", FEBRUARY + HOUR, "45.50"))
    made.offer(waiting(3, "66", FEBRUARY + HOUR, "23.44"))
    assert made.encode().data == (
        b'[{"meterID":"7777777777","values":[["2023-02-01T02:00",45.5],["2023-02-01T03:00",46]]},'
        b'{"meterID":"66","values":[["2023-02-01T02:00",23.44]]}]'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [("0", "0"), ("-0.0", "0"), ("1E+3", "1000"), ("1E-9", "0.000000001"), ("230.10", "230.1")],
)
def test_numbers_keep_every_digit_and_have_no_exponent(value: str, text: str) -> None:
    assert number(Decimal(value)) == text


@pytest.mark.parametrize(
    ("timestamps", "text"),
    [
        ("local", "2023-02-01T01:00:05"),
        ("offset", "2023-02-01T01:00:05+01:00"),
        ("utc", "2023-02-01T00:00:05Z"),
    ],
)
def test_seconds_stand_in_a_stamp_only_where_they_are_not_zero(timestamps: str, text: str) -> None:
    shown = stamp_text(FEBRUARY + 5_000, OSLO, timestamps)  # type: ignore[arg-type]
    assert shown == text
    assert ":05" not in stamp_text(FEBRUARY, OSLO, timestamps)  # type: ignore[arg-type]


AUTUMN = 1_698_537_600_000  # 2023-10-29T00:00Z, 02:00 in Oslo; an hour later it is 02:00 again


@pytest.mark.parametrize("timestamps", ["offset", "utc"])
def test_with_an_offset_both_values_of_the_repeated_hour_are_sent(timestamps: str) -> None:
    made = Body(limit=10_000, zone=OSLO, timestamps=timestamps, twins=Twins())  # type: ignore[arg-type]
    assert made.offer(waiting(1, "m", AUTUMN, "1")) is Offer.TAKEN
    assert made.offer(waiting(2, "m", AUTUMN + HOUR, "2")) is Offer.TAKEN
    assert made.encode().count == 2
    assert not made.encode().late


def test_what_is_in_the_future_or_too_old_is_passed_over() -> None:
    made = body(newest=FEBRUARY, oldest=FEBRUARY - HOUR)
    assert made.offer(waiting(1, "m", FEBRUARY + 1_000, "1")) is Offer.SKIP
    assert made.offer(waiting(2, "m", FEBRUARY - HOUR - 1_000, "1")) is Offer.SKIP
    assert made.offer(waiting(3, "m", FEBRUARY, "1")) is Offer.TAKEN
    assert made.offer(waiting(4, "m", FEBRUARY - HOUR, "1")) is Offer.TAKEN


def test_a_meter_id_stands_once_in_a_body_though_two_imports_know_it() -> None:
    made = body()
    old = Waiting(1, SeriesKey("", "7"), FEBRUARY, Decimal(1))
    new = Waiting(2, SeriesKey("north", "7"), FEBRUARY, Decimal(2))
    assert made.offer(old) is Offer.TAKEN
    assert made.offer(new) is Offer.SKIP
    assert made.encode().sent == {"7": 1}


def test_a_cap_holds_for_its_meter_only() -> None:
    made = body(caps={"a": 1})
    assert made.offer(waiting(1, "a", FEBRUARY, "1")) is Offer.TAKEN
    assert made.offer(waiting(2, "a", FEBRUARY + HOUR, "1")) is Offer.SKIP
    assert made.offer(waiting(3, "b", FEBRUARY, "1")) is Offer.TAKEN
    assert made.offer(waiting(4, "b", FEBRUARY + HOUR, "1")) is Offer.TAKEN


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.integers(0, 2_000_000),
            st.decimals(-(10**12), 10**12, allow_nan=False, places=4),
        ),
        unique_by=lambda t: (t[0], t[1]),
        max_size=120,
    ),
    st.integers(60, 6_000),
    st.sampled_from(["local", "offset", "utc"]),
)
def test_a_body_is_within_its_limit_and_loses_and_repeats_nothing(
    rows: list[tuple[int, int, Decimal]], limit: int, timestamps: str
) -> None:
    made = Body(limit=limit, zone=OSLO, timestamps=timestamps, twins=Twins())  # type: ignore[arg-type]
    taken: dict[int, Waiting] = {}
    full = False
    for id, (meter, second, value) in enumerate(rows):
        one = Waiting(id, SeriesKey("", f"meter {meter} \u00e6"), second * 1000, value)
        answer = made.offer(one)
        if answer is Offer.TAKEN:
            taken[id] = one
        full = full or answer is Offer.FULL
    batch = made.encode()
    assert len(batch.data) == made.size <= limit
    sent = {one.id for values in batch.values.values() for one in values}
    assert sent == set(taken)
    decoded = json.loads(batch.data, parse_float=Decimal, parse_int=Decimal)
    assert sum(len(one["values"]) for one in decoded) == len(taken) == batch.count
    for one in decoded:
        stamps = [stamp for stamp, _ in one["values"]]
        assert len(set(stamps)) == len(stamps)
        expected = [
            (stamp_text(w.stamp, OSLO, timestamps), w.value)  # type: ignore[arg-type]
            for w in batch.values[SeriesKey("", one["meterID"])]
        ]
        assert [(stamp, value) for stamp, value in one["values"]] == expected


@pytest.mark.parametrize("meters", [1, 10, 100, 500])
def test_a_body_is_filled_to_999_in_1000_while_there_is_backlog(meters: int) -> None:
    made = body()
    for step in range(60_000):
        offered = waiting(
            step + 1,
            f"70000000{step % meters:04d}",
            step // meters * 900_000,
            f"{step * 7919 % 99_991}.5",
        )
        if made.offer(offered) is Offer.FULL:
            break
    assert 499_500 <= len(made.encode().data) <= 500_000
