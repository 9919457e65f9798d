"""Objects that a user committed, as training crops: at the scales at which a model decodes them.

What is not labeled is unknown, not background, except within a ring around each object and where
the user said that all objects are labeled.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_simmat.datasets.dataset import label_areas
from napari_simmat.datasets.labeled_image import LabeledImage, resize_nearest
from napari_simmat.engine.channels.matching import channel_index
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.engine.masks import Window, label_windows
from napari_simmat.models.multiscale import scaled_images
from napari_simmat.models.spec import InputChannels, ModelSpec, Normalization
from napari_simmat.models.transfer import RGB
from napari_simmat.training.batches import UNKNOWN, is_known, pad_image
from napari_simmat.training.labeled_planes import MIN_OBJECT_PIXELS, as_rgb, standardize

PART_SIDE = 768
"""A larger plane is read in parts of this side around its objects."""
DEAD_SHARE = 1e-3
"""A channel is dead if no larger share of its values differs from their median."""
IDS_TOO_LARGE = "{} has objects with ids from 2^31 on; number them anew to learn from them."
ALL_DEAD = "No channel shows anything: all are constant or hold no finite value."


@dataclass(frozen=True, eq=False)
class AnnotatedPlane:
    """A plane of an image and the objects that were committed in it.

    Parameters
    ----------
    values
        (C, Y, X), the channels as the model gets them: from `ChannelStack.normalized`.
    labels
        (Y, X) integer ids; 0 where nothing is labeled.
    complete
        Whether all objects of their kind are labeled: everywhere (True), nowhere for sure
        (False), or where a mask (Y, X) says so.
    channels
        Names of the channels; needed if a transfer layer is trained for them.
    name
        Of the image, for messages and the model card.
    dead
        Names of the channels that were left out, as they show nothing.
    pixel_size
        Height and width of a pixel in any unit; None if square or unknown.
    """

    values: NDArray[Any]
    labels: NDArray[Any]
    complete: bool | NDArray[np.bool_] = False
    channels: tuple[str, ...] = ()
    name: str = "image"
    dead: tuple[str, ...] = ()
    pixel_size: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        stack: ChannelStack,
        labels: NDArray[Any],
        index: tuple[int, ...] = (),
        complete: bool | NDArray[np.bool_] = False,
        name: str = "image",
        dead: tuple[str, ...] = (),
    ) -> AnnotatedPlane:
        """A plane of a stack, e.g. of `Predictor.stack`, and its labels (Y, X), below 2^31."""
        if labels.max(initial=0) > np.iinfo(np.int32).max:
            raise ValueError(IDS_TOO_LARGE.format(name or "The image"))
        values = stack.normalized(index)
        size = stack.pixel_size
        return cls(values, labels, complete, stack.names, name, dead, size)

    @cached_property
    def objects(self) -> dict[int, str]:
        """Ids of the objects large enough to learn from, each with a digest of mask and place.

        By it a model that goes on learning recognizes what it has learned from.
        """
        areas = label_areas(self.labels)
        found = {}
        for label, window in label_windows(self.labels):
            if areas[label] >= MIN_OBJECT_PIXELS:
                mask = self.labels[window] == label
                place = str([self.labels.shape, window]).encode()
                found[int(label)] = xxhash.xxh3_128_hexdigest(place + np.packbits(mask).tobytes())
        return found

    def part(self, window: Window) -> AnnotatedPlane:
        """A part of the plane."""
        complete = self.complete if isinstance(self.complete, bool) else self.complete[window]
        return replace(
            self, values=self.values[:, *window], labels=self.labels[window], complete=complete
        )

    def halved(self) -> AnnotatedPlane:
        """At half the size: averages of the image, every second label."""
        values = torch.from_numpy(np.ascontiguousarray(self.values, np.float32))
        complete = self.complete if isinstance(self.complete, bool) else self.complete[::2, ::2]
        smaller = functional.avg_pool2d(values[None], 2, ceil_mode=True)[0].numpy()
        return replace(self, values=smaller, labels=self.labels[::2, ::2], complete=complete)

    def frame(self, spec: ModelSpec) -> InputTransform:
        """How the plane lies in a model's input."""
        return InputTransform.of(self.labels.shape, spec.input_size, self.pixel_size)

    def known(self, hidden: Collection[int]) -> NDArray[np.int32]:
        """The labels (Y, X); `UNKNOWN` where nothing is known, and on the objects `hidden`."""
        labels = self.labels.astype(np.int32)
        concealed = np.isin(labels, list(hidden))
        labels[concealed] = 0
        known = is_known(labels, (slice(None), slice(None))) | self.complete
        return np.where(known & ~concealed, labels, UNKNOWN).astype(np.int32)


