"""What meters were seen to refuse, as a profile that spares them the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from gateway.metering.profile import DeviceProfile
from gateway.metering.settings import MeterSettings
from gateway.modbus.map import Lessons, RegisterMap
from gateway.modbus.reader import map_key


@frozen
class Learnt:
    """Of one meter."""

    meter: str
    profile: str
    lessons: Lessons
    patch: str
    """A profile of one's own, as YAML."""


async def learnt_of(meters: Sequence[MeterSettings], buffer: Path) -> list[Learnt]:
    """What the buffer remembers of these meters. Raises StoreError."""
    from gateway.buffer.reads import ReadOnlyStore

    store = ReadOnlyStore(buffer)
    await store.open()
    try:
        states = await store.states()
    finally:
        await store.close()
    return learnt_from(meters, states)


def learnt_from(meters: Sequence[MeterSettings], states: Mapping[str, bytes]) -> list[Learnt]:
    """The same from what pollers kept."""
    found = []
    for meter in meters:
        known = RegisterMap(meter.profile)
        known.recall(states.get(map_key(meter), b""))
        lessons = known.lessons()
        if lessons:
            patch = patch_for(meter.profile, lessons)
            found.append(Learnt(meter.name, meter.profile.name, lessons, patch))
    return found


def patch_for(profile: DeviceProfile, lessons: Lessons) -> str:
    """A profile that extends this one by what was learnt."""
    lines = [f"extends: {profile.name}"]
    requests = []
    if lessons.max_registers:
        requests.append(f"max_registers: {lessons.max_registers}")
    if lessons.splits:
        splits = sorted({*profile.limits.splits, *lessons.splits})
        shown = ", ".join(f"[{function}, {address}]" for function, address in splits)
        requests.append(f"splits: [{shown}]")
    if requests:
        lines.append(f"requests: {{{', '.join(requests)}}}")
    refused = {register for register, _ in lessons.refused}
    without = [q for q in profile.quantities() if refused & set(profile.needs(q))]
    if without:
        lines.append(f"without: [{', '.join(without)}]")
    return "\n".join(lines) + "\n"
