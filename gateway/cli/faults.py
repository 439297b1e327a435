"""Faults of simulated meters as people write them, on the command line and in a script."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import click
from attrs import evolve

from gateway.clock import Millis
from gateway.errors import GatewayError
from gateway.modbus.faults import CONDITIONS, FAULTS, Fault

KINDS: Final = (*FAULTS, *CONDITIONS)
_FAULT: Final = re.compile(
    r"(?P<kind>[a-z_]+)(=(?P<value>[^:@%]+))?(:(?P<meter>[^@%]+))?"
    r"(@(?P<start>\d+)s?\.\.((?P<end>\d+)s?)?)?(%(?P<rate>\d+))?"
)
FORM: Final = "KIND[=VALUE][:METER][@FROM..TO][%RATE]"


def explained() -> str:
    """All kinds, for --help."""
    kinds = (*FAULTS.items(), *CONDITIONS.items())
    rows = (f"  {kind:<16}{what}" for kind, what in kinds)
    return "\n".join(("\b", "Kinds of faults:", *rows))


def read_script(path: str | None) -> list[tuple[str, Fault]]:
    """The faults in a file, each in the form of --fault."""
    if path is None:
        return []
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise GatewayError(f"--script {path}: {why}", hint="name another file") from error
    told = ((number, line.partition("#")[0].strip()) for number, line in enumerate(lines, 1))
    return [read_fault(text, f"{path}:{number}") for number, text in told if text]


def read_fault(text: str, place: str) -> tuple[str, Fault]:
    """The meter it is for ("" for all), and the fault."""
    match = _FAULT.fullmatch(text)
    kind = next((kind for kind in KINDS if match and kind == match["kind"]), None)
    if match is None or kind is None:
        message = f"{text}: write {FORM}; kinds: {', '.join(KINDS)}"
        raise click.BadParameter(message, param_hint=place)
    start: Millis = int(match["start"] or 0) * 1000
    end = int(match["end"]) * 1000 if match["end"] else None
    rate = int(match["rate"]) / 100 if match["rate"] else 1.0
    if match["rate"] and kind in CONDITIONS:
        raise click.BadParameter(f"{text}: {kind} has no rate", param_hint=place)
    fault = Fault(kind, start, end, rate)
    value = match["value"]
    try:
        return match["meter"] or "", _with_value(fault, value)
    except ValueError:
        form = _VALUES.get(kind)
        takes = f"write {kind}={form}" if form else f"{kind} takes no value"
        raise click.BadParameter(f"{text}: {takes}", param_hint=place) from None


_VALUES: Final = {
    "late": "2s",
    "slow": "400ms",
    "restart": "5s",
    "exception": "2",
    "hole": "342..343",
    "swapped": "87654321",
}
"""How the value of a kind that takes one is written."""


def _with_value(fault: Fault, value: str | None) -> Fault:
    """Raises ValueError where it is none of its kind."""
    kind = fault.kind
    if value is None:
        if kind == "hole":
            raise ValueError("which registers?")
        return fault
    if kind in ("late", "slow", "restart"):
        match = re.fullmatch(r"(\d{1,6})(ms|s)", value)
        if match is None:
            raise ValueError(value)
        return evolve(fault, seconds=int(match[1]) / (1000 if match[2] == "ms" else 1))
    if kind == "exception" and 1 <= int(value) <= 127:
        return evolve(fault, code=int(value))
    if kind == "hole":
        first, _, last = value.partition("..")
        return evolve(fault, registers=(int(first, 0), int(last or first, 0)))
    if kind == "swapped":
        return evolve(fault, serial_number=value)
    raise ValueError(value)
