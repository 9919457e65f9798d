"""Is an object's border to be seen in an image? Objects that cannot be seen are no targets."""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ndi

from napari_simmat.learn.scenes.arrays import Floats, Ids
from napari_simmat.learn.scenes.optics import wide_blur
from napari_simmat.learn.scenes.scene import compact

THRESHOLD = 0.8
"""Border contrast in units of the noise beside it, below which an object counts as invisible."""

_SECTORS = 12
_MIN_STEP = 0.008  # of the displayed range


def border_contrast(image: Floats, labels: Ids) -> Floats:
    """Contrast of every object's border (N + 1,) in units of the local noise; entry 0 is 0.

    The image is lightly smoothed. Across the border, differences between pixels 4 apart and
    how far the pixel between them deviates (a line) are averaged with their sign within 12
    sectors around the object's centre; the object's contrast is the median over its sectors.
    The unit is the mean absolute difference between pixels that are 4 apart on the same side
    of a border, near by. Channels are judged one by one, the best counts.

    Parameters
    ----------
    image
        (H, W) or (H, W, C).
    labels
        Ids 0..N (H, W).
    """
    count = int(labels.max()) + 1
    if image.ndim == 3:
        channels = [border_contrast(image[..., c], labels) for c in range(image.shape[-1])]
        return np.max(channels, axis=0)
    smooth = ndi.gaussian_filter(image.astype(np.float32), 1.0, truncate=3)
    low, high = np.percentile(smooth[::2, ::2], [0.5, 99.5])
    floor = _MIN_STEP * max(float(high - low), 1e-12)
    height, width = labels.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    area = np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    centre_y = np.bincount(labels.ravel(), y.ravel(), count) / area
    centre_x = np.bincount(labels.ravel(), x.ravel(), count) / area

    steps = np.zeros((2, count * _SECTORS))
    pairs = np.zeros(count * _SECTORS)
    noise_sum, noise_count = np.zeros_like(smooth), np.zeros_like(smooth)
    units: list[tuple[np.ndarray, np.ndarray]] = []
    for a, m, b in _triples():
        differs = labels[a] != labels[b]
        difference = smooth[a] - smooth[b]
        line = smooth[m] - (smooth[a] + smooth[b]) / 2
        same = ~differs
        noise_sum[m] += np.abs(difference) * same
        noise_count[m] += same
        rows, columns = np.nonzero(differs)
        here = (rows + m[0].start, columns + m[1].start)
        for side, sign in ((a, 1.0), (b, -1.0)):
            ids = labels[side][rows, columns]
            angle = np.arctan2(y[here] - centre_y[ids], x[here] - centre_x[ids])
            sector = ((angle / (2 * np.pi) + 0.5) * _SECTORS).astype(int) % _SECTORS
            keys = ids * _SECTORS + sector
            steps[0] += np.bincount(keys, sign * difference[rows, columns], len(pairs))
            steps[1] += np.bincount(keys, line[rows, columns], len(pairs))
            pairs += np.bincount(keys, minlength=len(pairs))
            units.append((keys, here[0] * width + here[1]))
    noise = wide_blur(noise_sum, 6.0) / np.maximum(wide_blur(noise_count, 6.0), 1e-3)
    unit = np.zeros(len(pairs))
    for keys, places in units:
        unit += np.bincount(keys, noise.ravel()[places], len(pairs))
    seen = np.abs(steps).max(axis=0) / np.maximum(np.maximum(unit, floor * pairs), 1e-12)
    by_sector = np.where(pairs >= 3, seen, np.nan).reshape(count, _SECTORS)
    contrast = np.zeros(count, np.float32)
    judged = np.isfinite(by_sector).any(axis=1)
    judged[0] = False
    contrast[judged] = np.nanmedian(by_sector[judged], axis=1)
    return contrast


def visible_labels(image: Floats, labels: Ids, threshold: float = THRESHOLD) -> Ids:
    """`labels` without the objects whose border contrast is under `threshold`, renumbered."""
    return compact(labels, border_contrast(image, labels) >= threshold)


def _triples() -> list[tuple[tuple[slice, slice], tuple[slice, slice], tuple[slice, slice]]]:
    every, first, middle, last = slice(0, None), slice(0, -4), slice(2, -2), slice(4, None)
    return [
        ((first, every), (middle, every), (last, every)),
        ((every, first), (every, middle), (every, last)),
    ]
