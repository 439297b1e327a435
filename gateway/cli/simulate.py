"""`meter-gateway simulate`: simulated meters to practise on, with faults on request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from gateway.cli.output import config_option
from gateway.clock import Millis
from gateway.config import Library, UnknownProfile, find_path, load
from gateway.config.settings import GatewayConfig
from gateway.errors import GatewayError
from gateway.metering.settings import MeterSettings
from gateway.modbus.served import SimulatedEndpoint, SimulatedLine, wall
from gateway.modbus.settings import SerialLink, TcpLink
from gateway.modbus.simulator import FAULTS, Fault, SimulatedMeter

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_BAUDRATES: Final = ("1200", "2400", "4800", "9600", "19200", "38400", "57600", "115200")


@click.command()
@config_option
@click.option("--profile", help="One meter of this profile, instead of a configuration's.")
@click.option("--unit", type=click.IntRange(1, 247), default=1, show_default=True)
@click.option("--tcp", metavar="HOST:PORT", help="Serve the profile here (loopback).")
@click.option("--serial", metavar="LINK", help="Serve the profile on a pty linked at this path.")
@click.option("--baudrate", type=click.Choice(_BAUDRATES), default="9600", show_default=True)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="FAULT",
    help="KIND[:METER][@FROM..TO][%RATE], such as silent@10s..20s, crc%10 or late:lift."
    f" Kinds: {', '.join(FAULTS)}.",
)
def simulate(
    config: str | None,
    profile: str | None,
    unit: int,
    tcp: str | None,
    serial: str | None,
    baudrate: str,
    faults: tuple[str, ...],
) -> None:
    """Serve simulated meters until interrupted.

    With --profile one meter of that model, else every meter of the configuration: TCP buses on
    loopback, serial buses on a pty that is linked at the path of the configuration where that is
    free. Prints where they are, as YAML to paste.
    """
    parsed = [_fault(text) for text in faults]
    if profile is not None:
        scene = _of_profile(profile, unit, tcp, serial, int(baudrate), parsed)
    else:
        scene = _of_config(load(find_path(config), tokens=False).config, parsed)
    asyncio.run(scene.serve())


class _Scene:
    """Lines and endpoints, and where each line is to be linked."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, SimulatedLine, Path | None]] = []
        self.endpoints: list[tuple[str, SimulatedEndpoint]] = []
        self.meters: list[str] = []
        """YAML to paste for those that are in no configuration."""

    async def serve(self) -> None:
        """Until SIGINT or SIGTERM."""
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        links: list[Path] = []
        try:
            where = ["buses:"]
            for name, line, link in self.lines:
                path = line.open()
                if link is not None and _linked(link, path):
                    links.append(link)
                    path = str(link)
                elif link is not None:
                    click.echo(f"{link} cannot be made a link: {name} is at {path}", err=True)
                where.append(f"  {name}: {{serial: {path}, baudrate: {line.link.baudrate}}}")
            for name, endpoint in self.endpoints:
                port = await _listening(endpoint)
                host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
                where.append(f'  {name}: {{tcp: "{host}:{port}"}}')
            click.echo("\n".join([*where, *self.meters]))
            click.echo("serving; end with Ctrl-C", err=True)
            await ended.wait()
        finally:
            for link in links:
                with contextlib.suppress(OSError):
                    link.unlink()
            for _, line, _ in self.lines:
                line.close()
            for _, endpoint in self.endpoints:
                await endpoint.close()


async def _listening(endpoint: SimulatedEndpoint) -> int:
    try:
        return await endpoint.open()
    except OSError as error:
        where = f"{endpoint.host}:{endpoint.port}"
        what = os.strerror(error.errno) if error.errno else str(error)
        raise GatewayError(f"{where}: {what}", hint="serve on another port") from error


def _linked(link: Path, path: str) -> bool:
    if link.is_symlink() and not link.exists():
        link.unlink()  # left by a simulation that was killed
    try:
        link.symlink_to(path)
    except OSError:
        return False
    return True


