"""Renderers: how photographs, medical devices and microscopes show a scene.

Each is a function (scene, generator) -> float32 image in arbitrary units; `FAMILIES` lists them
with the layouts that suit them. Below are what they share with the sensors: lamps, blur, noise,
and the degradation of a stored image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

from simmat_research.canvas import Floats, Shape, log_uniform
from simmat_research.scene import Scene, tones
from simmat_research.textures import photograph, smooth_field, texture


@dataclass(frozen=True)
class RendererFamily:
    """A renderer, how often it is drawn, and the layouts that suit it (name -> weight)."""

    render: Callable[[Scene, Generator], Floats]
    weight: float
    layouts: dict[str, float]


def render(scene: Scene, family: str, rng: Generator) -> Floats:
    """Float32 image (H, W) or (H, W, 3) of `scene` in the style of `family`, arbitrary units."""
    return np.ascontiguousarray(FAMILIES[family].render(scene, rng), np.float32)


def fluorescence(scene: Scene, rng: Generator) -> Floats:
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
        # A few bright specks of dirt, up to about as wide as the objects.
        specks = np.zeros(scene.shape, np.float32)
        widest = int(np.clip(1.5 * radius, 7, 30))
        for _ in range(int(rng.integers(1, 5))):
            y, x = (int(rng.integers(n)) for n in scene.shape)
            height, width = (int(log_uniform(rng, 2, widest)) for _ in range(2))
            specks[y : y + height, x : x + width] = rng.uniform(0.3, 1)
        light += blur(specks, rng.uniform(0.7, 2)) * log_uniform(rng, 1, 80)
    floor = background * uneven_light(rng, scene.shape, rng.uniform(0, 0.5))
    if rng.random() < 0.3:
        floor = floor * np.clip(1 + 0.3 * smooth_field(rng, scene.shape, 2 * radius + 8), 0.2, 3)
    counts = camera_noise(rng, peak * light + floor, read_noise)
    return counts * rng.uniform(0.5, 4) + float(rng.choice([0, 100, 1000, 33000]))


def _stain(scene: Scene, rng: Generator, radius: float) -> Floats:
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
    # A faint dark line separates touching neighbors.
    line = _border_line(scene, rng.uniform(0.6, 1.1))
    return np.asarray(body * (1 - rng.uniform(0.3, 0.9) * line) * scene.foreground, np.float32)


def membranes(scene: Scene, rng: Generator) -> Floats:
    """Fluorescent borders around dark cells (H, W)."""
    peak, radius = log_uniform(rng, 20, 800), scene.typical_radius
    width = rng.uniform(0.8, 1.2 + 0.06 * min(radius, 25))
    wall = _border_line(scene, width)
    wall *= np.clip(1 + 0.25 * smooth_field(rng, scene.shape, radius + 4), 0.45, 2)
    inside = rng.uniform(0, 0.25) * (1 + 0.3 * rng.standard_normal(scene.n_regions))
    inside = np.clip(inside, 0, 0.35).astype(np.float32)
    inside[0] = 0
    light = wall + inside[scene.regions] * (1 + 0.2 * texture(rng, scene.shape))
    light = blur(light.astype(np.float32), rng.uniform(0.6, 1.1))
    light += rng.uniform(0, 0.15) * wide_blur(light, radius + 3)
    return camera_noise(rng, peak * (light + rng.uniform(0.02, 0.2)), rng.uniform(0.5, 3))


def phase_contrast(scene: Scene, rng: Generator) -> Floats:
    """Dark bodies with a bright halo on gray, or the negative (H, W).

    The halo of Zernike's method is light that the phase ring passes although it was diffracted:
    a wide blur of the phase image, added with the opposite sign.
    """
    radius = scene.typical_radius
    thickness = scene.dome ** rng.uniform(0.25, 1.2)
    thickness = thickness * rng.uniform(0.85, 1.1, scene.n_regions)[scene.regions]
    if rng.random() < 0.4:
        grain = texture(rng, scene.shape, str(rng.choice(["cloud", "band", "spots"])))
        thickness = thickness * (1 + rng.uniform(0.03, 0.15) * grain)
    body = blur(thickness.astype(np.float32), rng.uniform(0.5, 0.8 + 0.4 * min(radius, 12)))
    reach = rng.uniform(0.5, 1.3) * min(radius, 14) + 1
    halo = wide_blur(body, reach) + 0.5 * wide_blur(body, 3 * reach)
    depth, ring = rng.uniform(0.3, 0.9), rng.uniform(0.1, 3)
    image = 1 - depth * body + ring * depth * halo * (1 - 0.7 * body)
    image += rng.uniform(0, 0.02) * smooth_field(rng, scene.shape, rng.uniform(5, 20))
    image *= uneven_light(rng, scene.shape, rng.uniform(0, 0.15))
    image += rng.uniform(0.002, 0.03) * gaussian(rng, scene.shape)
    if rng.random() < 0.2:
        # Diffraction rings around a few specks of dust.
        contrast = rng.uniform(0.03, 0.12)
        y, x = np.ogrid[: scene.shape[0], : scene.shape[1]]
        rings = np.zeros(scene.shape, np.float32)
        for _ in range(int(rng.integers(1, 4))):
            y0, x0 = (rng.uniform(0, n) for n in scene.shape)
            away = np.hypot(y - y0, x - x0)
            extent = rng.uniform(3, 9)
            wave = np.cos(away / rng.uniform(0.9, 2)) * np.exp(-((away / extent) ** 2))
            rings += wave.astype("f4")
        image += contrast * rings
    if rng.random() < 0.2:
        image = 2 - image
    return image * log_uniform(rng, 200, 15000)


def adherent_cells(scene: Scene, rng: Generator) -> Floats:
    """Thin cells in phase contrast or bright field: grainy, with a bright or dark rim (H, W)."""
    radius = scene.typical_radius
    reach = rng.uniform(0.9, 1.1 + 0.08 * min(radius, 30))
    outside = np.where(scene.foreground, 0, np.exp(-scene.distance / reach))
    inside = np.where(scene.foreground, np.exp(-scene.distance / reach / rng.uniform(0.7, 1.3)), 0)
    kind = str(rng.choice(["cloud", "band", "speckle", "spots", "grain"]))
    grain = texture(rng, scene.shape, kind) * scene.foreground * min(1.0, radius / 10)
    sign = rng.choice([-1, 1])
    image = 0.5 + sign * rng.uniform(0.15, 0.35) * outside - sign * rng.uniform(0.15, 0.4) * inside
    body = rng.choice([-1, 1]) * rng.uniform(0.03, 0.15) * scene.foreground
    image += body + rng.uniform(0.01, 0.06) * grain
    image += rng.uniform(0, 0.15) * scene.dome * rng.choice([-1, 1])
    blurred = blur(image.astype(np.float32), rng.uniform(0.55, 1.0))
    blurred *= uneven_light(rng, scene.shape, rng.uniform(0, 0.2))
    return blurred + rng.uniform(0.003, 0.02) * gaussian(rng, scene.shape)


def relief(scene: Scene, rng: Generator) -> Floats:
    """Differential interference contrast: slope of the optical path along a direction (H, W)."""
    radius = scene.typical_radius
    path: Floats = scene.dome * rng.uniform(0.7, 1.2, scene.n_regions)[scene.regions]
    kind = str(rng.choice(["cloud", "band", "spots", "grain"]))
    path = path + rng.uniform(0, 0.08) * texture(rng, scene.shape, kind) * scene.foreground
    path = blur(path.astype(np.float32), rng.uniform(0.7, 1.4))
    slope = _slope(path, rng)
    image = 0.5 + rng.uniform(0.4, 1.0) * slope * min(radius, 8) ** 0.5
    image += rng.uniform(-0.08, 0.08) * path
    image += 0.015 * smooth_field(rng, scene.shape, rng.uniform(6, 40))
    return np.asarray(image + rng.uniform(0.002, 0.02) * gaussian(rng, scene.shape))


def histology(scene: Scene, rng: Generator) -> Floats:
    """Hematoxylin nuclei over eosin tissue (H, W, 3), transmitted light 0..1.

    Beer-Lambert absorption with the stain colors of Ruifrok and Johnston (2001), varied.
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
    fibers = texture(rng, scene.shape, str(rng.choice(["cloud", "stripes", "band"])))
    tissue = 0.35 + 0.12 * smooth_field(rng, scene.shape, 3 * radius + 8) + 0.07 * fibers
    holes = smooth_field(rng, scene.shape, 3 * radius + 10) > rng.uniform(0.8, 2.5)
    tissue = np.clip(tissue, 0.05, 1) * np.where(holes & ~scene.foreground, 0.05, 1)
    tissue = tissue * rng.uniform(0.5, 1.2)
    density = nuclei[..., None] * blue + tissue[..., None] * red
    image = rng.uniform(0.88, 1.0) * np.exp(-density.astype(np.float32))
    blurred = blur(image, rng.uniform(0.5, 1.0))
    return blurred + rng.uniform(0.003, 0.02) * gaussian(rng, blurred.shape)


