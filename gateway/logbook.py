"""Every event the gateway logs: its name, level, fields, what it means and what to do.

Error: data is or will be lost. Warning: someone should act. Info: a state changed, or the hourly
summary. Debug: each request. State changes are logged, repetitions are counted. Text that came
from outside is escaped and cut, so that no meter or server can write a line of its own.

Whatever goes to and fro, the log stays short: of one event about one meter, bus or sender a few
lines are written at once and then one in some hours, which tells how many were left out.

No line has the text of a secret that this process holds, whatever error brought it here.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Final, Literal, Protocol, TypeAlias
from weakref import WeakValueDictionary

from attrs import define, frozen

from gateway.clock import Instant

Level: TypeAlias = Literal["error", "warning", "info", "debug"]

LOGGER: Final = logging.getLogger("gateway")

MAX_TEXT: Final = 120
"""Characters of a field's text that are shown."""

AT_ONCE: Final = 4
"""Lines of one event about one thing that may follow each other at any pace."""
ONE_EACH: Final = 3 * 3600.0
"""Seconds after which one more is written."""


@frozen
class Event:
    """One kind of log line. `fields` are those it may carry; `hint` is printed with the line."""

    name: str
    level: Level
    fields: tuple[str, ...]
    meaning: str
    action: str
    hint: str = ""


EVENTS: Final[dict[str, Event]] = {}


def _event(
    name: str, level: Level, fields: str, meaning: str, action: str, *, hint: str = ""
) -> None:
    EVENTS[name] = Event(name, level, tuple(fields.split()), meaning, action, hint)


