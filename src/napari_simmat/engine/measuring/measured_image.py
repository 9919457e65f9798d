"""The values of an image that its table is made of: which channels, what they are called."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
from napari_simmat.engine.measuring.measurements import (
    ValueColumns,
    measure_objects,
    table_columns,
)
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


def _placed(index: SpectralIndex, found: Mapping[str, int], numbers: Sequence[int]) -> PlacedIndex:
    """An index whose bands are the channels `found`, in rows of the channels `numbers`."""
    return PlacedIndex(index, {band: numbers.index(number) for band, number in found.items()})


class MeasuredTable(NamedTuple):
    """A table of objects: the names of its columns, and a row for each object."""

    columns: list[str]
    rows: list[dict[str, object]]


@dataclass(frozen=True)
class MeasuredImage:
    """An image, and what of it is measured; as it is without arguments, nothing of its values.

    Attributes
    ----------
    sources
        Arrays, whose channels together are the image's.
    numbers
        Which of its channels the rows of values are.
    columns
        What is measured of these.
    notes
        What was taken as what, and may be another number than expected, as sentences.
    """

    sources: Sequence[ArraySource] = ()
    numbers: tuple[int, ...] = ()
    columns: ValueColumns = field(default_factory=ValueColumns)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        sources: Sequence[ArraySource],
        names: Sequence[str],
        chosen: Sequence[int],
        table: TableSettings,
        image: str,
    ) -> MeasuredImage:
        """Find the bands of the indices among all channels.

        Parameters
        ----------
        sources, image
            Arrays of the image's channels, and its name for messages.
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
            notes += [bands_note(index, found, names), _reflectance_note(index, sources, image)]
        columns = ValueColumns(
            channels=tuple(titles), indices=tuple(placed), statistics=table.statistics
        )
        return cls(sources, tuple(numbers), columns, tuple(filter(None, notes)))

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

    def table(
        self,
        labels: Any,
        axes: str,
        size: ImageReference,
        known: Callable[[int], Mapping[str, object]],
        *,
        masks: Sequence[MaskScore] = (),
        parents: Any = None,
    ) -> MeasuredTable:
        """The table of the objects.

        Parameters
        ----------
        labels, axes, size, masks, parents
            As of `measure`.
        known
            What is known of a label besides, by column: its class, its score.
        """
        rows = self.measure(labels, axes, size, masks, parents)
        for row in rows:
            row |= known(int(str(row["label"])))
        return MeasuredTable(
            table_columns(axes, self.columns, size, parents=parents is not None, rows=rows), rows
        )

    @property
    def _nbytes(self) -> int:
        """Bytes of a plane of all that is measured."""
        if not self.numbers:
            return 0
        size = np.result_type(*(source.dtype for source in self.sources)).itemsize
        return len(self.numbers) * math.prod(self.sources[0].shape[-2:]) * size

    def part(self, index: tuple[int, ...], rows: slice, columns: slice) -> NDArray[Any]:
        """The same of some rows and columns."""
        read: dict[int, NDArray[Any]] = {}
        first = 0
        for source in self.sources:
            own = [number for number in self.numbers if 0 <= number - first < source.n_channels]
            if own:
                numbers = [number - first for number in own]
                read |= dict(zip(own, source.read(numbers, index, rows, columns), strict=True))
            first += source.n_channels
        return np.stack([read[number] for number in self.numbers])


def _reflectance_note(index: SpectralIndex, sources: Sequence[ArraySource], image: str) -> str:
    is_whole = all(source.dtype.kind in "ui" for source in sources)
    return NOT_REFLECTANCE.format(index.name, image) if index.needs_reflectance and is_whole else ""
