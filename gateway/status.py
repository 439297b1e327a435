"""What people and scripts are shown of a meter and of the running service; plain data only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

from gateway import __version__
from gateway.buffer.store import Store
from gateway.buffer.views import GapLine
from gateway.clock import DAY, Clock, Instant, utc
from gateway.config.heirs import unserved
from gateway.energinet.holding import with_held
from gateway.energinet.slot import Now
from gateway.energinet.uploader import SenderStatus, SendReport
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import Block, Counts, Sample
from gateway.metering.settings import MeterSettings
from gateway.metering.source import Source
from gateway.modbus.diagnosis import likely_cause
from gateway.modbus.health import UnitReport
from gateway.modbus.line import LinkReport
from gateway.plant import Accepted, Plant

_COUNTER: Final = ("quantity", "was", "is")


def iso(at: Instant | None) -> str | None:
    """An instant as ISO 8601 in UTC, to the second; None stays None."""
    return None if at is None else utc(at)


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


def missing_view(
    gaps: Iterable[GapLine], since: Instant, meters: Iterable[MeterSettings]
) -> dict[str, dict[str, int]]:
    """Meter to why it misses values of `since` and later to how many."""
    sends = {send.key: (meter.name, send.every) for meter in meters for send in meter.send}
    found: dict[str, dict[str, int]] = {}
    for gap in gaps:
        if gap.key in sends:
            meter, every = sends[gap.key]
            within = (gap.last - max(gap.first, since)) // every + 1  # a run may have begun before
            reasons = found.setdefault(meter, {})
            reasons[gap.reason] = reasons.get(gap.reason, 0) + min(gap.count, within)
    return found


def meter_view(settings: MeterSettings, sample: Sample, link: LinkReport) -> dict[str, Any]:
    """Everything one sample of a meter shows, as its display would: without the multiplier."""
    registers = {register.name: register for register in settings.profile.registers}
    shown, faults = [], dict(sample.faults)
    for quantity in settings.profile.quantities():
        found = Source(settings, quantity).read(sample)
        if found is None or (found.value is None and found.reason != "not_available"):
            faults.setdefault(quantity, found.reason if found else "not read")
            continue
        faults.pop(quantity, None)
        register = registers.get(quantity)
        words = sample.raw.lookup(register) if register is not None else None
        shown.append(
            {
                "quantity": quantity,
                "value": None if found.value is None else f"{found.value:f}",
                "unit": QUANTITIES[quantity].unit,
                "words": " ".join(f"{word:04x}" for word in words or ()),
            }
        )
    return {
        "meter": settings.name,
        "bus": settings.bus,
        "unit": settings.unit,
        "profile": settings.profile.name,
        "multiplier": f"{settings.multiplier:f}",
        "at": iso(sample.at),
        "values": shown,
        "faults": faults,
        "link": link.link,
        "link_error": link.error,
        "raw": [
            {"function": block.function, "address": block.address, "words": list(block.words)}
            for block in sample.raw.blocks
        ],
    }


def looked_view(answers: Sequence[Block | str], link: LinkReport) -> dict[str, Any]:
    """What a unit gave when somebody looked at its registers."""
    return {
        "answers": [
            {"fault": answer} if isinstance(answer, str) else {"words": list(answer.words)}
            for answer in answers
        ],
        "link": link.link,
        "link_error": link.error,
    }


def report_view(report: SendReport) -> dict[str, Any]:
    """A request as `send` shows it."""
    answer = report.answer
    return {
        "sender": report.sender,
        "values": report.values,
        "meters": report.meters,
        "bytes": len(report.data),
        "waiting": report.waiting,
        "next_request": iso(report.next_request),
        "body": report.data.decode(),
        "status": answer.status if answer else None,
        "answer": answer.row.value if answer else None,
        "reason": report.reason,
        "verdicts": {
            name: {"verdict": verdict.kind, "status": verdict.status}
            for name, verdict in (answer.verdicts if answer else {}).items()
        },
    }


def accepted_view(meter: str, accepted: Accepted) -> dict[str, Any]:
    """What `accept` did."""
    return {
        "meter": meter,
        "serial_number": accepted.serial_number or None,
        "was": accepted.was or None,
        "counters": [
            {key: None if fields[key] is None else str(fields[key]) for key in _COUNTER}
            for fields in accepted.counters
        ],
    }


def unserved_view(pending: Mapping[str, int]) -> list[dict[str, Any]]:
    """What waits for senders that are not configured."""
    return [{"sender": name, "pending": count} for name, count in sorted(pending.items())]


def online(plant: Plant) -> dict[str, bool]:
    """Which meters answer; none does over a bus that is down."""
    return {
        report.meter: report.state == "online" and link.up
        for poller in plant.pollers.values()
        for link in (poller.link(),)
        for report in poller.units()
    }


class Status:
    """The whole of `status --json`, from a running service."""

    def __init__(self, plant: Plant, store: Store, clock: Clock) -> None:
        self._plant = plant
        self._store = store
        self._clock = clock

    async def view(self, *, since: Instant, config: str, refused: str) -> dict[str, Any]:
        """Its fields are kept: scripts read them. `refused`: why the configuration on disk is not
        the one in force; empty: it is."""
        counts = await self._store.counts()
        pending = await self._store.pending_by_sender()
        parked = await self._store.parked()
        now, settings = Now.of(self._clock), self._plant.config
        zone = ZoneInfo(settings.timezone)
        counts = await with_held(counts, self._store, settings.energinet, zone, now)
        yesterday = now.wall - DAY
        missing = missing_view(await self._store.gaps(yesterday), yesterday, settings.meters)
        reports = [(poller.link(), poller.units()) for poller in self._plant.pollers.values()]
        return {
            "service": {
                "running": True,
                "version": __version__,
                "since": iso(since),
                "now": iso(self._clock.now()),
                "config": config,
                "config_in_force": f"old: {refused}" if refused else "current",
                "clock_synchronised": self._clock.synchronised(),
            },
            "buffer": {
                **counts_view(counts),
                "bytes": self._store.size,
                "failing": self._plant.committer.failing,
            },
            "buses": [self._bus(link) for link, _ in reports],
            "meters": [
                self._meter(unit, units, link) | {"missing": missing.get(unit.meter, {})}
                for link, units in reports
                for unit in units
            ],
            "senders": [
                self._sender(uploader.status(), pending.get(name, (0, None)))
                for name, uploader in self._plant.uploaders.items()
            ],
            "unserved": unserved_view(
                unserved(settings, {name: count for name, (count, _) in pending.items()})
            ),
            "parked": [
                {"meterID": line.key.meter_id, "reason": line.reason, "count": line.count}
                for line in parked
            ],
        }

    def _bus(self, report: LinkReport) -> dict[str, Any]:
        return {
            "name": report.bus,
            "link": report.link,
            "state": "up" if report.up else "down",
            "since": iso(self._plant.wall(report.since)),
            "error": report.error,
            "load": round(report.busy, 4),
        }

    def _meter(
        self, report: UnitReport, units: Sequence[UnitReport], link: LinkReport
    ) -> dict[str, Any]:
        meter = self._plant.meters[report.meter]
        state, since = report.state, report.since
        reason = "" if state == "online" else report.reason
        if state == "online" and not link.up:  # it cannot answer, and is not to blame for it
            state, since, reason = "offline", link.since, "link_down"
        return {
            "name": report.meter,
            "bus": meter.settings.bus,
            "unit": report.unit,
            "profile": meter.settings.profile.name,
            "state": state,
            "since": iso(self._plant.wall(since)),
            "reason": reason,
            "cause": likely_cause(report, units, link),
            "requests": report.requests,
            "errors": dict(report.errors),
            "turnaround_ms": round(report.turnaround * 1000, 1) if report.turnaround else None,
            "timeout_ms": round(report.timeout * 1000),
            "values": [
                {
                    "quantity": quantity,
                    "value": None if shown.value is None else f"{shown.value:f}",
                    "unit": QUANTITIES[quantity].unit,
                    "reason": shown.reason,
                    "at": iso(shown.at),
                }
                for quantity, shown in meter.values().items()
            ],
        }

    def _sender(self, status: SenderStatus, pending: tuple[int, Instant | None]) -> dict[str, Any]:
        return {
            "name": status.name,
            "pending": pending[0],
            "oldest": iso(pending[1]),
            "next_request": iso(status.next_request),
            "last": status.last,
            "failures": status.failures,
            "limit": status.limit,
            "parked": list(status.parked),
            "left_out": list(status.missing),
        }
