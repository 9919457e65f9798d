"""The encoding of planes before they are shown."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_simmat._text import pluralize
from napari_simmat.engine.embeddings import EmbeddingStore
from napari_simmat.io.files import format_size
from napari_simmat.progress import Progress
from napari_simmat.widgets.segment.inference import InferenceQueue, Subject
from napari_simmat.widgets.segment.prompt_state import Plane
from napari_simmat.widgets.segment.workspace import Change, Workspace
from napari_simmat.widgets.worker import BackgroundJob

NEIGHBORS = 8
"""Planes around the current one that are encoded ahead."""
_RANK = 2
"""Behind everything the user waits for."""
_PAUSE = 200
"""Milliseconds without a change before encoding ahead begins."""
GETTING_READY = "Whole stack: getting ready"


class EmbeddingPrefetcher(QObject):
    """Encodes planes that the user is likely to look at next, or the whole stack.

    It shares the inference worker at the lowest rank, so a click pre-empts it. If `enabled`, the
    planes around the current one are encoded without a request.
    """

    progressed = Signal(str, float)
    """A status text and the completed fraction (1.0 when idle)."""

    def __init__(self, workspace: Workspace, inference: InferenceQueue) -> None:
        super().__init__(workspace)
        self._workspace = workspace
        self._service = inference.service
        self._job = BackgroundJob(inference.worker, _RANK, self)
        self.enabled = True
        self._whole = False
        self._subject: Subject | None = None
        self._center: tuple[object, ...] = ()
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._begin)
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(lambda _: self._on_end(self.described()))
        self._job.failed.connect(self._on_end)
        inference.predicted.connect(self._on_view)
        workspace.viewer.dims.events.current_step.connect(self._on_view)
        workspace.changed.connect(self._on_changed)

    def release(self) -> None:
        """Stop, and stop following the viewer."""
        self._later.stop()
        self._workspace.viewer.dims.events.current_step.disconnect(self._on_view)
        self.cancel()

    @property
    def encoding_whole(self) -> bool:
        """Whether the whole stack is being encoded."""
        return self._whole

    def set_enabled(self, enabled: bool) -> None:
        """Encode around the current plane, or do not."""
        self.enabled = enabled
        if enabled:
            self._on_view()
        elif not self._whole:
            self._later.stop()
            self.cancel()

    def encode_whole(self) -> None:
        """Encode all planes, the nearest first; those already encoded are skipped."""
        self._whole, self._subject = True, self._workspace.subject
        self.progressed.emit(GETTING_READY, 0.0)
        self._begin()

    def cancel(self) -> None:
        """Stop; what is encoded stays, and a half-encoded plane is continued another time."""
        self._whole, self._center = False, ()
        self._job.cancel()
        self.progressed.emit(self.described(), 1.0)

    def keep_on_disk(self, kept: bool) -> None:
        """Store new embeddings in the user's folder for other sessions, or only read them there."""
        self._service.cache.store = EmbeddingStore(writes=kept)
        self.progressed.emit(self.described(), 1.0)

    def clear(self) -> None:
        """Forget all embeddings, on disk as well."""
        self.cancel()
        self._service.cache.clear()
        EmbeddingStore().clear()
        self.progressed.emit(self.described(), 1.0)

    def described(self) -> str:
        """Number and size of the embeddings in words."""
        cache = self._service.cache
        text = f"{pluralize(len(cache), 'plane')} encoded, {format_size(cache.nbytes)}"
        if cache.store is None or not cache.keeps_on_disk:
            return text
        if cache.store.problem:
            return f"{text}. {cache.store.problem}"
        return f"{text}; {format_size(cache.store.nbytes)} on disk"

    def _on_view(self, *_: Any) -> None:
        if self.enabled or self._whole:
            self._later.start(_PAUSE)
        else:
            self.progressed.emit(self.described(), 1.0)

    def _on_changed(self, what: Change) -> None:
        """Stop if another image or model was chosen: its planes are no longer wanted."""
        if (self._whole or self._job.busy) and self._workspace.subject != self._subject:
            self.cancel()
        if what & Change.VIEW:
            self._on_view()

    def _begin(self) -> None:
        workspace = self._workspace
        session, request, plane = workspace.session, workspace.request(), workspace.plane_or_none()
        if session is None or request is None or not plane:
            self.progressed.emit(self.described(), 1.0)
            return
        if session.place.order and not request.image.in_memory and not self._whole:
            self.progressed.emit(self.described(), 1.0)  # a side plane may need the whole file
            return
        planes = around(plane, session.place.shape[:-2], None if self._whole else NEIGHBORS)
        center = (*request.encoding, self._whole)
        if center == self._center and self._job.busy:
            return
        self._center, self._subject = center, workspace.subject
        service = self._service
        self._job.start("Encoding ahead", lambda: service.encode_job(request, planes))

    def _on_progress(self, progress: Progress) -> None:
        if progress.total:
            what = "Whole stack" if self._whole else "Ahead"
            text = f"{what}: {progress.done} of {progress.total} planes encoded"
            self.progressed.emit(text, progress.done / progress.total)

    def _on_end(self, text: str) -> None:
        self._whole = False
        self.progressed.emit(text, 1.0)


def around(plane: Plane, shape: tuple[int, ...], most: int | None = None) -> list[Plane]:
    """The planes of a stack by their distance from `plane`, nearest first.

    Parameters
    ----------
    plane
        The current plane; it comes first.
    shape
        Sizes of the axes before Y and X.
    most
        Number of further planes; all if left out.
    """
    if most is None or math.prod(shape) <= most + 1:
        others: list[Plane] = [tuple(index) for index in np.ndindex(*shape)]
    else:  # only a neighborhood of a long stack is sorted
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
