"""`registers`: raw words of any unit, through a running service and without one."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.config import Library
from gateway.control import RefusedByService, ask, socket_path
from gateway.modbus.served import SimulatedEndpoint, wall
from gateway.modbus.simulator import Fault, SimulatedMeter
from tests.cli.world import call
from tests.service import PROFILE, Service, Site

Start = Callable[..., Awaitable[Service]]
BY = pytest.mark.parametrize("running", [True, False], ids=["by the service", "by itself"])


async def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(call, "registers", *map(str, arguments))


async def json_of(*arguments: object, code: int = 0) -> Any:
    done = await command(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
async def two(site: Site) -> Site:
    """A meter of the configuration, unit 1, and one that it does not know, unit 9."""
    meters = [
        SimulatedMeter(Library().get(PROFILE), 1, wall()),
        SimulatedMeter(Library().get("abb-b23"), 9, wall()),
        SimulatedMeter(Library().get(PROFILE), 5, wall(), faults=(Fault("silent"),)),
    ]
    endpoint = site.endpoints["main"] = SimulatedEndpoint(meters)
    site.buses["riser"] = f'{{tcp: "127.0.0.1:{await endpoint.open()}", poll: 1 s}}'
    site.add("main", "riser")
    site.write()
    return site


@BY
async def test_the_words_of_a_unit_are_shown_in_every_type_and_order(
    two: Site, start: Start, running: bool
) -> None:
    config = two.folder / "gateway.yaml"
    service = await start(config) if running else None
    if service is not None:
        await service.says("bus.up")
    where = ("riser", 1, "--function", 4, "--address", 72, "--count", 2, "--config", config)
    view = await json_of(*where)
    assert (view["bus"], view["unit"], view["function"], view["refused"]) == ("riser", 1, 4, [])
    (block,) = view["blocks"]
    assert (block["address"], len(block["words"])) == (72, 2)
    floats = {
        (one["word_order"], one["byte_order"]): float(one["value"])
        for one in view["values"]
        if one["type"] == "f32"
    }
    assert len(floats) == 4
    assert 1_000 < floats["big", "big"] < 100_000
    page = (await command(*where)).stdout
    assert page.startswith("unit 1 on riser: function 4, address 72, 2 registers\n")
    assert re.search(r"^72 +[0-9a-f]{4} [0-9a-f]{4} +u32", page, re.M)
    assert re.search(r"^ +f32 +\d+\.\d+ ", page, re.M)
    if service is not None:  # and its own rounds go on
        (meter,) = (await service.status())["meters"]
        assert (meter["state"], meter["errors"]) == ("online", {})


@BY
async def test_a_unit_that_no_configured_meter_has_is_asked_as_well(
    two: Site, start: Start, running: bool
) -> None:
    config = two.folder / "gateway.yaml"
    if running:
        await (await start(config)).says("bus.up")
    view = await json_of("riser", 9, "--address", "0x5000", "--count", 4, "--config", config)
    assert len(view["blocks"][0]["words"]) == 4
    assert {one["type"] for one in view["values"]} >= {"u16", "s32", "u64", "f64"}


@BY
async def test_what_a_unit_refuses_is_said_with_what_to_try(
    two: Site, start: Start, running: bool
) -> None:
    config = two.folder / "gateway.yaml"
    service = await start(config) if running else None
    if service is not None:
        await service.says("bus.up")
    nothing = "gave nothing for function 4, address 0, 2 registers: timeout"
    for arguments, code, error, hint in (
        ((1, "--function", 2, "--address", 0), 1, "does not know this function", "ask with the ot"),
        ((1, "--function", 4, "--address", 90), 1, "has no such registers", "ask one address l"),
        ((5, "--function", 4, "--address", 0), 69, nothing, "check its power"),
    ):
        done = await command("riser", *arguments, "--config", config)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        said, tries = done.stderr.splitlines()
        assert said.startswith(f"error: unit {arguments[0]} on riser {error}"), said
        assert tries.startswith(f"  try: {hint}"), tries
    # What it gives of a range that it refuses as a whole is shown.
    where = ("riser", 1, "--function", 4, "--address", 342, "--count", 4, "--config", config)
    view = await json_of(*where, code=3)
    assert [block["address"] for block in view["blocks"]] == [342]
    assert view["refused"] == [{"address": 344, "count": 2, "reason": "exception_2"}]
    done = await command(*where)
    assert done.stderr == "not given: function 4, address 344, 2 registers: exception_2\n"
    if service is not None:  # none of which is the meter's fault
        (meter,) = (await service.status())["meters"]
        assert (meter["state"], meter["errors"]) == ("online", {})
        assert service.levels() <= {"info"}, service.log


async def test_registers_needs_no_configuration_for_an_address(two: Site) -> None:
    port = two.endpoints["main"].port
    view = await json_of(f"127.0.0.1:{port}", 1, "--function", 4, "--address", 0)
    assert view["bus"] == f"127.0.0.1:{port}"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{probe.getsockname()[1]}"
        done = await command(nobody, 1, "--address", 0)
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.startswith(f"error: {nobody}: connection refused\n  try: check the network")


async def test_what_is_no_request_for_registers_is_refused_before_anything_is_asked(
    two: Site,
) -> None:
    config = two.folder / "gateway.yaml"
    for arguments, code, said in (
        (("riser", 1, "--address", "x"), 2, "--address"),
        (("riser", 1, "--address", 0, "--function", 6), 2, "--function"),
        (("riser", 1, "--address", 0, "--count", 126), 1, "125 registers"),
        (("riser", 1, "--address", 65_535), 1, "65535"),
        (("riser", 1, "--address", 0, "--baudrate", 9600), 2, "--baudrate"),
        (("rizer", 1, "--address", 0), 1, 'there is no bus "rizer"'),
    ):
        done = await command(*arguments, "--config", config)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert said in done.stderr
        assert "  try: " in done.stderr


async def test_the_service_takes_nothing_over_its_socket_but_reads(two: Site, start: Start) -> None:
    config = two.folder / "gateway.yaml"
    service = await start(config)
    await service.says("bus.up")
    address = socket_path(service.buffer)
    where = f"127.0.0.1:{two.endpoints['main'].port}"

    def look(**request: object) -> Any:
        return ask(address, "look", bus=where, **request)

    wrong: list[dict[str, object]] = [
        {"unit": 1, "reads": [[function, 0, 1]]} for function in (0, 5, 6, 16, 43)
    ]
    wrong += [
        {"unit": 256, "reads": []},
        {"unit": "1", "reads": []},
        {"unit": 1},
        {"unit": 1, "reads": [[3, 0, 0]]},
        {"unit": 1, "reads": [[3, -1, 2]]},
        {"unit": 1, "reads": [[3, 0, 126]]},
        {"unit": 1, "reads": [[3, 0, True]]},
        {"unit": 1, "reads": [[3, 0]]},
        {"unit": 1, "reads": [[3, 0, 1]] * 101},
    ]
    for request in wrong:
        with pytest.raises(RefusedByService):
            await asyncio.to_thread(look, **request)
    right = await asyncio.to_thread(look, unit=1, reads=[[4, 0, 2], [4, 90, 2]])
    assert [set(answer) for answer in right["answers"]] == [{"words"}, {"fault"}]
    assert await asyncio.to_thread(
        ask, address, "look", bus="192.0.2.1:502", unit=1, reads=[[4, 0, 2]]
    ) is None  # fmt: skip
    assert service.levels() <= {"info"}, service.log
