"""Prompts as napari's CSV of points and its CSV of shapes."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape
from napari_simmat.engine.coordinates import corners_of_box
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.outlines import OutlineBudget, box_and_mask
from napari_simmat.engine.prompts import LazyPrompts, Prompt
from napari_simmat.io.files import atomic_write, read_csv
from napari_simmat.io.reference import Within

logger = logging.getLogger(__name__)
ALL_BESIDE = (
    "No prompt of {} lies on the part that is read, y {:g}, x {:g} to y {:g}, x {:g} of level 0; "
    "give prompts in pixels of level 0, or another --region."
)
SOME_BESIDE = "%s: %d of %d %s lie beside the part that is read, and are left out."


def read_prompts_csv(
    path: Path, shape: tuple[int, ...], within: Within | None = None
) -> Sequence[Prompt]:
    """The prompts of a CSV, as `read_prompts` describes it, for an image of `shape` (..., Y, X).

    Of a part of a slide (`within`) its coordinates are pixels of level 0; what lies beside the part
    is left out, and the log says so.

    Raises FileNotFoundError, or ValueError with the number of the line that is wrong.
    """
    columns, rows = _read_csv(path, shape)
    if within is not None:
        rows = _within_part(path.name, rows, shape, within, by_shape="shape-type" in columns)
    prompts = _shapes(rows, shape) if "shape-type" in columns else _points(rows, shape)
    if not prompts:
        raise ValueError(f"{path.name} holds no prompt; add at least a point or a shape.")
    return prompts


def write_points_csv(path: Path | str, prompts: Iterable[Prompt]) -> None:
    """Write the points of prompts as CSV that `read_prompts` and napari read.

    Boxes and masks are not written. Where there are several prompts, those without an object get
    the first ids that are free, so that they stay apart.
    """
    with_points = [prompt for prompt in prompts if prompt.points]
    ids = _ids(with_points, first=1)
    rows = [
        [*prompt.plane, y, x, label, *([] if ids is None else [ids[number]])]
        for number, prompt in enumerate(with_points)
        for (y, x), label in zip(prompt.points, prompt.labels, strict=True)
    ]
    extra = ["label", *([] if ids is None else ["object"])]
    header = ["index", *_axes(_n_dims(with_points)), *extra]
    _write_csv(Path(path), header, [[number, *row] for number, row in enumerate(rows)])


def write_shapes_csv(path: Path | str, prompts: Iterable[Prompt]) -> None:
    """Write the boxes of prompts as CSV that `read_prompts` and napari read.

    Points and masks are not written. napari wants the index to count from 0, so the objects stand
    in a column of their own.
    """
    with_boxes = [prompt for prompt in prompts if prompt.box is not None]
    ids = _ids(with_boxes, first=0)
    rows: list[list[Any]] = []
    for number, prompt in enumerate(with_boxes):
        assert prompt.box is not None
        object_id = number if ids is None else ids[number]
        for vertex, (y, x) in enumerate(corners_of_box(prompt.box).tolist()):
            rows.append([number, "rectangle", vertex, *prompt.plane, y, x, object_id])
    header = ["index", "shape-type", "vertex-index", *_axes(_n_dims(with_boxes)), "object"]
    _write_csv(Path(path), header, rows)


@dataclass(frozen=True)
class _PromptRow:
    where: str  # "FILE, line 3"
    values: dict[str, str]
    plane: tuple[int, ...]
    position: tuple[float, float]

    def whole(self, column: str) -> int:
        number = _number(self.values[column])
        if not number.is_integer():
            raise ValueError(
                f"{self.where}: the {column} is {self.values[column]!r}; it must be a whole number."
            )
        return int(number)


def _within_part(
    name: str,
    rows: Sequence[_PromptRow],
    shape: tuple[int, ...],
    within: Within,
    *,
    by_shape: bool,
) -> list[_PromptRow]:
    """Rows in the pixels of a part, without points and whole shapes that lie beside it."""
    centers = np.array([row.position for row in rows], np.float64).reshape(-1, 2)
    moved = within.from_whole(centers + 0.5) - 0.5
    size = np.array(shape[-2:])
    groups: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.whole("index") if by_shape else number, []).append(number)
    kept: list[int] = []
    for numbers in groups.values():
        low, high = moved[numbers].min(axis=0), moved[numbers].max(axis=0)
        if (high >= -0.5).all() and (low <= size - 0.5).all():
            kept += numbers
    if rows and not kept:
        y, x = within.offset
        end_y, end_x = within.to_whole(size[np.newaxis])[0]
        raise ValueError(ALL_BESIDE.format(name, y, x, end_y, end_x))
    if len(kept) < len(rows):
        what = "corners" if by_shape else "points"
        logger.warning(SOME_BESIDE, name, len(rows) - len(kept), len(rows), what)
    return [
        replace(rows[n], position=(float(moved[n, 0]), float(moved[n, 1]))) for n in sorted(kept)
    ]


def _points(rows: Sequence[_PromptRow], shape: tuple[int, ...]) -> list[Prompt]:
    height, width = shape[-2:]
    groups: dict[tuple[int | None, tuple[int, ...]], list[tuple[tuple[float, float], int]]] = {}
    for row in rows:
        y, x = row.position
        if not (-0.5 <= y <= height - 0.5 and -0.5 <= x <= width - 0.5):
            raise ValueError(
                f"{row.where}: the point y {y:g}, x {x:g} lies outside the image of "
                f"{height} x {width} pixels; place it on the image."
            )
        label = row.whole("label") if "label" in row.values else 1
        if label not in (0, 1):
            raise ValueError(
                f"{row.where}: the label is {label}; it must be 1 (object) or 0 (not the object)."
            )
        number = row.whole("object") if "object" in row.values else None
        groups.setdefault((number, row.plane), []).append(((y, x), label))
    return [
        Prompt(
            points=tuple(point for point, _ in group),
            labels=tuple(label for _, label in group),
            object=number,
            plane=plane,
        )
        for (number, plane), group in groups.items()
    ]


def _shapes(rows: Sequence[_PromptRow], shape: tuple[int, ...]) -> Sequence[Prompt]:
    groups: dict[int, list[_PromptRow]] = {}
    for row in rows:
        groups.setdefault(row.whole("index"), []).append(row)
    shape_yx = (shape[-2], shape[-1])
    budget = OutlineBudget(shape)
    shapes: list[tuple[Prompt, ObjectMask | None]] = []
    for index, group in groups.items():
        first = group[0]
        kind = first.values["shape-type"]
        for row in group[1:]:
            if row.plane != first.plane or row.values["shape-type"] != kind:
                raise ValueError(
                    f"{row.where}: shape {index} changes its type or plane; a shape has one type "
                    "and lies on one plane."
                )
        number = first.whole("object") if "object" in first.values else index
        box, mask = _region(kind, group, shape_yx, budget)
        prompt = Prompt(box=box, mask=mask, object=number, plane=first.plane)
        packed = None if mask is None else ObjectMask.of(mask)
        shapes.append((replace(prompt, mask=None), packed))

    def make(number: int) -> Prompt:
        prompt, mask = shapes[number]
        return replace(prompt, mask=None if mask is None else mask.on_plane((), shape_yx))

    if all(mask is None for _, mask in shapes):
        return [prompt for prompt, _ in shapes]
    return LazyPrompts(len(shapes), make)


def _region(
    kind: str, rows: Sequence[_PromptRow], shape_yx: tuple[int, int], budget: OutlineBudget
) -> tuple[tuple[float, float, float, float], NDArray[np.bool_] | None]:
    """Box of a shape, and its mask unless the box says it all."""
    where, corners = rows[0].where, np.array([row.position for row in rows])
    vertices = {"rectangle": 4, "ellipse": 4, "polygon": 3}
    if kind not in vertices:
        raise ValueError(
            f"{where}: a {kind} encloses nothing; draw a rectangle, an ellipse or a polygon."
        )
    if len(rows) < vertices[kind] or (kind != "polygon" and len(rows) != vertices[kind]):
        raise ValueError(
            f"{where}: the {kind} has {len(rows)} vertices; it needs {vertices[kind]}"
            f"{' or more' if kind == 'polygon' else ''}."
        )
    try:
        return box_and_mask(kind, corners, shape_yx, budget)
    except ValueError as error:
        raise ValueError(f"{where}: {str(error)[0].lower()}{str(error)[1:]}") from None


def _read_csv(path: Path, shape: tuple[int, ...]) -> tuple[set[str], list[_PromptRow]]:
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}; check its name and folder.")
    lines = read_csv(path)
    if not lines:
        raise ValueError(f"{path.name} is empty; its first line must name the columns.")
    line, header = lines[0]
    columns = [name.strip().lower() for name in header]
    axes = [name for name in columns if re.fullmatch(r"axis-\d+", name)]
    if len(columns) == 1 and ";" in columns[0]:
        raise ValueError(
            f"{path.name}, line {line}: the columns are separated by semicolons; save the file "
            "with commas."
        )
    if len(set(columns)) < len(columns) or "axis-0" not in axes or "axis-1" not in axes:
        raise ValueError(
            f"{path.name}, line {line}: the columns are {', '.join(columns)}; a file of prompts "
            "has index, axis-0, axis-1, ... (points) or index, shape-type, vertex-index, axis-0, "
            "axis-1, ... (shapes), each once."
        )
    if "shape-type" in columns and "index" not in columns:
        raise ValueError(f"{path.name}, line {line}: the column index of the shapes is missing.")
    if set(axes) != set(_axes(len(shape))):
        raise ValueError(
            f"{path.name}, line {line}: the coordinates have {len(axes)} axes, but the image has "
            f"{len(shape)} without channels ({format_shape(shape)}); save the prompts of this "
            "image."
        )
    rows = [_row(f"{path.name}, line {line}", columns, cells, shape) for line, cells in lines[1:]]
    return set(columns), rows


def _row(
    where: str, columns: Sequence[str], cells: Sequence[str], shape: tuple[int, ...]
) -> _PromptRow:
    if len(cells) != len(columns):
        raise ValueError(
            f"{where}: there are {len(cells)} values for {len(columns)} columns; give one for each."
        )
    values = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    numbers = []
    for axis in _axes(len(shape)):
        number = _number(values[axis])
        if not math.isfinite(number):
            raise ValueError(
                f"{where}: {axis} is {values[axis]!r}; a coordinate must be a finite number."
            )
        numbers.append(number)
    plane = tuple(math.floor(number + 0.5) for number in numbers[:-2])
    for name, index, size in zip(_axes(len(plane)), plane, shape[:-2], strict=True):
        if not 0 <= index < size:
            raise ValueError(
                f"{where}: {name} is {values[name]}, but the image has {size} planes there, "
                f"counted from 0 to {size - 1}."
            )
    return _PromptRow(where, values, plane, (numbers[-2], numbers[-1]))


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _ids(prompts: Sequence[Prompt], first: int) -> list[int] | None:
    """Ids of the objects, those without one numbered; None where a lone object needs none."""
    given = [prompt.object for prompt in prompts]
    if all(number is None for number in given) and len(given) < 2:
        return None
    free = (number for number in range(first, first + 2 * len(given) + 1) if number not in given)
    return [next(free) if number is None else number for number in given]


def _n_dims(prompts: Sequence[Prompt]) -> int:
    depths = {len(prompt.plane) for prompt in prompts} or {0}
    if len(depths) > 1:
        raise ValueError(
            "Some prompts name a plane with more numbers than others; write those of one image "
            "to a file."
        )
    return 2 + depths.pop()


def _axes(n_dims: int) -> list[str]:
    return [f"axis-{axis}" for axis in range(n_dims)]


def _number(text: str) -> float:
    """The number that a cell holds; NaN if it holds none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
