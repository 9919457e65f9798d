"""`Prompt`: points, a box and a mask that indicate one object."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import groupby
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsFloat, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape

BOX_TOLERANCE_SHARE, BOX_TOLERANCE_PIXELS = 0.1, 1.0
"""A box's mask may reach beyond an edge by a tenth of the box's side across it, and a pixel.

Boxes are drawn by hand. In training their edges deviate by 5 % of the side and half a pixel
(`evaluation.drawn_prompts`); the tolerance is two such deviations.
"""
GivenPoints: TypeAlias = Sequence[Sequence[SupportsFloat]] | NDArray[Any]
"""Points (N, 2) as y, x that a prompt takes."""
GivenNumbers: TypeAlias = Sequence[SupportsFloat] | NDArray[Any]
"""Labels of points, a box or the index of a plane that a prompt takes."""
_IMAGE = "the image of {} x {} pixels (y x)"


class Mark(NamedTuple):
    """A click, or a scribble of several points."""

    points: tuple[tuple[float, float], ...]
    """y, x of each."""
    label: int
    """1 (positive) or 0 (negative)."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """Points, a box and a mask that together indicate one object on one image plane.

    Coordinates are ``(y, x)`` in image pixels; integers are pixel centers. Sequences and arrays are
    stored as tuples of plain numbers. Each field has a row in `_PARTS`, by which it is checked,
    saved and read.

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
    expected_area
        Area in pixels that the object probably has, as the one outlined before it; of a lone click
        masks of about this area are preferred, by networks that encode several scales.
    scribbles
        For each point the number, from 1, of the scribble that it belongs to, or 0 if it is a click
        of its own; by default all are clicks. The points of a scribble follow each other and have
        one label.

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
    expected_area: float | None = None
    scribbles: tuple[int, ...] = ()

    if TYPE_CHECKING:  # it takes more kinds of values than it keeps

        def __init__(
            self,
            points: GivenPoints = (),
            labels: GivenNumbers = (),
            box: GivenNumbers | None = None,
            mask: NDArray[Any] | None = None,
            object: int | None = None,
            plane: GivenNumbers = (),
            expected_area: float | None = None,
            scribbles: GivenNumbers = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not each.default:
                object.__setattr__(self, each.name, _PARTS[each.name].read(value))
        if not self.labels:
            object.__setattr__(self, "labels", (1,) * len(self.points))
        if len(self.labels) != len(self.points):
            raise ValueError(
                f"There are {len(self.points)} points but {len(self.labels)} labels; give one "
                "label, 1 (object) or 0 (not the object), for each point."
            )
        self._check_scribbles()
        if not self.kinds:
            raise ValueError("The prompt is empty; give at least a point, a box or a mask.")

    def _check_scribbles(self) -> None:
        if not any(self.scribbles):
            object.__setattr__(self, "scribbles", ())
            return
        if len(self.scribbles) != len(self.points):
            raise ValueError(
                f"There are {len(self.points)} points but {len(self.scribbles)} numbers of "
                "scribbles; give one number, 0 for a click, for each point."
            )
        marks = {mark for mark in zip(self.scribbles, self.labels, strict=True) if mark[0]}
        lines = [number for number, _ in groupby(self.scribbles) if number]
        if len(lines) != len(set(lines)) or len(marks) != len(lines):
            raise ValueError(
                "The points of a scribble follow each other and have one label; give each scribble "
                "a number of its own."
            )

    def until(self, count: int) -> Prompt:
        """The prompt as it was with its first `count` points."""
        return replace(
            self,
            points=self.points[:count],
            labels=self.labels[:count],
            scribbles=self.scribbles[:count],
        )

    @property
    def marks(self) -> list[Mark]:
        """The clicks and scribbles in their order."""
        numbers = self.scribbles or (0,) * len(self.points)
        keys = [(number, 0 if number else place) for place, number in enumerate(numbers)]
        labeled = zip(keys, self.points, self.labels, strict=True)
        groups = (list(group) for _, group in groupby(labeled, lambda each: each[0]))
        return [Mark(tuple(point for _, point, _ in of), of[0][2]) for of in groups]

    @property
    def last_mark(self) -> Mark:
        """The last scribble, or the last click alone."""
        return self.marks[-1]

    @property
    def kinds(self) -> frozenset[str]:
        """What shows the object: any of ``"points"``, ``"box"`` and ``"mask"``."""
        shown = (name for name, part in _PARTS.items() if part.check_inside is not None)
        return frozenset(name for name in shown if _is_given(getattr(self, name)))

    @property
    def is_a_click(self) -> bool:
        """Whether it is one positive point and nothing else."""
        return self.labels == (1,) and self.kinds == {"points"}

    def check_inside(self, shape_yx: tuple[int, int]) -> None:
        """Raise ValueError unless all parts lie on the image; a box may overlap its border."""
        for name, part in _PARTS.items():
            if part.check_inside is not None and name in self.kinds:
                part.check_inside(getattr(self, name), shape_yx)

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

    def to_plain(self) -> dict[str, Any]:
        """The prompt as plain JSON values; empty fields are left out."""
        values = ((name, getattr(self, name)) for name in _PARTS)
        return {name: _PARTS[name].to_plain(value) for name, value in values if _is_given(value)}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], most_pixels: int = 2**32) -> Prompt:
        """The prompt of `to_plain`; ValueError if `values` are anything else.

        A mask of more than `most_pixels`, those of the image, is refused before it is made.
        """
        try:
            mask = values.get("mask")
            if mask is not None and math.prod(map(index, mask["shape"])) > most_pixels:
                sides = " x ".join(map(str, mask["shape"]))
                raise ValueError(f"A mask cannot have {sides[:99]} pixels, more than its image.")
            known = {name: values[name] for name in _PARTS if values.get(name) is not None}
            for name, value in known.items():
                read = _PARTS[name].from_plain
                known[name] = value if read is None else read(value)
            return cls(**known)
        except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"The prompts are incomplete or foreign ({error}).") from None

    def _content(self) -> tuple[Any, ...]:
        mask = self.mask
        content = None if mask is None else (mask.shape, mask.dtype.str, mask.tobytes())
        return (content, *(getattr(self, name) for name in _PARTS if name != "mask"))

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Prompt) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())


