"""What goes wrong at a site, when, and for how long: all of it drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from decimal import Decimal
from typing import Final

from attrs import evolve

from gateway.clock import DAY, HOUR, MINUTE, SECOND, Instant, Millis
from gateway.metering.reading import Commit, Reading, Series, SeriesKey
from tests.simulation.years.importing import ROWS
from tests.simulation.years.meters import Device, Place, Spike
from tests.simulation.years.site import Site
from tests.simulation.years.steps import at_once

TROUBLES: Final = (
    "timeout", "crc", "noise", "exception_2", "exception_4", "exception_6", "exception_11",
)  # fmt: skip
LENGTHS: Final = (
    20 * SECOND, 40 * SECOND, 5 * MINUTE, HOUR, 2 * HOUR, 7 * HOUR, DAY, 3 * DAY, 12 * DAY,
)  # fmt: skip
CALM: Final[Millis] = 2 * DAY
"""No false value follows so soon on a new meter or a set clock: it could not be told apart."""
BACKFILL: Final = SeriesKey("", "9001")


class Faults:
    """Draws what happens next."""

    def __init__(self, site: Site, every: Millis, only: Collection[str] = ()) -> None:
        """One in about `every`; `only`: nothing but these methods."""
        self.site = site
        self.draw = site.draw
        self._every = every
        self._calm_since = site.steps.true
        self._clock_busy = False
        self._removed = ""
        self._until: Instant = 0
        self._kinds: tuple[tuple[int, Callable[[], str]], ...] = (
            (20, self._trouble),
            (5, self._link),
            (4, self._absent),
            (20, self._spike),
            (5, self._replaced),
            (3, self._reset),
            (10, self._kill),
            (10, self._fuse),
            (4, self._stop),
            (3, self._crash_loop),
            (4, self._reboot),
            (8, self._boot_without_time),
            (8, self._step),
            (40, self._answer),
            (3, self._remove_meter),
            (3, self._move_sender),
            (4, self._full),
            (2, self._backfill),
            (2, self._accept),
            (0, self._long_outage),  # for whoever asks for it
        )
        if only:
            self._kinds = tuple((1, one) for _, one in self._kinds if one.__name__ in only)

    def begin(self, until: Instant) -> None:
        """Until a true instant; what has begun by then ends when it ends."""
        self._until = until
        self._next()

    def _next(self) -> None:
        at = self.site.steps.true + round(self.draw.expovariate(1 / self._every))
        if at < self._until:
            self.site.at(at, self._happen)

    def _happen(self) -> None:
        weights, kinds = zip(*self._kinds, strict=True)
        (kind,) = self.draw.choices(kinds, weights)
        if name := kind():
            self.site.tell(name)
        self._next()

    def _later(self, span: Millis, what: Callable[[], None]) -> None:
        self.site.at(self.site.steps.true + span, what)

    def _place(self) -> Place:
        return self.draw.choice(list(self.site.places.values()))

    # -------------------------------------------------------------------------------- meters

    def _trouble(self) -> str:
        place, what = self._place(), self.draw.choice(TROUBLES)
        if place.trouble:
            return ""

        def end() -> None:
            place.trouble = ""

        place.trouble = what
        self._later(self.draw.choice(LENGTHS), end)
        return f"{place.name} {what}"

    def _link(self) -> str:
        wire = self.site.wire

        def end() -> None:
            wire.down = False

        wire.down = True
        self._later(self.draw.choice(LENGTHS[:7]), end)
        return "link down"

    def _absent(self) -> str:
        place = self._place()

        def end() -> None:
            place.absent = False

        place.absent = True
        self._later(self.draw.choice(LENGTHS[:7]), end)
        return f"{place.name} not available"

    def _spike(self) -> str:
        """A value that nobody could take for the right one, in one read or two."""
        place, draw, now = self._place(), self.draw, self.site.steps.true
        quiet = max([self._calm_since, *place.changes[-1:]])
        if now - quiet < CALM or place.spikes or not place.last or now - place.last.true > 3 * HOUR:
            return ""
        right, modulus = place.shown(now), place.modulus
        if right < 20_000 or self._removed:
            return ""
        kind = draw.choice(["zero", "garbage", "high word stale", "counter of another meter"])
        # A float has no modulus: what no counter does in a day is too far.
        far, end = (right + 3 * modulus // 5, modulus) if place.bounded else (10**12, 10**30)
        low_word = 10_000 if place.counter.encoding.type == "bcd32" else 65_536
        shown = {
            "zero": 0,
            "garbage": draw.choice([draw.randint(1, right // 2), draw.randint(far, far + modulus)]),
            "high word stale": right - low_word,
            "counter of another meter": self._place().shown(now),
        }[kind]
        back = 0 <= shown < right - place.device.per_hour * 12
        if not back and not far <= shown < end:
            return ""
        if shown and shown + modulus - right <= modulus // 10 + 50 * place.device.per_hour:
            return ""  # it might have gone once round
        place.spikes = [Spike(kind, lambda _: shown)] * draw.choice([1, 1, 2])
        place.doubtful_until = now + 3 * HOUR
        return f"{place.name} {kind}: {shown} for {right}"

    def _replaced(self) -> str:
        place, now = self._place(), self.site.steps.true
        right = place.shown(now)
        if right < 1_000 or right > place.modulus * 4 // 5 or self._too_soon(place):
            return ""
        serial = f"{place.unit}{len(place.changes) + 2:06d}"
        start, fired = right // 2, "meter replaced, told by agreeing reads"
        if self.draw.random() < 0.4:
            fired = "meter replaced by one that shows more"
            start = right + self._more(place)
            if start > place.modulus * 4 // 5:
                return ""
        device = evolve(place.device, serial=serial, start=start, since=now)
        if start > right and not place.serial and place.max_power is None:
            fired += ", which nothing tells"
        self._put(place, device)
        if place.serial:
            self.site.fired["meter replaced, told by its serial number"] += 1
            self._later(self.draw.choice([HOUR, DAY, 3 * DAY]), lambda: self._take(place))
        else:
            self.site.fired[fired] += 1
        return f"{place.name} replaced: {start} for {right}"

    def _more(self, place: Place) -> int:
        """What it may show more than the former: further than that could have come in a month."""
        if place.max_power is not None:
            return 50 * 24 * place.most_per_hour
        return place.modulus // 10

    def _reset(self) -> str:
        place, now = self._place(), self.site.steps.true
        right = place.shown(now)
        if right < 1_000 or right > place.modulus * 4 // 5 or self._too_soon(place):
            return ""
        self._put(place, evolve(place.device, start=0, since=now))
        self.site.fired["meter reset"] += 1
        return f"{place.name} reset"

    def _too_soon(self, place: Place) -> bool:
        now = self.site.steps.true
        quiet = max([self._calm_since, *place.changes[-1:]])
        unread = not place.last or now - place.last.true > 3 * HOUR
        return now - quiet < 5 * DAY or unread or self._clock_busy or bool(self._removed)

    def _put(self, place: Place, device: Device) -> None:
        now = self.site.steps.true
        turns = place.device.total(now) // place.modulus * place.modulus
        place.device, place.spikes = evolve(device, start=device.start + turns), []
        place.changes.append(now)
        place.doubtful_until = now + 2 * DAY

    def _take(self, place: Place) -> None:
        """A person takes the meter that is there now for right."""
        site = self.site
        if not site.up or self._removed == place.name:
            self._later(HOUR, lambda: self._take(place))
            return
        serial = place.device.serial
        place.doubtful_until = site.steps.true + 2 * DAY
        meters = [
            evolve(m, serial_number=serial) if m.name == place.name and m.serial_number else m
            for m in site.config.meters
        ]
        if meters != list(site.config.meters):
            site.change(evolve(site.config, meters=tuple(meters)))
        else:
            site.plant.accept(place.name)
        place.changes.append(site.steps.true)

    def _accept(self) -> str:
        """A person accepts what is held, though nothing need be."""
        site, place = self.site, self._place()
        if not site.up or self._removed or self._too_soon(place) or place.spikes:
            return ""
        if not any(m.name == place.name for m in site.config.meters) or place.trouble:
            return ""
        site.plant.accept(place.name)
        return f"accept {place.name}"

    # -------------------------------------------------------------------------------- the process

    def _kill(self) -> str:
        if not self.site.up:
            return ""
        self.site.kill()
        self.site.fired["kill -9"] += 1
        self._later(self.draw.choice([1, 5, 100, 700, 10_000]) * SECOND, self.site.revive)
        return "kill -9"

    def _fuse(self) -> str:
        """Killed within one of the next calls of the buffer."""
        if not self.site.up:
            return ""
        self.site.store.before = self.draw.random() < 0.5
        self.site.store.fuse = self.draw.randint(0, 25)
        return f"kill -9 in call {self.site.store.fuse}, before it: {self.site.store.before}"

    def _stop(self) -> str:
        if not self.site.up:
            return ""
        self.site.stop()
        self.site.fired["stopped"] += 1
        self._later(self.draw.choice([1, 100, 10_000, 200_000]) * SECOND, self.site.revive)
        return "stopped"

    def _crash_loop(self) -> str:
        if not self.site.up:
            return ""

        def again(left: int) -> None:
            if self.site.up:
                self.site.kill()
            self.site.revive()
            if left:
                self._later(self.draw.randint(1, 200) * SECOND, lambda: again(left - 1))

        again(8)
        self.site.fired["crash loop"] += 1
        return "crash loop"

    # ---------------------------------------------------------------------------------- the clock

    def _power_cut(self, span: Millis) -> None:
        site = self.site
        if site.up:
            site.kill()
        site.steps.run(site.steps.true + span)
        site.machine.boot()

    def _reboot(self) -> str:
        if self._clock_busy:
            return ""
        self._power_cut(self.draw.choice([20, 200, 5_000, 100_000]) * SECOND)
        self.site.revive()
        self.site.fired["power cut, synchronised at boot"] += 1
        return "power cut, synchronised at boot"

    def _boot_without_time(self) -> str:
        """The clock is wrong at boot, and is set after a while, or after another power cut."""
        if self._clock_busy:
            return ""
        site, draw, machine = self.site, self.draw, self.site.machine
        self._clock_busy = True
        self._calm_since = 1 << 62
        fired = "clock not synchronised at boot, then set"

        def boot() -> str:
            self._power_cut(draw.choice([20, 500, 30_000]) * SECOND)
            true = site.steps.true
            where = draw.choice(["1970", "year", "month", "hours", "ahead", "right"])
            off = {
                "1970": -true + 10 * SECOND,
                "year": -365 * DAY,
                "month": -30 * DAY - draw.randrange(DAY),
                "hours": -HOUR * draw.randint(1, 30),
                "ahead": HOUR * draw.randint(1, 9_000),
                "right": 0,
            }[where]
            machine.set(off, synchronised=False)
            site.revive()
            return where

        where = boot()
        cuts = 1 if draw.random() < 0.3 else 0

        def again() -> None:
            site.fired["power cut before the first synchronisation"] += 1
            boot()
            self._later(draw.choice([20 * MINUTE, 5 * HOUR]), known)

        def known() -> None:
            site.fired[fired] += 1
            self._set_clock(0)
            self._clock_busy = False
            self._calm_since = site.steps.true

        wait = draw.choice([30 * SECOND, 20 * MINUTE, 20 * MINUTE, 5 * HOUR, 30 * HOUR])
        self._later(wait, again if cuts else known)
        return f"booted without time ({where})"

    def _step(self) -> str:
        """The clock is set wrong while it is taken to be right, and put right again."""
        if self._clock_busy or not self.site.up:
            return ""
        draw, site = self.draw, self.site
        size = draw.choice([2 * SECOND, 90 * SECOND, 10 * MINUTE, HOUR, DAY, 365 * DAY])
        by = size * draw.choice([-1, 1])
        self._clock_busy = True
        self._calm_since = 1 << 62
        site.api.in_doubt = True
        site.oracle.clock_is_wrong()

        def end() -> None:
            self._set_clock(0)
            site.api.in_doubt = False
            site.oracle.clock_is_right()
            self._clock_busy = False
            self._calm_since = site.steps.true

        self._set_clock(by)
        self._later(draw.choice([40 * SECOND, 20 * MINUTE, 3 * HOUR, 30 * HOUR]), end)
        return f"clock set by {by / 1000:+.0f} s"

    def _set_clock(self, off: Millis) -> None:
        site = self.site
        by = off - site.machine.off
        site.machine.set(off, synchronised=True)
        site.judge.clock_set = site.steps.true
        if abs(by) > SECOND:
            site.fired["clock set " + ("forward" if by > 0 else "back")] += 1
        # Who looks at the clock every two seconds or every minute will have looked by then.
        site.steps.hurry(self.draw.choice([10, 2_000]))

    # -------------------------------------------------------------------------------- Energinet

    def _answer(self) -> str:
        api, draw = self.site.api, self.draw
        if api.episode:
            return ""
        episode = draw.choice([row for row in ROWS if row != "taken"])
        ids = [send.key.meter_id for m in self.site.config.meters for send in m.send]
        api.begin(episode, draw.choice(ids))
        return f"Energinet: {episode} ({api.target}) × {api.left}"

    def _long_outage(self) -> str:
        """Energinet is down for weeks, and then finds the backlog too large."""
        api = self.site.api
        if api.episode:
            return ""

        def end() -> None:
            api.episode, api.left = "large", 3

        api.episode, api.left = "down_503", 1 << 30
        self._later(15 * DAY, end)
        return "Energinet: down for 15 days"

    # ---------------------------------------------------------------------------- the configuration

    def _remove_meter(self) -> str:
        site, place = self.site, self._place()
        if self._removed or not site.up or self._too_soon(place) or place.trouble:
            return ""
        left = tuple(m for m in site.config.meters if m.name != place.name)
        gone = tuple(m for m in site.config.meters if m.name == place.name)
        self._removed = place.name
        site.change(evolve(site.config, meters=left))

        def back() -> None:
            self._removed = ""
            site.change(evolve(site.config, meters=(*site.config.meters, *gone)))
            self._calm_since = site.steps.true

        self._later(self.draw.choice([2 * HOUR, DAY, 9 * DAY]), back)
        site.fired["meter taken out of the configuration, and back"] += 1
        return f"{place.name} removed"

    def _move_sender(self) -> str:
        site, place = self.site, self._place()
        now = site.steps.true
        if not site.up or self._removed or site.oracle.ambiguous(now + DAY):
            return ""
        if any(site.oracle.ambiguous(now - days * DAY) for days in range(4)):
            return ""
        meters = []
        for meter in site.config.meters:
            send = meter.send
            if meter.name == place.name:
                to = "attic" if send[0].sender == "basement" else "basement"
                send = tuple(evolve(one, sender=to) for one in send)
            meters.append(evolve(meter, send=send))
        site.change(evolve(site.config, meters=tuple(meters)))
        site.fired["meter moved to another sender"] += 1
        return f"{place.name} moved"

    # ---------------------------------------------------------------------------------- the buffer

    def _full(self) -> str:
        site = self.site

        def end() -> None:
            site.full = False

        site.full = True
        site.fired["disk full"] += 1
        self._later(self.draw.choice([5 * MINUTE, HOUR, 5 * HOUR]), end)
        return "disk full"

    def _backfill(self) -> str:
        """Hours around the age that Energinet still takes, from elsewhere."""
        site, draw = self.site, self.draw
        if not site.up or site.full or site.machine.off or not site.machine.is_synchronised:
            return ""
        if BACKFILL in site.backfilled:
            return ""
        site.backfilled.add(BACKFILL)
        site.declare(
            Series(BACKFILL, "imported", "active_energy_import_total", "counter", HOUR, "basement")
        )
        first = (site.steps.true - 5 * 365 * DAY - 10 * DAY) // HOUR * HOUR
        stamps = [first + nth * HOUR for nth in range(draw.randint(10, 900))]
        at_once(
            site.store.append(
                Commit(tuple(Reading(BACKFILL, at, Decimal(at // HOUR)) for at in stamps))
            )
        )
        for uploader in site.plant.uploaders.values():
            uploader.poke()
        site.fired["values older than five years"] += 1
        return "backfill"
