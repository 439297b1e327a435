"""How long a backlog takes to be sent: foretold while it drains. Pure."""

from __future__ import annotations

from typing import Final, TypeAlias

from attrs import define

from gateway.clock import Millis, about

SAID_EVERY: Final = 36
"""Slots, six hours, from one forecast to the next."""

Said: TypeAlias = tuple[str, dict[str, object]]
"""An event for the log and its fields."""


@define
class Draining:
    """The backlog of one sender. Times are milliseconds since boot."""

    interval: Millis
    _began: Millis | None = None
    _said_at: Millis = 0
    _pending_then: int = 0

    def sent(self, carried: int, pending: int, *, more: bool, now: Millis) -> Said | None:
        """A request of `carried` values was taken and `pending` are left; `more`: they did not
        fit. What is to be said of it.

        The first forecast takes it that nothing new comes in, later ones go by what came of the
        one before.
        """
        if self._began is None:
            if not more or not 0 < carried <= pending:
                return None  # the next request carries the rest
            self._began = now
            return self._say(pending, carried / self.interval, now)
        if not more or pending == 0:
            took = about(now - self._began)
            self._began = None
            return "upload.drained", {"for": took, "pending": pending}
        if now - self._said_at < SAID_EVERY * self.interval:
            return None
        return self._say(pending, (self._pending_then - pending) / (now - self._said_at), now)

    def _say(self, pending: int, fewer: float, now: Millis) -> Said:
        """`fewer`: by how many the pending become less in a millisecond."""
        self._said_at, self._pending_then = now, pending
        takes = about(pending / fewer) if fewer > 0 else "more comes in than is sent"
        return "upload.draining", {"pending": pending, "takes": takes}
