"""The image of the recorded session file, and what a person sees of the work in it.

The file and what the layers held at its end were recorded once, by the version whose files every
later one has to read; a test restores it. It is never recorded anew: where reading it fails, a
user's own file could not be restored either.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.golden.commands import discs
from tests.golden.compare import digest

CENTERS = ((40, 44), (44, 120), (110, 50), (112, 130))
RADII = (20, 24, 22, 17)
SHAPE = (150, 180)


def stack() -> np.ndarray:
    """Three planes (Z, Y, X) of discs as uint8, from whole numbers: equal on every machine."""
    radii = [[radius - 3 * abs(z - 1) for radius in RADII] for z in range(3)]
    places = [[(*at, r) for at, r in zip(CENTERS, each, strict=True)] for each in radii]
    return np.stack([discs(SHAPE, each, z)[0] for z, each in enumerate(places)])


def open_stack(window: Any) -> None:
    """Show the stack and its middle plane, and open the widget."""
    window.viewer.add_image(stack(), name="stack")
    window.open_widget()
    window.viewer.dims.set_current_step(0, 1)
    window.viewer.reset_view()
    window.idle()


def seen(window: Any) -> dict[str, Any]:
    """What a person sees of it: labels, classes and prompts, and how far it can be undone."""
    layers, session = window.viewer.layers, window.workspace.session
    objects, classes = layers["SimMAT objects"].data, layers["SimMAT classes"].data
    points, boxes = layers["SimMAT points"], layers["SimMAT boxes"]
    return {
        "objects": digest(np.asarray(objects).astype(np.int64)),
        "labels": {str(n): int((objects == n).sum()) for n in np.unique(objects)},
        "classes": digest(np.asarray(classes).astype(np.int64)),
        "points": np.round(points.data, 3).tolist(),
        "point_features": json.loads(points.features.to_json(orient="records")),
        "boxes": [np.round(each, 3).tolist() for each in boxes.data],
        "box_kinds": list(boxes.shape_type),
        "box_labels": boxes.features["label"].tolist(),
        "operations": len(session.history),
    }
