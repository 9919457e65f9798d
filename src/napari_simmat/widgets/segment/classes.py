"""The `SimMAT classes` layer: at each voxel the class of the object there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from napari import Viewer
from napari.layers import Labels

from napari_simmat.widgets.place import Place
from napari_simmat.widgets.segment.finished import Finished
from napari_simmat.widgets.segment.label_layers import CLASSES, add_below_prompts
from napari_simmat.widgets.segment.operations import Edit


class Classes:
    """Names of classes, and a layer for the classes of each labels layer that has some.

    A class's number in the layer is its place in `names`, from 1; 0 is no class.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._layers: dict[str, Labels] = {}
        self.names: list[str] = []

    def add(self, names: Sequence[str]) -> None:
        """Take up names that are not known yet, in their order."""
        self.names += [name for name in dict.fromkeys(names) if name and name not in self.names]

    def layer(self, finished: Finished) -> Labels | None:
        """The classes of these objects; None where no object has one."""
        layer = self._layers.get(finished.key)
        return layer if layer is not None and layer in self._viewer.layers else None

    def follow(self, place: Place, finished: Finished, edit: Edit) -> None:
        """Show what an edit of the objects means for their classes."""
        entries = finished.register.entries
        self.add([entry.category for entry in entries.values()])
        layer = self.layer(finished)
        if layer is None:
            if not any(entry.category for entry in entries.values()):
                return
            layer = self._layers[finished.key] = self._new(place)
            regions = [finished.register.census.box(label) for label in entries]
            boxes = [tuple(slice(*ends) for ends in zip(*box, strict=True)) for box in regions]
        else:
            boxes = [patch.footprint.region for patch in edit.patches]
            changed = [label for label in edit.entries if label in finished.register.census]
            for label in changed:
                low, high = finished.register.census.box(label)
                boxes.append(tuple(slice(*ends) for ends in zip(low, high, strict=True)))
        for box in boxes:
            layer.data[box] = self._numbers(finished, np.asarray(finished.layer.data[box]))
        layer.features = {"index": range(1, len(self.names) + 1), "class": self.names}
        layer.refresh()

    def _numbers(self, finished: Finished, labels: np.ndarray) -> np.ndarray:
        """The class of each voxel of a block of objects."""
        found, where = np.unique(labels, return_inverse=True)
        known = finished.register.entries
        numbers = [
            self.names.index(known[label].category) + 1
            if label in known and known[label].category
            else 0
            for label in found.tolist()
        ]
        return np.array(numbers, dtype=np.uint8)[where].reshape(labels.shape)

    def _new(self, place: Place) -> Labels:
        layer = Labels(
            np.zeros(place.shape, dtype=np.uint8),
            name=CLASSES,
            opacity=0.4,
            visible=False,
            **place.layer_options(),
        )
        add_below_prompts(self._viewer, layer)
        return layer
