"""How medical devices show a scene. Each look returns a float32 image in arbitrary units."""

from __future__ import annotations

import numpy as np

from napari_simmat.learn.scenes.arrays import Floats
from napari_simmat.learn.scenes.optics import (
    blur,
    camera_noise,
    gaussian,
    rician_noise,
    uneven_light,
    wide_blur,
)
from napari_simmat.learn.scenes.placing import log_uniform
from napari_simmat.learn.scenes.scene import Scene
from napari_simmat.learn.scenes.textures import smooth_field, texture
from napari_simmat.learn.scenes.tones import tones


def mri(scene: Scene, rng: np.random.Generator) -> Floats:
    """Magnetic resonance: soft tissues, coil's bias field, Rician noise, black air (H, W)."""
    gap = rng.uniform(0.08, 0.2)
    signal = tones(scene, rng, gap=gap, low=0.12, high=1.0, background=rng.uniform(0, 0.04))[:, 0]
    image = signal[scene.regions]
    image = image * (1 + rng.uniform(0, 0.05) * texture(rng, scene.shape))
    image = image * (1 + rng.uniform(0, 0.06) * smooth_field(rng, scene.shape, 20))
    image = blur(image.astype(np.float32), rng.uniform(0.5, 1.1))  # partial volume
    image = image * uneven_light(rng, scene.shape, rng.uniform(0, 0.5))
    image = rician_noise(rng, image, gap * rng.uniform(0.02, 0.35))
    return image * log_uniform(rng, 200, 4000)


def ct(scene: Scene, rng: np.random.Generator) -> Floats:
    """Computed tomography in Hounsfield units: air at -1000, soft tissue, bone (H, W)."""
    soft = tones(scene, rng, gap=rng.uniform(0.12, 0.25), background=0.0)[:, 0] * 200 - 90
    kind = rng.random(scene.n_regions)
    soft[kind < 0.07] = rng.uniform(300, 900)
    soft[(kind > 0.95)] = rng.uniform(-900, -500)
    soft[0] = rng.choice([-1000.0, -1000.0, -160.0])
    image = soft[scene.regions].astype(np.float32)
    image = blur(image, rng.uniform(0.5, 1.1))
    grain = blur(gaussian(rng, scene.shape), rng.uniform(0.4, 1.0))
    image += rng.uniform(3, 18) / (grain.std() + 1e-6) * grain
    if rng.random() < 0.6:  # soft-tissue window
        image = np.clip(image, -160, 240)
    return image


def x_ray(scene: Scene, rng: np.random.Generator) -> Floats:
    """Projection by X-rays: absorption adds up along the beam, Beer-Lambert (H, W)."""
    density = tones(scene, rng, gap=0.15, low=0.25, high=1.2, background=0.0)[:, 0]
    thick = 0.35 + 0.65 * scene.dome ** rng.uniform(0.3, 1.0)
    path = density[scene.regions] * thick
    path = path * (1 + rng.uniform(0, 0.06) * texture(rng, scene.shape))
    path = path + 0.12 * smooth_field(rng, scene.shape, min(scene.shape) / 3) ** 2
    photons = log_uniform(rng, 150, 4000)
    image: Floats = photons * np.exp(-blur(path.astype(np.float32), rng.uniform(0.5, 1.2)))
    image = camera_noise(rng, image * uneven_light(rng, scene.shape, 0.3), 2.0)
    return -image if rng.random() < 0.5 else image


def ultrasound(scene: Scene, rng: np.random.Generator) -> Floats:
    """Echoes with speckle: the magnitude of many random scatterers, log-compressed (H, W)."""
    echo = tones(scene, rng, gap=rng.uniform(0.35, 0.6), low=0.0, high=1.0)[:, 0]
    strength = blur(echo[scene.regions], rng.uniform(0.6, 1.2))
    grain = rng.uniform(0.5, 1.1), rng.uniform(0.5, 1.6)
    waves = [_anisotropic(gaussian(rng, scene.shape), grain) for _ in range(2)]
    speckle = np.hypot(*waves)
    speckle /= speckle.mean()
    decibel = 25 * strength + rng.uniform(3, 7) * np.log(speckle + 0.1)
    wall = np.exp(-(((scene.distance - 0.5) / 1.5) ** 2)) * rng.uniform(0, 8)
    decibel = decibel + blur(wall.astype(np.float32), 0.8)
    y = np.linspace(0, 1, scene.shape[0], dtype=np.float32)[:, None]
    return np.clip(decibel - rng.uniform(0, 6) * y, -15, None).astype(np.float32)


def dark_field(scene: Scene, rng: np.random.Generator) -> Floats:
    """Bright rims and glow on black, as in angiography or dark-field images (H, W)."""
    glow = scene.dome ** rng.uniform(0.5, 1.5)
    value = tones(scene, rng, gap=0.1, low=0.35, high=1.0, background=0.0)[:, 0]
    image = value[scene.regions] * glow
    image = blur(image.astype(np.float32), rng.uniform(0.5, 1.2))
    image = image + rng.uniform(0, 0.2) * wide_blur(image, 3 * scene.typical_radius + 4)
    return rician_noise(rng, image, rng.uniform(0.01, 0.08))


def _anisotropic(values: Floats, sigmas: tuple[float, float]) -> Floats:
    from scipy import ndimage as ndi

    return np.asarray(ndi.gaussian_filter(values, sigmas, truncate=3), np.float32)
