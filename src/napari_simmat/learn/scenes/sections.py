"""Layouts that fill the field: tissue, soft landscapes, slices of bodies."""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ndi
from skimage.measure import label

from napari_simmat.learn.scenes import outlines
from napari_simmat.learn.scenes.arrays import Ids, Shape
from napari_simmat.learn.scenes.canvas import Canvas, Drawing
from napari_simmat.learn.scenes.placing import MAX_OBJECTS, anywhere, lattice, log_uniform, pair
from napari_simmat.learn.scenes.textures import smooth_field


def tissue(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Cells that fill the field: a warped Voronoi mosaic (epithelium, grains, crystals)."""
    radius = log_uniform(rng, 8, max(10.0, 0.16 * min(shape)))
    radius = max(radius, np.sqrt(shape[0] * shape[1] / MAX_OBJECTS) / 1.7)
    centres = lattice(rng, shape, 1.7 * radius, 1.7 * radius, rng.uniform(0, 1))
    centres = centres + rng.normal(0, rng.uniform(0.1, 0.5) * radius, centres.shape)
    seeds = np.zeros(shape, np.int32)
    inside = ((centres >= 0) & (centres < shape)).all(axis=1)
    rows, columns = centres[inside].astype(int).T
    seeds[rows, columns] = np.arange(1, len(rows) + 1)
    if len(rows) == 0:
        seeds[shape[0] // 2, shape[1] // 2] = 1
    _, nearest = ndi.distance_transform_edt(seeds == 0, return_indices=True)
    regions = seeds[nearest[0], nearest[1]]
    wave = rng.uniform(0, 0.25) * radius
    canvas = Canvas(shape)
    canvas.regions[:] = _warped(rng, regions, wave, max(radius, 6))
    return canvas.drawing()


def levels(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Soft nested areas between level lines of a random landscape, in a body or not."""
    side = min(shape)
    landscape = smooth_field(rng, shape, side * rng.uniform(0.12, 0.4))
    if rng.random() < 0.5:
        landscape = landscape + 0.35 * smooth_field(rng, shape, side * rng.uniform(0.04, 0.12))
    cuts = np.sort(rng.uniform(-1.3, 1.3, int(rng.integers(1, 4))))
    regions = _split(np.digitize(landscape, cuts).astype(np.int32) + 1)
    canvas = Canvas(shape)
    canvas.regions[:], canvas.count = regions, int(regions.max())
    for _ in range(int(rng.integers(0, 9))):  # lesions and small structures
        radius = log_uniform(rng, 5, max(6.0, 0.09 * side))
        canvas.fill(outlines.blob(rng, radius, 0.1, 1.3), anywhere(rng, shape))
    if rng.random() < 0.4:
        body = Canvas(shape)
        outline = outlines.blob(rng, side * rng.uniform(0.32, 0.46), 0.04, 1.2)
        body.fill(outline, (shape[0] / 2, shape[1] / 2))
        canvas.regions[body.regions == 0] = 0
    return canvas.drawing()


def head(rng: np.random.Generator, shape: Shape) -> Drawing:
    """A slice of a head: scalp, bone, a ribbon of grey matter that folds around white matter.

    The ribbon is as thick everywhere; fluid fills the furrows and the ventricles.
    """
    height, width = shape
    side = min(shape)
    y = (np.arange(height)[:, None] - height / 2) / (height * rng.uniform(0.42, 0.5))
    x = (np.arange(width)[None] - width / 2) / (width * rng.uniform(0.36, 0.48))
    radius = np.hypot(y, x) + 0.02 * smooth_field(rng, shape, 0.3 * side)
    folds = smooth_field(rng, shape, max(4.0, side * rng.uniform(0.03, 0.06)))
    folds = folds + rng.uniform(0, 1.5) * folds[:, ::-1]
    bone, brain = rng.uniform(0.86, 0.94), rng.uniform(0.74, 0.84)
    canvas = Canvas(shape)
    regions = canvas.regions
    scalp, skull, fluid, grey, white, ventricle, nucleus = range(1, 8)
    bare = rng.random() < 0.3
    if not bare:
        regions[radius < 1] = scalp
        regions[radius < bone] = skull
    inside = radius < brain
    regions[inside] = 0 if bare and rng.random() < 0.5 else fluid
    ribbon = max(3.0, side * log_uniform(rng, 0.012, 0.05))  # a thick one closes the furrows
    outward = np.clip((radius / brain - 0.35) / 0.4, 0, 1)
    room = brain - 2.5 * ribbon / side  # leaves space for the ribbon all around
    core = (radius < room) & (radius + log_uniform(rng, 0.1, 0.5) * folds * outward < room)
    core &= np.abs(x) > rng.uniform(0, 0.02) * (np.abs(y) > 0.35)  # the furrow between the halves
    regions[inside & (ndi.distance_transform_edt(~core) < ribbon)] = grey
    regions[core] = white
    middle, away = height / 2 + rng.normal(0, 0.05 * height), rng.uniform(0.04, 0.14) * side
    horn = outlines.blob(rng, side * rng.uniform(0.03, 0.07), 0.2, rng.uniform(1.5, 3))
    kernel = outlines.blob(rng, max(4.5, side * rng.uniform(0.025, 0.05)), 0.05, 1.5)
    deep = away + side * rng.uniform(0.07, 0.12)
    for sign in (1, -1):  # both sides look alike
        canvas.fill((horn[0], sign * horn[1]), (middle, width / 2 + sign * away), ventricle)
        if deep < 0.25 * side:
            canvas.fill((kernel[0], sign * kernel[1]), (middle, width / 2 + sign * deep), nucleus)
    canvas.count = nucleus
    for _ in range(int(rng.integers(0, 4))):  # lesions
        spot = anywhere(rng, shape, margin=0.25 * side)
        canvas.fill(outlines.blob(rng, log_uniform(rng, 5, max(6.0, 0.08 * side)), 0.1), spot)
    objects = np.arange(canvas.count + 1, dtype=np.int32)
    meaning = rng.random()
    if meaning < 0.25:
        objects[[fluid, grey, white, ventricle, nucleus]] = white  # the brain as a whole
        objects[nucleus + 1 :] = white
    elif meaning < 0.35:
        objects[1:] = scalp  # the head as a whole
    return canvas.drawing(objects)


def organs(rng: np.random.Generator, shape: Shape) -> Drawing:
    """A slice of a trunk: skin, fat, organs packed inside, spine."""
    canvas = Canvas(shape)
    side = min(shape)
    centre = (shape[0] / 2, shape[1] / 2)
    body = outlines.blob(rng, side * rng.uniform(0.36, 0.46), 0.03, 1.25)
    canvas.fill(body, centre)
    inner = rng.uniform(0.8, 0.9)
    canvas.fill((body[0] * inner, body[1] * inner), centre)
    trunk = canvas.regions == 2
    organ = Canvas(shape)
    for _ in range(int(rng.integers(4, 16))):
        spot = pair(np.asarray(centre) + rng.normal(0, 0.2 * side, 2))
        organ.claim_blob(
            rng,
            spot,
            log_uniform(rng, max(5.0, 0.04 * side), 0.16 * side),
            irregularity=0.08,
            elongation=rng.uniform(1, 2),
            overlap=0.35,
        )
    inside = trunk & (organ.regions > 0)
    canvas.regions[inside] = organ.regions[inside] + 2
    canvas.count = 2 + organ.count
    for _ in range(int(rng.integers(0, 6))):  # vessels, lesions, spine
        spot = pair(np.asarray(centre) + rng.normal(0, 0.16 * side, 2))
        canvas.fill(outlines.blob(rng, log_uniform(rng, 4.5, max(6.0, 0.06 * side)), 0.06), spot)
    objects = np.arange(canvas.count + 1, dtype=np.int32)
    if rng.random() < 0.15:
        objects[1:] = 1  # the trunk as a whole
    return canvas.drawing(objects)


def _warped(rng: np.random.Generator, regions: Ids, wave: float, length: float) -> Ids:
    shape = (regions.shape[0], regions.shape[1])
    y, x = np.ogrid[: shape[0], : shape[1]]
    rows = np.clip(y + wave * smooth_field(rng, shape, length), 0, shape[0] - 1).astype(int)
    columns = np.clip(x + wave * smooth_field(rng, shape, length), 0, shape[1] - 1).astype(int)
    return np.asarray(regions[rows, columns])


def _split(regions: Ids) -> Ids:
    """Give every connected piece of a region its own id."""
    return np.asarray(label(regions, background=0, connectivity=1), np.int32)
