"""P9, fault 36: a meter or an API that is dead for a day costs at most 30 lines, and nothing else.

In virtual time, the whole gateway: sockets, pymodbus, httpx and SQLite are real.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.energinet.standin import Request, Scripted
from tests.simulation import DAY, HOUR, MINUTE, SECOND, Fault, World, instant, play

NOON = instant("2026-03-10T12:00")
MOST_LINES = 30
LIVE = "live"
QUARTER = 15 * MINUTE

SILENT = {LIVE: (), "dead": (Fault("silent"),)}
WAYS_A_METER_DIES: Mapping[str, Mapping[str, tuple[Fault, ...]]] = {
    "silent": SILENT,
    "exceptions": {LIVE: (), "dead": (Fault("exception", code=4),)},
    "busy": {LIVE: (), "dead": (Fault("busy"),)},
    "flapping": {
        LIVE: (),
        "dead": tuple(
            Fault("silent", n * 10 * MINUTE, n * 10 * MINUTE + 5 * MINUTE) for n in range(145)
        ),
    },
    "noise": {LIVE: (), "dead": (Fault("wrong_length", rate=0.5),)},
    "dropping": {"dead": (Fault("drop"),)},
    "refused": {},
}


def lines(world: World) -> Counter[str]:
    """What was logged beside the hourly summary and what each run says once."""
    usual = ("gateway.summary", "gateway.started", "gateway.stopped", "buffer.opened")
    return Counter(world.log.events(*usual))


@pytest.mark.parametrize("way", WAYS_A_METER_DIES)
def test_a_meter_that_is_dead_for_a_day_costs_few_lines_and_no_other_meter_a_value(
    tmp_path: Path, expected_events: Callable[..., None], short: bool, way: str
) -> None:
    if short and way not in ("silent", "dropping", "flapping"):
        pytest.skip("in the long run")
    expected_events(
        "meter.offline", "meter.still_offline", "meter.noisy", "bus.down", "meter.register_refused"
    )

    async def story(world: World) -> None:
        meters = WAYS_A_METER_DIES[way]
        if LIVE not in meters:
            await world.bus("other", {LIVE: ()})
        endpoint = await world.bus("plant", meters or {"dead": ()})
        if way == "refused":
            await endpoint.close()
        async with world.running(world.write()) as gateway:
            await world.clock.at(NOON + DAY + 12 * MINUTE)
            counts = await gateway.store.check_counts()
        said = lines(world)
        print(f"{way}: {said.total()} lines {dict(said)}; {counts}")
        assert said.total() <= MOST_LINES
        assert counts.balanced
        assert len(world.received(LIVE)) == DAY // QUARTER + 1
        world.check(LIVE, every=QUARTER, late=MINUTE)
        assert all(line["balanced"] == "yes" for line in world.log.of("gateway.summary"))

    play(story, tmp_path, NOON - 2 * MINUTE)


def refused(_: Request) -> Scripted:
    return Scripted(401, body=b'{"message": "no"}')


def unavailable(_: Request) -> Scripted:
    return Scripted(503, body=b"<html>down</html>")


def hanging(_: Request) -> Scripted:
    return Scripted(200, delay=3600)


def cut_off(_: Request) -> Scripted:
    return Scripted(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[")


def alternating(request: Request) -> Scripted:
    return (unavailable, cut_off, refused)[request.number % 3](request)


@pytest.mark.parametrize("way", [unavailable, hanging, cut_off, refused, alternating, None])
def test_an_api_that_is_dead_for_a_day_costs_few_lines_and_no_value(
    tmp_path: Path,
    expected_events: Callable[..., None],
    short: bool,
    way: Callable[[Request], Scripted] | None,
) -> None:
    if short and way not in (hanging, alternating, None):
        pytest.skip("in the long run")
    expected_events("upload.unanswered", "upload.refused", "upload.token")

    async def story(world: World) -> None:
        world.standin.script = way
        if way is None:  # nobody listens
            await world.standin.stop()
        await world.bus("plant", {LIVE: ()})
        async with world.running(world.write()) as gateway:
            await world.clock.at(NOON + DAY - 5 * SECOND)
            dead, waiting = lines(world), (await gateway.store.check_counts()).pending
            world.standin.script = None
            if way is None:
                await world.standin.start(port=int(world.url.split(":")[2].split("/")[0]))
            await asyncio.sleep((2 * HOUR + 12 * MINUTE) / 1000)
            counts = await gateway.store.check_counts()
        name = way.__name__ if way else "nobody"
        print(f"{name}: {dead.total()} lines {dict(dead)}; {waiting} waited")
        assert dead.total() <= MOST_LINES
        assert waiting > 3 * DAY // QUARTER - 4
        assert counts.balanced
        assert counts.pending == counts.parked == counts.in_flight == 0
        assert world.log.events().count("upload.recovered") == 1
        assert len(world.received(LIVE)) >= (DAY + 2 * HOUR) // QUARTER
        world.check(LIVE, every=QUARTER, late=MINUTE)

    play(story, tmp_path, NOON - 2 * MINUTE)
