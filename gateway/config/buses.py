"""The part of the configuration under `buses`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve, frozen

from gateway.clock import DAY, MINUTE, SECOND
from gateway.config import keys
from gateway.config.addresses import host_port
from gateway.config.document import Node, Scalar
from gateway.config.fields import Fields, table
from gateway.config.files import Place, existing_file, resolved
from gateway.config.measures import duration
from gateway.config.report import Report, Span, did_you_mean, quoted
from gateway.config.values import Reader, Wrong, boolean, choice, integer, name
from gateway.metering.profile import DeviceProfile
from gateway.modbus.settings import BusSettings, SerialLink, TcpLink, Tls

BAUDRATES: Final = (
    300, 600, 1200, 2400, 4800, 9600, 14400, 19200, 28800, 38400, 57600, 76800, 115200, 230400,
    460800, 921600,
)  # fmt: skip
Parity: TypeAlias = Literal["none", "even", "odd"]

_SETTABLE: Final = ("baudrate", "parity", "stopbits")


@frozen
class Draft:
    """A bus whose serial settings may still come from the profiles of its meters."""

    settings: BusSettings
    fields: Fields
    given: frozenset[str]
    """Which of baudrate, parity and stopbits the file says."""

    @property
    def most_unit(self) -> int:
        """The largest unit that can be addressed; one of 0 to 255 only in Modbus TCP."""
        return 255 if self.settings.link.framing in ("tcp", "tls") else 247


def read_buses(report: Report, node: Node | None, at: Span, place: Place) -> dict[str, Draft]:
    """Every bus by its name; those that could not be read are left out."""
    body = table(report, node, "buses") if node is not None else None
    if body is None:
        return {}
    if not body.entries and body.complete:
        report.error(at, "buses: at least one bus is needed")
    found: dict[str, Draft] = {}
    for key, value in body.entries:
        if key.text in keys.ROOT and not isinstance(value, Scalar):
            message = f"{quoted(key.text)} stands inside buses, and belongs to the top of the file"
            report.error(key.span, message, "begin it at the left edge")
            report.misplaced.add(key.text)
            continue
        try:
            own = name(key)
        except Wrong as wrong:
            report.error(key.span, f"the name of a bus: {wrong.message}")
            continue
        entry = table(report, value, f"bus {quoted(own)}")
        if entry is None:
            continue
        written = [each.text for each, _ in entry.entries]
        links = tuple(kind for kind in ("serial", "tcp") if kind in written)
        allowed: tuple[str, ...] = keys.SERIAL + keys.TCP + keys.BUS
        if len(links) == 1:
            allowed = (keys.SERIAL if links == ("serial",) else keys.TCP) + keys.BUS
        what = f"bus {quoted(own)}"
        fields = Fields(report, entry, what, allowed, at=key.span, elsewhere=keys.BELONGS)
        found[own] = _bus(own, fields, links, place)
    _refuse_same_link(report, found.values())
    return found


def _bus(own: str, fields: Fields, links: tuple[str, ...], place: Place) -> Draft:
    link: SerialLink | TcpLink
    if links == ("tcp",):
        link = _tcp(fields, place)
    elif links == ("serial",):
        link = _serial(fields, place)
    else:
        if links:
            fields.error("tcp", f"bus {quoted(own)} has serial and tcp: it can be only one of them")
        elif fields.sound("serial", "tcp"):
            hint = "serial: /dev/serial/by-id/… or tcp: 192.168.10.20:502"
            fields.missing("serial", hint, f'bus {quoted(own)} needs "serial" or "tcp"')
        fields.spoil("serial", "tcp")
        link = TcpLink("localhost")
    settings = BusSettings(
        name=own,
        link=link,
        poll=fields.get("poll", duration(SECOND, DAY), MINUTE),
        timeout=fields.get("timeout", duration(50, MINUTE), SECOND),
        retries=fields.get("retries", integer(0, 10), 2),
        pause=fields.get("pause", duration(0, 10 * SECOND), 0),
        pause_after_open=fields.get("pause_after_open", duration(0, MINUTE), 0),
    )
    return Draft(settings, fields, frozenset(key for key in _SETTABLE if key in fields))


def _serial(fields: Fields, place: Place) -> SerialLink:
    path = fields.get("serial", resolved(place.folder), "")
    if fields.sound("serial"):
        _look_at_port(fields, path)
    baudrate = fields.get("baudrate", integer(110, 4_000_000), 9600)
    warn_of_rate(fields, baudrate)
    return SerialLink(
        path=path,
        baudrate=baudrate,
        parity=fields.get("parity", parity, "none"),
        stopbits=fields.get("stopbits", integer(1, 2), 1),
        framing=fields.get("framing", choice("rtu", "ascii"), "rtu"),
        echo=fields.get("echo", boolean, False),
        rs485=fields.get("rs485", boolean, False),
    )


def warn_of_rate(fields: Fields, baudrate: int | None) -> None:
    """Warn of a baud rate that hardly any line has."""
    if baudrate not in (None, *BAUDRATES):
        message = f"baudrate: {baudrate} is not a usual rate"
        hint = did_you_mean(str(baudrate), map(str, BAUDRATES))
        fields.report.warning(fields.at_value("baudrate"), message, hint)


def parity(node: Node) -> Parity:
    """none, even or odd."""
    found = node.text if isinstance(node, Scalar) else ""
    if match := re.fullmatch("8([NEO])([12])", found):
        word = {"N": "none", "E": "even", "O": "odd"}[match[1]]
        raise Wrong(
            f"{quoted(found)} says more than the parity", f"{word}, with stopbits: {match[2]}"
        )
    read: Reader[Parity] = choice("none", "even", "odd")
    return read(node)


def _look_at_port(fields: Fields, path: str) -> None:
    """Warn of a port that is not there, or whose name changes when it is plugged in again."""
    at, report = fields.at_value("serial"), fields.report
    if not os.path.exists(path):
        folder = Path(path).parent
        there = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        if folder == Path("/dev"):
            there = []  # its names are all alike
        hint = did_you_mean(Path(path).name, there) or "ls /dev/serial/by-id shows what is there"
        device = Path("/dev") / Path(path).name
        if folder != Path("/dev") and re.fullmatch("(tty|serial)[A-Za-z]*[0-9]+", device.name):
            hint = f'did you mean "{device}"?'
        if re.fullmatch("COM[0-9]+", device.name, re.IGNORECASE):
            hint = "that is its name on Windows; ls /dev/serial/by-id shows those here"
        report.warning(at, f"serial: {path} is not there now", hint)
    if path.startswith(("/dev/ttyUSB", "/dev/ttyACM")):
        message = f"serial: {path} may get another name when it is plugged in again"
        report.warning(at, message, f"write {_stable_name(path) or '/dev/serial/by-id/…'}")


def _stable_name(path: str) -> str | None:
    for folder in (Path("/dev/serial/by-id"), Path("/dev/serial/by-path")):
        for link in sorted(folder.iterdir()) if folder.is_dir() else ():
            if os.path.realpath(link) == os.path.realpath(path):
                return str(link)
    return None


def _tcp(fields: Fields, place: Place) -> TcpLink:
    host, port = fields.get("tcp", host_port, ("localhost", 502))
    framing: Literal["tcp", "rtu", "ascii", "tls"]
    framing = fields.get("framing", choice("tcp", "rtu", "ascii", "tls"), "tcp")
    tls = _tls(fields, place)
    if tls is not None and framing != "tls" and fields.sound("framing"):
        fields.error("tls", "tls: these files need framing: tls", "write framing: tls")
    disconnect: Literal["never", "after_round"]
    disconnect = fields.get("disconnect", choice("never", "after_round"), "never")
    return TcpLink(host, port, framing, disconnect, tls)


def _tls(fields: Fields, place: Place) -> Tls | None:
    node = fields.node("tls")
    body = table(fields.report, node, "tls") if node is not None else None
    if body is None:
        return None
    at = fields.at_key("tls")
    inner = Fields(fields.report, body, "tls", keys.TLS, at=at, elsewhere=keys.BELONGS)
    read = existing_file(place.folder)
    tls = Tls(*(inner.get(key, read, None) for key in ("ca", "certificate", "key")))
    for one, other in (("certificate", "key"), ("key", "certificate")):
        if one in inner and other not in inner:
            inner.missing(other, message=f"tls: {one} needs {other} beside it")
    return tls


def _refuse_same_link(report: Report, drafts: Iterable[Draft]) -> None:
    seen: dict[object, tuple[str, Span]] = {}
    for draft in drafts:
        link, own = draft.settings.link, quoted(draft.settings.name)
        if not draft.fields.sound("serial", "tcp"):
            continue
        if isinstance(link, SerialLink):
            at, key = draft.fields.at_value("serial"), os.path.realpath(link.path)
            if key in seen:
                other, first = seen[key]
                message = f"serial: bus {own} has the port of bus {other}"
                report.error(at, message, "put all meters of a line under one bus", first=first)
        else:
            at, key = draft.fields.at_value("tcp"), f"{link.host.casefold()}:{link.port}"
            if key in seen:
                other, first = seen[key]
                message = f"tcp: bus {own} has the address of bus {other}"
                report.warning(at, message, "many gateways take one connection", first=first)
        seen.setdefault(key, (own, at))


def settled(draft: Draft, profiles: Iterable[DeviceProfile]) -> BusSettings:
    """The bus with the serial settings its file leaves open taken from its meters' profiles."""
    link = draft.settings.link
    if not isinstance(link, SerialLink):
        return draft.settings
    used = {profile.name: profile.serial for profile in profiles}
    told: dict[str, Any] = {}
    for key in _SETTABLE:
        said = {getattr(serial, key) for serial in used.values()} - {None}
        if key in draft.given or not said:
            continue
        if len(said) == 1:
            told[key] = said.pop()
            continue
        default = getattr(link, key)
        message = (
            f"the meters of bus {quoted(draft.settings.name)} differ in {key} as they leave the "
            f"factory ({', '.join(sorted(map(str, said)))}): {default} is taken"
        )
        draft.fields.report.warning(draft.fields.at, message, f"write {key}: here")
    return evolve(draft.settings, link=evolve(link, **told))
