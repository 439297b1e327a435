"""One meter is asked: only the right words, no more requests than need be, everything it gives."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.clock import DAY, MINUTE
from gateway.errors import BadAnswer, DeviceException, LinkDown
from gateway.metering.profile import DeviceProfile, Limits, SunSpec
from gateway.metering.reading import Block
from gateway.metering.register import Encoding, Register
from gateway.metering.settings import MeterSettings
from gateway.modbus.health import Unit
from gateway.modbus.line import Line
from gateway.modbus.plan import Read
from gateway.modbus.reader import Answer, MeterReader
from gateway.modbus.settings import BusSettings, SerialLink, TcpLink
from tests.modbus.wires import Behaviour, LateWire, QuickClock, ToldWire, seldom, truth

SERIAL = BusSettings("riser", SerialLink("/dev/null"))
TCP = BusSettings("plant", TcpLink("192.0.2.1"))


def register(address: int, words: int = 2) -> Register:
    return Register(f"r{address}", 3, address, Encoding("string", words=words), Decimal(1))


FOUR = tuple(register(address) for address in (0, 2, 4, 6))


def refused(code: int = 2) -> DeviceException:
    return DeviceException("riser", 1, "", code)


class Asked:
    """A reader over a wire in virtual time."""

    def __init__(
        self,
        registers: tuple[Register, ...] = FOUR,
        behave: Behaviour = lambda unit, read: truth(read),
        *,
        bus: BusSettings = SERIAL,
        limits: Limits | None = None,
        wire: ToldWire | None = None,
        sunspec: SunSpec | None = None,
    ) -> None:
        self.clock = wire.clock if wire else QuickClock()
        self.wire = wire or ToldWire(self.clock, behave)
        self.line = Line(bus, self.wire, self.clock, random.Random(1))
        self.unit = Unit("main", 1, longest=1.0, shortest=0.1, state="online")
        self.registers = registers
        self.kept: dict[str, bytes] = {}
        profile = DeviceProfile(
            "t", "T", "t", "electricity", registers, limits=limits or Limits(), sunspec=sunspec
        )
        meter = MeterSettings("main", "riser", 1, profile, ())
        self.reader = MeterReader(
            bus, meter, self.unit, self.line, self.clock, self.kept.__setitem__
        )

    async def round(self, *registers: Register) -> Answer:
        wanted = registers or self.registers
        answer = Answer(self.clock, wanted)
        assert await self.line.ready()
        try:
            await self.reader.read(wanted, answer)
        except LinkDown as error:
            self.line.lost(error)
            answer.fail(wanted, "link_down")
        self.wire_is_true(answer)
        return answer

    def wire_is_true(self, answer: Answer) -> None:
        for block in answer.blocks:
            assert block.words == tuple(range(block.address, block.end))

    def given(self, answer: Answer) -> set[str]:
        raw = answer.sample("main").raw
        return {r.name for r in self.registers if raw.lookup(r) is not None}


async def test_what_a_sound_meter_has_is_read_in_one_request():
    asked = Asked()
    answer = await asked.round()
    assert asked.wire.reads == [Read(3, 0, 8)]
    assert asked.given(answer) == {"r0", "r2", "r4", "r6"}
    assert answer.faults == {}


# ------------------------------------------------------------------------------------ refusals


def refuses(*addresses: int, code: int = 2) -> Behaviour:
    def behave(unit: int, read: Read) -> Block | Exception:
        hit = any(read.address <= address < read.end for address in addresses)
        return refused(code) if hit else truth(read)

    return behave


async def test_a_block_that_is_refused_is_parted_until_the_register_at_fault_stands_alone(
    expected_events,
):
    expected_events("meter.register_refused")
    asked = Asked(behave=refuses(2))
    answer = await asked.round()
    assert asked.given(answer) == {"r0", "r4", "r6"}
    assert answer.faults == {"r2": "exception_2"}


async def test_once_learnt_no_request_is_refused_again_but_for_one_now_and_then(expected_events):
    expected_events("meter.register_refused")
    asked = Asked(behave=refuses(2))
    await asked.round()
    asked.wire.asked.clear()
    answer = await asked.round()
    assert asked.wire.reads == [Read(3, 0, 2), Read(3, 4, 4)]
    assert answer.faults == {"r2": "exception_2"}
    await asked.clock.sleep(MINUTE / 1000)
    asked.wire.asked.clear()
    await asked.round()
    assert asked.wire.reads == [Read(3, 0, 2), Read(3, 4, 4), Read(3, 2, 2)]


async def test_a_refusal_is_said_once(expected_events, caplog):
    expected_events("meter.register_refused")
    asked = Asked(behave=refuses(2))
    for _ in range(5):
        await asked.round()
        await asked.clock.sleep(DAY / 1000)
    said = [r for r in caplog.records if getattr(r, "event", "") == "meter.register_refused"]
    assert len(said) == 1


async def test_a_meter_that_refuses_all_while_it_starts_up_is_read_in_full_afterwards(
    expected_events,
):
    expected_events("meter.register_refused")
    asked = Asked(behave=refuses(0, 2, 4, 6))
    assert asked.given(await asked.round()) == set()
    asked.wire.behave = lambda unit, read: truth(read)
    await asked.clock.sleep(MINUTE / 1000)
    assert asked.given(await asked.round()) == {"r0", "r2", "r4", "r6"}
    asked.wire.asked.clear()
    await asked.round()
    assert asked.wire.reads == [Read(3, 0, 8)]


@pytest.mark.parametrize("most", [2, 7, 40, 63, 100])
async def test_the_longest_request_that_a_meter_takes_is_found_within_a_few_rounds(most: int):
    """One that calls more registers than that an illegal value, exception 3."""

    def behave(unit: int, read: Read) -> Block | Exception:
        return refused(3) if read.count > most else truth(read)

    asked = Asked(tuple(register(2 * n) for n in range(100)), behave=behave)
    for _ in range(9):
        assert len(asked.given(await asked.round())) == 100
    asked.wire.asked.clear()
    await asked.round()
    fewest = math.ceil(100 / (most // 2))
    assert len(asked.wire.reads) == fewest
    again = Asked(tuple(register(2 * n) for n in range(100)), behave=behave)
    again.reader.recall(asked.kept)
    await again.round()
    assert len(again.wire.reads) == fewest


async def test_what_was_learnt_holds_after_a_restart(expected_events):
    expected_events("meter.register_refused")
    before = Asked(behave=refuses(2))
    await before.round()
    after = Asked(behave=refuses(2))
    after.reader.recall(before.kept)
    await after.clock.sleep(30)
    await after.round()
    assert after.wire.reads == [Read(3, 0, 2), Read(3, 4, 4)]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=12),
    st.sets(st.integers(0, 80), max_size=4),
    st.integers(4, 60),
    st.booleans(),
)
async def test_all_that_a_meter_gives_is_read_whatever_it_refuses(
    expected_events, parts: list[tuple[int, int]], bad: set[int], longest: int, holes: bool
) -> None:
    """Bad addresses, and requests longer than it takes: learnt within a few rounds, and then no
    request fails."""
    expected_events("meter.register_refused")
    at, registers = 0, []
    for gap, words in parts:
        at += gap
        registers.append(register(at, words))
        at += words

    def behave(unit: int, read: Read) -> Block | Exception:
        if read.count > longest:
            return refused(3)
        hit = any(read.address <= address < read.end for address in bad)
        return refused(2) if hit else truth(read)

    asked = Asked(tuple(registers), behave, limits=Limits(holes=holes))
    sound = {r.name for r in registers if not any(r.address <= a < r.end for a in bad)}
    for _ in range(6):
        assert asked.given(await asked.round()) == sound
    before = asked.reader.tally.errors
    assert asked.given(await asked.round()) == sound
    assert asked.reader.tally.errors == before


# --------------------------------------------------------------------------- silence and noise


async def test_a_silent_meter_costs_one_timeout_and_then_one_short_probe():
    asked = Asked(behave=lambda unit, read: None)
    asked.unit.state = "offline"
    answer = await asked.round()
    assert set(answer.faults.values()) == {"timeout"}
    await asked.round()
    assert [read.count for read in asked.wire.reads] == [8, 2]
    assert asked.wire.busy <= 2.0


async def test_a_lost_request_of_a_quick_meter_is_asked_again_in_the_same_round():
    asked = Asked()
    await asked.round()
    lost = iter([None])
    asked.wire.behave = lambda unit, read: next(lost, truth(read))
    answer = await asked.round()
    assert asked.given(answer) == {"r0", "r2", "r4", "r6"}
    assert asked.wire.reads[1:] == [Read(3, 0, 8), Read(3, 0, 2), Read(3, 0, 8)]


async def test_a_damaged_answer_is_asked_for_again_at_most_as_often_as_is_set():
    def noise(unit: int, read: Read) -> Exception:
        return BadAnswer("riser", unit, str(read), "damaged", reason="crc")

    asked = Asked(behave=noise)
    answer = await asked.round()
    assert len(asked.wire.reads) == 1 + SERIAL.retries
    assert set(answer.faults.values()) == {"crc"}


async def test_a_meter_of_which_nothing_can_be_trusted_is_soon_left_alone_for_the_round():
    asked = Asked(behave=lambda unit, read: truth(read))
    await asked.round()
    asked.wire.behave = lambda unit, read: BadAnswer("riser", unit, str(read), "", reason="unit")
    for _ in range(4):
        await asked.round()
    asked.wire.asked.clear()
    await asked.round()
    assert len(asked.wire.asked) == 1, "one short read"
    assert asked.unit.silent > 0


async def test_a_busy_meter_is_not_dead_and_is_asked_again_after_a_pause():
    answers = iter([refused(6), refused(5)])
    asked = Asked(behave=lambda unit, read: next(answers, truth(read)))
    answer = await asked.round()
    assert asked.given(answer) == {"r0", "r2", "r4", "r6"}
    times = [at for at, *_ in asked.wire.asked]
    assert all(after - before >= 0.1 for before, after in pairwise(times))
    assert asked.unit.errors == {"exception_6": 1, "exception_5": 1}


async def test_exception_4_is_not_asked_again_and_the_other_blocks_are():
    far = register(100)
    asked = Asked((*FOUR, far), lambda u, r: refused(4) if r.address == 0 else truth(r))
    answer = await asked.round()
    assert asked.given(answer) == {"r100"}
    assert len(asked.wire.reads) == 2


@pytest.mark.parametrize(("code", "silent"), [(10, 0), (11, 1)])
async def test_a_gateway_s_fault_ends_the_round_of_the_meter(code: int, silent: int):
    asked = Asked((*FOUR, register(100)), lambda unit, read: refused(code), bus=TCP)
    answer = await asked.round()
    assert set(answer.faults.values()) == {f"exception_{code}"}
    assert len(asked.wire.reads) == 1
    assert asked.unit.silent == silent


async def test_a_connection_that_its_other_end_closed_is_renewed_within_the_round():
    asked = Asked(bus=TCP)
    await asked.round()
    asked.wire.hung_up = True
    answer = await asked.round()
    assert asked.given(answer) == {"r0", "r2", "r4", "r6"}
    assert asked.wire.opened == 2


async def test_a_connection_that_never_answered_is_not_renewed_at_once(expected_events):
    expected_events("bus.down")
    asked = Asked(bus=TCP)
    asked.wire.hung_up = True
    answer = await asked.round()
    assert set(answer.faults.values()) == {"link_down"}
    assert asked.wire.opened == 1
    assert asked.unit.silent == 0


# ------------------------------------------------------------------------------- late answers


@pytest.mark.parametrize("seed", range(40))
async def test_a_late_answer_is_never_taken_for_another_s(seed: int):
    """Five blocks, four of one shape, of a meter that answers up to 20 s late: every word that
    is taken is the one that was asked for."""
    clock = QuickClock()
    wire = LateWire(clock, seldom(seed, share=0.1, longest=20.0))
    draw = random.Random(seed)
    registers = (*(register(address) for address in (0, 100, 200, 300)), register(400, 4))
    asked = Asked(registers, wire=wire)
    took = 0
    for _ in range(150):
        took += len((await asked.round()).blocks)  # and looks at every word
        await clock.sleep(draw.uniform(0.2, 8))
    assert took > 50


async def test_after_a_timeout_a_read_of_another_shape_goes_first():
    asked = Asked((register(0), register(100), register(200, 4)))
    await asked.round()
    asked.wire.behave = lambda unit, read: None
    await asked.round()
    doubted = {read.shape for _, _, read, _ in asked.wire.asked[3:]}
    asked.wire.behave = lambda unit, read: truth(read)
    asked.wire.asked.clear()
    await asked.round()
    assert asked.wire.reads[0].shape not in doubted


async def test_where_transactions_tell_answers_apart_nothing_is_in_doubt():
    asked = Asked(bus=TCP)
    asked.wire.behave = lambda unit, read: None
    await asked.round()
    assert asked.unit.doubts == {}


# ------------------------------------------------------------------------------------ SunSpec


def sunspec_meter(base: int, before: int = 66) -> dict[int, int]:
    """Marker, common model of 66 registers, a model in between, the meter, the end."""
    words = {base: 0x5375, base + 1: 0x6E53}
    at = base + 2
    for model, length in ((1, before), (64001, 10), (203, 105), (0xFFFF, 0)):
        words |= {at: model, at + 1: length}
        words |= {at + 2 + i: model * 100 + i for i in range(length)}
        at += 2 + length
    return {address: word & 0xFFFF for address, word in words.items()}


def holding(memory: dict[int, int]) -> Behaviour:
    """A meter that has these registers and no others."""

    def behave(unit: int, read: Read) -> Block | Exception:
        if not all(address in memory for address in range(read.address, read.end)):
            return refused(2)
        return Block(3, read.address, tuple(memory[a] for a in range(read.address, read.end)))

    return behave


@pytest.mark.parametrize("base", [40000, 50000, 0])
@pytest.mark.parametrize("before", [65, 66])
async def test_a_sunspec_meter_is_found_at_any_base_and_behind_other_models(base: int, before: int):
    memory = sunspec_meter(base, before)

    power, name = register(40072, 1), register(40004, 16)
    asked = Asked(
        (power, name), holding(memory), bus=TCP, sunspec=SunSpec((201, 203), header=40070)
    )
    asked.wire_is_true = lambda answer: None  # type: ignore[method-assign]
    for _ in range(2):
        raw = (await asked.round()).sample("main").raw
        assert raw.lookup(power) == (203 * 100 & 0xFFFF,)
        assert raw.lookup(name) == tuple(100 + i for i in range(16))
    asked.wire.asked.clear()
    await asked.round()
    assert len(asked.wire.reads) <= 2, "its place is known"


async def test_a_meter_without_the_model_is_a_refusal_not_a_guess():
    memory = sunspec_meter(40000)

    where = SunSpec((213,), header=40070)
    asked = Asked((register(40072, 1),), holding(memory), bus=TCP, sunspec=where)
    answer = await asked.round()
    assert answer.blocks == []
    assert answer.faults == {"r40072": "exception_2"}


async def test_after_an_outage_the_place_is_looked_for_again(expected_events):
    expected_events("bus.down")
    memory = sunspec_meter(40000)

    power = register(40072, 1)
    asked = Asked((power,), holding(memory), bus=TCP, sunspec=SunSpec((203,), header=40070))
    asked.wire_is_true = lambda answer: None  # type: ignore[method-assign]
    await asked.round()
    memory.clear()
    memory.update(sunspec_meter(50000, 65))
    asked.line.lost(LinkDown("plant", "unplugged"))
    await asked.clock.sleep(120)
    raw = (await asked.round()).sample("main").raw
    assert raw.lookup(power) == (203 * 100 & 0xFFFF,)


async def test_the_words_of_a_sunspec_meter_keep_the_addresses_of_the_profile():
    """So that what is stored can be decoded again with the profile alone."""
    memory = sunspec_meter(0)

    power = register(40072, 1)
    asked = Asked(
        (power, evolve(power, name="next", address=40073)),
        holding(memory),
        bus=TCP,
        sunspec=SunSpec((203,), header=40070),
    )
    asked.wire_is_true = lambda answer: None  # type: ignore[method-assign]
    assert {block.address for block in (await asked.round()).blocks} == {40072}


async def test_a_sample_says_how_long_its_answers_took():
    asked = Asked((register(0), register(500), register(900)))
    asked.wire.turnaround = 0.25
    sample = (await asked.round()).sample("main")
    assert sample.took == 500
    assert (await asked.round(register(0))).sample("main").took == 0
