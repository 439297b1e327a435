"""Where intervals begin and end: the site's clock times, right over every jump of its clock.

A boundary is an instant at which the site's clock shows a multiple of `every`, counted from local
midnight. Two rules say what happens where the clock jumps:

- forward, over one or more such times: the jump itself is the boundary in their place;
- back, so that such a time comes twice: both are boundaries where the repeated stretch is as long
  as `every` or longer, else only the first. So an hourly site has two intervals that begin at
  02:00 on that night, and a daily one has one long day, never a day of one hour.

Consecutive boundaries tile time: an interval is what lies after one boundary, up to and with the
next.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from attrs import frozen

from gateway.clock import DAY, MINUTE, SECOND, Instant, Millis


@lru_cache(maxsize=1024)
def next_boundary(after: Instant, every: Millis, zone: ZoneInfo) -> Instant:
    """The first boundary strictly after `after`. `every` divides the day."""
    offset = _offset(after, zone)
    local = ((after + offset) // every + 1) * every
    at = local - offset
    if _offset(at, zone) == offset:
        return next_boundary(at, every, zone) if _second_and_too_soon(at, every, zone) else at
    jump = _jump(after, at, zone)
    now = _offset(jump, zone)
    if now > offset:
        return max(jump, local - now)
    first = jump + (now if every <= offset - now else offset)
    return -(-first // every) * every - now


@lru_cache(maxsize=1024)
def previous_boundary(at: Instant, every: Millis, zone: ZoneInfo) -> Instant:
    """The last boundary strictly before `at`: where the interval began that ends at `at`."""
    before = at - 1
    offset = _offset(before, zone)
    local = (before + offset) // every * every
    found = local - offset
    if _offset(found, zone) == offset:
        again = _second_and_too_soon(found, every, zone)
        return previous_boundary(found, every, zone) if again else found
    jump = _jump(found, before, zone)
    was = _offset(jump - 1, zone)
    if was < offset:
        return jump if local >= jump + was else local - was
    return (-(-(jump + was) // every) - 1) * every - was


def is_boundary(at: Instant, every: Millis, zone: ZoneInfo) -> bool:
    """Does an interval end, and the next begin, at `at`?"""
    return next_boundary(at - 1, every, zone) == at


def latest_boundary(until: Instant, every: Millis, zone: ZoneInfo) -> Instant:
    """The last boundary at or before `until`."""
    return previous_boundary(until + 1, every, zone)


def count_boundaries(after: Instant, until: Instant, every: Millis, zone: ZoneInfo) -> int:
    """How many boundaries lie after `after`, up to and with `until`. Takes a step a day at most."""
    total = 0
    while after < until:
        end = min(after + DAY, until)
        offset = _offset(after, zone)
        if _offset(end, zone) == offset and not (_fold(after, zone) or _fold(end, zone)):
            total += (end + offset) // every - (after + offset) // every
            after = end
            continue
        while after < end:
            after = next_boundary(after, every, zone)
            total += after <= until
    return total


@frozen
class Repeat:
    """What the site's clock shows twice: from `start` to `turn`, and again from there to `end`."""

    start: Instant
    turn: Instant
    end: Instant

    @property
    def length(self) -> Millis:
        """How far the clock goes back."""
        return self.turn - self.start


@lru_cache(maxsize=64)
def repeats(since: Instant, until: Instant, zone: ZoneInfo) -> tuple[Repeat, ...]:
    """Where the site's clock goes back between two instants, oldest first. Looks once a day."""
    found = []
    offset = _offset(since, zone)
    while since < until:
        day = min(since + DAY, until)
        was, offset = offset, _offset(day, zone)
        if offset < was:
            turn = _jump(since, day, zone)
            found.append(Repeat(turn - (was - offset), turn, turn + (was - offset)))
        since = day
    return tuple(found)


def window(every: Millis) -> Millis:
    """How long after a boundary its value may still be sampled."""
    return min(max(every // 10, SECOND), MINUTE)


def next_poll(after: Instant, poll: Millis, zone: ZoneInfo) -> Instant:
    """The first poll strictly after `after`: on boundaries of `poll` where it divides the day."""
    if DAY % poll == 0:
        return next_boundary(after, poll, zone)
    return (after // poll + 1) * poll


def _offset(at: Instant, zone: ZoneInfo) -> Millis:
    """How far the site's clock is ahead of UTC."""
    delta = datetime.fromtimestamp(at // 1000, zone).utcoffset()
    assert delta is not None
    return (delta.days * 86_400 + delta.seconds) * 1000


def _fold(at: Instant, zone: ZoneInfo) -> int:
    return datetime.fromtimestamp(at // 1000, zone).fold


def _second_and_too_soon(at: Instant, every: Millis, zone: ZoneInfo) -> bool:
    """Does the clock show this time again, after less than `every`?"""
    shown = datetime.fromtimestamp(at // 1000, zone)
    if not shown.fold:
        return False
    first, second = shown.replace(fold=0).utcoffset(), shown.utcoffset()
    assert first is not None
    assert second is not None
    return (first - second).total_seconds() * 1000 < every


def _jump(before: Instant, after: Instant, zone: ZoneInfo) -> Instant:
    """The first instant after `before` with another offset; `after` is known to have one."""
    offset = _offset(before, zone)
    low, high = before // 1000, after // 1000
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(middle * 1000, zone) == offset:
            low = middle
        else:
            high = middle
    return high * 1000
