"""Training samples: images of drawn scenes with exact labels.

Objects whose border cannot be seen in the image are removed from the labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from simmat_research.canvas import Floats, Ids
from simmat_research.renderers import FAMILIES, degrade, render, wide_blur
from simmat_research.scene import compact, draw_scene

MIN_BORDER_CONTRAST = 0.8
"""Border contrast, in units of the local noise, below which an object counts as invisible."""
_ATTEMPTS = 20
"""Scenes drawn before giving up on one with a visible object."""


def draw_sample(
    rng: np.random.Generator | int,
    size: int | tuple[int, int] = 256,
    families: Iterable[str] | None = None,
) -> tuple[Floats, Ids]:
    """Draw one training sample.

    Parameters
    ----------
    rng
        Generator, which is advanced, or a seed. Equal seeds give equal arrays.
    size
        Side, or height and width, in pixels.
    families
        Names in `FAMILIES` to draw from, by their weights; all by default.

    Returns
    -------
    image
        Float32 (H, W) or (H, W, 3) in the arbitrary units of a raw file.
    labels
        Int32 (H, W), ids 1..N (N >= 1) of connected objects with a visible border.
    """
    rng = np.random.default_rng(rng)
    names = list(FAMILIES) if families is None else list(families)
    unknown = [name for name in names if name not in FAMILIES]
    if unknown or not names:
        raise ValueError(
            f"Families {unknown or 'none'} are unknown; use some of {', '.join(FAMILIES)}."
        )
    weights = np.array([FAMILIES[name].weight for name in names])
    family = names[rng.choice(len(names), p=weights / weights.sum())]
    layouts = FAMILIES[family].layouts
    shares = np.array(list(layouts.values()))
    for _ in range(_ATTEMPTS):
        layout = str(rng.choice(list(layouts), p=shares / shares.sum()))
        scene = draw_scene(rng, size, layout)
        if scene.labels.max() == 0:
            continue
        image = degrade(rng, render(scene, family, rng))
        labels = visible_labels(image, scene.labels)
        if labels.max() > 0:
            return image, labels
    raise RuntimeError(f"No {family} scene of {size} pixels shows an object; draw larger scenes.")


def visible_labels(image: Floats, labels: Ids) -> Ids:
    """`labels` without the objects whose border contrast is too low, renumbered."""
    return compact(labels, border_contrast(image, labels) >= MIN_BORDER_CONTRAST)


def border_contrast(image: Floats, labels: Ids) -> Floats:
    """Contrast of every object's border (N + 1,) in units of the local noise; entry 0 is 0.

    The image is lightly smoothed. Two cues are measured across the border: the difference between
    pixels 4 or 8 apart (a step), and the deviation of the pixel between them (a line). Both are
    averaged with their sign in 12 sectors around the object's center, separately for the outer and
    inner borders (of a ring); the contrast is the median over these parts. The unit is the mean
    deviation of a pixel from the mean of those 2 before and after it, measured near by but off
    borders, so that grain counts as noise and shading does not. The best channel counts.

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


_SECTORS = 12
_PARTS = 2 * _SECTORS
_REACHES = (2, 4)
"""Distances in pixels from the middle of a border to the ends that are compared."""
_CORRELATED = 3.0
"""Pixel pairs that share the same grain, per pixel between their ends and middle."""
_LEAST_STEP = 0.008
"""Smallest visible step, as a share of the displayed range, however low the noise."""


class _Border:
    """Triples of pixels 2 apart, along y and x, that lie across borders of `labels`.

    A part of a border is one sector of an object's outer or inner border.
    """

    def __init__(self, labels: Ids) -> None:
        self.count = int(labels.max()) + 1
        width = labels.shape[1]
        flat = labels.ravel()
        area = np.maximum(np.bincount(flat, minlength=self.count), 1)
        rows, columns = np.divmod(np.arange(flat.size), width)
        center_y = np.bincount(flat, rows, self.count) / area
        center_x = np.bincount(flat, columns, self.count) / area
        self.places: list[tuple[NDArray[np.intp], int]] = []
        keys, signs = [], []
        near = np.zeros(labels.shape, bool)
        for shift in (width, 1):
            vertical = shift == width
            across = labels[:-4] != labels[4:] if vertical else labels[:, :-4] != labels[:, 4:]
            y, x = np.nonzero(across)
            start = y * width + x
            middle = start + 2 * shift
            near.ravel()[middle] = True
            for side, sign in ((start, 1.0), (start + 4 * shift, -1.0)):
                ids = flat[side]
                dy, dx = rows[middle] - center_y[ids], columns[middle] - center_x[ids]
                angle = np.arctan2(dy, dx)
                sector = ((angle / (2 * np.pi) + 0.5) * _SECTORS).astype(np.intp) % _SECTORS
                # An outer border faces away from the center.
                outer = (sign * (dy if vertical else dx) < 0).astype(np.intp)
                keys.append(ids * _PARTS + 2 * sector + outer)
                signs.append(np.full(len(ids), sign))
                self.places.append((middle, shift))
        self.keys, self.signs = np.concatenate(keys), np.concatenate(signs)
        self.pairs = np.bincount(self.keys, minlength=self.count * _PARTS)
        self.off_border = ~np.asarray(ndi.binary_dilation(near, np.ones((3, 3), bool)))
        self._weights = {reach: self._noise_weights(reach) for reach in _REACHES}

    def contrast(self, channel: Floats) -> Floats:
        """Contrast (N + 1,) of every object in one channel (H, W)."""
        smooth = ndi.gaussian_filter(channel, 1.0, truncate=3, output=np.float32)
        low, high = np.percentile(smooth[::2, ::2], [0.5, 99.5])
        least = _LEAST_STEP * max(float(high - low), 1e-12)
        square = np.zeros(len(self.pairs))
        for reach in _REACHES:
            noise = (self._noise(smooth, reach) + least).ravel()
            unit = self._sum([noise[m] for m, _ in self.places])
            cues = [np.abs(self._sum(cue)) for cue in self._cues(smooth, reach)]
            strongest = np.max(cues, axis=0)
            with np.errstate(invalid="ignore", divide="ignore"):
                # Subtract what grain alone gives: a mean of about unit * sqrt(correlated / pairs).
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
        """Contrast cues of the triples: a step (inside minus outside), then a line."""
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
        """Mean deviation (H, W) of pixels near by, off the borders, from those `reach` away."""
        inner, before, after = slice(reach, -reach), slice(0, -2 * reach), slice(2 * reach, None)
        deviation = np.zeros_like(smooth)
        deviation[inner, inner] = np.abs(
            smooth[inner, inner] * 2
            - (smooth[before, inner] + smooth[after, inner]) / 2
            - (smooth[inner, before] + smooth[inner, after]) / 2
        ) / np.float32(np.sqrt(2))
        weight, near_by = self._weights[reach]
        if near_by is None:
            return np.full_like(smooth, np.median(deviation))
        deviation *= weight
        mean = deviation.sum() / weight.sum()
        return np.asarray((wide_blur(deviation, 8.0) + 0.02 * mean) / near_by, np.float32)

    def _noise_weights(self, reach: int) -> tuple[Floats, Floats | None]:
        """1 off the borders of objects and image, 0 elsewhere; its local mean, if any."""
        inner = slice(reach, -reach)
        weight = np.zeros(self.off_border.shape, np.float32)
        weight[inner, inner] = self.off_border[inner, inner]
        return weight, wide_blur(weight, 8.0) + np.float32(0.02) if weight.any() else None
