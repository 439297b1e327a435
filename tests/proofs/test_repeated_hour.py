"""P10 on the nights on which the clock goes back: any zone, any interval, any order of things.

Real uploader and buffer in virtual time, from a number each: readings of every kind are lost,
come late, out of order or after all patience; answers fail or are lost; bodies are too small for
both of two values; the process is killed. What Energinet has in the end under each local stamp is
compared with what was stored, and no stamp may ever have carried another value before.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.energinet.nights import EVENTS, Course, Figures

COURSES = 150


async def test_of_any_nights_energinet_has_each_reading_once(
    short: bool, expected_events: Callable[..., None]
) -> None:
    expected_events(*EVENTS)
    figures = Figures()
    courses = COURSES // (6 if short else 1)
    zones = set()
    for number in range(1_000, 1_000 + courses):
        course = Course(random.Random(number), figures)
        zones.add(course.zone)
        try:
            with tempfile.TemporaryDirectory() as folder:
                await course.run(Path(folder))
        except BaseException:
            print(f"course {number}: {course.zone}, {course.night}, every {course.every}")
            raise
    print(
        f"{courses} nights in {len(zones)} zones, {figures.requests} requests,"
        f" {figures.kills} kills: lost 0, twice 0; stamps {dict(sorted(figures.names.items()))}"
    )
