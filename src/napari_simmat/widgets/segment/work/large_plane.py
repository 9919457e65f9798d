"""A large plane: parts of it are predicted on until the whole is encoded in the background."""

from __future__ import annotations

from qtpy.QtCore import QObject, Signal

from napari_simmat.annotation.predictions import Prediction, PredictionRequest
from napari_simmat.progress import Progress
from napari_simmat.widgets.segment.work.inference import InferenceQueue
from napari_simmat.widgets.worker import BackgroundJob

_RANK = 2
"""After everything that the user waits for."""
PART = "The whole image is still being encoded, masks are refined then."
PART_ALONE = (
    "A part of the image is encoded: Segment (<key:segment>) encodes the rest, and refines masks."
)


WRITTEN_CUT = (
    "The object ends where the encoded part does: once the whole is encoded, open it "
    "(<key:edit>), and its mask is refined."
)


class LargePlane(QObject):
    """Encodes the whole of a plane of which a part was predicted on.

    Attributes
    ----------
    request
        The request whose plane is encoded, or was last; None for none.
    """

    changed = Signal()
    """How far it is."""
    encoded = Signal()
    """The plane of `request` is encoded."""
    failed = Signal(str)
    """Why it is not, in one sentence."""

    def __init__(self, inference: InferenceQueue, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._service = inference.service
        self._job = BackgroundJob(inference.worker, _RANK, self)
        self.request: PredictionRequest | None = None
        self._declined: tuple[object, ...] = ()  # the encoding that the user stopped
        self._fraction = 0.0
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(lambda _: self.encoded.emit())
        self._job.failed.connect(self.failed)

    @property
    def busy(self) -> bool:
        """Whether it is being encoded."""
        return self._job.busy

    def is_declined(self, request: PredictionRequest | None) -> bool:
        """Whether the user does without the whole of a request's plane."""
        return request is not None and request.encoding == self._declined

    def text(self, prediction: Prediction, request: PredictionRequest | None) -> str:
        """What to say of a prediction on a part of the plane; empty for one on the whole."""
        if not prediction.part:
            return ""
        if self.is_declined(request):
            return PART_ALONE
        return f"{PART} ({self._fraction:.0%})" if self._fraction else PART

    def text_of_cut(self, prediction: Prediction) -> str:
        """What to say of a mask that is committed, but ends where the encoded part does."""
        return WRITTEN_CUT if prediction.cut and self.busy else ""

    def encode(self, request: PredictionRequest) -> None:
        """Encode the whole plane of a request, unless the user does without it."""
        if self.is_declined(request):
            return
        before, self.request = self.request, request
        if before is not None and before.encoding == request.encoding and self.busy:
            return
        self._fraction = 0.0
        self._job.start(PART, lambda: self._service.encode_job(request, [request.plane]))

    def decline(self) -> None:
        """Stop: the user does without the whole plane, until they ask for it by Segment."""
        if self.request is not None:
            self._declined = self.request.encoding
        self.cancel()
        self.changed.emit()

    def want(self) -> None:
        """The user wants the whole again."""
        self._declined = ()

    def cancel(self) -> None:
        """Stop encoding."""
        self._job.cancel()
        self._fraction = 0.0

    def _on_progress(self, progress: Progress) -> None:
        self._fraction = progress.fraction or 0.0
        self.changed.emit()