def electron(scene: Scene, rng: Generator) -> Floats:
    """Electron microscopy: dark membranes around grainy gray interiors (H, W)."""
    width = rng.uniform(0.9, 2.2)
    wall = _border_line(scene, width)
    inside = tones(scene, rng, gap=rng.uniform(0.0, 0.12), low=0.45, high=0.75)[:, 0]
    grain = texture(rng, scene.shape, str(rng.choice(["grain", "cloud", "speckle", "band"])))
    image = inside[scene.regions] + rng.uniform(0.02, 0.07) * grain
    image = image - rng.uniform(0.25, 0.45) * wall
    if rng.random() < 0.5:  # vesicles and ribosomes
        image -= rng.uniform(0.02, 0.06) * np.maximum(texture(rng, scene.shape, "spots"), 0)
    image = blur(image.astype(np.float32), rng.uniform(0.4, 0.9))
    return image + rng.uniform(0.01, 0.06) * gaussian(rng, scene.shape)


def mri(scene: Scene, rng: Generator) -> Floats:
    """Magnetic resonance: soft tissues, bias field of the coil, Rician noise, black air (H, W)."""
    gap = rng.uniform(0.08, 0.2)
    signal = tones(scene, rng, gap=gap, low=0.12, high=1.0, background=rng.uniform(0, 0.04))[:, 0]
    image = signal[scene.regions]
    image = image * (1 + rng.uniform(0, 0.05) * texture(rng, scene.shape))
    image = image * (1 + rng.uniform(0, 0.06) * smooth_field(rng, scene.shape, 20))
    image = blur(image.astype(np.float32), rng.uniform(0.5, 1.1))  # partial volume
    image = image * uneven_light(rng, scene.shape, rng.uniform(0, 0.5))
    image = rician_noise(rng, image, gap * rng.uniform(0.02, 0.35))
    return image * log_uniform(rng, 200, 4000)


