"""Energinet as it is documented, with every answer of the table; it notes each broken rule."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import formatdate
from typing import Any, Final
from zoneinfo import ZoneInfo

from attrs import define, field

from gateway.clock import Instant, Millis
from gateway.energinet.response import Response
from gateway.energinet.settings import Secret
from gateway.errors import NoAnswer
from tests.simulation.years.oracle import Broken
from tests.simulation.years.steps import Machine, Steps

SLOT: Final[Millis] = 600_000
MOST_BYTES: Final = 500_000

ROWS: Final[dict[str, str]] = {
    "taken": "2xx, each entry with the count sent",
    "missing": "2xx, an entry is missing",
    "contradiction": "2xx, two entries that differ",
    "short": "2xx, another count",
    "refused": "2xx, an entry with another status",
    "html": "2xx, HTML",
    "object": "2xx, not a list",
    "empty": "2xx, empty",
    "cut": "2xx, cut off",
    "redirect": "3xx",
    "body_400": "400 for the whole body",
    "body_422": "422 for the whole body",
    "token_401": "401",
    "token_403": "403",
    "gone_404": "404",
    "other_405": "405, other 4xx",
    "conflict": "409",
    "large": "413",
    "many": "429",
    "many_seconds": "429, Retry-After in seconds",
    "many_date": "429, Retry-After as a date",
    "early_hints": "1xx",
    "down_500": "5xx",
    "down_503": "5xx, for longer than an hour",
    "unreached": "refused, DNS, TLS",
    "silent": "timeout",
    "lost": "timeout after the server stored",
}
"""What an episode is called, and its row of the answer table."""

_REQUESTS: Final = {"conflict": 5, "down_503": 12, "unreached": 9, "short": 9, "token_401": 4}
"""How many requests an episode lasts at most; else 3."""


_ABOUT_ONE: Final = frozenset({"missing", "contradiction", "short", "refused"})
"""Episodes in which the other meters of the body are taken."""


@define(eq=False)
class Energinet:
    """The one endpoint; `receives` is told of each body before it is answered, `took` of
    what of it an answer that arrived confirms; `ambiguous`: may a stamp have two values?"""

    steps: Steps
    machine: Machine
    zone: ZoneInfo
    draw: random.Random
    receives: Callable[[str, list[Any], int], None]
    took: Callable[[list[Any]], None]
    ambiguous: Callable[[str], bool]
    held: dict[str, dict[str, Decimal]] = field(factory=dict)
    """MeterID to stamp, as it was sent, to value."""
    sent: dict[str, dict[str, Decimal]] = field(factory=dict)
    """The same of all that was ever sent."""
    rows: Counter[str] = field(factory=Counter)
    requests: int = 0
    values: int = 0
    largest: int = 0
    episode: str = ""
    left: int = 0
    """Requests until all is well again."""
    target: str = ""
    """The meterID that the episode is about."""
    in_doubt: bool = False
    """Is the wall clock wrong though the machine takes it for right?"""
    _next: dict[str, tuple[Instant, Instant]] = field(factory=dict)
    """Sender to when it may ask again: never before, and not before as long as it lives."""
    _refusals: Counter[str] = field(factory=Counter)
    _under_way: str = ""

    def begin(self, episode: str, target: str) -> None:
        """Answer the next requests like that."""
        self.episode, self.target = episode, target
        self.left = self.draw.randint(1, _REQUESTS.get(episode, 3))

    def forgotten(self) -> None:
        """The gateway was killed: of its slots it knows what it kept. A request that was under way
        has ended."""
        if self._under_way:
            self._next[self._under_way] = (self.steps.true + SLOT,) * 2
            self._under_way = ""
        self._next = {name: (never, never) for name, (never, _) in self._next.items()}

    async def post(self, data: bytes, token: Secret, *, deadline: float) -> Response:
        """One request, as the gateway's client makes it."""
        sender, began = token.reveal(), self.steps.true
        never, told = self._next.get(sender, (0, 0))
        if began < max(never, told):
            raise Broken(f"{sender} asked {max(never, told) - began} ms early")
        self.requests += 1
        self.largest = max(self.largest, len(data))
        if len(data) > MOST_BYTES:
            raise Broken(f"{len(data)} bytes")
        sets = json.loads(data, parse_float=Decimal, parse_int=Decimal)
        self._check(sets)
        self.receives(sender, sets, len(data))
        episode = self._episode(sets)
        self.rows[episode] += 1
        good = sets if episode in ("taken", "lost") else []
        if episode in _ABOUT_ONE:
            good = [one for one in sets if one["meterID"] != self.target]
        self._store(good)
        if episode not in ("refused", "body_400", "body_422") and self.draw.random() < 0.3:
            self._store(sets)
        self._under_way = sender
        took = deadline + 1 if episode in ("silent", "lost") else self.draw.uniform(0.1, 3)
        await self.machine.sleep(min(took, deadline))
        self._under_way = ""
        now = self.steps.true
        self._next[sender] = (now + SLOT, now + SLOT)
        if episode in ("silent", "lost"):
            raise NoAnswer("timeout", "no answer", sent=True)
        if episode == "unreached":
            reason = self.draw.choice(["refused", "dns", "tls"])
            raise NoAnswer(reason, f"{reason} on purpose", sent=False)
        status, headers, body, slots = self._answer(sender, episode, sets)
        self._next[sender] = (now + SLOT, now + round(slots * SLOT))
        self.took(good)
        dated = {**headers, "date": formatdate(now / 1000, usegmt=True)}
        return Response(status, dated, body, episode != "cut", took)

    # ----------------------------------------------------------------------------- the answers

    def _episode(self, sets: list[Any]) -> str:
        """What this request meets."""
        if not self.episode:
            return "taken"
        about = [str(one["meterID"]) for one in sets]
        episode = self.episode
        if episode in _ABOUT_ONE or episode.startswith("body"):
            if self.target not in about:
                return "taken"
        elif episode == "large" and sum(len(one["values"]) for one in sets) < 40:
            self.episode = ""
            return "large" if self.left == 3 else "taken"
        self.left -= 1
        if self.left <= 0:
            self.episode = ""
        return episode

    def _answer(
        self, sender: str, episode: str, sets: list[Any]
    ) -> tuple[int, Mapping[str, str], bytes, float]:
        """Status, headers, body, and for how many slots the sender has to be quiet."""
        refusals = self._refusals[sender] + 1 if episode.startswith("token") else 0
        self._refusals[sender] = refusals
        match episode:
            case "html":
                return 200, {}, b"<html>Welcome</html>", 1
            case "object":
                return 200, {}, b'{"status": 201}', 1
            case "empty":
                return 204, {}, b"", 1
            case "redirect":
                return 302, {"location": "https://elsewhere.example/"}, b"", 6
            case "body_400" | "body_422":
                return int(episode[-3:]), {}, b"", 1
            case "token_401" | "token_403":
                return int(episode[-3:]), {}, b"", 1 if refusals == 1 else 6
            case "gone_404" | "other_405":
                return int(episode[-3:]), {}, b"", 6
            case "conflict":
                return 409, {}, b"", 1
            case "large":
                return 413, {}, b"", 1
            case "many":
                return 429, {}, b"", 1
            case "many_seconds":
                seconds = self.draw.choice([0, 60, 1800, 7200, 10**6])
                return 429, {"retry-after": str(seconds)}, b"", _held(seconds)
            case "many_date":
                seconds = self.draw.choice([-100, 60, 3600])
                at = datetime.fromtimestamp(self.machine.now() // 1000 + seconds, UTC)
                text = at.strftime("%a, %d %b %Y %H:%M:%S GMT")
                return 429, {"retry-after": text}, b"", _held(seconds - 1)
            case "early_hints" | "down_500" | "down_503":
                return (
                    {"e": 103, "0": 500, "3": 503}[episode[-1] if episode[0] == "d" else "e"],
                    {},
                    b"",
                    1,
                )
        entries = [self._entry(one) for one in sets]
        mine = [entry for entry in entries if entry["meterID"] == self.target]
        if episode == "missing":
            entries = [entry for entry in entries if entry not in mine]
        for entry in mine:
            if episode == "contradiction":
                entries.append({**entry, "status": 500})
                break
            if episode == "short":
                entry["number_of_values"] += self.draw.choice([-1, 1])
            if episode == "refused":
                entry["status"] = self.draw.choice([404, 422, 500])
        body = json.dumps(entries).encode()
        return 200, {}, body[:-1] if episode == "cut" else body, 1

    def _entry(self, one: Any) -> dict[str, Any]:
        return {
            "meterID": one["meterID"],
            "number_of_values": len(one["values"]),
            "status": self.draw.choice([200, 201]),
        }

    # ------------------------------------------------------------------------------- the rules

    def _check(self, sets: list[Any]) -> None:
        now = self.machine.now() if self.in_doubt else self.steps.true
        # Known: while the clock is not synchronised, what is too old is told by it all the same.
        behind = not self.machine.is_synchronised
        oldest = _five_years_before(min(now, self.machine.now()) if behind else now)
        if len({one["meterID"] for one in sets}) != len(sets):
            raise Broken("a meterID stands twice")
        for one in sets:
            stamps = [stamp for stamp, _ in one["values"]]
            self.values += len(stamps)
            if len(set(stamps)) != len(stamps):
                raise Broken(f"{one['meterID']}: a stamp stands twice")
            sent = self.sent.setdefault(one["meterID"], {})
            for stamp, value in one["values"]:
                if sent.setdefault(stamp, value) != value:
                    if not self.ambiguous(stamp):
                        was = sent[stamp]
                        raise Broken(f"{one['meterID']}: {stamp} was {was}, now {value}")
                    sent[stamp] = value
            for stamp in (min(stamps), max(stamps)):
                at = self.instant(stamp)
                if at > now and not self.ambiguous(stamp):
                    raise Broken(f"{one['meterID']}: {stamp} is in the future")
                if at < oldest:
                    raise Broken(f"{one['meterID']}: {stamp} is too old")

    def _store(self, sets: list[Any]) -> None:
        for one in sets:
            held = self.held.setdefault(one["meterID"], {})
            for stamp, value in one["values"]:
                held[stamp] = value

    def instant(self, stamp: str) -> Instant:
        """What a stamp means; of a repeated hour the first."""
        at = datetime.fromisoformat(stamp)
        return int((at if at.tzinfo else at.replace(tzinfo=self.zone)).timestamp() * 1000)


def _held(seconds: float) -> float:
    return min(max(seconds * 1000 / SLOT, 1.0), 144.0)


def _five_years_before(now: Instant) -> Instant:
    at = datetime.fromtimestamp(now / 1000, UTC)
    day = 28 if (at.month, at.day) == (2, 29) else at.day
    return int(at.replace(year=at.year - 5, day=day).timestamp() * 1000)
