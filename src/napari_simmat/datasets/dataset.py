"""Data sets: planes with true objects, split, and their channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.io.plain import check_fields
from napari_simmat.models.spec import Channel, Normalization
from napari_simmat.progress import Job, Progress

LoadedSample = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Values (C, H, W), normalized but not yet standardized, and ids (H, W), 0 for the background."""
REFERENCE_SIDE = 1024
"""Regions are measured as if their plane had this height and width (arXiv 2409.08083)."""
MAX_SAMPLES = 64
MAX_PIXELS_MEASURED = 2**22
"""In larger planes, evenly spaced pixels are measured."""


@dataclass(frozen=True)
class Sample:
    """One plane with its true objects, read on demand.

    Parameters
    ----------
    name
        Unique within the data set, for tables and messages.
    group
        Planes of one stack or series share it; a group is never on both sides of a split.
    load
        Reads the plane, normalized by the whole stack. Can be pickled if the user's arrays can,
        so that other processes can load it.
    """

    name: str
    group: str
    load: Callable[[], LoadedSample]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Samples of one modality, split, and their channels as a checkpoint describes them.

    Parameters
    ----------
    name
        For tables; a folder's name.
    modality
        What the sensor measures.
    channels
        In order, with mean and standard deviation of the normalized values and the unit of the
        raw ones; the checkpoint gets them unchanged.
    normalization
        From raw values to those of the samples; the checkpoint gets it unchanged.
    train, validation, test
        The samples; at least one to train on and one to validate on.
    min_size
        Only regions of more pixels than this, in a plane of 1024 x 1024, are prompted.

    Raises
    ------
    ValueError
        If a side is empty, a name occurs twice, or a group is in training and validation.
    """

    name: str
    modality: str
    channels: tuple[Channel, ...]
    normalization: Normalization
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()
    min_size: int = 0

    def __post_init__(self) -> None:
        for side, samples in (("train on", self.train), ("validate on", self.validation)):
            if not samples:
                raise ValueError(
                    f"{self.name} has no labeled image to {side}; label at least two images."
                )
        for samples in (self.train, self.validation, self.test):
            names = (sample.name for sample in samples)
            check_names(names, f"{self.name} holds {{}} twice; give each image its own name.")
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

    def regions(self, labels: NDArray[np.int32]) -> list[int]:
        """Ids in a plane (H, W) that are large enough to be prompted, in order."""
        return large_regions(labels, self.min_size)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How to make a data set of labeled images.

    Parameters
    ----------
    modality
        What the sensor measures; by default the data set's name.
    selection
        The channels to use. With one file per channel, their names are the endings of the files'
        stems.
    units
        Units of the raw values, one for each channel, if known.
    normalization
        Of the raw values.
    validation_fraction
        Fraction of the groups kept for validation, if the images are not split already.
    seed
        Fixes the split and which samples are measured.
    min_size
        See `Dataset`.
    """

    modality: str = ""
    selection: ChannelSelection = field(default_factory=ChannelSelection)
    units: tuple[str, ...] = ()
    normalization: Normalization = field(default_factory=Normalization)
    validation_fraction: Annotated[float, {"above": 0, "below": 1}] = 0.2
    seed: int = 0
    min_size: Annotated[int, {"min": 0}] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.selection.channels is not None:
            _check_channels(self.selection.channels)


def large_regions(labels: NDArray[Any], min_size: int = 0) -> list[int]:
    """Ids above 0 in (H, W) whose region has more than `min_size` pixels at 1024 x 1024.

    The area is scaled instead of the labels, which agrees with nearest-neighbor resizing to
    within the outline's rounding.
    """
    scale = REFERENCE_SIDE * REFERENCE_SIDE / labels.size
    return [label for label, area in label_areas(labels).items() if area * scale > min_size]


def label_areas(labels: NDArray[Any]) -> dict[int, int]:
    """Pixels of each id above 0, in order."""
    if labels.min(initial=0) >= 0 and labels.max(initial=0) < max(labels.size, 1):
        # Several times faster than sorting, as long as ids are not far above their number.
        counts = np.bincount(labels.ravel().astype(np.intp, copy=False))
        ids = np.flatnonzero(counts)
        counts = counts[ids]
    else:
        ids, counts = np.unique(labels, return_counts=True)
    pairs = zip(ids.tolist(), counts.tolist(), strict=True)
    return {label: count for label, count in pairs if label > 0}


def check_names(names: Iterable[str], message: str) -> None:
    """Raise ValueError if a name occurs twice; it replaces ``{}`` in the message."""
    listed = list(names)
    twice = next((name for name in listed if listed.count(name) > 1), None)
    if twice is not None:
        raise ValueError(message.format(twice))


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


def measure_channels_job(
    samples: Sequence[Sample], names: Sequence[str], units: Sequence[str] = (), seed: int = 0
) -> Job[tuple[Channel, ...]]:
    """The channels with mean and standard deviation over the pixels of training samples.

    At most `MAX_SAMPLES` are measured, chosen by `seed`; each counts by its pixels. Units may be
    left out.

    Raises
    ------
    ValueError
        If a channel is constant, or the units are not one for each channel.
    """
    if units and len(units) != len(names):
        raise ValueError(
            f"There are {len(names)} channels ({', '.join(names)}) but {len(units)} units; give "
            "one for each channel, an empty one where there is none, or leave them out."
        )
    chosen = np.random.default_rng(seed).permutation(len(samples))[:MAX_SAMPLES]
    count = 0
    mean, squares = np.zeros(len(names)), np.zeros(len(names))  # of the deviations from the mean
    for done, index in enumerate(sorted(chosen.tolist()), start=1):
        values = samples[index].load()[0].reshape(len(names), -1).astype(np.float64)
        values = values[:, :: -(-values.shape[1] // MAX_PIXELS_MEASURED)]
        size = values.shape[1]
        own = values.mean(axis=1)
        # Two sets are joined as by Chan, Golub and LeVeque: no large sums that cancel.
        squares += ((values - own[:, None]) ** 2).sum(axis=1)
        squares += (own - mean) ** 2 * (count * size / (count + size))
        mean += (own - mean) * (size / (count + size))
        count += size
        yield Progress(done, len(chosen), "measuring channels")
    spread = np.sqrt(squares / count)
    constant = [
        name
        for name, average, deviation in zip(names, mean, spread, strict=True)
        if deviation <= 1e-7 * max(1.0, abs(average))
    ]
    if constant:
        raise ValueError(
            f"Channel {', '.join(constant)} is constant in every training image, so it tells a "
            "model nothing; leave it out by choosing the other channels, or check its files."
        )
    return tuple(
        Channel(name=name, mean=float(average), std=float(deviation), unit=unit)
        for name, average, deviation, unit in zip(
            names, mean, spread, units or [""] * len(names), strict=True
        )
    )
