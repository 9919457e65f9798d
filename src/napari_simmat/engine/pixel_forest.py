"""A pixel classifier taught with a few objects and some ground, in seconds.

The features are scikit-image's (`skimage.feature.multiscale_basic_features`: intensity, edges and
texture at several scales), of each channel; the forest is scikit-learn's extremely randomized
trees (Geurts et al. 2006). It tells object, border and ground apart, as users of ilastik and Labkit
do. `segment_by_forest` divides what it finds into objects by a watershed.

A forest is kept as the pixels that it was taught with, and grown again when it is needed: a file
of numbers, unlike a pickle, executes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.masks import Mask, label_windows
from napari_simmat.models.taught_kind import (
    BORDER,
    GROUND,
    OBJECT,
    PIXELS_PER_CLASS,
    TaughtPixels,
)
from napari_simmat.progress import Job, Progress, finish

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesClassifier

TREES = 100
RING = 2
"""Pixels around each object that are its border."""
SIGMAS = 0.5, 16.0
"""The finest and the coarsest scale of the features, in pixels; each is twice the one before."""
FEATURES_PER_CHANNEL = 24
"""Intensity, edges and two of texture at each of the six scales."""
BLOCK = 512
"""Side in pixels of the parts of a plane whose features are in memory at once."""
MARGIN = 96
"""Pixels around a part that its features depend on: Gaussians are cut off at four sigma."""
_MIN_AREA = 0.25
"""Of the median area of the taught objects: what is smaller is no object."""


@dataclass(frozen=True, eq=False)
class PixelForest:
    """A forest, as the pixels that it is taught with.

    Parameters
    ----------
    pixels
        With the features of `local_features`.
    seed
        Of the trees: the same pixels and seed give the same forest.
    """

    pixels: TaughtPixels
    seed: int = 0

    @classmethod
    def of(
        cls,
        image: NDArray[np.float32],
        objects: NDArray[np.int32],
        ground: Mask,
        seed: int = 0,
    ) -> PixelForest:
        """Teach a forest.

        Parameters
        ----------
        image
            (C, Y, X), channels in like units; NaN and infinity count as 0.
        objects
            (Y, X), the objects that are known; 0 where nothing is known.
        ground
            (Y, X), where there is surely none.
        seed
            Of the pixels that are drawn if there are too many, and of the trees.
        """
        classes = training_classes(objects, ground)
        rng = np.random.default_rng(seed)
        chosen = np.concatenate(
            [
                rng.permutation(np.flatnonzero(classes == kind))[:PIXELS_PER_CLASS]
                for kind in (OBJECT, BORDER, GROUND)
            ]
        )
        features = None
        known = np.zeros(len(chosen), bool)
        for block in _blocks(objects.shape):
            rows, columns = np.unravel_index(chosen, objects.shape)
            here = block.holds(rows, columns)
            if here.any():
                found = block.features(image)
                if features is None:
                    features = np.empty((len(chosen), found.shape[-1]), np.float32)
                inside = rows[here] - block.rows.start, columns[here] - block.columns.start
                features[here], known[here] = found[inside], True
        assert features is not None
        assert known.all()
        owners = _owners(objects).ravel()[chosen]
        return cls(TaughtPixels(features, classes.ravel()[chosen], owners), seed)

    @cached_property
    def trees(self) -> ExtraTreesClassifier:
        """Grown from all pixels."""
        return self._grown(np.ones(len(self.pixels.classes), bool))

    def likelihood_job(self, image: NDArray[np.float32]) -> Job[NDArray[np.float32]]:
        """The likelihood of an object, (Y, X) 0..1, block by block."""
        shape = image.shape[-2:]
        blocks = list(_blocks(shape))
        found = np.zeros(shape, np.float32)
        for done, block in enumerate(blocks, start=1):
            features = block.features(image)
            for rows in np.array_split(np.arange(len(features)), max(1, len(features) // 64)):
                flat = features[rows].reshape(-1, features.shape[-1])
                part = found[block.rows, block.columns]
                part[rows] = self._of_object(self.trees, flat).reshape(len(rows), -1)
                yield Progress(done, len(blocks), "looking for what is alike")
        return found

    def left_out(self, folds: int = 5) -> dict[int, float]:
        """The mean likelihood inside each object, of a forest that has not seen it.

        The objects are divided into up to `folds` parts; each forest is taught with the others.
        """
        pixels = self.pixels
        inside = pixels.classes == OBJECT
        ids = np.unique(pixels.objects[inside]).tolist()
        found: dict[int, float] = {}
        for number in range(min(folds, len(ids))):
            hidden = ids[number::folds]
            left = np.isin(pixels.objects, hidden)
            trees = self._grown(~left)
            for label in hidden:
                mine = inside & (pixels.objects == label)
                found[label] = float(self._of_object(trees, pixels.features[mine]).mean())
        return found

    def _grown(self, some: NDArray[np.bool_]) -> ExtraTreesClassifier:
        from sklearn.ensemble import ExtraTreesClassifier

        forest = ExtraTreesClassifier(
            TREES, min_samples_leaf=2, class_weight="balanced", random_state=self.seed
        )
        return forest.fit(self.pixels.features[some], self.pixels.classes[some])

    @staticmethod
    def _of_object(
        trees: ExtraTreesClassifier, features: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        classes = trees.classes_.tolist()
        if OBJECT not in classes:
            return np.zeros(len(features), np.float32)
        return np.asarray(trees.predict_proba(features)[:, classes.index(OBJECT)], np.float32)


def segment_by_forest(
    image: NDArray[np.float32], objects: NDArray[np.int32], ground: Mask, seed: int = 0
) -> NDArray[np.int32]:
    """Find the objects that are like some, by a forest alone.

    Parameters
    ----------
    image
        (Y, X, C), any values; NaN and infinity count as the channel's lowest value.
    objects
        (Y, X), the objects that are known; 0 where nothing is known.
    ground
        (Y, X), where there is surely none.
    seed
        Of the trees.

    Returns
    -------
    numpy.ndarray
        (Y, X) all objects, 1..N.
    """
    areas = [np.count_nonzero(objects[window] == n) for n, window in label_windows(objects)]
    values = np.where(np.isfinite(image), image, np.nan)
    low, high = np.nanmin(values, (0, 1)), np.nanmax(values, (0, 1))
    scaled = np.nan_to_num((values - low) / np.maximum(high - low, 1e-12))
    planes = np.moveaxis(scaled, -1, 0).astype(np.float32)
    likely = classify_pixels(PixelForest.of(planes, objects, ground, seed), planes)
    return divide_touching(likely == OBJECT, float(np.median(areas)))


def divide_touching(inside: Mask, area: float) -> NDArray[np.int32]:
    """Objects (Y, X), 1..N, of the pixels that are in one, if one has this area as a rule.

    Objects that touch are divided where they are thin; what is smaller than a quarter is none.
    """
    from scipy.ndimage import distance_transform_edt, label
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    depth = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    apart = max(1, round(0.5 * math.sqrt(area / math.pi)))
    parts, _ = label(inside)
    # Each object keeps one middle.
    middles = peak_local_max(depth, min_distance=apart, labels=parts, exclude_border=False)
    markers = np.zeros(inside.shape, np.int32)
    markers[tuple(middles.T)] = np.arange(1, len(middles) + 1)
    found = watershed(-depth, markers, mask=inside)
    large = np.flatnonzero(np.bincount(found.ravel()) >= _MIN_AREA * area)
    _, compact = np.unique(np.where(np.isin(found, large), found, 0), return_inverse=True)
    return np.asarray(compact.reshape(found.shape), np.int32)


def classify_pixels(forest: PixelForest, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The likeliest class of each pixel (Y, X) of an image (C, Y, X)."""
    likely = np.zeros(image.shape[-2:], np.uint8)
    for block in _blocks(likely.shape):
        features = block.features(image)
        flat = features.reshape(-1, features.shape[-1])
        found = forest.trees.predict(flat).reshape(features.shape[:2])
        likely[block.rows, block.columns] = found
    return likely


