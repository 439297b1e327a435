"""Which profile is that of a unit that answers? Pure: how it is asked is handed in.

A meter is *named* where it says its model: a text, a code, or a SunSpec meter model. A code is a
small number that stands in another model's registers by chance as well, so its values have to make
sense too. Where no register names the model, a unit *looks like* a profile if it gives every
register of it, and every value is one that its quantity can have, which is not likely by chance.
That tells apart what can be told; other models of a family may still look alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from decimal import Decimal
from typing import Final, TypeAlias, TypeVar

from attrs import define, evolve, field, frozen

from gateway.errors import BadAnswer, DeviceException, MeterError, MeterTimeout
from gateway.metering.inquiry import Inquiry, Told
from gateway.metering.profile import DeviceProfile, Identity
from gateway.metering.reading import Block, RawWords
from gateway.metering.register import Register, value_of
from gateway.modbus.discovery import Place, locate
from gateway.modbus.identity import Shown, told
from gateway.modbus.plan import Read, Timing, plan
from gateway.modbus.plausible import by_chance, possible

Ask: TypeAlias = Callable[[Read], Awaitable[Block]]
"""Asks the unit once. Raises MeterError, LinkDown."""
Inquire: TypeAlias = Callable[[Inquiry], Awaitable[Told]]
"""The same for what it tells of itself."""
_Q = TypeVar("_Q")
_T = TypeVar("_T")

_TRIES: Final = 3
"""An answer that cannot be trusted is asked for so often; silence once less."""
_NOT_THE_MODEL: Final = ("manufacturer", "application")
"""How the names of identities begin that many models of a maker share."""
_MAINS: Final = 30
"""Volts or hertz that a meter in service shows of at least one of its phases."""
_CONVINCING: Final = 5e-4
"""How likely a device that means something else may look like a profile by chance."""
_LIVE: Final = 2
"""Values that have to be other than zero: a device that gives zeros looks like everything."""
_TIMING: Final = Timing(1.0, 0.01)
"""Few reads rather than short ones."""


@frozen
class Claim:
    """A profile that a unit may have."""

    profile: DeviceProfile
    named_by: str = ""
    """What it said that only this model says; empty: it only looks like it."""
    serial_number: str | None = None


@define
class Witness:
    """A unit that is asked, and all that it gave and refused."""

    unit: int
    _ask: Ask
    _inquire: Inquire | None = None
    """None: it is not asked that."""
    blocks: dict[Read, Block] = field(factory=dict)
    refused: dict[Read, str] = field(factory=dict)
    """Reads to the reason why they gave nothing."""
    told: list[Told] = field(factory=list)
    _mute: set[tuple[int, int]] = field(factory=set)
    """Function and category of what it does not tell."""

    async def says(self, inquiry: Inquiry) -> str | None:
        """A text that it tells of itself; a stream of them is asked for once. Raises LinkDown."""
        kind = inquiry.function, inquiry.category
        shown = Shown(RawWords(), tuple(self.told)).by(inquiry)
        if shown is not None or kind in self._mute or self._inquire is None:
            return shown
        try:
            self.told.append(await self._patiently(inquiry, self._inquire))
        except MeterError:
            self._mute.add(kind)
            return None
        shown = Shown(RawWords(), tuple(self.told)).by(inquiry)
        if shown is None:
            self._mute.add(kind)
        return shown

    async def read(self, read: Read) -> Block | None:
        """One read; asked once, however often it is wanted. Raises LinkDown."""
        if read in self.refused:
            return None
        if read not in self.blocks:
            try:
                self.blocks[read] = await self._patiently(read, self._ask)
            except MeterError as error:
                self.refused[read] = error.reason
                return None
        return self.blocks[read]

    async def again(self, read: Read) -> bool:
        """Does it say the same once more? A late answer to another read does not."""
        try:
            return (await self._patiently(read, self._ask)).words == self.blocks[read].words
        except MeterError:
            return False

    async def _patiently(self, question: _Q, ask: Callable[[_Q], Awaitable[_T]]) -> _T:
        left = _TRIES
        while True:
            left -= 1
            try:
                return await ask(question)
            except BadAnswer:
                if not left:
                    raise
            except MeterTimeout:
                left -= 1
                if left <= 0:
                    raise

    async def located(self, read: Read) -> Block:
        """For `locate`, which wants a refusal as an exception."""
        block = await self.read(read)
        if block is None:
            raise DeviceException("", self.unit, str(read), 2)
        return block


async def recognise(profiles: Sequence[DeviceProfile], witness: Witness) -> tuple[Claim, ...]:
    """The profiles that fit best, the likeliest first; none where the unit is unknown.

    Raises LinkDown.
    """
    named = [claim for profile in profiles if (claim := await _named(profile, witness))]
    if named:
        return tuple(sorted(named, key=_generic))
    fits = [fit for profile in profiles if (fit := await _looks_like(profile, witness))]
    kept = [fit for fit in fits if not any(other.surpasses(fit) for other in fits)]
    kept.sort(key=lambda fit: -fit.live)
    return tuple([await _claim(fit.profile, witness) for fit in kept])


def _generic(claim: Claim) -> tuple[bool, str]:
    return claim.profile.sunspec is not None, claim.profile.name


# --------------------------------------------------------------------------------------- named


async def _named(profile: DeviceProfile, witness: Witness) -> Claim | None:
    if profile.sunspec is not None:
        return await _sunspec(profile, witness)
    said: list[str] = []
    for identity in profile.identity:
        if identity.expected:
            shown = await _told(identity.told_by, profile, witness)
            if shown not in identity.expected:
                return None
            if _tells_model(identity):
                said.append(f"{identity.what} {shown}")
    if not said:
        return None
    by_text = any(
        _tells_model(i)
        and (not isinstance(r := i.told_by, Register) or r.encoding.type == "string")
        for i in _proofs(profile)
    )
    if not by_text and await _fit(profile, witness, whole=False) is None:
        return None
    for identity in _proofs(profile):
        register = identity.told_by  # texts say themselves what they are
        if isinstance(register, Register) and not await witness.again(_read_of(register, profile)):
            return None
    return await _claim(profile, witness, ", ".join(said))


def _proofs(profile: DeviceProfile) -> Iterator[Identity]:
    return (identity for identity in profile.identity if identity.expected)


def _tells_model(identity: Identity) -> bool:
    return bool(identity.expected) and not identity.what.startswith(_NOT_THE_MODEL)


async def _sunspec(profile: DeviceProfile, witness: Witness) -> Claim | None:
    assert profile.sunspec is not None
    for base in profile.sunspec.bases:
        try:
            place = await locate(profile.sunspec, base, witness.located)
        except MeterError:
            continue
        if place is not None:
            header = await witness.read(Read(3, place.header, 2))
            model = header.words[0] if header is not None else "?"
            said = f"SunSpec meter model {model} at {place.header}"
            return await _claim(profile, witness, said, place)
    return None


async def _claim(
    profile: DeviceProfile, witness: Witness, said: str = "", place: Place | None = None
) -> Claim:
    for identity in profile.identity:
        if identity.what == "serial_number":
            told_by = identity.told_by
            if place is not None and isinstance(told_by, Register):
                told_by = place.moved(told_by)
            return Claim(profile, said, await _told(told_by, profile, witness))
    return Claim(profile, said)


async def _told(
    told_by: Register | Inquiry, profile: DeviceProfile, witness: Witness
) -> str | None:
    if isinstance(told_by, Inquiry):
        return await witness.says(told_by)
    block = await witness.read(_read_of(told_by, profile))
    return None if block is None else told(told_by, RawWords((block,)))


def _read_of(register: Register, profile: DeviceProfile) -> Read:
    (read,) = plan([register], profile.limits, _TIMING)
    return read


# ---------------------------------------------------------------------------------- looking like


@frozen
class _Fit:
    """A profile that a unit's answers make sense with."""

    profile: DeviceProfile
    values: dict[Register, Decimal]

    @property
    def live(self) -> float:
        """Share of its values that are not just zero."""
        return sum(map(bool, self.values.values())) / len(self.values)

    def surpasses(self, other: _Fit) -> bool:
        """Does it explain all that the other does, and something besides that is not just zero?"""
        mine = {_place(register): value for register, value in self.values.items()}
        others = {_place(register) for register in other.values}
        return others < mine.keys() and any(mine[place] for place in mine.keys() - others)


