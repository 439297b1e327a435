"""The log stays short, and one line an event whatever is in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway import logbook
from gateway.energinet.settings import Secret
from gateway.logbook import (
    EVENTS,
    JsonFormatter,
    LibraryFormatter,
    LogfmtFormatter,
    content,
    log,
    without_secrets,
)

HOUR = 3600


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def fields(self, event: str) -> list[Mapping[str, Any]]:
        return [r.fields for r in self.records if r.event == event]  # type: ignore[attr-defined]


@pytest.fixture
def written(expected_events: Callable[..., None]) -> Iterator[Lines]:
    expected_events(*EVENTS)
    lines = Lines()
    logbook.LOGGER.addHandler(lines)
    level = logbook.LOGGER.level
    logbook.LOGGER.setLevel(logging.DEBUG)
    yield lines
    logbook.LOGGER.setLevel(level)
    logbook.LOGGER.removeHandler(lines)


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = 1000.0
    monkeypatch.setattr(logbook, "monotonic", lambda: now)

    def pass_(hours: float) -> None:
        nonlocal now
        now += hours * HOUR

    return pass_


def test_a_meter_that_comes_and_goes_all_day_writes_a_dozen_lines_and_tells_what_it_left_out(
    written: Lines, hours: Callable[[float], None]
) -> None:
    for _ in range(24 * 60):
        log("meter.offline", meter="main", bus="riser", unit=1, reason="timeout")
        hours(1 / 60)
    shown = written.fields("meter.offline")
    assert len(shown) == 4 + 7
    assert "repeated" not in shown[0]
    assert sum(fields.get("repeated", 0) for fields in shown) + len(shown) > 21 * 60


def test_each_meter_and_each_event_has_lines_of_its_own(
    written: Lines, hours: Callable[[float], None]
) -> None:
    for _ in range(10):
        for meter in ("main", "lift"):
            log("meter.offline", meter=meter, bus="riser", unit=1, reason="timeout")
            log("meter.online", meter=meter, bus="riser", unit=1)
    for event in ("meter.offline", "meter.online"):
        shown = [fields["meter"] for fields in written.fields(event)]
        assert sorted(shown) == ["lift"] * 4 + ["main"] * 4


def test_what_rests_for_half_a_day_is_written_again_at_once(
    written: Lines, hours: Callable[[float], None]
) -> None:
    for _ in range(9):
        log("bus.down", bus="riser", error="gone")
    hours(13)
    for _ in range(9):
        log("bus.down", bus="riser", error="gone")
    shown = written.fields("bus.down")
    assert [fields.get("repeated", 0) for fields in shown] == [0, 0, 0, 0, 5, 0, 0, 0]


@pytest.mark.parametrize(
    "event", ["gateway.summary", "config.refused", "buffer.dropped", "modbus.request"]
)
def test_what_has_to_add_up_is_never_left_out(written: Lines, event: str) -> None:
    for _ in range(50):
        log(event)
    assert len(written.fields(event)) == 50


def test_every_level_line_and_field_is_what_the_event_says(written: Lines) -> None:
    log("meter.offline", meter='a "b"=\n', bus="riser", unit=1, reason="x" * 300)
    (record,) = written.records
    line = LogfmtFormatter(priorities=True).format(record)
    assert line.startswith('<4>level=warning event=meter.offline meter="a \\"b\\"=\\\\n" bus=riser')
    assert "\n" not in line
    assert len(line) < 400
    found = json.loads(JsonFormatter().format(record))
    assert (found["level"], found["event"], found["unit"]) == ("warning", "meter.offline", 1)
    assert len(found["reason"]) == 120
    with pytest.raises(ValueError, match="colour"):
        log("meter.offline", colour="red")
    with pytest.raises(KeyError):
        log("meter.lost")


# ---------------------------------------------------------------------------------------- secrets

TOKEN = "t0ken-of-the-basement"


@pytest.mark.parametrize("wrapped", [str, RuntimeError, lambda text: Path("/x") / text])
def test_a_secret_is_in_no_line_for_as_long_as_it_is_held(
    written: Lines, wrapped: Callable[[str], object]
) -> None:
    secret, longer = Secret(TOKEN), Secret(f"{TOKEN}-2")
    error = wrapped(f"illegal header: Bearer {TOKEN}, Bearer {TOKEN}-2")
    log("task.failed", task="uploader", error=error, where="sender basement")
    del secret, longer  # a line is kept in the buffer some seconds later
    [record] = written.records
    for line in (LogfmtFormatter().format(record), JsonFormatter().format(record)):
        assert "Bearer ***, Bearer ***" in line
        assert TOKEN not in line
    assert TOKEN not in repr(content(record))


def test_a_library_that_says_an_error_of_its_own_says_no_secret() -> None:
    secret = Secret(TOKEN)
    try:
        raise ValueError(f"Bearer {secret.reveal()}")
    except ValueError as error:
        info = type(error), error, error.__traceback__
    record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "%s was lost", (TOKEN,), info)
    text = LibraryFormatter().format(record)
    assert "*** was lost" in text
    assert "ValueError: Bearer ***" in text
    assert TOKEN not in text


def test_a_secret_is_known_no_longer_than_it_is_held() -> None:
    text = "t0ken-that-nobody-else-holds"
    secret, same = Secret(text), Secret(text)
    assert without_secrets(text) == "***"
    del secret
    assert without_secrets(text) == "***"
    del same
    assert without_secrets(text) == text


def test_a_word_so_short_that_any_line_may_have_it_is_no_secret() -> None:
    secret = Secret("basement")
    assert without_secrets("sender=basement") == "sender=basement"
    assert secret.reveal() == "basement"
