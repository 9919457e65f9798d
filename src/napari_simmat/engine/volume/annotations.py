"""Prompts on planes of a stack, sorted into objects: where each is, and where it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.volume.tracks import Plane
from napari_simmat.words import format_shape


@dataclass(frozen=True, eq=False)
class Annotations:
    """What was said of one object.

    Parameters
    ----------
    object
        The id that its prompts share; None for the object of a single prompt without one.
    present
        The prompts on each plane that show the object.
    absent
        Planes with negative points alone: the object is not there.
    """

    object: int | None
    present: Mapping[Plane, tuple[Prompt, ...]]
    absent: frozenset[Plane]


def annotations_of(prompts: Sequence[Prompt], shape: tuple[int, ...]) -> list[Annotations]:
    """Sort prompts into objects, in the order in which those appear first.

    Prompts of one object have one `Prompt.object`; a prompt without it is an object of its own.

    Raises
    ------
    ValueError
        If a prompt is not on the image, or an object is on no plane; one sentence says which.
    """
    gathered: dict[tuple[str, int], list[Prompt]] = {}
    for number, prompt in enumerate(prompts):
        _check_plane(prompt, shape)
        own = ("number", number) if prompt.object is None else ("object", prompt.object)
        gathered.setdefault(own, []).append(prompt)
    return [_annotations(group) for group in gathered.values()]


def says_absent(prompt: Prompt) -> bool:
    """Whether a prompt is negative points alone."""
    return prompt.box is None and prompt.mask is None and not any(prompt.labels)


def _annotations(group: Sequence[Prompt]) -> Annotations:
    present: dict[Plane, tuple[Prompt, ...]] = {}
    for prompt in group:
        if not says_absent(prompt):
            corrects = prompt.mask is not None and bool(prompt.points)
            earlier = () if corrects else present.get(prompt.plane, ())
            present[prompt.plane] = (*earlier, prompt)
    absent = frozenset(prompt.plane for prompt in group) - present.keys()
    name = group[0].object
    if not present:
        raise ValueError(
            f"{'An object' if name is None else f'Object {name}'} has negative points alone, which "
            "say where it ends; click on it on at least one plane."
        )
    return Annotations(name, present, absent)


def _check_plane(prompt: Prompt, shape: tuple[int, ...]) -> None:
    leading = shape[:-2]
    if len(prompt.plane) != len(leading):
        raise ValueError(
            f"A prompt is on plane {prompt.plane}, but the image has shape "
            f"{format_shape(shape)}: a plane is {len(leading)} "
            f"{'number' if len(leading) == 1 else 'numbers'}."
        )
    for index, size in zip(prompt.plane, leading, strict=True):
        if not 0 <= index < size:
            raise ValueError(
                f"A prompt is on plane {index}, but there are {size}, counted from 0; place it on "
                "the image."
            )
    prompt.check_inside((shape[-2], shape[-1]))


def spacing_of(spacing: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """The distance between voxels along each of `count` axes; 1 each where nothing is said.

    Raises
    ------
    ValueError
        If they are not `count` positive numbers.
    """
    if spacing is None:
        return (1.0,) * count
    taken = tuple(float(value) for value in spacing)
    if len(taken) != count or not all(0 < value < math.inf for value in taken):
        raise ValueError(
            f"The spacing is one positive number for each of the image's {count} axes (without "
            f"channels), not {taken}."
        )
    return taken
