"""Where a TIFF lies on the earth: GeoTIFF's tags, world files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.io.reference import CRS_TAGS, ImageReference, TiffTag, World
from napari_simmat.io.tiff_metadata import GDAL_NODATA, as_number

_SCALE, _TIE_POINTS, _TRANSFORMATION, _KEYS = 33550, 33922, 34264, 34735
_PLACED_BY = (_SCALE, _TIE_POINTS, _TRANSFORMATION)
_PLACE_TAGS = (*_PLACED_BY, *CRS_TAGS)
"""Tags of GeoTIFF: pixel scale, tie points, transformation, keys and their values."""
_MODEL_TYPE, _RASTER_TYPE, _LINEAR_UNITS = 1024, 1025, 3076
_PROJECTED, _GEOGRAPHIC, _IS_POINT, _METERS = 1, 2, 2, 9001
_CRS_KEYS = {_PROJECTED: 3072, _GEOGRAPHIC: 2048}
_RPC = 50844
BY_POINTS = (
    "It is placed by {}, which are not read, so it has no place on the map; warp it first "
    "(gdalwarp), or segment it without its place."
)
BY_WORLD_FILE = (
    "{} places it on a map, and names no coordinate reference system; its labels keep the place "
    "alone."
)
NO_METERS = (
    "EPSG:{} does not count in meters, so sizes are in pixels alone; for areas in m2 bring the "
    "image into a projected system in meters (gdalwarp -t_srs)."
)
MASK_BESIDE = "{} masks pixels without data, and is not read; store the mask within the TIFF."


def is_geotiff(tiff: Any, reference: ImageReference) -> bool:
    """Whether a size on the map alone counts; a resolution in centimeters is then for printing."""
    return reference.world is not None and bool(reference.world.tags) and not tiff.is_ome


def place_notes(tiff: Any, path: Path, reference: ImageReference) -> list[str]:
    """What the file, or one beside it, says about places and masks that is not read as such."""
    tags, notes = tiff.pages.first.tags, []
    if reference.world is None and _TIE_POINTS in tags and len(tags[_TIE_POINTS].value) > 6:
        notes.append(BY_POINTS.format("ground control points"))
    elif reference.world is None and _RPC in tags:
        notes.append(BY_POINTS.format("rational polynomial coefficients"))
    elif reference.world is not None and not reference.world.tags:
        notes.append(BY_WORLD_FILE.format(_world_file(path)))
    if reference.world is not None and reference.world.epsg and not reference.scale:
        notes.append(NO_METERS.format(reference.world.epsg))
    beside = path.with_name(f"{path.name}.msk")
    return [*notes, MASK_BESIDE.format(beside.name)] if beside.is_file() else notes


def _world_file(path: Path) -> str:
    """The name of the file beside a TIFF that places it; empty without."""
    for ending in (".tfw", ".tifw", ".tiffw", ".wld"):
        for name in (f"{path.stem}{ending}", f"{path.stem}{ending.upper()}"):
            if path.with_name(name).is_file():
                return name
    return ""


def _world_file_affine(path: Path) -> NDArray[np.float64] | None:
    """(4, 4), from the indices (x, y, z) of a pixel's center to the map, by a world file."""
    name = _world_file(path)
    if not name or path.with_name(name).stat().st_size > 1024:  # it holds six numbers
        return None
    words = path.with_name(name).read_text("latin-1").split()
    numbers = [number for word in words if (number := as_number(word)) is not None]
    if len(words) != 6 or len(numbers) != 6:
        return None
    matrix = np.eye(4)
    matrix[:2, 0], matrix[:2, 1], matrix[:2, 3] = np.reshape(numbers, (3, 2))
    return matrix if np.linalg.det(matrix[:2, :2]) != 0 else None


