"""Depth cameras: disparity as it is measured, and the HHA code made of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_simmat.learn.scenes.arrays import Floats
from napari_simmat.learn.scenes.optics import blur, gaussian
from napari_simmat.learn.scenes.scene import Scene
from napari_simmat.learn.scenes.textures import smooth_field

_COUNTS_AT_1_M = 348.0
"""Disparity in eighths of a pixel: 580 px focal length x 7.5 cm baseline x 8 (Kinect)."""
_PER_PIXEL = 8.0
_FARTHEST_SHADOW = 8
"""Width in pixels up to which the projector's shadow is followed."""
_NEAREST = 0.5
"""Distance in metres that the HHA code's disparity shows as white."""
_METRES_OF_HEIGHT = 3.0
"""Height above ground that the HHA code shows as white."""


def depth(scene: Scene, rng: np.random.Generator) -> Floats:
    """Raw counts (1, H, W) of a structured-light depth camera; 0 = no reading.

    What is measured is disparity, in whole eighths of a pixel, inverse to the distance z, so that
    a step of the surface fades with 1 / z^2 (Khoshelham and Elberink, Sensors 12, 2012). The
    ground that leads away from the camera takes nearly the whole range, and the things on it show
    as steps of some counts. Nothing is read in the projector's shadow to one side of what stands
    out, nor in patches on glass, which scatters little of the pattern back, and on steep faces, nor
    at many a single place whose spot of the pattern is not recognised.
    """
    counts = _COUNTS_AT_1_M / _metres(scene, rng)
    raw = np.rint(_measured(counts, rng))
    lost = _lost(scene, counts, rng)
    return np.asarray(np.where(lost, 0, np.maximum(raw, 0)), np.float32)[None]


def filled(image: Floats) -> Floats:
    """Image (C, H, W) with the mean of the readings near by where all channels are 0: none."""
    read = np.asarray((image > 0).any(axis=0))
    weight = np.maximum(blur(np.asarray(read, np.float32), 1.5), 1e-3)
    near_by = blur(image.transpose(1, 2, 0), 1.5).transpose(2, 0, 1) / weight
    return np.where(read, image, near_by).astype(np.float32)


def hha(scene: Scene, rng: np.random.Generator) -> Floats:
    """Depth as three channels of 0..255 (3, H, W): disparity, height above ground, angle.

    The code of Gupta, Girshick, Arbelaez and Malik (ECCV 2014, arXiv 1407.5736): horizontal
    disparity; height above the lowest point; angle of the surface normal with the direction
    against gravity, which is estimated from the image and hence slightly off. Channels are scaled
    alike for all images of a data set. Disparity and height change along the ground far more than
    from thing to thing; how things are slanted stands in the angle, under the error that normals
    fitted to noisy points have. All channels are 0 where `depth` has no reading.
    """
    counts = _COUNTS_AT_1_M / _metres(scene, rng)
    z = _COUNTS_AT_1_M / _measured(counts, rng)
    pitch = rng.uniform(0.3, 1.0)  # the camera looks down by that much
    focal = 1.1 * max(scene.shape)
    across, down = (
        z * (np.arange(n, dtype=np.float32) - n / 2).reshape(axes) / focal
        for n, axes in ((scene.shape[1], (1, -1)), (scene.shape[0], (-1, 1)))
    )
    roll, nod = rng.normal(0, 0.03, 2)  # error of the estimated direction of gravity
    up = np.array([np.sin(roll), -np.cos(pitch + nod), -np.sin(pitch + nod)], np.float32)
    height = across * up[0] + down * up[1] + z * up[2]
    height = height - np.percentile(height, 1)
    normal = scene.normals * np.array([1, 1, -1], np.float32)  # z away from the camera
    angle = np.degrees(np.arccos(np.clip(blur(normal, 0.8) @ up, -1, 1)))
    error = blur(gaussian(rng, scene.shape), rng.uniform(0.8, 1.8))
    angle = angle + rng.uniform(5, 11) * error / error.std()
    code = np.stack([255 * _NEAREST / z, height * (255 / _METRES_OF_HEIGHT), angle + 38])
    code = np.where(_lost(scene, counts, rng), 0, np.clip(code, 0, 255))
    return np.asarray(np.rint(code), np.float32)


def _metres(scene: Scene, rng: np.random.Generator) -> Floats:
    """Distance from the camera, 1 to 2 m in the middle."""
    distance = scene.depth / np.median(scene.depth) * np.float32(rng.uniform(1, 2))
    return np.asarray(distance, np.float32)


def _measured(counts: Floats, rng: np.random.Generator) -> Floats:
    """Disparity with the error of matching, which is correlated over the window matched."""
    window = blur(gaussian(rng, counts.shape), rng.uniform(0.6, 1.0))
    noise = rng.uniform(0.4, 0.9) * window / window.std()
    return np.asarray(blur(counts, rng.uniform(0.3, 0.6)) + noise, np.float32)


def _lost(scene: Scene, counts: Floats, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Where nothing is read: in shadows, in patches of some surfaces, at single places."""
    patches = smooth_field(rng, scene.shape, rng.uniform(4, 9))
    steep = scene.normals[..., 2] < 0.45
    lost = _shadow(counts) | (patches > np.select([scene.glass, steep], [1.2, 0.9], 2.4))
    single = rng.random(scene.shape, dtype=np.float32) < rng.uniform(0.1, 0.3)
    return np.asarray(lost | single)


def _shadow(counts: Floats) -> NDArray[np.bool_]:
    """What something to the right of it hides from the projector, which stands there."""
    hidden = np.zeros(counts.shape, bool)
    for away in range(1, min(_FARTHEST_SHADOW, counts.shape[1] - 1) + 1):
        nearer = counts[:, away:] - counts[:, :-away]
        hidden[:, :-away] |= nearer > _PER_PIXEL * away
    return hidden
