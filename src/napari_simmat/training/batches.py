"""Training batches: planes as the network gets them, crops, augmentation, prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.segmentation import relabel_sequential
from torch import Tensor
from torch.nn import functional

from napari_simmat.datasets.dataset import label_areas
from napari_simmat.datasets.labeled_image import resize_nearest
from napari_simmat.engine.masks import Window
from napari_simmat.evaluation.drawn_prompts import PromptBatch, draw_prompts
from napari_simmat.models.multiscale import WINDOW_ALIGNMENT
from napari_simmat.models.prompt_levels import BEST_OBJECT_SIDE
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.labeled_planes import (
    MIN_OBJECT_PIXELS,
    Ids,
    LabeledPlane,
    LabeledPlanes,
)

SIDE_MULTIPLE = 32
"""Sides of a native network's input are multiples of so many pixels."""
MAX_OBJECT_SHARE = 0.75
"""A plane is halved until the object's longer side fits into this share of a crop."""
MIN_VISIBLE_SHARE = 0.5
"""Other objects of a crop are prompted if at least this share of them lies in it."""
MIN_VISIBLE_PIXELS = 4
"""Pixels that they must have."""
MAX_SHIFT = 0.2
"""An object lies up to this share of a crop's side off its middle."""
MAX_ZOOM = 0.35
"""Largest logarithm of the factor by which a crop is zoomed."""
LEVEL_SPREAD = 0.5
"""An object is trained mostly at the scale of its best size; the weight of others is a Gaussian of
the logarithm of its size there, of this width."""
TOO_SMALL = "The objects are too small to learn from; label larger ones."
UNKNOWN = -1
"""Id of pixels that may belong to an object without a label."""
MIN_AREA = 24
"""Pixels of an object that is trained where some pixels are unknown."""
RING = 0.3
"""Width of the known background around an object, in square roots of its area."""
MIN_RING = 4.0
"""The same in pixels, at least."""
BoolArray = NDArray[np.bool_]
PlaneKey = tuple[int, int, int]
"""A plane's number and the height and width it was padded to."""


