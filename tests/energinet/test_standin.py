"""The stand-in enforces every documented limit, and notes who broke it, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal

import pytest

from gateway.clock import MINUTE
from gateway.energinet.limits import oldest_allowed
from gateway.energinet.standin import PATH, Scripted, StandIn

NOW = 1_767_225_600_000  # 2026-01-01T00:00Z, 01:00 in Oslo
SLOT = 600_000
BODY = b'[{"meterID": "7", "values": [["2026-01-01T01:00", 45], ["2025-12-31T23:00", 46.5]]}]'


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    made = StandIn({"one": "basement", "two": "attic"}, now=lambda: NOW)
    await made.start()
    yield made
    await made.stop()


def port(standin: StandIn) -> int:
    assert standin._server is not None
    return int(standin._server.sockets[0].getsockname()[1])


async def raw(standin: StandIn, data: bytes) -> bytes:
    """Send bytes; what comes until the line is cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port(standin))
    try:
        writer.write(data)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


async def ask(
    standin: StandIn,
    body: bytes = BODY,
    *,
    token: str = "one",
    method: str = "POST",
    path: str = PATH,
    **headers: str,
) -> tuple[int, object]:
    lines = {
        "Host": "x",
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Content-Length": str(len(body)),
    }
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in lines.items() if value
    )
    answer = await raw(standin, head.encode() + b"\r\n" + body)
    first, _, rest = answer.partition(b"\r\n")
    return int(first.split()[1]), json.loads(rest.partition(b"\r\n\r\n")[2])


async def test_it_answers_as_documented_and_holds_what_it_took(standin: StandIn) -> None:
    status, answer = await ask(standin)
    assert (status, answer) == (200, [{"meterID": "7", "number_of_values": 2, "status": 201}])
    assert standin.received == {
        "7": {"2026-01-01T01:00": Decimal(45), "2025-12-31T23:00": Decimal("46.5")}
    }
    assert standin.violations == []


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"token": "three"}, 401, "401: no known token"),
        ({"Authorization": "Basic one"}, 401, "401: no known token"),
        ({"Authorization": ""}, 401, "401: no known token"),
        ({"method": "PUT"}, 405, "405: no such endpoint"),
        ({"method": "GET"}, 405, "405: no such endpoint"),
        ({"path": "/apiImport/other"}, 404, "404: no such endpoint"),
        ({"path": PATH + "/"}, 404, "404: no such endpoint"),
        ({"Content_Type": "text/plain"}, 400, "400: content-type is not application/json"),
        ({"Content_Type": ""}, 400, "400: content-type is not application/json"),
        ({"Accept": "*/*"}, 400, "400: accept is not application/json"),
        ({"body": b"{"}, 400, "400: not JSON"),
        ({"body": b"[" * 100_000}, 400, "400: not JSON"),
        ({"body": b"{}"}, 400, "400: not a list"),
        ({"body": BODY[:-1] + b"," + BODY[1:]}, 400, "400: a meterID stands twice"),
        ({"body": BODY[:-1] + b" " * 500_000 + b"]"}, 413, f"413: {500_000 + len(BODY)} bytes"),
    ],
)
async def test_a_request_that_breaks_a_rule_is_refused_as_a_whole(
    standin: StandIn, change: dict[str, str], status: int, told: str
) -> None:
    answered, _ = await ask(standin, **change)  # type: ignore[arg-type]
    assert answered == status
    assert standin.violations == [told]
    assert standin.received == {}


async def test_half_a_megabyte_is_taken_and_a_byte_more_is_not(standin: StandIn) -> None:
    exact = BODY[:-1] + b" " * (500_000 - len(BODY)) + b"]"
    assert (await ask(standin, exact))[0] == 200
    assert (await ask(standin, exact + b" ", token="two"))[0] == 413


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([["2026-01-01T01:01", 1]], "in the future"),
        ([["2026-01-01T00:00:01Z", 1]], "in the future"),
        ([["2021-01-01T00:59", 1]], "older than five years"),
        ([["2020-12-31T23:59:59Z", 1]], "older than five years"),
        ([["yesterday", 1]], "not ISO 8601"),
        ([[1767225600, 1]], "not ISO 8601"),
        ([["2026-01-01T00:00", "1"]], "not a number"),
        ([["2026-01-01T00:00", None]], "not a number"),
        ([["2026-01-01T00:00", True]], "not a number"),
        ([["2026-01-01T00:00", float("nan")]], "not a number"),
        ([["2026-01-01T00:00"]], "not [dateTime, value]"),
        ([{"2026-01-01T00:00": 1}], "not [dateTime, value]"),
    ],
)
async def test_a_meter_with_a_value_that_breaks_a_rule_is_refused_alone(
    standin: StandIn, values: object, told: str
) -> None:
    good = {"meterID": "8", "values": [["2026-01-01T00:00", 2]]}
    status, answer = await ask(
        standin, json.dumps([{"meterID": "7", "values": values}, good]).encode()
    )
    assert status == 200
    assert answer == [
        {"meterID": "7", "number_of_values": 0, "status": 422},
        {"meterID": "8", "number_of_values": 1, "status": 201},
    ]
    assert len(standin.violations) == 1
    assert told in standin.violations[0]
    assert set(standin.received) == {"8"}


