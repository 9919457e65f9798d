"""Layouts: how objects are arranged in the field, each a function of the image size.

Objects lie on a ground, grow in colonies, or fill the field without gaps. Their sizes run from
about 8 px across to most of the field and are mostly log-uniform in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.spatial import cKDTree
from skimage.draw import line
from skimage.measure import label

from simmat_research.canvas import (
    MAX_OBJECTS,
    Drawing,
    Ids,
    Point,
    RegionCanvas,
    Shape,
    as_point,
    blob,
    direction,
    lattice,
    log_uniform,
    random_outline,
    random_position,
    tube,
)
from simmat_research.textures import smooth_field

SceneLayout: TypeAlias = Callable[[Generator, Shape], Drawing]
_BEADS = 9
"""Beads per rod of a colony."""
_GROWTH = 1.12
"""Lengthening in one step; about six steps from one division to the next."""


def tissue(rng: Generator, shape: Shape) -> Drawing:
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
    length = max(radius, 6)
    y, x = np.ogrid[: shape[0], : shape[1]]
    rows = np.clip(y + wave * smooth_field(rng, shape, length), 0, shape[0] - 1).astype(int)
    columns = np.clip(x + wave * smooth_field(rng, shape, length), 0, shape[1] - 1).astype(int)
    canvas.regions[:] = regions[rows, columns]
    return canvas.drawing()


def levels(rng: Generator, shape: Shape) -> Drawing:
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


def head(rng: Generator, shape: Shape) -> Drawing:
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


def organs(rng: Generator, shape: Shape) -> Drawing:
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
    return _sometimes_whole(rng, canvas)


def folds(rng: Generator, shape: Shape) -> Drawing:
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
    return _sometimes_whole(rng, canvas)


def _sometimes_whole(rng: Generator, canvas: RegionCanvas) -> Drawing:
    """Every region is an object, or now and then the body as a whole is the only one."""
    objects = np.arange(canvas.count + 1, dtype=np.int32)
    if rng.random() < 0.15:
        objects[1:] = 1
    return canvas.drawing(objects)


def layers(rng: Generator, shape: Shape) -> Drawing:
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


def cracks(rng: Generator, shape: Shape) -> Drawing:
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


def leaves(rng: Generator, shape: Shape) -> Drawing:
    """Dead leaves: outlines of many sizes that occlude each other (Lee, Mumford and Huang 2001)."""
    canvas = RegionCanvas(shape)
    kinds = [("blob",), ("polygon",), ("blob", "tube"), ("blob", "polygon", "tube")]
    kind = kinds[rng.integers(len(kinds))]
    side = min(shape)
    smallest = log_uniform(rng, 6, 16)
    largest = max(log_uniform(rng, 0.1, 0.45) * side, 1.5 * smallest)
    count = min(int(log_uniform(rng, 6, 90) * max(1.0, shape[0] * shape[1] / 256**2)), MAX_OBJECTS)
    # The number of leaves falls with the square of their radius, as in photographs.
    radii = 1 / (1 / smallest + rng.random(count) * (1 / largest - 1 / smallest))
    if rng.random() < 0.6:
        radii = np.sort(radii)[::-1]
    for radius in radii:
        center = random_position(rng, shape, margin=-0.3 * radius)
        outline = random_outline(rng, radius, str(rng.choice(kind)))
        canvas.fill(outline, center)
        if radius > 16 and rng.random() < 0.1:  # a ring
            hole = (outline[0] * 0.5, outline[1] * 0.5)
            canvas.fill(hole, center, region=0 if rng.random() < 0.5 else None)
    return canvas.drawing()


def cells(rng: Generator, shape: Shape) -> Drawing:
    """Nuclei or cells of similar size: scattered, crowded or in clusters, many touching."""
    canvas = RegionCanvas(shape)
    _crowd(rng, canvas, log_uniform(rng, 5, max(7.0, min(34.0, 0.16 * min(shape)))))
    return canvas.drawing()


def nucleated(rng: Generator, shape: Shape) -> Drawing:
    """Cells with a nucleus; the objects are the whole cells, the nuclei, or both parts."""
    canvas = RegionCanvas(shape)
    placed = _crowd(rng, canvas, log_uniform(rng, 11, max(13.0, min(40.0, 0.2 * min(shape)))))
    labeled = rng.choice(["cells", "nuclei", "parts"], p=[0.5, 0.2, 0.3])
    share = rng.uniform(0.35, 0.6)
    owner = [0] + [0 if labeled == "nuclei" else cell for cell, _, _ in placed]
    for cell, center, radius in placed:
        spot = as_point(np.asarray(center) + rng.normal(0, 0.12 * radius, 2))
        size = max(4.5, radius * share * np.exp(rng.normal(0, 0.12)))
        nucleus = canvas.fill(blob(rng, size, 0.04, rng.uniform(1, 1.4)), spot, within=cell)
        owner.append(cell if labeled == "cells" else nucleus)
    return canvas.drawing(owner)


def _crowd(rng: Generator, canvas: RegionCanvas, radius: float) -> list[tuple[int, Point, float]]:
    """Claim many blobs, evenly or in clusters; returns region, center and radius of each."""
    shape = canvas.shape
    placed: list[tuple[int, Point, float]] = []
    irregularity = float(rng.choice([0.0, 0.03, 0.06, 0.12]))
    elongation = rng.uniform(1.0, float(rng.choice([1.15, 1.6, 2.2])))
    variation = rng.uniform(0.05, 0.3)
    overlap = rng.uniform(0.0, 0.3)
    cover = rng.uniform(0.1, 0.75)
    most = int(np.clip(cover * shape[0] * shape[1] / (np.pi * radius**2), 3, MAX_OBJECTS))
    clusters = None
    if rng.random() < 0.55:
        clusters = np.stack([random_position(rng, shape) for _ in range(int(rng.integers(2, 8)))])
        spread = radius * rng.uniform(1.2, 4.0)
    for _ in range(4 * most):
        if clusters is None or rng.random() < 0.1:
            center = random_position(rng, shape, margin=-radius / 2)
        else:
            middle = clusters[rng.integers(len(clusters))]
            center = as_point(middle + rng.normal(0, spread, 2))
        size = radius * np.exp(rng.normal(0, variation))
        own = elongation * np.exp(abs(rng.normal(0, 0.1)))
        if canvas.claim_blob(
            rng, center, size, irregularity=irregularity, elongation=own, overlap=overlap
        ):
            placed.append((canvas.count, center, size))
        if canvas.count >= most:
            break
    return placed


def discs(rng: Generator, shape: Shape) -> Drawing:
    """Round flat objects such as coins, pills, grains or colonies: in rows or scattered."""
    canvas = RegionCanvas(shape)
    radius = log_uniform(rng, 7, max(10.0, 0.2 * min(shape)))
    variation, irregularity = rng.uniform(0.0, 0.3), float(rng.choice([0.0, 0.02, 0.04]))
    pitch = radius * rng.uniform(2.1, 3.5)
    if rng.random() < 0.5:
        tilt, jitter = rng.uniform(-0.3, 0.3), rng.uniform(0, 0.15) * pitch
        centers = lattice(rng, shape, pitch, pitch, tilt)
        centers = centers + rng.normal(0, jitter + 1e-3, centers.shape)
    else:
        count = int(np.clip(2 * shape[0] * shape[1] / pitch**2, 4, MAX_OBJECTS))
        centers = np.stack([random_position(rng, shape, margin=-radius / 2) for _ in range(count)])
    overlap = float(rng.choice([0.0, 0.02, 0.15]))
    for center in centers[:MAX_OBJECTS]:
        size, own = radius * np.exp(rng.normal(0, variation)), 1 + abs(rng.normal(0, 0.06))
        canvas.claim_blob(
            rng, as_point(center), size, irregularity=irregularity, elongation=own, overlap=overlap
        )
    return canvas.drawing()


def filaments(rng: Generator, shape: Shape) -> Drawing:
    """Winding tubes that cross each other: vessels, fibers, roots, worms."""
    canvas = RegionCanvas(shape)
    width = log_uniform(rng, 5, max(7.0, 0.08 * min(shape)))
    for _ in range(int(log_uniform(rng, 3, 22))):
        thickness = max(5.0, width * np.exp(rng.normal(0, 0.3)))
        reach = thickness * log_uniform(rng, 4, max(5.0, 1.2 * min(shape) / thickness))
        canvas.fill(tube(rng, reach, thickness), random_position(rng, shape))
    return canvas.drawing()


def large(rng: Generator, shape: Shape) -> Drawing:
    """One to four objects that fill much of the field."""
    canvas = RegionCanvas(shape)
    for _ in range(int(rng.integers(1, 5))):
        radius = min(shape) * rng.uniform(0.16, 0.42)
        kind = str(rng.choice(["blob", "blob", "polygon", "rectangle"]))
        outline = random_outline(rng, radius, kind)
        canvas.fill(outline, random_position(rng, shape, margin=0.2 * min(shape)))
    return canvas.drawing()


def nested(rng: Generator, shape: Shape) -> Drawing:
    """Parts inside parts; the objects are either the wholes or the parts."""
    canvas = RegionCanvas(shape)
    side = min(shape)
    owner = [0]
    label_wholes = rng.random() < 0.6
    for _ in range(int(rng.integers(1, 9))):
        radius, center = log_uniform(rng, 0.07, 0.38) * side, random_position(rng, shape)
        first = canvas.count + 1
        for depth in range(int(rng.integers(2, 4))):
            if radius < 6:
                break
            outline = blob(rng, radius, float(rng.choice([0.02, 0.06, 0.12])), rng.uniform(1, 1.5))
            canvas.fill(outline, center)
            owner.append(first if label_wholes else canvas.count)
            for _ in range(int(rng.integers(0, 4)) if depth else 0):
                angle, away = rng.uniform(0, 6.28), radius * rng.uniform(0.2, 0.6)
                spot = (center[0] + away * np.sin(angle), center[1] + away * np.cos(angle))
                small = max(4.5, radius * rng.uniform(0.12, 0.28))
                canvas.fill(blob(rng, small, 0.05), spot)
                owner.append(first if label_wholes else canvas.count)
            radius *= rng.uniform(0.5, 0.8)
    return canvas.drawing(owner)


def assembled(rng: Generator, shape: Shape) -> Drawing:
    """Wholes assembled from unlike parts, like tools and vehicles, with gaps in between.

    The objects are the wholes, in one case of four the parts.
    """
    canvas = RegionCanvas(shape)
    side = min(shape)
    owner = [0]
    label_wholes = rng.random() < 0.75
    for _ in range(int(rng.integers(1, 6))):
        radius = log_uniform(rng, max(8.0, 0.08 * side), 0.3 * side)
        center = np.asarray(random_position(rng, shape))
        first = canvas.count + 1
        parts = [(radius, center)]
        for _ in range(int(rng.integers(2, 8))):
            size, middle = parts[rng.integers(len(parts))]
            angle = rng.uniform(0, 2 * np.pi)
            spot = middle + size * rng.uniform(0.3, 1.1) * direction(angle)
            parts.append((max(4.5, radius * log_uniform(rng, 0.15, 0.8)), spot))
        for size, spot in [parts[i] for i in rng.permutation(len(parts))]:
            kind = str(rng.choice(["blob", "polygon", "rectangle", "tube"]))
            outline = random_outline(rng, size, kind)
            canvas.fill(outline, as_point(spot))
            owner.append(first if label_wholes else canvas.count)
            if size > 10 and rng.random() < 0.2:  # a ring, which shows what lies behind it
                hole = (outline[0] * 0.6, outline[1] * 0.6)
                canvas.fill(hole, as_point(spot), region=0, within=canvas.count)
    return canvas.drawing(owner)


def rods(rng: Generator, shape: Shape) -> Drawing:
    """Rod-shaped bacteria: loose, in chains, or packed side by side in grown colonies."""
    canvas = RegionCanvas(shape)
    width = log_uniform(rng, 5, max(7.0, min(24.0, 0.1 * min(shape))))
    bend = rng.uniform(0, 0.06)
    arrangement = rng.choice(["loose", "chains", "colony", "colony", "colony"])
    if arrangement == "colony":
        longest = width * rng.uniform(2.0, 8.0)
        capacity = shape[0] * shape[1] / (0.7 * longest * width)  # rods that would fill the field
        for _ in range(int(rng.integers(1, 3))):
            cells = int(log_uniform(rng, 8, min(max(0.9 * capacity, 12.0), MAX_OBJECTS / 2)))
            colony = grow_colony(rng, cells, width * rng.uniform(0.85, 1.05), longest)
            middle = np.asarray(random_position(rng, shape, margin=0.15 * min(shape)))
            for center, length, angle in zip(*colony, strict=True):
                size = length + width, width * np.exp(rng.normal(0, 0.04))
                own, place = rng.normal(0, bend), as_point(center + middle)
                canvas.claim_rod(place, *size, angle, bend=own, overlap=0.5)
        return canvas.drawing()
    length = width * rng.uniform(1.6, 5.5)
    variation = rng.uniform(0.05, 0.35)
    count = int(np.clip(rng.uniform(0.05, 0.35) * canvas.regions.size / (width * length), 3, 200))
    for _ in range(count):
        spot, angle = np.asarray(random_position(rng, shape)), rng.uniform(0, np.pi)
        links = int(rng.integers(2, 7)) if arrangement == "chains" else 1
        for _ in range(links):
            size = length * np.exp(rng.normal(0, variation)), width * np.exp(rng.normal(0, 0.04))
            own = rng.normal(0, bend)
            if not canvas.claim_rod(as_point(spot), *size, angle, bend=own, overlap=0.08):
                break
            previous, angle = angle, angle + rng.normal(0, 0.25)
            for turn in (previous, angle):
                spot = spot + 0.56 * length * direction(turn)
        if canvas.count > count:
            break
    return canvas.drawing()


class RodShapes(NamedTuple):
    """Centers (N, 2) as y, x; distances (N,) between the centers of the round ends; angles (N,)."""

    centers: NDArray[np.float64]
    lengths: NDArray[np.float64]
    angles: NDArray[np.float64]


def grow_colony(rng: Generator, cells: int, width: float, longest: float) -> RodShapes:
    """Grow a colony of rod-shaped bacteria around the origin until it has `cells` or more rods.

    Rods of `width` pixels lengthen, divide at `longest` pixels between the centers of their round
    ends, and push each other. The mechanics are those of agent-based models of growing cells (e.g.
    Rudge et al., ACS Synthetic Biology 1, 2012) at their simplest: rods are rows of beads, and
    overlapping beads repel.
    """
    founders = int(rng.integers(1, 4))
    centers = rng.normal(0, 1.5 * longest, (founders, 2)) if founders > 1 else np.zeros((1, 2))
    lengths = longest * rng.uniform(0.4, 0.9, founders)
    angles = rng.uniform(0, np.pi, founders)
    wobble = rng.uniform(0.01, 0.12)
    rods = RodShapes(centers, lengths, angles)
    while len(rods.lengths) < cells:
        pace = _GROWTH ** rng.uniform(0.6, 1.4, len(rods.lengths))
        rods = _divide(rng, rods._replace(lengths=rods.lengths * pace), width, longest, wobble)
        for _ in range(3):
            rods = _push_apart(rods, width)
    for _ in range(6):
        rods = _push_apart(rods, width)
    return rods


def _divide(
    rng: Generator, rods: RodShapes, width: float, longest: float, wobble: float
) -> RodShapes:
    """Split rods longer than `longest` into two that touch at their new ends."""
    ready = rods.lengths > longest
    if not ready.any():
        return rods
    length, angle = rods.lengths[ready], rods.angles[ready]
    half = np.maximum((length - width) / 2, 0.2 * width)
    away = (half + width)[:, None] / 2 * direction(angle)
    daughters = [
        RodShapes(rods.centers[ready] + s * away, half, angle + rng.normal(0, wobble, len(angle)))
        for s in (1, -1)
    ]
    kept = RodShapes(*(values[~ready] for values in rods))
    return RodShapes(*map(np.concatenate, zip(kept, *daughters, strict=True)))


def _push_apart(rods: RodShapes, width: float) -> RodShapes:
    """Push overlapping rods apart once: forces on the beads shift and turn their rod."""
    count = len(rods.lengths)
    along = np.linspace(-0.5, 0.5, _BEADS)
    arms = (rods.lengths[:, None] * along)[..., None] * direction(rods.angles)[:, None]
    beads = (rods.centers[:, None] + arms).reshape(-1, 2)
    first, second = cKDTree(beads).query_pairs(width, output_type="ndarray").T
    other = first // _BEADS != second // _BEADS
    first, second = first[other], second[other]
    offset = beads[first] - beads[second]
    distance = np.maximum(np.hypot(*offset.T), 1e-6)
    push = offset * (0.35 * (width - distance) / distance)[:, None]
    forces = np.zeros_like(beads)
    for beads_of, sign in ((first, 1.0), (second, -1.0)):
        for axis in range(2):
            forces[:, axis] += sign * np.bincount(beads_of, push[:, axis], len(beads))
    moves = forces.reshape(count, _BEADS, 2)
    pushed = np.maximum((moves != 0).any(-1).sum(1), 1)
    torque = (arms[..., 1] * moves[..., 0] - arms[..., 0] * moves[..., 1]).sum(1)
    inertia = np.maximum((arms**2).sum((1, 2)), width**2)
    return RodShapes(
        rods.centers + moves.sum(1) / pushed[:, None],
        rods.lengths,
        rods.angles + np.clip(torque / inertia, -0.2, 0.2),
    )


LAYOUTS: dict[str, SceneLayout] = {
    "leaves": leaves,
    "cells": cells,
    "nucleated": nucleated,
    "discs": discs,
    "rods": rods,
    "filaments": filaments,
    "large": large,
    "nested": nested,
    "assembled": assembled,
    "tissue": tissue,
    "levels": levels,
    "head": head,
    "organs": organs,
    "folds": folds,
    "layers": layers,
    "cracks": cracks,
}
"""Name -> layout. A new layout is a new row; a test walks all rows."""
