"""Links that go away in every way they can, and the whole of asking over them, in virtual time.

Poller, Bus and pymodbus, ptys and sockets of loopback are real; a back-off of a minute takes no
time, and a slow machine is no slower.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import socket
import struct
import time
import tty
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from gateway.metering.profile import DeviceProfile
from gateway.metering.register import Encoding, Register
from gateway.metering.settings import MeterSettings
from gateway.modbus.bus import Bus
from gateway.modbus.poller import Ask, Poller
from gateway.modbus.settings import BusSettings, Link, SerialLink
from tests.modbus.lines import honest, tcp_honest
from tests.modbus.wires import NOON
from tests.simulation import VirtualClock, VirtualLoop

T = TypeVar("T")

REGISTERS = (Register("r100", 3, 100, Encoding("u32"), Decimal(1)),)
PROFILE = DeviceProfile("two-words", "Test", "Meter", "electricity", REGISTERS)
METER = MeterSettings("m1", "plant", 1, PROFILE, ())
WORDS = (100, 101)


class PtyLoop(VirtualLoop):
    """What is written to a pty is handed over by a thread of the kernel: it gets time for that."""

    def __init__(self) -> None:
        super().__init__()
        jump = self.virtual.select

        def select(timeout: float | None = None) -> list[Any]:
            if timeout is None or timeout > 0:
                time.sleep(0.001)
            return jump(timeout)

        self.virtual.select = select  # type: ignore[method-assign]


class CountedBus(Bus):
    """Knows when it tried to open its link."""

    attempts: list[float]

    async def open(self) -> None:
        if not self.is_open:
            self.attempts.append(self._clock.monotonic())
        await super().open()


class Site:
    """One meter behind a link, asked every few seconds."""

    def __init__(self, link: Link, poll: float) -> None:
        self.clock = VirtualClock(NOON)
        settings = BusSettings("plant", link)
        draw = random.Random(1)
        self.bus = CountedBus(settings, self.clock, random=draw)
        self.bus.attempts = []
        self.poller = Poller(settings, [METER], self.clock, random=draw, wire=self.bus)
        self.given: list[float] = []
        """When there was a reading."""
        self._poll = poll

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            done = await self.poller.round([Ask(METER, REGISTERS)])
            words = done.samples[0].raw.lookup(REGISTERS[0])
            assert words in (None, WORDS)
            if words is not None:
                self.given.append(self.clock.monotonic())
            await self.clock.sleep(self._poll)

    async def next_reading(self, within: float) -> float:
        """Seconds until there is a reading of now on."""
        began, had = self.clock.monotonic(), len(self.given)
        while len(self.given) == had:
            assert self.clock.monotonic() - began <= within, f"no reading within {within} s"
            await asyncio.sleep(0.1)
        return self.given[-1] - began

    def attempts_a_minute(self, since: float, until: float) -> int:
        """The most in any minute between two instants."""
        tried = [at for at in self.bus.attempts if since <= at <= until]
        return max((sum(at <= one < at + 60 for one in tried) for at in tried), default=0)


@contextlib.asynccontextmanager
async def asked(link: Link, *, poll: float = 5.0) -> AsyncIterator[Site]:
    """A site at work."""
    site = Site(link, poll)
    asking = asyncio.create_task(site.run())
    try:
        yield site
        assert not asking.done(), asking.result()
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await site.poller.close()


def in_virtual_time(
    story: Callable[[], Coroutine[Any, Any, T]], loop: type[VirtualLoop] = VirtualLoop
) -> T:
    """Let it happen, and look that no descriptor is left."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.sleep(0))
        before = descriptors()
        result = runner.run(story())
        runner.run(asyncio.sleep(1))
        assert descriptors() == before
        return result


def descriptors() -> Mapping[str, str]:
    """All that are open, and what they lead to."""
    gc.collect()
    found = {}
    for one in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[one] = os.readlink(f"/proc/self/fd/{one}")
    return {one: leads for one, leads in found.items() if not leads.endswith("/fd")}


# --------------------------------------------------------------------------------------- a line


