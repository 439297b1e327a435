"""`meter-gateway scan BUS`: which meters there are, with which settings."""

from __future__ import annotations

import asyncio
import errno
import math
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager, suppress
from typing import Any, Final, Literal

import click
from attrs import evolve

from gateway.cli.output import config_option, counted, print_json
from gateway.cli.paste import as_yaml, link_view, setting, told, view
from gateway.cli.places import bus_at
from gateway.cli.profiles import known_library
from gateway.cli.spans import shown, span
from gateway.clock import SystemClock
from gateway.config import find_path, load
from gateway.control import ask, hold, socket_path
from gateway.errors import GatewayError, LinkDown, TargetUnreachable, TryLater
from gateway.modbus.bus import Bus
from gateway.modbus.scanning import (
    BAUDRATES,
    PARITIES,
    AnswersToAll,
    Asked,
    Damaged,
    Event,
    Found,
    Refused,
    Scan,
    Step,
    seconds,
    seconds_a_unit,
    settings,
    steps,
)
from gateway.modbus.settings import BusSettings, Link, Parity, SerialLink

_WAIT_ON_A_LINE: Final = 200  # ms
_WAIT_ON_TCP: Final = 1000
_LINE_EVERY: Final = 30.0
"""Seconds between two lines of progress where there is no terminal."""
_DOUBTS: Final = {
    "crc": "its answers are damaged: noise, two meters with this unit, or another parity",
    "unit": "its answers have another unit",
    "function": "its answers are of another function",
    "length": "its answers have another length",
    "frame": "what answers is not Modbus TCP: try --framing rtu",
}
"""What answers that cannot be trusted look like, by reason."""
_NOBODY: Final = (
    "check power and wires (A and B may be swapped), and the units; give a slow meter more --wait"
)


@click.command()
@click.argument("bus")
@click.option("--units", metavar="LIST", help="Such as 1..20 or 1,2,126. Default: 1..247.")
@click.option("--baudrate", "baudrates", metavar="LIST", help="Such as 9600,19200. Default: all.")
@click.option("--parity", "parities", metavar="LIST", help="Such as none,even. Default: all.")
@click.option(
    "--framing",
    type=click.Choice(("rtu", "ascii", "tcp")),
    help="Where BUS is a port or an address. Default: rtu on a line, else tcp.",
)
@click.option(
    "--wait",
    callback=span,
    metavar="SPAN",
    help="For an answer to begin. Default: 200ms on a line, 1s on TCP.",
)
@click.option("--json", "as_json", is_flag=True, help="What was found as JSON.")
@config_option
def scan(
    bus: str,
    units: str | None,
    baudrates: str | None,
    parities: str | None,
    framing: Literal["rtu", "ascii", "tcp"] | None,
    wait: int | None,
    as_json: bool,
    config: str | None,
) -> None:
    """Find the meters of BUS: a bus of the configuration, a serial port, or HOST:PORT.

    Asks every unit at every baud rate and parity, the likely ones first, and tells the model by
    the profiles. Prints YAML to paste. Ctrl-C ends it and keeps what was found. Nothing is sent
    but reads. Ends with 0, with 3 where it was ended early, and with 69 where nobody answers.
    """
    found = bus_at(bus, framing, config)
    link = found.link
    profiles = known_library(config).all()
    links: Sequence[Link] = (link,)
    if isinstance(link, SerialLink):
        links = settings(link, _baudrates(baudrates), _parities(parities))
    elif baudrates or parities:
        raise click.UsageError("--baudrate and --parity are for serial lines")
    if wait is None:
        wait = _WAIT_ON_A_LINE if isinstance(link, SerialLink) else _WAIT_ON_TCP
    most = 255 if link.framing in ("tcp", "tls") else 247
    asked = _units(units, most) if units else (*range(1, 248), *((255,) if most == 255 else ()))
    todo = steps(links, asked, profiles)
    report = _Report(found, links, len(asked))
    report.begin(seconds(todo, wait / 1000))

    def wire(link: Link) -> Bus:
        longest = math.ceil(1000 * seconds_a_unit(link, wait / 1000))
        own = evolve(found, link=link, timeout=longest, retries=0)
        return Bus(own, SystemClock(), random=random.Random())

    scanning = Scan(profiles, wire, SystemClock(), wait=wait / 1000)
    try:
        with _alone(link, config):
            asyncio.run(_follow(scanning, todo, report))
    except KeyboardInterrupt:
        report.complete = False
    except LinkDown as error:
        report.complete = False
        report.end(as_json=as_json)
        raise _unreachable(found, config, error) from error
    report.end(as_json=as_json)
    if not report.found and report.complete:
        raise TargetUnreachable(f"nobody answers on {link.address}", hint=_NOBODY)
    if not report.complete:
        raise SystemExit(3 if report.found else 1)


@contextmanager
def _alone(link: Link, config: str | None) -> Iterator[None]:
    """While the running gateway, if it asks there, leaves the line or endpoint alone."""
    with ExitStack() as held:
        with suppress(GatewayError):  # it does not run, there is no configuration, or it is older
            settings = load(find_path(config), tokens=False).config
            at = socket_path(settings.buffer.path)
            if bus := held.enter_context(hold(at, "lend", bus=link.address)):
                click.echo(
                    f"the gateway leaves bus {bus} alone meanwhile: what falls due there is"
                    " missing",
                    err=True,
                )
        yield


