"""Lines of a CSV file → readings, each with the checks that a reading has. Pure."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Final
from zoneinfo import ZoneInfo

from attrs import frozen

from gateway.clock import Instant, utc
from gateway.config.measures import show_duration
from gateway.energinet.limits import oldest_allowed
from gateway.errors import Mistake
from gateway.metering.interval import is_boundary, next_boundary
from gateway.metering.reading import SeriesKey
from gateway.metering.settings import SendSettings

COLUMNS: Final = ("meterID", "time", "value")
WITH_STATE: Final = (*COLUMNS, "state")

SENT: Final = frozenset({"confirmed", "dropped"})
"""States of an export that need not be sent."""

MOST_DIGITS: Final = 30
FURTHEST: Final = 20
"""Places of the first digit before or behind the point."""

_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)


@frozen
class Row:
    """One value of the file."""

    line: int
    key: SeriesKey
    stamp: Instant
    value: Decimal


@frozen
class LeftOut:
    """A line that the export says was sent, or dropped."""

    state: str


class Reader:
    """Reads the lines of one file. `now`: for what is too old to be sent, or not yet."""

    def __init__(
        self, file: str, sends: Sequence[SendSettings], zone: ZoneInfo, now: Instant, *, all_: bool
    ) -> None:
        """`all_`: what was sent is taken too."""
        self._file = file
        self._sends: dict[str, list[SendSettings]] = {}
        for send in sends:
            self._sends.setdefault(send.key.meter_id, []).append(send)
        self._zone = zone
        self._now = now
        self._oldest = oldest_allowed(now)
        self._all = all_
        self._columns: Sequence[str] = ()
        self._line = 0
        self._source = ""
        self.rows: dict[tuple[SeriesKey, Instant], Row] = {}
        """What was read, by series and stamp."""

    def take(self, text: str) -> Iterator[LeftOut | Mistake]:
        """The next line. A value goes to `rows`; else it is one of the two, none for an empty line
        or the header."""
        self._line += 1
        self._source = text.rstrip("\r\n")
        if self._line == 1:
            self._source = self._source.removeprefix("\ufeff")
        if not self._source.strip():
            return
        try:
            fields = next(csv.reader([self._source], strict=True))
        except csv.Error as error:
            yield self._mistake(0, f"this is no CSV: {error}")
            return
        if not self._columns:
            yield from self._header(fields)
        elif len(fields) != len(self._columns):
            message = f"{len(fields)} columns, not {len(self._columns)}"
            yield self._mistake(
                0, message, "a decimal point is a point, columns are set apart by ,"
            )
        else:
            yield from self._row(dict(zip(self._columns, map(str.strip, fields), strict=True)))

    def _header(self, fields: Sequence[str]) -> Iterator[Mistake]:
        columns = tuple(field.strip() for field in fields)
        self._columns = columns if columns in (COLUMNS, WITH_STATE) else COLUMNS
        if columns not in (COLUMNS, WITH_STATE):
            message = "the first line has to name the columns"
            yield self._mistake(0, message, f"{','.join(COLUMNS)} or {','.join(WITH_STATE)}")

    def _row(self, fields: Mapping[str, str]) -> Iterator[LeftOut | Mistake]:
        state = fields.get("state", "")
        if state in SENT and not self._all:
            yield LeftOut(state)
            return
        send, mistake = self._send(fields["meterID"])
        stamp: Instant | None = None
        value: Decimal | None = None
        if not mistake:
            stamp, mistake = self._stamp(fields["time"])
        if not mistake and send is not None and stamp is not None:
            mistake = self._off(stamp, fields["time"], send)
        if not mistake and send is not None:
            value, mistake = self._value(fields["value"], send)
        if mistake or send is None or stamp is None or value is None:
            assert mistake
            yield mistake
            return
        row = Row(self._line, send.key, stamp, value)
        before = self.rows.setdefault((row.key, stamp), row)
        if before.value != value:
            message = f"line {before.line} has another value for this meterID and time"
            yield self._mistake(2, message)

    def _send(self, text: str) -> tuple[SendSettings | None, Mistake | None]:
        found = self._sends.get(text, [])
        if len(found) == 1:
            return found[0], None
        if found:
            imports = " and ".join(send.key.import_name for send in found)
            return None, self._mistake(0, f"meterID {text} is in the imports {imports}", "--import")
        near = get_close_matches(text, self._sends, n=1)
        hint = f"did you mean {near[0]}?" if near else ""
        return None, self._mistake(0, f'the configuration has no meterID "{text}"', hint)

    def _stamp(self, text: str) -> tuple[Instant | None, Mistake | None]:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            message = f'"{text}" is no time'
            return None, self._mistake(1, message, "write 2026-01-31T12:00:00Z")
        if at.tzinfo is None:
            at = at.replace(tzinfo=self._zone)
            if at.utcoffset() != at.replace(fold=1).utcoffset():
                there = at.astimezone(UTC).astimezone(self._zone).replace(tzinfo=None)
                twice = there == at.replace(tzinfo=None)
                message = f"{text} is shown twice by the site's clock" if twice else (
                    f"the site's clock never shows {text}"
                )  # fmt: skip
                return None, self._mistake(1, message, "write it with its offset, or in UTC")
        if at.microsecond:
            return None, self._mistake(1, f"{text} is no whole second")
        stamp = int(at.timestamp()) * 1000
        if stamp < self._oldest:
            return None, self._mistake(1, f"{text} is older than five years: it cannot be sent")
        if stamp > self._now:
            return None, self._mistake(1, f"{text} is in the future")
        return stamp, None

    def _off(self, stamp: Instant, text: str, send: SendSettings) -> Mistake | None:
        if is_boundary(stamp, send.every, self._zone):
            return None
        nearest = utc(next_boundary(stamp - 1, send.every, self._zone))
        message = f"{text} is no boundary of its interval: {show_duration(send.every)}"
        return self._mistake(1, message, f"the next one is {nearest}")

    def _value(self, text: str, send: SendSettings) -> tuple[Decimal | None, Mistake | None]:
        value = Decimal(text) if _NUMBER.fullmatch(text) else None
        if value is None or len(text) > MOST_DIGITS or abs(value.adjusted()) > FURTHEST:
            hint = "write 12345.6, without spaces"
            return None, self._mistake(2, f'"{text}" is no number that can be sent', hint)
        if value < 0 and send.as_ in ("counter", "consumption"):
            return None, self._mistake(2, f"{text} is below zero: a {send.as_} never is")
        return value, None

    def _mistake(self, column: int, message: str, suggestion: str = "") -> Mistake:
        """`column`: which of the fields."""
        at = 0
        for _ in range(column):
            at = self._source.find(",", at) + 1
        end = self._source.find(",", at)
        width = (len(self._source) if end < 0 or not self._columns else end) - at
        return Mistake(
            self._file, self._line, at + 1, message, self._source, max(1, width), suggestion
        )


def known(sends: Sequence[SendSettings], import_name: str | None) -> Collection[SendSettings]:
    """Those of one import, or all."""
    return [send for send in sends if import_name in (None, send.key.import_name)]
