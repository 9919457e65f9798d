"""Open layers as files that `simmat train` reads: an array for each channel, and the labels.

Each array keeps its type; it is written plane by plane, so that nothing large is held, and memory
maps it when it is read. No Qt and no napari: this runs in a worker's thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat.engine.files import disk_in_words
from napari_simmat.progress import Job, Progress

_FORBIDDEN = set('/\\:*?"<>|')


@dataclass(frozen=True, eq=False)
class LabelledValue:
    """An image and its objects, cut loose from their layers.

    Parameters
    ----------
    name
        What the image is called.
    channels
        Name and array (..., Y, X) of each channel.
    labels
        Objects (..., Y, X).
    labels_name
        What the labels are called.
    pixel_ratio
        Height of a pixel over its width.
    """

    name: str
    channels: tuple[tuple[str, Any], ...]
    labels: Any
    labels_name: str
    pixel_ratio: float = 1.0

    @property
    def planes(self) -> int:
        """How many planes there are to write."""
        return (len(self.channels) + 1) * math.prod(self.labels.shape[:-2])


def pixel_ratio_of(images: Sequence[LabelledValue]) -> float:
    """The shape that the pixels of all images have.

    Raises
    ------
    ValueError
        If they differ.
    """
    first = images[0]
    for other in images[1:]:
        if not math.isclose(other.pixel_ratio, first.pixel_ratio, rel_tol=0.05):
            raise ValueError(
                f"A pixel of {first.name} is {first.pixel_ratio:.3g} times as high as wide, one of "
                f"{other.name} {other.pixel_ratio:.3g} times: give their layers one scale, or save "
                "them as files and train on their folder."
            )
    return first.pixel_ratio


def writing_layers(images: Sequence[LabelledValue], folder: Path) -> Job[None]:
    """Write labelled images: STEM_CHANNEL.npy for each channel, and STEM_labels.npy.

    The planes of a stack lie along one axis, however many it had.

    Parameters
    ----------
    images
        At least one; all have the same channels.
    folder
        Is made, and was not there.

    Raises
    ------
    ValueError
        If the labels of an image are empty, or a part cannot be read.
    OSError
        If the disk is full.
    """
    total = sum(image.planes for image in images)
    done = 0
    folder.mkdir(parents=True)
    for stem, image in zip(_stems(images), images, strict=True):
        labelled = False
        arrays = [*image.channels, ("labels", image.labels)]
        for name, array in arrays:
            path = folder / f"{stem}_{name}.npy"
            with disk_in_words(path), path.open("wb") as file:
                _head(file, array)
                for plane in _planes(array, image.name):
                    labelled = labelled or (name == "labels" and bool((plane > 0).any()))
                    file.write(np.ascontiguousarray(plane).tobytes())
                    done += 1
                    yield Progress(done, total, f"Writing {image.name}")
        if not labelled:
            raise ValueError(
                f"{image.labels_name} has no object: its labels are 0 everywhere. Paint or commit "
                "some, each object with a number of its own."
            )


def _head(file: Any, array: Any) -> None:
    shape = tuple(int(size) for size in array.shape)
    kept = shape if len(shape) == 2 else (math.prod(shape[:-2]), *shape[-2:])
    dtype = np.dtype(array.dtype)
    described = {
        "descr": np.lib.format.dtype_to_descr(dtype.newbyteorder("=")),
        "fortran_order": False,
        "shape": kept,
    }
    np.lib.format.write_array_header_1_0(file, described)


def _planes(array: Any, where: str) -> Iterator[np.ndarray]:
    native = np.dtype(array.dtype).newbyteorder("=")
    for index in np.ndindex(*(int(size) for size in array.shape[:-2])):
        try:
            plane = np.asarray(array[index])
        except MemoryError:
            raise
        except Exception as error:  # files and graphs of tasks raise anything
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(
                f"A part of {where} could not be read ({said}); its file may be damaged or gone. "
                "Open it anew."
            ) from error
        yield plane.astype(native, copy=False)


def _stems(images: Sequence[LabelledValue]) -> list[str]:
    """Names for files, in order; what belongs to one series keeps the same start."""
    stems: list[str] = []
    for image in images:
        plain = "".join("-" if letter in _FORBIDDEN else letter for letter in image.name)
        plain = "".join(letter for letter in plain if letter.isprintable())[:80].strip(" .")
        tried, number = plain or "image", 2
        while tried.casefold() in {each.casefold() for each in stems}:
            tried, number = f"{plain} ({number})", number + 1
        stems.append(tried)
    return stems
