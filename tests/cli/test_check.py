from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.buffer.rows import SPANS
from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.cli.costs import READING_BYTES, costs_of, problems
from gateway.cli.main import run
from gateway.clock import DAY, HOUR, SystemClock
from gateway.config import load
from gateway.metering.reading import Block, Commit, RawWords, Reading, Series, SeriesKey


def view(capsys: pytest.CaptureFixture[str], path: Path) -> Any:
    code = run(["check", "--json", "--config", str(path)])
    found = json.loads(capsys.readouterr().out)
    return {**found, "code": code}


def test_a_sound_configuration_is_said_to_be_and_costs_what_it_costs(
    capsys: pytest.CaptureFixture[str], site: Path
) -> None:
    found = view(capsys, site)
    assert (found["code"], found["mistakes"], found["warnings"]) == (0, [], [])
    bus = found["buses"][0]
    supply, heating = bus["meters"]
    # f32 at 52 and at 72, with a hole that may not be read; u32 at 0 and its unit at 9 in one,
    # since the profile says that holes up to 63 may be.
    assert (supply["requests"], heating["requests"]) == (2, 1)
    # 9600 8N1: 10 bits a character; 8 out, 5 + 2 a register back; the answer begins after 10 ms
    # and 3.5 characters of silence, then 60 ms of pause as the profile says.
    one = (8 + 5 + 4) * 10 / 9600 + 0.01 + 3.5 * 10 / 9600 + 0.060
    assert supply["ms"] == pytest.approx(2 * one * 1000, abs=0.1)
    other = (8 + 5 + 20) * 10 / 9600 + 0.01 + 2 * 3.5 * 10 / 9600
    assert heating["ms"] == pytest.approx(other * 1000, abs=0.1)
    # Every boundary falls on a poll: nothing comes on top of a round a minute.
    busy = (2 * one + other) / 60
    assert bus["load_percent"] == pytest.approx(busy * 100, abs=0.01)
    assert bus["worst_load_percent"] == pytest.approx(busy * 100 + 10, abs=0.01)
    assert bus["worst_round_ms"] == pytest.approx(2 * one * 1000 + 1000, abs=0.1)
    sender = found["senders"][0]
    assert sender["readings_a_day"] == 96 + 96 + 288
    assert sender["requests_a_day"] == 144
    assert sender["capacity_a_day"] == 144 * 500_000
    spare = sender["capacity_a_day"] - sender["bytes_a_day"]
    drained = round(30 * DAY * sender["bytes_a_day"] / spare)
    assert sender["backlog"] == {"days": 30, "drained_in_ms": drained}


def test_boundaries_that_fall_on_no_poll_cost_their_own_reads(site: Path) -> None:
    before = costs_of(load(site).config).buses[0]
    site.write_text(site.read_text().replace("every: 5 min", "every: 5 s"))
    after = costs_of(load(site).config).buses[0]
    heating, day = before.meters[1], 24 * 60
    assert before.meters[1].day == pytest.approx(day * heating.millis)
    assert after.meters[1].day == pytest.approx(12 * day * heating.millis)
    assert after.meters[0].day == before.meters[0].day


def test_what_will_not_work_out_is_said(capsys: pytest.CaptureFixture[str], site: Path) -> None:
    config = load(site).config
    assert problems(config, costs_of(config)) == []
    site.write_text(site.read_text().replace("every: 5 min", "every: 5 s").replace("9600,", "300,"))
    config = load(site).config
    assert ["values would be missing" in p for p in problems(config, costs_of(config))] == [True]
    site.write_text(site.read_text().replace("{serial: ", "{poll: 1 s, serial: "))
    config = load(site).config
    assert ["busy" in p for p in problems(config, costs_of(config))] == [True]
    assert run(["check", "--config", str(site)]) == 0
    assert "poll less often" in capsys.readouterr().err


def test_meters_whose_counters_nothing_bounds_are_named(
    capsys: pytest.CaptureFixture[str], site: Path
) -> None:
    names = [meter.name for meter in load(site).config.meters]
    assert view(capsys, site)["unbounded"] == names
    assert run(["check", "--config", str(site)]) == 0
    assert f"the counters of {', '.join(names)}:" in capsys.readouterr().out
    bounded = re.sub(r"(\n *)(unit: \d+)", r"\1\2\1max_power: 100 kW", site.read_text())
    site.write_text(bounded)
    assert view(capsys, site)["unbounded"] == []


def test_a_disk_that_is_smaller_than_the_buffer_may_become_is_said(
    capsys: pytest.CaptureFixture[str], site: Path
) -> None:
    disk = os.statvfs(site.parent)
    most = disk.f_blocks * disk.f_frsize // 10**9 + 1
    site.write_text(site.read_text() + f"buffer: {{path: not/there/yet.db, max_size: {most} GB}}\n")
    (doubt,) = view(capsys, site)["problems"]
    assert f"less than its max_size of {most} GB: that is " in doubt
    site.write_text(site.read_text().replace(f"{most} GB", "1 MB"))
    assert view(capsys, site)["problems"] == []


def test_more_values_than_a_sender_may_send_are_said(site: Path) -> None:
    site.write_text(
        site.read_text()
        .replace("every: 15 min", "every: 5 s")
        .replace("energinet:\n", "energinet:\n  max_payload: 4 kB\n")
    )
    config = load(site).config
    assert any("more senders" in p for p in problems(config, costs_of(config)))


