"""`demo` as a process: as it is, on a terminal, interrupted, with faults planted in the gateway."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from attrs import frozen

from tests.cli.world import ENTRY, PATIENCE, call, environment

PLANTED = {
    "a_value_is_a_little_too_high": "wrong",
    "a_reading_is_not_stored": "lost",
    "energinet_loses_one": "lost",
    "an_error_is_logged": "errors",
}
"""Fault to the list of the summary in which it has to stand."""


@frozen
class Done:
    code: int
    out: str
    err: str
    took: float


class Terminal:
    """A command on a terminal of 80 columns; what it writes is read as it comes."""

    def __init__(self, command: list[str]) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environment(), "TERM": "xterm"},
        )
        os.close(theirs)
        self._seen = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end was closed
            while data := os.read(self._ours, 65_536):
                self._seen += data

    def text(self) -> str:
        """All of it, once the process has ended."""
        self.process.wait(2 * PATIENCE)
        self._reader.join(PATIENCE)
        os.close(self._ours)
        return self._seen.decode(errors="replace")


@pytest.fixture(scope="module")
def shows() -> Iterator[dict[str, Done]]:
    """All demos at once: each of them waits most of the time."""
    planted = [sys.executable, str(Path(__file__).parent / "planted.py")]
    commands = {
        "alone": [*ENTRY, "demo", "--duration", "26s"],
        "interrupted": [*ENTRY, "demo", "--duration", "forever", "--json"],
        **{name: [*planted, name, "demo", "--duration", "16s", "--json"] for name in PLANTED},
    }
    with ExitStack() as stack:
        began = time.monotonic()
        started: dict[str, subprocess.Popen[str]] = {}
        for name, command in commands.items():
            started[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
            stack.callback(started[name].kill)
            time.sleep(0.5)
        terminal = Terminal([*ENTRY, "demo", "--duration", "9s"])
        stack.callback(terminal.process.kill)
        time.sleep(19)  # long enough for values to arrive, on a slow machine too
        started["interrupted"].send_signal(signal.SIGINT)
        done = {}
        for name in commands:
            out, err = started[name].communicate(timeout=2 * PATIENCE)
            done[name] = Done(started[name].returncode, out, err, time.monotonic() - began)
        done["on a terminal"] = Done(terminal.process.wait(PATIENCE), terminal.text(), "", 0)
        yield done


def test_it_ends_by_itself_with_a_summary_and_0(shows: dict[str, Done]) -> None:
    done = shows["alone"]
    assert done.code == 0, done.out + done.err
    assert re.search(r"^6 meters: \d+ values stored, \d+ confirmed by Energinet", done.out, re.M)
    assert "none was lost" in done.out
    assert 26 <= done.took < 26 + PATIENCE


def test_nothing_is_logged_that_a_person_would_have_to_act_on_but_the_planned_silence(
    shows: dict[str, Done],
) -> None:
    events = re.findall(r"^level=(\w+) event=(\S+) (.*)", shows["alone"].err, re.M)
    assert {event for _, event, _ in events} >= {"gateway.started", "bus.up", "gateway.stopped"}
    back = [rest.split()[0] for _, event, rest in events if event == "meter.online"]
    loud = [
        (event, rest)
        for level, event, rest in events
        # Another meter may miss a request where the machine stood still; then it is back at once.
        if level in ("warning", "error")
        and not (event == "meter.offline" and rest.split()[0] in ["meter=heat-pump", *back])
    ]
    assert [one for one in loud if one[0] != "bus.overloaded"] == []
    assert len(loud) <= 1  # nor does a round take long but once


def test_the_meter_that_fails_is_seen_to_fail_and_to_come_back(shows: dict[str, Done]) -> None:
    done = shows["alone"]
    assert "heat-pump is offline" in done.out
    assert re.search("event=meter.online meter=heat-pump", done.err)
    assert re.search(r"not there: heat-pump: .*\d timeout, made silent", done.out)


def test_within_15_s_a_person_sees_values_arrive(shows: dict[str, Done]) -> None:
    lines = [line for line in shows["alone"].out.splitlines() if "meters answer" in line]
    assert len(lines) >= 4  # a line every 5 s
    assert "6 of 6 meters answer" in lines[0]
    took = [int(re.findall(r"Energinet took (\d+) values?", line)[0]) for line in lines[:3]]
    assert took[2] > 0, lines
    assert all("next request" in line for line in lines)


def test_ctrl_c_ends_it_with_the_summary_and_for_scripts_that_is_all(
    shows: dict[str, Done],
) -> None:
    done = shows["interrupted"]
    assert (done.code, done.err) == (0, ""), done.out + done.err
    found = json.loads(done.out)
    assert (found["ok"], found["meters"]) == (True, 6)
    assert found["stored"] == found["confirmed"] > 0
    assert (found["pending"], found["lost"], found["wrong"], found["errors"]) == (0, [], [], [])


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_planted_in_the_gateway_makes_it_fail(shows: dict[str, Done], fault: str) -> None:
    done = shows[fault]
    assert done.code == 1, done.out + done.err
    found = json.loads(done.out)
    assert not found["ok"]
    assert found[PLANTED[fault]], found


def test_on_a_terminal_there_is_a_live_page(shows: dict[str, Done]) -> None:
    done = shows["on a terminal"]
    assert done.code == 0, done.out
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.out)
    for word in ("main-supply", "carlo-gavazzi-em24-e1", "online", "next request", "ends in 3 s"):
        assert word in text, text
    assert "none was lost" in text


def test_a_folder_is_kept_if_it_is_empty(tmp_path: Path) -> None:
    (tmp_path / "readings.db").write_text("of another demo")
    done = call("demo", "--keep", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is something in it" in done.stderr
    assert "try: an empty folder" in done.stderr


@pytest.mark.parametrize("word", ["0s", "30", "soon", "-5s", "9999999s"])
def test_a_duration_that_is_none_is_refused(word: str) -> None:
    done = call("demo", "--duration", word)
    assert done.returncode == 2
    assert "write 30s, 5min or forever" in done.stderr
