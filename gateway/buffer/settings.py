"""What the configuration says of the buffer."""

from __future__ import annotations

from attrs import frozen

from gateway.clock import DAY, Millis


@frozen
class BufferSettings:
    """The whole of `buffer`."""

    path: str = "/var/lib/meter-gateway/readings.db"
    keep: Millis = 400 * DAY
    max_size: int = 1_000_000_000
    """Bytes."""
