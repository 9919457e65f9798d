"""The user's prompts as plain values.

Values compare by content. Coordinates are pixels of the image as it is viewed, axes in the order of
the view; a prompt carries its plane in its leading coordinates.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.prompts import Prompt

Plane = tuple[int, ...]
Position = tuple[float, ...]
"""One coordinate per axis of the view, without channels: (..., y, x)."""
ShapeKind = Literal["rectangle", "ellipse", "polygon", "path"]

_NAMED_PLANES = 3
"""More planes than these are counted."""


@dataclass(frozen=True)
class Outline:
    """One drawn shape."""

    kind: ShapeKind
    """A path is a line over the object (or over background), or around a part if it ends where it
    begins; the others enclose an object.
    """
    vertices: tuple[Position, ...]
    """In napari's convention: the corners of a rectangle, or of the box around an ellipse. Pixel k
    reaches from k - 0.5 to k + 0.5.
    """
    label: int = 1
    group: int = 0
    """Of a path, as for a point in `Prompts`; of a polygon the group of the marks that mend it."""
    after: int = 0
    """How many points were there before it was drawn."""


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
    def last_group(self) -> int:
        """The group of the last object that points make; 0 without points."""
        drawn = {each.group for each in self.outlines if each.kind == "polygon"}
        paths = (each.group for each in self.outlines if each.kind == "path")
        return max({*self.groups, *paths} - drawn, default=0)

    @property
    def next_group(self) -> int:
        """A group that nothing belongs to yet; 0 if there are no prompts."""
        return max((*self.groups, *(each.group for each in self.outlines)), default=-1) + 1

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
        def is_kept(position: Position) -> bool:
            return (plane_of(position) == plane) is here

        kept = [number for number, point in enumerate(self.points) if is_kept(point)]
        outlines = [each for each in self.outlines if is_kept(each.vertices[0])]
        masks = tuple(mask for mask in self.masks if (mask.corner[:-2] == plane) is here)
        return replace(self.with_points(kept, outlines), masks=masks)

    def without(self, other: Prompts) -> Prompts:
        """The prompts that are not among `other`, whichever groups they are in."""
        used = Counter(zip(other.points, other.labels, strict=True))
        kept = []
        for number, point in enumerate(zip(self.points, self.labels, strict=True)):
            if used[point]:
                used[point] -= 1
            else:
                kept.append(number)
        shapes = {(each.kind, each.vertices, each.label) for each in other.outlines}
        outlines = [
            each for each in self.outlines if (each.kind, each.vertices, each.label) not in shapes
        ]
        masks = tuple(mask for mask in self.masks if mask not in other.masks)
        return replace(self.with_points(kept, outlines), masks=masks)

    def within(self, other: Prompts) -> Prompts:
        """The prompts that are also among `other`, whichever groups they are in."""
        return self.without(self.without(other))

    def behind(self, others: Prompts) -> Prompts:
        """All prompts, these drawn after the `others`."""
        before = len(others.points)
        outlines = tuple(replace(each, after=each.after + before) for each in self.outlines)
        return others + replace(self, outlines=outlines)

    def with_points(self, kept: Sequence[int], outlines: Iterable[Outline]) -> Prompts:
        """The points of these numbers and some of the outlines, drawn after as many of them."""
        return Prompts(
            points=tuple(self.points[number] for number in kept),
            labels=tuple(self.labels[number] for number in kept),
            groups=tuple(self.groups[number] for number in kept),
            outlines=tuple(replace(each, after=bisect_left(kept, each.after)) for each in outlines),
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
    other: Annotated[PromptState | None, {"omit_default": True}] = None
    """That of the plane of the last line, if the line may also be read otherwise (`pen`)."""

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
        other = self.other if self.other and self.other.on(plane) else None
        here = self.prompts.on(plane)
        return replace(self, prompts=here, edited=edited, propagated=propagated, other=other)

    def off(self, plane: Plane) -> PromptState:
        """What remains when everything on `plane` is closed."""
        edited = tuple(each for each in self.edited if each.plane != plane)
        choices = tuple(each for each in self.choices if each[0].plane != plane)
        propagated = tuple(each for each in self.propagated if each.plane != plane)
        left = PromptState(self.prompts.off(plane), choices, edited, propagated, self.order)
        other = self.other if self.other and not self.other.on(plane) else None
        return replace(left, expected_area=self.expected_area, other=other) if left else left

    def used_up(self, plane: Plane, made_from: PromptState | None = None) -> PromptState:
        """What remains when everything on `plane` is closed but what was drawn since.

        That is what is not in `made_from`, the state that was committed; None for all.
        """
        left = self.off(plane)
        if made_from is None:
            return left
        drawn = self.prompts.on(plane).without(made_from.prompts)
        area = self.expected_area if drawn else left.expected_area
        return replace(left, prompts=drawn.behind(left.prompts), expected_area=area)

    def planes(self) -> list[Plane]:
        """The planes with a prompt or an edited object, ascending."""
        prompts = self.prompts
        planes = {plane_of(point) for point in prompts.points}
        planes |= {plane_of(outline.vertices[0]) for outline in prompts.outlines}
        planes |= {tuple(mask.corner[:-2]) for mask in prompts.masks}
        return sorted(planes | {each.plane for each in self.edited})


def swapped(state: PromptState) -> PromptState:
    """The prompts once the last line is read in the other way; the first way becomes the other."""
    other = state.other
    assert other is not None
    [plane] = other.planes()
    kept = state.off(plane)
    return replace(
        state,
        prompts=other.prompts.behind(kept.prompts),
        choices=tuple(dict.fromkeys((*state.choices, *other.choices))),
        edited=kept.edited + other.edited,
        other=replace(state.on(plane), other=None),
    )


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
