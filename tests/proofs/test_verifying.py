"""The right answer is among the first three: every profile, every unit, every mistake.

The profiles that are shipped, and for each a meter that has the same in another form: another
function, the other word order, integers for floats. Somebody reads the display, types for 15 s,
and has made one mistake in the profile or configuration, or none. Printed: for each mistake the
worst place of the right answer, and how many reads it took.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

from gateway.metering.profile import DeviceProfile
from gateway.metering.quantity import QUANTITIES
from tests.modbus.displays import cases, compared, is_seen, quantities_of, rank_of, true_profiles

PROFILES = true_profiles()


def kind_of(mistake: str) -> str:
    """For the table: the mistakes that differ by a number only share a column."""
    words = mistake.split(" ")
    alone = {"address", "notation", "scale", "multiplier"}
    if words[0] == "multiplier" and words[-1] == "right":
        return "multiplier, right"
    return words[0] if words[0] in alone else mistake


def quantities(profile: DeviceProfile, seed: int) -> list[str]:
    """One of each unit at first, then all."""
    if not seed:
        return quantities_of(profile)
    return [register.name for register in profile.registers if register.name in QUANTITIES]


@pytest.mark.timeout(3600)
async def test_the_right_answer_is_among_the_first_three_for_every_profile_and_mistake(
    short: bool,
) -> None:
    worst: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    firsts = shown = requests = most = same = chance = 0
    missed: list[str] = []
    for seed, profiles in ((0, PROFILES[:: 8 if short else 1]), (1, PROFILES[::9])):
        if seed and short:
            continue
        for profile in profiles:
            for quantity in quantities(profile, seed):
                for case in cases(profile, quantity, seed):
                    _, comparison = await compared(case)
                    rank = rank_of(case, comparison)
                    kind = kind_of(case.mistake)
                    worst[profile.name][kind] = max(worst[profile.name][kind], rank)
                    shown, firsts = shown + 1, firsts + (rank == 1)
                    if kind not in ("none", "multiplied twice", "multiplier, right"):
                        seen = is_seen(case)
                        same += not seen
                        chance += seen and not comparison.candidates[0].mistakes
                    requests += comparison.requests
                    most = max(most, comparison.requests)
                    if rank not in (1, 2, 3):
                        missed.append(f"{case.name} (seed {seed}): {rank}")
    print(f"{len(worst)} profiles, {shown} values shown: the right answer came first for {firsts}")
    print(f"mistakes that change nothing at the moment: {same}; that read what is shown: {chance}")
    print(f"reads: {requests / shown:.1f} a value, at most {most}")
    kinds = dict.fromkeys(kind for row in worst.values() for kind in row)
    places = [f"{kind} {max(row.get(kind, 0) for row in worst.values())}" for kind in kinds]
    print(f"the worst place of the right answer: {', '.join(places)}")
    assert len(worst) >= (15 if short else 30)
    assert missed == []
    assert chance < 0.002 * shown
