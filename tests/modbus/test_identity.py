"""Values of another meter than the configuration's are refused; another model is reported."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from gateway.errors import DeviceException
from gateway.metering.inquiry import Inquiry, Told
from gateway.metering.profile import DeviceProfile, Identity
from gateway.metering.reading import Block, Sample
from gateway.metering.register import Encoding, Register, encode, encode_text
from gateway.metering.settings import MeterSettings
from gateway.modbus.plan import Read
from gateway.modbus.poller import Ask, Poller
from gateway.modbus.settings import BusSettings, SerialLink
from tests.modbus.wires import QuickClock, ToldWire

VALUE = Register("active_power_total", 3, 0, Encoding("u16"), Decimal(1), "W")
SERIAL = Register("serial_number", 3, 100, Encoding("u32"))
TEXT_SERIAL = Register("serial_number", 3, 100, Encoding("string", words=7))
MODEL = Register("model_code", 3, 200, Encoding("u16"))
OBJECT = Inquiry(43, 0x80)
SERVER_ID = Inquiry(17)
TOLD_BY = [SERIAL, OBJECT, SERVER_ID]
MODEL_OBJECT = Inquiry(43, 5)


class Meter:
    """A meter with a serial number and a model code, and who asks it."""

    def __init__(
        self,
        serial: Register | Inquiry,
        wanted: str | None,
        model: Register | Inquiry = MODEL,
    ) -> None:
        self.serial = serial
        self.shows = "12345678"
        self.model = 7
        self.dead = False
        self.refuses: set[object] = set()
        self.silent_at: set[object] = set()
        identity = (Identity("serial_number", serial), Identity("model_code", model, ("7", "8")))
        profile = DeviceProfile("t", "T", "t", "electricity", (VALUE,), identity=identity)
        self.settings = MeterSettings(
            "main", "riser", 1, profile, (), Decimal(1), serial_number=wanted
        )
        self.clock = QuickClock()
        self.wire = ToldWire(self.clock, self.answer)
        self.wire.tell = self.tell
        self.kept: dict[str, bytes] = {}
        self.restart()

    def restart(self) -> None:
        """Of the gateway."""
        self.poller = Poller(
            BusSettings("riser", SerialLink("/dev/riser")),
            [self.settings],
            self.clock,
            random=random.Random(1),
            keep=self.kept.__setitem__,
            wire=self.wire,
        )
        self.poller.recall(self.kept)

    def answer(self, unit: int, read: Read) -> Block | Exception | None:
        at = {100: self.serial, 200: MODEL}.get(read.address)
        if self.dead or at in self.silent_at:
            return None
        if at in self.refuses:
            return DeviceException("riser", unit, str(read), 2)
        if read.address == 100:
            assert isinstance(self.serial, Register)
            encoding = self.serial.encoding
            if encoding.type == "string":
                return Block(3, 100, encode_text(self.shows, encoding))
            return Block(3, 100, encode(Decimal(self.shows), encoding))
        return Block(3, read.address, ((self.model if read.address == 200 else 42),) * read.count)

    def tell(self, unit: int, inquiry: Inquiry) -> Told | Exception | None:
        if self.dead or inquiry in self.silent_at:
            return None
        if inquiry in self.refuses:
            return DeviceException("riser", unit, str(inquiry), 1)
        if inquiry == SERVER_ID:
            return Told(17, ((0, self.shows),))
        return Told(43, ((0, "Acme"), (5, str(self.model)), (0x80, self.shows)))

    def asked_for(self, one: Register | Inquiry) -> int:
        """How often."""
        if isinstance(one, Inquiry):
            return self.wire.inquiries.count(one)
        return sum(read.address == one.address for read in self.wire.reads)

    async def read(self, *, after: float = 10.0) -> Sample:
        await self.clock.sleep(after)
        return (await self.poller.round([Ask(self.settings, (VALUE,), urgent=True)])).samples[0]


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    return [r.fields for r in caplog.records if getattr(r, "event", "") == event]


@pytest.mark.parametrize(
    ("serial", "wanted", "shows"),
    [
        (SERIAL, "12345678", "12345678"),
        (SERIAL, "0012345678", "12345678"),
        (TEXT_SERIAL, "ab-0042", "AB-0042"),
        (OBJECT, "ab-0042", "AB-0042"),
        (SERVER_ID, "ab-0042", "AB-0042"),
    ],
)
async def test_the_meter_that_was_meant_is_read(
    serial: Register | Inquiry, wanted: str, shows: str
):
    meter = Meter(serial, wanted)
    meter.shows = shows
    assert (await meter.read()).raw.lookup(VALUE) == (42,)


@pytest.mark.parametrize("serial", TOLD_BY)
async def test_values_of_another_meter_are_refused_and_that_is_told_once(
    serial: Register | Inquiry, expected_events, caplog
):
    expected_events("meter.identity_changed")
    meter = Meter(serial, "999")
    for _ in range(5):
        sample = await meter.read(after=90)
        assert sample.raw.blocks == ()
        assert sample.faults == {VALUE.name: "other_meter"}
    assert told(caplog, "meter.identity_changed") == [
        {"meter": "main", "was": "999", "is": "12345678"}
    ]
    assert meter.poller.units()[0].state == "offline"
    assert meter.poller.units()[0].reason == "other_meter"


async def test_the_right_meter_put_back_is_read_again(expected_events, caplog):
    expected_events("meter.identity_changed")
    meter = Meter(SERIAL, "999")
    await meter.read()
    meter.shows = "999"
    assert (await meter.read()).raw.lookup(VALUE) == (42,)
    assert meter.poller.units()[0].state == "online"


@pytest.mark.parametrize("serial", TOLD_BY)
async def test_a_meter_swapped_while_it_was_silent_is_found_out_at_once(
    serial: Register | Inquiry, expected_events
):
    expected_events("meter.identity_changed", "meter.offline")
    meter = Meter(serial, "12345678")
    await meter.read()
    meter.dead = True
    for _ in range(10):
        await meter.read(after=30)
    meter.dead, meter.shows = False, "555"
    assert (await meter.read(after=60)).faults == {VALUE.name: "other_meter"}


@pytest.mark.parametrize("serial", TOLD_BY)
async def test_its_number_is_not_read_again_while_it_answers_all_the_time(
    serial: Register | Inquiry,
):
    meter = Meter(serial, "12345678")
    for _ in range(100):
        await meter.read()
    assert meter.asked_for(serial) == 1


@pytest.mark.parametrize("serial", TOLD_BY)
async def test_it_is_read_again_every_day(serial: Register | Inquiry):
    meter = Meter(serial, "12345678")
    for _ in range(3 * 86_400 // 50):
        await meter.read(after=50)
    assert meter.asked_for(serial) == 3


@pytest.mark.parametrize("serial", TOLD_BY)
async def test_a_meter_that_will_not_say_its_number_is_not_taken_for_the_right_one(
    serial: Register | Inquiry,
    expected_events,
):
    expected_events("meter.offline")
    meter = Meter(serial, "12345678")
    meter.refuses = {serial}
    for _ in range(4):
        assert (await meter.read()).faults == {VALUE.name: "unidentified"}
    assert meter.poller.units()[0].reason == "unidentified"


@pytest.mark.parametrize("serial", TOLD_BY)
async def test_a_meter_that_refused_its_number_while_it_started_up_is_read_within_a_minute_after(
    serial: Register | Inquiry, expected_events
):
    expected_events("meter.offline", "meter.still_offline")
    meter = Meter(serial, "12345678")
    await meter.read()
    meter.dead = True
    for _ in range(10):
        await meter.read(after=60)
    meter.dead, meter.refuses = False, {serial}
    for _ in range(60):
        assert (await meter.read(after=60)).raw.blocks == ()
    meter.refuses = set()
    assert (await meter.read(after=60)).raw.lookup(VALUE) == (42,)


@pytest.mark.parametrize("serial", TOLD_BY)
async def test_without_a_number_in_the_configuration_the_first_that_it_tells_is_the_right_one(
    serial: Register | Inquiry, expected_events, caplog
):
    expected_events("meter.identity_changed", "meter.offline")
    meter = Meter(serial, None)
    for _ in range(30):
        assert (await meter.read()).raw.lookup(VALUE) == (42,)
    assert meter.asked_for(serial) == 1
    meter.dead = True
    await meter.read()
    meter.dead, meter.shows = False, "555"
    assert (await meter.read(after=400)).faults == {VALUE.name: "other_meter"}
    assert told(caplog, "meter.identity_changed") == [
        {"meter": "main", "was": "12345678", "is": "555"}
    ]


@pytest.mark.parametrize("serial", TOLD_BY)
async def test_a_swap_over_a_restart_is_found_out_and_a_person_may_accept_it(
    serial: Register | Inquiry, expected_events, caplog
):
    expected_events("meter.identity_changed", "meter.offline")
    meter = Meter(serial, None)
    await meter.read()
    meter.restart()
    assert (await meter.read()).raw.lookup(VALUE) == (42,)
    meter.shows = "555"
    meter.restart()
    for _ in range(3):
        assert (await meter.read()).faults == {VALUE.name: "other_meter"}
    assert meter.poller.accept("main") == ("12345678", "555")
    assert (await meter.read()).raw.lookup(VALUE) == (42,)
    meter.restart()
    assert (await meter.read()).raw.lookup(VALUE) == (42,)
    assert len(told(caplog, "meter.identity_changed")) == 1


async def test_a_number_in_the_configuration_goes_before_what_was_accepted(expected_events):
    expected_events("meter.identity_changed")
    meter = Meter(SERIAL, "999")
    await meter.read()
    meter.poller.accept("main")
    assert (await meter.read()).faults == {VALUE.name: "other_meter"}
    assert meter.kept == {}, "what was not accepted leaves no trace"


@pytest.mark.parametrize("how", ["refuses", "silent_at"])
@pytest.mark.parametrize("serial", TOLD_BY)
async def test_a_meter_that_never_told_its_number_is_read_all_the_same(
    serial: Register | Inquiry, how: str
):
    meter = Meter(serial, None)
    setattr(meter, how, {serial})
    for _ in range(20):
        assert (await meter.read()).raw.lookup(VALUE) == (42,)
    assert meter.asked_for(serial) <= 1 + 2


@pytest.mark.parametrize("model", [MODEL, MODEL_OBJECT])
async def test_another_model_is_reported_once_and_read_all_the_same(
    model: Register | Inquiry, expected_events, caplog
):
    expected_events("meter.wrong_model")
    meter = Meter(SERIAL, None, model)
    meter.model = 9
    for _ in range(4):
        assert (await meter.read(after=50_000)).raw.lookup(VALUE) == (42,)
    assert told(caplog, "meter.wrong_model") == [
        {"meter": "main", "profile": "t", "found": "model_code 9"}
    ]


@pytest.mark.parametrize(
    ("serial", "shows"), [(SERIAL, "0"), (TEXT_SERIAL, "  "), (OBJECT, ""), (SERVER_ID, "000")]
)
async def test_a_blank_number_is_no_number(serial: Register | Inquiry, shows: str):
    meter = Meter(serial, "12345678")
    meter.shows = shows
    assert (await meter.read()).faults == {VALUE.name: "unidentified"}


async def test_a_blank_model_says_nothing():
    meter = Meter(SERIAL, None)
    meter.model = 0
    await meter.read()


async def test_one_of_the_expected_models_is_no_news():
    meter = Meter(SERIAL, None)
    meter.model = 8
    await meter.read()


@pytest.mark.parametrize("model", [MODEL, MODEL_OBJECT])
@pytest.mark.parametrize("how", ["refuses", "silent_at"])
async def test_a_meter_that_does_not_tell_its_model_is_read_all_the_same(
    how: str, model: Register | Inquiry
):
    meter = Meter(SERIAL, None, model)
    setattr(meter, how, {model})
    for _ in range(20):
        assert (await meter.read()).raw.lookup(VALUE) == (42,)
    assert meter.poller.units()[0].state == "online"
    assert meter.asked_for(model) <= 1 + 2


async def test_what_one_answer_tells_is_asked_for_once():
    meter = Meter(OBJECT, None, MODEL_OBJECT)
    for _ in range(20):
        assert (await meter.read()).raw.lookup(VALUE) == (42,)
    assert meter.wire.inquiries == [OBJECT]


async def test_what_comes_late_of_what_a_meter_tells_costs_one_short_read_and_no_value():
    meter = Meter(SERVER_ID, None)
    meter.silent_at = {SERVER_ID}
    for _ in range(5):
        assert (await meter.read()).raw.lookup(VALUE) == (42,)
    assert [unit.state for unit in meter.poller.units()] == ["online"]
    assert len(meter.wire.reads) == 5 + 1 + 1  # values, model, probe
    assert meter.wire.inquiries == [SERVER_ID]
