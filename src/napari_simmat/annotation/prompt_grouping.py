"""How the user's prompts on a plane group into objects, and what each object asks the model.

Preview, commit and propagation all ask here, so that they agree on what one object is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_simmat.annotation.prompt_state import Outline, Plane, Prompts, PromptState
from napari_simmat.engine.coordinates import BoxCorners
from napari_simmat.engine.masks import ObjectMask, interior_point
from napari_simmat.engine.outlines import box_and_mask
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import MIN_CLICK_CENTRALITY

SCRIBBLE_POINTS = 8
"""Largest number of points that a scribble is converted to."""
_SCRIBBLE_SPACING = 4.0
"""Pixels between two points of a short scribble."""
ONLY_NEGATIVE = (
    "There are only negative marks: click on the object first (T flips), or press Segment "
    "everything to take them for ground."
)


@dataclass(frozen=True)
class ObjectPrompt:
    """One uncommitted object on one plane."""

    prompt: Prompt
    """The prompt for the model."""
    source: Prompts
    """The user prompts that belong to this object, renumbered as group 0."""
    number: int | None = None
    """Which of the propagated objects it corrects; None for other objects."""


def objects_on(
    state: PromptState, plane: Plane, shape_yx: tuple[int, int]
) -> tuple[ObjectPrompt, ...]:
    """The uncommitted objects on `plane`.

    An edited object comes first. Each rectangle, ellipse, polygon and mask is an object; points of
    group 0 correct the one that contains them, the smallest if several do, otherwise the nearest.
    Where there is none, the points of group 0 are one object. Every further group is an object of
    its own. Points correct an object that was propagated to this plane.

    Raises
    ------
    ValueError
        If something lies outside the image or an object has negative points only.
    """
    objects = [each for each in _grouped(state, plane, shape_yx) if not _is_absent(each)]
    return tuple(
        ObjectPrompt(_prompt(each, plane, shape_yx, state.expected_area), each.source, each.number)
        for each in objects
    )


def volume_prompts(state: PromptState, shape: tuple[int, ...]) -> tuple[ObjectPrompt, ...]:
    """The uncommitted objects on all planes; `prompt.object` is the same along the stack.

    The n-th object of a plane is the n-th of every other; so are groups of points. A plane with
    only negative points marks the object as absent there. Clicks on a plane that was propagated to
    correct the masks found there; those without a click are left out.

    Raises
    ------
    ValueError
        If something lies outside the image.
    """
    found: list[ObjectPrompt] = []
    for plane in state.planes():
        found += _volume_prompts_on(state.on(plane), plane, (shape[-2], shape[-1]))
    return tuple(found)


def points_along(vertices: np.ndarray) -> np.ndarray:
    """Points (N, 2) at equal distances along a drawn line (M, 2), ends included."""
    lengths = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(vertices, axis=0), axis=1))]
    count = int(np.clip(lengths[-1] / _SCRIBBLE_SPACING + 1, 1, SCRIBBLE_POINTS))
    if count == 1:
        return vertices[:1]
    at = np.linspace(0, lengths[-1], count)
    return np.stack([np.interp(at, lengths, column) for column in vertices.T], axis=1)


@dataclass
class _Object:
    """An object whose prompts are being collected; `extent` is the box that claims points."""

    extent: BoxCorners | None = None
    box: BoxCorners | None = None
    mask: Any = None
    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    source: Prompts = field(default_factory=Prompts)
    number: int | None = None

    def add(self, dots: list[tuple[float, float]], label: int, source: Prompts) -> None:
        self.points += dots
        self.labels += [label] * len(dots)
        self.source += source


def _grouped(state: PromptState, plane: Plane, shape_yx: tuple[int, int]) -> list[_Object]:
    here = state.prompts.on(plane)
    edited = state.edited_on(plane)
    objects = [_enclosed(each, shape_yx) for each in here.outlines if each.kind != "path"]
    objects += [_given(mask, plane, shape_yx) for mask in here.masks]
    kept = None
    if edited is not None and edited.kept is not None:
        kept = _Object(mask=edited.kept.on_plane(plane, shape_yx))
        if objects:  # a box drawn around the edited object
            first = objects.pop(0)
            kept.box, kept.source = first.box, first.source
        objects.insert(0, kept)
    if not objects:
        objects = [
            _Object(_extent(each.mask), mask=each.mask.on_plane((), shape_yx), number=each.number)
            for each in state.on(plane).propagated
        ]
    last = max((each.number or 0 for each in objects), default=0)
    groups: dict[int, _Object] = {}
    for dots, label, group, source in _dots(here):
        if group == 0 and objects:
            owner = kept or _owner(dots[len(dots) // 2], objects)
        else:
            owner = groups.setdefault(group, _Object(number=last + group if last else None))
        owner.add(dots, label, source)
    return objects + [groups[group] for group in sorted(groups)]


def _volume_prompts_on(
    state: PromptState, plane: Plane, shape_yx: tuple[int, int]
) -> list[ObjectPrompt]:
    here = state.prompts.on(plane)
    enclosed = any(outline.kind != "path" for outline in here.outlines) or here.masks
    if enclosed or state.propagated or state.edited_on(plane) is not None:
        objects = [*objects_on(state, plane, shape_yx), *_absent_on(state, plane, shape_yx)]
        return [
            ObjectPrompt(replace(each.prompt, object=each.number or number), each.source)
            for number, each in enumerate(objects, start=1)
            if each.source or each.number is None
        ]
    marks = [*zip(here.labels, here.groups, strict=True)]
    marks += [(each.label, each.group) for each in here.outlines if each.kind == "path"]
    found = []
    for group in sorted({group for _, group in marks}):
        source = _group_prompts(here, group)
        if any(label for label, other in marks if other == group):
            alone = PromptState(source, expected_area=state.expected_area)
            [one] = objects_on(alone, plane, shape_yx)
            prompt = replace(one.prompt, object=group + 1)
        else:
            points = [(point[-2], point[-1]) for point in source.points]
            points += [(v[-2], v[-1]) for path in source.outlines for v in path.vertices]
            prompt = Prompt(tuple(points), (0,) * len(points), object=group + 1, plane=plane)
            prompt.check_inside(shape_yx)
        found.append(ObjectPrompt(prompt, source))
    return found


def _absent_on(state: PromptState, plane: Plane, shape_yx: tuple[int, int]) -> list[ObjectPrompt]:
    """Propagated objects that the user's points mark as absent from `plane`."""
    found = []
    for each in _grouped(state, plane, shape_yx):
        if _is_absent(each):
            prompt = Prompt(tuple(each.points), tuple(each.labels), plane=plane)
            prompt.check_inside(shape_yx)
            found.append(ObjectPrompt(prompt, each.source, each.number))
    return found


