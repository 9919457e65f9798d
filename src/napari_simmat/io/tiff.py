"""TIFF and OME-TIFF: read images with their axes, channel names and pixel size; write labels."""

from __future__ import annotations

import hashlib
import math
import os
import re
import struct
import uuid
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, format_shape
from napari_simmat.io.image_file import (
    ImageFile,
    LazyArray,
    Limits,
    Reader,
    ReadOptions,
    RefusedFileError,
    check_memory,
    distinct_axes,
    label_dtype,
    planes_last,
)
from napari_simmat.io.openslide import read_openslide
from napari_simmat.io.pyramid import smaller_part
from napari_simmat.io.reference import CRS_TAGS, ImageReference, TiffTag, World
from napari_simmat.io.slides import SLIDE_ENDINGS, main_series, slide_note, slide_pixel_size

_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff(path: Path, options: ReadOptions) -> ImageFile:
    """Read the first image of a TIFF, lazily if it is large; of a pyramid the finest level."""
    import tifffile
    import zarr

    lazy_above, limits = options.lazy_above, options.limits
    notes = _walk_pages(path, limits)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        limits.check_array(path.name, page.shape, page.dtype or np.uint8)
        _check_description(path, page.description, limits)
        others = _other_files(path, tiff, limits)
        if tiff.is_bif or int(page.compression) == _APERIO_YCBCR:
            return read_openslide(path, options)  # tiles that overlap, colors not told as such
        series = main_series(tiff)
        notes += filter(None, [slide_note(tiff)])
        images = sum(not each.keyframe.subfiletype & _MASK for each in tiff.series)
        if images > 1:
            which = "first" if series is tiff.series[0] else "largest"
            notes.append(f"It holds {images} images; the {which} is read.")
        axes, shape = _axes(path, series.axes, series.shape), series.shape
        if series.dtype is None:
            raise RefusedFileError(f"{path.name} mixes types of pixels; save it with one.")
        dtype = np.dtype(series.dtype)
        limits.check_array(path.name, shape, dtype)
        key = series.keyframe
        if key.is_contiguous:
            end = key.dataoffsets[0] + key.nbytes
            limits.check_stored(path.name, end, key.parent.filehandle.size)
        pieces = math.prod(key.chunked)
        limits.check_pieces(path.name, pieces, key.chunks)
        limits.check_stored(path.name, pieces, len(key.dataoffsets))
        missing = sum(each is None for each in series._pages)
        if missing:
            notes.append(
                f"{missing} of its {len(series._pages)} planes are missing, and read as 0."
            )
        if others:
            notes.append(f"It continues in {format_list(file.name for file in others)}.")
        nbytes = math.prod(shape) * dtype.itemsize
        sizes = dict(zip(axes, shape, strict=True))
        plane = sizes["Y"] * sizes["X"] * sizes.get("S", 1) * dtype.itemsize
        scale, units = _pixel_size(tiff)
        names = _channel_names(tiff, sizes.get("C", sizes.get("S", 1)))
        reference = _georeference(tiff, path)
        notes += _place_notes(tiff, path, reference)
        valid = _mask(tiff)
        if reference.scale or _is_geotiff(tiff, reference):
            scale, units = dict(reference.scale), dict(reference.units)
        is_rgb = "S" in axes and _is_rgb(page)
        band = _band_name(tiff) if names is None and not is_rgb else ""
        if sizes.get("S") == 4 and not is_rgb and names is None:
            names = tuple(BAND.format(n) for n in range(1, 5))  # or it would be taken as RGBA
        is_lazy = nbytes > lazy_above or bool(options.part)
        at_once = plane if is_lazy else nbytes
        if options.part or (options.in_parts and is_lazy):
            at_once = math.prod(key.chunks) * dtype.itemsize
        check_memory(at_once, path.name, _smaller(series))
        number = tiff.series.index(series)
        coarser = _levels(path, series, limits)
        data: Any = None if is_lazy else series.asarray()
    levels: list[Any] = []
    if data is None or coarser:
        # A chunk is a page, unless pages are huge, or parts of them are read.
        chunk = "page" if plane <= lazy_above and not options.part and not coarser else None
        store: Any = tifffile.imread(path, aszarr=True, series=number, chunkmode=chunk)
        opened: Any = zarr.open(store, mode="r")
        arrays = [opened[str(level)] for level in (0, *coarser)] if coarser else [opened]
        lazy = [LazyArray(each, path.name) for each in arrays]
        store_in_use = _Closing(store)
        for each in lazy:
            weakref.finalize(each, store_in_use.keep)
        levels = [planes_last(each, axes)[0] for each in lazy[1:]]
        data = lazy[0] if data is None else data
    data, axes = planes_last(data, axes)
    return ImageFile(
        path,
        data,
        axes,
        levels=tuple(levels),
        channel_names=names,
        scale=scale,
        units=units,
        world=reference.world,
        stage=_stage(tiff, notes),
        missing=reference.missing,
        valid=valid,
        name=_image_name(tiff),
        band=band,
        are_labels=f'Creator="{SOFTWARE}' in (tiff.ome_metadata or ""),
        rgb=is_rgb,
        files=(path, *others) if others else (),
        notes=tuple(notes),
    )