@pytest.mark.parametrize(
    "stamp", ["2021-01-01T01:00", "2021-01-01T00:00Z", "2026-01-01T01:00+01:00", "2026-01-01T01:00"]
)
async def test_five_years_and_this_moment_are_taken(standin: StandIn, stamp: str) -> None:
    await ask(standin, json.dumps([{"meterID": "7", "values": [[stamp, 1]]}]).encode())
    assert standin.violations == []


@pytest.mark.parametrize(
    "one",
    [
        5,
        {},
        {"meterID": 7, "values": []},
        {"meterID": "7", "values": {}},
        {"meterID": "7", "values": [], "unit": "kWh"},
        {"meterID": "7"},
    ],
)
async def test_a_value_set_of_another_form_is_refused_alone(standin: StandIn, one: object) -> None:
    status, answer = await ask(standin, json.dumps([one]).encode())
    assert status == 200
    assert isinstance(answer, list)
    assert answer[0]["status"] == 422
    assert standin.violations[0].startswith("form: ")


async def test_a_meter_that_it_does_not_know_is_refused_alone(standin: StandIn) -> None:
    standin.known = {"8"}
    assert (await ask(standin))[1] == [{"meterID": "7", "number_of_values": 0, "status": 404}]


async def test_a_value_that_changes_is_noted(standin: StandIn) -> None:
    await ask(standin)
    await ask(standin, BODY.replace(b"45", b"44"), token="two")
    assert standin.violations == ["7: 2026-01-01T01:00 was 45, now 44"]


async def test_the_window_of_a_sender_runs_from_the_end_of_its_last_request(
    standin: StandIn,
) -> None:
    at = NOW
    standin.now = lambda: at
    standin.script = lambda r: Scripted(503, body=b"{}") if r.number == 1 else None
    assert (await ask(standin))[0] == 503
    at += SLOT - MINUTE
    assert (await ask(standin, token="two"))[0] == 200, "each sender has its own"
    assert (await ask(standin))[0] == 429, "a request that was refused uses the window too"
    at += MINUTE
    assert (await ask(standin))[0] == 429, "and so does one that was early"
    at += SLOT
    assert (await ask(standin))[0] == 200
    assert standin.violations == [
        "429: sender basement asked 60000 ms early",
        "429: sender basement asked 540000 ms early",
    ]


async def test_a_script_may_answer_but_what_breaks_a_limit_is_noted_all_the_same(
    standin: StandIn,
) -> None:
    standin.script = lambda _: Scripted(200, body=b"[]")
    old = json.dumps([{"meterID": "7", "values": [["2020-01-01T00:00", 1]]}]).encode()
    await ask(standin, old)
    await ask(standin)
    assert len(standin.violations) == 2
    assert standin.received == {}


async def test_values_may_be_stored_though_the_answer_never_comes(standin: StandIn) -> None:
    standin.script = lambda _: Scripted(raw=b"", store=True)
    head = f"POST {PATH} HTTP/1.1\r\nAuthorization: Bearer one\r\nContent-Type: application/json"
    head += f"\r\nAccept: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    assert await raw(standin, head.encode() + BODY) == b""
    assert len(standin.received["7"]) == 2


async def test_a_client_that_leaves_ends_its_request(standin: StandIn) -> None:
    at = NOW
    standin.now = lambda: at
    standin.script = lambda request: Scripted(delay=60) if request.number == 1 else None
    head = f"POST {PATH} HTTP/1.1\r\nAuthorization: Bearer one\r\nContent-Length: 2\r\n\r\n[]"
    assert await raw(standin, head.encode()) == b""
    at += SLOT
    assert (await ask(standin))[0] == 200


@pytest.mark.parametrize("data", [b"hello\r\n\r\n", b"\r\n", b"POST /\r\n\r\n", b"x" * 100_000])
async def test_what_is_not_http_is_refused_and_it_goes_on(
    standin: StandIn, data: bytes, expected_events: Callable[..., None]
) -> None:
    assert (await raw(standin, data)).startswith(b"HTTP/1.1 400 ")
    assert (await ask(standin))[0] == 200
    assert standin.violations == ["400: not HTTP/1.1"]


def test_five_years_before_a_leap_day_is_the_first_of_march() -> None:
    assert oldest_allowed(1_709_164_800_000) == 1_551_398_400_000  # 2024-02-29, 2019-03-01
