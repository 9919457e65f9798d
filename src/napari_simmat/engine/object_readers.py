"""Read objects of other programs: label images, COCO, ImageJ ROIs, GeoJSON of QuPath.

`read_objects` chooses the format by the file's ending. Files are untrusted: their sizes are checked
first, and nothing in them is executed.
"""

from __future__ import annotations

import csv
import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape, pluralize
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.object_files import NO_CLASS, ObjectSection, ObjectSet, qupath_axes
from napari_simmat.engine.outlines import OutlineBudget, Ring, section_of
from napari_simmat.io.files import check_size, format_size
from napari_simmat.io.image_file import (
    Limits,
    RefusedFileError,
    check_memory,
    same_except_singletons,
    unreadable,
)
from napari_simmat.io.readers import IMAGE_ENDINGS, read_labels
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.zarr import read_label_properties

OTHER_SHAPE = (
    "{} has objects of an image of {}, but this one has {}; choose the file that belongs to it."
)
LEFT_OUT = "{} without an area on the image left out."
_MAX_BYTES = 1 << 28
"""A list of objects that is larger is none: 256 MB of COCO are a million cells."""
OUTLINE_ENDINGS = (".json", ".geojson", ".zip", ".roi")
"""Endings of files of objects that are no images."""
OBJECT_ENDINGS = (*IMAGE_ENDINGS, *OUTLINE_ENDINGS)
"""Endings of all files that `read_objects` reads."""


