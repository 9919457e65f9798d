"""What OME-Zarr says about an image: its finest level, axes, sizes and where it begins.

Versions 0.1 and 0.2 name no axes; 0.3 names them, 0.4 and 0.5 give units and transformations, and
in 0.6 axes are those of a coordinate system to which the transformation of a level leads. Models of
ome-zarr-models exist for 0.4 and 0.5 alone; tests compare the two with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list
from napari_simmat.io.axes import distinct_axes
from napari_simmat.io.refusals import RefusedFileError

OLD_AXES = "tczyx"
"""Axes before 0.3, which did not name them."""
_NAMED_SINCE = (0, 3)
UNITS = {
    "micrometer": "um", "nanometer": "nm", "millimeter": "mm", "centimeter": "cm", "meter": "m",
    "second": "s", "millisecond": "ms", "minute": "min", "hour": "h",
}  # fmt: skip
"""Units of OME-Zarr, and ours."""
_OTHER_UNITS = {
    "angstrom": ("nm", 0.1), "picometer": ("nm", 1e-3), "inch": ("mm", 25.4),
    "foot": ("mm", 304.8), "microsecond": ("ms", 1e-3), "nanosecond": ("ms", 1e-6),
    "kilometer": ("m", 1e3),
}  # fmt: skip
"""Units that become another one, with the factor."""
WITHOUT_AXES = (
    "{} is OME-Zarr {} without the axes that this version names; write it again, with axes or "
    "coordinateSystems."
)
TURNED = (
    "Its coordinate transformations turn, mirror or shear it; its labels have the size of its "
    "pixels, not that."
)
NOT_APPLIED = "Its coordinate transformation {} is not applied."
OTHER_SYSTEMS = (
    "It lies in further coordinate systems ({}), which are not applied; sizes are those of {}."
)
BEGINS = "It begins at {} (translation); of its label images, those in OME-Zarr alone keep that."


class Multiscale(NamedTuple):
    """The first multiscale image of a group.

    Attributes
    ----------
    path
        Of its finest level, within the group.
    names, letters
        Of its axes: names in lower case, `axis_letters`.
    scale, units
        Size of a pixel by axis letter, and its unit where known.
    origin
        Where the center of the first pixel is, by axis letter in the same units, unless that is 0.
    notes
        What is not applied, as sentences.
    """

    path: str
    names: tuple[str, ...]
    letters: str
    scale: dict[str, float]
    units: dict[str, str]
    origin: dict[str, float]
    notes: tuple[str, ...]


_AXIS_LETTERS = {"t": "T", "time": "T", "c": "C", "channel": "C", "z": "Z", "y": "Y", "x": "X"}
_TYPE_LETTERS = {"time": "T", "channel": "C"}
"""By the type of an axis with another name."""


def axis_letters(axes: Sequence[Any]) -> str:
    """A letter for each axis, all different, by its whole name, else by its type.

    Parameters
    ----------
    axes
        Names, or tables with ``name`` and ``type``. A name of one letter is that letter; any other
        is an axis of unknown meaning, such as a tile.
    """
    letters = ""
    for axis in axes:
        kind = axis.get("type") if isinstance(axis, Mapping) else None
        name = str(axis["name"] if isinstance(axis, Mapping) else axis).lower()
        by_name = _AXIS_LETTERS.get(name) or _TYPE_LETTERS.get(str(kind))
        letters += by_name or (name.upper() if len(name) == 1 and name.isalpha() else "Q")
    return distinct_axes(letters)


def first_path(metadata: Mapping[str, Any]) -> str:
    """The path of the finest level of the first image."""
    return str(metadata["multiscales"][0]["datasets"][0]["path"])


def read_multiscale(name: str, metadata: Mapping[str, Any], ndim: int) -> Multiscale:
    """The first image that OME metadata describe, of any version.

    Parameters
    ----------
    name
        Of the file, for messages.
    metadata
        With ``multiscales``, and from 0.5 on the version.
    ndim
        Number of axes of its array.

    Raises
    ------
    RefusedFileError
        If its axes are not named, or are not as many as those of the array.
    """
    image = metadata["multiscales"][0]
    system, axes, notes = _axes(name, metadata, image, ndim)
    names = tuple(str(axis["name"] if isinstance(axis, Mapping) else axis).lower() for axis in axes)
    if len(names) != ndim:
        raise RefusedFileError(
            f"{name} names {len(names)} axes ({', '.join(names)}) for an array of {ndim}; write it "
            "again."
        )
    steps = list(image["datasets"][0].get("coordinateTransformations") or ())
    if system is None:  # those of all levels come after those of one
        steps += image.get("coordinateTransformations") or ()
    applied = [(step, _matrix(step, ndim)) for step in steps]
    notes += [NOT_APPLIED.format(str(s.get("type"))[:40]) for s, found in applied if found is None]
    matrices = [found for _, found in applied if found is not None]
    scale, units, origin = {}, {}, {}
    letters = axis_letters(axes)
    if matrices:
        placed = _Placed.by(matrices)
        notes += [TURNED] if placed.is_turned else []
        for number, (letter, axis) in enumerate(zip(letters, axes, strict=True)):
            unit, factor = _unit_of(axis)
            if letter == "C":
                continue
            scale[letter] = placed.sizes[number] * factor
            if unit and placed.is_box:
                units[letter] = unit
            if placed.start[number] and not placed.is_turned:
                origin[letter] = placed.start[number] * factor
    if origin:
        places = format_list(
            f"{letter.lower()} {at:.6g} {units.get(letter, '')}".strip()
            for letter, at in origin.items()
        )
        notes.append(BEGINS.format(places))
    return Multiscale(first_path(metadata), names, letters, scale, units, origin, tuple(notes))


class _Placed(NamedTuple):
    """What transformations make of the pixels of an image.

    Attributes
    ----------
    sizes, start
        Of a pixel along each axis, and where the first one is.
    is_turned, is_box
        Whether axes are turned, mirrored or sheared, and whether they stay perpendicular.
    """

    sizes: list[float]
    start: list[float]
    is_turned: bool
    is_box: bool

    @classmethod
    def by(cls, matrices: Sequence[NDArray[np.float64]]) -> _Placed:
        """By matrices (n + 1, n + 1), one after the other."""
        whole = np.eye(len(matrices[0]))
        for matrix in matrices:
            whole = matrix @ whole
        linear = whole[:-1, :-1]
        start = whole[:-1, -1]
        sizes = np.linalg.norm(linear, axis=0)
        apart = 1e-6 * sizes.max()
        is_turned = not np.allclose(linear, np.diag(sizes), rtol=0, atol=apart)
        squares = linear.T @ linear
        is_box = np.allclose(squares, np.diag(sizes**2), rtol=0, atol=apart * sizes.max())
        return cls(sizes.tolist(), start.tolist(), is_turned, is_box)


def _axes(
    name: str, metadata: Mapping[str, Any], image: Mapping[str, Any], ndim: int
) -> tuple[str | None, Sequence[Any], list[str]]:
    """The coordinate system of the finest level (None before 0.6), its axes, and remarks."""
    systems = {str(each["name"]): each["axes"] for each in image.get("coordinateSystems") or ()}
    if systems:
        steps = image["datasets"][0].get("coordinateTransformations") or [{}]
        output = steps[-1].get("output")
        output = output.get("name") if isinstance(output, Mapping) else output
        own = str(output) if str(output) in systems else next(iter(systems))
        others = [each for each in systems if each != own]
        return own, systems[own], [OTHER_SYSTEMS.format(format_list(others), own)] if others else []
    if axes := image.get("axes"):
        return None, axes, []
    version = str(metadata.get("version") or image.get("version") or "")
    numbers = tuple(int(each) for each in re.findall(r"\d+", version)[:2])
    if numbers >= _NAMED_SINCE:
        raise RefusedFileError(WITHOUT_AXES.format(name, version))
    return None, list(OLD_AXES)[-ndim:], []


def _matrix(step: Any, ndim: int) -> NDArray[np.float64] | None:
    """A transformation as a matrix (n + 1, n + 1); None if it is of another kind."""
    matrix = np.eye(ndim + 1)
    kind = step.get("type") if isinstance(step, Mapping) else None
    try:
        if kind == "sequence":
            for each in step["transformations"]:
                found = _matrix(each, ndim)
                if found is None:
                    return None
                matrix = found @ matrix
        elif kind == "scale":
            matrix[:ndim, :ndim] = np.diag(np.array(step["scale"], float).reshape(ndim))
        elif kind == "translation":
            matrix[:ndim, ndim] = np.array(step["translation"], float).reshape(ndim)
        elif kind == "rotation":
            matrix[:ndim, :ndim] = np.array(step["rotation"], float).reshape(ndim, ndim)
        elif kind == "affine":
            matrix[:ndim] = np.array(step["affine"], float).reshape(ndim, ndim + 1)
        elif kind == "mapAxis":
            matrix[:ndim, :ndim] = np.eye(ndim)[[int(n) for n in step["mapAxis"]]]
        elif kind != "identity":
            return None
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return matrix if np.isfinite(matrix).all() else None


def _unit_of(axis: Any) -> tuple[str, float]:
    """Our unit of an axis, empty if none is known, and the factor to it."""
    stated = str(axis.get("unit") or "").lower() if isinstance(axis, Mapping) else ""
    if stated in _OTHER_UNITS:
        return _OTHER_UNITS[stated]
    return UNITS.get(stated, ""), 1.0