_event(
    "gateway.started",
    "info",
    "version config buses meters senders pending clock",
    "The gateway runs with this configuration.",
    "Nothing to do.",
)
_event(
    "gateway.stopped",
    "info",
    "reason pending",
    "The gateway ended in order; what is pending waits on disk for the next start.",
    "Nothing to do.",
)
_event(
    "gateway.summary",
    "info",
    "read missed sent stored pending in_flight confirmed parked dropped held balanced oldest"
    " meters_online meters busiest most_failed slowest left_out clock buffer_bytes next_request",
    "Once an hour: what was read and sent since the last summary, and where every value is. "
    "stored = pending + in_flight + confirmed + parked + dropped. `busiest` is the bus with the "
    "highest load, `most_failed` the meter of whose last requests most failed and how, `slowest` "
    "the one that takes longest to begin its answer; `status --json` has them of all.",
    "Look closer when meters_online is below meters, or when pending grows from hour to hour.",
)
_event(
    "gateway.unbalanced",
    "error",
    "stored pending in_flight confirmed parked dropped",
    "The counts of the buffer do not add up: a value is unaccounted for.",
    "Keep a copy of the buffer and report it.",
    hint="keep a copy of the buffer file and report this",
)
_event(
    "config.reloaded",
    "info",
    "config meters buses senders",
    "A changed configuration is in force.",
    "Nothing to do.",
)
_event(
    "config.refused",
    "warning",
    "config mistakes first",
    "The changed configuration has mistakes; the old one stays in force.",
    "Run `meter-gateway check`, mend the lines it shows, and reload again.",
    hint="run meter-gateway check; the old configuration stays in force",
)
_event(
    "task.failed",
    "error",
    "task error where",
    "A part of the gateway met an error it did not expect; it goes on with the next turn.",
    "Report it with the lines around it.",
    hint="report this with the lines around it",
)
_event("bus.up", "info", "bus link for", "The line or endpoint is open.", "Nothing to do.")
_event(
    "bus.down",
    "warning",
    "bus link error",
    "The serial port or the TCP endpoint cannot be used; it is tried again for ever.",
    "Check the adapter's plug and the path, or the network and the address.",
    hint="check the adapter and its path, or the network and the address",
)
_event(
    "bus.lent",
    "info",
    "bus",
    "A person scans this line: the gateway leaves it alone until that is done. Values that fall "
    "due meanwhile are missing.",
    "Nothing to do.",
)
_event("bus.returned", "info", "bus for", "The scan has ended; meters are read again.", "Nothing.")
_event(
    "bus.overloaded",
    "warning",
    "bus round interval",
    "Reading all meters of this line takes longer than the time between two polls.",
    "Poll less often, raise the baud rate, or split the line. `check` shows its load.",
    hint="poll less often, raise the baud rate or split the line",
)
_event(
    "meter.online",
    "info",
    "meter bus unit lost for",
    "The meter answers again. `lost` counts the rounds in which it gave nothing.",
    "Nothing to do.",
)
_event(
    "meter.offline",
    "warning",
    "meter bus unit reason cause",
    "The meter does not answer, or only with errors. Its values are missing until it is back. "
    "`cause` is what that looks like, from how it and the others on its bus answer.",
    "Check its power, the wires (A and B may be swapped), unit, baud rate and parity.",
    hint="check power, wires A/B, unit, baud rate and parity",
)
_event(
    "meter.still_offline",
    "warning",
    "meter bus unit reason for lost cause",
    "The meter is still silent: said after 1 h, 6 h, and then once a day.",
    "As for meter.offline.",
    hint="check power, wires A/B, unit, baud rate and parity",
)
_event(
    "meter.noisy",
    "warning",
    "meter bus unit errors requests kind cause",
    "Many of this meter's answers were damaged; those were discarded and asked again.",
    "Check termination (120 ohm at both ends), shield and length of the cable.",
    hint="check termination, shield and cable",
)
_event(
    "meter.register_refused",
    "warning",
    "meter bus unit register exception",
    "The meter refuses to give this register; its values are missing, the others are read.",
    "Check that the profile fits the model, with `meter-gateway read METER --raw`.",
    hint="check that the profile fits the meter's model",
)
_event(
    "meter.not_available",
    "warning",
    "meter quantity",
    "The meter says that it has no value for this quantity.",
    "Send another quantity, or check how the meter is wired and set.",
)
_event(
    "meter.identity_changed",
    "warning",
    "meter was is",
    "Another serial number answers: the meter was replaced, or two were swapped. Its values are "
    "not taken.",
    "Check the meter. If it is the right one, `meter-gateway accept METER`; where its number is in "
    "the configuration, write the new one there.",
    hint="check the meter; if it is the right one, accept it (meter-gateway accept METER)",
)
_event(
    "meter.wrong_model",
    "warning",
    "meter profile found",
    "The meter names itself as another model than its profile is for.",
    "Choose the profile that fits; `meter-gateway profiles list` shows them.",
    hint="choose the profile that fits the model",
)
_event(
    "counter.held",
    "warning",
    "meter quantity was is reason",
    "A counter showed an implausible value. It is held and not sent until the next reads agree. Of "
    "many in a row ten are told and kept.",
    "Watch whether counter.accepted follows; else look at the meter. Where it jumps again and "
    "again, `max_power` is too small.",
)
_event(
    "counter.accepted",
    "info",
    "meter quantity was is reason",
    "The next reads agreed: the meter was reset or replaced, or wrapped. Counting goes on.",
    "Nothing to do.",
)
_event(
    "clock.unsynchronised",
    "warning",
    "for",
    "The machine's clock is not known to be right. Samples are kept and stamped later.",
    "Check that the machine reaches a time server (timedatectl).",
    hint="check timedatectl",
)
_event(
    "clock.synchronised",
    "info",
    "after restamped",
    "The clock is right now; what was kept has got its time.",
    "Nothing to do.",
)
_event(
    "clock.stepped",
    "warning",
    "by",
    "The clock was set by this much; everything is planned anew.",
    "Nothing to do if it happens once after a start.",
)
_event(
    "clock.no_time",
    "warning",
    "meter values after before",
    "The machine lost its power before it ever had the time. What this meter showed in that run is"
    " kept, parked as no_time and never sent: it is from between these two instants.",
    "Nothing to do; a consumption loses nothing by it. A battery for the clock prevents it.",
)
_event("buffer.opened", "info", "path bytes pending", "The buffer is open.", "Nothing to do.")
_event(
    "buffer.full",
    "error",
    "path free kept_in_memory",
    "The disk is full. Readings are kept in memory for about an hour; uploading goes on.",
    "Free room on the disk.",
    hint="free room on the disk",
)
_event(
    "buffer.unavailable",
    "error",
    "path error kept_in_memory",
    "The buffer cannot be written. Readings are kept in memory and it is tried again.",
    "Check the card: `dmesg` shows I/O errors and a read-only file system.",
    hint="check the card with dmesg",
)
_event(
    "buffer.recovered",
    "info",
    "path for written",
    "The buffer can be written again.",
    "Nothing to do.",
)
_event(
    "buffer.set_aside",
    "error",
    "path aside saved lost",
    "The buffer was damaged. It was set aside, its sound rows were brought over.",
    "Keep the file set aside until all values are in Energinet; replace an old card.",
    hint="keep the file set aside; think of a new card",
)
_event(
    "buffer.dropped",
    "error",
    "reason count oldest",
    "Readings were dropped for good.",
    "Raise max_size or mend what keeps them from being sent.",
)
_event(
    "buffer.repeated",
    "warning",
    "count meterIDs oldest newest",
    "Readings came with stamps that the buffer has readings of already, as they do after the clock "
    "was ahead and was set back. Those that were stored first stay; these are counted as dropped: "
    "repeated, but for those that are the same.",
    "Compare these intervals with the meters; see to the clock (`status` shows its state).",
    hint="compare these intervals with the meters; see to the clock",
)
_event(
    "buffer.corrected",
    "info",
    "meter count former",
    "A person had stored readings of this meter decoded again (`resend`): so many changed, and are "
    "sent again with their new value. `former` is the meterID that they were sent to by mistake.",
    "Nothing to do.",
)
_event(
    "buffer.volatile",
    "warning",
    "path filesystem",
    "The buffer lies in memory: a restart of the machine loses what was not sent.",
    "Put it on a disk or card.",
    hint="put the buffer on a disk",
)
_event(
    "buffer.unserved",
    "warning",
    "sender pending",
    "Values wait for a sender that is not configured any more, and its import has no other. Nobody "
    "sends them; they are kept.",
    "Configure a sender of that name or import again, or give their meters another one.",
    hint="configure a sender of that name or import again",
)
_event(
    "upload.sent",
    "info",
    "sender values bytes meters confirmed pending duration",
    "Energinet took a request.",
    "Nothing to do.",
)
_event(
    "upload.draining",
    "info",
    "sender pending takes",
    "More waits than one request carries: how much, and about how long it takes to send it. Said"
    " again every six hours until it is done.",
    "Nothing to do. If more comes in than is sent, send less often or spread the meters over more"
    " senders: `check` shows the load of each.",
)
_event(
    "upload.drained",
    "info",
    "sender for pending",
    "What had piled up was sent.",
    "Nothing to do.",
)
_event(
    "upload.refused",
    "warning",
    "sender status values reason retry",
    "Energinet refused a request. Every value is kept and sent again.",
    "The status tells why; see docs/reference/answers.md.",
)
_event(
    "upload.unanswered",
    "warning",
    "sender reason error values retry",
    "No complete answer came. Every value is kept and sent again, unchanged.",
    "Check the network, the name server, the proxy and the clock.",
    hint="check network, DNS, proxy and clock",
)
_event(
    "upload.recovered",
    "info",
    "sender for requests",
    "Requests succeed again.",
    "Nothing to do.",
)
_event(
    "upload.token",
    "error",
    "sender status source",
    "Energinet does not accept this sender's token. Values wait; they are lost after five years.",
    "Get a new token from the administrator of Energinet and put it in place of the old one.",
    hint="put a valid token in place; it is read again at the next request",
)
_event(
    "upload.token_shared",
    "warning",
    "sender",
    "The API says too many requests though we kept its window: someone else uses this token.",
    "Give each gateway a sender and a token of its own.",
    hint="give each gateway its own sender and token",
)
_event(
    "upload.missing",
    "warning",
    "sender meterID",
    "The answer left out a meterID that was sent: its values are kept and sent again.",
    "Check that the import identifier exists in Energinet.",
    hint="check the import identifier in Energinet",
)
_event(
    "upload.short",
    "warning",
    "sender meterID sent counted",
    "Energinet counted another number of values than were sent; they are sent again in halves.",
    "If it goes on, look at the values with `meter-gateway export`.",
)
_event(
    "upload.ambiguous",
    "warning",
    "sender meters values",
    "The site's clock showed this time twice, and a stamp without an offset has one name for both: "
    "two values become one. These came more than a day later, when the others had been sent alone, "
    "and were parked as `dst`: sent, they would replace them.",
    "Set `timestamps: offset` or `utc` if Energinet takes them from you.",
)
_event(
    "upload.parked",
    "error",
    "sender meterID status values",
    "Energinet refuses this meterID. Its values are kept; one is tried every 6 h.",
    "Check the import identifier and the meter's set-up in Energinet.",
    hint="check the import identifier in Energinet",
)
_event(
    "upload.unparked",
    "info",
    "sender meterID values",
    "Energinet takes this meterID again; its values are on their way.",
    "Nothing to do.",
)
_event(
    "upload.smaller",
    "warning",
    "sender limit",
    "Energinet found a body too large: the next ones are smaller.",
    "Nothing to do.",
)
_event(
    "modbus.request",
    "debug",
    "bus unit block duration outcome",
    "One request and what came.",
    "Nothing to do.",
)
_event(
    "upload.request",
    "debug",
    "sender bytes values status",
    "One request to Energinet.",
    "Nothing to do.",
)


