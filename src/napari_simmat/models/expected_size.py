"""The size of the objects that a lone click means: learned from a few, kept in a description."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from napari_simmat.io.plain import from_plain

EXPECTED_SIZE = "expected size"
"""Key of an `ExpectedSize` in `ModelSpec.training`."""
WHERE = "The expected size of objects"
MIN_SIZE_SPREAD = 0.3
"""Least spread of sizes: a few objects that happen to be alike tell little of the others."""


class ExpectedSize(NamedTuple):
    """Size of the objects that a lone click means.

    Attributes
    ----------
    log_side
        Mean logarithm of the square root of their areas, in pixels of the network's input.
    spread
        Its standard deviation.
    """

    log_side: Annotated[float, {"min": -5, "max": 15}]
    spread: Annotated[float, {"above": 0, "max": 15}]

    @classmethod
    def of(cls, areas: Sequence[float]) -> ExpectedSize:
        """From areas in pixels."""
        sides = [math.log(area) / 2 for area in areas]
        spread = statistics.stdev(sides) if len(sides) > 1 else 0.0
        return cls(statistics.mean(sides), max(spread, MIN_SIZE_SPREAD))

    @classmethod
    def read(cls, training: Mapping[str, Any]) -> ExpectedSize | None:
        """From `ModelSpec.training`, which is untrusted; None if the model did not learn it."""
        if EXPECTED_SIZE not in training:
            return None
        two = from_plain(tuple[float, float], training[EXPECTED_SIZE], WHERE)
        return from_plain(cls, dict(zip(cls._fields, two, strict=True)), WHERE)

    def misfit(self, area: float) -> float:
        """By how much more than the spread the logarithm of a side differs from the mean."""
        log_side = math.log(max(area, 1.0)) / 2
        return max(abs(log_side - self.log_side) - self.spread, 0.0)
