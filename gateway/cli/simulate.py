"""`meter-gateway simulate`: simulated meters to practise on, with faults on request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import click
from attrs import frozen

from gateway.cli.faults import FORM, explained, read_fault, read_script
from gateway.cli.output import config_option
from gateway.cli.spans import span
from gateway.config import Library, UnknownProfile, find_path, load
from gateway.config.settings import GatewayConfig
from gateway.errors import GatewayError
from gateway.metering.profile import DeviceProfile
from gateway.metering.settings import MeterSettings
from gateway.modbus.faults import Fault
from gateway.modbus.served import SimulatedEndpoint, SimulatedLine, wall
from gateway.modbus.settings import SerialLink, TcpLink
from gateway.modbus.simulator import SERIAL_NUMBER, SimulatedMeter

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_BAUDRATES: Final = ("1200", "2400", "4800", "9600", "19200", "38400", "57600", "115200")
_FTDI_FIFO: Final = 62


@click.command(epilog=explained())
@config_option
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="NAME[:UNIT][@BAUDRATE]",
    help="A meter of this profile, instead of a configuration's; as often as you like, or `all`.",
)
@click.option("--unit", type=click.IntRange(1, 247), default=1, show_default=True)
@click.option("--tcp", metavar="HOST:PORT", help="Serve the profiles here (loopback).")
@click.option(
    "--framing", type=click.Choice(("tcp", "rtu", "ascii")), help="Else tcp, and rtu on a pty."
)
@click.option("--serial", metavar="LINK", help="Serve the profiles on a pty linked at this path.")
@click.option("--baudrate", type=click.Choice(_BAUDRATES), default="9600", show_default=True)
@click.option(
    "--turnaround",
    callback=span,
    metavar="SPAN",
    help="From the end of a request to its answer. Default: 10ms on a line, 5ms on TCP.",
)
@click.option(
    "--latency",
    callback=span,
    metavar="SPAN",
    help="What an adapter of the line holds bytes back: 16ms for FTDI as it comes.",
)
@click.option(
    "--fifo",
    type=click.IntRange(1, 4096),
    help="Bytes of which an adapter holds none back. Default: 8; with --latency 62, as FTDI.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="FAULT",
    help=f"{FORM}: silent@10s..20s, crc%10, exception=2, late:lift. As often as you like.",
)
@click.option("--script", metavar="FILE", help="More faults, one a line; # begins a comment.")
def simulate(
    config: str | None,
    profiles: tuple[str, ...],
    unit: int,
    tcp: str | None,
    framing: Literal["tcp", "rtu", "ascii"] | None,
    serial: str | None,
    baudrate: str,
    turnaround: int | None,
    latency: int | None,
    fifo: int | None,
    faults: tuple[str, ...],
    script: str | None,
) -> None:
    """Serve simulated meters until interrupted.

    With --profile one meter or several of those models, at one unit after the other from --unit
    on; else every meter of the configuration: TCP buses on loopback, serial buses on a pty that is
    linked at the path of the configuration where that is free. Prints where they are, as YAML to
    paste.
    """
    parsed = [read_fault(text, "--fault") for text in faults] + read_script(script)
    if profiles:
        if serial is not None and tcp is None and framing == "tcp":
            raise click.UsageError("--framing tcp: on a line it is rtu or ascii")
        places = _Places(tcp, framing, serial, int(baudrate))
        scene = _of_profiles(_casts(profiles, unit), places, parsed)
    else:
        scene = _of_config(load(find_path(config), tokens=False).config, parsed)
    scene.pace(turnaround, latency, fifo)
    asyncio.run(scene.serve())


class _Scene:
    """Lines and endpoints, and where each line is to be linked."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, SimulatedLine, Path | None]] = []
        self.endpoints: list[tuple[str, SimulatedEndpoint]] = []
        self.meters: list[str] = []
        """YAML to paste for those that are in no configuration."""

    def pace(self, turnaround: int | None, latency: int | None, fifo: int | None) -> None:
        """Milliseconds that meters and adapters take, and bytes that an adapter holds."""
        for _, line, _ in self.lines:
            if turnaround is not None:
                line.turnaround = turnaround / 1000
            if latency:
                line.latency, line.fifo = latency / 1000, _FTDI_FIFO
            if fifo is not None:
                line.fifo = fifo
        for _, endpoint in self.endpoints:
            if turnaround is not None:
                endpoint.turnaround = turnaround / 1000

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
                framing = "" if line.link.framing == "rtu" else f", framing: {line.link.framing}"
                baudrate = line.link.baudrate
                where.append(f"  {name}: {{serial: {path}, baudrate: {baudrate}{framing}}}")
            for name, endpoint in self.endpoints:
                port = await _listening(endpoint)
                host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
                framing = "" if endpoint.framing == "tcp" else f", framing: {endpoint.framing}"
                where.append(f'  {name}: {{tcp: "{host}:{port}"{framing}}}')
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


