"""Draw the stored samples of the product: `python -m napari_simmat.research.stored_samples FOLDER`.

The product opens them from `SAMPLES` and needs no scenes. Values are rounded to steps of about half
the noise, as a camera's gain does, since all files together have at most 400 kB.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_simmat.io.files import SAMPLES
from napari_simmat.research.renderers import render
from napari_simmat.research.samples import draw_volume, visible_labels
from napari_simmat.research.scene import draw_scene
from napari_simmat.research.sensors import SENSORS, draw_sensor_sample

SIDE = 256


class StoredSample(NamedTuple):
    """An image (C, Y, X), (Y, X) or (Z, Y, X), its true labels, and the names of its channels."""

    image: NDArray[Any]
    labels: NDArray[Any]
    channels: tuple[str, ...] = ()


def _sensor(name: str, seed: int, layout: str, step: int, side: int = SIDE) -> StoredSample:
    image, labels, _ = draw_sensor_sample(name, seed, side, layout)
    names = SENSORS[name].channels
    image = _rounded(image, step, np.uint16)
    return StoredSample(image, labels, names) if len(names) > 1 else StoredSample(image[0], labels)


def _fluorescence() -> StoredSample:
    """Tissue with two stains; nuclei that nobody could see are no objects."""
    rng = np.random.default_rng(7)
    scene = draw_scene(rng, 320, "cells")
    nuclei = render(scene, "fluorescence", rng)
    membranes = render(scene, "membranes", np.random.default_rng(1))
    image = [_rounded(nuclei, 32, np.uint16), _rounded(membranes, 16, np.uint16)]
    labels = visible_labels(nuclei, scene.labels)
    return StoredSample(np.stack(image), labels, ("nuclei", "membranes"))


def _slice(family: str, layout: str, seed: int, step: int) -> StoredSample:
    scene = draw_scene(seed, SIDE, layout)
    image = render(scene, family, np.random.default_rng(seed))
    return StoredSample(_rounded(image, step, np.int16), scene.labels)


def _cells() -> StoredSample:
    image, labels = draw_volume(0, (16, 96, 96))
    return StoredSample(_rounded(image, 128, np.uint16), labels)


def _rounded(values: NDArray[Any], step: int, dtype: Any) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    steps = np.clip(step * np.rint(values / step), limits.min, limits.max)
    return np.asarray(steps, dtype)


STORED_SAMPLES: dict[str, Callable[[], StoredSample]] = {
    "polarization": lambda: _sensor("polarization", 6, "discs", 32),
    "multispectral": lambda: _sensor("multispectral", 4, "large", 64, 160),
    "thermal": lambda: _sensor("thermal", 4, "large", 16),
    "fluorescence": _fluorescence,
    "ct": lambda: _slice("ct", "organs", 2, 8),
    "mri": lambda: _slice("mri", "head", 3, 8),
    "cells": _cells,
}


def write_samples(folder: Path) -> None:
    """Write ``NAME.tif`` and ``NAME_labels.tif`` for each sample."""
    for name, draw in STORED_SAMPLES.items():
        sample = draw()
        axes = "CYX" if sample.channels else "ZYX"[-sample.image.ndim :]
        metadata: dict[str, Any] = {"axes": axes}
        if sample.channels:
            metadata["Channel"] = {"Name": list(sample.channels)}
        _write(folder / f"{name}.tif", sample.image, metadata)
        labels = sample.labels.astype(np.uint8)
        _write(folder / f"{name}_labels.tif", labels, {"axes": "ZYX"[-labels.ndim :]})


def _write(path: Path, values: NDArray[Any], metadata: dict[str, Any]) -> None:
    metadata["UUID"] = "urn:uuid:00000000-0000-0000-0000-000000000000"  # equal runs, equal bytes
    tifffile.imwrite(
        path,
        values,
        ome=True,
        photometric="minisblack",
        compression="lzma",
        predictor=True,
        metadata=metadata,
    )


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES)
