"""Where objects are: a table of layouts, each a function of the image size.

Sizes are drawn log-uniformly in pixels, from about 8 px across to most of the field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.learn.scenes import canvas as draw
from napari_simmat.learn.scenes.arrays import Ids, Shape
from napari_simmat.learn.scenes.canvas import Canvas
from napari_simmat.learn.scenes.textures import smooth_field

MAX_OBJECTS = 260


@dataclass(frozen=True, eq=False)
class Drawing:
    """Regions (H, W) that look alike inside, and the object that each belongs to.

    `objects[region]` is the object's number, 0 for what is no object (background, fibres).
    Regions of one object are its parts.
    """

    regions: Ids
    objects: Ids


Layout = Callable[[np.random.Generator, Shape], Drawing]


def leaves(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Dead leaves: outlines of many sizes that fall on each other (Lee, Mumford and Huang 2001)."""
    canvas = Canvas(shape)
    kinds = [("blob",), ("polygon",), ("blob", "tube"), ("blob", "polygon", "tube")]
    kind = kinds[rng.integers(len(kinds))]
    side = min(shape)
    smallest = log_uniform(rng, 6, 16)
    largest = max(log_uniform(rng, 0.1, 0.45) * side, 1.5 * smallest)
    count = min(int(log_uniform(rng, 6, 90) * max(1.0, shape[0] * shape[1] / 256**2)), MAX_OBJECTS)
    # Number of leaves falls with the square of their radius, as in photographs.
    radii = 1 / (1 / smallest + rng.random(count) * (1 / largest - 1 / smallest))
    if rng.random() < 0.6:
        radii = np.sort(radii)[::-1]
    for radius in radii:
        centre = _anywhere(rng, shape, margin=-0.3 * radius)
        outline = _outline(rng, radius, str(rng.choice(kind)))
        canvas.fill(outline, centre)
        if radius > 16 and rng.random() < 0.1:  # a ring
            hole = (outline[0] * 0.5, outline[1] * 0.5)
            canvas.fill(hole, centre, region=0 if rng.random() < 0.5 else None)
    return _each_an_object(canvas)


