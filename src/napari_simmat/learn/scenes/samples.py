"""Training samples: a random scene, a random look, and exact labels of what can be seen."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from napari_simmat.learn.scenes.arrays import Floats, Ids
from napari_simmat.learn.scenes.degradations import degrade
from napari_simmat.learn.scenes.looks import FAMILIES, render
from napari_simmat.learn.scenes.scene import draw_scene
from napari_simmat.learn.scenes.visibility import visible_labels

_ATTEMPTS = 20


def draw_sample(
    rng: np.random.Generator | int,
    size: int | tuple[int, int] = 256,
    families: Iterable[str] | None = None,
) -> tuple[Floats, Ids]:
    """Draw one training sample.

    Parameters
    ----------
    rng
        Generator, which is advanced, or a seed. Equal seeds give equal arrays.
    size
        Side, or height and width, in pixels.
    families
        Names in `FAMILIES` to draw from, by their weights; all by default.

    Returns
    -------
    image
        Float32 (H, W) or (H, W, 3) in arbitrary units, as a raw file would hold them.
    labels
        Int32 (H, W), ids 1..N (N >= 1) of connected objects with a visible border.
    """
    rng = np.random.default_rng(rng)
    names = list(FAMILIES) if families is None else list(families)
    unknown = [name for name in names if name not in FAMILIES]
    if unknown or not names:
        raise ValueError(
            f"Families {unknown or 'none'} are unknown; use some of {', '.join(FAMILIES)}."
        )
    weights = np.array([FAMILIES[name].weight for name in names])
    family = names[rng.choice(len(names), p=weights / weights.sum())]
    layouts = FAMILIES[family].layouts
    shares = np.array(list(layouts.values()))
    for _ in range(_ATTEMPTS):
        layout = str(rng.choice(list(layouts), p=shares / shares.sum()))
        scene = draw_scene(rng, size, layout)
        if scene.labels.max() == 0:
            continue
        image = degrade(rng, render(scene, family, rng))
        labels = visible_labels(image, scene.labels)
        if labels.max() > 0:
            return image, labels
    raise RuntimeError(f"No {family} scene of {size} pixels shows an object; draw larger scenes.")
