"""The user's prompts as plain values, and how they group into objects.

Values compare by content. Coordinates are pixels of the image as it is viewed, axes in the order of
the view; a prompt carries its plane in its leading coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_simmat.engine.coordinates import AxisOrder, BoxCorners
from napari_simmat.engine.masks import ObjectMask, interior_point
from napari_simmat.engine.outlines import box_and_mask
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import MIN_CLICK_CENTRALITY

Plane = tuple[int, ...]
Position = tuple[float, ...]
"""One coordinate per axis of the view, without channels: (..., y, x)."""
ShapeKind = Literal["rectangle", "ellipse", "polygon", "path"]

SCRIBBLE_POINTS = 8
"""Largest number of points that a scribble is converted to."""
_SCRIBBLE_SPACING = 4.0
"""Pixels between two points of a short scribble."""
_NAMED_PLANES = 3
"""More planes than these are counted."""
ONLY_NEGATIVE = (
    "There are only negative marks: click on the object first (T flips), or press Segment "
    "everything to take them for ground."
)


@dataclass(frozen=True)
class Outline:
    """One drawn shape."""

    kind: ShapeKind
    """A path is a scribble over the object (or over background); the others enclose an object."""
    vertices: tuple[Position, ...]
    """In napari's convention: the corners of a rectangle, or of the box around an ellipse. Pixel k
    reaches from k - 0.5 to k + 0.5.
    """
    label: int = 1
    group: int = 0
    """Of a path, as for a point in `Prompts`."""


@dataclass(frozen=True)
class Prompts:
    """Points, shapes and masks on all planes."""

    points: tuple[Position, ...] = ()
    """Clicked positions in click order."""
    labels: tuple[int, ...] = ()
    """For each point 1 (positive) or 0 (negative)."""
    groups: tuple[int, ...] = ()
    """For each point the number of the uncommitted object it belongs to; all 0 if left out."""
    outlines: tuple[Outline, ...] = ()
    """Drawn shapes."""
    masks: tuple[ObjectMask, ...] = ()
    """Objects given by their pixels, each on one plane."""

    def __post_init__(self) -> None:
        if len(self.groups) != len(self.points):
            object.__setattr__(self, "groups", (0,) * len(self.points))

    def __bool__(self) -> bool:
        return bool(self.points or self.outlines or self.masks)

    def __add__(self, other: Prompts) -> Prompts:
        return Prompts(
            self.points + other.points,
            self.labels + other.labels,
            self.groups + other.groups,
            self.outlines + other.outlines,
            self.masks + other.masks,
        )

    @property
    def count(self) -> int:
        """Number of points, shapes and masks."""
        return len(self.points) + len(self.outlines) + len(self.masks)

    @property
    def flat(self) -> Prompts:
        """Points and outlines without their plane coordinates; masks keep theirs."""
        outlines = (
            replace(each, vertices=tuple(vertex[-2:] for vertex in each.vertices))
            for each in self.outlines
        )
        points = tuple(point[-2:] for point in self.points)
        return replace(self, points=points, outlines=tuple(outlines))

    def on(self, plane: Plane) -> Prompts:
        """Prompts on `plane` (indices of the leading axes)."""
        return self._select(plane, here=True)

    def off(self, plane: Plane) -> Prompts:
        """Prompts on all other planes."""
        return self._select(plane, here=False)

    def _select(self, plane: Plane, *, here: bool) -> Prompts:
        kept = [
            (point, label, group)
            for point, label, group in zip(self.points, self.labels, self.groups, strict=True)
            if (plane_of(point) == plane) is here
        ]
        return Prompts(
            points=tuple(point for point, _, _ in kept),
            labels=tuple(label for _, label, _ in kept),
            groups=tuple(group for _, _, group in kept),
            outlines=tuple(
                each for each in self.outlines if (plane_of(each.vertices[0]) == plane) is here
            ),
            masks=tuple(mask for mask in self.masks if (mask.corner[:-2] == plane) is here),
        )


@dataclass(frozen=True)
class EditedObject:
    """A committed object or a draft that is open for editing on one plane."""

    label: int
    plane: Plane
    """Which object, 0 for a draft, and where."""
    kept: ObjectMask | None = None
    """Its pixels on the plane if these are refined: it has no prompts of its own, or was changed
    since. Else None.
    """


@dataclass(frozen=True)
class PropagatedMask:
    """An object propagated to a plane, where clicks now correct it."""

    number: int
    plane: Plane
    """Which of the propagated objects, counted from 1, and where."""
    mask: ObjectMask
    """Its pixels (Y, X) there, before the clicks."""


@dataclass(frozen=True)
class PromptState:
    """All uncommitted prompts in one view.

    Together with the image and the model they determine what a commit writes.
    """

    prompts: Prompts = Prompts()
    """On all planes."""
    choices: tuple[tuple[Prompt, int], ...] = ()
    """Prompts for which another of the model's candidates was chosen, and which."""
    edited: tuple[EditedObject, ...] = ()
    """Committed objects that are open for editing, at most one per plane."""
    propagated: tuple[PropagatedMask, ...] = ()
    """Propagated masks that clicks on their planes correct."""
    order: AxisOrder = ()
    """The view; empty for the usual one."""
    expected_area: Annotated[float | None, {"omit_default": True}] = None
    """Pixels on a plane of what the first prompt probably means, as `ImageSession` guessed."""

    def __bool__(self) -> bool:
        return bool(self.prompts or self.edited)

    @property
    def has_prompts(self) -> bool:
        """Whether there is something to predict from."""
        return bool(self.prompts) or any(each.kept is not None for each in self.edited)

    def edited_on(self, plane: Plane) -> EditedObject | None:
        """The committed object that is open for editing on `plane`."""
        return next((each for each in self.edited if each.plane == plane), None)

    def on(self, plane: Plane) -> PromptState:
        """The state of `plane`; it keeps all choices."""
        edited = tuple(each for each in self.edited if each.plane == plane)
        propagated = tuple(each for each in self.propagated if each.plane == plane)
        return replace(self, prompts=self.prompts.on(plane), edited=edited, propagated=propagated)

    def off(self, plane: Plane) -> PromptState:
        """What remains when everything on `plane` is closed."""
        edited = tuple(each for each in self.edited if each.plane != plane)
        choices = tuple(each for each in self.choices if each[0].plane != plane)
        propagated = tuple(each for each in self.propagated if each.plane != plane)
        left = PromptState(self.prompts.off(plane), choices, edited, propagated, self.order)
        return replace(left, expected_area=self.expected_area) if left else left

    def planes(self) -> list[Plane]:
        """The planes with a prompt or an edited object, ascending."""
        prompts = self.prompts
        planes = {plane_of(point) for point in prompts.points}
        planes |= {plane_of(outline.vertices[0]) for outline in prompts.outlines}
        planes |= {tuple(mask.corner[:-2]) for mask in prompts.masks}
        return sorted(planes | {each.plane for each in self.edited})


