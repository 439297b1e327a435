"""Three weeks with a wrong word order, mended, `resend`: Energinet's history is the truth.

The whole gateway in virtual time, over simulated meters whose values are floats: with the words
swapped most of what their counters show makes no sense and is held, and what does is wrong.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from gateway.app import Gateway
from gateway.config.library import SHIPPED
from gateway.metering.reading import SeriesKey
from gateway.questions import send_again
from gateway.resending import Digest, Resending, Wish
from tests.simulation import DAY, HOUR, MINUTE, World, instant, play

METERS = ("main", "lift")
LIMIT = 20_000
"""Bytes of a body, so that there are several."""
START = instant("2026-03-02T00:00")
PROFILE = "eastron-sdm630"


def profile(folder: Path, order: str) -> None:
    """An own profile that wins over the shipped one, with this order of words where it counts."""
    text = (SHIPPED / f"{PROFILE}.yaml").read_text()
    for quantity in ("active_energy_import_total", "active_power_total"):
        text, found = re.subn(
            rf"(?m)^(  - {{quantity: {quantity}, )", rf"\1word_order: {order}, ", text
        )
        assert found == 1
    (folder / "profiles").mkdir(exist_ok=True)
    (folder / "profiles" / f"{PROFILE}.yaml").write_text(text)


async def resend(gateway: Gateway, world: World, meter: str) -> int:
    """As the command does it; how many values go again."""
    wish = Wish(meter, START, world.clock.now())
    digest = Digest()
    async for items in Resending(gateway.config, wish, world.clock.now()).items(gateway.store):
        digest.add(items)
    done = await send_again(gateway.plant, gateway.store, world.clock, wish, str(digest))
    count: int = done["sent_again"]
    return count


async def all_sent(gateway: Gateway, world: World) -> None:
    while (await gateway.store.counts()).pending:
        await asyncio.sleep(60)


def test_three_weeks_of_a_wrong_word_order_become_the_truth_in_the_fewest_requests(
    tmp_path: Path, expected_events: Callable[..., None], short: bool
) -> None:
    expected_events("counter.held", "meter.not_available")
    length = (3 if short else 21) * DAY

    async def story(world: World) -> None:
        await world.bus("plant", dict.fromkeys(METERS, ()), poll="20 min")
        profile(tmp_path, "little")
        path = world.write(every="1 h", more="profiles: profiles/")
        text = path.read_text()
        limit = f"energinet:\n  max_payload: {LIMIT // 1000} kB\n"
        path.write_text(text.replace("energinet:\n", limit))
        async with world.running(path) as gateway:
            end = START + length
            await world.clock.at(end + 5 * MINUTE)
            before = {name: world.received(name) for name in METERS}
            profile(tmp_path, "big")
            gateway.reload()
            await world.clock.at(end + 2 * HOUR + 5 * MINUTE)  # a consumption follows what was held
            await all_sent(gateway, world)
            had = {name: len(values) for name, values in before.items()}
            counts = await gateway.store.counts()
            again, began = 0, len(world.standin.requests)
            for name in METERS:
                again += await resend(gateway, world, name)
            await all_sent(gateway, world)
            last = world.clock.true() // HOUR * HOUR
            for name in METERS:
                assert await resend(gateway, world, name) == 0  # what is right is left alone
            sent = [request.body for request in world.standin.requests[began:]]
            formers = await gateway.store.formers(
                [SeriesKey("", f"{n}{kind}") for n in METERS for kind in ("", "-moved", "-mean")]
            )
            after = await gateway.store.check_counts()
        assert after.balanced
        assert after.confirmed == after.stored >= counts.stored
        sizes = sum(map(len, sent))
        assert len(sent) == -(-sizes // LIMIT)
        values = 0
        for name in METERS:
            counter, moved, mean = (
                world.received(f"{name}{kind}") for kind in ("", "-moved", "-mean")
            )
            boundaries = list(range(START, last + 1, HOUR))
            assert list(counter) == boundaries
            assert list(mean) == boundaries[:-1]
            assert list(moved) == boundaries[:-1]
            for stamp, value in counter.items():
                assert world.shown(name, stamp) <= value <= world.shown(name, stamp + MINUTE)
            reckoned = {b: counter[b + HOUR] - counter[b] for b in boundaries[:-1]}
            assert sum(moved.values()) == sum(reckoned.values())
            # At a boundary that was asked several times each may have another of the answers.
            assert all(abs(moved[b] - reckoned[b]) < Decimal("0.1") for b in reckoned)
            values += len(counter) + len(moved) + len(mean)
        assert all(" was " in line for line in world.standin.violations)  # values, not limits
        print(
            f"{length // DAY} days, {values} values; of each counter Energinet had {had}, wrong;"
            f" {again} sent again in {len(sent)} requests of {sizes} bytes; wrong 0, missing 0"
        )
        assert formers

    play(story, tmp_path, START - 2 * MINUTE)
