"""The images of a run: files, folders, patterns, captures, and manifests (CSV lists of images)."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from napari_simmat._text import format_list
from napari_simmat.engine.files.spatial import SPATIAL_ENDING
from napari_simmat.engine.settings import ChannelSelection, parse_channels
from napari_simmat.io.captures import (
    band_files,
    find_captures,
    home_of,
    is_capture,
    names_captures,
    propose_pattern,
)
from napari_simmat.io.dicom import images_in, one_per_series
from napari_simmat.io.files import read_csv
from napari_simmat.io.part import WHOLE, ImagePart
from napari_simmat.io.readers import IMAGE_ENDINGS, is_image_file, is_image_folder, stem_of
from napari_simmat.io.units import parse_pixel_size
from napari_simmat.io.zarr import ZARR_MARKER_FILES, is_zarr

AUTO, SAME_STEM = "auto", "same-stem"
RESULTS = "simmat-results"
"""Name of the folder of results where none is named."""
COLUMNS = (
    "image", "prompts", "channels", "channel_axis", "channel_files", "level", "mpp", "region",
    "pixel_size", "unit", "axes", "plane",
)  # fmt: skip
"""Columns of a manifest."""


@dataclass(frozen=True)
class InputImage:
    """An image of a run."""

    image: Path
    """A file, a folder that is one image (OME-Zarr, DICOM), or a capture whose bands are files."""
    folder: Path = Path()
    """Its folder relative to the input folder; mirrored below the output folder."""
    named: bool = False
    """Whether the user named this very image; it is then an error if it cannot be used."""
    prompts: str | None = None
    """From a manifest: a file, ``"auto"``, ``"same-stem"``, or None for the run's setting."""
    selection: ChannelSelection = field(default_factory=ChannelSelection)
    """From a manifest; what it leaves open is as in the run's settings."""
    channel_files: tuple[Path, ...] = ()
    """Files whose channels are added to those of `image`."""
    part: ImagePart = WHOLE
    """From a manifest; what it leaves open is as in the run's settings."""


@dataclass
class InputImages:
    """The images of a run, and the files of its folders that are no images by their name."""

    images: list[InputImage] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    proposal: str = ""
    """The pattern of captures that the names in a folder look like, one file for each band."""


def find_inputs(paths: Sequence[Path], *, pattern: str = "", outside: bool = False) -> InputImages:
    """Find the images of a run.

    Parameters
    ----------
    paths
        Image files; folders, searched recursively; patterns such as ``data/**/*.tif``, or of
        captures whose bands are files, ``data/{capture}_{band}.tif``; manifests (`read_manifest`).
        The first of several slices of a DICOM series stands for all.
    pattern
        Which files of a folder count, e.g. ``*.tif`` or ``plate*/*.png``, compared with the path
        below the folder; by default all with an image's ending.
    outside
        Whether a manifest may name files outside its folder.

    Raises
    ------
    ValueError, OSError
        If a path does not exist or a manifest cannot be read.
    """
    inputs = InputImages()
    for path in paths:
        path = Path(os.path.expanduser(path))  # Path.expanduser fails on names such as ~$a.tif
        if path.suffix.lower() == ".csv" and path.is_file():
            inputs.images += read_manifest(path, outside=outside)
        elif path.is_dir() and not is_image_folder(path):
            _search(path, pattern, inputs)
        elif os.path.exists(path):
            inputs.images.append(InputImage(_with_name(path), named=True))
        elif is_capture(path):
            inputs.images.append(InputImage(path, named=True))
        elif names_captures(path):
            _add_captures(path, inputs)
        elif glob.has_magic(str(path)):
            inputs.images += _matching(path)
        else:
            raise FileNotFoundError(f"There is no file {path}; check its name and folder.")
    alone = [each.image for each in inputs.images if each.prompts is None]
    first_slices = set(one_per_series(alone))
    inputs.images = [each for each in inputs.images if each.prompts or each.image in first_slices]
    return inputs


def _search(folder: Path, pattern: str, inputs: InputImages) -> None:
    """Add the images below a folder, sorted by name."""
    before = len(inputs.images)
    for path in _walk(folder):
        if _is_input(path, folder, pattern):
            inputs.images.append(InputImage(_with_name(path), path.relative_to(folder).parent))
        else:
            inputs.others.append(path)
    if not pattern:
        inputs.proposal = _proposed(folder, [one.image for one in inputs.images[before:]])
    if len(inputs.images) == before:
        endings = format_list(IMAGE_ENDINGS)
        kind = f"that matches {pattern}" if pattern else f"with an image's ending ({endings})"
        raise ValueError(f"There is no file {kind} in {folder}. Choose another folder or pattern.")


