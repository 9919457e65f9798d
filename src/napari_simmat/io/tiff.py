"""Read TIFF and OME-TIFF: pixels with their axes, and which files belong to them."""

from __future__ import annotations

import math
import os
import re
import struct
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, format_shape
from napari_simmat.io.axes import planes_last
from napari_simmat.io.geotiff import georeference, is_geotiff, place_notes
from napari_simmat.io.image_file import TURNED, ImageFile, LazyArray, Reader, ReadOptions
from napari_simmat.io.limits import Limits
from napari_simmat.io.openslide import read_openslide
from napari_simmat.io.pyramid import smaller_part
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.refusals import RefusedFileError, check_memory
from napari_simmat.io.slides import SLIDE_ENDINGS, is_pyramid, main_series, slide_note
from napari_simmat.io.tiff_metadata import (
    BAND,
    SOFTWARE,
    band_name,
    band_names,
    channel_names,
    image_name,
    ome_elements,
    ome_pixels,
    pixel_size,
    stage_position,
)

_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff(path: Path, options: ReadOptions) -> ImageFile:
    """Read the first image of a TIFF, lazily if it is large; of a pyramid the finest level."""
    import tifffile

    limits = options.limits
    notes = _walk_pages(path, limits)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        limits.check_array(path.name, page.shape, page.dtype or np.uint8)
        _check_description(path, page.description, limits)
        others = _other_files(path, tiff, limits)
        if tiff.is_bif or int(page.compression) == _APERIO_YCBCR:
            return read_openslide(path, options)  # tiles that overlap, colors not told as such
        series = main_series(tiff)
        axes = _axes(path, series.axes, series.shape)
        _check_series(path, series, limits)
        notes += _series_notes(tiff, series, others)
        reference = georeference(tiff, path)
        notes += [] if options.palette else _display_notes(tiff)
        notes += place_notes(tiff, path, reference)
        scale, units = pixel_size(tiff)
        if reference.scale or is_geotiff(tiff, reference):
            scale, units = dict(reference.scale), dict(reference.units)
        sizes = dict(zip(axes, series.shape, strict=True))
        is_rgb = "S" in axes and _is_rgb(page)
        names = channel_names(tiff, sizes.get("C", sizes.get("S", 1)))
        band = band_name(tiff) if names is None and not is_rgb else ""
        if sizes.get("S") == 4 and not is_rgb and names is None:
            names = tuple(BAND.format(n) for n in range(1, 5))  # or it would be taken as RGBA
        valid = _mask(tiff)
        data, levels = _pixels(path, tiff, series, axes, options)
    data, axes = planes_last(data, axes)
    return ImageFile(
        path,
        data,
        axes,
        levels=levels,
        channel_names=names,
        scale=scale,
        units=units,
        world=reference.world,
        stage=stage_position(tiff, notes),
        missing=reference.missing,
        valid=valid,
        name=image_name(tiff),
        band=band,
        are_labels=f'Creator="{SOFTWARE}' in (tiff.ome_metadata or ""),
        rgb=is_rgb,
        files=(path, *others) if others else (),
        notes=tuple(notes),
    )


def _check_series(path: Path, series: Any, limits: Limits) -> None:
    """Refuse what an image claims, if it is more than limits or the file hold."""
    if series.dtype is None:
        raise RefusedFileError(f"{path.name} mixes types of pixels; save it with one.")
    limits.check_array(path.name, series.shape, np.dtype(series.dtype))
    key = series.keyframe
    if key.is_contiguous:
        end = key.dataoffsets[0] + key.nbytes
        limits.check_stored(path.name, end, key.parent.filehandle.size)
    pieces = math.prod(key.chunked)
    limits.check_pieces(path.name, pieces, key.chunks)
    limits.check_stored(path.name, pieces, len(key.dataoffsets))


def _series_notes(tiff: Any, series: Any, others: Sequence[Path]) -> list[str]:
    """What the user should know: which image of the file is read, and what of it is elsewhere."""
    notes = list(filter(None, [slide_note(tiff)]))
    images = sum(not each.keyframe.subfiletype & _MASK for each in tiff.series)
    if images > 1:
        which = "first" if series is tiff.series[0] else "largest"
        notes.append(f"It holds {images} images; the {which} is read.")
    missing = sum(each is None for each in series._pages)
    if missing:
        notes.append(f"{missing} of its {len(series._pages)} planes are missing, and read as 0.")
    if others:
        notes.append(f"It continues in {format_list(file.name for file in others)}.")
    return notes


PALETTE = (
    "Its pixels are indices of a palette of colors, and are read as values; for the colors save it "
    "as RGB."
)
INVERTED = (
    "It says that 0 is white; its values are read as stored, so what is dark there is higher."
)
_ORIENTATION = 274
_MOSTLY = 0.75


def _display_notes(tiff: Any) -> list[str]:
    """How the file wants to be shown, where that differs from how its values are read."""
    page, notes = tiff.pages.first, []
    # ImageJ's look-up tables are a way to show intensities.
    if int(page.photometric) == _PALETTE and not tiff.is_imagej and not _is_gray(page.colormap):
        notes.append(PALETTE)
    if int(page.photometric) == _MIN_IS_WHITE:
        notes.append(INVERTED)
    tag = page.tags.get(_ORIENTATION)
    if tag is not None and tag.value in range(2, 9):
        notes.append(TURNED.format(int(tag.value)))
    return notes


