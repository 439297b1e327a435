"""The demo with a fault planted in the gateway: `planted.py FAULT ARGUMENTS…`. It has to notice."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any

from attrs import evolve

from gateway import logbook
from gateway.buffer.store import Store
from gateway.cli.main import main
from gateway.energinet.standin import StandIn
from gateway.metering.source import Source


def a_value_is_a_little_too_high() -> None:
    right = Source.multiplied

    def multiplied(self: Source, value: Decimal) -> Decimal:
        wrong = Decimal("0.05") if self.quantity == "active_energy_import_total" else 0
        return right(self, value) + wrong

    Source.multiplied = multiplied  # type: ignore[method-assign]


def a_reading_is_not_stored() -> None:
    right = Store.append
    seen = 0

    async def append(self: Store, commit: Any) -> Any:
        nonlocal seen
        seen += len(commit.readings) > 1
        kept = commit.readings[:-1] if seen == 2 else commit.readings
        return await right(self, evolve(commit, readings=kept))

    Store.append = append  # type: ignore[method-assign]


def energinet_loses_one() -> None:
    right = StandIn._take

    def take(self: StandIn, sender: str, one: Any, *more: Any, **named: Any) -> Any:
        answer = right(self, sender, one, *more, **named)
        if one["meterID"].endswith("4"):
            self.received[one["meterID"]].pop(one["values"][0][0], None)
        return answer

    StandIn._take = take  # type: ignore[method-assign]


def an_error_is_logged() -> None:
    right = Store.counts
    said = False

    async def counts(self: Store) -> Any:
        nonlocal said
        if not said:
            said = True
            logbook.log("task.failed", task="planted", error="a fault", where="here")
        return await right(self)

    Store.counts = counts  # type: ignore[method-assign]


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    main(sys.argv[2:])
