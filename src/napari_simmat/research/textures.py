"""Random fields, textures and crops of photographs at any image size.

Banks are built once per process with a fixed seed, so that a sample depends on its own seed only.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.research.canvas import Floats, Shape, log_uniform

PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "cat",
    "coffee",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "retina",
    "rocket",
)
"""Photographs in the wheel of scikit-image (`skimage.data`); none of them is a test image."""
_BANK_SIZE = 384
"""Side of the periodic textures in pixels."""


def smooth_field(rng: np.random.Generator, shape: Shape, length: float) -> Floats:
    """Smooth random field of zero mean and unit variance.

    Parameters
    ----------
    length
        Correlation length in pixels; the field is a cubic B-spline with knots that far apart.
    """
    length = max(float(length), 2.0)
    (rows, row_weights), (columns, column_weights) = (
        _spline(n, length, rng.random()) for n in shape
    )
    knots = rng.standard_normal((rows[-1] + 4, columns[-1] + 4)).astype(np.float32)
    # Sums of four taps instead of matrix products: bit-equal for any number of BLAS threads.
    field = sum(row_weights[k][:, None] * knots[rows + k] for k in range(4))
    field = sum(column_weights[k] * field[:, columns + k] for k in range(4))
    # 0.479 is the mean sum of squared weights of a cubic B-spline along one axis.
    return np.asarray(field / np.float32(0.479), np.float32)


def _spline(n: int, length: float, offset: float) -> tuple[NDArray[np.intp], Floats]:
    """First knot (n,) at every pixel, and weights (4, n) of that knot and the next three."""
    position = np.arange(n) / length + offset
    knot = position.astype(np.intp)
    t = position - knot
    pieces = (1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3
    return knot, (np.stack(pieces) / 6).astype(np.float32)


def texture(rng: np.random.Generator, shape: Shape, kind: str | None = None) -> Floats:
    """Crop of a texture from the bank, zero mean and unit variance, clipped to +-3.

    Parameters
    ----------
    kind
        ``"cloud"``, ``"band"``, ``"stripes"``, ``"speckle"``, ``"blotches"``, ``"spots"`` or
        ``"grain"``; any of them by default.
    """
    bank = texture_bank()
    choices = bank[kind] if kind else bank[str(rng.choice(list(bank)))]
    tile = choices[rng.integers(len(choices))]
    if rng.random() < 0.5:
        tile = tile.T
    rows, columns = (_wrapped(rng, n, m) for n, m in zip(shape, tile.shape, strict=True))
    return tile[rows[:, None], columns]


@lru_cache(maxsize=1)
def texture_bank() -> dict[str, list[Floats]]:
    """Periodic textures by kind; built on first use, equal in every process."""
    rng = np.random.default_rng(20240501)
    makers = {
        "cloud": _cloud,
        "band": _band,
        "stripes": _stripes,
        "speckle": _speckle,
        "blotches": _blotches,
        "spots": _spots,
        "grain": _grain,
    }
    return {kind: [_standardized(make(rng)) for _ in range(8)] for kind, make in makers.items()}


def _cloud(rng: np.random.Generator) -> NDArray[np.floating]:
    frequency = np.hypot(*_frequencies())
    return _filtered(rng, np.maximum(frequency, 3 / _BANK_SIZE) ** -rng.uniform(0.5, 2.5))


def _band(
    rng: np.random.Generator, highest: float = 0.3, width: float = 0.3
) -> NDArray[np.floating]:
    frequency, center = np.hypot(*_frequencies()), log_uniform(rng, 0.02, highest)
    return _filtered(rng, np.exp(-(((frequency - center) / (width * center)) ** 2)))


def _stripes(rng: np.random.Generator) -> NDArray[np.floating]:
    fy, fx = _frequencies()
    center, angle = log_uniform(rng, 0.02, 0.3), rng.uniform(0, np.pi)
    gain = sum(
        np.exp(
            -((fx - s * center * np.cos(angle)) ** 2 + (fy - s * center * np.sin(angle)) ** 2)
            / (0.25 * center) ** 2
        )
        for s in (1, -1)
    )
    return _filtered(rng, np.asarray(gain))


def _speckle(rng: np.random.Generator) -> NDArray[np.floating]:
    values = rng.exponential(1, (_BANK_SIZE, _BANK_SIZE))
    return np.asarray(ndi.gaussian_filter(values, rng.uniform(0.5, 1.8), mode="wrap"))


def _blotches(rng: np.random.Generator) -> NDArray[np.floating]:
    values = _band(rng, highest=0.15, width=0.5)
    above = (values > rng.uniform(-0.5, 1) * values.std()).astype(float)
    return np.asarray(ndi.gaussian_filter(above, 0.6, mode="wrap"))


def _spots(rng: np.random.Generator) -> NDArray[np.floating]:
    seeds = rng.random((_BANK_SIZE, _BANK_SIZE)) < rng.uniform(0.003, 0.03)
    return np.asarray(ndi.gaussian_filter(seeds.astype(float), rng.uniform(0.8, 3), mode="wrap"))


def _grain(rng: np.random.Generator) -> NDArray[np.floating]:
    values = rng.standard_normal((_BANK_SIZE, _BANK_SIZE))
    return np.asarray(ndi.gaussian_filter(values, rng.uniform(0.3, 1.2), mode="wrap"))


def _filtered(rng: np.random.Generator, gain: NDArray[np.floating]) -> NDArray[np.floating]:
    size = (_BANK_SIZE, _BANK_SIZE)
    return np.fft.irfft2(np.fft.rfft2(rng.standard_normal(size)) * gain, size)


def _frequencies() -> tuple[Floats, Floats]:
    return (
        np.fft.fftfreq(_BANK_SIZE)[:, None].astype(np.float32),
        np.fft.rfftfreq(_BANK_SIZE)[None].astype(np.float32),
    )


def _standardized(values: NDArray[np.floating]) -> Floats:
    values = (values - values.mean()) / (values.std() + 1e-6)
    return np.asarray(np.clip(values, -3, 3), np.float32)


def _wrapped(rng: np.random.Generator, n: int, m: int) -> NDArray[np.intp]:
    indices = (rng.integers(m) + np.arange(n)) % m
    return indices[::-1] if rng.random() < 0.5 else indices


def photograph(rng: np.random.Generator, shape: Shape) -> Floats:
    """Crop of a photograph (H, W, 3) in 0..1 at a random scale, mirrored beyond its edges."""
    photographs = _photographs()
    picture = photographs[rng.integers(len(photographs))]
    step = np.exp(rng.uniform(np.log(0.5), np.log(1.6)))
    rows, columns = (_mirrored(rng, n, m, step) for n, m in zip(shape, picture.shape, strict=False))
    crop = picture[rows[:, None], columns].astype(np.float32) / 255
    return crop.transpose(1, 0, 2) if shape[0] == shape[1] and rng.random() < 0.5 else crop


@lru_cache(maxsize=1)
def _photographs() -> tuple[NDArray[np.uint8], ...]:
    from skimage import data

    pictures = []
    for name in PHOTOGRAPHS:
        picture = np.asarray(getattr(data, name)())
        picture = picture[..., None].repeat(3, axis=2) if picture.ndim == 2 else picture[..., :3]
        stride = max(1, round(min(picture.shape[:2]) / 512))
        if stride > 1:
            picture = ndi.uniform_filter(picture, (stride, stride, 1))[::stride, ::stride]
        pictures.append(np.ascontiguousarray(picture, dtype=np.uint8))
    return tuple(pictures)


def _mirrored(rng: np.random.Generator, n: int, m: int, step: float) -> NDArray[np.intp]:
    indices = (rng.integers(2 * m) + np.arange(n) * step).astype(np.intp) % (2 * m)
    return np.asarray(np.minimum(indices, 2 * m - 1 - indices))