def _levels(path: Path, series: Any, limits: Limits) -> list[int]:
    """Numbers of the coarser levels that are read as the finest is."""
    found = []
    for number, level in enumerate(series.levels[1:], start=1):
        key = level.keyframe
        if level.axes != series.axes or level.dtype != series.dtype or len(level.shape) < 2:
            continue
        limits.check_array(path.name, level.shape, np.dtype(level.dtype))
        limits.check_pieces(path.name, math.prod(key.chunked), key.chunks)
        found.append(number)
    # Levels are found by their number, so that none may be left out between two.
    return found if found == list(range(1, len(found) + 1)) else []


class _Closing:
    """Closes a store when the last of the arrays that read from it is gone."""

    def __init__(self, store: Any) -> None:
        weakref.finalize(self, store.close)

    def keep(self) -> None:
        """Be referred to by an array."""


def _smaller(series: Any) -> str:
    """How to get an image that needs less memory: a region of it, or one of its levels."""
    if math.prod(series.keyframe.chunked) == 1:  # one piece, which is unpacked for any of its parts
        return "crop it, or save it as TIFF in planes that fit"
    return smaller_part([level.keyframe.shape[:2] for level in series.levels])


def read_tiff_reference(path: Path) -> ImageReference:
    """Place, pixel size, names and missing value of a TIFF, from its first page alone.

    It is for images that another program has opened; empty if the file is none or unreadable.
    """
    import tifffile

    try:
        with path.open("rb") as file:
            if file.read(4) not in _STARTS:
                return ImageReference()
        _walk_pages(path, Limits(), most=1)
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            count = 1 if _is_rgb(page) else page.samplesperpixel
            names = _band_names(page.tags, count)
            if count > 1 and names is None:
                names = tuple(BAND.format(n) for n in range(1, count + 1))
            if (pixels := _ome_pixels(tiff)) is not None:
                channels = sum(element.tag.endswith("Channel") for element in pixels)
                names = _channel_names(tiff, channels)
            found = _georeference(tiff, path)
            of_map = found.scale or _is_geotiff(tiff, found)
            scale, units = (found.scale, found.units) if of_map else _pixel_size(tiff)
            name = _image_name(tiff)
            return replace(
                found,
                scale=scale,
                units=units,
                stage=_stage(tiff, []),
                valid=_mask(tiff),
                channels=names or (),
                name=name,
            )
    except Exception:  # a broken file makes a reader raise anything
        return ImageReference()


