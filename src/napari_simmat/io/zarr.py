"""OME-Zarr and plain Zarr: read a folder that is one image; create label images."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from napari_simmat.io.axes import names_of_channels, planes_last, unnamed_axes
from napari_simmat.io.files import OutputError, atomic_write
from napari_simmat.io.image_file import ImageFile, LazyArray, Reader, ReadOptions
from napari_simmat.io.limits import Limits
from napari_simmat.io.ome_zarr import UNITS, axis_letters, first_path, read_multiscale
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.refusals import RefusedFileError, check_memory

ZARR_MARKER_FILES = (".zattrs", ".zarray", ".zgroup", "zarr.json")
"""Files that mark a folder as Zarr."""
METADATA_FILES = (*ZARR_MARKER_FILES, ".zmetadata")
"""Files that describe a part of it."""
BIOFORMATS_LAYOUT = "bioformats2raw.layout"
"""Marks a group that holds the images of one file, numbered from 0."""
_UNIT_NAMES = {short: name for name, short in UNITS.items()}


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((path / name).is_file() for name in ZARR_MARKER_FILES)


def holds_images(path: Path) -> bool:
    """Whether a Zarr folder is a group of images, such as a plate of OME-Zarr, not an image."""
    described = set(attributes_of(path))
    if (path / ".zarray").is_file() or described & {"multiscales", BIOFORMATS_LAYOUT}:
        return False
    if described & {"plate", "well"}:
        return True
    return any(is_zarr(each) for each in path.iterdir() if each.is_dir())


def read_zarr(path: Path, options: ReadOptions) -> ImageFile:
    """Read the finest level of an OME-Zarr image, or a Zarr array; large ones chunk by chunk."""
    import zarr

    if BIOFORMATS_LAYOUT in attributes_of(path) and (path / "0").is_dir():
        first = read_zarr(path / "0", options)
        note = ("It holds several images; the first is read.",) if (path / "1").is_dir() else ()
        return replace(first, path=path, notes=first.notes + note)
    files = _files(path, options.limits)
    opened: Any = zarr.open(path, mode="r")
    if not hasattr(opened, "array_keys"):
        letters = getattr(opened.metadata, "dimension_names", None)  # version 2 has none
        names = [str(name or "q").lower() for name in letters or ()]
        axes = unnamed_axes(path, len(opened.shape))
        if names:
            axes = _checked_axes(path, axis_letters(names), names)
        _check_blosc(path, opened, files)
        data, axes = planes_last(_checked(opened, path, axes, options, _pieces(files)), axes)
        return ImageFile(path, data, axes, files=tuple(files))
    metadata = _metadata(path, opened)
    inside = PurePosixPath(first_path(metadata))
    apart = inside.is_absolute() or ".." in inside.parts or "\\" in str(inside)
    if apart or not (path / inside).is_dir():
        raise RefusedFileError(
            f"{path.name} refers to {inside}, which is not within it; write it again."
        )
    array = opened[str(inside)]
    described = read_multiscale(path.name, metadata, len(array.shape))
    axes = _checked_axes(path, described.letters, described.names)
    channels = array.shape[axes.index("C")] if "C" in axes else 1
    within = [file for file in files if file.is_relative_to(path / inside)]
    _check_blosc(path, array, within)
    # Label images leave out empty chunks, which may be nearly all.
    stored = None if "image-label" in metadata else _pieces(within)
    levels = [
        planes_last(each, axes)[0]
        for each in _coarser(path, opened, metadata, array, axes, options.limits)
    ]
    data, axes = planes_last(_checked(array, path, axes, options, stored), axes)
    return ImageFile(
        path,
        data,
        axes,
        levels=tuple(levels),
        channel_names=_channel_names(metadata, channels),
        are_labels="image-label" in metadata,
        scale=described.scale,
        units=described.units,
        origin=described.origin,
        notes=described.notes,
        files=(
            *(path / name for name in ZARR_MARKER_FILES if (path / name).is_file()),
            *within,
        ),
    )


def _coarser(
    path: Path, group: Any, metadata: Mapping[str, Any], finest: Any, axes: str, limits: Limits
) -> list[Any]:
    """The arrays of the coarser levels, up to the first that is not like the finest."""
    found = []
    for described in metadata["multiscales"][0]["datasets"][1:]:
        inside = PurePosixPath(str(described.get("path", "")))
        apart = inside.is_absolute() or ".." in inside.parts or "\\" in str(inside)
        if apart or not (path / inside).is_dir():
            break
        array = group[str(inside)]
        is_alike = (
            hasattr(array, "chunks")
            and len(array.shape) == len(finest.shape)
            and array.dtype == finest.dtype
            and all(
                one == other if letter not in "YX" else one <= other
                for letter, one, other in zip(axes, array.shape, finest.shape, strict=True)
            )
        )
        if not is_alike:
            break
        lazily = ReadOptions(0, limits=limits)
        found.append(_checked(array, path, axes, lazily, None))
    return found


def read_zarr_reference(path: Path) -> ImageReference:
    """Sizes and place of an OME-Zarr image, for one that another program has opened.

    Of a folder that does not say them, or is damaged, it is the file alone.
    """
    attributes = attributes_of(path)
    if BIOFORMATS_LAYOUT in attributes:
        attributes = attributes_of(path / "0")
    try:
        found = read_multiscale(path.name, attributes, len(_named_axes(attributes)))
    except Exception:  # damaged metadata raise anything
        return ImageReference(file=path)
    return ImageReference(scale=found.scale, units=found.units, origin=found.origin, file=path)


def zarr_plane_axes(path: Path) -> str:
    """Letters of the axes of an OME-Zarr image without channels, in the order of its file."""
    attributes = attributes_of(path)
    return axis_letters(_named_axes(attributes)).replace("C", "")


def _named_axes(attributes: Mapping[str, Any]) -> list[Any]:
    """The axes that the first image names, those of its first coordinate system from 0.6 on."""
    image = attributes["multiscales"][0]
    return list(image.get("axes") or image["coordinateSystems"][0]["axes"])


def _metadata(path: Path, group: Any) -> Mapping[str, Any]:
    """The OME metadata of a group, from any version of OME-Zarr."""
    attributes = dict(group.attrs)
    metadata = attributes.get("ome", attributes)
    if isinstance(metadata, Mapping) and metadata.get("multiscales"):
        return metadata
    inside = sorted([*group.array_keys(), *group.group_keys()])
    listed = f" (it holds {', '.join(inside[:8])})" if inside else ""
    raise RefusedFileError(
        f"{path.name} is a Zarr group, but not one OME-Zarr image{listed}; give an image or array "
        "within it."
    )


def attributes_of(path: Path) -> Mapping[str, Any]:
    """The attributes of a Zarr folder, or its OME metadata, of any version; empty if unreadable."""
    try:
        old = (path / ".zattrs").is_file()
        file = path / (".zattrs" if old else "zarr.json")
        Limits().check(path.name, "metadata_bytes", file.stat().st_size, "description")
        attributes = json.loads(file.read_text("utf-8"))
        if not old:
            attributes = attributes.get("attributes", {})
        return dict(attributes.get("ome", attributes))
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return {}


def _pieces(files: Sequence[Path]) -> int:
    return sum(file.name not in METADATA_FILES for file in files)


def _checked(array: Any, path: Path, axes: str, options: ReadOptions, stored: int | None) -> Any:
    """Load a small array; refuse one that could run code, exhaust the memory or take hours."""
    limits, shape, dtype = options.limits, array.shape, np.dtype(array.dtype)
    stages = [
        *(getattr(array, "filters", None) or ()),
        *(getattr(array, "compressors", None) or ()),
    ]
    stages.append(getattr(array, "serializer", None))
    if dtype.kind == "O" or any("pickle" in repr(stage).lower() for stage in stages):
        raise RefusedFileError(
            f"{path.name} holds Python objects, which can run code when they are read; write plain "
            "numbers."
        )
    limits.check_array(path.name, shape, dtype)
    piece = getattr(array, "shards", None) or array.chunks
    at_once = math.prod(piece) * dtype.itemsize
    nbytes = math.prod(shape) * dtype.itemsize
    whole = nbytes <= options.lazy_above and not options.part
    limits.check(path.name, "image_bytes", at_once, "one chunk")
    check_memory(max(at_once, nbytes if whole else 0), path.name)
    read = range(len(shape)) if whole else [n for n, letter in enumerate(axes) if letter in "YXS"]
    for pieces in {piece, array.chunks}:  # a shard is cut into chunks
        cut = [max(1, pieces[n]) for n in read]
        count = math.prod(math.ceil(shape[n] / side) for n, side in zip(read, cut, strict=True))
        limits.check_pieces(path.name, count, cut, stored if pieces == piece else None)
    if not whole:
        return LazyArray(array, path.name)
    return np.asarray(array[...])


_MOST_OPENED = 2**12
"""Chunks that are opened before any is asked for, which takes 0.1 s."""


def _check_blosc(path: Path, array: Any, files: Sequence[Path]) -> None:
    """Refuse a chunk of Blosc that is shorter than it says.

    Blosc would unpack what happens to be in memory behind it.
    """
    packers = getattr(array, "compressors", None) or ()
    is_blosc = any("blosc" in type(packer).__name__.lower() for packer in packers)
    if not is_blosc or getattr(array, "shards", None) or len(files) > _MOST_OPENED:
        return
    for file in files:
        if not re.fullmatch(r"[\d.]+", file.name):
            continue
        with file.open("rb") as stream:
            said = int.from_bytes(stream.read(16)[12:], "little")
        if file.stat().st_size < said or not said:
            raise RefusedFileError(
                f"{path.name} has a chunk that is cut short, {file.relative_to(path).as_posix()}; "
                "copy it again."
            )


def _checked_axes(path: Path, letters: str, names: Sequence[str]) -> str:
    several = sum(name in ("c", "channel") for name in names) > 1
    if "Y" not in letters or "X" not in letters or several:
        raise RefusedFileError(
            f"{path.name} has the axes {', '.join(names)}; an image needs y and x, and at most one "
            "c; save it with these."
        )
    return letters


def _channel_names(metadata: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    channels = (metadata.get("omero") or {}).get("channels") or ()
    names = [
        str(channel.get("label") or "") if isinstance(channel, Mapping) else ""
        for channel in channels
    ]
    return names_of_channels(names, count)


def _files(path: Path, limits: Limits) -> list[Path]:
    """All files of a Zarr folder, sorted; refuses links out of it and huge metadata."""
    root = path.resolve()
    files = []
    for folder, folders, names in os.walk(path):
        for name in (*folders, *names):
            file = Path(folder, name)
            if file.is_symlink() and not file.resolve().is_relative_to(root):
                raise RefusedFileError(
                    f"{path.name} holds the link {file.relative_to(path).as_posix()}, which leads "
                    "outside it; copy what it means to its place."
                )
        for name in names:
            if name in METADATA_FILES:
                size = Path(folder, name).stat().st_size
                limits.check(path.name, "metadata_bytes", size, "description")
            files.append(Path(folder, name))
    return sorted(files)


ZARR = Reader(
    ("OME-Zarr",), (".ome.zarr",), lambda path, _: path.is_dir() and is_zarr(path), read_zarr
)


ZarrVersion = Literal["0.4", "0.5", "0.6"]
"""Versions of OME-Zarr in which labels are written."""
SYSTEM = "physical"
"""The coordinate system of labels in 0.6."""
LABEL_CHUNK = 1024
_AXIS_ORDER = {"T": 0, "Z": 2, "Y": 2, "X": 2}
"""An axis of another letter comes between time and space; the order of space is the image's."""
_LEAST_LEVEL = 256
"""Halving stops when the longer side has no more pixels than this."""


