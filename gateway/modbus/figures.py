"""What the hourly line says of buses and meters: the one that is worst in each way. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from gateway.modbus.health import UnitReport
from gateway.modbus.line import LinkReport


def worst(buses: Iterable[tuple[LinkReport, Sequence[UnitReport]]]) -> dict[str, str | None]:
    """The bus with the highest load; the meter of whose last requests most failed, with the kind
    that most did; the one that takes longest to begin its answer. None where there is none.
    """
    reports = list(buses)
    loads = [(link.busy, link.bus) for link, _ in reports if link.busy]
    units = [unit for _, of_bus in reports for unit in of_bus]
    failed = [(*_failed(unit), unit.meter) for unit in units if unit.recent]
    waits = [(unit.turnaround, unit.meter) for unit in units if unit.turnaround is not None]
    load, share, wait = (
        max(loads, default=None),
        max(failed, default=None),
        max(waits, default=None),
    )
    return {
        "busiest": load and f"{load[1]} {load[0]:.0%}",
        "most_failed": f"{share[2]} {share[0]:.0%} {share[1]}" if share and share[1] else None,
        "slowest": wait and f"{wait[1]} {wait[0] * 1000:.0f}ms",
    }


def _failed(unit: UnitReport) -> tuple[float, str]:
    """The share of its last requests, and the kind; empty where none did."""
    kinds = Counter(outcome.reason for outcome in unit.recent if outcome.reason)
    ((kind, _),) = kinds.most_common(1) or [("", 0)]
    return kinds.total() / len(unit.recent), kind