BAND = "band {}"
"""Name of a band that the file does not name, counted from 1 as GDAL does."""
_RGB, _YCBCR, _JPEGS = 2, 6, (6, 7, 34892)
_APERIO_YCBCR = 33003
"""JPEG 2000 of Aperio that holds luminance and chroma and does not say so."""
_ALPHA = (1, 2)
"""Photometric interpretation of colors, and ExtraSamples of an alpha channel; another sample is a
channel like the others."""
_SCALE, _TIE_POINTS, _TRANSFORMATION, _KEYS = 33550, 33922, 34264, 34735
_PLACED_BY = (_SCALE, _TIE_POINTS, _TRANSFORMATION)
_PLACE_TAGS = (*_PLACED_BY, *CRS_TAGS)
"""Tags of GeoTIFF: pixel scale, tie points, transformation, keys and their values."""
_GDAL_METADATA, _GDAL_NODATA = 42112, 42113
_MODEL_TYPE, _RASTER_TYPE, _LINEAR_UNITS = 1024, 1025, 3076
_PROJECTED, _GEOGRAPHIC, _IS_POINT, _METERS = 1, 2, 2, 9001
_CRS_KEYS = {_PROJECTED: 3072, _GEOGRAPHIC: 2048}


def _is_rgb(page: Any) -> bool:
    """Whether a page holds red, green, blue, and nothing else but alpha."""
    alpha = len(page.extrasamples) == 1 and page.extrasamples[0] in _ALPHA
    # JPEG in tiles stores luminance and chroma, which its decoder makes colors of.
    packed = int(page.photometric) == _YCBCR and int(page.compression) in _JPEGS
    is_colored = int(page.photometric) == _RGB or packed
    return is_colored and page.samplesperpixel == 3 + alpha


_MASK, _REDUCED = 4, 1
"""Bits of NewSubfileType: a mask of another page; a smaller version of it."""
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
STAGE_DIFFERS = "The positions of the stage differ between its planes, and are not kept."


_MASK_WITHIN = 32
"""Pages among which the mask is; it follows the image, or its smaller versions."""


def _mask(tiff: Any) -> NDArray[np.bool_] | None:
    """(Y, X), which pixels have data, from the mask that GDAL stores as a page; None without."""
    first = tiff.pages.first
    size = (first.imagelength, first.imagewidth)
    for number in range(1, _MASK_WITHIN):
        try:
            page = tiff.pages[number]
        except IndexError:
            return None
        kind = getattr(page, "subfiletype", 0)  # a frame is a page like the first
        if not kind & _MASK or kind & _REDUCED:
            continue
        if (page.imagelength, page.imagewidth, page.samplesperpixel) == (*size, 1):
            check_memory(math.prod(size), tiff.filename)
            return np.asarray(page.asarray().reshape(size) != 0, dtype=np.bool_)
    return None


def _is_geotiff(tiff: Any, reference: ImageReference) -> bool:
    """Whether a size on the map alone counts; a resolution in centimeters is then for printing."""
    return reference.world is not None and bool(reference.world.tags) and not tiff.is_ome


def _place_notes(tiff: Any, path: Path, reference: ImageReference) -> list[str]:
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
    numbers = [number for word in words if (number := _number(word)) is not None]
    if len(words) != 6 or len(numbers) != 6:
        return None
    matrix = np.eye(4)
    matrix[:2, 0], matrix[:2, 1], matrix[:2, 3] = np.reshape(numbers, (3, 2))
    return matrix if np.linalg.det(matrix[:2, :2]) != 0 else None


def _stage(tiff: Any, notes: list[str]) -> dict[str, tuple[float, str]]:
    """Position of the stage along X and Y, if OME-XML gives one for all planes of the image."""
    if (pixels := _ome_pixels(tiff)) is None:
        return {}
    planes = [each for each in pixels if each.tag.endswith("}Plane")]
    stage = {}
    for axis in "XY":
        found = {
            (value, each.get(f"Position{axis}Unit", "reference frame"))
            for each in planes
            if (value := _number(each.get(f"Position{axis}"))) is not None
        }
        if len(found) > 1:
            notes.append(STAGE_DIFFERS)
            return {}
        if found:
            stage[axis] = found.pop()
    return stage


