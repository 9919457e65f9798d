"""Objects made by hand as files: label image, table, and an image of their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.files import atomic_outputs, write_table
from napari_simmat.engine.formats.labelfiles import write_labels_tiff
from napari_simmat.engine.objects import PixelSize, columns_of, measure
from napari_simmat.progress import Job, Progress


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledObjects:
    """Objects and what is known of them.

    Parameters
    ----------
    labels
        (..., Y, X) whole numbers, 0 is background.
    axes
        One letter for each axis of `labels`, ending in YX.
    size
        The pixel size.
    scores
        The model's own estimate of an object's IoU, where there is one.
    categories
        The class of an object, where it has one.
    classes
        Names of all classes; a class's number in the image of classes is its place here, from 1.
    """

    labels: NDArray[np.integer[Any]]
    axes: str
    size: PixelSize = field(default_factory=PixelSize)
    scores: Mapping[int, float] = field(default_factory=dict)
    categories: Mapping[int, str] = field(default_factory=dict)
    classes: Sequence[str] = ()


def saving(folder: Path, stem: str, objects: LabelledObjects) -> Job[list[Path]]:
    """Write ``STEM_labels.tif``, ``STEM_objects.csv`` and, with classes, ``STEM_classes.tif``.

    All appear together or not at all; files of these names are replaced.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    OutputError
        If a file cannot be written; one sentence says why.
    """
    steps = 3 if objects.categories else 2
    targets = [folder / f"{stem}_labels.tif", folder / f"{stem}_objects.csv"]
    if objects.categories:
        targets.append(folder / f"{stem}_classes.tif")
    yield Progress(0, steps, "measuring the objects")
    rows = measure(objects.labels, axes=objects.axes, size=objects.size)
    for row in rows:
        label = int(str(row["label"]))
        row["class"] = objects.categories.get(label, "")
        row["score"] = objects.scores.get(label, float("nan"))
    axes, scale, units = objects.axes, objects.size.scale, objects.size.units
    with atomic_outputs(*targets) as (labels, table, *classes):
        yield Progress(1, steps, "writing the labels")
        write_labels_tiff(labels, objects.labels, axes=axes, scale=scale, units=units)
        write_table(table, columns_of(axes, (), objects.size), rows)
        for path in classes:
            yield Progress(2, steps, "writing the classes")
            write_labels_tiff(path, classes_of(objects), axes=axes, scale=scale, units=units)
    return targets


def classes_of(objects: LabelledObjects) -> NDArray[np.uint16]:
    """At each voxel the number of its object's class; 0 where there is none."""
    found, where = np.unique(objects.labels, return_inverse=True)
    names = list(objects.classes)
    numbers = [
        names.index(objects.categories[label]) + 1 if objects.categories.get(label) else 0
        for label in found.tolist()
    ]
    return np.array(numbers, dtype=np.uint16)[where].reshape(objects.labels.shape)
