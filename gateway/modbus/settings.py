"""What the configuration says of a bus."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import frozen

from gateway.clock import MINUTE, SECOND, Millis

Parity: TypeAlias = Literal["none", "even", "odd"]
Framing: TypeAlias = Literal["rtu", "ascii", "tcp", "tls"]


SERIAL_HINT: Final = (
    "check the adapter's plug, the path, and that this user is in the group dialout"
)
"""What to try where a port cannot be used."""
TCP_HINT: Final = "check the network, the address and the port; some devices take one client only"


@frozen
class SerialLink:
    """An RS-485 line behind a serial port."""

    path: str
    baudrate: int = 9600
    parity: Parity = "none"
    stopbits: int = 1
    framing: Literal["rtu", "ascii"] = "rtu"
    echo: bool = False
    """The adapter hears its own requests."""
    rs485: bool = False
    """Let the kernel switch the direction (UARTs of the board; USB adapters do it themselves)."""

    @property
    def address(self) -> str:
        """Where it is, as people write it."""
        return self.path

    @property
    def data_bits(self) -> int:
        """7 for ASCII as the standard has it (7E1, 7O1, 7N2), but 8N1 where that is asked for."""
        plain = self.parity == "none" and self.stopbits == 1
        return 7 if self.framing == "ascii" and not plain else 8

    @property
    def character_bits(self) -> int:
        """Bits a character takes on the wire: start, data, parity, stop."""
        return 1 + self.data_bits + (self.parity != "none") + self.stopbits


@frozen
class Tls:
    """Files for Modbus/TCP Security; all optional."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


@frozen
class TcpLink:
    """A TCP endpoint: a meter, a gateway to a line, or a serial server."""

    host: str
    port: int = 502
    framing: Framing = "tcp"
    disconnect: Literal["never", "after_round"] = "never"
    tls: Tls | None = None

    @property
    def address(self) -> str:
        """Where it is, as people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Link: TypeAlias = SerialLink | TcpLink


@frozen
class BusSettings:
    """One entry under `buses`."""

    name: str
    link: Link
    poll: Millis = MINUTE
    timeout: Millis = SECOND
    """The longest wait for an answer; learnt below it."""
    retries: int = 2
    pause: Millis = 0
    pause_after_open: Millis = 0