def _georeference(tiff: Any, path: Path) -> ImageReference:
    """What GeoTIFF's tags say: place, size of a pixel in meters, and the missing value.

    Without such a place, that of a world file beside the image.
    """
    tags = tiff.pages.first.tags
    kept = [tags[code] for code in _PLACE_TAGS if code in tags]
    missing = None
    if _GDAL_NODATA in tags:
        missing = _number(str(tags[_GDAL_NODATA].value).strip("\0 "))
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


def _band_names(tags: Any, count: int) -> tuple[str, ...] | None:
    """Names of all bands from GDAL's metadata; None if one has none, or two are alike."""
    text = str(tags[_GDAL_METADATA].value) if _GDAL_METADATA in tags else ""
    if not text or "<!" in text:
        return None
    try:
        items = ElementTree.fromstring(text.strip("\0 ")).iter("Item")
    except ElementTree.ParseError:
        return None
    named = {
        each.get("sample"): (each.text or "").strip()
        for each in items
        if each.get("role") == "description" or each.get("name") == "DESCRIPTION"
    }
    names = tuple(named.get(str(n), "") for n in range(count))
    return names if count > 1 and all(names) and len(set(names)) == count else None


_XMP = 700
_BAND_NAME = re.compile(r'Camera:BandName(?:="([^"<]+)"|>(?:\s*<rdf:\w+>)*\s*([^<\s][^<]*))')
_XMP_READ = 2**16
"""Characters of XMP in which a band is looked for."""


def _band_name(tiff: Any) -> str:
    """The band that a drone's camera names in XMP, e.g. ``Red edge``; empty without.

    MicaSense and DJI write it as Pix4D's specification of camera metadata has it.
    """
    tag = tiff.pages.first.tags.get(_XMP)
    value = "" if tag is None else tag.value
    text = value[:_XMP_READ].decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    found = _BAND_NAME.search(text[:_XMP_READ])
    name = (found[1] or found[2]).strip() if found else ""
    return name if name.isprintable() else ""


def _image_name(tiff: Any) -> str:
    """The name of the first image in OME-XML."""
    images = (each for each in _ome_elements(tiff) if each.tag.endswith("}Image"))
    return next((each.get("Name", "") for each in images), "")


def _walk_pages(path: Path, limits: Limits, most: float = math.inf) -> list[str]:
    """Follow the chain of pages from directory to directory; refuse one that is endless.

    Returns a remark if it breaks off. Files of one page, or whose first page stands for all,
    such as ImageJ's, have a short chain. `most` is the number of pages after which it ends.
    """
    with path.open("rb") as file:
        start = file.read(16)
        order = "<" if start.startswith(b"II") else ">"
        big = start[2:4] in (b"+\0", b"\0+")
        wide = big or path.suffix.lower() == ".ndpi"  # its offsets have 64 bits in a small TIFF
        count, entry = (f"{order}Q", 20) if big else (f"{order}H", 12)
        link = f"{order}Q" if wide else f"{order}I"
        (place,) = struct.unpack_from(link, start, 8 if big else 4)
        size = path.stat().st_size
        seen = set[int]()
        while place and len(seen) < most:
            if place in seen:
                raise RefusedFileError(
                    f"{path.name} lists its pages in a circle, without end: page {len(seen)} leads "
                    "back to an earlier one; save the image again in the program that wrote it."
                )
            seen.add(place)
            limits.check(path.name, "pages", len(seen), "pages")
            try:
                file.seek(place)
                (entries,) = struct.unpack(count, file.read(struct.calcsize(count)))
                if len(seen) == 1:
                    # Of the first page, tifffile would read huge metadata at once.
                    tags = file.read(min(entries, _MAX_TAGS) * entry)
                    form = f"{order}HH{'Q' if big else 'I'}"
                    for n in range(0, len(tags) - entry + 1, entry):
                        code, _, values = struct.unpack_from(form, tags, n)
                        if code not in _OF_PIECES:
                            words = f"metadata in tag {code}"
                            limits.check(path.name, "metadata_bytes", values, words)
                    file.seek(place + struct.calcsize(count))
                file.seek(entries * entry, os.SEEK_CUR)
                (place,) = struct.unpack(link, file.read(struct.calcsize(link)))
            except (struct.error, OSError):
                place = size
            if place >= size:
                return [f"Its list of pages breaks off behind page {len(seen)}."]
    return []


