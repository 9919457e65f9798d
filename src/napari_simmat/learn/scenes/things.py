"""Layouts of things that lie on a ground. Sizes are drawn log-uniformly in pixels."""

from __future__ import annotations

import numpy as np

from napari_simmat.learn.scenes import outlines
from napari_simmat.learn.scenes.arrays import Shape
from napari_simmat.learn.scenes.canvas import Canvas, Drawing
from napari_simmat.learn.scenes.colony import grown
from napari_simmat.learn.scenes.placing import MAX_OBJECTS, anywhere, lattice, log_uniform, pair


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
        centre = anywhere(rng, shape, margin=-0.3 * radius)
        outline = outlines.outline(rng, radius, str(rng.choice(kind)))
        canvas.fill(outline, centre)
        if radius > 16 and rng.random() < 0.1:  # a ring
            hole = (outline[0] * 0.5, outline[1] * 0.5)
            canvas.fill(hole, centre, region=0 if rng.random() < 0.5 else None)
    return canvas.drawing()


def cells(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Nuclei or cells of similar size: scattered, crowded or in clusters, many touching."""
    canvas = Canvas(shape)
    _crowd(rng, canvas, log_uniform(rng, 5, max(7.0, min(34.0, 0.16 * min(shape)))))
    return canvas.drawing()


def nucleated(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Cells with a nucleus: the whole cells, the nuclei, or both are the objects."""
    canvas = Canvas(shape)
    placed = _crowd(rng, canvas, log_uniform(rng, 11, max(13.0, min(40.0, 0.2 * min(shape)))))
    meaning = rng.choice(["cells", "nuclei", "parts"], p=[0.5, 0.2, 0.3])
    share = rng.uniform(0.35, 0.6)
    owner = [0] + [0 if meaning == "nuclei" else cell for cell, _, _ in placed]
    for cell, centre, radius in placed:
        spot = pair(np.asarray(centre) + rng.normal(0, 0.12 * radius, 2))
        size = max(4.5, radius * share * np.exp(rng.normal(0, 0.12)))
        nucleus = canvas.fill(
            outlines.blob(rng, size, 0.04, rng.uniform(1, 1.4)), spot, within=cell
        )
        owner.append(cell if meaning == "cells" else nucleus)
    return canvas.drawing(owner)


def discs(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Round flat things such as coins, pills, grains or colonies: in rows or strewn."""
    canvas = Canvas(shape)
    radius = log_uniform(rng, 7, max(10.0, 0.2 * min(shape)))
    variation, irregularity = rng.uniform(0.0, 0.3), float(rng.choice([0.0, 0.02, 0.04]))
    pitch = radius * rng.uniform(2.1, 3.5)
    if rng.random() < 0.5:
        tilt, jitter = rng.uniform(-0.3, 0.3), rng.uniform(0, 0.15) * pitch
        centres = lattice(rng, shape, pitch, pitch, tilt)
        centres = centres + rng.normal(0, jitter + 1e-3, centres.shape)
    else:
        count = int(np.clip(2 * shape[0] * shape[1] / pitch**2, 4, MAX_OBJECTS))
        centres = np.stack([anywhere(rng, shape, margin=-radius / 2) for _ in range(count)])
    overlap = float(rng.choice([0.0, 0.02, 0.15]))
    for centre in centres[:MAX_OBJECTS]:
        canvas.claim_blob(
            rng,
            pair(centre),
            radius * np.exp(rng.normal(0, variation)),
            irregularity=irregularity,
            elongation=1 + abs(rng.normal(0, 0.06)),
            overlap=overlap,
        )
    return canvas.drawing()


def rods(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Rod-shaped bacteria: loose, in chains, or packed side by side in grown colonies."""
    canvas = Canvas(shape)
    width = log_uniform(rng, 5, max(7.0, min(24.0, 0.1 * min(shape))))
    bend = rng.uniform(0, 0.06)
    arrangement = rng.choice(["loose", "chains", "colony", "colony", "colony"])
    if arrangement == "colony":
        _colonies(rng, canvas, width, bend)
        return canvas.drawing()
    length = width * rng.uniform(1.6, 5.5)
    variation = rng.uniform(0.05, 0.35)
    count = int(np.clip(rng.uniform(0.05, 0.35) * canvas.regions.size / (width * length), 3, 200))
    for _ in range(count):
        spot, angle = np.asarray(anywhere(rng, shape)), rng.uniform(0, np.pi)
        links = int(rng.integers(2, 7)) if arrangement == "chains" else 1
        for _ in range(links):
            placed = canvas.claim_rod(
                pair(spot),
                length * np.exp(rng.normal(0, variation)),
                width * np.exp(rng.normal(0, 0.04)),
                angle,
                bend=rng.normal(0, bend),
                overlap=0.08,
            )
            if not placed:
                break
            previous, angle = angle, angle + rng.normal(0, 0.25)
            for turn in (previous, angle):
                spot = spot + 0.56 * length * np.array([np.sin(turn), np.cos(turn)])
        if canvas.count > count:
            break
    return canvas.drawing()


def filaments(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Winding tubes that cross each other: vessels, fibres, roots, worms."""
    canvas = Canvas(shape)
    width = log_uniform(rng, 5, max(7.0, 0.08 * min(shape)))
    for _ in range(int(log_uniform(rng, 3, 22))):
        thickness = max(5.0, width * np.exp(rng.normal(0, 0.3)))
        reach = thickness * log_uniform(rng, 4, max(5.0, 1.2 * min(shape) / thickness))
        canvas.fill(outlines.tube(rng, reach, thickness), anywhere(rng, shape))
    return canvas.drawing()


def large(rng: np.random.Generator, shape: Shape) -> Drawing:
    """One to four objects that fill much of the field."""
    canvas = Canvas(shape)
    for _ in range(int(rng.integers(1, 5))):
        radius = min(shape) * rng.uniform(0.16, 0.42)
        kind = str(rng.choice(["blob", "blob", "polygon", "rectangle"]))
        canvas.fill(
            outlines.outline(rng, radius, kind), anywhere(rng, shape, margin=0.2 * min(shape))
        )
    return canvas.drawing()


def nested(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Things with parts inside parts; either the wholes or the parts are the objects."""
    canvas = Canvas(shape)
    side = min(shape)
    owner = [0]
    whole_wins = rng.random() < 0.6
    for _ in range(int(rng.integers(1, 9))):
        radius, centre = log_uniform(rng, 0.07, 0.38) * side, anywhere(rng, shape)
        first = canvas.count + 1
        for depth in range(int(rng.integers(2, 4))):
            if radius < 6:
                break
            outline = outlines.blob(
                rng, radius, float(rng.choice([0.02, 0.06, 0.12])), rng.uniform(1, 1.5)
            )
            canvas.fill(outline, centre)
            owner.append(first if whole_wins else canvas.count)
            for _ in range(int(rng.integers(0, 4)) if depth else 0):
                angle, away = rng.uniform(0, 6.28), radius * rng.uniform(0.2, 0.6)
                spot = (centre[0] + away * np.sin(angle), centre[1] + away * np.cos(angle))
                small = max(4.5, radius * rng.uniform(0.12, 0.28))
                canvas.fill(outlines.blob(rng, small, 0.05), spot)
                owner.append(first if whole_wins else canvas.count)
            radius *= rng.uniform(0.5, 0.8)
    return canvas.drawing(owner)


def assembled(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Things put together from unlike parts, as tools and vehicles are, with gaps between them.

    The wholes are the objects, or in one case of four the parts.
    """
    canvas = Canvas(shape)
    side = min(shape)
    owner = [0]
    whole_wins = rng.random() < 0.75
    for _ in range(int(rng.integers(1, 6))):
        radius = log_uniform(rng, max(8.0, 0.08 * side), 0.3 * side)
        centre = np.asarray(anywhere(rng, shape))
        first = canvas.count + 1
        parts = [(radius, centre)]
        for _ in range(int(rng.integers(2, 8))):
            size, heart = parts[rng.integers(len(parts))]
            angle = rng.uniform(0, 2 * np.pi)
            spot = heart + size * rng.uniform(0.3, 1.1) * np.array([np.sin(angle), np.cos(angle)])
            parts.append((max(4.5, radius * log_uniform(rng, 0.15, 0.8)), spot))
        for size, spot in [parts[i] for i in rng.permutation(len(parts))]:
            kind = str(rng.choice(["blob", "polygon", "rectangle", "tube"]))
            outline = outlines.outline(rng, size, kind)
            canvas.fill(outline, pair(spot))
            owner.append(first if whole_wins else canvas.count)
            if size > 10 and rng.random() < 0.2:  # what lies behind is seen through a ring
                hole = (outline[0] * 0.6, outline[1] * 0.6)
                canvas.fill(hole, pair(spot), region=0, within=canvas.count)
    return canvas.drawing(owner)


def _colonies(rng: np.random.Generator, canvas: Canvas, width: float, bend: float) -> None:
    """Claim the rods of one or two grown colonies."""
    shape = canvas.shape
    longest = width * rng.uniform(2.0, 8.0)
    room = shape[0] * shape[1] / (0.7 * longest * width)  # rods that would fill the field
    for _ in range(int(rng.integers(1, 3))):
        cells = int(log_uniform(rng, 8, min(max(0.9 * room, 12.0), MAX_OBJECTS / 2)))
        colony = grown(rng, cells, width * rng.uniform(0.85, 1.05), longest)
        heart = np.asarray(anywhere(rng, shape, margin=0.15 * min(shape)))
        for centre, length, angle in zip(*colony, strict=True):
            canvas.claim_rod(
                pair(centre + heart),
                length + width,
                width * np.exp(rng.normal(0, 0.04)),
                angle,
                bend=rng.normal(0, bend),
                overlap=0.5,
            )


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
        hearts = np.stack([anywhere(rng, shape) for _ in range(int(rng.integers(2, 8)))])
        spread = radius * rng.uniform(1.2, 4.0)
    for _ in range(4 * wanted):
        if hearts is None or rng.random() < 0.1:
            centre = anywhere(rng, shape, margin=-radius / 2)
        else:
            heart = hearts[rng.integers(len(hearts))]
            centre = pair(heart + rng.normal(0, spread, 2))
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
