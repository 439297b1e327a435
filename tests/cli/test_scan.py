"""`scan` over a real pty with simulated meters at wire speed, and over TCP."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import serial
from attrs import evolve

from gateway.cli.main import run
from gateway.config import Library, load
from gateway.metering.inquiry import Inquiry
from gateway.metering.profile import Identity
from gateway.modbus.faults import Fault
from gateway.modbus.served import SimulatedEndpoint, SimulatedLine, wall
from gateway.modbus.settings import SerialLink
from gateway.modbus.simulator import SimulatedMeter
from tests.cli import world
from tests.cli.world import ENTRY, PATIENCE, Background, Loop, call

SIX = (
    ("eastron-sdm630", 1, 9600),
    ("abb-b23", 2, 9600),
    ("carlo-gavazzi-em340", 16, 9600),
    ("abb-b21", 1, 19200),
    ("schneider-iem3155", 5, 19200),
    ("eastron-sdm120", 12, 19200),
)
"""Six meters of four makers at two baud rates, two of them with one unit."""


def meter(name: str, unit: int, baudrate: int | None = None, *faults: Fault) -> SimulatedMeter:
    return SimulatedMeter(
        Library(None).get(name), unit, wall(), serial_number=f"{unit}00{baudrate or ''}",
        baudrate=baudrate, faults=faults,
    )  # fmt: skip


@contextmanager
def line(*meters: SimulatedMeter) -> Iterator[str]:
    """The path of a line with these meters; nothing but reads may go over it."""
    served = SimulatedLine(meters, SerialLink("", 9600))
    try:
        yield served.open()
    finally:
        served.close()


def completed(folder: Path, pasted: str) -> Path:
    """A configuration with what was printed, and what only its owner knows."""
    ids = iter(range(100, 200))
    pasted = re.sub(r'meterID: ""', lambda _: f'meterID: "{next(ids)}"', pasted)
    (folder / "basement.token").write_text("abc\n")
    (folder / "basement.token").chmod(0o600)
    path = folder / "gateway.yaml"
    path.write_text(
        "timezone: Europe/Oslo\n"
        "energinet: {senders: [{name: basement, token: {file: basement.token}}]}\n"
        f"defaults: {{every: 1 h, as: counter}}\n{pasted}"
    )
    return path


def test_six_meters_of_four_makers_at_two_baud_rates_are_found_with_profile_and_settings(
    tmp_path: Path,
) -> None:
    with line(*(meter(*one) for one in SIX)) as port:
        rates = ("--baudrate", "9600,19200,2400")
        done = call("scan", port, "--units", "1..16", *rates, "--json", timeout=170)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert {(f["profile"], f["unit"], f["baudrate"]) for f in found["found"]} == set(SIX)
        assert {(f["parity"], f["stopbits"]) for f in found["found"]} == {("none", 1)}
        numbers = {f["profile"]: f["serial_number"] for f in found["found"]}
        assert numbers == {name: f"{unit}00{rate}" for name, unit, rate in SIX}
        named = {f["profile"] for f in found["found"] if f["certain"]}
        assert named == {name for name, _, _ in SIX} - {"eastron-sdm630", "eastron-sdm120"}
        states = {(s["baudrate"], s["parity"]): s["state"] for s in found["settings"]}
        assert {p: states[9600, p] for p in ("none", "even", "odd")} == {
            "none": "asked", "even": "refused", "odd": "refused",
        }  # fmt: skip
        assert found["complete"]
        said = done.stderr.splitlines()
        assert said[0].startswith(f"{port}: 9 settings, 16 units: about ")
        assert "at most" in said[0]
        assert any("to go" in one for one in said)
        assert "9600 8E1: passed over: it does not take these settings" in said


def test_what_is_printed_is_a_configuration_once_its_meter_ids_are_written(tmp_path: Path) -> None:
    meters = (meter("eastron-sdm630", 1), meter("abb-b23", 2), meter("abb-b21", 2, 19200))
    with line(*meters) as port:
        rates = ("--baudrate", "9600,19200", "--parity", "none")
        done = call("scan", port, "--units", "1,2", *rates)
        assert done.returncode == 0, done.stderr
        config = load(completed(tmp_path, done.stdout)).config
    (bus,) = config.buses
    assert bus.link == SerialLink(port, 9600, "none")
    found = {m.name: (m.unit, m.profile.name, m.serial_number) for m in config.meters}
    assert found == {
        "eastron-sdm630-1": (1, "eastron-sdm630", "100"),
        "abb-b23-2": (2, "abb-b23", "200"),
    }
    assert "# unit 2 at 19200 8N1. A line has one setting: set this meter to 9600 8N1 first," in (
        done.stdout
    )
    assert "compare with its label" in done.stdout
    assert "it says model_name B23" in done.stdout
    (tmp_path / "as-it-is").mkdir()
    left = completed(tmp_path / "as-it-is", "")
    left.write_text(left.read_text() + done.stdout)
    assert call("check", "--config", left).returncode == 78  # nobody overlooks the meterIDs


def test_a_bus_of_the_configuration_is_scanned_by_its_name_with_the_profiles_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = Loop()
    served = SimulatedEndpoint([meter("inepro-pro380", 4)])
    port = loop.do(served.open())
    buses = [f'plant: {{tcp: "127.0.0.1:{port}"}}']
    config = world.site(tmp_path, "http://127.0.0.1:1/api", [], buses=buses)
    (tmp_path / "own").mkdir()
    own = (Library(None)._find("inepro-pro380")).read_text()  # type: ignore[union-attr]
    (tmp_path / "own" / "klefr-693x.yaml").write_text(own.replace("Inepro", "Klefr"))
    text = config.read_text().replace("meters:\n", "meters: []\nprofiles: own\n")
    config.write_text(text)
    try:
        arguments = ["--units", "3..4", "--wait", "300ms", "--config", str(config)]
        assert run(["scan", "plant", *arguments]) == 0
    finally:
        loop.do(served.close())
        loop.close()
    shown = capsys.readouterr()
    assert f'plant: {{tcp: "127.0.0.1:{port}"}}' in shown.out
    assert "klefr-693x as well, but it does not name its model" in shown.out


def test_a_unit_that_no_profile_has_is_shown_with_what_it_gave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = meter("eastron-sdm630", 3, None, Fault("hole", registers=(342, 343)))
    with line(strange) as port:
        arguments = ["--units", "3", "--baudrate", "9600", "--parity", "none"]
        assert run(["scan", port, *arguments]) == 0
    shown = capsys.readouterr()
    assert re.search("^# unit 3 at 9600 8N1 is unknown: .*f4@0[+]2 = 43[0-9a-f]{2} ", shown.out)
    assert "unit 3 at 9600 8N1: unknown: " in shown.err


def test_a_unit_that_no_profile_has_is_shown_with_what_it_says_of_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    identity = (Identity("model_name", Inquiry(43, 1), ("SDM630 X",)),)
    profile = evolve(Library(None).get("eastron-sdm630"), identity=identity)
    hole = Fault("hole", registers=(342, 343))
    strange = SimulatedMeter(profile, 3, wall(), faults=(hole,))
    blank = SimulatedMeter(profile, 4, wall(), faults=(Fault("hole"),))
    says = "it says vendor Eastron, product code SDM630 X, revision 1.0; "
    with line(strange, blank) as port:
        arguments = ["--units", "3,4", "--baudrate", "9600", "--parity", "none"]
        assert run(["scan", port, *arguments]) == 0
        shown = capsys.readouterr()
        assert f"unit 3 at 9600 8N1: unknown: {says}f" in shown.err
        assert f"# unit 3 at 9600 8N1 is unknown: {says}f" in shown.out
        assert f"# unit 4 at 9600 8N1 is unknown: {says}answers, and gives nothing" in shown.out
        assert run(["scan", port, *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["found"]
    told = {"vendor": "Eastron", "product_code": "SDM630 X", "revision": "1.0"}
    assert [(one["unit"], one["profile"], one["told"]) for one in found] == [
        (3, None, told),
        (4, None, told),
    ]


def test_units_for_which_a_gateway_gives_nothing_but_exceptions_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    loop = Loop()
    nobody = [meter("abb-b23", unit, None, Fault("exception", code=4)) for unit in (1, 3, 4, 5)]
    served = SimulatedEndpoint(nobody)
    where = f"127.0.0.1:{loop.do(served.open())}"
    try:
        assert run(["scan", where, "--units", "1,3..5", "--wait", "10s"]) == 0
    finally:
        loop.do(served.close())
        loop.close()
    told = "# units 1, 3..5: answers, and gives nothing but exception_4\n"
    assert capsys.readouterr().out == told


def test_what_answers_in_another_framing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    loop = Loop()
    served = SimulatedEndpoint([meter("abb-b23", 1)], framing="rtu")
    where = f"127.0.0.1:{loop.do(served.open())}"
    try:
        assert run(["scan", where, "--units", "1", "--framing", "rtu", "--wait", "10s"]) == 0
    finally:
        loop.do(served.close())
        loop.close()
    assert f'network: {{tcp: "{where}", framing: rtu}}' in capsys.readouterr().out


def test_where_nobody_answers_it_says_what_to_look_at(capsys: pytest.CaptureFixture[str]) -> None:
    with line() as port:
        arguments = ["--units", "1..2", "--baudrate", "9600", "--wait", "50ms"]
        assert run(["scan", port, *arguments]) == 69
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"error: nobody answers on {port}\n  try: check power and wires" in shown.err


def test_a_line_that_another_process_holds_is_left_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with line(meter("abb-b23", 1)) as port, serial.Serial(port, 9600, exclusive=True):
        assert run(["scan", port, "--units", "1"]) == 75
    shown = capsys.readouterr()
    assert f"error: {port} is held by another program, and a line has one master" in shown.err
    assert "try: `systemctl stop meter-gateway`, scan, and start it again" in shown.err


def test_ctrl_c_ends_it_and_keeps_what_was_found(tmp_path: Path) -> None:
    with line(meter("abb-b23", 1)) as port:
        one = Background(tmp_path, "scan", port, "--wait", "1s")
        try:
            one.wait_for(lambda: "unit 1 at 9600 8N1: abb-b23" in one.err)
            time.sleep(0.2)
            assert one.end(signal.SIGINT) == 3
        finally:
            one.kill()
    assert "profile: abb-b23" in one.out
    assert "Traceback" not in one.err


def test_an_adapter_that_is_pulled_ends_it_and_what_was_found_is_kept(tmp_path: Path) -> None:
    served = SimulatedLine([meter("abb-b23", 1)], SerialLink("", 9600))
    port = served.open()
    holder = os.open(port, os.O_RDWR | os.O_NOCTTY)  # no other test's line gets its number
    one = Background(tmp_path, "scan", port, "--wait", "1s")
    try:
        one.wait_for(lambda: "unit 1 at 9600 8N1: abb-b23" in one.err)
        served.close()
        assert one.process.wait(PATIENCE) == 69
    finally:
        one.kill()
        os.close(holder)
    assert "profile: abb-b23" in one.out
    assert f"error: {port}: " in one.err
    assert "  try: " in one.err


def test_on_a_terminal_the_time_to_go_stands_in_one_line_that_moves() -> None:
    ours, theirs = os.openpty()
    with line() as port:
        rest = ("--units", "1..3", "--baudrate", "9600", "--parity", "none")
        with subprocess.Popen(
            [*ENTRY, "scan", port, *rest], stdout=subprocess.PIPE, stderr=theirs, text=True
        ) as process:
            os.close(theirs)
            said = b""
            with contextlib.suppress(OSError):  # the other end was closed
                while some := os.read(ours, 1024):
                    said += some
            assert process.stdout is not None
            assert process.stdout.read() == ""
        os.close(ours)
    assert said.count(b"\r\x1b[K9600 8N1 unit ") == 2
    assert b"\r\x1b[Kerror: nobody" not in said
    assert said.rstrip().endswith(b"--wait")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["/dev/none"], 69, "/dev/none: there is no such port"),
        (["127.0.0.1:1", "--units", "1"], 69, "127.0.0.1:1: "),
        (["127.0.0.1:99999"], 2, "write 192.168.10.20:502"),
        (["127.0.0.1:502", "--baudrate", "9600"], 2, "for serial lines"),
        (["/dev/none", "--units", "0"], 2, "each 1 to 247"),
        (["/dev/none", "--units", "5..3"], 2, "write 1..20 or 1,2,126"),
        (["/dev/none", "--baudrate", "fast"], 2, "write 9600,19200"),
        (["/dev/none", "--parity", "8N1"], 2, "write none,even,odd"),
        (["/dev/none", "--wait", "200"], 2, "write 200ms or 2s"),
        (["/dev/none", "--framing", "tcp"], 2, "is for HOST:PORT"),
        (["riser", "--framing", "rtu"], 2, "the configuration says that"),
        (["riser", "--config", "none.yaml"], 78, "does not exist"),
    ],
)
def test_a_mistake_is_explained(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["scan", *arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert "  try: " in shown.err


def test_a_bus_that_there_is_not_names_those_there_are(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["scan", "rizer", "--config", str(site)]) == 1
    assert "try: one of riser, a port such as /dev/ttyUSB0, or HOST:PORT" in capsys.readouterr().err


def test_no_text_of_a_meter_writes_a_line_of_its_own_or_moves_the_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "1\x1b[2J\nx: \x9b3"
    bad = evolve(meter("carlo-gavazzi-em340", 4), serial_number=hostile)
    loop = Loop()
    served = SimulatedEndpoint([bad])
    port = loop.do(served.open())
    try:
        assert run(["scan", f"127.0.0.1:{port}", "--units", "4..4", "--wait", "1s"]) == 0
    finally:
        loop.do(served.close())
        loop.close()
    shown = capsys.readouterr()
    assert "1 [2J x:" in shown.out
    for text in (shown.out, shown.err):
        assert not [c for c in text if not c.isprintable() and c not in "\n\r"]
        assert not [line for line in text.splitlines() if line.startswith("x:")]
