"""Is the meter that answers the one it should be? Pure.

Where the configuration names a serial number, values of another meter are refused: the number is
read before anything else, and again after each silence in which meters could have been swapped.
What tells the model is looked at once a day, behind the values, and only reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, TypeAlias

from gateway.metering.profile import Identity
from gateway.metering.reading import RawWords
from gateway.metering.register import Register, decode_text, value_of
from gateway.metering.settings import MeterSettings

SWAPPED_AFTER: Final = 60.0
"""Seconds unheard after which another meter may stand in its place; nobody is quicker."""
DAILY: Final = 86_400.0

Said: TypeAlias = tuple[str, Mapping[str, object]]
"""An event for the log and its fields."""


class Identification:
    """What one meter said that it is. Instants are monotonic seconds."""

    def __init__(self, meter: MeterSettings) -> None:
        self._meter = meter
        self._wanted = _bare(meter.serial_number or "")
        self._serial = next(
            (i.register for i in meter.profile.identity if i.what == "serial_number"), None
        )
        self._models = tuple(i for i in meter.profile.identity if i.expected)
        self._shown: str | None = None
        self._serial_at: float | None = None
        self._models_at: float | None = None
        self._wrong: tuple[str, ...] = ()

    @property
    def refusal(self) -> str:
        """Why its values are not to be taken; empty: they are."""
        if self._serial is None or not self._wanted:
            return ""
        if self._shown is None:
            return "unidentified"
        return "" if _bare(self._shown) == self._wanted else "other_meter"

    def uses(self, register: Register) -> bool:
        """Does it only tell what the meter is?"""
        return any(one.register == register for one in self._meter.profile.identity)

    def before(self, now: float, last_answer: float | None) -> Register | None:
        """What has to be read before its values; `last_answer` is the one before this round."""
        if self._serial is None or not self._wanted:
            return None
        unheard = last_answer is None or now - last_answer >= SWAPPED_AFTER
        daily = self._serial_at is None or now - self._serial_at >= DAILY
        return self._serial if unheard or daily or self.refusal else None

    def behind(self, now: float) -> tuple[Register, ...]:
        """What is to be read behind its values, once a day, whatever comes of it."""
        if not self._models or (self._models_at is not None and now - self._models_at < DAILY):
            return ()
        self._models_at = now
        return tuple(one.register for one in self._models)

    def serial_read(self, raw: RawWords, now: float) -> list[Said]:
        """Its serial number was asked for."""
        assert self._serial is not None
        before, self._shown = self._shown, told(self._serial, raw)
        self._serial_at = now
        if self.refusal != "other_meter" or self._shown == before:
            return []
        fields = {"meter": self._meter.name, "was": self._meter.serial_number, "is": self._shown}
        return [("meter.identity_changed", fields)]

    def models_read(self, raw: RawWords) -> list[Said]:
        """What tells its model was asked for."""
        before, self._wrong = (
            self._wrong,
            tuple(filter(None, (_wrong(i, raw) for i in self._models))),
        )
        if not self._wrong or self._wrong == before:
            return []
        found = ", ".join(self._wrong)
        fields = {"meter": self._meter.name, "profile": self._meter.profile.name, "found": found}
        return [("meter.wrong_model", fields)]


def _wrong(identity: Identity, raw: RawWords) -> str:
    shown = told(identity.register, raw)
    return "" if shown is None or shown in identity.expected else f"{identity.what} {shown}"


def told(register: Register, raw: RawWords) -> str | None:
    """What an identity register says; None where it was not read, is blank or makes no sense."""
    words = raw.lookup(register)
    if words is None:
        return None
    if register.encoding.type == "string":
        shown = decode_text(words, register.encoding)
    else:
        try:
            value = value_of(register, raw.lookup)
        except ValueError:
            return None
        shown = f"{value:f}" if isinstance(value, Decimal) else ""
    return shown if _bare(shown) else None


def _bare(serial: str) -> str:
    """As serial numbers are compared: people leave out leading zeros, and write small letters."""
    return serial.strip().casefold().lstrip("0")
