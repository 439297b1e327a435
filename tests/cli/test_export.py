"""`export`, from a buffer as a service leaves it."""

from __future__ import annotations

import asyncio
import csv
import io
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.clock import HOUR, SystemClock
from gateway.metering.reading import Commit, Reading, Series, SeriesKey
from tests.cli.world import ENTRY, call, environment, site

START = 1_769_900_400_000  # 2026-01-31T23:00Z: midnight in Oslo
NAMES = {"1": "main", "2": "main", "3": "lift", "9": "gone"}
"""MeterID to meter."""


async def stored(folder: Path, count: int) -> None:
    store = Store(BufferSettings(path=str(folder / "readings.db")), SystemClock())
    await store.open()
    keys = [SeriesKey("", meter_id) for meter_id in NAMES]
    await store.declare(
        [
            Series(key, NAMES[key.meter_id], "active_energy_import_total", "counter", HOUR, "a")
            for key in keys
        ]
    )
    for n in range(count):
        value = Decimal("1E+3") + Decimal(n) / 100
        await store.append(Commit(tuple(Reading(k, START + n * HOUR, value) for k in keys)))
    await store.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    meters = (
        "{name: main, bus: plant, unit: 1, profile: abb-b23, send: ["
        '{meterID: "1", quantity: active_energy_import_total},'
        '{meterID: "2", quantity: active_power_total, as: mean}]}',
        "{name: lift, bus: plant, unit: 2, profile: abb-b23,"
        ' send: [{meterID: "3", quantity: active_energy_import_total}]}',
    )
    path = site(tmp_path, "http://127.0.0.1:1/apiImport/data", meters)
    (tmp_path / "basement.token").unlink()  # needed for nothing here
    return path


def rows(config: Path, *arguments: str) -> list[dict[str, str]]:
    done = call("export", *arguments, "--config", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "meterID,time,value,state"
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_all_readings_come_newest_last_in_utc(config: Path) -> None:
    asyncio.run(stored(config.parent, 30))
    found = rows(config)
    assert len(found) == 30 * len(NAMES)
    assert [row["time"] for row in found] == sorted(row["time"] for row in found)
    assert found[0] == {
        "meterID": "1",
        "time": "2026-01-31T23:00:00Z",
        "value": "1000",
        "state": "pending",
    }
    assert found[-1]["value"] == "1000.29"
    before = (config.parent / "readings.db").read_bytes()
    rows(config)
    assert (config.parent / "readings.db").read_bytes() == before


def test_a_meter_or_a_meter_id_alone(config: Path) -> None:
    asyncio.run(stored(config.parent, 3))
    assert {row["meterID"] for row in rows(config, "--meter", "main")} == {"1", "2"}
    assert {row["meterID"] for row in rows(config, "--meter", "2")} == {"2"}
    # Taken out of the configuration, but not out of the buffer.
    assert {row["meterID"] for row in rows(config, "--meter", "gone")} == {"9"}
    assert {row["meterID"] for row in rows(config, "--meter", "9")} == {"9"}


def test_a_day_is_the_site_s_own(config: Path) -> None:
    asyncio.run(stored(config.parent, 30))
    day = rows(config, "--meter", "1", "--from", "2026-02-01", "--to", "2026-02-02")
    assert [row["time"] for row in day] == [
        f"2026-01-31T{23:02}:00:00Z",
        *(f"2026-02-01T{hour:02}:00:00Z" for hour in range(23)),
    ]
    same = ("--from", "2026-02-01T00:00+01:00", "--to", "2026-02-01T23:00Z")
    assert rows(config, "--meter", "1", *same) == day
    late = rows(config, "--meter", "1", "--from", "2026-02-02T04:00")
    assert [row["time"] for row in late] == ["2026-02-02T03:00:00Z", "2026-02-02T04:00:00Z"]


def test_without_a_buffer_there_is_a_header_and_none_is_made(config: Path) -> None:
    assert rows(config) == []
    assert not (config.parent / "readings.db").exists()


def test_whoever_reads_only_the_head_causes_no_noise(config: Path) -> None:
    asyncio.run(stored(config.parent, 2_000))
    command = " ".join([*ENTRY, "export", "--config", str(config)])
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 2"],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.stdout.splitlines()[0] == "meterID,time,value,state"
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--meter", "foo"], 1, "one of lift, main"),
        (["--from", "yesterday"], 2, "write 2026-01-31, 2026-01-31T12:00"),
        (["--from", "2026-13-01"], 2, "write 2026-01-31"),
        (["--from", "2026-02-02", "--to", "2026-02-01"], 2, "is not before"),
        (["--config", "none.yaml"], 78, "none.yaml:1:1: error: the file does not exist"),
    ],
)
def test_a_mistake_is_explained(config: Path, arguments: list[str], code: int, said: str) -> None:
    done = call("export", *arguments, *([] if "--config" in arguments else ["--config", config]))
    assert done.returncode == code
    assert said in done.stderr
    assert "  try: " in done.stderr


def test_a_file_that_is_no_buffer_is_an_error_and_left_alone(config: Path) -> None:
    buffer = config.parent / "readings.db"
    buffer.write_bytes(b"not a database" * 100)
    done = call("export", "--config", config)
    assert done.returncode == 1
    assert str(buffer) in done.stderr
    assert "Traceback" not in done.stderr
    assert "  try: " in done.stderr
    assert buffer.read_bytes() == b"not a database" * 100
