"""Labelled images, from files or arrays, become a data set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from napari_simmat.learn.datasets.channels import choose_channels
from napari_simmat.learn.datasets.content import LabelledImage
from napari_simmat.learn.datasets.dataset import DataConfig, Dataset, Sample
from napari_simmat.learn.datasets.measuring import measuring
from napari_simmat.learn.datasets.splitting import all_samples, series_of, split
from napari_simmat.learn.datasets.stack import LabelledStack, Shelf
from napari_simmat.progress import Job, Progress
from napari_simmat.words import counted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Images:
    """Labelled images, split by the user or not.

    Parameters
    ----------
    train
        To train on, and to take validation images from if there are none.
    validation, test
        What the user put aside.
    """

    train: Sequence[LabelledImage]
    validation: Sequence[LabelledImage] = field(default=())
    test: Sequence[LabelledImage] = field(default=())


def assembling(
    images: Images,
    config: DataConfig,
    name: str,
    group: Callable[[str], str] = series_of,
) -> Job[Dataset]:
    """Read every image once, check it, split, and measure the channels.

    Parameters
    ----------
    images
        At least one.
    config
        Channels, normalisation, split.
    name
        The data set's.
    group
        What images of one series share, from an image's name.

    Raises
    ------
    ValueError, TypeError, OSError
        If an image cannot be used, or too little is labelled; one sentence says what to do.
    """
    shelf = Shelf()
    first = images.train[0]
    names = choose_channels(shelf.read(first), config.channels, first.name)

    def checked(side: Sequence[LabelledImage], what: str) -> Job[list[LabelledStack]]:
        kept = []
        for done, image in enumerate(side):
            yield Progress(done, len(side), f"{image.name}: checking")
            stack = LabelledStack(
                image,
                names,
                config.channels,
                config.normalization,
                shelf,
                group(image.name),
                (config.pixel_ratio, 1.0),
            )
            stack.check()
            if next(stack.planes(), None) is None:
                logger.warning("%s has no labelled object and is left out.", image.name)
            else:
                kept.append(stack)
        if side and not kept:
            raise ValueError(
                f"No image {what} has a labelled object: the labels are 0 everywhere. Give each "
                "object a number above 0."
            )
        return kept

    train = yield from checked(images.train, "to train on")
    validation = yield from checked(images.validation, "to validate on")
    test = yield from checked(images.test, "to test on")
    if validation:
        sides = all_samples(train), all_samples(validation)
    else:
        sides = split(train, config.share, config.seed)
    channels = yield from measuring(sides[0], names, config.units, config.seed)
    dataset = Dataset(
        name=name,
        modality=config.modality or name,
        channels=channels,
        normalization=config.normalization,
        train=sides[0],
        validation=sides[1],
        test=all_samples(test),
        smallest=config.smallest,
    )
    logger.info("%s: %s.", name, _in_words(dataset))
    return dataset


def _in_words(dataset: Dataset) -> str:
    def count(samples: tuple[Sample, ...], what: str) -> str:
        return f"{counted(len(samples), 'plane')} to {what}"

    return ", ".join(
        count(samples, what)
        for samples, what in (
            (dataset.train, "train on"),
            (dataset.validation, "validate on"),
            (dataset.test, "test on"),
        )
        if samples
    )
