"""The `SimMAT classes` layer: at each voxel the class of the object there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from napari import Viewer
from napari.layers import Labels

from napari_simmat.widgets.place import Place
from napari_simmat.widgets.segment.finished import Finished
from napari_simmat.widgets.segment.label_layers import CLASSES, add_below_prompts
from napari_simmat.widgets.segment.operations import Edit, Entry

_TABLE = 1 << 24
"""Numbers of objects below this are looked up in a table."""


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
        self.names = names_with(self.names, names)

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
            layer = self._new(place, finished)
            regions = [finished.register.census.box(label) for label in entries]
            boxes = [tuple(slice(*ends) for ends in zip(*box, strict=True)) for box in regions]
        else:
            boxes = [patch.footprint.region for patch in edit.patches]
            changed = [label for label in edit.entries if label in finished.register.census]
            for label in changed:
                low, high = finished.register.census.box(label)
                boxes.append(tuple(slice(*ends) for ends in zip(low, high, strict=True)))
        for box in boxes:
            values = np.asarray(finished.layer.data[box])
            layer.data[box] = numbering(values, entries, self.names)
        self._name(layer)

    def show(
        self, place: Place, finished: Finished, names: Sequence[str], numbers: np.ndarray
    ) -> None:
        """Show classes that were numbered beforehand.

        Parameters
        ----------
        place, finished
            Where, and of which objects.
        names
            The classes, those first that were known then.
        numbers
            (..., Y, X) uint8, by their place in `names`.
        """
        if list(names[: len(self.names)]) != self.names:  # others have come up meanwhile
            self.follow(place, finished, Edit(finished.key))
            return
        self.add(names)
        self._name(self._new(place, finished, numbers))

    def _name(self, layer: Labels) -> None:
        layer.features = {"index": range(1, len(self.names) + 1), "class": self.names}
        layer.refresh()

    def _new(self, place: Place, finished: Finished, numbers: np.ndarray | None = None) -> Labels:
        layer = Labels(
            np.zeros(place.usual.shape, dtype=np.uint8) if numbers is None else numbers,
            name=CLASSES,
            opacity=0.4,
            visible=False,
            **place.layer_options(),
        )
        self._layers[finished.key] = layer
        add_below_prompts(self._viewer, layer)
        return layer


def names_with(names: Sequence[str], more: Iterable[str]) -> list[str]:
    """Names of classes and those that are not among them yet, in their order."""
    return [name for name in dict.fromkeys((*names, *more)) if name]


def numbering(labels: np.ndarray, entries: Mapping[int, Entry], names: Sequence[str]) -> np.ndarray:
    """The class of each voxel of a block of objects: its place in `names` from 1, uint8."""
    numbers = {name: number for number, name in enumerate(names, start=1)}
    classes = {label: numbers.get(entry.category, 0) for label, entry in entries.items()}
    largest = max(classes, default=0)
    if largest < _TABLE:
        table = np.zeros(largest + 1, np.uint8)
        table[list(classes)] = list(classes.values())
        return table[np.where((labels >= 0) & (labels <= largest), labels, 0)]
    found, where = np.unique(labels, return_inverse=True)
    values = [classes.get(label, 0) for label in found.tolist()]
    return np.array(values, dtype=np.uint8)[where].reshape(labels.shape)
