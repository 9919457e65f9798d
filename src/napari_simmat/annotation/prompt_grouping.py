"""How the user's prompts on a plane group into objects, and what each object asks the model.

Preview, commit and propagation all ask here, so that they agree on what one object is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_simmat.annotation.prompt_state import (
    EditedObject,
    Outline,
    Plane,
    Position,
    Prompts,
    PromptState,
    PropagatedMask,
)
from napari_simmat.engine.coordinates import BoxCorners
from napari_simmat.engine.masks import ObjectMask, interior_point
from napari_simmat.engine.outlines import box_and_mask
from napari_simmat.engine.pen_line import MOST, closes, points_along
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import MIN_CLICK_CENTRALITY

ONLY_NEGATIVE = (
    "There are only negative marks: put a positive one on the object, or press Segment everything "
    "to take them for ground."
)
FREEHAND = 12
"""A polygon of so many vertices is drawn freehand: its outline counts, as of a line that closes.
With fewer the model does better (docs/reports/finishing.md)."""


@dataclass(frozen=True)
class ObjectPrompt:
    """One uncommitted object on one plane."""

    prompt: Prompt
    """The prompt for the model."""
    source: Prompts
    """The user prompts that belong to this object, renumbered as group 0."""
    number: int | None = None
    """Which of the propagated objects it corrects; None for other objects."""
    group: int = 0
    """That of its prompts in `Prompts`; 0 of a shape that the nearest marks correct."""


def objects_on(
    state: PromptState, plane: Plane, shape_yx: tuple[int, int]
) -> tuple[ObjectPrompt, ...]:
    """The uncommitted objects on `plane`.

    An edited object comes first. Each rectangle, ellipse, polygon and mask is an object; points of
    group 0 correct the one that contains them, the smallest if several do, otherwise the nearest.
    Where there is none, the points of group 0 are one object. Every further group is an object of
    its own, or corrects the polygon of that group. Points correct an object that was propagated to
    this plane.

    Raises
    ------
    ValueError
        If something lies outside the image or an object has negative points only.
    """
    objects = []
    for one in _grouped(state, plane, shape_yx):
        if not _is_absent(one):
            prompt = _prompt(one, plane, shape_yx, state.expected_area)
            objects.append(ObjectPrompt(prompt, one.source, one.number, one.group))
    return tuple(objects)


def volume_prompts(state: PromptState, shape: tuple[int, ...]) -> tuple[ObjectPrompt, ...]:
    """The uncommitted objects on all planes; `prompt.object` is the same along the stack.

    The n-th object of a plane is the n-th of every other; so are groups of points. A plane with
    only negative points marks the object as absent there. Clicks on a plane that was propagated to
    correct the masks that are there; those without a click are left out.

    Raises
    ------
    ValueError
        If something lies outside the image.
    """
    objects: list[ObjectPrompt] = []
    for plane in state.planes():
        objects += _volume_prompts_on(state.on(plane), plane, (shape[-2], shape[-1]))
    return tuple(objects)


class _Mark(NamedTuple):
    """A point or a scribble, which says of an object what belongs to it."""

    dots: list[tuple[float, float]]
    """Its positions (y, x); one of a point."""
    label: int
    group: int
    """As in `Prompts`."""
    source: Prompts
    """The mark alone, as group 0."""


@dataclass
class _Object:
    """An object whose prompts are being collected; `extent` is the box that claims points."""

    extent: BoxCorners | None = None
    box: BoxCorners | None = None
    mask: Any = None
    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    scribbles: list[int] = field(default_factory=list)
    source: Prompts = field(default_factory=Prompts)
    number: int | None = None
    group: int = 0

    def add(self, mark: _Mark) -> None:
        self.points += mark.dots
        self.labels += [mark.label] * len(mark.dots)
        number = max(self.scribbles, default=0) + 1 if len(mark.dots) > 1 else 0
        self.scribbles += [number] * len(mark.dots)
        here = len(self.source.points)
        group = 0 if self.extent is None else self.group  # a shape names its marks
        outlines = tuple(
            replace(each, after=here, group=group if each.kind == "path" else each.group)
            for each in mark.source.outlines
        )
        self.source += replace(mark.source, outlines=outlines)


def _grouped(state: PromptState, plane: Plane, shape_yx: tuple[int, int]) -> list[_Object]:
    """The objects of a plane with their marks: those that claim marks, then groups of points."""
    prompts = state.prompts.on(plane)
    claimants = _drawn(prompts, plane, shape_yx)
    edited = _edited(state.edited_on(plane), shape_yx, claimants[:1])
    if edited is not None:
        claimants[:1] = [edited]
    if not claimants:
        claimants = [_propagated(each, shape_yx) for each in state.on(plane).propagated]
    last = max((each.number or 0 for each in claimants), default=0)
    drawn = {each.group: each for each in claimants if each.group}
    groups: dict[int, _Object] = {}
    for mark in _marks(prompts):
        if mark.group in drawn:
            owner = drawn[mark.group]
        elif mark.group != 0 or not claimants:
            number = last + mark.group if last else None
            owner = groups.setdefault(mark.group, _Object(number=number, group=mark.group))
        elif edited is not None:
            owner = edited
        else:
            owner = _owner(_place(mark), claimants)
        owner.add(mark)
    return claimants + [groups[group] for group in sorted(groups)]


def _volume_prompts_on(
    state: PromptState, plane: Plane, shape_yx: tuple[int, int]
) -> list[ObjectPrompt]:
    prompts = state.prompts.on(plane)
    has_shapes = any(outline.kind != "path" for outline in prompts.outlines)
    is_given = has_shapes or prompts.masks or state.propagated
    if is_given or state.edited_on(plane) is not None:
        return _numbered_by_place(state, plane, shape_yx)
    objects = []
    groups = {*prompts.groups, *(path.group for path in prompts.outlines)}
    for group in sorted(groups):
        source = _group_prompts(prompts, group)
        asked = _asked_by_marks(replace(state, prompts=source), plane, shape_yx)
        objects.append(ObjectPrompt(replace(asked, object=group + 1), source))
    return objects


def _numbered_by_place(
    state: PromptState, plane: Plane, shape_yx: tuple[int, int]
) -> list[ObjectPrompt]:
    """The n-th object is number n; one that was propagated keeps its number."""
    objects = [*objects_on(state, plane, shape_yx), *_absent_on(state, plane, shape_yx)]
    numbered = []
    for place, each in enumerate(objects, start=1):
        is_clicked = bool(each.source)
        if is_clicked or each.number is None:
            prompt = replace(each.prompt, object=each.number or place)
            numbered.append(ObjectPrompt(prompt, each.source))
    return numbered


def _asked_by_marks(state: PromptState, plane: Plane, shape_yx: tuple[int, int]) -> Prompt:
    """What one group of points and scribbles asks; negative ones alone say that it is absent."""
    source = state.prompts
    if any(source.labels) or any(path.label for path in source.outlines):
        [asked] = objects_on(state, plane, shape_yx)
        return asked.prompt
    positions: list[Position] = list(source.points)
    for path in source.outlines:
        positions += path.vertices
    points = tuple((position[-2], position[-1]) for position in positions)
    absent = Prompt(points, (0,) * len(points), plane=plane)
    absent.check_inside(shape_yx)
    return absent


def _absent_on(state: PromptState, plane: Plane, shape_yx: tuple[int, int]) -> list[ObjectPrompt]:
    """Propagated objects that the user's points mark as absent from `plane`."""
    absent = []
    for each in _grouped(state, plane, shape_yx):
        if _is_absent(each):
            prompt = Prompt(tuple(each.points), tuple(each.labels), plane=plane)
            prompt.check_inside(shape_yx)
            absent.append(ObjectPrompt(prompt, each.source, each.number))
    return absent


