"""How cameras show a scene: photographs, depth, heat. Float32 images in arbitrary units."""

from __future__ import annotations

import numpy as np

from napari_simmat.learn.scenes.arrays import Floats
from napari_simmat.learn.scenes.optics import blur, gaussian, uneven_light
from napari_simmat.learn.scenes.placing import log_uniform
from napari_simmat.learn.scenes.scene import Scene
from napari_simmat.learn.scenes.textures import photograph, smooth_field, texture
from napari_simmat.learn.scenes.tones import tones

_PATCHES = 4


def natural(scene: Scene, rng: np.random.Generator) -> Floats:
    """Dead leaves with the texture of photographs, lit from one side (H, W, 3) or (H, W), 0..1."""
    colours = tones(scene, rng, gap=rng.uniform(0.12, 0.25), low=0.1, high=0.9, channels=3)
    patches = [photograph(rng, scene.shape) for _ in range(_PATCHES)]
    choice = rng.integers(_PATCHES, size=scene.n_regions).astype(np.int8)[scene.regions]
    detail = np.empty((*scene.shape, 3), np.float32)
    for number, patch in enumerate(patches):
        where = choice == number
        detail[where] = patch[where] - patch.mean(axis=(0, 1))
    image = colours[scene.regions] + rng.uniform(0.15, 0.55) * detail
    if rng.random() < 0.6:
        image *= _shading(scene, rng)[..., None]
    if rng.random() < 0.3:  # soft shadow of each leaf on what lies beneath
        shadow = np.exp(-scene.distance / rng.uniform(1.5, 5)) * rng.uniform(0.1, 0.4)
        image *= (1 - shadow * (scene.dome < 0.5))[..., None]
    image = blur(image.astype(np.float32), rng.uniform(0.45, 0.9))
    image *= uneven_light(rng, scene.shape, rng.uniform(0, 0.5))[..., None]
    if rng.random() < 0.4:
        image = image @ np.array([0.299, 0.587, 0.114], np.float32)
    return image + rng.uniform(0.002, 0.03) * gaussian(rng, image.shape)


def struck(scene: Scene, rng: np.random.Generator) -> Floats:
    """Grey discs with an embossed face under uneven light, as coins on a cloth (H, W)."""
    n = scene.n_regions
    ground = rng.uniform(0.05, 0.4)
    level = np.clip(
        ground + rng.uniform(0.2, 0.5) + rng.normal(0, rng.uniform(0.0, 0.1), n), ground + 0.12, 1.0
    ).astype(np.float32)
    if rng.random() < 0.2:
        level = 1 - level
        ground = 1 - ground
    level[0] = ground
    radius = scene.typical_radius
    # A face: level lines of a landscape a few strokes wide, pressed into the metal.
    drawing = smooth_field(rng, scene.shape, max(2.2, radius * rng.uniform(0.12, 0.35)))
    drawing = np.tanh(3 * drawing) + 0.5 * smooth_field(rng, scene.shape, 2.5)
    if rng.random() < 0.5:
        drawing = 0.4 * drawing + texture(rng, scene.shape)
    rim = np.exp(-(((scene.distance - 1.5 - 0.06 * radius) / (1 + 0.04 * radius)) ** 2))
    height = rng.uniform(0.4, 1.2) * drawing + rng.uniform(0, 2.5) * rim
    height = height + np.minimum(scene.distance, 2.0) * rng.uniform(0, 1)
    slope = _slope(blur((height * scene.foreground).astype(np.float32), rng.uniform(0.6, 1.2)), rng)
    image = level[scene.regions] + log_uniform(rng, 0.04, 0.5) * slope
    if rng.random() < 0.4:  # cast shadow on the ground
        shadow = np.roll(scene.foreground, rng.integers(-3, 4, 2), axis=(0, 1)) & ~scene.foreground
        image -= rng.uniform(0.1, 0.5) * ground * shadow
    if rng.random() < 0.4:  # the ground is lit unevenly by itself
        image += (
            ground
            * rng.uniform(0.1, 0.6)
            * (uneven_light(rng, scene.shape, 1.0) - 1)
            * ~scene.foreground
        )
    image += (rng.uniform(0.005, 0.04) * texture(rng, scene.shape)) * ~scene.foreground
    image = blur(image.astype(np.float32), rng.uniform(0.45, 0.8))
    image *= uneven_light(rng, scene.shape, rng.uniform(0, 0.7))
    return image + rng.uniform(0.003, 0.03) * gaussian(rng, scene.shape)


