"""Everything on a plane segmented: asked for, sifted as sliders move, previewed, committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels, Layer
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from scipy.ndimage import find_objects

from napari_simmat._text import pluralize
from napari_simmat.engine import point_grids
from napari_simmat.engine.automatic_postprocessing import Instances, masks_to_instances
from napari_simmat.engine.coordinates import AxisOrder, transposed_view
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.prompts import Prompt
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.segment.history import NewObject
from napari_simmat.widgets.segment.panels import EverythingPanel
from napari_simmat.widgets.segment.prompt_state import Plane
from napari_simmat.widgets.worker import WorkerTask

if TYPE_CHECKING:
    from napari_simmat.engine.automatic_postprocessing import MaskCandidates
    from napari_simmat.engine.automatic_settings import AutomaticSettings
    from napari_simmat.widgets.segment.controller import Interaction
    from napari_simmat.widgets.segment.session import Work


RANK = 1
"""Behind clicks."""
SETTLED = 60
"""Milliseconds that a slider rests before the masks are sifted."""


@dataclass(frozen=True, eq=False)
class Proposed:
    """Masks that the model proposes on a plane of a view, and what is left of them.

    `subject` is the session's when it was asked: what is found belongs to it.
    """

    work: Work
    subject: tuple[object, ...]
    order: AxisOrder
    plane: Plane
    candidates: MaskCandidates
    instances: Instances | None = None


class Everything(QObject):
    """Segments everything on the plane that is shown, on a preview first.

    Parameters
    ----------
    session
        Owns the image's work, the worker and the status line.
    """

    changed = Signal()
    """Whether it is at work, or has something to commit, may have changed."""

    def __init__(self, session: Interaction, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.panel = EverythingPanel(session.viewer)
        self.found: Proposed | None = None
        self._asked: tuple[Work, tuple[object, ...], AxisOrder, Plane] | None = None
        self._proposing: WorkerTask | None = None
        self._sifting: WorkerTask | None = None
        self._settling = QTimer(self)
        self._settling.setSingleShot(True)
        self._settling.setInterval(SETTLED)
        self._settling.timeout.connect(self._sift)
        panel, worker = self.panel, session.worker
        panel.started.connect(self.start)
        panel.stopped.connect(self.cancel)
        panel.sifted.connect(self._settling.start)
        panel.committed.connect(self.commit)
        panel.dropped.connect(self.drop)
        queued = Qt.ConnectionType.QueuedConnection
        worker.progressed.connect(self._on_progress, queued)
        worker.returned.connect(self._on_returned, queued)
        worker.failed.connect(self._on_failed, queued)
        session.changed.connect(self._on_session)
        session.turned.connect(self._on_turned)
        self.changed.connect(self._show_state)
        self._show_state()

    @property
    def busy(self) -> bool:
        """Whether masks are being proposed or sifted, or are about to be."""
        at_work = self._proposing is not None or self._sifting is not None
        return at_work or self._settling.isActive()

    def release(self) -> None:
        """Stop, and stop following layers."""
        self._settling.stop()
        self.cancel()
        self.panel.release()

    def start(self) -> None:
        """Ask the model all over the plane that is shown."""
        session = self._session
        session.flush()
        work, question = session.work, session.question()
        plane = session.plane_or_fail()
        if work is None or question is None or plane is None:
            return
        self.cancel()
        self.drop()
        try:
            asked = self._seeds(work, plane)
        except ValueError as error:
            session.fail(str(error))
            return
        self._asked = work, session.subject, work.place.order, plane
        settings, segmenter = self.panel.value(), session.segmenter
        self._proposing = session.worker.submit(
            "Segmenting everything", lambda: segmenter.proposing(question, settings, asked), RANK
        )
        session.status.emit(Status("working", "Segmenting everything"))
        self.changed.emit()

    def cancel(self) -> None:
        """Stop asking."""
        if self._proposing is not None:
            self._proposing.cancel()
            self._proposing = None
            self._session.status.emit(Status("cancelled", "Segmenting everything cancelled."))
            self.changed.emit()

    def commit(self) -> None:
        """Write what was found as one operation."""
        found, session = self.found, self._session
        if found is None or found.instances is None or session.work is not found.work:
            return
        objects = [
            NewObject(
                ObjectMask.of(
                    found.instances.labels[where] == number,
                    (*found.plane, where[0].start, where[1].start),
                ),
                float(found.instances.scores[number - 1]),
                category=session.actions.category,
                order=found.order,
            )
            for number, where in enumerate(find_objects(found.instances.labels), start=1)
        ]
        if not objects:
            session.say("There is nothing to commit: loosen the thresholds.", "ready")
        else:
            session.actions.write("segmenting everything", objects, done=self.drop)

    def drop(self) -> None:
        """Take back what was found, from the preview as well."""
        found, self.found = self.found, None
        if found is not None:
            self._session.preview.withdraw(found.plane, found.order)
            self.changed.emit()

    def _seeds(self, work: Work, plane: Plane) -> list[Prompt] | None:
        """Where a chosen layer says to ask on the plane; None for where the settings say."""
        layer = self.panel.layer_value()
        if layer is None:
            return None
        if isinstance(layer, Labels):
            place = work.place  # the layer need not be writable, as a lazy one is not
            if place.other_pixels(layer) or not place.lies_on(layer):
                raise ValueError(
                    f"{layer.name} does not lie on the image: choose labels of its size and place."
                )
            seen = transposed_view(layer.data, work.place.order)
            return point_grids.prompts_from_labels(np.asarray(seen[plane]))
        return _points_on(layer, work, plane, self._session.viewer.dims.point)

    # ------------------------------------------------------------------ the worker

    def _sift(self) -> None:
        """Sift what was proposed with the settings that are shown."""
        found = self.found
        if found is None:
            return
        settings = self.panel.value()
        self._sifting = self._session.worker.submit(
            "Sifting", lambda: _sifted(found.candidates, settings), RANK
        )

    def _on_progress(self, task: WorkerTask, progress: Progress) -> None:
        if task is self._proposing and not self._session.answering.busy:
            fraction = progress.done / progress.total if progress.total else None
            self._session.status.emit(Status("working", "Segmenting everything", fraction))

    def _on_returned(self, task: WorkerTask, result: MaskCandidates | Instances) -> None:
        if task is self._proposing and self._asked is not None:
            self._proposing = None
            if self._is_subject(*self._asked[:2]):
                self.found = Proposed(*self._asked, result)  # type: ignore[arg-type]
                self._sift()
            self.changed.emit()
        elif task is self._sifting:
            self._sifting = None
            if self.found is not None:
                self._show(result)  # type: ignore[arg-type]
            self.changed.emit()

    def _on_failed(self, task: WorkerTask, reason: str) -> None:
        if task in (self._proposing, self._sifting):
            self._proposing = self._sifting = None
            self._session.fail(reason)
            self.changed.emit()

    # ------------------------------------------------------------------ shown

    def _show(self, instances: Instances) -> None:
        found, session = self.found, self._session
        assert found is not None
        self.found = replace(found, instances=instances)
        self._show_labels()
        count = pluralize(len(instances), "object")
        after = "Commit all writes them." if len(instances) else "Loosen the thresholds."
        session.say(f"{count} of {len(found.candidates)} proposed masks. {after}")

    def _show_labels(self) -> None:
        """Show what was found, in the view in which it was."""
        found = self.found
        if found is None or found.instances is None or found.order != found.work.place.order:
            return
        labels = found.instances.labels
        self._session.preview.propose(found.work.place, found.plane, labels)

    def _on_turned(self) -> None:
        if self.found is not None and self._session.work is self.found.work:
            self._show_labels()

    def _show_state(self) -> None:
        found = self.found
        self.panel.set_state(
            working=self._session.work is not None,
            busy=self._proposing is not None,
            found=found is not None and found.instances is not None,
        )

    def _on_session(self) -> None:
        """Forget what was found when another image or model is chosen."""
        if self.found is not None and not self._is_subject(self.found.work, self.found.subject):
            self.drop()
        asked, session = self._asked, self._session
        if asked is not None and session.work is asked[0] and session.subject != asked[1]:
            self.cancel()
        self._show_state()

    def _is_subject(self, work: Work, subject: tuple[object, ...]) -> bool:
        """Whether model and image are still those that were asked."""
        return self._session.work is work and self._session.subject == subject


def _sifted(candidates: MaskCandidates, settings: AutomaticSettings) -> Job[Instances]:
    yield Progress(0, 1, "sifting")
    return masks_to_instances(candidates, settings)


def _points_on(layer: Layer, work: Work, plane: Plane, shown: Sequence[float]) -> list[Prompt]:
    """A click for each point of a layer on a plane of the image."""
    points = work.place.from_layer(layer, np.asarray(layer.data), shown)
    here = (np.round(points[:, :-2]) == np.array(plane)).all(axis=1)
    size = np.array(work.place.shape[-2:])
    inside = ((points[:, -2:] >= -0.5) & (points[:, -2:] <= size - 0.5)).all(axis=1)
    if not (here & inside).any():
        raise ValueError(
            f"{layer.name} has no point on this plane of the image; place some, or ask on a grid."
        )
    return point_grids.prompts_at(points[here & inside][:, -2:])
