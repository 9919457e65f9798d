"""Draw the flight of docs/captures.md: leaves on soil, seen by a drone's five cameras.

``python research/scripts/flight.py docs/tutorials/flight`` writes ``IMG_000N_B.tif``, reflectance
in 1/30000, for bands B of 1 blue, 2 green, 3 red, 4 near infra-red, 5 red edge, and
``IMG_000N_labels.tif``, the leaves as camera 1 sees them. The other cameras are turned, nearer or
farther, and displaced, in all captures alike.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

SHAPE = (160, 192)
CAPTURES, LEAVES = 4, 11
BORDER = 24
"""Pixels drawn around what is seen, so that no camera looks beyond the scene."""
SOIL = np.array([0.07, 0.11, 0.16, 0.25, 0.20])
LEAF = np.array([0.04, 0.10, 0.05, 0.50, 0.28])
YELLOW = np.array([0.05, 0.16, 0.15, 0.42, 0.33])
"""Reflectance in the five bands, about as in Jensen, Remote Sensing of the Environment (2007)."""
SCALE = 30000
CAMERAS = (
    (0.0, 1.000, 0.0, 0.0),
    (0.8, 1.008, 4.0, -3.0),
    (-1.0, 0.993, -5.5, 2.0),
    (0.5, 1.010, 2.5, 6.0),
    (-0.6, 1.004, -3.0, -5.0),
)
"""Of each camera: degrees, scale, and pixels down and right."""


def draw_scene(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Reflectance (5, Y, X) and labels (Y, X) of leaves that lie apart on soil."""
    height, width = (side + 2 * BORDER for side in SHAPE)
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.uint8)
    clods = gaussian_filter(rng.normal(size=labels.shape), 3)
    image = SOIL[:, None, None] * (1 + 0.12 * clods / clods.std())
    while labels.max() < LEAVES:
        cy, cx = rng.uniform(BORDER + 16, (height - BORDER - 16, width - BORDER - 16))
        long, short = rng.uniform(11, 17), rng.uniform(6, 9)
        turn = rng.uniform(0, np.pi)
        along = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        across = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        leaf = (along / long) ** 2 + (across / short) ** 2 < 1
        near = (along / (long + 4)) ** 2 + (across / (short + 4)) ** 2 < 1
        if labels[near].any():
            continue
        labels[leaf] = labels.max() + 1
        age = rng.uniform(0, 1) ** 2
        spectrum = (1 - age) * LEAF + age * YELLOW
        shade = 1 + 0.1 * across / short - 0.25 * (np.abs(across) < 0.8)  # the midrib is dark
        image[:, leaf] = spectrum[:, None] * shade[leaf]
    return image, labels


def seen(
    band: NDArray[np.float64], camera: tuple[float, float, float, float]
) -> NDArray[np.float64]:
    """A band (Y, X) as a camera sees it, without the border."""
    degrees, scale, down, right = camera
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.linalg.inv(scale * np.array([[cos, sin], [-sin, cos]]))
    middle = (np.array(SHAPE) - 1) / 2
    offset = middle + BORDER - turn @ (middle + np.array([down, right]))
    return np.asarray(affine_transform(gaussian_filter(band, 0.6), turn, offset, SHAPE, order=3))


def main(folder: Path) -> None:
    """Write the captures and their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    for number in range(1, CAPTURES + 1):
        image, labels = draw_scene(rng)
        light = rng.uniform(0.85, 1.1)
        for band, camera in enumerate(CAMERAS):
            values = light * seen(image[band], camera) + rng.normal(0, 0.003, SHAPE)
            counts = np.clip(np.rint(SCALE * values), 0, 65535).astype(np.uint16)
            path = folder / f"IMG_{number:04}_{band + 1}.tif"
            tifffile.imwrite(path, counts, compression="zlib", predictor=True)
        inside = labels[BORDER:-BORDER, BORDER:-BORDER]
        path = folder / f"IMG_{number:04}_labels.tif"
        tifffile.imwrite(path, inside, compression="zlib")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
