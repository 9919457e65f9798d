"""Objects propagated through the planes of a stack; planes encoded before they are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_simmat._text import pluralize
from napari_simmat.annotation.image_session import ViewState
from napari_simmat.annotation.predictions import Subject
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.annotation.propagated import NOTHING_OPEN, PromptedObjects, Propagated
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.embeddings import EmbeddingStore
from napari_simmat.io.files import format_size
from napari_simmat.progress import Progress
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment.form.stack_panel import PlaneBar
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.work.inference import InferenceQueue
from napari_simmat.widgets.segment.work.object_actions import ObjectActions
from napari_simmat.widgets.segment.work.workspace import Workspace
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.worker import BackgroundJob, later

if TYPE_CHECKING:
    from napari_simmat.engine.tracking.propagation_tracks import Track

_RANK = 1
"""Behind clicks, before encoding ahead."""
PROPAGATING = "Propagating"
CANCELED = "Propagation canceled."
KEPT = "Stopped: {planes} are kept. Commit (<key:commit>) writes them, Propagate goes on."
MANY_DOUBTFUL = "{} doubtful: click an orange bar to look."
COMMIT = "Commit (<key:commit>) writes them."
MARKED_SINCE = "What was marked meanwhile is propagated first."
OTHER_VIEW = (
    "There are new prompts since the propagation: go back to the view in which it was started."
)
NEIGHBORS = 8
"""Planes around the current one that are encoded ahead."""
_PREFETCH_RANK = 2
"""Behind everything the user waits for."""
_PAUSE = 200
"""Milliseconds without a change before encoding ahead begins."""
GETTING_READY = "Whole stack: getting ready"


@dataclass(frozen=True, eq=False)
class VolumeRequest:
    """What is propagated, and where."""

    session: LayerSession
    subject: Subject | None
    """The model and the image; results are valid for them alone."""
    prompted: PromptedObjects
    along: tuple[int, ...]
    planes: tuple[int, int]
    """As `Propagation.start` takes them."""

    @property
    def order(self) -> AxisOrder:
        """Of the view it was started in."""
        return self.prompted.order

    @property
    def view(self) -> ViewState:
        """The state of that view."""
        return self.session.view(self.order)

    @property
    def geometry(self) -> ImageGeometry:
        """The image in that view."""
        return self.session.geometry.seen(self.order)


@dataclass(frozen=True, eq=False)
class PropagationResult(Propagated):
    """The propagated objects on the preview."""

    request: VolumeRequest

    @classmethod
    def of(cls, request: VolumeRequest, tracks: Sequence[Track]) -> PropagationResult:
        """What was found."""
        return cls(request.prompted, tuple(tracks), request)

    @property
    def is_shown(self) -> bool:
        """Whether the image is in the view in which they were found."""
        return self.request.order == self.request.session.geometry.order

    def sentence(self) -> str:
        """The result, and what is next, in words."""
        text = self.described(MANY_DOUBTFUL)
        return f"{text} {COMMIT}" if self.planes else text

    def bars(self) -> list[PlaneBar]:
        """The least certainty on each plane."""
        doubtful = set(self.doubtful)
        bars = []
        for plane in self.planes:
            tracks = [track for track in self.tracks if plane in track.sections]
            least = min(track.sections[plane].certainty for track in tracks)
            bars.append(PlaneBar(plane, least, plane in doubtful))
        return bars


class Propagation(QObject):
    """Propagates the prompted objects through the stack, to the preview first.

    `result` is what was found and is not committed yet; None for nothing.
    """

    changed = Signal()
    """`busy` or `result` may have changed."""
    finished = Signal()
    """A propagation has ended with `result`."""
    stopped = Signal()
    """A propagation was canceled or has failed."""

    def __init__(
        self, workspace: Workspace, inference: InferenceQueue, objects: ObjectActions
    ) -> None:
        super().__init__(workspace)
        self._workspace = workspace
        self._inference = inference
        self._objects = objects
        self._job = BackgroundJob(inference.worker, _RANK, self)
        self._request: VolumeRequest | None = None
        self._progress = Status("working", PROPAGATING)
        self.result: PropagationResult | None = None
        self._partial: PropagationResult | None = None
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(self._on_returned)
        self._job.failed.connect(self._on_failed)
        workspace.subject_changed.connect(self._on_subject)
        workspace.view_changed.connect(self._on_view)
        workspace.prompts_changed.connect(self._on_prompts)

    @property
    def busy(self) -> bool:
        """Whether a propagation is under way."""
        return self._job.busy

    def is_under_way(self, session: LayerSession) -> bool:
        """Whether objects of an image are being propagated in the view that it has now."""
        request = self._request
        of_view = request is not None and request.order == session.geometry.order
        return self.busy and of_view and request.session is session

    @property
    def needs_update(self) -> bool:
        """Whether prompts were changed since `result` was found."""
        result = self.result
        if result is None:
            return False
        return not result.prompted.is_of(result.request.view.prompt_state)

    def start(self, along: tuple[int, ...], planes: tuple[int, int]) -> bool:
        """Propagate all open objects; whether there are any.

        Parameters
        ----------
        along
            Axes of the view, one after the other.
        planes
            The first and the last index along the first of them.
        """
        workspace = self._workspace
        session = workspace.session
        request = workspace.request()
        if session is None or request is None:
            return False
        self.cancel()
        try:
            prompted = PromptedObjects.of(session.prompt_state, session.geometry.shape)
        except ValueError as error:
            workspace.fail(str(error))
            return False
        if not prompted.objects:
            workspace.say(NOTHING_OPEN, "ready")
            return False
        stack = prompted.request(along, planes, session.geometry.spacing)
        self._request = VolumeRequest(session, workspace.subject, prompted, along, planes)
        service = self._inference.service
        self._partial = None
        self._job.start(PROPAGATING, lambda: service.propagate_job(request, stack))
        self._progress = Status("working", PROPAGATING)
        self.say_progress()
        self.changed.emit()
        return True

    def say_progress(self) -> None:
        """Show how far it is, if it is under way: something else was said meanwhile."""
        if self.busy:
            self._workspace.status.emit(self._progress)

    def restart(self) -> bool:
        """Propagate again with the prompts as they are now; whether it was started."""
        result = self.result
        if result is None or self._workspace.session is not result.request.session:
            return False
        if not result.is_shown:
            self._workspace.say(OTHER_VIEW)
            return False
        return self.start(result.request.along, result.request.planes)

    def commit(self) -> None:
        """Write what was found as one command; from any view."""
        result = self.result
        if result is None or self._workspace.session is not result.request.session:
            return
        objects = result.new_objects(self._objects.category)
        closing = result.prompted.planes
        self._objects.write("propagation", objects, closing=closing, done=self.drop)

    def cancel(self) -> None:
        """Stop; what was found stays on the preview, and can be committed."""
        if self._job.cancel():
            partial, self._partial = self._partial, None
            if partial is not None and self.result is None:
                self._take(partial)
                count = pluralize(len(partial.planes), "plane")
                self._workspace.status.emit(Status("canceled", KEPT.format(planes=count)))
            else:
                self._workspace.status.emit(Status("canceled", CANCELED))
            self._stop()

    def drop(self) -> None:
        """Discard what was found, also from the preview."""
        result, self.result = self.result, None
        if result is None:
            return
        request = result.request
        request.view.propagated.clear()
        closed = [plane for plane in result.planes if not request.view.prompt_state.on(plane)]
        self._workspace.preview.forget()
        self._workspace.preview.clear(closed, request.order)
        if self._workspace.session is request.session and not result.is_shown:
            self._workspace.show_predictions()  # planes of the two views cross
        self.changed.emit()

    def _show(self, result: PropagationResult) -> None:
        masks: dict[Plane, list[np.ndarray]] = {}
        if self.result is not None:  # also clears planes on which nothing is found any more
            masks |= {plane: [] for plane in self.result.planes}
        masks |= result.masks()
        self._workspace.preview.forget()
        self._workspace.preview.keep(result.request.geometry, result.found_masks())
        self._workspace.preview.show_all(result.request.geometry, masks)
        if not result.is_shown:
            self._workspace.show_predictions()  # planes of the two views cross

    def _stop(self) -> None:
        self.stopped.emit()
        self.changed.emit()

    def _on_progress(self, progress: Progress) -> None:
        text = f"{PROPAGATING}: {progress.message or 'getting ready'}"
        self._progress = Status("working", text, progress.fraction)
        tracks = getattr(progress, "tracks", None)
        if tracks is not None:
            self._show_so_far(tracks)
        if not self._inference.busy:
            self.say_progress()

    def _show_so_far(self, tracks: tuple[Track, ...]) -> None:
        """Show the planes that were found since the last time, unless others are shown still."""
        request = self._request
        if request is None or self._workspace.session is not request.session or self.result:
            return
        before, self._partial = self._partial, PropagationResult.of(request, tracks)
        if request.order != request.session.geometry.order:
            return
        known = () if before is None else before.planes
        new = [plane for plane in self._partial.planes if plane not in known]
        masks = {plane: [track.mask(plane) for track in tracks] for plane in new}
        if masks:
            self._workspace.preview.keep(request.geometry, self._partial.found_masks())
            self._workspace.preview.show_all(request.geometry, masks)
        self.changed.emit()

    @property
    def bars(self) -> list[PlaneBar]:
        """How sure each plane is of what was found, or is found so far."""
        shown = self.result or self._partial
        return [] if shown is None or not shown.is_shown else shown.bars()

    def _take(self, result: PropagationResult) -> None:
        """Let a result be what a commit writes, and clicks correct."""
        self._show(result)
        self.result = result
        result.request.view.propagated = result.corrected_by_clicks()

    def _on_returned(self, tracks: list[Track]) -> None:
        request = self._request
        if request is None:
            return
        if self._workspace.session is request.session:
            if self.result is not None and self.result.request.order != request.order:
                self.drop()
            result = PropagationResult.of(request, tracks)
            if self._partial is not None and self.result is None:  # it may end sooner than so far
                self._workspace.preview.forget()
                self._workspace.preview.clear(self._partial.planes, request.order)
            self._take(result)
            said = result.sentence()
            if self.needs_update:  # a click came meanwhile: what it gave is not covered up
                self._workspace.show_predictions()
                said = f"{said} {MARKED_SINCE}"
            self._workspace.say(said)
        self._partial = None
        self.changed.emit()
        self.finished.emit()

    def _on_failed(self, reason: str) -> None:
        self._forget_partial()
        self._workspace.fail(reason)
        self._stop()

    def _forget_partial(self) -> None:
        """Take what was shown so far from the preview."""
        partial, self._partial = self._partial, None
        if partial is not None and self.result is None:
            view = partial.request.view
            closed = [plane for plane in partial.planes if not view.prompt_state.on(plane)]
            self._workspace.preview.forget()
            self._workspace.preview.clear(closed, partial.request.order)

    def _on_subject(self) -> None:
        """Stop, and forget what was found, if the model or the image has changed."""
        request = self._request
        subject = self._workspace.subject
        if request is not None and request.subject != subject and self._job.cancel():
            self._partial = None
            self._stop()
        if self.result is not None and self.result.request.subject != subject:
            self.drop()

    def _on_prompts(self) -> None:
        """Show no result of prompts that are all gone: a commit does not write it, either."""
        if self.result is not None and not self.result.request.view.prompt_state.has_prompts:
            self.drop()

    def _on_view(self) -> None:
        if self.result is not None:
            self._show(self.result)  # as its planes cross the new view


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
        self._job = BackgroundJob(inference.worker, _PREFETCH_RANK, self)
        self.enabled = True
        self.encoding_whole = False
        self._subject: Subject | None = None
        self._center: tuple[object, ...] = ()
        self._later = later(self, self._begin)
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(lambda _: self._on_end(self.described()))
        self._job.failed.connect(self._on_end)
        inference.predicted.connect(self._on_view)
        workspace.viewer.dims.events.current_step.connect(self._on_view)
        workspace.subject_changed.connect(self._on_subject)
        workspace.view_changed.connect(self._on_view)

    def release(self) -> None:
        """Stop, and stop following the viewer."""
        self._later.stop()
        self._workspace.viewer.dims.events.current_step.disconnect(self._on_view)
        self.cancel()

    def set_enabled(self, enabled: bool) -> None:
        """Encode around the current plane, or do not."""
        self.enabled = enabled
        if enabled:
            self._on_view()
        elif not self.encoding_whole:
            self._later.stop()
            self.cancel()

    def encode_whole(self) -> None:
        """Encode all planes, the nearest first; those already encoded are skipped."""
        self.encoding_whole = True
        self._subject = self._workspace.subject
        self.progressed.emit(GETTING_READY, 0.0)
        self._begin()

    def cancel(self) -> None:
        """Stop; what is encoded stays, and a half-encoded plane is continued another time."""
        self.encoding_whole = False
        self._center = ()
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
        if self.enabled or self.encoding_whole:
            self._later.start(_PAUSE)
        else:
            self.progressed.emit(self.described(), 1.0)

    def _on_subject(self) -> None:
        """Stop if another image or model was chosen: its planes are no longer wanted."""
        if (self.encoding_whole or self._job.busy) and self._workspace.subject != self._subject:
            self.cancel()

    def _begin(self) -> None:
        workspace = self._workspace
        session = workspace.session
        request = workspace.request()
        plane = workspace.plane_or_none()
        if session is None or request is None or not plane:
            self.progressed.emit(self.described(), 1.0)
            return
        if session.geometry.order and not request.image.in_memory and not self.encoding_whole:
            self.progressed.emit(self.described(), 1.0)  # a side plane may need the whole file
            return
        planes = around(
            plane, session.geometry.shape[:-2], None if self.encoding_whole else NEIGHBORS
        )
        center = (*request.encoding, self.encoding_whole)
        if center == self._center and self._job.busy:
            return
        self._center = center
        self._subject = workspace.subject
        service = self._service
        self._job.start("Encoding ahead", lambda: service.encode_job(request, planes))

    def _on_progress(self, progress: Progress) -> None:
        if progress.total:
            what = "Whole stack" if self.encoding_whole else "Ahead"
            text = f"{what}: {progress.done} of {progress.total} planes encoded"
            self.progressed.emit(text, progress.done / progress.total)

    def _on_end(self, text: str) -> None:
        self.encoding_whole = False
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
