"""When a sender may ask again, kept so that nothing makes it early. Pure.

The moment is kept in boot time, which no clock step changes, and in wall time, for after a
reboot. In the same boot only boot time counts. After a reboot the wall times are compared where
both are known to be right, and never for longer than what was to be waited; where they are not,
all of it is waited again.
"""

from __future__ import annotations

import json
from typing import Any, Final

from attrs import asdict, define, field, frozen

from gateway.clock import Clock, Instant, Millis

_VERSION: Final = 1
_STEP: Final[Millis] = 1_000
"""Wall and boot time that moved apart by more than this: the clock was set."""


@frozen
class Now:
    """One look at the clock."""

    boot_id: str
    boottime: Millis
    wall: Instant
    synchronised: bool

    @classmethod
    def of(cls, clock: Clock) -> Now:
        """Look at it."""
        return cls(clock.boot_id, clock.boottime(), clock.now(), clock.synchronised())


@define
class SlotState:
    """All of a sender that has to survive a restart."""

    boot_id: str = ""
    boot_until: Millis = 0
    wall_until: Instant = 0
    span: Millis = 0
    synchronised: bool = False
    """Was the wall time known to be right when this was written?"""
    asked_as: str = ""
    """Digest of the token with which it asked last; empty: not known."""
    failures: int = 0
    """Requests in a row without an answer that could be used."""
    refusals: int = 0
    """401 and 403 in a row."""
    conflicts: int = 0
    limit: int = 0
    """Bytes a body may have after a 413; 0: what is configured."""
    limit_since: Instant = 0
    caps: dict[str, int] = field(factory=dict)
    """MeterID to the most values a body may carry of it."""
    refused: dict[str, int] = field(factory=dict)
    """Id of a reading to how often it was refused alone."""
    probes: dict[str, Instant] = field(factory=dict)
    """MeterID that is parked to when one of its values is tried next."""
    missing: list[str] = field(factory=list)
    """MeterIDs that the last answer left out."""
    suspects: list[str] = field(factory=list)
    """MeterIDs among which the one is that made the whole body be refused."""
    others_first: bool = False
    """One suspect is left: the next body carries all the others, and the one after it that one."""
    oldest_turns: list[str] = field(factory=list)
    """MeterIDs whose one value of a body is the oldest this time, not the newest."""
    ever: bool = False
    """Was there a request before?"""
    alone: dict[str, list[list[int]]] = field(factory=dict)
    """What went alone of hours that the site's clock repeats: `Alone` of twins.py."""
    alone_since: Instant = 0
    """What went alone of earlier ones is not known."""

    def wait(self, now: Now) -> Millis:
        """How long until the next request may go."""
        if not self.boot_id:
            return 0
        if self.boot_id == now.boot_id:
            return max(0, self.boot_until - now.boottime)
        if self.synchronised and now.synchronised:
            return min(self.span, max(0, self.wall_until - now.wall))
        return self.span

    def carry_over(self, now: Now) -> None:
        """Bring what is still to be waited into this boot's time."""
        if self.boot_id and self.boot_id != now.boot_id:
            self.hold(now, self.wait(now))

    def stepped(self, now: Now) -> bool:
        """Was the clock set since this was kept? Then its wall time is of no use after a reboot."""
        apart = (self.wall_until - self.boot_until) - (now.wall - now.boottime)
        return self.boot_id == now.boot_id and abs(apart) > _STEP

    def hold(self, now: Now, span: Millis) -> None:
        """No request for that long from now on."""
        self.boot_id, self.boot_until = now.boot_id, now.boottime + span
        self.wall_until, self.span, self.synchronised = now.wall + span, span, now.synchronised

    def pack(self) -> bytes:
        """The form in which the buffer keeps it."""
        fields = asdict(self, recurse=False)
        return json.dumps({"version": _VERSION, **fields}, separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, data: bytes | None, now: Now, span: Millis) -> SlotState:
        """The reverse. What cannot be read waits a whole `span`: it may hide a request."""
        if data is None:
            return cls()
        try:
            fields: dict[str, Any] = json.loads(data)
            if fields.pop("version") != _VERSION:
                raise ValueError("another version")
            fields.setdefault("alone_since", now.wall)
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls.lost(now, span)

    @classmethod
    def lost(cls, now: Now, span: Millis) -> SlotState:
        """One of which nothing is known: a request may have been made a moment ago."""
        state = cls(alone_since=now.wall)
        state.hold(now, span)
        return state
