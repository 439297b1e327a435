"""P1: kill -9 at any moment. What the store acknowledged is in the file, whatever else is.

A child appends, sends and settles as fast as it can and prints each acknowledgement; it is killed
at seeded instants, again and again over the same file.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

from gateway.clock import HOUR
from tests.buffer.made import START, exported, store_at, take

ROOT = Path(__file__).parents[2]
METERS = 10

CHILD = """
import asyncio, sys
from pathlib import Path
from tests.buffer.made import commits, confirmed, series, store_at, take

def say(*words):
    print(*words, flush=True)

async def main():
    path, moment = Path(sys.argv[1]), int(sys.argv[2])
    store = store_at(path, keep=1 << 60)
    await store.open()
    await store.declare([series(nth) for nth in range(10)])
    while True:
        moment += 1
        say("append", moment)
        await store.append(commits(10, [moment])[0])
        say("stored", moment)
        if moment % 5 == 0:
            taken = await take(store, 30)
            await store.keep_slot("basement", b"before %d" % moment)
            say("slot", "before", moment)
            await store.settle("basement", confirmed(taken), b"after %d" % moment)
            say("slot", "after", moment)
            for one in taken:
                say("confirmed", one.key.meter_id, one.stamp)

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_every_kill(tmp_path: Path, short: bool) -> None:
    kills = 20 if short else 60
    draw = random.Random(20261123)
    path = tmp_path / "readings.db"
    stored: set[int] = set()
    sent: set[tuple[str, int]] = set()
    slot = b""
    started = 0
    for _ in range(kills):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, path, str(started)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(draw.uniform(0, 0.25))
        child.kill()
        for line in [first, *child.stdout]:
            match line.split():
                case ["append", moment]:
                    started = int(moment)
                case ["stored", moment]:
                    stored.add(int(moment))
                case ["slot", *words]:
                    slot = " ".join(words).encode()
                case ["confirmed", meter, stamp]:
                    sent.add((meter, int(stamp)))
        child.wait()
        child.stdout.close()
        store = store_at(path)
        opened = await store.open()
        assert opened.set_aside is None
        counts = await store.counts()
        assert counts.balanced
        assert counts == await store.check_counts()
        rows = {(m, s): (v, state) for m, s, v, state in await exported(store)}
        for moment in stored:
            for meter in range(METERS):
                value, _ = rows[f"{7000 + meter}", START + moment * HOUR]
                assert value == Decimal(meter * 100_000 + moment) / 100
        assert all(rows[one][1] == "confirmed" for one in sent)
        # A slot that was acknowledged is there, or the one after it.
        kept = await store.slot("basement") or b""
        assert int(kept.split()[-1] if kept else 0) >= int(slot.split()[-1] if slot else 0)
        pending = {one for one, (_, state) in rows.items() if state == "pending"}
        assert {(w.key.meter_id, w.stamp) for w in await take(store)} == pending
        await store.close()
    print(
        f"{kills} kills, {len(stored)} commits acknowledged, {len(sent)} values confirmed, lost 0"
    )
    assert len(stored) > 2 * kills
    assert sent
