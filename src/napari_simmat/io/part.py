"""Which part of an image is read: a level of its pyramid, a size of pixels, a region.

This file needs no numpy, since the command line shows these options.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

LENGTHS = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "mm": 1e3, "cm": 1e4}
"""Units of a region, in micrometers."""
WRONG_REGION = (
    "The region {!r} is not four numbers; write Y0,X0,Y1,X1 in pixels of level 0, or with a unit "
    "behind, e.g. 1000,2000,3000,4000um."
)
EMPTY_REGION = (
    "The region {} ends before it begins; write Y0,X0,Y1,X1 with Y1 above Y0 and X1 above X0."
)
BOTH_SIZES = "A level has a size of pixels already; give --level or --mpp, not both."
_NUMBER = r"\s*(-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*"


@dataclass(frozen=True, kw_only=True)
class ImagePart:
    """Which part of an image is read; by default the whole of its finest level.

    Parameters
    ----------
    level
        Level of a pyramid, 0 for the finest.
    mpp
        Micrometers to a pixel: the nearest finer level is read, and reduced to that size.
    region
        ``Y0,X0,Y1,X1``, half-open, in pixels of level 0; with a unit behind (nm, um, mm, cm) as
        lengths from the upper left corner.

    Raises
    ------
    ValueError
        If the region is not four numbers, or both level and mpp are given.
    """

    level: int | None = None
    mpp: float | None = None
    region: str = ""

    def __post_init__(self) -> None:
        if self.level is not None and self.mpp is not None:
            raise ValueError(BOTH_SIZES)
        if self.level is not None and self.level < 0:
            raise ValueError(f"Levels count from 0, the finest; there is no level {self.level}.")
        if self.mpp is not None and not 0 < self.mpp < math.inf:
            raise ValueError(f"The micrometers to a pixel are above 0, not {self.mpp}.")
        if self.region:
            numbers, _ = self.bounds
            if not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
                raise ValueError(EMPTY_REGION.format(self.region))

    def __bool__(self) -> bool:
        """Whether it is less than the whole finest level."""
        return bool(self.level or self.mpp is not None or self.region)

    @property
    def bounds(self) -> tuple[tuple[float, float, float, float], str]:
        """The numbers of the region, and their unit, empty for pixels."""
        units = "|".join(LENGTHS)
        pattern = ",".join([_NUMBER] * 4) + rf"({units})?\s*"
        found = re.fullmatch(pattern, self.region)
        if found is None:
            raise ValueError(WRONG_REGION.format(self.region))
        y0, x0, y1, x1 = (float(found[number]) for number in range(1, 5))
        return (y0, x0, y1, x1), (found[5] or "").replace("µ", "u")

    def over(self, other: ImagePart) -> ImagePart:
        """Fill in from `other` what this part leaves open."""
        made = self
        if self.level is None and self.mpp is None:
            made = replace(made, level=other.level, mpp=other.mpp)
        return made if made.region else replace(made, region=other.region)

    def __str__(self) -> str:
        """As options of a command."""
        words = [
            *([] if self.level is None else [f"--level {self.level}"]),
            *([] if self.mpp is None else [f"--mpp {self.mpp:g}"]),
            *([f"--region {self.region}"] if self.region else []),
        ]
        return " ".join(words)


WHOLE = ImagePart()
"""All of the finest level."""
