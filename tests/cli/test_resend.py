"""`resend` without a service: a buffer as a wrong profile left it, the stand-in, and the truth."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from attrs import frozen

from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.cli.main import run
from gateway.clock import DAY, HOUR, SystemClock
from gateway.config import load
from gateway.config.heirs import series_of
from gateway.energinet.standin import StandIn
from gateway.errors import StoreUnavailable
from gateway.metering.interval import repeats
from gateway.metering.meter import Meter
from gateway.metering.reading import Block, Commit, RawWords, Sample
from tests.cli.world import TOKEN, energinet, site

HOURS = 30
OSLO = ZoneInfo("Europe/Oslo")
START = int(time.time() * 1000) // HOUR * HOUR - HOURS * HOUR
PROFILE = """\
maker: Test
model: T1
kind: electricity
sources: {made: "up"}
registers:
  - {quantity: active_energy_import_total, function: 3, address: 100, type: u32, word_order: ORDER,
     scale: "0.01", unit: kWh, sources: [made]}
"""
METER = (
    "{name: main, bus: plant, unit: 1, profile: t1, multiplier: 1, send: ["
    '{meterID: "111", quantity: active_energy_import_total},'
    '{meterID: "222", quantity: active_energy_import_total, as: consumption}]}'
)


def shown(hour: int) -> int:
    """The raw number of the counter at an hour."""
    return 1000 + 7 * hour + hour * hour % 5


@frozen
class Done:
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


class Place:
    """A site: its configuration, the stand-in, what the meter said."""

    def __init__(
        self, folder: Path, url: str, standin: StandIn, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.url, self.standin = folder, url, standin
        self.config = folder / "gateway.yaml"
        self.start = START
        self._capsys = capsys

    def call(self, *arguments: str) -> Done:
        """A command, in this process: there are many."""
        self._capsys.readouterr()
        code = run([*arguments, "--config", str(self.config)])
        return Done(code, *self._capsys.readouterr())

    def write(self, *, order: str = "big", meter: str = METER) -> Path:
        (self.folder / "profiles").mkdir(exist_ok=True)
        (self.folder / "profiles" / "t1.yaml").write_text(PROFILE.replace("ORDER", order))
        path = site(self.folder, self.url, [meter], interval="2 s")
        path.write_text(path.read_text() + "profiles: profiles/\n")
        return path

    async def fill(self, first: int = 0, end: int = HOURS) -> None:
        """What a service stored at these hours with the configuration that is there."""
        config = load(self.config).config
        bus = config.buses[0]
        zone, label = ZoneInfo(config.timezone), config.energinet.label
        meter = Meter(config.meters[0], zone, label, bus.poll)
        store = Store(BufferSettings(path=str(self.folder / "readings.db")), SystemClock())
        await store.open()
        await store.declare(series_of(config))
        meter.restore(await store.last(), (await store.states()).get("main"))
        for hour in range(first, end):
            at = self.start + hour * HOUR
            words = (shown(hour) >> 16, shown(hour) & 0xFFFF)
            raw = RawWords((Block(3, 100, words),))
            for outcome in (
                meter.advance(at, "stopped"),
                meter.take(Sample("main", at + 20, "boot", at, raw), at),
            ):
                states = {} if outcome.state is None else {"main": outcome.state}
                await store.append(Commit(outcome.readings, outcome.gaps, outcome.samples, states))
        await store.close()

    def send(self) -> None:
        """All that waits."""
        while (done := self.call("send", "--now")).returncode == 75:
            time.sleep(0.2)  # the sender's slot
        assert done.returncode == 0, done.stderr

    def resend(self, *arguments: str) -> Done:
        return self.call("resend", "main", *arguments)

    def looked(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        done = self.resend("--from", "2020-01-01", "--json", *arguments)
        assert done.returncode == code, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def received(self, meter_id: str) -> list[Decimal]:
        return [value for _, value in sorted(self.standin.received[meter_id].items())]

    def counts(self) -> dict[str, Any]:
        done = self.call("status", "--json")
        found: dict[str, Any] = json.loads(done.stdout)["buffer"]
        assert found["balanced"]
        return found


TRUE_COUNTER = [Decimal(shown(hour)) / 100 for hour in range(HOURS)]
TRUE_MOVED = [after - before for before, after in pairwise(TRUE_COUNTER)]


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Place]:
    standin = StandIn({TOKEN: "basement"}, window=2.0)
    with energinet(standin) as url:
        place = Place(tmp_path, url, standin, capsys)
        yield place


def test_a_wrong_word_order_is_shown_sent_again_and_known(place: Place) -> None:
    place.write(order="little")
    asyncio.run(place.fill())
    place.send()
    assert place.received("111") != TRUE_COUNTER
    place.write(order="big")

    done = place.resend("--from", "2020-01-01")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "nothing is sent again without --yes\n"
    head, first, *rest = done.stdout.splitlines()
    assert head.split() == ["time", "meterID", "sent", "now"]
    assert first.split()[1:] == ["111", "655360", "10"]
    assert f"… {2 * HOURS - 1 - 20} more (all of them: --json) …" in rest
    assert any(line.startswith(f"111: {HOURS} values changed, ") for line in rest)
    assert rest[-1] == "1 request, about 1 min"
    view = place.looked()
    assert view["sent_again"] == 0
    assert len(view["values"]) == 2 * HOURS - 1
    assert place.counts()["confirmed"] == 2 * HOURS - 1  # nothing was done yet

    view = place.looked("--yes")
    assert view["sent_again"] == 2 * HOURS - 1
    counts = place.counts()
    assert (counts["stored"], counts["pending"], counts["confirmed"]) == (
        2 * HOURS - 1, 2 * HOURS - 1, 0,
    )  # fmt: skip
    place.send()
    assert place.received("111") == TRUE_COUNTER
    assert place.received("222") == TRUE_MOVED
    assert len(place.standin.requests) == 2
    assert all(" was " in line for line in place.standin.violations)  # no limit was broken

    again = place.looked("--yes")
    assert (again["sent_again"], again["values"]) == (0, [])
    history = json.loads(place.resend("--history", "--json").stdout)
    assert len(history) == 2 * HOURS - 1
    assert history[0] | {"corrected": ""} == {
        "meterID": "111", "time": history[0]["time"], "was": "655360", "state": "confirmed",
        "corrected": "",
    }  # fmt: skip
    assert "655360  confirmed" in place.resend("--history").stdout


def test_what_nothing_could_be_made_of_is_sent_too(place: Place) -> None:
    """The words of most hours are no number of the wrong type: those values are missing."""
    place.write()
    wrong = PROFILE.replace("u32", "bcd32").replace("ORDER", "big")
    (place.folder / "profiles" / "t1.yaml").write_text(wrong)
    asyncio.run(place.fill(0, 25))
    missing = 25 + 24 - place.counts()["stored"]
    place.write()
    asyncio.run(place.fill(25))
    assert place.resend("--from", "2020-01-01").stdout.split()[4:8][2] == "missing"
    view = place.looked("--yes")
    assert [row["sent"] for row in view["values"]].count(None) >= missing > 10
    assert view["sent_again"] == len(view["values"])
    place.send()
    assert place.received("111") == TRUE_COUNTER
    assert place.received("222") == TRUE_MOVED
    assert place.looked()["values"] == []


def test_one_that_was_cut_short_is_taken_up_by_doing_it_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between what is corrected and what is new: no energy is sent twice, none is lost."""
    place.write()
    wrong = PROFILE.replace("u32", "bcd32").replace("ORDER", "big")
    (place.folder / "profiles" / "t1.yaml").write_text(wrong)
    asyncio.run(place.fill(0, 25))
    place.write()
    asyncio.run(place.fill(25))

    def cut(*_: object, **__: object) -> None:
        raise StoreUnavailable("the card is gone", hint="look at it")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", cut)
        assert place.resend("--from", "2020-01-01", "--yes").returncode == 1
    assert place.counts()["pending"] < 2 * HOURS - 1
    place.send()
    assert sum(place.received("222")) <= sum(TRUE_MOVED)
    assert place.looked("--yes")["sent_again"] > 0
    place.send()
    assert place.received("111") == TRUE_COUNTER
    assert place.received("222") == TRUE_MOVED


