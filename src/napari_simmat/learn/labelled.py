"""Folders of images with label images: which belong together, and what is in them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.files import sha256_of
from napari_simmat.engine.formats.reading import ImageFile, read_image, read_labels
from napari_simmat.engine.jobs.outputs import stem_of

logger = logging.getLogger(__name__)

ENDING = "_labels"
"""What follows an image's stem in the name of its label image."""
SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".npy", ".nii", ".nii.gz")
"""Names of files that may be images."""
HOW = (
    f"put beside each image STEM.tif its label image STEM{ENDING}.tif, or the images in a folder "
    "images and the labels, of the same names, in a folder labels"
)


@dataclass(frozen=True)
class LabelledFile:
    """An image file and the file of its true objects.

    Parameters
    ----------
    name
        The image's stem.
    image, labels
        The files.
    """

    name: str
    image: Path
    labels: Path

    def read(
        self, channel_axis: int | None = None, pixel_ratio: float = 1.0
    ) -> tuple[ImageFile, NDArray[Any]]:
        """The image, and its labels (..., Y, X) of the same shape without channels.

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
        if tuple(sizes) != labels.shape:
            raise ValueError(
                f"{self.labels.name} has the shape {' x '.join(map(str, labels.shape))}, "
                f"{self.image.name} without channels {' x '.join(map(str, sizes))}; give labels of "
                "the image's size, or say with --channel-axis which axis holds channels."
            )
        return replace(image, pixel_ratio=pixel_ratio), np.asarray(labels.data)


def find_labelled(folder: Path) -> list[LabelledFile]:
    """Images with labels, sorted by name: STEM.tif and STEM_labels.tif, or images/ and labels/.

    An image without labels is left out with a warning.

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
    inside = folder / "images"
    if inside.is_dir() and (folder / "labels").is_dir():
        images = _by_stem(_files(inside))
        labels = _by_stem(_files(folder / "labels"), without=ENDING)
    else:
        files = _files(folder)
        labels = _by_stem((path for path in files if _is_labels(path)), without=ENDING)
        images = _by_stem(path for path in files if not _is_labels(path))
    if not images:
        raise ValueError(f"There is no image in {folder}; {HOW}.")
    return images, labels


def fingerprint(files: Sequence[LabelledFile]) -> str:
    """SHA-256 of a set: names and contents of images and labels, in order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{sha256_of(file.image)}{sha256_of(file.labels)}".encode())
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    """Files that may be images, by name; hidden ones are not looked at."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()
    )


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
