"""`resend` beside the running service: the service writes, with the configuration in force."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from tests.cli.world import call
from tests.service import Service, Site, until

Start = Callable[..., Awaitable[Service]]


async def resend(config: object, *more: str, code: int = 0) -> str:
    command = ("resend", "main", "--from", "2020-01-01", *more, "--config", str(config))
    done = await asyncio.to_thread(call, *command)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


async def test_the_service_sends_again_once_it_has_the_mended_configuration(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    right = site.meters["main"]
    site.meters["main"] = right.replace("unit: 1", "unit: 1, multiplier: 10")
    service = await start(site.write())
    rows = await service.stored(3)
    await until(lambda: len(site.standin.received.get("main", {})) >= 3)

    site.meters["main"] = right
    config = site.write()
    shown = await resend(config, "--yes", code=1)
    assert "it has another configuration in force" in shown
    assert "  try: reload it" in shown
    service.process.send_signal(signal.SIGHUP)
    await service.says("config.reloaded")
    assert "will be sent again" in await resend(config, "--yes")
    line = await service.says("buffer.corrected")
    assert " meter=main count=" in line

    def mended() -> bool:
        held = sorted(site.standin.received["main"].items())
        return [value for _, value in held][: len(rows)] == [row.value / 10 for row in rows]

    await until(mended)
    assert "nothing to send again" in await resend(config, "--yes")
    view = await service.status()
    assert view["buffer"]["balanced"]
    await service.stop()
    assert all(" was " in one for one in site.standin.violations)  # values, but no limit
    assert service.levels() == {"info"}
