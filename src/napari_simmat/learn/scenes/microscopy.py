"""How microscopes show a scene. Each look returns a float32 image in arbitrary units."""

from __future__ import annotations

import numpy as np

from napari_simmat.learn.scenes.arrays import Floats
from napari_simmat.learn.scenes.optics import (
    blur,
    camera_noise,
    gaussian,
    uneven_light,
    wide_blur,
)
from napari_simmat.learn.scenes.placing import log_uniform
from napari_simmat.learn.scenes.scene import Scene
from napari_simmat.learn.scenes.textures import smooth_field, texture
from napari_simmat.learn.scenes.tones import tones


def fluorescence(scene: Scene, rng: np.random.Generator) -> Floats:
    """Stained nuclei, cells or bacteria: photons over a dark, hazy background (H, W)."""
    peak = log_uniform(rng, 12, 1500)
    background = peak * log_uniform(rng, 0.01, 0.35)
    read_noise = rng.uniform(0.5, 4.0)
    radius = scene.typical_radius
    brightness = np.exp(rng.normal(0, rng.uniform(0.05, 0.8), scene.n_regions))
    if rng.random() < 0.35:  # dividing or dead cells: few and very bright
        brightness[rng.random(scene.n_regions) < 0.06] *= log_uniform(rng, 2.5, 25)
    dimmest = max(0.06, 1.3 * np.sqrt(background + read_noise**2 + 1) / peak)
    brightness = np.maximum(brightness, dimmest * rng.uniform(1, 2, scene.n_regions))
    brightness[0] = 0
    light = brightness.astype(np.float32)[scene.regions] * _stain(scene, rng, radius)
    light = blur(light, rng.uniform(0.6, 0.8 + 0.06 * min(radius, 25)))
    light += rng.uniform(0, 0.25) ** 1.5 * wide_blur(light, rng.uniform(0.8, 2.5) * radius + 3)
    if rng.random() < 0.2:  # cells far out of focus, too blurred to be objects
        ghosts = np.roll(light, rng.integers(20, 100, 2), axis=(0, 1))
        light += rng.uniform(0.05, 0.25) * wide_blur(ghosts, 0.7 * radius + 3)
    if rng.random() < 0.25:
        light += _debris(scene, rng, radius) * log_uniform(rng, 1, 80)
    floor = background * uneven_light(rng, scene.shape, rng.uniform(0, 0.5))
    if rng.random() < 0.3:
        floor = floor * np.clip(1 + 0.3 * smooth_field(rng, scene.shape, 2 * radius + 8), 0.2, 3)
    counts = camera_noise(rng, peak * light + floor, read_noise)
    return counts * rng.uniform(0.5, 4) + float(rng.choice([0, 100, 1000, 33000]))


def membranes(scene: Scene, rng: np.random.Generator) -> Floats:
    """Fluorescent borders around dark cells (H, W)."""
    peak, radius = log_uniform(rng, 20, 800), scene.typical_radius
    width = rng.uniform(0.8, 1.2 + 0.06 * min(radius, 25))
    wall = np.exp(-(((scene.distance - 0.5) / width) ** 2))
    wall *= np.clip(1 + 0.25 * smooth_field(rng, scene.shape, radius + 4), 0.45, 2)
    inside = rng.uniform(0, 0.25) * (1 + 0.3 * rng.standard_normal(scene.n_regions))
    inside = np.clip(inside, 0, 0.35).astype(np.float32)
    inside[0] = 0
    light = wall + inside[scene.regions] * (1 + 0.2 * texture(rng, scene.shape))
    light = blur(light.astype(np.float32), rng.uniform(0.6, 1.1))
    light += rng.uniform(0, 0.15) * wide_blur(light, radius + 3)
    return camera_noise(rng, peak * (light + rng.uniform(0.02, 0.2)), rng.uniform(0.5, 3))


