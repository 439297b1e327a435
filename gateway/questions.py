"""What commands ask: of the running service, or of this process where none runs."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import frozen

from gateway.buffer.store import Store
from gateway.clock import Clock, Instant, SystemClock
from gateway.config.settings import GatewayConfig
from gateway.control import Lease, Verb
from gateway.errors import GatewayError
from gateway.logbook import log
from gateway.metering.reading import Commit, Reading, SeriesKey
from gateway.metering.settings import MeterSettings
from gateway.modbus.looking import asked_for
from gateway.modbus.plan import Read
from gateway.modbus.poller import Ask, Poller
from gateway.modbus.settings import BusSettings
from gateway.plant import Plant, may_be_sent, sender_named
from gateway.resending import Digest, Resending, Wish
from gateway.service import InstanceLock
from gateway.status import accepted_view, looked_view, meter_view, report_view

Request = Mapping[str, Any]


@frozen
class Questions:
    """What the running service answers. `plant`: the one at work, which a reload replaces."""

    plant: Callable[[], Plant]
    status: Callable[[], Awaitable[dict[str, Any]]]
    store: Store
    clock: Clock

    def verbs(self) -> dict[str, Verb]:
        """By the name under which a command asks."""
        return {
            "status": self._status,
            "read": self._read,
            "look": self._look,
            "send": self._send,
            "accept": self._accept,
            "resend": self._resend,
            "parked": self._parked,
            "import": self._import,
        }

    def leases(self) -> dict[str, Lease]:
        """What is lent for as long as a command wants it."""
        return {"lend": self._lend}

    async def _status(self, _: Request) -> Any:
        return await self.status()

    async def _read(self, request: Request) -> Any:
        plant = self.plant()
        settings = plant.config.meter(str(request.get("meter")))
        sample = await plant.answer(plant.read(settings.name))
        return meter_view(settings, sample, plant.pollers[settings.bus].link())

    async def _look(self, request: Request) -> Any:
        """None where this gateway does not ask there."""
        plant = self.plant()
        bus = plant.bus_at(str(request.get("bus")))
        if bus is None:
            return None
        poller = plant.pollers[bus.name]
        unit, reads = asked_for(request.get("unit"), request.get("reads"), bus.link.framing)
        return looked_view(await plant.answer(poller.look(unit, reads)), poller.link())

    async def _send(self, request: Request) -> Any:
        plant = self.plant()
        uploader = sender_named(plant, request.get("sender"))
        dry_run = bool(request.get("dry_run"))
        return report_view(await plant.answer(uploader.once(dry_run=dry_run)))

    async def _accept(self, request: Request) -> Any:
        name = str(request.get("meter"))
        return accepted_view(name, self.plant().accept(name))

    async def _resend(self, request: Request) -> Any:
        plant = self.plant()
        wish, digest = asked_again(request), str(request.get("digest"))
        view = await plant.answer(send_again(plant, self.store, self.clock, wish, digest))
        if count := view["sent_again"]:
            log("buffer.corrected", meter=wish.meter, count=count, former=wish.former or None)
        return view

    async def _parked(self, request: Request) -> Any:
        plant = self.plant()
        wanted = asked_of_parked(request)
        view = await plant.answer(settle_parked(plant, self.store, self.clock, wanted))
        if wanted.discard and view["count"]:
            log("buffer.dropped", reason="discarded", count=view["count"])
        return view

    async def _import(self, request: Request) -> Any:
        plant = self.plant()
        return {"stored": await plant.answer(take_in(plant, self.store, request.get("values")))}

    def _lend(self, request: Request) -> AbstractAsyncContextManager[str | None]:
        return self.plant().lend(str(request.get("bus")))


async def read_meter(config: GatewayConfig, name: str) -> dict[str, Any]:
    """What a meter shows, asked by this process itself: the service does not run."""
    settings = config.meter(name)
    poller = Poller(config.bus_of(settings), [settings], SystemClock(), random=random.Random())
    try:
        done = await poller.round([Ask(settings, settings.profile.everything(), by_hand=True)])
    finally:
        await poller.close()
    return meter_view(settings, done.samples[0], poller.link())


@contextlib.asynccontextmanager
async def looking(
    bus: BusSettings, meters: Sequence[MeterSettings], unit: int
) -> AsyncIterator[Callable[[Sequence[Read]], Awaitable[dict[str, Any]]]]:
    """Look at registers of a unit over a line of this process's own: the service does not run."""
    poller = Poller(bus, meters, SystemClock(), random=random.Random())

    async def look(reads: Sequence[Read]) -> dict[str, Any]:
        return looked_view(await poller.look(unit, reads), poller.link())

    try:
        yield look
    finally:
        await poller.close()


async def send_alone(config: GatewayConfig, sender: str | None, *, dry_run: bool) -> Any:
    """`send` without a running service: the buffer is ours for as long as it takes."""
    async with _plant_of_our_own(config) as (plant, _, _):
        return report_view(await sender_named(plant, sender).once(dry_run=dry_run))


