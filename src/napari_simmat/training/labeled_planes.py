"""The planes of a data set as the network takes them, and the ids of their objects."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_simmat._text import pluralize
from napari_simmat.datasets.dataset import Dataset, Sample, label_areas
from napari_simmat.datasets.labeled_image import resize_nearest
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.models.spec import Channel, InputSize, ModelSpec
from napari_simmat.progress import Job, Progress

logger = logging.getLogger(__name__)
CACHE_BYTES = 2 * 2**30
"""Bytes of planes kept in memory."""
MIN_OBJECT_PIXELS = 16
"""Pixels of the network's input that an object must have."""
ROUNDING = 1e-3
"""Values so little below a whole number are one."""
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class LabeledPlane:
    """A labeled plane: name of its sample, standardized image (C, H, W) float32, labels (H, W).

    `objects` are the ids to prompt; 0 is the background.
    """

    name: str
    image: Tensor
    labels: Ids
    objects: tuple[int, ...]

    @cached_property
    def areas(self) -> dict[int, int]:
        """Pixels of each id above 0."""
        return label_areas(self.labels)

    def halved(self) -> LabeledPlane:
        """At half the size: averages of the image, every second label."""
        image = functional.avg_pool2d(self.image[None], 2, ceil_mode=True)[0]
        return LabeledPlane(self.name, image, self.labels[::2, ::2], self.objects)


