"""A clock is right by the date of an answer, until it is set."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from gateway.clock import DAY, HOUR, MINUTE
from gateway.energinet.response import Response
from gateway.energinet.settings import Secret
from gateway.energinet.witness import Witness
from tests.clocks import FakeClock
from tests.energinet.made import START


class Dated:
    """Answers with a date, or with whatever else stands there."""

    def __init__(self, date: str) -> None:
        self.date = date

    async def post(self, data: bytes, token: Secret, *, deadline: float) -> Response:
        return Response(200, {"date": self.date} if self.date else {}, b"", True, 0.1)


def at(instant: int) -> str:
    return formatdate(instant / 1000, usegmt=True)


async def heard(witness: Witness) -> bool:
    await witness.post(b"[]", Secret("t"), deadline=1.0)
    return witness.agrees()


@pytest.mark.parametrize(
    ("date", "agrees"),
    [
        (at(START), True),
        (at(START - 23 * HOUR), True),
        (at(START + 2 * DAY), False),
        (at(START - 2 * DAY), False),
        (at(START - 3650 * DAY), False),
        ("", False),
        ("yesterday", False),
        ("Tue, 99 Foo 99999 99:99:99 GMT", False),
    ],
)
async def test_a_clock_agrees_with_an_answer_of_the_same_day(date: str, agrees: bool) -> None:
    witness = Witness(Dated(date), FakeClock(START))
    assert not witness.agrees()
    assert await heard(witness) is agrees


async def test_a_clock_that_was_set_since_has_to_be_heard_again() -> None:
    clock = FakeClock(START)
    client = Dated(at(START))
    witness = Witness(client, clock)
    assert await heard(witness)
    await clock.pass_(40 * DAY / 1000)
    assert witness.agrees()
    clock.step(2 * MINUTE)
    assert not witness.agrees()
    client.date = at(clock.now())
    assert await heard(witness)
    clock.is_synchronised = False
    assert not witness.agrees()


async def test_an_answer_that_contradicts_ends_it_and_one_without_a_date_does_not() -> None:
    client = Dated(at(START))
    witness = Witness(client, FakeClock(START))
    assert await heard(witness)
    client.date = ""
    assert await heard(witness)
    client.date = at(START + 400 * DAY)
    assert not await heard(witness)