def live_stack(
    arrays: Sequence[Any],
    names: Sequence[str],
    rule: Normalization,
    pixel_size: tuple[float, float] | None = None,
) -> tuple[ChannelStack, tuple[str, ...]]:
    """All channels of an image that show something, as the channels of a new model.

    A channel is dead if none of its values is finite, or not one in a thousand differs from the
    rest: it would tell a model nothing but its own faults.

    Parameters
    ----------
    arrays, names
        One array (..., Y, X) for each channel, and its name.
    rule
        The normalization of the foundation.
    pixel_size
        As of `AnnotatedPlane`.

    Returns
    -------
    The stack, and the names of the dead channels, which are left out.

    Raises
    ------
    ValueError
        If all channels are dead.
    """
    live: list[int] = []
    for number, array in enumerate(arrays):
        values = np.asarray(array).ravel()
        finite = values[np.isfinite(values)]
        differing = np.count_nonzero(finite != np.median(finite)) if finite.size else 0
        if differing > DEAD_SHARE * values.size:
            live.append(number)
    if not live:
        raise ValueError(ALL_DEAD)
    kept = tuple(names[number] for number in live)
    inputs = InputChannels(names=kept, normalization=rule)
    shown = [arrays[number] for number in live]
    stack = ChannelStack.build(shown, inputs=inputs, channel_names=kept, pixel_size=pixel_size)
    return stack, tuple(name for number, name in enumerate(names) if number not in live)


def annotate(
    image: LabeledImage,
    spec: ModelSpec,
    *,
    channels: Sequence[int | str] | None = None,
    complete: bool | NDArray[np.bool_] = False,
) -> list[AnnotatedPlane]:
    """The planes of a labeled image that hold objects, with the channels that a model gets.

    Parameters
    ----------
    image
        With its labels.
    spec
        Of the model to adapt. A foundation that reads RGB or gray gets all live channels of an
        image that has others.
    channels
        Those to use, by name or index; all by default.
    complete
        See `AnnotatedPlane`; a mask (Y, X) holds for all planes.

    Raises
    ------
    ValueError, TypeError
        If these are no labels of the image, or the channels do not suit the model.
    """
    image = image.read()
    count = len(channels) if channels is not None else image.available
    dead: tuple[str, ...] = ()
    rgba = image.channel_names is not None and image.channel_names[-1] == "alpha"
    if not spec.is_rgb or count in (1, RGB) or rgba:
        stack = ChannelStack.build(
            image.arrays,
            inputs=spec.inputs,
            channel_axis=image.channel_axis,
            channels=channels,
            channel_names=image.channel_names,
            pixel_size=image.pixel_size,
        )
    else:
        arrays = image.arrays
        if not isinstance(arrays, list | tuple):
            arrays = list(np.moveaxis(np.asarray(arrays), image.channel_axis or 0, 0))
        names = image.channel_names or [f"channel {number}" for number in range(len(arrays))]
        numbers = range(len(arrays)) if channels is None else channels
        chosen = [channel_index(channel, len(arrays), image.channel_names) for channel in numbers]
        kept = [arrays[number] for number in chosen]
        known = [names[n] for n in chosen]
        stack, dead = live_stack(kept, known, spec.normalization, image.pixel_size)
    return [
        AnnotatedPlane.of(stack, image.labels[index], index, complete, image.name, dead)
        for index in np.ndindex(*image.labels.shape[:-2])
        if (image.labels[index] > 0).any()
    ]


def scale_levels(plane: AnnotatedPlane, spec: ModelSpec) -> list[tuple[float, Tensor]]:
    """The standardized plane (C, H, W) at all scales at which the model sees it, with the scales.

    A network of SAM's size sees one, on which the whole plane is fitted.
    """
    frame = plane.frame(spec)
    values = frame.resize(np.ascontiguousarray(plane.values, np.float32))
    image = pad_image(standardize(torch.from_numpy(values), spec.channels), *frame.padded)
    if not spec.base.embedded:
        return [(1.0, image)]
    return [(scale, each[0]) for scale, each in scaled_images(image[None])]


