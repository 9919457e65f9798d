"""Scenes for the decoder of all objects: what real sources hardly show, and ground without objects.

Beside the scenes of `scene_pool`, packed and touching rods, chains, bends, grains with narrow gaps,
grains of very unlike sizes, on rough ground as in scanning electron microscopy, and nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.random import Generator
from scipy import ndimage as ndi

from simmat_research.canvas import (
    MAX_OBJECTS,
    Drawing,
    Floats,
    Point,
    RegionCanvas,
    Shape,
    as_point,
    blob,
    direction,
    lattice,
    log_uniform,
    polygon,
    random_position,
    rectangle,
)
from simmat_research.layouts import LAYOUTS, SceneLayout, grow_colony, tissue
from simmat_research.renderers import FAMILIES, blur, degrade, gaussian, render, uneven_light
from simmat_research.samples import visible_labels
from simmat_research.scene import Scene
from simmat_research.scene_pool import DrawnScene, random_normalize, zoom
from simmat_research.textures import pattern, photograph, smooth_field, texture

_SIDES = 160, 420
_EMPTY_SHARE = 0.06
"""Of the scenes without objects."""


def palisades(rng: Generator, shape: Shape) -> Drawing:
    """Rods side by side, straight or bent, in rows that run into each other."""
    canvas = RegionCanvas(shape)
    width = log_uniform(rng, 5, 18)
    length = width * rng.uniform(2, 9)
    bend = rng.choice([0.0, 0.05, 0.15, 0.25])
    for _ in range(int(rng.integers(1, 6))):
        start, angle = np.asarray(random_position(rng, shape)), rng.uniform(0, np.pi)
        turn, sagitta = rng.normal(0, 0.12), rng.normal(0, bend + 1e-6)
        for _ in range(int(rng.integers(3, 20))):
            size = length * np.exp(rng.normal(0, 0.15)), width * np.exp(rng.normal(0, 0.05))
            slip = rng.normal(0, 0.15) * length * direction(angle)
            canvas.claim_rod(as_point(start + slip), *size, angle, bend=sagitta, overlap=0.3)
            start = start + width * rng.uniform(0.95, 1.15) * direction(angle + np.pi / 2)
            angle += turn + rng.normal(0, 0.05)
        if canvas.count > MAX_OBJECTS:
            break
    return canvas.drawing()


def chains(rng: Generator, shape: Shape) -> Drawing:
    """Cells in winding chains that touch end to end, and chains beside each other."""
    canvas = RegionCanvas(shape)
    width = log_uniform(rng, 6, 20)
    length = width * rng.uniform(1.0, 4.5)
    winding = rng.uniform(0.02, 0.3)
    for _ in range(int(rng.integers(1, 9))):
        spot, angle = np.asarray(random_position(rng, shape)), rng.uniform(0, 2 * np.pi)
        curl = rng.normal(0, winding)
        for _ in range(int(rng.integers(2, 25))):
            own = length * np.exp(rng.normal(0, 0.15))
            angle += curl + rng.normal(0, 0.05)
            middle = spot + 0.5 * own * direction(angle)
            place = (float(middle[0]), float(middle[1]))
            taken = not canvas.claim_rod(
                place, own * 1.04, width, _across(angle), bend=0.3 * curl, overlap=0.2
            )
            if taken or not _within(middle, shape):
                break
            spot = spot + own * direction(angle)
        if canvas.count > MAX_OBJECTS:
            break
    return canvas.drawing()


def bent_colony(rng: Generator, shape: Shape) -> Drawing:
    """A grown colony of slender rods that bend, as filamentous bacteria."""
    canvas = RegionCanvas(shape)
    width = log_uniform(rng, 4.5, 14)
    longest = width * rng.uniform(2.5, 9)
    most = int(np.clip(0.6 * shape[0] * shape[1] / (longest * width), 10, MAX_OBJECTS))
    colony = grow_colony(rng, int(rng.integers(8, most + 1)), width, longest)
    middle = np.asarray(random_position(rng, shape, margin=0.2 * min(shape)))
    bend = rng.uniform(0, 0.12)
    for center, length, angle in zip(*colony, strict=True):
        own = rng.normal(0, bend)
        place = as_point(center + middle)
        canvas.claim_rod(place, length + width, width, angle, bend=own, overlap=0.5)
    return canvas.drawing()


def packed_grains(rng: Generator, shape: Shape) -> Drawing:
    """Grains of a mosaic with narrow gaps, some of them missing."""
    regions = tissue(rng, shape).regions
    edges = np.zeros(shape, bool)
    edges[1:] |= regions[1:] != regions[:-1]
    edges[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    depth = ndi.distance_transform_edt(~edges)
    gap = rng.uniform(0, 2.5) + rng.uniform(0, 1) * smooth_field(rng, shape, 12)
    count = int(regions.max())
    missing = rng.random(count + 1) < rng.uniform(0, 0.5)
    if rng.random() < 0.4:  # a heap, with ground around it
        field = smooth_field(rng, shape, 0.4 * min(shape))
        centers = np.array(ndi.maximum(field, regions, np.arange(count + 1)))
        missing |= centers < rng.uniform(-0.5, 0.8)
    canvas = RegionCanvas(shape)
    canvas.regions[:] = np.where((depth > gap) & ~missing[regions], regions, 0)
    canvas.count = count
    return canvas.drawing()


def unlike_grains(rng: Generator, shape: Shape) -> Drawing:
    """Grains from tiny to large, scattered, on each other or side by side."""
    canvas = RegionCanvas(shape)
    low, high = log_uniform(rng, 4.5, 9), log_uniform(rng, 15, max(16.0, 0.22 * min(shape)))
    kinds: list[Callable[..., tuple[Floats, Floats]]] = [blob, polygon, rectangle]
    kind = kinds[rng.integers(3)]
    rough = float(rng.choice([0.02, 0.06, 0.12]))
    overlap = rng.random() < 0.4
    for _ in range(int(log_uniform(rng, 8, 200))):
        radius = log_uniform(rng, low, high)
        center = random_position(rng, shape, margin=-radius / 2)
        more = (rough, rng.uniform(1, 1.8)) if kind is blob else ()
        outline = kind(rng, radius, *more)
        if overlap or not _taken(canvas, outline, center):
            canvas.fill(outline, center)
    return canvas.drawing()


def crystals(rng: Generator, shape: Shape) -> Drawing:
    """Rectangles and polygons in turned rows, nearly touching, with holes between the rows."""
    canvas = RegionCanvas(shape)
    radius = log_uniform(rng, 6, 0.12 * min(shape))
    pitch = radius * rng.uniform(1.9, 2.6)
    centers = lattice(rng, shape, pitch, pitch * rng.uniform(0.9, 1.3), rng.uniform(-0.8, 0.8))
    centers = centers + rng.normal(0, rng.uniform(0.02, 0.25) * radius, centers.shape)
    corners = int(rng.choice([4, 4, 6, 8]))
    turn, wobble, dropped = rng.uniform(0, np.pi), rng.uniform(0.0, 0.5), rng.uniform(0, 0.5)
    aspect = rng.uniform(0.8, 1.25)
    for center in centers[rng.random(len(centers)) > dropped][:MAX_OBJECTS]:
        angles = np.arange(corners) * 2 * np.pi / corners + turn + rng.normal(0, wobble)
        size = radius * np.exp(rng.normal(0, 0.08)) * (1.3 if corners == 4 else 1.1)
        outline = size * aspect * np.sin(angles), size * np.cos(angles)
        if not _taken(canvas, outline, as_point(center)):
            canvas.fill(outline, as_point(center))
    return canvas.drawing()


def _across(angle: float) -> float:
    """The angle by which `claim_rod` turns, from that of `direction`."""
    heading = direction(angle)
    return float(np.arctan2(heading[0], heading[1]))


def _within(spot: Floats, shape: Shape) -> bool:
    return bool((spot >= -20).all() and (spot < np.asarray(shape) + 20).all())


def _taken(canvas: RegionCanvas, outline: tuple[Floats, Floats], center: Point) -> bool:
    """Whether a tenth of an outline lies on what is drawn already."""
    from skimage import draw

    rows, columns = draw.polygon(outline[0] + center[0], outline[1] + center[1], canvas.shape)
    return len(rows) == 0 or bool((canvas.regions[rows, columns] > 0).mean() > 0.1)


class ObjectScene(Scene):
    """A `Scene` of more layouts."""

    layouts: ClassVar[dict[str, SceneLayout]] = {
        **LAYOUTS,
        "palisades": palisades,
        "chains": chains,
        "bent_colony": bent_colony,
        "packed_grains": packed_grains,
        "unlike_grains": unlike_grains,
        "crystals": crystals,
    }


def rough_ground(scene: Scene, rng: Generator) -> Floats:
    """Objects on ground that is as rough as they are: edges, shadows and grain tell them apart."""
    ground = texture(rng, scene.shape, str(rng.choice(["grain", "cloud", "blotches", "spots"])))
    ground = blur(ground, rng.uniform(0, 1.5))
    ground = ground / (ground.std() + 1e-6)
    inside = texture(rng, scene.shape)
    level = rng.choice([-1, 1]) * rng.uniform(0.03, 0.4)
    tones = np.exp(rng.normal(0, rng.uniform(0.02, 0.3), scene.n_regions)).astype(np.float32)
    body = scene.foreground * level * tones[scene.regions]
    rim = np.exp(-scene.distance / rng.uniform(0.8, 2.5)) * scene.foreground
    relief = scene.dome ** rng.uniform(0.3, 1.0)
    lit = np.gradient(blur(relief.astype(np.float32), 1.0))[int(rng.integers(2))]
    image = 0.5 + body + rng.uniform(0.03, 0.15) * np.where(scene.foreground, inside, ground)
    image = image + rng.uniform(-0.1, 0.4) * rim + rng.uniform(-1.5, 1.5) * lit
    shadow = np.roll(scene.foreground, rng.integers(-4, 5, 2), axis=(0, 1)) & ~scene.foreground
    image = image - rng.uniform(0, 0.3) * blur(shadow.astype(np.float32), 1.0)
    soft = blur(image.astype(np.float32), rng.uniform(0.3, 1.2))
    shaded = soft * uneven_light(rng, scene.shape, rng.uniform(0, 0.4))
    noisy: Floats = shaded + rng.uniform(0.005, 0.06) * gaussian(rng, scene.shape)
    return noisy


RODS: dict[str, float] = {"palisades": 2, "chains": 2, "bent_colony": 3, "rods": 2}
GRAINS: dict[str, float] = {"packed_grains": 2, "unlike_grains": 2, "crystals": 2}
MIXES: dict[str, tuple[float, dict[str, float]]] = {
    "phase_contrast": (3, RODS),
    "adherent_cells": (1, {**RODS, "cells": 2, "nucleated": 2}),
    "relief": (1, {**RODS, "cells": 2}),
    "fluorescence": (2, {**RODS, "packed_grains": 1, "cells": 4}),
    "dark_field": (0.5, RODS),
    "electron": (1, {**GRAINS, "palisades": 1, "nested": 1}),
    "membranes": (0.7, {"packed_grains": 1, "tissue": 2}),
    "plain": (2, {**GRAINS, **RODS, "nucleated": 2}),
    "natural": (1, {**GRAINS, "leaves": 2}),
    "histology": (1, {"cells": 3, "packed_grains": 1, "nucleated": 2}),
    "x_ray": (0.5, GRAINS),
    "rough ground": (3, {**GRAINS, **RODS, "discs": 2, "cells": 2}),
}
"""Renderer -> how often it is drawn, and the layouts that it shows (name -> weight)."""


def draw_object_scene(rng: Generator) -> DrawnScene:
    """Draw a scene (3, H, W) of `MIXES`, or one without objects."""
    low, high = np.log(_SIDES)
    height, width = np.exp(rng.uniform(low, high, 2)).astype(int).tolist()
    shape = height, width
    if rng.random() < _EMPTY_SHARE:
        return DrawnScene(_bare_ground(rng, shape), np.zeros(shape, np.int32))
    names = list(MIXES)
    shares = np.array([share for share, _ in MIXES.values()])
    while True:
        name = names[rng.choice(len(names), p=shares / shares.sum())]
        layouts = MIXES[name][1]
        weights = np.array(list(layouts.values()), float)
        layout = list(layouts)[rng.choice(len(layouts), p=weights / weights.sum())]
        scene = ObjectScene.draw(rng, shape, layout)
        if not scene.labels.max():
            continue
        image = rough_ground(scene, rng) if name not in FAMILIES else render(scene, name, rng)
        image = degrade(rng, np.asarray(image, np.float32))
        labels = visible_labels(image, scene.labels)
        if labels.max():
            break
    drawn = DrawnScene(random_normalize(image, rng), labels)
    if rng.random() < 0.4:
        factor = float(np.exp(rng.uniform(np.log(0.6), np.log(2.5))))
        drawn = DrawnScene(*zoom(drawn.image, drawn.labels, (factor, factor)))
    return drawn


def _bare_ground(rng: Generator, shape: Shape) -> Floats:
    """Texture, grain or shading (3, H, W) in which there is nothing."""
    kinds = (texture, photograph, pattern, lambda r, s: smooth_field(r, s, r.uniform(8, 60)))
    ground: Floats = np.asarray(kinds[rng.integers(4)](rng, shape), np.float32)
    ground = ground if ground.ndim == 2 else ground.mean(-1)
    ground = blur(ground / (ground.std() + 1e-6), rng.uniform(0, 2))
    ground = ground * uneven_light(rng, shape, rng.uniform(0, 0.6))
    ground = ground + rng.uniform(0.02, 1) * gaussian(rng, shape)
    return random_normalize(degrade(rng, np.asarray(ground, np.float32)), rng)
