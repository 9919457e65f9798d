"""Objects by a forest on local features: what pixel classifiers do with a few objects and strokes.

The features are scikit-image's (`skimage.feature.multiscale_basic_features`: intensity, edges and
texture at several scales), of each channel; the forest is scikit-learn's extremely randomized
trees (Geurts et al. 2006). It tells object, border and ground apart, as users of ilastik and Labkit
do; objects that touch are divided by a watershed from the middles of what is left.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.masks import Mask, label_windows

TREES = 100
RING = 2
"""Pixels around each object that are its border."""
OBJECT, BORDER, GROUND = 1, 2, 3
_PER_CLASS = 20_000
"""Pixels of a class that are learned from, at most."""
_MIN_AREA = 0.25
"""Of the median area of the taught objects: what is smaller is no object."""


def segment_by_forest(
    image: NDArray[np.float32], objects: NDArray[np.int32], ground: Mask, seed: int = 0
) -> NDArray[np.int32]:
    """Find the objects that are like some.

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
    classes = training_classes(objects, ground)
    likely = classify_pixels(local_features(image), classes, seed)
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


def classify_pixels(
    features: NDArray[np.float32], classes: NDArray[np.uint8], seed: int = 0
) -> NDArray[np.uint8]:
    """The class of each pixel (Y, X) by its features (Y, X, F), learned where it is known."""
    from sklearn.ensemble import ExtraTreesClassifier

    rng, flat = np.random.default_rng(seed), features.reshape(-1, features.shape[-1])
    chosen = np.concatenate(
        [
            rng.permutation(np.flatnonzero(classes == kind))[:_PER_CLASS]
            for kind in (OBJECT, BORDER, GROUND)
        ]
    )
    forest = ExtraTreesClassifier(
        TREES, min_samples_leaf=2, class_weight="balanced", random_state=seed
    )
    forest.fit(flat[chosen], classes.ravel()[chosen])
    return np.asarray(forest.predict(flat).reshape(classes.shape), np.uint8)


def local_features(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (Y, X, F) of all channels of an image (Y, X, C)."""
    from skimage.feature import multiscale_basic_features

    values = np.where(np.isfinite(image), image, np.nan)
    low, high = np.nanmin(values, (0, 1)), np.nanmax(values, (0, 1))
    scaled = np.nan_to_num((values - low) / np.maximum(high - low, 1e-12)).astype(np.float32)
    found = multiscale_basic_features(scaled, sigma_min=0.5, sigma_max=16, channel_axis=-1)
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
