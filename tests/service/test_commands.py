"""What a person and a script are told: `read`, `status` and `send`, through a running service."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from gateway.energinet.standin import Scripted
from gateway.modbus.simulator import Fault
from tests.cli.world import call
from tests.service import PROFILE, TOKEN, Service, Site, until

Start = Callable[..., Awaitable[Service]]
Done = subprocess.CompletedProcess[str]
BY = pytest.mark.parametrize("running", [True, False], ids=["by the service", "by itself"])


async def command(*arguments: object) -> Done:
    return await asyncio.to_thread(call, *map(str, arguments))


async def json_of(*arguments: object, code: int = 0) -> Any:
    done = await command(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


# ------------------------------------------------------------------------------------------ read


@BY
async def test_read_shows_every_value_and_the_words_it_was_made_of(
    site: Site, start: Start, running: bool
) -> None:
    meter = await site.meter("main")
    config = site.write()
    if running:
        await (await start(config)).says("bus.up")
    began = await json_of("read", "main", "--once", "--config", config)
    page = await command("read", "main", "--once", "--raw", "--config", config)
    ended = await json_of("read", "main", "--once", "--raw", "--config", config)
    assert page.returncode == 0, page.stderr
    assert page.stdout.startswith(f"main  {PROFILE}  unit 1 on bus-main\n")
    (energy,) = re.findall(r"  active_energy_import_total +([0-9.]+) kWh\n", page.stdout)
    shown = [
        Decimal(one["value"])
        for view in (began, ended)
        for one in view["values"]
        if one["quantity"] == "active_energy_import_total"
    ]
    assert shown[0] <= Decimal(energy) <= shown[1]
    assert {one["quantity"] for one in began["values"]} == set(meter.profile.quantities())
    assert began["faults"] == {}
    assert began["link"] == f"127.0.0.1:{site.endpoints['main'].port}"
    # The meter's own words: two of input register 0, which is a voltage.
    assert re.search(r"^  function 4 address 0: 43[0-9a-f]{2} [0-9a-f]{4} ", page.stdout, re.M)
    volts = next(one for one in ended["values"] if one["quantity"] == "voltage_l1")
    block = next(one for one in ended["raw"] if one["address"] == 0)
    assert volts["words"] == " ".join(f"{word:04x}" for word in block["words"][:2])


@BY
async def test_read_ends_with_3_where_some_registers_could_not_be_read(
    site: Site, start: Start, running: bool
) -> None:
    """A profile that knows more than the meter has."""
    await site.meter("main")
    (site.folder / "profiles").mkdir()
    (site.folder / "profiles" / "more.yaml").write_text(
        f"extends: {PROFILE}\n"
        "registers:\n"
        "  - {quantity: supply_temperature, address: 9000, unit: °C, sources: [document]}\n"
    )
    site.meters["main"] = site.meters["main"].replace(PROFILE, "more")
    site.more = "profiles: profiles"
    config = site.write()
    if running:
        await (await start(config)).says("bus.up")
    view = await json_of("read", "main", "--once", "--config", config, code=3)
    assert view["faults"] == {"supply_temperature": "exception_2"}
    assert len(view["values"]) > 20
    page = await command("read", "main", "--once", "--config", config)
    assert page.returncode == 3
    assert re.search(r"^  supply_temperature +not read: exception_2$", page.stdout, re.M)


@BY
async def test_read_ends_with_69_where_the_meter_is_silent_or_its_bus_is_not_there(
    site: Site, start: Start, running: bool
) -> None:
    await site.meter("silent", Fault("silent"))
    await site.meter("refused", serves=False)
    port = site.folder / "no-port"
    site.buses["riser"] = f"{{serial: {port}, baudrate: 9600}}"
    site.add("pulled", "riser")
    config = site.write()
    if running:
        service = await start(config)
        await service.says("bus.down", 2)
        (said,) = (line for line in service.lines("bus.down") if "bus=riser" in line)
        assert f' bus=riser link={port} error="there is no such port" hint=' in said
    refused = f"127.0.0.1:{site.endpoints['refused'].port}: connection refused"
    for name, why, hint in (
        ("silent", "timeout", "check its power and its unit; behind a serial server"),
        ("refused", refused, "check the network, the address and the port; some devices"),
        ("pulled", f"{port}: there is no such port", "check the adapter's plug, the path, and"),
    ):
        done = await command("read", name, "--once", "--config", config)
        assert (done.returncode, done.stdout) == (69, ""), done.stderr
        *log, error, tries = done.stderr.splitlines()
        assert log == []
        assert error == f"error: {name} gave no value: {why}"
        assert tries.startswith(f"  try: {hint}")
        view = await json_of("read", name, "--once", "--config", config, code=69)
        assert (view["values"], set(view["faults"].values())) == ([], {
            "silent": {"timeout"}, "refused": {"link_down"}, "pulled": {"link_down"},
        }[name])  # fmt: skip


@BY
async def test_read_of_a_meter_that_there_is_not_names_those_that_there_are(
    site: Site, start: Start, running: bool
) -> None:
    await site.meter("main")
    config = site.write()
    if running:
        await (await start(config)).says("gateway.started")
    done = await command("read", "man", "--once", "--config", config)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'error: no meter is named "man"\n  try: one of main\n'


# ---------------------------------------------------------------------------------------- status


async def test_status_has_what_scripts_read_and_a_page_with_nothing_cut_off(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    folder = site.folder / ("a-folder-with-a-rather-long-name-" * 3)
    folder.mkdir()
    port = folder / "usb-FTDI_USB-RS485_Cable_FT1234567-if00-port0"
    site.buses["riser"] = f"{{serial: {port}, baudrate: 9600}}"
    site.add("lift", "riser")
    config = site.write()
    service = await start(config)
    await service.says("bus.down")
    await until(lambda: site.standin.received.get("main"))
    view = await json_of("status", "--config", config)
    buffer = view["buffer"]
    assert buffer.keys() >= {
        "stored", "pending", "in_flight", "confirmed", "parked", "dropped"
    }  # fmt: skip
    assert buffer["stored"] >= 1
    assert buffer["stored"] == sum(
        (buffer["pending"], buffer["in_flight"], buffer["confirmed"], buffer["parked"])
    ) + sum(buffer["dropped"].values())
    assert isinstance(buffer["dropped"], dict)
    assert {meter["name"]: meter["state"] for meter in view["meters"]} == {
        "main": "online",
        "lift": "unknown",
    }
    (sender,) = view["senders"]
    assert sender.keys() >= {"name", "pending", "next_request"}
    assert sender["name"] == "basement"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|None", str(sender["next_request"]))
    (riser,) = (bus for bus in view["buses"] if bus["name"] == "riser")
    assert (riser["state"], riser["link"], riser["error"]) == (
        "down", str(port), "there is no such port"
    )  # fmt: skip
    page = await command("status", "--config", config)
    assert page.returncode == 0
    assert re.search(rf"^riser +down +0\.0%  {port}: there is no such port$", page.stdout, re.M)
    assert page.stdout.count(str(port)) == 1
    assert re.search(
        r"^main +bus-main +1 +online +\d+ ms +active_energy_import_total ", page.stdout, re.M
    )
    assert TOKEN not in page.stdout + json.dumps(view)
    await service.stop()
    # What its buffer holds is told without it too.
    rest = await json_of("status", "--config", config)
    assert rest["service"]["running"] is False
    assert rest["buffer"]["confirmed"] >= buffer["confirmed"]
    assert rest.keys() == view.keys()


async def test_status_calls_no_meter_online_whose_bus_is_down_and_says_why_it_shows_no_value(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    config = site.write()
    rest = await command("status", "--config", config)
    assert rest.stdout.startswith("the gateway does not run; it has no buffer yet\n")
    await site.standin.stop()
    service = await start(config)
    await service.stored(1)
    await site.endpoints["main"].close()
    await service.says("bus.down")

    async def shown() -> Any:
        (meter,) = (await service.status())["meters"]
        return meter

    while (meter := await shown())["values"][0]["value"] is not None:
        await asyncio.sleep(0.1)
    assert (meter["state"], meter["reason"]) == ("offline", "link_down")
    page = (await command("status", "--config", config)).stdout
    assert re.search(
        r"^main +bus-main +1 +offline \(link_down\) +\d+ ms .*"
        r"active_energy_import_total no value: link_down, \d+ s ago$",
        page,
        re.M,
    )
    await service.says("upload.unanswered")
    page = (await command("status", "--config", config)).stdout
    assert re.search(r"^basement +[1-9]\d* +\d{4}-.*Z  none: connection refused$", page, re.M)
    await service.stop()


async def test_status_shows_a_service_that_runs_on_an_older_file_and_the_mistakes_of_the_new_one(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    config = site.write()
    service = await start(config)
    await service.says("gateway.started")
    config.write_text(config.read_text().replace("unit: 1", "unit: 300"))
    service.process.send_signal(signal.SIGHUP)
    await service.says("config.refused")
    done = await command("status", "--config", config)
    assert done.returncode == 78
    assert done.stdout.startswith("running since ")
    assert "\n  the configuration in force is old: the file has mistakes\n" in done.stdout
    assert "unit: 300 is out of range" in done.stderr
    view = await json_of("status", "--config", config, code=78)
    assert view["service"]["config_in_force"] == "old: the file has mistakes"
    await service.stop()
    done = await command("status", "--config", config)
    assert (done.returncode, done.stdout) == (78, "")


# ------------------------------------------------------------------------------------------ send


async def test_send_through_the_service_shows_the_body_and_then_sends_it_once(
    site: Site, start: Start
) -> None:
    site.window = 600  # the service itself makes one request, and then not for 10 min
    site.standin.window = 600_000
    site.standin.script = lambda request: Scripted(503) if request.number == 1 else None
    await site.meter("main")
    config = site.write()
    service = await start(config)
    await until(lambda: site.standin.requests)
    await service.stored(2)
    view = await json_of("send", "--dry-run", "--config", config)
    assert (view["sender"], view["answer"], view["verdicts"]) == ("basement", None, {})
    (one,) = json.loads(view["body"])
    assert (one["meterID"], len(one["values"])) == ("main", view["values"])
    assert view["bytes"] == len(view["body"].encode())
    assert view["next_request"] is not None
    page = await command("send", "--dry-run", "--config", config)
    assert page.returncode == 0
    assert page.stdout.startswith("sender basement: ")
    assert f"may go: {view['next_request']}\n" in page.stdout
    early = await command("send", "--now", "--config", config)
    assert (early.returncode, early.stdout) == (75, "")
    assert "  try: " in early.stderr
    assert len(site.standin.requests) == 1
    await service.stop()


async def test_send_now_through_the_service_takes_the_slot_and_tells_what_came_of_it(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    config = site.write()
    config.write_text(config.read_text().replace("linger: 0 s", "linger: 60 s"))
    service = await start(config)
    await service.stored(1)  # it waits with them for more
    done = await command("send", "--now", "--config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^sender basement: \d+ values? of 1 meter, \d+ bytes$", done.stdout, re.M)
    assert "\n  main: confirmed (201)\n" in done.stdout
    assert len(site.standin.requests) == 1
    await service.stored(len(site.standin.received["main"]) + 1)
    site.standin.tokens = {}
    view = await json_of("send", "--now", "--config", config, code=1)
    assert (view["status"], view["reason"]) == (401, "")
    assert len(site.standin.requests) == 2
    await service.stop()


async def test_status_tells_what_is_missing_of_the_last_day_and_why(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    await site.meter("lift", Fault("silent"))
    config = site.write()
    service = await start(config)
    await service.says("gateway.started")

    async def missing() -> dict[str, dict[str, int]]:
        return {meter["name"]: meter["missing"] for meter in (await service.status())["meters"]}

    while not (await missing())["lift"]:
        await asyncio.sleep(0.2)
    assert set((await missing())["lift"]) <= {"timeout", "offline"}
    page = (await command("status", "--config", config)).stdout
    assert re.search(r"^missing  lift: [1-9]\d* values? of the last day: ", page, re.M)
    await service.stop()
    rest = await json_of("status", "--config", config)
    (lift,) = (meter for meter in rest["meters"] if meter["name"] == "lift")
    assert lift["missing"]