def local_features(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (Y, X, F) of all channels of an image (C, Y, X)."""
    from skimage.feature import multiscale_basic_features

    finite = np.where(np.isfinite(image), image, 0).astype(np.float32)
    low, high = SIGMAS
    found = multiscale_basic_features(finite, sigma_min=low, sigma_max=high, channel_axis=0)
    return np.asarray(found, np.float32)


def training_classes(objects: NDArray[np.int32], ground: Mask) -> NDArray[np.uint8]:
    """Object, border or ground (Y, X) where that is known, else 0.

    Only a thin ring around an object is taken for its border: further out may be the next one.
    """
    from scipy.ndimage import binary_dilation

    classes = np.zeros(objects.shape, np.uint8)
    classes[ground] = GROUND
    inside = objects > 0
    classes[binary_dilation(inside, iterations=RING) & ~inside] = BORDER
    classes[inside] = OBJECT
    return classes


def _owners(objects: NDArray[np.int32]) -> NDArray[np.int32]:
    """The object (Y, X) that each pixel belongs to or borders; 0 for none."""
    from skimage.segmentation import expand_labels

    return np.asarray(expand_labels(objects, RING), np.int32)


class _Block(NamedTuple):
    """A part of a plane, and the larger part that its features depend on."""

    rows: slice
    columns: slice
    around: tuple[slice, slice]

    def holds(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which of some pixels lie within."""
        high = (rows >= self.rows.start) & (rows < self.rows.stop)
        wide = (columns >= self.columns.start) & (columns < self.columns.stop)
        return np.asarray(high & wide)

    def features(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """The features (h, w, F) of the part."""
        found = local_features(image[:, *self.around])
        inner = (
            slice(side.start - wide.start, side.stop - wide.start)
            for side, wide in zip((self.rows, self.columns), self.around, strict=True)
        )
        return found[tuple(inner)]


def _blocks(shape: tuple[int, ...]) -> Iterator[_Block]:
    """A plane (Y, X) in parts, row by row."""
    height, width = shape
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            rows = slice(top, min(top + BLOCK, height))
            columns = slice(left, min(left + BLOCK, width))
            around = (
                slice(max(rows.start - MARGIN, 0), min(rows.stop + MARGIN, height)),
                slice(max(columns.start - MARGIN, 0), min(columns.stop + MARGIN, width)),
            )
            yield _Block(rows, columns, around)


def likelihood(forest: PixelForest, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """`PixelForest.likelihood_job` to its end."""
    return finish(forest.likelihood_job(image))
