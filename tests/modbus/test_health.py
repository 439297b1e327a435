"""What is known of a unit: how long it is waited for, when it is tried again, what is in doubt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.modbus.health import LATEST_ANSWER, LONGEST_PAUSE, SHARE_OF_DEAD, Budget, Unit
from gateway.modbus.plan import Read

A, SAME_SHAPE, OTHER = Read(3, 100, 4), Read(3, 200, 4), Read(3, 300, 6)


def unit(**more: float) -> Unit:
    return Unit("main", 1, longest=1.0, shortest=0.1, **more)  # type: ignore[arg-type]


def test_a_read_that_was_never_answered_gets_the_longest_timeout():
    known = unit()
    known.answered(A, 0.02, now=0)
    assert known.timeout(OTHER) == 1.0


def test_a_quick_meter_is_given_up_soon():
    known = unit()
    known.answered(A, 0.05, now=0)
    assert known.timeout(A) == pytest.approx(0.15)


def test_no_timeout_is_so_short_that_a_busy_machine_would_make_timeouts_of_its_own():
    known = unit()
    known.answered(A, 0.001, now=0)
    assert known.timeout(A) == 0.1


def test_no_timeout_is_shorter_than_the_meter_s_document_lets_it_take():
    known = unit(answer_time=0.5)
    known.answered(A, 0.01, now=0)
    assert known.timeout(A) == 0.5


def test_a_slow_block_of_a_quick_meter_gets_its_time_once_it_was_missed():
    known = unit()
    known.answered(A, 0.02, now=0)
    known.answered(OTHER, 0.02, now=0)
    known.fell_silent(OTHER, "timeout", now=1)
    known.answered(A, 0.02, now=2)
    assert known.timeout(OTHER) == 1.0
    known.answered(OTHER, 0.3, now=3)
    assert known.timeout(OTHER) == pytest.approx(0.9)


def test_one_slow_answer_to_a_rare_question_makes_no_other_wait_longer_for_ever():
    known = unit()
    known.answered(OTHER, 0.5, now=0)
    assert known.timeout(A) == 1.0
    for now in range(500):
        known.answered(A, 0.04, now=now)
    assert known.timeout(A) == pytest.approx(0.12)
    assert known.timeout(OTHER) == 1.0


def test_what_is_known_of_reads_that_are_asked_no_more_is_forgotten():
    known = unit()
    for address in range(1000):
        known.answered(A, 0.02, now=address)
        known.answered(Read(3, address, 1), 0.02, now=address)
    assert len(known._peaks) == 200
    assert known.timeout(A) == 0.1
    assert known.timeout(Read(3, 0, 1)) == 1.0


def test_the_pauses_of_a_silent_unit_double_up_to_a_minute():
    known, now, pauses = unit(), 0.0, []
    for _ in range(12):
        known.fell_silent(A, "timeout", now)
        pauses.append(known.next_try - now)
        assert not known.due(known.next_try - 0.001, urgent=False)
        assert known.due(known.next_try, urgent=False)
        now = known.next_try
    assert pauses[:4] == [0.5, 1, 2, 4]
    assert pauses[-1] == LONGEST_PAUSE


def test_a_boundary_is_worth_a_try_before_the_pause_is_over():
    known = unit()
    known.fell_silent(A, "timeout", now=0)
    assert known.due(0.1, urgent=True)


def test_an_answer_of_a_shape_without_doubt_ends_all_doubts():
    known = unit()
    known.doubts = {A: 0.0, OTHER: 0.0}
    known.answered(Read(3, 0, 2), 0.02, now=1)
    assert not known.doubtful(SAME_SHAPE, now=1)


def test_an_answer_of_a_shape_in_doubt_ends_none():
    known = unit()
    known.doubts = {A: 0.0, OTHER: 0.0}
    known.answered(A, 0.02, now=1)
    assert known.doubtful(SAME_SHAPE, now=1)
    assert known.doubtful(Read(3, 0, 6), now=1)


def test_the_same_read_is_not_in_doubt_since_its_late_answer_is_an_answer():
    known = unit()
    known.doubts = {A: 0.0}
    assert not known.doubtful(A, now=1)


def test_doubts_end_when_no_answer_can_come_any_more():
    known = unit()
    known.doubts = {A: 0.0}
    assert known.doubtful(SAME_SHAPE, now=LATEST_ANSWER - 0.1)
    assert not known.doubtful(SAME_SHAPE, now=LATEST_ANSWER)


def test_noise_is_told_once_a_day_and_only_where_it_is_more_than_a_tenth():
    known = unit()
    for now in range(99):
        known.garbled(A, "crc", now=0)
        assert known.noise(now) is None
    known.garbled(A, "crc", now=0)
    assert known.noise(99) == (100, 100)
    for _ in range(100):
        known.garbled(A, "crc", now=0)
    assert known.noise(100) is None
    for _ in range(100):
        known.garbled(A, "crc", now=0)
    assert known.noise(99 + 86_400) == (100, 100)
    for n in range(100):
        if n % 10:
            known.answered(A, 0.02, n)
        else:
            known.garbled(A, "crc", now=0)
    assert known.noise(1e9) is None


@given(st.lists(st.tuples(st.floats(0.01, 30), st.floats(0.1, 2)), max_size=200))
def test_all_silent_units_together_get_a_tenth_of_the_time(
    probes: list[tuple[float, float]],
) -> None:
    """Whatever is wanted, from the first second on."""
    budget, now, spent = Budget(0.0), 0.0, 0.0
    for pause, cost in probes:
        now += pause
        if budget.allows(cost, now):
            budget.spend(cost)
            now += cost
            spent += cost
    assert spent <= SHARE_OF_DEAD * now + 1e-6