def read_objects(
    path: Path | str,
    shape: tuple[int, ...] | None = None,
    axes: str = "",
    *,
    image: str = "",
    reference: ImageReference | None = None,
) -> ObjectSet:
    """Read objects from a file, by its ending.

    ======================  ===================================================================
    file                    meaning
    ======================  ===================================================================
    label image             any that `read_labels` reads; classes and scores from
                            ``STEM_objects.csv`` beside it, or OME-Zarr's properties
    ``.json``               COCO: run lengths or polygons; or GeoJSON
    ``.geojson``            polygons; QuPath's classes, and names that are numbers as ids
    ``.zip``, ``.roi``      areas among ImageJ ROIs; names that begin with a number as ids
    ======================  ===================================================================

    Parameters
    ----------
    path
        The file.
    shape, axes
        (..., Y, X) of the image without channels, and a letter for each axis. ROIs and GeoJSON,
        which do not hold the size of their image, need it.
    image
        Name of the image, to find it in a COCO file of several.
    reference
        Where the image is, for GeoJSON in the coordinates of a map.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no object, or is of another image; one sentence says why.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}; check its name and folder.")
    if shape is not None and not axes:
        axes = usual_axes(len(shape))
    if path.suffix.lower() in OUTLINE_ENDINGS and path.is_file():
        check_size(path, _MAX_BYTES)
    try:
        found = _read(path, shape, axes, image, reference or ImageReference())
    except Exception as error:  # a broken file makes a library raise anything
        raise unreadable(path.name, error) from error
    if not found.sections:
        left_out = "".join(f" {note}" for note in found.notes)
        raise ValueError(f"{path.name} has no object on this image.{left_out} Choose another file.")
    return found


def _read(
    path: Path,
    shape: tuple[int, ...] | None,
    axes: str,
    image: str,
    reference: ImageReference,
) -> ObjectSet:
    ending = path.suffix.lower()
    if ending not in OUTLINE_ENDINGS or path.is_dir():
        return _read_label_image(path, shape)
    limits = Limits.from_environment()
    if ending in (".json", ".geojson"):
        values = json.loads(path.read_text("utf-8"))
        if isinstance(values, Mapping) and "annotations" in values and "images" in values:
            return _read_coco(path.name, values, shape, axes, image, limits)
        to_pixels = _map_to_pixels(path.name, values, reference)
        return _read_geojson(path.name, values, _known_shape(path, shape), axes, to_pixels)
    return _read_rois(path, _known_shape(path, shape), axes, limits)


def usual_axes(count: int) -> str:
    """Letters for the axes of an image whose file does not name them."""
    return "QRSUVWTZYX"[-count:]


def _known_shape(path: Path, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if shape is None:
        raise RefusedFileError(
            f"{path.name} does not say how large its image is; give the image's shape as well."
        )
    return shape


def _read_label_image(path: Path, shape: tuple[int, ...] | None) -> ObjectSet:
    file = read_labels(path)
    labels, axes = np.asarray(file.data), file.axes
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
    stem, found, _ = path.name.rpartition("_labels.")
    table = path.with_name(f"{stem}_objects.csv")
    if not found or not table.is_file() or table.stat().st_size > _MAX_BYTES:
        return {}
    with table.open(newline="", encoding="utf-8", errors="replace") as stream:
        rows = csv.DictReader(stream)
        return {int(row["label"]): row for row in rows if (row.get("label") or "").isdecimal()}


ReadObject = tuple[int | None, ObjectMask | None, str, float]
"""The id that a file gives, mask, class and score of an object; no mask where it has no pixel."""


def _object_set(
    read: Sequence[ReadObject], shape: tuple[int, ...], axes: str, **more: Any
) -> ObjectSet:
    """The objects that have a pixel; those without an id get the next free one."""
    free = 1 + max((label for label, *_ in read if label is not None), default=0)
    sections = []
    for label, mask, category, score in read:
        if mask is None:
            continue
        if label is None:
            label, free = free, free + 1
        sections.append(ObjectSection(label, mask, category, score))
    skipped = len(read) - len(sections)
    notes = (LEFT_OUT.format(pluralize(skipped, "outline")),) if skipped else ()
    return ObjectSet(sections=sections, shape=shape, axes=axes, notes=notes, **more)


def _as_label(value: Any) -> int | None:
    """An id as files give it; None if it is none."""
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    return int(text) if re.fullmatch(r"[1-9]\d{0,9}", text) and int(text) < 2**32 else None


def _read_coco(
    name: str,
    values: Mapping[str, Any],
    shape: tuple[int, ...] | None,
    axes: str,
    image: str,
    limits: Limits,
) -> ObjectSet:
    images = list(values["images"])
    if len(images) > 1 and not all("plane" in each for each in images):
        images = [each for each in images if _stem(each.get("file_name")) == _stem(image)]
        if len(images) != 1:
            raise RefusedFileError(
                f"{name} has objects of {pluralize(len(values['images']), 'image')}, not exactly "
                f"one of which is called {image or 'as the image'}; keep those of one image."
            )
    if not images:
        raise RefusedFileError(f"{name} lists no image; save it again with its images.")
    planes = {each["id"]: tuple(map(int, each.get("plane", ()))) for each in images}
    leading = tuple(1 + max(numbers) for numbers in zip(*planes.values(), strict=True))
    found = (*leading, int(images[0]["height"]), int(images[0]["width"]))
    limits.check_array(name, found, np.uint32)
    budget = OutlineBudget(shape or (), name)
    if shape is None:
        shape, axes = found, usual_axes(len(found))
        limits.check(name, "picture_pixels", math.prod(shape), "pixels (open its image first)")
        check_memory(4 * math.prod(shape), name)
    elif found != shape:
        if not same_except_singletons(found, shape):
            raise RefusedFileError(
                OTHER_SHAPE.format(name, format_shape(found), format_shape(shape))
            )
        for key, plane in planes.items():  # axes of length 1 were added or left out
            number = np.ravel_multi_index(plane, leading) if leading else 0
            index = np.unravel_index(number, shape[:-2]) if shape[:-2] else ()
            planes[key] = tuple(int(each) for each in index)
    categories = {each["id"]: str(each["name"]) for each in values.get("categories", ())}
    read: list[ReadObject] = []
    drawn = (each.get("segmentation") for each in values["annotations"])
    outlines = (_coco_rings(each) for each in drawn if isinstance(each, list))
    budget.check(outlines, (shape[-2], shape[-1]))
    for each in values["annotations"]:
        if each["image_id"] in planes:
            mask = _coco_mask(each.get("segmentation"), planes[each["image_id"]], shape, budget)
            category = categories.get(each.get("category_id"), "")
            category = "" if category == NO_CLASS else category
            score = float(each.get("score", math.nan))
            read.append((_as_label(each.get("label")), mask, category, score))
    classes = [each for each in categories.values() if each != NO_CLASS]
    file = str(images[0].get("file_name", ""))
    return _object_set(read, shape, axes, classes=classes, image=file)


def _stem(name: Any) -> str:
    return Path(str(name)).name.split(".")[0].casefold()


def _coco_rings(polygons: Sequence[Any]) -> list[Ring]:
    return [np.reshape(each, (-1, 2)) for each in polygons if len(each) >= 6]


def _coco_mask(
    segmentation: Any, plane: tuple[int, ...], shape: tuple[int, ...], budget: OutlineBudget
) -> ObjectMask | None:
    height, width = shape[-2:]
    if isinstance(segmentation, list):
        return section_of(_coco_rings(segmentation), plane, (height, width), budget)
    if not isinstance(segmentation, Mapping):
        return None
    if list(segmentation["size"]) != [height, width]:
        raise RefusedFileError("A run length is of another size than its image; save it again.")
    counts = segmentation["counts"]
    runs = np.array(_decompressed(counts) if isinstance(counts, str) else counts, np.int64)
    ends = np.cumsum(runs)
    if (runs < 0).any() or (len(ends) and ends[-1] > height * width):
        raise RefusedFileError("A run length leads outside its image; save it again.")
    starts, ends = ends[:-1:2], ends[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not len(starts):
        return None
    left, right = int(starts[0]) // height, (int(ends[-1]) - 1) // height + 1
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


def _map_to_pixels(name: str, values: Any, reference: ImageReference) -> NDArray[Any] | None:
    """(3, 3), from the map of a GeoJSON file to the edges of pixels; None if it holds pixels."""
    crs = values.get("crs") if isinstance(values, Mapping) else None
    if not isinstance(crs, Mapping):
        return None
    named = str((crs.get("properties") or {}).get("name", ""))
    code = re.search(r"EPSG\W+(?:[\d.]*:)?(\d+)$", named)
    epsg = 4326 if "CRS84" in named else int(code[1]) if code else None
    world = reference.world
    if world is None or world.epsg is None or world.epsg != epsg:
        own = f"is in EPSG:{world.epsg}" if world and world.epsg else "has no such place"
        raise RefusedFileError(
            f"{name} is in the map coordinates of {named[:80] or 'an unknown system'}, but the "
            f"image {own}; export the outlines in the image's coordinate reference system."
        )
    flat = np.eye(3)
    flat[:2, :2], flat[:2, 2] = world.affine[:2, :2], world.affine[:2, 3]
    inverse: NDArray[Any] = np.linalg.inv(flat)
    inverse[:2, 2] += 0.5
    return inverse


def _classification(value: Any) -> str:
    """QuPath's class; a derived one, a list of names, as QuPath shows it: ``Tumor: Positive``."""
    if not isinstance(value, Mapping):
        return value if isinstance(value, str) else ""
    names = value.get("names")
    if isinstance(names, list) and names:
        return ": ".join(map(str, names))
    return str(value.get("name") or "")


