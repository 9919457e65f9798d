"""The modalities of the AIMS benchmark by their keys: channels, published statistics, value ranges.

Facts from arXiv 2409.08083 and its authors' public code. A key is all that an authors' checkpoint
needs besides its tensors; where the images lie is the data sets' matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from napari_simmat.engine.checkpoints.sam_weights import sam_spec
from napari_simmat.model.spec import Channel, Normalization

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
    """What a key of the benchmark stands for.

    Parameters
    ----------
    words
        What the sensor measures.
    parts
        Images that are stacked, in order, with their statistics.
    normalization
        How raw values are scaled.
    """

    words: str
    parts: dict[str, Part]
    normalization: Normalization = EIGHT_BITS

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

_RGBT = {**_THERMAL_RGB, **_THERMAL}

MODALITIES: dict[str, Modality] = {
    "zju-rgbp": Modality("polarization, computed", _ZJU, AS_COMPUTED),
    "pgsnet_p": Modality("polarization", _PGSNET),
    "pgsnet_rgbp": Modality("RGB and polarization", {**_PGSNET_RGB, **_PGSNET}),
    "d": Modality("depth", _DEPTH),
    "rgbd": Modality("RGB and depth", {**_SAM_RGB, **_DEPTH}),
    "hha": Modality("HHA depth code", _HHA),
    "rgbhha": Modality("RGB and HHA depth code", {**_SAM_RGB, **_HHA}),
    "nir": Modality("near infra-red", _NIR),
    "rgbnir": Modality("RGB and near infra-red", {**_NIR_RGB, **_NIR}),
    "t": Modality("thermal", _THERMAL),
    "rgbt": Modality("RGB and thermal", _RGBT),
    "t_500": Modality("thermal", _THERMAL),
    "rgbt_500": Modality("RGB and thermal", _RGBT),
}
"""The modalities by the authors' keys."""


def find_modality(key: str) -> Modality:
    """The modality of a key.

    Raises
    ------
    ValueError
        If there is none; the sentence lists the keys.
    """
    if key not in MODALITIES:
        raise ValueError(f"Modality {key[:100]!r} is unknown; give one of {', '.join(MODALITIES)}.")
    return MODALITIES[key]