def _is_gray(palette: Any) -> bool:
    """Whether a palette (3, N) is a ramp of gray, so that indices are intensities.

    Microscopes keep some of its entries for the colors of what they write into the picture.
    """
    if palette is None:
        return True
    colors = np.asarray(palette, np.int64)
    grays = colors[0, (colors == colors[:1]).all(0)]
    is_rising = np.mean(np.diff(grays) >= 0) >= _MOSTLY if len(grays) > 1 else False
    return bool(len(grays) >= _MOSTLY * colors.shape[1] and is_rising)


def _pixels(
    path: Path, tiff: Any, series: Any, axes: str, options: ReadOptions
) -> tuple[Any, tuple[Any, ...]]:
    """The pixels with the axes of the file, and those of coarser levels, Y and X last.

    A large image is read on access, plane by plane; so are all levels.
    """
    itemsize = np.dtype(series.dtype).itemsize
    sizes = dict(zip(axes, series.shape, strict=True))
    plane = sizes["Y"] * sizes["X"] * sizes.get("S", 1) * itemsize
    nbytes = math.prod(series.shape) * itemsize
    is_lazy = nbytes > options.lazy_above or bool(options.part)
    at_once = plane if is_lazy else nbytes
    if options.part or (options.in_parts and is_lazy):
        at_once = math.prod(series.keyframe.chunks) * itemsize
    check_memory(at_once, path.name, _smaller(series))
    coarser = _levels(path, series, options.limits)
    if not (is_lazy or coarser):
        return series.asarray(), ()
    # A chunk is a page, unless pages are huge, or parts of them are read.
    by_page = plane <= options.lazy_above and not options.part and not coarser
    finest, *others = _open_lazily(path, tiff.series.index(series), coarser, by_page)
    data = finest if is_lazy else series.asarray()
    return data, tuple(planes_last(each, axes)[0] for each in others)


def _open_lazily(path: Path, series: int, coarser: Sequence[int], by_page: bool) -> list[LazyArray]:
    """The finest level of an image and those of these numbers, which are read on access."""
    import tifffile
    import zarr

    chunk = "page" if by_page else None
    store: Any = tifffile.imread(path, aszarr=True, series=series, chunkmode=chunk)
    opened: Any = zarr.open(store, mode="r")
    arrays = [opened[str(level)] for level in (0, *coarser)] if coarser else [opened]
    lazy = [LazyArray(each, path.name) for each in arrays]
    store_in_use = _Closing(store)
    for each in lazy:
        weakref.finalize(each, store_in_use.keep)
    return lazy


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
            names = band_names(page.tags, count)
            if count > 1 and names is None:
                names = tuple(BAND.format(n) for n in range(1, count + 1))
            if (pixels := ome_pixels(tiff)) is not None:
                channels = sum(element.tag.endswith("Channel") for element in pixels)
                names = channel_names(tiff, channels)
            found = georeference(tiff, path)
            of_map = found.scale or is_geotiff(tiff, found)
            scale, units = (found.scale, found.units) if of_map else pixel_size(tiff)
            name = image_name(tiff)
            return replace(
                found,
                scale=scale,
                units=units,
                stage=stage_position(tiff, []),
                valid=_mask(tiff),
                channels=names or (),
                name=name,
            )
    except Exception:  # a broken file makes a reader raise anything
        return ImageReference()


def has_levels(path: Path) -> bool:
    """Whether a file is a TIFF whose image has coarser levels; False for one that is damaged."""
    import tifffile

    try:
        with path.open("rb") as file:
            if file.read(4) not in _STARTS:
                return False
        _walk_pages(path, Limits(), most=1)
        with tifffile.TiffFile(path) as tiff:
            return is_pyramid(tiff)
    except Exception:  # a broken file makes a reader raise anything
        return False


_MIN_IS_WHITE, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6
"""Photometric interpretations."""
_JPEGS = 6, 7, 34892
_APERIO_YCBCR = 33003
"""JPEG 2000 of Aperio that holds luminance and chroma and does not say so."""
_ALPHA = (1, 2)
"""Photometric interpretation of colors, and ExtraSamples of an alpha channel; another sample is a
channel like the others."""


def _is_rgb(page: Any) -> bool:
    """Whether a page holds red, green, blue, and nothing else but alpha."""
    alpha = len(page.extrasamples) == 1 and page.extrasamples[0] in _ALPHA
    # JPEG in tiles stores luminance and chroma, which its decoder makes colors of.
    packed = int(page.photometric) == _YCBCR and int(page.compression) in _JPEGS
    is_colored = int(page.photometric) == _RGB or packed
    return is_colored and page.samplesperpixel == 3 + alpha


_MASK, _REDUCED = 4, 1
"""Bits of NewSubfileType: a mask of another page; a smaller version of it."""


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
    for element in ome_elements(tiff):
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


TIFF = Reader(
    ("TIFF",),
    (".tif", ".tiff", ".ome.tif", ".ome.tiff", *SLIDE_ENDINGS),
    lambda _, start: start[:4] in _STARTS,
    read_tiff,
)
