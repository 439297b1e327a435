"""Prints meters.md from the shipped profiles and what their sources say: `make docs`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from gateway.cli.trying import reads_of, timing_of, usual_link
from gateway.config.library import SHIPPED, Library
from gateway.metering.profile import DeviceProfile, Kind
from gateway.modbus.settings import SerialLink

Line: TypeAlias = dict[str, Any]

FACTS: Final = Path(__file__).parents[1] / "tests" / "device_profiles" / "facts"
ABSENT: Final = Path(__file__).with_name("absent.json")
"""Meters that people ask for and that have no profile: maker and models to the reason."""
KINDS: Final[dict[Kind, str]] = {
    "electricity": "Electricity",
    "heat": "Heat and cooling",
    "water": "Water",
    "gas": "Gas and compressed air",
}
USUAL: Final[dict[Kind, tuple[str, ...]]] = {
    "electricity": (
        "active_energy_import_total", "active_energy_export_total", "active_power_total",
    ),
    "heat": (
        "heat_energy_total", "volume_total", "thermal_power", "supply_temperature",
        "return_temperature",
    ),
    "water": ("volume_total", "flow"),
    "gas": ("volume_total", "volume_corrected_total", "flow"),
}  # fmt: skip
COMPARED: Final = ("active_energy_import_total", "active_energy_export_total", "active_power_total")
HEAD: Final = """\
# Meters

Every profile that comes with the gateway, made by `make docs` from `device_profiles/`.
`meter-gateway profiles list WORD` finds one by maker, model or what else stands on its label;
`profiles show NAME` prints its registers. For a meter that is not here:
[add a meter](how-to/add-a-meter.md).

**Two**: registers that two or more independent sources give alike; **one**: that only one source
gives; **conflict**: about which sources disagree, with how it was decided below. **A poll** is the
time that the usual quantities take on the bus at the settings as delivered, else at 9600 baud, and
in how many requests; over Ethernet the time is that of the network.