class Adapter:
    """A pty behind a link of a stable name, as udev makes them, and a meter on its line."""

    def __init__(self, link: Path) -> None:
        self._link = link
        self._ends = os.openpty()
        self.paths: list[str] = []

    def plug_in(self) -> None:
        """It is there."""
        ours, theirs = self._ends
        tty.setraw(theirs)
        self.paths.append(os.ttyname(theirs))
        self._link.symlink_to(self.paths[-1])
        asyncio.get_running_loop().add_reader(ours, self._request, ours)

    def pull_out(self) -> None:
        """The link is gone and the port hangs up; what comes next has another number."""
        following = os.openpty()
        self._link.unlink()
        asyncio.get_running_loop().remove_reader(self._ends[0])
        self._close()
        self._ends = following

    def throw_away(self) -> None:
        """For good."""
        self.pull_out()
        self._close()

    def _close(self) -> None:
        for end in self._ends:
            os.close(end)

    def _request(self, ours: int) -> None:
        request = os.read(ours, 8)
        if len(request) == 8:
            os.write(ours, honest(request))


def replugged(folder: Path, times: int, away: Callable[[], float]) -> list[float]:
    """Seconds from each time an adapter was back to the next reading."""

    async def story() -> list[float]:
        adapter = Adapter(folder / "usb-adapter")
        adapter.plug_in()
        link = SerialLink(str(folder / "usb-adapter"), 19200)
        took = []
        async with asked(link, poll=1.0) as site:
            await site.next_reading(within=5)
            for _ in range(times):
                adapter.pull_out()
                await asyncio.sleep(away())
                adapter.plug_in()
                assert adapter.paths[-1] != adapter.paths[-2]
                took.append(await site.next_reading(within=90))
        adapter.throw_away()
        return took

    return in_virtual_time(story, PtyLoop)


# ---------------------------------------------------------------------------------------- TCP


class Device:
    """A meter on TCP that takes one client at a time, and fails as it is told."""

    def __init__(self) -> None:
        self.port = 0
        self.way = "well"
        self.turned_away = 0
        """Connections that came while it had a client, which may be one that it lost."""
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._full: list[socket.socket] = []
        self._mute: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        for one in self._full:
            one.close()
        self._full.clear()
        if self._server is not None:
            self._server.close()
            self._server = None
        for client in list(self._clients):
            client.transport.abort()
        await asyncio.sleep(0.01)

    async def fail(self, way: str) -> None:
        """From now on."""
        self.way = way
        if way in ("refused", "black hole"):
            await self.stop()
        if way == "black hole":  # the queue of its port is full: the kernel answers no SYN
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            listener.listen(0)
            self._full = [listener, *(socket.socket() for _ in range(4))]
            for filler in self._full[1:]:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", self.port))
        if way == "accepted, then closed":
            for client in list(self._clients):
                client.transport.abort()
        if way == "half open":  # nobody is at the other end of what is open, and nothing says so
            self._mute |= self._clients

    async def mend(self) -> None:
        """It works again."""
        was, self.way = self.way, "well"
        if was in ("refused", "black hole"):
            await self.stop()
            await self.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.turned_away += bool(self._clients)
        if self.way == "accepted, then closed" or self._clients:
            writer.close()
            return
        self._clients.add(writer)
        try:
            while True:
                request = await reader.readexactly(12)
                if self.way == "reset":
                    off = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, off
                    )
                    return
                if self.way != "mute" and writer not in self._mute:
                    writer.write(tcp_honest(request))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._clients.discard(writer)
            self._mute.discard(writer)
            writer.transport.abort()


BACK_AFTER = 85.0
"""Seconds: the longest back-off with its jitter, a connection that does not come about, and a poll.
"""
WAYS = ("refused", "reset", "accepted, then closed", "black hole", "mute", "half open")


async def broken(device: Device, site: Site, way: str, lasting: float) -> tuple[int, int, float]:
    """Let it fail for a while. Attempts in the worst minute, in the worst after five minutes, and
    seconds from its being mended to the next reading.
    """
    began = site.clock.monotonic()
    await device.fail(way)
    if way != "half open":  # which is not for us to mend
        await asyncio.sleep(lasting)
        assert max(site.given) < began + 6, "it cannot have been read"
        await device.mend()
    took = await site.next_reading(within=100)
    end = site.clock.monotonic()
    worst, later = site.attempts_a_minute(began, end), site.attempts_a_minute(began + 300, end)
    await site.next_reading(within=10)
    return worst, later, took