@frozen
class _Cast:
    """A meter to be simulated."""

    name: str
    profile: DeviceProfile
    unit: int
    baudrate: int | None


@frozen
class _Places:
    """Where profiles are served."""

    tcp: str | None
    framing: Literal["tcp", "rtu", "ascii"] | None
    serial: str | None
    baudrate: int


def _casts(texts: Sequence[str], unit: int) -> list[_Cast]:
    library = Library(None)
    found: list[_Cast] = []
    for text in library.names() if tuple(texts) == ("all",) else texts:
        match = _PROFILE.fullmatch(text)
        if match is None or (match["baud"] and match["baud"] not in _BAUDRATES):
            rates = ", ".join(_BAUDRATES)
            message = f"{text}: write NAME[:UNIT][@BAUDRATE]; baud rates: {rates}"
            raise click.BadParameter(message, param_hint="--profile")
        try:
            profile = library.get(match["name"])
        except UnknownProfile as unknown:
            hint = unknown.suggestion or "`meter-gateway profiles list` shows them"
            raise GatewayError(str(unknown), hint=hint) from None
        unit = int(match["unit"] or unit)
        if not 1 <= unit <= 247:
            raise click.BadParameter(f"{text}: units are 1 to 247", param_hint="--profile")
        again = sum(cast.profile is profile for cast in found)
        name = f"{profile.name}-{again + 1}" if again else profile.name
        found.append(_Cast(name, profile, unit, int(match["baud"]) if match["baud"] else None))
        unit += 1
    return found


def _of_profiles(
    casts: Sequence[_Cast], places: _Places, faults: Sequence[tuple[str, Fault]]
) -> _Scene:
    known = [cast.name for cast in casts]
    _check_names(known, faults)
    meters = [
        _meter(
            cast.profile,
            cast.unit,
            cast.name,
            faults,
            baudrate=cast.baudrate,
            serial_number=str(int(SERIAL_NUMBER) + number),
        )
        for number, cast in enumerate(casts)
    ]
    scene = _Scene()
    tcp, serial = places.tcp, places.serial
    bus = "line" if serial is not None else "meter"
    scene.meters = ["meters:"] + [
        f"  - {{name: {c.name}, bus: {bus}, unit: {c.unit}, profile: {c.profile.name}}}"
        for c in casts
    ]
    if serial is not None:
        framing: Literal["rtu", "ascii"] = "ascii" if places.framing == "ascii" else "rtu"
        line = SimulatedLine(meters, SerialLink(serial, places.baudrate, framing=framing))
        scene.lines.append(("line", line, Path(serial)))
    if tcp is not None or serial is None:
        host, _, port = (tcp or "127.0.0.1:0").rpartition(":")
        if host not in _LOOPBACK or not port.isdecimal() or int(port) > 65_535:
            raise click.UsageError(f"--tcp {tcp}: write 127.0.0.1:5020; loopback only")
        endpoint = SimulatedEndpoint(
            meters, framing=places.framing or "tcp", host=host, port=int(port)
        )
        scene.endpoints.append(("meter", endpoint))
    return scene


def _of_config(config: GatewayConfig, faults: Sequence[tuple[str, Fault]]) -> _Scene:
    _check_names([meter.name for meter in config.meters], faults)
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
    serial = settings.serial_number or SERIAL_NUMBER
    return _meter(settings.profile, settings.unit, settings.name, faults, serial_number=serial)


def _check_names(known: Sequence[str], faults: Sequence[tuple[str, Fault]]) -> None:
    for name, _ in faults:
        if name and name not in known:
            hint = f"one of {', '.join(sorted(known))}"
            raise GatewayError(f'--fault: no meter is named "{name}"', hint=hint)


def _meter(
    profile: DeviceProfile,
    unit: int,
    name: str,
    faults: Sequence[tuple[str, Fault]],
    *,
    baudrate: int | None = None,
    serial_number: str,
) -> SimulatedMeter:
    mine = [fault for of, fault in faults if of in ("", name)]
    try:
        return SimulatedMeter(
            profile, unit, wall(), serial_number=serial_number, faults=mine, baudrate=baudrate
        )
    except ValueError as error:
        raise GatewayError(f"{name}: {error}", hint="another serial number") from error


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


_PROFILE: Final = re.compile(r"(?P<name>[^:@]+)(:(?P<unit>\d{1,3}))?(@(?P<baud>\d+))?")