def phase_contrast(scene: Scene, rng: np.random.Generator) -> Floats:
    """Dark bodies with a bright halo on grey, or the negative of that (H, W).

    The halo of Zernike's method is light that the phase ring passes although it was diffracted:
    a wide blur of the phase image, added with the opposite sign.
    """
    radius = scene.typical_radius
    thickness = scene.dome ** rng.uniform(0.25, 1.2)
    thickness = thickness * rng.uniform(0.85, 1.1, scene.n_regions)[scene.regions]
    if rng.random() < 0.4:
        grain = texture(rng, scene.shape, str(rng.choice(["cloud", "band", "spots"])))
        thickness = thickness * (1 + rng.uniform(0.03, 0.15) * grain)
    body = blur(thickness.astype(np.float32), rng.uniform(0.5, 0.8 + 0.22 * min(radius, 12)))
    reach = rng.uniform(0.5, 1.3) * min(radius, 14) + 1
    halo = wide_blur(body, reach) + 0.5 * wide_blur(body, 3 * reach)
    depth, ring = rng.uniform(0.3, 0.9), rng.uniform(0.1, 3)
    image = 1 - depth * body + ring * depth * halo * (1 - 0.7 * body)
    image += rng.uniform(0, 0.02) * smooth_field(rng, scene.shape, rng.uniform(5, 20))
    image *= uneven_light(rng, scene.shape, rng.uniform(0, 0.15))
    image += rng.uniform(0.002, 0.03) * gaussian(rng, scene.shape)
    if rng.random() < 0.2:  # diffraction rings of dust
        image += rng.uniform(0.03, 0.12) * _dust(scene, rng)
    if rng.random() < 0.2:
        image = 2 - image
    return image * log_uniform(rng, 200, 15000)


def adherent_cells(scene: Scene, rng: np.random.Generator) -> Floats:
    """Thin cells in phase contrast or bright field: grainy inside, with a bright or dark rim."""
    radius = scene.typical_radius
    reach = rng.uniform(0.9, 1.1 + 0.08 * min(radius, 30))
    outside = np.where(scene.foreground, 0, np.exp(-scene.distance / reach))
    inside = np.where(scene.foreground, np.exp(-scene.distance / reach / rng.uniform(0.7, 1.3)), 0)
    kind = str(rng.choice(["cloud", "band", "speckle", "spots", "grain"]))
    grain = texture(rng, scene.shape, kind) * scene.foreground * min(1.0, radius / 10)
    sign = rng.choice([-1, 1])
    image = 0.5 + sign * rng.uniform(0.15, 0.35) * outside - sign * rng.uniform(0.15, 0.4) * inside
    image += (
        rng.choice([-1, 1]) * rng.uniform(0.03, 0.15) * scene.foreground
        + rng.uniform(0.01, 0.06) * grain
    )
    image += rng.uniform(0, 0.15) * scene.dome * rng.choice([-1, 1])
    blurred = blur(image.astype(np.float32), rng.uniform(0.55, 1.0))
    blurred *= uneven_light(rng, scene.shape, rng.uniform(0, 0.2))
    return blurred + rng.uniform(0.003, 0.02) * gaussian(rng, scene.shape)


def relief(scene: Scene, rng: np.random.Generator) -> Floats:
    """Differential interference contrast: the slope of the optical path along one direction."""
    radius = scene.typical_radius
    path: Floats = scene.dome * rng.uniform(0.7, 1.2, scene.n_regions)[scene.regions]
    kind = str(rng.choice(["cloud", "band", "spots", "grain"]))
    path = path + rng.uniform(0, 0.08) * texture(rng, scene.shape, kind) * scene.foreground
    path = blur(path.astype(np.float32), rng.uniform(0.7, 1.4))
    dy, dx = np.gradient(path)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * dx + np.sin(angle) * dy
    image = 0.5 + rng.uniform(0.4, 1.0) * slope * min(radius, 8) ** 0.5
    image += rng.uniform(-0.08, 0.08) * path
    image += 0.015 * smooth_field(rng, scene.shape, rng.uniform(6, 40))
    return np.asarray(image + rng.uniform(0.002, 0.02) * gaussian(rng, scene.shape))


def histology(scene: Scene, rng: np.random.Generator) -> Floats:
    """Haematoxylin nuclei over eosin tissue (H, W, 3), transmitted light 0..1.

    Beer-Lambert absorption with the stain colours of Ruifrok and Johnston (2001), varied.
    """
    blue = np.array([0.65, 0.70, 0.29]) * rng.uniform(0.85, 1.15, 3)
    red = np.array([0.07, 0.99, 0.11]) * rng.uniform(0.8, 1.2, 3)
    if rng.random() < 0.25:  # diaminobenzidine in place of eosin
        red = np.array([0.27, 0.57, 0.78]) * rng.uniform(0.85, 1.15, 3)
    radius = scene.typical_radius
    dose = np.clip(1 + rng.uniform(0.05, 0.25) * rng.standard_normal(scene.n_regions), 0.55, 1.6)
    dose[0] = 0
    chromatin = 1 + rng.uniform(0.05, 0.25) * texture(rng, scene.shape)
    rim = 1 + rng.uniform(0, 0.5) * np.exp(-scene.distance / 1.5)
    nuclei = dose[scene.regions] * chromatin * rim * rng.uniform(0.6, 1.3)
    fibres = texture(rng, scene.shape, str(rng.choice(["cloud", "stripes", "band"])))
    tissue = 0.35 + 0.12 * smooth_field(rng, scene.shape, 3 * radius + 8) + 0.07 * fibres
    holes = smooth_field(rng, scene.shape, 3 * radius + 10) > rng.uniform(0.8, 2.5)
    tissue = np.clip(tissue, 0.05, 1) * np.where(holes & ~scene.foreground, 0.05, 1)
    tissue = tissue * rng.uniform(0.5, 1.2)
    density = nuclei[..., None] * blue + tissue[..., None] * red
    image = rng.uniform(0.88, 1.0) * np.exp(-density.astype(np.float32))
    blurred = blur(image, rng.uniform(0.5, 1.0))
    return blurred + rng.uniform(0.003, 0.02) * gaussian(rng, blurred.shape)