def georeference(tiff: Any, path: Path) -> ImageReference:
    """What GeoTIFF's tags say: place, size of a pixel in meters, and the missing value.

    Without such a place, that of a world file beside the image.
    """
    tags = tiff.pages.first.tags
    kept = [tags[code] for code in _PLACE_TAGS if code in tags]
    missing = None
    if GDAL_NODATA in tags:
        missing = as_number(str(tags[GDAL_NODATA].value).strip("\0 "))
    affine, keys = _map_affine(tags), _geo_keys(tags)
    if affine is None:
        by_file = _world_file_affine(path)
        world = None if by_file is None else World(affine=by_file, space="map")
        return ImageReference(world=world, missing=missing)
    epsg = keys.get(_CRS_KEYS.get(keys.get(_MODEL_TYPE, 0), 0), 0)
    world = World(
        affine=affine,
        space="map",
        epsg=epsg if 1024 <= epsg < 32767 else None,
        crs=_described_crs(tags, keys),
        tags=tuple((tag.code, int(tag.dtype), tag.count, tag.value) for tag in kept),
    )
    if keys.get(_MODEL_TYPE) != _PROJECTED or keys.get(_LINEAR_UNITS) != _METERS:
        return ImageReference(world=world, missing=missing)
    width, height = np.linalg.norm(affine[:2, :2], axis=0)
    scale = {"Y": float(height), "X": float(width)}
    units = {"Y": "m", "X": "m"}
    return ImageReference(scale=scale, units=units, world=world, missing=missing)


def _geo_keys(tags: Any) -> dict[int, int]:
    """GeoTIFF's keys that are numbers."""
    return _keys_of(tags[_KEYS].value if _KEYS in tags else ())


def _keys_of(values: Sequence[int]) -> dict[int, int]:
    """The keys that are numbers of a directory, four integers to a key, the first four its own."""
    entries = [values[n : n + 4] for n in range(4, len(values) - 3, 4)]
    return {key: value for key, where, _, value in entries if where == 0}


_DEFINING_KEYS = range(2049, 4096)
"""Keys of geographic and projected systems; those before are of the raster and of the model."""
_CITATIONS = (2049, 3073)


def _described_crs(tags: Any, keys: Mapping[int, int]) -> tuple[object, ...]:
    """What the keys say about a coordinate reference system, without names."""
    known = {key: n for key, n in keys.items() if key in _DEFINING_KEYS and key not in _CITATIONS}
    doubles = tags[34736].value if 34736 in tags else ()
    return (keys.get(_MODEL_TYPE, 0), *sorted(known.items()), tuple(np.ravel(doubles).tolist()))


def _map_affine(tags: Any) -> NDArray[np.float64] | None:
    """(4, 4), from the indices (x, y, z) of a pixel's center to the map."""
    matrix = np.eye(4)
    if _TRANSFORMATION in tags:
        matrix = np.array(tags[_TRANSFORMATION].value, float).reshape(4, 4)
    elif _SCALE in tags and _TIE_POINTS in tags and len(tags[_TIE_POINTS].value) >= 6:
        size, tie = tags[_SCALE].value, tags[_TIE_POINTS].value
        matrix[0, 0], matrix[1, 1] = size[0], -size[1]
        matrix[:2, 3] = tie[3] - tie[0] * size[0], tie[4] + tie[1] * size[1]
    else:
        return None
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:2, :2])) == 0:
        return None
    if _geo_keys(tags).get(_RASTER_TYPE) != _IS_POINT:  # the place is that of a pixel's corner
        matrix[:2, 3] += matrix[:2, :2] @ (0.5, 0.5)
    return matrix


ASCII, _DOUBLE = 2, 12
"""Types of TIFF tags."""


def place_tags(world: World | None) -> tuple[TiffTag, ...]:
    """The tags that place an image on a map: those of its file, or made from the affine."""
    if world is None or world.space != "map":
        return ()
    if any(tag[0] in _PLACED_BY for tag in world.tags):
        return world.tags
    matrix = world.affine.copy()
    keys = {tag[0]: tag[3] for tag in world.tags}
    if _keys_of(keys.get(_KEYS, ())).get(_RASTER_TYPE) != _IS_POINT:
        matrix[:2, 3] -= matrix[:2, :2] @ (0.5, 0.5)  # the place is that of a pixel's corner
    placed = (_TRANSFORMATION, _DOUBLE, 16, tuple(matrix.ravel().tolist()))
    return (placed, *world.tags)
