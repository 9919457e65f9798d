"""Prompts from files: napari's CSV, label images, and the outlines of other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat._text import format_shape
from napari_simmat.engine.files.label_images import class_of, label_properties
from napari_simmat.engine.files.object_set import ObjectSet
from napari_simmat.engine.files.objects import OUTLINE_ENDINGS, read_objects
from napari_simmat.engine.files.prompt_csv import read_prompts_csv
from napari_simmat.engine.prompts import LazyPrompts, Prompt
from napari_simmat.io.axes import same_except_singletons
from napari_simmat.io.readers import read_labels
from napari_simmat.io.reference import ImageReference


def read_prompts(
    path: Path | str, shape: tuple[int, ...], reference: ImageReference | None = None
) -> Sequence[Prompt]:
    """Read the prompts for an image: one `Prompt` for each object and plane.

    ==================  =======================================================================
    file                meaning
    ==================  =======================================================================
    CSV of points       ``axis-0, axis-1, ...``; optional ``label`` (1 or 0; 1 if absent) and
                        ``object`` (an id; without the column all points are of one object).
    CSV of shapes       ``index, shape-type, vertex-index, axis-0, ...``; each shape is an object
                        with its index as id, or that of a column ``object``. A rectangle becomes
                        a box, a turned one, an ellipse or a polygon a box and a mask.
    label image         each label of each plane becomes a mask; its value is the id. Classes
                        are those of OME-Zarr, or of the table beside it.
    COCO, ImageJ ROIs,  each outline becomes a mask; see `read_objects`. An upright rectangle of
    GeoJSON             ImageJ or QuPath becomes a box, unless it is a detection.
    ==================  =======================================================================

    Coordinates are data coordinates over the image's axes without channels; the plane of a stack
    is the one nearest to the leading ones. Of a part of a slide, those of CSV and GeoJSON are
    pixels of the slide's level 0, and a label image has the pixels of the part.

    Parameters
    ----------
    path
        A file ending in ``.csv``, an image, or a file of objects.
    shape
        The image's, without channels: (..., Y, X).
    reference
        Where the image is, for outlines in the coordinates of a map, and for a part of a slide.

    Returns
    -------
    sequence of Prompt
        In the order of the file; for a label image they are made as they are asked for. Those of
        outlines and label images know the classes of their objects.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no list of prompts or does not fit the image; one sentence says why, with
        the line's number in a CSV.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending == ".csv":
        return read_prompts_csv(path, shape, None if reference is None else reference.within)
    if ending in OUTLINE_ENDINGS:
        return _outline_prompts(read_objects(path, shape, reference=reference))
    known = label_properties(path)
    categories = {label: class_of(row) for label, row in known.items() if class_of(row)}
    labels = read_labels(path).data
    if tuple(labels.shape) != tuple(shape) and same_except_singletons(labels.shape, shape):
        labels = np.asarray(labels).reshape(shape)
    return label_prompts(labels, shape, path.name, categories)


def _outline_prompts(objects: ObjectSet) -> LazyPrompts:
    """A prompt for each section: a box for one that was drawn as such, else a mask."""
    sections = objects.sections
    height, width = objects.shape[-2:]

    def make(number: int) -> Prompt:
        section = sections[number]
        plane = section.mask.corner[:-2]
        if section.is_box:
            (y0, x0), (y1, x1) = (side[-2:] for side in section.mask.box)
            return Prompt(box=(y0, x0, y1, x1), object=section.label, plane=plane)
        mask = section.mask.on_plane(plane, (height, width))
        return Prompt(mask=mask, object=section.label, plane=plane)

    categories = {section.label: section.category for section in sections if section.category}
    has_masks = not all(section.is_box for section in sections)
    return LazyPrompts(len(sections), make, categories, has_masks=has_masks)


def label_prompts(
    labels: Any,
    shape: tuple[int, ...],
    name: str = "The label image",
    categories: Mapping[int, str] | None = None,
) -> LazyPrompts:
    """A prompt with a mask for each label of each plane of an image of `shape`.

    `labels` (..., Y, X) are whole numbers, 0 for the background; `name` is for messages, which a
    ValueError has unless they fit the image and one is above 0; `categories` are classes by label.
    """
    if tuple(labels.shape) != tuple(shape):
        raise ValueError(
            f"{name} has shape {format_shape(labels.shape)}, but the image has "
            f"{format_shape(shape)}; labels need the image's shape without channels."
        )
    sections: list[tuple[tuple[int, ...], int]] = []
    for index in np.ndindex(*shape[:-2]):
        values = [int(value) for value in np.unique(np.asarray(labels[index])) if value != 0]
        if values and values[0] < 0:
            raise ValueError(
                f"{name} holds the label {values[0]}; labels are whole numbers from 1, 0 is the "
                "background."
            )
        sections += [(index, value) for value in values]
    if not sections:
        raise ValueError(f"{name} holds no label, only background; paint at least one object.")

    def make(number: int) -> Prompt:
        plane, label = sections[number]
        return Prompt(mask=np.asarray(labels[plane]) == label, object=label, plane=plane)

    return LazyPrompts(len(sections), make, categories)
