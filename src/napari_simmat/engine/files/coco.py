"""COCO JSON: objects as run lengths; polygons are read as well."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat._text import format_shape, pluralize
from napari_simmat.engine.files.object_set import ObjectSet
from napari_simmat.engine.files.outline_reading import (
    OTHER_SHAPE,
    ReadObject,
    as_label,
    object_set_of,
    usual_axes,
)
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.outlines import OutlineBudget, Ring, section_of
from napari_simmat.io.axes import same_except_singletons
from napari_simmat.io.files import write_text
from napari_simmat.io.limits import Limits
from napari_simmat.io.refusals import RefusedFileError, check_memory

NO_CLASS = "object"
"""Category of COCO objects without a class."""


def write_coco(path: Path, objects: ObjectSet) -> None:
    """Write objects as COCO JSON: one image per plane, run lengths that keep every pixel.

    Segmentations are uncompressed run lengths, which ``pycocotools`` reads, with ``iscrowd`` 0.
    Objects without a class are of the category `NO_CLASS`.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names = objects.class_names
    if not names or any(not section.category for section in objects.sections):
        names = [NO_CLASS, *(name for name in names if name != NO_CLASS)]
    height, width = objects.shape[-2:]
    for plane, sections in objects.by_plane():
        image: dict[str, Any] = {"id": len(images) + 1, "file_name": objects.image}
        image |= {"width": width, "height": height}
        if plane:
            image["plane"] = list(plane)
        images.append(image)
        for section, mask in sections:
            top, left = mask.corner[-2:]
            rows, columns = mask.shape[-2:]
            runs = _run_lengths(mask, height, width)
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image["id"],
                "category_id": 1 + names.index(section.category or NO_CLASS),
                "label": section.label,
                "segmentation": {"size": [height, width], "counts": runs},
                "area": mask.size,
                "bbox": [left, top, columns, rows],
                "iscrowd": 0,
            }
            if not math.isnan(section.score):
                annotation["score"] = round(section.score, 6)
            annotations.append(annotation)
    values = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }
    write_text(path, json.dumps(values, allow_nan=False) + "\n")


def read_coco(
    name: str, values: Mapping[str, Any], shape: tuple[int, ...] | None, axes: str, image: str
) -> ObjectSet:
    """The objects of one image of a COCO file.

    Parameters
    ----------
    name, values
        The file's name, and what its JSON holds.
    shape, axes
        (..., Y, X) of the image, and a letter for each axis; None as the file claims it.
    image
        Name of the image, where the file has several.

    Raises
    ------
    RefusedFileError
        If the file is of another image, or claims too much.
    """
    images = list(values["images"])
    if len(images) > 1 and not all("plane" in one for one in images):
        images = [one for one in images if _stem(one.get("file_name")) == _stem(image)]
        if len(images) != 1:
            raise RefusedFileError(
                f"{name} has objects of {pluralize(len(values['images']), 'image')}, not exactly "
                f"one of which is called {image or 'as the image'}; keep those of one image."
            )
    if not images:
        raise RefusedFileError(f"{name} lists no image; save it again with its images.")
    planes = {one["id"]: tuple(map(int, one.get("plane", ()))) for one in images}
    leading = tuple(1 + max(numbers) for numbers in zip(*planes.values(), strict=True))
    claimed = (*leading, int(images[0]["height"]), int(images[0]["width"]))
    limits = Limits.from_environment()
    limits.check_array(name, claimed, np.uint32)
    budget = OutlineBudget(shape or (), name)
    if shape is None:
        shape = claimed
        axes = usual_axes(len(claimed))
        limits.check(name, "picture_pixels", math.prod(shape), "pixels (open its image first)")
        check_memory(4 * math.prod(shape), name)
    elif claimed != shape:
        if not same_except_singletons(claimed, shape):
            raise RefusedFileError(
                OTHER_SHAPE.format(name, format_shape(claimed), format_shape(shape))
            )
        for key, plane in planes.items():  # axes of length 1 were added or left out
            number = np.ravel_multi_index(plane, leading) if leading else 0
            index = np.unravel_index(number, shape[:-2]) if shape[:-2] else ()
            planes[key] = tuple(map(int, index))
    # The boxes of all outlines are refused at once where their pixels would be after a while.
    drawn = (one.get("segmentation") for one in values["annotations"])
    budget.check((_rings(one) for one in drawn if isinstance(one, list)), shape[-2:])
    categories = {one["id"]: str(one["name"]) for one in values.get("categories", ())}
    read = []
    for one in values["annotations"]:
        if one["image_id"] in planes:
            mask = _mask(one.get("segmentation"), planes[one["image_id"]], shape, budget)
            category = categories.get(one.get("category_id"), "")
            category = "" if category == NO_CLASS else category
            score = float(one.get("score", math.nan))
            read.append(ReadObject(as_label(one.get("label")), mask, category, score))
    classes = [category for category in categories.values() if category != NO_CLASS]
    file = str(images[0].get("file_name", ""))
    return object_set_of(read, shape, axes, classes=classes, image=file)


