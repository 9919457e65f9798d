"""What is done to finished objects: commit, reopen, delete, merge, split, classify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_simmat.engine.footprints import Footprint
from napari_simmat.engine.views import inverse, reordered
from napari_simmat.widgets.segment.asked import Asked, Opened, Plane, Prompts, plane_of
from napari_simmat.widgets.segment.finished import Finished
from napari_simmat.widgets.segment.meaning import wanted_on
from napari_simmat.widgets.segment.new_object import NewObject
from napari_simmat.widgets.segment.operations import Edit, Made
from napari_simmat.widgets.segment.overlap import Overlap
from napari_simmat.widgets.segment.segmenting import Answer
from napari_simmat.widgets.status import Status
from napari_simmat.words import are, counted

if TYPE_CHECKING:
    from napari_simmat.widgets.segment.interaction import Interaction

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
                    Footprint.of(mask, (*plane, 0, 0)),
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
                    f"{said} {counted(count, 'object')} wholly on {_listed(others)} {are(count)} "
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
            at = reordered(at, inverse(work.place.order))
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
