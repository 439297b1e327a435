"""One register of a profile file, and what else in it names an address."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from attrs import evolve, field, frozen

from gateway.config.document import Items, Node, Scalar, Table
from gateway.config.encodings import ENCODING, Common, read_encoding, register_type, word_order
from gateway.config.fields import Fields, table
from gateway.config.report import Report, Span, did_you_mean, quoted
from gateway.config.values import Wrong, choice, decimal_text, integer, positive, scalar, text
from gateway.metering.profile import Limits
from gateway.metering.quantity import QUANTITIES, UNITS
from gateway.metering.register import Encoding, Register

DEFAULTS: Final = ("function", "type", "word_order", "byte_order", "scale", "sources")
REGISTER: Final = (
    "quantity", *ENCODING, "scale", "unit", "not_available", "scale_register", "unit_register",
    "modulus", "sources", "conflict", "note",
)  # fmt: skip
PART: Final = ("name", *REGISTER[1:])
SCALE_REGISTER: Final = ENCODING
UNIT_REGISTER: Final = (*ENCODING, "factors")

_FACTORS: Final = {
    f"{prefix}{unit}": factor
    for unit, factors in (
        ("Wh varh VAh", {"": "0.001", "M": "1000", "G": "1000000"}),
        ("W var VA V A", {"m": "0.001", "k": "1000", "M": "1000000"}),
    )
    for unit in unit.split()
    for prefix, factor in factors.items()
}
"""Other units of what is measured in kWh, W and so on, to how many of these they are."""

_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")


@frozen
class Context:
    """What a register needs to know of its file."""

    report: Report
    common: Common
    sources: Mapping[str, str]
    """Those of the file and of the profiles that it extends."""
    limits: Limits = field(factory=Limits)
    names: dict[str, Span] = field(factory=dict)
    """Quantities and parts met so far in this file."""
    places: dict[Register, Scalar] = field(factory=dict)
    """Registers met so far in this file, with their `address`."""


def word(node: Node) -> str:
    """A name inside a profile: small letters, digits and _."""
    found = text(node)
    if not _WORD.fullmatch(found):
        raise Wrong(f"{quoted(found)} is not a name: use small letters, digits and _")
    return found


def quantity(node: Node) -> str:
    """The name of a quantity."""
    found = text(node)
    if found not in QUANTITIES:
        raise Wrong(f"{quoted(found)} is not a quantity", did_you_mean(found, QUANTITIES))
    return found


def read_common(
    report: Report, node: Node | None, inherited: Common, of: Mapping[str, str]
) -> Common:
    """The whole of `defaults`, over what the extended profile says."""
    body = table(report, node, "defaults") if node is not None else None
    if body is None:
        return inherited
    fields = Fields(report, body, "defaults", DEFAULTS)
    return Common(
        function=fields.get("function", integer(1, 4), inherited.function),
        type=fields.get("type", register_type, inherited.type),
        word_order=fields.get("word_order", word_order, inherited.word_order),
        byte_order=fields.get("byte_order", choice("big", "little"), inherited.byte_order),
        scale=fields.get("scale", decimal_text, inherited.scale),
        sources=_sources(fields, of, inherited.sources),
        spoilt=frozenset(key for key in DEFAULTS if not fields.sound(key)),
    )


def read_register(context: Context, node: Node) -> Register | None:
    """One entry under `registers`; None after a mistake."""
    return _value(context, node, "quantity", REGISTER, "a register")


def read_part(context: Context, node: Node) -> Register | None:
    """One entry under `parts`; None after a mistake."""
    return _value(context, node, "name", PART, "a part")


def _value(
    context: Context, node: Node, naming: str, keys: Sequence[str], kind: str
) -> Register | None:
    body = table(context.report, node, kind)
    if body is None:
        return None
    fields = Fields(context.report, body, kind, keys)
    own = fields.require(naming, quantity if naming == "quantity" else word, "")
    if own and own in context.names:
        fields.error(naming, f"{quoted(own)} stands twice", first=context.names[own])
    elif own:
        context.names[own] = fields.at_value(naming)
    if naming == "name" and own in QUANTITIES:
        fields.error("name", f"{quoted(own)} is the name of a quantity: a part needs another")
    encoding, function, where = read_encoding(fields, context.common)
    unit = ""
    if own or naming == "name":
        unit = _unit(fields, QUANTITIES[own].unit if naming == "quantity" else None)
    unit_register, factors = _unit_register(context, fields)
    modulus = fields.get("modulus", positive(decimal_text), Decimal(0))
    register = Register(
        name=own,
        function=function,
        address=where,
        encoding=encoding,
        scale=fields.get("scale", decimal_text, context.common.scale),
        unit=unit,
        not_available=_not_available(fields, encoding),
        scale_register=_scale_register(context, fields),
        unit_register=unit_register,
        unit_factors=factors,
        modulus=modulus or None,
        sources=own_sources(fields, context),
        conflict=fields.get("conflict", text, ""),
        note=fields.get("note", text, ""),
    )
    if encoding.type == "string" and fields.sound("type"):
        fields.error("type", "type: a string is no number: it can only stand under `identity`")
    if fields.sound("scale") and register.scale == 0:
        fields.error("scale", "scale: 0 would make every value 0")
    check_place(fields, context, register)
    return register if fields.sound(*keys) else None


def check_place(fields: Fields, context: Context, register: Register) -> None:
    """Its size; and it is held against all others, when they are known."""
    node = fields.node("address")
    if not fields.sound("function", "address", "type", "words") or not isinstance(node, Scalar):
        return
    context.places[register] = node
    if register.end > 65_536:
        fields.error("address", f"address: {register.count} registers would end above 65535")
    elif register.count > (most := context.limits.max_registers):
        message = f"{register.count} registers are more than a request may have ({most})"
        fields.error("words" if "words" in fields else "address", message)
    for function, split in context.limits.splits:
        if function == register.function and register.address < split < register.end:
            message = f"address: no request may reach over {split} (`splits`), which is inside"
            fields.error("address", message)


def _unit(fields: Fields, canonical: str | None) -> str:
    if "unit" not in fields:
        if canonical is None:
            fields.missing("unit", "unit: the one that `scale` brings the value to")
        elif canonical:
            fields.missing("unit", f"unit: {canonical}, with the scale that brings the value to it")
        return ""
    node = fields.node("unit")
    if canonical == "" and isinstance(node, Scalar) and not node.text and not node.refused:
        return ""
    if canonical is None:
        return fields.get("unit", choice(*filter(None, UNITS)), "")
    unit = fields.get("unit", text, "")
    if unit != canonical and fields.sound("unit"):
        wanted = f"in {canonical}" if canonical else "without a unit"
        message = f"unit: this quantity is {wanted}, not {quoted(unit)}"
        scale = f"{_FACTORS[unit]} times the scale" if unit in _FACTORS else "the scale for it"
        fields.error("unit", message, f"write unit: {canonical or repr('')} and {scale}")
    return unit


def _not_available(fields: Fields, encoding: Encoding) -> frozenset[int]:
    node = fields.node("not_available")
    if node is None:
        return frozenset()
    if isinstance(node, Scalar) and node.text == "nan" and fields.sound("type"):
        if encoding.type not in ("f32", "f64"):
            fields.error("not_available", f"not_available: {encoding.type} has no nan")
        return frozenset()  # NaN and infinity are never values
    top = 16 * encoding.words if fields.sound("type", "words") else 64
    read = integer(0, (1 << min(top, 64)) - 1, "as the unsigned bits of the register")
    if isinstance(node, Items):
        return frozenset(fields.many("not_available", read, most=20))
    found = fields.get("not_available", read, None)
    return frozenset() if found is None else frozenset((found,))


def _scale_register(context: Context, fields: Fields) -> Register | None:
    return _beside(context, fields, "scale_register", SCALE_REGISTER)[0]


def _unit_register(
    context: Context, fields: Fields
) -> tuple[Register | None, tuple[tuple[int, Decimal], ...]]:
    register, inner = _beside(context, fields, "unit_register", UNIT_REGISTER)
    if inner is None:
        return None, ()
    node = inner.node("factors")
    body = table(context.report, node, "factors") if node is not None else None
    factors = []
    if node is None:
        inner.missing("factors", 'factors: {2: "0.001", 3: "1"}, code to factor')
    for key, value in body.entries if body is not None else ():
        try:
            code = integer(0, 0xFFFFFFFF)(key)
        except Wrong as wrong:
            context.report.error(key.span, f"factors: {wrong.message}", wrong.suggestion)
            inner.spoil("factors")
            continue
        only = Table(((key, value),), value.span)
        factor = Fields(context.report, only, "factors", (key.text,))
        factors.append((code, factor.get(key.text, positive(decimal_text), Decimal(1))))
        if not factor.sound(key.text):
            inner.spoil("factors")
    if node is not None and (body is None or not factors) and inner.sound("factors"):
        if body is not None:
            inner.error("factors", "factors: at least one code is needed")
        inner.spoil("factors")
    if not inner.sound(*UNIT_REGISTER):
        fields.spoil("unit_register")
    return register, tuple(factors)


def _beside(
    context: Context, fields: Fields, key: str, keys: Sequence[str]
) -> tuple[Register | None, Fields | None]:
    """A register that stands inside another."""
    node = fields.node(key)
    if node is None:
        return None, None
    body = table(context.report, node, key)
    if body is None:
        fields.spoil(key)
        return None, None
    inner = Fields(context.report, body, key, keys, at=fields.at_key(key))
    # Its type is never that of the value beside it.
    encoding, function, where = read_encoding(inner, evolve(context.common, type=""))
    own = fields.node("quantity") or fields.node("name")
    title = own.text if isinstance(own, Scalar) else ""
    register = Register(f"{title}.{key}", function, where, encoding)
    check_place(inner, context, register)
    if not inner.sound(*keys):
        fields.spoil(key)
    return register, inner


def own_sources(fields: Fields, context: Context) -> tuple[str, ...]:
    found = _sources(fields, context.sources, context.common.sources)
    if not found and fields.sound("sources") and "sources" not in context.common.spoilt:
        fields.missing("sources", "sources: [NAME], one of those under `sources` of the file")
    return found


def _sources(
    fields: Fields, known: Mapping[str, str], inherited: tuple[str, ...]
) -> tuple[str, ...]:
    def one(node: Node) -> str:
        found = scalar(node, "the name of a source").text
        if found not in known:
            hint = did_you_mean(found, known) or f"sources: {', '.join(known) or 'none'}"
            raise Wrong(f"there is no source {quoted(found)}", hint)
        return found

    return fields.many("sources", one, inherited, most=20)
