from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import DAY, HOUR, MINUTE, SECOND
from gateway.config.addresses import host_port, is_loopback, zone
from gateway.config.document import Scalar
from gateway.config.measures import duration, power, show_duration, show_size, size
from gateway.config.report import Span
from gateway.config.values import (
    Reader,
    Wrong,
    boolean,
    choice,
    decimal,
    decimal_text,
    integer,
    meter_id,
    name,
)


def plain(text: str) -> Scalar:
    return Scalar(text, True, Span(1, 1, 1, 1 + len(text)))


def in_quotes(text: str) -> Scalar:
    return Scalar(text, False, Span(1, 1, 1, 3 + len(text)))


def suggestion(read: Reader[object], text: str) -> str:
    with pytest.raises(Wrong) as caught:
        read(plain(text))
    return caught.value.suggestion


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 ms", 0),
        ("60 ms", 60),
        ("10s", 10 * SECOND),
        ("10 min", 10 * MINUTE),
        ("1 h", HOUR),
        ("400 d", 400 * DAY),
        ("1.5 h", 90 * MINUTE),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, expected: int) -> None:
    assert duration()(plain(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10", "10 s? 10 min?"),
        ("10 m", 'did you mean "10 min"?'),
        ("2 hours", 'did you mean "2 h"?'),
        ("10 Min", 'did you mean "10 min"?'),
        ("1 week", "write 7 d"),
        ("2 years", "write 730 d"),
        ("1 fortnight", ""),
    ],
)
def test_a_duration_without_its_unit_says_what_was_meant(text: str, expected: str) -> None:
    assert suggestion(duration(SECOND, DAY), text) == expected


@pytest.mark.parametrize("text", ["", "-1 s", "1e3 s", "s", "1 s 2", "0.0001 ms", "١ s", "1 s\n1"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(Wrong):
        duration()(plain(text))


def test_a_duration_out_of_its_range_says_the_range() -> None:
    with pytest.raises(Wrong, match="10 min to 1 d"):
        duration(10 * MINUTE, DAY)(plain("9 min"))


@given(st.integers(0, 3660 * DAY))
def test_a_duration_that_is_shown_reads_back_the_same(span: int) -> None:
    assert duration()(plain(show_duration(span))) == span


@given(st.integers(1, 10**12).map(lambda n: n * 1000))
def test_a_size_that_is_shown_reads_back_the_same(count: int) -> None:
    assert size(1, 10**16)(plain(show_size(count))) == count


def test_kilobytes_are_a_thousand_bytes_and_other_spellings_are_explained() -> None:
    read = size(1, 10**12)
    assert read(plain("500 kB")) == 500_000
    assert read(plain("1 GB")) == 1_000_000_000
    assert suggestion(read, "500 KB") == 'did you mean "500 kB"?'
    assert suggestion(read, "1 GiB") == 'did you mean "1 GB"?'


def test_power_is_in_watts() -> None:
    assert power(plain("100 kW")) == 100_000
    assert power(plain("1.5 MW")) == 1_500_000
    assert suggestion(power, "100 kw") == 'did you mean "100 kW"?'
    with pytest.raises(Wrong):
        power(plain("0 W"))


@pytest.mark.parametrize("text", ["1.9", "true", "1e3", "007", "1_000", "", " ", "0o7", "٣", "+1"])
def test_a_whole_number_is_never_made_of_something_else(text: str) -> None:
    with pytest.raises(Wrong):
        integer(0, 10_000)(plain(text))


def test_a_whole_number_stands_without_quotes() -> None:
    assert integer(0, 255)(plain("0x1F")) == 31
    assert integer(-5, 255)(plain("-3")) == -3
    with pytest.raises(Wrong, match="quotes"):
        integer(0, 255)(in_quotes("1"))


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9
    )
)
def test_a_number_is_what_was_written(number: Decimal) -> None:
    assert decimal(plain(f"{number:f}")) == number
    assert decimal_text(in_quotes(f"{number:f}")) == number


def test_a_number_that_has_to_be_a_text_says_so() -> None:
    assert suggestion(decimal_text, "0.1") == 'write "0.1"'
    assert suggestion(decimal, "1,5") == "write 1.5"
    with pytest.raises(Wrong):
        decimal(plain("nan"))


def test_only_true_and_false_are_booleans() -> None:
    assert boolean(plain("true"))
    assert not boolean(plain("false"))
    assert suggestion(boolean, "yes") == "write true"
    assert suggestion(boolean, "off") == "write false"
    assert suggestion(boolean, "True") == "write true"
    assert suggestion(boolean, "1") == ""
    with pytest.raises(Wrong):
        boolean(in_quotes("true"))


def test_a_meter_id_is_the_text_as_written() -> None:
    assert meter_id(plain("0077")) == "0077"
    assert name(plain("no")) == "no"
    for bad in ("-x", "x" * 65, "a\u200bb\x07"):
        with pytest.raises(Wrong):
            name(plain(bad))


def test_a_choice_suggests_the_nearest() -> None:
    assert suggestion(choice("none", "even", "odd"), "evn") == 'did you mean "even"?'
    assert suggestion(choice("none", "even", "odd"), "EVEN") == 'did you mean "even"?'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.168.10.20:502", ("192.168.10.20", 502)),
        ("192.168.10.20", ("192.168.10.20", 502)),
        ("meter-1.local:1502", ("meter-1.local", 1502)),
        ("[::1]:502", ("::1", 502)),
        ("[fe80::1%eth0]:502", ("fe80::1%eth0", 502)),
        ("[::1]", ("::1", 502)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert host_port(plain(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("::1:502", 'did you mean "[::1]:502"?'),
        ("tcp://10.0.0.1:502", 'did you mean "10.0.0.1:502"?'),
        ("10.0.0.256:502", ""),
        ("10.0.0.1:0", ""),
        ("10.0.0.1:99999", ""),
        ("a b:502", ""),
        ("[meter]:502", ""),
        (":502", "host:port, the port a number"),
    ],
)
def test_what_is_no_address_is_refused(text: str, expected: str) -> None:
    assert suggestion(host_port, text) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("localhost.example.net", False),
        ("127.0.0.1.example.net", False),
        ("192.168.0.1", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_only_this_machine_is_a_loopback_address(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_zone_is_an_iana_name() -> None:
    assert zone(plain("Europe/Oslo")) == "Europe/Oslo"
    assert suggestion(zone, "Europe/Olso") == 'did you mean "Europe/Oslo"?'
    assert suggestion(zone, "Oslo") == 'did you mean "Europe/Oslo"?'
    assert suggestion(zone, "europe/oslo") == 'did you mean "Europe/Oslo"?'
    # "Etc/GMT+1" would be an hour behind where an hour ahead was meant.
    for meant in ("UTC+1", "GMT+1", "UTC+01:00", "+01:00", "GMT+01:00"):
        assert suggestion(zone, meant) == "an IANA name such as Europe/Oslo"
    for bad in ("../../etc/passwd", "Europe", "/etc/localtime", "", "GMT+25:00"):
        with pytest.raises(Wrong):
            zone(plain(bad))
