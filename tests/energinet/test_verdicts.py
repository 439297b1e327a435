"""What each row of the answer table does to values, meters and the next request. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from decimal import Decimal

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gateway.energinet.answer import Answer, Row, Verdict
from gateway.energinet.batch import Batch
from gateway.energinet.limits import REQUEST_INTERVAL, SMALLEST_BODY
from gateway.energinet.slot import Now, SlotState
from gateway.energinet.verdicts import (
    A_DAY,
    HOUR,
    SIX_HOURS,
    Outcome,
    apply,
    on_trial,
    probes_due,
    take_turns,
)
from gateway.metering.reading import SeriesKey, Waiting

NOW = 1_767_225_600_000
LIMIT = 500_000


def batch(size: int = 100, **counts: int) -> Batch:
    """A body with so many values of each meterID; ids count on from 1."""
    values: dict[SeriesKey, tuple[Waiting, ...]] = {}
    id = 0
    for name, count in counts.items():
        key = SeriesKey("", name)
        values[key] = tuple(
            Waiting(id + nth, key, NOW + nth * 1000, Decimal(1)) for nth in range(1, count + 1)
        )
        id += count
    return Batch(b"x" * size, values)


def listed(**verdicts: Verdict) -> Answer:
    return Answer(Row.LIST, 200, verdicts)


def applied(
    answer: Answer,
    sent: Batch,
    state: SlotState,
    *,
    now: int = NOW,
    interval: int = REQUEST_INTERVAL,
    limit: int = LIMIT,
    seed: int = 1,
) -> Outcome:
    return apply(
        answer, sent, state, interval=interval, limit=limit, now=now, random=random.Random(seed)
    )


def outcomes(out: Outcome) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in out.settlements:
        found.setdefault(one.key.meter_id, []).append(one.outcome)
    return found


OK = Verdict("confirmed", 201, 2)
MISSING = Verdict("missing")
SHORT = Verdict("short", 201, 1)
REFUSED = Verdict("refused", 404, 0)


# ------------------------------------------------------------------------- when it may ask again


@pytest.mark.parametrize(
    ("row", "status", "slots"),
    [
        (Row.LIST, 200, 1),
        (Row.UNREADABLE, 200, 1),
        (Row.REDIRECT, 302, HOUR),
        (Row.BODY, 400, 1),
        (Row.BODY, 422, 1),
        (Row.TOKEN, 401, 1),
        (Row.CONFIGURATION, 404, HOUR),
        (Row.CONFLICT, 409, 1),
        (Row.TOO_LARGE, 413, 1),
        (Row.TOO_MANY, 429, 1),
    ],
)
def test_each_row_says_when_the_next_request_may_go(row: Row, status: int, slots: float) -> None:
    assert applied(Answer(row, status), batch(a=1, b=1), SlotState()).slots == slots


@given(st.integers(0, 1 << 30))
def test_six_failures_in_a_row_are_slots_then_half_an_hour_then_an_hour(seed: int) -> None:
    state, waits = SlotState(), []
    for nth in range(9):
        waits.append(applied(Answer(Row.SERVER), batch(a=1), state, seed=seed + nth).slots)
    assert all(1 <= wait <= 1.1 for wait in waits[:5])
    assert 2.7 <= waits[5] <= 3.3
    assert all(5.4 <= wait <= 6.6 for wait in waits[6:])
    applied(listed(a=OK), batch(a=1), state)
    assert applied(Answer(Row.SERVER), batch(a=1), state).slots <= 1.1


def test_the_jitter_spreads_senders_and_never_shortens_a_slot() -> None:
    waits = set()
    for seed in range(50):
        waits.add(applied(Answer(Row.SERVER), batch(a=1), SlotState(failures=9), seed=seed).slots)
    assert len(waits) > 40
    assert min(waits) < 5.7
    assert max(waits) > 6.3


def test_a_token_is_tried_again_after_a_slot_and_then_every_hour() -> None:
    state = SlotState()
    refused = Answer(Row.TOKEN, 401)
    waits = [applied(refused, batch(a=1), state).slots for _ in range(3)]
    assert waits == [1, HOUR, HOUR]
    applied(listed(a=OK), batch(a=1), state)
    assert applied(refused, batch(a=1), state).slots == 1


@pytest.mark.parametrize(
    ("asked", "slots"),
    [
        (None, 1),
        (0, 1),
        (1_000, 1),
        (REQUEST_INTERVAL * 3 // 2, 1.5),
        (10**15, A_DAY),
    ],
)
def test_retry_after_is_held_between_a_slot_and_a_day(asked: int | None, slots: float) -> None:
    answer = Answer(Row.TOO_MANY, 429, retry_after=asked)
    assert applied(answer, batch(a=1), SlotState()).slots == slots


# ------------------------------------------------------------------------------- meter by meter


def test_each_meter_of_one_answer_is_judged_alone() -> None:
    state = SlotState()
    answer = listed(good=OK, gone=MISSING, half=SHORT, bad=REFUSED)
    out = applied(answer, batch(good=2, gone=2, half=2, bad=2), state)
    assert outcomes(out) == {
        "good": ["confirmed"],
        "gone": ["kept"],
        "half": ["kept"],
        "bad": ["kept", "park_series"],
    }
    assert out.confirmed == 2
    assert [event for event, _ in out.events] == ["upload.missing", "upload.short", "upload.parked"]
    assert state.missing == ["gone"]
    assert state.caps == {"half": 1}
    assert state.probes == {"bad": NOW + SIX_HOURS * REQUEST_INTERVAL}


def test_a_missing_entry_is_said_once_until_it_ends() -> None:
    state = SlotState()
    sent = batch(a=1)
    said = []
    for verdict in (MISSING, MISSING, OK, MISSING):
        said.append([event for event, _ in applied(listed(a=verdict), sent, state).events])
    assert said == [["upload.missing"], [], [], ["upload.missing"]]


def test_another_count_halves_that_meter_down_to_single_values_and_back_up() -> None:
    state = SlotState()
    caps = []
    for count in (40, 20, 10, 5, 2):
        applied(listed(a=SHORT, b=OK), batch(a=count, b=9), state)
        caps.append(state.caps["a"])
    assert caps == [20, 10, 5, 2, 1]
    for count in (1, 2, 4):
        applied(listed(a=OK), batch(a=count), state)
        assert state.caps == {"a": 2 * count}
    applied(listed(a=OK), batch(a=3), state)  # all there was
    assert state.caps == {}


def test_a_single_value_refused_three_times_is_parked_and_no_other() -> None:
    state = SlotState()
    one = batch(a=1)
    found = [outcomes(applied(listed(a=SHORT), one, state)) for _ in range(3)]
    assert found == [{"a": ["kept"]}, {"a": ["kept"]}, {"a": ["parked"]}]
    assert state.refused == {}
    # It went through between: the count begins anew.
    for verdict in (SHORT, SHORT, OK, SHORT, SHORT):
        out = applied(listed(a=verdict), one, state)
    assert outcomes(out) == {"a": ["kept"]}


@pytest.mark.parametrize("verdict", [OK, MISSING, SHORT, REFUSED])
def test_what_becomes_of_a_value_becomes_of_both_readings_it_is_made_of(verdict: Verdict) -> None:
    sent = evolve(batch(a=2, b=1), twins={2: 7})
    out = applied(listed(a=verdict, b=OK), sent, SlotState())
    settled = {one.key.meter_id: one.ids for one in out.settlements if one.ids}
    assert settled == {"a": (1, 2, 7), "b": (3,)}


def test_newest_and_oldest_take_turns_while_one_value_is_sent() -> None:
    state = SlotState(caps={"a": 1, "b": 2})
    turns = []
    for cap in (1, 2, 1, 1, 2, 1):
        state.caps["a"] = cap
        take_turns(state)
        turns.append("a" in state.oldest_turns and cap == 1)
    assert turns == [True, False, False, True, False, False]
    assert "b" not in state.oldest_turns
    del state.caps["a"]
    take_turns(state)
    assert state.oldest_turns == []


def test_a_parked_meter_sends_one_value_every_six_hours_until_it_is_mended() -> None:
    state = SlotState()
    applied(listed(a=REFUSED), batch(a=3), state)
    six_hours = SIX_HOURS * REQUEST_INTERVAL
    for verdict in (REFUSED, MISSING, SHORT):
        at = state.probes["a"]
        assert probes_due(state, at - 1, REQUEST_INTERVAL) == frozenset()
        assert probes_due(state, at, REQUEST_INTERVAL) == {"a"}
        out = applied(listed(a=verdict), batch(a=1), state, now=at)
        assert "upload.parked" not in [event for event, _ in out.events]
        assert state.probes["a"] == at + six_hours
    out = applied(listed(a=OK), batch(a=1), state)
    assert outcomes(out)["a"] == ["confirmed", "unpark_series"]
    assert state.probes == {}


def test_a_clock_that_was_set_back_does_not_put_a_parked_meter_off_for_years() -> None:
    state = SlotState()
    applied(listed(a=REFUSED), batch(a=3), state, now=NOW + 10**11)
    assert probes_due(state, NOW, REQUEST_INTERVAL) == {"a"}


# ------------------------------------------------------------------------------- the whole body


def hunt(faulty: set[str], names: Sequence[str]) -> list[tuple[set[str], set[str]]]:
    """Answer bodies until nothing is refused any more; what each confirmed and parked."""
    state, done, parked = SlotState(), list[tuple[set[str], set[str]]](), set[str]()
    while len(done) < 60:
        trial = on_trial(state) or set(names) - set(state.suspects)
        sent = batch(**{name: 1 for name in names if name in trial and name not in parked})
        if not sent.values and not state.suspects:
            return done
        if not sent.values:
            assert state.others_first
            state.others_first = False
            continue
        if faulty & sent.sent.keys():
            out = applied(Answer(Row.BODY, 400), sent, state)
        else:
            out = applied(listed(**dict.fromkeys(sent.sent, OK)), sent, state)
        told = outcomes(out)
        parked |= {name for name, done in told.items() if "park_series" in done}
        done.append(({name for name in told if "confirmed" in told[name]}, set(parked)))
        if not state.suspects and not faulty & sent.sent.keys():
            return done
    raise AssertionError("the hunt does not end")


@given(st.sets(st.sampled_from("abcdefghijklm"), max_size=4), st.integers(1, 13))
def test_only_meters_at_fault_are_found_by_halves(faulty: set[str], count: int) -> None:
    names = "abcdefghijklm"[:count]
    assert hunt(faulty, names)[-1][1] == faulty & set(names)


@pytest.mark.parametrize("count", range(1, 34))
def test_the_others_wait_for_the_hunt_one_slot_and_one_for_each_halving(count: int) -> None:
    names = [f"m{nth:02}" for nth in range(count)]
    for place, at_fault in enumerate(names):
        done = hunt({at_fault}, names)
        assert done[-1][1] == {at_fault}
        waited = {name: nth for nth, (sent, _) in reversed([*enumerate(done)]) for name in sent}
        assert waited.keys() == set(names) - {at_fault}
        assert max(waited.values(), default=0) <= 1 + math.ceil(math.log2(count)), f"the {place}th"


def test_another_meter_at_fault_that_stands_alone_does_not_clear_the_last_suspect() -> None:
    state = SlotState(suspects=["a"], others_first=True)
    applied(Answer(Row.BODY, 400), batch(b=1), state)
    assert (state.suspects, state.others_first) == (["a"], False)
    assert on_trial(state) == {"a"}


def test_a_lone_meter_is_parked_at_once() -> None:
    state = SlotState()
    out = applied(Answer(Row.BODY, 422), batch(a=5), state)
    assert outcomes(out) == {"a": ["kept", "park_series"]}
    assert [one.reason for one in out.settlements] == ["", "422"]


def test_a_body_refused_with_a_parked_meter_in_it_holds_up_no_other() -> None:
    state = SlotState(probes={"a": NOW})
    out = applied(Answer(Row.BODY, 400), batch(a=1, b=4), state)
    assert not out.settlements
    assert not state.suspects
    assert probes_due(state, NOW + 1, REQUEST_INTERVAL) == frozenset()


def test_the_third_conflict_in_a_row_is_read_as_a_refused_body() -> None:
    state = SlotState()
    conflict = Answer(Row.CONFLICT, 409)
    for _ in range(2):
        applied(conflict, batch(a=1, b=1), state)
        assert not state.suspects
    applied(Answer(Row.SERVER), batch(a=1, b=1), state)  # not in a row
    for _ in range(2):
        applied(conflict, batch(a=1, b=1), state)
        assert not state.suspects
    applied(conflict, batch(a=1, b=1), state)
    assert state.suspects == ["a", "b"]


# ------------------------------------------------------------------------------------ too large


def test_a_body_too_large_halves_the_limit_not_below_16_kb_and_a_day_raises_it_by_a_tenth() -> None:
    state = SlotState()
    limits, said = [], 0
    size = LIMIT
    for _ in range(7):
        out = applied(Answer(Row.TOO_LARGE, 413), batch(size, a=1), state)
        limits.append(state.limit)
        said += len(out.events)
        size = state.limit
    assert limits == [250_000, 125_000, 62_500, 31_250, SMALLEST_BODY, SMALLEST_BODY, SMALLEST_BODY]
    assert said == 5
    a_day = A_DAY * REQUEST_INTERVAL
    ok = listed(a=OK)
    applied(ok, batch(a=1), state, now=NOW + a_day - 1)
    assert state.limit == SMALLEST_BODY
    applied(ok, batch(a=1), state, now=NOW + a_day)
    assert state.limit == SMALLEST_BODY * 11 // 10
    for day in range(2, 60):
        applied(ok, batch(a=1), state, now=NOW + day * a_day)
    assert state.limit == 0, "back at what is configured"


def test_a_day_is_144_slots_of_any_length() -> None:
    state = SlotState()
    applied(Answer(Row.TOO_LARGE, 413), batch(LIMIT, a=1), state, interval=1_000)
    applied(listed(a=OK), batch(a=1), state, now=NOW + 144_000, interval=1_000)
    assert state.limit == 275_000


def test_a_limit_below_16_kb_in_the_configuration_is_never_raised_by_a_refusal() -> None:
    state = SlotState()
    applied(Answer(Row.TOO_LARGE, 413), batch(5_000, a=1), state, limit=5_000)
    assert state.limit == 5_000


# ------------------------------------------------------------------------------------------ laws

verdicts = st.sampled_from([OK, MISSING, SHORT, REFUSED])
answers = st.one_of(
    st.fixed_dictionaries(dict.fromkeys("abc", verdicts)).map(lambda v: listed(**v)),
    st.sampled_from([row for row in Row if row is not Row.LIST]).map(lambda row: Answer(row, 418)),
)


@given(
    st.lists(st.tuples(answers, st.integers(1, 3), st.integers(0, 10**10)), max_size=25),
    st.integers(0, 99),
)
def test_whatever_comes_nothing_is_confirmed_that_no_answer_confirmed(
    course: list[tuple[Answer, int, int]], seed: int
) -> None:
    state, now = SlotState(), NOW
    for answer, count, later in course:
        now += later
        sent = batch(a=count, b=1, c=2)
        out = applied(answer, sent, state, now=now, seed=seed)
        assert 1 <= out.slots <= A_DAY
        settled = [id for one in out.settlements for id in one.ids]
        assert len(settled) == len(set(settled))
        confirmed = {o.key.meter_id for o in out.settlements if o.outcome == "confirmed"}
        assert confirmed == {n for n, v in answer.verdicts.items() if v.kind == "confirmed"}
        parked = {o.key.meter_id for o in out.settlements if o.outcome == "park_series"}
        if answer.row is Row.LIST:
            assert parked == {n for n, v in answer.verdicts.items() if v.kind == "refused"}
        else:
            assert not parked, "three meters never stand alone"
        assert state.limit == 0 or SMALLEST_BODY <= state.limit < LIMIT
        assert SlotState.unpack(state.pack(), Now("", 0, now, synchronised=True), 0) == state
