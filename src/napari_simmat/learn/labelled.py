"""Folders of images with label images: which belong together, and what is in them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.files import sha256_of
from napari_simmat.engine.formats.bioio_images import is_for_bioio
from napari_simmat.engine.formats.dicom import holds_dicom
from napari_simmat.engine.formats.image_file import ImageFile, same_but_for_ones
from napari_simmat.engine.formats.reading import (
    is_image_file,
    is_image_folder,
    read_image,
    read_labels,
    stem_of,
)
from napari_simmat.words import format_shape

logger = logging.getLogger(__name__)

ENDING = "_labels"
"""What follows an image's stem in the name of its label image."""
HOW = (
    f"put beside each image STEM.tif its label image STEM{ENDING}.tif, or the images in a folder "
    "images and the labels, of the same names, in a folder labels"
)


@dataclass(frozen=True)
class LabelledFile:
    """An image and its true objects.

    Parameters
    ----------
    name
        The image's stem.
    image, labels
        Files, or folders that are one image (OME-Zarr, DICOM).
    """

    name: str
    image: Path
    labels: Path

    def read(
        self, channel_axis: int | None = None, pixel_ratio: float = 1.0
    ) -> tuple[ImageFile, NDArray[Any]]:
        """The image, and its labels (..., Y, X) of the same shape without channels.

        Leading axes of one plane, which some programs write and others do not, make no difference.
        A warning says, once, where headers of NIfTI have the two run along other directions.

        Parameters
        ----------
        channel_axis
            Axis of the channels; None for what the file says.
        pixel_ratio
            Height of a pixel over its width, where the file does not say.

        Raises
        ------
        ValueError
            If a file cannot be read, or the shapes differ.
        """
        image, labels = read_image(self.image), read_labels(self.labels)
        axis = image.channel_axis if channel_axis is None else channel_axis
        sizes = [int(size) for size in image.data.shape]
        if axis is not None and -len(sizes) <= axis < len(sizes):
            del sizes[axis]
        if not same_but_for_ones(sizes, labels.shape):
            raise ValueError(
                f"{self.labels.name} has the shape {format_shape(labels.shape)}, "
                f"{self.image.name} without channels {format_shape(sizes)}; give labels of "
                "the image's size, or say with --channel-axis which axis holds channels."
            )
        if image.affine is not None and labels.affine is not None:
            _compare_directions(self.image, image.affine, self.labels, labels.affine)
        return replace(image, pixel_ratio=pixel_ratio), np.asarray(labels.data).reshape(sizes)


def find_labelled(folder: Path) -> list[LabelledFile]:
    """Images with labels, sorted by name: STEM.tif and STEM_labels.tif, or images/ and labels/.

    STEM may be a folder that is one image, too. What lacks its labels or its image is left out with
    a warning.

    Raises
    ------
    ValueError, OSError
        If there are none, or a name is not of one image alone; one sentence says what to do.
    """
    images, labels = files_by_stem(folder)
    pairs = [
        LabelledFile(stem, path, labels[stem]) for stem, path in images.items() if stem in labels
    ]
    if not pairs:
        raise ValueError(f"No image in {folder} has labels; {HOW}.")
    alone = [path.name for stem, path in images.items() if stem not in labels]
    if alone:
        logger.warning("%d without labels left out: %s.", len(alone), _listed(alone))
    alone = [path.name for stem, path in labels.items() if stem not in images]
    if alone:
        logger.warning("%d without an image left out: %s.", len(alone), _listed(alone))
    return pairs


def files_by_stem(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The images and the label images of a folder by the image's stem, whether they match or not.

    Raises
    ------
    ValueError, OSError
        If there is no image, or two have one stem.
    """
    if not folder.exists():
        raise FileNotFoundError(f"There is no folder {folder}; check its name.")
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; give the folder that holds images, and {HOW}.")
    inside, beside = folder / "images", folder / "labels"
    if inside.is_dir() and beside.is_dir():
        files, label_files = _entries(inside), _entries(beside)
    else:
        entries = _entries(folder)
        files = [path for path in entries if not _is_labels(path)]
        label_files = [path for path in entries if _is_labels(path)]
    labels = _by_stem(filter(_is_image, label_files), without=ENDING)
    images = _by_stem(filter(_is_image, files))
    # Other files of the same stem may be notes, so readers for all kinds are asked last.
    missing = labels.keys() - images.keys()
    others = _by_stem(path for path in files if stem_of(path) in missing and is_for_bioio(path))
    images = dict(sorted({**images, **others}.items(), key=lambda item: item[1]))
    if not images:
        raise ValueError(f"There is no image in {folder}; {HOW}.")
    return images, labels


def fingerprint(files: Sequence[LabelledFile]) -> str:
    """SHA-256 of a set: names and contents of images and labels, in order."""
    digest = hashlib.sha256()
    for file in files:
        text = f"{file.name}\0{_sha256(file.image)}{_sha256(file.labels)}"
        digest.update(text.encode(errors="surrogateescape"))  # a name's bytes need not be text
    return digest.hexdigest()


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, by name, but for what is hidden."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    """Whether a file is an image by its name, or a folder by what is in it."""
    if path.is_dir():
        return is_image_folder(path) or holds_dicom(path)
    return path.is_file() and is_image_file(path)


def _sha256(path: Path) -> str:
    return sha256_of(path) if path.is_file() else read_image(path).sha256()


def _is_labels(path: Path) -> bool:
    return stem_of(path).endswith(ENDING)


def _by_stem(paths: Iterable[Path], without: str = "") -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        stem = stem_of(path).removesuffix(without)
        if stem in found:
            raise ValueError(
                f"{found[stem].name} and {path.name} have the same stem, so it is not clear what "
                "belongs together; keep one of them in the folder, or rename it."
            )
        found[stem] = path
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _compare_directions(
    image: Path, image_affine: NDArray[Any], labels: Path, labels_affine: NDArray[Any]
) -> None:
    """Remark labels that may be mirrored; they are not turned, as headers are often not filled."""
    nibabel: Any = import_module("nibabel")  # it has no types
    affines = image_affine, labels_affine
    ours, theirs = ("".join(way or "?" for way in nibabel.aff2axcodes(each)) for each in affines)
    if ours != theirs:
        _warn_once(
            f"The voxels of {labels.name} run {theirs}, those of {image.name} {ours}, as their "
            "headers say; they are taken as they are stored: look whether they match."
        )


@cache
def _warn_once(words: str) -> None:
    """A file is read again and again in a training."""
    logger.warning(words)
