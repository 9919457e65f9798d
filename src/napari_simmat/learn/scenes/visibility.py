"""Is an object's border to be seen in an image? Objects that cannot be seen are no targets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.learn.scenes.arrays import Floats, Ids
from napari_simmat.learn.scenes.optics import wide_blur
from napari_simmat.learn.scenes.scene import compact

THRESHOLD = 0.8
"""Border contrast in units of the noise beside it, below which an object counts as invisible."""

_SECTORS = 12
_PARTS = 2 * _SECTORS
_CORRELATED = 3.0  # pairs that look at the same grain, per pixel between their ends and middle
_LEAST_STEP = 0.008
"""Steps under this share of the displayed range are not seen, however low the noise."""


def border_contrast(image: Floats, labels: Ids) -> Floats:
    """Contrast of every object's border (N + 1,) in units of the local noise; entry 0 is 0.

    The image is lightly smoothed. Across the border, differences between pixels 4 or 8 apart
    (a step) and how far the pixel between them deviates (a line) are averaged with their sign
    within 12 sectors around the object's centre, outer and inner borders (of a ring) apart; the
    contrast is the median over these parts.
    The unit is the mean deviation of a pixel from the mean of those 2 before and after it,
    away from borders and near by, so that shading does not count as noise, but grain does.
    Channels are judged one by one, the best counts.

    Parameters
    ----------
    image
        (H, W) or (H, W, C).
    labels
        Ids 0..N (H, W).
    """
    border = _Border(labels)
    channels = [image] if image.ndim == 2 else list(np.moveaxis(image, -1, 0))
    return np.asarray(np.max([border.contrast(channel) for channel in channels], axis=0))


def visible_labels(image: Floats, labels: Ids, threshold: float = THRESHOLD) -> Ids:
    """`labels` without the objects whose border contrast is under `threshold`, renumbered."""
    return compact(labels, border_contrast(image, labels) >= threshold)


class _Border:
    """Pixel triples 2 apart, along y and x, that lie across borders of `labels`."""

    def __init__(self, labels: Ids) -> None:
        self.count = int(labels.max()) + 1
        width = labels.shape[1]
        flat = labels.ravel()
        area = np.maximum(np.bincount(flat, minlength=self.count), 1)
        rows, columns = np.divmod(np.arange(flat.size), width)
        centre_y = np.bincount(flat, rows, self.count) / area
        centre_x = np.bincount(flat, columns, self.count) / area
        self.places: list[tuple[NDArray[np.intp], int]] = []
        keys, signs = [], []
        near = np.zeros(labels.shape, bool)
        for shift in (width, 1):
            if shift == width:
                y, x = np.nonzero(labels[:-4] != labels[4:])
            else:
                y, x = np.nonzero(labels[:, :-4] != labels[:, 4:])
            start = y * width + x
            middle = start + 2 * shift
            near.ravel()[middle] = True
            for side, sign in ((start, 1.0), (start + 4 * shift, -1.0)):
                ids = flat[side]
                angle = np.arctan2(rows[middle] - centre_y[ids], columns[middle] - centre_x[ids])
                sector = ((angle / (2 * np.pi) + 0.5) * _SECTORS).astype(np.intp) % _SECTORS
                # Does the border face away from the centre?
                if shift == width:
                    offset = rows[middle] - centre_y[ids]
                else:
                    offset = columns[middle] - centre_x[ids]
                outer = (sign * offset < 0).astype(np.intp)
                keys.append(ids * _PARTS + 2 * sector + outer)
                signs.append(np.full(len(ids), sign))
                self.places.append((middle, shift))
        self.keys, self.signs = np.concatenate(keys), np.concatenate(signs)
        self.pairs = np.bincount(self.keys, minlength=self.count * _PARTS)
        self.calm = ~np.asarray(ndi.binary_dilation(near, np.ones((3, 3), bool)))
        self._weights: dict[int, tuple[Floats, Floats | None]] = {}

    def contrast(self, channel: Floats) -> Floats:
        smooth = ndi.gaussian_filter(channel, 1.0, truncate=3, output=np.float32)
        low, high = np.percentile(smooth[::2, ::2], [0.5, 99.5])
        least = _LEAST_STEP * max(float(high - low), 1e-12)
        square = np.zeros(len(self.pairs))
        for reach in (2, 4):
            noise = (self._noise(smooth, reach) + least).ravel()
            unit = self._sum([noise[m] for m, _ in self.places])
            strongest = np.max(
                [np.abs(self._sum(cue)) for cue in self._cues(smooth, reach)], axis=0
            )
            with np.errstate(invalid="ignore", divide="ignore"):
                # Grain alone gives a mean of about unit * sqrt(correlated / pairs): taken off.
                part = (strongest / unit) ** 2 - _CORRELATED * reach / self.pairs
            square = np.fmax(square, part)
        by_part = np.where(self.pairs >= 3, np.sqrt(square), np.nan).reshape(self.count, _PARTS)
        contrast = np.zeros(self.count, np.float32)
        judged = np.asarray(np.isfinite(by_part).any(axis=1))
        judged[0] = False
        contrast[judged] = np.nanmedian(by_part[judged], axis=1)
        return contrast

    def _sum(self, values: list[Floats]) -> NDArray[np.float64]:
        """Sum over each part of every object's border."""
        total = np.bincount(self.keys, np.concatenate(values), len(self.pairs))
        return np.asarray(total, np.float64)

    def _cues(self, smooth: Floats, reach: int) -> Iterator[list[Floats]]:
        """What the triples show: a step (inside less outside), then a line."""
        flat = smooth.ravel()
        ends = [
            (flat[np.maximum(m - reach * s, 0)], flat[np.minimum(m + reach * s, flat.size - 1)])
            for m, s in self.places
        ]
        signs = np.split(self.signs, np.cumsum([len(m) for m, _ in self.places])[:-1])
        yield [sign * (a - b) for sign, (a, b) in zip(signs, ends, strict=True)]
        if reach == 2:
            middles = [flat[m] for m, _ in self.places]
            yield [m - (a + b) / 2 for m, (a, b) in zip(middles, ends, strict=True)]

    def _noise(self, smooth: Floats, reach: int) -> Floats:
        """Mean deviation of a pixel from those `reach` away, near by and off the borders."""
        inner, before, after = slice(reach, -reach), slice(0, -2 * reach), slice(2 * reach, None)
        deviation = np.zeros_like(smooth)
        deviation[inner, inner] = np.abs(
            smooth[inner, inner] * 2
            - (smooth[before, inner] + smooth[after, inner]) / 2
            - (smooth[inner, before] + smooth[inner, after]) / 2
        ) / np.float32(np.sqrt(2))
        weight, near_by = self._calm(reach)
        if near_by is None:
            return np.full_like(smooth, np.median(deviation))
        deviation *= weight
        mean = deviation.sum() / weight.sum()
        return np.asarray((wide_blur(deviation, 8.0) + 0.02 * mean) / near_by, np.float32)

    def _calm(self, reach: int) -> tuple[Floats, Floats | None]:
        """1 off the borders of objects and image; how much of that there is near by, if any."""
        if reach not in self._weights:
            inner = slice(reach, -reach)
            weight = np.zeros(self.calm.shape, np.float32)
            weight[inner, inner] = self.calm[inner, inner]
            near_by = wide_blur(weight, 8.0) + np.float32(0.02) if weight.any() else None
            self._weights[reach] = weight, near_by
        return self._weights[reach]
