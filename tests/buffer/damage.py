"""A buffer with a past, and what must hold of it after it was damaged."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from gateway.metering.reading import Commit, Gap
from tests.buffer.made import (
    START,
    StillClock,
    commits,
    confirmed,
    exported,
    filled,
    reading,
    series,
    store_at,
    take,
)

Row = tuple[str, int]
"""MeterID and stamp of a reading."""

METERS, MOMENTS = 20, 60
_EVER = {
    (one.key.meter_id, one.stamp): one.value
    for one in (reading(nth, moment) for nth in range(METERS) for moment in range(MOMENTS + 1))
}
"""All that was ever stored."""


async def well_used(path: Path) -> dict[Row, tuple[Decimal, str]]:
    """A buffer with a past: confirmed, parked, held and deleted readings; what should be in it."""
    clock = StillClock()
    store = await filled(store_at(path, clock, keep=0), METERS, range(30))
    await store.settle("basement", confirmed(await take(store)), b"slot")
    await store.prune()  # the clock stands at the start: nothing is that old
    clock.at = START + 20 * 3_600_000
    await store.prune()
    for commit in commits(METERS, range(30, MOMENTS)):
        await store.append(commit)
    taken = await take(store, 400)
    await store.settle(
        "basement", confirmed(taken[:300]) + confirmed(taken[300:], "parked", "x"), b"s"
    )
    await store.append(Commit((reading(0, MOMENTS, held="clock"),)))
    await store.append(Commit(gaps=(Gap(series(1).key, START + 900 * 3_600_000, "timeout"),)))
    rows = await exported(store)
    await store.close()
    return {(meter, stamp): (value, state) for meter, stamp, value, state in rows}


async def everything_there(path: Path, true: dict[Row, tuple[Decimal, str]]) -> int:
    """Open it again; nothing in it may be altered. How many readings are lost."""
    return len(await missing(path, true))


async def missing(path: Path, true: dict[Row, tuple[Decimal, str]]) -> set[Row]:
    """Open it again; nothing in it may be altered. The readings that are lost.

    One that was deleted may be back, as it was: where the list of free pages is gone, nobody can
    tell what was on them from what is not found otherwise.
    """
    store = store_at(path)
    await store.open()
    rows = await exported(store)
    for meter, stamp, value, _ in rows:
        assert _EVER[meter, stamp] == value
    counts = await store.counts()
    assert counts.balanced
    assert counts == await store.check_counts()
    for waiting in await take(store):
        assert _EVER[waiting.key.meter_id, waiting.stamp] == waiting.value
    await store.release_flight("basement")
    # And it works on.
    await store.declare([series(nth) for nth in range(METERS)])
    answer = await store.append(commits(METERS, [MOMENTS + 1])[0])
    assert answer.stored == METERS
    assert (await store.counts()).stored == counts.stored + METERS
    await store.close()
    again = store_at(path)
    assert (await again.open()).set_aside is None
    assert await again.check_counts() == await again.counts()
    await again.close()
    return true.keys() - {(meter, stamp) for meter, stamp, _, _ in rows}


def clear(path: Path) -> None:
    """Remove the buffer and what was set aside; the ballast may stay."""
    for file in path.parent.iterdir():
        if file.suffix != ".ballast":
            file.unlink()
