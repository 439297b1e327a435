"""Faults 4 and 5: bits flipped, pieces cut off and overwritten. No altered value is ever sent."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.buffer.damage import clear, everything_there, well_used

FLIPS = 400
CUTS = 300


async def test_no_flipped_bit_ever_alters_a_value_that_is_sent(
    tmp_path: Path, short: bool, expected_events: Callable[..., None]
) -> None:
    expected_events("buffer.set_aside")
    path = tmp_path / "readings.db"
    true = await well_used(path)
    whole = path.read_bytes()
    draw = random.Random(4)
    lost = []
    for _ in range(FLIPS // (4 if short else 1)):
        data = bytearray(whole)
        bit = draw.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        lost.append(await everything_there(path, true))
        clear(path)
    share = sum(lost) / len(lost) / len(true)
    print(
        f"{len(lost)} flips of a file with {len(true)} readings: altered and sent 0, "
        f"lost {sum(lost)} in all, at most {max(lost)} by one flip"
    )
    assert share <= 0.01


async def test_a_file_cut_off_or_overwritten_anywhere_is_in_use_again_at_once(
    tmp_path: Path, short: bool, expected_events: Callable[..., None]
) -> None:
    expected_events("buffer.set_aside")
    path = tmp_path / "readings.db"
    true = await well_used(path)
    whole = path.read_bytes()
    draw = random.Random(5)
    slowest = 0.0
    trials = CUTS // (6 if short else 1)
    for nth in range(trials):
        at = draw.randrange(len(whole))
        data = bytearray(whole)
        if nth % 2:
            del data[at:]
        else:
            junk = draw.randbytes(draw.choice([16, 512, 4096, 65_536]))
            data[at : at + len(junk)] = junk
        path.write_bytes(data)
        start = time.monotonic()
        await everything_there(path, true)
        slowest = max(slowest, time.monotonic() - start)
        clear(path)
    print(
        f"{trials} files cut off or overwritten: each in use again, altered 0, "
        f"slowest {slowest:.1f} s with all checks"
    )