class LabeledPlanes:
    """The planes with objects of one side of a data set, loaded on demand.

    Parameters
    ----------
    dataset
        Its channels' statistics standardize the values.
    samples
        Its training or validation samples.
    spec
        Of the model: one without transfer layer gets three channels (`as_rgb`), standardized by the
        data set's statistics as well (`rgb_channels`).
    side
        Planes are resized to this width and height unless the model is native.
    as_published
        See `TrainConfig`.

    Attributes
    ----------
    cell_pixel
        Which pixel of a cell of the mask grid is its truth, see `losses.to_mask_grid`.
    samples
        After `scan_job`, those with an object.
    native
        Whether planes keep their size.
    darkness
        (C, 1, 1): the lowest value of each channel, which the engine gives to one that lacks.
    digest
        Of all values and labels, after `scan_job`.
    """

    def __init__(
        self,
        dataset: Dataset,
        samples: Sequence[Sample],
        spec: ModelSpec,
        side: int,
        as_published: bool = False,
    ) -> None:
        self._dataset, self.side, self._as_published = dataset, side, as_published
        self.cell_pixel = 0 if as_published else None
        self._min_pixels = 1 if as_published else MIN_OBJECT_PIXELS
        self._is_rgb = spec.transfer == "zeroshot"
        self._channels = rgb_channels(spec, dataset) if self._is_rgb else spec.channels
        self.samples = tuple(samples)
        self.native = spec.input_size.method == "native"
        self.darkness = standardize(torch.zeros(len(self._channels), 1, 1), self._channels)
        self._kept: dict[int, LabeledPlane] = {}
        self._bytes = 0
        self._keeping = Lock()
        self.digest = ""

    def __len__(self) -> int:
        """Number of planes."""
        return len(self.samples)

    def __getitem__(self, index: int) -> LabeledPlane:
        """A plane, from memory or its source."""
        if index in self._kept:
            return self._kept[index]
        sample = self.samples[index]
        plane = self._prepared(sample.name, *sample.load())
        self._keep(index, plane)
        return plane

    def scan_job(self, what: str) -> Job[None]:
        """Read all samples once and leave out those without an object to prompt.

        Raises
        ------
        ValueError
            If none is left; `what` completes the message.
        """
        before = self.samples
        empty = []
        kept: list[Sample] = []
        digest = xxhash.xxh3_128()
        for done, sample in enumerate(before, start=1):
            values, labels = sample.load()
            for part in (values, labels):
                digest.update(np.ascontiguousarray(part).data)
            plane = self._prepared(sample.name, values, labels)
            if plane.objects:
                self._keep(len(kept), plane)
                kept.append(sample)
            else:
                empty.append(sample.name)
            yield Progress(done, len(before), f"reading {sample.name}")
        self.digest, self.samples = digest.hexdigest(), tuple(kept)
        if not kept:
            raise ValueError(
                f"{self._dataset.name} has no object to {what} of at least {self._needed}; label "
                "larger objects."
            )
        if empty:
            logger.warning(
                "%d of %d planes hold no object of at least %s and are left out.",
                len(empty),
                len(before),
                self._needed,
            )

    @property
    def _needed(self) -> str:
        """Required size of an object, in words."""
        needed = f"{pluralize(self._min_pixels, 'pixel')} of the network's input"
        size = self._dataset.min_size
        more = f" and more than {size} pixels, if its plane had 1024 x 1024"
        return needed + (more if size else "")

    def _keep(self, index: int, plane: LabeledPlane) -> None:
        size = plane.image.numel() * plane.image.element_size() + plane.labels.nbytes
        with self._keeping:  # threads may read planes ahead
            if index not in self._kept and self._bytes + size <= CACHE_BYTES:
                self._kept[index] = plane
                self._bytes += size

    def _prepared(self, name: str, values: NDArray[np.float32], labels: Ids) -> LabeledPlane:
        objects = self._dataset.regions(labels)
        if self._as_published and self._dataset.normalization.keep_uint8:
            # The authors' ``astype(np.uint8)``; what rounding left below a whole number is one.
            values = np.floor(values + ROUNDING)
        if not self.native:
            values = self._resized(values)
            labels = resize_nearest(labels, (self.side, self.side))
        # Resizing may leave nothing of an object, or too little to measure.
        there = label_areas(labels)
        objects = [label for label in objects if there.get(label, 0) >= self._min_pixels]
        image = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        if self._is_rgb:
            image = image[as_rgb(len(image))]
        image = standardize(image, self._channels)
        return LabeledPlane(name, image, labels, tuple(objects))

    def _resized(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values (C, Y, X) at the network's side."""
        if self._as_published:  # ``transforms.Resize`` of torchvision 0.12 on tensors
            size = (self.side, self.side)
            whole = torch.from_numpy(values)[None]
            return functional.interpolate(whole, size, mode="bilinear")[0].numpy()
        square = InputSize(method="stretch", size=self.side)
        return InputTransform.of(values.shape[1:], square).resize(values)


def standardize(image: Tensor, channels: Sequence[Channel]) -> Tensor:
    """An image (C, H, W) with mean 0 and standard deviation 1 by the channels' statistics."""
    mean = torch.tensor([channel.mean for channel in channels])[:, None, None]
    std = torch.tensor([channel.std for channel in channels])[:, None, None]
    return (image - mean) / std


def as_rgb(channels: int) -> list[int]:
    """Indices of the channels that an RGB model without a transfer layer gets.

    A single channel is repeated, the second of two is repeated, and of more than three the first
    three are taken, as the paper does for its zero-shot figures.
    """
    return {1: [0, 0, 0], 2: [0, 1, 1]}.get(channels, [0, 1, 2])


def rgb_channels(spec: ModelSpec, dataset: Dataset) -> tuple[Channel, ...]:
    """A model's three channels with a data set's mean and standard deviation of what they get.

    So a sensor whose values reach 510 is not overexposed to a model of photographs, nor a dim one
    too dark. SimCMF's authors' zero-shot is the same: ``proj_type == "zeroshot"`` of
    ``models/projector.py`` gets what ``dataset.py`` standardized.
    """
    taken = [dataset.channels[index] for index in as_rgb(len(dataset.channels))]
    pairs = zip(spec.channels, taken, strict=True)
    return tuple(replace(own, mean=each.mean, std=each.std) for own, each in pairs)
