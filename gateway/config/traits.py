"""What a profile says of a model beside its registers: its line, its requests, SunSpec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.clock import MINUTE, SECOND
from gateway.config.buses import warn_of_rate
from gateway.config.document import Node
from gateway.config.fields import Fields, list_of, table
from gateway.config.measures import duration
from gateway.config.values import Wrong, boolean, choice, integer
from gateway.metering.profile import Limits, SerialDefaults, SunSpec, TcpDefaults

SERIAL: Final = ("baudrate", "parity", "stopbits", "unit")
TCP: Final = ("port", "unit")
REQUESTS: Final = (
    "max_registers", "holes", "hole_ranges", "even", "single", "whole_blocks", "splits",
    "pause", "pause_after_open", "answer_time",
)  # fmt: skip
SUNSPEC: Final = ("models", "header", "bases")


def read_serial(fields: Fields, base: SerialDefaults) -> SerialDefaults:
    inner = _section(fields, "serial", SERIAL)
    if inner is None:
        return base
    baudrate = inner.get("baudrate", integer(110, 4_000_000), base.baudrate)
    if "baudrate" in inner:
        warn_of_rate(inner, baudrate)
    return SerialDefaults(
        baudrate=baudrate,
        parity=inner.get("parity", choice("none", "even", "odd"), base.parity),
        stopbits=inner.get("stopbits", integer(1, 2), base.stopbits),
        unit=inner.get("unit", integer(0, 255), base.unit),
    )


def read_tcp(fields: Fields, base: TcpDefaults) -> TcpDefaults:
    inner = _section(fields, "tcp", TCP)
    if inner is None:
        return base
    return TcpDefaults(
        port=inner.get("port", integer(1, 65_535), base.port),
        unit=inner.get("unit", integer(0, 255), base.unit),
    )


def read_limits(fields: Fields, base: Limits) -> Limits:
    inner = _section(fields, "requests", REQUESTS)
    if inner is None:
        return base
    address = integer(0, 65_535)
    return Limits(
        max_registers=inner.get("max_registers", integer(1, 125), base.max_registers),
        holes=inner.get("holes", boolean, base.holes),
        hole_ranges=inner.many("hole_ranges", _range(address), base.hole_ranges),
        even=inner.get("even", boolean, base.even),
        single=inner.get("single", boolean, base.single),
        whole_blocks=inner.many("whole_blocks", _block(address), base.whole_blocks),
        splits=inner.many("splits", _split(address), base.splits),
        pause=inner.get("pause", duration(0, 10 * SECOND), base.pause),
        pause_after_open=inner.get("pause_after_open", duration(0, MINUTE), base.pause_after_open),
        answer_time=inner.get("answer_time", duration(0, MINUTE), base.answer_time),
    )


def _range(address: Callable[[Node], int]) -> Callable[[Node], tuple[int, int]]:
    def read(node: Node) -> tuple[int, int]:
        found = list_of(address, most=2)(node)
        if len(found) != 2 or found[0] > found[1]:
            raise Wrong("a range is [first, last]")
        return found[0], found[1]

    return read


def _block(address: Callable[[Node], int]) -> Callable[[Node], tuple[int, int, int]]:
    def read(node: Node) -> tuple[int, int, int]:
        found = list_of(address, most=3)(node)
        if len(found) != 3 or not 1 <= found[0] <= 4 or not 1 <= found[2] <= 125:
            raise Wrong("a block is [function, first, count]")
        return found[0], found[1], found[2]

    return read


def _split(address: Callable[[Node], int]) -> Callable[[Node], tuple[int, int]]:
    def read(node: Node) -> tuple[int, int]:
        found = list_of(address, most=2)(node)
        if len(found) != 2 or not 1 <= found[0] <= 4:
            raise Wrong("a split is [function, address]")
        return found[0], found[1]

    return read


def read_sunspec(fields: Fields, base: SunSpec | None) -> SunSpec | None:
    inner = _section(fields, "sunspec", SUNSPEC)
    if inner is None:
        return base
    base = base or SunSpec(())
    number = integer(0, 65_535)
    found = SunSpec(
        models=inner.many("models", number, base.models),
        header=inner.get("header", integer(0, 65_535), base.header),
        bases=inner.many("bases", number, base.bases),
    )
    if not found.models:
        inner.missing("models", "models: [203], the ids of the SunSpec meter models")
    return found


def _section(fields: Fields, key: str, known: tuple[str, ...]) -> Fields | None:
    node = fields.node(key)
    body = table(fields.report, node, key) if node is not None else None
    if body is None:
        return None
    return Fields(fields.report, body, key, known, at=fields.at_key(key))