class LazyPrompts(Sequence[Prompt]):
    """Prompts that are made when asked for.

    A mask is as large as the image: all of a thousand cells at once would not fit into memory.

    Parameters
    ----------
    count
        How many there are.
    make
        Returns a prompt by its number.
    categories
        The class of an object by its id, where the file names one.
    has_masks
        Whether any of them has a mask.
    """

    def __init__(
        self,
        count: int,
        make: Callable[[int], Prompt],
        categories: Mapping[int, str] | None = None,
        *,
        has_masks: bool = True,
    ) -> None:
        self._numbers, self._make = range(count), make
        self.categories = categories or {}
        self.has_masks = has_masks

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, item: int) -> Prompt: ...

    @overload
    def __getitem__(self, item: slice) -> list[Prompt]: ...

    def __getitem__(self, item: int | slice) -> Prompt | list[Prompt]:
        numbers = self._numbers[item]
        return self._make(numbers) if isinstance(numbers, int) else [*map(self._make, numbers)]


def _points(points: Sequence[Sequence[SupportsFloat]]) -> tuple[tuple[float, float], ...]:
    checked = []
    for point in _items("points", points):
        values = _numbers("point", point)
        if len(values) != 2:
            raise ValueError(f"A point has two coordinates, y and x; this one has {len(values)}.")
        checked.append((values[0], values[1]))
    return tuple(checked)


def _points_inside(points: Sequence[tuple[float, float]], shape_yx: tuple[int, int]) -> None:
    height, width = shape_yx
    for y, x in points:
        if not (-0.5 <= y <= height - 0.5 and -0.5 <= x <= width - 0.5):
            raise ValueError(
                f"The point y {y:g}, x {x:g} lies outside {_IMAGE.format(*shape_yx)}; place it on "
                "the image."
            )


def _labels(labels: Sequence[Any]) -> tuple[int, ...]:
    checked = tuple(_whole("label", label) for label in _items("labels", labels))
    if wrong := set(checked) - {0, 1}:
        raise ValueError(
            f"A label of a point is 1 (object) or 0 (not the object), not {min(wrong)}."
        )
    return checked


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


def _box_inside(box: tuple[float, float, float, float], shape_yx: tuple[int, int]) -> None:
    y0, x0, y1, x1 = box
    if y1 <= 0 or x1 <= 0 or y0 >= shape_yx[0] or x0 >= shape_yx[1]:
        raise ValueError(
            f"The box y {y0:g}..{y1:g}, x {x0:g}..{x1:g} lies outside {_IMAGE.format(*shape_yx)}; "
            "draw it on the image."
        )


