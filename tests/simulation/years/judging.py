"""What has to hold at every request, every day, and in the end."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from gateway.buffer.views import ExportRow
from gateway.clock import DAY, HOUR, Instant
from gateway.energinet.batch import stamp_text
from gateway.metering.reading import Counts, SeriesKey
from tests.simulation.years.oracle import Broken, nights
from tests.simulation.years.steps import at_once

if TYPE_CHECKING:
    from tests.simulation.years.site import Site


class Judge:
    """Looks over the shoulder of one site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.fates: Counter[str] = Counter()
        """Where the readings are in the end."""
        self.false_holds = 0
        self.clock_set: Instant = 0
        """When the wall clock was set last."""

    def check_counts(self, counts: Counts) -> None:
        """Nothing that was stored has vanished."""
        site = self.site
        if not counts.balanced or counts.stored != site.oracle.count:
            raise Broken(f"{site.oracle.count} were stored, but {counts}")

    def received(self, sender: str, sets: list[Any], size: int) -> None:
        """A body is under way: P11. The newest value of each meterID is in it, and all that waits
        if there is room."""
        site = self.site
        uploader, now = site.plant.uploaders[sender], site.machine.now()
        state, limit = uploader._state, uploader.status().limit
        if size > limit - 60:
            site.fired["more waits than a body holds"] += 1
        if state.suspects:
            return
        sent = {one["meterID"]: {stamp for stamp, _ in one["values"]} for one in sets}
        odd = state.caps.keys() | state.probes.keys()
        for key, row in site.oracle.rows.items():
            newest, name = row.newest, key.meter_id
            if row.send.sender != sender or name in odd or not row.stored:
                continue
            if newest > now or newest in row.accepted:
                continue
            line = site.store._index.by_key[key]
            if site.oracle.ambiguous(newest) or line.spans.state_of(line.stored):
                continue  # held, or parked alone
            text = stamp_text(newest, site.zone, site.config.energinet.timestamps)
            if text not in sent.get(name, ()):
                raise Broken(f"{name}: {text} is its newest, but not in the body")
        if odd or state.missing or size > limit - 100 or site.backfilled:
            return
        if site.machine.off or site.steps.true - self.clock_set < DAY + HOUR:
            return  # nights that are shown twice are not over yet
        rows = [row for row in site.oracle.rows.values() if row.send.sender == sender]
        ahead = sum(len({at for at in row.ahead if at > now} - row.accepted) for row in rows)
        waiting = at_once(site.store.waiting(sender)) - ahead
        today = now // DAY
        if waiting > 0 and not any(nights(today - n, site.zone) for n in range(0, 40, 4)):
            raise Broken(f"{waiting} values wait, though there is room")

    def took(self, sets: list[Any]) -> None:
        """An answer arrived that confirms these."""
        site = self.site
        for one in sets:
            row = site.oracle.rows.get(SeriesKey("", one["meterID"]))
            if row is not None:
                row.accepted.update(site.api.instant(stamp) for stamp, _ in one["values"])

    def said(self, event: str, fields: Any) -> None:
        """A line of the log."""
        site = self.site
        if event in ("task.failed", "gateway.unbalanced", "buffer.set_aside"):
            raise Broken(f"{event} {fields}")
        if event == "counter.held":
            place = site.places[fields["meter"]]
            if site.steps.true > place.doubtful_until:
                self.false_holds += 1
                site.tell(f"false hold: {fields}")

    def check(self) -> None:
        """Long after the last fault: what was stored is where it should be, and right."""
        site = self.site
        self.check_counts(at_once(site.store.check_counts()))
        kept = site.steps.true - site.config.buffer.keep
        site.oracle.check_ledger(at_once(site.store.gaps()), kept)
        states: dict[tuple[str, Instant], tuple[Decimal, str]] = {}
        for rows in self._export():
            for row in rows:
                states[row.key.meter_id, row.stamp] = row.value, row.state
        recent = site.steps.true - site.config.energinet.linger - 2 * HOUR
        clocks = (s.until + s.off for s in site.machine.stretches() if s.believed)
        pruned = max(clocks) - site.config.buffer.keep
        for name, texts in site.oracle.texts(site.config.energinet.timestamps).items():
            held = site.api.held.get(name, {})
            for text, some in texts.items():
                self._check_name(name, text, some, states, held.get(text), recent, pruned)
            if held.keys() - texts.keys():
                raise Broken(f"{name}: Energinet holds what was never stored")

    def _check_name(
        self,
        name: str,
        text: str,
        some: list[tuple[Instant, Decimal]],
        states: dict[tuple[str, Instant], tuple[Decimal, str]],
        held: Decimal | None,
        recent: Instant,
        pruned: Instant,
    ) -> None:
        """What became of the readings that have one stamp, as it is sent."""
        site = self.site
        sent = []
        for at, value in some:
            kept, state = states.get((name, at), (value, "pruned"))
            if state == "pruned" and at > pruned:
                raise Broken(f"{name}: {text} is lost")
            if kept != value:
                raise Broken(f"{name}: {text} was stored as {value} and is {kept}")
            if state == "parked:too_old" and at > pruned:
                raise Broken(f"{name}: {text} is not too old")
            if state == "pending" and at < recent:
                raise Broken(f"{name}: {text} still waits")
            self.fates[state] += 1
            if state in ("confirmed", "pruned"):
                sent.append(value)
        if not sent:
            return
        if held is None:
            raise Broken(f"{name}: {text} is confirmed, but Energinet has it not")
        kind = site.oracle.rows[SeriesKey("", name)].send.as_  # of a power, too, the sum
        right = {"consumption": sum(sent), "maximum": max(sent)}.get(kind, sent[-1])
        if kind == "mean" and len(sent) == 2:
            if not min(sent) <= held <= max(sent):
                raise Broken(f"{name}: {text} is {held}, of {sent}")
        elif held != right:
            raise Broken(f"{name}: {text} is {held}, not {right}")

    def _export(self) -> Iterator[list[ExportRow]]:
        site = self.site
        rows = site.store.export()
        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield at_once(anext(rows))  # type: ignore[arg-type]

    def ambiguous(self, stamp: str) -> bool:
        """May a stamp, as it is sent, have two values?"""
        site = self.site
        if site.config.energinet.timestamps != "local":
            return False
        return site.oracle.ambiguous(site.api.instant(stamp))
