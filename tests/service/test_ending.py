"""SIGTERM ends a run in order within 5 s, whatever hangs; what was stored waits for the next."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from gateway.energinet.standin import Request, Scripted
from gateway.modbus.simulator import Fault
from tests.service import Service, Site, stored, until

Start = Callable[..., Awaitable[Service]]
PROMISED = 5.0
CUT = 7.0
"""Where it is cut after 4.5 s, the rest is for a machine that is busy with other tests."""


def hangs(_: Request) -> Scripted:
    return Scripted(delay=600)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_silent_meter_and_a_request_that_hangs_hold_nothing_up(
    site: Site, start: Start, number: int
) -> None:
    site.standin.script = hangs
    await site.meter("main")
    await site.meter("silent", Fault("silent"))
    service = await start(site.write())
    await until(lambda: site.standin.requests)
    assert await service.stop(number) < PROMISED
    last = service.log.splitlines()[-1]
    assert "event=gateway.stopped reason=signal pending=" in last
    assert service.levels() <= {"info", "warning"}
    rows = await stored(service.buffer, 1)
    assert {row.state for row in rows} == {"pending"}  # nothing is in flight, nothing confirmed


async def test_what_was_read_and_sent_is_settled_before_the_end(site: Site, start: Start) -> None:
    site.standin.script = lambda _: Scripted(delay=0.7, store=True, body=b"")
    await site.meter("main")
    config = site.write()
    service = await start(config)
    await until(lambda: site.standin.requests)
    await service.stop()
    assert "pending=" in service.lines("gateway.stopped")[0]
    site.standin.script = None
    again = await start(config)
    await again.says("gateway.started")
    await until(lambda: len(site.standin.received.get("main", {})) >= 3)
    await again.stop()
    assert site.standin.violations == []  # neither early nor changed


DNS_HANGS = """
import socket, time
def hang(*_, **__): time.sleep(600)
socket.getaddrinfo = hang
"""
CARD_HANGS = """
import time
import gateway.buffer.store as store
def hang(*_, **__): time.sleep(600)
store.append = hang
"""
OPENING_HANGS = """
import time
import gateway.buffer.salvage as salvage
def hang(*_, **__): time.sleep(600)
salvage.prepare = hang
"""


async def test_a_name_server_that_does_not_answer_holds_nothing_up(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    site.url = site.url.replace("127.0.0.1", "localhost")
    service = await start(site.write(), patch=DNS_HANGS)
    await service.stored(1)
    await asyncio.sleep(0.5)
    assert await service.stop() < PROMISED
    assert len(service.lines("gateway.stopped")) == 1


@pytest.mark.parametrize("patch", [CARD_HANGS, OPENING_HANGS])
async def test_a_card_that_does_not_answer_is_left_after_some_seconds(
    site: Site, start: Start, patch: str
) -> None:
    await site.meter("main")
    service = await start(site.write(), patch=patch)
    if patch is CARD_HANGS:
        await service.says("bus.up")
        await asyncio.sleep(1)
    else:
        await until(lambda: service.buffer.with_name("readings.db.lock").exists())
        await asyncio.sleep(0.5)
    assert await service.stop() < CUT
    assert "cut after" in service.lines("gateway.stopped")[0]


async def test_readings_that_the_buffer_did_not_take_are_said_to_be_lost(
    site: Site, start: Start
) -> None:
    fails = """
import gateway.buffer.store as store
from gateway.errors import StoreUnavailable
def fail(*_, **__): raise StoreUnavailable("EIO")
store.append = fail
"""
    await site.meter("main")
    service = await start(site.write(), patch=fails)
    await service.says("buffer.unavailable")
    await asyncio.sleep(6)  # a boundary
    assert await service.stop() < PROMISED
    assert "reason=stopped count=" in service.lines("buffer.dropped")[0]
    assert len(service.lines("gateway.stopped")) == 1
