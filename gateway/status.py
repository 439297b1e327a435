"""What people and scripts are shown of a meter and of the running service; plain data only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from gateway.clock import Instant
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import Counts, Sample
from gateway.metering.register import NOT_AVAILABLE, Value
from gateway.metering.settings import MeterSettings


def iso(at: Instant | None) -> str | None:
    """An instant as ISO 8601 in UTC, to the second; None stays None."""
    if at is None:
        return None
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def text_of(value: Value) -> str | None:
    """The decimal as people write it; None where the meter has no value."""
    return None if value is NOT_AVAILABLE or not isinstance(value, Decimal) else f"{value:f}"


def counts_view(counts: Counts) -> dict[str, Any]:
    """P6 as `status --json` shows it."""
    return {
        "stored": counts.stored,
        "pending": counts.pending,
        "in_flight": counts.in_flight,
        "confirmed": counts.confirmed,
        "parked": counts.parked,
        "dropped": dict(counts.dropped),
        "held": counts.held,
        "balanced": counts.balanced,
    }


def meter_view(
    settings: MeterSettings, sample: Sample, values: Mapping[str, Value]
) -> dict[str, Any]:
    """Everything one sample of a meter shows. `values`: quantity to value, without multiplier."""
    registers = {register.name: register for register in settings.profile.registers}
    shown = []
    for quantity, value in values.items():
        register = registers.get(quantity)
        words = sample.raw.lookup(register) if register is not None else None
        shown.append(
            {
                "quantity": quantity,
                "value": text_of(value),
                "unit": QUANTITIES[quantity].unit,
                "words": " ".join(f"{word:04x}" for word in words or ()),
            }
        )
    return {
        "meter": settings.name,
        "bus": settings.bus,
        "unit": settings.unit,
        "profile": settings.profile.name,
        "at": iso(sample.at),
        "values": shown,
        "faults": dict(sample.faults),
        "raw": [
            {"function": block.function, "address": block.address, "words": list(block.words)}
            for block in sample.raw.blocks
        ],
    }