async def _follow(scanning: Scan, todo: Sequence[Step], report: _Report) -> None:
    async with aclosing(scanning.run(todo)) as events:
        async for event in events:
            report.tell(event)


def _unreachable(bus: BusSettings, config: str | None, error: LinkDown) -> GatewayError:
    where = bus.link.address
    numbers = set(error.__cause__.args[:1]) if error.__cause__ is not None else set()
    if isinstance(bus.link, SerialLink) and numbers & {errno.EBUSY, errno.EAGAIN}:
        who = "the running gateway" if _is_running(config) else "another program"
        return TryLater(
            f"{where} is held by {who}, and a line has one master",
            hint="`systemctl stop meter-gateway`, scan, and start it again",
        )
    return TargetUnreachable(f"{where}: {error}", hint=error.hint)


def _is_running(config: str | None) -> bool:
    try:
        ask(socket_path(load(find_path(config), tokens=False).config.buffer.path), "status")
    except GatewayError:
        return False
    return True


class _Report:
    """What is said meanwhile, on standard error, and what is printed in the end."""

    def __init__(self, bus: BusSettings, links: Sequence[Link], units: int) -> None:
        self._bus = bus
        self._links = links
        self._units = units
        self._terminal = sys.stderr.isatty()
        self._began = self._said = time.monotonic()
        self._link: Link | None = None
        self._refused: dict[Link, str] = {}
        self._asked: set[Link] = set()
        self.found: list[Found] = []
        self.damaged: list[Damaged] = []
        self.complete = True

    def begin(self, expected: float) -> None:
        """How long it will take at most."""
        kinds = f"{counted(len(self._links), 'setting')}, " if len(self._links) > 1 else ""
        self._say(
            f"{self._bus.link.address}: {kinds}{counted(self._units, 'unit')}: about"
            f" {shown(expected)} at most, the likely ones first; Ctrl-C keeps what was found"
        )

    def tell(self, event: Event) -> None:
        """Something happened."""
        match event:
            case Asked():
                self._asked.add(event.link)
                self._progress(event)
            case Found():
                self.found.append(event)
                self._say(told(event))
            case Refused():
                self._refused[event.link] = event.reason
                self._say(f"{setting(event.link)}: passed over: {event.reason}")
            case Damaged():
                self.damaged.append(event)
                where = f"unit {event.unit} at {setting(event.link)}"
                self._say(f"{where}: {_DOUBTS.get(event.reason, event.reason)}")
            case AnswersToAll():
                self._say(f"the device answers to every unit: {event.unit} was the last asked")

    def _progress(self, event: Asked) -> None:
        if not event.left:
            return
        text = f"{setting(event.link)} unit {event.unit}: {shown(event.left)} to go"
        if self._terminal:
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)
            return
        now = time.monotonic()
        if event.link != self._link or now - self._said >= _LINE_EVERY:
            self._link, self._said = event.link, now
            self._say(text)

    def _say(self, text: str) -> None:
        click.echo(f"\r\x1b[K{text}" if self._terminal else text, err=True)

    def end(self, *, as_json: bool) -> None:
        """Print what was found."""
        if self._terminal:
            click.echo("\r\x1b[K", err=True, nl=False)
        if as_json:
            print_json(self._view())
        elif self.found:
            click.echo(as_yaml(self._bus.name, self.found))

    def _view(self) -> dict[str, Any]:
        return {
            "target": self._bus.link.address,
            "complete": self.complete,
            "seconds": round(time.monotonic() - self._began, 1),
            "settings": [
                {
                    **link_view(link),
                    "state": "refused"
                    if link in self._refused
                    else ("asked" if link in self._asked else "not_asked"),
                    "reason": self._refused.get(link, ""),
                }
                for link in self._links
            ],
            "found": [view(one) for one in self.found],
            "damaged": [
                {**link_view(one.link), "unit": one.unit, "reason": one.reason}
                for one in self.damaged
            ],
        }


# ---------------------------------------------------------------------------------- arguments


def _units(text: str, most: int) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r" *(\d{1,3})(?:\.\.(\d{1,3}))? *", part)
        least = 0 if most == 255 else 1
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (-1, -1)
        if not least <= first <= last <= most:
            message = f"{text}: write 1..20 or 1,2,126, each {least} to {most}"
            raise click.BadParameter(message, param_hint="--units")
        found.update(dict.fromkeys(range(first, last + 1)))
    return tuple(found)


def _baudrates(text: str | None) -> tuple[int, ...]:
    if text is None:
        return BAUDRATES
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 110 <= int(part) <= 4_000_000 for part in parts):
        raise click.BadParameter(f"{text}: write 9600,19200", param_hint="--baudrate")
    return tuple(dict.fromkeys(map(int, parts)))


def _parities(text: str | None) -> tuple[Parity, ...]:
    if text is None:
        return PARITIES
    parts = [part.strip() for part in text.split(",")]
    if not set(parts) <= set(PARITIES):
        raise click.BadParameter(f"{text}: write none,even,odd", param_hint="--parity")
    return tuple(parity for parity in PARITIES if parity in parts)
