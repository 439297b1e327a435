"""Where registers stand: two that share a part of their place, and a document's own numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from gateway.config.document import Node, Scalar
from gateway.config.report import Report
from gateway.config.values import Reader, Wrong, integer
from gateway.metering.register import Register

Places = Mapping[Register, Scalar]
"""The registers of one file, with what it says as their address."""

ADDRESS: Final[Reader[int]] = integer(0, 65_535)
_FUNCTIONS: Final = {"3": (4, "an input register"), "4": (3, "a holding register")}
"""First digit of a number in many documents to the function that reads it, and what it is of."""


def address(node: Node) -> int:
    """From 0, as on the wire."""
    try:
        return ADDRESS(node)
    except Wrong as wrong:
        if isinstance(node, Scalar) and re.fullmatch("[34][0-9]{5}", node.text):
            wrong.suggestion = _meant(node.text)
        raise


def refuse_overlaps(report: Report, served: Iterable[Register], places: Places) -> None:
    """Report registers that share a part of their place: one of the two is wrong.

    All of it may be shared, as where many values have one scale register. served: what is read, be
    it from this file or from another that it extends.
    """
    taken: dict[tuple[int, int], Register] = {}
    inherited = [register for register in served if register not in places]
    for register in (*inherited, *_in_order(places)):
        span = range(register.address, register.end)
        others = (taken.setdefault((register.function, each), register) for each in span)
        other = next((one for one in others if _ends(one) != _ends(register)), None)
        if other is None or register not in places:
            continue
        message = (
            f"address: {register.name} at {_span(register)} and {other.name} at {_span(other)}"
            " lie across one another"
        )
        hint = "compare address, type and words of both with the document"
        first = places[other].span if other in places else None
        if first is None:
            hint += f"; without: [{other.name.partition('.')[0]}] leaves out what is extended"
        report.error(places[register].span, message, hint, first=first)


def warn_of_numbers(report: Report, places: Places) -> None:
    """Warn, once a file, of an address that looks like the number that a document prints for it."""
    found = [
        (register, node)
        for register in _in_order(places)
        if re.fullmatch("[34][0-9]{4}", (node := places[register]).text)
        and node.text[1:] != "0000"
        and (node.text[0] == "4" or register.function == 4)
    ]
    if found:
        register, node = found[0]
        others = f", and {len(found) - 1} more," if len(found) > 1 else ""
        _, kind = _FUNCTIONS[node.text[0]]
        message = f"address: {node.text}{others} looks like the document's number of {kind}"
        hint = f"{_meant(node.text, register.function)}; if it is the address: 0x{int(node.text):X}"
        report.warning(node.span, message, hint)


def _meant(number: str, function: int = 0) -> str:
    """What to write for the number of a register in a document, such as 40073 or 400073."""
    right, _ = _FUNCTIONS[number[0]]
    zero = int(number[0].ljust(len(number), "0"))
    first, second = int(number) - zero - 1, int(number) - zero
    also = "" if function == right else f", with function: {right}"
    return f"write {first}, or {second} where the document counts from {zero}{also}"


def _in_order(places: Places) -> list[Register]:
    """As they stand in the file."""
    return sorted(places, key=lambda each: (places[each].span.line, places[each].span.column))


def _ends(register: Register) -> tuple[int, int]:
    return register.address, register.end


def _span(register: Register) -> str:
    last = register.end - 1
    return f"{register.address}" if last == register.address else f"{register.address} to {last}"