def ct(scene: Scene, rng: Generator) -> Floats:
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


def x_ray(scene: Scene, rng: Generator) -> Floats:
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


def ultrasound(scene: Scene, rng: Generator) -> Floats:
    """Echoes with speckle: the magnitude of many random scatterers, log-compressed (H, W)."""
    echo = tones(scene, rng, gap=rng.uniform(0.35, 0.6), low=0.0, high=1.0)[:, 0]
    strength = blur(echo[scene.regions], rng.uniform(0.6, 1.2))
    grain = rng.uniform(0.5, 1.1), rng.uniform(0.5, 1.6)
    scatterers = (gaussian(rng, scene.shape) for _ in range(2))  # real and imaginary part
    waves = [ndi.gaussian_filter(each, grain, truncate=3) for each in scatterers]
    speckle = np.hypot(*waves)
    speckle /= speckle.mean()
    decibel: Floats = 25 * strength + rng.uniform(3, 7) * np.log(speckle + 0.1)
    wall = _border_line(scene, 1.5) * rng.uniform(0, 8)
    decibel = decibel + blur(wall.astype(np.float32), 0.8)
    y = np.linspace(0, 1, scene.shape[0], dtype=np.float32)[:, None]
    return np.clip(decibel - rng.uniform(0, 6) * y, -15, None).astype(np.float32)


