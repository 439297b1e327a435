"""What a scan found, as YAML to paste and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from typing import Any, Final

from gateway.metering.inquiry import IDENTIFICATION
from gateway.metering.profile import DeviceProfile
from gateway.metering.quantity import QUANTITIES
from gateway.modbus.plan import Read
from gateway.modbus.scanning import Found
from gateway.modbus.settings import Link, SerialLink

_MAIN: Final = (
    "active_energy_import_total",
    "active_energy_sum_total",
    "heat_energy_total",
    "volume_total",
)
"""What is sent of most meters."""
_BLOCKS_SHOWN: Final = 8
_OBJECTS: Final = {0: "vendor", 1: "product_code", 2: "revision"}


def setting(link: Link) -> str:
    """`9600 8N1`, or the address."""
    if not isinstance(link, SerialLink):
        return link.address
    return f"{link.baudrate} {link.data_bits}{link.parity[0].upper()}{link.stopbits}"


def as_yaml(bus: str, found: Sequence[Found]) -> str:
    """Buses and meters of a configuration. A line has one setting: that of most of its meters;
    the others, and units that are unknown, stand in comments."""
    known = [one for one in found if one.claims]
    lines: list[str] = []
    if known:
        counts = Counter(one.link for one in known)
        link = max(counts, key=lambda each: counts[each])
        lines += ["buses:", f"  {bus}: {_bus(link)}", "meters:"]
        for one in known:
            if one.link == link:
                lines += _meter(bus, one)
        units = {one.unit for one in known if one.link == link}
        for one in known:
            if one.link != link:
                lines += _of_another_setting(bus, one, link, units)
                units.add(one.unit)
    for one in found:
        if not one.claims and (one.blocks or one.told):
            lines += _commented([f"{_where(one)} is unknown: {_says(one)}{_gave(one)}"])
    lines += _commented(_blank(found))
    return "\n".join(lines)


def _blank(found: Sequence[Found]) -> Iterator[str]:
    """Units that gave nothing but exceptions: some gateways answer so for whoever is not there."""
    alike: dict[tuple[str, str], list[int]] = {}
    for one in found:
        if not one.claims and not one.blocks and not one.told:
            where = f" at {setting(one.link)}" if isinstance(one.link, SerialLink) else ""
            alike.setdefault((where, _gave(one)), []).append(one.unit)
    for (where, gave), units in alike.items():
        yield f"{'unit' if len(units) == 1 else 'units'} {_runs(units)}{where}: {gave}"


def _runs(units: Sequence[int]) -> str:
    """`1, 3..7`"""
    runs: list[list[int]] = []
    for unit in sorted(units):
        if runs and unit == runs[-1][-1] + 1:
            runs[-1].append(unit)
        else:
            runs.append([unit])
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def told(one: Found) -> str:
    """One line for people."""
    if not one.claims:
        unknown = "unknown: " if one.blocks or one.told else ""
        return f"{_where(one)}: {unknown}{_says(one)}{_gave(one)}"
    claim = one.claims[0]
    serial = f", serial number {claim.serial_number}" if claim.serial_number else ""
    return f"{_where(one)}: {claim.profile.name}{serial} ({_why(one)})"


def view(one: Found) -> dict[str, Any]:
    """For `--json`."""
    claim = one.claims[0] if one.claims else None
    return {
        **link_view(one.link),
        "unit": one.unit,
        "profile": claim.profile.name if claim else None,
        "certain": one.certain,
        "named_by": claim.named_by if claim else "",
        "also": [other.profile.name for other in one.claims[1:]],
        "serial_number": claim.serial_number if claim else None,
        "told": dict(_texts(one)),
        "gave": [
            {"function": b.function, "address": b.address, "words": list(b.words)}
            for b in one.blocks
        ],
        "refused": [
            {"function": r.function, "address": r.address, "count": r.count, "reason": why}
            for r, why in one.refused
        ],
    }


def link_view(link: Link) -> dict[str, Any]:
    """The setting of a line; nothing on TCP."""
    if not isinstance(link, SerialLink):
        return {}
    return {"baudrate": link.baudrate, "parity": link.parity, "stopbits": link.stopbits}


def _where(one: Found) -> str:
    if isinstance(one.link, SerialLink):
        return f"unit {one.unit} at {setting(one.link)}"
    return f"unit {one.unit}"


def _why(one: Found) -> str:
    if one.certain:
        return f"it says {one.claims[0].named_by}"
    others = ", ".join(claim.profile.name for claim in one.claims[1:])
    others = f", and {others} as well" if others else ""
    return f"its values fit{others}, but it does not name its model: compare with its label"


def _texts(one: Found) -> Iterator[tuple[str, str]]:
    """What it tells of itself by 43/14, of what each such device tells."""
    for told in one.told:
        if told.function == IDENTIFICATION:
            yield from ((_OBJECTS[n], text) for n, text in told.texts if n in _OBJECTS and text)


def _says(one: Found) -> str:
    said = ", ".join(f"{what.replace('_', ' ')} {text}" for what, text in dict(_texts(one)).items())
    return f"it says {said}; " if said else ""


def _gave(one: Found) -> str:
    refusals = dict.fromkeys(why for _, why in one.refused)
    shown = [
        f"{Read(b.function, b.address, len(b.words))} = {' '.join(f'{w:04x}' for w in b.words)}"
        for b in one.blocks[:_BLOCKS_SHOWN]
    ]
    return "; ".join(shown) or f"answers, and gives nothing but {', '.join(refusals)}"


def _bus(link: Link) -> str:
    if isinstance(link, SerialLink):
        keys = [
            f"serial: {json.dumps(link.path, ensure_ascii=False)}",
            f"baudrate: {link.baudrate}",
            f"parity: {link.parity}",
        ]
        keys += [f"stopbits: {link.stopbits}"] if link.stopbits != 1 else []
        keys += [f"{key}: true" for key in ("echo", "rs485") if getattr(link, key)]
        usual = "rtu"
    else:
        keys, usual = [f'tcp: "{link.address}"'], "tcp"
    keys += [f"framing: {link.framing}"] if link.framing != usual else []
    return "{" + ", ".join(keys) + "}"


def _meter(bus: str, one: Found) -> Iterator[str]:
    claim = one.claims[0]
    profile = claim.profile
    yield f"  - name: {profile.name}-{one.unit}"
    yield f"    bus: {bus}"
    yield f"    unit: {one.unit}"
    yield f"    profile: {profile.name}  # {_why(one)}"
    if claim.serial_number:
        yield f"    serial_number: {json.dumps(claim.serial_number, ensure_ascii=False)}"
    yield "    send:"
    yield f'      - {{meterID: "", quantity: {_quantity(profile)}}}  # write its meterID'


def _quantity(profile: DeviceProfile) -> str:
    quantities = profile.quantities()
    counters = (name for name in quantities if QUANTITIES[name].counter)
    usual = (name for name in _MAIN if name in quantities)
    return next(usual, None) or next(counters, None) or quantities[0]


def _of_another_setting(bus: str, one: Found, link: Link, taken: Set[int]) -> Iterator[str]:
    unit = ", and to a unit that is free" if one.unit in taken else ""
    first = f"A line has one setting: set this meter to {setting(link)} first{unit}."
    yield from _commented([f"{_where(one)}. {first}"])
    yield from _commented(_meter(bus, one))


def _commented(lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    return (f"# {line}" for line in lines)
