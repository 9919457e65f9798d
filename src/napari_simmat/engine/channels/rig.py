"""A sensor of several cameras: what is measured on one capture holds for all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, format_shape
from napari_simmat.engine.channels.registration import ChannelMotion, Motion, move_channel
from napari_simmat.io.files import atomic_write, check_size, write_text
from napari_simmat.io.plain import from_plain, parse_json, to_plain

FORMAT = "napari-simmat rig"
_VERSION = 1
_LARGEST = 2**20
"""Bytes of a rig's file; 64 channels have 20 KB."""
NO_RIG = "{} is not the file of a rig, which simmat channels register writes; give such a file."
NEWER = "{} has format {}, this version reads up to {}; update napari-simmat."
OTHER_CHANNELS = (
    "The rig has the channels {}, but {} has {}; give captures of the sensor that it was measured "
    "on, with the same names of bands in the same order."
)
OTHER_SIZE = (
    "The rig was measured on images of {} pixels, but {} has {}; give captures of its sensor."
)


@dataclass(frozen=True, kw_only=True)
class Rig:
    """How the channels of a sensor lie to each other.

    Parameters
    ----------
    reference
        The channel that the others move onto.
    motion
        What could lie between two channels when it was measured.
    shape
        Rows and columns of its images.
    channels
        The motion of each channel by its name, in their order.
    measured_on
        The image that it was measured on.
    """

    reference: str
    motion: Motion
    shape: tuple[int, int]
    channels: Mapping[str, ChannelMotion]
    measured_on: str = ""

    @classmethod
    def load(cls, path: Path) -> Rig:
        """Read what `save` wrote; ValueError if it is no such file."""
        check_size(path, _LARGEST)
        try:
            values = parse_json(path.read_text(encoding="utf-8"), "It")
        except ValueError:
            values = None
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(NO_RIG.format(path.name))
        version = values.pop("format_version", None)
        if not isinstance(version, int) or version > _VERSION:
            raise ValueError(NEWER.format(path.name, version, _VERSION))
        return from_plain(cls, values, path.name)

    def save(self, path: Path) -> None:
        """Write the rig as JSON, a line for each channel."""
        values = {"format": FORMAT, "format_version": _VERSION, **to_plain(self)}
        channels = [
            f"  {json.dumps(name, ensure_ascii=False)}: {json.dumps(motion)}"
            for name, motion in values.pop("channels").items()
        ]
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items()]
        lines.append(' "channels": {\n' + ",\n".join(channels) + "\n }")
        with atomic_write(path) as temporary:
            write_text(temporary, "{\n" + ",\n".join(lines) + "\n}\n")

    @property
    def shifts(self) -> str:
        """Pixels down and right for each channel, as ``--shifts`` takes them."""
        pairs = [(-m.matrix[0][2] + 0.0, -m.matrix[1][2] + 0.0) for m in self.channels.values()]
        return " ".join(f"{down:g},{right:g}" for down, right in pairs)

    @property
    def words(self) -> str:
        """What was done to an image that was registered."""
        if self.motion == "shift":
            return f"shifts: {self.shifts}"
        matrices = {name: motion.matrix for name, motion in self.channels.items()}
        return f"{self.motion} motions onto {self.reference}: {json.dumps(matrices)}"

    def check(self, image: str, names: Sequence[str], shape: Sequence[int]) -> None:
        """Refuse an image of other channels or another size (Y, X)."""
        if list(names) != list(self.channels):
            mine, theirs = format_list(self.channels), format_list(names)
            raise ValueError(OTHER_CHANNELS.format(mine, image, theirs))
        if tuple(shape) != tuple(self.shape):
            raise ValueError(
                OTHER_SIZE.format(format_shape(self.shape), image, format_shape(shape))
            )

    @property
    def unsure(self) -> list[str]:
        """Channels that show too little of what the reference shows to be moved onto it."""
        return [name for name, motion in self.channels.items() if not motion.is_sure]

    def register(self, channels: Sequence[Any]) -> list[Any]:
        """The channels (..., Y, X) on the pixels of the reference, NaN where one has none."""
        motions = self.channels.values()
        return [
            move_channel(channel, motion.matrix)
            for channel, motion in zip(channels, motions, strict=True)
        ]


def in_type(
    channels: Sequence[NDArray[Any]], dtype: np.dtype[Any]
) -> tuple[list[NDArray[Any]], int | None]:
    """Registered channels in the type of their image, and the value of pixels without data.

    For integers it is 0, or the highest value, or the first that no pixel has. Without NaN there is
    no such value; if every value is taken, the channels stay as they are.
    """
    if dtype.kind not in "iu":
        return [channel.astype(dtype, copy=False) for channel in channels], None
    whole = [np.rint(channel) for channel in channels]
    missing = None
    if any(np.isnan(channel).any() for channel in whole):
        missing = _unused(whole, dtype)
        if missing is None:
            return list(channels), None
        whole = [np.where(np.isnan(channel), missing, channel) for channel in whole]
    return [channel.astype(dtype) for channel in whole], missing


def _unused(channels: Sequence[NDArray[Any]], dtype: np.dtype[Any]) -> int | None:
    """A value that no pixel has."""
    used = set()
    for channel in channels:
        used |= set(np.unique(channel[~np.isnan(channel)]).astype(np.int64).tolist())
    lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
    offered = (0, highest, *range(lowest, min(highest, lowest + 2**16)))
    return next((int(value) for value in offered if value not in used), None)
