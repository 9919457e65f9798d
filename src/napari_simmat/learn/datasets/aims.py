"""The AIMS benchmark's modalities as data sets: 13 keys on five folder layouts.

Facts from arXiv 2409.08083 and its authors' public code.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_simmat.engine.sam_weights import sam_spec
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
from napari_simmat.model.spec import Channel, Normalization

logger = logging.getLogger(__name__)

EIGHT_BITS = Normalization(low=0, high=100, keep_uint8=True)
"""8-bit images stay 0..255, others (depth, thermal) go from their least to their greatest value to
0..255. The published statistics are of 0..1; times 255 they standardise to the same numbers."""
AS_COMPUTED = Normalization(method="none", scale=510)

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Part:
    """One of the images that are stacked to a modality.

    Parameters
    ----------
    channels
        Names.
    mean, std
        Published, of values in 0..1; of zju-rgbp's as they are.
    unit
        Of the raw values.
    """

    channels: tuple[str, ...]
    mean: Numbers
    std: Numbers
    unit: str = ""


@dataclass(frozen=True)
class Modality:
    """A key of the benchmark.

    Parameters
    ----------
    words
        What the sensor measures.
    layout
        Name of its folder layout.
    parts
        Images that are stacked, in order, with their statistics.
    normalization
        How raw values are scaled.
    every
        Of the training and of the test images each n-th is taken.
    """

    words: str
    layout: str
    parts: dict[str, Part]
    normalization: Normalization = EIGHT_BITS
    every: tuple[int, int] = (1, 1)

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels with the statistics of the normalised values."""
        scale = 255.0 if self.normalization == EIGHT_BITS else 1.0
        return tuple(
            Channel(name=name, mean=scale * mean, std=scale * std, unit=part.unit)
            for part in self.parts.values()
            for name, mean, std in zip(part.channels, part.mean, part.std, strict=True)
        )


def _rgb(mean: Sequence[float], std: Sequence[float]) -> dict[str, Part]:
    return {"RGB": Part(("red", "green", "blue"), tuple(mean), tuple(std))}


def _three(name: str) -> tuple[str, ...]:
    return tuple(f"{name} {colour}" for colour in ("red", "green", "blue"))


# NYU has no statistics of its own: SAM's are taken, for depth the mean over its colours.
_SAM = sam_spec("vit_b", "vit_b", "").channels
_SAM_RGB = _rgb([c.mean / 255 for c in _SAM], [c.std / 255 for c in _SAM])
_DEPTH = {
    "depth": Part(("depth",), (sum(_SAM_RGB["RGB"].mean) / 3,), (sum(_SAM_RGB["RGB"].std) / 3,))
}
_HHA = {
    "HHA": Part(
        ("horizontal disparity", "height above ground", "angle with gravity"),
        _SAM_RGB["RGB"].mean,
        _SAM_RGB["RGB"].std,
    )
}
_NIR = {"NIR": Part(("NIR",), (0.50381,), (0.20590,))}
_NIR_RGB = _rgb((0.43031, 0.43243, 0.41996), (0.25076, 0.24733, 0.26631))
_THERMAL = {"thermal": Part(("thermal",), (0.35633,), (0.21658,))}
_THERMAL_RGB = _rgb((0.37961, 0.39143, 0.38458), (0.22784, 0.23296, 0.23524))
_PGSNET = {
    "AoLP": Part(_three("AoLP"), (0.47199, 0.46374, 0.48603), (0.28202, 0.28334, 0.25938)),
    "DoLP": Part(_three("DoLP"), (0.10264, 0.10432, 0.11925), (0.11682, 0.11885, 0.12313)),
}
_PGSNET_RGB = _rgb((0.20545, 0.21863, 0.15605), (0.19210, 0.20712, 0.18405))
_ZJU = {
    "intensity": Part(
        _three("intensity"), (141.125, 141.375, 138.996), (139.955, 140.576, 141.135)
    ),
    "AoLP": Part(
        _three("AoLP"), (-0.01453, -0.01415, -0.01653), (0.38504, 0.38248, 0.38348), "rad"
    ),
    "DoLP": Part(_three("DoLP"), (0.15173, 0.14899, 0.17018), (0.13345, 0.13081, 0.14261)),
}

AIMS: dict[str, Modality] = {
    "zju-rgbp": Modality("polarization, computed", "zju-rgbp", _ZJU, AS_COMPUTED),
    "pgsnet_p": Modality("polarization", "pgsnet", _PGSNET),
    "pgsnet_rgbp": Modality("RGB and polarization", "pgsnet", {**_PGSNET_RGB, **_PGSNET}),
    "d": Modality("depth", "NYUDepthv2", _DEPTH),
    "rgbd": Modality("RGB and depth", "NYUDepthv2", {**_SAM_RGB, **_DEPTH}),
    "hha": Modality("HHA depth code", "NYUDepthv2", _HHA),
    "rgbhha": Modality("RGB and HHA depth code", "NYUDepthv2", {**_SAM_RGB, **_HHA}),
    "nir": Modality("near infra-red", "IVRG_RGBNIR", _NIR),
    "rgbnir": Modality("RGB and near infra-red", "IVRG_RGBNIR", {**_NIR_RGB, **_NIR}),
    "t": Modality("thermal", "RGB-Thermal-Glass", _THERMAL),
    "rgbt": Modality("RGB and thermal", "RGB-Thermal-Glass", {**_THERMAL_RGB, **_THERMAL}),
    "t_500": Modality("thermal", "RGB-Thermal-Glass", _THERMAL, every=(10, 2)),
    "rgbt_500": Modality(
        "RGB and thermal", "RGB-Thermal-Glass", {**_THERMAL_RGB, **_THERMAL}, every=(10, 2)
    ),
}
"""The modalities by the authors' keys."""


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
    if key not in AIMS:
        raise ValueError(f"Modality {key!r} is unknown; give one of {', '.join(AIMS)}.")
    modality = AIMS[key]
    layout = LAYOUTS[modality.layout]
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
    modality = AIMS[key]
    layout = LAYOUTS[modality.layout]
    taken = list(layout.items(root, split))[:: modality.every[split == "test"]]
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
