"""`parked`: what Energinet refuses and what is too old, listed, exported, tried again, dropped."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.cli.main import run
from gateway.clock import DAY, HOUR, SystemClock
from gateway.energinet.standin import StandIn
from gateway.metering.reading import Commit, Reading, Series, SeriesKey, Settlement
from gateway.plant import may_be_sent
from tests.cli.world import TOKEN, energinet, site

METERS = [
    "{name: main, bus: plant, unit: 1, profile: abb-b23, send: ["
    '{meterID: "111", quantity: active_energy_import_total}]}',
    "{name: lift, bus: plant, unit: 2, profile: abb-b23, send: ["
    '{meterID: "222", quantity: active_energy_import_total}]}',
]
MAIN, LIFT = SeriesKey("", "111"), SeriesKey("", "222")
START = int(time.time() * 1000) // HOUR * HOUR - 10 * HOUR
LONG_AGO = START - 6 * 366 * DAY


@frozen
class Place:
    """A site whose `lift` Energinet refused, with two values of `main` that are too old."""

    config: Path
    standin: StandIn
    capsys: pytest.CaptureFixture[str]

    def call(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        self.capsys.readouterr()
        found = run([*arguments, "--config", str(self.config)])
        out, err = self.capsys.readouterr()
        assert found == code, out + err
        return out, err

    def listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.call("parked", "list", "--json")[0])
        return found

    def counts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.call("status", "--json")[0])["buffer"]
        assert found["balanced"]
        return found


async def fill(folder: Path) -> None:
    store = Store(BufferSettings(path=str(folder / "readings.db")), SystemClock())
    await store.open()
    quantity = "active_energy_import_total"
    await store.declare(
        [
            Series(MAIN, "main", quantity, "counter", HOUR, "basement"),
            Series(LIFT, "lift", quantity, "counter", HOUR, "basement"),
        ]
    )
    for n in range(5):
        at = START + n * HOUR
        await store.append(Commit((Reading(LIFT, at, Decimal(n)),)))
    await store.append(
        Commit(tuple(Reading(MAIN, LONG_AGO + n * HOUR, Decimal(n)) for n in (1, 2)))
    )
    await store.expire(START - 5 * 366 * DAY)
    await store.settle("basement", [Settlement(LIFT, "park_series", (), "404")], b"")
    await store.close()


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Place]:
    standin = StandIn({TOKEN: "basement"}, window=2.0)
    with energinet(standin) as url:
        config = site(tmp_path, url, METERS, interval="2 s")
        asyncio.run(fill(tmp_path))
        yield Place(config, standin, capsys)


def test_what_is_parked_is_listed_with_its_reason_and_time(place: Place) -> None:
    main, lift = sorted(place.listed(), key=lambda line: line["meterID"])
    assert lift | {"first": "", "last": ""} == {
        "meterID": "222", "meter": "lift", "sender": "basement", "reason": "404", "count": 5,
        "first": "", "last": "", "whole": True,
    }  # fmt: skip
    assert lift["last"] == time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime((START + 4 * HOUR) / 1000)
    )
    assert (main["reason"], main["count"], main["whole"]) == ("too_old", 2, False)
    out, _ = place.call("parked", "list")
    assert "222 (lift): 5 values, " in out
    assert ": Energinet refuses it with 404; all of it waits, one is tried every 6 h" in out
    assert "111 (main): 2 values, " in out
    assert "older than five years" in out


def test_what_was_mended_is_sent_and_what_is_too_old_stays(place: Place) -> None:
    out, _ = place.call("parked", "retry", code=3)
    assert out.splitlines() == [
        "5 values will be sent again",
        "  2 stay parked: older than five years: Energinet does not take it",
    ]
    assert (place.counts()["pending"], place.counts()["parked"]) == (5, 2)
    while run(["send", "--now", "--config", str(place.config)]) == 75:
        time.sleep(0.2)
    assert len(place.standin.received["222"]) == 5
    assert place.counts()["confirmed"] == 5


@pytest.mark.parametrize("wrong", [9 * 366 * DAY, -9 * 366 * DAY])
def test_what_a_clock_parked_that_was_years_off_is_sent_again(place: Place, wrong: int) -> None:
    async def misjudge() -> None:
        store = Store(BufferSettings(str(place.config.parent / "readings.db")), SystemClock())
        await store.open()
        assert await store.expire(*may_be_sent(START + wrong)) == 5
        await store.close()

    asyncio.run(misjudge())
    assert place.call("parked", "retry", code=3)[0].splitlines() == [
        "5 values will be sent again",
        "  2 stay parked: older than five years: Energinet does not take it",
    ]
    assert (place.counts()["pending"], place.counts()["parked"]) == (5, 2)


def test_only_what_was_named_is_tried_again(place: Place) -> None:
    assert place.call("parked", "retry", "main", "--reason", "404")[0].startswith("0 values")
    assert place.call("parked", "retry", "lift", "--reason", "403")[0].startswith("0 values")
    assert place.counts()["parked"] == 7
    assert json.loads(place.call("parked", "retry", "222", "--json")[0]) == {"count": 5, "stay": {}}


def test_what_is_given_up_is_dropped_and_counted(place: Place) -> None:
    out, err = place.call("parked", "discard", "--reason", "too_old")
    assert out.startswith("111 (main): 2 values")
    assert err == "nothing is dropped without --yes\n"
    assert place.counts()["dropped"] == {}
    out, _ = place.call("parked", "discard", "--reason", "too_old", "--yes")
    assert out == "2 values dropped\n"
    counts = place.counts()
    assert (counts["dropped"], counts["parked"], counts["stored"]) == ({"discarded": 2}, 5, 7)
    place.call("parked", "discard", "lift", "--yes")
    assert place.counts()["dropped"] == {"discarded": 7}
    assert place.call("parked", "list") == ("nothing is parked\n", "")


def test_a_copy_can_be_kept(place: Place) -> None:
    out, _ = place.call("parked", "export")
    head, *rows = out.splitlines()
    assert head == "meterID,time,value,state"
    assert len(rows) == 7
    out, _ = place.call("parked", "export", "main")
    assert [row.split(",")[2:] for row in out.splitlines()[1:]] == [
        ["1", "parked:too_old"], ["2", "parked:too_old"],
    ]  # fmt: skip
    assert len(place.call("parked", "export", "--reason", "404")[0].splitlines()) == 6


def test_a_name_that_is_not_known_is_explained(place: Place) -> None:
    for what in ("retry", "discard"):
        _, err = place.call("parked", what, "attic", "--yes", code=1)
        assert 'no meter or meterID "attic" is stored' in err
        assert "  try: " in err


def test_without_a_buffer_nothing_is_parked_and_none_is_made(place: Place) -> None:
    for file in place.config.parent.glob("readings.db*"):
        file.unlink()
    assert place.call("parked", "list") == ("nothing is parked\n", "")
    assert place.call("parked", "export")[0] == "meterID,time,value,state\n"
    _, err = place.call("parked", "retry", "--yes", code=1)
    assert "there is no buffer yet" in err
    assert not list(place.config.parent.glob("readings.db*"))
