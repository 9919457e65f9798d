"""The size of the objects that a lone click means: learned from a few, kept in a description."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

EXPECTED_SIZE = "expected size"
"""Key of an `ExpectedSize` in `ModelSpec.training`."""
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

    log_side: float
    spread: float

    @classmethod
    def of(cls, areas: Sequence[float]) -> ExpectedSize:
        """From areas in pixels."""
        sides = [math.log(area) / 2 for area in areas]
        spread = statistics.stdev(sides) if len(sides) > 1 else 0.0
        return cls(statistics.mean(sides), max(spread, MIN_SIZE_SPREAD))

    @classmethod
    def read(cls, training: Mapping[str, Any]) -> ExpectedSize | None:
        """From `ModelSpec.training`; None if the model did not learn it."""
        return cls(*training[EXPECTED_SIZE]) if EXPECTED_SIZE in training else None

    def misfit(self, area: float) -> float:
        """By how much more than the spread the logarithm of a side differs from the mean."""
        return max(abs(math.log(max(area, 1.0)) / 2 - self.log_side) - self.spread, 0.0)
