"""Samples of boots that never had the time: what is known of when they were taken. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from gateway.clock import Instant, Millis
from gateway.metering.reading import Sample

Bounded: TypeAlias = tuple[Sample, Instant]
"""A sample and the latest instant that it can be of."""


def bounded(samples: Sequence[Sample], booted: Instant) -> list[Bounded]:
    """Samples in the order in which they were stored, each with the latest instant it can be of.

    A boot had ended when the next one began, the last of them at `booted`; how far apart the
    samples of one boot are is known exactly.
    """
    lengths: dict[str, Millis] = {}
    for sample in samples:
        lengths[sample.boot_id] = max(lengths.get(sample.boot_id, 0), sample.boottime)
    began: dict[str, Instant] = {}
    for boot in reversed(lengths):
        booted -= lengths[boot]
        began[boot] = booted
    return [(sample, began[sample.boot_id] + sample.boottime) for sample in samples]