def dark_field(scene: Scene, rng: Generator) -> Floats:
    """Bright rims and glow on black, as in angiography or dark-field images (H, W)."""
    glow = scene.dome ** rng.uniform(0.5, 1.5)
    value = tones(scene, rng, gap=0.1, low=0.35, high=1.0, background=0.0)[:, 0]
    image = value[scene.regions] * glow
    image = blur(image.astype(np.float32), rng.uniform(0.5, 1.2))
    image = image + rng.uniform(0, 0.2) * wide_blur(image, 3 * scene.typical_radius + 4)
    return rician_noise(rng, image, rng.uniform(0.01, 0.08))


def natural(scene: Scene, rng: Generator) -> Floats:
    """Dead leaves with the texture of photographs, lit from one side (H, W, 3) or (H, W), 0..1."""
    colors = tones(scene, rng, gap=rng.uniform(0.12, 0.25), low=0.1, high=0.9, channels=3)
    photographs = [photograph(rng, scene.shape) for _ in range(4)]
    choice = rng.integers(len(photographs), size=scene.n_regions).astype(np.int8)[scene.regions]
    detail = np.empty((*scene.shape, 3), np.float32)
    for number, patch in enumerate(photographs):
        where = choice == number
        detail[where] = patch[where] - patch.mean(axis=(0, 1))
    image = colors[scene.regions] + rng.uniform(0.15, 0.55) * detail
    if rng.random() < 0.6:
        image *= _shading(scene, rng)[..., None]
    if rng.random() < 0.3:  # soft shadow of each leaf on those beneath
        shadow = np.exp(-scene.distance / rng.uniform(1.5, 5)) * rng.uniform(0.1, 0.4)
        image *= (1 - shadow * (scene.dome < 0.5))[..., None]
    image = blur(image.astype(np.float32), rng.uniform(0.45, 0.9))
    image *= uneven_light(rng, scene.shape, rng.uniform(0, 0.5))[..., None]
    if rng.random() < 0.4:
        image = image @ np.array([0.299, 0.587, 0.114], np.float32)
    return image + rng.uniform(0.002, 0.03) * gaussian(rng, image.shape)


def embossed_discs(scene: Scene, rng: Generator) -> Floats:
    """Gray discs with an embossed face under uneven light, like coins on a cloth (H, W)."""
    n = scene.n_regions
    ground = rng.uniform(0.05, 0.4)
    level = ground + rng.uniform(0.2, 0.5) + rng.normal(0, rng.uniform(0.0, 0.1), n)
    level = np.clip(level, ground + 0.12, 1.0).astype(np.float32)
    if rng.random() < 0.2:
        level, ground = 1 - level, 1 - ground
    level[0] = ground
    radius = scene.typical_radius
    # The face: level lines of a landscape a few strokes wide, embossed in the metal.
    face = smooth_field(rng, scene.shape, max(2.2, radius * rng.uniform(0.12, 0.35)))
    face = np.tanh(3 * face) + 0.5 * smooth_field(rng, scene.shape, 2.5)
    if rng.random() < 0.5:
        face = 0.4 * face + texture(rng, scene.shape)
    rim = np.exp(-(((scene.distance - 1.5 - 0.06 * radius) / (1 + 0.04 * radius)) ** 2))
    height = rng.uniform(0.4, 1.2) * face + rng.uniform(0, 2.5) * rim
    height = height + np.minimum(scene.distance, 2.0) * rng.uniform(0, 1)
    height = blur((height * scene.foreground).astype(np.float32), rng.uniform(0.6, 1.2))
    slope = _slope(height, rng).astype(np.float32)
    image = level[scene.regions] + log_uniform(rng, 0.04, 0.5) * slope
    if rng.random() < 0.4:  # cast shadow on the ground
        shadow = np.roll(scene.foreground, rng.integers(-3, 4, 2), axis=(0, 1)) & ~scene.foreground
        image -= rng.uniform(0.1, 0.5) * ground * shadow
    if rng.random() < 0.4:  # uneven light on the ground alone
        strength = ground * rng.uniform(0.1, 0.6)
        image += strength * (uneven_light(rng, scene.shape, 1.0) - 1) * ~scene.foreground
    image += (rng.uniform(0.005, 0.04) * texture(rng, scene.shape)) * ~scene.foreground
    image = blur(image.astype(np.float32), rng.uniform(0.45, 0.8))
    image *= uneven_light(rng, scene.shape, rng.uniform(0, 0.7))
    return image + rng.uniform(0.003, 0.03) * gaussian(rng, scene.shape)


