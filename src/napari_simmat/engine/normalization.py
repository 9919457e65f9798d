"""Intensity normalization: the statistics of a stack, how they are measured, and scaling by them.

Percentiles have one definition for all types: percentile ``q`` of ``n`` sorted values lies at
position ``q / 100 * (n - 1)``, linear between the two neighbors, as in `numpy.percentile`.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from napari_simmat.models.spec import Normalization

logger = logging.getLogger(__name__)

MAX_VOXELS_MEASURED = 2**24
"""Up to so many voxels of a channel are all measured; of larger stacks, a seeded set of blocks."""
SAMPLE_SIDE = 256
"""Side of a block in pixels."""
TIMES_LONGER = 15
"""Samples of a channel that are looked at beyond the first while all its values are the same."""
CONSTANT = "Channel %s is constant (%g %s); it tells the model nothing."
GLARE_PERCENTILES = (5.0, 50.0, 98.0)
"""Where dark ground, ground, and objects are looked for."""
MAX_GLARE = 5.0
"""Where glare is clipped, relative to the brightness of the objects."""
MIN_CLEARANCE = 12.0
"""Brightness of objects above the ground, relative to the ground's noise, from which glare can be
told from objects."""
_COUNTED = (np.dtype(np.uint8), np.dtype(np.uint16))

ScalingMethod = Literal["bytes", "values", "percentile"]
"""How a channel is normalized: kept as bytes, kept as values, or by its percentiles."""
ReadBlocks = Callable[..., list[NDArray[Any]]]
"""Reads the channels, (Y, X) each, from a plane's index and slices of rows and columns (or all)."""
SampleBlock = tuple[tuple[int, ...], slice, slice]
"""Index of the plane, rows, columns."""


@dataclass(frozen=True)
class Statistics:
    """The numbers of a normalization, for each of the model's channels.

    ``low`` becomes 0 and ``high`` the normalization's scale. Channels whose values are kept as
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


def stretch(plane: NDArray[Any], low: float, high: float, scale: float) -> NDArray[np.float64]:
    """Map low..high to 0..scale, clipped, in double precision; NaN and infinity become 0."""
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
    minimum: float = 1e-9,
    relative: float = 0.0,
) -> NDArray[Any]:
    """Map the percentiles `low` and `high` of a finite image in memory to 0 and `scale`, clipped.

    For drawn scenes and pictures: in the image's own precision, unlike `stretch`, and by the
    percentiles of this image alone.

    Parameters
    ----------
    axes
        Axes over which percentiles are taken, e.g. ``(1, 2)`` for each channel of (C, Y, X); by
        default all.
    minimum, relative
        The mapped range is at least ``minimum + relative * |upper end|``, so that the noise of an
        even image is not amplified.
    """
    bounds = np.percentile(image, [low, high], axis=axes, keepdims=True)
    return rescale(image, bounds[0], bounds[1], scale, minimum + relative * np.abs(bounds[1]))


def rescale(
    image: NDArray[Any], low: Any, high: Any, scale: float = 255.0, minimum: Any = 1e-9
) -> NDArray[Any]:
    """Map low..high, a range of at least `minimum`, to 0..scale, clipped."""
    unit = np.clip((image - low) / np.maximum(high - low, minimum), 0, 1)
    return np.asarray(scale * unit)


class MeasuredChannel(NamedTuple):
    """Name, type and scaling method of a channel to be measured."""

    name: str
    dtype: np.dtype[Any]
    way: ScalingMethod


def measure_range_job(
    read: ReadBlocks,
    shape: tuple[int, ...],
    channels: Sequence[MeasuredChannel],
    rule: Normalization,
    blocks: Sequence[SampleBlock] | None = None,
) -> Job[list[tuple[float, float]]]:
    """Measure which value of each channel becomes 0 and which one the rule's scale.

    Parameters
    ----------
    read
        Reads the image in parts.
    shape
        (..., Y, X), without channels.
    channels
        Those that `read` gives.
    rule
        The model's; a joint one takes the values of all channels together.
    blocks
        What alone is measured, e.g. the tissue of a slide; by default a sample of all.

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
    pools = [
        PercentileAccumulator(np.result_type(*(channels[n].dtype for n in group)))
        for group in groups
    ]
    is_whole = yield from _fill_job(pools, groups, read, shape, blocks)
    for pool, group in zip(pools, groups, strict=True):
        name = ", ".join(channels[n].name for n in group)
        found = _value_range(pool, name, rule, is_whole=is_whole)
        for n in group:
            ends[n] = found
    return ends