def plane_of(position: Position) -> Plane:
    """The plane of a position: its leading coordinates, rounded as napari slices.

    Half-way between two planes napari shows the even one.
    """
    return tuple(round(value) for value in position[:-2])


def plane_names(planes: Sequence[Plane]) -> str:
    """``plane 3``, ``planes 3, 5``, ``planes (0, 3), (0, 5)``, ``8 planes``: planes in words."""
    if len(planes) > _NAMED_PLANES:
        return f"{len(planes)} planes"
    names = [str(plane[0]) if len(plane) == 1 else str(plane) for plane in planes]
    return f"plane{'' if len(names) == 1 else 's'} {', '.join(names)}"


# -------------------------------------------------------------- grouping into objects


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


def corrected_masks(
    prompts: Prompts, before: PromptState, propagated: Mapping[Plane, tuple[PropagatedMask, ...]]
) -> tuple[PropagatedMask, ...]:
    """The propagated masks that `prompts` correct.

    On each plane these are the masks that were there when its first prompt was made: later
    propagations must not change what a click refers to.

    Parameters
    ----------
    prompts
        All prompts now.
    before
        The state before the last edit.
    propagated
        The masks found on each plane.
    """
    planes = PromptState(prompts).planes()
    kept = [each for each in before.propagated if each.plane in planes]
    for plane in planes:
        if not before.on(plane):
            kept += propagated.get(plane, ())
    return tuple(kept)


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
