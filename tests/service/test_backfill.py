"""`import` and `parked` beside the running service, which does the writing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.clock import DAY, HOUR
from gateway.control import RefusedByService, ask, socket_path
from gateway.energinet.standin import Request, Scripted
from tests.cli.world import call
from tests.service import Service, Site, until

Start = Callable[..., Awaitable[Service]]
START = int(time.time() * 1000) // HOUR * HOUR - 100 * DAY
COUNT = 1_500


async def command(*arguments: str | Path) -> str:
    done = await asyncio.to_thread(call, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_what_is_imported_is_sent_and_the_meter_goes_on_from_its_own_readings(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    moved = "{meterID: lift, quantity: active_energy_import_total, as: consumption}"
    site.meters["main"] = site.meters["main"].replace("total}]}", f"total}}, {moved}]}}")
    config = site.write()
    file = site.folder / "values.csv"
    rows = [
        f"{meter},{time.strftime('%FT%TZ', time.gmtime((START + n * HOUR) / 1000))},{n}"
        for n in range(COUNT)
        for meter in ("main", "lift")
    ]
    file.write_text("\n".join(["meterID,time,value", *rows]))
    service = await start(config)
    await service.stored(2, of="lift")
    arguments = ("import", file, "--yes", "--json", "--config", config)
    assert json.loads(await command(*arguments))["stored"] == 2 * COUNT
    await until(lambda: len(site.standin.received.get("lift", {})) >= COUNT)
    assert json.loads(await command(*arguments))["stored"] == 0
    for bad in (None, [1], [["", "main", START, "nan"]], [["", "main", START, "1e999"]],
                [["", "main", -1000, "1"]], [["", "attic", START, "1"]]):  # fmt: skip
        with pytest.raises(RefusedByService, match="does not take these values"):
            await asyncio.to_thread(ask, socket_path(service.buffer), "import", values=bad)
    await service.stop()

    again = await start(config)
    before = len(await again.stored(0, of="lift"))
    found = await again.stored(before + 1, of="lift")
    assert all(row.value < 1 for row in found[COUNT:])  # reckoned from no imported value
    view = await again.status()
    assert view["buffer"]["balanced"]
    await again.stop()
    assert again.levels() == {"info"}


async def test_what_was_refused_is_tried_again_at_a_person_s_word(site: Site, start: Start) -> None:
    refusing = True

    def script(request: Request) -> Scripted | None:
        if not refusing:
            return None
        sets = json.loads(request.body)
        entries = [
            {"meterID": one["meterID"], "number_of_values": 0, "status": 404} for one in sets
        ]
        return Scripted(200, {}, json.dumps(entries).encode())

    site.standin.script = script
    await site.meter("main")
    config = site.write()
    service = await start(config)
    await service.says("upload.parked")
    (line,) = json.loads(await command("parked", "list", "--json", "--config", config))
    assert (line["meterID"], line["reason"], line["whole"]) == ("main", "404", True)
    refusing = False
    assert "will be sent again" in await command("parked", "retry", "main", "--config", config)
    await until(lambda: len(site.standin.received.get("main", {})) >= line["count"])
    assert json.loads(await command("parked", "list", "--json", "--config", config)) == []
    await service.stop()
    assert service.levels() == {"info", "error"}  # upload.parked
