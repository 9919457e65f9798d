"""Polarization: what a camera behind four polarisers sees of a scene."""

from __future__ import annotations

import numpy as np

from napari_simmat.learn.scenes.arrays import Floats
from napari_simmat.learn.scenes.lighting import draw_lamp, illumination
from napari_simmat.learn.scenes.optics import blur, camera_noise
from napari_simmat.learn.scenes.scene import Scene

_FULL_SCALE = 3900.0  # counts of the brightest pixels of a 12-bit camera
_ELECTRONS = 2.5  # electrons per count


def polarization(scene: Scene, rng: np.random.Generator) -> Floats:
    """Counts (4, H, W) of a 12-bit camera behind polarisers at 0, 45, 90 and 135 degrees.

    Light is the sum of a diffuse and a specular part. Each is partly linearly polarised as the
    Fresnel equations say (Hecht, Optics; degrees of polarization as in Atkinson and Hancock
    2006, polarised photography after Schechner 2003): the diffuse part, which left the
    surface by refraction, along the normal's azimuth; the specular part across it. Stokes'
    S0, S1, S2 of the two add up, and a polariser at angle a passes
    (S0 + S1 cos 2a + S2 sin 2a) / 2, so I0 + I90 = I45 + I135 up to noise.

    Clear glass lets the ground's light through, less what its two faces reflect, and adds the
    reflected surroundings, here about twice as bright as the ground: it hardly changes the
    intensity, but polarises.
    """
    index = scene.refractive_index
    azimuth = np.arctan2(scene.normals[..., 1], scene.normals[..., 0])
    sine2 = np.clip(1 - scene.normals[..., 2] ** 2, 0, 0.98)
    lamp = draw_lamp(rng)
    light = illumination(scene, lamp, rng.uniform(0.3, 0.6))
    grey = scene.albedo.mean(axis=-1)
    reflectance = _fresnel_reflectance(sine2, index)

    diffuse = grey * light * np.where(scene.glass, (1 - reflectance) ** 2, 1)
    surroundings = np.where(scene.glass, 2 * grey * light, rng.uniform(0.4, 1.2) * scene.gloss)
    specular = reflectance * surroundings
    from_diffuse = diffuse * _diffuse_degree(sine2, index) * ~scene.glass
    from_specular = specular * _specular_degree(sine2, index)
    polarised = from_diffuse - from_specular  # along the azimuth; negative = across
    stokes = np.stack(
        [
            diffuse + specular,
            polarised * np.cos(2 * azimuth),
            polarised * np.sin(2 * azimuth),
        ],
        axis=-1,
    ).astype(np.float32)
    stokes = blur(stokes, rng.uniform(0.4, 0.9))

    # (4, H, W), polarisers at 0, 45, 90, 135 degrees
    halves = np.stack(
        [
            stokes[..., 0] + stokes[..., 1],
            stokes[..., 0] + stokes[..., 2],
            stokes[..., 0] - stokes[..., 1],
            stokes[..., 0] - stokes[..., 2],
        ]
    )
    exposure = rng.uniform(0.35, 0.95) * _FULL_SCALE / max(float(halves.max()), 1e-6)
    counts = camera_noise(rng, _ELECTRONS * exposure * halves, rng.uniform(3, 9)) / _ELECTRONS
    return (counts + rng.uniform(5, 60)).astype(np.float32)


def _fresnel_reflectance(sine2: Floats, index: Floats) -> Floats:
    """Share of unpolarised light that a dielectric reflects; `sine2` = sin^2 of incidence."""
    cosine, refracted = np.sqrt(1 - sine2), np.sqrt(index**2 - sine2)
    across = ((cosine - refracted) / (cosine + refracted)) ** 2
    along = ((index**2 * cosine - refracted) / (index**2 * cosine + refracted)) ** 2
    return np.asarray((across + along) / 2, np.float32)


def _diffuse_degree(sine2: Floats, index: Floats) -> Floats:
    """Degree of linear polarization of light that came from below the surface."""
    cosine = np.sqrt(1 - sine2)
    above = (index - 1 / index) ** 2 * sine2
    below = 2 + 2 * index**2 - (index + 1 / index) ** 2 * sine2
    return np.asarray(above / (below + 4 * cosine * np.sqrt(index**2 - sine2)), np.float32)


def _specular_degree(sine2: Floats, index: Floats) -> Floats:
    """Degree of linear polarization of reflected light; 1 at Brewster's angle."""
    above = 2 * sine2 * np.sqrt((1 - sine2) * (index**2 - sine2))
    below = index**2 - sine2 - index**2 * sine2 + 2 * sine2**2
    return np.asarray(above / below, np.float32)
