"""Arrays with label arrays, as open layers hold them, as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_simmat.learn.datasets.assembling import Images, assembling
from napari_simmat.learn.datasets.content import Content
from napari_simmat.learn.datasets.dataset import DataConfig, Dataset
from napari_simmat.progress import Job, finish


@dataclass(frozen=True, eq=False)
class LabelledArray:
    """An image in memory (or dask, zarr) with its labels.

    Parameters
    ----------
    name
        Unique, e.g. the label layer's name.
    image
        One array, or a list with one array (..., Y, X) for each channel.
    labels
        True objects (..., Y, X), whole numbers, 0 for the background.
    channel_axis
        The axis of a single array that holds channels; the config's if left out.
    channel_names
        Names of the available channels, where they are known.
    """

    name: str
    image: Any
    labels: Any
    channel_axis: int | None = None
    channel_names: tuple[str, ...] | None = None

    def read(self) -> Content:
        """The image as it is now; the arrays are checked but not copied.

        Raises
        ------
        ValueError, TypeError
            If these are no arrays of an image and its labels.
        """
        several = isinstance(self.image, (list, tuple))
        if several and self.channel_axis is not None:
            raise ValueError(
                f"{self.name}: a list holds one array for each channel, so it has no channel axis "
                f"{self.channel_axis}; leave it out."
            )
        if not hasattr(self.labels, "dtype"):
            raise TypeError(
                f"The labels of {self.name} are a {type(self.labels).__name__}, not an array; give "
                "a numpy, dask or zarr array of whole numbers."
            )
        labels = np.asarray(self.labels)
        return Content(self.image, labels, self.channel_axis, self.channel_names)


def from_arrays(
    images: Sequence[LabelledArray],
    config: DataConfig | None = None,
    *,
    name: str = "layers",
    validation: Sequence[LabelledArray] = (),
) -> Dataset:
    """The data set of arrays; see `reading_arrays`."""
    return finish(reading_arrays(images, config, name=name, validation=validation))


def reading_arrays(
    images: Sequence[LabelledArray],
    config: DataConfig | None = None,
    *,
    name: str = "layers",
    validation: Sequence[LabelledArray] = (),
) -> Job[Dataset]:
    """Make a data set of arrays and labels, as `reading_folder` does of files.

    Each array is a group of its own, whatever it is called.

    Parameters
    ----------
    images
        At least one, with unique names.
    config
        Channels, normalisation, split.
    name
        The data set's.
    validation
        Images to validate on; by default some of `images`, or half of a lone one.

    Raises
    ------
    ValueError, TypeError
        If they cannot be used; one sentence says what to do.
    """
    if not images:
        raise ValueError("There is no labelled image; choose an image and its labels.")
    names = [image.name for image in (*images, *validation)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"Two labelled images are called {twice}; give each its own name.")
    config = config or DataConfig()
    sides = ([_with_axis(image, config) for image in side] for side in (images, validation))
    return (yield from assembling(Images(*sides), config, name, group=str))


def _with_axis(image: LabelledArray, config: DataConfig) -> LabelledArray:
    if image.channel_axis is not None or isinstance(image.image, (list, tuple)):
        return image
    return LabelledArray(
        image.name, image.image, image.labels, config.channel_axis, image.channel_names
    )
