"""The modalities of the AIMS benchmark by their keys: channels, published statistics, value ranges.

Source: arXiv 2409.08083 and its authors' public code. Besides its tensors, an authors' checkpoint
needs only a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from napari_simmat.checkpoints.catalog import sam_spec
from napari_simmat.models.spec import Channel, Normalization

EIGHT_BITS = Normalization(low=0, high=100, keep_uint8=True)
"""8-bit images stay 0..255, others (depth, thermal) are stretched from minimum and maximum to
0..255. The published statistics are for 0..1; times 255 they standardize to the same numbers."""
AS_COMPUTED = Normalization(method="none", scale=510)

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class ModalityPart:
    """One of the images that a modality stacks.

    Parameters
    ----------
    channels
        Names.
    mean, std
        As published, for values in 0..1; for zju-rgbp for raw values.
    unit
        Unit of the raw values.
    """

    channels: tuple[str, ...]
    mean: Numbers
    std: Numbers
    unit: str = ""


@dataclass(frozen=True)
class Modality:
    """A modality of the benchmark.

    Parameters
    ----------
    words
        What the sensor measures, for the user.
    parts
        The stacked images in order, with their statistics.
    normalization
        How raw values are scaled.
    """

    words: str
    parts: dict[str, ModalityPart]
    normalization: Normalization = EIGHT_BITS

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels with statistics of the normalized values."""
        scale = 255.0 if self.normalization == EIGHT_BITS else 1.0
        return tuple(
            Channel(name=name, mean=scale * mean, std=scale * std, unit=part.unit)
            for part in self.parts.values()
            for name, mean, std in zip(part.channels, part.mean, part.std, strict=True)
        )


def _rgb(mean: Sequence[float], std: Sequence[float]) -> dict[str, ModalityPart]:
    return {"RGB": ModalityPart(("red", "green", "blue"), tuple(mean), tuple(std))}


def _three(name: str) -> tuple[str, ...]:
    return tuple(f"{name} {color}" for color in ("red", "green", "blue"))


# No statistics are published for NYU: SAM's are used, for depth their mean over the colors.
_SAM = sam_spec("vit_b", "vit_b", "").channels
_SAM_RGB = _rgb([c.mean / 255 for c in _SAM], [c.std / 255 for c in _SAM])
_DEPTH = {
    "depth": ModalityPart(
        ("depth",), (sum(_SAM_RGB["RGB"].mean) / 3,), (sum(_SAM_RGB["RGB"].std) / 3,)
    )
}
_HHA = {
    "HHA": ModalityPart(
        ("horizontal disparity", "height above ground", "angle with gravity"),
        _SAM_RGB["RGB"].mean,
        _SAM_RGB["RGB"].std,
    )
}
_NIR = {"NIR": ModalityPart(("NIR",), (0.50381,), (0.20590,))}
_NIR_RGB = _rgb((0.43031, 0.43243, 0.41996), (0.25076, 0.24733, 0.26631))
_THERMAL = {"thermal": ModalityPart(("thermal",), (0.35633,), (0.21658,))}
_THERMAL_RGB = _rgb((0.37961, 0.39143, 0.38458), (0.22784, 0.23296, 0.23524))
_PGSNET = {
    "AoLP": ModalityPart(_three("AoLP"), (0.47199, 0.46374, 0.48603), (0.28202, 0.28334, 0.25938)),
    "DoLP": ModalityPart(_three("DoLP"), (0.10264, 0.10432, 0.11925), (0.11682, 0.11885, 0.12313)),
}
_PGSNET_RGB = _rgb((0.20545, 0.21863, 0.15605), (0.19210, 0.20712, 0.18405))
_ZJU = {
    "intensity": ModalityPart(
        _three("intensity"), (141.125, 141.375, 138.996), (139.955, 140.576, 141.135)
    ),
    "AoLP": ModalityPart(
        _three("AoLP"), (-0.01453, -0.01415, -0.01653), (0.38504, 0.38248, 0.38348), "rad"
    ),
    "DoLP": ModalityPart(_three("DoLP"), (0.15173, 0.14899, 0.17018), (0.13345, 0.13081, 0.14261)),
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

    Raises ValueError if there is none.
    """
    if key not in MODALITIES:
        raise ValueError(f"Modality {key[:100]!r} is unknown; give one of {', '.join(MODALITIES)}.")
    return MODALITIES[key]
