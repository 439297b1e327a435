"""How a profile says that its model can be told from others."""

from __future__ import annotations

from typing import Final

from gateway.config.document import Items, Node
from gateway.config.fields import Fields, table
from gateway.config.registers import (
    ENCODING,
    Context,
    check_size,
    own_sources,
    read_encoding,
    word,
)
from gateway.config.values import Refused, Wrong, integer, text
from gateway.metering.inquiry import IDENTIFICATION, SERVER_ID, Inquiry, plain
from gateway.metering.profile import Identity
from gateway.metering.register import Register

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
        encoding, function, address = read_encoding(fields, context.common)
        register = Register(what, function, address, encoding, sources=sources, note=note)
        check_size(fields, context, register)
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
        if told_by.encoding.type == "string":
            return found
        return str(integer(0, 0xFFFFFFFF)(node))

    node = fields.node("expected")
    if node is None:
        return ()
    if isinstance(node, Items):
        return fields.many("expected", one)
    single = fields.get("expected", one, "")
    return (single,) if single else ()
