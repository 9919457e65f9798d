"""Data sets from labeled images or arrays: checked, split into training and validation, measured.

A group (a stack, or the files of a series) is never on both sides.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.datasets.dataset import (
    DataConfig,
    Dataset,
    LoadedSample,
    Sample,
    check_names,
    label_areas,
    measure_channels_job,
)
from napari_simmat.datasets.labeled_image import (
    ImageCache,
    LabeledImage,
    LabeledSource,
    LabeledStack,
    StackIndex,
    as_ids,
    choose_channels,
)
from napari_simmat.progress import Job, Progress, finish

logger = logging.getLogger(__name__)
TrainValidation = tuple[tuple[Sample, ...], tuple[Sample, ...]]
"""Training and validation."""
MIN_PIECE_SHARE = 0.25
"""Pieces of a cut object count if they hold at least this share of it."""
MIN_HALF_SHARE = 0.25
"""Smallest share of the regions that each half should have."""
_NUMBERED = re.compile(r"([_\-. ][tz]\d+)+$", re.IGNORECASE)


def from_arrays(
    images: Sequence[LabeledImage],
    config: DataConfig | None = None,
    *,
    name: str = "layers",
    validation: Sequence[LabeledImage] = (),
) -> Dataset:
    """Make a data set of arrays and labels, as `folder.from_folder` does of files.

    Each array is its own group, whatever its name.

    Parameters
    ----------
    images
        At least one, with unique names.
    config
        Channels, normalization, split.
    name
        The data set's.
    validation
        Images to validate on; by default some of `images`, or half of a lone one.

    Raises
    ------
    ValueError, TypeError
        If they cannot be used; the message says what to do.
    """
    if not images:
        raise ValueError("There is no labeled image; choose an image and its labels.")
    check_names(
        (image.name for image in (*images, *validation)),
        "Two labeled images are called {}; give each its own name.",
    )
    config = config or DataConfig()

    def with_axis(image: LabeledImage) -> LabeledImage:
        if image.channel_axis is not None or isinstance(image.arrays, (list, tuple)):
            return image
        return replace(image, channel_axis=config.selection.channel_axis)

    sides = ([with_axis(image) for image in side] for side in (images, validation))
    return finish(assemble_dataset_job(SplitImages(*sides), config, name, group=str))


def series_of(stem: str) -> str:
    """The stem that a series' planes and times share: ``"cell"`` for ``"cell_t01_z003"``."""
    return _NUMBERED.sub("", stem)


@dataclass(frozen=True)
class SplitImages:
    """Labeled images as the user split them; without `validation`, some of `train` are used."""

    train: Sequence[LabeledSource]
    validation: Sequence[LabeledSource] = ()
    test: Sequence[LabeledSource] = ()


def assemble_dataset_job(
    images: SplitImages,
    config: DataConfig,
    name: str,
    group: Callable[[str], str] = series_of,
) -> Job[Dataset]:
    """Read every image once, check it, split, and measure the channels.

    There is at least one image to train on. `group` maps an image's name to what the images of one
    series share.

    Raises
    ------
    ValueError, TypeError, OSError
        If an image cannot be used, or too little is labeled; the message says what to do.
    """
    cache = ImageCache()
    first = images.train[0]
    names = choose_channels(cache.read(first), config.selection.channels)

    def check_job(side: Sequence[LabeledSource], purpose: str) -> Job[list[LabeledStack]]:
        kept = []
        for done, image in enumerate(side):
            yield Progress(done, len(side), f"{image.name}: checking")
            stack = LabeledStack(
                image,
                names,
                config.selection.channels,
                config.normalization,
                cache,
                group(image.name),
                (config.selection.pixel_ratio, 1.0),
            )
            stack.check()
            if next(stack.planes(), None) is None:
                logger.warning("%s has no labeled object and is left out.", image.name)
            else:
                kept.append(stack)
        if side and not kept:
            raise ValueError(
                f"No image to {purpose} has a labeled object: the labels are 0 everywhere. Give "
                "each object a number above 0."
            )
        return kept

    train = yield from check_job(images.train, "train on")
    validation = yield from check_job(images.validation, "validate on")
    test = yield from check_job(images.test, "test on")
    if validation:
        sides = all_samples(train), all_samples(validation)
    else:
        sides = split(train, config.validation_fraction, config.seed)
    dataset = Dataset(
        name=name,
        modality=config.modality or name,
        channels=(yield from measure_channels_job(sides[0], names, config.units, config.seed)),
        normalization=config.normalization,
        train=sides[0],
        validation=sides[1],
        test=all_samples(test),
        min_size=config.min_size,
    )
    sizes = {
        "train on": dataset.train, "validate on": dataset.validation, "test on": dataset.test,
    }  # fmt: skip
    planes = (f"{pluralize(len(side), 'plane')} to {use}" for use, side in sizes.items() if side)
    logger.info("%s: %s.", name, ", ".join(planes))
    return dataset


def all_samples(stacks: Sequence[LabeledStack]) -> tuple[Sample, ...]:
    """Every plane that holds an object, in order."""
    return tuple(
        Sample(_sample_name(stack, plane), stack.group, partial(stack.load, plane))
        for stack in stacks
        for plane, _ in stack.planes()
    )


