"""What the demo plays with: six simulated meters, their configuration, the stand-in Energinet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

from gateway.clock import SECOND, Instant, Millis
from gateway.config import Library
from gateway.energinet.standin import StandIn
from gateway.metering.reading import As
from gateway.modbus.faults import Fault
from gateway.modbus.served import SimulatedEndpoint, SimulatedLine, wall
from gateway.modbus.settings import SerialLink
from gateway.modbus.simulator import SimulatedMeter

ZONE: Final = "Europe/Oslo"
EVERY: Final[Millis] = 5 * SECOND
WINDOW: Final[Millis] = 5 * SECOND
BAUDRATE: Final = 9600
TOKEN: Final = "a-token-of-the-demo"  # noqa: S105 - of the stand-in, and of nothing else


@frozen
class Actor:
    """One simulated meter: its name, profile, unit, and what it sends."""

    name: str
    profile: str
    bus: str
    unit: int
    send: tuple[tuple[str, As], ...]
    """Quantity and `as`."""
    faults: tuple[Fault, ...] = ()


@frozen
class Line:
    """One meterID and what its values are of."""

    meter_id: str
    meter: str
    quantity: str
    as_: As


_ENERGY: Final = "active_energy_import_total"
_POWER: Final = "active_power_total"


def _silent_now_and_then(first: int, lasting: int, every: int) -> tuple[Fault, ...]:
    """Silent so long that it is called offline for longer than the 5 s between two lines."""
    starts = range(first * SECOND, 24 * 3_600 * SECOND, every * SECOND)
    return tuple(Fault("silent", start, start + lasting * SECOND) for start in starts)


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
        _silent_now_and_then(first=9, lasting=9, every=40),
    ),
)


@define
class Stage:
    """The simulated world; `open` it, then run the gateway on the configuration it wrote."""

    folder: Path
    standin: StandIn = field(init=False)
    meters: dict[str, SimulatedMeter] = field(factory=dict)
    lines: dict[str, Line] = field(factory=dict)
    """By meterID."""
    _serial: SimulatedLine | None = None
    _endpoints: list[SimulatedEndpoint] = field(factory=list)

    async def open(self) -> Path:
        """Begin to serve; the configuration that was written for it."""
        library = Library(None)
        started = wall()
        for number, actor in enumerate(ACTORS):
            self.meters[actor.name] = SimulatedMeter(
                library.get(actor.profile), actor.unit, started, seed=number, faults=actor.faults
            )
        riser = [self.meters[actor.name] for actor in ACTORS if actor.bus == "riser"]
        self._serial = SimulatedLine(riser, SerialLink("", BAUDRATE), strict=True)
        buses = [f"  riser: {{serial: {self._serial.open()}, baudrate: {BAUDRATE}, poll: 1 s}}"]
        for actor in ACTORS:
            if actor.bus != "riser":
                endpoint = SimulatedEndpoint([self.meters[actor.name]])
                self._endpoints.append(endpoint)
                where = f"127.0.0.1:{await endpoint.open()}"
                buses.append(f'  {actor.bus}: {{tcp: "{where}", poll: 1 s}}')
        self.standin = StandIn({TOKEN: "demo"}, window=WINDOW, zone=ZONE)
        url = await self.standin.start()
        return self._write(url, buses)

    async def close(self) -> None:
        """Stop serving."""
        if self._serial is not None:
            self._serial.close()
        for endpoint in self._endpoints:
            await endpoint.close()
        await self.standin.stop()

    def silent(self, meter: str, since: Instant, until: Instant) -> bool:
        """Was the meter made silent at any moment from `since` to `until`?"""
        one = self.meters[meter]
        return any(
            one.started + fault.start <= until
            and (fault.end is None or since <= one.started + fault.end)
            for fault in one.faults
        )

    def _write(self, url: str, buses: Sequence[str]) -> Path:
        token = self.folder / "demo.token"
        descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(TOKEN)
        text = [
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
            text.append(
                f"  - {{name: {actor.name}, bus: {actor.bus}, unit: {actor.unit},"
                f" profile: {actor.profile}, send: ["
            )
            for quantity, as_ in actor.send:
                number += 1
                self.lines[str(number)] = Line(str(number), actor.name, quantity, as_)
                text.append(f'      {{meterID: "{number}", quantity: {quantity}, as: {as_}}},')
            text.append("    ]}")
        path = self.folder / "gateway.yaml"
        path.write_text("\n".join(text) + "\n", encoding="utf-8")
        return path
