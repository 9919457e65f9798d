"""Settings of propagation; needs no numpy, since the command line shows them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PropagationSettings:
    """When an object continues on the next plane, and when it has ended.

    Parameters
    ----------
    min_score
        A mask with a lower score (predicted IoU) ends the object.
    min_overlap
        So does a mask with a lower IoU with that of the plane before.
    max_change
        So does a mask that is more times larger or smaller than that of the plane before.
    min_contrast
        Pixels with a smaller fraction of the object's contrast on its annotated plane are cut
        off: out of focus an object fades before it ends. 0 keeps them. The test is skipped for
        objects that brightness does not distinguish from their surroundings.
    slope
        How far the outline may move sideways per distance between planes, both in the unit of the
        spacing; the mask is cut off beyond.
    reach
        How far it may move in any case, in radii of the object.
    min_likeness
        Between two annotated planes, a mask with a lower IoU with the interpolated shape is
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