def _place(register: Register) -> tuple[object, ...]:
    kind = register.encoding.type.replace("u", "s")  # what is not negative is the same in both
    encoding = evolve(register.encoding, type=kind)
    return register.function, register.address, encoding, register.scale


async def _looks_like(profile: DeviceProfile, witness: Witness) -> _Fit | None:
    """Where no register names the model."""
    if profile.sunspec is not None or any(map(_tells_model, profile.identity)):
        return None
    for identity in profile.identity:
        expected = identity.expected
        if identity.what == "meter_address":
            expected = (str(witness.unit),)
        if expected and await _told(identity.told_by, profile, witness) not in expected:
            return None
    fit = await _fit(profile, witness, whole=True)
    return fit if fit is not None and by_chance(fit.values) <= _CONVINCING else None


async def _fit(profile: DeviceProfile, witness: Witness, *, whole: bool) -> _Fit | None:
    """Its values, if each can be. `whole`: it has to give every register."""
    wanted = profile.everything()
    numbers = list(dict.fromkeys(_numbers(profile)))
    raw = RawWords()
    for read in plan(wanted, profile.limits, _TIMING, known=wanted):
        block = await witness.read(read)
        if block is None and whole:
            return None
        if block is not None:
            raw = RawWords((*raw.blocks, block))
            if not all(possible(register, raw) for register in numbers):
                return None
    values = {r: value for r in numbers if isinstance(value := value_of(r, raw.lookup), Decimal)}
    given = sum(raw.lookup(register) is not None for register in numbers)
    if 2 * given < len(numbers) or sum(map(bool, values.values())) < _LIVE:
        return None
    mains = [register for register in numbers if register.unit in ("V", "Hz")]
    if mains and not any(values.get(register, 0) >= _MAINS for register in mains):
        return None
    return _Fit(profile, values)


def _numbers(profile: DeviceProfile) -> Iterator[Register]:
    """The registers that hold a value, not its scale or its unit."""
    yield from profile.registers
    for computed in profile.computed:
        yield from (*computed.plus, *computed.minus)