def _mask(mask: Any) -> NDArray[Any]:
    copy = np.array(mask)  # the caller may change the original
    if copy.ndim != 2 or copy.dtype.kind not in "bf":
        raise ValueError(
            f"A mask prompt is a (Y, X) array of bool or the float logits of an earlier result, "
            f"not {copy.dtype} of shape {copy.shape}."
        )
    if copy.dtype == bool and not copy.any():
        raise ValueError("The mask is empty; paint at least one pixel of the object.")
    if copy.dtype.kind == "f" and not np.isfinite(copy).all():
        raise ValueError("The mask's logits are not all finite; give those of an earlier result.")
    copy.flags.writeable = False
    return copy


def _mask_inside(mask: NDArray[Any], shape_yx: tuple[int, int]) -> None:
    if mask.dtype == bool and mask.shape != shape_yx:  # logits have a grid of their own
        raise ValueError(
            f"The mask has {mask.shape[0]} x {mask.shape[1]} pixels, {_IMAGE.format(*shape_yx)} "
            "needs a mask of its own size."
        )


def _mask_to_plain(mask: NDArray[Any]) -> dict[str, Any]:
    """A bool mask as run lengths within its bounding box, logits as their numbers.

    The runs alternate between background and object, row by row, and begin with background.
    """
    if mask.dtype != bool:
        return {"shape": list(mask.shape), "logits": mask.astype(np.float32).ravel().tolist()}
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    y0 = int(rows[0])
    y1 = int(rows[-1]) + 1
    x0 = int(columns[0])
    x1 = int(columns[-1]) + 1
    flat = np.concatenate(([False], mask[y0:y1, x0:x1].ravel(), [False]))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    ends = np.concatenate(([0], changes, [(y1 - y0) * (x1 - x0)]))
    return {"shape": list(mask.shape), "bbox": [y0, x0, y1, x1], "runs": np.diff(ends).tolist()}


def _mask_from_plain(values: Mapping[str, Any]) -> NDArray[Any]:
    shape = tuple(map(index, values["shape"]))
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"A mask cannot have {format_shape(shape)} pixels.")
    if "logits" in values:
        try:
            return np.asarray(values["logits"], dtype=np.float32).reshape(shape)
        except ValueError:
            raise ValueError("A mask's logits are not a number for each of its pixels.") from None
    edges, runs = [*map(index, values["bbox"])], [*map(index, values["runs"])]
    y0, x0, y1, x1 = edges if len(edges) == 4 else (0, 0, 0, 0)
    inside = 0 <= y0 < y1 <= shape[0] and 0 <= x0 < x1 <= shape[1]
    if not inside or min(runs, default=-1) < 0 or sum(runs) != (y1 - y0) * (x1 - x0):
        raise ValueError("A mask's runs do not fill its bounding box.")
    is_object = np.arange(len(runs)) % 2 == 1
    mask = np.zeros(shape, dtype=bool)
    mask[y0:y1, x0:x1] = np.repeat(is_object, runs).reshape(y1 - y0, x1 - x0)
    return mask


def _plane(plane: Sequence[Any]) -> tuple[int, ...]:
    return tuple(_whole("plane", index) for index in _items("plane", plane))


def _area(area: SupportsFloat) -> float:
    try:
        value = float(area)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"The expected area of an object is above 0 pixels, not {area!r}.")
    return value


def _scribbles(numbers: Sequence[Any]) -> tuple[int, ...]:
    checked = tuple(_whole("scribble", number) for number in _items("scribbles", numbers))
    if min(checked, default=0) < 0:
        raise ValueError(f"Scribbles are numbered from 1, a click is 0, not {min(checked)}.")
    return checked


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


def _is_given(value: Any) -> bool:
    return value is not None and not (isinstance(value, tuple) and not value)


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


class _Part(NamedTuple):
    """How one field of `Prompt` is handled; a field without `check_inside` shows no object."""

    read: Callable[[Any], Any]  # checks a value that is not the default
    check_inside: Callable[[Any, tuple[int, int]], None] | None = None  # on an image (Y, X)
    to_plain: Callable[[Any], Any] = _plain  # to JSON
    from_plain: Callable[[Any], Any] | None = None  # from JSON, before `read`


_PARTS = {
    "object": _Part(partial(_whole, "object")),
    "plane": _Part(_plane),
    "points": _Part(_points, _points_inside),
    "labels": _Part(_labels),
    "box": _Part(_box, _box_inside),
    "mask": _Part(_mask, _mask_inside, _mask_to_plain, _mask_from_plain),
    "expected_area": _Part(_area),
    "scribbles": _Part(_scribbles),
}
"""The fields in their order in files."""
