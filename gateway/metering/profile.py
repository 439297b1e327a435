"""What is known of a meter model: its registers, the requests it takes, how it names itself."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import field, frozen

from gateway.clock import Millis
from gateway.metering.inquiry import Inquiry
from gateway.metering.quantity import QUANTITIES
from gateway.metering.register import Register

Kind: TypeAlias = Literal["electricity", "heat", "water", "gas"]


@frozen
class Limits:
    """What a request to this model may look like."""

    max_registers: int = 125
    """Most registers a request (Modbus: 125)."""
    holes: bool = False
    """May a request span addresses that the profile does not name?"""
    hole_ranges: tuple[tuple[int, int], ...] = ()
    """Where `holes` is true only in parts of the map: first and last address of each part."""
    even: bool = False
    """Start and count have to be even (Eastron)."""
    single: bool = False
    """One value a request: nothing may be joined."""
    whole_blocks: tuple[tuple[int, int, int], ...] = ()
    """(function, first, count) that can only be read in one piece (Siemens' identity)."""
    splits: tuple[tuple[int, int], ...] = ()
    """(function, address): no request reaches from below to there."""
    pause: Millis = 0
    """Silence that the model needs between two requests, above the 3.5 characters."""
    pause_after_open: Millis = 0
    answer_time: Millis = 0
    """The longest that its document allows it to answer; 0: not said."""


@frozen
class SerialDefaults:
    """How the model leaves the factory; None where no source says."""

    baudrate: int | None = None
    parity: Literal["none", "even", "odd"] | None = None
    stopbits: int | None = None
    unit: int | None = None


@frozen
class TcpDefaults:
    """The same of a model with Ethernet."""

    port: int | None = None
    unit: int | None = None


@frozen
class Identity:
    """A register or a text that says what the meter is: `what` is serial_number, model, …"""

    what: str
    told_by: Register | Inquiry
    expected: tuple[str, ...] = ()
    """Values that mean this model (numbers as decimal text); empty: it identifies nothing."""


@frozen
class Computed:
    """A quantity made of several registers: the sum of `plus` less the sum of `minus`."""

    quantity: str
    plus: tuple[Register, ...]
    minus: tuple[Register, ...] = ()
    unit: str = ""


@frozen
class SunSpec:
    """Addresses of the profile hold for a meter model whose header stands at `header`.

    The gateway finds the marker "SunS" at one of `bases`, walks the models by id and length to
    the first of `models`, and moves every address by the difference.
    """

    models: tuple[int, ...]
    header: int = 40070
    bases: tuple[int, ...] = (40000, 50000, 0)


@frozen
class DeviceProfile:
    """A model or family. Names of registers and computed quantities are unique within it."""

    name: str
    maker: str
    model: str
    kind: Kind
    registers: tuple[Register, ...]
    computed: tuple[Computed, ...] = ()
    limits: Limits = field(factory=Limits)
    serial: SerialDefaults = field(factory=SerialDefaults)
    tcp: TcpDefaults = field(factory=TcpDefaults)
    identity: tuple[Identity, ...] = ()
    sunspec: SunSpec | None = None
    sources: tuple[tuple[str, str], ...] = ()
    """Short name of a source to what and where it is."""
    aliases: tuple[str, ...] = ()
    """What else stands on its label: type codes, names under which others sell it."""
    left_out: tuple[tuple[str, str], ...] = ()
    """What is looked for and not here, a quantity or another fact, and why."""
    setup: tuple[str, ...] = ()
    """How to wire and set it."""
    notes: tuple[str, ...] = ()

    def quantities(self) -> tuple[str, ...]:
        """What can be sent from this model, in the order of the profile."""
        names = [r.name for r in self.registers if r.name in QUANTITIES]
        return (*names, *(c.quantity for c in self.computed))

    def why_not(self, quantity: str) -> str:
        """Why a quantity is not among those; empty where the profile does not say."""
        return dict(self.left_out).get(quantity, "")

    def everything(self) -> tuple[Register, ...]:
        """The registers to read for all quantities."""
        return tuple(dict.fromkeys(part for q in self.quantities() for part in self.needs(q)))

    def identity_registers(self) -> tuple[Register, ...]:
        """The registers among what says what the meter is."""
        return tuple(i.told_by for i in self.identity if isinstance(i.told_by, Register))

    def needs(self, quantity: str) -> tuple[Register, ...]:
        """The registers to read for a quantity, parts and scale registers included.

        Raises KeyError where the profile has no such quantity.
        """
        for computed in self.computed:
            if computed.quantity == quantity:
                terms = (*computed.plus, *computed.minus)
                return tuple(dict.fromkeys(part for term in terms for part in term.parts))
        for register in self.registers:
            if register.name == quantity:
                return register.parts
        raise KeyError(quantity)
