"""What simulated meters do wrong, when, and how often. Pure."""

from __future__ import annotations

import random
from typing import Final, Literal, TypeAlias

from attrs import frozen

from gateway.clock import Millis

FaultKind: TypeAlias = Literal[
    "silent",
    "late",
    "slow",
    "exception",
    "busy",
    "crc",
    "glitch",
    "truncated",
    "split",
    "merged",
    "wrong_unit",
    "wrong_function",
    "wrong_length",
    "echo",
    "drop",
]
ConditionKind: TypeAlias = Literal["hole", "strict", "one_client", "restart", "swapped", "reset"]

FAULTS: Final[dict[FaultKind, str]] = {
    "silent": "does not answer",
    "late": "answers late (2s), when nobody waits for it any more",
    "slow": "takes long to begin its answer (400ms)",
    "exception": "answers with an exception (4)",
    "busy": "answers that it is busy (exception 6)",
    "crc": "answers with one bit turned over",
    "glitch": "a zero byte before the answer",
    "truncated": "only half of the answer",
    "split": "the answer in two pieces with a pause between",
    "merged": "another unit's answer right before its own",
    "wrong_unit": "answers as the unit after it",
    "wrong_function": "answers as if the other function had been asked",
    "wrong_length": "answers with one register less",
    "echo": "the request comes back before the answer",
    "drop": "the connection is closed instead of an answer",
}
"""What happens to single answers."""

CONDITIONS: Final[dict[ConditionKind, str]] = {
    "hole": "refuses registers, such as hole=342..343 (exception 2)",
    "strict": "on a line, ignores requests inside 3.5 characters of silence",
    "one_client": "on TCP, closes a second connection",
    "restart": "at its start loses power for a while (5s), and counts nothing meanwhile",
    "swapped": "shows another serial number (87654321)",
    "reset": "its counters begin at zero at its start",
}
"""What a meter is like meanwhile, or from then on."""

_SECONDS: Final[dict[str, float]] = {"late": 2.0, "slow": 0.4, "restart": 5.0}


@frozen
class Fault:
    """A fault for a while: from `start` to `end` after the meter was started, at `rate`.

    A condition has no rate.
    """

    kind: FaultKind | ConditionKind
    start: Millis = 0
    end: Millis | None = None
    rate: float = 1.0
    seconds: float | None = None
    """How long; None: as long as is usual for its kind."""
    code: int = 4
    """Of an exception."""
    registers: tuple[int, int] = (0, 0xFFFF)
    """First and last address of a hole."""
    serial_number: str = "87654321"
    """What a meter that was swapped shows."""

    @property
    def lasting(self) -> float:
        """Its seconds."""
        return _SECONDS.get(self.kind, 0.0) if self.seconds is None else self.seconds

    def holds(self, elapsed: Millis) -> bool:
        """Is it the time for it, so long after the start?"""
        return self.start <= elapsed and (self.end is None or elapsed < self.end)

    def happens(self, elapsed: Millis, random: random.Random) -> bool:
        """Does it happen to an answer so long after the start?"""
        if self.kind not in FAULTS or not self.holds(elapsed):
            return False
        return self.rate >= 1 or random.random() < self.rate
