"""Is the meter that answers the one it should be? Pure.

A meter that tells its serial number is known by it: by the one in the configuration, or else by the
first that it told. Values of another are refused, until a person accepts it. Once known, the number
is read before anything else, daily, and after each silence in which meters could have been swapped.
What tells the model is looked at once a day, behind the values, and only reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, TypeAlias

from attrs import frozen

from gateway.metering.inquiry import Inquiry, Told, readable
from gateway.metering.profile import Identity
from gateway.metering.reading import RawWords
from gateway.metering.register import Register, decode_text, value_of
from gateway.metering.settings import MeterSettings

SWAPPED_AFTER: Final = 60.0
"""Seconds unheard after which another meter may stand in its place; nobody is quicker."""
UNHEARD_AFTER: Final = 300.0
"""The same where no number was asked for: a look at each poll would cost more than it is worth."""
DAILY: Final = 86_400.0

Said: TypeAlias = tuple[str, Mapping[str, object]]
"""An event for the log and its fields."""


@frozen
class Shown:
    """What a meter gave where it was asked what it is."""

    raw: RawWords
    told: tuple[Told, ...] = ()

    def by(self, one: Register | Inquiry) -> str | None:
        """What it says there; None where it was not given, is blank or makes no sense."""
        if isinstance(one, Register):
            return told(one, self.raw)
        texts = (told.lookup(one) for told in self.told)
        return next((text for text in texts if text and _bare(text)), None)


class Identification:
    """What one meter said that it is. Instants are monotonic seconds."""

    def __init__(self, meter: MeterSettings) -> None:
        self._meter = meter
        self._first = ""
        """The number that it told first, or that was accepted."""
        self._serial = next(
            (i.told_by for i in meter.profile.identity if i.what == "serial_number"), None
        )
        self._models = tuple(i for i in meter.profile.identity if i.expected)
        self._shown: str | None = None
        self._serial_at: float | None = None
        self._behind_at: float | None = None
        self._wrong: tuple[str, ...] = ()

    @property
    def refusal(self) -> str:
        """Why its values are not to be taken; empty: they are."""
        if self._serial is None or not self.wanted:
            return ""
        if self._shown is None:
            return "unidentified"
        return "" if same_serial(self._shown, self.wanted) else "other_meter"

    @property
    def wanted(self) -> str:
        """The number it is known by; empty where there is none yet."""
        return self._meter.serial_number or self._first

    @property
    def shown(self) -> str:
        """The number that it told last; empty where it told none."""
        return self._shown or ""

    def accept(self) -> str:
        """Take it for the right one from now on: the number it tells; empty where it tells none.

        Not for a number in the configuration, which only a change there takes back.
        """
        if self._shown is not None and not self._meter.serial_number:
            self._first = self._shown
        return self.shown

    def recall(self, number: str) -> None:
        """Go on from the number that it was known by before a restart."""
        self._first = number

    def uses(self, register: Register) -> bool:
        """Does it only tell what the meter is?"""
        return register in self._meter.profile.identity_registers()

    def before(self, now: float, last_answer: float | None) -> Register | Inquiry | None:
        """What has to be read before its values; `last_answer` is the one before this round."""
        if self._serial is None or not self.wanted:
            return None
        pause = SWAPPED_AFTER if self._meter.serial_number else UNHEARD_AFTER
        unheard = last_answer is None or now - last_answer >= pause
        daily = self._serial_at is None or now - self._serial_at >= DAILY
        return self._serial if unheard or daily or self.refusal else None

    def behind(self, now: float) -> tuple[Register | Inquiry, ...]:
        """What is to be read behind its values, once a day, whatever comes of it."""
        if self._behind_at is not None and now - self._behind_at < DAILY:
            return ()
        self._behind_at = now
        first = (self._serial,) if self._serial and not self.wanted else ()
        return (*first, *(one.told_by for one in self._models))

    def serial_read(self, shown: Shown, now: float) -> list[Said]:
        """Its serial number was asked for."""
        assert self._serial is not None
        before, self._shown = self._shown, shown.by(self._serial)
        self._serial_at = now
        if self.refusal != "other_meter" or self._shown == before:
            return []
        fields = {"meter": self._meter.name, "was": self.wanted, "is": self._shown}
        return [("meter.identity_changed", fields)]

    def first_told(self, shown: Shown, now: float) -> str:
        """The number it is known by from now on, where none was known; empty: there is no news."""
        if self._serial is None or self.wanted:
            return ""
        self._shown, self._serial_at = shown.by(self._serial), now
        return self.accept()

    def models_read(self, shown: Shown) -> list[Said]:
        """What tells its model was asked for."""
        before, self._wrong = (
            self._wrong,
            tuple(filter(None, (_wrong(i, shown) for i in self._models))),
        )
        if not self._wrong or self._wrong == before:
            return []
        found = ", ".join(self._wrong)
        fields = {"meter": self._meter.name, "profile": self._meter.profile.name, "found": found}
        return [("meter.wrong_model", fields)]


def _wrong(identity: Identity, shown: Shown) -> str:
    said = shown.by(identity.told_by)
    return "" if said is None or said in identity.expected else f"{identity.what} {said}"


def told(register: Register, raw: RawWords) -> str | None:
    """What an identity register says; None where it was not read, is blank or makes no sense."""
    words = raw.lookup(register)
    if words is None:
        return None
    if register.encoding.type == "string":
        shown = readable(decode_text(words, register.encoding))
    else:
        try:
            value = value_of(register, raw.lookup)
        except ValueError:
            return None
        shown = f"{value:f}" if isinstance(value, Decimal) else ""
    return shown if _bare(shown) else None


def same_serial(one: str, other: str) -> bool:
    """Are they one number? People leave out leading zeros, and write small letters."""
    return _bare(one) == _bare(other)


def _bare(serial: str) -> str:
    return serial.strip().casefold().lstrip("0")
