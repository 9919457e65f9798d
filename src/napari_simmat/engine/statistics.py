"""The numbers of an image's normalisation, measured once on the whole stack."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.percentiles import Pool
from napari_simmat.engine.spread import spread
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from napari_simmat.model.spec import Normalization

logger = logging.getLogger(__name__)

ALL_VOXELS = 2**24
"""Up to so many voxels of a channel are measured all; of more, a seeded spread of blocks."""

Way = Literal["bytes", "values", "percentile"]
"""How a channel is normalised: kept as bytes, kept as values, or by its percentiles."""

Read = Callable[..., list[NDArray[Any]]]
"""Gets a plane's index, and rows and columns as slices (left out: all); gives (Y, X) each."""


@dataclass(frozen=True)
class Statistics:
    """The numbers of a normalisation, for each of the model's channels.

    ``low`` becomes 0 and ``high`` the normalisation's scale. Channels whose values are kept as
    they are (uint8 for SAM, method ``"none"``) have 0 and the scale itself.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", tuple(float(value) for value in self.low))
        object.__setattr__(self, "high", tuple(float(value) for value in self.high))
        if len(self.low) != len(self.high):
            raise ValueError(
                f"Statistics need one low and one high value for each channel, got "
                f"{len(self.low)} and {len(self.high)}."
            )
        for low, high in zip(self.low, self.high, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(
                    f"Statistics must be finite with low <= high, got {low} and {high}."
                )

    def to_dict(self) -> dict[str, list[float]]:
        """Plain lists for JSON; `from_dict` reads them back exactly."""
        return {"low": list(self.low), "high": list(self.high)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Statistics:
        """Read what `to_dict` gave; ValueError if it is something else."""
        try:
            return cls(tuple(values["low"]), tuple(values["high"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"These are no statistics of an image ({error!r}).") from None


def stretch(plane: NDArray[Any], low: float, high: float, scale: float) -> NDArray[np.float64]:
    """Map low..high to 0..scale, clipped, in double precision; what is not finite becomes 0."""
    if low == high:
        return np.zeros(plane.shape)
    values = plane.astype(np.float64)
    values[~np.isfinite(values)] = low
    np.clip(values, low, high, out=values)
    if not math.isfinite(high - low):  # the whole range of float64
        values, low, high = values / 2, low / 2, high / 2
    values -= low
    values /= high - low
    values *= scale
    return values


def stretch_percentiles(
    image: NDArray[Any],
    low: float,
    high: float,
    *,
    axes: tuple[int, ...] | None = None,
    scale: float = 255.0,
    least: float = 1e-9,
    relative: float = 0.0,
) -> NDArray[Any]:
    """Map two percentiles of a finite image in memory to 0 and `scale`, clipped.

    For drawn scenes and for pictures to look at: in the image's own precision, unlike `stretch`,
    and by the percentiles of this image alone.

    Parameters
    ----------
    low, high
        Percentiles in percent.
    axes
        Axes over which percentiles are taken, e.g. ``(1, 2)`` for each channel (C, Y, X) alone;
        None for one pair for the whole image.
    least, relative
        The range that is stretched is at least ``least + relative * |upper end|``, so that the
        noise of an even image is not stretched.
    """
    bounds = np.percentile(image, [low, high], axis=axes, keepdims=True)
    return rescale(image, bounds[0], bounds[1], scale, least + relative * np.abs(bounds[1]))


def rescale(
    image: NDArray[Any], low: Any, high: Any, scale: float = 255.0, least: Any = 1e-9
) -> NDArray[Any]:
    """Map low..high, a range of at least `least`, to 0..scale, clipped."""
    unit = np.clip((image - low) / np.maximum(high - low, least), 0, 1)
    return np.asarray(scale * unit)


class Channel(NamedTuple):
    """A channel that is measured: what it is called, its type, and how it is normalised."""

    name: str
    dtype: np.dtype[Any]
    way: Way


def measuring_ends(
    read: Read, shape: tuple[int, ...], channels: Sequence[Channel], rule: Normalization
) -> Job[list[tuple[float, float]]]:
    """Measure which value of each channel becomes 0 and which the rule's scale.

    Parameters
    ----------
    read
        Reads the image in parts.
    shape
        (..., Y, X), without channels.
    channels
        Those that `read` gives.
    rule
        Of the model; a joint one takes the values of all channels together.

    Raises
    ------
    ValueError
        If a channel holds no finite value.
    """
    ends = [(0.0, rule.scale)] * len(channels)
    measured = [n for n, channel in enumerate(channels) if channel.way == "percentile"]
    if not measured:
        return ends
    groups = [measured] if rule.joint else [[number] for number in measured]
    pools = [Pool(np.result_type(*(channels[n].dtype for n in group))) for group in groups]
    yield from _fill(pools, groups, read, shape)
    for pool, group in zip(pools, groups, strict=True):
        found = _ends(pool, ", ".join(channels[n].name for n in group), rule)
        for n in group:
            ends[n] = found
    return ends


def _fill(
    pools: list[Pool], groups: list[list[int]], read: Read, shape: tuple[int, ...]
) -> Job[None]:
    """Give each pool its channels' values: of a spread of blocks, then of all until it has any.

    The second round is for images that are NaN nearly everywhere.
    """
    blocks = spread(shape, ALL_VOXELS // max(len(group) for group in groups))
    for done, block in enumerate(blocks, start=1):
        values = read(*block)
        for pool, group in zip(pools, groups, strict=True):
            for n in group:
                pool.add(values[n])
        yield Progress(done, len(blocks), "measuring intensities")
    for done, index in enumerate(np.ndindex(*shape[:-2]), start=1):
        empty = [(p, g) for p, g in zip(pools, groups, strict=True) if not len(p)]
        if not empty:
            break
        values = read(index)
        for pool, group in empty:
            for n in group:
                pool.add(values[n])
        yield Progress(done, math.prod(shape[:-2]), "looking for finite values")


def _ends(pool: Pool, name: str, rule: Normalization) -> tuple[float, float]:
    if not len(pool):
        raise ValueError(
            f"Channel {name} holds no finite value, only NaN or infinity; select another, or "
            "repair the image."
        )
    low, high = pool.percentiles((rule.low, rule.high))
    if low >= high:  # a few pixels on an even background: they are what is looked for
        low, high = pool.range()
    if low == high:
        logger.warning(
            "Channel %s is constant (%g everywhere); it tells the model nothing.", name, low
        )
    return low, high
