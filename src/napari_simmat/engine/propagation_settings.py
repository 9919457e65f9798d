"""The numbers by which an object is followed through a stack."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PropagationSettings:
    """When an object goes on from one plane to the next, and when it has ended.

    Parameters
    ----------
    min_score
        An answer of the model with a lower score (its estimate of the IoU) ends the object.
    min_overlap
        So does one with a lower IoU with the mask on the plane before.
    max_change
        So does one that is so many times larger or smaller than the mask on the plane before.
    min_contrast
        Pixels whose contrast to the surroundings is a smaller part of the object's contrast on its
        annotated plane are no longer of it: out of focus an object fades before it is gone. 0 to
        take them in however faint they are. An object that brightness does not tell from its
        surroundings is not tested.
    slope
        How far the outline may move sideways per distance between planes, both in the unit of the
        spacing; what lies further away is cut off.
    reach
        How far it may move at least, as a part of the object's radius.
    min_likeness
        Between two annotated planes, an answer with a lower IoU with the interpolated shape is
        replaced by that shape.
    """

    min_score: float = 0.5
    min_overlap: float = 0.3
    max_change: float = 3.0
    min_contrast: float = 0.3
    slope: float = 1.0
    reach: float = 0.5
    min_likeness: float = 0.6

    def __post_init__(self) -> None:
        for name in ("min_score", "min_overlap", "min_contrast", "min_likeness"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is between 0 and 1, not {getattr(self, name):g}.")
        if not self.max_change > 1:
            raise ValueError(f"max_change is larger than 1, not {self.max_change:g}.")
        for name in ("slope", "reach"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is 0 or larger, not {getattr(self, name):g}.")
