"""A round over a bus: live meters first, the dead within their share, each change told once."""

from __future__ import annotations

import random
import time
from collections import Counter
from decimal import Decimal

import pytest
from attrs import evolve

from gateway.clock import DAY, SystemClock
from gateway.errors import BadAnswer, DeviceException
from gateway.metering.profile import DeviceProfile, Limits
from gateway.metering.reading import Block
from gateway.metering.register import Encoding, Register
from gateway.metering.settings import MeterSettings
from gateway.modbus.plan import Read
from gateway.modbus.poller import Ask, Poller, Round
from gateway.modbus.served import SimulatedEndpoint, wall
from gateway.modbus.settings import BusSettings, SerialLink, TcpLink
from gateway.modbus.simulator import SimulatedMeter
from tests.modbus.wires import QuickClock, ToldWire, truth

REGISTERS = tuple(
    Register(f"r{address}", 3, address, Encoding("u16"), Decimal(1)) for address in range(4)
)
PROFILE = DeviceProfile("t", "T", "t", "electricity", REGISTERS)


class Polled:
    """A poller of some meters over a wire in virtual time; `dead` are the units that are silent."""

    def __init__(self, units: int, *, link: SerialLink | TcpLink | None = None) -> None:
        self.clock = QuickClock()
        self.dead: set[int] = set()
        self.garbled: set[int] = set()
        self.noise = 1.0
        """Share of the answers of those that is damaged, …"""
        self.sound_up_to = 0
        """… unless they are that short."""
        self.draw = random.Random(1)
        self.refuses: int | None = None
        """An address that they refuse."""
        self.wire = ToldWire(self.clock, self._behave)
        self.meters = [
            MeterSettings(f"m{unit}", "riser", unit, PROFILE, ()) for unit in range(1, units + 1)
        ]
        self.settings = BusSettings("riser", link or SerialLink("/dev/riser"))
        self.kept: dict[str, bytes] = {}
        self.poller = self.again()

    def again(self) -> Poller:
        return Poller(
            self.settings,
            self.meters,
            self.clock,
            random=random.Random(1),
            keep=self.kept.__setitem__,
            wire=self.wire,
        )

    def _behave(self, unit: int, read: Read) -> Block | Exception | None:
        if unit in self.dead:
            return None
        noise = self.noise if unit in self.garbled and read.count > self.sound_up_to else 0
        if self.draw.random() < noise:
            return BadAnswer("riser", unit, str(read), "damaged", reason="crc")
        if self.refuses is not None and read.address <= self.refuses < read.end:
            return DeviceException("riser", unit, str(read), 2)
        return truth(read)

    async def round(self, *, urgent: bool = False) -> Round:
        asks = [Ask(meter, REGISTERS, urgent=urgent) for meter in self.meters]
        return await self.poller.round(asks)

    def states(self) -> list[str]:
        return [report.state for report in self.poller.units()]


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (record.event, record.fields["meter"])
        for record in caplog.records
        if getattr(record, "event", "").startswith("meter.")
    ]


async def test_each_meter_that_was_asked_has_one_sample():
    polled = Polled(3)
    done = await polled.round()
    assert [sample.meter for sample in done.samples] == ["m1", "m2", "m3"]
    assert (done.requests, done.errors, done.link_up) == (3, 0, True)
    assert all(sample.raw.lookup(r) == (r.address,) for sample in done.samples for r in REGISTERS)


async def test_meters_that_answer_come_before_those_that_are_silent(expected_events):
    expected_events("meter.offline")
    polled = Polled(4)
    polled.dead = {1, 3}
    await polled.round()
    polled.wire.asked.clear()
    await polled.round(urgent=True)
    assert [unit for _, unit, _, _ in polled.wire.asked][:2] == [2, 4]


async def test_boundaries_come_before_polls():
    polled = Polled(3)
    one, two, three = polled.meters
    await polled.poller.round(
        [Ask(one, REGISTERS), Ask(two, REGISTERS, urgent=True), Ask(three, REGISTERS)]
    )
    assert [unit for _, unit, _, _ in polled.wire.asked] == [2, 1, 3]


