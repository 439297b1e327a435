"""`meter-gateway check`: mistakes in the configuration, and what it will cost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import click
from attrs import asdict

from gateway.cli.costs import BusCost, Costs, SenderCost, costs_of, problems, unbounded
from gateway.cli.lessons import Learnt, learnt_of
from gateway.cli.output import (
    buffer_of,
    config_option,
    counted,
    declared_by,
    mistake_view,
    print_json,
    render,
)
from gateway.clock import DAY, SystemClock, about
from gateway.config import find_path, load
from gateway.config.heirs import unserved
from gateway.config.measures import show_size
from gateway.config.settings import GatewayConfig
from gateway.errors import ConfigurationError, GatewayError, Mistake
from gateway.metering.reading import Counts

COUNTED: Final = 100_000_000
"""Bytes of a buffer, about two million readings, up to which its rows are counted one by one; of a
larger one the service does so, a million an hour."""


@click.command()
@click.option(
    "--backlog",
    "days",
    type=click.IntRange(1, 1825),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="Say how long it takes to send what so many days without a connection leave.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@config_option
def check(days: int, as_json: bool, config: str | None) -> None:
    """Check the configuration, and say what it will cost.

    Reads the configuration, its profiles and tokens; opens no port and no connection. Ends with
    78 where there is a mistake, with 1 where the counts of the buffer do not add up.
    """
    path = find_path(config)
    try:
        loaded = load(path)
    except ConfigurationError as error:
        if as_json:
            print_json(_mistakes_view(error.mistakes))
        raise
    costs = costs_of(loaded.config)
    learnt = _learnt(loaded.config)
    counts = _counted_anew(loaded.config)
    doubts = problems(loaded.config, costs) + _no_room(loaded.config, costs)
    doubts += _unserved(loaded.config)
    if as_json:
        view = {**_mistakes_view(loaded.warnings), **_costs_view(loaded.config, costs, days)}
        view["counts"] = counts and {**asdict(counts), "balanced": counts.balanced}
        view |= {"learnt": [_learnt_view(one) for one in learnt], "problems": doubts}
        print_json({**view, "unbounded": unbounded(loaded.config)})
        _refuse_unbalanced(counts)
        return
    if loaded.warnings:
        click.echo(render(loaded.warnings), err=True)
    click.echo(_page(loaded.config, costs, len(loaded.warnings), days))
    for one in learnt:
        click.echo(_learnt_lines(one))
    if counts is not None:
        click.echo(_counts_lines(counts))
    if names := unbounded(loaded.config):
        click.echo(
            f"hint: no max_power bounds the counters of {', '.join(names)}: a bad read or another"
            " meter that shows more may not be told from what they count"
        )
    for doubt in doubts:
        click.echo(click.style("warning: ", fg="yellow") + doubt, err=True)
    _refuse_unbalanced(counts)


def _counted_anew(config: GatewayConfig) -> Counts | None:
    """Where every value of the buffer is; None where there is none, or not for this user to see."""
    try:
        path = buffer_of(config)
        return None if path is None else asyncio.run(_counts(path, config))
    except GatewayError:
        return None


async def _counts(path: Path, config: GatewayConfig) -> Counts:
    from gateway.buffer.reads import ReadOnlyStore
    from gateway.energinet.holding import with_held
    from gateway.energinet.slot import Now

    now = Now.of(SystemClock(assume_synchronised=config.clock.assume_synchronised))
    large = path.stat().st_size > COUNTED
    store = ReadOnlyStore(path)
    await store.open()
    try:
        counts = await (store.counts() if large else store.check_counts())
        return await with_held(counts, store, config.energinet, ZoneInfo(config.timezone), now)
    finally:
        await store.close()


def _counts_lines(counts: Counts) -> str:
    held = f" (held {counts.held:,})" if counts.held else ""
    return (
        f"values: {counts.stored:,} stored = {counts.pending:,} pending{held}"
        f" + {counts.confirmed:,} confirmed + {counts.parked:,} parked"
        f" + {sum(counts.dropped.values()):,} dropped"
    )


def _refuse_unbalanced(counts: Counts | None) -> None:
    if counts is not None and not counts.balanced:
        raise GatewayError(
            "the counts of the buffer do not add up: a value is unaccounted for",
            hint="keep a copy of the buffer and report it",
        )


def _unserved(config: GatewayConfig) -> list[str]:
    """What waits in the buffer and nobody would send."""
    try:
        path = buffer_of(config)
        pending = {} if path is None else asyncio.run(_pending(path, config))
    except GatewayError:
        return []
    return [
        f"{counted(count, 'value')} of meters that are not configured any more"
        f" {'waits' if count == 1 else 'wait'} for the sender {name}, which is not either, nor"
        " another of its import: nobody sends them"
        for name, count in sorted(unserved(config, pending).items())
    ]


async def _pending(path: Path, config: GatewayConfig) -> Mapping[str, int]:
    from gateway.buffer.reads import ReadOnlyStore

    store = ReadOnlyStore(path, declared_by(config))
    await store.open()
    try:
        return await store.senders()
    finally:
        await store.close()


def _no_room(config: GatewayConfig, costs: Costs) -> list[str]:
    """What the disk of the buffer cannot hold."""
    buffer, path = config.buffer, Path(config.buffer.path)
    try:
        folder = next(above for above in path.parents if above.exists())
        disk = os.statvfs(folder)
        taken = path.stat().st_size if path.exists() else 0
    except OSError:  # not for this user to see
        return []
    room = disk.f_bavail * disk.f_frsize + taken
    if room >= buffer.max_size or not costs.buffer.bytes:
        return []
    return [
        f"the disk of the buffer has room for {_bytes(room)}, less than its max_size of"
        f" {show_size(buffer.max_size)}: that is {room // costs.buffer.bytes:,} days while nothing"
        " can be sent"
    ]


def _learnt(config: GatewayConfig) -> list[Learnt]:
    """What the service learnt of the meters; it is no reason to fail where nobody can tell."""
    try:
        buffer = buffer_of(config)
        return asyncio.run(learnt_of(config.meters, buffer)) if buffer else []
    except GatewayError:
        return []


def _learnt_view(learnt: Learnt) -> dict[str, object]:
    return {
        "meter": learnt.meter,
        "profile": learnt.profile,
        "refused": [
            {"register": register.name, "exception": code}
            for register, code in learnt.lessons.refused
        ],
        "splits": [list(split) for split in learnt.lessons.splits],
        "max_registers": learnt.lessons.max_registers,
        "patch": learnt.patch,
    }


def _learnt_lines(learnt: Learnt) -> str:
    refused = [f"{r.name} (exception {code})" for r, code in learnt.lessons.refused]
    if learnt.lessons.max_registers:
        refused.append(f"requests of more than {learnt.lessons.max_registers} registers")
    if learnt.lessons.splits:
        refused.append("requests that reach over a gap")
    patch = "".join(f"    {line}\n" for line in learnt.patch.splitlines())
    return (
        f"\nmeter {learnt.meter} refuses {', '.join(refused)}; {learnt.profile}.yaml in your own"
        f" profiles would spare it that:\n\n{patch}"
    )


def _mistakes_view(mistakes: Sequence[Mistake]) -> dict[str, object]:
    return {
        "mistakes": [mistake_view(m) for m in mistakes if m.level == "error"],
        "warnings": [mistake_view(m) for m in mistakes if m.level == "warning"],
    }


def _costs_view(config: GatewayConfig, costs: Costs, days: int) -> dict[str, object]:
    return {
        "config": str(config.path),
        "buses": [_bus_view(bus) for bus in costs.buses],
        "senders": [
            {
                "name": sender.sender,
                "series": sender.series,
                "readings_a_day": sender.readings,
                "bytes_a_day": sender.bytes,
                "requests_a_day": sender.requests,
                "largest_request": sender.largest,
                "max_payload": sender.max_payload,
                "capacity_a_day": sender.capacity,
                "backlog": {"days": days, "drained_in_ms": sender.drain(days * DAY)},
            }
            for sender in costs.senders
        ],
        "buffer": {
            "path": config.buffer.path,
            "readings_a_day": costs.buffer.readings,
            "bytes_a_day": costs.buffer.bytes,
            "max_size": config.buffer.max_size,
            "days_that_fit": costs.buffer.days,
        },
    }


def _bus_view(bus: BusCost) -> dict[str, object]:
    return {
        "name": bus.bus,
        "poll_ms": bus.poll,
        "requests_a_round": bus.requests,
        "round_ms": round(bus.round, 1),
        "load_percent": round(bus.load * 100, 2),
        "worst_round_ms": round(bus.worst_round, 1),
        "worst_load_percent": round(bus.worst_load * 100, 2),
        "meters": [
            {"name": meter.meter, "requests": meter.requests, "ms": round(meter.millis, 1)}
            for meter in bus.meters
        ],
    }


def _page(config: GatewayConfig, costs: Costs, warnings: int, days: int) -> str:
    count = counted(warnings, "warning") if warnings else "no warning"
    lines = [f"{config.path}: no mistake, {count}", ""]
    for bus in costs.buses:
        lines += _bus_lines(bus)
    for sender in costs.senders:
        lines += _sender_lines(sender, days)
    buffer, size = costs.buffer, show_size(config.buffer.max_size)
    if buffer.days is not None:
        lines.append(
            f"buffer: about {_bytes(buffer.bytes)} a day while nothing can be sent; {size}"
            f" holds {buffer.days:,} days"
        )
    return "\n".join(lines)


def _bus_lines(bus: BusCost) -> list[str]:
    if not bus.meters:
        return [f"bus {bus.bus}: no meter", ""]
    lines = [
        f"bus {bus.bus}: {counted(bus.requests, 'request')}, {_millis(bus.round)} a round;"
        f" busy {bus.load:.1%} of the time"
    ]
    width = max((len(meter.meter) for meter in bus.meters), default=0)
    lines += [
        f"  {meter.meter:<{width}}  {counted(meter.requests, 'request'):>12}"
        f"  {_millis(meter.millis):>9}"
        for meter in bus.meters
    ]
    if len(bus.meters) > 1:
        lines.append(
            f"  with silent meters: at most {_millis(bus.worst_round)} for the first round, then"
            f" {bus.worst_load:.1%} of the time"
        )
    return [*lines, ""]


def _sender_lines(sender: SenderCost, days: int) -> list[str]:
    share = sender.bytes / sender.capacity
    drain = sender.drain(days * DAY)
    if drain is None:
        after = "is never sent"
    elif days * sender.bytes <= sender.max_payload:
        after = "is sent with one request"
    else:
        after = f"is sent within about {about(drain)}"
    return [
        f"sender {sender.sender}: {sender.readings:,} values, {sender.requests} requests,"
        f" {_bytes(sender.bytes)} a day ({share:.2%} of what its limits allow)",
        f"  the largest request has about {_bytes(sender.largest)} of"
        f" {show_size(sender.max_payload)}",
        f"  what {counted(days, 'day')} without a connection leave {after}",
        "",
    ]


def _millis(span: float) -> str:
    return f"{span:.0f} ms" if span < 10_000 else f"{span / 1000:.1f} s"


def _bytes(count: int) -> str:
    for unit, width in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= width:
            return f"{count / width:.1f} {unit}"
    return f"{count} bytes"