def _is_absent(collected: _Object) -> bool:
    """Whether the points on a propagated object mark it as absent.

    All are negative, and each lies in the middle of the mask or outside it: a negative point near
    the outline corrects the outline instead.
    """
    if collected.number is None or collected.mask is None:
        return False
    if not collected.points or any(collected.labels):
        return False
    depth = distance_transform_edt(np.pad(collected.mask, 1))[1:-1, 1:-1]
    middle = MIN_CLICK_CENTRALITY * depth.max()
    return not any(0 < _value_at(depth, point) < middle for point in collected.points)


def _value_at(values: np.ndarray, point: tuple[float, float]) -> float:
    """The value (Y, X) of the pixel that a point lies in; 0 outside."""
    y, x = (int(np.floor(value + 0.5)) for value in point)
    height, width = values.shape
    is_inside = 0 <= y < height and 0 <= x < width
    return float(values[y, x]) if is_inside else 0.0


def _group_prompts(prompts: Prompts, group: int) -> Prompts:
    """The points and scribbles of one group, renumbered as group 0."""
    kept = [number for number, other in enumerate(prompts.groups) if other == group]
    alone = prompts.with_points(kept, (each for each in prompts.outlines if each.group == group))
    outlines = tuple(replace(each, group=0) for each in alone.outlines)
    return replace(alone, groups=(0,) * len(kept), outlines=outlines)


def _drawn(prompts: Prompts, plane: Plane, shape_yx: tuple[int, int]) -> list[_Object]:
    """An object for each shape that encloses one, then for each mask."""
    shapes = [outline for outline in prompts.outlines if outline.kind != "path"]
    objects = [_enclosed(shape, shape_yx) for shape in shapes]
    return objects + [_given(mask, plane, shape_yx) for mask in prompts.masks]