def _proposed(folder: Path, images: Sequence[Path]) -> str:
    """The pattern of captures that images below a folder look like; empty if they do not."""
    here = [image for image in images if image.parent == folder]
    pattern = propose_pattern([image.name for image in here or images])
    return str((folder if here else folder / "**") / pattern) if pattern else ""


def _is_input(path: Path, folder: Path, pattern: str) -> bool:
    """Whether a file counts; a DICOM folder counts if any of its files does."""
    if not pattern:
        return path.is_dir() or is_image_file(path)
    of_series = path.is_dir() and not is_image_folder(path)
    return any(
        fnmatch(each.relative_to(folder).as_posix() if "/" in pattern else each.name, pattern)
        for each in (path, *(path.iterdir() if of_series else ()))
    )


def _walk(folder: Path) -> Iterator[Path]:
    """Visible files below a folder, and folders that are one image.

    A Zarr group of images, such as a plate, is a folder of images. Files beside a DICOM series do
    not count. Links to folders are not followed, since they can be circular.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise OSError(
            f"{folder} cannot be read ({error.strerror}). Check its permissions."
        ) from None
    series = images_in(folder)
    yield from series or ()
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name.endswith(SPATIAL_ENDING):
            continue  # the latter holds the labels of an image that was segmented
        if not entry.is_dir(follow_symlinks=False):
            # A link that leads nowhere is reported.
            is_file = os.path.isfile(path) or (entry.is_symlink() and not os.path.exists(path))
            if is_file and not series and entry.name not in ZARR_MARKER_FILES:
                yield path
        elif is_image_folder(path):
            yield path
        else:
            yield from _walk(path)


def _matching(pattern: Path) -> Iterable[InputImage]:
    """The images that match a pattern; the output mirrors folders from its first wildcard on.

    A folder whose name only looks like a wildcard, such as ``run [2]``, is taken literally.
    """
    root = Path(pattern.anchor)
    for part in pattern.parts[len(Path(pattern.anchor).parts) : -1]:
        if glob.has_magic(part) and not (root / part).is_dir():
            break
        root = root / part
    names = glob.glob(str(pattern.relative_to(root)), root_dir=root, recursive=True)
    paths = dict.fromkeys(path for name in sorted(names) for path in _images_of(root / name))
    if not paths:
        raise FileNotFoundError(f"No file matches {pattern}; check the pattern and its folder.")
    return [InputImage(path, path.parent.relative_to(root)) for path in paths]


def _add_captures(pattern: Path, inputs: InputImages) -> None:
    """Add the captures that a pattern names; outputs mirror the folders that it leaves open."""
    root, images, others = find_captures(pattern)
    folders = [home_of(image).relative_to(root) for image in images]
    inputs.images += [InputImage(*each) for each in zip(images, folders, strict=True)]
    inputs.others += others


def folder_beside(image: Path) -> Path:
    """The folder of results where none is named: beside the image, folder or pattern."""
    path = Path(os.path.abspath(os.path.expanduser(image)))
    return next(parent for parent in path.parents if parent.is_dir()) / RESULTS


def shown_name(image: Path) -> str:
    """The name of an image for the user: that of its file, or of its capture."""
    return stem_of(image) if is_capture(image) else image.name


def _images_of(path: Path) -> Iterable[Path]:
    """The image at `path`, or the images of a plate or of DICOM series."""
    if path.is_file() or is_image_folder(path):
        return [path]
    if not path.is_dir() or not os.access(path, os.R_OK):
        return []
    return _walk(path) if is_zarr(path) else images_in(path) or []


def _with_name(image: Path) -> Path:
    """The path with a name for the outputs, which ``.`` and ``..`` lack."""
    return image.resolve() if image.name in ("", "..") else image


def is_prompt_file(path: Path) -> bool:
    """Whether a path can hold prompts: a file, or the folder of a label image in Zarr."""
    return os.path.isfile(path) or (os.path.isdir(path) and is_image_folder(path))


def read_manifest(path: Path, *, outside: bool = False) -> list[InputImage]:
    """Read a manifest.

    Its first line names the columns: ``image`` and optionally ``prompts`` (a file, ``auto`` or
    ``same-stem``), ``channels`` (names or numbers from 0, separated by commas or semicolons),
    ``channel_axis``, ``channel_files`` (separated by semicolons), whose channels are added, and
    ``level``, ``mpp`` and ``region`` (`ImagePart`, its numbers with semicolons, or in quotes).
    Paths are relative to the manifest's folder. Empty cells take the run's settings.

    Parameters
    ----------
    path
        The CSV file, UTF-8.
    outside
        Whether its paths may lead out of its folder.

    Raises
    ------
    ValueError, OSError
        If it is not a manifest, or a row is invalid; the message names the line.
    """
    (_, header), *lines = read_csv(path) or [(1, [])]
    names = [name.strip() for name in header]
    _check_columns(path, names)
    rows = []
    base = Path(os.path.normpath(path.absolute().parent))  # normalized like the paths of its rows
    for line, cells in lines:
        where = f"{path.name}, line {line}"
        if len(cells) != len(names):
            raise ValueError(
                f"{where}: there are more or fewer values than columns; give one for each, and "
                "put what holds commas into quotes."
            )
        rows.append(_row(where, base, dict(zip(names, cells, strict=True)), outside))
    if not rows:
        raise ValueError(f"{path.name} lists no image; add a line for each.")
    return rows


def _check_columns(path: Path, names: list[str]) -> None:
    known = format_list(COLUMNS)
    if "axis-0" in names:
        raise ValueError(
            f"{path.name} holds prompts, not a list of images; give it with --prompts."
        )
    if "image" not in names or len(set(names)) < len(names):
        raise ValueError(
            f"{path.name} has the columns {format_list(names) or '(none)'}; a manifest has image "
            f"and optionally others of {known}, each once."
        )
    if unknown := [name for name in names if name not in COLUMNS]:
        raise ValueError(
            f"{path.name} has the column {unknown[0]!r}; those of a manifest are {known}. Rename "
            "or remove it."
        )


def _row(where: str, base: Path, values: Mapping[str, str], outside: bool) -> InputImage:
    cells = {name: text.strip() for name, text in values.items()}
    if "\0" in "".join(cells.values()):
        raise ValueError(f"{where}: no file has a null character in its name; save the list anew.")
    if not cells["image"]:
        raise ValueError(f"{where}: the image is missing; give its file.")
    image = _resolve_in_folder(where, base, cells["image"], outside)
    if not (is_capture(image) or os.path.exists(image)):
        raise FileNotFoundError(
            f"{where}: there is no file {image}; paths are relative to the manifest's folder."
        )
    prompts = cells.get("prompts") or None
    if prompts not in (None, AUTO, SAME_STEM):
        file = _resolve_in_folder(where, base, prompts, outside)
        if not is_prompt_file(file):
            raise FileNotFoundError(
                f"{where}: there is no prompt file {file}; give a file, auto or same-stem."
            )
        prompts = str(file)
    axis = cells.get("channel_axis", "")
    if axis and not re.fullmatch(r"-?\d+", axis):
        raise ValueError(
            f"{where}: the channel_axis is {axis!r}; it is a whole number, counted from 0."
        )
    size = cells.get("pixel_size", "").replace(";", ",")
    try:
        channels = parse_channels(cells["channels"]) if cells.get("channels") else None
        selection = ChannelSelection(
            channels=channels,
            channel_axis=int(axis) if axis else None,
            pixel_size=parse_pixel_size(size) if size else None,
            unit=cells.get("unit", ""),
            axes=cells.get("axes", ""),
            plane=cells.get("plane", "").replace(";", ","),
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    names = filter(None, map(str.strip, cells.get("channel_files", "").split(";")))
    more = tuple(_resolve_in_folder(where, base, name, outside) for name in names)
    home = home_of(image)
    folder = home.relative_to(base) if home.is_relative_to(base) else Path()
    return InputImage(image, folder, True, prompts, selection, more, _part_of_row(where, cells))


def _part_of_row(where: str, cells: Mapping[str, str]) -> ImagePart:
    """What a row of a manifest says of the part that is read."""
    level, mpp = cells.get("level", ""), cells.get("mpp", "")
    try:
        return ImagePart(
            level=int(level) if level else None,
            mpp=float(mpp) if mpp else None,
            region=cells.get("region", "").replace(";", ","),
        )
    except ValueError as error:
        is_sentence = str(error).endswith(".")
        words = str(error) if is_sentence else f"level {level!r} or mpp {mpp!r} is no number."
        raise ValueError(f"{where}: {words}") from None


def _resolve_in_folder(where: str, base: Path, name: str, outside: bool) -> Path:
    """The file of a cell, after checking with resolved links that it is in the folder."""
    path = Path(os.path.normpath(base / os.path.expanduser(name)))
    files = [path]
    if is_capture(path):
        with suppress(OSError, ValueError):  # said when it is read
            files += band_files(path).values()
    root = os.path.realpath(base)
    if not outside and not all(Path(os.path.realpath(f)).is_relative_to(root) for f in files):
        raise ValueError(
            f"{where}: {name} lies outside the manifest's folder; move it there, or allow it with "
            "--allow-outside."
        )
    return path
