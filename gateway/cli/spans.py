"""Times and spans of time on the command line, as in the configuration."""

from __future__ import annotations

import re
from datetime import date, datetime
from zoneinfo import ZoneInfo

import click

from gateway.clock import Instant, Millis

_UNITS = {"ms": 1, "s": 1000}


def span(_: click.Context, __: click.Parameter, text: str | None) -> Millis | None:
    """`200ms` or `2s`, as the callback of an option."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5}) ?(ms|s)", text)
    if match is None:
        raise click.BadParameter(f"{text}: write 200ms or 2s")
    return int(match[1]) * _UNITS[match[2]]


def shown(seconds: float) -> str:
    """About how long something takes."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def instant(text: str | None, zone: ZoneInfo) -> Instant | None:
    """A day's beginning, or a time as in ISO 8601, in the site's zone unless it has an offset.

    Raises click.UsageError.
    """
    if text is None:
        return None
    try:
        if len(text) == 10:
            day = date.fromisoformat(text)
            at = datetime(day.year, day.month, day.day, tzinfo=zone)
        else:
            at = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"{text} is no time: write 2026-01-31, 2026-01-31T12:00 or 2026-01-31T12:00Z"
        ) from None
    return int((at if at.tzinfo else at.replace(tzinfo=zone)).timestamp() * 1000)
