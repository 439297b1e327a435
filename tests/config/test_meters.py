from __future__ import annotations

from collections import Counter

from gateway.config.meters import spread
from gateway.energinet.settings import Secret, SenderSettings


def senders(count: int) -> list[SenderSettings]:
    return [SenderSettings(f"sender-{n}", "north", lambda: Secret("x")) for n in range(count)]


def test_meters_are_spread_evenly_over_the_senders_of_an_import() -> None:
    counts = Counter(spread(f"meter-{n}", senders(10)).name for n in range(2000))
    assert min(counts.values()) > 140
    assert max(counts.values()) < 270


def test_one_sender_more_moves_only_the_meters_that_it_takes() -> None:
    before = {n: spread(f"meter-{n}", senders(10)).name for n in range(1000)}
    after = {n: spread(f"meter-{n}", senders(11)).name for n in range(1000)}
    moved = {n for n in before if before[n] != after[n]}
    assert {after[n] for n in moved} == {"sender-10"}
    assert 50 < len(moved) < 140


def test_the_order_of_the_senders_does_not_matter() -> None:
    for n in range(50):
        name = f"meter-{n}"
        assert spread(name, senders(7)).name == spread(name, senders(7)[::-1]).name


def test_the_sender_of_a_meter_stays_the_same_from_release_to_release() -> None:
    # Written down from the first release: a change would move meters between senders.
    found = [spread(f"meter-{n}", senders(5)).name[-1] for n in range(12)]
    assert "".join(found) == "414340343144"
