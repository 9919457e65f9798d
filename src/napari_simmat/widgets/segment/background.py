"""Planes encoded before they are looked at: around the one that is shown, or the whole stack."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_simmat._text import pluralize
from napari_simmat.engine.embeddings import EmbeddingStore
from napari_simmat.io.files import format_size
from napari_simmat.progress import Progress
from napari_simmat.widgets.segment.prompt_state import Plane
from napari_simmat.widgets.worker import WorkerTask

if TYPE_CHECKING:
    from napari_simmat.widgets.segment.controller import Interaction


RANK = 2
"""Behind all that the user waits for."""
AROUND = 8
"""Planes that are encoded ahead around the one that is shown."""
_PAUSE = 200
"""Milliseconds without a change after which it begins."""


class Ahead(QObject):
    """Encodes planes in the background, in the one worker; a click pre-empts it.

    Parameters
    ----------
    session
        Owns the image's work and the worker.

    Attributes
    ----------
    enabled
        Whether planes around the one that is shown are encoded without being asked for.
    """

    told = Signal(str, float)
    """How far it is, and the part that is done, 0..1; 1 when nothing is under way."""

    def __init__(self, session: Interaction) -> None:
        super().__init__(session)
        self._session = session
        self.enabled = True
        self._whole = False
        self._task: WorkerTask | None = None
        self._subject: tuple[object, ...] = ()
        self._encoded: tuple[object, ...] = ()
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._begin)
        worker, queued = session.worker, Qt.ConnectionType.QueuedConnection
        worker.progressed.connect(self._on_progress, queued)
        worker.returned.connect(self._on_returned, queued)
        worker.failed.connect(self._on_failed, queued)
        session.answering.answered.connect(self._on_change)
        session.viewer.dims.events.current_step.connect(self._on_change)
        session.turned.connect(self._on_change)
        session.changed.connect(self._on_session)

    def release(self) -> None:
        """Stop, and follow the viewer no more."""
        self._later.stop()
        self._session.viewer.dims.events.current_step.disconnect(self._on_change)
        self.cancel()

    @property
    def encoding_whole(self) -> bool:
        """Whether all planes are being encoded, as was asked for."""
        return self._whole

    def set_enabled(self, enabled: bool) -> None:
        """Encode around the plane that is shown, or do not."""
        self.enabled = enabled
        if enabled:
            self._on_change()
        elif not self._whole:
            self.cancel()

    def encode_whole(self) -> None:
        """Encode all planes, the nearest first; those that are done already are passed over."""
        self._whole, self._encoded = True, self._session.subject
        self.told.emit("Whole stack: getting ready", 0.0)
        self._begin()

    def cancel(self) -> None:
        """Stop; what is encoded stays, what is begun is gone on with another time."""
        self._whole = False
        self._subject = ()
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.told.emit(self.described(), 1.0)

    # ------------------------------------------------------------------ what is kept

    def keep_on_disk(self, kept: bool) -> None:
        """Store what is encoded from now on in the user's folder, for other sessions; or do not."""
        cache = self._session.segmenter.cache
        cache.store = EmbeddingStore() if kept else None
        self.told.emit(self.described(), 1.0)

    def clear(self) -> None:
        """Forget all embeddings, on disk as well."""
        self.cancel()
        self._session.segmenter.cache.clear()
        EmbeddingStore().clear()
        self.told.emit(self.described(), 1.0)

    def described(self) -> str:
        """What is kept, in words."""
        cache = self._session.segmenter.cache
        count = pluralize(len(cache), "plane")
        words = f"{count} encoded, {format_size(cache.nbytes)}"
        if cache.store is None:
            return words
        if cache.store.problem:
            return f"{words}. {cache.store.problem}"
        return f"{words}; {format_size(cache.store.nbytes)} on disk"

    # -------------------------------------------------------------------- the worker

    def _on_change(self, *_: Any) -> None:
        if self.enabled or self._whole:
            self._later.start(_PAUSE)
        else:
            self.told.emit(self.described(), 1.0)

    def _on_session(self) -> None:
        """Stop when another image or model is chosen, or it is gone: nobody asked for that one."""
        at_work = self._whole or self._task is not None
        if at_work and self._session.subject != self._encoded:
            self.cancel()

    def _begin(self) -> None:
        session = self._session
        work, question, plane = session.work, session.question(), session.plane_or_none()
        if work is None or question is None or plane is None or not plane:
            self.told.emit(self.described(), 1.0)
            return
        if work.place.order and not question.image.in_memory and not self._whole:
            self.told.emit(self.described(), 1.0)  # each plane may lie in all parts of the file
            return
        planes = around(plane, work.place.shape[:-2], None if self._whole else AROUND)
        subject = (question.model, question.image.token, plane, self._whole)
        if subject == self._subject and self._task is not None:
            return
        if self._task is not None:
            self._task.cancel()
        self._subject, self._encoded = subject, session.subject
        segmenter = session.segmenter
        self._task = session.worker.submit(
            "Encoding ahead", lambda: segmenter.prefetch_job(question, planes), RANK
        )

    def _on_progress(self, task: WorkerTask, progress: Progress) -> None:
        if task is self._task and progress.total:
            part = progress.done / progress.total
            what = "Whole stack" if self._whole else "Ahead"
            self.told.emit(f"{what}: {progress.done} of {progress.total} planes encoded", part)

    def _on_returned(self, task: WorkerTask, _: int) -> None:
        if task is self._task:
            self._task, self._whole = None, False
            self.told.emit(self.described(), 1.0)

    def _on_failed(self, task: WorkerTask, reason: str) -> None:
        if task is self._task:
            self._task, self._whole = None, False
            self.told.emit(reason, 1.0)


def around(plane: Plane, shape: tuple[int, ...], most: int | None = None) -> list[Plane]:
    """Planes of a stack by their distance from `plane`, the nearest first.

    Parameters
    ----------
    plane
        The one that is shown; it is the first.
    shape
        Sizes of the axes before Y and X.
    most
        So many beside it; all if left out.
    """
    if most is None or math.prod(shape) <= most + 1:
        others: list[Plane] = [tuple(index) for index in np.ndindex(*shape)]
    else:  # of a long stack only a neighbourhood is sorted
        ranges = [
            range(max(0, index - most), min(size, index + most + 1))
            for index, size in zip(plane, shape, strict=True)
        ]
        grid = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, len(shape))
        others = [tuple(int(n) for n in index) for index in grid]
    # Along the last axis first: that is where one looks next.
    weights = [1 + len(shape) - axis for axis in range(1, len(shape) + 1)]

    def distance(other: Plane) -> tuple[int, Plane]:
        away = sum(weight * abs(a - b) for weight, a, b in zip(weights, other, plane, strict=True))
        return away, tuple(-index for index in other)

    ordered = sorted(others, key=distance)
    return ordered if most is None else ordered[: most + 1]
