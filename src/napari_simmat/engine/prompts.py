"""`Prompt`: points, a box and a mask that indicate one object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray

BOX_TOLERANCE_SHARE, BOX_TOLERANCE_PIXELS = 0.1, 1.0
"""A box's mask may reach beyond an edge by a tenth of the box's side across it, and a pixel.

Boxes are drawn by hand. In training their edges deviate by 5 % of the side and half a pixel
(`evaluation.prompting`); the tolerance is two such deviations.
"""


@dataclass(frozen=True, eq=False)
class Prompt:
    """Points, a box and a mask that together indicate one object on one image plane.

    Coordinates are ``(y, x)`` in image pixels; integers are pixel centers. Sequences and arrays are
    stored as tuples of plain numbers.

    Parameters
    ----------
    points
        Positions as y, x.
    labels
        1 (positive) or 0 (negative) for each point; by default all are positive.
    box
        y0, x0, y1, x1, half-open: the pixels ``y0 .. y1 - 1``, ``x0 .. x1 - 1``.
    mask
        (Y, X) bool on the image's grid, or the float `logits` of an earlier result.
    object
        The id that the file or the user gave the object.
    plane
        Index of the plane in a stack, one number for each axis before Y and X.

    Raises
    ------
    ValueError, TypeError
        If the parts are invalid or do not fit together.
    """

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: NDArray[Any] | None = None
    object: int | None = None
    plane: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        points = _points(self.points)
        self._set("points", points)
        self._set("labels", _labels(self.labels, points))
        self._set("box", None if self.box is None else _box(self.box))
        self._set("mask", None if self.mask is None else _mask(self.mask))
        self._set("object", None if self.object is None else _whole("object", self.object))
        plane = _items("plane", self.plane)
        self._set("plane", tuple(_whole("plane", index) for index in plane))
        if not points and self.box is None and self.mask is None:
            raise ValueError("The prompt is empty; give at least a point, a box or a mask.")

    def check_inside(self, shape_yx: tuple[int, int]) -> None:
        """Raise ValueError unless all parts lie on the image; a box may overlap its border."""
        height, width = shape_yx
        image = f"the image of {height} x {width} pixels (y x)"
        for y, x in self.points:
            if not (-0.5 <= y <= height - 0.5 and -0.5 <= x <= width - 0.5):
                raise ValueError(
                    f"The point y {y:g}, x {x:g} lies outside {image}; place it on the image."
                )
        if self.box is not None:
            y0, x0, y1, x1 = self.box
            if y1 <= 0 or x1 <= 0 or y0 >= height or x0 >= width:
                raise ValueError(
                    f"The box y {y0:g}..{y1:g}, x {x0:g}..{x1:g} lies outside {image}; "
                    "draw it on the image."
                )
        if self.mask is not None and self.mask.dtype == bool and self.mask.shape != (height, width):
            raise ValueError(
                f"The mask has {self.mask.shape[0]} x {self.mask.shape[1]} pixels, {image} needs "
                "a mask of its own size."
            )

    def bounds(self, shape_yx: tuple[int, int]) -> tuple[slice, slice] | None:
        """Rows and columns of an image that the box admits, with its tolerance.

        None without a box, or if a positive point lies beyond: then so does the object.
        """
        if self.box is None:
            return None
        edges = np.array(self.box).reshape(2, 2)  # (y0, x0), (y1, x1)
        reach = BOX_TOLERANCE_SHARE * (edges[1] - edges[0]) + BOX_TOLERANCE_PIXELS
        first = np.clip(np.ceil(edges[0] - reach), 0, None).astype(int)
        end = np.clip(np.floor(edges[1] + reach), None, shape_yx).astype(int)
        positive = np.array(self.points).reshape(-1, 2)[np.array(self.labels, int) == 1]
        if ((positive < first - 0.5) | (positive > end - 0.5)).any():
            return None
        return slice(int(first[0]), int(end[0])), slice(int(first[1]), int(end[1]))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _parts(self) -> tuple[Any, ...]:
        mask = self.mask
        content = None if mask is None else (mask.shape, mask.dtype.str, mask.tobytes())
        return self.points, self.labels, self.box, self.object, self.plane, content

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Prompt) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())


def _points(points: Sequence[Sequence[SupportsFloat]]) -> tuple[tuple[float, float], ...]:
    taken = []
    for point in _items("points", points):
        values = _numbers("point", point)
        if len(values) != 2:
            raise ValueError(f"A point has two coordinates, y and x; this one has {len(values)}.")
        taken.append((values[0], values[1]))
    return tuple(taken)


def _labels(labels: Sequence[Any], points: tuple[Any, ...]) -> tuple[int, ...]:
    taken = tuple(_whole("label", label) for label in _items("labels", labels)) or (1,) * len(
        points
    )
    if len(taken) != len(points):
        raise ValueError(
            f"There are {len(points)} points but {len(taken)} labels; give one label, 1 (object) "
            "or 0 (not the object), for each point."
        )
    wrong = set(taken) - {0, 1}
    if wrong:
        raise ValueError(
            f"A label of a point is 1 (object) or 0 (not the object), not {min(wrong)}."
        )
    return taken


def _box(box: Sequence[SupportsFloat]) -> tuple[float, float, float, float]:
    values = _numbers("box", box)
    if len(values) != 4:
        raise ValueError(f"A box has four numbers, y0, x0, y1, x1; this one has {len(values)}.")
    y0, x0, y1, x1 = values
    if not (y0 < y1 and x0 < x1):
        raise ValueError(
            f"The box y {y0:g}..{y1:g}, x {x0:g}..{x1:g} holds no pixel; give y0, x0, y1, x1 with "
            "y0 < y1 and x0 < x1."
        )
    return y0, x0, y1, x1


def _mask(mask: Any) -> NDArray[Any]:
    taken = np.array(mask)  # a copy: the caller may change it
    if taken.ndim != 2 or taken.dtype.kind not in "bf":
        raise ValueError(
            f"A mask prompt is a (Y, X) array of bool or the float logits of an earlier result, "
            f"not {taken.dtype} of shape {taken.shape}."
        )
    if taken.dtype == bool and not taken.any():
        raise ValueError("The mask is empty; paint at least one pixel of the object.")
    if taken.dtype.kind == "f" and not np.isfinite(taken).all():
        raise ValueError("The mask's logits are not all finite; give those of an earlier result.")
    taken.flags.writeable = False
    return taken


def _items(what: str, values: Sequence[Any]) -> Sequence[Any]:
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise TypeError(
            f"The {what} of a prompt must be a list, not {values!r}; write [{values!r}]."
        )
    return values


def _numbers(what: str, values: Sequence[SupportsFloat]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        example = "(y, x)" if what == "point" else "(y0, x0, y1, x1)"
        raise TypeError(f"A {what} is numbers, {example}, not {values!r}.") from None
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"The coordinates of a {what} must be finite, got {numbers}.")
    return numbers


def _whole(what: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != value:
        raise ValueError(f"The {what} of a prompt is a whole number, not {value!r}.")
    return number
