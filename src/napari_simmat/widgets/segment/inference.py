"""What the worker does: owns the model and the predictor, answers questions about images.

No Qt and no napari; everything here but the values runs in the worker's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from qtpy.QtCore import QObject, Qt, Signal

from napari_simmat.engine.embeddings import EmbeddingCache
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.propagation_settings import PropagationSettings
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.layer_data import ImageValue
from napari_simmat.widgets.segment.prompt_state import Plane
from napari_simmat.widgets.worker import Worker, WorkerTask, import_torch_job

if TYPE_CHECKING:
    from napari_simmat.engine.automatic_postprocessing import MaskCandidates
    from napari_simmat.engine.automatic_settings import AutomaticSettings
    from napari_simmat.engine.normalization import Statistics
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.propagation import Propagator
    from napari_simmat.engine.propagation_tracks import Track
    from napari_simmat.engine.refinement import Refiner


class ChosenModel(NamedTuple):
    """A model as it was chosen; another one when its file was replaced.

    Attributes
    ----------
    reference
        Its name or file.
    changed
        When its file was written.
    """

    reference: str | Path
    changed: int = 0


@dataclass(frozen=True, eq=False)
class Question:
    """What the window wants to know: the objects of `prompts` on one plane of an image.

    `choices` says for which prompts another of the model's candidates was chosen, and which.
    """

    model: ChosenModel
    image: ImageValue
    plane: Plane
    prompts: tuple[Prompt, ...] = ()
    choices: tuple[tuple[Prompt, int], ...] = ()

    @property
    def subject(self) -> tuple[object, ...]:
        """What must be encoded to answer; equal for questions that share the encoding."""
        return self.model, self.image.token, self.plane


@dataclass(frozen=True, eq=False)
class Answer:
    """One mask (Y, X) and its score for each prompt; `note` is what else should be known.

    Which of how many candidates each is, `choices` and `counts` say.
    """

    masks: tuple[np.ndarray, ...]
    scores: tuple[float, ...]
    note: str = ""
    choices: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class StackRequest:
    """What is to be followed through a stack, as `Propagator.propagate` takes it."""

    prompts: tuple[Prompt, ...]
    along: tuple[int, ...]
    planes: tuple[int, int]
    spacing: tuple[float, ...]
    settings: PropagationSettings = field(default_factory=PropagationSettings)


class Segmenter:
    """The model in use and its predictor. Embeddings survive a change of image and of model.

    Attributes
    ----------
    cache
        The embeddings.
    """

    def __init__(self) -> None:
        self.predictor: Predictor | None = None
        self.cache = EmbeddingCache()
        self._refiner: Refiner | None = None
        self._model: ChosenModel | None = None
        self._image: tuple[object, ...] | None = None
        self._subject: tuple[object, ...] | None = None
        self._remark = ""
        self._propagator: tuple[object, Propagator] | None = None
        self._statistics: dict[tuple[object, ...], Statistics] = {}

    @property
    def encodes(self) -> int:
        """How often the encoder of the model in use ran."""
        return 0 if self.predictor is None else self.predictor.encodes

    def answering(
        self,
        question: Question,
        glimpsed: Callable[[Answer], object] = lambda _: None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Job[Answer | None]:
        """Load what is missing, encode if need be, and predict; closing it cancels.

        Parameters
        ----------
        question
            What is asked.
        glimpsed
            Called with a first answer from a coarse encoding, where the whole one takes long.
        wanted
            Asked while a plane is encoded: where it says no, a newer question goes on with the
            encoding, and this one has no answer.

        Raises
        ------
        MemoryError
            If memory runs out with nothing left to fall back on.
        """
        yield from import_torch_job()
        from napari_simmat.engine.device import OUT_OF_MEMORY_MESSAGE, is_out_of_memory

        try:
            return (yield from self._answering(question, glimpsed, wanted))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryError(OUT_OF_MEMORY_MESSAGE) from error

    def prefetch_job(self, question: Question, planes: Sequence[Plane]) -> Job[int]:
        """Encode planes of the question's image ahead; how many from the first on are ready.

        The question is as good as answered: only its model and its image count.
        """
        predictor = yield from self._beside(question)
        return (yield from predictor.prefetch_job(planes))

    def propagate_job(self, question: Question, request: StackRequest) -> Job[list[Track]]:
        """Follow objects through the question's image; what was found before is not asked again."""
        from napari_simmat.engine.propagation import Propagator

        key = (question.model, question.image.token, request.settings, request.spacing)
        if self._propagator is None or self._propagator[0] != key:
            predictor = yield from self._beside(question)
            propagator = Propagator(predictor, request.settings, request.spacing)
            self._propagator = key, propagator
        propagator = self._propagator[1]
        return (yield from propagator.propagate_job(request.prompts, request.along, request.planes))

    def proposing(
        self,
        question: Question,
        settings: AutomaticSettings,
        seeds: Sequence[Prompt] | None = None,
    ) -> Job[MaskCandidates]:
        """Ask for everything on the question's plane, in a grid or where `seeds` say.

        With a predictor of its own, since clicks may be answered in between.
        """
        yield from import_torch_job()
        from napari_simmat.engine.automatic_generator import propose_masks_job
        from napari_simmat.engine.predictor import Predictor

        yield from self._loading(question.model)
        known = self.predictor
        assert known is not None
        predictor = Predictor(known.model, str(known.device), known.precision, self.cache)
        yield from self._handing(predictor, question.image)
        settings = settings.for_model(known.model.spec)
        return (yield from propose_masks_job(predictor, settings, question.plane, seeds))

    def forget(self) -> None:
        """Drop the model, so that the next question loads it anew."""
        self.predictor = self._model = None
        self._image = self._subject = self._propagator = None

    def _answering(
        self, question: Question, glimpsed: Callable[[Answer], object], wanted: Callable[[], bool]
    ) -> Job[Answer | None]:
        yield from self._loading(question.model)
        yield from self._opening(question)
        predictor = self.predictor
        assert predictor is not None
        if question.prompts and (yield from predictor.coarse_preview_job(question.plane)):
            glimpsed((yield from self._predicting(question, ("glimpse", *question.subject))))
        for progress in predictor.set_plane_job(question.plane):
            yield progress
            if not wanted():
                return None
        return (yield from self._predicting(question, question.subject))

    def _predicting(self, question: Question, subject: tuple[object, ...]) -> Job[Answer]:
        """Answer from what is encoded, which `subject` stands for."""
        assert self.predictor is not None
        assert self._refiner is not None
        results = yield from self._refiner.refine_job(
            self.predictor, question.prompts, subject, dict(question.choices)
        )
        return Answer(
            tuple(result.mask for result in results),
            tuple(result.score for result in results),
            " ".join(filter(None, [self._remark, self.predictor.note])),
            tuple(result.choice for result in results),
            tuple(result.count for result in results),
        )

    def _beside(self, question: Question) -> Job[Predictor]:
        """A predictor of the question's image that leaves the plane of the clicks alone."""
        yield from import_torch_job()
        yield from self._loading(question.model)
        assert self.predictor is not None
        yield from self._opening(question)
        return self.predictor.sibling()

    def _loading(self, chosen: ChosenModel) -> Job[None]:
        if self.predictor is not None and chosen == self._model:
            return
        from napari_simmat.checkpoints.loading import load_model_job
        from napari_simmat.engine.predictor import Predictor
        from napari_simmat.engine.refinement import Refiner

        self.forget()  # two networks at a time may be too much for the memory
        model = yield from load_model_job(chosen.reference)
        self.predictor = Predictor(model, cache=self.cache)
        self._refiner = Refiner()
        self._model = chosen

    def _opening(self, question: Question) -> Job[None]:
        """Make the question's image the predictor's."""
        predictor, image = self.predictor, question.image
        assert predictor is not None
        if self._image != image.token:
            self._image = None
            yield from self._handing(predictor, image)
            self._image = image.token
        if self._subject != question.subject:
            self._remark = remark(predictor.stack.plane(question.plane))
            self._subject = question.subject

    def _handing(self, predictor: Predictor, image: ImageValue) -> Job[None]:
        """Make an image a predictor's; nothing of it is encoded yet."""
        statistics = yield from self._measuring(image)
        yield from predictor.open_image_job(
            image.arrays,
            names=image.names,
            statistics=statistics,
            pixel_size=image.pixel_size,
        )

    def _measuring(self, image: ImageValue) -> Job[Statistics]:
        """The numbers of the normalisation: measured once per image, however it is seen."""
        assert self.predictor is not None
        model, whole = self.predictor.model, image.usual
        key = (model.fingerprint, *whole.token)
        if key not in self._statistics:
            stack = ChannelStack.build(whole.arrays, inputs=model.spec.inputs, names=whole.names)
            self._statistics[key] = yield from stack.measure_job()
        return self._statistics[key]


