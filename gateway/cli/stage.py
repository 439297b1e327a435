"""What the demo plays with: six simulated meters, their configuration, the stand-in Energinet."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from attrs import define, field, frozen

from gateway.clock import SECOND, Instant, Millis
from gateway.config import Library
from gateway.energinet.standin import StandIn
from gateway.metering.interval import window
from gateway.modbus.served import SimulatedEndpoint, SimulatedLine, wall
from gateway.modbus.settings import SerialLink
from gateway.modbus.simulator import Fault, SimulatedMeter

ZONE: Final = "Europe/Oslo"
EVERY: Final[Millis] = 5 * SECOND
WINDOW: Final[Millis] = 5 * SECOND
TOKEN: Final = "a-token-of-the-demo"  # noqa: S105 - of the stand-in, and of nothing else


@frozen
class Actor:
    """One simulated meter: its name, profile, unit, and what it sends."""

    name: str
    profile: str
    bus: str
    unit: int
    send: tuple[tuple[str, str], ...]
    """Quantity and `as`."""
    faults: tuple[Fault, ...] = ()


_ENERGY: Final = "active_energy_import_total"
_POWER: Final = "active_power_total"


def _now_and_then(kind: str, first: int, lasting: int, every: int) -> tuple[Fault, ...]:
    starts = range(first * SECOND, 3_600 * SECOND, every * SECOND)
    return tuple(
        Fault(kind, start, start + lasting * SECOND)  # type: ignore[arg-type]
        for start in starts
    )


ACTORS: Final = (
    Actor("main-supply", "eastron-sdm630", "riser", 1, ((_ENERGY, "counter"), (_POWER, "mean"))),
    Actor("lift", "abb-b23", "riser", 2, ((_ENERGY, "counter"), (_ENERGY, "consumption"))),
    Actor("workshop", "socomec-countis-e24", "riser", 3, ((_ENERGY, "counter"),)),
    Actor("roof", "carlo-gavazzi-em24-e1", "roof", 1, ((_ENERGY, "counter"), (_POWER, "last"))),
    Actor("cooling", "janitza-umg96rm", "cooling", 1, ((_ENERGY, "counter"), (_POWER, "maximum"))),
    Actor(
        "heat-pump",
        "shelly-pro-3em",
        "heat-pump",
        1,
        ((_ENERGY, "counter"),),
        _now_and_then("silent", 12, 7, 25),
    ),
)


@define
class Stage:
    """The simulated world; `open` it, then run the gateway on `configuration`."""

    folder: Path
    standin: StandIn = field(init=False)
    meters: dict[str, SimulatedMeter] = field(factory=dict)
    line: SimulatedLine | None = None
    endpoints: list[SimulatedEndpoint] = field(factory=list)
    series: dict[str, tuple[SimulatedMeter, str, str]] = field(factory=dict)
    """MeterID to its meter, quantity and `as`."""

    async def open(self) -> Path:
        """Begin to serve; the configuration that was written for it."""
        library = Library(None)
        started = wall()
        for number, actor in enumerate(ACTORS):
            self.meters[actor.name] = SimulatedMeter(
                library.get(actor.profile), actor.unit, started, seed=number, faults=actor.faults
            )
        link = SerialLink("", 9600)
        riser = [self.meters[actor.name] for actor in ACTORS if actor.bus == "riser"]
        self.line = SimulatedLine(riser, link, strict=True)
        buses = [f"  riser: {{serial: {self.line.open()}, baudrate: 9600, poll: 1 s}}"]
        for actor in ACTORS:
            if actor.bus != "riser":
                endpoint = SimulatedEndpoint([self.meters[actor.name]])
                self.endpoints.append(endpoint)
                where = f"127.0.0.1:{await endpoint.open()}"
                buses.append(f'  {actor.bus}: {{tcp: "{where}", poll: 1 s}}')
        self.standin = StandIn({TOKEN: "demo"}, window=WINDOW, zone=ZONE)
        url = await self.standin.start()
        return self._write(url, buses)

    async def close(self) -> None:
        """Stop serving."""
        if self.line is not None:
            self.line.close()
        for endpoint in self.endpoints:
            await endpoint.close()
        await self.standin.stop()

    def _write(self, url: str, buses: Sequence[str]) -> Path:
        token = self.folder / "demo.token"
        descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(TOKEN)
        lines = [
            f"timezone: {ZONE}",
            "energinet:",
            f"  url: {url}",
            f"  request_interval: {WINDOW // SECOND} s   # 10 min on the real one",
            "  linger: 1 s",
            "  senders: [{name: demo, token: {file: demo.token}}]",
            f"defaults: {{every: {EVERY // SECOND} s}}",
            "buffer: {path: readings.db}",
            "clock: {assume_synchronised: true}",
            "buses:",
            *buses,
            "meters:",
        ]
        number = 7_000_000_000
        for actor in ACTORS:
            lines.append(
                f"  - {{name: {actor.name}, bus: {actor.bus}, unit: {actor.unit},"
                f" profile: {actor.profile}, send: ["
            )
            for quantity, as_ in actor.send:
                number += 1
                self.series[str(number)] = (self.meters[actor.name], quantity, as_)
                lines.append(f'      {{meterID: "{number}", quantity: {quantity}, as: {as_}}},')
            lines.append("    ]}")
        path = self.folder / "gateway.yaml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def wrong(self) -> list[str]:
        """Each value that Energinet holds and that its meter did not stand at."""
        found = list(self.standin.violations)
        zone = ZoneInfo(ZONE)
        for meter_id, values in self.standin.received.items():
            meter, quantity, as_ = self.series[meter_id]
            for stamp, value in values.items():
                at = int(datetime.fromisoformat(stamp).replace(tzinfo=zone).timestamp() * 1000)
                low, high = bounds(meter, quantity, as_, at)
                if not low <= value <= high:
                    found.append(f"{meter_id} {stamp}: {value} is not in {low} to {high}")
        return found


def bounds(meter: SimulatedMeter, quantity: str, as_: str, at: Instant) -> tuple[Decimal, Decimal]:
    """What a right value lies between: samples may be as late as their window allows."""
    late = window(EVERY) + 200

    def true(moment: Instant) -> Decimal:
        value = meter.value(quantity, moment)
        assert isinstance(value, Decimal)
        return value

    if as_ == "counter":
        return true(at), true(at + late)
    end = at + EVERY  # the others are stamped at the start of their interval
    if as_ == "consumption":
        return true(end) - true(at + late), true(end + late) - true(at)
    step = 100
    seen = [true(moment) for moment in range(at, end + late + step, step)]
    return min(seen), max(seen)


def held_by(standin: StandIn) -> Mapping[tuple[str, str], Decimal]:
    """What the stand-in holds: (meterID, time in UTC) to value."""
    zone = ZoneInfo(ZONE)
    held = {}
    for meter_id, values in standin.received.items():
        for stamp, value in values.items():
            at = datetime.fromisoformat(stamp).replace(tzinfo=zone).astimezone(UTC)
            held[meter_id, f"{at:%Y-%m-%dT%H:%M:%SZ}"] = value
    return held
