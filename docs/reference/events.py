"""Prints events.md from the events that the gateway knows: `make docs`."""

from __future__ import annotations

from typing import Final

from gateway.logbook import EVENTS, Event

HEAD: Final = """\
# Log events

One line an event, to standard error; under systemd, in the journal with its priority:

```text
level=warning event=meter.offline meter=main-supply bus=riser unit=1 reason=timeout hint="…"
```

Error: data is or will be lost. Warning: someone should act. Info: a state changed, or the hourly
summary. Debug: each request. A state that lasts is said when it begins, counted while it lasts, and
said again when it ends. Of lines alike, the same event about the same thing, four may follow one
another at once, then one more every three hours; `repeated` on a line says how many like it were
left out before it. Names, levels and fields are kept, since alarms depend on them; a field without
a value is left out. `meter-gateway explain EVENT` says the same on the spot.

"""
LEVELS: Final = {
    "error": "Errors",
    "warning": "Warnings",
    "info": "State changes",
    "debug": "Each request",
}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for level, title in LEVELS.items():
        events = [event for event in EVENTS.values() if event.level == level]
        parts.append(f"## {title}\n\n" + "\n".join(_section(event) for event in events))
    return "".join(parts).rstrip() + "\n"


def _section(event: Event) -> str:
    fields = ", ".join(f"`{name}`" for name in event.fields)
    lines = [f"### {event.name}\n", event.meaning, f"\n*What to do:* {event.action}"]
    if fields:
        lines.append(f"\n*Fields:* {fields}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