# --------------------------------------------------------------------------------------- writing

_NUMBERS: Final = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
_PRIORITIES: Final = {"error": 3, "warning": 4, "info": 6, "debug": 7}  # syslog(3)


def log(event: str, **fields: object) -> None:
    """Write one line. Raises KeyError for an event, ValueError for a field, not in EVENTS."""
    kind = EVENTS[event]
    number = _NUMBERS[kind.level]
    if unknown := fields.keys() - set(kind.fields):
        raise ValueError(f"{event} has no field {', '.join(sorted(unknown))}")
    if not LOGGER.isEnabledFor(number):
        return
    # Now, while the secret is held: what is kept of the line is formatted later.
    shown = {name: _safe(fields[name]) for name in kind.fields if fields.get(name) is not None}
    if number > logging.DEBUG and not event.startswith(_EACH_COUNTS):
        if (left_out := _left_out(event, fields)) is None:
            return
        if left_out:
            shown["repeated"] = left_out
    LOGGER.log(number, event, extra={"event": event, "fields": shown})


_EACH_COUNTS: Final = ("gateway.", "config.", "buffer.dropped", "meter.still_offline")
"""Said seldom anyway, at a person's wish, or with numbers that have to add up."""
_SUBJECT: Final = ("meter", "bus", "sender", "meterID", "quantity", "register", "task")


