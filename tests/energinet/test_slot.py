"""P5: a sender is never early, over restarts, crash loops, reboots and steps of the clock."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import DAY, HOUR, MINUTE
from gateway.energinet.settings import Secret, SenderSettings
from gateway.energinet.slot import Now, SlotState
from tests.energinet.made import SLOT, START, Reply, World, series

DEADLINE = 60_000


def now(boot: str = "a", boottime: int = 0, wall: int = START, *, right: bool = True) -> Now:
    return Now(boot, boottime, wall, right)


# ------------------------------------------------------------------------------------------ pure


def test_a_sender_that_never_asked_may_ask_at_once() -> None:
    assert SlotState().wait(now()) == 0
    assert SlotState.unpack(None, now(), SLOT).wait(now()) == 0


@pytest.mark.parametrize("step", [0, -365 * DAY, 10 * 365 * DAY, 1, -1])
def test_within_a_boot_no_step_of_the_clock_makes_it_early_or_late(step: int) -> None:
    state = SlotState()
    state.hold(now(boottime=1_000), SLOT)
    for passed in (0, 1, SLOT // 2, SLOT - 1, SLOT):
        later = now(boottime=1_000 + passed, wall=START + passed + step)
        assert state.wait(later) == SLOT - passed


def test_after_a_reboot_with_a_right_clock_only_the_rest_is_waited() -> None:
    state = SlotState()
    state.hold(now("a", 50_000_000), SLOT)
    assert state.wait(now("b", 5_000, START + 4 * MINUTE)) == SLOT - 4 * MINUTE
    assert state.wait(now("b", 5_000, START + DAY)) == 0
    # A clock that says it is earlier than the request was: never more than was to be waited.
    assert state.wait(now("b", 5_000, START - DAY)) == SLOT


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False), (False, False)])
def test_after_a_reboot_without_a_right_clock_all_of_it_is_waited(
    before: bool, after: bool
) -> None:
    state = SlotState()
    state.hold(now("a", 1_000, right=before), SLOT)
    assert state.wait(now("b", 5_000, START + DAY, right=after)) == SLOT


@pytest.mark.parametrize(
    "kept", [b"", b"{}", b"\xff", b"[]", b"null", b'{"version": 99}', b'{"version": 1, "x": 2}']
)
def test_a_slot_that_cannot_be_read_waits_all_of_it(kept: bytes) -> None:
    assert SlotState.unpack(kept, now(), SLOT).wait(now()) == SLOT


names = st.text(max_size=4)
states = st.builds(
    SlotState,
    boot_id=st.text(max_size=4),
    boot_until=st.integers(0, 1 << 50),
    wall_until=st.integers(0, 1 << 50),
    span=st.integers(0, 1 << 40),
    synchronised=st.booleans(),
    asked_as=st.text("0123456789abcdef", max_size=16),
    failures=st.integers(0, 99),
    limit=st.integers(0, 500_000),
    caps=st.dictionaries(names, st.integers(1, 99)),
    refused=st.dictionaries(names, st.integers(1, 2)),
    probes=st.dictionaries(names, st.integers(0, 1 << 50)),
    missing=st.lists(names),
    suspects=st.lists(names),
    oldest_turns=st.lists(names),
    ever=st.booleans(),
)


@given(states)
def test_a_state_comes_back_as_it_was_kept(state: SlotState) -> None:
    packed = state.pack()
    assert SlotState.unpack(packed, now(), SLOT) == state
    assert b"token" not in packed


# -------------------------------------------------------------------------------- the whole sender


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = World(tmp_path / "readings.db")
    return await made.start(series("7"))


def not_early(world: World) -> None:
    assert world.standin.violations == []
    assert all(gap >= 1 for gap in world.gaps), world.gaps


async def test_the_slot_is_on_disk_before_the_request_leaves(world: World) -> None:
    kept: list[SlotState] = []

    def look(_: bytes) -> None:
        rows = world.store._db.execute("SELECT state FROM slots").fetchall()
        kept.extend(
            SlotState(**{k: v for k, v in json.loads(row[0]).items() if k != "version"})
            for row in rows
        )

    world.script = look
    await world.store_hours("7", 20)
    await world.slots(0.5)
    assert [state.boot_until for state in kept] == [
        world.sent[0].began - world._base + DEADLINE + SLOT
    ]
    # Afterwards it counts from the end of the request.
    after = SlotState.unpack(await world.store.slot("basement"), now(), 0)
    assert after.boot_until == world.sent[0].ended - world._base + SLOT
    await world.end()


async def test_a_kill_between_slot_and_answer_makes_the_next_process_wait_both(
    world: World, expected_events: Callable[..., None]
) -> None:
    world.script = lambda _: Reply(took=50)
    await world.store_hours("7", 20)
    await world.clock.pass_(10)  # the request is under way, nothing is settled
    began = world.true() - 10_000
    await world.restart()
    world.script = lambda _: None
    await world.until_sent(1)
    assert world.sent[-1].began - began >= DEADLINE + SLOT
    not_early(world)
    assert len(world.standin.received["7"]) == 20
    await world.end()


async def test_a_crash_loop_is_never_early_and_still_sends(world: World) -> None:
    draw = random.Random(7)
    await world.store_hours("7", 20)
    for nth in range(300):
        await world.clock.pass_(draw.choice([0.5, 5, 61, 200, 400]))
        if draw.random() < 0.2:
            await world.store_hours("7", 1, before=START + nth * MINUTE)
        await world.restart()
    not_early(world)
    assert len(world.sent) >= 15
    await world.end()


async def test_a_crash_loop_after_a_reboot_without_a_clock_still_sends(world: World) -> None:
    await world.store_hours("7", 20)
    await world.until_sent(1)
    await world.store_hours("7", 3, before=START + 1000)
    await world.reboot(off=MINUTE, synchronised=False)
    for _ in range(6):  # each start is shorter than a slot
        await world.clock.pass_(200)
        await world.restart()
    await world.slots(1)
    not_early(world)
    assert len(world.sent) == 2
    await world.end()


@pytest.mark.parametrize("off", [0, 3 * MINUTE, 11 * MINUTE, 30 * DAY])
@pytest.mark.parametrize("synchronised", [True, False])
async def test_a_reboot_is_never_early(world: World, off: int, synchronised: bool) -> None:
    await world.store_hours("7", 20)
    await world.until_sent(1)
    await world.store_hours("7", 1, before=START + 1000)
    # Without a clock of its own a machine starts where it was saved last: late.
    await world.reboot(
        off=off, wrong_by=0 if synchronised else -HOUR - off, synchronised=synchronised
    )
    await world.clock.pass_(60)
    world.clock.step(0 if synchronised else HOUR + off)
    world.clock.is_synchronised = True
    await world.slots(2)
    not_early(world)
    assert len(world.sent) == 2
    await world.end()


@pytest.mark.parametrize("step", [-3 * 365 * DAY, -DAY, -30_000, 30_000, DAY, 4 * 365 * DAY])
async def test_a_step_of_the_clock_makes_no_early_request_and_loses_nothing(
    world: World, step: int
) -> None:
    await world.store_hours("7", 20)
    await world.until_sent(1)
    for nth in range(1, 5):
        await world.clock.pass_(100)
        world.clock.step(step if nth % 2 else -step)
        await world.store_hours("7", nth, before=START + nth * 1000)
        await world.slots(1.1)
    await world.slots(2)
    not_early(world)
    counts = await world.store.counts()
    assert counts.parked == 0, "parked for an age that only the clock gave them"
    assert counts.confirmed == counts.stored
    await world.end()


@pytest.mark.parametrize("step", [-365 * DAY, -HOUR, HOUR, 365 * DAY])
async def test_a_clock_that_was_set_right_in_a_slot_makes_no_reboot_early(
    world: World, step: int
) -> None:
    world.clock.step(step)  # wrong, though the system calls it synchronised
    await world.store_hours("7", 20, before=min(START, START + step))
    await world.until_sent(1)
    await world.store_hours("7", 1, before=START - 90_000_000_000)
    world.clock.step(-step)
    await world.clock.pass_(61)
    await world.reboot(off=5_000)
    await world.slots(2)
    not_early(world)
    assert len(world.sent) == 2
    assert world.gaps[0] < 1.2
    await world.end()


async def test_a_slow_buffer_does_not_push_the_request_past_its_slot(
    world: World, expected_events: Callable[..., None]
) -> None:
    expected_events("upload.unanswered")
    keep = world.store.keep_slot
    delay = 45.0

    async def slowly(sender: str, state: bytes) -> None:
        await keep(sender, state)
        await world.clock.sleep(delay)

    world.store.keep_slot = slowly  # type: ignore[method-assign]
    world.script = lambda _: Reply(took=1000)
    await world.store_hours("7", 20)
    await world.until_sent(1)
    # The request ended when its slot says that it is over.
    assert world.sent[0].ended - world.sent[0].began == 15_000
    delay = 70.0  # longer than the request may take: it is not made at all
    await world.slots(3)
    assert len(world.sent) == 1
    await world.end()


async def test_a_slot_lost_with_its_file_is_waited_once_and_kept(world: World) -> None:
    await world.store_hours("7", 20)
    await world.until_sent(1)
    last = world.sent[0].ended
    await world.store_hours("7", 2, before=START + 1000)
    world.store._db.execute("DELETE FROM slots")
    world.store._db.commit()
    await world.restart()
    await world.clock.pass_(100)
    await world.restart()  # what is waited does not begin anew
    await world.until_sent(2)
    assert SLOT <= world.sent[1].began - last <= SLOT + DEADLINE + 2 * SLOT
    not_early(world)
    await world.end()


async def test_what_a_salvage_makes_a_sender_wait_it_waits_over_a_kill_too(
    world: World, expected_events: Callable[..., None]
) -> None:
    expected_events("buffer.set_aside")
    await world.kill()
    world.path.unlink()
    await world.start()  # the file is gone, and with it the slot
    held = world.true()
    await world.restart()
    await world.store_hours("7", 1)
    await world.until_sent(1)
    assert world.sent[0].began - held >= SLOT + DEADLINE
    await world.end()


# ------------------------------------------------------------------------- who asks is the token

A, B = "t0ken-that-basement-had-first", "t0ken-that-attic-had-first"


def senders(tokens: dict[str, str]) -> tuple[SenderSettings, ...]:
    """By name: each looks at its token before each try."""
    return tuple(
        SenderSettings(name, "", lambda name=name: Secret(tokens[name]))  # type: ignore[misc]
        for name in tokens
    )


async def two(path: Path, tokens: dict[str, str]) -> World:
    """Basement and attic, which both asked before; basement asked a minute ago."""
    world = World(path / "readings.db", senders=senders(tokens))
    world.standin.tokens = {A: "A", B: "B"}
    await world.start(series("7"), series("8", "attic"))
    for name in ("7", "8"):
        await world.store_hours(name, 1)
    await world.slots(3)
    await world.store_hours("7", 1, before=START + 1000)
    await world.clock.pass_(60)
    assert [one.token for one in world.sent] == [A, B, A]
    return world


async def all_goes_in_time(world: World) -> None:
    """Though between the look whether a token may ask and the request some time goes by."""
    series = world.store.series

    async def slowly(sender: str) -> object:
        await world.clock.sleep(5)
        return await series(sender)

    world.store.series = slowly  # type: ignore[method-assign,assignment]
    for nth, name in enumerate("787878"):
        await world.store_hours(name, 1, before=START + (nth + 2) * 1000)
        await world.slots(0.7)
    await world.slots(3)
    assert world.standin.violations == []
    assert len(world.standin.accepted) == 9
    assert (await world.store.counts()).pending == 0
    await world.end()


@pytest.mark.parametrize("how", ["runs on", "restart", "reboot"])
@pytest.mark.parametrize(
    "tokens",
    [
        pytest.param({"basement": B, "attic": A}, id="swapped"),
        pytest.param({"basement": A, "attic": A}, id="one for both"),
        pytest.param({"attic": A}, id="its sender is gone"),
        pytest.param({"cellar": A, "attic": B}, id="its sender has another name"),
    ],
)
async def test_a_token_is_never_early_whichever_sender_has_it(
    tmp_path: Path, tokens: dict[str, str], how: str
) -> None:
    had = {"basement": A, "attic": B}
    world = await two(tmp_path, had)
    if how == "runs on":
        had.update(tokens)  # the files of the tokens changed
    else:
        world.settings = evolve(world.settings, senders=senders(tokens))
        world._known = [series("7", next(iter(tokens))), series("8", "attic")]
        await (world.restart() if how == "restart" else world.reboot(off=MINUTE))
    await all_goes_in_time(world)