def plain(scene: Scene, rng: np.random.Generator) -> Floats:
    """Areas of different grey or colour with one of many simple finishes."""
    channels = 3 if rng.random() < 0.35 else 1
    gap = rng.uniform(0.1, 0.25)
    image = tones(scene, rng, gap=gap, channels=channels)[scene.regions]
    amount = (gap * rng.uniform(0, 0.35, scene.n_regions)).astype(np.float32)
    surfaces = [texture(rng, scene.shape) for _ in range(3)]
    which = rng.integers(3, size=scene.n_regions)[scene.regions]
    image = image + (amount[scene.regions] * np.choose(which, surfaces))[..., None]
    if rng.random() < 0.3:
        image = image * _shading(scene, rng)[..., None]
    if rng.random() < 0.2:
        line = np.exp(-(((scene.distance - 0.5) / rng.uniform(0.8, 1.8)) ** 2))
        image = image - rng.uniform(0.1, 0.4) * line[..., None]
    image = blur(image.astype(np.float32), rng.uniform(0.4, 1.3))
    image = image * uneven_light(rng, scene.shape, rng.uniform(0, 0.4))[..., None]
    image = image + gap * rng.uniform(0.01, 0.35) * gaussian(rng, image.shape)
    return image if channels == 3 else image[..., 0]


def depth(scene: Scene, rng: np.random.Generator) -> Floats:
    """A depth camera's view: steps at borders, noise, holes that read 0 (H, W)."""
    image = scene.depth
    spread = float(image.std()) + 1e-6
    image = image + rng.uniform(0.002, 0.05) * spread * gaussian(rng, scene.shape)
    if rng.random() < 0.4:
        step = spread * rng.uniform(0.02, 0.1)
        image = np.round(image / step) * step
    image = blur(image, rng.uniform(0, 0.8))
    if rng.random() < 0.15:
        holes = (scene.distance < 1.6) & (smooth_field(rng, scene.shape, 6) > 1.2)
        image = np.where(holes, 0, image)
    return (1000 / image if rng.random() < 0.3 and image.min() > 1 else image).astype(np.float32)


def thermal(scene: Scene, rng: np.random.Generator) -> Floats:
    """A long-wave infra-red camera's raw counts: soft, low contrast, column noise (H, W)."""
    image = blur(scene.temperature, rng.uniform(0.4, 1.3))
    spread = float(np.ptp(image)) + 0.1
    image = image + spread * rng.uniform(0.002, 0.02) * gaussian(rng, scene.shape)
    image = image + spread * rng.uniform(0, 0.008) * gaussian(rng, (1, scene.shape[1]))
    return (image * rng.uniform(20, 50)).astype(np.float32)


def _shading(scene: Scene, rng: np.random.Generator) -> Floats:
    """Lambert's cosine law for a light from one side, as a gain of about 1 (H, W)."""
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.9)
    light = np.array([np.cos(angle) * tilt, np.sin(angle) * tilt, 1.0], np.float32)
    return np.clip(scene.normals @ light, 0.25, 1.6).astype(np.float32)


def _slope(height: Floats, rng: np.random.Generator) -> Floats:
    dy, dx = np.gradient(height)
    angle = rng.uniform(0, 2 * np.pi)
    return np.asarray(np.cos(angle) * dx + np.sin(angle) * dy, np.float32)
