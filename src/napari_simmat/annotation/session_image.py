"""The image of a session without a window: its pixels, and what labels keep of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from napari_simmat.annotation.image_value import ImageValue
from napari_simmat.batch.loaded_image import OpenedImage
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.measuring.measured_image import column_names
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.io.axes import unnamed_axes
from napari_simmat.io.image_file import ImageFile
from napari_simmat.io.readers import open_image, stem_of
from napari_simmat.io.reference import ImageReference


@dataclass(frozen=True, eq=False)
class SessionImage:
    """An image that is annotated, in its usual view."""

    name: str
    """For messages and files."""
    value: ImageValue
    """Its channels, as the model reads them."""
    axes: str
    """One letter for each axis without channels, ending in YX."""
    shape: tuple[int, ...]
    """The size of each."""
    reference: ImageReference
    """What labels keep of it."""
    order: AxisOrder = ()
    """There is no other view."""
    channels: Mapping[str, Any] = field(default_factory=dict)
    """All channels by the names that tables have for them, also those that no model reads."""

    @classmethod
    def read(cls, path: Path | str, selection: ChannelSelection | None = None) -> SessionImage:
        """Read an image file of any supported format.

        Parameters
        ----------
        path
            The file, or a folder that is one image.
        selection
            Which of its channels are read; all by default.

        Raises
        ------
        ValueError
            If it cannot be read, or does not have these channels.
        """
        file = open_image(path)
        return cls._of(file, selection or ChannelSelection(), stem_of(Path(path)))

    @classmethod
    def of(
        cls,
        array: Any,
        *,
        channel_axis: int | None = None,
        channel_names: Sequence[str] | None = None,
        pixel_size: tuple[float, float] | None = None,
        name: str = "image",
    ) -> SessionImage:
        """An array as an image.

        Parameters
        ----------
        array
            (..., Y, X), numpy, dask or alike.
        channel_axis, channel_names
            The axis that holds channels, and their names; by default there is one channel.
        pixel_size
            Height and width of a pixel in any unit; None if square or unknown.
        name
            For messages and files.
        """
        axes = unnamed_axes(Path(name), array.ndim - (channel_axis is not None))
        if channel_axis is not None:
            at = channel_axis % array.ndim
            axes = f"{axes[:at]}C{axes[at:]}"
        named = None if channel_names is None else tuple(channel_names)
        file = ImageFile(Path(name), array, axes, named)
        image = cls._of(file, ChannelSelection(), name)
        return replace(image, value=replace(image.value, pixel_size=pixel_size))

    @classmethod
    def _of(cls, file: ImageFile, selection: ChannelSelection, name: str) -> SessionImage:
        opened = OpenedImage.of(file, selection)
        names = opened.channel_names
        channels = _channels(opened)
        chosen = range(len(channels)) if opened.channels is None else opened.channels
        numbers = [_number(each, names, len(channels)) for each in chosen]
        arrays = [channels[number] for number in numbers]
        measured = column_names(names, len(channels), rgb=opened.is_rgb)
        value = ImageValue(
            arrays=arrays[0] if opened.axis is None else arrays,
            names=None if names is None else tuple(names[number] for number in numbers),
            token=(uuid4().hex,),
            pixel_size=opened.image.pixel_size,
            measured=tuple(measured[number] for number in numbers),
        )
        known = dict(zip(measured, channels, strict=True))
        return cls(name, value, opened.axes, opened.shape, opened.image.reference, channels=known)


def _channels(opened: OpenedImage) -> list[Any]:
    """One array (..., Y, X) for each channel."""
    if opened.axis is None:
        return [opened.image.data]
    data = np.moveaxis(np.asarray(opened.image.data), opened.axis, 0)
    return list(data)


def _number(channel: int | str, names: Sequence[str] | None, count: int) -> int:
    """Which channel is meant by a name, or an index from 0."""
    if isinstance(channel, int) and 0 <= channel < count:
        return channel
    if names is not None and channel in names:
        return list(names).index(str(channel))
    there = ", ".join(names) if names else f"0 to {count - 1}"
    raise ValueError(f"The image has no channel {channel}; it has {there}.")
