"""ImageJ ROIs: objects as outlines between the centers of pixels, which ImageJ fills exactly."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat._text import format_shape
from napari_simmat.engine.files.object_set import ObjectSet
from napari_simmat.engine.files.outline_reading import (
    LARGEST_LIST,
    ReadObject,
    as_label,
    object_set_of,
    plane_at,
)
from napari_simmat.engine.files.polygons import contours
from napari_simmat.engine.outlines import OutlineBudget, Ring, section_of
from napari_simmat.io.files import format_size
from napari_simmat.io.limits import Limits
from napari_simmat.io.refusals import RefusedFileError

_ROI_END = 60_536
"""ImageJ ROIs hold no coordinate above this."""
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold."""


def rois_problem(shape: Sequence[int]) -> str:
    """Why objects of an image cannot be written as ROIs, in one sentence; empty if they can."""
    if max(shape[-2:]) <= _ROI_END:
        return ""
    return (
        f"ImageJ ROIs hold no coordinate above {_ROI_END:,}, but the image has "
        f"{format_shape(shape)} pixels; choose another format."
    )


def write_rois(path: Path, objects: ObjectSet) -> None:
    """Write objects as ImageJ ROIs, one for each plane of an object.

    Outlines run between the centers of inner and outer pixels, so that ImageJ fills exactly the
    object's pixels. The class is ImageJ's group, and the property ``class``.
    """
    names = objects.class_names
    with zipfile.ZipFile(path, "w") as archive:
        for plane, sections in objects.by_plane():
            where = "".join(
                f"-{letter.lower()}{i + 1:04d}"
                for letter, i in zip(objects.axes, plane, strict=False)
            )
            for section, mask in sections:
                outlines = contours(mask.mask.reshape(mask.shape[-2:]), mask.corner[-2:])
                roi = _roi(outlines, f"{section.label}{where}")
                if len(plane) == 1 and not objects.has_channels:
                    roi.position = plane[0] + 1
                else:  # a hyperstack, whose C, Z and T of 0 mean all
                    at = dict(zip(objects.axes, plane, strict=False))
                    frame = plane[0] if len(plane) == 1 and "Z" not in at else -1
                    roi.z_position = at.get("Z", -1) + 1
                    roi.t_position = at.get("T", frame) + 1
                if section.category:
                    roi.group = min(1 + names.index(section.category), 255)
                    roi.props = f"class: {' '.join(section.category.split())}\n"
                entry = zipfile.ZipInfo(f"{roi.name}.roi", _ZIP_TIME)
                archive.writestr(entry, roi.tobytes(), zipfile.ZIP_DEFLATED)


def _roi(outlines: list[Ring], name: str) -> Any:
    """A polygon (N, 2) as x, y; several polygons, as with holes, become one path."""
    import roifile

    if len(outlines) == 1:
        return roifile.ImagejRoi.frompoints(outlines[0].astype(np.float32), name=name)
    roi = roifile.ImagejRoi(name=name, roitype=roifile.ROI_TYPE.RECT)
    points = np.concatenate(outlines)
    roi.left, roi.top = (int(value) for value in np.floor(points.min(axis=0)))
    roi.right, roi.bottom = (int(value) for value in np.ceil(points.max(axis=0)))
    move, line, close = 0.0, 1.0, 4.0
    path: list[float] = []
    for outline in outlines:
        for number, (x, y) in enumerate(outline.tolist()):
            path += [line if number else move, x, y]
        path.append(close)
    roi.multi_coordinates = np.array(path, np.float32)
    roi.shape_roi_size = len(path)
    return roi


def read_rois(path: Path, shape: tuple[int, ...], axes: str) -> ObjectSet:
    """The areas among the ROIs of a ``.roi`` or ``.zip`` file, on an image of `shape` and `axes`.

    A number at the start of a name is the object's id.
    """
    import roifile

    areas = (
        roifile.ROI_TYPE.POLYGON,
        roifile.ROI_TYPE.RECT,
        roifile.ROI_TYPE.OVAL,
        roifile.ROI_TYPE.FREEHAND,
        roifile.ROI_TYPE.TRACED,
    )
    budget = OutlineBudget(shape, path.name)
    rois = [roifile.ImagejRoi.frombytes(data) for data in _roi_bytes(path)]
    outlines: list[Any] = [
        roi.coordinates(multi=True) if roi.roitype in areas else [] for roi in rois
    ]
    budget.check(outlines, shape[-2:])
    read = []
    for roi, rings in zip(rois, outlines, strict=True):
        plane = plane_at(_plane_of(roi, axes), shape, axes[:-2])
        mask = None if plane is None else section_of(rings, plane, shape[-2:], budget)
        number = re.match(r"\d+", roi.name or "")
        named = re.search(r"^class: (.*)$", roi.props or "", re.MULTILINE)
        category = named[1].strip() if named else ""
        label = as_label(number.group()) if number else None
        is_box = roi.roitype == roifile.ROI_TYPE.RECT and roi.multi_coordinates is None
        read.append(ReadObject(label, mask, category, is_box=is_box))
    return object_set_of(read, shape, axes)


def _roi_bytes(path: Path) -> Iterator[bytes]:
    if path.suffix.lower() == ".roi":
        yield path.read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".roi")]
        Limits.from_environment().check(path.name, "pages", len(entries), "ROIs")
        claimed = sum(entry.file_size for entry in entries)
        if claimed > LARGEST_LIST:
            raise RefusedFileError(
                f"{path.name} unpacks to {format_size(claimed)}, but ROIs have at most "
                f"{format_size(LARGEST_LIST)}, so it is damaged; save it again."
            )
        for entry in entries:
            yield archive.read(entry)


def _plane_of(roi: Any, axes: str) -> dict[str, int]:
    """The index along each axis; 0 where the region is on all planes."""
    named = re.findall(r"-([a-z])(\d{4,9})", roi.name or "")
    if "".join(letter.upper() for letter, _ in named) == axes[:-2]:
        return {letter.upper(): int(number) - 1 for letter, number in named}
    at = {"Z": roi.z_position - 1, "T": roi.t_position - 1}
    if len(axes) == 3 and roi.position > 0:
        at[axes[0]] = roi.position - 1
    return {letter: max(0, index) for letter, index in at.items()}
