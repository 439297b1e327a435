"""What a meter refuses is learnt by the service, and shown by `check` as a profile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from gateway.config import Library
from gateway.modbus.simulator import Fault
from tests.cli.world import call
from tests.service import PROFILE, Service, Site

Start = Callable[..., Awaitable[Service]]


async def test_what_a_meter_refuses_is_shown_as_a_profile_that_spares_it_the_question(
    site: Site, start: Start
) -> None:
    await site.meter("main", Fault("hole", registers=(72, 73)))
    (site.folder / "profiles").mkdir()
    site.more = "profiles: profiles"
    config = site.write()
    assert json.loads(await check(config, "--json"))["learnt"] == []
    service = await start(config)
    await service.says("meter.register_refused")

    async def learnt() -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(await check(config, "--json"))["learnt"]
        return found

    for _ in range(100):
        if found := await learnt():
            break
        await asyncio.sleep(0.1)
    (one,) = found
    assert (one["meter"], one["profile"]) == ("main", PROFILE)
    assert one["refused"] == [{"register": "active_energy_import_total", "exception": 2}]
    assert "active_energy_import_total (exception 2)" in (page := await check(config))
    assert str(one["patch"]).splitlines()[0] in page

    (site.folder / "profiles" / f"{PROFILE}.yaml").write_text(str(one["patch"]))
    mended = Library(site.folder / "profiles").get(PROFILE)
    assert set(Library(None).get(PROFILE).quantities()) - set(mended.quantities()) == {
        "active_energy_import_total", "active_energy_net_total"
    }  # fmt: skip


async def check(config: object, *more: str) -> str:
    done = await asyncio.to_thread(call, "check", "--config", str(config), *more)
    assert done.returncode == 0, done.stderr
    return done.stdout
