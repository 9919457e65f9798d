"""GeoJSON for QuPath, or in the coordinates of a map: objects as polygons along pixel edges."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.drawing import label_color
from napari_simmat.engine.files.object_set import ObjectSection, ObjectSet
from napari_simmat.engine.files.outline_reading import ReadObject, as_label, object_set_of, plane_at
from napari_simmat.engine.files.polygons import polygons
from napari_simmat.engine.outlines import OutlineBudget, Ring, is_upright_rectangle, section_of
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.refusals import RefusedFileError

CRS_NAME = "urn:ogc:def:crs:EPSG::{}"
"""How GeoJSON names a coordinate reference system."""
NOT_ON_A_MAP = (
    "{} has no coordinate reference system with an EPSG code, so its objects are not written in "
    "the coordinates of a map; give a GeoTIFF that has one."
)
_OTHER_AXES = (
    "GeoJSON has planes along depth and time alone, but the image has the axes {}; choose COCO or "
    "a label image."
)


def geojson_problem(axes: str) -> str:
    """Why objects cannot be written as GeoJSON, in one sentence; empty if they can."""
    return _OTHER_AXES.format(axes) if len(axes) > 4 else ""


def map_problem(axes: str, reference: ImageReference | None) -> str:
    """Why objects cannot be written in map coordinates, in one sentence; empty if they can."""
    world = None if reference is None else reference.world
    if world is None or world.epsg is None:
        file = None if reference is None else reference.file
        return NOT_ON_A_MAP.format("The image" if file is None else file.name)
    return geojson_problem(axes)


def write_geojson(path: Path, objects: ObjectSet, on_map: bool = False) -> None:
    """Write objects as GeoJSON that QuPath imports, a detection for each plane of an object.

    On a map, coordinates are those of the image's coordinate reference system, which the file
    names as QGIS and GDAL read it; else they are pixels, and for an image of a map the file's
    layer is called so. Of a part of a slide they are pixels of the slide's level 0, as QuPath
    counts them. Objects are written one after the other.

    Polygons run along the edges of pixels, so that QuPath's areas are pixel counts. The class is
    QuPath's classification, the id its name, the score a measurement. On a map they are columns
    as well, with the area: QGIS shows no values within others.
    """
    about: dict[str, Any] = {"type": "FeatureCollection"}
    world = objects.reference.world
    if on_map and world is not None:
        about["crs"] = {"type": "name", "properties": {"name": CRS_NAME.format(world.epsg)}}
    elif world is not None and world.space == "map":
        about["name"] = f"pixels of {objects.image}"
    start = json.dumps({**about, "features": []}, allow_nan=False).removesuffix("]}")
    # Feature by feature, as a million of them do not fit into memory as one text.
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(start)
        for number, feature in enumerate(_features(objects, on_map)):
            file.write(", " if number else "")
            file.write(json.dumps(feature, allow_nan=False))
        file.write("]}\n")


def _features(objects: ObjectSet, on_map: bool) -> Iterator[dict[str, Any]]:
    """A feature for each plane of an object."""
    names = objects.class_names
    letters = _qupath_axes(objects.axes)
    for plane, sections in objects.by_plane():
        at = dict(zip(letters, plane, strict=True))
        for section, mask in sections:
            parts = polygons(mask.mask.reshape(mask.shape[-2:]), mask.corner[-2:])
            lines = [[_placed(ring, objects.reference, on_map) for ring in part] for part in parts]
            several = len(lines) > 1
            geometry: dict[str, Any] = {
                "type": "MultiPolygon" if several else "Polygon",
                "coordinates": lines if several else lines[0],
            }
            if any(at.values()):  # QuPath's default is the first plane
                geometry["plane"] = {"c": -1, "z": at.get("z", 0), "t": at.get("t", 0)}
            properties: dict[str, Any] = {"objectType": "detection", "name": str(section.label)}
            if section.category:
                color = list(label_color(1 + names.index(section.category)))
                properties["classification"] = {"name": section.category, "color": color}
            if not math.isnan(section.score):
                properties["measurements"] = {"score": round(section.score, 6)}
            if on_map:
                properties |= _columns(section, int(mask.mask.sum()), objects.reference)
            yield {"type": "Feature", "geometry": geometry, "properties": properties}


def _columns(section: ObjectSection, count: int, reference: ImageReference) -> dict[str, Any]:
    """What a table of a map shows of an object of `count` pixels, a column for each value."""
    values: dict[str, Any] = {"label": section.label, "class": section.category or None}
    values["score"] = None if math.isnan(section.score) else round(section.score, 6)
    if (pixel := reference.voxel("YX")) is not None:
        area, unit = pixel
        values[f"area_{unit}2"] = count * area
    return values


def _placed(ring: Ring, reference: ImageReference, on_map: bool) -> list[list[float]]:
    """A closed ring (N, 2) as x, y in the coordinates of the file."""
    world, within = reference.world, reference.within
    closed = np.array([*ring, ring[0]], np.float64)
    if on_map and world is not None:
        centers = closed - 0.5  # edges of pixels count from a corner
        closed = centers @ world.affine[:2, :2].T + world.affine[:2, 3]
    elif within is not None:
        closed = within.to_whole(closed[:, ::-1])[:, ::-1]
    moved: list[list[float]] = closed.tolist()
    return moved


def read_geojson(
    name: str, values: Any, shape: tuple[int, ...], axes: str, reference: ImageReference
) -> ObjectSet:
    """The areas among the features of a GeoJSON file.

    Parameters
    ----------
    name, values
        The file's name, and what its JSON holds: a collection, a list of features, or one.
    shape, axes
        (..., Y, X) of the image, and a letter for each axis.
    reference
        Where the image is, for a file in the coordinates of a map, or of a slide that the image
        is a part of: coordinates are then pixels of its level 0.

    Raises
    ------
    RefusedFileError
        If it is in another coordinate reference system than the image.
    """
    to_pixels = _map_to_pixels(name, values, reference)
    features = values.get("features", [values]) if isinstance(values, Mapping) else values
    letters = _qupath_axes(axes)
    budget = OutlineBudget(shape, name)
    outlines = [_rings_of_feature(feature, to_pixels) for feature in features]
    budget.check(outlines, shape[-2:])
    read = []
    for feature, rings in zip(features, outlines, strict=True):
        if not isinstance(feature, Mapping) or not feature.get("geometry"):
            read.append(ReadObject())
            continue
        plane = plane_at(feature["geometry"].get("plane") or {}, shape, letters)
        mask = None if plane is None else section_of(rings, plane, shape[-2:], budget)
        known = feature.get("properties") or {}
        category = _classification(known.get("classification"))
        if not category and isinstance(known.get("class"), str):  # as it was typed in QGIS
            category = known["class"]
        measured = known.get("measurements")
        score = measured.get("score") if isinstance(measured, Mapping) else None
        score = float(score) if isinstance(score, (int, float)) else math.nan
        is_found = known.get("objectType") in _FOUND
        is_box = not is_found and is_upright_rectangle(rings)
        read.append(
            ReadObject(
                as_label(known.get("name") or known.get("label")), mask, category, score, is_box
            )
        )
    return object_set_of(read, shape, axes)


_FOUND = ("detection", "cell")
"""QuPath's types of objects that a program found, whose outlines are meant as such."""


def _qupath_axes(axes: str) -> str:
    """Which of QuPath's axes, z and t, each axis before Y and X is."""
    leading = axes[:-2]
    if set(leading) <= {"Z", "T"}:
        return leading.lower()
    if problem := geojson_problem(axes):
        raise ValueError(problem)
    return "tz"[-len(leading) :]


def _map_to_pixels(name: str, values: Any, reference: ImageReference) -> NDArray[Any] | None:
    """(3, 3), from the map of a GeoJSON file, or from the level 0 of a slide, to edges of pixels.

    None if it holds the pixels of the image.
    """
    crs = values.get("crs") if isinstance(values, Mapping) else None
    if not isinstance(crs, Mapping):
        if reference.within is None:
            return None
        (oy, ox), (down, across) = reference.within.offset, reference.within.factor
        return np.array([[1 / across, 0, -ox / across], [0, 1 / down, -oy / down], [0, 0, 1]])
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
    parts = {"Polygon": [places], "MultiPolygon": places}.get(str(kind), [])
    return [
        np.array([vertex[:2] for vertex in ring], np.float64) for part in parts for ring in part
    ]
