"""Meters served by pyModbusTCP, a Modbus TCP server that is not ours, asked by the real process."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from pyModbusTCP.server import ModbusServer

from tests.service import Service, Site, until

METERS = (
    "{name: feed, bus: plant, unit: 1, profile: siemens-pac2200, send: ["
    "{meterID: feed, quantity: active_energy_import_total},"
    "{meterID: feed-power, quantity: active_power_total, as: last}]}",
    "{name: roof, bus: plant, unit: 2, profile: carlo-gavazzi-em24-e1,"
    " send: [{meterID: roof, quantity: active_energy_import_total}]}",
)


@pytest.fixture
def server(free_tcp_port: int) -> Iterator[ModbusServer]:
    server = ModbusServer("127.0.0.1", free_tcp_port, no_block=True)
    server.data_bank.set_holding_registers(64001, [42])  # the maker's number of the one
    server.data_bank.set_input_registers(11, [1648])  # the model of the other
    server.data_bank.set_input_registers(40960, [7])
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = await Site(tmp_path).open()
    yield site
    await site.close()


def show(server: ModbusServer, watt_hours: float, watts: float, tenths: int) -> None:
    """As their sheets say: a double and a single, highest word first; an s32, lowest word first."""
    server.data_bank.set_holding_registers(801, struct.unpack(">4H", struct.pack(">d", watt_hours)))
    server.data_bank.set_holding_registers(65, struct.unpack(">2H", struct.pack(">f", watts)))
    server.data_bank.set_input_registers(52, [tenths & 0xFFFF, tenths >> 16])


async def test_what_another_server_shows_arrives_exactly(site: Site, server: ModbusServer) -> None:
    show(server, 123_456_789.125, -1234.5, 1_234_567)
    site.buses["plant"] = f'{{tcp: "127.0.0.1:{server.port}", poll: 1 s}}'
    site.meters = dict(enumerate(METERS))  # type: ignore[arg-type]
    service = await Service.start(site.write())
    try:
        received = site.standin.received
        await until(lambda: {"feed", "feed-power", "roof"} <= received.keys())
        show(server, 123_456_790.5, 0.1, 1_234_568)
        await until(
            lambda: len({*received["feed"].values()}) == len({*received["roof"].values()}) == 2
        )
        await until(lambda: Decimal("0.1") in received["feed-power"].values())
        await service.stop()
    finally:
        service.kill()
        await service.process.wait()
    # In the order of their stamps.
    shown = {
        name: list(dict.fromkeys(str(value) for _, value in sorted(values.items())))
        for name, values in received.items()
    }
    assert shown == {
        "feed": ["123456.789125", "123456.7905"],
        "feed-power": ["-1234.5", "0.1"],
        "roof": ["123456.7", "123456.8"],
    }
    assert site.standin.violations == []
    assert service.levels() == {"info"}, service.log