On a line all meters have one baud rate and one parity, and each a unit of its own; how it is wired:
[the serial port](how-to/install-on-a-pi.md#the-serial-port). What a meter wants beyond that
stands below.

"""


def page() -> str:
    """The whole page."""
    profiles = Library().all()
    parts = [HEAD]
    for kind, title in KINDS.items():
        some = sorted((p for p in profiles if p.kind == kind), key=lambda p: (p.maker, p.name))
        if some:
            parts += [f"## {title}\n\n", *_table(some), "\n"]
    parts += ["## Not here, and why\n\n", *_absent(), "\n"]
    parts += ["## Two sources compared\n\n", *_comparison(profiles), "\n"]
    parts += ["## What to know of each\n\n"]
    parts += ["\n".join(_about(profile)) + "\n\n" for profile in _ordered(profiles)]
    return "".join(parts).rstrip() + "\n"


def _ordered(profiles: Iterable[DeviceProfile]) -> list[DeviceProfile]:
    return sorted(profiles, key=lambda p: (p.maker.casefold(), p.name))


# ----------------------------------------------------------------------------------- the meters


def _table(profiles: list[DeviceProfile]) -> Iterator[str]:
    yield "| Meter | Profile | Quantities | Two | One | Conflict | A poll |\n"
    yield "|---|---|---|---|---|---|---|\n"
    for profile in profiles:
        sure = [register.confidence for register in profile.registers]
        two, one, not_ = (sure.count(each) for each in ("two sources", "one source", "conflict"))
        link = f"[{profile.name}](#{profile.name.replace('.', '')})"
        count = len(profile.quantities())
        yield (
            f"| {profile.maker} {_safe(profile.model)} | {link} | {count} | {two or ''} |"
            f" {one or ''} | {not_ or ''} | {_poll(profile)} |\n"
        )


def _poll(profile: DeviceProfile) -> str:
    usual = [q for q in USUAL[profile.kind] if q in profile.quantities()]
    if not usual:
        return ""
    link = usual_link(profile)
    reads = reads_of(profile, usual, link)
    requests = "1 request" if len(reads) == 1 else f"{len(reads)} requests"
    if not isinstance(link, SerialLink):
        return f"{requests}, Ethernet"
    millis = timing_of(profile, link).of_all(reads) * 1000
    return f"{millis:.0f} ms, {requests}" + ("" if profile.serial.baudrate else ", at 9600")


def _absent() -> Iterator[str]:
    yield "A guess is worse than a gap: these wait for a source that is public and plain.\n\n"
    yield "| Meter | Why |\n|---|---|\n"
    absent: dict[str, str] = json.loads(ABSENT.read_text("utf-8"))
    yield from (f"| {_safe(meter)} | {_safe(why)} |\n" for meter, why in absent.items())


def _about(profile: DeviceProfile) -> Iterator[str]:
    yield f"### {profile.name}\n"
    also = f" Also: {', '.join(profile.aliases)}." if profile.aliases else ""
    yield f"{profile.maker} {_safe(profile.model)}.{_safe(also)}\n"
    if delivered := _delivered(profile):
        yield f"- As delivered: {delivered}."
    elif not profile.why_not("serial"):
        yield "- As delivered: no public source says; look at the display or the label."
    if known_by := _known_by(profile):
        yield f"- Known by: {known_by}."
    yield f"- Quantities: {_listed(profile.quantities())}."
    conflicts: dict[str, list[str]] = {}
    for register in profile.registers:
        if register.conflict:
            conflicts.setdefault(register.conflict, []).append(register.name)
    for conflict, names in conflicts.items():
        yield f"- Conflict over {_listed(names)}: {_safe(conflict)}."
    for what, why in profile.left_out:
        yield f"- Left out: `{what}`: {_safe(why)}."
    yield from (f"- To set it up: {_safe(step)}" for step in profile.setup)
    yield from (f"- {_safe(note)}" for note in profile.notes)


def _delivered(profile: DeviceProfile) -> str:
    serial, tcp = profile.serial, profile.tcp
    said = [
        f"{serial.baudrate} baud" if serial.baudrate else "",
        f"parity {serial.parity}" if serial.parity else "",
        f"{serial.stopbits} stop bit{'s' * (serial.stopbits > 1)}" if serial.stopbits else "",
        f"unit {serial.unit}" if serial.unit is not None else "",
        f"TCP port {tcp.port}" if tcp.port else "",
        f"unit {tcp.unit} over TCP" if tcp.unit is not None else "",
    ]
    return ", ".join(filter(None, said))


def _known_by(profile: DeviceProfile) -> str:
    said = []
    for one in profile.identity:
        values = f" {', '.join(one.expected)}" if one.expected else ""
        said.append(f"{one.what.replace('_', ' ')}{_safe(values)}")
    if profile.sunspec is not None:
        said.insert(0, f"SunSpec model {', '.join(map(str, profile.sunspec.models))}")
    return "; ".join(said)


_PHASES: Final = re.compile(r"_l[123]$")


def _listed(names: Iterable[str]) -> str:
    """`voltage_l1` to `_l3` as one."""
    found: dict[str, list[str]] = {}
    for name in names:
        match = _PHASES.search(name)
        found.setdefault(name[: -len(match[0])] if match else name, []).append(name)
    return ", ".join(
        f"`{names[0]}`" if len(names) == 1 else f"`{names[0]}` … `{names[-1][-2:]}`"
        for names in found.values()
    )


def _safe(text: str) -> str:
    """Signs that Markdown would take for its own."""
    return re.sub(r"([|*<>\[\]])", r"\\\1", text)


# ---------------------------------------------------------------------------------- the sources


@cache
def facts_of(name: str) -> list[Line]:
    """What sources say of a profile; what it extends answers where nothing is said of it."""
    found: list[Line] = []
    own = FACTS / f"{name}.jsonl"
    if own.is_file():
        found = [json.loads(line) for line in own.read_text("utf-8").splitlines()]
    extends = re.search(r"^extends: *(\S+)", (SHIPPED / f"{name}.yaml").read_text("utf-8"), re.M)
    if extends:
        said = {line["quantity"] for line in found}
        found += [line for line in facts_of(extends[1]) if line["quantity"] not in said]
    return [line for line in found if "value" not in line]


def compared(name: str, quantity: str) -> list[tuple[str, list[str]]]:
    """What the sources say of a quantity of a profile, and which say the same."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for line in facts_of(name):
        if line["quantity"] != quantity:
            continue
        order = ", low word first" if line.get("word_order") == "little" else ""
        beside = f" and 10^@{line['scale_register']}" if line.get("scale_register") else ""
        place = (
            f"f{line['function']} " if "function" in line else "",
            f"@{line['address']} {line['type']}{order}{beside}",
            f" × {line['scale']}" if "scale" in line else "",
        )
        groups.setdefault(place, []).extend(line["sources"])
    for place in [each for each in groups if "" in each]:  # said without function or scale
        for other in groups:
            if other != place and all(a in ("", b) for a, b in zip(place, other, strict=True)):
                groups[other] += groups.pop(place)
                break
    return [("".join(place), sources) for place, sources in groups.items()]


def _comparison(profiles: tuple[DeviceProfile, ...]) -> Iterator[str]:
    rows, agree, differ = [], 0, 0
    for profile in _ordered(profiles):
        if profile.kind != "electricity":
            continue
        cells = []
        for quantity in COMPARED:
            groups = compared(profile.name, quantity)
            sources = {source for _, each in groups for source in each}
            if len(sources) < 2:
                cells.append("")
                continue
            agree, differ = agree + (len(groups) == 1), differ + (len(groups) > 1)
            cells.append(_cell(groups))
        if any(cells):
            rows.append(f"| {profile.name} | {' | '.join(cells)} |\n")
    yield (
        "What independent sources say of the energy imported and exported and of the power, held\n"
        f"against one another: {len(rows)} models, {agree} agreements, {differ} differences. A\n"
        "place is function, address from 0, type and scale to kWh or W.\n\n"
    )
    yield "| Profile | Import | Export | Power |\n|---|---|---|---|\n"
    yield from rows


def _cell(groups: list[tuple[str, list[str]]]) -> str:
    if len(groups) == 1:
        ((place, sources),) = groups
        return f"agree: {', '.join(sources)}: {place}"
    said = "; ".join(f"{', '.join(sources)}: {place}" for place, sources in groups)
    if len({place.partition(" ")[2] for place, _ in groups}) == 1:
        return f"**function differs**: {said}"
    unsigned = {re.sub(r" s(\d\d)", r" u\1", place) for place, _ in groups}
    return f"**sign differs**: {said}" if len(unsigned) == 1 else f"**conflict**: {said}"


if __name__ == "__main__":
    print(page(), end="")
