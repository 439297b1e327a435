"""The likely cause, in words, of what a line or a meter does wrong. Pure.

What a unit answers, what the others on its bus do, and what is overheard between requests tell
apart what an electrician would look for: the wiring, the settings of the line, one meter's own, a
second master, two meters with one unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.modbus.health import UnitReport
from gateway.modbus.line import LinkReport

_OFTEN: Final = 3
"""So often is no accident."""
_HALF: Final = 0.5
_CLEAN: Final = 0.02  # share of damaged answers that any line may have
_WORSE: Final = 3.0  # times the share of damaged short answers, which are a tenth as long
_MIXED: Final = ("unit", "function", "length")  # sound answers, but to other requests


def likely_cause(unit: UnitReport, units: Sequence[UnitReport], link: LinkReport) -> str:
    """Why this unit is silent, or its answers damaged; empty where nothing is wrong, or nothing
    tells. `units`: those of its bus.
    """
    if not link.up:
        return ""  # the link's own error says it
    if unit.state == "online" and not _noisy(unit):
        return ""
    others = [other for other in units if other.meter != unit.meter]
    return _overheard(unit, link) or _damage(unit, others, link) or _silence(unit, others, link)


def _overheard(unit: UnitReport, link: LinkReport) -> str:
    kinds = [(one.kind, one.unit) for one in link.overheard]
    if kinds.count(("late", unit.unit)) >= _OFTEN:
        return f"it answers, but later than {unit.longest:g} s: give its bus a longer timeout"
    if sum(kind == "foreign" for kind, _ in kinds) >= _OFTEN:
        return "another master asks on this line, and only one may"
    return ""


def _damage(unit: UnitReport, others: Sequence[UnitReport], link: LinkReport) -> str:
    mixed, damaged = _count(unit, *_MIXED), _count(unit, "crc")
    if mixed >= _OFTEN and mixed > damaged:
        if link.on_a_line:
            return "answers to other requests come: another master asks on this line"
        return "answers to other requests come: the gateway before it mixes up its clients"
    if damaged < _OFTEN or damaged < _count(unit, "timeout"):
        return ""
    if not link.on_a_line:
        return "answers are damaged behind the gateway: look at the line there"
    neighbours = [other for other in others if other.last_answer is not None]
    only_this_one = bool(neighbours) and not any(_noisy(other) for other in neighbours)
    if unit.last_answer is None:
        if not neighbours:
            return "what comes makes no sense: another baud rate or parity than the meter has"
        return f"two meters with unit {unit.unit}, or another baud rate or parity than the others"
    if only_this_one and damaged > _HALF * len(unit.recent):
        return f"two meters with unit {unit.unit}, or a loose wire at this one"
    if _share(unit, long=True) > max(_CLEAN, _WORSE * _share(unit, long=False)):
        return (
            "long answers are damaged and short ones are not: termination (120 ohm at both ends), "
            "or a branch that is too long"
        )
    return "noise on the line: termination (120 ohm at both ends), shield, power cables beside it"


def _silence(unit: UnitReport, others: Sequence[UnitReport], link: LinkReport) -> str:
    if unit.reason == "exception_11":
        return "the gateway before it hears nothing from it: its power, wires and unit"
    if unit.reason == "exception_10":
        return "the gateway before it has no path to this unit: the gateway's settings"
    if unit.reason != "timeout":
        return ""
    if any(other.state == "online" for other in others):
        if unit.last_answer is not None:
            return "only this meter fell silent: its power, or its wires"
        return "others on this bus answer: this one's power, unit, baud rate and parity"
    if not link.on_a_line:
        return "it takes the connection but answers nothing: the unit, or another client holds it"
    if any(one.last_answer is not None for one in (unit, *others)):
        return "all that answered before are silent: a cable that is cut or unplugged, or no power"
    if any(one.kind == "echo" for one in link.overheard):
        return "only our own requests come back: the wires A and B, or nothing is connected"
    if not others:
        return "nobody on this line answers: A and B swapped, or another baud rate, parity or unit"
    return "nobody on this line answers: A and B swapped, or another baud rate or parity"


def _count(unit: UnitReport, *reasons: str) -> int:
    return sum(outcome.reason in reasons for outcome in unit.recent)


def _share(unit: UnitReport, *, long: bool) -> float:
    """Of the long or the short answers, those that were damaged."""
    those = [outcome.reason == "crc" for outcome in unit.recent if outcome.long == long]
    return sum(those) / len(those) if those else 0.0


def _noisy(unit: UnitReport) -> bool:
    bad = _count(unit, "crc", *_MIXED)
    return bad >= _OFTEN and bad > _CLEAN * len(unit.recent)
