"""Objects followed through the planes of a stack: asked for, previewed, committed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, Qt, Signal

from napari_simmat._text import pluralize
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.prompts import Prompt
from napari_simmat.progress import Progress
from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment.background import Ahead
from napari_simmat.widgets.segment.controller import Interaction
from napari_simmat.widgets.segment.history import Made, NewObject
from napari_simmat.widgets.segment.inference import StackRequest
from napari_simmat.widgets.segment.panels import Axis, StackPanel
from napari_simmat.widgets.segment.prompt_state import Followed, Plane, Through, planes_of, through
from napari_simmat.widgets.worker import WorkerTask

if TYPE_CHECKING:
    from napari_simmat.engine.propagation_tracks import Track
    from napari_simmat.widgets.segment.session import View, Work


RANK = 1
"""Behind clicks, before what is encoded ahead."""


@dataclass(frozen=True, eq=False)
class Sought:
    """What is followed, and how.

    Parameters
    ----------
    work, order
        In which view of which image.
    subject
        The session's then: what is found belongs to it.
    asked
        The objects.
    along, planes
        As `Propagation.start` takes them.
    """

    work: Work
    order: AxisOrder
    subject: tuple[object, ...]
    asked: tuple[Through, ...]
    along: tuple[int, ...]
    planes: tuple[int, int]

    @property
    def view(self) -> View:
        """What is open where it was asked for."""
        return self.work.view(self.order)

    @property
    def place(self) -> ImageGeometry:
        """The image, seen as it was."""
        return self.work.place.seen(self.order)


@dataclass(frozen=True, eq=False)
class Found:
    """What a propagation found, not yet committed."""

    sought: Sought
    tracks: tuple[Track, ...]

    @property
    def is_seen(self) -> bool:
        """Whether the image is seen in the view in which it was found."""
        return self.sought.order == self.sought.work.place.order

    @property
    def planes(self) -> list[Plane]:
        """The planes on which anything is, in order."""
        return sorted({plane for track in self.tracks for plane in track.sections})


class Propagation(QObject):
    """Follows what is open through the stack, on a preview first.

    Parameters
    ----------
    session
        Owns the image's work, the worker and the status line.
    """

    changed = Signal()
    """Whether it is at work, or has something to commit, may have changed."""

    def __init__(self, session: Interaction) -> None:
        super().__init__(session)
        self._session = session
        self._task: WorkerTask | None = None
        self._sought: Sought | None = None
        self._commit_next = False
        self.found: Found | None = None
        worker, queued = session.worker, Qt.ConnectionType.QueuedConnection
        worker.progressed.connect(self._on_progress, queued)
        worker.returned.connect(self._on_returned, queued)
        worker.failed.connect(self._on_failed, queued)
        session.changed.connect(self._on_session)
        session.turned.connect(self._on_turned)

    @property
    def busy(self) -> bool:
        """Whether planes are being asked."""
        return self._task is not None

    def start(self, along: tuple[int, ...], planes: tuple[int, int]) -> None:
        """Follow all that is open.

        Parameters
        ----------
        along
            Axes of the view, one after the other.
        planes
            The first and the last index along the first of them.
        """
        session = self._session
        session.flush()
        work, question = session.work, session.question()
        if work is None or question is None:
            return
        self.cancel()
        try:
            asked = tuple(through(work.asked, work.place.shape))
        except ValueError as error:
            session.fail(str(error))
            return
        if not asked:
            session.say("There is nothing to follow: click on an object first.", "ready")
            return
        request = StackRequest(
            tuple(each.prompt for each in asked), along, planes, work.place.spacing
        )
        self._sought = Sought(work, work.place.order, session.subject, asked, along, planes)
        segmenter = session.segmenter
        self._task = session.worker.submit(
            "Propagating", lambda: segmenter.propagate_job(question, request), RANK
        )
        session.status.emit(Status("working", "Propagating"))
        self.changed.emit()

    def commit(self) -> None:
        """Write what was found as one operation.

        What was clicked since is followed first, and then written. It may be done from any view.
        """
        found, session = self.found, self._session
        if found is None or session.work is not found.sought.work:
            return
        session.flush()
        sought = found.sought
        if not self._is_current(found):
            if not found.is_seen:
                session.say("More was clicked since: go back to the view in which it was followed.")
                return
            self.start(sought.along, sought.planes)
            self._commit_next = self.busy
            return
        objects = [
            NewObject(
                track.footprint(),
                track.score,
                category=session.actions.category,
                made=tuple(
                    Made(
                        each.prompt.plane,
                        each.share,
                        "",
                        kept=_kept(each.prompt),
                        order=sought.order,
                    )
                    for each in sought.asked
                    if each.prompt.object == track.object and each.prompt.plane in track.sections
                ),
                order=sought.order,
            )
            for track in found.tracks
            if track.sections
        ]
        closing = sorted({each.prompt.plane for each in sought.asked})
        session.actions.write("propagation", objects, closing=closing, done=self.drop)

    def cancel(self) -> None:
        """Stop; what was found before stays on the preview."""
        self._commit_next = False
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._session.status.emit(Status("cancelled", "Propagation cancelled."))
            self.changed.emit()

    def drop(self) -> None:
        """Take back what was found, from the preview as well."""
        found, self.found = self.found, None
        if found is not None:
            found.sought.view.found.clear()
            self._clear(found)
            self.changed.emit()

    def _is_current(self, found: Found) -> bool:
        """Whether it was found from what is open now."""
        try:
            now = through(found.sought.view.asked, found.sought.place.shape)
        except ValueError:
            return False
        return tuple(now) == found.sought.asked

    def _show(self, found: Found) -> None:
        masks: dict[Plane, list[np.ndarray]] = {
            plane: [track.mask(plane) for track in found.tracks] for plane in found.planes
        }
        if self.found is not None:
            masks = {**{plane: [] for plane in self.found.planes}, **masks}
        self._session.preview.show_all(found.sought.place, masks)
        if not found.is_seen:
            self._session.show_answers()  # they cross

    def _clear(self, found: Found) -> None:
        """Take what was found from the preview, but for planes with something open."""
        session, sought = self._session, found.sought
        closed = [plane for plane in found.planes if not sought.view.asked.on(plane)]
        session.preview.clear_planes(closed, sought.order)
        if session.work is sought.work and not found.is_seen:
            session.show_answers()  # they cross

    # ------------------------------------------------------------------ the worker

    def _on_progress(self, task: WorkerTask, progress: Progress) -> None:
        if task is self._task and not self._session.answering.busy:
            fraction = progress.done / progress.total if progress.total else None
            words = progress.message or "getting ready"
            self._session.status.emit(Status("working", f"Propagating: {words}", fraction))

    def _on_returned(self, task: WorkerTask, tracks: list[Track]) -> None:
        if task is not self._task or self._sought is None:
            return
        self._task = None
        sought = self._sought
        if self._session.work is sought.work:
            if self.found is not None and self.found.sought.order != sought.order:
                self.drop()
            found = Found(sought, tuple(tracks))
            self._show(found)
            self.found = found
            sought.view.found = _followed(found)
            self._session.say(_described(found))
        commit, self._commit_next = self._commit_next, False
        self.changed.emit()
        if commit and self.found is not None:
            self.commit()

    def _on_failed(self, task: WorkerTask, reason: str) -> None:
        if task is self._task:
            self._task, self._commit_next = None, False
            self._session.fail(reason)
            self.changed.emit()

    def _on_session(self) -> None:
        """Stop, and forget what was found, when another image or model is chosen, or it is gone."""
        sought = self._sought
        if self._task is not None and sought is not None and not self._is_subject(sought):
            self._task.cancel()
            self._task, self._commit_next = None, False
            self.changed.emit()
        if self.found is not None and not self._is_subject(self.found.sought):
            self.drop()

    def _is_subject(self, sought: Sought) -> bool:
        """Whether model and image are still those that were asked."""
        session = self._session
        return session.work is sought.work and session.subject == sought.subject

    def _on_turned(self) -> None:
        """Show what was found from the other side as well."""
        if self.found is not None and self._session.work is self.found.sought.work:
            self._show(self.found)


def _followed(found: Found) -> dict[Plane, tuple[Followed, ...]]:
    """What was found on each plane that nothing was said of: what a click there corrects."""
    planes: dict[Plane, tuple[Followed, ...]] = {}
    for track in found.tracks:
        for plane, section in track.sections.items():
            if section.origin != "annotated" and track.object is not None:
                one = Followed(track.object, plane, section.footprint)
                planes[plane] = (*planes.get(plane, ()), one)
    return planes


def _kept(prompt: Prompt) -> ObjectMask | None:
    """The pixels that a prompt corrects, with its plane."""
    if prompt.mask is None or prompt.box is not None:
        return None
    return ObjectMask.of(prompt.mask, (*prompt.plane, 0, 0))


def _described(found: Found) -> str:
    planes = found.planes
    if not planes:
        return "Nothing was found: click on the object on another plane."
    count = sum(bool(track.sections) for track in found.tracks)
    objects, along = pluralize(count, "object"), pluralize(len(planes), "plane")
    first, last = (", ".join(map(str, plane)) for plane in (planes[0], planes[-1]))
    return f"{objects} on {along} ({first} to {last}). Commit (C) writes them."


# Connects the form's part for stacks with what it starts.


class StackPart(QObject):
    """Propagation and encoding ahead, with the panel that shows them.

    Parameters
    ----------
    interaction
        The image that is worked on.
    """

    def __init__(self, interaction: Interaction, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._interaction = interaction
        self.panel = StackPanel()
        self.propagation = Propagation(interaction)
        self.ahead = Ahead(interaction)
        panel, ahead = self.panel, self.ahead
        panel.started.connect(self.start)
        panel.stopped.connect(self.propagation.cancel)
        panel.dropped.connect(self.propagation.drop)
        panel.committed.connect(self.propagation.commit)
        panel.ahead_chosen.connect(ahead.set_enabled)
        panel.disk_chosen.connect(ahead.keep_on_disk)
        panel.whole_asked.connect(ahead.encode_whole)
        panel.whole_stopped.connect(ahead.cancel)
        panel.cleared.connect(ahead.clear)
        ahead.told.connect(self._on_told)
        self.propagation.changed.connect(self._on_changed)
        interaction.changed.connect(self._on_changed)

    def release(self) -> None:
        """Stop what is under way."""
        self.propagation.cancel()
        self.ahead.release()

    @property
    def has_planes(self) -> bool:
        """Whether the image has more than one plane."""
        return bool(self._axes())

    def start(self) -> None:
        """Follow what is open, as the panel says."""
        work = self._interaction.work
        if work is None or not self.has_planes:
            return
        self._interaction.flush()
        planes = self.panel.planes_value(planes_of(work.asked))
        self.propagation.start(self.panel.along_value(), planes)

    def commit(self) -> None:
        """Write what was found on all planes; else what is open on the plane shown.

        In another view than the one in which it was found, what is open there goes first.
        """
        interaction, found = self._interaction, self.propagation.found
        interaction.flush()
        work, plane = interaction.work, interaction.plane_or_none()
        open_here = work is not None and plane is not None and bool(work.asked.on(plane))
        if found is None or (open_here and not found.is_seen):
            interaction.commit()
        else:
            self.propagation.commit()

    def _axes(self) -> list[Axis]:
        work = self._interaction.work
        if work is None:
            return []
        names = work.place.axis_names
        return [
            Axis(index, names[index], size)
            for index, size in enumerate(work.place.shape[:-2])
            if size > 1
        ]

    def _on_changed(self) -> None:
        work, propagation = self._interaction.work, self.propagation
        self.panel.set_axes(self._axes())
        self.panel.set_state(
            working=work is not None and bool(work.asked),
            busy=propagation.busy,
            found=propagation.found is not None,
        )

    def _on_told(self, text: str, part: float) -> None:
        self.panel.show_encoded(text, part)
        self.panel.set_encoding(self.ahead.encoding_whole)