def _read_geojson(
    name: str,
    values: Any,
    shape: tuple[int, ...],
    axes: str,
    to_pixels: NDArray[Any] | None = None,
) -> ObjectSet:
    if isinstance(values, Mapping):
        values = values.get("features", [values])
    letters, budget = qupath_axes(axes), OutlineBudget(shape, name)
    read: list[ReadObject] = []
    outlines = [_rings_of_feature(each, to_pixels) for each in values]
    budget.check(outlines, (shape[-2], shape[-1]))
    for each, rings in zip(values, outlines, strict=True):
        if not isinstance(each, Mapping) or not each.get("geometry"):
            read.append((None, None, "", math.nan))
            continue
        geometry, known = each["geometry"], each.get("properties") or {}
        plane = _plane(geometry.get("plane") or {}, shape, letters)
        mask = None if plane is None else section_of(rings, plane, (shape[-2], shape[-1]), budget)
        category = _classification(known.get("classification"))
        measured = known.get("measurements")
        score = measured.get("score") if isinstance(measured, Mapping) else None
        score = float(score) if isinstance(score, (int, float)) else math.nan
        read.append((_as_label(known.get("name")), mask, category, score))
    return _object_set(read, shape, axes)


def _rings_of_feature(feature: Any, to_pixels: NDArray[Any] | None) -> list[Ring]:
    """Outlines and holes of a feature in pixels; none of one without a geometry."""
    if not isinstance(feature, Mapping) or not feature.get("geometry"):
        return []
    rings = _rings_of(feature["geometry"])
    if to_pixels is None:
        return rings
    return [ring @ to_pixels[:2, :2].T + to_pixels[:2, 2] for ring in rings]


