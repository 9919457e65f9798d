"""Going over the drafts: each is accepted, rejected or mended, the doubtful ones first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_simmat._text import pluralize
from napari_simmat.annotation.drafts import Draft, DraftSet
from napari_simmat.annotation.object_changes import MIN_VISIBLE, objects_of_drafts
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.engine.coordinates import inverse_order
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.outlines import shape_mask
from napari_simmat.engine.pen_line import closes
from napari_simmat.engine.scribbles import pixels_along
from napari_simmat.progress import Pace
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.work.draft_view import DraftView
from napari_simmat.widgets.segment.work.object_actions import COMMIT_FIRST, ObjectActions
from napari_simmat.widgets.segment.work.workspace import Workspace, needs_image, needs_plane
from napari_simmat.widgets.shortcuts import shortcut_text

EVERYTHING = "segmenting everything"
NO_DRAFTS = "There are no drafts: press Segment everything first."
OTHER_VIEW = "The drafts lie in another view: roll the axes back."
NO_DRAFT = "Point at a draft, or go to one with Next doubtful ({key})."
LEFT = "{doubtful} doubtful left."
DECIDE = "Accept ({accept}), reject ({reject}) or edit ({edit}) this one."
NONE_DOUBTFUL = "No draft is doubtful any more: Commit ({key}) writes all {count}."
ALL_DONE = "No draft is left."
ACCEPTED, REJECTED = "Accepted as object {label}.", "Rejected."
ACCEPTED_MANY, REJECTED_MANY = "Accepted {drafts}.", "Rejected {drafts}."
NONE_ALONG = "No draft is there: a line over drafts, or a line or box around them, means them all."


class DraftReview(QObject):
    """Shows the drafts, and settles them one by one or all at once.

    An action means the draft under the mouse, or the current one: that which `go_on` went to, as
    long as the mouse rests.
    """

    changed = Signal()
    """Which drafts are open, or which one is the current."""
    visited = Signal()
    """A draft was gone to."""

    def __init__(self, workspace: Workspace, objects: ObjectActions) -> None:
        super().__init__(workspace)
        self._workspace, self._objects = workspace, objects
        self._visited: tuple[LayerSession, Draft] | None = None
        self._mouse: tuple[float, ...] = ()  # where it was when the current draft was gone to
        self._shown: tuple[LayerSession, DraftSet] | None = None
        self._told: tuple[object, ...] = ()
        self._pace, self._view = Pace(), DraftView(workspace.viewer)
        workspace.subject_changed.connect(self._show)
        workspace.view_changed.connect(self._show)
        workspace.drafts_changed.connect(self._show)
        workspace.prompts_changed.connect(self._tell)
        workspace.session_closed.connect(self._on_closed)
        dims = workspace.viewer.dims.events
        dims.current_step.connect(self._draw)
        dims.ndisplay.connect(self._draw)

    def release(self) -> None:
        """Stop following the viewer."""
        dims = self._workspace.viewer.dims.events
        dims.current_step.disconnect(self._draw)
        dims.ndisplay.disconnect(self._draw)

    @property
    def has_drafts(self) -> bool:
        """Whether drafts of the image are open."""
        session = self._workspace.session
        return session is not None and bool(session.drafts.open)

    @property
    def is_shown(self) -> bool:
        """Whether open drafts lie on the plane that is shown now."""
        session = self._workspace.session
        if session is None or not session.drafts.open:
            return False
        return session.drafts.place == (session.geometry.order, self._workspace.plane_or_none())

    @property
    def plane(self) -> Plane | None:
        """The plane of the current view with open drafts; None for none."""
        session = self._workspace.session
        if session is None or not session.drafts.open or session.drafts.place is None:
            return None
        order, plane = session.drafts.place
        return plane if order == session.geometry.order else None

    @property
    def doubtful(self) -> int:
        """Number of drafts that are open and doubtful."""
        session = self._workspace.session
        return 0 if session is None else len(session.drafts.doubtful)

    @property
    def counts(self) -> tuple[int, int]:
        """How many drafts are open, and how many were accepted, rejected or replaced."""
        session = self._workspace.session
        if session is None:
            return 0, 0
        drafts = session.drafts
        return len(drafts.open), len(drafts.found.drafts) - len(drafts.open)

    @property
    def left(self) -> str:
        """How long the doubtful ones take at the pace so far; empty if that is not known."""
        return self._pace.left(self.doubtful)

    @property
    def current(self) -> Draft | None:
        """The draft that was gone to last, if it is still open."""
        session, visited = self._workspace.session, self._visited
        if session is None or visited is None or visited[0] is not session:
            return None
        return visited[1] if session.drafts.is_open(visited[1]) else None

    @property
    def outlined(self) -> tuple[ObjectMask, ...]:
        """The current draft in the axes of the image; while prompts are open none is."""
        draft, session = self.current, self._workspace.session
        if draft is None or session is None:
            return ()
        prompted = session.view(draft.order).prompt_state.on(draft.plane)
        return () if prompted else (draft.mask.transposed(inverse_order(draft.order)),)

    # ------------------------------------------------------------------ settling

    @needs_image
    def commit(self, session: LayerSession) -> None:
        """Write all open drafts as one command."""
        if session.drafts.open:
            self._view.give_back()
            self._write(EVERYTHING, session.drafts.open)

    @needs_plane
    def accept(self, session: LayerSession, plane: Plane) -> None:
        """Write one draft as an object."""
        if (draft := self._target(session, plane)) is not None:
            goes_on = draft is self.current
            self._write("acceptance", [draft])
            if not session.drafts.is_open(draft):
                self._pace.add()
                label = max(session.history.last.edit.entries)
                self._say_left(session, ACCEPTED.format(label=label), goes_on=goes_on)

    @needs_plane
    def reject(self, session: LayerSession, plane: Plane) -> None:
        """Take one draft away, and remember that no object is there."""
        if (draft := self._target(session, plane)) is not None:
            goes_on = draft is self.current
            self._pace.add()
            self._workspace.annotator.reject([draft])
            self._say_left(session, REJECTED, goes_on=goes_on)

    def edit(self) -> None:
        """Open the object under the mouse; where there is none, the draft that is meant."""
        draft = None
        if self.is_shown and (self._rests or not self._objects.target_labels()):
            draft = self._pointed()
        if draft is None:
            self._objects.edit()
        else:
            self.open(draft)

    @needs_plane
    def open(self, session: LayerSession, plane: Plane, draft: Draft) -> None:
        """Open a draft, so that clicks correct it; the commit replaces it."""
        workspace = self._workspace
        if session.prompt_state.on(plane):
            workspace.say(COMMIT_FIRST)
            return
        workspace.annotator.open_draft(draft)
        workspace.prediction_wanted.emit()

    def along(self, line: NDArray[np.float64], *, enclosed_only: bool = False) -> tuple[Draft, ...]:
        """The drafts on the plane that is shown that a line (N, 2) passes, or goes around.

        With `enclosed_only` those that it passes alone do not count, as beside a box.
        """
        session = self._workspace.session
        if session is None or not self.is_shown or session.prompt_state.on(self.plane or ()):
            return ()
        drafts, labels = session.drafts, session.drafts.labels
        if not labels.size:
            return ()
        inside = (line >= -0.5).all(axis=1) & (line < np.array(labels.shape) - 0.5).all(axis=1)
        passed = labels[pixels_along(line[inside].tolist(), labels.shape)] if inside.any() else 0
        found = set() if enclosed_only else {int(n) for n in np.unique(passed) if n}
        if closes(line):
            enclosed = labels[shape_mask("polygon", line.tolist(), labels.shape)]
            numbers, counts = np.unique(enclosed[enclosed > 0], return_counts=True)
            sizes = [drafts.found.drafts[int(number) - 1].mask.size for number in numbers]
            found |= set(numbers[2 * counts > np.array(sizes, dtype=int)].tolist())
        among = (drafts.found.drafts[number - 1] for number in sorted(found))
        return tuple(each for each in among if drafts.is_open(each))

    @needs_image
    def settle(self, session: LayerSession, drafts: Sequence[Draft], accepted: bool) -> None:
        """Accept drafts, or reject them, as one command."""
        left = len(session.drafts.open)
        if accepted and drafts:
            self._write("acceptance", drafts)
        elif drafts:
            self._workspace.annotator.reject(drafts)
        if len(session.drafts.open) < left:
            self._pace.add(left - len(session.drafts.open))
            done = (ACCEPTED_MANY if accepted else REJECTED_MANY).format(drafts=_drafts(drafts))
            self._say_left(session, done, goes_on=False)
        elif not drafts:
            self._workspace.say(NONE_ALONG)

    # --------------------------------------------------------------- going to one

    @needs_image
    def go_on(self, session: LayerSession) -> None:
        """Go to the least certain draft, then to the next; behind the last to the first again."""
        if not session.drafts.open:
            self._workspace.say(NO_DRAFTS)
        elif self.plane is None:
            self._workspace.say(OTHER_VIEW)
        else:
            self._say_left(session, goes_on=True)

    def draft_at(self, position: Sequence[float]) -> Draft | None:
        """The open draft at a world position on the plane that is shown."""
        session = self._workspace.session
        if session is None or not self.is_shown:
            return None
        y, x = session.geometry.from_world(position)[-2:]
        return session.drafts.at(int(np.floor(y + 0.5)), int(np.floor(x + 0.5)))

    @property
    def _rests(self) -> bool:
        """Whether the mouse is where it was when the current draft was gone to.

        The view has moved since, so what lies under it now is not what the user points at.
        """
        viewer = self._workspace.viewer
        moved = not viewer.mouse_over_canvas or tuple(viewer.cursor.position) != self._mouse
        return self.current is not None and not moved

    def _pointed(self) -> Draft | None:
        """The draft that an action means, of those on the plane that is shown."""
        viewer = self._workspace.viewer
        if not self.is_shown:
            return None
        if not viewer.mouse_over_canvas or self._rests:
            return self.current
        return self.draft_at(viewer.cursor.position) or self.current

    def _target(self, session: LayerSession, plane: Plane) -> Draft | None:
        """As `_pointed`; the status line says why there is none."""
        draft = None
        if session.prompt_state.on(plane):
            self._workspace.say(COMMIT_FIRST)
        elif not session.drafts.open:
            self._workspace.say(NO_DRAFTS)
        elif (draft := self._pointed()) is None:
            self._workspace.say(NO_DRAFT.format(key=shortcut_text("next doubtful")))
        return draft

    def _say_left(self, session: LayerSession, done: str = "", *, goes_on: bool) -> None:
        """Say what was done and what is left; with `goes_on`, go to the next draft before."""
        drafts = session.drafts
        doubtful, count = drafts.doubtful, len(drafts.open)
        if goes_on and doubtful:
            self._visit(session, self._next(session, doubtful))
        elif not doubtful:
            self._view.give_back()
        left = ALL_DONE
        if doubtful:
            left = LEFT.format(doubtful=len(doubtful))
            keys = {name: shortcut_text(name) for name in ("accept", "reject", "edit")}
            left = f"{left} {DECIDE.format(**keys)}" if self.current is not None else left
        elif count:
            left = NONE_DOUBTFUL.format(key=shortcut_text("commit"), count=count)
        self._workspace.say(f"{done} {left}".strip())

    def _next(self, session: LayerSession, doubtful: Sequence[Draft]) -> Draft:
        """The least certain behind the one visited last; behind the last the first again.

        Those that the image's edge cuts come last: many are pieces of the ground. Of equal scores,
        drafts come in their order.
        """
        rows, columns = session.geometry.shape[-2:]
        place = {
            draft: (draft.is_cut((rows, columns)), draft.score, number)
            for number, draft in enumerate(session.drafts.found.drafts)
        }
        visited = None if self._visited is None else self._visited[1]
        after = place.get(visited) if visited is not None else None
        later = [each for each in doubtful if after is not None and place[each] > after]
        return min(later or doubtful, key=place.__getitem__)

    def _visit(self, session: LayerSession, draft: Draft) -> None:
        self._visited = session, draft
        self._view.look_at(session.geometry, draft)
        self._mouse = tuple(self._workspace.viewer.cursor.position)
        self.visited.emit()
        self._tell()

    def _write(self, name: str, drafts: Sequence[Draft]) -> None:
        objects = objects_of_drafts(drafts, self._objects.category)
        self._objects.write(name, objects, min_visible=MIN_VISIBLE)

    # ------------------------------------------------------------------ shown

    def _show(self) -> None:
        """Show the open drafts of the view; beside masks of prompts their outlines alone."""
        session, preview = self._workspace.session, self._workspace.preview
        if session is not None:
            drafts = session.drafts
            if self._shown is not None and self._shown != (session, drafts.found):
                for draft in self._shown[1].drafts[:1]:
                    preview.withdraw(draft.plane, draft.order)
            if self._shown is None or self._shown != (session, drafts.found):
                self._pace = Pace()
            self._shown = session, drafts.found
            if drafts.place is not None and drafts.place[0] == session.geometry.order:
                order, plane = drafts.place
                if drafts.open:
                    prompted = bool(session.view(order).prompt_state.on(plane))
                    labels = drafts.open_labels(session.geometry.shape[-2:])
                    preview.propose(session.geometry, plane, labels, prompted=prompted)
                    if prompted:
                        self._workspace.show_predictions()
                else:
                    preview.withdraw(plane, order)
        self._tell()

    def _tell(self) -> None:
        """Emit `changed`, but only for a change: what follows may choose an image, and come back.

        While prompts are open no draft is the current one.
        """
        session = self._workspace.session
        self._draw()
        state = () if session is None else (session.drafts.open, self.current, self.outlined)
        if state != self._told:
            self._told = state
            self.changed.emit()

    def _draw(self, *_: object) -> None:
        """Draw outlines where drafts are seen; on other planes areas, as those of masks."""
        session, plane = self._workspace.session, self._workspace.plane_or_none()
        if session is None:
            return
        if plane is None or not session.prompt_state.on(plane):
            self._workspace.preview.set_outlined(self.is_shown)

    def _on_closed(self, session: LayerSession) -> None:
        """Hold nothing of an image that is gone."""
        for name in ("_visited", "_shown"):
            held = getattr(self, name)
            if held is not None and held[0] is session:
                setattr(self, name, None)


def _drafts(drafts: Sequence[Draft]) -> str:
    return pluralize(len(drafts), "draft")
