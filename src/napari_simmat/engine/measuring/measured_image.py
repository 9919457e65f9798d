"""The values of an image that its table is made of: which channels, what they are called."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.channels.indices import (
    NOT_REFLECTANCE,
    PlacedIndex,
    SpectralIndex,
    bands_note,
    bands_of,
    parse_indices,
)
from napari_simmat.engine.channels.matching import RGB
from napari_simmat.engine.image_stack import FULL_SLICE, ArraySource
from napari_simmat.engine.label_volume import MaskScore
from napari_simmat.engine.measuring.measurements import ValueColumns, measure_objects
from napari_simmat.engine.measuring.part_measurements import measure_in_parts
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.io.reference import ImageReference

LARGE = 1 << 28
"""Bytes of a plane of all channels from which on it is read part by part."""


def column_names(names: Sequence[str] | None, count: int, *, rgb: bool = False) -> list[str]:
    """What tables call the channels of an image.

    Parameters
    ----------
    names
        Those of the file, which are kept; without any a channel is called by its number.
    count
        How many channels there are.
    rgb
        Whether they are the colors of a picture, and perhaps its transparency.
    """
    if rgb:
        names = [*RGB, "alpha"][:count]
    return list(names or [f"channel{number}" for number in range(count)])


def value_columns(
    names: Sequence[str], table: TableSettings, image: str, count: int | None = None
) -> ValueColumns:
    """What is measured where the rows of values are the channels called `names`.

    Of these the first `count` are measured themselves, by default all; the others are bands of
    indices.

    Raises ValueError if an index of the table does not exist, or the `image` lacks a band of it.
    """
    placed = [
        _placed(index, bands_of(index, names, image), range(len(names)))
        for index in parse_indices(table.indices)
    ]
    channels = tuple(names)[:count]
    return ValueColumns(channels=channels, indices=placed, statistics=table.statistics)


def _placed(index: SpectralIndex, found: Mapping[str, int], numbers: Sequence[int]) -> PlacedIndex:
    """An index whose bands are the channels `found`, in rows of the channels `numbers`."""
    return PlacedIndex(index, {band: numbers.index(number) for band, number in found.items()})


@dataclass(frozen=True)
class MeasuredImage:
    """An image, and what of it is measured.

    Attributes
    ----------
    source
        The image.
    numbers
        Which of its channels the rows of values are.
    columns
        What is measured of these.
    notes
        What was taken as what, and may be another number than expected, as sentences.
    """

    source: ArraySource
    numbers: tuple[int, ...]
    columns: ValueColumns
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        source: ArraySource,
        names: Sequence[str],
        chosen: Sequence[int],
        table: TableSettings,
        image: str,
    ) -> MeasuredImage:
        """Find the bands of the indices among all channels.

        Parameters
        ----------
        source, image
            The image, and its name for messages.
        names
            From `column_names`, one for each channel.
        chosen
            The channels that are measured themselves; one that is there twice is measured once.
        table
            The user's choice.

        Raises
        ------
        ValueError
            If an index does not exist, or the image lacks one of its bands.
        """
        numbers = list(dict.fromkeys(chosen))
        titles = [names[number] for number in numbers]
        if len(set(titles)) < len(titles):
            titles = [f"{name}_{number}" for name, number in zip(titles, numbers, strict=True)]
        placed, notes = [], []
        for index in parse_indices(table.indices):
            found = bands_of(index, names, image)
            numbers += [number for number in found.values() if number not in numbers]
            placed.append(_placed(index, found, numbers))
            notes += [bands_note(index, found, names), _reflectance_note(index, source, image)]
        columns = ValueColumns(
            channels=tuple(titles), indices=tuple(placed), statistics=table.statistics
        )
        return cls(source, tuple(numbers), columns, tuple(filter(None, notes)))

    def plane(self, index: tuple[int, ...]) -> NDArray[Any]:
        """Raw values (R, Y, X) of a plane, one row for each of `numbers`, in their common type."""
        return self.part(index, FULL_SLICE, FULL_SLICE)

    def measure(
        self,
        labels: Any,
        axes: str,
        size: ImageReference,
        masks: Sequence[MaskScore] = (),
        parents: Any = None,
    ) -> list[dict[str, object]]:
        """The rows of `measure_objects`; of a plane that is large, read part by part.

        Parameters
        ----------
        labels, parents
            (..., Y, X), numpy; or if there is one plane alone, zarr or anything that takes slices.
        axes, size, masks
            As of `measure_objects`.
        """
        if len(axes) > 2 or (isinstance(labels, np.ndarray) and self._nbytes <= LARGE):
            return measure_objects(
                labels,
                axes=axes,
                channels=self.columns,
                plane=self.plane,
                size=size,
                masks=masks,
                parents=parents,
            )
        return measure_in_parts(
            labels,
            channels=self.columns,
            part=lambda rows, columns: self.part((), rows, columns),
            size=size,
            masks=masks,
            parents=parents,
        )

    @property
    def _nbytes(self) -> int:
        """Bytes of a plane of all that is measured."""
        return len(self.numbers) * math.prod(self.source.shape[-2:]) * self.source.dtype.itemsize

    def part(self, index: tuple[int, ...], rows: slice, columns: slice) -> NDArray[Any]:
        """The same of some rows and columns."""
        return np.stack(self.source.read(self.numbers, index, rows, columns))


def _reflectance_note(index: SpectralIndex, source: ArraySource, image: str) -> str:
    is_whole = source.dtype.kind in "ui"
    return NOT_REFLECTANCE.format(index.name, image) if index.needs_reflectance and is_whole else ""