def _rings_of(geometry: Mapping[str, Any]) -> list[Ring]:
    """Outlines and holes of the areas of a geometry."""
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        return [ring for part in geometry["geometries"] for ring in _rings_of(part)]
    places: Any = geometry.get("coordinates") or []
    polygons = {"Polygon": [places], "MultiPolygon": places}.get(str(kind), [])
    return [
        np.array([vertex[:2] for vertex in ring], np.float64)
        for polygon in polygons
        for ring in polygon
    ]


def _plane(at: Mapping[str, int], shape: tuple[int, ...], axes: str) -> tuple[int, ...] | None:
    """The index of a plane from numbers by the letters before Y and X; None outside the image."""
    plane = tuple(int(at.get(letter, 0)) for letter in axes)
    inside = all(0 <= index < size for index, size in zip(plane, shape[:-2], strict=True))
    return plane if inside else None


def _read_rois(path: Path, shape: tuple[int, ...], axes: str, limits: Limits) -> ObjectSet:
    import roifile

    areas = (
        roifile.ROI_TYPE.POLYGON,
        roifile.ROI_TYPE.RECT,
        roifile.ROI_TYPE.OVAL,
        roifile.ROI_TYPE.FREEHAND,
        roifile.ROI_TYPE.TRACED,
    )
    read: list[ReadObject] = []
    budget = OutlineBudget(shape, path.name)
    rois = [roifile.ImagejRoi.frombytes(data) for data in _roi_bytes(path, limits)]
    outlines: list[Any] = [
        roi.coordinates(multi=True) if roi.roitype in areas else [] for roi in rois
    ]
    budget.check(outlines, (shape[-2], shape[-1]))
    for roi, rings in zip(rois, outlines, strict=True):
        plane = _plane(_roi_plane(roi, axes), shape, axes[:-2])
        mask = None if plane is None else section_of(rings, plane, (shape[-2], shape[-1]), budget)
        number = re.match(r"\d+", roi.name or "")
        named = re.search(r"^class: (.*)$", roi.props or "", re.MULTILINE)
        category = named[1].strip() if named else ""
        label = _as_label(number.group()) if number else None
        read.append((label, mask, category, math.nan))
    return _object_set(read, shape, axes)


def _roi_bytes(path: Path, limits: Limits) -> Iterator[bytes]:
    if path.suffix.lower() == ".roi":
        yield path.read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        entries = [each for each in archive.infolist() if each.filename.lower().endswith(".roi")]
        limits.check(path.name, "pages", len(entries), "ROIs")
        claimed = sum(each.file_size for each in entries)
        if claimed > _MAX_BYTES:
            raise RefusedFileError(
                f"{path.name} unpacks to {format_size(claimed)}, but ROIs have at most "
                f"{format_size(_MAX_BYTES)}, so it is damaged; save it again."
            )
        for each in entries:
            yield archive.read(each)


def _roi_plane(roi: Any, axes: str) -> dict[str, int]:
    """The index along each axis; 0 where the region is on all planes."""
    named = re.findall(r"-([a-z])(\d{4,9})", roi.name or "")
    if "".join(letter.upper() for letter, _ in named) == axes[:-2]:
        return {letter.upper(): int(number) - 1 for letter, number in named}
    at = {"Z": roi.z_position - 1, "T": roi.t_position - 1}
    if len(axes) == 3 and roi.position > 0:
        at[axes[0]] = roi.position - 1
    return {letter: max(0, index) for letter, index in at.items()}
