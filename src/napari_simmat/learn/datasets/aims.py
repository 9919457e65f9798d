"""The AIMS benchmark's modalities as data sets: 13 keys on five folder layouts.

Facts from arXiv 2409.08083 and its authors' public code.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from napari_simmat.engine.checkpoints.modalities import MODALITIES, find_modality
from napari_simmat.learn.datasets.aims_layouts import (
    ANGLES,
    LAYOUTS,
    Split,
    check_files,
    find_layout,
)
from napari_simmat.learn.datasets.aims_reading import ImageOfItem
from napari_simmat.learn.datasets.dataset import Dataset, Sample
from napari_simmat.learn.datasets.stack import LabelledStack, Shelf

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collection:
    """Where the images of a modality lie, and which of them are taken.

    Parameters
    ----------
    layout
        Name of its folder layout.
    every
        Of the training and of the test images each n-th is taken.
    """

    layout: str
    every: tuple[int, int] = (1, 1)


AIMS: dict[str, Collection] = {
    "zju-rgbp": Collection("zju-rgbp"),
    "pgsnet_p": Collection("pgsnet"),
    "pgsnet_rgbp": Collection("pgsnet"),
    "d": Collection("NYUDepthv2"),
    "rgbd": Collection("NYUDepthv2"),
    "hha": Collection("NYUDepthv2"),
    "rgbhha": Collection("NYUDepthv2"),
    "nir": Collection("IVRG_RGBNIR"),
    "rgbnir": Collection("IVRG_RGBNIR"),
    "t": Collection("RGB-Thermal-Glass"),
    "rgbt": Collection("RGB-Thermal-Glass"),
    "t_500": Collection("RGB-Thermal-Glass", every=(10, 2)),
    "rgbt_500": Collection("RGB-Thermal-Glass", every=(10, 2)),
}
"""The images by the authors' keys; what they show: `engine.checkpoints.modalities.MODALITIES`."""


def from_aims(folder: Path | str, key: str) -> Dataset:
    """A modality of the benchmark from its folder, or from the folder of all of them.

    Training and test images are those of the published lists; as in the paper, the test images
    are also those that are validated on. Lists and the presence of files are checked here, what
    is in the files when a sample is loaded.

    Parameters
    ----------
    folder
        With the layout of the key, see `LAYOUTS`.
    key
        One of `AIMS`.

    Raises
    ------
    ValueError, OSError
        If the key is unknown or the folder has another layout; the sentence says what is missing.
    """
    modality = find_modality(key)
    layout = LAYOUTS[AIMS[key].layout]
    root = find_layout(Path(folder), layout, key)
    test = _samples(root, key, "test")
    known = {sample.group for sample in test}
    listed = _samples(root, key, "train")
    train = [sample for sample in listed if sample.group not in known]
    if len(train) < len(listed):
        logger.warning(
            "%s: %d images to train on are also among those to test on and are left out.",
            key,
            len(listed) - len(train),
        )
    if not train:
        raise ValueError(f"{root} has no image to train on; take the data set as published.")
    return Dataset(
        name=key,
        modality=modality.words,
        channels=modality.channels,
        normalization=modality.normalization,
        train=tuple(train),
        validation=test,
        test=test,
        smallest=layout.smallest,
    )


def _samples(root: Path, key: str, split: Split) -> tuple[Sample, ...]:
    modality = MODALITIES[key]
    layout = LAYOUTS[AIMS[key].layout]
    taken = list(layout.items(root, split))[:: AIMS[key].every[split == "test"]]
    items = list({item.name: item for item in taken}.values())  # a line may stand twice
    if not items:
        raise ValueError(
            f"{root} lists no image for {split}; take the data set's lists and files as published."
        )
    files = ANGLES if layout.folder == "zju-rgbp" else tuple(modality.parts)
    check_files(items, files)
    names = tuple(channel.name for channel in modality.channels)
    shelf = Shelf(0)  # every image has one plane: to keep it helps nobody
    samples = []
    for item in items:
        image = ImageOfItem(item, tuple(modality.parts))
        stack = LabelledStack(image, names, None, modality.normalization, shelf)
        samples.append(Sample(item.name, stack.group, stack.load))
    return tuple(samples)
