"""What the user asks for: points, drawn shapes and masks on the planes of one image.

Plain values that compare by content. Coordinates are those of the image as it is seen, in pixels,
its axes in the order of the view; a prompt carries its plane in its leading coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from napari_simmat.engine.footprints import Footprint
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.views import Order

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
    masks: tuple[Footprint, ...] = ()

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
    kept: Footprint | None = None


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
    mask: Footprint


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
    order: Order = ()

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
