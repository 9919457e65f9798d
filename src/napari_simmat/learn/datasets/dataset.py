"""What a modality checkpoint is trained on: planes with true objects, split, and their channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.frames import check_pixel_ratio
from napari_simmat.model.spec import Channel, Normalization

Loaded = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Values (C, H, W), normalised but not yet standardised, and ids (H, W), 0 for the background."""
SIDE = 1024
"""Regions are measured as if their plane had this height and width (arXiv 2409.08083)."""


@dataclass(frozen=True)
class Sample:
    """One plane with its true objects, read when it is asked for.

    Parameters
    ----------
    name
        Unique within the data set, for tables and messages.
    group
        Planes of one stack or series share it; a group is never on both sides of a split.
    load
        Reads the plane. The normalisation's numbers are those of the whole stack. Can be pickled
        where the user's arrays can, so that loading works in other processes.
    """

    name: str
    group: str
    load: Callable[[], Loaded]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Samples of one modality, split, with what a checkpoint has to know of their channels.

    Parameters
    ----------
    name
        For tables; a folder's name.
    modality
        What the sensor measures.
    channels
        In order, with the mean and standard deviation of the normalised values and the unit of
        the raw ones; they go into the checkpoint as they are.
    normalization
        How raw values became those of the samples; goes into the checkpoint as it is.
    train, validation, test
        The samples; of the first two there is at least one each.
    smallest
        Only regions of more pixels than this, if the plane had 1024 x 1024, are prompted.

    Raises
    ------
    ValueError
        If a side is empty, a name stands twice, or a group is in training and validation.
    """

    name: str
    modality: str
    channels: tuple[Channel, ...]
    normalization: Normalization
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()
    smallest: int = 0

    def __post_init__(self) -> None:
        for side, samples in (("train on", self.train), ("validate on", self.validation)):
            if not samples:
                raise ValueError(
                    f"{self.name} has no labelled image to {side}; label at least two images."
                )
        for samples in (self.train, self.validation, self.test):
            names = [sample.name for sample in samples]
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise ValueError(f"{self.name} holds {twice} twice; give each image its own name.")
        both = {s.group for s in self.train} & {s.group for s in (*self.validation, *self.test)}
        if both:
            raise ValueError(
                f"{self.name} has {min(both)} in training and in validation or test; put all of it "
                "on one side, or the figures are too good."
            )

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the channels in order."""
        return tuple(channel.name for channel in self.channels)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel's normalised values."""
        return tuple(channel.mean for channel in self.channels)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel's normalised values."""
        return tuple(channel.std for channel in self.channels)

    def regions(self, labels: NDArray[np.int32]) -> list[int]:
        """Ids in a plane (H, W) that are large enough to be prompted, in order."""
        return large_regions(labels, self.smallest)


def large_regions(labels: NDArray[Any], smallest: int = 0) -> list[int]:
    """Ids above 0 in (H, W) whose region has more than `smallest` pixels at 1024 x 1024.

    The area is scaled instead of the labels, which agrees with nearest-neighbour resizing to
    within the outline's rounding.
    """
    scale = SIDE * SIDE / labels.size
    return [label for label, area in areas(labels).items() if area * scale > smallest]


def areas(labels: NDArray[Any]) -> dict[int, int]:
    """Pixels of each id above 0, in order."""
    if labels.min(initial=0) >= 0 and labels.max(initial=0) < max(labels.size, 1):
        # Several times as quick as sorting, as long as ids are not far beyond their number.
        counts = np.bincount(labels.ravel().astype(np.intp, copy=False))
        ids = np.flatnonzero(counts)
        counts = counts[ids]
    else:
        ids, counts = np.unique(labels, return_counts=True)
    pairs = zip(ids.tolist(), counts.tolist(), strict=True)
    return {label: count for label, count in pairs if label > 0}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How labelled images become a data set.

    Parameters
    ----------
    modality
        What the sensor measures; the data set's name if left out.
    channels
        Names or indices from 0 of the channels to use, in the order the model gets them; all of
        them by default. With one file per channel, what the files' stems end with.
    units
        Units of the raw values, one for each channel, where known.
    channel_axis
        Which axis holds the channels, where the file does not say.
    normalization
        How raw values are normalised.
    share
        Share of the groups that is kept for validation, where the images are not split already.
    seed
        Fixes the split and what is measured.
    smallest
        As `Dataset`.
    pixel_ratio
        Height of a pixel over its width, where the file does not say.
    """

    modality: str = ""
    channels: tuple[int | str, ...] | None = None
    units: tuple[str, ...] = ()
    channel_axis: int | None = None
    normalization: Normalization = field(default_factory=Normalization)
    share: float = 0.2
    seed: int = 0
    smallest: int = 0
    pixel_ratio: float = 1.0

    def __post_init__(self) -> None:
        check_pixel_ratio(self.pixel_ratio)
        if not 0 < self.share < 1:
            raise ValueError(
                f"The share kept for validation must lie between 0 and 1, got {self.share}."
            )
        if self.smallest < 0:
            raise ValueError(f"Regions cannot have fewer than 0 pixels, got {self.smallest}.")
        if self.channels is not None:
            _check_channels(self.channels)


def _check_channels(channels: Any) -> None:  # what a form or a command line gives
    if isinstance(channels, str) or not all(
        isinstance(channel, (int, str)) and not isinstance(channel, bool) for channel in channels
    ):
        raise TypeError(f"Channels are names or indices, e.g. ('DAPI', 2), not {channels!r}.")
    if not channels:
        raise ValueError("No channel is chosen; choose at least one, or leave channels out.")
    plain = [str(channel).strip().casefold() for channel in channels]
    if len(set(plain)) < len(plain):
        twice = next(name for name in plain if plain.count(name) > 1)
        raise ValueError(f"Channel {twice} is chosen twice; choose each channel once.")