def plain(scene: Scene, rng: Generator) -> Floats:
    """Areas of different gray or color with a simple finish (H, W) or (H, W, 3)."""
    channels = 3 if rng.random() < 0.35 else 1
    gap = rng.uniform(0.1, 0.25)
    image = tones(scene, rng, gap=gap, channels=channels)[scene.regions]
    amount = (gap * rng.uniform(0, 0.35, scene.n_regions)).astype(np.float32)
    textures = [texture(rng, scene.shape) for _ in range(3)]
    which = rng.integers(3, size=scene.n_regions)[scene.regions]
    image = image + (amount[scene.regions] * np.choose(which, textures))[..., None]
    if rng.random() < 0.3:
        image = image * _shading(scene, rng)[..., None]
    if rng.random() < 0.2:
        line = _border_line(scene, rng.uniform(0.8, 1.8))
        image = image - rng.uniform(0.1, 0.4) * line[..., None]
    image = blur(image.astype(np.float32), rng.uniform(0.4, 1.3))
    image = image * uneven_light(rng, scene.shape, rng.uniform(0, 0.4))[..., None]
    image = image + gap * rng.uniform(0.01, 0.35) * gaussian(rng, image.shape)
    return image if channels == 3 else image[..., 0]


def depth(scene: Scene, rng: Generator) -> Floats:
    """Depth camera: steps at borders, noise, holes that read 0 (H, W)."""
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


def thermal(scene: Scene, rng: Generator) -> Floats:
    """Raw counts of a long-wave infra-red camera: soft, low contrast, column noise (H, W)."""
    image = blur(scene.temperature, rng.uniform(0.4, 1.3))
    spread = float(np.ptp(image)) + 0.1
    image = image + spread * rng.uniform(0.002, 0.02) * gaussian(rng, scene.shape)
    image = image + spread * rng.uniform(0, 0.008) * gaussian(rng, (1, scene.shape[1]))
    return (image * rng.uniform(20, 50)).astype(np.float32)


def _border_line(scene: Scene, width: float) -> NDArray[np.floating]:
    """Gaussian profile (H, W) of 1 on the borders between regions, `width` pixels wide."""
    return np.asarray(np.exp(-(((scene.distance - 0.5) / width) ** 2)))


def _shading(scene: Scene, rng: Generator) -> Floats:
    """Lambert's cosine law for a light from one side, as a gain of about 1 (H, W)."""
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.9)
    light = np.array([np.cos(angle) * tilt, np.sin(angle) * tilt, 1.0], np.float32)
    return np.clip(scene.normals @ light, 0.25, 1.6).astype(np.float32)


def _slope(height: Floats, rng: Generator) -> NDArray[np.floating]:
    """Slope (H, W) of a surface along a random direction."""
    dy, dx = np.gradient(height)
    angle = rng.uniform(0, 2 * np.pi)
    return np.asarray(np.cos(angle) * dx + np.sin(angle) * dy)


_THINGS = {"leaves": 4, "large": 2, "discs": 1, "nested": 1, "filaments": 0.5, "assembled": 2.5}

