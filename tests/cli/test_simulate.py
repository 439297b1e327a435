"""`simulate` as a process, asked by masters that are not ours."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import minimalmodbus
import pytest
import serial
from pyModbusTCP.client import ModbusClient

from gateway.cli.main import run
from gateway.config import Library
from gateway.config.document import compose
from gateway.config.report import Report
from gateway.modbus.faults import CONDITIONS, FAULTS
from tests.cli.world import PATIENCE, Background, call, site
from tests.modbus.lines import frame

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


def line(path: str | Path, unit: int, framing: str = "rtu") -> minimalmodbus.Instrument:
    """An independent master on a serial line."""
    master = minimalmodbus.Instrument(str(path), unit, framing)
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


@pytest.mark.parametrize("framing", ["rtu", "ascii"])
def test_a_line_speaks_the_framing_that_was_asked_for(
    framing: str, served: list[Background], tmp_path: Path
) -> None:
    port = tmp_path / "line"
    one = started(
        served, tmp_path, "--profile", "eastron-sdm120", "--serial", port, "--framing", framing
    )
    master = line(port, 1, framing)
    assert 200 < master.read_float(0, functioncode=4) < 260
    assert one.end() == 0
    assert (f"framing: {framing}" in one.out) == (framing == "ascii")


def test_an_adapter_holds_as_many_bytes_as_was_asked_for(
    served: list[Background], tmp_path: Path
) -> None:
    """An answer of 9 bytes at 1200 baud: without `--fifo` eight come, and one 8 ms later."""
    port = tmp_path / "line"
    on_a_line = ("--serial", port, "--baudrate", "1200")
    started(served, tmp_path, "--profile", "eastron-sdm120", *on_a_line, "--fifo", "4096")
    with serial.Serial(str(port), 1200, timeout=PATIENCE) as opened:
        opened.write(frame(1, 4, 0, 0, 0, 2))
        assert len(opened.read(1)) == 1
        assert opened.in_waiting == 8


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


def test_several_profiles_share_a_line_each_at_its_own_unit_and_baud_rate(
    served: list[Background], tmp_path: Path
) -> None:
    port = tmp_path / "line"
    profiles = ("--profile", "eastron-sdm120", "--profile", "eastron-sdm630")
    faster = ("--profile", "eastron-sdm120:9@19200", "--profile", "abb-b23")
    one = started(served, tmp_path, *profiles, *faster, "--serial", port, "--latency", "1ms")
    assert re.findall(r"name: (.*?), bus: line, unit: (\d+)", one.out) == [
        ("eastron-sdm120", "1"),
        ("eastron-sdm630", "2"),
        ("eastron-sdm120-2", "9"),
        ("abb-b23", "10"),
    ]
    assert 200 < line(port, 1).read_float(0, functioncode=4) < 260
    assert line(port, 10).read_registers(20_480, 4)[3] > 0
    with pytest.raises(minimalmodbus.NoResponseError):
        line(port, 9).read_float(0, functioncode=4)
    numbers = {line(port, unit).read_long(64_512, functioncode=3) for unit in (1, 2)}
    assert len(numbers) == 2


def test_all_profiles_are_served_over_a_serial_server(
    served: list[Background], tmp_path: Path, free_tcp_port: int
) -> None:
    where = f"127.0.0.1:{free_tcp_port}"
    one = started(served, tmp_path, "--profile", "all", "--framing", "rtu", "--tcp", where)
    assert "framing: rtu" in one.out
    with socket.create_connection(("127.0.0.1", free_tcp_port), PATIENCE) as client:
        for unit in range(1, len(Library().names()) + 1):
            client.sendall(frame(unit, 3, 0, 0, 0, 2))
            assert client.recv(5)[0] == unit
            client.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                client.recv(100)
            client.settimeout(PATIENCE)


def test_a_script_has_a_fault_a_line(
    served: list[Background], tmp_path: Path, free_tcp_port: int
) -> None:
    script = tmp_path / "faults.txt"
    script.write_text("# the display says otherwise\nhole=342..343\n\nswapped=4711 # another\n")
    where = f"127.0.0.1:{free_tcp_port}"
    profile = ("--profile", "eastron-sdm630", "--tcp", where)
    started(served, tmp_path, *profile, "--script", script)
    assert registers(free_tcp_port, 1, 0, 2) is not None
    assert registers(free_tcp_port, 1, 342, 2) is None
    client = ModbusClient("127.0.0.1", free_tcp_port, unit_id=1, auto_close=True, timeout=2)
    assert client.read_holding_registers(64_512, 2) == [0, 4711]


def test_a_mistake_in_a_script_has_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "faults.txt"
    script.write_text("silent\nsilly\n")
    assert run(["simulate", "--profile", "abb-b23", "--script", str(script)]) == 2
    assert f"{script}:2" in capsys.readouterr().err


def test_the_help_explains_every_kind_of_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--help"]) == 0
    shown = capsys.readouterr().out
    for kind, what in {**FAULTS, **CONDITIONS}.items():
        assert re.search(rf"^ +{kind} +{re.escape(what)}$", shown, re.MULTILINE), kind


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
        (["--profile", "abb-b23", "--serial", "x", "--framing", "tcp"], 2, "rtu or ascii"),
        (["--profile", "abb-b23", "--unit", "0"], 2, "1<=x<=247"),
        (["--profile", "abb-b23", "--fault", "sillent"], 2, "kinds: silent, late"),
        (["--profile", "abb-b23", "--fault", "silent:lift"], 1, "try: one of abb-b23"),
        (["--profile", "abb-b23", "--fault", "hole"], 2, "write hole=342..343"),
        (["--profile", "abb-b23", "--fault", "exception=0"], 2, "write exception=2"),
        (["--profile", "abb-b23", "--fault", "late=2"], 2, "write late=2s"),
        (["--profile", "abb-b23", "--fault", "busy=6"], 2, "busy takes no value"),
        (["--profile", "abb-b23", "--fault", "reset%10"], 2, "reset has no rate"),
        (["--profile", "abb-b23", "--fault", "swapped=A1"], 1, "the meter shows a number"),
        (["--profile", "abb-b23", "--latency", "16"], 2, "write 200ms or 2s"),
        (["--profile", "abb-b23", "--script", "none.txt"], 1, "none.txt: No such file"),
        (["--profile", "abb-b23:300"], 2, "units are 1 to 247"),
        (["--profile", "abb-b23@1234"], 2, "baud rates: 1200"),
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
