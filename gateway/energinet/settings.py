"""What the configuration says of Energinet."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Literal, TypeAlias

from attrs import field, frozen

from gateway.clock import SECOND, Millis
from gateway.energinet.limits import MAX_BODY, REQUEST_INTERVAL
from gateway.logbook import hide

Timestamps: TypeAlias = Literal["local", "offset", "utc"]


class Secret:
    """A text that never shows itself: repr, str and format give ***, and the log too."""

    __slots__ = ("__weakref__", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        hide(self)

    def reveal(self) -> str:
        """The text itself, for the one place that sends it."""
        return self._text

    def digest(self) -> str:
        """Tells two secrets apart, and may be kept.

        It tells nothing of a token: one is drawn by chance from far more than anybody can try, and
        8 bytes are too few to hold it.
        """
        return blake2b(self._text.encode(), digest_size=8, person=b"meter-gateway").hexdigest()

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


SecretSource: TypeAlias = Callable[[], Secret]
"""Reads the secret from where it is kept, each time it is called (a file may be replaced).

Raises NotPermitted or GatewayError with a hint where it cannot be read; never shows it.
"""


@frozen
class Proxy:
    """An HTTP proxy; `credentials` gives "user:password"."""

    url: str
    credentials: SecretSource | None = field(default=None, repr=False)


@frozen
class SenderSettings:
    """One entry under `senders`."""

    name: str
    import_name: str
    token: SecretSource = field(repr=False)


@frozen
class EnerginetSettings:
    """The whole of `energinet`."""

    senders: tuple[SenderSettings, ...]
    url: str = "https://www.energinet.net/apiImport/data"
    timestamps: Timestamps = "local"
    label: Literal["start", "end"] = "start"
    linger: Millis = 30 * SECOND
    request_interval: Millis = REQUEST_INTERVAL
    max_payload: int = MAX_BODY
    timeout: Millis = 60 * SECOND
    ca: str | None = None
    proxy: Proxy | None = None

    @property
    def deadline(self) -> Millis:
        """How long a request may take."""
        return min(self.timeout, self.request_interval)

    @property
    def whole_slot(self) -> Millis:
        """From before a request to after its slot, however long it takes."""
        return self.deadline + self.request_interval
