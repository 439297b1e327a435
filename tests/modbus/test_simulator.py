"""What simulated meters serve, read by clients that are not ours."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal

import pytest
from pyModbusTCP.client import ModbusClient

from gateway.config.library import Library
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import Block, RawWords
from gateway.metering.register import value_of
from gateway.modbus.plan import Timing, plan
from gateway.modbus.served import SimulatedEndpoint, SimulatedLine
from gateway.modbus.settings import SerialLink, TcpLink
from gateway.modbus.simulator import SimulatedMeter

LIBRARY = Library(None)
START = 1_760_000_000_000


@pytest.mark.parametrize("name", LIBRARY.names())
def test_every_quantity_of_every_profile_can_be_read_and_means_its_value(name: str) -> None:
    profile = LIBRARY.get(name)
    meter = SimulatedMeter(profile, 1, START)
    at = START + 3_600_000
    wanted = [part for q in profile.quantities() for part in profile.needs(q)]
    for read in plan(wanted, profile.limits, Timing.of(TcpLink("x"), 0.01), known=wanted):
        words = meter.words(read.function, read.address, read.count, at)
        assert not isinstance(words, int), (read, words)
        raw = RawWords((Block(read.function, read.address, words),))
        for register in profile.registers:
            if raw.lookup(register) and not register.scale_register:
                assert value_of(register, raw.lookup) == meter.value(register.name, at)


@pytest.mark.parametrize("name", LIBRARY.names())
def test_counters_move_and_never_go_back(name: str) -> None:
    profile = LIBRARY.get(name)
    meter = SimulatedMeter(profile, 1, START)
    for quantity in profile.quantities():
        if not QUANTITIES[quantity].counter:
            continue
        values = [meter.value(quantity, START + hour * 3_600_000) for hour in range(30)]
        assert all(isinstance(value, Decimal) for value in values), quantity
        assert values == sorted(values, key=lambda value: value)  # type: ignore[type-var]
        assert values[-1] > values[0], quantity  # type: ignore[operator]


async def test_a_client_that_is_not_ours_reads_a_meter_over_tcp() -> None:
    profile = LIBRARY.get("carlo-gavazzi-em24-e1")
    endpoint = SimulatedEndpoint([SimulatedMeter(profile, 7, int(time.time() * 1000))])
    port = await endpoint.open()
    client = ModbusClient("127.0.0.1", port, unit_id=7, timeout=5)
    before = endpoint.meters[0].value("active_energy_import_total", int(time.time() * 1000))
    words = await asyncio.to_thread(client.read_input_registers, 0x34, 2)
    after = endpoint.meters[0].value("active_energy_import_total", int(time.time() * 1000))
    low, high = words
    value = Decimal((high << 16) + low) * Decimal("0.1")
    assert before <= value <= after  # type: ignore[operator]
    assert await asyncio.to_thread(client.read_input_registers, 0x9999, 1) is None
    assert client.last_except == 2
    client.close()
    await endpoint.close()


def test_a_client_that_is_not_ours_reads_a_meter_over_a_line() -> None:
    import minimalmodbus

    profile = LIBRARY.get("eastron-sdm630")
    meter = SimulatedMeter(profile, 3, int(time.time() * 1000))
    line = SimulatedLine([meter], SerialLink("", baudrate=19200), strict=True)
    client = minimalmodbus.Instrument(line.open(), 3)
    assert client.serial is not None
    client.serial.baudrate = 19200
    client.serial.timeout = 2
    before = meter.value("active_energy_import_total", int(time.time() * 1000))
    value = Decimal(f"{client.read_float(72, functioncode=4):.9g}")
    after = meter.value("active_energy_import_total", int(time.time() * 1000))
    slack = Decimal("0.01")
    assert before - slack <= value <= after + slack  # type: ignore[operator]
    client.serial.baudrate = 9600
    client.serial.timeout = 0.3
    with pytest.raises(minimalmodbus.NoResponseError):
        client.read_float(72, functioncode=4)
    client.serial.close()
    line.close()
    assert line.ignored == 0
