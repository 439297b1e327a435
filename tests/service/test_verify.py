"""`verify`: a display against a profile, through a running service and without one."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from gateway.config import Library
from gateway.modbus.served import SimulatedEndpoint, wall
from gateway.modbus.simulator import Fault, SimulatedMeter
from tests.cli.world import call
from tests.service import PROFILE, Service, Site

Start = Callable[..., Awaitable[Service]]
Done = subprocess.CompletedProcess[str]
BY = pytest.mark.parametrize("running", [True, False], ids=["by the service", "by itself"])
ENERGY = "active_energy_import_total"
WRONG = f"""\
extends: {PROFILE}
registers:
  - {{quantity: {ENERGY}, address: 72, word_order: little, unit: kWh, sources: [document]}}
"""


async def verify(site: Site, *arguments: object, code: int) -> Done:
    config = site.folder / "gateway.yaml"
    done = await asyncio.to_thread(call, "verify", *map(str, arguments), "--config", config)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
async def two(site: Site) -> Site:
    """A meter whose profile is right, and one whose own profile has a mistake."""
    meters = [
        SimulatedMeter(Library().get(PROFILE), 1, wall()),
        SimulatedMeter(Library().get(PROFILE), 2, wall()),
        SimulatedMeter(Library().get(PROFILE), 3, wall(), faults=(Fault("silent"),)),
    ]
    endpoint = site.endpoints["main"] = SimulatedEndpoint(meters)
    site.buses["riser"] = f'{{tcp: "127.0.0.1:{await endpoint.open()}", poll: 1 s}}'
    for unit, name in enumerate(("right", "wrong"), 1):
        site.add(name, "riser", unit)
    site.meters["wrong"] = site.meters["wrong"].replace(PROFILE, "acme-e1")
    (site.folder / "profiles").mkdir()
    (site.folder / "profiles" / "acme-e1.yaml").write_text(WRONG)
    site.more = "profiles: profiles"
    site.write()
    return site


def display(site: Site, unit: int) -> str:
    """What its counter shows now."""
    meter = site.endpoints["main"].meters[unit - 1]
    value = meter.value(ENERGY, wall())
    assert isinstance(value, Decimal)
    return f"{value:.1f}"


@BY
async def test_where_all_is_right_verify_says_so(two: Site, start: Start, running: bool) -> None:
    if running:
        await (await start(two.folder / "gateway.yaml")).says("bus.up")
    shown = display(two, 1)
    done = await verify(two, "right", ENERGY, shown, code=0)
    assert done.stdout.startswith(f"right  {ENERGY}\n  display  {shown} = {shown} kWh\n  profile  ")
    assert f"\nall is right: the profile {PROFILE} reads what the display shows\n" in done.stdout
    in_mwh = f"{Decimal(shown) / 1000:f}".replace(".", ",")
    done = await verify(two, "right", ENERGY, in_mwh, "MWh", code=0)
    assert "all is right" in done.stdout


@BY
async def test_a_mistake_is_named_with_the_line_that_mends_it(
    two: Site, start: Start, running: bool
) -> None:
    service = await start(two.folder / "gateway.yaml") if running else None
    if service is not None:
        await service.says("bus.up")
    done = await verify(two, "wrong", ENERGY, display(two, 2), code=1)
    assert re.search(r"\nlikely mistake: the word order is big, not little: \d+", done.stdout)
    line = re.search(r"\n  acme-e1.yaml, among its registers:\n    (- {.*})\n", done.stdout)
    assert line is not None
    # With that line in place of the one there, all is right.
    own = two.folder / "profiles" / "acme-e1.yaml"
    own.write_text("\n".join((*WRONG.splitlines()[:2], f"  {line[1]}")) + "\n")
    done = await verify(two, "wrong", ENERGY, display(two, 2), code=0)
    assert "all is right" in done.stdout
    if service is not None:  # no meter is judged by what it does not give
        meters = (await service.status())["meters"]
        assert [(one["state"], one["errors"]) for one in meters] == [("online", {})] * 2
        assert service.levels() <= {"info"}, service.log


async def test_a_shipped_profile_is_mended_by_one_of_one_s_own_that_extends_it(two: Site) -> None:
    """The meter counts in another register than that of the shipped profile."""
    own = two.folder / "profiles" / "other.yaml"
    own.write_text(WRONG)
    moved = SimulatedMeter(Library(own.parent).get("other"), 1, wall())
    two.endpoints["main"].meters = [moved, *two.endpoints["main"].meters[1:]]
    done = await verify(two, "right", ENERGY, display(two, 1), code=1)
    where, _, rest = done.stdout.partition(f"  {PROFILE}.yaml in your own profiles:\n")
    assert "the word order is little, not big" in where
    text = "".join(line[4:] + "\n" for line in rest.partition("\n\n")[0].splitlines())
    (own.parent / f"{PROFILE}.yaml").write_text(text)
    done = await verify(two, "right", ENERGY, display(two, 1), code=0)
    assert "all is right" in done.stdout


async def test_a_transformer_s_ratio_is_told_as_the_meter_s_multiplier(two: Site) -> None:
    primary = f"{Decimal(display(two, 1)) * 60:.0f}"
    done = await verify(two, "right", ENERGY, primary, code=1)
    assert re.search(r"likely mistake: multiplier is 60, not 1: \d+(\.\d+)? kWh\n", done.stdout)
    assert "\n  gateway.yaml, at the meter right:\n    multiplier: 60\n" in done.stdout
    two.meters["right"] = two.meters["right"].replace("unit: 1,", "unit: 1, multiplier: 60,")
    two.write()
    primary = f"{Decimal(display(two, 1)) * 60:.0f}"
    done = await verify(two, "right", ENERGY, primary, code=0)
    assert re.search(r"^(all is right|they agree: \+\d)", done.stdout, re.MULTILINE)
    done = await verify(two, "right", ENERGY, display(two, 1), code=0)
    assert "its multiplier 60 is right where the display shows what the meter" in done.stdout


async def test_scripts_get_the_verdict_and_what_was_read(two: Site) -> None:
    shown = display(two, 2)
    done = await verify(two, "wrong", ENERGY, shown, "--json", code=1)
    view: dict[str, Any] = json.loads(done.stdout)
    assert (view["meter"], view["profile"], view["unit"]) == ("wrong", "acme-e1", "kWh")
    assert (view["verdict"], Decimal(view["display"])) == ("mistaken", Decimal(shown))
    first = view["candidates"][0]
    assert first["mistakes"] == ["word order"]
    assert abs(Decimal(first["value"]) - Decimal(shown)) < 1
    assert first["mend"][0]["where"] == "acme-e1.yaml, among its registers"
    assert any(block["address"] <= 72 < block["address"] + 9 for block in view["raw"])
    done = await verify(two, "wrong", ENERGY, "31415926.5", "--json", code=1)
    assert json.loads(done.stdout)["verdict"] == "unknown"
    done = await verify(two, "wrong", ENERGY, "31415926.5", code=1)
    assert "`meter-gateway registers riser 2 --function 4 --address 64 --count 20`" in done.stdout


async def test_what_verify_cannot_hold_against_anything_is_said_with_what_to_try(
    two: Site,
) -> None:
    two.meters["silent"] = two.meters["right"].replace("unit: 1", "unit: 3")
    two.meters["silent"] = two.meters["silent"].replace("right", "silent")
    two.write()
    for arguments, code, error, hint in (
        (("rigth", ENERGY, 1), 1, 'no meter is named "rigth"', "one of right, wrong"),
        (("right", "active_energy_total", 1), 1, "has no active_energy_total", "did you mean"),
        (("right", ENERGY, "1 m3"), 2, "m3 is no unit of it", "`meter-gateway verify --help`"),
        (("right", ENERGY, "abc"), 2, "abc is no number", "`meter-gateway verify --help`"),
        (("silent", ENERGY, 1), 69, "silent gave nothing for function 4", "check its power"),
    ):
        done = await verify(two, *arguments, code=code)
        assert done.stdout == ""
        assert error in done.stderr
        assert f"  try: {hint}" in done.stderr
    await two.endpoints["main"].close()
    done = await verify(two, "right", ENERGY, 1, code=69)
    assert "connection refused" in done.stderr


async def test_a_negative_value_is_a_value_and_no_option(two: Site) -> None:
    done = await verify(two, "right", "active_power_total", "-1,5", "kW", code=1)
    assert "  display  -1,5 kW = -1500 W\n" in done.stdout
