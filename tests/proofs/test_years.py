"""P1 to P6, P10 and P11 over years of one gateway's life, whatever goes wrong: twelve in CI.

A number that fails prints the command that plays it again. Each fault, each row of the answer
table and each event must have come at least once; and a mistake that is planted must be found.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
from attrs import evolve

from gateway.buffer import appending
from gateway.buffer.store import Store
from gateway.clock import DAY, HOUR
from gateway.energinet import answer, choosing, uploader
from gateway.energinet.answer import Answer, Row, Verdict
from gateway.metering import counter
from gateway.metering.reading import Commit
from gateway.metering.values import Values
from tests.simulation.years import Figures, play

SITES = 20
PART = 0.6
"""Of a year, for each of them in CI: as much as it has the time for."""
LONG = 40
FALSE_HOLDS = 0.1
"""A year, at most: after a step of the clock a right value may wait for the two that follow."""
BACKLOG = 4
"""The number of a site whose bodies are small."""

Plant = Callable[[pytest.MonkeyPatch], None]


def test_through_years_of_faults_every_value_is_right_and_the_energy_adds_up(short: bool) -> None:
    figures = Figures()
    for seed in range(1_001, 1_001 + (SITES if short else LONG)):
        play(seed, PART if short else 1, figures)
    play(BACKLOG, 0.15, figures, every=5 * DAY, only=("_long_outage",))
    print(figures.table())
    assert figures.lacking() == []
    assert figures.false_holds <= FALSE_HOLDS * figures.years


def test_one_gateway_lives_for_five_years(short: bool) -> None:
    figures = Figures()
    play(1_000, 0.5 if short else 5, figures)
    print(figures.table())
    assert figures.false_holds <= FALSE_HOLDS * figures.years


def test_the_command_that_is_printed_plays_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = partial(play, BACKLOG, 0.02, every=DAY // 4, calm=3 * DAY, only=("_kill", "_stop"))
    with monkeypatch.context() as patch:
        local_time_is_stored(patch)
        with pytest.raises(AssertionError) as failed:
            planted(Figures())
    _, _, again = str(failed.value).rpartition("again: python ")
    planted(figures := Figures())
    played = subprocess.run([sys.executable, *again.split()], capture_output=True, text=True)
    assert played.stdout.splitlines()[1:] == figures.table().splitlines()[1:], played.stderr
    assert figures.fired["kill -9"] + figures.fired["stopped"] > 5


def the_slot_is_in_memory_only(patch: pytest.MonkeyPatch) -> None:
    async def forget(store: Store, sender: str, state: bytes) -> None: ...

    patch.setattr(Store, "keep_slot", forget)


def a_zero_is_a_counter(patch: pytest.MonkeyPatch) -> None:
    doubt = counter._doubt
    patch.setattr(
        counter, "_doubt", lambda known, value, *rest: value and doubt(known, value, *rest)
    )


def local_time_is_stored(patch: pytest.MonkeyPatch) -> None:
    stamp = Values._stamp
    patch.setattr(Values, "_stamp", lambda values: stamp(values) + HOUR)


def _taken_as_accepted(patch: pytest.MonkeyPatch, kind: str) -> None:
    read = answer._verdicts
    good = Verdict("confirmed", 200)

    def verdicts(entries: list[object], sent: Mapping[str, int]) -> dict[str, Verdict]:
        found = read(entries, sent)
        return {name: good if one.kind == kind else one for name, one in found.items()}

    patch.setattr(answer, "_verdicts", verdicts)


def a_missing_entry_is_an_accepted_one(patch: pytest.MonkeyPatch) -> None:
    _taken_as_accepted(patch, "missing")


def a_refused_entry_is_an_accepted_one(patch: pytest.MonkeyPatch) -> None:
    _taken_as_accepted(patch, "refused")


def no_answer_is_a_good_one(patch: pytest.MonkeyPatch) -> None:
    apply = uploader.apply

    def applied(given: Answer, batch: Any, state: Any, **more: Any) -> Any:
        if given.row is Row.SERVER:
            good = Verdict("confirmed", 200)
            given = Answer(Row.LIST, 200, dict.fromkeys(batch.sent, good))
        return apply(given, batch, state, **more)

    patch.setattr(uploader, "apply", applied)


def it_gives_up_after_an_hour(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(choosing, "oldest_allowed", lambda now: now - HOUR)


def what_is_stored_is_not_all(patch: pytest.MonkeyPatch) -> None:
    append = Store._append
    commits = iter(range(1 << 30))

    def some(store: Store, commit: Commit, *rest: Any) -> Any:
        if next(commits) % 20 == 19:
            commit = evolve(commit, readings=commit.readings[:-1])
        return append(store, commit, *rest)

    patch.setattr(Store, "_append", some)


def what_is_missing_is_not_written_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(appending._Plan, "ledger", lambda plan: None)


@pytest.mark.parametrize(
    ("plant", "kinds"),
    [
        (the_slot_is_in_memory_only, ("_fuse",)),
        (a_zero_is_a_counter, ("_spike",)),
        (local_time_is_stored, ("_stop",)),
        (a_missing_entry_is_an_accepted_one, ("_answer",)),
        (a_refused_entry_is_an_accepted_one, ("_answer",)),
        (no_answer_is_a_good_one, ("_answer",)),
        (it_gives_up_after_an_hour, ("_answer",)),
        (what_is_stored_is_not_all, ("_kill",)),
        (what_is_missing_is_not_written_down, ("_trouble", "_step")),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_a_mistake_that_is_planted_is_found(
    plant: Plant, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="again: python -m"):
        for seed in range(1, 20):
            play(seed, 0.06, Figures(), every=8 * HOUR, calm=3 * DAY, only=kinds)
