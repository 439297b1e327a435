"""The whole gateway.yaml: read, checked, and turned into the types of the rooms below."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from gateway.buffer.settings import BufferSettings
from gateway.clock import DAY
from gateway.config import keys
from gateway.config.addresses import fixed, zone
from gateway.config.buses import read_buses, settled
from gateway.config.document import Node, Table, compose, read_text
from gateway.config.entries import Rest, read_defaults
from gateway.config.fields import EMPTY, Fields, table
from gateway.config.files import Place, existing_folder, resolved
from gateway.config.library import Library
from gateway.config.measures import duration, size
from gateway.config.meters import read_meters
from gateway.config.report import Report, Span, quoted
from gateway.config.senders import read_energinet
from gateway.config.settings import ClockSettings, GatewayConfig, LogSettings
from gateway.config.values import boolean, choice
from gateway.errors import Mistake

DEFAULT_PATH: Final = Path("/etc/meter-gateway/gateway.yaml")


@frozen
class Loaded:
    """A configuration that can be used, and what a person should look at nevertheless."""

    config: GatewayConfig
    warnings: tuple[Mistake, ...] = ()


def find_path(option: str | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the configuration is: the option, METER_GATEWAY_CONFIG, or the usual place."""
    return Path(option or environment.get("METER_GATEWAY_CONFIG") or DEFAULT_PATH)


def load(path: Path, *, environment: Mapping[str, str] = os.environ, tokens: bool = True) -> Loaded:
    """Read one configuration.

    tokens: must they be there? Commands that send nothing may pass False. Raises
    ConfigurationError with every mistake found.
    """
    text = read_text(path)
    report = Report(path, text)
    root = compose(text, report)
    config = _read(report, root, path, Place(path.absolute().parent, environment, tokens))
    report.raise_if_failed()
    return Loaded(config, report.warnings())


def own_profiles(path: Path) -> Path | None:
    """The folder under `profiles` of a configuration, which is not judged otherwise.

    Raises ConfigurationError where the file is not YAML or has no such folder.
    """
    text = read_text(path)
    report = Report(path, text)
    root = compose(text, report)
    if not isinstance(root, Table):
        return None
    only = Table(tuple(entry for entry in root.entries if entry[0].text == "profiles"), root.span)
    fields = Fields(Report(path, text), only, "the configuration", keys.ROOT)
    own = fields.get("profiles", existing_folder(path.absolute().parent), None)
    fields.report.raise_if_failed()
    return own


def buffer_path(path: Path) -> str:
    """Where the buffer of a configuration is, which is not judged otherwise.

    Raises ConfigurationError where the file is not YAML.
    """
    text = read_text(path)
    report = Report(path, text)
    root = compose(text, report)
    body = root if isinstance(root, Table) else EMPTY
    fields = Fields(report, body, "the configuration", keys.ROOT)
    return _buffer(fields, Place(path.absolute().parent, {})).path


def _read(report: Report, root: Node | None, path: Path, place: Place) -> GatewayConfig:
    top = Span(1, 1, 1, 1)
    body = EMPTY
    if root is None:
        report.error(top, "the file is empty", "a configuration has timezone, energinet, …")
        body = Table((), top, complete=False)
    else:
        found = table(report, root, "the configuration")
        body = found if found is not None else Table((), top, complete=False)
    fields = Fields(report, body, "the configuration", keys.ROOT, elsewhere=keys.BELONGS)
    zone_name = fields.require("timezone", zone, "UTC", example="timezone: Europe/Oslo")
    if (told := fixed(zone_name)) and fields.sound("timezone"):
        report.warning(fields.at_value("timezone"), f"timezone: {told}", "such as Europe/Oslo")
    energinet = read_energinet(report, fields.node("energinet"), fields.at_key("energinet"), place)
    drafts = read_buses(report, fields.node("buses"), fields.at_key("buses"), place)
    own = fields.get("profiles", existing_folder(place.folder), None)
    library = Library(own)
    for file, right in library.misnamed():
        message = f"profiles: {quoted(file.name)} is not read: no profile can have this name"
        report.warning(fields.at_value("profiles"), message, f"rename it to {right}")
    rest = Rest(
        report=report,
        buses=drafts,
        senders=energinet.senders,
        defaults=read_defaults(report, fields.node("defaults"), fields.at_key("defaults")),
        library=library,
        all_profiles=fields.sound("profiles"),
    )
    meters = read_meters(rest, fields.node("meters"), fields.at_key("meters"))
    report.absorb(library.warnings)
    for key in ("energinet", "buses", "meters"):
        if key not in fields and key not in report.misplaced:
            fields.missing(key)
    buses = tuple(
        settled(draft, [m.profile for m in meters if m.bus == name])
        for name, draft in drafts.items()
    )
    return GatewayConfig(
        path=path,
        timezone=zone_name,
        energinet=energinet,
        buses=buses,
        meters=meters,
        buffer=_buffer(fields, place),
        clock=_clock(fields),
        log=_log(fields),
        profiles=own,
    )


def _section(fields: Fields, key: str, known: tuple[str, ...]) -> Fields:
    node = fields.node(key)
    body = table(fields.report, node, f"`{key}`") if node is not None else None
    at = fields.at_key(key)
    return Fields(fields.report, body or EMPTY, f"`{key}`", known, at=at, elsewhere=keys.BELONGS)


def _buffer(fields: Fields, place: Place) -> BufferSettings:
    inner = _section(fields, "buffer", keys.BUFFER)
    default = BufferSettings()
    return BufferSettings(
        path=inner.get("path", resolved(place.folder), default.path),
        keep=inner.get("keep", duration(DAY, 3660 * DAY), default.keep),
        max_size=inner.get("max_size", size(1_000_000, 10**15), default.max_size),
    )


def _clock(fields: Fields) -> ClockSettings:
    inner = _section(fields, "clock", keys.CLOCK)
    return ClockSettings(inner.get("assume_synchronised", boolean, False))


def _log(fields: Fields) -> LogSettings:
    inner = _section(fields, "log", keys.LOG)
    return LogSettings(
        format=inner.get("format", choice("auto", "logfmt", "json"), "auto"),
        level=inner.get("level", choice("error", "warning", "info", "debug"), "info"),
    )
