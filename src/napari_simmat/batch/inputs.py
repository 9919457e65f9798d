"""Which images a run is given: files, folders, patterns and manifests become a list."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from napari_simmat.batch.manifest import read_manifest
from napari_simmat.engine.formats.dicom import images_in, once_each
from napari_simmat.engine.formats.reading import (
    IMAGE_ENDINGS,
    is_image_file,
    is_image_folder,
    stem_of,
)
from napari_simmat.engine.formats.zarr_images import MARKS, is_zarr
from napari_simmat.words import format_list

SHOWN = 3
"""How many files without a place in a run are named; of more, the number is said."""


@dataclass(frozen=True)
class Input:
    """An image that a run is given.

    Parameters
    ----------
    image
        A file, or a folder that is one image (OME-Zarr, DICOM).
    folder
        Where it lay below the folder that was given; mirrored below the output folder.
    named
        Whether the user named this very image: then that it cannot be used is an error.
    prompts
        What a manifest says: a file, ``"auto"``, ``"same-stem"`` or None for what the run says.
    channels, channel_axis
        What a manifest says; None for what the run says.
    """

    image: Path
    folder: Path = Path()
    named: bool = False
    prompts: str | None = None
    channels: tuple[int | str, ...] | None = None
    channel_axis: int | None = None


@dataclass
class Inputs:
    """The images of a run, and what was met beside them.

    Parameters
    ----------
    images
        In a fixed order: as given, within a folder by name.
    others
        Files of a folder that are no images by their name.
    """

    images: list[Input] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def find_inputs(paths: Sequence[Path], *, pattern: str = "", outside: bool = False) -> Inputs:
    """Find the images that are meant.

    Parameters
    ----------
    paths
        Image files; folders, searched with their subfolders; patterns such as ``data/**/*.tif``;
        manifests (`read_manifest`). Of slices of a DICOM series the first stands for all.
    pattern
        Which files of a folder count, e.g. ``*.tif`` or ``plate*/*.png``, compared with the path
        below the folder; all with an image's ending by default.
    outside
        Whether a manifest may name files outside its folder.

    Raises
    ------
    ValueError, OSError
        If a path leads nowhere or a manifest cannot be read; one sentence says which.
    """
    found = Inputs()
    for path in paths:
        path = Path(os.path.expanduser(path))  # which leaves a name such as ~$a.tif
        if path.suffix.lower() == ".csv" and path.is_file():
            found.images += [
                Input(
                    row.image,
                    folder=row.folder,
                    named=True,
                    prompts=row.prompts,
                    channels=row.channels,
                    channel_axis=row.channel_axis,
                )
                for row in read_manifest(path, outside=outside)
            ]
        elif path.is_dir() and not is_image_folder(path):
            _search(path, pattern, found)
        elif path.exists():
            found.images.append(Input(_with_name(path), named=True))
        elif glob.has_magic(str(path)):
            found.images += _matching(path)
        else:
            raise FileNotFoundError(f"There is no file {path}; check its name and folder.")
    kept = set(once_each([each.image for each in found.images if each.prompts is None]))
    found.images = [each for each in found.images if each.prompts or each.image in kept]
    return found


def _search(folder: Path, pattern: str, found: Inputs) -> None:
    """Add the images below a folder, in the order of their names."""
    before = len(found.images)
    for path in _walk(folder):
        if _fits(path, folder, pattern):
            found.images.append(Input(_with_name(path), path.relative_to(folder).parent))
        else:
            found.others.append(path)
    if len(found.images) == before:
        wanted = (
            f"that fits {pattern}"
            if pattern
            else f"with an image's ending ({format_list(IMAGE_ENDINGS)})"
        )
        raise ValueError(
            f"There is no file {wanted} in {folder}. Choose another folder or pattern."
        )


def _fits(path: Path, folder: Path, pattern: str) -> bool:
    """Whether a file counts; a folder of DICOM does with any of its files."""
    if not pattern:
        return path.is_dir() or is_image_file(path)
    of_series = path.is_dir() and not is_image_folder(path)
    return any(
        fnmatch(each.relative_to(folder).as_posix() if "/" in pattern else each.name, pattern)
        for each in (path, *(path.iterdir() if of_series else ()))
    )


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder and folders that are one image; nothing that is hidden.

    A Zarr group of images, such as a plate of OME-Zarr, is a folder of images.
    Links to folders are not followed: they can lead in circles. DICOM series are one image each,
    beside which other files of their folder do not count.
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
            if entry.is_file() and not series and entry.name not in MARKS:
                yield path
        elif is_image_folder(path):
            yield path
        else:
            yield from _walk(path)


def _matching(pattern: Path) -> Iterable[Input]:
    """The images that a pattern matches, mirrored from its first part that is a pattern.

    A folder that is called like a part, as ``run [2]``, is meant itself.
    """
    root = Path(pattern.anchor)
    for part in pattern.parts[len(Path(pattern.anchor).parts) : -1]:
        if glob.has_magic(part) and not (root / part).is_dir():
            break
        root = root / part
    names = glob.glob(str(pattern.relative_to(root)), root_dir=root, recursive=True)
    found = dict.fromkeys(path for name in sorted(names) for path in _images_of(root / name))
    if not found:
        raise FileNotFoundError(f"No file fits {pattern}; check the pattern and its folder.")
    return [Input(path, path.parent.relative_to(root)) for path in found]


def _images_of(path: Path) -> Iterable[Path]:
    """What a pattern matched, if it is an image, or the images of a plate or of DICOM series."""
    if path.is_file() or is_image_folder(path):
        return [path]
    if not path.is_dir() or not os.access(path, os.R_OK):
        return []
    return _walk(path) if is_zarr(path) else images_in(path) or []


def _with_name(image: Path) -> Path:
    """The image under its own name, after which its outputs are called; ``.`` is none."""
    return image.resolve() if image.name in ("", "..") else image


def same_stem_siblings(image: Path, endings: Iterable[str]) -> list[Path]:
    """Files beside an image whose name is its stem and one of `endings`."""
    stem = stem_of(image)
    candidates = [image.with_name(stem + ending) for ending in endings]
    return [path for path in candidates if path.is_file() and path != image]
