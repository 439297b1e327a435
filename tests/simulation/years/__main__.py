"""Play one number again: `python -m tests.simulation.years --seed 7 --years 1`."""

from __future__ import annotations

import argparse

from gateway.clock import DAY
from tests.simulation.years import CALM_AT_THE_END, EVERY, Figures, play

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--years", type=float, default=1.0)
parser.add_argument("--every", type=float, default=EVERY / DAY, help="days between two faults")
parser.add_argument("--calm", type=float, default=CALM_AT_THE_END / DAY, help="days at the end")
parser.add_argument("--only", nargs="+", default=(), help="kinds of faults, methods of Faults")
parser.add_argument("--count", type=int, default=1, help="so many numbers from there on")
asked = parser.parse_args()
figures = Figures()
every, calm = round(asked.every * DAY), round(asked.calm * DAY)
for seed in range(asked.seed, asked.seed + asked.count):
    play(seed, asked.years, figures, every=every, calm=calm, only=asked.only)
print(figures.table())  # noqa: T201 - a program for people
