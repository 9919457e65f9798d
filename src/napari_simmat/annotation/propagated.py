"""Objects propagated through the planes of a stack, before they are committed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_simmat._text import pluralize
from napari_simmat.annotation.history import NewObject, Provenance
from napari_simmat.annotation.predictions import StackRequest
from napari_simmat.annotation.prompt_grouping import ObjectPrompt, volume_prompts
from napari_simmat.annotation.prompt_state import Plane, PromptState, PropagatedMask, plane_names
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import prompt_steps
from napari_simmat.engine.settings import PropagationSettings

if TYPE_CHECKING:
    from napari_simmat.engine.tracking.propagation_tracks import Track

MAX_NAMED = 3
"""Doubtful planes that are named."""
NOTHING_OPEN = "There is nothing to propagate: click on an object first."
NOTHING_FOUND = "Nothing was found: click on the object on another plane."
FOUND = "{} on {} ({} to {})."
DOUBTFUL = "Doubtful: {}."


@dataclass(frozen=True, eq=False)
class PromptedObjects:
    """The open objects of all planes of a view.

    Attributes
    ----------
    objects
        With their prompts.
    choices
        As in `PromptState`.
    order, shape
        Of the view.
    """

    objects: tuple[ObjectPrompt, ...]
    choices: tuple[tuple[Prompt, int], ...]
    order: AxisOrder
    shape: tuple[int, ...]

    @classmethod
    def of(cls, state: PromptState, shape: tuple[int, ...]) -> PromptedObjects:
        """Of the prompts of a view; ValueError if one lies outside the image."""
        return cls(volume_prompts(state, shape), state.choices, state.order, shape)

    @property
    def chosen(self) -> dict[Prompt, int]:
        """The choices of the user by the prompts of objects, which count along the stack."""
        of_prompt = dict(self.choices)
        chosen = {}
        for prompted in self.objects:
            for step in prompt_steps(prompted.prompt):
                bare = replace(step, object=None)
                if bare in of_prompt:
                    chosen[step] = of_prompt[bare]
        return chosen

    @property
    def planes(self) -> list[Plane]:
        """The planes with prompts, in order."""
        return sorted({each.prompt.plane for each in self.objects})

    def is_of(self, state: PromptState) -> bool:
        """Whether the prompts and the choices of the view are still these."""
        try:
            now = PromptedObjects.of(state, self.shape)
        except ValueError:
            return False
        return (now.objects, now.chosen) == (self.objects, self.chosen)

    def request(
        self,
        along: tuple[int, ...],
        planes: tuple[int, int],
        spacing: tuple[float, ...],
        settings: PropagationSettings | None = None,
    ) -> StackRequest:
        """What is to be propagated.

        Parameters
        ----------
        along
            Axes of the view, one after the other.
        planes
            The first and the last index along the first of them.
        spacing
            The distance between voxels along each axis, in one unit.
        settings
            When an object ends.
        """
        prompts = tuple(each.prompt for each in self.objects)
        settings = settings or PropagationSettings()
        return StackRequest(prompts, self.chosen, along, planes, spacing, settings)


@dataclass(frozen=True, eq=False)
class Propagated:
    """What was found of objects on all planes."""

    prompted: PromptedObjects
    tracks: tuple[Track, ...]

    @property
    def planes(self) -> list[Plane]:
        """The planes with any object, in order."""
        return sorted(set().union(*(track.sections for track in self.tracks)))

    @property
    def doubtful(self) -> list[Plane]:
        """The planes on which any object is doubtful, in order."""
        return sorted(set().union(*(track.doubtful for track in self.tracks)))

    def described(self, many_doubtful: str = DOUBTFUL) -> str:
        """The result in words; `many_doubtful` says how many planes are, if they are not named."""
        planes, doubtful = self.planes, self.doubtful
        if not planes:
            return NOTHING_FOUND
        count = pluralize(sum(bool(track.sections) for track in self.tracks), "object")
        ends = [", ".join(map(str, plane)) for plane in (planes[0], planes[-1])]
        text = FOUND.format(count, pluralize(len(planes), "plane"), *ends)
        if len(doubtful) > MAX_NAMED:
            return f"{text} {many_doubtful.format(pluralize(len(doubtful), 'plane'))}"
        return f"{text} {DOUBTFUL.format(plane_names(doubtful))}" if doubtful else text

    def masks(self) -> dict[Plane, list[np.ndarray]]:
        """The masks (Y, X) on each plane, one per object."""
        return {plane: [track.mask(plane) for track in self.tracks] for plane in self.planes}

    def found_masks(self) -> dict[Plane, list[np.ndarray]]:
        """`masks` without those of prompts on their plane, which go with their prompts."""
        found: dict[Plane, list[np.ndarray]] = {}
        height, width = self.prompted.shape[-2:]
        for plane in self.planes:
            sections = [track.sections.get(plane) for track in self.tracks]
            found[plane] = [
                np.zeros((height, width), bool)
                if section is None or section.origin == "annotated"
                else section.mask((height, width))
                for section in sections
            ]
        return found

    def corrected_by_clicks(self) -> dict[Plane, tuple[PropagatedMask, ...]]:
        """The masks on each plane without prompts of its own: clicks there correct them."""
        planes: dict[Plane, tuple[PropagatedMask, ...]] = {}
        for track in self.tracks:
            for plane, section in track.sections.items():
                if section.origin != "annotated" and track.object is not None:
                    mask = PropagatedMask(track.object, plane, section.pixels)
                    planes[plane] = (*planes.get(plane, ()), mask)
        return planes

    def new_objects(self, category: str) -> list[NewObject]:
        """The objects to be written."""
        return [
            NewObject(
                track.object_mask(),
                track.score,
                category=category,
                provenance=self._provenance(track),
                order=self.prompted.order,
                doubtful=tuple(track.doubtful),
            )
            for track in self.tracks
            if track.sections
        ]

    def _provenance(self, track: Track) -> tuple[Provenance, ...]:
        """The prompts of a track on the planes where it has a section."""
        provenance = []
        for prompted in self.prompted.objects:
            prompt = prompted.prompt
            if prompt.object != track.object or prompt.plane not in track.sections:
                continue
            choices = [each for each in self.prompted.choices if each[0].plane == prompt.plane]
            provenance.append(
                Provenance(
                    prompt.plane,
                    prompted.source,
                    "",
                    tuple(choices),
                    _kept(prompt),
                    self.prompted.order,
                    expected_area=prompt.expected_area,
                )
            )
        return tuple(provenance)


def _kept(prompt: Prompt) -> ObjectMask | None:
    """The pixels that a prompt corrects, with its plane."""
    if prompt.mask is None or prompt.box is not None:
        return None
    return ObjectMask.of(prompt.mask, (*prompt.plane, 0, 0))
