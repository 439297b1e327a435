"""Prints missing.md from the reasons that the gateway knows: `make docs`."""

from __future__ import annotations

from typing import Final

from gateway.metering.missing import REASONS

HEAD: Final = """\
# Why a value is missing

Every meterID and interval is a value, or missing for one of these reasons: never a zero, never an
old value with a new time. What is missing stands in the buffer as one line for neighbouring
intervals with the same reason, for as long as readings are kept; `meter-gateway status` counts the
last day of it by meter and reason, and `gateway.summary` each hour's as `missed`.
`meter-gateway explain REASON` says the same on the spot.

A counter's consumption loses nothing by that: what it moved meanwhile is in the interval in which
the meter came back, unless [`gap`](configuration.md#defaults) says otherwise or the meter was
replaced.

What was read, on the other hand, is stored, and `stored = pending + in flight + confirmed +
parked + dropped` at any moment: `gateway.summary` and `meter-gateway check` count it anew. What is
pending and may not be sent yet is shown beside it as `held`. A clock that is set by more than a
day, either way, begins anew: what lies between is not missing, since it may never have been.

| Reason | What it means | What to do |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = [f"| `{one.name}` | {one.meaning} | {one.action} |" for one in REASONS.values()]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(page(), end="")
