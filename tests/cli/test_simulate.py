"""`simulate` as a process, asked by masters that are not ours."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import minimalmodbus
import pytest
from pyModbusTCP.client import ModbusClient

from gateway.cli.main import run
from gateway.config.document import compose
from gateway.config.report import Report
from tests.cli.world import PATIENCE, Background, call, site

METERS = (
    "{name: main, bus: riser, unit: 1, profile: eastron-sdm630,"
    ' send: [{meterID: "1", quantity: active_energy_import_total}]}',
    "{name: lift, bus: riser, unit: 2, profile: abb-b23,"
    ' send: [{meterID: "2", quantity: active_energy_import_total}]}',
    "{name: roof, bus: plant, unit: 1, profile: carlo-gavazzi-em24-e1,"
    ' send: [{meterID: "3", quantity: active_energy_import_total}]}',
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[list[Background]]:
    """Simulations to be ended."""
    running: list[Background] = []
    yield running
    for one in running:
        one.kill()


def started(served: list[Background], folder: Path, *arguments: str | Path) -> Background:
    """A simulation that serves."""
    one = Background(folder, "simulate", *arguments)
    served.append(one)
    one.wait_for(lambda: "serving" in one.err)
    return one


def registers(port: int, unit: int, address: int, count: int) -> list[int] | None:
    """What an independent master reads over Modbus TCP."""
    client = ModbusClient("127.0.0.1", port, unit_id=unit, auto_close=True, timeout=2)
    found: list[int] | None = client.read_input_registers(address, count)
    client.close()
    return found


def line(path: str | Path, unit: int) -> minimalmodbus.Instrument:
    """An independent master on a serial line."""
    master = minimalmodbus.Instrument(str(path), unit)
    master.serial.baudrate = 9600
    master.serial.timeout = 1
    return master


def test_a_profile_is_served_over_tcp_until_it_is_told_to_end(
    served: list[Background], tmp_path: Path, free_tcp_port: int
) -> None:
    where = f"127.0.0.1:{free_tcp_port}"
    one = started(served, tmp_path, "--profile", "eastron-sdm630", "--unit", "7", "--tcp", where)
    found = registers(free_tcp_port, 7, 342, 2)
    assert found is not None
    energy = struct.unpack(">f", struct.pack(">HH", *found))[0]
    assert 1_000 < energy < 100_000
    assert registers(free_tcp_port, 8, 342, 2) is None  # another unit
    assert one.end() == 0
    assert compose(one.out, Report("out", one.out)) is not None  # YAML, and nothing else
    assert f'tcp: "{where}"' in one.out
    assert "unit: 7, profile: eastron-sdm630" in one.out


def test_a_profile_is_served_on_a_serial_line_that_is_gone_afterwards(
    served: list[Background], tmp_path: Path
) -> None:
    port = tmp_path / "line"
    port.symlink_to(tmp_path / "gone")  # left by a simulation that was killed
    one = started(served, tmp_path, "--profile", "eastron-sdm120", "--serial", port)
    volts = line(port, 1).read_float(0, functioncode=4)
    assert 200 < volts < 260
    assert one.end() == 0
    assert not port.is_symlink()


def test_every_meter_of_a_configuration_is_served_where_the_configuration_says(
    served: list[Background], tmp_path: Path, free_tcp_port: int
) -> None:
    buses = ("riser: {serial: riser.port}", f'plant: {{tcp: "127.0.0.1:{free_tcp_port}"}}')
    config = site(tmp_path, "http://127.0.0.1:1/apiImport/data", METERS, buses=buses)
    (tmp_path / "basement.token").unlink()  # needed for nothing here
    started(served, tmp_path, "--config", config)
    riser = tmp_path / "riser.port"
    assert 200 < line(riser, 1).read_float(0, functioncode=4) < 260
    assert line(riser, 2).read_registers(20_480, 4)[3] > 0
    assert registers(free_tcp_port, 1, 0, 2) is not None
    done = call("read", "lift", "--once", "--config", config)
    assert done.returncode == 0, done.stderr
    assert "active_energy_import_total" in done.stdout


def test_faults_come_on_request_for_one_meter_and_for_a_while(
    served: list[Background], tmp_path: Path, free_tcp_port: int
) -> None:
    buses = ("riser: {serial: riser.port}", f'plant: {{tcp: "127.0.0.1:{free_tcp_port}"}}')
    config = site(tmp_path, "http://127.0.0.1:1/apiImport/data", METERS, buses=buses)
    faults = ("--fault", "silent:lift", "--fault", "exception:roof@0s..6s")
    started(served, tmp_path, "--config", config, *faults)
    assert registers(free_tcp_port, 1, 0, 2) is None
    assert 200 < line(tmp_path / "riser.port", 1).read_float(0, functioncode=4) < 260
    with pytest.raises(minimalmodbus.NoResponseError):
        line(tmp_path / "riser.port", 2).read_registers(20_480, 4)
    until = time.monotonic() + PATIENCE
    while registers(free_tcp_port, 1, 0, 2) is None:
        assert time.monotonic() < until
        time.sleep(0.5)


def test_a_path_that_is_taken_is_left_alone(served: list[Background], tmp_path: Path) -> None:
    port = tmp_path / "line"
    port.write_text("mine")
    one = started(served, tmp_path, "--profile", "eastron-sdm120", "--serial", port)
    assert f"{port} cannot be made a link" in one.err
    assert one.end() == 0
    assert port.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--profile", "eastron-sdm63"], 1, 'did you mean "eastron-sdm630"?'),
        (["--profile", "abb-b23", "--tcp", "0.0.0.0:5020"], 2, "loopback only"),
        (["--profile", "abb-b23", "--tcp", "127.0.0.1"], 2, "127.0.0.1:5020"),
        (["--profile", "abb-b23", "--tcp", "127.0.0.1:99999"], 2, "127.0.0.1:5020"),
        (["--profile", "abb-b23", "--baudrate", "1234"], 2, "9600"),
        (["--profile", "abb-b23", "--unit", "0"], 2, "1<=x<=247"),
        (["--profile", "abb-b23", "--fault", "sillent"], 2, "kinds: silent, late"),
        (["--profile", "abb-b23", "--fault", "silent:lift"], 2, "leave its name out"),
        (["--config", "none.yaml"], 78, "does not exist"),
    ],
)
def test_a_mistake_is_explained(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["simulate", *arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert "  try: " in shown.err


def test_a_fault_for_a_meter_that_there_is_not_names_those_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    buses = ("riser: {serial: riser.port}", 'plant: {tcp: "127.0.0.1:1"}')
    config = site(tmp_path, "http://127.0.0.1:1/apiImport/data", METERS, buses=buses)
    assert run(["simulate", "--fault", "silent:lif", "--config", str(config)]) == 1
    assert "try: one of lift, main, roof" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said_and_nothing_is_served(
    tmp_path: Path, free_tcp_port: int
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_tcp_port))
        taken.listen()
        where = f"127.0.0.1:{free_tcp_port}"
        done = call("simulate", "--profile", "abb-b23", "--tcp", where)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {where}: {os.strerror(98)}\n  try: serve on another port\n"