def _fill_job(
    pools: list[PercentileAccumulator],
    groups: list[list[int]],
    read: ReadBlocks,
    shape: tuple[int, ...],
    given: Sequence[SampleBlock] | None,
) -> Job[bool]:
    """Add the values of the sampled blocks to the pool of each group; whether these were all.

    Of blocks that are `given` nothing else is looked at.

    A pool that is still empty, as for an image that is NaN nearly everywhere, or that holds one
    value, as of a slide where only glass was met, gets block after block of the rest until it has
    two values: an empty one of the whole image, one of a single value of `TIMES_LONGER` samples.
    """
    budget = MAX_VOXELS_MEASURED // max(len(group) for group in groups)
    blocks = sample_blocks(shape, budget) if given is None else given
    for done, block in enumerate(blocks, start=1):
        values = read(*block)
        for pool, group in zip(pools, groups, strict=True):
            for n in group:
                pool.add(values[n])
        yield Progress(done, len(blocks), "measuring intensities")
    if given is not None:
        return False
    if math.prod(shape) <= budget:
        return True
    total = math.prod(shape)
    looked_at = 0
    for block in _shuffled_blocks(shape):
        enough = looked_at > TIMES_LONGER * budget
        short = [
            (pool, group)
            for pool, group in zip(pools, groups, strict=True)
            if not len(pool) or (pool.is_constant and not enough)
        ]
        if not short:
            return False
        values = read(*block)
        looked_at += values[0].size
        for pool, group in short:
            for n in group:
                pool.add(values[n])
        yield Progress(min(looked_at, total), total, "looking for values that differ")
    return True


def _value_range(
    pool: PercentileAccumulator, name: str, rule: Normalization, *, is_whole: bool
) -> tuple[float, float]:
    """The values that become 0 and the rule's scale, from a pool of all values or of a sample."""
    if not len(pool):
        raise ValueError(
            f"Channel {name} holds no finite value, only NaN or infinity; select another, or "
            "repair the image."
        )
    wanted = (rule.low, rule.high, *(GLARE_PERCENTILES if rule.clip_glare else ()))
    low, high, *inner = pool.percentiles(wanted)
    if inner:
        step = 1.0 if np.issubdtype(pool.dtype, np.integer) else 0.0
        high = below_glare(low, high, inner, step)
    if low >= high:  # a few bright pixels on an even background: these are the objects
        low, high = pool.range()
    if low == high:
        where = "everywhere" if is_whole else "wherever it was looked at"
        logger.warning(CONSTANT, name, low, where)
    return low, high


def below_glare(low: float, high: float, seen: Sequence[float], step: float) -> float:
    """`high`, or less if the brightest 2 % alone take most of the range from `low` to it.

    If the 98th percentile is far above the noise of the ground, objects are more of the image than
    that, and all beyond five times their brightness is clipped. Otherwise the brightest pixels are
    the objects, and `high` stays. (Factors: images of ``dsb2018``, docs/reports/foundation.md.)

    Parameters
    ----------
    low, high
        The ends of the range.
    seen
        The values at `GLARE_PERCENTILES`.
    step
        Least difference of two values, 0 for floating point.
    """
    dark, ground, objects = seen
    if objects - ground < MIN_CLEARANCE * max(ground - dark, step):
        return high
    return min(high, low + MAX_GLARE * (objects - low))