@pytest.mark.parametrize("what", ["silent", "garbled", "only short answers are sound"])
@pytest.mark.parametrize("every", [1, 10, 60])
async def test_dead_meters_take_a_tenth_of_the_bus_at_most_and_the_live_ones_lose_nothing(
    every: int, what: str, expected_events
):
    """Eight dead ones beside two that live, from the start on, for half an hour; so are those of
    which nothing comes that can be trusted."""
    expected_events("meter.offline", "meter.still_offline", "meter.noisy")
    polled = Polled(10)
    bad = set(range(1, 9))
    if what == "silent":
        polled.dead = bad
    else:
        polled.garbled, polled.sound_up_to = bad, int(what != "garbled")
    began = polled.clock.monotonic()
    answered = rounds = 0
    latest = 0.0
    while polled.clock.monotonic() < began + 1800:
        at = polled.clock.monotonic()
        done = await polled.round()
        rounds += 1
        answered += sum(bool(sample.raw.blocks) for sample in done.samples)
        alive = [when for when, unit, _, _ in polled.wire.asked if unit > 8]
        if rounds > 1:  # in the first nobody is known to be dead
            latest = max(latest, alive[-1] - at)
        await polled.clock.sleep(max(0.0, every - (polled.clock.monotonic() - at)))
    begin = began + 900 * polled.sound_up_to  # it takes some rounds to see of these meters
    in_vain = sum(
        timeout
        for at, unit, read, timeout in polled.wire.asked
        if unit in bad
        and at >= begin
        and isinstance(read, Read)
        and read.count > polled.sound_up_to
    )
    assert answered == 2 * rounds
    assert latest < 0.1
    assert in_vain <= 0.1 * (began + 1800 - begin)


@pytest.mark.parametrize("noise", [0.1, 0.5])
async def test_a_meter_of_which_some_answers_are_sound_goes_on_being_asked(
    noise: float, expected_events
):
    expected_events("meter.noisy", "meter.offline", "meter.online")
    polled = Polled(3)
    polled.garbled, polled.noise = {1, 2}, noise
    answered = 0
    for _ in range(1000):
        done = await polled.round()
        answered += sum(bool(sample.raw.blocks) for sample in done.samples)
        await polled.clock.sleep(5)
    assert answered > 3000 * (1 - 2 * noise**3)


async def test_a_meter_s_end_and_return_are_told_once(expected_events, caplog):
    expected_events("meter.offline")
    polled = Polled(2)
    await polled.round()
    polled.dead = {1}
    for _ in range(100):
        await polled.round()
        await polled.clock.sleep(5)
    assert polled.states() == ["offline", "online"]
    polled.dead = set()
    caplog.set_level("INFO")
    await polled.clock.sleep(60)
    await polled.round()
    await polled.round()
    assert told(caplog) == [("meter.offline", "m1"), ("meter.online", "m1")]
    assert polled.states() == ["online", "online"]


async def test_one_missed_round_makes_no_meter_offline(caplog):
    polled = Polled(1)
    await polled.round()
    polled.dead = {1}
    await polled.round()
    polled.dead = set()
    await polled.round(urgent=True)
    assert polled.states() == ["online"]


