"""What the prompts on one plane mean: which objects are asked for, and by what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_simmat.engine.correcting import MIDDLE
from napari_simmat.engine.footprints import Footprint
from napari_simmat.engine.frames import Box, box_of_corners
from napari_simmat.engine.mask_geometry import deepest
from napari_simmat.engine.prompts import Prompt
from napari_simmat.widgets.segment.asked import Asked, Followed, Outline, Plane, Prompts

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

    extent: Box | None = None
    box: Box | None = None
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


def _given(mask: Footprint, plane: Plane, shape_yx: tuple[int, int]) -> _Object:
    """A mask with its deepest pixel: measured, the model refines it better than with its box."""
    (y0, x0), (height, width) = mask.corner[-2:], mask.shape[-2:]
    extent = float(y0), float(x0), float(y0 + height), float(x0 + width)
    y, x = deepest(mask.mask.reshape(height, width))
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
    return not any(0 < here < MIDDLE * depth.max() for here in inside)


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