_MAX_TAGS = 4096
"""Tags of a page that tifffile reads."""
_OF_PIECES = {273, 279, 324, 325}
"""Tags with a number for each strip or tile; `Limits.pieces` bounds these."""


def _check_description(path: Path, description: str, limits: Limits) -> None:
    limits.check(path.name, "metadata_bytes", len(description), "description")
    if "<!DOCTYPE" in description or "<!ENTITY" in description:
        raise RefusedFileError(
            f"The description of {path.name} declares XML entities, which no microscope writes; "
            "save the image again in a program you trust."
        )
    counts = [
        (name, int(value))
        for name, value in re.findall(
            r'\b(SizeZ|SizeC|SizeT|NumPlanes|PlaneCount|IFD|First[ZCT])\s*=\s*["\']\s*(\d{1,18})',
            description,
        )
    ]
    most = dict(sorted(counts, key=lambda pair: pair[1]))  # the largest of each name
    planes = math.prod(most.get(f"Size{letter}", 1) for letter in "ZCT")
    limits.check(path.name, "pages", max([planes, *most.values()]), "planes")


_MICROMANAGER_AXES = ("Channels", "Slices", "Frames", "Positions")
"""In the order of Micro-Manager's index."""


def _other_files(path: Path, tiff: Any, limits: Limits) -> list[Path]:
    """The files beside `path` that hold parts of its image; refuses names that lead elsewhere."""
    import tifffile

    names: set[str] = set()
    for element in _ome_elements(tiff):
        names |= {element.get("FileName", ""), element.get("MetadataFile", "")}
    if tiff.is_ndtiff:
        index = path.parent / "NDTiff.index"
        limits.check(path.name, "metadata_bytes", index.stat().st_size, "index")
        names |= {entry[1] for entry in tifffile.tifffile.read_ndtiff_index(index)}
    elif (micromanager := tiff.micromanager_metadata) and "IndexMap" in micromanager:
        summary = micromanager.get("Summary") or {}
        index_map = micromanager["IndexMap"]
        sizes = [int(summary.get(name, 1)) for name in _MICROMANAGER_AXES]
        claimed = math.prod(map(max, sizes, index_map[:, :4].max(axis=0, initial=0).tolist()))
        limits.check(path.name, "pages", claimed, "planes")
        if claimed > len(index_map):
            prefix = f"{summary.get('Prefix', path.name.split('_MMStack')[0])}_MMStack"
            beside = (file.name for file in path.parent.iterdir())
            names |= {name for name in beside if name.startswith(prefix) and name.endswith(".tif")}
    folder = path.parent.resolve()
    found = []
    for name in sorted(names - {"", path.name}):
        file = path.parent / name
        if "\\" in name or Path(name).name != name or file.resolve().parent != folder:
            raise RefusedFileError(
                f"{path.name} refers to {name} outside its folder; put the files of one image side "
                "by side."
            )
        if file.is_file():
            found.append(file)
    return found


def _axes(path: Path, axes: str, shape: tuple[int, ...]) -> str:
    if "Y" not in axes or "X" not in axes:
        raise RefusedFileError(
            f"{path.name} has the axes {axes} ({format_shape(shape)}); an image needs Y "
            "and X; save it with these."
        )
    if "C" in axes and "S" in axes:
        raise RefusedFileError(
            f"{path.name} has colors within channels (axes {axes}); save each color as a "
            "channel of its own."
        )
    if "Q" in axes and not axes.endswith("YX") and "C" not in axes and "S" not in axes:
        return "Q" * (len(axes) - 2) + "YX"  # tifffile guesses, badly for planes of one pixel
    return axes


