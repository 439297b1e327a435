"""An answer applied to a sender's state: settlements, the next request, and what to say. Pure."""

from __future__ import annotations

import random
from typing import Any, Final

from attrs import define, evolve, field

from gateway.clock import Instant, Millis
from gateway.energinet.answer import Answer, Row, Verdict
from gateway.energinet.batch import Batch
from gateway.energinet.limits import SMALLEST_BODY
from gateway.energinet.slot import SlotState
from gateway.metering.reading import SeriesKey, Settlement, Waiting

HALF_HOUR: Final = 3
HOUR: Final = 6
SIX_HOURS: Final = 36
A_DAY: Final = 144
"""Durations of the answer table, in slots of the request interval."""

_JITTER: Final = 0.1
_GIVE_UP_VALUE: Final = 3
_PATIENT_CONFLICTS: Final = 3
_PATIENT: Final = 6


@define
class Outcome:
    """What one request came to."""

    slots: float = 1.0
    """How long until the next request, in slots."""
    settlements: list[Settlement] = field(factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(factory=list)
    confirmed: int = 0


def apply(
    answer: Answer,
    batch: Batch,
    state: SlotState,
    *,
    interval: Millis,
    limit: int,
    now: Instant,
    random: random.Random,
) -> Outcome:
    """Change `state` by an answer to `batch`; a missing answer is one of Row.SERVER."""
    out = Outcome()
    row = answer.row
    state.conflicts = state.conflicts + 1 if row is Row.CONFLICT else 0
    if state.conflicts >= _PATIENT_CONFLICTS:
        row = Row.BODY
    state.failures = state.failures + 1 if row is Row.SERVER else 0
    state.refusals = state.refusals + 1 if row is Row.TOKEN else 0
    if row is Row.LIST:
        _list(answer, batch, state, out, later=now + SIX_HOURS * interval)
    elif row is Row.BODY:
        _body(answer, batch, state, out, later=now + SIX_HOURS * interval)
    elif row is Row.TOKEN:
        out.slots = 1 if state.refusals == 1 else HOUR
    elif row in (Row.REDIRECT, Row.CONFIGURATION):
        out.slots = HOUR
    elif row is Row.TOO_LARGE:
        _smaller(batch, state, out, limit=limit, now=now)
    elif row is Row.TOO_MANY:
        asked = answer.retry_after if answer.retry_after is not None else interval
        out.slots = min(max(asked / interval, 1.0), A_DAY)
    elif row is Row.SERVER:
        out.slots = _patience(state.failures, random)
    out.settlements = [evolve(one, ids=batch.readings(one.ids)) for one in out.settlements]
    # Either way: a clock that was set back must not keep it small for years.
    if state.limit and abs(now - state.limit_since) >= A_DAY * interval:
        raised = state.limit * 11 // 10
        state.limit, state.limit_since = (raised if raised < limit else 0), now
    return out


def _patience(failures: int, random: random.Random) -> float:
    slots = 1 if failures < _PATIENT else HALF_HOUR if failures == _PATIENT else HOUR
    return max(1.0, slots * random.uniform(1 - _JITTER, 1 + _JITTER))


def _smaller(batch: Batch, state: SlotState, out: Outcome, *, limit: int, now: Instant) -> None:
    was = min(state.limit or limit, limit)
    smaller = was // 2
    while smaller >= len(batch.data) > 0:  # the body was far below the limit: it says more
        smaller //= 2
    state.limit = max(min(SMALLEST_BODY, was), smaller)
    state.limit_since = now
    if state.limit != was:
        out.events.append(("upload.smaller", {"limit": state.limit}))


def _list(answer: Answer, batch: Batch, state: SlotState, out: Outcome, *, later: Instant) -> None:
    missing = set(state.missing)
    for key, values in batch.values.items():
        name = key.meter_id
        verdict = answer.verdicts.get(name, Verdict("missing"))
        missing.discard(name)
        if verdict.kind == "confirmed":
            _confirmed(key, values, state, out)
        elif verdict.kind == "missing":
            missing.add(name)
            _missing(key, values, state, out)
        elif verdict.kind == "short":
            _short(key, values, verdict, state, out)
        else:
            _park(key, values, str(verdict.status), state, out, later=later)
        if name in state.probes:  # not mended yet
            state.probes[name] = later
    state.missing = sorted(missing)
    # Half of the suspects were taken: the one at fault is in the other half.
    cleared = [name for name in state.suspects if name in batch.sent]
    state.suspects = [name for name in state.suspects if name not in cleared]
    state.others_first = bool(cleared) and len(state.suspects) == 1


def _confirmed(key: SeriesKey, values: tuple[Waiting, ...], state: SlotState, out: Outcome) -> None:
    name = key.meter_id
    ids = tuple(value.id for value in values)
    out.settlements.append(Settlement(key, "confirmed", ids))
    out.confirmed += len(ids)
    for id in ids:
        state.refused.pop(str(id), None)
    cap = state.caps.get(name)
    if cap is not None:
        if len(values) < cap:
            del state.caps[name]  # all there was went through
        else:
            state.caps[name] = 2 * cap
    if state.probes.pop(name, None) is not None:
        out.settlements.append(Settlement(key, "unpark_series"))
        out.events.append(("upload.unparked", {"meterID": name, "values": len(ids)}))


def _missing(key: SeriesKey, values: tuple[Waiting, ...], state: SlotState, out: Outcome) -> None:
    out.settlements.append(Settlement(key, "kept", tuple(value.id for value in values)))
    if key.meter_id not in state.missing:
        out.events.append(("upload.missing", {"meterID": key.meter_id}))


def _short(
    key: SeriesKey,
    values: tuple[Waiting, ...],
    verdict: Verdict,
    state: SlotState,
    out: Outcome,
) -> None:
    name = key.meter_id
    ids = tuple(value.id for value in values)
    if name not in state.caps:
        fields = {"meterID": name, "sent": len(ids), "counted": verdict.counted}
        out.events.append(("upload.short", fields))
    state.caps[name] = max(1, len(ids) // 2)
    if len(ids) == 1:
        tries = state.refused.get(str(ids[0]), 0) + 1
        if tries >= _GIVE_UP_VALUE:
            state.refused.pop(str(ids[0]), None)
            reason = f"counted {verdict.counted} of 1"
            out.settlements.append(Settlement(key, "parked", ids, reason))
            fields = {"meterID": name, "status": reason, "values": 1}
            out.events.append(("upload.parked", fields))
            return
        state.refused[str(ids[0])] = tries
    out.settlements.append(Settlement(key, "kept", ids))


def _park(
    key: SeriesKey,
    values: tuple[Waiting, ...],
    status: str,
    state: SlotState,
    out: Outcome,
    *,
    later: Instant,
) -> None:
    ids = tuple(value.id for value in values)
    out.settlements.append(Settlement(key, "kept", ids))
    out.settlements.append(Settlement(key, "park_series", reason=status))
    state.caps.pop(key.meter_id, None)
    if key.meter_id not in state.probes:
        fields = {"meterID": key.meter_id, "status": status, "values": len(ids)}
        out.events.append(("upload.parked", fields))
    state.probes[key.meter_id] = later


def _body(answer: Answer, batch: Batch, state: SlotState, out: Outcome, *, later: Instant) -> None:
    """The whole body was refused: find the one meterID at fault by halves."""
    names = sorted(batch.sent)
    tried_again = [name for name in names if name in state.probes]
    if tried_again:
        # What was parked and tried again is the likely one; the others are not held up.
        state.probes.update(dict.fromkeys(tried_again, later))
    elif len(names) > 1:
        if not state.others_first:  # else one of the others is at fault too: one after the other
            state.suspects = names
    else:
        state.suspects = state.suspects if state.others_first else []
        for key, values in batch.values.items():
            _park(key, values, str(answer.status), state, out, later=later)
    state.others_first = False


def take_turns(state: SlotState) -> None:
    """Before a request: a meter of which one value is sent gives its newest and oldest in turn.

    Else the one at fault would not stand alone as long as the other goes through.
    """
    turns = {name for name in state.oldest_turns if name in state.caps}
    turns ^= {name for name, cap in state.caps.items() if cap == 1}
    state.oldest_turns = sorted(turns)


def on_trial(state: SlotState) -> frozenset[str]:
    """The half of the suspects that the next body carries, and nothing else; empty: all may go.

    Only what stood alone in a body that was refused is at fault for sure: the last one is sent
    alone, though all others were taken. They do not wait for that.
    """
    if state.others_first:
        return frozenset()
    return frozenset(state.suspects[: (len(state.suspects) + 1) // 2])


def probes_due(state: SlotState, now: Instant, interval: Millis) -> frozenset[str]:
    """MeterIDs that are parked and may send one value along.

    One that is further off than any was put is due too: the clock was set back since.
    """
    if state.suspects:
        return frozenset()
    latest = now + SIX_HOURS * interval
    return frozenset(name for name, at in state.probes.items() if not now < at <= latest)