def remark(values: np.ndarray) -> str:
    """What the user should know about a plane's raw values (C, Y, X), or empty."""
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() == finite.max():
        return f"Every pixel here is {finite[0]:g}, so there is nothing to tell apart."
    missing = values.size - finite.size
    if missing:
        share = max(1, round(100 * missing / values.size))
        return f"{share} % of the values are NaN or infinite and count as the lowest."
    return ""


# Questions to the worker: the newest counts, what it says comes back on the main thread.


class Answering(QObject):
    """Owns the worker and the model in it."""

    progressed = Signal(object)
    """A `Status` of the work that goes on."""
    glimpsed = Signal(object, object)
    """The `Question`, and a first `Answer` from a coarse encoding: to look at, not to keep."""
    answered = Signal(object, object, float)
    """The `Question`, its `Answer`, and the seconds it took."""
    failed = Signal(str)
    """Why there is no answer, in one sentence."""

    _seen_coarsely = Signal(object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.worker = Worker()
        self.segmenter = Segmenter()
        self.question: Question | None = None
        self._task: WorkerTask | None = None
        queued = Qt.ConnectionType.QueuedConnection
        self._seen_coarsely.connect(self._on_seen_coarsely, queued)
        self.worker.progressed.connect(self._on_progress, queued)
        self.worker.returned.connect(self._on_returned, queued)
        self.worker.failed.connect(self._on_failed, queued)

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self._task is not None

    def ask(self, question: Question) -> None:
        """Ask, in place of what was asked before."""
        before = self.question
        if self._task is not None and before is not None:
            if before.subject != question.subject:
                self._task.cancel()
            elif not question.prompts and not before.prompts:
                return  # it is being made ready already
        self.question = question
        name = "Segmenting" if question.prompts else "Getting ready"
        self._task = self.worker.submit(
            name,
            lambda: self.segmenter.answering(
                question,
                glimpsed=lambda answer: self._seen_coarsely.emit(question, answer),
                # Where the newest question is about the same plane, it goes on with its encoding.
                wanted=lambda: self.question is question,
            ),
        )
        self.progressed.emit(Status("working", name))

    def drop(self) -> None:
        """Want no answer any more; the window is free at once."""
        self.worker.cancel_all(most=0)
        self._task = None

    def close(self) -> None:
        """Cancel everything and let the thread end."""
        self.drop()
        self.worker.close()

    def _on_progress(self, task: WorkerTask, progress: Progress) -> None:
        # An earlier click of the same image may still be encoding it: that is what is waited for.
        if self._task is not None and not task.cancelled and task.rank == 0:
            fraction = progress.done / progress.total if progress.total else None
            text = progress.message[:1].upper() + progress.message[1:]
            self.progressed.emit(Status("working", text or task.name, fraction))

    def _on_seen_coarsely(self, question: Question, answer: Answer) -> None:
        if self._task is not None and question is self.question:
            self.glimpsed.emit(question, answer)

    def _on_returned(self, task: WorkerTask, answer: Answer) -> None:
        if task is self._task:
            self._task = None
            self.answered.emit(self.question, answer, time.monotonic() - task.since)

    def _on_failed(self, task: WorkerTask, reason: str) -> None:
        if task is self._task:
            self._task = None
            self.failed.emit(reason)
