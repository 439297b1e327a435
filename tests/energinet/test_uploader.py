"""Every row of the answer table through the whole sender: the real buffer, virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from attrs import evolve

from gateway.clock import DAY, HOUR, MINUTE, about
from gateway.energinet.batch import stamp_text
from gateway.energinet.settings import Secret, SenderSettings
from gateway.errors import GatewayError, StoreFull, TryLater
from gateway.metering.reading import Commit, Reading, SeriesKey
from tests.energinet.made import (
    SENDER,
    SLOT,
    START,
    TOKEN,
    ZONE,
    Reply,
    World,
    hours,
    readings,
    series,
    value_of,
)

Expected = Callable[..., None]


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await World(tmp_path / "readings.db").start(series("7"), series("8"))


async def counted(world: World) -> dict[str, int]:
    counts = await world.store.counts()
    assert counts.balanced
    assert counts == await world.store.check_counts()
    assert not counts.dropped
    return {"pending": counts.pending, "confirmed": counts.confirmed, "parked": counts.parked}


def held_values(world: World, meter_id: str) -> list[Decimal]:
    return [value for _, value in sorted(world.standin.received.get(meter_id, {}).items())]


# ------------------------------------------------------------------------------ row by row

HTML = b"<html>Maintenance</html>"
GOOD = b'[{"meterID":"7","number_of_values":3,"status":201}]'
ROWS = {
    "html": (Reply(200, body=HTML), 1, 1, "upload.refused"),
    "empty": (Reply(200), 1, 1, "upload.refused"),
    "no content": (Reply(204), 1, 1, "upload.refused"),
    "an object": (Reply(200, body=b"{}"), 1, 1, "upload.refused"),
    "cut off": (Reply(200, body=GOOD, whole=False), 1, 1, "upload.refused"),
    "301": (Reply(301, {"location": "https://elsewhere/"}), 6, 6, "upload.refused"),
    "401": (Reply(401), 1, 1, "upload.token"),
    "403": (Reply(403), 1, 1, "upload.token"),
    "404": (Reply(404), 6, 6, "upload.refused"),
    "405": (Reply(405), 6, 6, "upload.refused"),
    "418": (Reply(418), 6, 6, "upload.refused"),
    "409": (Reply(409), 1, 1, "upload.refused"),
    "413": (Reply(413), 1, 1, "upload.refused"),
    "429": (Reply(429), 1, 1, "upload.refused"),
    "429 in 25 min": (Reply(429, {"retry-after": "1500"}), 2.5, 2.5, "upload.refused"),
    "429 at a date": (
        Reply(429, {"retry-after": "Thu, 01 Jan 2026 00:30:01 GMT"}), 3, 3, "upload.refused",
    ),
    "429 in a year": (Reply(429, {"retry-after": "31536000"}), 144, 144, "upload.refused"),
    "100": (Reply(100), 1, 1.1, "upload.refused"),
    "500": (Reply(500, body=GOOD), 1, 1.1, "upload.refused"),
    "503": (Reply(503), 1, 1.1, "upload.refused"),
    "no such status": (Reply(999), 1, 1.1, "upload.refused"),
    "refused": (Reply(error="refused"), 1, 1.1, "upload.unanswered"),
    "dns": (Reply(error="dns"), 1, 1.1, "upload.unanswered"),
    "tls": (Reply(error="tls"), 1, 1.1, "upload.unanswered"),
    "timeout": (Reply(took=3600), 1, 1.1, "upload.unanswered"),
    "stored, answer lost": (Reply(store=True, error="timeout"), 1, 1.1, "upload.unanswered"),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
async def test_an_answer_that_confirms_nothing_keeps_everything_for_the_next_slot(
    world: World, row: str, expected_events: Expected
) -> None:
    reply, least, most, event = ROWS[row]
    expected_events(event, "upload.smaller")
    world.script = lambda _: reply if not world.sent else None
    await world.store_hours("7", 3)
    await world.until_sent(1)
    assert await counted(world) == {"pending": 3, "confirmed": 0, "parked": 0}
    await world.until_sent(2)
    assert least <= world.gaps[0] <= most + 0.01
    assert world.sent[1].data == world.sent[0].data, "sent again, but changed"
    assert await counted(world) == {"pending": 0, "confirmed": 3, "parked": 0}
    assert world.standin.violations == []
    await world.end()


async def test_too_many_requests_though_the_window_was_kept_tells_of_another_user(
    world: World, expected_events: Expected
) -> None:
    expected_events("upload.token_shared")
    world.script = lambda _: Reply(429) if len(world.sent) == 1 else None
    await world.store_hours("7", 1)
    await world.until_sent(1)
    await world.store_hours("7", 1, before=START + 1000)
    await world.until_sent(3)
    assert await counted(world) == {"pending": 0, "confirmed": 2, "parked": 0}
    await world.end()


async def test_values_that_were_stored_though_the_answer_was_lost_go_out_again_unchanged(
    world: World, expected_events: Expected
) -> None:
    expected_events("upload.unanswered")
    world.script = lambda _: Reply(store=True, error="timeout") if len(world.sent) < 3 else None
    await world.store_hours("7", 5)
    await world.until_sent(2)
    await world.store_hours("7", 1, before=START + 1000)
    await world.until_sent(4)
    assert world.standin.violations == []
    assert held_values(world, "7") == [value_of("7", at) for at in [*hours(5), START + 1000]]
    await world.end()


async def test_a_dead_api_for_a_day_is_asked_less_and_less_and_said_once(
    world: World, caplog: pytest.LogCaptureFixture, expected_events: Expected
) -> None:
    caplog.set_level(logging.INFO, logger="gateway")
    expected_events("upload.unanswered")
    world.script = lambda _: Reply(error="refused")
    await world.store_hours("7", 3)
    await world.slots(144)
    waits = world.gaps
    assert all(1 <= gap <= 1.1 for gap in waits[:5])
    assert 2.7 <= waits[5] <= 3.31
    assert all(5.4 <= gap <= 6.61 for gap in waits[6:])
    assert len(waits) > 20
    said = [r for r in caplog.records if getattr(r, "event", "").startswith("upload.")]
    assert len(said) == 1
    world.script = lambda _: None
    await world.slots(7)
    assert await counted(world) == {"pending": 0, "confirmed": 3, "parked": 0}
    assert caplog.records[-1].__dict__["event"] == "upload.recovered"
    await world.end()


async def test_troubles_that_change_from_slot_to_slot_are_each_said_once(
    world: World, caplog: pytest.LogCaptureFixture, expected_events: Expected
) -> None:
    expected_events("upload.refused", "upload.smaller", "upload.unanswered")
    course = [Reply(200, body=HTML), Reply(409), Reply(413), Reply(error="dns")]
    world.script = lambda _: course[len(world.sent) % 4]
    await world.store_hours("7", 3)
    await world.slots(144)
    assert len([r for r in caplog.records if r.name == "gateway"]) <= 30
    await world.end()


async def test_a_backlog_is_foretold_once_and_its_end_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="gateway")
    world = await World(tmp_path / "readings.db", max_payload=16_000).start(series("7"))
    await world.store.append(readings("7", hours(3000)))
    world.uploader.poke()
    await world.slots(10)
    await world.end()
    said = [
        (record.__dict__["event"], record.__dict__["fields"])
        for record in caplog.records
        if "event" in record.__dict__ and "drain" in record.__dict__["event"]
    ]
    carried = len(world.sent[0].values["7"])
    left = 3000 - carried
    took = about((len(world.sent) - 1) * SLOT)
    assert said == [
        (
            "upload.draining",
            {"sender": SENDER, "pending": left, "takes": about(left / carried * SLOT)},
        ),
        (
            "upload.drained",
            {"sender": SENDER, "for": took, "pending": 0},
        ),
    ]


# --------------------------------------------------------------------------- meter by meter


async def test_a_missing_meter_with_a_backlog_of_bodies_holds_up_no_other(
    tmp_path: Path, expected_events: Expected
) -> None:
    expected_events("upload.missing")
    world = World(tmp_path / "readings.db", max_payload=16_000)
    await world.start(series("7"), series("8"))
    world.script = lambda data: Reply(200, body=world.accept(data, **{"7": None}), store=True)
    await world.store.append(readings("7", hours(3000)))
    await world.store.append(readings("8", hours(1500, before=START + 1000)))
    world.uploader.poke()
    await world.until_sent(2)
    # The newest of each, and then only what can be confirmed.
    assert len(world.sent[1].values["7"]) == 1
    await world.until_sent(5)
    counts = await world.store.counts()
    assert counts.confirmed == 1500
    # With nothing else to send the room is the missing meter's again.
    await world.until_sent(6)
    assert len(world.sent[5].data) > 15_900
    await world.end()


async def test_the_one_value_that_energinet_does_not_count_is_parked_the_others_arrive(
    world: World, expected_events: Expected
) -> None:
    expected_events("upload.short", "upload.parked")
    bad = "2025-12-30T"

    def answer(data: bytes) -> Reply:
        found = {one["meterID"]: one["values"] for one in json.loads(data)}
        wrong = sum(at.startswith(bad + "13") for at, _ in found.get("7", ()))
        count = {"number_of_values": len(found.get("7", ())) - wrong}
        return Reply(200, body=world.accept(data, **{"7": count}), store=True)

    world.script = answer
    await world.store_hours("7", 100)
    await world.store_hours("8", 5)
    await world.until_sent(1)
    assert await counted(world) == {"pending": 100, "confirmed": 5, "parked": 0}
    await world.slots(60)
    assert await counted(world) == {"pending": 0, "confirmed": 104, "parked": 1}
    [parked] = await world.store.parked()
    assert (parked.key.meter_id, parked.reason, parked.whole) == ("7", "counted 0 of 1", False)
    singles = [sent for sent in world.sent if sent.values.get("7") == [bad + "13:00"]]
    assert len(singles) == 3, "refused alone three times"
    await world.end()


@pytest.mark.parametrize("newest", [True, False])
async def test_a_wrong_value_at_either_end_is_found_while_others_pass(
    world: World, expected_events: Expected, newest: bool
) -> None:
    expected_events("upload.short", "upload.parked")
    stamps = hours(1000)
    at_fault = stamps[-1 if newest else 0]
    text = stamp_text(at_fault, ZoneInfo(ZONE), "local")

    def answer(data: bytes) -> Reply:
        values = [at for at, _ in json.loads(data)[0]["values"]]
        count = {"number_of_values": len(values) - (text in values)}
        return Reply(200, body=world.accept(data, **{"7": count}), store=True)

    world.script = answer
    await world.store.append(readings("7", stamps))
    world.uploader.poke()
    await world.slots(60)
    assert await counted(world) == {"pending": 0, "confirmed": 999, "parked": 1}
    await world.end()


async def test_a_refused_meter_is_parked_tried_every_six_hours_and_comes_back_by_itself(
    world: World, expected_events: Expected
) -> None:
    expected_events("upload.parked")
    refusal = {"status": 404, "number_of_values": 0}
    world.script = lambda data: Reply(200, body=world.accept(data, **{"7": refusal}), store=True)
    await world.store_hours("7", 50)
    await world.store_hours("8", 1)
    await world.until_sent(1)
    assert await counted(world) == {"pending": 0, "confirmed": 1, "parked": 50}
    for hour in range(1, 13):
        await world.slots(6)
        await world.store_hours("7", 1, before=START + hour * HOUR)
        await world.store_hours("8", 1, before=START + hour * HOUR)
    carried = [len(sent.values.get("7", ())) for sent in world.sent]
    assert carried[0] == 50
    assert sum(carried[1:]) == 2, "one value every six hours"
    assert carried[1:].count(1) == 2
    assert held_values(world, "8") == [value_of("8", START + h * HOUR) for h in range(12)]
    # Somebody mends it in Energinet.
    world.script = lambda _: None
    await world.slots(40)
    assert (await counted(world))["parked"] == 0
    assert (await counted(world))["pending"] == 0
    assert world.standin.violations == []
    await world.end()


async def test_a_meter_that_was_parked_under_another_sender_is_tried_by_its_new_one(
    world: World, expected_events: Expected
) -> None:
    expected_events("upload.parked")
    refusal = {"status": 404, "number_of_values": 0}
    world.script = lambda data: Reply(200, body=world.accept(data, **{"7": refusal}), store=True)
    await world.store_hours("7", 9)
    await world.until_sent(1)
    # The person finds the mistake: the meter belongs to the other sender.
    await world.kill()
    world._known = [series("7", "attic")]
    await world.start()
    assert await world.store.parked_series("attic") == {SeriesKey("", "7")}
    await world.kill()
    # And here that other sender is ours: its slot knows nothing of a parked meter.
    world._known = [series("7")]
    await world.start()
    await world.store.keep_slot(SENDER, b"")
    await world.restart()
    world.script = lambda _: None
    await world.slots(4)
    assert await counted(world) == {"pending": 0, "confirmed": 9, "parked": 0}
    await world.end()


async def test_a_meter_whose_import_was_renamed_sends_what_both_names_hold(
    world: World,
) -> None:
    await world.store_hours("7", 30)
    await world.kill()
    world._known = [series("7", import_name="north")]
    await world.start()
    await world.store.append(readings("7", [START + 1000, START + 2000], "north"))
    world.uploader.poke()
    await world.slots(4)
    assert await counted(world) == {"pending": 0, "confirmed": 32, "parked": 0}
    assert world.standin.violations == []
    await world.end()


async def test_a_refused_body_is_halved_until_the_one_meter_stands_alone(
    tmp_path: Path, expected_events: Expected
) -> None:
    expected_events("upload.refused", "upload.parked")
    names = [str(nth) for nth in range(100, 116)]
    world = World(tmp_path / "readings.db")
    await world.start(*(series(name) for name in names))

    def answer(data: bytes) -> Reply | None:
        return Reply(422) if b'"113"' in data or b'"104"' in data else None

    world.script = answer
    for name in names:
        await world.store.append(readings(name, hours(10)))
    world.uploader.poke()
    await world.slots(20)
    assert await counted(world) == {"pending": 0, "confirmed": 140, "parked": 20}
    assert {line.key.meter_id for line in await world.store.parked()} == {"104", "113"}
    assert {line.reason for line in await world.store.parked()} == {"422"}
    alone = [sent.values.keys() for sent in world.sent if len(sent.values) == 1]
    assert {"113"} in alone
    assert {"104"} in alone
    await world.end()


# ----------------------------------------------------------------------------------- bodies


async def test_bodies_are_full_while_there_is_backlog_the_newest_first_then_the_oldest(
    tmp_path: Path,
) -> None:
    names = [f"70000000{nth:02d}" for nth in range(20)]
    world = World(tmp_path / "readings.db", timestamps="utc")
    await world.start(*(series(name) for name in names))
    stamps = hours(3000)
    for first in range(0, len(stamps), 50):
        some = [readings(name, stamps[first : first + 50]).readings for name in names]
        await world.store.append(Commit(tuple(one for part in some for one in part)))
    world.uploader.poke()
    await world.slots(6)
    assert await counted(world) == {"pending": 0, "confirmed": 60_000, "parked": 0}
    sizes = [len(sent.data) for sent in world.sent]
    assert max(sizes) <= 500_000
    assert min(sizes[:-1]) >= 499_500
    # Of each meter the newest there is, and the oldest of what waits: between them nothing.
    texts = [stamp_text(at, ZoneInfo("UTC"), "utc") for at in stamps]
    place = {text: nth for nth, text in enumerate(texts)}
    low = 0
    for nth, sent in enumerate(world.sent[:-1]):
        newest, values = texts[-1 - nth], sent.values
        rest: list[int] = []
        for name in names:
            assert values[name][-1] == newest
            rest += [place[at] for at in values[name][:-1]]
        assert min(rest) == low
        assert sorted(set(rest)) == list(range(low, max(rest) + 1))
        low = max(rest) if rest.count(max(rest)) < len(names) else max(rest) + 1
    await world.end()


async def test_after_a_413_bodies_are_half_as_large_and_grow_by_a_tenth_a_day(
    tmp_path: Path, expected_events: Expected
) -> None:
    expected_events("upload.refused", "upload.smaller")
    world = World(tmp_path / "readings.db", max_payload=100_000, timestamps="utc")
    await world.start(series("7"))
    world.script = lambda data: Reply(413) if len(data) > 60_000 else None
    stamps = hours(8000)
    await world.store.append(readings("7", stamps))
    world.uploader.poke()
    await world.until_sent(3)
    sizes = [len(sent.data) for sent in world.sent]
    assert sizes[0] > 99_900
    assert 49_900 < sizes[1] <= 50_000
    await world.restart()  # it is remembered
    await world.until_sent(4)
    assert len(world.sent[3].data) <= 50_000
    await world.slots(146)
    await world.store_hours("7", 1, before=START + HOUR)
    await world.until_sent(len(world.sent) + 1)
    assert world.uploader.status().limit == 55_000
    await world.end()


async def test_a_value_older_than_five_years_is_never_sent(
    world: World, expected_events: Expected
) -> None:
    limit = START - (5 * 365 + 1) * DAY  # 2021-01-01; 2024 had a leap day
    await world.store.append(readings("7", [limit - HOUR, limit - 1000, limit + HOUR, START]))
    world.uploader.poke()
    await world.slots(1)
    assert await counted(world) == {"pending": 2, "confirmed": 2, "parked": 0}
    assert world.standin.violations == []
    await world.end()


async def test_a_value_that_lies_ahead_is_not_sent(world: World, expected_events: Expected) -> None:
    await world.store.append(readings("7", [START, START + HOUR, START + 400 * DAY]))
    world.uploader.poke()
    await world.slots(1)
    assert await counted(world) == {"pending": 2, "confirmed": 1, "parked": 0}
    assert world.standin.violations == []
    await world.end()


async def test_a_clock_not_synchronised_parks_nothing_for_its_age_and_sends_no_future(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "readings.db")
    world.clock.is_synchronised = False
    await world.start(series("7"))
    world.clock.step(9 * 365 * DAY)
    await world.store.append(readings("7", hours(5)))
    world.uploader.poke()
    await world.slots(3)
    world.clock.step(-18 * 365 * DAY)
    await world.slots(3)
    assert world.sent == []
    assert await counted(world) == {"pending": 5, "confirmed": 0, "parked": 0}
    world.clock.step(9 * 365 * DAY)
    world.clock.is_synchronised = True
    await world.slots(2)
    assert await counted(world) == {"pending": 0, "confirmed": 5, "parked": 0}
    await world.end()


# ------------------------------------------------------------------------------- the token


async def test_a_token_replaced_on_disk_is_used_at_the_next_request(
    world: World, tmp_path: Path, expected_events: Expected
) -> None:
    expected_events("upload.token")
    file = tmp_path / "basement.token"
    file.write_text("old-token")
    sender = SenderSettings(SENDER, "", lambda: Secret(file.read_text().strip()))
    world.uploader.sender = sender
    world.standin.tokens = {TOKEN: SENDER, "old-token": SENDER, "new-token": SENDER}
    world.script = lambda _: Reply(401) if file.read_text() == "old-token" else None
    await world.store_hours("7", 3)
    await world.until_sent(2)
    file.write_text("new-token")
    await world.until_sent(3)
    assert [sent.token for sent in world.sent] == ["old-token", "old-token", "new-token"]
    assert world.gaps[0] == pytest.approx(1, abs=0.01)
    assert world.gaps[1] == pytest.approx(6, abs=0.01)
    assert await counted(world) == {"pending": 0, "confirmed": 3, "parked": 0}
    await world.end()


async def test_a_token_that_cannot_be_read_uses_no_slot_and_is_looked_for_again(
    world: World, expected_events: Expected
) -> None:
    expected_events("upload.token")

    def unreadable() -> Secret:
        raise GatewayError("the token of sender basement: its file cannot be read", hint="mend it")

    sender = world.uploader.sender
    world.uploader.sender = evolve(sender, token=unreadable)
    await world.store_hours("7", 3)
    await world.slots(5)
    assert world.sent == []
    assert await world.store.slot(SENDER) is None
    assert world.uploader.status().last == "token unreadable"
    with pytest.raises(GatewayError, match="cannot be read"):
        await world.uploader.once()
    world.uploader.sender = sender
    await world.slots(1.01)
    assert await counted(world) == {"pending": 0, "confirmed": 3, "parked": 0}
    await world.end()


# ------------------------------------------------------------------------------ when it sends


async def test_one_request_waits_for_the_whole_round(tmp_path: Path) -> None:
    world = await World(tmp_path / "readings.db", linger=30_000).start(series("7"), series("8"))
    await world.slots(1)  # it has looked, and found nothing
    await world.store_hours("7", 1)
    await world.clock.pass_(20)
    await world.store_hours("8", 1)
    await world.clock.pass_(9)
    assert world.sent == []
    await world.clock.pass_(3)
    assert [sorted(sent.values) for sent in world.sent] == [["7", "8"]]
    await world.end()


async def test_what_is_stored_while_something_has_to_wait_goes_at_once(tmp_path: Path) -> None:
    world = await World(tmp_path / "readings.db", linger=30_000).start(series("7"), series("8"))
    await world.store.append(readings("7", [START + HOUR]))  # its time has not come
    await world.slots(1.05)
    assert world.sent == []
    await world.store_hours("8", 1)
    await world.clock.pass_(32)
    assert [list(one.values) for one in world.sent] == [["8"]]
    await world.end()


async def test_backlog_does_not_linger(tmp_path: Path, expected_events: Expected) -> None:
    expected_events("upload.unanswered")
    world = await World(tmp_path / "readings.db", linger=HOUR).start(series("7"))
    await world.store_hours("7", 1)
    world.script = lambda _: Reply(error="dns") if not world.sent else None
    await world.until_sent(2)
    assert world.gaps[0] <= 1.11
    await world.end()


async def test_with_nothing_to_send_nothing_is_sent(world: World) -> None:
    await world.slots(500)
    assert world.sent == []
    await world.end()


async def test_stopping_lets_a_request_under_way_finish_and_begins_no_other(world: World) -> None:
    world.script = lambda data: Reply(200, body=world.accept(data), took=1.5, store=True)
    await world.store_hours("7", 3)
    await world.clock.pass_(1)
    stopping = asyncio.create_task(world.uploader.stop(2))
    await world.clock.pass_(1)
    await stopping
    assert await counted(world) == {"pending": 0, "confirmed": 3, "parked": 0}
    await world.store_hours("7", 1, before=START + 1000)
    await world.slots(3)
    assert len(world.sent) == 1
    await world.end()


async def test_a_dry_run_shows_the_body_and_changes_nothing(world: World) -> None:
    world.script = lambda _: Reply(503)
    await world.uploader.stop(0)
    await world.store_hours("7", 3)
    shown = await world.uploader.once(dry_run=True)
    assert (shown.values, shown.meters, shown.waiting) == (3, 1, 3)
    assert shown.next_request is None
    assert json.loads(shown.data)[0]["meterID"] == "7"
    assert await counted(world) == {"pending": 3, "confirmed": 0, "parked": 0}
    assert await world.store.slot(SENDER) is None
    assert world.sent == []
    await world.end()


async def test_send_now_takes_the_slot_and_is_refused_before_it_is_free(world: World) -> None:
    await world.uploader.stop(0)
    await world.store_hours("7", 3)
    sending = asyncio.create_task(world.uploader.once())
    await world.clock.pass_(5)
    report = await sending
    assert report.answer is not None
    assert report.answer.verdicts["7"].kind == "confirmed"
    assert report.next_request == world.sent[0].ended + SLOT
    await world.store_hours("7", 1, before=START + 1000)
    with pytest.raises(TryLater, match=r"again in (10|9) min"):
        await world.uploader.once()
    assert len(world.sent) == 1
    await world.end()


# ------------------------------------------------------------------------- a buffer that fails


async def test_without_a_slot_on_disk_no_request_is_made(world: World) -> None:
    keep = world.store.keep_slot

    async def fails(sender: str, state: bytes) -> None:
        raise StoreFull("no room")

    world.store.keep_slot = fails  # type: ignore[method-assign]
    await world.store_hours("7", 3)
    await world.slots(3)
    assert world.sent == []
    assert await counted(world) == {"pending": 3, "confirmed": 0, "parked": 0}
    world.store.keep_slot = keep  # type: ignore[method-assign]
    await world.slots(3)
    assert await counted(world) == {"pending": 0, "confirmed": 3, "parked": 0}
    await world.end()


async def test_a_confirmation_that_cannot_be_written_is_asked_for_again(world: World) -> None:
    settle = world.store.settle

    async def fails(*_: object) -> None:
        raise StoreFull("no room")

    world.store.settle = fails  # type: ignore[method-assign,assignment]
    await world.store_hours("7", 3)
    await world.until_sent(1)
    assert await counted(world) == {"pending": 3, "confirmed": 0, "parked": 0}
    world.store.settle = settle  # type: ignore[method-assign]
    await world.until_sent(2)
    assert world.sent[0].data == world.sent[1].data
    assert world.standin.violations == []
    assert await counted(world) == {"pending": 0, "confirmed": 3, "parked": 0}
    await world.end()


async def test_an_error_that_nobody_expected_ends_one_turn_and_not_the_sender(
    world: World, expected_events: Expected
) -> None:
    expected_events("task.failed")

    def script(_: bytes) -> None:
        if not world.sent and world.clock.boottime() < 1_500_000:
            raise KeyError("a mistake of ours")

    world.script = script
    await world.store_hours("7", 3)
    await world.slots(0.5)
    assert (await counted(world))["pending"] == 3
    await world.slots(3)
    assert await counted(world) == {"pending": 0, "confirmed": 3, "parked": 0}
    assert world.standin.violations == []
    await world.end()


async def test_a_stamp_off_the_minute_keeps_its_seconds(world: World) -> None:
    key = SeriesKey("", "7")
    await world.store.append(Commit((Reading(key, START - 5_000, Decimal("0.10")),)))
    world.uploader.poke()
    await world.clock.pass_(MINUTE / 1000)
    assert world.standin.received["7"] == {"2026-01-01T00:59:55": Decimal("0.1")}
    await world.end()
