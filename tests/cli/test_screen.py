"""The demo's page, drawn at the widths of real terminals."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gateway.cli.screen import plain_lines, screen
from gateway.cli.stage import ACTORS, Line, Stage
from gateway.energinet.standin import Accepted, StandIn

LOG = ["level=info event=bus.up bus=riser link=/dev/pts/1 " + "x" * 200]


def view(state: str = "online") -> dict[str, Any]:
    return {
        "service": {"now": "2026-11-25T04:42:58Z"},
        "buffer": {"stored": 123_456, "pending": 10, "in_flight": 3, "confirmed": 123_443},
        "meters": [
            {
                "name": actor.name,
                "profile": actor.profile,
                "bus": actor.bus,
                "state": state,
                "reason": "timeout",
                "turnaround_ms": 14.2,
                "values": [{"value": "82343.266", "unit": "kWh"}],
            }
            for actor in ACTORS
        ],
        "senders": [{"next_request": "2026-11-25T04:43:01Z", "last": "answered"}],
    }


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = Stage(tmp_path)
    made.standin = StandIn({})
    made.lines["7000000001"] = Line("7000000001", "lift", "active_energy_import_total", "counter")
    return made


def drawn(stage: Stage, width: int, state: str = "online") -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False)
    console.print(screen(view(state), stage, LOG, 23, width))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("state", ["online", "offline"])
def test_everything_of_a_meter_fits(stage: Stage, width: int, state: str) -> None:
    lines = drawn(stage, width, state)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 23
    for actor in ACTORS:
        row = next(line for line in lines if line.startswith(actor.name))
        for word in (state, "82343.266 kWh", "14 ms", *((actor.profile,) if width > 60 else ())):
            assert word in row


def test_the_way_of_the_values_is_told(stage: Stage) -> None:
    page = "\n".join(drawn(stage, 100))
    assert "ends in 23 s" in page
    assert "stored 123456 = 10 pending + 3 in flight + 123443 confirmed" in page
    assert "next request 04:43:01Z" in page
    assert "took 0 values in 0 requests, no limit broken" in page
    stage.standin.accepted.append(
        Accepted(0, "demo", "7000000001", "2026-11-25T05:42:55", 123)  # type: ignore[arg-type]
    )
    stage.standin.violations.append("429")
    page = "\n".join(drawn(stage, 100))
    assert "took 1 value in 0 requests, 1 limit broken" in page
    assert "last lift 05:42:55 123" in page


def test_without_a_terminal_there_are_lines_that_name_who_is_offline(stage: Stage) -> None:
    lines = list(plain_lines(view("offline"), stage.standin))
    assert "0 of 6 meters answer" in lines[0]
    assert lines[1].strip() == "main-supply is offline: timeout"
    assert len(lines) == 7
