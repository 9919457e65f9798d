"""What the form chooses: a model, and the channels of an image for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_simmat.annotation.channel_choice import (
    LayerChannel,
    all_image_channels,
    channel_names,
    measured_names,
)
from napari_simmat.annotation.image_value import ImageValue
from napari_simmat.annotation.predictions import ChosenModel
from napari_simmat.widgets.layer_data import (
    channel_array,
    image_geometry,
    image_value,
    layer_info,
    layer_key,
)
from napari_simmat.widgets.placement import level_of

if TYPE_CHECKING:
    from napari_simmat.models.spec import ModelSpec
    from napari_simmat.widgets.placement import ImageGeometry


@dataclass(frozen=True, eq=False)
class FormChoice:
    """What the form chooses: a model, and the channels of an image for it.

    Attributes
    ----------
    model, spec
        The model and its description; None if it cannot be loaded.
    sources, names
        The channels, those that are gaps left out, and what the model calls them.
    images, versions
        All open images, and as for `image_value`.
    """

    model: ChosenModel
    spec: ModelSpec | None
    sources: tuple[LayerChannel, ...]
    names: tuple[str, ...]
    images: tuple[Image, ...]
    versions: Mapping[str, int]

    @cached_property
    def image(self) -> ImageValue:
        """The channels as the model takes them; ValueError or TypeError if it cannot."""
        return image_value(self.sources, self.names, self.images, self.spec, self.versions)

    @property
    def geometry(self) -> ImageGeometry:
        """Where the image lies."""
        return image_geometry(self.sources, self.images)

    @property
    def layers(self) -> frozenset[str]:
        """Keys of the image's layers."""
        return frozenset(source.layer for source in self.sources)

    @property
    def all_channels(self) -> list[tuple[str, LayerChannel]]:
        """Name and place of each channel of the image, also of those that are not chosen."""
        layers = [layer_info(layer) for layer in self.images]
        channels = all_image_channels(self.sources, layers)
        return list(zip(channel_names(channels, layers), channels, strict=True))

    @property
    def all_arrays(self) -> list[Any]:
        """The array (..., Y, X) of each of `all_channels`."""
        return self._arrays([each for _, each in self.all_channels])

    @property
    def measurable(self) -> dict[str, Any]:
        """The same by the names that tables have for these channels."""
        layers = [layer_info(layer) for layer in self.images]
        channels = all_image_channels(self.sources, layers)
        called = measured_names(channels, layers)
        return dict(zip((called[each] for each in channels), self._arrays(channels), strict=True))

    def _arrays(self, channels: Sequence[LayerChannel]) -> list[Any]:
        known = {layer_key(layer): layer for layer in self.images}
        return [
            channel_array(known[each.layer], each.part, level_of(known[each.layer]))
            for each in channels
        ]
