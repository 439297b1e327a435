"""What profile files say, before it becomes a profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import field, frozen

from gateway.config.encodings import Common
from gateway.errors import Mistake
from gateway.metering.profile import (
    Computed,
    DeviceProfile,
    Identity,
    Kind,
    Limits,
    SerialDefaults,
    SunSpec,
    TcpDefaults,
)
from gateway.metering.quantity import QUANTITIES
from gateway.metering.register import Register


@frozen
class Sum:
    """One entry under `computed`, its terms still names."""

    quantity: str
    plus: tuple[str, ...]
    minus: tuple[str, ...]


@frozen
class Draft:
    """A profile as far as its file and those it extends say; nothing of it is resolved yet."""

    maker: str = ""
    model: str = ""
    kind: Kind | None = None
    sources: Mapping[str, str] = field(factory=dict)
    serial: SerialDefaults = field(factory=SerialDefaults)
    tcp: TcpDefaults = field(factory=TcpDefaults)
    limits: Limits = field(factory=Limits)
    common: Common = field(factory=Common)
    identity: Mapping[str, Identity] = field(factory=dict)
    registers: Mapping[str, Register] = field(factory=dict)
    parts: Mapping[str, Register] = field(factory=dict)
    computed: Mapping[str, Sum] = field(factory=dict)
    sunspec: SunSpec | None = None
    aliases: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(factory=dict)
    setup: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[Mistake, ...] = ()
    """What a person should look at in its own file."""

    @property
    def served(self) -> Iterator[Register]:
        """All registers that may be asked for."""
        terms = {term for total in self.computed.values() for term in (*total.plus, *total.minus)}
        for register in (*self.registers.values(), *map(self.parts.get, terms)):
            if register is not None:
                yield from register.parts
        for identity in self.identity.values():
            if isinstance(identity.told_by, Register):
                yield identity.told_by

    @property
    def present(self) -> set[str]:
        """What it has, by name."""
        return {*self.registers, *self.computed, *self.identity}


def resolve(name: str, draft: Draft) -> DeviceProfile:
    """The finished profile of a draft that was read without a mistake."""
    known = {**draft.registers, **draft.parts}
    computed = tuple(
        Computed(
            total.quantity,
            tuple(known[term] for term in total.plus),
            tuple(known[term] for term in total.minus),
            QUANTITIES[total.quantity].unit,
        )
        for total in draft.computed.values()
    )
    assert draft.kind is not None
    return DeviceProfile(
        name=name,
        maker=draft.maker,
        model=draft.model,
        kind=draft.kind,
        registers=tuple(draft.registers.values()),
        computed=computed,
        limits=draft.limits,
        serial=draft.serial,
        tcp=draft.tcp,
        identity=tuple(draft.identity.values()),
        sunspec=draft.sunspec,
        sources=tuple(draft.sources.items()),
        aliases=draft.aliases,
        left_out=tuple((k, v) for k, v in draft.left_out.items() if k not in draft.present),
        setup=draft.setup,
        notes=draft.notes,
    )