async def test_a_meter_dead_for_a_week_is_told_ten_times_at_most(expected_events, caplog):
    expected_events("meter.offline", "meter.still_offline")
    polled = Polled(1)
    polled.dead = {1}
    for _ in range(7 * DAY // 60_000):
        await polled.round()
        await polled.clock.sleep(60)
    events = [event for event, _ in told(caplog)]
    assert events[0] == "meter.offline"
    assert events[1:] == ["meter.still_offline"] * (len(events) - 1)
    assert 8 <= len(events) <= 10


async def test_a_lost_link_is_no_fault_of_its_meters(expected_events, caplog):
    expected_events("bus.down")
    polled = Polled(2)
    await polled.round()
    polled.wire.down = True
    for _ in range(20):
        done = await polled.round()
        await polled.clock.sleep(30)
    assert not done.link_up
    assert {reason for s in done.samples for reason in s.faults.values()} == {"link_down"}
    assert polled.states() == ["online", "online"]
    assert polled.poller.link().error
    polled.wire.down = False
    await polled.clock.sleep(80)
    assert (await polled.round()).errors == 0
    assert told(caplog) == []


async def test_a_device_that_takes_one_client_is_left_alone_between_rounds():
    polled = Polled(2, link=TcpLink("192.0.2.1", disconnect="after_round"))
    await polled.round()
    assert not polled.wire.is_open
    await polled.round()
    assert polled.wire.opened == 2


@pytest.mark.parametrize(("of_bus", "of_profiles"), [(0, (0, 300)), (300, (100, 0))])
async def test_the_longest_pause_after_opening_is_kept_of_those_that_bus_and_profiles_ask_for(
    of_bus: int, of_profiles: tuple[int, ...]
):
    meters = [
        MeterSettings(
            f"m{unit}", "riser", unit, evolve(PROFILE, limits=Limits(pause_after_open=pause)), ()
        )
        for unit, pause in enumerate(of_profiles, 1)
    ]
    endpoint = SimulatedEndpoint([SimulatedMeter(m.profile, m.unit, wall()) for m in meters])
    link = TcpLink("127.0.0.1", await endpoint.open())
    settings = BusSettings("riser", link, pause_after_open=of_bus)
    poller = Poller(settings, meters, SystemClock(), random=random.Random(1))
    began = time.monotonic()
    (sample,) = (await poller.round([Ask(meters[0], REGISTERS)])).samples
    assert time.monotonic() - began >= 0.3
    assert sample.raw.blocks
    await poller.close()
    await endpoint.close()


async def test_what_was_learnt_is_recalled_by_the_poller_after_it(expected_events):
    expected_events("meter.register_refused")
    polled = Polled(1)
    polled.refuses = 2
    await polled.round()
    await polled.clock.sleep(5)
    polled.poller = polled.again()
    polled.poller.recall(polled.kept)
    assert (await polled.round()).errors == 0


async def test_a_meter_of_which_nothing_was_asked_is_not_judged(expected_events):
    """Its only register at this boundary is known to be refused: that is no sign of its end."""
    expected_events("meter.register_refused")
    polled = Polled(1)
    polled.refuses = 2
    await polled.round()
    for _ in range(10):
        await polled.poller.round([Ask(polled.meters[0], (REGISTERS[2],), urgent=True)])
    assert polled.states() == ["online"]


async def test_a_person_s_read_is_asked_whatever_is_known_of_the_meter(expected_events):
    expected_events("meter.offline", "bus.down")
    polled = Polled(2)
    polled.dead = {1}
    for _ in range(4):
        await polled.round()
    polled.dead = set()
    (sample,) = (
        await polled.poller.round([Ask(polled.meters[0], REGISTERS, by_hand=True)])
    ).samples
    assert sample.raw.blocks
    polled.wire.down = True
    polled.wire.hung_up = True
    await polled.round()
    polled.wire.down = polled.wire.hung_up = False
    (sample,) = (
        await polled.poller.round([Ask(polled.meters[0], REGISTERS, by_hand=True)])
    ).samples
    assert sample.raw.blocks


async def test_once_a_cut_line_is_mended_all_its_meters_are_back_in_the_next_rounds(
    expected_events,
):
    """Nobody is spared by waiting while none answers, and the first that does shows that it was
    the line."""
    expected_events("meter.offline")
    polled = Polled(12)
    await polled.round()
    polled.dead = set(range(1, 13))
    for _ in range(60):
        await polled.round()
        await polled.clock.sleep(5)
    assert set(polled.states()) == {"offline"}
    polled.dead = {12}
    mended = polled.clock.monotonic()
    while polled.states().count("online") < 11:
        await polled.round()
        await polled.clock.sleep(1)
    assert polled.clock.monotonic() - mended < 60 + 12


async def test_what_a_dead_unit_takes_is_a_tenth_from_the_first_minute_on(expected_events):
    expected_events("meter.offline")
    polled = Polled(2)
    polled.dead = {2}
    began = polled.clock.monotonic()
    while polled.clock.monotonic() < began + 60:
        await polled.round()
    in_vain = sum(timeout for _, unit, _, timeout in polled.wire.asked if unit == 2)
    assert in_vain <= 6


async def test_silent_meters_take_turns_whatever_their_order_in_the_configuration(expected_events):
    expected_events("meter.offline", "meter.still_offline")
    polled = Polled(6)
    polled.dead = {1, 2, 3, 4, 5}
    began = polled.clock.monotonic()
    while polled.clock.monotonic() < began + 1800:
        await polled.round()
        await polled.clock.sleep(5)
    asked = Counter(unit for _, unit, _, _ in polled.wire.asked if unit in polled.dead)
    assert max(asked.values()) <= 1.5 * min(asked.values())
    second = {unit: [at for at, u, _, _ in polled.wire.asked if u == unit][1] for unit in asked}
    assert max(second.values()) - began < 120
