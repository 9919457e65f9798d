"""Objects in a stack: their masks, plane by plane."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.footprints import Footprint
from napari_simmat.engine.prompts import Prompt

Plane = tuple[int, ...]
Origin = Literal["annotated", "propagated", "interpolated"]


@dataclass(frozen=True)
class Section:
    """An object on one plane.

    Parameters
    ----------
    footprint
        Its pixels, over (Y, X).
    score
        The model's own estimate of the mask's IoU; NaN where no model was asked.
    origin
        ``"annotated"``: from prompts on this plane; ``"propagated"``: found by the model from the
        planes beside it; ``"interpolated"``: by shape alone, between annotated planes on which the
        model found nothing like it.
    """

    footprint: Footprint
    score: float
    origin: Origin

    def mask(self, shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
        """The pixels as (Y, X) bool."""
        return self.footprint.on_plane((), shape_yx)


@dataclass(frozen=True, eq=False)
class Track:
    """An object through a stack.

    Parameters
    ----------
    object
        The id its prompts gave it, or None.
    shape
        The image's (..., Y, X).
    sections
        The planes on which it is.
    """

    object: int | None
    shape: tuple[int, ...]
    sections: Mapping[Plane, Section]

    def mask(self, plane: int | Sequence[int]) -> NDArray[np.bool_]:
        """The object on one plane (Y, X); all False where it is not."""
        index = (int(plane),) if isinstance(plane, (int, np.integer)) else tuple(plane)
        section = self.sections.get(index)
        size = self.shape[-2], self.shape[-1]
        return np.zeros(size, bool) if section is None else section.mask(size)

    def masks(self) -> Iterator[tuple[Plane, NDArray[np.bool_], float]]:
        """Plane, mask (Y, X) and score of each plane on which the object is, in order."""
        for plane in sorted(self.sections):
            yield plane, self.mask(plane), self.sections[plane].score

    def volume(self) -> NDArray[np.bool_]:
        """The whole object (..., Y, X)."""
        whole = np.zeros(self.shape, bool)
        for plane, mask, _ in self.masks():
            whole[plane] = mask
        return whole

    @property
    def score(self) -> float:
        """Mean score of the planes that have one; NaN where none has."""
        scores = [each.score for each in self.sections.values() if not math.isnan(each.score)]
        return math.fsum(scores) / len(scores) if scores else math.nan

    def footprint(self) -> Footprint:
        """The whole object, over all axes of the image.

        Raises
        ------
        ValueError
            If it is on no plane.
        """
        corners = np.array([(*plane, *s.footprint.corner) for plane, s in self.sections.items()])
        if not len(corners):
            raise ValueError("The object is on no plane: click on it first.")
        sizes = [(*([1] * len(plane)), *s.footprint.shape) for plane, s in self.sections.items()]
        first = corners.min(axis=0)
        block = np.zeros((corners + sizes).max(axis=0) - first, bool)
        for corner, size, section in zip(corners, sizes, self.sections.values(), strict=True):
            start = corner - first
            where = tuple(slice(n, n + length) for n, length in zip(start, size, strict=True))
            block[where] = section.footprint.mask
        return Footprint.of(block, tuple(int(n) for n in first))

    def correction(
        self,
        plane: int | Sequence[int],
        points: Sequence[tuple[float, float]],
        labels: Sequence[int] | None = None,
    ) -> Prompt:
        """Clicks that correct the object on one plane, to be given with its other prompts.

        Parameters
        ----------
        plane
            Where.
        points, labels
            As those of a `Prompt`. Where the object was found, they refine its mask there; where
            it was not, they are as any prompt, and negative ones alone mean that it is not there.
        """
        index = (int(plane),) if isinstance(plane, (int, np.integer)) else tuple(plane)
        mask = self.mask(index) if index in self.sections else None
        taken = (1,) * len(points) if labels is None else tuple(labels)
        return Prompt(tuple(points), taken, mask=mask, object=self.object, plane=index)