@contextmanager
def label_zarr(
    path: Path, shape: tuple[int, int], pixel: tuple[float, float] = (1.0, 1.0), unit: str = ""
) -> Iterator[Any]:
    """Create an OME-Zarr label image (0.5, a pyramid) to be filled in the block.

    It appears under its name when the block succeeds; else nothing is left.

    Parameters
    ----------
    path
        Ends in ``.ome.zarr``.
    shape
        Height and width.
    pixel, unit
        Height and width of a pixel in `unit`, e.g. ``"micrometer"``.

    Yields
    ------
    zarr array (Y, X) of uint32, in chunks of 1024 x 1024; empty chunks take no space.

    Raises
    ------
    FileExistsError
        If the path exists.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists already. Remove it, or choose another name.")
    scale = dict(zip("YX", pixel, strict=True))
    units = dict.fromkeys("YX", UNITS.get(unit, unit))
    with atomic_write(path) as part:
        reference = ImageReference(scale=scale, units=units)
        yield create_labels(part, path.name.removesuffix(".ome.zarr"), shape, "YX", reference)
        complete_labels(part)


def write_labels_zarr(
    path: Path,
    labels: Any,
    axes: str,
    reference: ImageReference | None = None,
    properties: Mapping[int, Mapping[str, Any]] | None = None,
    name: str = "labels",
) -> None:
    """Write labels as an OME-Zarr label image (0.5, a pyramid) into a new folder.

    Parameters
    ----------
    path
        The folder.
    labels, axes
        (..., Y, X) of at most five axes, in the order of OME-Zarr: T, one other, Z, Y, X.
    reference
        What the labels keep of their image.
    properties
        What is known about objects, such as ``{"class": "cell"}``, by label.
    name
        Of the label image.
    """
    array = create_labels(path, name, labels.shape, axes, reference, labels.dtype)
    array[...] = labels
    complete_labels(path, properties)


def create_labels(
    folder: Path,
    name: str,
    shape: tuple[int, ...],
    axes: str = "YX",
    reference: ImageReference | None = None,
    dtype: Any = "uint32",
    version: ZarrVersion = "0.5",
    source: str = "",
) -> Any:
    """Create an empty OME-Zarr label image in a new folder; `complete_labels` when it is filled.

    `source` is the path to its image, by default from where that is.

    Raises ValueError if OME-Zarr does not have these axes in this order.
    """
    import zarr

    if problem := axes_problem(axes):
        raise ValueError(problem)
    reference = reference or ImageReference()
    scale, units = reference.scale, reference.units
    root = zarr.open_group(folder, mode="w-", zarr_format=2 if version == "0.4" else 3)
    array = _create_level(root, "0", shape, dtype, tuple(axes.lower()))
    described: list[dict[str, str]] = []
    for letter in axes:
        axis = {"name": letter.lower()}
        if letter in _AXIS_ORDER:
            axis["type"] = "time" if letter == "T" else "space"
        if letter in _AXIS_ORDER and (unit := _UNIT_NAMES.get(units.get(letter, ""))):
            axis["unit"] = unit
        described.append(axis)
    # Sizes without a unit are kept, too: the image has them, and its labels lie on it.
    sizes = [float(scale.get(letter, 1.0)) for letter in axes]
    origin = [float(reference.origin.get(letter, 0.0)) for letter in axes]
    image = reference.file
    known: dict[str, Any] = {}
    if not source and image is not None and image.is_dir() and is_zarr(image):
        source = os.path.relpath(image, folder).replace(os.sep, "/")
    if source:
        known["source"] = {"image": source}
    multiscale: Any = {"name": name, "datasets": [_level("0", sizes, origin, version)]}
    if version == "0.6":
        multiscale["coordinateSystems"] = [{"name": SYSTEM, "axes": described}]
    else:
        multiscale["axes"] = described
    metadata: dict[str, Any] = {"version": version, "multiscales": [multiscale]}
    if version == "0.4":
        multiscale["version"] = known["version"] = metadata.pop("version")
    _describe(root, {**metadata, "image-label": known})
    return array


def _describe(root: Any, metadata: Mapping[str, Any]) -> None:
    """Write the OME metadata of a group where its version has them."""
    if root.metadata.zarr_format == 2:
        root.attrs.update(metadata)
    else:
        root.attrs["ome"] = metadata


def axes_problem(axes: str) -> str:
    """Why OME-Zarr cannot hold these axes, in one sentence; empty if it can."""
    order = [_AXIS_ORDER.get(letter, 1) for letter in axes]
    if order == sorted(order) and order.count(1) < 2 and set(axes[-2:]) == {"Y", "X"}:
        return ""
    return (
        f"OME-Zarr has the axes T, one other, Z, Y, X in this order, but the objects have {axes}; "
        "choose another format."
    )


def complete_labels(
    folder: Path, properties: Mapping[int, Mapping[str, Any]] | None = None
) -> None:
    """Add the coarser levels to a label image that is filled, and what is known about its objects.

    Each level has every second row and column of the one before, so labels stay labels.
    """
    import zarr

    root = zarr.open_group(folder, mode="r+")
    described: Any = dict(root.attrs)
    described = described.get("ome", described)
    [multiscale] = described["multiscales"]
    version: ZarrVersion = described.get("version") or multiscale["version"]
    fine: Any = root["0"]
    finest = multiscale["datasets"][0]["coordinateTransformations"]
    if version == "0.6":
        finest = finest[0]["transformations"]
    sizes = list(finest[0]["scale"])
    # The first pixel of each level is that of the finest, not a mean, so it stays where it is.
    origin = finest[1]["translation"] if len(finest) > 1 else [0.0] * len(sizes)
    names = [axis["name"] for axis in _label_axes(multiscale)]
    while max(fine.shape[-2:]) > _LEAST_LEVEL:
        path = str(len(multiscale["datasets"]))
        shape = (*fine.shape[:-2], *((size + 1) // 2 for size in fine.shape[-2:]))
        coarse = _create_level(root, path, shape, fine.dtype, names)
        for at in np.ndindex(*shape[:-2]):
            for top in range(0, shape[-2], LABEL_CHUNK):
                for left in range(0, shape[-1], LABEL_CHUNK):
                    rows = slice(2 * top, 2 * (top + LABEL_CHUNK))
                    columns = slice(2 * left, 2 * (left + LABEL_CHUNK))
                    block = np.asarray(fine[(*at, rows, columns)])[::2, ::2]
                    if block.any():
                        there = slice(top, top + block.shape[0]), slice(left, left + block.shape[1])
                        coarse[(*at, *there)] = block
        sizes = [*sizes[:-2], 2 * sizes[-2], 2 * sizes[-1]]
        multiscale["datasets"].append(_level(path, sizes, origin, version))
        fine = coarse
    if properties:
        known = [{"label-value": int(label), **values} for label, values in properties.items()]
        described["image-label"]["properties"] = known
    _describe(root, described)


def _label_axes(multiscale: Mapping[str, Any]) -> Any:
    systems = multiscale.get("coordinateSystems")
    return systems[0]["axes"] if systems else multiscale["axes"]


def _create_level(
    root: Any, path: str, shape: tuple[int, ...], dtype: Any, axes: Sequence[str]
) -> Any:
    chunks = (*(1 for _ in shape[:-2]), *(min(LABEL_CHUNK, size) for size in shape[-2:]))
    more: dict[str, Any] = {"dimension_names": axes}
    if root.metadata.zarr_format == 2:  # it names no axes; OME-Zarr wants nested folders
        more = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    return root.create_array(path, shape=shape, chunks=chunks, dtype=dtype, fill_value=0, **more)


def _level(
    path: str, sizes: Sequence[float], origin: Sequence[float], version: ZarrVersion
) -> dict[str, Any]:
    """What a level says: the size of its pixels, and where the first one is unless that is 0."""
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": list(sizes)}]
    if any(origin):
        steps.append({"type": "translation", "translation": list(origin)})
    if version == "0.6":
        placed = {"input": {"path": path}, "output": {"name": SYSTEM}}
        steps = [{"type": "sequence", **placed, "transformations": steps}]
    return {"path": path, "coordinateTransformations": steps}


def check_is_no_image(path: Path) -> None:
    """Refuse to replace a folder that is an OME-Zarr image, or anything else but labels."""
    if path.is_dir() and "image-label" not in attributes_of(path):
        raise OutputError(
            f"{path} is a folder with something else than labels, so it is not replaced; choose "
            "another name."
        )


def read_label_properties(path: Path) -> dict[int, Mapping[str, Any]]:
    """What an OME-Zarr label image says about its objects, by label."""
    described = attributes_of(path).get("image-label")
    rows = described.get("properties") if isinstance(described, Mapping) else None
    return {
        int(row["label-value"]): row
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, Mapping) and isinstance(row.get("label-value"), int)
    }