_MICROMETERS = {
    "m": 1e6, "meter": 1e6, "cm": 1e4, "centimeter": 1e4, "mm": 1e3, "millimeter": 1e3,
    "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0,
    "\\u00b5m": 1.0, "nm": 1e-3, "nanometer": 1e-3, "å": 1e-4, "pm": 1e-6,
    "inch": 25400.0, "in": 25400.0,
}  # fmt: skip
_SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0, "hour": 3600.0}


def _pixel_size(tiff: Any) -> tuple[dict[str, float], dict[str, str]]:
    """Micrometers along X, Y and Z and seconds along T, if the file has physical sizes.

    A resolution in inches is for printing and ignored.
    """
    if tiff.is_ome:
        sizes = _read_ome_sizes(tiff)
    elif tiff.is_imagej:
        sizes = _imagej_sizes(tiff.imagej_metadata or {}, tiff.pages.first.tags)
    elif (pixel := slide_pixel_size(tiff)) is not None:
        sizes = {"X": (pixel[1], "um"), "Y": (pixel[0], "um")}
    else:
        tags = tiff.pages.first.tags
        unit = tags.get("ResolutionUnit")
        in_centimeters = unit is not None and unit.value == 3
        sizes = _resolution(tags, {"X": "cm", "Y": "cm"}) if in_centimeters else {}
    scale, units = {}, {}
    for letter, (size, unit) in sizes.items():
        table, name = (_SECONDS, "s") if letter == "T" else (_MICROMETERS, "um")
        factor = table.get(unit.strip().lower())
        if factor is not None:
            scale[letter], units[letter] = size * factor, name
    return scale, units


def _read_ome_sizes(tiff: Any) -> dict[str, tuple[float, str]]:
    if (pixels := _ome_pixels(tiff)) is None:
        return {}
    sizes = {}
    for letter, size, unit, default in [
        *((axis, f"PhysicalSize{axis}", f"PhysicalSize{axis}Unit", "um") for axis in "XYZ"),
        ("T", "TimeIncrement", "TimeIncrementUnit", "s"),
    ]:
        value = _number(pixels.get(size))
        if value is not None:
            sizes[letter] = (value, pixels.get(unit, default))
    return sizes


def _ome_elements(tiff: Any) -> list[ElementTree.Element]:
    """All elements of OME-XML; none where it is damaged, or there is none."""
    with suppress(ElementTree.ParseError):
        return list(ElementTree.fromstring(tiff.ome_metadata).iter()) if tiff.is_ome else []
    return []


def _ome_pixels(tiff: Any) -> ElementTree.Element | None:
    return next((each for each in _ome_elements(tiff) if each.tag.endswith("Pixels")), None)


def _imagej_sizes(metadata: Mapping[str, Any], tags: Any) -> dict[str, tuple[float, str]]:
    unit = str(metadata.get("unit", ""))
    sizes = _resolution(tags, {"X": unit, "Y": str(metadata.get("yunit", unit))})
    if (spacing := _number(metadata.get("spacing"))) is not None:
        sizes["Z"] = (abs(spacing), str(metadata.get("zunit", unit)))
    if (interval := _number(metadata.get("finterval"))) is not None:
        sizes["T"] = (interval, str(metadata.get("tunit", "s")))
    return sizes


def _resolution(tags: Any, units: Mapping[str, str]) -> dict[str, tuple[float, str]]:
    """Sizes of a pixel from the tags of its resolution, each with the unit of its axis."""
    sizes = {}
    for letter, unit in units.items():
        tag = tags.get(f"{letter}Resolution")
        if tag is not None and isinstance(tag.value, tuple) and len(tag.value) == 2:
            pixels, length = tag.value
            if pixels:
                sizes[letter] = (length / pixels, unit)
    return sizes


def _channel_names(tiff: Any, count: int) -> tuple[str, ...] | None:
    names: list[str] = []
    if tiff.is_ome:
        if (pixels := _ome_pixels(tiff)) is not None:
            channels = [element for element in pixels if element.tag.endswith("Channel")]
            names = [channel.get("Name", "") for channel in channels]
    elif tiff.is_imagej:
        labels = (tiff.imagej_metadata or {}).get("Labels") or []
        names = [str(label) for label in labels] if isinstance(labels, list) else []
    else:
        return _band_names(tiff.pages.first.tags, count)
    # ImageJ labels planes; they are channel names only if all planes are channels.
    return tuple(names) if count > 1 and len(names) == count and all(names) else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