@define
class _Allowance:
    """How many lines of one kind may still be written, as of when."""

    lines: float
    at: float
    left_out: int = 0


_allowances: dict[tuple[object, ...], _Allowance] = {}


def _left_out(event: str, fields: Mapping[str, object]) -> int | None:
    """How many lines like this one were left out before it; None: this one is, too."""
    about = (event, *map(fields.get, _SUBJECT))
    now = monotonic()
    allowance = _allowances.setdefault(about, _Allowance(AT_ONCE, now))
    earned = (now - allowance.at) / ONE_EACH
    allowance.lines, allowance.at = min(AT_ONCE, allowance.lines + earned), now
    if allowance.lines < 1:
        allowance.left_out += 1
        return None
    allowance.lines -= 1
    left_out, allowance.left_out = allowance.left_out, 0
    return left_out


def forget_repetitions() -> None:
    """Begin to count anew."""
    _allowances.clear()


class Hidden(Protocol):
    """A secret."""

    def reveal(self) -> str:
        """Its text."""


_secrets: WeakValueDictionary[int, Hidden] = WeakValueDictionary()
SHORTEST: Final = 10
"""Characters of a secret that is looked for; a shorter text may be any word of a line."""


def hide(secret: Hidden) -> None:
    """Show *** for its text, for as long as it is held by anybody."""
    _secrets[id(secret)] = secret


