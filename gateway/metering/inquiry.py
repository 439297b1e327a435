"""What a meter tells of itself in texts, by functions of their own instead of registers. Pure."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import frozen

IDENTIFICATION: Final = 43
"""Read Device Identification, 43/14 (Modbus application protocol v1.1b3, §6.21)."""
SERVER_ID: Final = 17
"""Report Server ID (§6.13)."""

Function: TypeAlias = Literal[17, 43]


@frozen
class Inquiry:
    """One text that a meter tells: an object of 43/14, or all that it answers to 17."""

    function: Function
    object: int = 0

    @property
    def category(self) -> int:
        """43/14: objects are given in streams: of the basic, the regular or all objects; 17: 0."""
        if self.function == SERVER_ID:
            return 0
        return 1 if self.object <= 0x02 else 2 if self.object < 0x80 else 3

    @property
    def data_bytes(self) -> int:
        """Bytes of data that its answer has at most."""
        return 250

    @property
    def shape(self) -> tuple[int, int]:
        """As that of a read: no read has the function, and within it answers say what they tell."""
        return self.function, 0

    def __str__(self) -> str:
        return f"f43/14@{self.object}" if self.function == IDENTIFICATION else "f17"


@frozen
class Told:
    """What a meter told: texts by their object; that of function 17 stands as object 0."""

    function: Function
    texts: tuple[tuple[int, str], ...]

    def lookup(self, inquiry: Inquiry) -> str | None:
        """The text asked for; None where it was not told."""
        if inquiry.function != self.function:
            return None
        return next((text for number, text in self.texts if number == inquiry.object), None)


def plain(data: bytes) -> str:
    """The readable part of a text in ASCII."""
    return readable(data.decode("ascii", "replace").replace("\ufffd", " "))


def readable(text: str) -> str:
    """Words with one space between, whatever else stands there: no meter moves a cursor."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