TIFF = Reader(
    ("TIFF",),
    (".tif", ".tiff", ".ome.tif", ".ome.tiff", *SLIDE_ENDINGS),
    lambda _, start: start[:4] in _STARTS,
    read_tiff,
)


SOFTWARE = "napari-simmat"
OME_LENGTHS = {
    "m": ("m", 100.0),
    "cm": ("cm", 1.0),
    "mm": ("mm", 1e-1),
    "um": ("µm", 1e-4),
    "nm": ("nm", 1e-7),
}
"""Our units of length: OME's spelling, and their length in centimeters."""
OME_TIMES = {"s": "s", "ms": "ms", "us": "µs", "min": "min", "h": "h"}


def write_labels_tiff(
    path: Path,
    labels: NDArray[np.integer[Any]],
    *,
    axes: str,
    reference: ImageReference | None = None,
) -> None:
    """Write labels as OME-TIFF, zlib-compressed, with axes, pixel size, name and place on a map.

    Parameters
    ----------
    path
        The file to write; any suffix.
    labels
        Label image of any shape that ends in (Y, X).
    axes
        One letter per dimension, e.g. ``"TZYX"``. Letters unknown to OME become ``"Q"``, or
        another free letter of OME.
    reference
        What the labels keep of their image.
    """
    import tifffile

    reference = reference or ImageReference()
    scale, units = reference.scale, reference.units
    labels = np.ascontiguousarray(labels, dtype=label_dtype(int(labels.max(initial=0))))
    known = (letter if letter in "TZAPRHEQYX" else "Q" for letter in axes.upper())
    axes = distinct_axes("".join(known))
    sizes = _ome_size_attributes(scale, units)
    resolution = _pixels_per_centimeter(scale, units)
    names: dict[str, Any] = {"Name": reference.name} if reference.name else {}
    if reference.channels and reference.name:  # a label image has no channels of its own
        names["MapAnnotation"] = {f"channel {n}": c for n, c in enumerate(reference.channels)}
    tags = place_tags(reference.world)
    names |= _stage_planes(reference, math.prod(labels.shape[:-2]))
    # The UUID is one of the content, so that equal content gives equal files.
    kind: tuple[Any, ...] = (labels.shape, labels.dtype.name, axes, sorted(sizes.items()))
    kind += (*(each for each in (names, tags) if each),)
    digest = hashlib.sha256(repr(kind).encode())
    digest.update(labels.astype(labels.dtype.newbyteorder("<"), copy=False).data)
    tifffile.imwrite(
        path,
        labels,
        ome=True,
        bigtiff=labels.nbytes > 2**32 - 2**25,
        compression="zlib",
        photometric="minisblack",
        resolution=resolution,
        resolutionunit=None if resolution is None else "CENTIMETER",
        software=SOFTWARE,
        extratags=[(*tag, True) for tag in tags],
        metadata={
            "axes": axes,
            "Creator": SOFTWARE,
            "UUID": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest.hexdigest())}",
            **sizes,
            **names,
        },
    )


