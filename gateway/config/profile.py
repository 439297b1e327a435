"""A profile file: read, and laid over the profile that it extends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from attrs import evolve

from gateway.config.document import Node, Table, compose
from gateway.config.draft import Draft, Sum
from gateway.config.fields import Fields, items, table
from gateway.config.identity import read_identity
from gateway.config.places import refuse_overlaps, warn_of_numbers
from gateway.config.registers import (
    Context,
    quantity,
    read_common,
    read_part,
    read_register,
)
from gateway.config.report import Report, Span, did_you_mean, quoted
from gateway.config.traits import read_limits, read_serial, read_sunspec, read_tcp
from gateway.config.values import Wrong, choice, text
from gateway.metering.quantity import QUANTITIES
from gateway.metering.register import Register

KEYS: Final = (
    "maker", "model", "aliases", "kind", "extends", "without", "sources", "serial", "tcp",
    "requests", "identity", "defaults", "registers", "parts", "computed", "sunspec", "left_out",
    "setup", "notes",
)  # fmt: skip
COMPUTED: Final = ("quantity", "plus", "minus")


Extend = Callable[[Node, Report], "Draft | None"]
"""Finds the profile named under `extends`; reports why not, and gives None."""


def read_draft(file: Path, text_: str, extend: Extend) -> Draft:
    """What one profile file says. Raises ConfigurationError with every mistake found."""
    report = Report(file, text_)
    root = compose(text_, report)
    if root is None:
        report.error(Span(1, 1, 1, 1), "the file is empty", "a profile has maker, model, kind, …")
        root = Table((), Span(1, 1, 1, 1), complete=False)
    body = table(report, root, "the profile")
    draft = Draft()
    if body is not None:
        fields = Fields(report, body, "the profile", KEYS)
        node = fields.node("extends")
        parent = extend(node, report) if node is not None else Draft()
        # What hangs on a profile that cannot be had is not judged.
        if parent is not None:
            draft = _overlay(fields, parent)
    report.raise_if_failed()
    return evolve(draft, warnings=report.warnings())


def _overlay(fields: Fields, parent: Draft) -> Draft:
    report = fields.report
    base = _without(fields, parent)
    sources = {**base.sources, **_texts(fields, "sources")}
    if not sources and "sources" not in fields:
        fields.missing("sources", 'sources: {manual: "document and revision"}')
    limits = read_limits(fields, base.limits)
    common = read_common(report, fields.node("defaults"), base.common, sources)
    context = Context(report, common, sources, limits)
    identity = dict(base.identity)
    for node in _list(fields, "identity"):
        found = read_identity(context, node)
        if found is not None:
            identity[found.what] = found
    registers, parts, computed = dict(base.registers), dict(base.parts), dict(base.computed)
    for node in _list(fields, "registers"):
        register = read_register(context, node)
        if register is not None:
            registers[register.name] = register
            computed.pop(register.name, None)
    for node in _list(fields, "parts"):
        register = read_part(context, node)
        if register is not None:
            parts[register.name] = register
    draft = Draft(
        maker=fields.get("maker", text, base.maker),
        model=fields.get("model", text, base.model),
        kind=fields.get("kind", choice("electricity", "heat", "water", "gas"), base.kind),
        sources=sources,
        serial=read_serial(fields, base.serial),
        tcp=read_tcp(fields, base.tcp),
        limits=limits,
        common=common,
        identity=identity,
        registers=registers,
        parts=parts,
        computed=computed,
        sunspec=read_sunspec(fields, base.sunspec),
        aliases=fields.many("aliases", text),
        left_out={**base.left_out, **_texts(fields, "left_out")},
        setup=fields.many("setup", text, base.setup),
        notes=fields.many("notes", text, base.notes),
    )
    for key in ("maker", "model", "kind"):
        if not getattr(draft, key):
            fields.missing(key, "kind: electricity, heat, water or gas" if key == "kind" else "")
    for node in _list(fields, "computed"):
        _sum(context, draft, node, registers, computed)
    _check_terms(fields, draft)
    _check_left_out(fields, draft)
    refuse_overlaps(report, draft.served, context.places)
    if draft.sunspec is None:
        warn_of_numbers(report, context.places)
    if not draft.registers and fields.sound("registers") and not report.failed:
        fields.missing("registers")
    return draft


def _without(fields: Fields, parent: Draft) -> Draft:
    known = {*parent.registers, *parent.parts, *parent.computed, *parent.identity}

    def one(node: Node) -> str:
        found = text(node)
        if found not in known:
            hint = did_you_mean(found, known)
            raise Wrong(f"{quoted(found)} is not in the profile that is extended", hint)
        return found

    if "without" in fields and "extends" not in fields:
        fields.error("without", "without: there is nothing to leave out where nothing is extended")
        return parent
    dropped = fields.many("without", one, most=500)
    if not dropped:
        return parent
    return evolve(
        parent,
        registers={k: v for k, v in parent.registers.items() if k not in dropped},
        parts={k: v for k, v in parent.parts.items() if k not in dropped},
        computed={k: v for k, v in parent.computed.items() if k not in dropped},
        identity={k: v for k, v in parent.identity.items() if k not in dropped},
    )


def _sum(
    context: Context,
    draft: Draft,
    node: Node,
    registers: dict[str, Register],
    computed: dict[str, Sum],
) -> None:
    """One entry under `computed`, added to those found."""
    body = table(context.report, node, "computed")
    if body is None:
        return
    fields = Fields(context.report, body, "computed", COMPUTED)
    own = fields.require("quantity", quantity, "", example="quantity: active_energy_net_total")
    if own and own in context.names:
        fields.error("quantity", f"{quoted(own)} stands twice", first=context.names[own])
    elif own:
        context.names[own] = fields.at_value("quantity")
    unit = QUANTITIES[own].unit if own else ""
    known = {**draft.parts, **draft.registers}

    def term(node: Node) -> str:
        found = text(node)
        if found not in known:
            # A register that was written, but wrongly, is reported already.
            if found in context.names:
                return found
            hint = did_you_mean(found, known)
            raise Wrong(f"{quoted(found)} is neither a register nor a part here", hint)
        if own and known[found].unit != unit:
            raise Wrong(f"{found} is in {known[found].unit or 'no unit'}, {own} in {unit}")
        return found

    plus, minus = fields.many("plus", term), fields.many("minus", term)
    if not plus and fields.sound("plus"):
        fields.missing("plus", "plus: [NAME, NAME]", "computed: plus needs at least one register")
    if fields.sound(*COMPUTED):
        registers.pop(own, None) if own not in (*plus, *minus) else None
        computed[own] = Sum(own, plus, minus)


def _check_terms(fields: Fields, draft: Draft) -> None:
    """What was inherited under `computed` needs registers that `without` may have dropped."""
    known = {*draft.registers, *draft.parts}
    for total in draft.computed.values():
        for term in (*total.plus, *total.minus):
            if term not in known and not fields.report.failed:
                message = f"{total.quantity} is computed from {term}, which is left out"
                hint = f"leave {total.quantity} out too"
                fields.report.error(fields.at_value("without"), message, hint)


def _check_left_out(fields: Fields, draft: Draft) -> None:
    """What this file leaves out cannot be there; what was inherited as left out may be."""
    node = fields.node("left_out")
    for key, _ in node.entries if isinstance(node, Table) else ():
        if not fields.report.failed and key.text in draft.present:
            fields.report.error(key.span, f"left_out: {quoted(key.text)} is in this profile")


def _list(fields: Fields, key: str) -> tuple[Node, ...]:
    node = fields.node(key)
    if node is None:
        return ()
    return items(fields.report, node, key) or ()


def _texts(fields: Fields, key: str) -> dict[str, str]:
    node = fields.node(key)
    body = table(fields.report, node, key) if node is not None else None
    if body is None:
        return {}
    names = [name.text for name, _ in body.entries]
    inner = Fields(fields.report, body, key, names, at=fields.at_key(key))
    return {name: inner.get(name, text, "") for name in names}
