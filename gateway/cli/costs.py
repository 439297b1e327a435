"""What a configuration will cost: time on the buses, requests to Energinet, room on disk. Pure.

An estimate before anything was measured: an answer is reckoned to begin ANSWER after its request,
and a value to have about VALUE_DIGITS characters. `status` shows what it really is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Final

from attrs import frozen

from gateway.clock import DAY, Millis
from gateway.config.settings import GatewayConfig
from gateway.metering.interval import window
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import As
from gateway.metering.register import Register
from gateway.metering.settings import MeterSettings, SendSettings
from gateway.modbus.health import SHARE_OF_DEAD
from gateway.modbus.plan import Timing, plan
from gateway.modbus.settings import BusSettings

ANSWER: Final = 0.01
"""Seconds from a request to the first byte of its answer."""
VALUE_DIGITS: Final = 10
READING_BYTES: Final = 38
"""A stored reading without its words; tests/cli/test_check.py holds it against the store."""
SAMPLE_BYTES: Final = 36
_SUMMARIES: Final[frozenset[As]] = frozenset({"mean", "minimum", "maximum", "last"})


@frozen
class MeterCost:
    """One meter: requests and milliseconds that a poll of all its registers takes."""

    meter: str
    requests: int
    millis: float
    day: float
    """Milliseconds of the bus a day, polls and boundaries."""


@frozen
class BusCost:
    """One line or endpoint."""

    bus: str
    poll: Millis
    meters: tuple[MeterCost, ...]
    timeout: Millis

    @property
    def requests(self) -> int:
        """Requests of a round over all meters."""
        return sum(meter.requests for meter in self.meters)

    @property
    def round(self) -> float:
        """Milliseconds of a round over all meters."""
        return sum(meter.millis for meter in self.meters)

    @property
    def load(self) -> float:
        """Share of the bus's time that polls and boundaries take."""
        return sum(meter.day for meter in self.meters) / DAY

    @property
    def worst_load(self) -> float:
        """The same with meters that are silent, which get a bounded share of the time."""
        return self.load + (SHARE_OF_DEAD if self.meters else 0)

    @property
    def worst_round(self) -> float:
        """Milliseconds of the first round if all meters but the slowest are silent.

        Each costs its timeout; afterwards they get a tenth of the time.
        """
        if not self.meters:
            return 0
        slowest = max(meter.millis for meter in self.meters)
        return slowest + (len(self.meters) - 1) * self.timeout


@frozen
class SenderCost:
    """One sender: what a day brings it, and what its limits allow."""

    sender: str
    series: int
    readings: int
    bytes: int
    requests: int
    largest: int
    """Bytes of the largest request while nothing is behind."""
    max_payload: int
    capacity: int
    """Bytes a day that the limits allow."""

    def drain(self, backlog: Millis) -> Millis | None:
        """How long it takes to send what piled up over so long, with all that comes in meanwhile;
        None: more comes in than may be sent.
        """
        spare = self.capacity - self.bytes
        return round(backlog * self.bytes / spare) if spare > 0 else None


@frozen
class BufferCost:
    """The buffer: what a day adds, and how many days fit, if nothing could be sent."""

    readings: int
    bytes: int
    days: int | None
    """None where nothing is stored."""


@frozen
class Costs:
    """All of it."""

    buses: tuple[BusCost, ...]
    senders: tuple[SenderCost, ...]
    buffer: BufferCost


def costs_of(config: GatewayConfig) -> Costs:
    """What this configuration will cost."""
    return Costs(
        tuple(_bus(bus, [m for m in config.meters if m.bus == bus.name]) for bus in config.buses),
        _senders(config),
        _buffer(config),
    )


def problems(config: GatewayConfig, costs: Costs) -> list[str]:
    """What will not work out, in words."""
    found = []
    for bus in costs.buses:
        own = [meter for meter in config.meters if meter.bus == bus.bus]
        shortest = min((send.every for meter in own for send in meter.send), default=DAY)
        if bus.load >= 1:
            found.append(
                f"bus {bus.bus} would be busy {bus.load:.0%} of the time: poll less often, raise"
                " the baud rate or split the line"
            )
        elif bus.round > window(shortest):
            found.append(
                f"bus {bus.bus}: a round takes {bus.round / 1000:.1f} s, a boundary has to be"
                f" read within {window(shortest) / 1000:.1f} s: values would be missing"
            )
    found += [
        f"sender {sender.sender} would have {sender.bytes:,} bytes a day to send, but its limits"
        f" allow {sender.capacity:,}: send less often, or spread its meters over more senders"
        for sender in costs.senders
        if sender.bytes > sender.capacity
    ]
    return found


def unbounded(config: GatewayConfig) -> list[str]:
    """The meters with counters of energy whose steps `max_power` would bound."""
    return [
        meter.name
        for meter in config.meters
        if meter.max_power is None
        and any(
            (quantity := QUANTITIES[send.measured]).counter and quantity.unit == "kWh"
            for send in meter.send
        )
    ]


