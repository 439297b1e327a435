"""SIGHUP reads the configuration again: a right one is in force, a wrong one changes nothing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest

from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.clock import HOUR, SystemClock
from gateway.control import RefusedByService, ask, socket_path
from gateway.energinet.standin import Request, Scripted
from gateway.metering.reading import Commit, Reading, Series, SeriesKey
from gateway.modbus.simulator import Fault
from tests.service import Service, Site, until, wall

Start = Callable[..., Awaitable[Service]]


def reload(service: Service) -> None:
    service.process.send_signal(signal.SIGHUP)


async def test_a_new_meter_is_read_and_what_waits_of_a_removed_one_is_still_sent(
    site: Site, start: Start
) -> None:
    refusing = True

    def script(_: Request) -> Scripted | None:
        return Scripted(503) if refusing else None

    site.standin.script = script
    await site.meter("old")
    service = await start(site.write())
    rows = await service.stored(1, of="old")
    del site.meters["old"], site.buses["bus-old"]
    await site.meter("new")
    site.write()
    reload(service)
    await service.says("config.reloaded")
    await service.stored(1, of="new")
    refusing = False
    await until(lambda: {"old", "new"} <= site.standin.received.keys())
    held = site.standin.received["old"].values()
    assert {row.value for row in rows} <= set(held)
    view = await service.status()
    assert view["service"]["config_in_force"] == "current"
    assert [meter["name"] for meter in view["meters"]] == ["new"]
    await service.stop()
    assert site.standin.violations == []
    assert service.levels() == {"info", "warning"}  # Energinet's 503, and that alone


async def test_what_waits_of_a_removed_meter_goes_by_another_sender_when_its_own_is_renamed(
    site: Site, start: Start
) -> None:
    refusing = True
    site.standin.script = lambda _: Scripted(503) if refusing else None
    nobody = SeriesKey("north", "9")
    store = Store(BufferSettings(str(site.folder / site.buffer)), SystemClock())
    await store.open()
    await store.declare([Series(nobody, "gone", "volume_total", "counter", HOUR, "attic")])
    await store.append(Commit((Reading(nobody, wall() // HOUR * HOUR, Decimal(1)),)))
    await store.close()
    await site.meter("old")
    service = await start(site.write())
    await service.says("buffer.unserved")
    rows = await service.stored(1, of="old")
    del site.meters["old"], site.buses["bus-old"]
    await site.meter("new")
    config = site.write()
    config.write_text(config.read_text().replace("name: basement", "name: cellar"))
    reload(service)
    await service.says("config.reloaded")
    refusing = False
    await until(lambda: {"old", "new"} <= site.standin.received.keys())
    assert {row.value for row in rows} <= set(site.standin.received["old"].values())
    view = await service.status()
    assert view["unserved"] == [{"sender": "attic", "pending": 1}]
    assert [sender["name"] for sender in view["senders"]] == ["cellar"]
    await service.stop()
    assert site.standin.violations == []
    assert len(service.lines("buffer.unserved")) == 2  # at the start, and with the reload


async def test_a_wrong_file_is_refused_with_its_line_and_the_old_one_stays_in_force(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    config = site.write()
    service = await start(config)
    await service.says("gateway.started")
    right = config.read_text()
    config.write_text(right.replace("profile: eastron-sdm630", "profile: eastron-sdm631"))
    reload(service)
    line = await service.says("config.refused")
    number = next(n for n, t in enumerate(right.splitlines(), 1) if "profile:" in t)
    assert f'first="{config}:{number}:' in line
    view = await service.status()
    assert view["service"]["config_in_force"] == "old: the file has mistakes"
    before = len(await service.stored(1))
    await service.stored(before + 1)
    config.unlink()
    reload(service)
    await service.says("config.refused", 2)
    config.write_text(right.replace("readings.db", "other.db"))
    reload(service)
    assert "takes effect at the next start" in await service.says("config.refused", 3)
    view = await service.status()
    assert view["service"]["config_in_force"].startswith("old: a changed buffer")
    config.write_text(right)
    reload(service)
    await service.says("config.reloaded")
    assert (await service.status())["service"]["config_in_force"] == "current"
    await service.stop()


async def test_a_reload_cuts_a_request_and_its_values_go_again_unchanged_and_not_early(
    site: Site, start: Start
) -> None:
    slow = True

    def script(_: Request) -> Scripted | None:
        return Scripted(delay=30, store=True) if slow else None

    site.standin.script = script
    await site.meter("main")
    service = await start(site.write())
    await until(lambda: site.standin.requests)
    slow = False
    reload(service)
    await service.says("config.reloaded")
    first = set(site.standin.received["main"])
    await until(lambda: len(site.standin.requests) >= 3)
    counts = (await service.status())["buffer"]
    assert counts["balanced"]
    assert first <= set(site.standin.received["main"])
    await service.stop()
    assert site.standin.violations == []


async def test_who_reads_a_meter_during_a_reload_is_told_to_ask_again_and_opens_no_line(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    await site.meter("silent", Fault("silent"))
    site.buses["bus-silent"] = site.buses["bus-silent"].replace("}", ", timeout: 10 s}")
    service = await start(site.write())
    await service.says("gateway.started")
    path = socket_path(service.buffer)
    reading = asyncio.create_task(asyncio.to_thread(ask, path, "read", timeout=60, meter="silent"))
    await asyncio.sleep(0.3)
    reload(service)
    await service.says("config.reloaded")
    with pytest.raises(RefusedByService) as refused:
        await reading
    assert refused.value.exit_code == 75
    await service.stop()


async def test_many_reloads_leave_no_descriptor_and_no_task_behind(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    service = await start(site.write())
    await service.stored(1)
    reload(service)
    await service.says("config.reloaded")
    before = service.descriptors()
    for times in range(2, 12):
        reload(service)
        await service.says("config.reloaded", times)
    assert service.descriptors() <= before + 1  # the connection to a meter, if it is open yet
    await service.stored(len(await service.stored(1)) + 1)
    await service.stop()
    assert service.levels() == {"info"}