async def resend_alone(config: GatewayConfig, wish: Wish, digest: str) -> dict[str, Any]:
    """`resend` without a running service; what is corrected goes when it runs."""
    async with _plant_of_our_own(config) as (plant, store, clock):
        return await send_again(plant, store, clock, wish, digest)


async def send_again(
    plant: Plant, store: Store, clock: Clock, wish: Wish, digest: str
) -> dict[str, Any]:
    """Let the readings of a wish that changed wait again, with their new values.

    `digest`: of what a person was shown. No request goes meanwhile. Raises GatewayError.
    """
    resending = Resending(plant.config, wish, clock.now())
    twins: dict[str, set[Instant]] = {}
    count = 0
    async with _between_requests(plant):
        found = Digest()
        async for items in resending.items(store):
            found.add(items)
        if str(found) != digest:
            raise GatewayError(
                "the gateway would not send what was shown: it has another configuration in force",
                hint="reload it (systemctl reload meter-gateway), see its status, and try again",
            )
        async for items in resending.items(store):
            count += await resending.apply(store, items)
            for item in items:
                if item.again and resending.shares_its_stamp(item.row.stamp):
                    twins.setdefault(item.key.meter_id, set()).add(item.row.stamp)
        for uploader in plant.uploaders.values():
            await uploader.take_anew(twins)
    return {"sent_again": count}


@frozen
class Parked:
    """What is to become of what is parked: of these meters or meterIDs, or all; for this reason,
    or any."""

    discard: bool
    names: tuple[str, ...] = ()
    reason: str = ""


def asked_of_parked(request: Request) -> Parked:
    """What a command asks for."""
    names = tuple(str(name) for name in request.get("names", ()))
    return Parked(bool(request.get("discard")), names, str(request.get("reason", "")))


async def parked_alone(config: GatewayConfig, wanted: Parked) -> dict[str, Any]:
    """`parked retry` and `discard` without a running service."""
    async with _plant_of_our_own(config) as (plant, store, clock):
        return await settle_parked(plant, store, clock, wanted)


async def settle_parked(plant: Plant, store: Store, clock: Clock, wanted: Parked) -> dict[str, Any]:
    """Let it be sent again, or drop it; no request goes meanwhile. Raises GatewayError."""
    stay: Mapping[str, int] = {}
    async with _between_requests(plant):
        try:
            if wanted.discard:
                count = await store.discard_parked(wanted.names, wanted.reason)
            else:
                within = may_be_sent(clock.now())
                count, stay = await store.retry_parked(wanted.names, wanted.reason, within=within)
        except KeyError as error:
            raise GatewayError(
                f'no meter or meterID "{error.args[0]}" is stored',
                hint="`meter-gateway parked list` shows what is parked",
            ) from None
    return {"count": count, "stay": stay}


@contextlib.asynccontextmanager
async def _between_requests(plant: Plant) -> AsyncIterator[None]:
    """No request goes meanwhile; then every sender looks again."""
    async with contextlib.AsyncExitStack() as between:
        for uploader in plant.uploaders.values():
            await between.enter_async_context(uploader.between())
        yield
    for uploader in plant.uploaders.values():
        uploader.poke()


async def import_alone(config: GatewayConfig, portions: Iterable[object]) -> int:
    """`import` without a running service."""
    async with _plant_of_our_own(config) as (plant, store, _):
        return sum([await take_in(plant, store, values) for values in portions])


async def take_in(plant: Plant, store: Store, values: object) -> int:
    """Store values that a person brings, in one transaction; how many were new. Raises
    GatewayError."""
    try:
        readings = tuple(_brought(one) for one in values)  # type: ignore[attr-defined]
        stored = (await store.append(Commit(readings), past=True)).stored
    except (TypeError, ValueError, ArithmeticError) as error:
        raise GatewayError(
            f"the gateway does not take these values: {error}",
            hint="reload it (systemctl reload meter-gateway) if the configuration was changed",
        ) from None
    for uploader in plant.uploaders.values():
        uploader.poke()
    return stored


def _brought(value: Any) -> Reading:
    """[import, meterID, stamp, value]. Raises TypeError, ValueError, ArithmeticError."""
    import_name, meter_id, stamp, number = value
    exact = Decimal(number)
    if not exact.is_finite() or abs(exact.adjusted()) > 99:
        raise ValueError(f"{number} is no number to send")
    return Reading(SeriesKey(str(import_name), str(meter_id)), int(stamp), exact)


def asked_again(request: Request) -> Wish:
    """The wish that a command asks for."""
    since, until = (int(request.get(name, 0)) for name in ("since", "until"))
    return Wish(str(request.get("meter")), since, until, str(request.get("former", "")))


@contextlib.asynccontextmanager
async def _plant_of_our_own(config: GatewayConfig) -> AsyncIterator[tuple[Plant, Store, Clock]]:
    """The buffer is ours for as long as it takes: no service runs."""
    with InstanceLock(Path(f"{config.buffer.path}.lock")):
        clock = SystemClock(assume_synchronised=config.clock.assume_synchronised)
        store = Store(config.buffer, clock)
        plant = Plant(config, store, clock, random.Random())
        await plant.open()
        try:
            await plant.declare()
            yield plant, store, clock
            await plant.stop()
        finally:
            await store.close()