def without_secrets(text: str) -> str:
    """The last line of defence: a library's error may have what it was given in its text."""
    held = [secret.reveal() for ref in _secrets.valuerefs() if (secret := ref()) is not None]
    for one in sorted(held, key=len, reverse=True):
        if len(one) >= SHORTEST:
            text = text.replace(one, "***")
    return text


def _safe(value: object) -> object:
    if isinstance(value, int | float) or (safe := without_secrets(text := str(value))) == text:
        return value
    return safe


def clean(text: object) -> str:
    """Text from outside made safe for one log line: control characters escaped, cut to length."""
    escaped = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in str(text)[: MAX_TEXT + 1]
    )
    return escaped if len(escaped) <= MAX_TEXT else escaped[: MAX_TEXT - 1] + "…"


@frozen
class Entry:
    """What was logged, as it is kept; its texts are clean."""

    at: Instant
    sure: bool
    """Was the clock known to be right?"""
    level: str
    event: str
    fields: Mapping[str, int | float | str]


def logfmt(level: str, event: str, fields: Mapping[str, object]) -> str:
    """level=… event=… field=value …"""
    pairs = [("level", level), ("event", event), *fields.items()]
    return " ".join(f"{name}={_quoted(clean(value))}" for name, value in pairs)


def content(record: logging.LogRecord) -> tuple[str, dict[str, int | float | str]]:
    """The event of a line and its fields, their texts clean."""
    event, fields = _content(record)
    return event, {
        name: value if isinstance(value, int | float) else clean(value)
        for name, value in fields.items()
    }


class LogfmtFormatter(logging.Formatter):
    """One line an event."""

    def __init__(self, *, priorities: bool = False) -> None:
        super().__init__()
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        line = logfmt(level, *_content(record))
        return f"<{_PRIORITIES.get(level, 6)}>{line}" if self._priorities else line


class JsonFormatter(logging.Formatter):
    """The same as one JSON object a line, with the time."""

    def format(self, record: logging.LogRecord) -> str:
        event, fields = content(record)
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"time": at.replace("+00:00", "Z")}
        line |= {"level": record.levelname.lower(), "event": event}
        return json.dumps(line | fields, ensure_ascii=False)


def _content(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    event = getattr(record, "event", None)
    if event is None:  # a line of a library
        return "log", {"logger": record.name, "message": record.getMessage()}
    fields: dict[str, object] = dict(getattr(record, "fields", {}))
    if hint := EVENTS[event].hint:
        fields.setdefault("hint", hint)
    return str(event), fields


def _quoted(text: str) -> str:
    if text and not any(c in ' "=\\' for c in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class LibraryFormatter(logging.Formatter):
    """What a library says to nobody, as asyncio does of an error that nobody took."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


_handler: logging.Handler | None = None
_lock = threading.Lock()


def set_up(*, format: Literal["auto", "logfmt", "json"] = "auto", level: Level = "info") -> None:
    """Send the gateway's events to standard error. May be called again, at a reload."""
    global _handler
    journald = format == "auto" and "JOURNAL_STREAM" in os.environ
    formatter = JsonFormatter() if format == "json" else LogfmtFormatter(priorities=journald)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    with _lock:
        if _handler is not None:
            LOGGER.removeHandler(_handler)
        LOGGER.addHandler(handler)
        _handler = handler
    LOGGER.setLevel(_NUMBERS[level])
    LOGGER.propagate = False
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LibraryFormatter())
