"""Is the machine's clock known to be right?"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway import clock as module
from gateway.clock import HOUR, SECOND, Instant, SystemClock

UNSYNC = 0x40


class Machine(SystemClock):
    """The machine's clock, set by `by`, with a kernel that says what it is told to."""

    def __init__(self, *, assume: bool = False) -> None:
        super().__init__(assume_synchronised=assume)
        self.by = 0
        self.state, self.status = 0, 0
        self._adjtimex = self._answer  # type: ignore[assignment]

    def _answer(self, buffer: ctypes.Array[ctypes.c_char]) -> int:
        at = 5 * ctypes.sizeof(ctypes.c_long)
        buffer[at : at + 4] = self.status.to_bytes(4, "little")  # type: ignore[index]
        return self.state

    def now(self) -> Instant:
        return super().now() + self.by


@pytest.fixture
def touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    path = tmp_path / "synchronized"
    monkeypatch.setattr(module, "_TIMESYNCD", path)

    def touch(at: float) -> None:
        path.touch()
        os.utime(path, (at, at))

    return touch


@pytest.mark.parametrize(
    ("state", "status", "right"),
    [
        pytest.param(0, 0, True, id="synchronised"),
        pytest.param(5, UNSYNC, False, id="not yet"),
        pytest.param(0, UNSYNC, False, id="set by hand"),
        pytest.param(-1, 0, False, id="forbidden to ask"),
    ],
)
def test_the_kernel_is_asked(
    touched: Callable[[float], None], state: int, status: int, right: bool
) -> None:
    clock = Machine()
    clock.state, clock.status = state, status
    assert clock.synchronised() == right


def test_timesyncd_is_believed_where_the_kernel_has_forgotten_for_want_of_a_server(
    touched: Callable[[float], None],
) -> None:
    clock = Machine()
    clock.state, clock.status = 5, UNSYNC
    assert not clock.synchronised()
    touched(1_000)
    assert clock.synchronised()


@pytest.mark.parametrize("by", [-HOUR, 2 * SECOND, 9_000 * HOUR])
def test_a_clock_that_is_set_by_hand_is_not_right_until_it_is_synchronised_anew(
    touched: Callable[[float], None], by: int
) -> None:
    clock = Machine()
    touched(1_000)
    assert clock.synchronised()
    clock.by, clock.state, clock.status = by, 5, UNSYNC  # as the kernel does when it is set
    assert not clock.synchronised()
    assert not clock.synchronised()
    touched(2_000)
    assert clock.synchronised()
    clock.by += by
    assert not clock.synchronised()
    clock.state = clock.status = 0
    assert clock.synchronised()


@pytest.mark.parametrize("by", [-HOUR, 9_000 * HOUR])
def test_a_clock_that_timesyncd_sets_is_right_at_once(
    touched: Callable[[float], None], by: int
) -> None:
    clock = Machine()
    clock.state = -1  # the kernel may not be asked
    assert not clock.synchronised()
    clock.by = by
    touched(clock.now() / 1000)
    assert clock.synchronised()
    assert clock.synchronised()


def test_a_clock_that_is_slewed_stays_right(touched: Callable[[float], None]) -> None:
    clock = Machine()
    clock.state, clock.status = 5, UNSYNC
    touched(1_000)
    for _ in range(20):
        assert clock.synchronised()
        clock.by += 900


def test_it_may_be_assumed(touched: Callable[[float], None]) -> None:
    clock = Machine(assume=True)
    clock.state, clock.status = 5, UNSYNC
    assert clock.synchronised()
    clock.by = HOUR
    assert clock.synchronised()