def _edited(
    edited: EditedObject | None, shape_yx: tuple[int, int], around: list[_Object]
) -> _Object | None:
    """The edited object if its pixels are refined, with what was drawn `around` it, if anything."""
    if edited is None or edited.kept is None:
        return None
    refined = _Object(mask=edited.kept.on_plane(edited.plane, shape_yx))
    for drawn in around:
        if drawn.group:
            return drawn  # outlined anew by the pen
        refined = replace(drawn, extent=refined.extent, mask=refined.mask)
    return refined


def _propagated(found: PropagatedMask, shape_yx: tuple[int, int]) -> _Object:
    mask = found.mask.on_plane((), shape_yx)
    return _Object(_extent(found.mask), mask=mask, number=found.number)


def _enclosed(outline: Outline, shape_yx: tuple[int, int]) -> _Object:
    vertices = [vertex[-2:] for vertex in outline.vertices]
    box, mask = box_and_mask(outline.kind, vertices, shape_yx)
    if outline.kind == "polygon" and len(vertices) >= FREEHAND:
        around = _Object(box, group=outline.group)
        chosen = np.linspace(0, len(vertices), min(len(vertices), MOST), endpoint=False).astype(int)
        line = [vertices[number] for number in (*chosen, 0)]
        dots = [(float(y), float(x)) for y, x in line]
        around.add(_Mark(dots, 1, 0, Prompts(outlines=(outline,))))
        return around
    return _Object(box, box, mask, source=Prompts(outlines=(outline,)), group=outline.group)


def _given(mask: ObjectMask, plane: Plane, shape_yx: tuple[int, int]) -> _Object:
    """An object given as a mask, with a positive point at its deepest pixel.

    Measured: the model refines a mask better with that point than with the mask's box.
    """
    y, x = interior_point(mask.mask.reshape(mask.shape[-2:]))
    y0, x0 = mask.corner[-2:]
    whole = mask.on_plane(plane, shape_yx)
    given = _Object(_extent(mask), mask=whole, source=Prompts(masks=(mask,)))
    given.add(_Mark([(y0 + y, x0 + x)], 1, 0, Prompts()))
    return given


def _extent(mask: ObjectMask) -> BoxCorners:
    (y0, x0), (height, width) = mask.corner[-2:], mask.shape[-2:]
    return float(y0), float(x0), float(y0 + height), float(x0 + width)


def _marks(prompts: Prompts) -> list[_Mark]:
    """The points and scribbles in the order in which they were made."""
    made: list[tuple[float, _Mark]] = []
    for outline in prompts.outlines:
        if outline.kind == "path":
            line = np.array([vertex[-2:] for vertex in outline.vertices], dtype=float)
            kept = line if closes(line) else points_along(line)
            dots = [(float(y), float(x)) for y, x in kept]
            source = Prompts(outlines=(replace(outline, group=0),))
            mark = _Mark(dots, outline.label, outline.group, source)
            made.append((min(outline.after, len(prompts.points)) - 0.5, mark))
    points = zip(prompts.points, prompts.labels, prompts.groups, strict=True)
    for number, (point, label, group) in enumerate(points):
        source = Prompts(points=(point,), labels=(label,))
        made.append((number, _Mark([(point[-2], point[-1])], label, group, source)))
    return [mark for _, mark in sorted(made, key=lambda each: each[0])]


def _place(mark: _Mark) -> tuple[float, float]:
    """Where a mark lies: the middle of a line, or of what it encloses."""
    if closes(mark.dots):
        y, x = np.mean(mark.dots, axis=0)
        return float(y), float(x)
    return mark.dots[len(mark.dots) // 2]


def _owner(point: tuple[float, float], objects: list[_Object]) -> _Object:
    """The object nearest to a point, the smallest of those that contain it."""

    def order(claimant: _Object) -> tuple[float, float]:
        assert claimant.extent is not None
        y0, x0, y1, x1 = claimant.extent
        away_y = max(y0 - 0.5 - point[0], 0.0, point[0] - (y1 - 0.5))
        away_x = max(x0 - 0.5 - point[1], 0.0, point[1] - (x1 - 0.5))
        return away_y**2 + away_x**2, (y1 - y0) * (x1 - x0)

    return min(objects, key=order)


def _prompt(
    collected: _Object, plane: Plane, shape_yx: tuple[int, int], expected_area: float | None
) -> Prompt:
    """What an object asks the model; ValueError if it has negative marks alone."""
    is_bare = collected.box is None and collected.mask is None
    if is_bare and not any(collected.labels):
        raise ValueError(ONLY_NEGATIVE)
    prompt = Prompt(
        points=tuple(collected.points),
        labels=tuple(collected.labels),
        scribbles=tuple(collected.scribbles),
        box=collected.box,
        mask=collected.mask,
        plane=plane,
        expected_area=expected_area if is_bare else None,
    )
    prompt.check_inside(shape_yx)
    return prompt
