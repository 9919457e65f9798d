"""`ObjectSet`: the objects of an image as values, from which all formats are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.masks import ObjectMask, label_windows
from napari_simmat.io.axes import label_dtype
from napari_simmat.io.reference import ImageReference


@dataclass(frozen=True, eq=False)
class ObjectSection:
    """An object, or its part on one plane.

    Parameters
    ----------
    label
        The object's id, 1 or more; several sections may share it.
    mask
        Its pixels.
    category
        Its class, or empty.
    score
        The model's estimate of the IoU; NaN if unknown.
    is_box
        Whether somebody drew it as an upright rectangle, which says where an object is, and not
        its outline.
    """

    label: int
    mask: ObjectMask
    category: str = ""
    score: float = math.nan
    is_box: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectSet:
    """Objects of one image, which may overlap.

    Parameters
    ----------
    sections
        Plane by plane, in the order of their labels where this program wrote them.
    shape, axes
        (..., Y, X) of the image without channels, and a letter for each axis.
    reference
        Place, pixel size and units of the image.
    classes
        Names of all classes in their order; by default those that occur.
    image
        Name of the image file.
    has_channels
        Whether the image has several channels, other than colors: a hyperstack in ImageJ.
    notes
        What was left out in reading, as sentences.
    """

    sections: Sequence[ObjectSection]
    shape: tuple[int, ...]
    axes: str
    reference: ImageReference = field(default_factory=ImageReference)
    classes: Sequence[str] = ()
    image: str = ""
    has_channels: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def of_labels(
        cls,
        labels: NDArray[Any],
        axes: str,
        *,
        scores: Mapping[Any, float] | None = None,
        categories: Mapping[int, str] | None = None,
        **more: Any,
    ) -> ObjectSet:
        """The objects of a label image (..., Y, X).

        Parameters
        ----------
        labels, axes
            0 is background; a letter for each axis.
        scores
            By label, or by ``(plane, label)``.
        categories
            Class by label.
        more
            As of the class.
        """
        scores, categories = scores or {}, categories or {}
        sections = []
        for plane in np.ndindex(*labels.shape[:-2]):
            values = np.asarray(labels[plane])
            for label, window in label_windows(values):
                corner = (*plane, *(side.start for side in window))
                mask = ObjectMask.of(values[window] == label, corner)
                score = scores.get((plane, label), scores.get(label, math.nan))
                sections.append(ObjectSection(label, mask, categories.get(label, ""), score))
        return cls(sections=sections, shape=tuple(labels.shape), axes=axes, **more)

    @property
    def class_names(self) -> list[str]:
        """The classes in their order; those that occur are never missing."""
        occurring = (section.category for section in self.sections)
        return [name for name in dict.fromkeys((*self.classes, *occurring)) if name]

    def merged(self) -> list[ObjectSection]:
        """One section for each object, over all its planes; its score is the mean."""
        parts: dict[int, list[ObjectSection]] = {}
        for section in self.sections:
            parts.setdefault(section.label, []).append(section)
        found = []
        for label, sections in parts.items():
            boxes = [section.mask.box for section in sections]
            low = np.min([box[0] for box in boxes], axis=0)
            high = np.max([box[1] for box in boxes], axis=0)
            voxels = np.zeros(high - low, bool)
            for section in sections:
                at = np.subtract(section.mask.corner, low)
                voxels[tuple(map(slice, at, at + section.mask.shape))] |= section.mask.mask
            category = next((one.category for one in sections if one.category), "")
            scores = [one.score for one in sections if not math.isnan(one.score)]
            score = sum(scores) / len(scores) if scores else math.nan
            mask = ObjectMask.of(voxels, tuple(low.tolist()))
            found.append(ObjectSection(label, mask, category, score))
        return found

    def labels(self) -> NDArray[Any]:
        """The label image; of overlapping objects that with the higher score, then the earlier."""
        highest = max((section.label for section in self.sections), default=0)
        painted = np.zeros(self.shape, label_dtype(highest))
        for section in sorted(self.sections, key=lambda one: -np.nan_to_num(one.score))[::-1]:
            painted[section.mask.region][section.mask.mask] = section.label
        return painted

    def by_plane(
        self,
    ) -> Iterator[tuple[tuple[int, ...], Iterable[tuple[ObjectSection, ObjectMask]]]]:
        """Each plane, with the sections on it and their masks there."""
        on: dict[tuple[int, ...], list[tuple[ObjectSection, ObjectMask]]] = {}
        for section in self.sections:
            for plane in section.mask.planes():
                at = tuple(np.subtract(plane, section.mask.corner[:-2]).tolist())
                corner = (*plane, *section.mask.corner[-2:])
                here = ObjectMask.of(section.mask.mask[at], corner)
                on.setdefault(plane, []).append((section, here))
        for plane in np.ndindex(*self.shape[:-2]):
            yield plane, on.get(plane, [])


SQUARE = 1024
"""Side in pixels of the squares whose objects are read at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectsInTiles(ObjectSet):
    """Objects of a plane whose labels do not fit into memory; read square by square.

    Parameters
    ----------
    labels_file
        (Y, X), zarr or anything that takes slices.
    boxes
        By label: first row and column, and the last ones + 1.
    scores, categories
        By label.
    """

    labels_file: Any = None
    boxes: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    scores: Mapping[int, float] = field(default_factory=dict)
    categories: Mapping[int, str] = field(default_factory=dict)

    @property
    def class_names(self) -> list[str]:
        """The classes in their order."""
        return [name for name in dict.fromkeys(self.classes) if name]

    def by_plane(
        self,
    ) -> Iterator[tuple[tuple[int, ...], Iterable[tuple[ObjectSection, ObjectMask]]]]:
        """The one plane, with its objects square by square, each where its box begins."""
        yield (), self._sections()

    def _sections(self) -> Iterator[tuple[ObjectSection, ObjectMask]]:
        squares: dict[tuple[int, int], list[int]] = {}
        for label, box in self.boxes.items():
            squares.setdefault((box[0] // SQUARE, box[1] // SQUARE), []).append(label)
        for (row, column), labels in sorted(squares.items()):
            top, left = row * SQUARE, column * SQUARE
            bottom = max(self.boxes[label][2] for label in labels)
            right = max(self.boxes[label][3] for label in labels)
            values = np.asarray(self.labels_file[top:bottom, left:right])
            for label in sorted(labels):
                y0, x0, y1, x1 = self.boxes[label]
                here = values[y0 - top : y1 - top, x0 - left : x1 - left] == label
                mask = ObjectMask.of(here, (y0, x0))
                score = self.scores.get(label, math.nan)
                yield ObjectSection(label, mask, self.categories.get(label, ""), score), mask