FAMILIES: dict[str, RendererFamily] = {
    "fluorescence": RendererFamily(
        fluorescence, 4, {"cells": 8, "nucleated": 0.6, "rods": 1, "discs": 0.7, "filaments": 0.3}
    ),
    "membranes": RendererFamily(membranes, 0.7, {"tissue": 3, "cells": 1}),
    "phase_contrast": RendererFamily(phase_contrast, 5, {"rods": 6, "cells": 2, "discs": 0.5}),
    "adherent_cells": RendererFamily(
        adherent_cells, 1, {"cells": 3, "nucleated": 1.5, "rods": 1, "discs": 0.5}
    ),
    "relief": RendererFamily(relief, 0.8, {"cells": 3, "rods": 1.5, "discs": 1}),
    "histology": RendererFamily(histology, 1.2, {"cells": 4, "discs": 0.3}),
    "electron": RendererFamily(
        electron, 0.8, {"tissue": 3, "cells": 1, "nucleated": 1, "nested": 1}
    ),
    "mri": RendererFamily(mri, 1.8, {"head": 3, "organs": 2, "levels": 2}),
    "ct": RendererFamily(ct, 1, {"organs": 3, "head": 0.5, "levels": 1}),
    "x_ray": RendererFamily(x_ray, 0.5, {"organs": 1, "leaves": 1, "large": 1, "discs": 1}),
    "ultrasound": RendererFamily(ultrasound, 0.6, {"large": 2, "levels": 1, "organs": 1}),
    "dark_field": RendererFamily(dark_field, 0.5, {"filaments": 2, "cells": 1, "rods": 1}),
    "natural": RendererFamily(natural, 2.5, _THINGS),
    "struck": RendererFamily(embossed_discs, 1.8, {"discs": 4, "cells": 1, "leaves": 0.5}),
    "plain": RendererFamily(
        plain, 2, {**_THINGS, "cells": 2, "nucleated": 1.5, "tissue": 1, "levels": 1, "rods": 0.7}
    ),
    "depth": RendererFamily(depth, 0.6, _THINGS),
    "thermal": RendererFamily(thermal, 0.6, _THINGS),
    "folded_tissue": RendererFamily(mri, 0.7, {"folds": 1}),
    "layered_echo": RendererFamily(ultrasound, 0.3, {"layers": 1}),
    "layered": RendererFamily(plain, 0.8, {"layers": 2, "cracks": 2, "folds": 1}),
}
"""Name -> `RendererFamily`. A new renderer is a new row; a test walks all rows."""


def draw_lamp(rng: Generator) -> Floats:
    """Unit vector (3,) as x, y, z towards an oblique lamp."""
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.9)
    direction = np.array([np.cos(angle) * tilt, np.sin(angle) * tilt, 1.0])
    return np.asarray(direction / np.linalg.norm(direction), np.float32)


def illumination(scene: Scene, lamp: Floats, ambient: float) -> Floats:
    """Light (H, W) on the surface (Lambert's law), or on the ground behind clear glass."""
    light = ambient + 0.6 * np.clip(scene.normals @ lamp, 0, 1)
    bare = scene.regions == 0
    ground = np.median(light[bare]) if bare.any() else np.median(light)
    return np.asarray(np.where(scene.glass, ground, light), np.float32)


def halfway(lamp: Floats) -> Floats:
    """Unit vector halfway between lamp and camera: the normal of a mirror facet (Blinn 1977)."""
    direction = lamp + np.array([0, 0, 1], np.float32)
    return np.asarray(direction / np.linalg.norm(direction), np.float32)


def uneven_light(rng: Generator, shape: Shape, strength: float) -> Floats:
    """Gain (H, W) of mean about 1 that varies slowly: a slope, a vignette and clouds."""
    y, x = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])[None]
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.sin(angle) * y + np.cos(angle) * x
    y0, x0 = rng.uniform(-0.6, 0.6, 2)
    vignette = 0.5 - ((y - y0) ** 2 + (x - x0) ** 2) / 2
    clouds = smooth_field(rng, shape, min(shape) * rng.uniform(0.25, 0.6))
    mix = rng.dirichlet([1, 1, 1])
    field = mix[0] * slope + mix[1] * vignette + mix[2] * 0.6 * clouds
    return np.asarray(np.clip(1 + strength * field, 0.15, 2.5), np.float32)


def blur(image: Floats, sigma: float) -> Floats:
    """Gaussian blur of (H, W) or (H, W, C) by `sigma` pixels."""
    if sigma < 0.2:
        return image
    if image.ndim == 2:
        return np.asarray(ndi.gaussian_filter(image, sigma, truncate=3), np.float32)
    return np.stack([blur(image[..., c], sigma) for c in range(image.shape[-1])], axis=-1)