def test_only_the_range_is_sent_and_only_what_changed(place: Place) -> None:
    place.write(meter=METER.replace("multiplier: 1", "multiplier: 10"))
    asyncio.run(place.fill(0, 20))
    place.write()
    asyncio.run(place.fill(20))
    place.send()
    since, until = (
        time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime((START + hour * HOUR) / 1000))
        for hour in (10, 25)
    )
    done = place.resend("--from", since, "--to", until, "--json", "--yes")
    view = json.loads(done.stdout)
    counter, moved = view["series"]
    assert (counter["changed"], counter["unchanged"], counter["left"]) == (10, 5, {})
    assert counter["first"].replace(":00Z", "Z") == since
    # An interval that ends after the mistake was mended began before: it was right already.
    assert (moved["changed"], moved["unchanged"]) == (9, 6)
    place.send()
    assert place.received("111") == [10 * v for v in TRUE_COUNTER[:10]] + TRUE_COUNTER[10:]
    assert place.received("222") == [10 * v for v in TRUE_MOVED[:10]] + TRUE_MOVED[10:]


@pytest.mark.parametrize("wrong", [0, 1])
def test_both_readings_of_an_hour_that_is_shown_twice_go_again(place: Place, wrong: int) -> None:
    """Only one of the two was wrong, and the range begins between them."""
    night = repeats(START - 400 * DAY, START - 2 * DAY, OSLO)[-1]
    place.start = night.start - 5 * HOUR
    times_ten = METER.replace("multiplier: 1", "multiplier: 10")
    first = 6 + wrong  # the reading that ends the hour in question
    for begin, end, meter in (
        (0, first, METER),
        (first, first + 1, times_ten),
        (first + 1, 12, METER),
    ):
        place.write(meter=meter)
        asyncio.run(place.fill(begin, end))
    place.send()
    moved: dict[str, Decimal] = {}
    for hour in range(11):
        at = datetime.fromtimestamp((place.start + hour * HOUR) / 1000, OSLO)
        name = f"{at:%Y-%m-%dT%H:%M}"
        moved[name] = moved.get(name, Decimal(0)) + TRUE_MOVED[hour]
    assert len(moved) == 10
    assert dict(place.standin.received["222"]) != moved
    since = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(night.start / 1000 + 60))
    done = place.resend("--from", since, "--json", "--yes")
    counter, consumption = json.loads(done.stdout)["series"]
    assert consumption["changed"] == 2
    assert counter["changed"] == (2 if wrong == 0 else 1)
    place.send()
    assert dict(place.standin.received["222"]) == moved
    assert place.counts()["pending"] == 0
    assert len(place.standin.requests) == 2