def split(stacks: Sequence[LabeledStack], fraction: float, seed: int) -> TrainValidation:
    """Keep a `fraction` of the groups for validation, at least one; a lone group is cut in halves.

    Raises
    ------
    ValueError
        If a lone group cannot be divided.
    """
    groups = sorted({stack.group for stack in stacks})
    if len(groups) == 1:
        return _halves(stacks)
    count = min(max(1, round(fraction * len(groups))), len(groups) - 1)
    order = np.random.default_rng(seed).permutation(len(groups))
    kept = {groups[index] for index in order[:count]}
    train = all_samples([stack for stack in stacks if stack.group not in kept])
    validation = all_samples([stack for stack in stacks if stack.group in kept])
    logger.info(
        "Of %d images or series %d %s kept for validation: %s.",
        len(groups),
        count,
        is_or_are(count),
        ", ".join(sorted(kept)),
    )
    return train, validation


@dataclass(frozen=True)
class DividingCut:
    """Divides images along `axis` (0 for upper and lower half, 1 for left and right).

    The place `at` is a share of the image's length.
    """

    axis: int
    at: float

    @property
    def names(self) -> tuple[str, str]:
        """Names of the halves."""
        return ("upper half", "lower half") if self.axis == 0 else ("left half", "right half")

    def windows(self, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Rows and columns of both halves of a plane of `shape` (Y, X)."""
        size = shape[self.axis]
        place = min(max(1, round(self.at * size)), max(1, size - 1))
        first, second = [slice(None)] * 2, [slice(None)] * 2
        first[self.axis], second[self.axis] = slice(0, place), slice(place, None)
        return (first[0], first[1]), (second[0], second[1])

    def labels(self, labels: NDArray[Any], half: int) -> NDArray[Any]:
        """The labels (Y, X) in a half, without small pieces of cut objects."""
        windows = self.windows(labels.shape)
        ours = labels[windows[half]]
        whole = label_areas(labels)
        small = [
            label
            for label, area in label_areas(ours).items()
            if area < MIN_PIECE_SHARE * whole[label]
        ]
        return np.where(np.isin(ours, small), 0, ours)


def _halves(stacks: Sequence[LabeledStack]) -> TrainValidation:
    """Halves of the planes of one image or series, each cut at the same place."""
    what = stacks[0].group if len(stacks) > 1 else stacks[0].name
    cut = _find_cut(stacks, what)
    sides = []
    for half, name in enumerate(cut.names):
        sides.append(
            tuple(
                Sample(
                    name=f"{sample} {name}",
                    group=f"{stack.group} {name}",
                    load=partial(_load_half, stack, plane, cut, half),
                )
                for stack in stacks
                for plane, labels in stack.planes()
                for sample in [_sample_name(stack, plane)]
                if (cut.labels(labels, half) > 0).any()
            )
        )
    logger.warning(
        "All labels are in one %s, %s: its %s trains and its %s validates. Figures on it say "
        "little about other images; label a second one to learn more.",
        "image" if len(stacks) == 1 else "series",
        what,
        *cut.names,
    )
    return sides[0], sides[1]


def _find_cut(stacks: Sequence[LabeledStack], what: str) -> DividingCut:
    """The middle of the longer side, or another place if that leaves a half nearly empty."""
    planes = [labels for stack in stacks for _, labels in stack.planes()]
    centers, shape = np.concatenate([_centers(labels) for labels in planes]), planes[0].shape
    if len(centers) < 2:
        raise ValueError(
            f"There is a single labeled object, in {what}, so that none is left to validate on; "
            "label a second one. If the labels are a mask of many objects, number them first, "
            "e.g. with skimage.measure.label."
        )
    longer = int(shape[1] >= shape[0])
    cuts = [DividingCut(longer, 0.5), DividingCut(1 - longer, 0.5)]
    for axis in (longer, 1 - longer):  # between the two middle ones
        along = np.sort(centers[:, axis])
        cuts.append(
            DividingCut(axis, float(along[len(along) // 2 - 1] + along[len(along) // 2]) / 2)
        )
    best = None
    balance_so_far = 0.0
    for cut in cuts:
        regions = [
            sum(len(label_areas(cut.labels(labels, half))) for labels in planes) for half in (0, 1)
        ]
        balance = min(regions) / max(1, sum(regions))
        if balance >= MIN_HALF_SHARE:
            return cut
        if balance > balance_so_far:
            best, balance_so_far = cut, balance
    if best is not None:
        return best
    raise ValueError(
        f"All labels are in {what}, and its objects lie in one place, so that the image cannot be "
        "divided into a half to train and a half to validate on; label an object elsewhere, or a "
        "second image."
    )


def _centers(labels: NDArray[Any]) -> NDArray[np.float64]:
    """Center (y, x) of each region of a plane as shares of its size."""
    rows, columns = np.nonzero(labels > 0)
    _, inverse, counts = np.unique(labels[rows, columns], return_inverse=True, return_counts=True)
    y = np.bincount(inverse, weights=(rows + 0.5) / labels.shape[0]) / counts
    x = np.bincount(inverse, weights=(columns + 0.5) / labels.shape[1]) / counts
    return np.stack([y, x], axis=1)


def _sample_name(stack: LabeledStack, plane: StackIndex) -> str:
    return f"{stack.name} plane {','.join(map(str, plane))}" if plane else stack.name


def _load_half(stack: LabeledStack, plane: StackIndex, cut: DividingCut, half: int) -> LoadedSample:
    values, labels = stack.load(plane)
    rows, columns = cut.windows(labels.shape)[half]
    return np.ascontiguousarray(values[:, rows, columns]), as_ids(cut.labels(labels, half))
