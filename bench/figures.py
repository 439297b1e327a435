"""What a bench hands over: measures, each with its goal, our figure, and the others' beside it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

OURS = "meter-gateway"


class Missing(Exception):
    """Something that is not ours is not here. Says what, and how to get it."""


@dataclass(frozen=True)
class Goal:
    """A limit out of the design; `at_least`: from below."""

    limit: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Is it?"""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Figure:
    """What one of them reached, as the median of `rounds`; or why there is no figure."""

    who: str
    rounds: tuple[float, ...] = ()
    missing: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.rounds)


@dataclass(frozen=True)
class Measure:
    """One row of the table."""

    what: str
    ours: Figure
    beside: tuple[Figure, ...] = ()
    goal: Goal | None = None
    unit: str = ""
    digits: int = 2
    note: str = field(default="", kw_only=True)

    @property
    def met(self) -> bool | None:
        """Was the goal reached? None where there is none, or no figure."""
        if self.goal is None or not self.ours.rounds:
            return None
        return self.goal.met(self.ours.value)

    def text(self, value: float) -> str:
        """A value as the table shows it."""
        return f"{value:,.{self.digits}f}{self.unit}"

    def shown(self, figure: Figure) -> str:
        """A figure as the table shows it: the median, and how far the rounds lay apart."""
        if not figure.rounds:
            return f"not measured: {figure.missing}"
        low, high = self.text(min(figure.rounds)), self.text(max(figure.rounds))
        spread = f" ({low}–{high})" if low != high else ""
        return self.text(figure.value) + spread


def gather(
    rounds: dict[str, list[float]], missing: dict[str, str], *, ours: str = OURS
) -> tuple[Figure, tuple[Figure, ...]]:
    """Our figure and the others', in the order in which they were measured."""
    figures = [Figure(who, tuple(values)) for who, values in rounds.items() if values]
    figures += [Figure(who, missing=why) for who, why in missing.items()]
    mine = [figure for figure in figures if figure.who == ours]
    others = tuple(figure for figure in figures if figure.who != ours)
    return (mine[0] if mine else Figure(ours, missing="it failed")), others


def lines(measures: Sequence[Measure]) -> str:
    """The measures as a terminal shows them."""
    told = []
    for measure in measures:
        goal = ""
        if measure.goal is not None:
            sign = "≥" if measure.goal.at_least else "≤"
            verdict = {True: "met", False: "MISSED", None: "–"}[measure.met]
            goal = f"   goal {sign} {measure.text(measure.goal.limit)}: {verdict}"
        told.append(f"{measure.what}{goal}")
        told += [
            f"    {figure.who:34} {measure.shown(figure)}"
            for figure in (measure.ours, *measure.beside)
        ]
        told += [f"    {measure.note}"] * bool(measure.note)
    return "\n".join(told)
