"""Which planes of a stack are read: one along an axis, or a projection of all.

This file needs no numpy until an image is read, since the command line shows the option.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_simmat._text import format_list

if TYPE_CHECKING:
    from napari_simmat.io.image_file import ImageFile
    from napari_simmat.io.reference import World

PROJECTIONS = ("max", "mean", "min")
WRONG_PLANE = (
    "The plane {!r} names no axis with an index or a projection; write Z=12, counted from 0, or "
    "Z=max (mean, min), and several as T=0,Z=max."
)
NO_SUCH_AXIS = "{} has the axes {}, none of them {} to take a plane of; leave {} out{}."
NO_SUCH_PLANE = "{} has {} planes along {}, so there is no {}; count from 0 to {}."
OF_CHANNELS = "{} are channels, which --channels chooses, not planes."
_ONE = re.compile(r"\s*([A-Za-z])\s*=\s*(\d+|[A-Za-z]+)\s*")


def parse_plane(text: str) -> dict[str, int | str]:
    """By letter of an axis its index or projection: ``"T=0,Z=max"``; empty for an empty text.

    Raises ValueError for anything else, and for Y, X and channels.
    """
    chosen: dict[str, int | str] = {}
    for part in text.split(",") if text.strip() else ():
        found = _ONE.fullmatch(part)
        letter = found[1].upper() if found else ""
        how = found[2].lower() if found else ""
        if not (how.isdecimal() or how in PROJECTIONS) or letter in ("Y", "X", *chosen):
            raise ValueError(WRONG_PLANE.format(text))
        if letter in ("C", "S"):
            raise ValueError(OF_CHANNELS.format(letter))
        chosen[letter] = int(how) if how.isdecimal() else how
    return chosen


def with_plane(image: ImageFile, plane: str) -> ImageFile:
    """The image with one plane, or a projection, in place of each axis that `plane` names.

    Pixels without data count for no projection. A mean of up to 16 bits is float32. What a file
    says of the place in depth becomes that of the plane; a projection lies on the middle plane.

    Parameters
    ----------
    image
        As it was opened; what is lazy stays so.
    plane
        As of `parse_plane`.

    Raises
    ------
    ValueError
        If the image has no such axis, or no such plane.
    """
    for letter, how in parse_plane(plane).items():
        image = _without_axis(image, letter, how)
    return image


def _without_axis(image: ImageFile, letter: str, how: int | str) -> ImageFile:
    name = image.path.name
    if letter not in image.axes:
        others = [each for each in image.plane_axes if each not in "YX"]
        hint = f", or name one of {format_list(others)}" if others else ""
        said = f"{letter}={how}"
        raise ValueError(NO_SUCH_AXIS.format(name, image.axes, letter, said, hint))
    axis = image.axes.index(letter)
    count = int(image.data.shape[axis])
    if isinstance(how, int) and how >= count:
        raise ValueError(NO_SUCH_PLANE.format(name, count, letter, f"{letter}={how}", count - 1))
    index = how if isinstance(how, int) else count // 2

    def of_level(data: Any) -> Any:
        # Levels may be coarser along this axis, too.
        here = index * int(data.shape[axis]) // count
        return _taken(data, axis, here) if isinstance(how, int) else _projected(data, axis, how)

    return replace(
        image,
        data=of_level(image.data),
        levels=tuple(map(of_level, image.levels)),
        axes=image.axes[:axis] + image.axes[axis + 1 :],
        scale=_without(image.scale, letter),
        units=_without(image.units, letter),
        origin=_without(image.origin, letter),
        stage=_without(image.stage, letter),
        world=_at_plane(image.world, index) if letter == "Z" else image.world,
    )


def _without(values: Mapping[str, Any], letter: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != letter}


def _taken(data: Any, axis: int, index: int) -> Any:
    from napari_simmat.io.axes import as_array

    return as_array(data)[(*(slice(None),) * axis, index)]


def _projected(data: Any, axis: int, how: str) -> Any:
    """The projection along an axis; NaN where no plane has data."""
    import numpy as np

    from napari_simmat.io.axes import as_array

    array = as_array(data)
    dtype = np.dtype(array.dtype)
    xp: Any = np
    if not isinstance(array, np.ndarray):
        import dask.array

        xp = dask.array
    if dtype.kind != "f":
        if how != "mean":
            return array.max(axis) if how == "max" else array.min(axis)
        is_exact = dtype.itemsize <= 2
        return array.mean(axis).astype(np.float32 if is_exact else np.float64)
    is_missing = xp.isnan(array)
    if how == "mean":
        total = xp.where(is_missing, 0, array).sum(axis, dtype=np.float64)
        held = (~is_missing).sum(axis)
        mean = xp.where(held > 0, total / xp.maximum(held, 1), np.nan)
        return mean.astype(dtype if dtype.itemsize > 2 else np.float32)
    edge = dtype.type(-np.inf if how == "max" else np.inf)
    filled = xp.where(is_missing, edge, array)
    found = filled.max(axis) if how == "max" else filled.min(axis)
    return xp.where(is_missing.all(axis), dtype.type(np.nan), found)


def _at_plane(world: World | None, index: int) -> World | None:
    """Where a plane of a stack lies; maps have no depth."""
    if world is None or world.space != "patient":
        return world
    affine = world.affine.copy()
    affine[:3, 3] += affine[:3, 2] * index
    planes = None if world.planes is None else world.planes[index : index + 1]
    if planes is not None:
        affine[:3, 3] = planes[0]
    qform = None if world.qform is None else world.qform.copy()
    if qform is not None:
        qform[:3, 3] += qform[:3, 2] * index
    return replace(world, affine=affine, planes=planes, qform=qform)