def test_what_was_sent_to_a_wrong_meter_id_goes_to_the_right_one(place: Place) -> None:
    place.write(meter=METER.replace('"111"', '"999"'))
    asyncio.run(place.fill(0, 20))
    place.send()
    asyncio.run(place.fill(20, 25))  # these wait
    place.write()
    asyncio.run(place.fill(25))
    done = place.resend("--from", "2020-01-01", "--was", "999", "--yes")
    assert done.returncode == 0, done.stderr
    assert "111: 25 values from 999, " in done.stdout
    assert "What was sent to 999 cannot be recalled" in done.stdout
    counts = place.counts()
    assert counts["dropped"] == {"corrected": 5}
    place.send()
    assert place.received("111") == TRUE_COUNTER
    assert len(place.received("999")) == 20
    assert place.looked("--was", "999")["series"][0]["left"] == {"has_own": 20}


def test_what_cannot_be_told_is_left_and_the_rest_is_sent(place: Place) -> None:
    place.write(order="little")
    asyncio.run(place.fill(0, 20))
    place.send()
    text = PROFILE.replace("ORDER", "big").replace("address: 100", "address: 102")
    (place.folder / "profiles" / "t1.yaml").write_text(text)
    view = place.looked("--yes", code=3)
    assert [one["left"] for one in view["series"]] == [{"not_read": 20}, {"not_read": 19}]
    assert view["sent_again"] == 0
    shown = place.resend("--from", "2020-01-01")
    assert shown.returncode == 3
    assert "20 left: the words lack a register that the profile needs now" in shown.stdout


def test_what_was_stored_as_another_kind_is_left(place: Place) -> None:
    place.write()
    asyncio.run(place.fill(0, 20))
    place.send()
    place.write(
        meter=METER.replace('total},{meterID: "222"', 'total, as: consumption},{meterID: "222"')
    )
    asyncio.run(place.fill(20))
    view = place.looked("--yes", code=3)
    assert [one["left"] for one in view["series"]] == [{"other_kind": 20, "no_base": 1}, {}]
    assert view["sent_again"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "say --from: since when were the values wrong?"),
        (["--from", "yesterday"], 2, "write 2026-01-31"),
        (["--from", "2026-02-02", "--to", "2026-02-01"], 2, "is not before"),
        (["--from", "2026-02-02"], 1, "there is no buffer yet"),
    ],
)
def test_a_mistake_is_explained(place: Place, arguments: list[str], code: int, said: str) -> None:
    place.write()
    done = place.resend(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "  try: " in done.stderr


def test_a_wrong_former_meter_id_is_explained(place: Place) -> None:
    place.write()
    asyncio.run(place.fill(0, 2))
    for former, said in (("222", "meterID 222 is in use: main"), ("5", "nothing is stored under")):
        done = place.resend("--from", "2020-01-01", "--was", former)
        assert done.returncode == 1
        assert said in done.stderr
        assert "  try: " in done.stderr
    done = place.call("resend", "lift", "--from", "2020-01-01")
    assert 'no meter is named "lift"' in done.stderr