def _is_absent(each: _Object) -> bool:
    """Whether the points on a propagated object mark it as absent.

    All are negative, and each lies in the middle of the mask or outside it: a negative point near
    the outline corrects the outline instead.
    """
    if each.number is None or each.mask is None or not each.points or any(each.labels):
        return False
    depth = distance_transform_edt(np.pad(each.mask, 1))[1:-1, 1:-1]
    at = [tuple(int(np.floor(value + 0.5)) for value in point) for point in each.points]
    inside = [depth[y, x] for y, x in at if 0 <= y < depth.shape[0] and 0 <= x < depth.shape[1]]
    return not any(0 < here < MIN_CLICK_CENTRALITY * depth.max() for here in inside)


def _group_prompts(prompts: Prompts, group: int) -> Prompts:
    """The points and scribbles of one group, renumbered as group 0."""
    kept = [number for number, other in enumerate(prompts.groups) if other == group]
    return Prompts(
        points=tuple(prompts.points[number] for number in kept),
        labels=tuple(prompts.labels[number] for number in kept),
        outlines=tuple(replace(each, group=0) for each in prompts.outlines if each.group == group),
    )


def _enclosed(outline: Outline, shape_yx: tuple[int, int]) -> _Object:
    vertices = [vertex[-2:] for vertex in outline.vertices]
    box, mask = box_and_mask(outline.kind, vertices, shape_yx)
    return _Object(box, box, mask, source=Prompts(outlines=(outline,)))


def _given(mask: ObjectMask, plane: Plane, shape_yx: tuple[int, int]) -> _Object:
    """An object given as a mask, with a positive point at its deepest pixel.

    Measured: the model refines a mask better with that point than with the mask's box.
    """
    y, x = interior_point(mask.mask.reshape(mask.shape[-2:]))
    y0, x0 = mask.corner[-2:]
    whole = mask.on_plane(plane, shape_yx)
    given = _Object(_extent(mask), mask=whole, source=Prompts(masks=(mask,)))
    given.add([(y0 + y, x0 + x)], 1, Prompts())
    return given


def _extent(mask: ObjectMask) -> BoxCorners:
    (y0, x0), (height, width) = mask.corner[-2:], mask.shape[-2:]
    return float(y0), float(x0), float(y0 + height), float(x0 + width)


def _dots(prompts: Prompts) -> list[tuple[list[tuple[float, float]], int, int, Prompts]]:
    """Positions, label, group and source of the scribbles, then of the points."""
    found = []
    for outline in prompts.outlines:
        if outline.kind == "path":
            line = np.array([vertex[-2:] for vertex in outline.vertices], dtype=float)
            dots = [(float(y), float(x)) for y, x in points_along(line)]
            source = Prompts(outlines=(replace(outline, group=0),))
            found.append((dots, outline.label, outline.group, source))
    for point, label, group in zip(prompts.points, prompts.labels, prompts.groups, strict=True):
        source = Prompts(points=(point,), labels=(label,))
        found.append(([(point[-2], point[-1])], label, group, source))
    return found


def _owner(point: tuple[float, float], objects: list[_Object]) -> _Object:
    """The object nearest to a point, the smallest of those that contain it."""

    def order(each: _Object) -> tuple[float, float]:
        assert each.extent is not None
        y0, x0, y1, x1 = each.extent
        away_y = max(y0 - 0.5 - point[0], 0.0, point[0] - (y1 - 0.5))
        away_x = max(x0 - 0.5 - point[1], 0.0, point[1] - (x1 - 0.5))
        return away_y**2 + away_x**2, (y1 - y0) * (x1 - x0)

    return min(objects, key=order)


def _prompt(
    each: _Object, plane: Plane, shape_yx: tuple[int, int], expected_area: float | None
) -> Prompt:
    if each.box is None and each.mask is None and not any(each.labels):
        raise ValueError(ONLY_NEGATIVE)
    prompt = Prompt(
        points=tuple(each.points),
        labels=tuple(each.labels),
        box=each.box,
        mask=each.mask,
        plane=plane,
        expected_area=expected_area if each.box is None and each.mask is None else None,
    )
    prompt.check_inside(shape_yx)
    return prompt
