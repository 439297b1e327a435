"""The part of the configuration under `meters`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from gateway.config import keys
from gateway.config.document import Node, Scalar
from gateway.config.entries import Rest, read_send, report_missing
from gateway.config.fields import Fields, items, table
from gateway.config.library import UnknownProfile
from gateway.config.measures import power
from gateway.config.report import Report, Span, did_you_mean, quoted
from gateway.config.values import (
    boolean,
    decimal,
    integer,
    listed,
    name,
    positive,
    text,
)
from gateway.energinet.settings import SenderSettings
from gateway.errors import ConfigurationError
from gateway.metering.profile import DeviceProfile
from gateway.metering.settings import MeterSettings

_OTHER: Final = "give one of them another name"


def read_meters(of: Rest, node: Node | None, at: Span) -> tuple[MeterSettings, ...]:
    """Every meter that could be read."""
    nodes = items(of.report, node, "meters") if node is not None else None
    if nodes == ():
        of.report.warning(at, "meters: there is no meter yet", "`profiles list` shows the models")
    found: list[MeterSettings] = []
    names: dict[str, Span] = {}
    units: dict[tuple[str, int], tuple[str, str, Span]] = {}
    for entry in nodes or ():
        body = table(of.report, entry, "a meter")
        if body is None:
            continue
        own = next((v for k, v in body.entries if k.text == "name"), None)
        what = f"meter {quoted(own.text)}" if isinstance(own, Scalar) else "a meter"
        fields = Fields(of.report, body, what, keys.METER, elsewhere=keys.BELONGS)
        meter, title = _meter(of, fields)
        if title in names:
            fields.error("name", f"meter {quoted(title)} stands twice", _OTHER, first=names[title])
        elif title:
            warn_of_capitals(of.report, "meter", title, names, fields.at_value("name"))
            names[title] = fields.at_value("name")
        if meter is not None:
            _refuse_same_unit(of.report, fields, meter, units)
            found.append(meter)
    report_missing(of)
    return tuple(found)


def warn_of_capitals(report: Report, kind: str, own: str, names: Iterable[str], at: Span) -> None:
    """Warn of a name that differs from another only in its capitals."""
    for other in names:
        if other.casefold() == own.casefold():
            message = f"{kind} {quoted(own)} differs from {quoted(other)} only in its capitals"
            report.warning(at, message, _OTHER)


def _meter(of: Rest, fields: Fields) -> tuple[MeterSettings | None, str]:
    own = fields.require("name", name, "", example="name: main-supply")
    bus = fields.require("bus", name, "", example="bus: NAME, one of those under `buses`")
    draft = of.buses.get(bus)
    if draft is None and of.buses and fields.sound("bus"):
        hint = did_you_mean(bus, of.buses) or f"buses: {', '.join(of.buses)}"
        fields.error("bus", f"bus: there is no bus {quoted(bus)}", hint)
    if draft is not None and draft.most_unit == 247:
        units = integer(1, 247, "a line has at most 247 units")
    else:
        units = integer(0, 255)
    unit = fields.require("unit", units, 1, example="unit: 1, the meter's address on the bus")
    profile = _profile(of, fields)
    sender = _sender(of, fields, own)
    send = read_send(
        of, fields, profile, sender, draft, integrate=fields.get("integrate", boolean, False)
    )
    meter = MeterSettings(
        name=own,
        bus=bus,
        unit=unit,
        profile=profile or DeviceProfile("", "", "", "electricity", ()),
        send=send,
        multiplier=fields.get("multiplier", positive(decimal), Decimal(1)),
        serial_number=_serial_number(fields, profile),
        max_power=fields.get("max_power", power, None),
    )
    usable = profile is not None and fields.sound(*keys.METER)
    return (meter if usable else None), own


def _serial_number(fields: Fields, profile: DeviceProfile | None) -> str | None:
    found = fields.get("serial_number", text, None)
    if found is None or profile is None:
        return found
    if not any(one.what == "serial_number" for one in profile.identity):
        message = f"serial_number: {profile.name} does not say where the meter has its number"
        fields.error("serial_number", message, "leave it out: it cannot be checked")
    return found


def _profile(of: Rest, fields: Fields) -> DeviceProfile | None:
    own = fields.require("profile", text, "", example="`meter-gateway profiles list` shows them")
    if not fields.sound("profile"):
        return None
    try:
        return of.library.get(own)
    except UnknownProfile as unknown:
        fields.spoil("profile")
        if of.all_profiles:
            hint = unknown.suggestion or "`meter-gateway profiles list` shows them"
            fields.error("profile", f"profile: there is no profile {quoted(own)}", hint)
    except ConfigurationError as error:
        of.report.absorb(error.mistakes)
        fields.spoil("profile")
    return None


def _sender(of: Rest, fields: Fields, meter: str) -> SenderSettings | None:
    own = fields.get("sender", name, "")
    group = fields.get("import", name, "")
    if not of.senders or not fields.sound("sender", "import"):
        return None
    names = [sender.name for sender in of.senders]
    if "sender" in fields and "import" in fields:
        fields.error("import", "import: a meter has a sender or an import, not both")
    elif "sender" in fields:
        for sender in of.senders:
            if sender.name == own:
                return sender
        hint = did_you_mean(own, names) or f"senders: {', '.join(names)}"
        fields.error("sender", f"sender: there is no sender {quoted(own)}", hint)
    elif "import" in fields:
        among = [sender for sender in of.senders if sender.import_name == group]
        if among:
            return spread(meter, among)
        imports = sorted({sender.import_name for sender in of.senders} - {""})
        hint = did_you_mean(group, imports) or f"imports: {', '.join(imports) or 'none'}"
        fields.error("import", f"import: no sender has the import {quoted(group)}", hint)
    elif len(of.senders) == 1:
        return of.senders[0]
    else:
        fields.missing(
            "sender",
            f"write sender: {listed(names[:5])}",
            f"{fields.what} needs a sender: there are {len(names)}",
        )
    return None


def spread(meter: str, senders: Sequence[SenderSettings]) -> SenderSettings:
    """The sender of a meter among those of its import (rendezvous hashing).

    It depends on the names alone; a sender more takes over its share and moves no other meter.
    """

    def weight(sender: SenderSettings) -> bytes:
        return hashlib.sha256(f"{sender.name}\n{meter}".encode("utf-8", "replace")).digest()

    return max(senders, key=weight)


def _refuse_same_unit(
    report: Report,
    fields: Fields,
    meter: MeterSettings,
    units: dict[tuple[str, int], tuple[str, str, Span]],
) -> None:
    place = meter.bus, meter.unit
    at = fields.at_value("unit")
    if place not in units:
        units[place] = meter.name, meter.profile.name, at
        return
    other, profile, first = units[place]
    message = f"unit {meter.unit} of bus {quoted(meter.bus)} is that of meter {quoted(other)}"
    if profile == meter.profile.name:
        report.error(at, message, "each meter of a bus has a unit of its own", first=first)
    else:
        report.warning(at, message, "right only where one unit answers for both", first=first)
