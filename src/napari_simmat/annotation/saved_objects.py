"""The committed objects as they are saved: a copy with their scores, classes and divisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from napari_simmat.annotation.image_value import ImageValue
from napari_simmat.annotation.label_editor import LabelEditor
from napari_simmat.batch.outputs import LabeledObjects
from napari_simmat.engine.image_stack import ArraySource
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.io.reference import ImageReference


def labeled_objects(
    editor: LabelEditor,
    *,
    axes: str,
    reference: ImageReference,
    name: str,
    classes: Sequence[str] = (),
    time_axis: int | None = None,
    image: ImageValue | None = None,
    table: TableSettings | None = None,
    channels: Mapping[str, Any] | None = None,
) -> LabeledObjects:
    """A copy of the objects, independent of their layer.

    Parameters
    ----------
    editor
        Of the objects.
    axes, reference, name
        Of the image: one letter for each axis, ending in YX; what labels keep of it; its name.
    classes
        Names of all classes, in the order of their numbers.
    time_axis
        Along which the objects have one id over time; None for none.
    image
        Whose channels are measured; None for none.
    table
        Which statistics and indices of these; the usual ones by default.
    channels
        All channels of the image by their names, also those that the model does not read: for
        indices, and for a table of all.
    """
    table = table or TableSettings()
    measured = _measured(image, table, channels or {})
    others = {name: each for name, each in (channels or {}).items() if name not in measured}
    arrays = {**measured, **others} if measured else {}
    entries = {label: editor.register.entry(label) for label in editor.labels}
    return LabeledObjects(
        labels=np.array(editor.layer.data),
        axes=axes,
        reference=reference,
        scores={label: entry.score for label, entry in entries.items()},
        categories={label: entry.category for label, entry in entries.items() if entry.category},
        certainties={
            label: entry.certainty
            for label, entry in entries.items()
            if entry.certainty is not None
        },
        classes=tuple(classes),
        time_axis=time_axis,
        parents=editor.parents,
        image=name,
        channels=tuple(arrays),
        sources=[ArraySource(array, None) for array in arrays.values()],
        measured=len(measured),
        table=table,
    )


def _measured(
    image: ImageValue | None, table: TableSettings, channels: Mapping[str, Any]
) -> dict[str, Any]:
    """The arrays (..., Y, X) that are measured themselves, by name."""
    if image is None:
        return {}
    if table.all_channels and channels:
        return dict(channels)
    # A channel that the model reads several times is measured once.
    return dict(zip(image.usual.measured, image.usual.all_arrays, strict=True))
