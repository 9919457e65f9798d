"""Imaging spectrometers: many narrow bands, or a few broad ones, of reflected sunlight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_simmat.learn.scenes.arrays import Floats
from napari_simmat.learn.scenes.lighting import draw_lamp, illumination
from napari_simmat.learn.scenes.optics import blur, camera_noise, gaussian
from napari_simmat.learn.scenes.scene import Scene
from napari_simmat.learn.scenes.textures import smooth_field
from napari_simmat.learn.scenes.tones import tones

BANDS = 48
SHORTEST, LONGEST = 400.0, 2500.0
"""Range in nanometres of an imaging spectrometer such as AVIRIS."""

ABSORPTIONS: dict[str, tuple[float, float]] = {
    "chlorophyll": (670.0, 35.0),
    "ferric iron": (880.0, 80.0),
    "ferrous iron": (1020.0, 120.0),
    "water": (1200.0, 50.0),
    "cellulose, plastics (C-H)": (1725.0, 45.0),
    "clay (Al-OH)": (2200.0, 40.0),
    "carbonate": (2335.0, 40.0),
}
"""Absorption bands of common materials: centre and width (sigma) in nanometres (Clark 1999)."""

_ATMOSPHERE = ((760, 8, 0.4), (940, 25, 0.5), (1130, 30, 0.6), (1385, 45, 0.99), (1885, 60, 0.99))
"""Oxygen's and water vapour's bands: centre and width in nanometres, share that is absorbed."""

LANDSAT = {
    "480 nm": (450.0, 510.0),
    "560 nm": (530.0, 590.0),
    "655 nm": (640.0, 670.0),
    "865 nm": (850.0, 880.0),
    "1610 nm": (1570.0, 1650.0),
    "2200 nm": (2110.0, 2290.0),
}
"""Bands 2 to 7 of Landsat 8's imager by their centres, from and to nanometres."""


def wavelengths(bands: int = BANDS) -> NDArray[np.float64]:
    """Centres (bands,) of equal bands in nanometres."""
    width = (LONGEST - SHORTEST) / bands
    return np.asarray(SHORTEST + width * (np.arange(bands) + 0.5), np.float64)


def hyperspectral(scene: Scene, rng: np.random.Generator, bands: int = BANDS) -> Floats:
    """Counts (bands, H, W) of a pushbroom imaging spectrometer, 400 to 2500 nm.

    Radiance is sunlight times the air's transmission times reflectance: one smooth continuum for
    all materials of a scene, in which each has absorption bands of its own depths (Clark,
    Spectroscopy of Rocks and Minerals, 1999). Shading, damp patches, cloud shadows and grain scale
    the whole spectrum of a pixel alike, and by more than the materials differ in any band: one band
    shows patches, the ratio of two shows materials. Where water vapour takes all the light only
    noise is left. Every detector, which draws one column of one band, has a gain of its own.
    """
    centres = wavelengths(bands)
    half = (LONGEST - SHORTEST) / bands / 2
    return _radiance(scene, rng, [(c - half, c + half) for c in centres], photons=3000)


def multispectral(scene: Scene, rng: np.random.Generator) -> Floats:
    """Counts (6, H, W) in the bands 2 to 7 of Landsat 8; otherwise as `hyperspectral`."""
    return _radiance(scene, rng, list(LANDSAT.values()), photons=20_000)


def spectral_contrasts(image: Floats, components: int = 8) -> Floats:
    """The `components` or fewer directions of the spectrum that stand out most from the noise.

    (C, H, W) -> (K, H, W): principal components of the logarithm, in which brightness adds to all
    bands alike, after each band is divided by its noise (after Green et al. 1988).
    """
    logs = np.log(np.maximum(image, 1.0)).reshape(len(image), -1)
    logs -= logs.mean(axis=1, keepdims=True)
    rows = logs.reshape(image.shape)
    noise = np.median(np.abs(np.diff(rows, axis=1)), axis=(1, 2)) / 0.954 + 1e-4
    logs /= noise[:, None]
    _, directions = np.linalg.eigh(np.asarray(logs @ logs.T, np.float64))
    leading = directions[:, ::-1][:, :components].T.astype(np.float32)
    return np.asarray((leading @ logs).reshape(-1, *image.shape[1:]), np.float32)


def _radiance(
    scene: Scene, rng: np.random.Generator, bands: list[tuple[float, float]], photons: float
) -> Floats:
    """Counts (C, H, W) in `bands`, each from and to nanometres."""
    shape = scene.shape
    fine = np.arange(SHORTEST, LONGEST, 5.0)
    light = _sunlight(fine) * _reflectance(scene, rng, fine)  # (regions, fine)
    seen = np.stack(
        [light[:, (fine >= low - 2.5) & (fine <= high + 2.5)].mean(axis=1) for low, high in bands]
    ).astype(np.float32)
    bright = illumination(scene, draw_lamp(rng), rng.uniform(0.4, 0.7))
    for length in (0.3, 0.12):  # cloud shadows or damp patches, with borders of their own
        patches = smooth_field(rng, shape, max(6.0, length * rng.uniform(0.6, 1.4) * min(shape)))
        bright = bright * rng.uniform(0.45, 0.8) ** (np.tanh(4 * patches) / 2)
    bright = bright * np.exp(rng.uniform(0.04, 0.12) * scene.detail)
    bright = np.asarray(bright * photons / np.median(bright), np.float32)
    sharpness = rng.uniform(0.4, 0.7)
    image = np.stack([blur(bright * band[scene.regions], sharpness) for band in seen])
    image *= 1 + rng.uniform(0.003, 0.012) * gaussian(rng, (len(image), 1, shape[1]))
    return camera_noise(rng, image, 6.0).astype(np.float32)


def _sunlight(nanometres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Radiance of a black body at 5800 K behind the atmosphere, 1 at its peak (Planck's law)."""
    planck = nanometres**-5 / np.expm1(1.4388e7 / (nanometres * 5800))
    for centre, width, share in _ATMOSPHERE:
        planck = planck * (1 - share * np.exp(-(((nanometres - centre) / width) ** 4)))
    return np.asarray(planck / planck.max())


def _reflectance(
    scene: Scene, rng: np.random.Generator, nanometres: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Spectra (regions, wavelengths) in 0..1."""
    reddening = rng.uniform(200, 900)
    continuum = rng.uniform(0.4, 0.7) * (1 - 0.8 * np.exp(-(nanometres - 250) / reddening))
    depths = tones(scene, rng, gap=0.15, low=0.0, high=0.5, channels=len(ABSORPTIONS))
    spectra = np.tile(continuum, (scene.n_regions, 1))
    for depth, (centre, width) in zip(depths.T, ABSORPTIONS.values(), strict=True):
        spectra *= 1 - depth[:, None] * np.exp(-(((nanometres - centre) / width) ** 2) / 2)
    return spectra
