from __future__ import annotations

import json

from gateway.cli.main import run
from gateway.logbook import EVENTS
from gateway.metering.missing import REASONS


def test_every_event_is_explained(capsys) -> None:  # type: ignore[no-untyped-def]
    for event in EVENTS.values():
        assert run(["explain", event.name]) == 0
        shown = capsys.readouterr().out
        assert event.meaning in shown
        assert event.action in shown
        assert event.level in shown


def test_without_an_event_all_are_listed(capsys) -> None:  # type: ignore[no-untyped-def]
    assert run(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EVENTS)
    assert run(["explain", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [event["name"] for event in found] == list(EVENTS)
    assert set(found[0]) == {"name", "level", "fields", "meaning", "action"}


def test_an_event_copied_from_a_log_line_is_understood(capsys) -> None:  # type: ignore[no-untyped-def]
    assert run(["explain", "event=meter.offline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["level"] == "warning"


def test_every_reason_for_a_missing_value_is_explained(capsys) -> None:  # type: ignore[no-untyped-def]
    for reason in REASONS.values():
        assert run(["explain", reason.name]) == 0
        shown = capsys.readouterr().out
        assert reason.meaning in shown
        assert reason.action in shown
    assert run(["explain", "reason=exception_131", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "exception_131"


def test_an_unknown_event_suggests_the_nearest(capsys) -> None:  # type: ignore[no-untyped-def]
    assert run(["explain", "meter.ofline"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert 'did you mean "meter.offline"?' in shown.err
