"""Spans of time on the command line: a number and its unit, as in the configuration."""

from __future__ import annotations

import re

import click

from gateway.clock import Millis

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
