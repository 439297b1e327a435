"""Answers that say their own length: what a device tells of itself, by functions 43/14 and 17."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.modbus.frames import (
    Frame,
    Request,
    Watch,
    ascii_frame,
    crc16,
    objects_in,
    overheard,
)

UNIT, TRANSACTION = 5, 0x1234
FRAMINGS = ("rtu", "ascii", "tcp")
QUESTIONS = {17: bytes((17,)), 43: bytes((43, 14, 1, 0))}
"""By function, what is sent behind the unit."""

Objects = dict[int, bytes]


def wrapped(framing: str, pdu: bytes, *, unit: int = UNIT, transaction: int = TRANSACTION) -> bytes:
    """Function and data as a frame."""
    body = bytes((unit,)) + pdu
    if framing == "rtu":
        return body + crc16(body)
    if framing == "ascii":
        return ascii_frame(body)
    return transaction.to_bytes(2, "big") + bytes(2) + len(body).to_bytes(2, "big") + body


def watching(framing: str, function: int) -> Watch:
    """Right after the request went out."""
    watch = Watch(framing)
    frame = bytes((UNIT,)) + QUESTIONS[function]
    if framing == "rtu":
        frame += crc16(frame)
    watch.expect(Request(UNIT, function, 250, TRANSACTION, frame, category=1))
    return watch


def took(framing: str, function: int, data: bytes) -> bytes:
    """What is taken for the answer."""
    return watching(framing, function).arrived(data)[0]


def identification(objects: Objects, *, more: int = 0, following: int = 0) -> bytes:
    """An answer of 43/14."""
    listed = b"".join(bytes((number, len(text))) + text for number, text in objects.items())
    return bytes((43, 14, 1, 1, more, following, len(objects))) + listed


def server_id(text: bytes) -> bytes:
    return bytes((17, len(text))) + text


OBJECTS = st.dictionaries(st.integers(0, 255), st.binary(max_size=40), max_size=5)
SOUND = st.one_of(
    st.binary(min_size=1, max_size=251).map(lambda text: (17, server_id(text))),
    st.builds(
        lambda objects, more, following: (
            43,
            identification(objects, more=more, following=following),
        ),
        OBJECTS,
        st.sampled_from((0, 0xFF)),
        st.integers(0, 255),
    ),
    st.builds(
        lambda function, code: (function, bytes((function | 0x80, code))),
        st.sampled_from((17, 43)),
        st.integers(1, 11),
    ),
)
"""Function, and an answer that it may have."""
ACME = (43, identification({0: b"Acme", 1: b"E1", 2: b"1.0"}))


@given(sound=SOUND, framing=st.sampled_from(FRAMINGS), cuts=st.lists(st.integers(0, 600)))
@example(ACME, "rtu", list(range(50)))
def test_an_answer_is_taken_when_its_last_byte_is_there_however_it_is_split(
    sound: tuple[int, bytes], framing: str, cuts: list[int]
) -> None:
    function, pdu = sound
    frame = wrapped(framing, pdu)
    watch = watching(framing, function)
    for cut in sorted(cut for cut in cuts if cut < len(frame)):
        assert watch.arrived(frame[:cut])[0] == b""
    assert watch.arrived(frame)[0] == frame


@given(sound=SOUND, framing=st.sampled_from(FRAMINGS), data=st.data())
@example(ACME, "rtu", None)
def test_what_differs_in_one_bit_is_no_answer(
    sound: tuple[int, bytes], framing: str, data: st.DataObject | None
) -> None:
    function, pdu = sound
    frame = wrapped(framing, pdu)
    bits = (
        range(8 * len(frame)) if data is None else [data.draw(st.integers(0, 8 * len(frame) - 1))]
    )
    for bit in bits:
        turned = int.from_bytes(frame, "big") ^ 1 << bit
        taken = took(framing, function, turned.to_bytes(len(frame), "big"))
        if framing != "tcp":  # a line's check sum finds each one
            assert taken == b"" or taken.lower() == frame.lower()
        elif taken:  # over TCP only a text that is as long may be another one
            assert (len(taken), taken[:6]) == (len(frame), frame[:6])
            assert taken[6:8] in (frame[6:8], bytes((UNIT, function | 0x80)))


@given(sound=SOUND, framing=st.sampled_from(FRAMINGS), before=st.binary(max_size=20))
def test_the_answer_is_found_behind_noise_and_our_own_echo(
    sound: tuple[int, bytes], framing: str, before: bytes
) -> None:
    function, pdu = sound
    assume(framing == "rtu" and UNIT not in before)
    frame = wrapped(framing, pdu)
    assert took(framing, function, before + wrapped("rtu", QUESTIONS[function]) + frame) == frame


@given(data=st.binary(max_size=300), function=st.sampled_from((17, 43)))
def test_nothing_but_a_whole_frame_of_the_unit_and_function_is_an_answer(
    data: bytes, function: int
) -> None:
    for framing in FRAMINGS:
        taken = took(framing, function, data)
        if taken:
            assert (framing, taken[0], taken[1] & 0x7F) == ("rtu", UNIT, function)
            assert crc16(taken[:-2]) == taken[-2:]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(
    ("function", "pdu"),
    [
        (43, bytes((43, 13, 1, 1, 0, 0, 0))),  # another interface
        (43, bytes((43, 14, 2, 1, 0, 0, 0))),  # objects of another category
        (43, bytes((43, 14, 1, 0, 0, 0, 0))),  # conformity 0
        (43, bytes((43, 14, 1, 4, 0, 0, 0))),
        (43, bytes((43, 14, 1, 1, 1, 0, 0))),  # more follows: neither 00 nor FF
        (43, bytes((43, 14, 1, 1, 0, 0))),  # no count
        (43, identification({0: b"Acme"})[:-1]),
        (43, identification({0: b"Acme"}) + b"\0"),
        (43, bytes((43, 14, 1, 1, 0, 0, 2, 0, 1, 65))),  # one object less than it says
        (43, server_id(b"Acme")),
        (43, bytes((0xAB,))),
        (43, bytes((0xAB, 1, 1))),
        (17, server_id(b"Acme")[:-1]),
        (17, server_id(b"Acme") + b"\0"),
        (17, bytes((17,))),
        (17, identification({0: b"Acme"})),
        (17, bytes((0xAB, 1))),
        (43, bytes((0x91, 1))),
    ],
)
def test_an_answer_of_another_form_is_not_taken(framing: str, function: int, pdu: bytes) -> None:
    assert took(framing, function, wrapped(framing, pdu)) == b""


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("pdu", [server_id(b"Acme"), identification({0: b"Acme"})])
def test_an_answer_of_another_unit_or_transaction_is_not_taken(framing: str, pdu: bytes) -> None:
    assert took(framing, pdu[0], wrapped(framing, pdu, unit=UNIT + 1)) == b""
    watch = watching(framing, pdu[0])
    watch.arrived(wrapped(framing, pdu, unit=UNIT + 1))
    assert watch.seen() == "unit"
    if framing == "tcp":
        assert took(framing, pdu[0], wrapped(framing, pdu, transaction=TRANSACTION + 1)) == b""


@given(objects=OBJECTS, more=st.booleans(), following=st.integers(0, 255), behind=st.binary())
def test_the_objects_are_those_that_were_sent(
    objects: Objects, more: bool, following: int, behind: bytes
) -> None:
    pdu = identification(objects, more=0xFF if more else 0, following=following)
    found = objects_in(pdu[1:] + behind)
    assert found is not None
    assert dict(found.given) == objects
    assert found.following == (following if more else None)
    assert found.length == len(pdu) - 1


@pytest.mark.parametrize("pdu", [server_id(b"Acme meter"), identification({0: b"Acme"})])
@pytest.mark.parametrize("framing", ["rtu", "ascii"])
def test_one_that_nobody_waited_for_is_known_for_an_answer(framing: str, pdu: bytes) -> None:
    assert overheard(framing, wrapped(framing, pdu)) == [Frame(UNIT, request=False)]
    asked = wrapped(framing, QUESTIONS[43])
    assert overheard(framing, asked) == [Frame(UNIT, request=True)]
