"""Layouts without gaps: tissue, landscapes, slices of bodies, folds, layers, and cracks.

Each is a function of the image size, as in `layouts`.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ndi
from skimage.draw import line
from skimage.measure import label

from napari_simmat.scenes.canvas import (
    MAX_OBJECTS,
    Drawing,
    Ids,
    RegionCanvas,
    Shape,
    as_point,
    blob,
    lattice,
    log_uniform,
    random_position,
)
from napari_simmat.scenes.textures import smooth_field


def tissue(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Cells that fill the field: a warped Voronoi mosaic (epithelium, grains, crystals)."""
    radius = log_uniform(rng, 8, max(10.0, 0.16 * min(shape)))
    radius = max(radius, np.sqrt(shape[0] * shape[1] / MAX_OBJECTS) / 1.7)
    centers = lattice(rng, shape, 1.7 * radius, 1.7 * radius, rng.uniform(0, 1))
    centers = centers + rng.normal(0, rng.uniform(0.1, 0.5) * radius, centers.shape)
    seeds = np.zeros(shape, np.int32)
    inside = ((centers >= 0) & (centers < shape)).all(axis=1)
    rows, columns = centers[inside].astype(int).T
    seeds[rows, columns] = np.arange(1, len(rows) + 1)
    if len(rows) == 0:
        seeds[shape[0] // 2, shape[1] // 2] = 1
    _, nearest = ndi.distance_transform_edt(seeds == 0, return_indices=True)
    regions = seeds[nearest[0], nearest[1]]
    wave = rng.uniform(0, 0.25) * radius
    canvas = RegionCanvas(shape)
    canvas.regions[:] = _warped(rng, regions, wave, max(radius, 6))
    return canvas.drawing()


def _warped(rng: np.random.Generator, regions: Ids, wave: float, length: float) -> Ids:
    shape = (regions.shape[0], regions.shape[1])
    y, x = np.ogrid[: shape[0], : shape[1]]
    rows = np.clip(y + wave * smooth_field(rng, shape, length), 0, shape[0] - 1).astype(int)
    columns = np.clip(x + wave * smooth_field(rng, shape, length), 0, shape[1] - 1).astype(int)
    return np.asarray(regions[rows, columns])


def levels(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Soft nested areas between level lines of a random landscape, with or without a body."""
    side = min(shape)
    landscape = smooth_field(rng, shape, side * rng.uniform(0.12, 0.4))
    if rng.random() < 0.5:
        landscape = landscape + 0.35 * smooth_field(rng, shape, side * rng.uniform(0.04, 0.12))
    cuts = np.sort(rng.uniform(-1.3, 1.3, int(rng.integers(1, 4))))
    regions = _split(np.digitize(landscape, cuts).astype(np.int32) + 1)
    canvas = RegionCanvas(shape)
    canvas.regions[:], canvas.count = regions, int(regions.max())
    for _ in range(int(rng.integers(0, 9))):  # lesions and small structures
        radius = log_uniform(rng, 5, max(6.0, 0.09 * side))
        canvas.fill(blob(rng, radius, 0.1, 1.3), random_position(rng, shape))
    if rng.random() < 0.4:
        body = RegionCanvas(shape)
        outline = blob(rng, side * rng.uniform(0.32, 0.46), 0.04, 1.2)
        body.fill(outline, (shape[0] / 2, shape[1] / 2))
        canvas.regions[body.regions == 0] = 0
    return canvas.drawing()


def _split(regions: Ids) -> Ids:
    """Give every connected piece of a region its own id."""
    return np.asarray(label(regions, background=0, connectivity=1), np.int32)


def head(rng: np.random.Generator, shape: Shape) -> Drawing:
    """A slice of a head: scalp, bone, a folded ribbon of gray matter around white matter.

    The ribbon is equally thick everywhere; fluid fills the furrows and the ventricles.
    """
    height, width = shape
    side = min(shape)
    y = (np.arange(height)[:, None] - height / 2) / (height * rng.uniform(0.42, 0.5))
    x = (np.arange(width)[None] - width / 2) / (width * rng.uniform(0.36, 0.48))
    radius = np.hypot(y, x) + 0.02 * smooth_field(rng, shape, 0.3 * side)
    folds = smooth_field(rng, shape, max(4.0, side * rng.uniform(0.03, 0.06)))
    folds = folds + rng.uniform(0, 1.5) * folds[:, ::-1]
    bone, brain = rng.uniform(0.86, 0.94), rng.uniform(0.74, 0.84)
    canvas = RegionCanvas(shape)
    regions = canvas.regions
    scalp, skull, fluid, gray, white, ventricle, nucleus = range(1, 8)
    bare = rng.random() < 0.3
    if not bare:
        regions[radius < 1] = scalp
        regions[radius < bone] = skull
    inside = radius < brain
    regions[inside] = 0 if bare and rng.random() < 0.5 else fluid
    ribbon = max(3.0, side * log_uniform(rng, 0.012, 0.05))  # thick ribbons close the furrows
    outward = np.clip((radius / brain - 0.35) / 0.4, 0, 1)
    room = brain - 2.5 * ribbon / side  # leaves space for the ribbon all around
    core = (radius < room) & (radius + log_uniform(rng, 0.1, 0.5) * folds * outward < room)
    core &= np.abs(x) > rng.uniform(0, 0.02) * (np.abs(y) > 0.35)  # the furrow between the halves
    regions[inside & (ndi.distance_transform_edt(~core) < ribbon)] = gray
    regions[core] = white
    middle, away = height / 2 + rng.normal(0, 0.05 * height), rng.uniform(0.04, 0.14) * side
    horn = blob(rng, side * rng.uniform(0.03, 0.07), 0.2, rng.uniform(1.5, 3))
    kernel = blob(rng, max(4.5, side * rng.uniform(0.025, 0.05)), 0.05, 1.5)
    deep = away + side * rng.uniform(0.07, 0.12)
    for sign in (1, -1):  # mirror symmetry
        canvas.fill((horn[0], sign * horn[1]), (middle, width / 2 + sign * away), ventricle)
        if deep < 0.25 * side:
            canvas.fill((kernel[0], sign * kernel[1]), (middle, width / 2 + sign * deep), nucleus)
    canvas.count = nucleus
    for _ in range(int(rng.integers(0, 4))):  # lesions
        spot = random_position(rng, shape, margin=0.25 * side)
        canvas.fill(blob(rng, log_uniform(rng, 5, max(6.0, 0.08 * side)), 0.1), spot)
    objects = np.arange(canvas.count + 1, dtype=np.int32)
    whole = rng.random()
    if whole < 0.25:
        objects[[fluid, gray, white, ventricle, nucleus]] = white  # the brain as a whole
        objects[nucleus + 1 :] = white
    elif whole < 0.35:
        objects[1:] = scalp  # the head as a whole
    return canvas.drawing(objects)


def organs(rng: np.random.Generator, shape: Shape) -> Drawing:
    """A slice of a trunk: skin, fat, packed organs, spine."""
    canvas = RegionCanvas(shape)
    side = min(shape)
    center = (shape[0] / 2, shape[1] / 2)
    body = blob(rng, side * rng.uniform(0.36, 0.46), 0.03, 1.25)
    canvas.fill(body, center)
    inner = rng.uniform(0.8, 0.9)
    canvas.fill((body[0] * inner, body[1] * inner), center)
    trunk = canvas.regions == 2
    organ = RegionCanvas(shape)
    for _ in range(int(rng.integers(4, 16))):
        spot = as_point(np.asarray(center) + rng.normal(0, 0.2 * side, 2))
        size = log_uniform(rng, max(5.0, 0.04 * side), 0.16 * side)
        elongation = rng.uniform(1, 2)
        organ.claim_blob(rng, spot, size, irregularity=0.08, elongation=elongation, overlap=0.35)
    inside = trunk & (organ.regions > 0)
    canvas.regions[inside] = organ.regions[inside] + 2
    canvas.count = 2 + organ.count
    for _ in range(int(rng.integers(0, 6))):  # vessels, lesions, spine
        spot = as_point(np.asarray(center) + rng.normal(0, 0.16 * side, 2))
        canvas.fill(blob(rng, log_uniform(rng, 4.5, max(6.0, 0.06 * side)), 0.06), spot)
    objects = np.arange(canvas.count + 1, dtype=np.int32)
    if rng.random() < 0.15:
        objects[1:] = 1  # the trunk as a whole
    return canvas.drawing(objects)


def folds(rng: np.random.Generator, shape: Shape) -> Drawing:
    """A deeply folded or branched region in a body, as white matter or villi, and its cover."""
    side = min(shape)
    body = RegionCanvas(shape)
    outline = blob(rng, side * rng.uniform(0.3, 0.5), 0.05, 1.3)
    body.fill(outline, (shape[0] / 2, shape[1] / 2))
    depth = ndi.distance_transform_edt(body.regions > 0)
    pattern = smooth_field(rng, shape, max(4.0, side * log_uniform(rng, 0.02, 0.08)))
    if rng.random() < 0.5:
        pattern = pattern + pattern[:, ::-1]
    cover = max(2.0, side * log_uniform(rng, 0.008, 0.03))
    height = rng.uniform(1, 4) * np.minimum(depth / depth.max(), rng.uniform(0.4, 1)) + pattern
    inside = depth > cover
    core = inside & (height > np.quantile(height[inside], rng.uniform(0.35, 0.65)))
    core = ndi.binary_opening(core)
    canvas = RegionCanvas(shape)
    surrounding, folded = 1, 2
    canvas.regions[depth > 0] = surrounding
    pieces = label(core)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    canvas.regions[pieces == sizes.argmax()] = folded if sizes.any() else surrounding
    canvas.count = folded
    for _ in range(int(rng.integers(0, 3))):  # cavities
        spot = as_point(np.asarray(shape) / 2 + rng.normal(0, 0.08 * side, 2))
        canvas.fill(blob(rng, side * log_uniform(rng, 0.02, 0.07), 0.15, 2), spot)
    objects = np.arange(canvas.count + 1, dtype=np.int32)
    if rng.random() < 0.15:
        objects[1:] = surrounding  # the body as a whole
    return canvas.drawing(objects)


def layers(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Bands on top of each other that bend and vary in thickness: a retina, skin, coatings."""
    height, width = shape
    course = rng.uniform(-0.5, 0.5) * np.linspace(0, width, width)
    course = course + height * rng.uniform(0, 0.15) * smooth_field(rng, (4, width), 0.4 * width)[0]
    y = np.arange(height)[:, None] - course[None]
    typical = log_uniform(rng, 6, max(8.0, 0.25 * height))
    canvas = RegionCanvas(shape)
    bands = int(np.clip(log_uniform(rng, 2, 12), 1, 2 * height / typical))
    top = rng.uniform(-0.2, 0.6) * height + float(course.mean())
    edge = np.full(width, top - course.mean())
    for number in range(1, bands + 1):
        thickness = max(5.0, typical * np.exp(rng.normal(0, 0.5)))
        varied = 1 + 0.25 * smooth_field(rng, (4, width), 0.3 * width)[0]
        below = edge + thickness * np.clip(varied, 0.3, 2)
        canvas.regions[(y >= edge) & (y < below)] = number
        edge = below
    canvas.regions[:] = _split(canvas.regions)
    canvas.count = int(canvas.regions.max())
    return canvas.drawing()


def cracks(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Thin branching cracks or fibers, straight or jagged, on an even ground."""
    canvas = RegionCanvas(shape)
    for number in range(1, int(log_uniform(rng, 1, 7)) + 1):
        thickness = log_uniform(rng, 5, 10)  # thinner objects have no label
        paths = np.zeros(shape, bool)
        ends = [(np.array(random_position(rng, shape)), rng.uniform(0, 2 * np.pi), 1.0)]
        jagged = rng.uniform(0.05, 0.6)
        step = max(3.0, min(shape) * 0.02)
        while ends:
            place, angle, share = ends.pop()
            for _ in range(int(share * log_uniform(rng, 8, 60))):
                angle += rng.normal(0, jagged)
                onward = place + step * np.array([np.sin(angle), np.cos(angle)])
                rows, columns = line(*np.round([*place, *onward]).astype(int))
                seen = (rows >= 0) & (columns >= 0) & (rows < shape[0]) & (columns < shape[1])
                paths[rows[seen], columns[seen]] = True
                place = onward
                if len(ends) < 4 and rng.random() < 0.04:
                    ends.append((place, angle + rng.choice([-1, 1]) * rng.uniform(0.4, 1.3), 0.5))
        if not paths.any():
            continue
        width = thickness * (1 + 0.3 * smooth_field(rng, shape, 0.15 * min(shape)))
        canvas.regions[ndi.distance_transform_edt(~paths) < np.maximum(width / 2, 2.5)] = number
    canvas.count = int(canvas.regions.max())
    return canvas.drawing()
