"""What readers of outlines share: ids and planes as files give them, objects without a pixel."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from napari_simmat._text import pluralize
from napari_simmat.engine.files.object_set import ObjectSection, ObjectSet
from napari_simmat.engine.masks import ObjectMask

OTHER_SHAPE = (
    "{} has objects of an image of {}, but this one has {}; choose the file that belongs to it."
)
LEFT_OUT = "{} without an area on the image left out."
LARGEST_LIST = 1 << 28
"""Bytes of a list of objects; one that is larger is none: 256 MB of COCO are a million cells."""


class ReadObject(NamedTuple):
    """An object as a file gives it."""

    label: int | None = None
    """Its id, if the file gives one."""
    mask: ObjectMask | None = None
    """Its pixels; None where it has none on the image."""
    category: str = ""
    score: float = float("nan")
    is_box: bool = False
    """Whether it was drawn as an upright rectangle."""


def object_set_of(
    read: Sequence[ReadObject], shape: tuple[int, ...], axes: str, **more: Any
) -> ObjectSet:
    """The objects that have a pixel; those without an id get the next free one.

    `shape`, `axes` and `more` are as of `ObjectSet`; a note says how many objects are left out.
    """
    free = 1 + max((one.label for one in read if one.label is not None), default=0)
    sections = []
    for label, mask, category, score, is_box in read:
        if mask is None:
            continue
        if label is None:
            label = free
            free += 1
        sections.append(ObjectSection(label, mask, category, score, is_box))
    skipped = len(read) - len(sections)
    notes = (LEFT_OUT.format(pluralize(skipped, "outline")),) if skipped else ()
    return ObjectSet(sections=sections, shape=shape, axes=axes, notes=notes, **more)


def as_label(value: Any) -> int | None:
    """An id as files give it; None if it is none."""
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    return int(text) if re.fullmatch(r"[1-9]\d{0,9}", text) and int(text) < 2**32 else None


def plane_at(at: Mapping[str, int], shape: tuple[int, ...], axes: str) -> tuple[int, ...] | None:
    """The index of a plane from numbers by the letters before Y and X; None outside the image."""
    plane = tuple(int(at.get(letter, 0)) for letter in axes)
    inside = all(0 <= index < size for index, size in zip(plane, shape[:-2], strict=True))
    return plane if inside else None


def usual_axes(count: int) -> str:
    """Letters for the axes of an image whose file does not name them."""
    return "QRSUVWTZYX"[-count:]
