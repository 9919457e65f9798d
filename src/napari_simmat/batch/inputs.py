"""Find the images of a run from files, folders, patterns and manifests (CSV lists of images)."""

from __future__ import annotations

import csv
import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from napari_simmat._text import format_list
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.io.dicom import images_in, one_per_series
from napari_simmat.io.readers import IMAGE_ENDINGS, is_image_file, is_image_folder, stem_of
from napari_simmat.io.zarr import ZARR_MARKER_FILES, is_zarr

COLUMNS = ("image", "prompts", "channels", "channel_axis")
"""Columns of a manifest."""
MOST_BYTES = 2**26
"""Largest manifest that is read."""


@dataclass(frozen=True)
class InputImage:
    """An image of a run.

    Parameters
    ----------
    image
        A file, or a folder that is one image (OME-Zarr, DICOM).
    folder
        Its folder relative to the input folder; mirrored below the output folder.
    named
        Whether the user named this very image; it is then an error if it cannot be used.
    prompts
        From a manifest: a file, ``"auto"``, ``"same-stem"``, or None for the run's setting.
    selection
        From a manifest; what it leaves open is as in the run's settings.
    """

    image: Path
    folder: Path = Path()
    named: bool = False
    prompts: str | None = None
    selection: ChannelSelection = field(default_factory=ChannelSelection)


@dataclass
class InputImages:
    """The images of a run, and the other files found beside them.

    Parameters
    ----------
    images
        In the order given, within a folder by name.
    others
        Files in folders that are no images by their name.
    """

    images: list[InputImage] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def find_inputs(paths: Sequence[Path], *, pattern: str = "", outside: bool = False) -> InputImages:
    """Find the images of a run.

    Parameters
    ----------
    paths
        Image files; folders, searched recursively; patterns such as ``data/**/*.tif``; manifests
        (`read_manifest`). The first of several slices of a DICOM series stands for all.
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
    found = InputImages()
    for path in paths:
        path = Path(os.path.expanduser(path))  # Path.expanduser fails on names such as ~$a.tif
        if path.suffix.lower() == ".csv" and path.is_file():
            found.images += read_manifest(path, outside=outside)
        elif path.is_dir() and not is_image_folder(path):
            _search(path, pattern, found)
        elif path.exists():
            found.images.append(InputImage(_with_name(path), named=True))
        elif glob.has_magic(str(path)):
            found.images += _matching(path)
        else:
            raise FileNotFoundError(f"There is no file {path}; check its name and folder.")
    kept = set(one_per_series([each.image for each in found.images if each.prompts is None]))
    found.images = [each for each in found.images if each.prompts or each.image in kept]
    return found


def _search(folder: Path, pattern: str, found: InputImages) -> None:
    """Add the images below a folder, sorted by name."""
    before = len(found.images)
    for path in _walk(folder):
        if _is_input(path, folder, pattern):
            found.images.append(InputImage(_with_name(path), path.relative_to(folder).parent))
        else:
            found.others.append(path)
    if len(found.images) == before:
        endings = format_list(IMAGE_ENDINGS)
        wanted = f"that matches {pattern}" if pattern else f"with an image's ending ({endings})"
        raise ValueError(
            f"There is no file {wanted} in {folder}. Choose another folder or pattern."
        )


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

    A Zarr group of images, such as a plate of OME-Zarr, is a folder of images. Links to folders
    are not followed, since they can be circular. A DICOM series is one image; other files in its
    folder do not count.
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
        if entry.name.startswith("."):
            continue
        if not entry.is_dir(follow_symlinks=False):
            if entry.is_file() and not series and entry.name not in ZARR_MARKER_FILES:
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
    found = dict.fromkeys(path for name in sorted(names) for path in _images_of(root / name))
    if not found:
        raise FileNotFoundError(f"No file matches {pattern}; check the pattern and its folder.")
    return [InputImage(path, path.parent.relative_to(root)) for path in found]


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


def same_stem_siblings(image: Path, endings: Iterable[str]) -> list[Path]:
    """Files beside an image named by its stem and one of `endings`."""
    stem = stem_of(image)
    candidates = [image.with_name(stem + ending) for ending in endings]
    return [path for path in candidates if path.is_file() and path != image]


def read_manifest(path: Path, *, outside: bool = False) -> list[InputImage]:
    """Read a manifest.

    Its first line names the columns: ``image`` and optionally ``prompts`` (a file, ``auto`` or
    ``same-stem``), ``channels`` (names or numbers from 0, separated by commas or semicolons) and
    ``channel_axis``. Paths are relative to the manifest's folder. Empty cells take the run's
    settings.

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
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(
            f"{path.name} is larger than {MOST_BYTES // 2**20} MB; that is no list of images."
        )
    rows = []
    base = Path(os.path.normpath(path.absolute().parent))  # normalized like the paths of its rows
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, skipinitialspace=True)
            _check_columns(path, [str(name) for name in reader.fieldnames or ()])
            for values in reader:
                where = f"{path.name}, line {reader.line_num}"
                if None in values or None in values.values():
                    raise ValueError(
                        f"{where}: there are more or fewer values than columns; give one for each, "
                        "and put what holds commas into quotes."
                    )
                rows.append(_row(where, base, values, outside))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name} is no text in UTF-8 ({error.reason}); save it as CSV."
        ) from None
    except csv.Error as error:
        raise ValueError(f"{path.name} is no CSV ({error}); save it again.") from None
    if not rows:
        raise ValueError(f"{path.name} lists no image; add a line for each.")
    return rows


def parse_channels(text: str, separators: str = ",;") -> tuple[int | str, ...]:
    """Parse ``0,2,DAPI`` into numbers and names; refuses empty entries."""
    parts = [part.strip() for part in re.split(f"[{separators}]", text)]
    if not all(parts):
        raise ValueError(
            f"{text!r} has an empty entry; write names or numbers with commas between, e.g. "
            "0,2,DAPI."
        )
    return tuple(int(part) if part.isdecimal() else part for part in parts)


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
    if not cells["image"]:
        raise ValueError(f"{where}: the image is missing; give its file.")
    image = _resolve_in_folder(where, base, cells["image"], outside)
    if not image.exists():
        raise FileNotFoundError(
            f"{where}: there is no file {image}; paths are relative to the manifest's folder."
        )
    prompts = cells.get("prompts") or None
    if prompts not in (None, "auto", "same-stem"):
        file = _resolve_in_folder(where, base, prompts, outside)
        if not file.is_file():
            raise FileNotFoundError(
                f"{where}: there is no prompt file {file}; give a file, auto or same-stem."
            )
        prompts = str(file)
    axis = cells.get("channel_axis", "")
    if axis and not re.fullmatch(r"-?\d+", axis):
        raise ValueError(
            f"{where}: the channel_axis is {axis!r}; it is a whole number, counted from 0."
        )
    try:
        channels = parse_channels(cells["channels"]) if cells.get("channels") else None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    folder = image.parent.relative_to(base) if image.is_relative_to(base) else Path()
    selection = ChannelSelection(channels=channels, channel_axis=int(axis) if axis else None)
    return InputImage(image, folder, True, prompts, selection)


def _resolve_in_folder(where: str, base: Path, name: str, outside: bool) -> Path:
    """The file of a cell, after checking with resolved links that it is in the folder."""
    path = Path(os.path.normpath(base / os.path.expanduser(name)))
    if not outside and not path.resolve().is_relative_to(base.resolve()):
        raise ValueError(
            f"{where}: {name} lies outside the manifest's folder; move it there, or allow it with "
            "--allow-outside."
        )
    return path