def sample_blocks(shape: tuple[int, ...], budget: int) -> list[SampleBlock]:
    """Blocks of a stack (..., Y, X) to measure: all planes if their voxels fit the budget.

    Otherwise square blocks at even distances over all planes, each shifted by a seeded amount to
    avoid aliasing with a periodic image. The same shape gives the same blocks.
    """
    *leading, height, width = shape
    if math.prod(shape) <= budget:
        return [(index, slice(None), slice(None)) for index in np.ndindex(*leading)]
    side = min(SAMPLE_SIDE, height), min(SAMPLE_SIDE, width)
    tiles = _tiles(height, width)
    total = math.prod(leading) * len(tiles)
    count = min(total, max(1, budget // math.prod(side)))
    # Python's random numbers, unlike NumPy's, are the same in all versions.
    seeded = random.Random(0)
    positions = [int((n + seeded.random()) * total / count) for n in range(count)]
    blocks = []
    for position in positions:
        plane, tile = divmod(position, len(tiles))
        index = tuple(int(i) for i in np.unravel_index(plane, leading)) if leading else ()
        blocks.append((index, *tiles[tile]))
    return blocks


def _shuffled_blocks(shape: tuple[int, ...]) -> Iterator[SampleBlock]:
    """All blocks of a stack in an order without a pattern, the same for the same shape."""
    *leading, height, width = shape
    tiles = _tiles(height, width)
    planes = list(np.ndindex(*leading))
    order = list(range(len(planes) * len(tiles)))
    random.Random(0).shuffle(order)
    for position in order:
        plane, tile = divmod(position, len(tiles))
        yield (planes[plane], *tiles[tile])


def _tiles(height: int, width: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the square blocks of a plane."""
    return [
        (slice(y, min(y + SAMPLE_SIDE, height)), slice(x, min(x + SAMPLE_SIDE, width)))
        for y in range(0, height, SAMPLE_SIDE)
        for x in range(0, width, SAMPLE_SIDE)
    ]


class PercentileAccumulator:
    """Percentiles of values of one type that arrive in pieces; NaN and infinity are left out.

    uint8 and uint16 are kept as a histogram, other types as they are; the results are the same.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._counts = (
            np.zeros(np.iinfo(dtype).max + 1, dtype=np.int64) if dtype in _COUNTED else None
        )
        self._pieces: list[NDArray[Any]] = []

    def __len__(self) -> int:
        if self._counts is not None:
            return int(self._counts.sum())
        return sum(piece.size for piece in self._pieces)

    def add(self, values: NDArray[Any]) -> None:
        """Add the finite ones of `values`."""
        flat = values.astype(self.dtype, copy=False).ravel()
        if self._counts is not None:
            self._counts += np.bincount(flat, minlength=self._counts.size)
        else:
            # Boolean indexing copies, so that the user may change the array.
            self._pieces.append(flat[np.isfinite(flat)])

    def percentiles(self, percents: tuple[float, ...]) -> tuple[float, ...]:
        """Values at `percents`; there must be at least one value."""
        positions = [percent / 100 * (len(self) - 1) for percent in percents]
        ranks = sorted({rank for at in positions for rank in (math.floor(at), math.ceil(at))})
        value = dict(zip(ranks, self._sorted_at(ranks), strict=True))
        percentiles = []
        for at in positions:
            low = value[math.floor(at)]
            high = value[math.ceil(at)]
            share = at % 1
            # Exact for equal neighbors; without a difference, which could overflow.
            percentiles.append(low if low == high else low * (1 - share) + high * share)
        return tuple(percentiles)

    @property
    def is_constant(self) -> bool:
        """Whether all values so far are the same."""
        if self._counts is not None:
            return int(np.count_nonzero(self._counts)) < 2
        firsts = [piece for piece in self._pieces if piece.size]
        return all((piece == firsts[0][0]).all() for piece in firsts)

    def range(self) -> tuple[float, float]:
        """Lowest and highest value."""
        low, high = self._sorted_at([0, len(self) - 1])
        return low, high

    def _sorted_at(self, ranks: list[int]) -> list[float]:
        """Values at `ranks` of the sorted values."""
        if self._counts is not None:
            found = np.searchsorted(self._counts.cumsum(), ranks, side="right")
        else:
            self._pieces = [np.partition(np.concatenate(self._pieces), ranks)]
            found = self._pieces[0][ranks]
        return [float(number) for number in found]
