"""Figures of the benchmark: shapes that no pretraining draws. Lengths in pixels.

A figure is one or more closed outlines around the origin whose union is one thing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from napari_simmat.learn.scenes.outlines import Outline

Figure = tuple[Outline, ...]
_THINNEST = 5.0
"""Narrowest stroke in pixels: an object is labelled from a half-width of 2 px on."""


def polyomino(rng: np.random.Generator, radius: float) -> Figure:
    """Three to eight squares that grew together edge to edge (Golomb 1954), not all in a row."""
    cells = [(0, 0), (0, 1), (1, int(rng.integers(2)))]
    for _ in range(int(rng.integers(0, 2 if radius < 10 else 6))):
        free = {(y + a, x + b) for y, x in cells for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))}
        options = sorted(free - set(cells))
        cells.append(options[rng.integers(len(options))])
    places = np.array(cells) - np.mean(cells, axis=0)
    side = radius / (np.hypot(*places.T).max() + 0.5)
    corners = 0.52 * np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)])
    turn = _turn(rng)
    return tuple(turn(*(side * (place + corners)).T) for place in places)


def gear(rng: np.random.Generator, radius: float) -> Figure:
    """A toothed wheel, with a bore in one case of two."""
    teeth = int(rng.integers(5, 9 if radius < 16 else 16))
    theta = (np.arange(teeth)[:, None] + [0, 0.3, 0.45, 0.85]) * 2 * np.pi / teeth
    edge = radius * np.tile([1, 1, *[rng.uniform(0.65, 0.85)] * 2], teeth)
    wheel = edge * np.sin(theta.ravel()), edge * np.cos(theta.ravel())
    if radius < 14 or rng.random() < 0.5:
        return (wheel,)
    bore = rng.uniform(0.2, 0.45) * radius
    angle = np.linspace(0, 2 * np.pi, 32)
    return (_holed(wheel, (bore * np.sin(angle), bore * np.cos(angle))),)


_STROKES = {
    "A": ((6, 1), (1, 8), (3, 5)),
    "E": ((0, 6), (0, 2), (3, 5), (6, 8)),
    "F": ((0, 6), (0, 2), (3, 5)),
    "H": ((0, 6), (2, 8), (3, 5)),
    "K": ((0, 6), (3, 2), (3, 8)),
    "L": ((0, 6), (6, 8)),
    "N": ((0, 6), (0, 8), (2, 8)),
    "T": ((0, 2), (1, 7)),
    "U": ((0, 6), (6, 8), (8, 2)),
    "X": ((0, 8), (2, 6)),
    "Y": ((0, 4), (2, 4), (4, 7)),
    "Z": ((0, 2), (2, 6), (6, 8)),
}
"""Strokes of letters between the nodes of a grid of 3 x 3, numbered row by row."""


def letter(rng: np.random.Generator, radius: float) -> Figure:
    """A block letter of straight strokes."""
    strokes = _STROKES[str(rng.choice(list(_STROKES)))]
    half = max(_THINNEST, radius * rng.uniform(0.25, 0.5)) / 2
    reach = np.array([radius - half, (radius - half) * rng.uniform(0.6, 0.9)])
    turn = _turn(rng, rng.normal(0, 0.3))
    parts = []
    for stroke in strokes:
        ends = (np.array([divmod(node, 3) for node in stroke]) - 1) * reach
        along = (ends[1] - ends[0]) / np.hypot(*(ends[1] - ends[0]))
        out, side = half * along, half * along[::-1] * (1, -1)
        first, last = ends[0] - out, ends[1] + out
        parts.append(turn(*np.array([first - side, first + side, last + side, last - side]).T))
    return tuple(parts)


def spiral(rng: np.random.Generator, radius: float) -> Figure:
    """The band between two turns of an Archimedean spiral."""
    width = max(_THINNEST, radius * rng.uniform(0.16, 0.3))
    turns = np.clip((radius - width / 2) / (1.7 * width), 0.7, 2.4)
    theta = np.linspace(0, 2 * np.pi * turns, int(24 * turns) + 8)
    middle = (radius - width / 2) * (0.1 + 0.9 * theta / theta[-1])
    outer, inner = middle + width / 2, np.maximum(middle - width / 2, 0)
    around, edge = np.concatenate([theta, theta[::-1]]), np.concatenate([outer, inner[::-1]])
    mirror = float(rng.choice([-1, 1]))
    return (_turn(rng)(mirror * edge * np.sin(around), edge * np.cos(around)),)


def superformula(rng: np.random.Generator, radius: float) -> Figure:
    """A flower with clefts between its petals (superformula, Gielis, Am. J. Botany 90, 2003)."""
    lobes, bluntness = int(rng.integers(3, 6 if radius < 12 else 9)), rng.uniform(0.3, 0.7)
    sharpness = rng.uniform(0.5, 1.2)  # 2 would be a circle
    phi = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    waves = np.abs([np.cos(lobes * phi / 4), np.sin(lobes * phi / 4)]) ** sharpness
    edge = waves.sum(axis=0) ** (1 / bluntness)
    edge = np.maximum(edge / edge.max(), 0.3)
    squeeze = rng.uniform(0.55, 1.0)
    return (_turn(rng)(radius * squeeze * edge * np.sin(phi), radius * edge * np.cos(phi)),)


def crescent(rng: np.random.Generator, radius: float) -> Figure:
    """What is left of a disc on which another lies."""
    theta = np.linspace(-1, 1, 40) * rng.uniform(1.7, 2.5)
    y, x = radius * np.sin(theta), radius * np.cos(theta)
    hollow = x[0] + rng.uniform(0.05, 0.5) * (x - x[0])
    return (
        _turn(rng)(np.concatenate([y, y[::-1]]), np.concatenate([x, hollow[::-1]]) - 0.3 * radius),
    )


def arc(rng: np.random.Generator, radius: float) -> Figure:
    """A piece of a ring."""
    thick = max(_THINNEST, radius * rng.uniform(0.3, 0.55))
    start = rng.uniform(0, 2 * np.pi)
    return (sector(max(radius - thick, 1.0), radius, start, start + rng.uniform(1.6, 5.4)),)


def sector(inner: float, outer: float, start: float, stop: float) -> Outline:
    """The piece of a ring between two radii in pixels and two angles in radians."""
    count = max(4, int((stop - start) * outer / 3))
    theta = np.linspace(start, stop, count)
    around = np.concatenate([theta, theta[::-1]])
    edge = np.repeat([outer, inner], count)
    return edge * np.sin(around), edge * np.cos(around)


def arrow(rng: np.random.Generator, radius: float) -> Figure:
    """An arrow with a straight shaft."""
    shaft = max(_THINNEST / radius / 2, rng.uniform(0.12, 0.3))
    neck, wing = rng.uniform(-0.2, 0.3), min(0.85, shaft + rng.uniform(0.25, 0.5))
    y = radius * np.array([0, -wing, -shaft, -shaft, shaft, shaft, wing])
    x = radius * np.array([1, neck, neck, -0.95, -0.95, neck, neck])
    return (_turn(rng)(y, x),)


FIGURES: dict[str, Callable[[np.random.Generator, float], Figure]] = {
    "polyomino": polyomino,
    "gear": gear,
    "letter": letter,
    "spiral": spiral,
    "superformula": superformula,
    "crescent": crescent,
    "arc": arc,
    "arrow": arrow,
}
"""Name -> figure of about the given radius in pixels. A new figure is a new row."""


def _turn(
    rng: np.random.Generator, angle: float | None = None
) -> Callable[[NDArray[np.floating], NDArray[np.floating]], Outline]:
    """A turn about the origin, by any angle unless one is given."""
    angle = rng.uniform(0, 2 * np.pi) if angle is None else angle
    cosine, sine = np.cos(angle), np.sin(angle)
    return lambda y, x: (cosine * y + sine * x, cosine * x - sine * y)


def _holed(outer: Outline, inner: Outline) -> Outline:
    """`outer` without `inner`: out and back along a slit of no width."""
    y, x = (
        np.concatenate([[*a, a[0]], [*b[::-1], b[-1]]]) for a, b in zip(outer, inner, strict=True)
    )
    return y, x
