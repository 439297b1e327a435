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
from gateway.config.values import integer, text
from gateway.metering.register import Encoding, Register

IDENTITY: Final = ("what", *ENCODING, "expected", "sources", "note")


def read_identity(context: Context, node: Node) -> tuple[Register, tuple[str, ...]] | None:
    """One entry under `identity`: its register and the values it is expected to have."""
    body = table(context.report, node, "identity")
    if body is None:
        return None
    fields = Fields(context.report, body, "identity", IDENTITY)
    what = fields.require("what", word, "", example="what: serial_number")
    encoding, function, address = read_encoding(fields, context.common)
    register = Register(
        what,
        function,
        address,
        encoding,
        sources=own_sources(fields, context),
        note=fields.get("note", text, ""),
    )
    check_size(fields, context, register)
    expected = _expected(fields, encoding)
    return (register, expected) if fields.sound(*IDENTITY) else None


def _expected(fields: Fields, encoding: Encoding) -> tuple[str, ...]:
    def one(node: Node) -> str:
        found = text(node).strip()
        if encoding.type == "string":
            return found
        return str(integer(0, 0xFFFFFFFF)(node))

    node = fields.node("expected")
    if node is None:
        return ()
    if isinstance(node, Items):
        return fields.many("expected", one)
    single = fields.get("expected", one, "")
    return (single,) if single else ()
