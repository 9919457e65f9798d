"""What the table of objects holds besides size, place and shape, as the user chooses it.

This file needs no numpy, since the command line shows the settings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from napari_simmat.io.plain import OMIT_DEFAULT

DEFAULT_STATISTICS = ("mean", "median", "std", "sum", "p5", "p95")
"""Of the values of an object in each channel."""
OF_PLACES = ("background", "net_sum", "weighted_y", "weighted_x", "weighted_z")
"""Those that need the pixels around an object, or their places; an index has none of them."""
NAMED_STATISTICS = ("mean", "median", "std", "sum", "min", "max", *OF_PLACES)
"""Those that are no percentile."""
NOT_A_STATISTIC = (
    "There is no statistic {!r}; give some of mean, median, std, sum, min, max, background, "
    "net_sum, weighted_y, weighted_x, weighted_z, and percentiles from p0 to p100, separated by "
    "commas."
)
NO_STATISTICS = (
    "No statistic is chosen; give some of mean, median, std, sum, min, max, p5, separated by "
    "commas."
)
NO_SUM = (
    "An index has no sum, background or weighted place, which would mean nothing; choose another "
    "statistic as well."
)
NO_CLASS = "{!r} is no name of a class; give one line of at most {} characters."
TWICE = "{} is chosen twice; give each statistic and each index once."
_LONGEST_CLASS = 100
_PERCENTILE = re.compile(r"p(\d{1,3}(?:\.\d{1,3})?)")


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """What is measured of the values of each object.

    Parameters
    ----------
    statistics
        Of each channel and index: some of `NAMED_STATISTICS`, and percentiles such as ``p5``.
    indices
        Spectral indices: names of `engine.channels.indices.INDICES`, or ``name=formula``.
    all_channels
        Whether all channels of the image are measured, or those alone that the model reads.
    object_class
        The class of objects that are segmented, unless their prompts give them one; empty for none.
    """

    statistics: tuple[str, ...] = DEFAULT_STATISTICS
    indices: tuple[str, ...] = ()
    all_channels: bool = False
    object_class: Annotated[str, OMIT_DEFAULT] = ""

    def __post_init__(self) -> None:
        if not (self.object_class.isprintable() and len(self.object_class) <= _LONGEST_CLASS):
            raise ValueError(NO_CLASS.format(self.object_class[:20], _LONGEST_CLASS))
        check_statistics(self.statistics)
        if self.indices and set(self.statistics) <= {"sum", *OF_PLACES}:
            raise ValueError(NO_SUM)


def parse_statistics(text: str) -> tuple[str, ...]:
    """The statistics of a list separated by commas; ValueError for one that does not exist."""
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    check_statistics(names)
    return names


def check_statistics(names: tuple[str, ...]) -> None:
    """Raise ValueError unless `names` are different statistics, at least one."""
    if not names:
        raise ValueError(NO_STATISTICS)
    for number, name in enumerate(names):
        if name not in NAMED_STATISTICS and percentile_of(name) is None:
            raise ValueError(NOT_A_STATISTIC.format(name))
        if name in names[:number]:
            raise ValueError(TWICE.format(name))


def percentile_of(name: str) -> float | None:
    """The percentile that a statistic is, 0 to 100, of the median 50; None for the others."""
    if name == "median":
        return 50.0
    found = _PERCENTILE.fullmatch(name)
    return float(found[1]) if found and float(found[1]) <= 100 else None
