"""P10: the hour that the site's clock shows twice keeps its energy, whatever comes between."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import DAY, HOUR, MINUTE, SECOND, Instant
from gateway.energinet.batch import Body
from gateway.energinet.choosing import twins_of
from gateway.energinet.settings import Secret, SenderSettings
from gateway.energinet.slot import Now, SlotState
from gateway.energinet.twins import Night, Twins, together, with_more
from gateway.metering.interval import Repeat
from gateway.metering.reading import (
    AS,
    As,
    Commit,
    Correction,
    Offer,
    Reading,
    Series,
    SeriesKey,
    Waiting,
)
from tests.energinet.made import SENDER, SLOT, TOKEN, ZONE, Reply, World, series
from tests.energinet.nights import EVENTS, Course, Figures

Expected = Callable[..., None]

FIRST: Instant = 1_761_436_800_000  # 2025-10-26T00:00Z, 02:00 in Oslo; an hour later it is again
SECOND_TIME = FIRST + HOUR
NIGHT = Repeat(FIRST, SECOND_TIME, SECOND_TIME + HOUR)
CLOSES = NIGHT.end + HOUR + DAY
NAME = "2025-10-26T02:00"
KEY = SeriesKey("", "7")


def reading(at: Instant, value: str = "1", meter_id: str = "7") -> Reading:
    return Reading(SeriesKey("", meter_id), at, Decimal(value))


async def night(path: Path, *declared: Series, start: Instant = FIRST, **more: object) -> World:
    """A sender in Oslo when the repeated hour begins."""
    world = World(path / "readings.db", start=start + MINUTE, **more)
    return await world.start(*declared)


async def stored(world: World, *readings: Reading) -> None:
    """Store and let the sender do what it wants."""
    await world.store.append(Commit(readings))
    world.uploader.poke()
    await world.clock.settle()


async def until(world: World, at: Instant) -> None:
    await world.clock.pass_until(at)


async def fates(world: World) -> dict[str, int]:
    counts = await world.store.check_counts()
    assert counts.balanced
    assert not counts.dropped
    return {"pending": counts.pending, "confirmed": counts.confirmed, "parked": counts.parked}


# ------------------------------------------------------------------------------------- one night


async def test_of_any_nights_energinet_has_each_reading_once(
    tmp_path: Path, expected_events: Expected
) -> None:
    expected_events(*EVENTS)
    figures = Figures()
    for number in range(8):
        await Course(random.Random(number), figures).run(tmp_path / str(number))
    assert {name.partition(" ")[0] for name in figures.names} == {"pair", "alone", "late"}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("counter", "9.5"),
        ("consumption", "12.5"),
        ("mean", "6.25"),
        ("minimum", "3"),
        ("maximum", "9.5"),
        ("last", "9.5"),
    ],
)
async def test_the_first_waits_for_the_second_and_one_value_is_sent_once(
    tmp_path: Path, kind: As, value: str
) -> None:
    world = await night(tmp_path, series("7", as_=kind))
    await stored(world, reading(FIRST, "3"))
    await until(world, SECOND_TIME + MINUTE)
    assert world.sent == []
    await stored(world, reading(SECOND_TIME, "9.5"))
    await world.slots(3)
    assert [one.data for one in world.sent] == [
        f'[{{"meterID":"7","values":[["{NAME}",{value}]]}}]'.encode()
    ]
    assert await fates(world) == {"pending": 0, "confirmed": 2, "parked": 0}
    assert world.standin.violations == []
    await world.end()


@pytest.mark.parametrize(("label", "value"), [("start", "7.33"), ("end", "4")])
async def test_means_of_intervals_of_unlike_length_are_weighted(
    tmp_path: Path, label: str, value: str
) -> None:
    every = 40 * MINUTE  # 02:00, 02:40, again 02:00 after 20 min, 02:40, 03:20
    world = await night(tmp_path, series("7", as_="mean", every=every), label=label)
    await until(world, NIGHT.end)
    at = FIRST + every if label == "start" else FIRST
    await stored(world, reading(at, "2"), reading(at + HOUR, "10" if label == "start" else "8"))
    await world.slots(1)
    assert list(world.standin.received["7"].values()) == [Decimal(value)]
    await world.end()


@pytest.mark.parametrize("timestamps", ["offset", "utc"])
async def test_with_an_offset_none_waits_for_another(tmp_path: Path, timestamps: str) -> None:
    world = await night(tmp_path, series("7", as_="consumption"), timestamps=timestamps)
    await stored(world, reading(FIRST, "3"))
    await world.slots(0.1)
    assert len(world.sent) == 1
    await until(world, SECOND_TIME + MINUTE)
    await stored(world, reading(SECOND_TIME, "9.5"))
    await world.slots(1)
    assert sorted(world.standin.received["7"].values()) == [Decimal(3), Decimal("9.5")]
    await world.end()


@pytest.mark.parametrize("every", [2 * HOUR, DAY])
async def test_intervals_too_long_to_collide_wait_for_nothing(tmp_path: Path, every: int) -> None:
    world = await night(tmp_path, series("7", as_="consumption", every=every))
    await stored(world, reading(FIRST, "3"))
    await world.slots(0.1)
    assert world.standin.received["7"] == {NAME: Decimal(3)}
    await world.end()


async def test_half_an_hour_that_is_shown_twice_is_waited_for_too(tmp_path: Path) -> None:
    turn = 1_775_314_800_000  # 2026-04-04T15:00Z: 02:00 on Lord Howe, and 01:30 again
    quarter = 15 * MINUTE
    world = World(tmp_path / "readings.db", start=turn - HOUR, zone="Australia/Lord_Howe")
    await world.start(series("7", as_="consumption", every=quarter))
    for nth in range(-3, 5):
        await until(world, turn + nth * quarter + SECOND)
        await stored(world, reading(turn + nth * quarter, str(10 + nth)))
    await world.slots(2)
    assert world.standin.received["7"] == {
        "2026-04-05T01:15": 7,
        "2026-04-05T01:30": 8 + 10,
        "2026-04-05T01:45": 9 + 11,
        "2026-04-05T02:00": 12,
        "2026-04-05T02:15": 13,
        "2026-04-05T02:30": 14,
    }
    assert await fates(world) == {"pending": 0, "confirmed": 8, "parked": 0}
    await world.end()


# -------------------------------------------------------------------------------- one is missing


@pytest.mark.parametrize("at", [FIRST, SECOND_TIME])
async def test_one_whose_twin_does_not_come_goes_alone_a_day_after_the_night(
    tmp_path: Path, at: Instant
) -> None:
    world = await night(tmp_path, series("7", as_="consumption"))
    await until(world, at + MINUTE)
    await stored(world, reading(at, "3"))
    await until(world, CLOSES - MINUTE)
    assert world.sent == []
    await world.slots(2)
    assert world.standin.received["7"] == {NAME: Decimal(3)}
    assert await fates(world) == {"pending": 0, "confirmed": 1, "parked": 0}
    await world.end()


@pytest.mark.parametrize("answer", [None, Reply(503), Reply(store=True, error="timeout")])
async def test_a_twin_that_comes_after_that_is_parked_and_replaces_nothing(
    tmp_path: Path, expected_events: Expected, answer: Reply | None
) -> None:
    expected_events("upload.ambiguous", "upload.refused", "upload.unanswered")
    world = await night(tmp_path, series("7", as_="consumption"))
    await stored(world, reading(FIRST, "3"))
    world.script = lambda _: answer
    await world.until_sent(1)
    await world.restart()
    world.script = lambda _: None
    await stored(world, reading(SECOND_TIME, "9.5"))
    await world.slots(4)
    assert {one.data for one in world.sent} == {world.sent[0].data}, "sent again, but changed"
    assert world.standin.received["7"] == {NAME: Decimal(3)}
    assert await fates(world) == {"pending": 0, "confirmed": 1, "parked": 1}
    assert [line.reason for line in await world.store.parked()] == ["dst"]
    assert world.standin.violations == []
    await world.end()


@pytest.mark.parametrize("first", [FIRST, SECOND_TIME])
async def test_what_went_alone_goes_with_its_twin_once_both_are_corrected(
    tmp_path: Path, expected_events: Expected, first: Instant
) -> None:
    expected_events("upload.ambiguous")
    world = await night(tmp_path, series("7", as_="consumption"))
    await until(world, first + MINUTE)
    await stored(world, reading(first, "3"))
    await world.until_sent(1)
    second = FIRST + SECOND_TIME - first
    await stored(world, reading(second, "9.5"))
    await world.slots(2)
    key = series("7").key
    async with world.uploader.between():
        both = [
            Correction(key, first, Decimal(3), Decimal(30)),
            Correction(key, second, Decimal("9.5"), Decimal(95)),
        ]
        assert await world.store.correct(both) == 2
        await world.uploader.take_anew({"7": {first, second}})
    world.uploader.poke()
    await world.restart()
    await world.slots(2)
    assert world.standin.received["7"] == {NAME: Decimal(125)}
    assert await fates(world) == {"pending": 0, "confirmed": 2, "parked": 0}
    assert len(world.sent) == 2
    await world.end()


@pytest.mark.parametrize("gone", [False, True], ids=["", "its former sender is gone"])
async def test_what_went_alone_is_known_when_its_meter_moved_to_another_sender(
    tmp_path: Path, expected_events: Expected, gone: bool
) -> None:
    expected_events("upload.ambiguous")
    senders = [SenderSettings(name, "", lambda: Secret(TOKEN)) for name in (SENDER, "attic")]
    world = World(tmp_path / "readings.db", start=FIRST + MINUTE, senders=tuple(senders))
    known = [series("7", as_="consumption"), series("8", "attic")]
    await world.start(*known)
    await until(world, CLOSES)
    await stored(world, reading(FIRST, "3"), reading(CLOSES, "1", "8"))
    await world.until_sent(2)  # attic has a state of its own, that knows of nothing alone
    await world.kill()
    world._known = [evolve(one, sender="attic") for one in known]
    world.settings = evolve(world.settings, senders=tuple(senders[gone:]))
    await world.start()
    await stored(world, reading(SECOND_TIME, "9.5"))
    await world.slots(4)
    assert world.standin.received["7"] == {NAME: Decimal(3)}
    assert await fates(world) == {"pending": 0, "confirmed": 2, "parked": 1}
    # Its twin goes with it once a person corrected both.
    both = [
        Correction(known[0].key, FIRST, Decimal(3), Decimal(30)),
        Correction(known[0].key, SECOND_TIME, Decimal("9.5"), Decimal(95)),
    ]
    assert await world.store.correct(both) == 2
    await world.uploader.take_anew({"7": {FIRST, SECOND_TIME}})
    await world.restart()
    await world.slots(2)
    assert world.standin.received["7"] == {NAME: Decimal(125)}
    await world.end()


async def test_of_a_meter_of_another_import_with_the_same_id_nothing_is_taken_for_known(
    tmp_path: Path,
) -> None:
    senders = [SenderSettings(SENDER, "", lambda: Secret(TOKEN))]
    senders += [SenderSettings("attic", "north", lambda: Secret("t0ken-of-the-north"))]
    world = World(tmp_path / "readings.db", start=FIRST + MINUTE, senders=tuple(senders))
    world.standin.tokens = {TOKEN: SENDER, "t0ken-of-the-north": "attic"}
    north = series("7", "attic", "north", as_="consumption")
    await world.start(series("7", as_="consumption"), north)
    await stored(world, reading(FIRST, "3"))
    await world.until_sent(1)
    await world.restart()
    await stored(world, *(Reading(north.key, at, Decimal(4)) for at in (FIRST, SECOND_TIME)))
    await world.slots(1)
    assert world.sent[-1].data == f'[{{"meterID":"7","values":[["{NAME}",8]]}}]'.encode()
    await world.end()


async def test_a_clock_that_is_years_ahead_for_a_while_makes_nothing_forgotten(
    tmp_path: Path, expected_events: Expected
) -> None:
    expected_events("upload.ambiguous")
    world = await night(tmp_path, series("7", as_="consumption"), series("8"))
    await stored(world, reading(FIRST, "3"))
    await world.until_sent(1)
    world.clock.step(6 * 365 * DAY)
    await stored(world, reading(CLOSES, "1", "8"))
    await world.slots(2)
    world.clock.step(-6 * 365 * DAY)
    await stored(world, reading(SECOND_TIME, "9.5"))
    await world.slots(30)
    assert world.standin.received["7"] == {NAME: Decimal(3)}
    assert await fates(world) == {"pending": 0, "confirmed": 2, "parked": 1}
    await world.end()


@pytest.mark.parametrize("kind", ["counter", "last"])
async def test_a_later_reading_of_a_counter_replaces_the_earlier_one_at_any_time(
    tmp_path: Path, kind: As
) -> None:
    world = await night(tmp_path, series("7", as_=kind))
    await stored(world, reading(FIRST, "3"))
    await world.until_sent(1)
    await world.slots(1)
    await stored(world, reading(SECOND_TIME, "9.5"))
    await world.slots(2)
    assert world.standin.received["7"] == {NAME: Decimal("9.5")}
    assert await fates(world) == {"pending": 0, "confirmed": 2, "parked": 0}
    await world.end()


async def test_an_earlier_reading_of_a_counter_never_replaces_the_later_one(
    tmp_path: Path, expected_events: Expected
) -> None:
    expected_events("upload.ambiguous")
    world = await night(tmp_path, series("7"))
    await until(world, SECOND_TIME + MINUTE)
    await stored(world, reading(SECOND_TIME, "9.5"))
    await world.until_sent(1)
    await world.slots(1)
    await stored(world, reading(FIRST, "3"))
    await world.slots(2)
    assert world.standin.received["7"] == {NAME: Decimal("9.5")}
    assert await fates(world) == {"pending": 0, "confirmed": 1, "parked": 1}
    await world.end()


async def test_what_went_alone_before_the_state_was_lost_is_not_replaced(
    tmp_path: Path, expected_events: Expected
) -> None:
    expected_events("upload.ambiguous")
    world = await night(tmp_path, series("7", as_="consumption"), series("8"))
    await until(world, SECOND_TIME + MINUTE)
    await world.kill()
    await world.store.open()
    await world.store.keep_slot("basement", b"not to be read")
    await world.store.close()
    await world.start()
    await stored(world, reading(SECOND_TIME, "9.5"), reading(SECOND_TIME, "7", "8"))
    await until(world, CLOSES + SLOT)
    assert world.standin.received == {"8": {NAME: Decimal(7)}}
    assert await fates(world) == {"pending": 0, "confirmed": 1, "parked": 1}
    await world.end()


def test_of_a_state_of_an_older_version_it_is_not_known_what_went_alone() -> None:
    fields = json.loads(SlotState().pack())
    del fields["alone"], fields["alone_since"]
    now = Now("boot-1", 5_000, FIRST, synchronised=True)
    assert SlotState.unpack(json.dumps(fields).encode(), now, SLOT).alone_since == FIRST
    assert SlotState.unpack(SlotState().pack(), now, SLOT).alone_since == 0
    assert SlotState.unpack(None, now, SLOT).alone_since == 0
    assert SlotState.unpack(b"?", now, SLOT).alone_since == FIRST


async def test_with_a_clock_that_may_be_wrong_none_goes_alone(tmp_path: Path) -> None:
    world = await night(tmp_path, series("7", as_="consumption"))
    await stored(world, reading(FIRST, "3"))
    await world.slots(1)
    await world.reboot(off=HOUR, wrong_by=30 * DAY, synchronised=False)
    await world.slots(5)
    assert world.sent == []
    world.clock.step(-30 * DAY)
    world.clock.is_synchronised = True
    await stored(world, reading(SECOND_TIME, "9.5"))
    await world.slots(2)
    assert world.standin.received["7"] == {NAME: Decimal("12.5")}
    await world.end()


async def test_a_dry_run_sends_none_alone(tmp_path: Path) -> None:
    world = await night(tmp_path, series("7", as_="consumption"), series("8"))
    await stored(world, reading(FIRST, "3"))
    await until(world, CLOSES - MINUTE)
    await stored(world, reading(CLOSES - MINUTE, "1", "8"))
    await until(world, CLOSES + MINUTE)
    report = await world.uploader.once(dry_run=True)
    assert report.data == f'[{{"meterID":"7","values":[["{NAME}",3]]}}]'.encode()
    await stored(world, reading(SECOND_TIME, "9.5"))
    await world.slots(2)
    assert world.standin.received["7"] == {NAME: Decimal("12.5")}
    await world.end()


async def test_of_a_meter_that_is_not_configured_any_more_the_kind_is_known(
    tmp_path: Path,
) -> None:
    world = await night(tmp_path, series("7", as_="consumption"))
    world.clock.step(DAY)
    await world.store.append(Commit((reading(FIRST, "3"), reading(SECOND_TIME, "9.5"))))
    await world.store.declare([])
    world.uploader.poke()
    await world.slots(1)
    assert world.standin.received["7"] == {NAME: Decimal("12.5")}
    await world.end()


# ------------------------------------------------------------------------------------ in a crowd


@pytest.mark.parametrize("left_out", [False, True], ids=["", "left out by the last answer"])
async def test_while_the_newest_waits_for_its_twin_the_one_before_it_is_sent_first(
    tmp_path: Path, left_out: bool
) -> None:
    world = await night(
        tmp_path, series("7", as_="mean", every=15 * MINUTE), series("8"), max_payload=150
    )
    old = [reading(FIRST - 40 * DAY + nth * HOUR, "5", "8") for nth in range(200)]
    new = [reading(FIRST + nth * 15 * MINUTE, "7") for nth in range(-2, 3)]
    await until(world, FIRST + 31 * MINUTE)
    world.uploader._state.missing = ["7"] if left_out else []
    await stored(world, *old, *new)
    await world.slots(0.1)
    assert world.sent[0].values["7"] == ["2025-10-26T01:45"]
    assert world.sent[0].values["8"][-1] == "2025-09-24T09:00"
    assert len(world.sent[0].values["8"]) > 1
    await until(world, SECOND_TIME + MINUTE)
    requests = len(world.sent)
    await stored(world, reading(SECOND_TIME, "9"))
    await world.slots(1.1)
    assert world.sent[requests].values["7"] == [NAME], "the newest, with a twin out of reach"
    assert world.standin.received["7"][NAME] == 8
    await world.end()


async def test_months_of_backlog_with_that_night_in_the_middle_are_delivered(
    tmp_path: Path,
) -> None:
    kinds = [series(kind, as_=kind, every=30 * MINUTE) for kind in AS]
    world = await night(tmp_path, *kinds, max_payload=4_000)
    world.clock.step(60 * DAY)
    world._base += 60 * DAY
    stamps = [FIRST + nth * 30 * MINUTE for nth in range(-1000, 1000)]
    rows = [reading(at, f"{nth}.125", kind) for nth, at in enumerate(stamps) for kind in AS]
    await world.store.append(Commit(tuple(rows)))
    world.uploader.poke()
    await world.slots(130)
    assert await fates(world) == {"pending": 0, "confirmed": len(rows), "parked": 0}
    first, twin = Decimal("1000.125"), Decimal("1002.125")
    for kind in AS:
        received = world.standin.received[kind]
        assert len(received) == len(stamps) - 2
        assert received[NAME] == together(kind, first, twin)
        if kind == "consumption":
            assert sum(received.values()) == sum(nth + Decimal("0.125") for nth in range(2000))
    assert world.standin.violations == []
    assert all(len(one.data) <= 4_000 for one in world.sent)
    assert len(world.sent) < 1.01 * sum(len(one.data) for one in world.sent) / 4_000 + 2
    await world.end()


async def test_two_nights_with_more_than_a_body_holds_are_delivered_the_older_first(
    tmp_path: Path,
) -> None:
    year = 364 * DAY  # the last Sunday of October, a year before
    world = await night(tmp_path, series("7", as_="consumption", every=5 * MINUTE), max_payload=150)
    await until(world, NIGHT.end)
    stamps = [FIRST - back + nth * 5 * MINUTE for back in (year, 0) for nth in range(24)]
    await world.store.append(
        Commit(tuple(reading(at, f"{nth}.5") for nth, at in enumerate(stamps)))
    )
    looked = await twins_of(
        world.store, SENDER, world.settings, ZoneInfo(ZONE), SlotState(), world.clock.now(),
        sure=True, most=15,
    )  # fmt: skip
    assert [night.names for night in looked.nights if night.names] == [12, 3]
    world.uploader.poke()
    await world.slots(20)
    assert await fates(world) == {"pending": 0, "confirmed": 48, "parked": 0}
    received = world.standin.received["7"]
    assert len(received) == 24
    assert sum(received.values()) == sum(range(48)) + 24
    first = [one.values["7"][0] for one in world.sent]
    assert first == sorted(first)
    assert world.standin.violations == []
    await world.end()


async def test_both_readings_of_a_value_that_is_not_counted_are_parked_with_it(
    tmp_path: Path, expected_events: Expected
) -> None:
    expected_events("upload.short", "upload.parked")
    world = await night(tmp_path, series("7", as_="consumption"))
    world.script = lambda data: Reply(
        200, body=world.accept(data, **{"7": {"number_of_values": 0}})
    )
    await until(world, SECOND_TIME + MINUTE)
    await stored(world, reading(FIRST, "3"), reading(SECOND_TIME, "9.5"))
    await world.slots(5)
    assert len(world.sent) == 3
    assert await fates(world) == {"pending": 0, "confirmed": 0, "parked": 2}
    await world.end()


async def test_two_readings_count_as_one_value_of_a_meter_that_is_halved(
    tmp_path: Path, expected_events: Expected
) -> None:
    expected_events("upload.short")
    world = await night(tmp_path, series("7", as_="consumption", every=15 * MINUTE))
    short = {"7": {"number_of_values": 1}}
    world.script = lambda d: None if world.sent else Reply(200, body=world.accept(d, **short))
    await until(world, NIGHT.end + MINUTE)
    await stored(world, *(reading(FIRST + nth * 15 * MINUTE, "1.5") for nth in range(8)))
    await world.slots(5)
    assert [len(one.values["7"]) for one in world.sent] == [4, 2, 2]
    assert set(world.standin.received["7"].values()) == {Decimal(3)}
    assert await fates(world) == {"pending": 0, "confirmed": 8, "parked": 0}
    await world.end()


async def test_a_parked_meter_is_tried_with_a_value_of_two_readings(
    tmp_path: Path, expected_events: Expected
) -> None:
    expected_events("upload.parked")
    world = await night(tmp_path, series("7", as_="consumption", every=15 * MINUTE))
    refused = {"7": {"status": 404}}
    world.script = lambda d: None if world.sent else Reply(200, body=world.accept(d, **refused))
    await until(world, NIGHT.end + MINUTE)
    await stored(world, *(reading(FIRST + nth * 15 * MINUTE, "1.5") for nth in range(8)))
    await world.slots(40)
    assert [len(one.values["7"]) for one in world.sent] == [4, 1, 3]
    assert await fates(world) == {"pending": 0, "confirmed": 8, "parked": 0}
    await world.end()


# ----------------------------------------------------------------------------------- pure pieces


def bodies(kind: As, waits: Iterable[Waiting], limit: int = 500_000) -> Body:
    """A body for a night on which all of these wait."""
    looked = Night(NIGHT, ZoneInfo(ZONE), "start", over=False, known=True, most=100)
    for one in waits:
        looked.see(one)
    twins = Twins([looked], {KEY: Series(KEY, "m", "q", kind, MINUTE, "basement")})
    return Body(limit=limit, zone=ZoneInfo(ZONE), timestamps="local", twins=twins)


def waiting(id: int, at: Instant, value: str = "1") -> Waiting:
    return Waiting(id, KEY, at, Decimal(value))


def test_a_value_of_which_a_reading_is_gone_is_not_sent() -> None:
    first, second = waiting(1, FIRST, "3"), waiting(2, SECOND_TIME, "9.5")
    for alone in (False, True):
        body = bodies("consumption", [first, second])
        assert alone or body.offer(waiting(3, FIRST - HOUR)) is Offer.TAKEN
        before = body.size
        assert body.offer(second) is Offer.TAKEN
        assert body.size > before
        assert body.owed(NIGHT) == {KEY}
        batch = body.encode()
        assert len(batch.data) == body.size == before
        assert batch.count == 1 - alone
        assert batch.twins == {}


def test_a_reading_that_was_stored_or_changed_since_they_were_looked_at_has_to_wait() -> None:
    first, second = waiting(1, FIRST, "3"), waiting(2, SECOND_TIME, "9.5")
    body = bodies("counter", [first])
    assert body.offer(second) is Offer.EARLIER
    body = bodies("counter", [first, second])
    assert body.offer(evolve(first, id=7)) is Offer.EARLIER
    assert body.claim(waiting(3, FIRST + MINUTE)) is Offer.SKIP
    assert body.encode().data == b"[]"


def test_no_more_names_are_looked_at_than_a_body_holds() -> None:
    firsts = [waiting(nth, FIRST + nth * SECOND) for nth in range(1, 121)]
    seconds = [waiting(200 + nth, SECOND_TIME + nth * SECOND) for nth in range(1, 121)]
    body = bodies("consumption", [*firsts, *seconds])
    answers = [body.offer(one) for one in [*firsts, *seconds]]
    assert answers.count(Offer.TAKEN) == 200
    assert answers.count(Offer.EARLIER) == 40
    assert body.encode().count == 100


@given(
    st.permutations(range(40)),
    st.sets(st.integers(0, 39)),
    st.integers(40, 900),
    st.sampled_from(AS),
)
def test_a_body_takes_both_readings_of_a_value_or_none_and_stays_within_its_limit(
    order: list[int], missing: set[int], limit: int, kind: As
) -> None:
    values = [
        waiting(nth + 1, FIRST + (nth % 20) * MINUTE + (nth // 20) * HOUR, f"{nth * 7919}.{nth:03}")
        for nth in range(40)
    ]
    waits = [one for nth, one in enumerate(values) if nth not in missing]
    body = bodies(kind, waits, limit)
    taken = set()
    for nth in order:
        if nth in missing:
            continue
        answer = body.offer(values[nth])
        if answer is Offer.FULL:
            break
        if answer is Offer.TAKEN:
            taken.add(nth)
    if body.owed(NIGHT):
        taken |= {nth for nth, one in enumerate(values) if body.claim(one) is Offer.TAKEN}
    batch = body.encode()
    assert len(batch.data) == body.size <= limit
    sent = json.loads(batch.data, parse_float=Decimal, parse_int=Decimal)
    names = {name: value for one in sent for name, value in one["values"]}
    assert len(names) == batch.count
    ids = batch.readings(one.id for some in batch.values.values() for one in some)
    assert sorted(ids) == sorted(nth + 1 for nth in taken)
    assert {nth % 20 for nth in taken} == {int(name[-2:]) for name in names}
    for name, value in names.items():
        pair = values[int(name[-2:])], values[int(name[-2:]) + 20]
        assert value == together(kind, pair[0].value, pair[1].value)


@given(st.lists(st.sets(st.integers(0, 200)), max_size=4))
def test_what_went_alone_is_remembered_to_the_value(groups: list[set[int]]) -> None:
    alone: dict[str, list[list[int]]] = {}
    for group in groups:
        alone = with_more(alone, [waiting(1, nth * 5_000) for nth in group], 0)
    told = [at for ranges in alone.values() for one in ranges for at in range(*one)]
    assert sorted(told) == sorted({5 * nth for group in groups for nth in group})
    assert with_more(alone, [], 5 * 201 * 1000) == {}


def test_a_whole_night_that_went_alone_takes_a_few_bytes() -> None:
    alone = with_more({}, [waiting(1, FIRST + nth * 5_000) for nth in range(720)], 0)
    assert alone == {"7": [[FIRST // 1000, FIRST // 1000 + 3596, 5]]}
