"""`import`: a CSV file, every mistake with its line, and nothing twice however often it is done."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from attrs import frozen

from gateway.cli.main import run
from gateway.clock import DAY, HOUR
from gateway.energinet.standin import StandIn
from tests.cli.world import ENTRY, TOKEN, energinet, environment, site

METERS = [
    "{name: main, bus: plant, unit: 1, profile: abb-b23, send: ["
    '{meterID: "111", quantity: active_energy_import_total},'
    '{meterID: "222", quantity: active_power_total, as: mean},'
    '{meterID: "333", quantity: active_energy_import_total, as: consumption}]}',
]
OSLO = ZoneInfo("Europe/Oslo")
YEAR = time.gmtime().tm_year - 1
START = int(time.time() * 1000) // HOUR * HOUR - 2_600 * HOUR


def shown(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at / 1000))


def lines(count: int, *, first: int = 0, of: str = "111") -> list[str]:
    return [f"{of},{shown(START + n * HOUR)},{n}.5" for n in range(first, first + count)]


@frozen
class Place:
    config: Path
    standin: StandIn
    capsys: pytest.CaptureFixture[str]

    def file(self, *rows: str, head: str = "meterID,time,value") -> str:
        path = self.config.parent / "values.csv"
        path.write_text("\n".join([head, *rows]) + "\n")
        return str(path)

    def call(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        self.capsys.readouterr()
        found = run([*arguments, "--config", str(self.config)])
        out, err = self.capsys.readouterr()
        assert found == code, out + err
        return out, err

    def take(self, file: str, *more: str, code: int = 0) -> dict[str, Any]:
        out, _ = self.call("import", file, "--yes", "--json", *more, code=code)
        found: dict[str, Any] = json.loads(out)
        return found

    def stored(self) -> list[str]:
        return self.call("export")[0].splitlines()[1:]


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Place]:
    standin = StandIn({TOKEN: "basement"}, window=2.0)
    with energinet(standin) as url:
        yield Place(site(tmp_path, url, METERS, interval="2 s"), standin, capsys)


def test_values_are_shown_stored_once_and_sent(place: Place) -> None:
    file = place.file(*lines(2_500), *lines(3, of="222"))
    out, err = place.call("import", file)
    assert out.startswith(
        f"2503 new values, {shown(START)} to {shown(START + 2_499 * HOUR)}; 1 req"
    )
    assert err == "nothing is stored without --yes\n"
    assert place.stored() == []
    assert place.take(file)["stored"] == 2_503
    assert len(place.stored()) == 2_503
    again = place.take(file)
    assert (again["new"], again["known"], again["stored"]) == (0, 2_503, 0)
    assert len(place.stored()) == 2_503
    more = place.take(place.file(*lines(20, first=2_490)))
    assert (more["known"], more["stored"]) == (10, 10)
    while run(["send", "--now", "--config", str(place.config)]) == 75:
        time.sleep(0.2)
    names = {datetime.fromtimestamp((START + n * HOUR) / 1000, OSLO) for n in range(2_510)}
    assert len(place.standin.received["111"]) == len({f"{at:%FT%R}" for at in names})
    assert list(place.standin.received["222"].values()) == [Decimal(n) / 2 for n in (1, 3, 5)]


def test_what_export_writes_is_taken_but_not_what_was_sent(place: Place) -> None:
    states = ("pending", "confirmed", "parked:404", "dropped", "in_flight")
    rows = [f"{row},{state}" for row, state in zip(lines(5), states, strict=True)]
    file = place.file(*rows, head="meterID,time,value,state")
    assert place.take(file)["left_out"] == {"confirmed": 1, "dropped": 1}
    assert [row.split(",")[2] for row in place.stored()] == ["0.5", "2.5", "4.5"]
    assert place.take(file, "--all")["stored"] == 2
    copy = place.config.parent / "copy.csv"
    copy.write_text(place.call("export")[0])
    assert place.take(str(copy))["new"] == 0


def test_a_value_that_is_stored_stays(place: Place) -> None:
    place.take(place.file(*lines(3)))
    other = place.file(lines(1)[0].replace("0.5", "7"), *lines(2, first=2))
    found = place.take(other)
    assert (found["otherwise"], found["known"], found["stored"]) == (1, 1, 1)
    assert [row.split(",")[2] for row in place.stored()] == ["0.5", "1.5", "2.5", "3.5"]


OLD = shown(START - 6 * 366 * DAY)
MISTAKES = {
    f"112,{shown(START)},1": ('the configuration has no meterID "112"', "did you mean 111?"),
    "111,yesterday,1": ('"yesterday" is no time', "write 2026-01-31T12:00:00Z"),
    f"111,{OLD},1": (f"{OLD} is older than five years", ""),
    "111,2199-01-01T00:00:00Z,1": ("is in the future", ""),
    "111,2025-10-26T02:30,1": ("is shown twice by the site's clock", "write it with its offset"),
    "111,2025-03-30T02:30,1": ("the site's clock never shows 2025-03-30T02:30", ""),
    f"111,{shown(START)[:-1]}.5Z,1": ("is no whole second", ""),
    f"111,{shown(START + 1_043_000)},1": ("is no boundary of its interval: 1 h", "the next one is"),
    f"111,{shown(START)},1,5": ("4 columns, not 3", "a decimal point is a point"),
    f'111,{shown(START)},"1,5"': ('"1,5" is no number that can be sent', "write 12345.6"),
    f"111,{shown(START)},nan": ('"nan" is no number', ""),
    f"111,{shown(START)},1e999": ('"1e999" is no number', ""),
    f"111,{shown(START)},1e22": ('"1e22" is no number', ""),
    f"111,{shown(START)},-1": ("-1 is below zero: a counter never is", ""),
    f"111,{shown(START)},{'9' * 31}": ("is no number that can be sent", ""),
    f'111,{shown(START)},"1': ("this is no CSV", ""),
}


def test_every_mistake_is_told_with_its_line_and_nothing_is_stored(place: Place) -> None:
    file = place.file(lines(1)[0], *MISTAKES, "", lines(1)[0], lines(1)[0].replace("0.5", "9"))
    out, err = place.call("import", file, "--yes", code=1)
    assert out == ""
    for nth, (row, (message, hint)) in enumerate(MISTAKES.items(), start=3):
        assert f"{file}:{nth}:" in err
        assert message in err, row
        assert hint in err
    last = 2 + len(MISTAKES) + 3
    assert f"{file}:{last}:26: error: line 2 has another value" in err
    assert f"{len(MISTAKES) + 1} mistakes in the file: nothing is stored" in err
    assert place.stored() == []
    found = place.take(file, "--skip", code=3)
    assert (found["stored"], found["mistakes"]) == (1, len(MISTAKES) + 1)
    assert len(place.stored()) == 1


def test_what_a_counter_cannot_have_done_is_named_and_not_stored(place: Place) -> None:
    """Held against the values before and after it, in the file and in the buffer."""
    place.take(place.file(*[f"111,{shown(START + n * HOUR)},{500 + n}" for n in (0, 9)]))
    rows = {
        1: "501", 2: "3", 3: "503", 4: "503.5", 5: "99999999999", 6: "505", 8: "510",
    }  # fmt: skip
    late = [f"111,{shown(START + n * HOUR)},{value}" for n, value in reversed(rows.items())]
    much = f"333,{shown(START)},1e19"
    file = place.file(*late, much, f"333,{shown(START + HOUR)},99")
    _, err = place.call("import", file, "--yes", code=1)
    assert f"{file}:7:1: error: meterID 111: the counter fell, from 501 of" in err
    assert f"to 3 of {shown(START + 2 * HOUR)} (line 7)" in err
    assert (
        f"{file}:4:1: error: meterID 111: the counter cannot have moved so far, from 503.5" in err
    )
    assert f"to 99999999999 of {shown(START + 5 * HOUR)} (line 4)" in err
    assert f"{file}:2:1: error: meterID 111: the counter fell, from 510" in err
    assert f"to 509 of {shown(START + 9 * HOUR)} (in the buffer)" in err
    assert f"{file}:9:1: error: meterID 333: the meter cannot have counted 1{'0' * 19} of" in err
    assert err.count(": error: ") == 4
    assert len(place.stored()) == 2
    found = place.take(file, "--skip", code=3)
    assert (found["mistakes"], found["stored"]) == (4, 5)
    found = place.take(file, "--accept-doubtful")
    assert (found["mistakes"], found["known"], found["stored"]) == (0, 5, 4)


def test_of_a_meter_that_was_replaced_the_first_two_values_are_in_doubt(place: Place) -> None:
    values = ["500", "501", "3", "4", "5", "6", "7"]
    rows = [f"111,{shown(START + n * HOUR)},{value}" for n, value in enumerate(values)]
    found = place.take(place.file(*rows), "--skip", code=3)
    assert [one["line"] for one in found["first_mistakes"]] == [4, 5]
    assert found["stored"] == 5
    assert place.take(place.file(*rows), "--accept-doubtful")["stored"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a;b;c\n", "the first line has to name the columns"),
        ("111,2026-01-01T00:00Z,1\n", "the first line has to name the columns"),
        ("\x00\xff", "no text in UTF-8"),
    ],
)
def test_a_file_of_another_kind_is_refused(place: Place, text: str, said: str) -> None:
    path = place.config.parent / "values.csv"
    path.write_bytes(text.encode("latin-1"))
    _, err = place.call("import", str(path), "--yes", code=1)
    assert said in err
    _, err = place.call("import", str(path) + "x", "--yes", code=1)
    assert "No such file" in err
    assert "  try: " in err


def test_local_times_and_a_mark_at_the_beginning_are_understood(place: Place) -> None:
    path = place.config.parent / "values.csv"
    path.write_text(f"\ufeffmeterID,time,value\r\n111,{YEAR}-01-01T01:00,1e3\r\n", newline="")
    assert place.take(str(path))["stored"] == 1
    assert place.stored() == [f"111,{YEAR}-01-01T00:00:00Z,1000,pending"]


def test_on_a_terminal_progress_is_shown(place: Place) -> None:
    file = place.file(*lines(1_500))
    terminal, end = pty.openpty()
    command = [*ENTRY, "import", file, "--yes", "--config", str(place.config)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=end, env=environment()
    ) as done:
        os.close(end)
        seen = b""
        with contextlib.suppress(OSError):  # it has ended
            while piece := os.read(terminal, 10_000):
                seen += piece
        os.close(terminal)
        assert done.stdout is not None
        assert b"1500 values stored" in done.stdout.read()
    assert done.returncode == 0, seen
    assert b"reading" in seen
    assert b"storing" in seen
    assert b"100%" in seen
