"""How a profile says that its model can be told from others."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from gateway.config.document import Items, Node, Scalar
from gateway.config.encodings import ENCODING, read_encoding
from gateway.config.fields import Fields, table
from gateway.config.registers import Context, check_place, own_sources, word
from gateway.config.report import quoted
from gateway.config.values import Refused, Wrong, integer, text
from gateway.metering.inquiry import IDENTIFICATION, SERVER_ID, Inquiry, plain
from gateway.metering.profile import Identity
from gateway.metering.register import Register, encode

IDENTITY: Final = ("what", *ENCODING, "object", "expected", "sources", "note")


def read_identity(context: Context, node: Node) -> Identity | None:
    """One entry under `identity`: what tells it, and the values it is expected to have."""
    body = table(context.report, node, "identity")
    if body is None:
        return None
    fields = Fields(context.report, body, "identity", IDENTITY)
    what = fields.require("what", word, "", example="what: serial_number")
    sources, note = own_sources(fields, context), fields.get("note", text, "")
    told_by: Register | Inquiry | None = _inquiry(fields)
    if told_by is None:
        encoding, function, where = read_encoding(fields, context.common)
        register = Register(what, function, where, encoding, sources=sources, note=note)
        check_place(fields, context, register)
        told_by = register
    found = Identity(what, told_by, _expected(fields, told_by))
    return found if fields.sound(*IDENTITY) else None


def _inquiry(fields: Fields) -> Inquiry | None:
    """What `object`, of function 43/14, or `function: 17` asks for; None: a register tells it."""
    function = _number(fields.node("function"))
    if "object" in fields or function == IDENTIFICATION:
        example = "object: 0 to 255, instead of function, address and type"
        found = Inquiry(
            IDENTIFICATION, fields.require("object", integer(0, 255), 0, example=example)
        )
        why, others = "an object has none", ENCODING if "object" in fields else ENCODING[1:]
    elif function == SERVER_ID:
        found, why, others = Inquiry(SERVER_ID), "function 17 has none", ENCODING[1:]
    else:
        return None
    for key in others:
        if key in fields:
            fields.error(key, f"{key}: {why}", "remove it")
    return found


def _number(node: Node | None) -> int | None:
    try:
        return None if node is None else integer(0, 255)(node)
    except (Wrong, Refused):
        return None  # reported where it is read as that of a register


def _expected(fields: Fields, told_by: Register | Inquiry) -> tuple[str, ...]:
    def one(node: Node) -> str:
        found = text(node).strip()
        if not found.strip("0"):
            raise Wrong("0 and blank mean no model", "registers that hold nothing say so too")
        if isinstance(told_by, Inquiry):
            return plain(found.encode())
        encoding = told_by.encoding
        if encoding.type == "string":
            if len(found) > 2 * encoding.words and fields.sound("type", "words"):
                raise Wrong(f"{quoted(found)} is longer than two characters a register")
            return found
        number = integer(0, 0xFFFFFFFF)(node)
        try:
            encode(Decimal(number), encoding)
        except ValueError as error:
            raise Wrong(str(error)) from None
        return str(number)

    node = fields.node("expected")
    if node is None:
        return ()
    if isinstance(node, Items):
        return fields.many("expected", one)
    if isinstance(node, Scalar) and node.plain and re.fullmatch("[0-9]+(, ?[0-9]+)+", node.text):
        hint = f"write [{', '.join(re.findall('[0-9]+', node.text))}]"
        fields.error("expected", "expected: several values are a list", hint)
        return ()
    single = fields.get("expected", one, "")
    return (single,) if single else ()