def _stem(name: Any) -> str:
    return Path(str(name)).name.split(".")[0].casefold()


def _rings(polygons: Sequence[Any]) -> list[Ring]:
    return [np.reshape(polygon, (-1, 2)) for polygon in polygons if len(polygon) >= 6]


def _mask(
    segmentation: Any, plane: tuple[int, ...], shape: tuple[int, ...], budget: OutlineBudget
) -> ObjectMask | None:
    if isinstance(segmentation, list):
        return section_of(_rings(segmentation), plane, shape[-2:], budget)
    if isinstance(segmentation, Mapping):
        return _mask_of_runs(segmentation, plane, shape[-2:], budget)
    return None


# Run lengths are computed here, not by pycocotools: it packs and unpacks the whole image for each
# object, which takes 40 to 160 times as long for the cells of 4,096 x 4,096 pixels.


def _run_lengths(mask: ObjectMask, height: int, width: int) -> list[int]:
    """Run lengths down the columns of the image, background and object in turn."""
    top, left = mask.corner[-2:]
    columns, rows = np.nonzero(mask.mask.reshape(mask.shape[-2:]).T)
    positions = (left + columns) * height + top + rows
    breaks = np.flatnonzero(np.diff(positions) > 1)
    first = positions[np.concatenate(([0], breaks + 1))]
    last = positions[np.concatenate((breaks, [len(positions) - 1]))] + 1
    edges = np.stack([first, last], axis=1).ravel()
    runs = np.diff(np.concatenate(([0], edges, [height * width])))
    return (runs[:-1] if runs[-1] == 0 else runs).tolist()  # type: ignore[no-any-return]


def _mask_of_runs(
    segmentation: Mapping[str, Any],
    plane: tuple[int, ...],
    shape_yx: tuple[int, ...],
    budget: OutlineBudget,
) -> ObjectMask | None:
    """The pixels of run lengths, within the columns that they reach; None without a pixel."""
    height, width = shape_yx
    if list(segmentation["size"]) != [height, width]:
        raise RefusedFileError("A run length is of another size than its image; save it again.")
    counts = segmentation["counts"]
    runs = np.array(_decompressed(counts) if isinstance(counts, str) else counts, np.int64)
    ends = np.cumsum(runs)
    if (runs < 0).any() or (len(ends) and ends[-1] > height * width):
        raise RefusedFileError("A run length leads outside its image; save it again.")
    starts, ends = ends[:-1:2], ends[1::2]
    filled = ends > starts
    if not filled.any():
        return None
    starts, ends = starts[filled], ends[filled]
    left = int(starts[0]) // height
    right = (int(ends[-1]) - 1) // height + 1
    budget.spend((right - left) * height)
    flips = np.zeros((right - left) * height + 1, np.int8)
    flips[starts - left * height] += 1
    flips[ends - left * height] -= 1
    mask = np.cumsum(flips[:-1], dtype=np.int8).astype(bool).reshape(right - left, height).T
    return ObjectMask.of(mask, (*plane, 0, left))


def _decompressed(text: str) -> list[int]:
    """COCO's compressed run lengths: 5 bits to a character, as differences from the third on."""
    runs: list[int] = []
    value = shift = 0
    for byte in text.encode("ascii"):
        bits = byte - 48
        value |= (bits & 31) << shift
        shift += 5
        if shift > 60:
            raise RefusedFileError("A run length is too long; save it again.")
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs
