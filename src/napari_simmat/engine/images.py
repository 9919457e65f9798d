"""The channels of an image as a model reads them, and their one normalisation.

Values are normalised with numbers that are measured once on the whole stack and then hold for
every plane, tile, training image and batch of it. They can be read out (`ChannelStack.statistics`),
written down (`Statistics.to_dict`) and passed in again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.channels import match_channels
from napari_simmat.engine.frames import squared
from napari_simmat.engine.sources import WHOLE, Source
from napari_simmat.engine.statistics import Channel, Statistics, Way, measuring_ends, stretch
from napari_simmat.progress import Job, finish
from napari_simmat.words import format_shape

if TYPE_CHECKING:
    from napari_simmat.model.spec import InputChannels

logger = logging.getLogger(__name__)

Index = tuple[int, ...]


class ChannelStack:
    """An image of any size whose planes are read as a model's channels.

    Made by `build`. Nothing is read before it is asked for, and then only the plane in question;
    the user's arrays are never changed.

    Attributes
    ----------
    inputs
        The channels that the model reads, and their normalisation.
    selection
        Which available channel feeds each of the model's.
    names
        Their names, as far as known; otherwise their numbers.
    pixel_size
        Height and width of a pixel of its planes, in any unit; None where they are square.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        selection: tuple[int, ...],
        names: tuple[str, ...],
        inputs: InputChannels,
        statistics: Statistics | None = None,
        pixel_size: tuple[float, float] | None = None,
    ) -> None:
        self.inputs = inputs
        self.pixel_size = pixel_size
        self.selection = selection
        self.names = names
        self._sources = tuple(sources)
        self._distinct = tuple(dict.fromkeys(selection))  # a repeated channel is read once
        self._statistics = statistics
        self._last: tuple[Index, list[NDArray[Any]]] | None = None
        if statistics is not None and len(statistics.low) != len(selection):
            raise ValueError(
                f"The statistics are of {len(statistics.low)} channels, but {inputs.reader} reads "
                f"{len(selection)}; measure them on this image, or take those of another like it."
            )

    @classmethod
    def build(
        cls,
        array_or_arrays: Any,
        *,
        inputs: InputChannels,
        channel_axis: int | None = None,
        channels: Sequence[int | str] | None = None,
        names: Sequence[str] | None = None,
        statistics: Statistics | None = None,
        pixel_size: tuple[float, float] | None = None,
    ) -> ChannelStack:
        """Put the channels of one or several arrays into the order the model reads.

        Parameters
        ----------
        array_or_arrays
            (..., Y, X), numpy, dask, zarr or alike; or a list with one such array for each
            channel, of equal shape but any type.
        inputs
            The channels that the model reads, and their normalisation.
        channel_axis
            The axis of a single array that holds channels; without it the array is one channel.
        channels
            Which channels to take, names or indices (see `match_channels`).
        names
            Names of the available channels.
        statistics
            Normalise with these instead of measuring: those of the whole stack for a part of it,
            or of the coarsest level of a multiscale image.
        pixel_size
            Height and width of a pixel, in any unit, if they are known: the network sees the plane
            as if its pixels were square.

        Raises
        ------
        ValueError, TypeError
            If this cannot be the model's input; one sentence says why.
        """
        several = isinstance(array_or_arrays, (list, tuple))
        names = None if names is None else tuple(str(name) for name in names)
        if several:
            sources = _sources(array_or_arrays, channel_axis, names)
        else:
            sources = [Source.of(array_or_arrays, channel_axis)]
            _hint_at_channels(sources[0])
        available = len(sources) if several else sources[0].n_channels
        last = not several and channel_axis is not None
        last = last and sources[0].channel_axis == len(sources[0].shape)
        selection = match_channels(available, inputs, names=names, channels=channels, rgba=last)
        chosen = tuple(str(index) if names is None else names[index] for index in selection)
        squared(sources[0].shape[-2:], pixel_size)  # says what is wrong with it
        return cls(sources, selection, chosen, inputs, statistics, pixel_size)

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., Y, X), without channels."""
        return self._sources[0].shape

    @property
    def n_channels(self) -> int:
        """How many channels the model reads."""
        return len(self.selection)

    @property
    def statistics(self) -> Statistics:
        """The numbers of the normalisation; measured when first asked for, then fixed."""
        return finish(self.measuring())

    def renewed(self, statistics: Statistics | None = None) -> ChannelStack:
        """The same image with other statistics; left out, they are measured anew."""
        return ChannelStack(
            self._sources, self.selection, self.names, self.inputs, statistics, self.pixel_size
        )

    def measuring(self) -> Job[Statistics]:
        """`statistics` as a job that can be cancelled between two blocks."""
        if self._statistics is None:
            self._statistics = yield from self._measured()
        return self._statistics

    def plane(self, index: Index = ()) -> NDArray[Any]:
        """Raw values (C, Y, X) of one plane; channels of different types take a common one."""
        read = dict(zip(self._distinct, self._read(index), strict=True))
        return np.stack([read[channel] for channel in self.selection])

    def normalized(self, index: Index = ()) -> NDArray[Any]:
        """One plane (C, Y, X) in 0..scale as float32, not yet standardised.

        uint8 that is kept as it is stays uint8. NaN and infinity become 0, the low end.
        """
        statistics = self.statistics
        read = dict(zip(self._distinct, self._read(index), strict=True))
        ways = dict(zip(self._distinct, self._ways(), strict=True))
        if set(ways.values()) == {"bytes"}:
            return np.stack([read[channel] for channel in self.selection])
        scale = self.inputs.normalization.scale
        result = np.empty((self.n_channels, *self.shape[-2:]), dtype=np.float32)
        numbers = zip(self.selection, statistics.low, statistics.high, strict=True)
        for out, (channel, low, high) in zip(result, numbers, strict=True):
            if ways[channel] == "percentile":
                out[...] = stretch(read[channel], low, high, scale)
            else:
                with np.errstate(over="ignore"):  # beyond float32 counts as infinite
                    out[...] = read[channel]
                out[~np.isfinite(out)] = 0
        return result

    def part(self, index: Index, rows: slice, columns: slice) -> ChannelStack:
        """A part of one plane as an image of its own, read now, with the statistics of the whole.

        What makes bytes stay bytes is decided by the whole, so a part is normalised as it is there.
        """
        read = self._part(self._checked(index), rows, columns)
        sources = [Source.of(each) for each in read]
        selection = tuple(self._distinct.index(channel) for channel in self.selection)
        return ChannelStack(
            sources, selection, self.names, self.inputs, self.statistics, self.pixel_size
        )

    def key(self, index: Index = ()) -> str:
        """Address of what `normalized` returns and how it is seen: 32 hexadecimal digits."""
        import xxhash

        read = self._read(index)
        digest = xxhash.xxh3_128()
        pattern = [self._distinct.index(channel) for channel in self.selection]
        types = [plane.dtype.str for plane in read]
        described = [pattern, types, self.shape[-2:], self.statistics.to_dict()]
        seen = squared(self.shape[-2:], self.pixel_size)
        if seen != tuple(self.shape[-2:]):
            described.append(seen)
        digest.update(json.dumps(described).encode())
        for plane in read:
            digest.update(np.ascontiguousarray(plane).data)
        return digest.hexdigest()

    def _read(self, index: Index) -> list[NDArray[Any]]:
        """The distinct channels of one plane; the last one read from a file is remembered."""
        index = self._checked(index)
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        planes = self._part(index)
        if not all(source.in_memory for source in self._sources):
            self._last = (index, planes)
        return planes

    def _part(
        self, index: Index, rows: slice = WHOLE, columns: slice = WHOLE
    ) -> list[NDArray[Any]]:
        if len(self._sources) == 1:
            return self._sources[0].read(self._distinct, index, rows, columns)
        return [self._sources[n].read([0], index, rows, columns)[0] for n in self._distinct]

    def _checked(self, index: Index) -> Index:
        leading = self.shape[:-2]
        index = tuple(int(i) for i in index)
        if len(index) != len(leading):
            raise ValueError(
                f"The image has shape {format_shape(self.shape)} without channels, so a "
                f"plane is chosen by {len(leading)} numbers, not {len(index)}."
            )
        for i, size in zip(index, leading, strict=True):
            if not 0 <= i < size:
                raise ValueError(
                    f"There is no plane {i}; the image has {size} planes along that axis, counted "
                    f"from 0 to {size - 1}."
                )
        return index

    def _dtypes(self) -> list[np.dtype[Any]]:
        several = len(self._sources) > 1
        return [self._sources[n if several else 0].dtype for n in self._distinct]

    def _ways(self) -> list[Way]:
        """How each distinct channel is normalised."""
        rule = self.inputs.normalization
        in_bytes = [rule.keep_uint8 and dtype == np.uint8 for dtype in self._dtypes()]
        if rule.joint:  # one rule for all, so that ratios between channels survive
            in_bytes = [all(in_bytes)] * len(in_bytes)
        other: Way = "values" if rule.method == "none" else "percentile"
        return ["bytes" if keep else other for keep in in_bytes]

    def _measured(self) -> Job[Statistics]:
        channels = [
            Channel(self.names[self.selection.index(number)], dtype, way)
            for number, dtype, way in zip(self._distinct, self._dtypes(), self._ways(), strict=True)
        ]
        rule = self.inputs.normalization
        ends = yield from measuring_ends(self._part, self.shape, channels, rule)
        chosen = [ends[self._distinct.index(channel)] for channel in self.selection]
        return Statistics(tuple(low for low, _ in chosen), tuple(high for _, high in chosen))


def _sources(
    arrays: Sequence[Any], channel_axis: int | None, names: Sequence[str] | None
) -> list[Source]:
    if not arrays:
        raise ValueError("There is no image; give an array, or a list with one for each channel.")
    if channel_axis is not None:
        raise ValueError(
            f"A list holds one array for each channel, so it has no channel axis {channel_axis}; "
            "leave it out, or split the array that has one."
        )
    called = [
        f"Channel {names[n] if names is not None and n < len(names) else n}"
        for n in range(len(arrays))
    ]
    sources = [Source.of(array, None, what) for array, what in zip(arrays, called, strict=True)]
    for source, what in zip(sources, called, strict=True):
        if source.shape != sources[0].shape:
            raise ValueError(
                f"{what} has shape {format_shape(source.shape)}, but {called[0]} has "
                f"{format_shape(sources[0].shape)}; all channels of an image need one "
                "shape."
            )
    return sources


def _hint_at_channels(source: Source) -> None:
    if source.channel_axis is None and len(source.shape) > 2 and source.shape[-1] in (3, 4):
        logger.warning(
            "The image of shape %s was taken as a stack of planes of %d columns; if the last axis "
            "holds colours, give channel_axis=-1.",
            format_shape(source.shape),
            source.shape[-1],
        )
