"""What a step of the training sees: images, objects and prompts, fixed by seed and step alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_simmat.learn.prompting import PromptBatch, draw_prompts
from napari_simmat.learn.scenes.arrays import Ids
from napari_simmat.learn.train_config import TrainConfig
from napari_simmat.learn.training.planes import Plane, Planes, nearest

MULTIPLE = 32
"""A native network's input has sides that are multiples of so many pixels."""
FITS = 0.75
"""An object's longer side must fit into this share of a crop, else its plane is halved."""
HALF_SEEN = 0.5
"""Other objects of a crop are prompted if at least this share of them lies in it."""

Bool = NDArray[np.bool_]


class Batch(NamedTuple):
    """Images (B, C, H, W), masks (B * P, H, W) of P objects each, and their prompts.

    Attributes
    ----------
    keys
        Of each image what names it in its whole, None if it is a part of a plane or changed.
    rounds
        How many correcting clicks follow the prompts.
    """

    images: Tensor
    masks: Bool
    prompts: PromptBatch
    rounds: int
    keys: tuple[tuple[int, int, int] | None, ...]


class Batches:
    """The batches of a training.

    Parameters
    ----------
    planes
        To train on.
    config
        How.
    side
        Pixels of the network's input; of a native network at most.
    native
        Whether planes are cropped, not resized.
    """

    def __init__(self, planes: Planes, config: TrainConfig, side: int, native: bool) -> None:
        self._planes, self._config, self._side, self._native = planes, config, side, native

    def batch(self, step: int, part: slice) -> Batch:
        """The images `part` of those of a step; whatever the part, an image is the same."""
        config = self._config
        rng = np.random.default_rng([config.seed, 0, step])
        kind = config.prompts[int(rng.integers(len(config.prompts)))]
        rounds = int(rng.integers(config.corrections + 1))
        images, masks, keys, rngs = [], [], [], []
        for index in range(config.batch)[part]:
            own = np.random.default_rng([config.seed, 1, step, index])
            number = self._number(step * config.batch + index)
            plane, whole = self._planes[number], True
            label = int(own.choice(plane.objects))
            if self._native:
                plane, whole = crop(plane, label, self._side, own, config.augment)
            image, labels = plane.image, plane.labels
            if config.augment:
                image, labels = varied(image, labels, own)
                whole = False
            chosen = chosen_objects(labels, plane, label, config.objects, own)
            images.append(image)
            masks.append(labels[None] == chosen[:, None, None])
            keys.append(number if whole else None)
            rngs.append(own)
        height, width = (
            _ceil(max(image.shape[axis] for image in images)) if self._native else self._side
            for axis in (1, 2)
        )
        padded = [_padded(image, height, width) for image in images]
        full = [_padded(torch.from_numpy(each), height, width).numpy() for each in masks]
        drawn = [draw_prompts(kind, each, own) for each, own in zip(full, rngs, strict=True)]
        return Batch(
            torch.stack(padded),
            np.concatenate(full),
            PromptBatch(torch.cat([d.points for d in drawn]), torch.cat([d.labels for d in drawn])),
            rounds,
            tuple(None if key is None else (key, height, width) for key in keys),
        )

    def _number(self, drawn: int) -> int:
        """The plane that is drawn as the n-th: each once in a pass, in an order of its own."""
        count = len(self._planes)
        order = np.random.default_rng([self._config.seed, 2, drawn // count]).permutation(count)
        return int(order[drawn % count])


def crop(
    plane: Plane, label: int, side: int, rng: np.random.Generator, zoomed: bool
) -> tuple[Plane, bool]:
    """A part of a plane, of at most `side` pixels a side, with an object in it.

    A plane is halved until the object fits well, as an embedded network looks at large objects on
    a coarser level. The second value says whether the plane was left as it is.
    """
    plane, halved = fitting(plane, label, side)
    zoom = math.exp(rng.uniform(-0.35, 0.35)) if zoomed else 1.0
    height, width = plane.labels.shape
    rows, columns = np.nonzero(plane.labels == label)
    window = []
    for length, places in ((height, rows), (width, columns)):
        size = min(length, max(MULTIPLE, int(side / zoom)))
        # Anywhere, but such that the object's middle pixel is seen.
        middle = int(places[len(places) // 2])
        low = max(0, min(middle - size + 1 + size // 8, length - size))
        high = min(max(middle - size // 8, 0), length - size)
        start = int(rng.integers(min(low, high), max(low, high) + 1))
        window.append(slice(start, start + size))
    image, labels = plane.image[:, window[0], window[1]], plane.labels[window[0], window[1]]
    whole = not halved and zoom == 1.0 and labels.shape == plane.labels.shape
    if zoom != 1.0:
        size = tuple(min(side, max(8, round(length * zoom))) for length in labels.shape)
        image = functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        resized = nearest(labels, (size[0], size[1]))
        if (resized == label).any():
            labels = resized
        else:  # an object of a few pixels fell between the new ones
            image = plane.image[:, window[0], window[1]][:, :side, :side]
            labels = labels[:side, :side]
    return Plane(plane.name, image, labels, plane.objects), whole


def fitting(plane: Plane, label: int, side: int) -> tuple[Plane, bool]:
    """A plane halved until an object's box fits into `FITS` of `side`, and whether it was."""
    rows, columns = np.nonzero(plane.labels == label)
    longest = float(max(np.ptp(rows), np.ptp(columns)) + 1)
    halved = False
    while longest > FITS * side:
        smaller = plane.halved()
        if not (smaller.labels == label).any():
            break
        plane, longest, halved = smaller, longest / 2, True
    return plane, halved


def varied(image: Tensor, labels: Ids, rng: np.random.Generator) -> tuple[Tensor, Ids]:
    """Mirrored and turned; brighter or darker, with more or less contrast, all channels alike."""
    for axis in (0, 1):
        if rng.random() < 0.5:
            image, labels = image.flip(axis + 1), np.flip(labels, axis)
    if rng.random() < 0.5:
        image, labels = image.transpose(1, 2), labels.T
    if rng.random() < 0.5:
        image = image * math.exp(rng.uniform(-0.3, 0.3)) + rng.uniform(-0.2, 0.2)
    return image, np.ascontiguousarray(labels)


def chosen_objects(
    labels: Ids, plane: Plane, label: int, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`label`, and `count` - 1 other objects that are seen well, again if there are too few."""
    if count == 1:
        return np.array([label])
    there = np.bincount(labels.ravel().clip(min=0), minlength=max(plane.objects) + 1)
    whole = np.bincount(plane.labels.ravel().clip(min=0), minlength=max(plane.objects) + 1)
    seen = [
        other
        for other in plane.objects
        if other != label and there[other] >= max(4, HALF_SEEN * whole[other])
    ]
    others = rng.permutation(seen or [label])
    return np.array([label, *(others[i % len(others)] for i in range(count - 1))], np.int64)


def _padded(image: Tensor, height: int, width: int) -> Tensor:
    """Zeros below and to the right: the mean of what is standardised, as the engine pads."""
    return functional.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))


def _ceil(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE


def parts(batch: int, count: int) -> Sequence[slice]:
    """A batch's images divided into equal parts."""
    each = batch // count
    return [slice(start, start + each) for start in range(0, batch, each)]