def wide_blur(image: Floats, sigma: float) -> Floats:
    """Gaussian blur of (H, W) by many pixels, computed on a coarser grid."""
    step = max(1, int(sigma // 2))
    if step == 1 or min(image.shape) < 4 * step:
        return blur(image, sigma)
    rows, columns = (-(-n // step) for n in image.shape)
    missing = [(0, n * step - side) for n, side in zip((rows, columns), image.shape, strict=True)]
    padded = np.pad(image, missing, "edge")
    coarse = padded.reshape(rows, step, columns, step).mean(axis=(1, 3))
    coarse = blur(coarse, sigma / step)
    return _interpolate(_interpolate(coarse, image.shape[0], step).T, image.shape[1], step).T


def _interpolate(values: Floats, n: int, step: int) -> Floats:
    """Linear interpolation of (m, k) along its first axis to n rows, `step` rows per value."""
    last = len(values) - 1
    position = np.clip((np.arange(n, dtype=np.float32) + 0.5) / step - 0.5, 0, last)
    below = position.astype(np.intp)
    part = (position - below)[:, None]
    return values[below] * (1 - part) + values[np.minimum(below + 1, last)] * part


def camera_noise(rng: Generator, photons: Floats, read_noise: float) -> Floats:
    """Photon counts as a camera reports them: Poisson plus Gaussian read noise.

    The Poisson-Gaussian model of raw data (Foi, Trimeche, Katkovnik and Egiazarian 2008).
    Bright images take the normal limit of the Poisson law.
    """
    photons = np.maximum(photons, 0)
    if float(photons.mean()) < 20:
        counts: Floats = rng.poisson(photons).astype(np.float32)
    else:
        counts = photons + np.sqrt(photons) * gaussian(rng, photons.shape)
    return counts + np.float32(read_noise) * gaussian(rng, photons.shape)


def rician_noise(rng: Generator, magnitude: Floats, sigma: float) -> Floats:
    """Magnitude of a complex signal with Gaussian noise, as in MRI (Gudbjartsson and Patz 1995)."""
    real = magnitude + np.float32(sigma) * gaussian(rng, magnitude.shape)
    return np.asarray(np.hypot(real, np.float32(sigma) * gaussian(rng, magnitude.shape)))


def gaussian(rng: Generator, shape: tuple[int, ...]) -> Floats:
    """Standard normal numbers as float32."""
    return rng.standard_normal(shape, dtype=np.float32)


def degrade(rng: Generator, image: Floats) -> Floats:
    """Apply a random choice of gamma, negative, uneven light, blur, noise, JPEG and quantization.

    The result is again in arbitrary units. Strengths are moderate: visible objects stay visible.
    """
    low, high = np.percentile(image[::2, ::2], [0.2, 99.8])
    span = max(float(high - low), 1e-6)
    unit = (image - np.float32(low)) / np.float32(span)
    if rng.random() < 0.25:
        unit = np.sign(unit) * np.abs(unit) ** np.float32(np.exp(rng.uniform(-0.5, 0.4)))
    if rng.random() < (0.12 if unit.ndim == 2 else 0.03):
        unit = 1 - unit
    shape = (unit.shape[0], unit.shape[1])
    if rng.random() < 0.15:
        gain = uneven_light(rng, shape, rng.uniform(0.1, 0.5))
        unit = unit * (gain if unit.ndim == 2 else gain[..., None])
    if rng.random() < 0.12:
        unit = blur(unit, rng.uniform(0.4, 1.0))
    if rng.random() < 0.12:
        unit = unit + rng.uniform(0.003, 0.03) * gaussian(rng, unit.shape)
    if rng.random() < 0.15:
        stored, picture = BytesIO(), Image.fromarray((np.clip(unit, 0, 1) * 255).astype(np.uint8))
        picture.save(stored, "JPEG", quality=int(rng.integers(40, 95)))
        unit = np.asarray(Image.open(stored), np.float32) / 255
    storage = rng.random()
    if storage < 0.35:  # 8 bits; over-exposed pixels are clipped
        unit = np.round(np.clip(unit, 0, 1) * 255) / 255
    elif storage < 0.4:  # few gray levels
        levels = int(rng.integers(24, 100))
        unit = np.round(unit * levels) / levels
    if rng.random() < 0.3:
        return np.asarray(unit * 255, np.float32)
    return np.asarray(unit * np.float32(span) + np.float32(low), np.float32)
