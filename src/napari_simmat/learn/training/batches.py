"""What a step of the training sees: images, objects and prompts, fixed by seed and step alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.segmentation import relabel_sequential
from torch import Tensor
from torch.nn import functional

from napari_simmat.learn.datasets.dataset import areas
from napari_simmat.learn.datasets.squaring import nearest
from napari_simmat.learn.prompting import PromptBatch, draw_prompts
from napari_simmat.learn.scenes.arrays import Ids
from napari_simmat.learn.train_config import TrainConfig
from napari_simmat.learn.training.planes import Plane, Planes

MULTIPLE = 32
"""A native network's input has sides that are multiples of so many pixels."""
FITS = 0.75
"""An object's longer side must fit into this share of a crop, else its plane is halved."""
HALF_SEEN = 0.5
"""Other objects of a crop are prompted if at least this share of them lies in it."""
LEAST = 4
"""Pixels that they must have."""

Bool = NDArray[np.bool_]
Key = tuple[int, int, int]
"""A plane's number and the height and width it was padded to."""


class Batch:
    """Images with the objects that are prompted in them.

    Neither a tuple nor a dataclass: of those Lightning Fabric would round the coordinates to the
    half precision in which it lets the images be computed.

    Parameters
    ----------
    images
        (B, C, H, W).
    labels
        (B, H, W) of all their labelled objects, numbered anew from 1 in each image.
    masks
        (B * P, H, W) of P objects in each image, which are prompted.
    prompts
        Theirs.
    rounds
        How many correcting clicks follow the prompts.
    keys
        Of each image what names it in its whole, None if it is a part of a plane or changed.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        masks: Bool,
        prompts: PromptBatch,
        rounds: int,
        keys: Sequence[Key | None],
    ) -> None:
        self.images, self.labels = images, labels
        self.masks, self.prompts = masks, prompts
        self.rounds, self.keys = rounds, keys

    def to(self, device: torch.device) -> Batch:
        """The same with its images on a device."""
        images = self.images.to(device)
        return Batch(images, self.labels, self.masks, self.prompts, self.rounds, self.keys)


class _View(NamedTuple):
    """A plane as one image of a step shows it, with the objects that are prompted."""

    plane: Plane
    chosen: NDArray[np.int64]
    number: int | None
    rng: np.random.Generator


class Batches:
    """The batches of a training.

    Parameters
    ----------
    planes
        To train on; those of a native network are cropped, not resized.
    config
        Settings.

    Attributes
    ----------
    side
        Pixels of the network's input; of a native network at most.
    """

    def __init__(self, planes: Planes, config: TrainConfig) -> None:
        self._planes, self._config = planes, config
        self.side, self._native = planes.side, planes.native

    def batch(self, step: int, part: slice) -> Batch:
        """The images `part` of those of a step; whatever the part, an image is the same."""
        config = self._config
        rng = np.random.default_rng([config.seed, 0, step])
        kind = config.prompts[int(rng.integers(len(config.prompts)))]
        rounds = int(rng.integers(config.corrections + 1))
        # A native network's images are padded to the largest of the whole step: all are drawn.
        wanted = range(config.batch)[part]
        drawn = [self._view(step, i) for i in (range(config.batch) if self._native else wanted)]
        height, width = (
            _ceil(max(view.plane.image.shape[axis] for view in drawn))
            if self._native
            else self.side
            for axis in (1, 2)
        )
        views = drawn[part] if self._native else drawn
        numbered, masks, prompts = [], [], []
        for view in views:
            labels = _padded(torch.from_numpy(view.plane.labels), height, width).numpy()
            numbered.append(torch.from_numpy(relabel_sequential(labels)[0].astype(np.int64)))
            masks.append(labels[None] == view.chosen[:, None, None])
            prompts.append(draw_prompts(kind, masks[-1], view.rng))
        return Batch(
            torch.stack([_padded(view.plane.image, height, width) for view in views]),
            torch.stack(numbered),
            np.concatenate(masks),
            PromptBatch(
                torch.cat([each.points for each in prompts]),
                torch.cat([each.labels for each in prompts]),
            ),
            rounds,
            [None if view.number is None else (view.number, height, width) for view in views],
        )

    def _view(self, step: int, index: int) -> _View:
        """What one image of a step shows."""
        config = self._config
        rng = np.random.default_rng([config.seed, 1, step, index])
        number = self._number(step * config.batch + index)
        plane, whole = self._planes[number], True
        label = int(rng.choice(plane.objects))
        if self._native:
            plane, whole = crop(plane, label, self.side, rng, config.augment)
        if config.augment:
            plane, whole = varied(plane, rng), False
        chosen = chosen_objects(plane, label, config.objects, rng)
        return _View(plane, chosen, number if whole else None, rng)

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
    a coarser level. The part's objects are those of which enough is seen (`HALF_SEEN`). The second
    value says whether the plane was left as it is.
    """
    plane, halved = fitting(plane, label, side)
    zoom = math.exp(rng.uniform(-0.35, 0.35)) if zoomed else 1.0
    height, width = plane.labels.shape
    rows, columns = np.nonzero(plane.labels == label)
    window, near = [], []
    for length, places in ((height, rows), (width, columns)):
        size = min(length, max(MULTIPLE, int(side / zoom)))
        # Anywhere, but such that the object's middle pixel is seen.
        middle = int(places[len(places) // 2])
        low = max(0, min(middle - size + 1 + size // 8, length - size))
        high = min(max(middle - size // 8, 0), length - size)
        start = int(rng.integers(min(low, high), max(low, high) + 1))
        window.append(slice(start, start + size))
        begin = max(0, min(middle - start - side // 2, size - side))
        near.append(slice(begin, begin + side))
    image, labels = plane.image[:, window[0], window[1]], plane.labels[window[0], window[1]]
    whole = not halved and zoom == 1.0 and labels.shape == plane.labels.shape
    objects = seen_well(plane, labels)
    if zoom != 1.0:
        size = tuple(min(side, max(8, round(length * zoom))) for length in labels.shape)
        image = functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        resized = nearest(labels, (size[0], size[1]))
        if (resized == label).any():
            labels = resized
        else:  # an object of a few pixels fell between the new ones: the part around it, not zoomed
            image = plane.image[:, window[0], window[1]][:, near[0], near[1]]
            labels = labels[near[0], near[1]]
    return Plane(plane.name, image, labels, objects), whole


def seen_well(plane: Plane, labels: Ids) -> tuple[int, ...]:
    """A plane's objects of which a part of it, with these labels, shows enough."""
    there, whole = areas(labels), plane.areas
    return tuple(
        each for each in plane.objects if each in there and there[each] >= HALF_SEEN * whole[each]
    )


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


def varied(plane: Plane, rng: np.random.Generator) -> Plane:
    """Mirrored and turned; brighter or darker, with more or less contrast, all channels alike."""
    image, labels = plane.image, plane.labels
    for axis in (0, 1):
        if rng.random() < 0.5:
            image, labels = image.flip(axis + 1), np.flip(labels, axis)
    if rng.random() < 0.5:
        image, labels = image.transpose(1, 2), labels.T
    if rng.random() < 0.5:
        image = image * math.exp(rng.uniform(-0.3, 0.3)) + rng.uniform(-0.2, 0.2)
    return Plane(plane.name, image, np.ascontiguousarray(labels), plane.objects)


def chosen_objects(
    plane: Plane, label: int, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`label`, and `count` - 1 other objects of a plane, again if there are too few."""
    if count == 1:
        return np.array([label])
    others = [each for each in plane.objects if each != label and plane.areas.get(each, 0) >= LEAST]
    drawn = rng.permutation(others or [label])
    return np.array([label, *(drawn[i % len(drawn)] for i in range(count - 1))], np.int64)


def _padded(image: Tensor, height: int, width: int) -> Tensor:
    """Zeros below and to the right: the mean of what is standardised, as the engine pads."""
    return functional.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))


def _ceil(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE


def parts(batch: int, count: int) -> Sequence[slice]:
    """A batch's images divided into equal parts."""
    each = batch // count
    return [slice(start, start + each) for start in range(0, batch, each)]