def cells(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Nuclei or cells of similar size: scattered, crowded or in clusters, many touching."""
    canvas = Canvas(shape)
    _crowd(rng, canvas, log_uniform(rng, 5, max(7.0, min(34.0, 0.16 * min(shape)))))
    return _each_an_object(canvas)


def nucleated(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Cells with a nucleus: the whole cells, the nuclei, or both are the objects."""
    canvas = Canvas(shape)
    placed = _crowd(rng, canvas, log_uniform(rng, 11, max(13.0, min(40.0, 0.2 * min(shape)))))
    meaning = rng.choice(["cells", "nuclei", "parts"], p=[0.5, 0.2, 0.3])
    share = rng.uniform(0.35, 0.6)
    owner = [0] + [0 if meaning == "nuclei" else cell for cell, _, _ in placed]
    for cell, centre, radius in placed:
        spot = _pair(np.asarray(centre) + rng.normal(0, 0.12 * radius, 2))
        size = max(4.5, radius * share * np.exp(rng.normal(0, 0.12)))
        nucleus = canvas.fill(draw.blob(rng, size, 0.04, rng.uniform(1, 1.4)), spot, within=cell)
        owner.append(cell if meaning == "cells" else nucleus)
    return Drawing(canvas.regions, np.asarray(owner, np.int32))


def _crowd(
    rng: np.random.Generator, canvas: Canvas, radius: float
) -> list[tuple[int, tuple[float, float], float]]:
    """Claim many blobs; returns region, centre and radius of each."""
    shape = canvas.shape
    placed: list[tuple[int, tuple[float, float], float]] = []
    irregularity = float(rng.choice([0.0, 0.03, 0.06, 0.12]))
    elongation = rng.uniform(1.0, float(rng.choice([1.15, 1.6, 2.2])))
    variation = rng.uniform(0.05, 0.3)
    overlap = rng.uniform(0.0, 0.3)
    cover = rng.uniform(0.1, 0.75)
    wanted = int(np.clip(cover * shape[0] * shape[1] / (np.pi * radius**2), 3, MAX_OBJECTS))
    hearts = None
    if rng.random() < 0.55:
        hearts = np.stack([_anywhere(rng, shape) for _ in range(int(rng.integers(2, 8)))])
        spread = radius * rng.uniform(1.2, 4.0)
    for _ in range(4 * wanted):
        if hearts is None or rng.random() < 0.1:
            centre = _anywhere(rng, shape, margin=-radius / 2)
        else:
            heart = hearts[rng.integers(len(hearts))]
            centre = _pair(heart + rng.normal(0, spread, 2))
        size = radius * np.exp(rng.normal(0, variation))
        claimed = canvas.claim_blob(
            rng,
            centre,
            size,
            irregularity=irregularity,
            elongation=elongation * np.exp(abs(rng.normal(0, 0.1))),
            overlap=overlap,
        )
        if claimed:
            placed.append((canvas.count, centre, size))
        if canvas.count >= wanted:
            break
    return placed


def discs(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Round flat things such as coins, pills, grains or colonies: in rows or strewn."""
    canvas = Canvas(shape)
    radius = log_uniform(rng, 7, max(10.0, 0.2 * min(shape)))
    variation, irregularity = rng.uniform(0.0, 0.3), float(rng.choice([0.0, 0.02, 0.04]))
    pitch = radius * rng.uniform(2.1, 3.5)
    if rng.random() < 0.5:
        tilt, jitter = rng.uniform(-0.3, 0.3), rng.uniform(0, 0.15) * pitch
        centres = _lattice(rng, shape, pitch, pitch, tilt)
        centres = centres + rng.normal(0, jitter + 1e-3, centres.shape)
    else:
        count = int(np.clip(2 * shape[0] * shape[1] / pitch**2, 4, MAX_OBJECTS))
        centres = np.stack([_anywhere(rng, shape, margin=-radius / 2) for _ in range(count)])
    overlap = float(rng.choice([0.0, 0.02, 0.15]))
    for centre in centres[:MAX_OBJECTS]:
        canvas.claim_blob(
            rng,
            _pair(centre),
            radius * np.exp(rng.normal(0, variation)),
            irregularity=irregularity,
            elongation=1 + abs(rng.normal(0, 0.06)),
            overlap=overlap,
        )
    return _each_an_object(canvas)


def rods(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Rod-shaped bacteria: loose, in chains, or packed side by side in colonies."""
    canvas = Canvas(shape)
    width = log_uniform(rng, 5, max(7.0, min(24.0, 0.1 * min(shape))))
    length = width * rng.uniform(1.6, 5.5)
    arrangement = rng.choice(["loose", "chains", "colony", "colony"])
    bend = rng.uniform(0, 0.06)
    variation = rng.uniform(0.05, 0.15 if arrangement == "colony" else 0.35)

    def rod(centre: NDArray[np.floating], angle: float, overlap: float) -> bool:
        return canvas.claim_rod(
            _pair(centre),
            length * np.exp(rng.normal(0, variation)),
            width * np.exp(rng.normal(0, 0.04)),
            angle,
            bend=rng.normal(0, bend),
            overlap=overlap,
        )

    if arrangement == "colony":
        for _ in range(int(rng.integers(1, 4))):
            heart = np.asarray(_anywhere(rng, shape, margin=0.15 * min(shape)))
            reach = log_uniform(rng, 1.2 * length, max(0.45 * min(shape), 2 * length))
            swirl = smooth_field(rng, shape, max(reach, 24)) * rng.uniform(0.0, 0.7)
            angle = rng.uniform(0, np.pi)
            pitch = rng.uniform(1.0, 1.15), rng.uniform(1.0, 1.12)
            spots = _lattice(rng, shape, width * pitch[0], length * pitch[1], angle)
            spots = spots[np.hypot(*(spots - heart).T) < reach]
            for spot in rng.permutation(spots)[: MAX_OBJECTS // 2]:
                y, x = (int(np.clip(v, 0, n - 1)) for v, n in zip(spot, shape, strict=True))
                turn = angle + swirl[y, x] + rng.normal(0, 0.08)
                along = rng.normal(0, 0.06 * length) * np.array([np.sin(angle), np.cos(angle)])
                rod(spot + along, turn, 0.15)
        return _each_an_object(canvas)
    count = int(np.clip(rng.uniform(0.05, 0.35) * canvas.regions.size / (width * length), 3, 200))
    for _ in range(count):
        spot, angle = np.asarray(_anywhere(rng, shape)), rng.uniform(0, np.pi)
        links = int(rng.integers(2, 7)) if arrangement == "chains" else 1
        for _ in range(links):
            if not rod(spot, angle, 0.08):
                break
            previous, angle = angle, angle + rng.normal(0, 0.25)
            for turn in (previous, angle):
                spot = spot + 0.56 * length * np.array([np.sin(turn), np.cos(turn)])
        if canvas.count > count:
            break
    return _each_an_object(canvas)


def filaments(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Winding tubes that cross each other: vessels, fibres, roots, worms."""
    canvas = Canvas(shape)
    width = log_uniform(rng, 5, max(7.0, 0.08 * min(shape)))
    for _ in range(int(log_uniform(rng, 3, 22))):
        thickness = max(5.0, width * np.exp(rng.normal(0, 0.3)))
        reach = thickness * log_uniform(rng, 4, max(5.0, 1.2 * min(shape) / thickness))
        canvas.fill(draw.tube(rng, reach, thickness), _anywhere(rng, shape))
    return _each_an_object(canvas)


def large(rng: np.random.Generator, shape: Shape) -> Drawing:
    """One to four objects that fill much of the field."""
    canvas = Canvas(shape)
    for _ in range(int(rng.integers(1, 5))):
        radius = min(shape) * rng.uniform(0.16, 0.42)
        kind = str(rng.choice(["blob", "blob", "polygon", "rectangle"]))
        canvas.fill(_outline(rng, radius, kind), _anywhere(rng, shape, margin=0.2 * min(shape)))
    return _each_an_object(canvas)


def nested(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Things with parts inside parts; either the wholes or the parts are the objects."""
    canvas = Canvas(shape)
    side = min(shape)
    owner = [0]
    whole_wins = rng.random() < 0.6
    for _ in range(int(rng.integers(1, 9))):
        radius, centre = log_uniform(rng, 0.07, 0.38) * side, _anywhere(rng, shape)
        first = canvas.count + 1
        for depth in range(int(rng.integers(2, 4))):
            if radius < 6:
                break
            outline = draw.blob(
                rng, radius, float(rng.choice([0.02, 0.06, 0.12])), rng.uniform(1, 1.5)
            )
            canvas.fill(outline, centre)
            owner.append(first if whole_wins else canvas.count)
            for _ in range(int(rng.integers(0, 4)) if depth else 0):
                angle, away = rng.uniform(0, 6.28), radius * rng.uniform(0.2, 0.6)
                spot = (centre[0] + away * np.sin(angle), centre[1] + away * np.cos(angle))
                small = max(4.5, radius * rng.uniform(0.12, 0.28))
                canvas.fill(draw.blob(rng, small, 0.05), spot)
                owner.append(first if whole_wins else canvas.count)
            radius *= rng.uniform(0.5, 0.8)
    return Drawing(canvas.regions, np.asarray(owner, np.int32))


def tissue(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Cells that fill the field: a warped Voronoi mosaic (epithelium, grains, crystals)."""
    radius = log_uniform(rng, 8, max(10.0, 0.16 * min(shape)))
    radius = max(radius, np.sqrt(shape[0] * shape[1] / MAX_OBJECTS) / 1.7)
    centres = _lattice(rng, shape, 1.7 * radius, 1.7 * radius, rng.uniform(0, 1))
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
    return _identity(_warped(rng, regions, wave, max(radius, 6)))


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
        canvas.fill(draw.blob(rng, radius, 0.1, 1.3), _anywhere(rng, shape))
    if rng.random() < 0.4:
        body = Canvas(shape)
        outline = draw.blob(rng, side * rng.uniform(0.32, 0.46), 0.04, 1.2)
        body.fill(outline, (shape[0] / 2, shape[1] / 2))
        canvas.regions[body.regions == 0] = 0
    return _identity(canvas.regions)


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
    ribbon = max(3.0, side * rng.uniform(0.012, 0.028))
    outward = np.clip((radius / brain - 0.35) / 0.4, 0, 1)
    room = brain - 2.5 * ribbon / side  # leaves space for the ribbon all around
    core = (radius < room) & (radius + rng.uniform(0.1, 0.28) * folds * outward < room)
    core &= np.abs(x) > rng.uniform(0, 0.02) * (np.abs(y) > 0.35)  # the furrow between the halves
    regions[inside & (ndi.distance_transform_edt(~core) < ribbon)] = grey
    regions[core] = white
    middle, away = height / 2 + rng.normal(0, 0.05 * height), rng.uniform(0.04, 0.14) * side
    horn = draw.blob(rng, side * rng.uniform(0.03, 0.07), 0.2, rng.uniform(1.5, 3))
    kernel = draw.blob(rng, max(4.5, side * rng.uniform(0.025, 0.05)), 0.05, 1.5)
    deep = away + side * rng.uniform(0.07, 0.12)
    for sign in (1, -1):  # both sides look alike
        canvas.fill((horn[0], sign * horn[1]), (middle, width / 2 + sign * away), ventricle)
        if deep < 0.25 * side:
            canvas.fill((kernel[0], sign * kernel[1]), (middle, width / 2 + sign * deep), nucleus)
    canvas.count = nucleus
    for _ in range(int(rng.integers(0, 4))):  # lesions
        spot = _anywhere(rng, shape, margin=0.25 * side)
        canvas.fill(draw.blob(rng, log_uniform(rng, 5, max(6.0, 0.08 * side)), 0.1), spot)
    objects = np.arange(canvas.count + 1, dtype=np.int32)
    meaning = rng.random()
    if meaning < 0.2:
        objects[[fluid, grey, white, ventricle, nucleus]] = white  # the brain as a whole
        objects[nucleus + 1 :] = white
    elif meaning < 0.3:
        objects[1:] = scalp  # the head as a whole
    return Drawing(regions, objects)


def organs(rng: np.random.Generator, shape: Shape) -> Drawing:
    """A slice of a trunk: skin, fat, organs packed inside, spine."""
    canvas = Canvas(shape)
    side = min(shape)
    centre = (shape[0] / 2, shape[1] / 2)
    body = draw.blob(rng, side * rng.uniform(0.36, 0.46), 0.03, 1.25)
    canvas.fill(body, centre)
    inner = rng.uniform(0.8, 0.9)
    canvas.fill((body[0] * inner, body[1] * inner), centre)
    trunk = canvas.regions == 2
    organ = Canvas(shape)
    for _ in range(int(rng.integers(4, 16))):
        spot = _pair(np.asarray(centre) + rng.normal(0, 0.2 * side, 2))
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
        spot = _pair(np.asarray(centre) + rng.normal(0, 0.16 * side, 2))
        canvas.fill(draw.blob(rng, log_uniform(rng, 4.5, max(6.0, 0.06 * side)), 0.06), spot)
    objects = np.arange(canvas.count + 1, dtype=np.int32)
    if rng.random() < 0.15:
        objects[1:] = 1  # the trunk as a whole
    return Drawing(canvas.regions, objects)


LAYOUTS: dict[str, Layout] = {
    "leaves": leaves,
    "cells": cells,
    "nucleated": nucleated,
    "discs": discs,
    "rods": rods,
    "filaments": filaments,
    "large": large,
    "nested": nested,
    "tissue": tissue,
    "levels": levels,
    "head": head,
    "organs": organs,
}


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw between `low` and `high` so that each octave is as likely as another."""
    return float(np.exp(rng.uniform(np.log(low), np.log(max(high, low)))))


def _outline(rng: np.random.Generator, radius: float, kind: str) -> draw.Outline:
    if kind == "polygon":
        return (draw.rectangle if rng.random() < 0.4 else draw.polygon_outline)(rng, radius)
    if kind == "rectangle":
        return draw.rectangle(rng, radius)
    if kind == "tube":
        width = max(5.0, radius * rng.uniform(0.15, 0.4))
        return draw.tube(rng, radius * rng.uniform(2, 5), width)
    return draw.blob(rng, radius, float(rng.choice([0.0, 0.05, 0.12, 0.22])), rng.uniform(1, 1.9))


def _anywhere(rng: np.random.Generator, shape: Shape, margin: float = 0.0) -> tuple[float, float]:
    y, x = (rng.uniform(min(margin, n / 2 - 1), max(n - margin, n / 2 + 1)) for n in shape)
    return y, x


def _pair(point: NDArray[np.floating]) -> tuple[float, float]:
    return float(point[0]), float(point[1])


def _lattice(
    rng: np.random.Generator, shape: Shape, across: float, along: float, angle: float
) -> NDArray[np.float64]:
    """Points (N, 2) of a brick pattern turned by `angle`, within the field; at most 4000."""
    reach = np.hypot(*shape) / 2
    rows = np.arange(-reach, reach, max(across, 2.0)) + rng.uniform(0, across)
    columns = np.arange(-reach, reach, max(along, 2.0)) + rng.uniform(0, along)
    v, u = np.meshgrid(rows, columns, indexing="ij")
    u = u + (np.arange(len(rows)) % 2)[:, None] * along / 2
    y = np.cos(angle) * v + np.sin(angle) * u + shape[0] / 2
    x = np.cos(angle) * u - np.sin(angle) * v + shape[1] / 2
    points = np.stack([y.ravel(), x.ravel()], axis=1)
    inside = ((points > -across) & (points < np.asarray(shape) + across)).all(axis=1)
    return points[inside][:4000]


def _warped(rng: np.random.Generator, regions: Ids, wave: float, length: float) -> Ids:
    shape = (regions.shape[0], regions.shape[1])
    y, x = np.ogrid[: shape[0], : shape[1]]
    rows = np.clip(y + wave * smooth_field(rng, shape, length), 0, shape[0] - 1).astype(int)
    columns = np.clip(x + wave * smooth_field(rng, shape, length), 0, shape[1] - 1).astype(int)
    return regions[rows, columns]


def _split(regions: Ids) -> Ids:
    """Give every connected piece of a region its own id."""
    from skimage.measure import label

    return np.asarray(label(regions, background=0, connectivity=1), np.int32)


def _identity(regions: Ids) -> Drawing:
    return Drawing(regions, np.arange(int(regions.max()) + 1, dtype=np.int32))


def _each_an_object(canvas: Canvas) -> Drawing:
    return Drawing(canvas.regions, np.arange(canvas.count + 1, dtype=np.int32))
