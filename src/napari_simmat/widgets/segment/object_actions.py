"""What is done to finished objects: commit, reopen, delete, merge, split, classify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.engine.coordinates import inverse_order, reordered, transposed_view
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.placement import shown_axes
from napari_simmat.widgets.segment.history import Edit, Made, NewObject
from napari_simmat.widgets.segment.inference import Answer
from napari_simmat.widgets.segment.label_editor import Finished, Overlap
from napari_simmat.widgets.segment.prompt_state import (
    Asked,
    Opened,
    Plane,
    Prompts,
    plane_of,
    prompts_of,
    wanted_on,
)

if TYPE_CHECKING:
    from napari_simmat.widgets.segment.controller import Interaction


_POINT_AT = "Point at a finished object or choose it in the table first."


class ObjectActions:
    """Acts on the objects of the image that is worked on; each action is one operation.

    Parameters
    ----------
    session
        Owns the image's work, the list of operations and the status line.

    Attributes
    ----------
    overlap
        Who gets the pixels of a new object that others have.
    category
        Class of new objects.
    chosen
        The objects that are chosen in the table; the one under the mouse is meant if there is none.
    """

    def __init__(self, session: Interaction) -> None:
        self._session = session
        self.overlap: Overlap = "keep"
        self.category = ""
        self.chosen: tuple[int, ...] = ()

    # ------------------------------------------------------------------ writing

    def commit(self, plane: Plane, answer: Answer) -> None:
        """Write the answer to what is open on `plane`, and close it."""
        session, work = self._session, self._session.work
        assert work is not None
        order, opened = work.place.order, work.asked.opened_on(plane)
        known = [] if work.finished is None else work.finished.labels
        wanted = wanted_on(work.asked, plane, work.place.shape[-2:])
        objects = []
        for number, (each, mask, score) in enumerate(
            zip(wanted, answer.masks, answer.scores, strict=True)
        ):
            if not mask.any():
                continue
            again = opened if number == 0 and opened and opened.label in known else None
            choices = tuple(one for one in work.asked.choices if one[0].plane == plane)
            made = Made(plane, each.share, "", choices, again.kept if again else None, order)
            objects.append(
                NewObject(
                    ObjectMask.of(mask, (*plane, 0, 0)),
                    score,
                    label=again.label if again else None,
                    category=self.category,
                    made=(made,),
                    order=order,
                )
            )
        if not objects:
            session.fail("The mask is empty: add a point on the object, or draw a larger box.")
            return
        self.write("commit", objects, closing=(plane,))

    def write(
        self,
        name: str,
        objects: Sequence[NewObject],
        *,
        closing: Sequence[Plane] = (),
        overlap: Overlap | None = None,
        done: Callable[[], object] = lambda: None,
    ) -> bool:
        """Write objects into the image's labels layer as one operation; whether it was done.

        Parameters
        ----------
        name
            What it is called when it is undone.
        objects
            Of one call, earlier ones lie on top.
        closing
            Planes, of the view of `objects`, whose prompts were used up by it.
        overlap
            Who gets the pixels that others have; by default as the user chose.
        done
            Called when it was done, which may be after the user has answered a question.
        """
        session, work = self._session, self._session.work
        assert work is not None
        overlap = overlap or self.overlap
        again = partial(self.write, name, objects, closing=closing, done=done)
        try:
            finished = session.target()
            others = [] if overlap == "overwrite" else finished.overlapped(objects)
            if others and overlap == "ask":
                self._ask(others, again)
                return False
            edit, written, left = finished.write(objects, overlap)
        except ValueError as error:
            session.fail(
                f"{error}; commit into a new layer instead.",
                "New layer",
                partial(self._into_new_layer, again),
            )
            return False
        if not written:
            session.fail(
                f"The new object lies wholly on {_listed(others)}, and what is there is kept.",
                "Overwrite",
                partial(again, overlap="overwrite"),
            )
            return False
        after = work.view(objects[0].order).asked
        for plane in closing:
            after = after.off(plane)
        session.do(f"{name} of {_listed(written)}", after, edit)
        said = f"Committed to {finished.layer.name}: {_listed(written)}."
        if left:
            others, count = finished.overlapped(left), len(left)
            session.offer(
                Status(
                    "done",
                    f"{said} {pluralize(count, 'object')} wholly on {_listed(others)} {is_or_are(count)} "
                    "left out.",
                    offer="Overwrite",
                ),
                partial(self.write, name, left, overlap="overwrite"),
            )
        else:
            session.say(f"{said} Next object.")
        done()
        return True

    def _ask(self, others: Sequence[int], again: Callable[..., object]) -> None:
        self._session.offer(
            Status(
                "ready",
                f"The new object overlaps {_listed(others)}: who gets the pixels?",
                offer=f"Keep {_listed(others, 2)}",
                other="Overwrite",
            ),
            partial(again, overlap="keep"),
            partial(again, overlap="overwrite"),
        )

    def _into_new_layer(self, again: Callable[[], object]) -> None:
        self._session.use_objects(None)
        again()

    # ------------------------------------------------------------------ reopening

    def reopen(self, label: int | None = None) -> None:
        """Open a finished object again on the plane that is shown, with its prompts.

        Where it has none, or was changed since, its pixels take their place.
        """
        session, work = self._session, self._session.work
        if not session.has_pixels():
            return
        labels = self.meant() if label is None else [label]
        if work is None or work.finished is None or len(labels) != 1:
            session.say(_POINT_AT)
            return
        plane = session.plane_or_fail()
        if plane is None:
            return
        if work.asked.on(plane):
            session.say("Commit (C) or clear (Shift+C) what is open first.")
            return
        order = work.place.order
        pixels = work.finished.on_plane(labels[0], plane, order)
        if pixels is None:
            session.say(f"Object {labels[0]} is not on this plane: click it in the table.")
            return
        made = work.finished.register.entry(labels[0]).made_on(plane, order)
        if made is None or made.digest != pixels.digest:
            made = Made(plane, Prompts(), "", kept=pixels, order=order)
        after = Asked(
            work.asked.prompts + made.prompts,
            (*work.asked.choices, *made.choices),
            (*work.asked.opened, Opened(labels[0], plane, made.kept)),
            order=order,
        )
        session.do(f"reopening of {labels[0]}", after)
        session.request()

    def reopen_at(self, position: Sequence[float]) -> None:
        """Open the object that was clicked twice at a position of the world.

        The point that the first of the two clicks made is taken back.
        """
        label = self.label_at(position)
        if label:
            self._session.asking.take_back_click(position)
            self.reopen(label)

    # ------------------------------------------------------------------ changing

    def delete(self) -> None:
        """Take the meant objects out of their layer."""
        if not self._session.has_pixels():
            return
        self._change("deletion", self.meant(), 1, lambda finished, labels: finished.delete(labels))

    def merge(self) -> None:
        """Make one object of those under the points shown, or of the meant ones."""
        if not self._session.has_pixels():
            return
        pointed = self._under_points()
        labels = sorted(set(pointed.values())) or self.meant()
        if len(labels) < 2:
            self._session.say(
                "Click once on each of the objects to merge, or choose them in the table, then "
                "merge (G)."
            )
            return
        used = bool(pointed)
        self._change("merging", labels, 2, lambda finished, them: finished.merge(them)[0], used)

    def split(self) -> None:
        """Make several objects of one: around the points shown, or its separate pieces."""
        if not self._session.has_pixels():
            return
        work = self._session.work
        pointed = self._under_points()
        labels = sorted(set(pointed.values())) or self.meant()
        if work is None or len(labels) != 1:
            self._session.say("Click on each part that one object should have, then split (K).")
            return
        points = [list(point) for point in pointed]
        spacing = work.place.usual.spacing
        self._change(
            "splitting",
            labels,
            1,
            lambda finished, them: finished.split(them[0], points, spacing)[0],
            bool(pointed),
        )

    def classify(self, category: str) -> None:
        """Give the chosen objects a class, and new ones from now on."""
        self.category = category
        work = self._session.work
        if not self.chosen or work is None or work.finished is None:
            return
        # A list tells of a name that is typed more than once.
        entry = work.finished.register.entry
        labels = [label for label in self.meant() if entry(label).category != category]
        if labels:
            name = f"class {category or 'none'}"
            self._change(name, labels, 1, lambda f, labels: f.classify(labels, category))

    def meant(self) -> list[int]:
        """The chosen objects that are still there, or the one under the mouse."""
        work = self._session.work
        if work is None or work.finished is None:
            return []
        known = work.finished.register.census
        chosen = [label for label in self.chosen if label in known]
        if chosen:
            return chosen
        label = self.label_at(self._session.viewer.cursor.position)
        return [label] if label else []

    def label_at(self, position: Sequence[float]) -> int:
        """The finished object at a position of the world; 0 for none."""
        work = self._session.work
        if work is None or work.finished is None or work.finished.layer.multiscale:
            return 0
        layer = work.finished.layer
        return _value(layer.data, layer.world_to_data(position[-layer.ndim :]))

    def _change(
        self,
        name: str,
        labels: Sequence[int],
        least: int,
        act: Callable[[Finished, Sequence[int]], Edit],
        closing: bool = False,
    ) -> None:
        """Act on finished objects as one operation; with `closing` the points are used up."""
        session, work = self._session, self._session.work
        if work is None or work.finished is None or len(labels) < least:
            session.say(_POINT_AT)
            return
        try:
            finished = session.target()
            edit = act(finished, labels)
        except ValueError as error:
            session.fail(f"{error}.".replace("..", "."))
            return
        after = work.asked.off(session.plane()) if closing else work.asked
        gone = [label for label in labels if label not in finished.register.census]
        after = replace(after, opened=tuple(o for o in after.opened if o.label not in gone))
        session.do(f"{name} of {_listed(labels)}", after, edit)
        session.say(f"Done: {name} of {_listed(labels)}.")
        if session.plane_or_none() is not None:  # in 3D nothing is asked
            session.request()

    def _under_points(self) -> dict[tuple[int, ...], int]:
        """Voxels under the positive points of the plane that is shown, and the objects there.

        Their indices are those of the layer. In 3D there are none.
        """
        work, plane = self._session.work, self._session.plane_or_none()
        if work is None or work.finished is None or plane is None:
            return {}
        here = work.asked.prompts.on(plane)
        found = {}
        for point, label in zip(here.points, here.labels, strict=True):
            at = (*plane_of(point), *(int(np.floor(value + 0.5)) for value in point[-2:]))
            at = reordered(at, inverse_order(work.place.order))
            if label and (number := _value(work.finished.layer.data, at)):
                found[at] = number
        return found


def _value(labels: object, position: Sequence[float]) -> int:
    """The label at a position in pixels; 0 outside."""
    index = tuple(round(float(value)) for value in position)  # as napari shows it
    shape = labels.shape  # type: ignore[attr-defined]
    if not all(0 <= at < size for at, size in zip(index, shape, strict=True)):
        return 0
    return int(np.asarray(labels[index]))  # type: ignore[index]


def _listed(labels: Sequence[int], most: int = 6) -> str:
    return ", ".join(map(str, labels[:most])) + (" ..." if len(labels) > most else "")


# What is done to prompts beside drawing them: clear, choose a mask, add an object, take masks.


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
        values = np.asarray(transposed_view(layer.data, place.order)[plane])
        found = [number for number in np.unique(values).tolist() if number]
        if not found:
            session.fail(f"{layer.name} holds no object on this plane: move the slider to one.")
            return
        masks = tuple(ObjectMask.of(values == number, (*plane, 0, 0)) for number in found)
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