class Batch:
    """Images with the objects that are prompted in them.

    Neither a tuple nor a dataclass: in those, Lightning Fabric would round the coordinates to the
    half precision in which it lets the images be computed.

    Parameters
    ----------
    images
        (B, C, H, W).
    labels
        (B, H, W) of all their labeled objects, renumbered from 1 in each image.
    masks
        (B * P, H, W) of P prompted objects in each image.
    prompts
        Of these objects.
    rounds
        Number of correcting clicks that follow the prompts.
    keys
        Identify images that show a whole plane; None for parts of a plane or changed ones.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        masks: BoolArray,
        prompts: PromptBatch,
        rounds: int,
        keys: Sequence[PlaneKey | None],
    ) -> None:
        self.images, self.labels, self.masks = images, labels, masks
        self.prompts, self.rounds, self.keys = prompts, rounds, keys

    def part(self, part: slice) -> Batch:
        """Some of the images."""
        objects = len(self.masks) // len(self.images)
        rows = [objects * n + k for n in range(len(self.images))[part] for k in range(objects)]
        prompts = PromptBatch(self.prompts.points[rows], self.prompts.labels[rows])
        images, labels, keys = self.images[part], self.labels[part], self.keys[part]
        return Batch(images, labels, self.masks[rows], prompts, self.rounds, keys)

    def to(self, device: torch.device) -> Batch:
        """The batch with its images on a device."""
        images = self.images.to(device)
        return Batch(images, self.labels, self.masks, self.prompts, self.rounds, self.keys)


class Batches:
    """Draws the batches of a training run; seed and step alone determine them.

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

    def __init__(self, planes: LabeledPlanes, config: TrainConfig) -> None:
        self._planes, self._config = planes, config
        self.side, self._native = planes.side, planes.native

    def batch(self, step: int, part: slice) -> Batch:
        """Some of a step's images; an image does not depend on the part it is in."""
        config = self._config
        rng = np.random.default_rng([config.seed, 0, step])
        kind = config.prompts[int(rng.integers(len(config.prompts)))]
        rounds = int(rng.integers(config.corrections + 1))
        # All are drawn, as a native network's images are padded to the largest of the step.
        numbers = range(config.batch)[part]
        drawn = [self._view(step, i) for i in (range(config.batch) if self._native else numbers)]
        height, width = (
            round_up(max(view.plane.image.shape[axis] for view in drawn))
            if self._native
            else self.side
            for axis in (1, 2)
        )
        return assemble(drawn[part] if self._native else drawn, kind, rounds, (height, width))

    def _view(self, step: int, index: int) -> View:
        """Draw one image of a step."""
        config = self._config
        rng = np.random.default_rng([config.seed, 1, step, index])
        number = self._number(step * config.batch + index)
        plane = self._planes[number]
        whole = True
        label = int(rng.choice(plane.objects))
        if self._native:
            plane, whole = crop_around_object(plane, label, self.side, rng, config.augment)
        if config.augment:
            plane, whole = augment(plane, rng), False
        if config.drop_channels:
            own = np.random.default_rng([config.seed, 3, step, index])
            hidden = own.random(len(plane.image)) < config.drop_channels
            hidden[own.integers(len(hidden))] = False
            if hidden.any():
                image = torch.where(
                    torch.from_numpy(hidden)[:, None, None], self._planes.darkness, plane.image
                )
                plane, whole = replace(plane, image=image), False
        chosen = choose_objects(plane, label, config.objects, rng)
        return View(plane, chosen, number if whole else None, rng)

    def _number(self, drawn: int) -> int:
        """Index of the n-th plane; each pass over all planes has its own random order."""
        count = len(self._planes)
        order = np.random.default_rng([self._config.seed, 2, drawn // count]).permutation(count)
        return int(order[drawn % count])


class View(NamedTuple):
    """A plane, or a part of one, in one image of a step, with the objects that are prompted.

    The `number` is that of an unchanged plane; `rng` draws the prompts.
    """

    plane: LabeledPlane
    chosen: NDArray[np.int64]
    number: int | None
    rng: np.random.Generator


def assemble(views: Sequence[View], kind: str, rounds: int, shape: tuple[int, int]) -> Batch:
    """A batch of views, padded to a height and width, with a kind of prompts."""
    numbered, masks, prompts = [], [], []
    for view in views:
        labels = pad_image(torch.from_numpy(view.plane.labels), *shape).numpy()
        small = relabel_sequential(np.maximum(labels, 0))[0]
        numbered.append(torch.from_numpy(np.where(labels < 0, UNKNOWN, small).astype(np.int64)))
        masks.append(labels[None] == view.chosen[:, None, None])
        prompts.append(draw_prompts(kind, masks[-1], view.rng))
    return Batch(
        torch.stack([pad_image(view.plane.image, *shape) for view in views]),
        torch.stack(numbered),
        np.concatenate(masks),
        PromptBatch(
            torch.cat([each.points for each in prompts]),
            torch.cat([each.labels for each in prompts]),
        ),
        rounds,
        [None if view.number is None else (view.number, *shape) for view in views],
    )


class CropBatches:
    """Draws batches of crops around single objects; the seed and the step alone determine them.

    Parameters
    ----------
    planes
        Parts of planes, each at all scales at which the network sees it.
    objects
        Part and id of each object to prompt.
    count
        Crops of a step.
    side
        Of the crops, in pixels of the network's input.
    prompted
        Objects prompted in each crop; some twice where there are fewer.
    kinds, corrections
        Kinds of first prompts, one of which is drawn for each step; maximum number of correcting
        clicks.
    seed
        Of all random numbers.
    vary
        Whether to zoom, flip, transpose and brighten the crops; else each shows a whole part.
    """

    def __init__(
        self,
        planes: Sequence[Sequence[LabeledPlane]],
        objects: Sequence[tuple[int, int]],
        *,
        count: int,
        side: int,
        prompted: int,
        kinds: Sequence[str],
        corrections: int,
        seed: int,
        vary: bool = True,
    ) -> None:
        self.planes, self.count, self.side, self.prompted = planes, count, side, prompted
        self.kinds, self.corrections, self.seed, self.vary = kinds, corrections, seed, vary
        found = [(part, label, self._fitting(part, label)) for part, label in objects]
        self._objects = [each for each in found if each[2]]
        if not self._objects:
            raise ValueError(TOO_SMALL)
        self._drawn: tuple[int, Batch] | None = None

    def batch(self, step: int, part: slice) -> Batch:
        """Some of a step's crops."""
        if self._drawn is None or self._drawn[0] != step:
            rng = np.random.default_rng([self.seed, 1, step])
            views = [self._crop(step * self.count + number, rng) for number in range(self.count)]
            kind = self.kinds[int(rng.integers(len(self.kinds)))]
            rounds = int(rng.integers(self.corrections + 1))
            self._drawn = step, assemble(views, kind, rounds, (self.side, self.side))
        return self._drawn[1].part(part)

    def _fitting(self, part: int, label: int) -> list[_PlacedObject]:
        """The scales at which an object fits into a crop; the coarsest one if it fits at none."""
        placed = []
        for number, plane in enumerate(self.planes[part]):
            mask = plane.labels == label
            area = np.count_nonzero(mask)
            if area < MIN_OBJECT_PIXELS:
                continue
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            misfit = math.log(math.sqrt(area) / BEST_OBJECT_SIDE)
            weight = math.exp(-0.5 * (misfit / LEVEL_SPREAD) ** 2)
            y, x = np.argwhere(mask)[area // 2].tolist()
            placed.append(_PlacedObject(number, box, (y, x), weight))
        longest = MAX_OBJECT_SHARE * self.side
        return [
            each for each in placed if all(s.stop - s.start <= longest for s in each.box)
        ] or placed[-1:]

    def _crop(self, drawn: int, rng: np.random.Generator) -> View:
        """The n-th crop; each pass over the objects has its own random order."""
        count = len(self._objects)
        order = np.random.default_rng([self.seed, 0, drawn // count]).permutation(count)
        part, label, placed = self._objects[order[drawn % count]]
        weights = np.array([each.weight + 1e-9 for each in placed])
        chosen = placed[int(rng.choice(len(placed), p=weights / weights.sum()))]
        plane = self.planes[part][chosen.scale]
        span = self.side
        if self.vary:
            span = round(self.side / math.exp(rng.uniform(-MAX_ZOOM, MAX_ZOOM)))
        rows, columns = (
            _crop_start(side, length, span, rng)
            for side, length in zip(chosen.box, plane.labels.shape, strict=True)
        )
        crop = self._cut(plane, rows, columns, span)
        if np.count_nonzero(crop.labels == label) < MIN_AREA:  # small and shrunk, or hollow
            rows, columns = (
                min(max(at - self.side // 2, 0), max(length - self.side, 0))
                for at, length in zip(chosen.pixel, plane.labels.shape, strict=True)
            )
            crop = self._cut(plane, rows, columns, self.side)
        if self.vary:
            crop = augment(crop, rng)
        large = tuple(each for each, area in crop.areas.items() if area >= MIN_AREA)
        # One more is drawn than a lone object needs, so that the prompts do not depend on it.
        prompted = choose_objects(replace(crop, objects=large), label, max(self.prompted, 2), rng)[
            : self.prompted
        ]
        return View(crop, prompted, None if self.vary else part, rng)

    def _cut(self, plane: LabeledPlane, top: int, left: int, span: int) -> LabeledPlane:
        """A square of `span` pixels, padded as by the engine, resized to `side`."""
        window = slice(top, top + span), slice(left, left + span)
        labels = plane.labels[window]
        short = [span - length for length in labels.shape]
        image = pad_image(plane.image[:, *window], span, span)
        labels = np.pad(labels, [(0, each) for each in short], constant_values=UNKNOWN)
        if span != self.side:
            size = (self.side, self.side)
            image = functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
            labels = resize_nearest(labels, size)
        return LabeledPlane(plane.name, image, labels, ())


class _PlacedObject(NamedTuple):
    """An object at a scale: its bounding box, a pixel of it, and how often it is drawn there."""

    scale: int
    box: Window
    pixel: tuple[int, int]
    weight: float


def _crop_start(box: slice, length: int, span: int, rng: np.random.Generator) -> int:
    """Where a crop begins along an axis, aligned as the engine's windows are.

    The object lies near its middle, as in a window around a prompt.
    """
    middle = (box.start + box.stop) / 2
    room = max((span - (box.stop - box.start)) / 2, 0)
    shift = rng.uniform(-1, 1) * min(MAX_SHIFT * span, room)
    start = round((middle + shift - span / 2) / WINDOW_ALIGNMENT) * WINDOW_ALIGNMENT
    return int(min(max(start, 0), max(length - span, 0)))


def crop_around_object(
    plane: LabeledPlane, label: int, side: int, rng: np.random.Generator, zoomed: bool
) -> tuple[LabeledPlane, bool]:
    """A random part of a plane, of at most `side` pixels a side, with an object in it.

    The plane is halved until the object fits well, as an embedded network decodes large objects on
    a coarser level. The part's objects are those of which enough is visible (`MIN_VISIBLE_SHARE`).
    The second value says whether this is the unchanged plane.
    """
    plane, halved = halve_until_fits(plane, label, side)
    zoom = math.exp(rng.uniform(-MAX_ZOOM, MAX_ZOOM)) if zoomed else 1.0
    height, width = plane.labels.shape
    rows, columns = np.nonzero(plane.labels == label)
    window, near = [], []
    for length, places in ((height, rows), (width, columns)):
        size = min(length, max(SIDE_MULTIPLE, int(side / zoom)))
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
    objects = visible_objects(plane, labels)
    if zoom != 1.0:
        size = tuple(min(side, max(8, round(length * zoom))) for length in labels.shape)
        image = functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        resized = resize_nearest(labels, (size[0], size[1]))
        if (resized == label).any():
            labels = resized
        else:  # an object of a few pixels vanished: take its surroundings without zoom
            image = plane.image[:, window[0], window[1]][:, near[0], near[1]]
            labels = labels[near[0], near[1]]
    return LabeledPlane(plane.name, image, labels, objects), whole


def visible_objects(plane: LabeledPlane, labels: Ids) -> tuple[int, ...]:
    """The plane's objects that are sufficiently visible in a part of it with these labels."""
    there = label_areas(labels)
    whole = plane.areas
    return tuple(
        each
        for each in plane.objects
        if each in there and there[each] >= MIN_VISIBLE_SHARE * whole[each]
    )


def halve_until_fits(plane: LabeledPlane, label: int, side: int) -> tuple[LabeledPlane, bool]:
    """Halve a plane until an object fits into `MAX_OBJECT_SHARE` of `side`; also whether it was."""
    rows, columns = np.nonzero(plane.labels == label)
    longest = float(max(np.ptp(rows), np.ptp(columns)) + 1)
    halved = False
    while longest > MAX_OBJECT_SHARE * side:
        smaller = plane.halved()
        if not (smaller.labels == label).any():
            break
        plane, longest, halved = smaller, longest / 2, True
    return plane, halved


def augment(plane: LabeledPlane, rng: np.random.Generator) -> LabeledPlane:
    """Flip, transpose, and change brightness and contrast, of all channels alike."""
    image, labels = plane.image, plane.labels
    for axis in (0, 1):
        if rng.random() < 0.5:
            image, labels = image.flip(axis + 1), np.flip(labels, axis)
    if rng.random() < 0.5:
        image, labels = image.transpose(1, 2), labels.T
    if rng.random() < 0.5:
        image = image * math.exp(rng.uniform(-0.3, 0.3)) + rng.uniform(-0.2, 0.2)
    return LabeledPlane(plane.name, image, np.ascontiguousarray(labels), plane.objects)


def choose_objects(
    plane: LabeledPlane, label: int, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`label` and `count` - 1 other objects of a plane, repeated if there are too few."""
    if count == 1:
        return np.array([label])
    others = [
        each
        for each in plane.objects
        if each != label and plane.areas.get(each, 0) >= MIN_VISIBLE_PIXELS
    ]
    drawn = rng.permutation(others or [label])
    return np.array([label, *(drawn[i % len(drawn)] for i in range(count - 1))], np.int64)


def equal_parts(batch: int, count: int) -> Sequence[slice]:
    """Divide a batch into `count` equal parts."""
    each = batch // count
    return [slice(start, start + each) for start in range(0, batch, each)]


def pad_image(image: Tensor, height: int, width: int) -> Tensor:
    """Pad with zeros, the standardized mean, below and to the right, as the engine does."""
    return functional.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))


def round_up(length: int) -> int:
    """The next multiple of `SIDE_MULTIPLE`."""
    return -(-length // SIDE_MULTIPLE) * SIDE_MULTIPLE


def is_known(labels: NDArray[np.int32], part: tuple[slice, slice]) -> NDArray[np.bool_]:
    """Labeled pixels of a part, and those within a ring around each object."""
    there = labels[part]
    if not there.any():
        return np.zeros(there.shape, bool)
    width = np.maximum(RING * np.sqrt(np.bincount(labels.ravel())), MIN_RING)
    distance, nearest = ndi.distance_transform_edt(there == 0, return_indices=True)
    return np.asarray(distance <= width[there[tuple(nearest)]])
