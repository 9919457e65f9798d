"""The open layers that a training learns from: as labeled images, and as a folder of files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels

from napari_simmat.annotation.channel_choice import LayerChannel
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.engine.image_stack import ArraySource as ChannelSource
from napari_simmat.io.files import disk_errors_explained
from napari_simmat.io.refusals import unreadable_part
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.layer_data import channel_array, image_geometry, layer_key

_FORBIDDEN = set('/\\:*?"<>|')


def labeled_layers(
    names: Sequence[str], sources: Sequence[LayerChannel], labels: Labels, layers: Iterable[Image]
) -> LabeledImage:
    """An image and its labels as arrays to train on; no pixels are read."""
    known = {layer_key(layer): layer for layer in layers}
    first = known[sources[0].layer]
    arrays = [channel_array(known[each.layer], each.part) for each in sources]
    data = labels.data[0] if labels.multiscale else labels.data
    for name, array in zip(names, arrays, strict=True):
        ChannelSource.of(array, None, f"Channel {name} of {first.name}")  # raises if unusable
    height, width = image_geometry(sources, known.values()).spacing[-2:]
    ratio = float(f"{height / width:.6g}")  # independent of units
    return LabeledImage(
        first.name, arrays, data, channel_names=tuple(names), pixel_size=(ratio, 1.0)
    )


def pixel_ratio_of(images: Sequence[LabeledImage]) -> float:
    """Height over width of a pixel, the same in all images.

    Raises
    ------
    ValueError
        If they differ.
    """
    first, *others = images
    ratio = _pixel_ratio(first)
    for other in others:
        if not math.isclose(_pixel_ratio(other), ratio, rel_tol=0.05):
            raise ValueError(
                f"A pixel of {first.name} is {ratio:.3g} times as high as wide, one of "
                f"{other.name} {_pixel_ratio(other):.3g} times: give their layers one scale, or "
                "save them as files and train on their folder."
            )
    return ratio


def _pixel_ratio(image: LabeledImage) -> float:
    height, width = image.pixel_size or (1.0, 1.0)
    return height / width


def write_layers_job(images: Sequence[LabeledImage], folder: Path) -> Job[None]:
    """Write labeled images: STEM_CHANNEL.npy for each channel, and STEM_labels.npy.

    All axes but the last two are flattened to one.

    Parameters
    ----------
    images
        At least one; all have the same channels, each with a name.
    folder
        Must not exist yet.

    Raises
    ------
    ValueError
        If the labels of an image are empty, or a part cannot be read.
    OSError
        If the disk is full.
    """
    total = sum((image.available + 1) * math.prod(image.shape[:-2]) for image in images)
    done = 0
    folder.mkdir(parents=True)
    for stem, image in zip(_stems(images), images, strict=True):
        labeled = False
        names = [*(image.channel_names or ()), "labels"]
        for name, array in zip(names, [*image.arrays, image.labels], strict=True):
            path = folder / f"{stem}_{name}.npy"
            with disk_errors_explained(path), path.open("wb") as file:
                _head(file, array)
                for plane in _planes(array, image.name):
                    labeled = labeled or (name == "labels" and bool((plane > 0).any()))
                    file.write(np.ascontiguousarray(plane).tobytes())
                    done += 1
                    yield Progress(done, total, f"Writing {image.name}")
        if not labeled:
            raise ValueError(
                f"The labels of {image.name} hold no object: they are 0 everywhere. Paint or "
                "commit some, each object with a number of its own."
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
        except Exception as error:  # lazy files and dask graphs raise anything
            raise unreadable_part(where, error) from error
        yield plane.astype(native, copy=False)


def _stems(images: Sequence[LabeledImage]) -> list[str]:
    """A distinct file stem for each image, in order; one series keeps its common start."""
    stems: list[str] = []
    for image in images:
        plain = "".join("-" if letter in _FORBIDDEN else letter for letter in image.name)
        plain = "".join(letter for letter in plain if letter.isprintable())[:80].strip(" .")
        tried = plain or "image"
        number = 2
        while tried.casefold() in {each.casefold() for each in stems}:
            tried = f"{plain} ({number})"
            number += 1
        stems.append(tried)
    return stems