def test_a_page_for_people_names_buses_meters_senders_and_the_buffer(
    capsys: pytest.CaptureFixture[str], site: Path
) -> None:
    assert run(["check", "--config", str(site)]) == 0
    page = capsys.readouterr().out
    for word in ("no mistake", "bus riser", "main-supply", "2 requests", "sender basement", "days"):
        assert word in page


def test_mistakes_are_data_too(capsys: pytest.CaptureFixture[str], site: Path) -> None:
    site.write_text(site.read_text().replace("unit: 2", "unit: 300"))
    found = view(capsys, site)
    assert found["code"] == 78
    assert [(m["line"], m["column"]) for m in found["mistakes"]] == [(18, 11)]


def test_no_connection_is_made(
    capsys: pytest.CaptureFixture[str], site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    site.write_text(
        site.read_text().replace(
            "serial: riser.port, baudrate: 9600, parity: none", "tcp: 192.0.2.1:502"
        )
    )
    monkeypatch.setattr(socket, "socket", refuse)
    assert view(capsys, site)["code"] == 0


async def test_the_room_of_a_reading_is_what_the_store_takes(tmp_path: Path) -> None:
    store = Store(BufferSettings(path=str(tmp_path / "readings.db")), SystemClock())
    await store.open()
    keys = [SeriesKey("", f"77777777{n:02d}") for n in range(40)]
    await store.declare(
        [Series(k, k.meter_id, "active_energy_import_total", "counter", HOUR, "a") for k in keys]
    )
    raw = RawWords((Block(4, 72, (1, 2)),))
    start = 1_700_000_000_000 // HOUR * HOUR
    sizes = []
    for n in range(300):
        value = Decimal(n * 12345) / 1000
        await store.append(Commit(tuple(Reading(k, start + n * HOUR, value, raw) for k in keys)))
        sizes.append(store.size)
    await store.close()
    each = (sizes[299] - sizes[99]) / (200 * len(keys))
    assert each == pytest.approx(READING_BYTES + len(raw.pack()), rel=0.2)


async def _with_a_buffer(site: Path, readings: int) -> Path:
    """Add one to the configuration, with so many readings of a meterID."""
    site.write_text(site.read_text() + "buffer: {path: readings.db}\n")
    path = site.parent / "readings.db"
    store = Store(BufferSettings(path=str(path)), SystemClock())
    await store.open()
    key = SeriesKey("", "7777777777")
    await store.declare(
        [Series(key, "main", "active_energy_import_total", "counter", HOUR, "basement")]
    )
    start = 1_700_000_000_000 // HOUR * HOUR
    await store.append(
        Commit(tuple(Reading(key, start + n * HOUR, Decimal(n)) for n in range(readings)))
    )
    await store.close()
    return path


def test_the_sum_over_all_values_of_the_buffer_is_counted_anew(
    capsys: pytest.CaptureFixture[str], site: Path
) -> None:
    assert view(capsys, site)["counts"] is None
    asyncio.run(_with_a_buffer(site, 5))
    found = view(capsys, site)
    assert found["code"] == 0
    assert found["counts"] == {
        "stored": 5, "pending": 5, "in_flight": 0, "confirmed": 0, "parked": 0, "dropped": {},
        "held": 0, "balanced": True,
    }  # fmt: skip
    run(["check", "--config", str(site)])
    shown = capsys.readouterr().out
    assert "values: 5 stored = 5 pending + 0 confirmed + 0 parked + 0 dropped\n" in shown


def test_values_that_nobody_sends_are_told(capsys: pytest.CaptureFixture[str], site: Path) -> None:
    async def of_another_import() -> None:
        store = Store(BufferSettings(str(site.parent / "readings.db")), SystemClock())
        await store.open()
        key = SeriesKey("north", "9")
        await store.declare([Series(key, "old", "volume_total", "counter", HOUR, "attic")])
        await store.append(Commit((Reading(key, 1_700_000_000_000 // HOUR * HOUR, Decimal(1)),)))
        await store.close()

    asyncio.run(_with_a_buffer(site, 5))
    renamed = site.read_text().replace("basement", "cellar")
    site.write_text(renamed)
    (site.parent / "basement.token").rename(site.parent / "cellar.token")
    assert view(capsys, site)["problems"] == []  # they go by the sender that is there
    asyncio.run(of_another_import())
    (problem,) = view(capsys, site)["problems"]
    assert "1 value of meters that are not configured" in problem
    assert "sender attic" in problem
    assert run(["status", "--config", str(site)]) == 0
    shown = capsys.readouterr().out
    assert "unserved attic: 1 value for a sender that is not configured any more" in shown
    run(["status", "--json", "--config", str(site)])
    found = json.loads(capsys.readouterr().out)
    assert found["unserved"] == [{"sender": "attic", "pending": 1}]
    assert [(one["name"], one["pending"]) for one in found["senders"]] == [("cellar", 5)]


def test_a_value_that_is_unaccounted_for_is_an_error(
    capsys: pytest.CaptureFixture[str], site: Path
) -> None:
    path = asyncio.run(_with_a_buffer(site, 5))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(SPANS.insert, SPANS.sealed(1, 1, 6, 6, "c"))
    assert run(["check", "--config", str(site)]) == 1
    shown = capsys.readouterr()
    assert "1 confirmed" in shown.out
    assert "the counts of the buffer do not add up" in shown.err
