"""A mistake that was found, in words, and as the lines that mend it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from attrs import frozen

from gateway.metering.likelihood import Mistake
from gateway.metering.profile import DeviceProfile
from gateway.metering.quantity import QUANTITIES
from gateway.metering.register import Register
from gateway.metering.settings import MeterSettings
from gateway.metering.verifying import Candidate, terms


@frozen
class Mend:
    """Lines, and where they belong."""

    where: str
    yaml: str


def mistake_in_words(meter: MeterSettings, quantity: str, found: Candidate) -> str:
    """What is to be otherwise than it is."""
    return ", and ".join(_one(meter, quantity, found, mistake) for mistake in found.mistakes)


def _one(meter: MeterSettings, quantity: str, found: Candidate, mistake: Mistake) -> str:
    if mistake == "multiplier":
        assert found.multiplier is not None
        return f"multiplier is {found.multiplier:f}, not {meter.multiplier:f}"
    right = found.register
    assert right is not None
    own = next((r for r in terms(meter, quantity) if r.name == right.name), right)
    old, new = own.encoding, right.encoding
    match mistake:
        case "word order":
            return f"the word order is {new.word_order}, not {old.word_order}"
        case "byte order":
            return f"the bytes of each register are swapped: byte_order is {new.byte_order}"
        case "type":
            return f"the type is {new.type}, not {old.type}"
        case "address":
            step = right.address - own.address
            way = "higher" if step > 0 else "lower"
            return f"the address is one {way}: {right.address}"
        case "notation":
            return f"{own.address} is a document's way to write address {right.address}"
        case "function":
            return f"the function is {right.function}, not {own.function}"
        case "scale":
            words = f"the scale is {right.scale:f}, not {own.scale:f}"
            if found.or_multiplier is None:
                return words
            return f"{words}, or multiplier is {found.or_multiplier:f}, not {meter.multiplier:f}"
        case "sign":
            return "the sign is the other one"
        case "quantity":
            other = _named(meter.profile, right)
            return f"the display shows what the profile has as {other}"


def _named(profile: DeviceProfile, right: Register) -> str:
    at = right.function, right.address
    names = [r.name for r in profile.registers if (r.function, r.address) == at]
    return names[0] if names else f"address {right.address}"


def mended(meter: MeterSettings, found: Candidate, *, is_own: bool) -> list[Mend]:
    """A profile of one's own that extends the present one, or only its line where that is one's
    own already; the line of the meter in the configuration."""
    mends = []
    if (register := found.register) is not None:
        profile = meter.profile
        parted = register.name not in [each.name for each in profile.registers]
        entry = f"- {{{', '.join(_entry(profile, register, parted=parted))}}}"
        section = "parts" if parted else "registers"
        if is_own:
            mends.append(Mend(f"{profile.name}.yaml, among its {section}", entry))
        else:
            text = f"extends: {profile.name}\n{section}:\n  {entry}"
            mends.append(Mend(f"{profile.name}.yaml in your own profiles", text))
    if (multiplier := found.multiplier or found.or_multiplier) is not None:
        way = "or, for a transformer's ratio, in " if found.or_multiplier else ""
        where = f"{way}gateway.yaml, at the meter {meter.name}"
        mends.append(Mend(where, f"multiplier: {multiplier:f}"))
    return mends


def _entry(profile: DeviceProfile, register: Register, *, parted: bool) -> Iterator[str]:
    yield f"{'name' if parted else 'quantity'}: {register.name}"
    yield from _place(register)
    yield f'scale: "{_text(register.scale)}"'
    if register.unit or (not parted and QUANTITIES[register.name].unit):
        yield f"unit: {register.unit}"
    if register.not_available:
        yield f"not_available: [{', '.join(map(hex, sorted(register.not_available)))}]"
    if register.scale_register is not None:
        yield f"scale_register: {{{', '.join(_place(register.scale_register))}}}"
    if register.unit_register is not None:
        factors = ", ".join(f'{code}: "{_text(by)}"' for code, by in register.unit_factors)
        place = ", ".join(_place(register.unit_register))
        yield f"unit_register: {{{place}, factors: {{{factors}}}}}"
    if register.modulus is not None:
        yield f'modulus: "{_text(register.modulus)}"'
    yield f"sources: [{', '.join(register.sources or tuple(name for name, _ in profile.sources))}]"


def _place(register: Register) -> Iterator[str]:
    encoding = register.encoding
    yield f"function: {register.function}"
    yield f"address: {register.address}"
    yield f"type: {encoding.type}"
    if encoding.type == "mod10k":
        yield f"words: {encoding.words}"
    yield f"word_order: {encoding.word_order}"
    yield f"byte_order: {encoding.byte_order}"


def _text(number: Decimal) -> str:
    return f"{number:f}"
