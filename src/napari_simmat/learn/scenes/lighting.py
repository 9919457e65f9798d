"""Lamps, and how they light a scene."""

from __future__ import annotations

import numpy as np

from napari_simmat.learn.scenes.arrays import Floats
from napari_simmat.learn.scenes.scene import Scene


def draw_lamp(rng: np.random.Generator) -> Floats:
    """Unit vector (3,) as x, y, z towards a lamp that stands aslant."""
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.9)
    direction = np.array([np.cos(angle) * tilt, np.sin(angle) * tilt, 1.0])
    return np.asarray(direction / np.linalg.norm(direction), np.float32)


def illumination(scene: Scene, lamp: Floats, ambient: float) -> Floats:
    """Light on the surface (Lambert's law), or on the ground behind clear glass (H, W)."""
    light = ambient + 0.6 * np.clip(scene.normals @ lamp, 0, 1)
    bare = scene.regions == 0
    ground = np.median(light[bare]) if bare.any() else np.median(light)
    return np.asarray(np.where(scene.glass, ground, light), np.float32)


def halfway(lamp: Floats) -> Floats:
    """Between the lamp and the camera, where a mirror facet would have to point (Blinn 1977)."""
    direction = lamp + np.array([0, 0, 1], np.float32)
    return np.asarray(direction / np.linalg.norm(direction), np.float32)
