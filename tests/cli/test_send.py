"""`send` without a service: from a buffer, over real HTTP, to the stand-in."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.clock import HOUR, SystemClock
from gateway.energinet.standin import StandIn
from gateway.metering.reading import Commit, Reading, Series, SeriesKey
from tests.cli.world import TOKEN, call, energinet, site

METERS = (
    "{name: main, bus: plant, unit: 1, profile: abb-b23, send: ["
    '{meterID: "111", quantity: active_energy_import_total},'
    '{meterID: "222", quantity: active_energy_import_total, as: consumption}]}',
)


async def stored(folder: Path, count: int) -> None:
    store = Store(BufferSettings(path=str(folder / "readings.db")), SystemClock())
    await store.open()
    keys = [SeriesKey("", "111"), SeriesKey("", "222")]
    await store.declare(
        [Series(k, "main", "active_energy_import_total", "counter", HOUR, "basement") for k in keys]
    )
    start = int(time.time() * 1000) // HOUR * HOUR - count * HOUR
    for n in range(count):
        value = Decimal(n) / 4
        await store.append(Commit(tuple(Reading(k, start + n * HOUR, value) for k in keys)))
    await store.close()


@pytest.fixture
def standin() -> StandIn:
    return StandIn({TOKEN: "basement"}, known={"111", "222"})


@pytest.fixture
def config(tmp_path: Path, standin: StandIn) -> Iterator[Path]:
    with energinet(standin) as url:
        yield site(tmp_path, url, METERS)


def test_a_dry_run_shows_the_body_and_neither_sends_nor_writes(
    config: Path, standin: StandIn
) -> None:
    asyncio.run(stored(config.parent, 5))
    (config.parent / "basement.token").unlink()  # not needed to look
    before = {path.name: path.read_bytes() for path in config.parent.iterdir()}
    done = call("send", "--dry-run", "--json", "--config", config)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["sender"], found["values"], found["meters"]) == ("basement", 10, 2)
    body = json.loads(found["body"])
    assert {one["meterID"]: len(one["values"]) for one in body} == {"111": 5, "222": 5}
    assert found["bytes"] == len(found["body"].encode())
    assert found["next_request"] is None  # now
    page = call("send", "--dry-run", "--config", config).stdout
    assert page.startswith("sender basement: 10 values of 2 meters, ")
    assert "may go: now" in page
    assert found["body"] in page
    assert standin.requests == []
    after = {path.name: path.read_bytes() for path in config.parent.iterdir()}
    assert {name: after[name] for name in before} == before


def test_now_sends_what_waits_once_and_then_it_is_too_early(config: Path, standin: StandIn) -> None:
    asyncio.run(stored(config.parent, 5))
    done = call("send", "--now", "--config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  111: confirmed (201)" in done.stdout
    assert "still waiting: 0" in done.stdout
    assert {name: len(values) for name, values in standin.received.items()} == {"111": 5, "222": 5}
    again = call("send", "--now", "--config", config)
    assert again.returncode == 75
    assert again.stdout == ""
    assert "may ask again in 10 min" in again.stderr
    assert "  try: " in again.stderr
    assert len(standin.requests) == 1
    status = json.loads(call("status", "--json", "--config", config).stdout)
    assert (status["buffer"]["confirmed"], status["buffer"]["pending"]) == (10, 0)
    assert status["senders"][0]["next_request"] is not None


def test_a_meter_that_is_refused_makes_it_partly(config: Path, standin: StandIn) -> None:
    asyncio.run(stored(config.parent, 2))
    standin.known = {"111"}
    done = call("send", "--now", "--json", "--config", config)
    assert done.returncode == 3
    verdicts = json.loads(done.stdout)["verdicts"]
    assert verdicts["111"] == {"verdict": "confirmed", "status": 201}
    assert verdicts["222"]["status"] == 404


def test_a_token_that_is_not_known_is_a_failure_and_every_value_is_kept(
    config: Path, standin: StandIn
) -> None:
    asyncio.run(stored(config.parent, 2))
    (config.parent / "basement.token").write_text("another\n")
    done = call("send", "--now", "--config", config)
    assert done.returncode == 1
    assert "401" in done.stderr
    assert "another" not in done.stdout + done.stderr
    assert "  try: " in done.stderr
    status = json.loads(call("status", "--json", "--config", config).stdout)
    assert status["buffer"]["pending"] == 4


def test_a_server_that_does_not_answer_is_unreachable(tmp_path: Path, free_tcp_port: int) -> None:
    config = site(tmp_path, f"http://127.0.0.1:{free_tcp_port}/apiImport/data", METERS)
    asyncio.run(stored(tmp_path, 2))
    done = call("send", "--now", "--config", config)
    assert done.returncode == 69
    assert "no answer: refused" in done.stderr
    assert "  try: check the network" in done.stderr


def test_where_nothing_waits_nothing_is_sent_and_no_buffer_is_made(
    config: Path, standin: StandIn
) -> None:
    for how in ("--now", "--dry-run"):
        done = call("send", how, "--config", config)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "sender basement: nothing waits to be sent\n"
    assert standin.requests == []
    assert {path.name for path in config.parent.iterdir()} == {"basement.token", "gateway.yaml"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "say --dry-run to look, or --now to send"),
        (["--now", "--dry-run"], 2, "say --dry-run to look, or --now to send"),
        (["--dry-run", "--sender", "attic"], 1, "one of basement"),
    ],
)
def test_a_mistake_is_explained(config: Path, arguments: list[str], code: int, said: str) -> None:
    done = call("send", *arguments, "--config", config)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "  try: " in done.stderr


def test_a_missing_token_file_is_a_mistake_only_where_it_is_needed(config: Path) -> None:
    asyncio.run(stored(config.parent, 1))
    (config.parent / "basement.token").unlink()
    assert call("send", "--dry-run", "--config", config).returncode == 0
    assert call("send", "--now", "--config", config).returncode == 78
