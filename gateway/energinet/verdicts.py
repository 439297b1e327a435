"""An answer applied to a sender's state: settlements, the next request, and what to say. Pure."""

from __future__ import annotations

import random
from typing import Any, Final

from attrs import define, field

from gateway.clock import DAY, Instant, Millis
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
    if row is Row.CONFLICT:
        state.conflicts += 1
        if state.conflicts >= 3:
            row = Row.BODY
    else:
        state.conflicts = 0
    state.failures = state.failures + 1 if row is Row.SERVER else 0
    state.refusals = state.refusals + 1 if row is Row.TOKEN else 0
    if row is Row.LIST:
        _list(answer, batch, state, out, now=now, interval=interval)
    elif row is Row.BODY:
        _body(answer, batch, state, out, now=now, interval=interval)
    elif row is Row.TOKEN:
        out.slots = 1 if state.refusals == 1 else HOUR
    elif row in (Row.REDIRECT, Row.CONFIGURATION):
        out.slots = HOUR
    elif row is Row.TOO_LARGE:
        state.limit = max(SMALLEST_BODY, min(state.limit or limit, len(batch.data)) // 2)
        state.limit_since = now
        out.events.append(("upload.smaller", {"limit": state.limit}))
    elif row is Row.TOO_MANY:
        asked = answer.retry_after if answer.retry_after is not None else interval
        out.slots = min(max(asked / interval, 1.0), A_DAY)
    elif row is Row.SERVER:
        out.slots = _patience(state.failures, random)
    if row in (Row.LIST, Row.UNREADABLE):
        _raise_limit(state, limit, now)
    return out


def _patience(failures: int, random: random.Random) -> float:
    later = HALF_HOUR if failures == _PATIENT + 1 else HOUR
    slots = 1 if failures <= _PATIENT else later
    return max(1.0, slots * random.uniform(1 - _JITTER, 1 + _JITTER))


def _raise_limit(state: SlotState, limit: int, now: Instant) -> None:
    if state.limit and now - state.limit_since >= DAY:
        state.limit = int(state.limit * 1.1)
        state.limit_since = now
        if state.limit >= limit:
            state.limit = 0


def _list(
    answer: Answer, batch: Batch, state: SlotState, out: Outcome, *, now: Instant, interval: Millis
) -> None:
    missing: list[str] = []
    for key, values in batch.values.items():
        verdict = answer.verdicts.get(key.meter_id, Verdict("missing"))
        {"confirmed": _confirmed, "missing": _missing, "short": _short, "refused": _refused}[
            verdict.kind
        ](key, values, verdict, state, out)
        if verdict.kind == "refused":
            state.probes[key.meter_id] = now + SIX_HOURS * interval
        elif verdict.kind == "missing":
            missing.append(key.meter_id)
            if key.meter_id in state.probes:
                state.probes[key.meter_id] = now + SIX_HOURS * interval
    sent = {key.meter_id for key in batch.values}
    state.missing = sorted({*missing, *(set(state.missing) - sent)})
    if state.suspects:  # half of them were taken: the one at fault is in the other half
        state.suspects = [name for name in state.suspects if name not in sent]


def _confirmed(
    key: SeriesKey,
    values: tuple[Waiting, ...],
    _: Verdict,
    state: SlotState,
    out: Outcome,
) -> None:
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


def _missing(
    key: SeriesKey,
    values: tuple[Waiting, ...],
    _: Verdict,
    state: SlotState,
    out: Outcome,
) -> None:
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


def _refused(
    key: SeriesKey,
    values: tuple[Waiting, ...],
    verdict: Verdict,
    state: SlotState,
    out: Outcome,
) -> None:
    _park(key, values, str(verdict.status), state, out)


def _park(
    key: SeriesKey, values: tuple[Waiting, ...], status: str, state: SlotState, out: Outcome
) -> None:
    ids = tuple(value.id for value in values)
    out.settlements.append(Settlement(key, "kept", ids))
    out.settlements.append(Settlement(key, "park_series", reason=status))
    state.caps.pop(key.meter_id, None)
    if key.meter_id not in state.probes:
        fields = {"meterID": key.meter_id, "status": status, "values": len(ids)}
        out.events.append(("upload.parked", fields))


def _body(
    answer: Answer, batch: Batch, state: SlotState, out: Outcome, *, now: Instant, interval: Millis
) -> None:
    """The whole body was refused: find the one meterID at fault by halves."""
    by_name = {key.meter_id: key for key in batch.values}
    names = sorted(by_name)
    tried_again = [name for name in names if name in state.probes]
    if tried_again:
        # What was parked and tried again is the likely one; the others are not held up.
        for name in tried_again:
            state.probes[name] = now + SIX_HOURS * interval
        return
    tested = [name for name in names if name in state.suspects] if state.suspects else names
    if not tested:
        tested = names  # a second one is at fault, outside of the suspects
    if len(tested) > 1:
        state.suspects = tested
        return
    state.suspects = []
    key = by_name[tested[0]]
    _park(key, batch.values[key], str(answer.status), state, out)
    state.probes[key.meter_id] = now + SIX_HOURS * interval


def left_out(state: SlotState) -> frozenset[str]:
    """MeterIDs that the next body does not carry: the untested half of the suspects."""
    return frozenset(state.suspects[(len(state.suspects) + 1) // 2 :])


def probes_due(state: SlotState, now: Instant) -> frozenset[str]:
    """MeterIDs that are parked and may send one value along."""
    return frozenset(name for name, at in state.probes.items() if at <= now)
