"""What napari's *Save Selected Layers* writes: `napari.yaml` names these writers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels

from napari_simmat.io.files import atomic_write
from napari_simmat.io.tiff_writing import write_labels_tiff
from napari_simmat.widgets.placement import ImageGeometry


def write_labels(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Write a labels layer as OME-TIFF with its pixel size, units and axes.

    napari's own writer gives a file of that name neither. napari passes the data of a layer and the
    keywords that make it again.
    """
    layer = Labels(data, **options)
    geometry = ImageGeometry(layer)
    labels = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    if labels.size and labels.min() < 0:
        raise ValueError(
            f"Layer {layer.name!r} holds the label {labels.min()}; labels are whole "
            "numbers from 1, 0 is the background."
        )
    with atomic_write(Path(path)) as temporary:
        write_labels_tiff(
            temporary, labels, axes=geometry.axes, reference=geometry.kept_reference()
        )
    return [path]
