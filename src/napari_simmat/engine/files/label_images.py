"""Label images of all formats: an object is a value of pixels, and objects do not overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat._text import format_shape
from napari_simmat.engine.files.object_set import ObjectSet
from napari_simmat.engine.files.outline_reading import LARGEST_LIST, OTHER_SHAPE, usual_axes
from napari_simmat.io.axes import same_except_singletons
from napari_simmat.io.dicom_seg import write_seg
from napari_simmat.io.files import read_table
from napari_simmat.io.itk import write_labels_itk
from napari_simmat.io.nifti import write_labels_nifti
from napari_simmat.io.readers import read_labels
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.refusals import RefusedFileError
from napari_simmat.io.tiff_writing import write_labels_tiff
from napari_simmat.io.zarr import read_label_properties, write_labels_zarr

LABEL_WRITERS: dict[str, Callable[..., None]] = {
    ".tif": write_labels_tiff,
    ".nii.gz": write_labels_nifti,
    ".nrrd": partial(write_labels_itk, ending=".nrrd"),
    ".mha": partial(write_labels_itk, ending=".mha"),
}
"""Writers of label images by the ending of the file's name; each takes the path, the labels, and
as keywords ``axes`` and ``reference``."""


def label_writer(name: str) -> Callable[..., None]:
    """The writer of a label image by its file's name; OME-TIFF unless another ending is known."""
    known = (ending for ending in LABEL_WRITERS if name.lower().endswith(ending))
    return LABEL_WRITERS[next(known, ".tif")]


def label_image_problem(title: str, axes: str, reference: ImageReference | None) -> str:
    """Why labels cannot be written as NIfTI, NRRD or MetaImage; empty if they can."""
    problem = "" if reference is None else reference.one_step_problem(title)
    if not problem and title != "NIfTI" and len(axes) > 4:
        return f"NRRD and MHA are written with up to four axes, not {axes}; choose OME-TIFF."
    return problem


def write_label_image(path: Path, objects: ObjectSet, ending: str) -> None:
    """Write objects as a label image of an ending of `LABEL_WRITERS`."""
    LABEL_WRITERS[ending](path, objects.labels(), axes=objects.axes, reference=objects.reference)


def zarr_properties(objects: ObjectSet) -> dict[int, dict[str, Any]]:
    """Classes and scores of objects by label, where known, as OME-Zarr labels hold them."""
    properties: dict[int, dict[str, Any]] = {}
    for section in objects.merged():
        known: dict[str, Any] = {"class": section.category} if section.category else {}
        if not math.isnan(section.score):
            known["score"] = round(section.score, 6)
        if known:
            properties[section.label] = known
    return properties


def write_zarr_labels(path: Path, objects: ObjectSet) -> None:
    """Write objects as OME-Zarr labels, classes and scores among their properties."""
    name = Path(objects.image).stem or "labels"
    labels = objects.labels()
    properties = zarr_properties(objects)
    write_labels_zarr(path, labels, objects.axes, objects.reference, properties, name)


def write_dicom_seg(path: Path, objects: ObjectSet) -> None:
    """Write objects as DICOM SEG, a segment for each."""
    classes = {section.label: section.category for section in objects.sections}
    write_seg(path, objects.labels(), objects.reference, classes)


def read_label_image(path: Path, shape: tuple[int, ...] | None) -> ObjectSet:
    """The objects of a label image, with what is known about them.

    Raises RefusedFileError if it holds a negative label, or has another shape than `shape`, apart
    from axes of length 1.
    """
    file = read_labels(path)
    labels = np.asarray(file.data)
    axes = file.axes
    if shape is not None and labels.shape != shape:
        if not same_except_singletons(labels.shape, shape):
            raise RefusedFileError(
                OTHER_SHAPE.format(path.name, format_shape(labels.shape), format_shape(shape))
            )
        labels = labels.reshape(shape)
        axes = axes if len(axes) == len(shape) else usual_axes(len(shape))
    if labels.size and labels.min() < 0:
        raise RefusedFileError(
            f"{path.name} holds the label {labels.min()}; labels are whole numbers from 1, 0 is "
            "the background."
        )
    known = label_properties(path)
    scores = {label: float(row.get("score") or math.nan) for label, row in known.items()}
    categories = {label: class_of(row) for label, row in known.items()}
    return ObjectSet.of_labels(
        labels, axes, scores=scores, categories=categories, reference=file.reference
    )


def label_properties(path: Path) -> dict[int, Mapping[str, Any]]:
    """What is known about the objects of a label image, by label: in OME-Zarr, or beside it."""
    return read_label_properties(path) if path.is_dir() else table_beside(path)


def class_of(row: Mapping[str, Any]) -> str:
    """The class in a row of `label_properties`; empty for none."""
    return str(row.get("class") or "")


def table_beside(path: Path) -> dict[int, Mapping[str, Any]]:
    """The rows of ``STEM_objects.csv`` beside ``STEM_labels.tif`` by label, if there are any."""
    stem, is_named_so, _ = path.name.rpartition("_labels.")
    table = path.with_name(f"{stem}_objects.csv")
    if not is_named_so or not table.is_file() or table.stat().st_size > LARGEST_LIST:
        return {}
    with table.open(newline="", encoding="utf-8", errors="replace") as stream:
        _, rows = read_table(stream)
        return {int(row["label"]): row for row in rows if (row.get("label") or "").isdecimal()}
