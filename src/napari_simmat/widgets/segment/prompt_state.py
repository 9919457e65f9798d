"""What the user asks for: points, drawn shapes and masks on the planes of one image.

Plain values that compare by content. Coordinates are those of the image as it is seen, in pixels,
its axes in the order of the view; a prompt carries its plane in its leading coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_simmat.engine.coordinates import AxisOrder, BoxCorners, box_of_corners
from napari_simmat.engine.masks import ObjectMask, interior_point
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import MIN_CLICK_CENTRALITY

Plane = tuple[int, ...]
Position = tuple[float, ...]
"""One coordinate per axis of the view, without channels: (..., y, x)."""
Kind = Literal["rectangle", "ellipse", "polygon", "path"]


@dataclass(frozen=True)
class Outline:
    """One drawn shape.

    Parameters
    ----------
    kind
        A path is a scribble over the object (or beside it), the others enclose an object.
    vertices
        As napari has them: the corners of a rectangle and of the box around an ellipse. Edges lie
        as napari draws them (pixel k reaches from k - 0.5 to k + 0.5).
    label, group
        Of a path, as of a point.
    """

    kind: Kind
    vertices: tuple[Position, ...]
    label: int = 1
    group: int = 0


@dataclass(frozen=True)
class Prompts:
    """Everything that is asked for now, on all planes.

    Parameters
    ----------
    points
        Clicked positions, in the order of the clicks.
    labels
        For each point 1 (inside the object) or 0 (outside).
    groups
        For each point the number of the open object it means; all 0 if left out.
    outlines
        Drawn shapes.
    masks
        Objects given by their pixels, each on one plane.
    """

    points: tuple[Position, ...] = ()
    labels: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    outlines: tuple[Outline, ...] = ()
    masks: tuple[ObjectMask, ...] = ()

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
    def flat(self) -> Prompts:
        """The same without the planes on which they are; masks keep theirs."""
        outlines = (
            replace(each, vertices=tuple(vertex[-2:] for vertex in each.vertices))
            for each in self.outlines
        )
        points = tuple(point[-2:] for point in self.points)
        return replace(self, points=points, outlines=tuple(outlines))

    def on(self, plane: Plane) -> Prompts:
        """Those that live on `plane` (indices of the leading axes)."""
        return self._where(plane, here=True)

    def off(self, plane: Plane) -> Prompts:
        """Those that live on other planes."""
        return self._where(plane, here=False)

    def _where(self, plane: Plane, *, here: bool) -> Prompts:
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
class Opened:
    """A finished object that is open again on one plane.

    Parameters
    ----------
    label, plane
        Which object, and where.
    kept
        Its pixels on the plane, where they are what is refined: it has no prompts of its own, or
        was changed since. Else None.
    """

    label: int
    plane: Plane
    kept: ObjectMask | None = None


@dataclass(frozen=True)
class Followed:
    """An object that was followed to a plane on which clicks now correct it.

    Parameters
    ----------
    number, plane
        Which of the objects that were followed, counted from 1, and where.
    mask
        Its pixels (Y, X) there, before the clicks.
    """

    number: int
    plane: Plane
    mask: ObjectMask


@dataclass(frozen=True)
class Asked:
    """All that is open in one view: what a commit would write follows from it (image and model).

    Parameters
    ----------
    prompts
        On all planes.
    choices
        Where another of the model's candidates was chosen: for which prompt, and which.
    opened
        Finished objects that are open again, at most one on a plane.
    followed
        What clicks on their planes correct.
    order
        The view; empty for the usual one.
    """

    prompts: Prompts = Prompts()
    choices: tuple[tuple[Prompt, int], ...] = ()
    opened: tuple[Opened, ...] = ()
    followed: tuple[Followed, ...] = ()
    order: AxisOrder = ()

    def __bool__(self) -> bool:
        return bool(self.prompts or self.opened)

    @property
    def is_asking(self) -> bool:
        """Whether there is something to answer."""
        return bool(self.prompts) or any(each.kept is not None for each in self.opened)

    def opened_on(self, plane: Plane) -> Opened | None:
        """The finished object that is open again on `plane`."""
        return next((each for each in self.opened if each.plane == plane), None)

    def on(self, plane: Plane) -> Asked:
        """What is open on `plane`."""
        opened = tuple(each for each in self.opened if each.plane == plane)
        followed = tuple(each for each in self.followed if each.plane == plane)
        return replace(self, prompts=self.prompts.on(plane), opened=opened, followed=followed)

    def off(self, plane: Plane) -> Asked:
        """What is left when everything on `plane` is closed."""
        opened = tuple(each for each in self.opened if each.plane != plane)
        choices = tuple(each for each in self.choices if each[0].plane != plane)
        followed = tuple(each for each in self.followed if each.plane != plane)
        return Asked(self.prompts.off(plane), choices, opened, followed, self.order)


def plane_of(position: Position) -> Plane:
    """The plane a position lies on: its leading coordinates, rounded as napari slices.

    Half-way between two planes napari shows the even one.
    """
    return tuple(round(value) for value in position[:-2])


# What the prompts on one plane mean: which objects are asked for, and by what.


SCRIBBLE_POINTS = 8
"""Points that a scribble becomes at most."""
_APART = 4.0
"""Pixels between two points of a short scribble."""


@dataclass(frozen=True)
class Wanted:
    """One open object.

    Parameters
    ----------
    prompt
        As the model is asked.
    share
        Which of the user's prompts mean it, as the first group.
    number
        Of an object that was followed to this plane: which; else None.
    """

    prompt: Prompt
    share: Prompts
    number: int | None = None


@dataclass
class _Object:
    """An object while its parts are gathered; `extent` is the box that holds its points."""

    extent: BoxCorners | None = None
    box: BoxCorners | None = None
    mask: Any = None
    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    share: Prompts = field(default_factory=Prompts)
    number: int | None = None

    def take(self, dots: list[tuple[float, float]], label: int, share: Prompts) -> None:
        """Add points."""
        self.points += dots
        self.labels += [label] * len(dots)
        self.share += share


def wanted_on(asked: Asked, plane: Plane, shape_yx: tuple[int, int]) -> tuple[Wanted, ...]:
    """The objects that are open on `plane`.

    An object that is open again comes first. Each rectangle, ellipse, polygon and mask is an
    object; points of the first group correct the one that holds them, the smallest if several do,
    otherwise the nearest. Where there is none, points of the first group are one object. Every
    further group is an object of its own. An object that was followed to this plane is one that
    its points correct.

    Raises
    ------
    ValueError
        If something lies outside the image or an object has negative points only.
    """
    objects = [each for each in _objects_on(asked, plane, shape_yx) if not _ends(each)]
    return tuple(
        Wanted(_prompt(each, plane, shape_yx), each.share, each.number) for each in objects
    )


def ended_on(asked: Asked, plane: Plane, shape_yx: tuple[int, int]) -> tuple[Wanted, ...]:
    """The objects that were followed to `plane`, but are not there, as their points say.

    A negative point that says so lies in the middle of what was found, or not on it at all.
    """
    found = []
    for each in _objects_on(asked, plane, shape_yx):
        if _ends(each):
            prompt = Prompt(tuple(each.points), tuple(each.labels), plane=plane)
            prompt.check_inside(shape_yx)
            found.append(Wanted(prompt, each.share, each.number))
    return tuple(found)


def _objects_on(asked: Asked, plane: Plane, shape_yx: tuple[int, int]) -> list[_Object]:
    here = asked.prompts.on(plane)
    opened = asked.opened_on(plane)
    objects = [_enclosed(each, shape_yx) for each in here.outlines if each.kind != "path"]
    objects += [_given(mask, plane, shape_yx) for mask in here.masks]
    kept = None
    if opened is not None and opened.kept is not None:
        kept = _Object(mask=opened.kept.on_plane(plane, shape_yx))
        if objects:  # a box around the object that is open again
            first = objects.pop(0)
            kept.box, kept.share = first.box, first.share
        objects.insert(0, kept)
    if not objects:
        objects = [_followed(each, shape_yx) for each in asked.on(plane).followed]
    last = max((each.number or 0 for each in objects), default=0)
    groups: dict[int, _Object] = {}
    for dots, label, group, share in _dots(here):
        if group == 0 and objects:
            owner = kept or _owner(dots[len(dots) // 2], objects)
        else:
            owner = groups.setdefault(group, _Object(number=last + group if last else None))
        owner.take(dots, label, share)
    return objects + [groups[group] for group in sorted(groups)]


def prompts_of(asked: Asked, plane: Plane, shape_yx: tuple[int, int]) -> tuple[Prompt, ...]:
    """What the model is asked for the objects that are open on `plane`; as `wanted_on`."""
    return tuple(each.prompt for each in wanted_on(asked, plane, shape_yx))


def mask_of(outline: Outline, shape_yx: tuple[int, int]) -> np.ndarray:
    """The pixels (Y, X) whose centres lie within a rectangle, an ellipse or a polygon."""
    from skimage.draw import polygon2mask

    vertices = np.array([vertex[-2:] for vertex in outline.vertices])
    if outline.kind == "ellipse":
        centre = vertices.mean(axis=0)
        across, down = (vertices[1] - vertices[0]) / 2, (vertices[3] - vertices[0]) / 2
        angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)[:, None]
        vertices = centre + np.cos(angles) * across + np.sin(angles) * down
    mask: np.ndarray = polygon2mask(shape_yx, vertices)
    return mask


def along(vertices: np.ndarray) -> np.ndarray:
    """Points (N, 2) at equal distances along a drawn line (M, 2), ends included."""
    lengths = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(vertices, axis=0), axis=1))]
    count = int(np.clip(lengths[-1] / _APART + 1, 1, SCRIBBLE_POINTS))
    if count == 1:
        return vertices[:1]
    at = np.linspace(0, lengths[-1], count)
    return np.stack([np.interp(at, lengths, column) for column in vertices.T], axis=1)


def _enclosed(outline: Outline, shape_yx: tuple[int, int]) -> _Object:
    box = box_of_corners([vertex[-2:] for vertex in outline.vertices], shape_yx)
    share = Prompts(outlines=(outline,))
    if outline.kind == "rectangle" and _is_upright(outline):
        return _Object(box, box, share=share)
    mask = mask_of(outline, shape_yx)
    return _Object(box, box, mask if mask.any() else None, share=share)


def _is_upright(outline: Outline) -> bool:
    """Whether the sides of a rectangle lie along the axes."""
    sides = np.diff([vertex[-2:] for vertex in outline.vertices], axis=0)
    return bool(np.isclose(sides, 0, atol=1e-3).any(axis=1).all())


def _given(mask: ObjectMask, plane: Plane, shape_yx: tuple[int, int]) -> _Object:
    """A mask with its deepest pixel: measured, the model refines it better than with its box."""
    (y0, x0), (height, width) = mask.corner[-2:], mask.shape[-2:]
    extent = float(y0), float(x0), float(y0 + height), float(x0 + width)
    y, x = interior_point(mask.mask.reshape(height, width))
    given = _Object(extent, mask=mask.on_plane(plane, shape_yx), share=Prompts(masks=(mask,)))
    given.take([(y0 + y, x0 + x)], 1, Prompts())
    return given


def _followed(followed: Followed, shape_yx: tuple[int, int]) -> _Object:
    (y0, x0), (height, width) = followed.mask.corner, followed.mask.shape
    extent = float(y0), float(x0), float(y0 + height), float(x0 + width)
    return _Object(extent, mask=followed.mask.on_plane((), shape_yx), number=followed.number)


def _ends(each: _Object) -> bool:
    """Whether points on an object that was followed say that it is not there."""
    if each.number is None or each.mask is None or not each.points or any(each.labels):
        return False
    depth = distance_transform_edt(np.pad(each.mask, 1))[1:-1, 1:-1]
    at = [tuple(int(np.floor(value + 0.5)) for value in point) for point in each.points]
    inside = [depth[y, x] for y, x in at if 0 <= y < depth.shape[0] and 0 <= x < depth.shape[1]]
    return not any(0 < here < MIN_CLICK_CENTRALITY * depth.max() for here in inside)


def _dots(prompts: Prompts) -> list[tuple[list[tuple[float, float]], int, int, Prompts]]:
    """Positions, label, group and origin of scribbles, then of the clicks."""
    found = []
    for outline in prompts.outlines:
        if outline.kind == "path":
            line = np.array([vertex[-2:] for vertex in outline.vertices], dtype=float)
            dots = [(float(y), float(x)) for y, x in along(line)]
            share = Prompts(outlines=(replace(outline, group=0),))
            found.append((dots, outline.label, outline.group, share))
    for point, label, group in zip(prompts.points, prompts.labels, prompts.groups, strict=True):
        share = Prompts(points=(point,), labels=(label,))
        found.append(([(point[-2], point[-1])], label, group, share))
    return found


def _owner(point: tuple[float, float], objects: list[_Object]) -> _Object:
    def order(each: _Object) -> tuple[float, float]:
        assert each.extent is not None
        y0, x0, y1, x1 = each.extent
        away_y = max(y0 - 0.5 - point[0], 0.0, point[0] - (y1 - 0.5))
        away_x = max(x0 - 0.5 - point[1], 0.0, point[1] - (x1 - 0.5))
        return away_y**2 + away_x**2, (y1 - y0) * (x1 - x0)

    return min(objects, key=order)


def _prompt(each: _Object, plane: Plane, shape_yx: tuple[int, int]) -> Prompt:
    if each.box is None and each.mask is None and not any(each.labels):
        raise ValueError("There are only negative points: click on the object first (T flips).")
    prompt = Prompt(
        points=tuple(each.points),
        labels=tuple(each.labels),
        box=each.box,
        mask=each.mask,
        plane=plane,
    )
    prompt.check_inside(shape_yx)
    return prompt


# What prompts on several planes mean: objects that go through a stack. Plain values.


@dataclass(frozen=True)
class Through:
    """One object on one plane.

    Parameters
    ----------
    prompt
        As it is asked; its `object` is the same on all planes.
    share
        Which of the user's prompts mean it.
    """

    prompt: Prompt
    share: Prompts


def through(asked: Asked, shape: tuple[int, ...]) -> list[Through]:
    """All objects that are open, on all planes.

    The n-th object of a plane is the n-th of every other; so are groups of points. Negative points
    alone on a plane say that the object is not there. Clicks where it was found before correct
    what was found, and an object that nobody clicked on there is not asked for.

    Raises
    ------
    ValueError
        If something lies outside the image.
    """
    found = []
    for plane in planes_of(asked):
        found += _on(asked.on(plane), plane, (shape[-2], shape[-1]))
    return found


def corrected_by(
    prompts: Prompts, before: Asked, found: Mapping[Plane, tuple[Followed, ...]]
) -> tuple[Followed, ...]:
    """What prompts correct: on each plane what was found there when the first of them was made.

    Parameters
    ----------
    prompts
        All that is asked for now.
    before
        What was open a moment ago.
    found
        What was found on each plane.
    """
    planes = planes_of(Asked(prompts))
    kept = [each for each in before.followed if each.plane in planes]
    for plane in planes:
        if not before.on(plane):
            kept += found.get(plane, ())
    return tuple(kept)


def planes_of(asked: Asked) -> list[Plane]:
    """The planes on which something is open, in order."""
    prompts = asked.prompts
    planes = {plane_of(point) for point in prompts.points}
    planes |= {plane_of(outline.vertices[0]) for outline in prompts.outlines}
    planes |= {tuple(mask.corner[:-2]) for mask in prompts.masks}
    planes |= {opened.plane for opened in asked.opened}
    return sorted(planes)


def _on(asked: Asked, plane: Plane, shape_yx: tuple[int, int]) -> list[Through]:
    here = asked.prompts.on(plane)
    enclosed = any(outline.kind != "path" for outline in here.outlines) or here.masks
    if enclosed or asked.followed or asked.opened_on(plane) is not None:
        wanted = [*wanted_on(asked, plane, shape_yx), *ended_on(asked, plane, shape_yx)]
        return [
            Through(replace(each.prompt, object=each.number or number), each.share)
            for number, each in enumerate(wanted, start=1)
            if each.share or each.number is None
        ]
    marks = [*zip(here.labels, here.groups, strict=True)]
    marks += [(each.label, each.group) for each in here.outlines if each.kind == "path"]
    groups = sorted({group for _, group in marks})
    found = []
    for group in groups:
        share = _of_group(here, group)
        if any(label for label, other in marks if other == group):
            [one] = wanted_on(Asked(share), plane, shape_yx)
            prompt = replace(one.prompt, object=group + 1)
        else:
            points = [(point[-2], point[-1]) for point in share.points]
            points += [(v[-2], v[-1]) for path in share.outlines for v in path.vertices]
            prompt = Prompt(tuple(points), (0,) * len(points), object=group + 1, plane=plane)
            prompt.check_inside(shape_yx)
        found.append(Through(prompt, share))
    return found


def _of_group(prompts: Prompts, group: int) -> Prompts:
    """The points and scribbles of one group, as the first group."""
    kept = [number for number, other in enumerate(prompts.groups) if other == group]
    return Prompts(
        points=tuple(prompts.points[number] for number in kept),
        labels=tuple(prompts.labels[number] for number in kept),
        outlines=tuple(replace(each, group=0) for each in prompts.outlines if each.group == group),
    )