def _of_profile(
    name: str,
    unit: int,
    tcp: str | None,
    serial: str | None,
    baudrate: int,
    faults: Sequence[tuple[str, Fault]],
) -> _Scene:
    library = Library(None)
    try:
        profile = library.get(name)
    except UnknownProfile as unknown:
        hint = unknown.suggestion or "`meter-gateway profiles list` shows them"
        raise GatewayError(str(unknown), hint=hint) from None
    if any(of for of, _ in faults):
        raise click.UsageError("--fault: there is one meter, leave its name out")
    meter = SimulatedMeter(profile, unit, wall(), faults=[fault for _, fault in faults])
    scene = _Scene()
    bus = "line" if serial is not None else "meter"
    scene.meters = ["meters:", f"  - {{name: {name}, bus: {bus}, unit: {unit}, profile: {name}}}"]
    if serial is not None:
        line = SimulatedLine([meter], SerialLink(serial, baudrate))
        scene.lines.append(("line", line, Path(serial)))
    if tcp is not None or serial is None:
        host, _, port = (tcp or "127.0.0.1:0").rpartition(":")
        if host not in _LOOPBACK or not port.isdecimal() or int(port) > 65_535:
            raise click.UsageError(f"--tcp {tcp}: write 127.0.0.1:5020; loopback only")
        scene.endpoints.append(("meter", SimulatedEndpoint([meter], host=host, port=int(port))))
    return scene


def _of_config(config: GatewayConfig, faults: Sequence[tuple[str, Fault]]) -> _Scene:
    known = {meter.name for meter in config.meters}
    for name, _ in faults:
        if name and name not in known:
            hint = f"one of {', '.join(sorted(known))}"
            raise GatewayError(f'--fault: no meter is named "{name}"', hint=hint)
    scene = _Scene()
    for bus in config.buses:
        meters = [_simulated(m, faults) for m in config.meters if m.bus == bus.name]
        if isinstance(bus.link, SerialLink):
            if str(bus.link.baudrate) not in _BAUDRATES:
                raise GatewayError(
                    f"bus {bus.name}: a line at {bus.link.baudrate} baud is not simulated",
                    hint=f"one of {', '.join(_BAUDRATES)} in a copy of the configuration",
                )
            scene.lines.append((bus.name, SimulatedLine(meters, bus.link), Path(bus.link.path)))
        else:
            scene.endpoints.append((bus.name, _endpoint(bus.link, meters)))
    return scene


def _simulated(settings: MeterSettings, faults: Sequence[tuple[str, Fault]]) -> SimulatedMeter:
    mine = [fault for name, fault in faults if name in ("", settings.name)]
    serial = settings.serial_number or "12345678"
    return SimulatedMeter(
        settings.profile, settings.unit, wall(), serial_number=serial, faults=mine
    )


def _endpoint(link: TcpLink, meters: Sequence[SimulatedMeter]) -> SimulatedEndpoint:
    if link.framing == "tls":
        raise GatewayError(
            "framing tls is not simulated: it needs a certificate of the server",
            hint="write framing: tcp in a copy of the configuration",
        )
    here = link.host in _LOOPBACK
    host, port = (link.host, link.port) if here else ("127.0.0.1", 0)
    if here and port < 1024 and os.geteuid() != 0:
        port = 0
    return SimulatedEndpoint(meters, framing=link.framing, host=host, port=port)


_FAULT = re.compile(
    r"(?P<kind>[a-z_]+)(:(?P<meter>[^@%]+))?(@(?P<start>\d+)s?\.\.((?P<end>\d+)s?)?)?"
    r"(%(?P<rate>\d+))?"
)


def _fault(text: str) -> tuple[str, Fault]:
    """The meter it is for ("" for all), and the fault."""
    match = _FAULT.fullmatch(text)
    if match is None or match["kind"] not in FAULTS:
        kinds = ", ".join(FAULTS)
        raise click.BadParameter(
            f"{text}: write KIND[:METER][@FROM..TO][%RATE]; kinds: {kinds}", param_hint="--fault"
        )
    start: Millis = int(match["start"] or 0) * 1000
    end = int(match["end"]) * 1000 if match["end"] else None
    rate = int(match["rate"]) / 100 if match["rate"] else 1.0
    return match["meter"] or "", Fault(match["kind"], start, end, rate)
