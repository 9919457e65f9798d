"""What is done to prompts beside drawing them: clear, choose a mask, add an object, take masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels

from napari_simmat.engine.footprints import Footprint
from napari_simmat.engine.views import turned
from napari_simmat.widgets.place import shown_axes
from napari_simmat.widgets.segment.meaning import prompts_of

if TYPE_CHECKING:
    from napari_simmat.widgets.segment.interaction import Interaction

_SAME_PLACE = 8.0
"""Screen pixels between the two clicks of a double click at most."""


class PromptActions:
    """Acts on what is open on the plane that is shown; each action is one operation."""

    def __init__(self, session: Interaction) -> None:
        self._session = session

    def clear(self) -> None:
        """Close what is open on the plane, and remove its prompts."""
        session = self._session
        session.flush()
        work, plane = session.work, session.plane_or_fail()
        if work is None or plane is None:
            return
        session.drop()
        kept = work.asked.off(plane)
        if kept != work.asked:
            session.do("clearing", kept)
        session.request()

    def cycle(self) -> None:
        """Take another of the model's candidates for the object that was asked for last."""
        session = self._session
        session.flush()
        work, plane = session.work, session.plane_or_fail()
        if work is None or plane is None or plane not in work.answers:
            return
        asked, answer = work.answers[plane]
        if asked != work.asked.on(plane) or not answer.counts or answer.counts[-1] < 2:
            session.say("There is no other mask for these prompts.")
            return
        prompt = prompts_of(asked, plane, work.place.shape[-2:])[-1]
        choice = (answer.choices[-1] + 1) % answer.counts[-1]
        others = tuple(each for each in work.asked.choices if each[0] != prompt)
        chosen = ((prompt, choice),) if choice else ()
        session.do("choice of a mask", replace(work.asked, choices=others + chosen))
        session.request()

    def one_more(self) -> None:
        """Let the next point begin another object beside what is open."""
        session = self._session
        session.flush()
        plane = session.plane_or_fail()
        if session.work is None or plane is None:
            return
        if session.prompts.next_group(session.work.prompts.on(plane)):
            session.say("The next click begins one more object; C commits them all.", "ready")
        else:
            session.say("Click on a first object; N then begins one more beside it.", "ready")

    def take_masks(self, layer: Labels) -> None:
        """Ask for each object of another labels layer on the plane: its pixels are refined.

        Parameters
        ----------
        layer
            A labels layer with the image's shape and place.
        """
        session = self._session
        session.flush()
        work, plane = session.work, session.plane_or_fail()
        if work is None or plane is None:
            return
        if layer is work.objects:
            session.fail("New objects go to that layer: open one of it again with E instead.")
            return
        place = work.place
        if place.other_pixels(layer) or not place.lies_on(layer):
            session.fail(
                f"{layer.name} does not lie on the image: choose labels of its size and place."
            )
            return
        values = np.asarray(turned(layer.data, place.order)[plane])
        found = [number for number in np.unique(values).tolist() if number]
        if not found:
            session.fail(f"{layer.name} holds no object on this plane: move the slider to one.")
            return
        masks = tuple(Footprint.of(values == number, (*plane, 0, 0)) for number in found)
        prompts = replace(work.prompts, masks=work.prompts.masks + masks)
        session.do(f"masks of {layer.name}", replace(work.asked, prompts=prompts))
        session.request()

    def take_back_click(self, position: Sequence[float]) -> None:
        """Forget the point that was just made at a position of the world, if one was."""
        session = self._session
        session.flush()
        work = session.work
        last = None if work is None else work.operations.last
        if work is None or last is None or last.edit is not None or last.after != work.asked:
            return
        points = last.after.prompts.points
        if not points or points[:-1] != last.before.prompts.points:
            return
        camera = getattr(session.viewer, "scene", session.viewer).camera  # scene: napari 0.9
        away = np.subtract(work.place.to_world(points[-1]), position[-work.place.ndim :])
        shown = shown_axes(session.viewer.dims, work.place.ndim)
        if np.abs(away[shown]).max() * camera.zoom < _SAME_PLACE:
            work.operations.drop_last()
            session.drop()
            session.show_asked(last.before)
