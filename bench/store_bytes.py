"""Bytes that reach the device for one reading over its whole life, beside two yardsticks.

    sudo python -m bench.store_bytes [--readings 100000]

A reading's life: stored in a commit of 10 or 100, collected and settled 5,000 at a time with the
sender's slot saved before and after, deleted 20,000 readings later. Each store gets a new ext4
file system of its own on a loop device; what counts is what the kernel says was written to it,
journal and metadata included, up to the last sync, once 25,000 readings have warmed it up. In one
run, on the same fields:

    log      a preallocated log: records of fixed size in segments of 1 MB, written with
             zeros first, a cursor file for slot and acknowledgement, old segments unlinked.
             What no store can do without, if a commit is to survive a power cut.
    ours     gateway.buffer.Store.
    naive    SQLite as it comes: meterID and time as text, AUTOINCREMENT, an index on time, a sent
             flag, the default journal; one commit a round all the same.

Needs root (loop devices, mount) and mkfs.ext4; fsyncs a commit are counted with strace.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from bench.figures import OURS, Goal, Measure, Missing, gather, lines
from bench.processes import HERE, need, output
from gateway.buffer.settings import BufferSettings
from gateway.buffer.store import Store
from gateway.clock import Instant
from gateway.metering.reading import (
    Block,
    Commit,
    Offer,
    RawWords,
    Reading,
    Series,
    SeriesKey,
    Settlement,
    Waiting,
)

METERS = 100
SENT_TOGETHER = 5_000
KEPT = 20_000
WARM_UP = 25_000
START = 1_700_000_000
SEGMENT = 1_000_000


class Virtual:
    """A clock that stands where the last reading was."""

    boot_id = "bench"

    def __init__(self) -> None:
        self.at: Instant = START * 1000

    def now(self) -> Instant:
        return self.at

    def boottime(self) -> int:
        return self.at

    def monotonic(self) -> float:
        return self.at / 1000

    def synchronised(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def value(nth: int) -> tuple[int, int]:
    """Mantissa and exponent of a counter in kWh with three decimals."""
    return 123_456_789 + 37 * nth, -3


def words(nth: int) -> tuple[int, int]:
    """The registers it came from."""
    return (17_000 + nth % 7, nth & 0xFFFF)


# ------------------------------------------------------------------------------------------- ours


async def ours(folder: Path, together: int, readings: int) -> None:
    clock = Virtual()
    keep = KEPT // together * 60_000
    store = Store(BufferSettings(str(folder / "readings.db"), keep=keep), clock)
    await store.open()
    keys = [SeriesKey("", f"7{meter:017}") for meter in range(METERS)]
    await store.declare(
        [
            Series(key, f"meter-{nth}", "active_energy_import_total", "counter", 60_000, "basement")
            for nth, key in enumerate(keys)
        ]
    )
    nth = since = 0
    for moment in range(readings // together):
        clock.at = (START + 60 * moment) * 1000
        commit = []
        for _ in range(together):
            mantissa, exponent = value(nth)
            raw = RawWords((Block(4, 342, words(nth)),))
            exact = Decimal(mantissa).scaleb(exponent)
            commit.append(Reading(keys[nth % METERS], clock.at, exact, raw))
            nth += 1
        await store.append(Commit(tuple(commit)))
        warm(nth, together)
        since += together
        if since >= SENT_TOGETHER:
            since = 0
            await send(store)
    await store.close()


def warm(nth: int, together: int) -> None:
    """Tell who measures that the steady state has begun, and wait until it has looked."""
    if nth == WARM_UP - WARM_UP % together and os.environ.get("STORE_BYTES_WAIT"):
        print("warm", flush=True)
        sys.stdin.readline()


async def send(store: Store) -> None:
    taken: dict[SeriesKey, list[int]] = {}

    def offer(waiting: Waiting) -> Offer:
        taken.setdefault(waiting.key, []).append(waiting.id)
        return Offer.TAKEN

    await store.collect("basement", offer)
    await store.keep_slot("basement", b'{"next":1700000000000,"boot":"0123"}')
    settled = [Settlement(key, "confirmed", tuple(ids)) for key, ids in taken.items()]
    await store.settle("basement", settled, b'{"next":1700000600000,"boot":"0123"}')
    await store.prune()


# -------------------------------------------------------------------------------------------- log

RECORD = struct.Struct("<HIIqbB8sI")  # series, n, stamp, mantissa, exponent, flags, words, CRC


async def log(folder: Path, together: int, readings: int) -> None:
    room = 0
    segments: list[tuple[Path, int]] = []
    file = -1
    cursor = os.open(folder / "cursor", os.O_RDWR | os.O_CREAT)
    place = os.open(folder, os.O_RDONLY)
    nth = since = 0
    for moment in range(readings // together):
        commit = bytearray()
        for _ in range(together):
            mantissa, exponent = value(nth)
            raw = RawWords((Block(4, 342, words(nth)),)).pack()
            head = (nth % METERS, nth // METERS, START + 60 * moment, mantissa, exponent, 0)
            check = zlib.crc32(RECORD.pack(*head, raw, 0))
            commit += RECORD.pack(*head, raw, check)
            nth += 1
        if len(commit) > room:
            if file >= 0:
                os.close(file)
            path = folder / f"{moment:08}.log"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            os.write(file, bytes(SEGMENT))
            os.fsync(file)
            os.fsync(place)
            os.lseek(file, 0, os.SEEK_SET)
            room = SEGMENT
            segments.append((path, nth))
        os.write(file, commit)
        os.fdatasync(file)
        room -= len(commit)
        warm(nth, together)
        since += together
        if since >= SENT_TOGETHER:
            since = 0
            for _ in range(2):  # the slot before the request; slot and acknowledgement after it
                os.pwrite(cursor, struct.pack("<qq", nth, START), 0)
                os.fdatasync(cursor)
            while len(segments) > 1 and segments[1][1] < nth - KEPT:
                segments.pop(0)[0].unlink()
    os.close(file)
    os.close(cursor)
    os.close(place)


# ------------------------------------------------------------------------------------------ naive


async def naive(folder: Path, together: int, readings: int) -> None:
    base = sqlite3.connect(folder / "readings.db")
    base.execute(
        "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, meter_id TEXT, time TEXT,"
        " value REAL, words TEXT, sent INTEGER DEFAULT 0)"
    )
    base.execute("CREATE INDEX by_time ON readings (meter_id, time)")
    base.execute("CREATE TABLE slots (sender TEXT PRIMARY KEY, next TEXT)")
    nth = since = 0
    for moment in range(readings // together):
        stamp = datetime.fromtimestamp(START + 60 * moment, UTC).isoformat()
        for _ in range(together):
            mantissa, exponent = value(nth)
            base.execute(
                "INSERT INTO readings (meter_id, time, value, words) VALUES (?, ?, ?, ?)",
                (f"7{nth % METERS:017}", stamp, mantissa * 10.0**exponent, json.dumps(words(nth))),
            )
            nth += 1
        base.commit()
        warm(nth, together)
        since += together
        if since >= SENT_TOGETHER:
            since = 0
            base.execute("INSERT OR REPLACE INTO slots VALUES ('basement', ?)", (stamp,))
            base.commit()
            ids = base.execute(
                "SELECT id FROM readings WHERE sent = 0 ORDER BY id LIMIT ?", (SENT_TOGETHER,)
            ).fetchall()
            base.executemany("UPDATE readings SET sent = 1 WHERE id = ?", ids)
            base.execute("INSERT OR REPLACE INTO slots VALUES ('basement', ?)", (stamp + "+",))
            base.commit()
            base.execute("DELETE FROM readings WHERE id <= ? AND sent = 1", (nth - KEPT,))
            base.commit()
    base.close()


STORES: dict[str, Callable[[Path, int, int], Coroutine[None, None, None]]] = {
    "log": log,
    "ours": ours,
    "naive": naive,
}

# -------------------------------------------------------------------------------------- measuring


@contextmanager
def file_system(megabytes: int) -> Iterator[tuple[Path, Path]]:
    """A new ext4 on a loop device: where it is mounted, and its statistics."""
    work = Path(tempfile.mkdtemp(prefix="store-bytes-"))
    image, mounted = work / "image", work / "mounted"
    mounted.mkdir()
    device = ""
    try:
        with image.open("wb") as file:
            file.truncate(megabytes * 1_000_000)
        at_once = "lazy_itable_init=0,lazy_journal_init=0"
        output(["mkfs.ext4", "-q", "-b", "4096", "-E", at_once, str(image)])
        device = output(["losetup", "--find", "--show", str(image)]).strip()
        output(["mount", device, str(mounted)])
        yield mounted, Path("/sys/block") / Path(device).name / "stat"
    finally:
        if os.path.ismount(mounted):
            output(["umount", str(mounted)])
        if device:
            output(["losetup", "--detach", device])
        shutil.rmtree(work)


def device_bytes(name: str, together: int, readings: int) -> float:
    """Bytes written to the device a reading."""
    with file_system(400) as (folder, stat):
        asking = {**os.environ, "STORE_BYTES_WAIT": "1"}
        child = subprocess.Popen(
            command(name, folder, together, readings + WARM_UP), cwd=HERE.parent,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=asking,
        )  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        if child.stdout.readline() != "warm\n":
            raise OSError(f"{name} ended with {child.wait()}")
        os.sync()
        before = int(stat.read_text().split()[6])
        child.stdin.write("go\n")
        child.stdin.flush()
        if child.wait() != 0:
            raise OSError(f"{name} ended with {child.returncode}")
        os.sync()
        return 512 * (int(stat.read_text().split()[6]) - before) / readings


def fsyncs(name: str, together: int, readings: int) -> float:
    """fsync and fdatasync calls a commit."""
    with tempfile.TemporaryDirectory(prefix="store-bytes-") as work:
        trace = Path(work) / "trace"
        inside = Path(work) / "store"
        inside.mkdir()
        calls = "trace=fsync,fdatasync"
        traced = [need("strace", "strace"), "-f", "-qq", "-e", calls, "-o", str(trace)]
        output([*traced, *command(name, inside, together, readings)])
        count = sum("sync(" in line for line in trace.read_text().splitlines())
    return count / (readings // together)


def command(name: str, folder: Path, together: int, readings: int) -> list[str]:
    """A store at work, in a process of its own."""
    started = [sys.executable, "-m", "bench.store_bytes", "--one", name]
    return [*started, str(folder), str(together), str(readings)]


SHOWN = {"log": "preallocated log", "ours": OURS, "naive": "naive SQLite"}


def measure(*, short: bool = False, readings: int = 100_000) -> list[Measure]:
    """Device bytes a reading at 100 and at 10 a commit, over the log's; fsyncs a commit."""
    if os.geteuid() != 0:
        raise Missing("it needs root, for a file system on a loop device")
    for tool, package in (("mkfs.ext4", "e2fsprogs"), ("losetup", "mount"), ("mount", "mount")):
        need(tool, package)
    measures = []
    for together in (100, 10):
        many = readings // (30 if short else 1) // (1 if together == 100 else 3)
        wrote: dict[str, float] = {}
        try:
            for name in STORES:
                wrote[name] = device_bytes(name, together, many)
        except OSError as error:
            raise Missing(f"a loop device cannot be used here: {error}") from error
        over = {SHOWN[name]: [bytes_ / wrote["log"]] for name, bytes_ in wrote.items()}
        mine, others = gather(over, {})
        told = ", ".join(f"{SHOWN[name]} {bytes_:,.0f} B" for name, bytes_ in wrote.items())
        what = f"Bytes to the device a reading over a preallocated log's, {together} a commit"
        measures.append(
            Measure(
                what, mine, others, Goal(1.7 if together == 100 else 2.0), note=f"a reading: {told}"
            )
        )
    calls: dict[str, list[float]] = {}
    missing: dict[str, str] = {}
    for name, shown in SHOWN.items():
        try:
            calls[shown] = [fsyncs(name, 100, readings // 4)]
        except Missing as reason:
            missing[shown] = str(reason)
    measures.append(Measure("fsyncs a commit of 100", *gather(calls, missing), Goal(1.5)))
    return measures


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readings", type=int, default=100_000)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, folder, together, readings = options.one
        asyncio.run(STORES[name](Path(folder), int(together), int(readings)))
        return
    print(lines(measure(readings=options.readings)))


if __name__ == "__main__":
    main()