def write_channels_tiff(
    path: Path,
    channels: Mapping[str, NDArray[Any]],
    *,
    axes: str,
    reference: ImageReference,
    description: str = "",
    missing: int | None = None,
) -> None:
    """Write an image of several channels with their names, pixel size and place on a map.

    A plane on a map is a GeoTIFF with a band for each channel, as GDAL writes it; anything else is
    OME-TIFF.

    Parameters
    ----------
    path
        The file to write; any suffix.
    channels
        By name, (..., Y, X) of one shape and type.
    axes, reference
        A letter for each axis; what the image keeps of that which it was made from.
    description
        What was done to it.
    missing
        The value of pixels without data, if there are any.
    """
    import tifffile

    tags = [(*tag, True) for tag in place_tags(reference.world)]
    is_map = bool(tags) and axes == "YX"
    if missing is not None:
        tags.append((_GDAL_NODATA, _ASCII, 0, str(missing), True))
    values = np.stack(list(channels.values()), axis=-3)
    common: dict[str, Any] = {
        "photometric": "minisblack",
        "bigtiff": values.nbytes > 2**32 - 2**25,
        "software": SOFTWARE,
    }
    if is_map:
        tags.append((_GDAL_METADATA, _ASCII, 0, _band_descriptions(list(channels)), True))
        if len(channels) > 1:
            common["planarconfig"] = "separate"
        stored = values if len(channels) > 1 else values[0]
        about = description or None
        tifffile.imwrite(path, stored, extratags=tags, description=about, metadata=None, **common)
        return
    scale, units = reference.scale, reference.units
    resolution = _pixels_per_centimeter(scale, units)
    known = (letter if letter in "TZAPRHEQYX" else "Q" for letter in axes.upper())
    letters = distinct_axes("".join(known))
    digest = hashlib.sha256(repr((values.shape, values.dtype.name, list(channels))).encode())
    digest.update(np.ascontiguousarray(values).data)
    metadata: dict[str, Any] = {
        "axes": f"{letters[:-2]}CYX",
        "UUID": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest.hexdigest())}",
        "Channel": {"Name": list(channels)},
        **_ome_size_attributes(scale, units),
        **({"Name": reference.name} if reference.name else {}),
        **({"Description": description} if description else {}),
        **_stage_planes(reference, math.prod(values.shape[:-2])),
    }
    tifffile.imwrite(
        path,
        values,
        ome=True,
        metadata=metadata,
        extratags=tags,
        resolution=resolution,
        resolutionunit=None if resolution is None else "CENTIMETER",
        **common,
    )


def _stage_planes(reference: ImageReference, count: int) -> dict[str, Any]:
    """What tifffile takes for `count` planes at the position of the stage; empty without one."""
    known: dict[str, list[object]] = {}
    for axis, (position, unit) in reference.stage.items():
        known[f"Position{axis}"] = [position] * count
        known[f"Position{axis}Unit"] = [unit] * count
    return {"Plane": known} if known else {}


def _band_descriptions(names: Sequence[str]) -> str:
    """Names of bands as GDAL writes them."""
    root = ElementTree.Element("GDALMetadata")
    for number, name in enumerate(names):
        about = {"name": "DESCRIPTION", "sample": str(number), "role": "description"}
        ElementTree.SubElement(root, "Item", about).text = name
    return ElementTree.tostring(root, encoding="unicode")


_ASCII, _DOUBLE = 2, 12
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


def _ome_size_attributes(scale: Mapping[str, float], units: Mapping[str, str]) -> dict[str, object]:
    """OME attributes of the pixel size, for units that OME has."""
    sizes: dict[str, object] = {}
    for axis in "XYZ":
        unit = OME_LENGTHS.get(units.get(axis, ""))
        if axis in scale and unit is not None:
            sizes[f"PhysicalSize{axis}"] = float(scale[axis])
            sizes[f"PhysicalSize{axis}Unit"] = unit[0]
    unit_of_time = OME_TIMES.get(units.get("T", ""))
    if "T" in scale and unit_of_time is not None:
        sizes["TimeIncrement"] = float(scale["T"])
        sizes["TimeIncrementUnit"] = unit_of_time
    return sizes


def _pixels_per_centimeter(
    scale: Mapping[str, float], units: Mapping[str, str]
) -> tuple[float, float] | None:
    """TIFF's resolution (X, Y), for readers without OME; None if unknown."""
    lengths = [scale.get(a, 0) * OME_LENGTHS.get(units.get(a, ""), ("", 0.0))[1] for a in "XY"]
    # A TIFF rational holds 32 bits.
    if not all(length > 0 and 1e-4 < 1 / length < 1e9 for length in lengths):
        return None
    return 1 / lengths[0], 1 / lengths[1]
