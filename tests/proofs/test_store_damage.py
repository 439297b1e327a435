"""Faults 4 and 5: bits flipped, pieces cut off and overwritten. No altered value is ever sent."""

from __future__ import annotations

import random
import struct
import time
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from gateway.clock import HOUR
from tests.buffer.damage import Row, clear, everything_there, missing, well_used
from tests.buffer.made import START, reading

FLIPS = 400
CUTS = 1_000
HEAD = 22
"""Bytes of a record before its registers."""


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


def sound(data: bytes, places: dict[Row, list[tuple[int, bytes]]]) -> set[Row]:
    """The readings of which every byte stands where it stood."""
    return {
        row
        for row, some in places.items()
        if any(data[at : at + len(record)] == record for at, record in some)
    }


def places_of(
    data: bytes, true: dict[Row, tuple[Decimal, str]]
) -> dict[Row, list[tuple[int, bytes]]]:
    """Where the records of the readings stand; not of those that go on on another page."""
    found: dict[Row, list[tuple[int, bytes]]] = {}
    for meter, stamp in true:
        words = reading(int(meter) - 7000, (stamp - START) // HOUR).raw.pack()
        at = data.find(words)
        while at >= 0:
            begin = at - HEAD
            (size,) = struct.unpack_from("<H", data, begin)
            record = data[begin : begin + size]
            if zlib.crc32(record[:-4]).to_bytes(4, "little") == record[-4:]:
                found.setdefault((meter, stamp), []).append((begin, record))
            at = data.find(words, at + 1)
    return found


async def test_a_file_cut_off_or_overwritten_anywhere_is_in_use_again_at_once(
    tmp_path: Path, short: bool, expected_events: Callable[..., None]
) -> None:
    expected_events("buffer.set_aside")
    path = tmp_path / "readings.db"
    true = await well_used(path)
    whole = path.read_bytes()
    places = places_of(whole, true)
    assert len(places) > 0.9 * len(true)
    draw = random.Random(5)
    slowest = cpu = 0.0
    shares = []
    saved = there = 0
    trials = CUTS // (20 if short else 1)
    for nth in range(trials):
        at = draw.randrange(len(whole))
        data = bytearray(whole)
        if nth % 2:
            del data[at:]
        else:
            junk = draw.randbytes(draw.choice([16, 512, 4096, 65_536]))
            data[at : at + len(junk)] = junk
        path.write_bytes(data)
        was_sound = sound(bytes(data), places)
        start, start_cpu = time.monotonic(), time.process_time()
        lost = await missing(path, true)
        slowest = max(slowest, time.monotonic() - start)
        cpu = max(cpu, time.process_time() - start_cpu)
        there += len(was_sound)
        saved += len(was_sound - lost)
        if was_sound:
            shares.append(len(was_sound - lost) / len(was_sound))
        clear(path)
    print(
        f"{trials} files cut off or overwritten: each in use again, altered 0, slowest "
        f"{slowest:.1f} s with all checks; of {there} sound readings {100 * saved / there:.3f} % "
        f"saved, {100 * min(shares):.2f} % in the worst file"
    )
    assert saved >= 0.99 * there
    assert cpu < 5
