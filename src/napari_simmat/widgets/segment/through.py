"""What prompts on several planes mean: objects that go through a stack. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from napari_simmat.engine.prompts import Prompt
from napari_simmat.widgets.segment.asked import Asked, Followed, Plane, Prompts, plane_of
from napari_simmat.widgets.segment.meaning import ended_on, wanted_on


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
