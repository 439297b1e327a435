"""What `check` says that a configuration costs, beside what it really does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gateway.cli.costs import costs_of
from gateway.clock import SystemClock
from gateway.config import load
from gateway.config.settings import GatewayConfig
from gateway.modbus.poller import Ask, Poller, Round
from gateway.modbus.served import SimulatedLine, wall
from gateway.modbus.settings import SerialLink
from gateway.modbus.simulator import SimulatedMeter
from tests.cli.world import site

METERS = (
    "{name: main, bus: riser, unit: 1, profile: eastron-sdm630, send: ["
    '{meterID: "1", quantity: active_energy_import_total},'
    '{meterID: "2", quantity: active_energy_export_total},'
    '{meterID: "3", quantity: active_energy_import_l1}]}',
    "{name: lift, bus: riser, unit: 2, profile: abb-b23,"
    ' send: [{meterID: "4", quantity: active_energy_import_total}]}',
    "{name: heat, bus: riser, unit: 3, profile: carlo-gavazzi-em340, send: ["
    '{meterID: "5", quantity: active_energy_import_total},'
    '{meterID: "6", quantity: voltage_l1, as: last}]}',
)


@pytest.mark.parametrize("baudrate", [2400, 9600, 38400])
async def test_a_round_on_a_line_takes_about_what_was_said(tmp_path: Path, baudrate: int) -> None:
    line, config = laid(tmp_path, baudrate)
    (cost,) = costs_of(config).buses
    # Never much less: bytes take their time. More where the machine has other things to do.
    most = 1.3 * cost.round + 10 * cost.requests
    rounds = await asked(config, most)
    line.close()
    assert {one.requests for one in rounds} == {cost.requests}
    assert {one.errors for one in rounds} == {0}
    assert 0.8 * cost.round < rounds[-1].duration * 1000 < most
    # The load is that of one such round a minute, at boundaries and polls.
    assert cost.load == pytest.approx(cost.round / 60_000, rel=0.01)


def laid(folder: Path, baudrate: int) -> tuple[SimulatedLine, GatewayConfig]:
    """A configuration, and a line of its meters that is paced as a real one."""
    bus = f"riser: {{serial: riser.port, baudrate: {baudrate}, parity: none}}"
    config = load(site(folder, "http://127.0.0.1:1/", METERS, buses=(bus,))).config
    meters = [SimulatedMeter(one.profile, one.unit, wall()) for one in config.meters]
    line = SimulatedLine(meters, SerialLink("", baudrate))
    (folder / "riser.port").symlink_to(line.open())
    return line, config


async def asked(config: GatewayConfig, most: float) -> list[Round]:
    """Rounds for what is sent, until one takes less than `most` milliseconds; 20 in vain."""
    (bus,) = config.buses
    poller = Poller(bus, config.meters, SystemClock(), random=random.Random(1))
    asks = []
    for meter in config.meters:
        needed = (one for entry in meter.send for one in meter.profile.needs(entry.quantity))
        asks.append(Ask(meter, tuple(dict.fromkeys(needed))))
    rounds: list[Round] = []
    try:
        await poller.round(asks)  # in which the meters say who they are
        while len(rounds) < 20 and not (rounds and rounds[-1].duration * 1000 < most):
            rounds.append(await poller.round(asks))
        return rounds
    finally:
        await poller.close()