def electron(scene: Scene, rng: np.random.Generator) -> Floats:
    """Electron microscopy: dark membranes around grainy grey interiors (H, W)."""
    width = rng.uniform(0.9, 2.2)
    wall = np.exp(-(((scene.distance - 0.5) / width) ** 2))
    inside = tones(scene, rng, gap=rng.uniform(0.0, 0.12), low=0.45, high=0.75)[:, 0]
    grain = texture(rng, scene.shape, str(rng.choice(["grain", "cloud", "speckle", "band"])))
    image = inside[scene.regions] + rng.uniform(0.02, 0.07) * grain
    image = image - rng.uniform(0.25, 0.45) * wall
    if rng.random() < 0.5:  # vesicles and ribosomes
        image -= rng.uniform(0.02, 0.06) * np.maximum(texture(rng, scene.shape, "spots"), 0)
    image = blur(image.astype(np.float32), rng.uniform(0.4, 0.9))
    return image + rng.uniform(0.01, 0.06) * gaussian(rng, scene.shape)


def _stain(scene: Scene, rng: np.random.Generator, radius: float) -> Floats:
    """Concentration of the dye in a region relative to its brightness (H, W)."""
    if rng.random() < 0.6:  # thin, flat on the slide
        body = 1 - np.exp(-scene.distance / rng.uniform(0.4, 0.8 + 0.08 * radius))
    else:  # ball
        body = scene.dome ** rng.uniform(0.4, 1.1)
    kind = str(rng.choice(["cloud", "band", "blotches", "spots", "grain"]))
    chromatin = blur(texture(rng, scene.shape, kind), rng.uniform(0.3, 0.6 + 0.05 * radius))
    chromatin /= chromatin.std() + 1e-6
    body = body * np.clip(1 + rng.uniform(0.03, 0.3) * chromatin, 0.3, 2.5)
    if rng.random() < 0.4 and radius > 7:  # nucleoli are dark
        spots = smooth_field(rng, scene.shape, 0.35 * radius) > rng.uniform(1.1, 1.8)
        body = body * (1 - rng.uniform(0.15, 0.6) * spots)
    # Neighbours that touch are parted by a faint dark line.
    line = np.exp(-(((scene.distance - 0.5) / rng.uniform(0.6, 1.1)) ** 2))
    return np.asarray(body * (1 - rng.uniform(0.3, 0.9) * line) * scene.foreground, np.float32)


def _debris(scene: Scene, rng: np.random.Generator, radius: float) -> Floats:
    """Few bright specks of dirt, up to as wide as the objects (H, W), 0..1."""
    specks = np.zeros(scene.shape, np.float32)
    widest = int(np.clip(1.5 * radius, 7, 30))
    for _ in range(int(rng.integers(1, 5))):
        y, x = (int(rng.integers(n)) for n in scene.shape)
        height, width = (int(log_uniform(rng, 2, widest)) for _ in range(2))
        specks[y : y + height, x : x + width] = rng.uniform(0.3, 1)
    return blur(specks, rng.uniform(0.7, 2))


def _dust(scene: Scene, rng: np.random.Generator) -> Floats:
    y, x = np.ogrid[: scene.shape[0], : scene.shape[1]]
    image = np.zeros(scene.shape, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        y0, x0 = (rng.uniform(0, n) for n in scene.shape)
        away = np.hypot(y - y0, x - x0)
        reach = rng.uniform(3, 9)
        image += (np.cos(away / rng.uniform(0.9, 2)) * np.exp(-((away / reach) ** 2))).astype("f4")
    return image
