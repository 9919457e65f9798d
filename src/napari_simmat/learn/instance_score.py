"""What segmenting everything reached on one image: objects found, invented and missed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.learn.matching import THRESHOLDS, Matching, matches, total

Plane = tuple[int, ...]
Matches = tuple[Matching, ...]
"""Of the objects of one or several planes, one for each of `THRESHOLDS`."""


@dataclass(frozen=True)
class ImageMatches:
    """The figures of one image that was segmented automatically.

    Parameters
    ----------
    name
        Its stem.
    planes
        Each plane and how its objects match, in order.
    too_small
        How many labelled objects were left out for their size.
    """

    name: str
    planes: tuple[tuple[Plane, Matches], ...]
    too_small: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Labelled objects and objects found."""
        return _counts(self._all)

    @property
    def headline(self) -> dict[str, float]:
        """The figures for a table and a history: all planes' objects together."""
        return {name: value for name, value in self.figures.items() if name not in ("sq", "rq")}

    @property
    def figures(self) -> dict[str, float]:
        """Every figure: all planes' objects together."""
        return figures_of(self._all)

    def rows(self) -> Iterator[dict[str, object]]:
        """A row for each plane."""
        for plane, found in self.planes:
            yield {
                "image": self.name,
                "plane": " ".join(map(str, plane)),
                **_counts(found),
                "matched@50": found[0].true_positives,
                **figures_of(found),
            }

    @staticmethod
    def together(images: Sequence[ImageMatches]) -> dict[str, float]:
        """The figures of all images' objects as if they were of one image."""
        return figures_of(_added([image._all for image in images]))

    @property
    def _all(self) -> Matches:
        return _added([found for _, found in self.planes])


def plane_matches(found: NDArray[Any], truth: NDArray[Any], ignored: NDArray[np.bool_]) -> Matches:
    """How the objects found on a plane match the labelled ones.

    Parameters
    ----------
    found, truth
        Label images (Y, X).
    ignored
        Where objects are labelled that do not count: those found there, to more than half, do not
        count either.
    """
    if ignored.any():
        areas = np.bincount(found.ravel().astype(np.intp))
        beside = np.bincount(found[ignored].astype(np.intp), minlength=len(areas))
        dropped = 2 * beside > areas
        found = np.where(dropped[found.astype(np.intp)], 0, found)
        truth = np.where(ignored, 0, truth)
    return matches(found, truth)


def figures_of(found: Matches) -> dict[str, float]:
    """Average precision at IoU 0.5, 0.75 and as the mean of ten thresholds; panoptic quality."""
    precision = dict(zip(THRESHOLDS, (each.average_precision for each in found), strict=True))
    quality = found[0].quality
    return {
        "ap@50": precision[0.5],
        "ap@75": precision[0.75],
        "ap": float(np.mean(list(precision.values()))),
        "pq": quality.pq,
        "sq": quality.sq,
        "rq": quality.rq,
    }


def _added(several: Sequence[Matches]) -> Matches:
    return tuple(total(each[at] for each in several) for at in range(len(THRESHOLDS)))


def _counts(found: Matches) -> dict[str, int]:
    first = found[0]
    return {
        "objects": first.true_positives + first.false_negatives,
        "found": first.true_positives + first.false_positives,
    }
