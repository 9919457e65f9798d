"""A labelled image as samples: its planes with objects, normalised as the model will see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.images import ChannelStack
from napari_simmat.engine.statistics import Statistics
from napari_simmat.learn.datasets.channels import Selection, find_channels
from napari_simmat.learn.datasets.content import Content, LabelledImage, check_content
from napari_simmat.learn.datasets.dataset import Loaded
from napari_simmat.learn.datasets.squaring import square
from napari_simmat.model.spec import InputChannels, Normalization

Plane = tuple[int, ...]
KEPT = 2**30
"""Bytes of images that are kept in memory, so that a stack is not read anew for each plane."""


class Shelf:
    """The images that were read last, as far as they fit.

    Parameters
    ----------
    most
        Bytes; the image that is in use is kept in any case.
    """

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._held: dict[str, Content] = {}

    def read(self, image: LabelledImage) -> Content:
        """The image, from memory or anew; then it is checked (see `check_content`)."""
        content = self._held.pop(image.name, None)
        if content is None:
            content = image.read()
            check_content(content, image.name)
        self._held[image.name] = content  # the newest stands last
        while len(self._held) > 1 and sum(c.nbytes for c in self._held.values()) > self._most:
            del self._held[next(iter(self._held))]
        return content

    def __getstate__(self) -> dict[str, Any]:
        """Another process reads its images itself."""
        return {"_most": self._most, "_held": {}}


class LabelledStack:
    """A labelled image of any number of planes, with the channels of its data set.

    Parameters
    ----------
    image
        Where it comes from.
    names
        The data set's channels.
    wanted
        What the user chose, see `find_channels`.
    normalization
        The data set's.
    shelf
        Shared by the images of a data set.
    pixel_size
        Height and width of a pixel, where the image does not know.

    Attributes
    ----------
    group
        Planes and images that belong together share it.
    """

    def __init__(
        self,
        image: LabelledImage,
        names: Sequence[str],
        wanted: Selection | None,
        normalization: Normalization,
        shelf: Shelf,
        group: str = "",
        pixel_size: tuple[float, float] | None = None,
    ) -> None:
        self.image = image
        self.group = group or image.name
        self._names = tuple(names)
        self._wanted = wanted
        self._inputs = InputChannels(
            names=self._names, normalization=normalization, reader="the data set"
        )
        self._shelf = shelf
        self._pixel_size = pixel_size
        self._statistics: Statistics | None = None

    @property
    def name(self) -> str:
        """The image's."""
        return self.image.name

    def labels(self) -> NDArray[Any]:
        """The whole label image (..., Y, X), as it was given."""
        return self._shelf.read(self.image).labels

    def check(self) -> None:
        """Read the image and say in one sentence what is wrong with it.

        Raises
        ------
        ValueError, TypeError, OSError
            If a channel is missing, or this is no image with labels of its shape.
        """
        self._stack(self._shelf.read(self.image))

    def planes(self) -> Iterator[tuple[Plane, NDArray[Any]]]:
        """Index and labels (Y, X) of each plane that holds an object."""
        labels = self.labels()
        for plane in np.ndindex(*labels.shape[:-2]):
            if (labels[plane] > 0).any():
                yield plane, labels[plane]

    def load(self, plane: Plane = ()) -> Loaded:
        """Values (C, Y, X), normalised by the whole image, and ids (Y, X) of one plane.

        Pixels that are not square become so, as the predictor has them.
        """
        content = self._shelf.read(self.image)
        stack = self._stack(content)
        try:
            values = stack.normalized(plane).astype(np.float32, copy=False)
        except ValueError as error:  # no finite value, or a part of a file that is damaged
            raise ValueError(f"{self.name}: {error}") from error
        self._statistics = stack.statistics  # measured once, even if the image is read again
        pixel_size = content.pixel_size or self._pixel_size
        return square(values, as_ids(content.labels[plane]), pixel_size)

    def _stack(self, content: Content) -> ChannelStack:
        indices = find_channels(content, self._names, self._wanted, self.name)
        called = [f"#{index}" for index in range(content.available)]
        for index, name in zip(indices, self._names, strict=True):
            called[index] = name
        return ChannelStack.build(
            content.arrays,
            inputs=self._inputs,
            channel_axis=content.channel_axis,
            channels=indices,
            names=called,
            statistics=self._statistics,
        )


def as_ids(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Ids as int32: what is negative becomes background, what is too large is numbered anew."""
    labels = np.where(labels > 0, labels, 0)
    if labels.max(initial=0) > np.iinfo(np.int32).max:
        _, compact = np.unique(labels, return_inverse=True)
        # Without background in it, the lowest id would become 0.
        labels = compact.reshape(labels.shape) + bool(labels.all())
    return labels.astype(np.int32)
