"""The errors of the gateway, drawn by what the caller does next.

GatewayError                  carries a hint and the exit code a command ends with
├── ConfigurationError        stop and show every mistake                        78
├── AlreadyRunning            another process holds the instance lock            73
├── NotPermitted              a file, port or socket refuses us                  77
├── TargetUnreachable         a command's meter or server does not answer        69
├── TryLater                  the API's slot is not free yet                     75
├── MeterError                one request to one unit failed; others go on
│   ├── MeterTimeout          no answer: ask again later, probe shortly
│   ├── BadAnswer             an answer that cannot be trusted: discarded, asked again
│   └── DeviceException       the unit answered with a Modbus exception code
├── LinkDown                  the whole line or endpoint is gone: reconnect, blame no unit
├── StoreError                the buffer could not do what it was asked
│   ├── StoreFull             no room: free the ballast, keep sampling in memory
│   ├── StoreUnavailable      I/O error or read-only: try again, nothing was committed
│   ├── StoreDamaged          the file is not sound: set it aside and salvage
│   └── StoreNewer            written by a newer program: refuse, leave it alone
└── NoAnswer                  the server's answer did not arrive: the outcome is unknown
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class GatewayError(Exception):
    """An error that a person may read. `hint` says what to try next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Mistake:
    """One mistake in a file that a person wrote. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    message: str
    source: str = ""
    """The line as it stands in the file, without its newline."""
    width: int = 1
    """How many characters the caret underlines."""
    suggestion: str = ""
    level: str = "error"
    """error or warning."""
    caret: int = 0
    """Column of the caret below `source`, where hiding a secret moved it; 0: as `column`."""
    other: tuple[int, str] | None = None
    """Number and text of another line that belongs to it: where a repeated name stood first."""

    @property
    def headline(self) -> str:
        """file:line:column: error: message, without the line itself."""
        return f"{self.file}:{self.line}:{self.column}: {self.level}: {self.message}"


class ConfigurationError(GatewayError):
    """A configuration or profile that cannot be used; carries every mistake found."""

    exit_code = 78

    def __init__(
        self,
        mistakes: Sequence[Mistake],
        *,
        what: str = "the configuration",
        hint: str = "mend the lines shown and run `meter-gateway check` again",
    ) -> None:
        n = sum(mistake.level == "error" for mistake in mistakes)
        super().__init__(f"{n} mistake{'' if n == 1 else 's'} in {what}", hint=hint)
        self.mistakes = tuple(mistakes)


class AlreadyRunning(GatewayError):
    """Another process holds the lock of this buffer."""

    exit_code = 73

    def __init__(self, pid: int | None) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"the gateway is already running: {who}",
            hint="stop it first, or use `meter-gateway status` to see what it does",
        )
        self.pid = pid


class NotPermitted(GatewayError):
    """A file, port or socket that this user may not use."""

    exit_code = 77


class TargetUnreachable(GatewayError):
    """The meter, the bus or the server that a command needs does not answer."""

    exit_code = 69


class TryLater(GatewayError):
    """The API allows no request yet."""

    exit_code = 75


class MeterError(GatewayError):
    """A request to one unit failed. `reason` is the short word used in logs and the ledger."""

    reason = "error"

    def __init__(self, bus: str, unit: int, block: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{bus} unit {unit} {block}: {message}", hint=hint)
        self.bus = bus
        self.unit = unit
        self.block = block


class MeterTimeout(MeterError):
    """The unit did not answer in time."""

    reason = "timeout"


class BadAnswer(MeterError):
    """An answer that is not the one asked for. `reason`: crc, unit, function, length or frame."""

    def __init__(self, bus: str, unit: int, block: str, message: str, *, reason: str) -> None:
        super().__init__(bus, unit, block, message)
        self.reason = reason


class DeviceException(MeterError):
    """The unit answered with a Modbus exception code (1 to 11)."""

    def __init__(self, bus: str, unit: int, block: str, code: int) -> None:
        super().__init__(bus, unit, block, f"exception {code}")
        self.code = code
        self.reason = f"exception_{code}"


class LinkDown(GatewayError):
    """The serial port or the TCP connection of a bus is gone; the message says only why."""

    def __init__(self, bus: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.bus = bus


class StoreError(GatewayError):
    """The buffer could not do what it was asked; nothing of the call was committed."""


class StoreFull(StoreError):
    """The disk, or the size allowed to the buffer, is full."""


class StoreUnavailable(StoreError):
    """I/O error, read-only file system or a lock held by someone else: try again."""


class StoreDamaged(StoreError):
    """The file is not a sound database."""


class StoreNewer(StoreError):
    """The file was written by a newer version of the gateway."""

    exit_code = 78


class NoAnswer(GatewayError):
    """A request to Energinet got no complete answer; the server may have stored the values.

    `reason`: refused, dns, timeout, tls, clock, proxy or protocol.
    """

    def __init__(self, reason: str, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.sent = sent
        """False only where it is certain that no byte of the body left."""
