"""Objects followed through the planes of a stack: asked for, previewed, committed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, Qt, Signal

from napari_simmat.engine.footprints import Footprint
from napari_simmat.engine.prompts import Prompt
from napari_simmat.progress import Progress
from napari_simmat.widgets.segment.asked import Followed, Plane
from napari_simmat.widgets.segment.finished import NewObject
from napari_simmat.widgets.segment.operations import Made
from napari_simmat.widgets.segment.segmenting import StackRequest
from napari_simmat.widgets.segment.through import Through, through
from napari_simmat.widgets.status import Status
from napari_simmat.widgets.worker import Task

if TYPE_CHECKING:
    from napari_simmat.engine.volume import Track
    from napari_simmat.widgets.segment.interaction import Interaction
    from napari_simmat.widgets.segment.works import Work

RANK = 1
"""Behind clicks, before what is encoded ahead."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a propagation found, not yet committed."""

    work: Work
    asked: tuple[Through, ...]
    tracks: tuple[Track, ...]

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
        self._task: Task | None = None
        self._asked: tuple[Work, tuple[Through, ...]] | None = None
        self._way: tuple[tuple[int, ...], tuple[int, int]] = (), (0, 0)
        self._commit_next = False
        self.found: Found | None = None
        worker, queued = session.worker, Qt.ConnectionType.QueuedConnection
        worker.progressed.connect(self._on_progress, queued)
        worker.returned.connect(self._on_returned, queued)
        worker.failed.connect(self._on_failed, queued)
        session.changed.connect(self._on_session)

    @property
    def busy(self) -> bool:
        """Whether planes are being asked."""
        return self._task is not None

    def start(self, along: tuple[int, ...], planes: tuple[int, int]) -> None:
        """Follow all that is open.

        Parameters
        ----------
        along
            Axes of the image without channels, one after the other.
        planes
            The first and the last index along the first of them.
        """
        session = self._session
        session.flush()
        work, question = session.work, session.question()
        if work is None or question is None:
            return
        self.cancel()
        self._way = along, planes
        try:
            asked = tuple(through(work.asked, work.place.shape))
        except ValueError as error:
            session.fail(str(error))
            return
        if not asked:
            session.say("There is nothing to follow: click on an object first.", "ready")
            return
        request = StackRequest(
            tuple(each.prompt for each in asked), along, planes, spacing_of(work)
        )
        self._asked = work, asked
        segmenter = session.segmenter
        self._task = session.worker.submit(
            "Propagating", lambda: segmenter.propagating(question, request), RANK
        )
        session.status.emit(Status("working", "Propagating"))
        self.changed.emit()

    def commit(self) -> bool:
        """Write what was found as one operation; whether it was done.

        What was clicked since is followed first, and then written.
        """
        found, session = self.found, self._session
        if found is None or session.work is not found.work:
            return False
        session.flush()
        if not self._is_current(found):
            self.start(*self._way)
            self._commit_next = self.busy
            return False
        objects = [
            NewObject(
                track.footprint(),
                track.score,
                category=session.actions.category,
                made=tuple(
                    Made(each.prompt.plane, each.share, "", kept=_kept(each.prompt))
                    for each in found.asked
                    if each.prompt.object == track.object and each.prompt.plane in track.sections
                ),
            )
            for track in found.tracks
            if track.sections
        ]
        closing = sorted({each.prompt.plane for each in found.asked})
        if not session.actions.write("propagation", objects, closing=closing):
            return False
        self.drop()
        return True

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
            found.work.found.clear()
            for plane in found.planes:
                if not found.work.asked.on(plane):
                    self._session.preview.clear(plane)
            self.changed.emit()

    def _is_current(self, found: Found) -> bool:
        """Whether it was found from what is open now."""
        try:
            now = through(found.work.asked, found.work.place.shape)
        except ValueError:
            return False
        return tuple(now) == found.asked

    def _show(self, found: Found) -> None:
        masks: dict[Plane, list[np.ndarray]] = {
            plane: [track.mask(plane) for track in found.tracks] for plane in found.planes
        }
        if self.found is not None:
            masks = {**{plane: [] for plane in self.found.planes}, **masks}
        self._session.preview.show_all(found.work.place, masks)

    # ------------------------------------------------------------------ the worker

    def _on_progress(self, task: Task, progress: Progress) -> None:
        if task is self._task and not self._session.answering.busy:
            fraction = progress.done / progress.total if progress.total else None
            words = progress.message or "getting ready"
            self._session.status.emit(Status("working", f"Propagating: {words}", fraction))

    def _on_returned(self, task: Task, tracks: list[Track]) -> None:
        if task is not self._task or self._asked is None:
            return
        self._task = None
        work, asked = self._asked
        if self._session.work is work:
            found = Found(work, asked, tuple(tracks))
            self._show(found)
            self.found = found
            work.found = _followed(found)
            self._session.say(_described(found))
        commit, self._commit_next = self._commit_next, False
        self.changed.emit()
        if commit and self.found is not None:
            self.commit()

    def _on_failed(self, task: Task, reason: str) -> None:
        if task is self._task:
            self._task, self._commit_next = None, False
            self._session.fail(reason)
            self.changed.emit()

    def _on_session(self) -> None:
        """Stop, and forget what was found, when another image is chosen or this one is gone."""
        work = self._session.work
        if self._task is not None and self._asked is not None and work is not self._asked[0]:
            self._task.cancel()
            self._task, self._commit_next = None, False
            self.changed.emit()
        if self.found is not None and work is not self.found.work:
            self.drop()


def _followed(found: Found) -> dict[Plane, tuple[Followed, ...]]:
    """What was found on each plane that nothing was said of: what a click there corrects."""
    planes: dict[Plane, tuple[Followed, ...]] = {}
    for track in found.tracks:
        for plane, section in track.sections.items():
            if section.origin != "annotated" and track.object is not None:
                one = Followed(track.object, plane, section.footprint)
                planes[plane] = (*planes.get(plane, ()), one)
    return planes


def _kept(prompt: Prompt) -> Footprint | None:
    """The pixels that a prompt corrects, with its plane."""
    if prompt.mask is None or prompt.box is not None:
        return None
    return Footprint.of(prompt.mask, (*prompt.plane, 0, 0))


def spacing_of(work: Work) -> tuple[float, ...]:
    """Distances between voxels along the image's axes, in the units of the viewer's world."""
    lengths = np.linalg.norm(work.place.matrix[:-1, :-1], axis=0)
    return tuple(float(length) for length in lengths)


def _described(found: Found) -> str:
    planes = found.planes
    if not planes:
        return "Nothing was found: click on the object on another plane."
    count = sum(bool(track.sections) for track in found.tracks)
    objects = "1 object" if count == 1 else f"{count} objects"
    first, last = (", ".join(map(str, plane)) for plane in (planes[0], planes[-1]))
    return f"{objects} on {len(planes)} planes ({first} to {last}). Commit (C) writes them."
