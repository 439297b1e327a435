"""What is sent of a meter: the entries under `send`, and `defaults`, which holds for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import field, frozen

from gateway.clock import DAY, HOUR, MINUTE, SECOND, Millis
from gateway.config import keys
from gateway.config.buses import Draft
from gateway.config.document import Node, Scalar
from gateway.config.fields import EMPTY, Fields, items, table
from gateway.config.library import Library
from gateway.config.measures import duration, show_duration
from gateway.config.report import Report, Span, did_you_mean, quoted
from gateway.config.values import (
    Reader,
    Wrong,
    choice,
    meter_id,
    text,
)
from gateway.energinet.settings import SenderSettings
from gateway.metering.profile import DeviceProfile
from gateway.metering.quantity import QUANTITIES, integrand
from gateway.metering.reading import AS, As, SeriesKey
from gateway.metering.settings import GapRule, SendSettings

_SUMMARIES: Final = ("mean", "minimum", "maximum")
_CHOICES: Final = (
    "counter: the total that the meter shows; consumption: how far that total went up during "
    "the interval; mean, minimum, maximum, last: of the polls of an interval"
)

_OTHERWISE: Final[Mapping[str, As]] = {
    "average": "mean", "avg": "mean", "delta": "consumption", "difference": "consumption",
    "usage": "consumption", "energy": "consumption", "total": "counter", "index": "counter",
    "reading": "counter", "meter": "counter", "instant": "last", "actual": "last",
}  # fmt: skip


@frozen
class Defaults:
    """`defaults`: what holds for every entry under `send`."""

    every: Millis | None
    as_: As | None
    gap: GapRule
    sound: frozenset[str]
    """Those of the keys whose value could be read, or that were left out."""


def read_defaults(report: Report, node: Node | None, at: Span) -> Defaults:
    """The whole of `defaults`."""
    body = table(report, node, "defaults") if node is not None else EMPTY
    if body is None:
        return Defaults(None, None, "return", frozenset())
    fields = Fields(report, body, "defaults", keys.DEFAULTS, at=at, elsewhere=keys.BELONGS)
    every = fields.get("every", interval, 0)
    as_ = fields.get("as", kind_of_value, None)
    gap: GapRule = fields.get("gap", choice("return", "spread", "skip"), "return")
    sound = frozenset(key for key in keys.DEFAULTS if fields.sound(key))
    return Defaults(every or None, as_, gap, sound)


def kind_of_value(node: Node) -> As:
    """`as`, by its own words and no others."""
    read: Reader[As] = choice(*AS)
    try:
        return read(node)
    except Wrong as wrong:
        other = _OTHERWISE.get(node.text.casefold()) if isinstance(node, Scalar) else None
        if other is None:
            raise
        raise Wrong(wrong.message, f'did you mean "{other}"?') from None


def interval(node: Node) -> Millis:
    """`every`: 5 s to 1 d, a divisor of the day."""
    found = duration(5 * SECOND, DAY)(node)
    if DAY % found or found % SECOND:
        fitting = [s * SECOND for s in range(5, DAY // SECOND + 1) if DAY % (s * SECOND) == 0]
        unit = next(unit for unit in (HOUR, MINUTE, SECOND, 1) if found % unit == 0)
        fitting = [span for span in fitting if span % unit == 0]  # 7 min: 6 min, not 400 s
        below = max(span for span in fitting if span < found)
        above = min(span for span in fitting if span > found)
        hint = f"{show_duration(below)} and {show_duration(above)} do"
        problem = "does not divide the day evenly" if DAY % found else "is not in whole seconds"
        raise Wrong(f"{show_duration(found)} {problem}", hint)
    return found


@frozen
class Rest:
    """What the readers of `meters` need to know of the rest of the file."""

    report: Report
    buses: Mapping[str, Draft]
    """Empty where `buses` could not be read."""
    senders: Sequence[SenderSettings]
    """Empty where one of them could not be read."""
    defaults: Defaults
    library: Library
    all_profiles: bool = True
    """False where the folder of own profiles cannot be read: then no name is called unknown."""
    missing: dict[str, list[Fields]] = field(factory=dict)
    """Entries that lack `every` or `as`: reported together, once each."""
    ids: dict[SeriesKey, Span] = field(factory=dict)


def read_send(
    of: Rest,
    fields: Fields,
    profile: DeviceProfile | None,
    sender: SenderSettings | None,
    draft: Draft | None,
    *,
    integrate: bool,
) -> tuple[SendSettings, ...]:
    """`integrate`: what the meter has no counter for is made of its power or flow."""
    node = fields.node("send")
    if node is None:
        fields.missing("send", 'send:  - {meterID: "…", quantity: active_energy_import_total}')
        return ()
    nodes = items(of.report, node, "send")
    if nodes == ():
        fields.error("send", "send: at least one quantity is needed")
    found = []
    for entry in nodes or ():
        body = table(of.report, entry, "an entry of send")
        if body is None:
            fields.spoil("send")
            continue
        inner = Fields(of.report, body, "an entry of send", keys.SEND, elsewhere=keys.BELONGS)
        found.append(_entry(of, inner, profile, sender, draft, integrate=integrate))
        if not inner.sound(*keys.SEND):
            fields.spoil("send")
    useless = integrate and not any(send.integrates for send in found)
    if useless and profile is not None and fields.sound("send"):
        message = "integrate: it has no effect: the meter has a counter for all that is sent"
        of.report.warning(fields.at_value("integrate"), message, "leave it out")
    return tuple(found)


def _entry(
    of: Rest,
    inner: Fields,
    profile: DeviceProfile | None,
    sender: SenderSettings | None,
    draft: Draft | None,
    *,
    integrate: bool,
) -> SendSettings:
    own = inner.require("meterID", meter_id, "", example='meterID: "7777777777"')
    quantity = inner.require("quantity", text, "", example="quantity: active_energy_import_total")
    if inner.sound("meterID") and re.fullmatch(r"[0-9]+\.[0-9]+|[0-9.]+[eE]\+?[0-9]+|.* .*", own):
        message = f"meterID: {quoted(own)} is sent exactly as it stands here"
        of.report.warning(inner.at_value("meterID"), message, "compare it with Energinet's")
    known = profile.quantities() if profile is not None else ()
    power = integrand(quantity, known) if quantity not in known else ""
    if not (integrate and power):
        _check_quantity(inner, quantity, profile, power)
    every = inner.get("every", interval, of.defaults.every or 0)
    as_ = inner.get("as", kind_of_value, of.defaults.as_)
    gap: GapRule = inner.get("gap", choice("return", "spread", "skip"), of.defaults.gap)
    for key, value in (("every", every), ("as", as_)):
        if not value and inner.sound(key):
            inner.spoil(key)
            if key in of.defaults.sound:
                of.missing.setdefault(key, []).append(inner)
    _check_as(inner, quantity, as_)
    integrates = power if integrate else ""
    if integrates and as_ not in ("consumption", None) and inner.sound("as"):
        message = f"as: {as_} of what is integrated: only a consumption can be made of {power}"
        at = "as" if "as" in inner else "quantity"
        inner.error(at, message, "as: consumption")
    if "gap" in inner and (integrates or as_ not in ("consumption", None)):
        what = "what is integrated" if integrates else as_
        message = f"gap: it has no effect on {what}, only on consumption of a counter"
        of.report.warning(inner.at_value("gap"), message)
    if draft is not None and (as_ in _SUMMARIES or integrates) and 0 < every < draft.settings.poll:
        poll = show_duration(draft.settings.poll)
        message = (
            f"{as_}: the bus is polled every {poll}, less often than every {show_duration(every)}"
        )
        of.report.warning(inner.at, message, f"poll: {show_duration(every)} or less on the bus")
    group = sender.import_name if sender is not None else ""
    key_ = SeriesKey(group, own)
    if sender is not None and own:
        first = of.ids.setdefault(key_, inner.at_value("meterID"))
        if first is not inner.at_value("meterID"):
            where = f"import {quoted(group)}" if group else "the file"
            message = f"meterID {quoted(own)} stands twice in {where}"
            inner.error("meterID", message, "each value has a meterID of its own", first=first)
    own_sender = sender.name if sender is not None else ""
    return SendSettings(key_, quantity, as_ or "last", every or DAY, own_sender, gap, integrates)


def _check_quantity(
    inner: Fields, quantity: str, profile: DeviceProfile | None, power: str
) -> None:
    """`power`: what it could be integrated of."""
    if not inner.sound("quantity") or profile is None:
        return
    known = profile.quantities()
    if quantity in known:
        return
    listing = f"`meter-gateway profiles show {profile.name}` lists what it has"
    if quantity in QUANTITIES:
        # What looks like it may be something else: cooling is not heat.
        message = f"quantity: profile {profile.name} has no {quantity}"
        hint = listing if len(known) > 5 else f"it has {', '.join(known)}"
        if why := profile.why_not(quantity):
            message += f": {why}"
        if power:
            hint = f"`integrate: true` on the meter makes it of {power}"
    else:
        message = f"quantity: {quoted(quantity)} is not a quantity"
        # Whoever leaves out a word hardly means import minus export, which is no counter.
        near = [name for name in known if "_net_" not in name or "net" in quantity]
        hint = did_you_mean(quantity, near) or did_you_mean(quantity, QUANTITIES) or listing
    inner.error("quantity", message, hint)


def _check_as(inner: Fields, quantity: str, as_: As | None) -> None:
    if as_ not in ("counter", "consumption") or quantity not in QUANTITIES:
        return
    if QUANTITIES[quantity].counter or not inner.sound("quantity", "as"):
        return
    hint = "as: mean, minimum, maximum or last"
    if "as" in inner:
        inner.error("as", f"as: {as_} goes with counters, and {quantity} is none", hint)
    else:
        inner.spoil("as")
        message = f"as: {as_}, from `defaults`, goes with counters, and {quantity} is none"
        inner.report.error(inner.at_value("quantity"), message, f"write here {hint}")


def report_missing(of: Rest) -> None:
    for key, entries in of.missing.items():
        if key in of.report.misplaced:
            continue
        more = len(entries) - 1
        too = f" (and in {more} more entr{'y' if more == 1 else 'ies'})" if more else ""
        message = f'"{key}" is missing, here and in `defaults`{too}'
        hint = _CHOICES if key == "as" else "every: 1 h, here or in `defaults`"
        of.report.error(entries[0].at, message, hint)