# ----------------------------------------------------------------------------------------- buses


def _bus(bus: BusSettings, meters: Sequence[MeterSettings]) -> BusCost:
    return BusCost(bus.name, bus.poll, tuple(_meter(bus, meter) for meter in meters), bus.timeout)


def _meter(bus: BusSettings, meter: MeterSettings) -> MeterCost:
    requests, millis = _round(bus, meter, meter.send)
    day = 0.0
    for due, times in _rounds(bus.poll, tuple(sorted({send.every for send in meter.send}))):
        asked = meter.send if due is None else [s for s in meter.send if s.every in due]
        day += times * _round(bus, meter, asked)[1]
    return MeterCost(meter.name, requests, millis, day)


def _round(
    bus: BusSettings, meter: MeterSettings, send: Iterable[SendSettings]
) -> tuple[int, float]:
    """Requests and milliseconds for what is sent."""
    limits = meter.profile.limits
    timing = Timing.of(bus.link, ANSWER, max(bus.pause, limits.pause))
    known = [part for register in meter.profile.registers for part in register.parts]
    reads = plan(_registers(meter, send), limits, timing, known=known)
    return len(reads), timing.of_all(reads) * 1000


def _registers(meter: MeterSettings, send: Iterable[SendSettings]) -> tuple[Register, ...]:
    needed = (register for entry in send for register in meter.profile.needs(entry.measured))
    return tuple(dict.fromkeys(needed))


@lru_cache(maxsize=256)
def _rounds(
    poll: Millis, everies: tuple[Millis, ...]
) -> tuple[tuple[frozenset[Millis] | None, int], ...]:
    """How often a day which values are read: None for a poll, which reads all.

    A boundary that falls on a poll costs nothing more.
    """
    counts: dict[frozenset[Millis] | None, int] = {None: DAY // poll}
    aligned = DAY % poll == 0
    for at in {at for every in everies for at in range(0, DAY, every)}:
        if aligned and at % poll == 0:
            continue
        due = frozenset(every for every in everies if at % every == 0)
        counts[due] = counts.get(due, 0) + 1
    return tuple(counts.items())


# --------------------------------------------------------------------------------------- senders


def _senders(config: GatewayConfig) -> tuple[SenderCost, ...]:
    energinet = config.energinet
    found = []
    for sender in energinet.senders:
        send = [s for meter in config.meters for s in meter.send if s.sender == sender.name]
        per_day = DAY // energinet.request_interval
        bytes_of = {id(s): _value_bytes(s, energinet.timestamps) for s in send}
        shortest = min((s.every for s in send), default=DAY)
        requests = min(per_day, DAY // shortest) if send else 0
        between = DAY // requests if requests else DAY
        largest = 2 + sum(
            _set_bytes(s) + max(1, between // s.every) * bytes_of[id(s)] for s in send
        )
        values = sum(DAY // s.every * bytes_of[id(s)] for s in send)
        sets = sum(min(requests, DAY // s.every) * _set_bytes(s) for s in send)
        found.append(
            SenderCost(
                sender=sender.name,
                series=len(send),
                readings=sum(DAY // s.every for s in send),
                bytes=values + sets + 2 * requests,
                requests=requests,
                largest=largest if send else 0,
                max_payload=energinet.max_payload,
                capacity=per_day * energinet.max_payload,
            )
        )
    return tuple(found)


def _value_bytes(send: SendSettings, timestamps: str) -> int:
    """`["2023-02-02T01:00",123456.789],` in bytes."""
    seconds = 3 if send.every % 60_000 else 0
    offset = {"local": 0, "offset": 6, "utc": 1}[timestamps]
    return len('["2023-02-02T01:00",],') + seconds + offset + VALUE_DIGITS


def _set_bytes(send: SendSettings) -> int:
    """What stands around the values of a meterID, in bytes."""
    return len('{"meterID":"","values":[]},') + len(send.key.meter_id.encode())


# ---------------------------------------------------------------------------------------- buffer


def _buffer(config: GatewayConfig) -> BufferCost:
    polls = {bus.name: bus.poll for bus in config.buses}
    readings, total = 0, 0
    for meter in config.meters:
        for send in meter.send:
            count = DAY // send.every
            readings += count
            total += count * (READING_BYTES + _word_bytes(_registers(meter, [send])))
        summed = [send for send in meter.send if send.as_ in _SUMMARIES]
        if summed:
            words = _word_bytes(_registers(meter, summed))
            total += DAY // polls[meter.bus] * (SAMPLE_BYTES + words)
    days = int(Decimal(config.buffer.max_size) / total) if total else None
    return BufferCost(readings, total, days)


def _word_bytes(registers: Iterable[Register]) -> int:
    return sum(4 + 2 * register.count for register in registers)
