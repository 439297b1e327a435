"""Play one number again: `python -m tests.simulation.years --seed 7 --years 1`."""

from __future__ import annotations

import argparse

from tests.simulation.years import Figures, play

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--years", type=float, default=1.0)
parser.add_argument("--count", type=int, default=1, help="so many numbers from there on")
asked = parser.parse_args()
figures = Figures()
for seed in range(asked.seed, asked.seed + asked.count):
    play(seed, asked.years, figures)
print(figures.table())  # noqa: T201 - a program for people
