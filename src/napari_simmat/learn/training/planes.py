"""Labelled planes as the network gets them: standardised, resized where it wants one size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_simmat.engine.frames import Frame
from napari_simmat.learn.datasets.dataset import Dataset, Sample, areas
from napari_simmat.learn.datasets.squaring import nearest
from napari_simmat.learn.scenes.arrays import Ids
from napari_simmat.model.spec import InputSize, ModelSpec
from napari_simmat.progress import Job, Progress

logger = logging.getLogger(__name__)

KEPT = 2 * 2**30
"""Bytes of planes that are kept in memory."""
SMALLEST = 16
"""Pixels of the network's input that an object must have."""


@dataclass(frozen=True)
class Plane:
    """One labelled plane.

    Parameters
    ----------
    name
        The sample's.
    image
        (C, H, W) float32, standardised.
    labels
        (H, W), 0 for the background.
    objects
        Ids that can be prompted.
    """

    name: str
    image: Tensor
    labels: Ids
    objects: tuple[int, ...]

    @cached_property
    def areas(self) -> dict[int, int]:
        """Pixels of each id above 0."""
        return areas(self.labels)

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.image.numel() * self.image.element_size() + self.labels.nbytes

    def halved(self) -> Plane:
        """The same at half the size: an average of the image, every second label."""
        image = functional.avg_pool2d(self.image[None], 2, ceil_mode=True)[0]
        return Plane(self.name, image, self.labels[::2, ::2], self.objects)


class Planes:
    """The planes of one side of a data set that hold an object, loaded when asked for.

    Parameters
    ----------
    dataset
        With the channels' statistics, which standardise the values.
    samples
        Its training or validation samples.
    spec
        Of the model: zero-shot models get three channels and their base's statistics.
    side
        What a base with one input size resizes to; a native one keeps the image's own.

    Attributes
    ----------
    side
        As given.
    digest
        Of all values and labels, once `finding` has seen them.
    """

    def __init__(
        self, dataset: Dataset, samples: Sequence[Sample], spec: ModelSpec, side: int
    ) -> None:
        self._dataset, self._spec, self.side = dataset, spec, side
        self._samples = list(samples)
        self._kept: dict[int, Plane] = {}
        self._bytes = 0
        self.digest = ""

    @property
    def samples(self) -> tuple[Sample, ...]:
        """What they are loaded from; after `finding`, those with an object."""
        return tuple(self._samples)

    @property
    def native(self) -> bool:
        """Whether planes keep their size."""
        return self._spec.input_size.method == "native"

    def __len__(self) -> int:
        """How many there are."""
        return len(self._samples)

    def __getitem__(self, index: int) -> Plane:
        """A plane, from memory or read anew."""
        if index in self._kept:
            return self._kept[index]
        sample = self._samples[index]
        plane = self._prepared(sample.name, *sample.load())
        self._keep(index, plane)
        return plane

    def finding(self, what: str) -> Job[None]:
        """Look at all samples once and leave out those without an object to prompt.

        Raises
        ------
        ValueError
            If none is left; the sentence says what the samples were for.
        """
        before, self._samples, empty = self._samples, [], []
        digest = xxhash.xxh3_128()
        for done, sample in enumerate(before, start=1):
            values, labels = sample.load()
            for part in (values, labels):
                digest.update(np.ascontiguousarray(part).data)
            plane = self._prepared(sample.name, values, labels)
            if plane.objects:
                self._keep(len(self._samples), plane)
                self._samples.append(sample)
            else:
                empty.append(sample.name)
            yield Progress(done, len(before), f"reading {sample.name}")
        self.digest = digest.hexdigest()
        if not self._samples:
            raise ValueError(
                f"{self._dataset.name} has no object to {what} of at least {self._least}; label "
                "larger objects."
            )
        if empty:
            logger.warning(
                "%d of %d planes hold no object of at least %s and are left out.",
                len(empty),
                len(before),
                self._least,
            )

    @property
    def _least(self) -> str:
        """How large an object must be, in words."""
        least, smallest = f"{SMALLEST} pixels of the network's input", self._dataset.smallest
        if not smallest:
            return least
        return f"{least} and more than {smallest} pixels, if its plane had 1024 x 1024"

    def _keep(self, index: int, plane: Plane) -> None:
        if self._bytes + plane.nbytes <= KEPT:
            self._kept[index] = plane
            self._bytes += plane.nbytes

    def _prepared(self, name: str, values: NDArray[np.float32], labels: Ids) -> Plane:
        objects = self._dataset.regions(labels)
        if not self.native:
            square = InputSize(method="stretch", size=self.side)
            values = Frame.of(labels.shape, square).resize(values)
            labels = nearest(labels, (self.side, self.side))
        # An object of a pixel or two may have vanished, or would be a matter of chance.
        there = areas(labels)
        objects = [label for label in objects if there.get(label, 0) >= SMALLEST]
        return Plane(name, self._standardised(values), labels, tuple(objects))

    def _standardised(self, values: np.ndarray) -> Tensor:
        image = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        if self._spec.transfer == "zeroshot":
            image = image[as_rgb(len(image))]
        channels = self._spec.channels
        mean = torch.tensor([channel.mean for channel in channels])[:, None, None]
        std = torch.tensor([channel.std for channel in channels])[:, None, None]
        return (image - mean) / std


def as_rgb(channels: int) -> list[int]:
    """Which of so many channels an RGB model gets when it has no transfer layer.

    One is repeated, of more than three the first three are taken (as the paper does for its
    zero-shot figures), of two the second stands twice.
    """
    return {1: [0, 0, 0], 2: [0, 1, 1]}.get(channels, [0, 1, 2])