def labels_at(
    labels: NDArray[np.int32], frame: InputTransform, scale: float, image: Tensor
) -> NDArray[np.int32]:
    """Labels (Y, X) of a plane on a level with this image; its padding is `UNKNOWN`."""
    shape = image.shape[-2], image.shape[-1]
    resized = zip(frame.resized, shape, strict=True)
    size = [min(round(length * scale), longest) for length, longest in resized]
    whole = np.full(shape, UNKNOWN, np.int32)
    whole[: size[0], : size[1]] = resize_nearest(labels, (size[0], size[1]))
    return whole


def separating_channels(
    values: Sequence[NDArray[Any]], labels: Sequence[NDArray[np.int32]]
) -> tuple[int, ...]:
    """The three channels that best tell objects from the known ground around them, best first.

    Measured by the difference of means in standard deviations, on parts (C, Y, X) with labels
    (Y, X). Fewer channels are repeated, as an RGB model gets them.
    """
    channels = len(values[0])
    if channels <= RGB:
        return tuple(as_rgb(channels))
    objects = np.concatenate([v[:, ids > 0] for v, ids in zip(values, labels, strict=True)], axis=1)
    ground = np.concatenate([v[:, ids == 0] for v, ids in zip(values, labels, strict=True)], axis=1)
    if not ground.shape[1]:
        return tuple(as_rgb(channels))
    spread = np.sqrt((objects.var(1) + ground.var(1)) / 2) + 1e-6
    separation = np.abs(objects.mean(1) - ground.mean(1)) / spread
    best = np.argsort(-separation, kind="stable")[:RGB]
    return tuple(best.tolist())


class Part(NamedTuple):
    """A part of a plane in which some of its objects are learned from and scored.

    Attributes
    ----------
    number
        Of the plane.
    plane
        The part.
    shown
        Ids of those objects.
    """

    number: int
    plane: AnnotatedPlane
    shown: tuple[int, ...]


def parts_of(number: int, plane: AnnotatedPlane, whole: bool) -> list[Part]:
    """The plane, or parts of a large one that show all of its objects, each in one of them.

    So the cost depends on the objects, not on the size of the image. An object that does not fit
    is seen at half the size, as an embedded network decodes it on a coarser level. A network that
    fits every plane into its input needs the `whole`.
    """
    objects = tuple(plane.objects)
    if whole:
        return [Part(number, plane, objects)]
    boxes, longest = _boxes(plane, objects)
    while max(plane.labels.shape) > PART_SIDE and longest > PART_SIDE / 2:
        plane = plane.halved()
        boxes, longest = _boxes(plane, objects)
    if max(plane.labels.shape) <= PART_SIDE:
        return [Part(number, plane, tuple(boxes))]
    parts = []
    left = list(boxes)
    while left:
        window = _around(boxes[left[0]], plane.labels.shape)
        shown = tuple(
            label
            for label in left
            if all(  # with room around it, or the one the part was made for
                part.start + min(side.start, PART_SIDE // 8) <= side.start
                and side.stop <= part.stop
                for part, side in zip(window, boxes[label], strict=True)
            )
        )
        parts.append(Part(number, plane.part(window), shown))
        left = [label for label in left if label not in shown]
    return parts


def _boxes(plane: AnnotatedPlane, objects: Collection[int]) -> tuple[dict[int, Window], int]:
    """Bounding boxes of the objects, and the longest side of them."""
    boxes = {int(n): box for n, box in label_windows(plane.labels) if n in objects}
    sides = [side for box in boxes.values() for side in box]
    return boxes, max(int(side.stop - side.start) for side in sides)


def _around(box: Window, shape: tuple[int, ...]) -> Window:
    """`PART_SIDE` pixels a side around the middle of a box, within a plane of `shape`."""
    rows, columns = (
        min(max((side.start + side.stop - PART_SIDE) // 2, 0), max(length - PART_SIDE, 0))
        for side, length in zip(box, shape, strict=True)
    )
    return slice(rows, rows + PART_SIDE), slice(columns, columns + PART_SIDE)
