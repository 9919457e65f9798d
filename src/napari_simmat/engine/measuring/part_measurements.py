"""Measure the objects of a plane that does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.label_volume import MaskScore
from napari_simmat.engine.masks import label_windows
from napari_simmat.engine.measuring.measurements import (
    ObjectRegion,
    TableRows,
    ValueColumns,
    mean_scores,
    parent_columns,
    widened,
    with_all_shares,
)
from napari_simmat.engine.measuring.object_statistics import ring
from napari_simmat.io.reference import ImageReference

PART_SIDE = 1024
"""Side in pixels of the parts that are read at once."""


def measure_in_parts(
    labels: Any,
    *,
    channels: ValueColumns | Sequence[str],
    part: Callable[[slice, slice], NDArray[Any]],
    size: ImageReference,
    masks: Sequence[MaskScore] = (),
    parents: Any = None,
) -> list[dict[str, object]]:
    """The rows of `measure_objects` for a plane that does not fit into memory.

    The boxes of all objects are found first. Then the objects that begin in a part are measured
    together, and those that are large one by one, from strips of rows. What is in memory at once is
    a few parts, and the pixels of one object.

    Parameters
    ----------
    labels
        (Y, X), zarr or anything that takes slices; 0 is background.
    channels, size, masks
        As of `measure_objects`.
    parents
        As of `measure_objects`, or as `labels`.
    part
        Gives the raw values (R, h, w) of rows and columns.
    """
    known = TableRows.of("YX", channels, size)
    boxes = _boxes_in_parts(labels)
    scores = mean_scores(masks, "YX", {})
    needs_values = bool(known.values.names)
    needs_ring = needs_values and known.values.needs_ring
    rows: dict[int, dict[str, object]] = {}
    for window, found in _grouped(boxes):
        if needs_ring:
            window = _with_ring(window, labels)
        block = np.asarray(labels[window])
        values = np.asarray(part(*window)) if needs_values else None
        for label in found:
            box = _within(boxes[label], window)
            mask = block[box] == label
            region = ObjectRegion.of(label, mask, boxes[label])
            pixels = None
            if values is not None:
                pixels = known.pixels(region, values[:, *box][:, mask])
                if needs_ring:
                    wide = widened(box, block.shape)
                    around = values[:, *wide][:, ring(block[wide], label)]
                    pixels = pixels._replace(around=around)
            rows[label] = known.row(region, {}, pixels, scores)
    for label, box in boxes.items():
        if label not in rows:
            mask, inside = _in_strips(labels, label, box, part if needs_values else None)
            region = ObjectRegion.of(label, mask, box)
            pixels = None if inside is None else known.pixels(region, inside)
            if pixels is not None and needs_ring:
                pixels = pixels._replace(around=_ring_in_strips(labels, label, box, part))
            rows[label] = known.row(region, {}, pixels, scores)
        if parents is not None:
            rows[label] |= _parent_in_parts(labels, parents, label, box)
    return with_all_shares([rows[label] for label in sorted(rows)])


Box = tuple[slice, slice]


def _parts(height: int, width: int) -> Iterator[Box]:
    for y, x in product(range(0, height, PART_SIDE), range(0, width, PART_SIDE)):
        yield slice(y, min(y + PART_SIDE, height)), slice(x, min(x + PART_SIDE, width))


def _boxes_in_parts(labels: Any) -> dict[int, Box]:
    """The box of each object of a plane that is read part by part."""
    boxes: dict[int, Box] = {}
    for part in _parts(*labels.shape):
        for label, window in label_windows(np.asarray(labels[part])):
            rows, columns = (
                slice(side.start + whole.start, side.stop + whole.start)
                for side, whole in zip(window, part, strict=True)
            )
            known = boxes.get(label)
            if known is not None:
                rows, columns = _both(known[0], rows), _both(known[1], columns)
            boxes[label] = (rows, columns)
    return boxes


def _both(one: slice, other: slice) -> slice:
    return slice(min(one.start, other.start), max(one.stop, other.stop))


def _grouped(boxes: Mapping[int, Box]) -> Iterator[tuple[Box, list[int]]]:
    """The small objects that begin in one part, with a window around them, part by part."""
    groups: dict[tuple[int, int], list[int]] = {}
    for label, (rows, columns) in boxes.items():
        if max(rows.stop - rows.start, columns.stop - columns.start) <= PART_SIDE // 2:
            at = (rows.start // PART_SIDE, columns.start // PART_SIDE)
            groups.setdefault(at, []).append(label)
    for found in groups.values():
        rows, columns = boxes[found[0]]
        for label in found:
            rows, columns = _both(rows, boxes[label][0]), _both(columns, boxes[label][1])
        yield (rows, columns), found


def _within(box: Box, window: Box) -> Box:
    rows, columns = (
        slice(side.start - whole.start, side.stop - whole.start)
        for side, whole in zip(box, window, strict=True)
    )
    return rows, columns


def _parent_in_parts(labels: Any, parents: Any, label: int, box: Box) -> dict[str, object]:
    """`parent_columns` of an object, from strips of its box."""
    found = [
        np.asarray(parents[strip])[np.asarray(labels[strip]) == label] for strip in _strips(box)
    ]
    return parent_columns(np.concatenate(found))


def _strips(box: Box) -> Iterator[Box]:
    """A box in strips of rows, each with the pixels of a part at most."""
    rows, columns = box
    step = max(1, PART_SIDE**2 // (columns.stop - columns.start))
    for top in range(rows.start, rows.stop, step):
        yield slice(top, min(top + step, rows.stop)), columns


def _in_strips(
    labels: Any, label: int, box: Box, part: Callable[[slice, slice], NDArray[Any]] | None
) -> tuple[NDArray[np.bool_], NDArray[Any] | None]:
    """The mask of a large object in its box, and its values (R, N) in the order of its pixels."""
    masks, values = [], []
    for strip in _strips(box):
        masks.append(np.asarray(labels[strip]) == label)
        if part is not None and masks[-1].any():
            values.append(np.asarray(part(*strip))[:, masks[-1]])
    mask = np.concatenate(masks)
    return mask, np.concatenate(values, axis=1) if values else None


def _with_ring(box: Box, labels: Any) -> Box:
    """A box with what the rings around its objects need."""
    rows, columns = widened(box, labels.shape)
    return rows, columns


def _ring_in_strips(
    labels: Any, label: int, box: Box, part: Callable[[slice, slice], NDArray[Any]]
) -> NDArray[Any]:
    """The values (R, M) in the ring around a large object.

    A pixel belongs to a ring by what lies within its outer distance, so strips are read with that
    much more, and count without it.
    """
    rows, columns = _with_ring(box, labels)
    found = []
    for strip, _ in _strips((rows, columns)):
        wide, across = _with_ring((strip, columns), labels)
        near = ring(np.asarray(labels[wide, across]), label)
        own = slice(strip.start - wide.start, strip.stop - wide.start)
        side = slice(columns.start - across.start, columns.stop - across.start)
        near = near[own, side]
        if near.any():
            found.append(np.asarray(part(strip, columns))[:, near])
    if found:
        return np.concatenate(found, axis=1)
    return np.asarray(part(slice(rows.start, rows.start + 1), columns))[:, 0, :0]
