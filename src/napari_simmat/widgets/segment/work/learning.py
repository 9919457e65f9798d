"""A model adapted to an image: learned from its objects in the background.

The job has a worker thread and a copy of the model of its own: clicks are predicted meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np
from napari.layers import Shapes
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_simmat.annotation.history import Command
from napari_simmat.annotation.image_session import KindTaught
from napari_simmat.annotation.learning_request import (
    AdaptOutcome,
    AdaptRequest,
    adapt_job,
    adapt_request,
    base_name,
    spec_of,
)
from napari_simmat.annotation.predictions import ChosenModel
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.annotation.session_file import LOST, beside
from napari_simmat.annotation.session_lines import AdaptedModelFile
from napari_simmat.checkpoints import library, registry
from napari_simmat.io.files import user_folder
from napari_simmat.models.spec import ModelSpec
from napari_simmat.progress import Job, Progress
from napari_simmat.training.evidence import FEW
from napari_simmat.widgets.segment.form.form_choice import FormChoice
from napari_simmat.widgets.segment.form.learn_panel import AdaptPanelState
from napari_simmat.widgets.segment.layers.labeled_region import within_shapes
from napari_simmat.widgets.segment.layers.layer_editor import LayerEditor
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.work.autosave import Autosave
from napari_simmat.widgets.segment.work.inference import InferenceQueue
from napari_simmat.widgets.segment.work.workspace import Workspace, needs_image
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.torch_import import import_torch_job
from napari_simmat.widgets.worker import BackgroundJob, Worker, later

if TYPE_CHECKING:
    from napari_simmat.checkpoints.registry import ModelEntry
    from napari_simmat.engine.object_kind import ObjectKind
    from napari_simmat.training.adapting import FewShotConfig

_BEHIND = 1
"""Keeping a model goes before learning another."""
CANCELED = "Learning canceled; nothing changed. With the same objects it goes on from there."
NOT_LOGGED = "Cannot learn: the folder {} is not writable."
ADD_FIRST = (
    "Add {name} to your models first (⋯ beside the list of models): what is learned refers to it."
)
MAY_LEARN = (
    "The model can try to learn from these objects, in a minute or two; it says whether it helps."
)
LEARN = "Learn"
LEARNING = "Learning from these objects: {}"
KEPT = "Kept as {}: it is in the list of models, also of the Batch tab."


class Learning(QObject):
    """Adapts the model to the objects of an image; the adapted model belongs to its session.

    Attributes
    ----------
    worker
        The thread.
    config
        Settings; None for the defaults.
    progress
        The last `Progress` of the learning under way; None for none.
    """

    changed = Signal()
    """It began or ended, or what was learned is used, or is not any more."""
    progressed = Signal(object)
    """A `Progress` of learning."""
    wanted = Signal()
    """The user accepted the offer to learn."""

    def __init__(self, workspace: Workspace, inference: InferenceQueue, autosave: Autosave) -> None:
        super().__init__(workspace)
        self._workspace, self._autosave = workspace, autosave
        self.worker = Worker("simmat-learning")
        self.config: FewShotConfig | None = None
        self.progress: Progress | None = None
        self._session: LayerSession | None = None
        self._sentence = ""
        self._status = Status("nothing", "")
        self._offered: WeakSet[LayerSession] = WeakSet()
        self._tried: WeakSet[LayerSession] = WeakSet()  # learning was started on their objects
        self._offer_later = later(self, self._offer)
        workspace.status.connect(partial(setattr, self, "_status"))
        workspace.command_changed.connect(self._on_command)
        self._job = BackgroundJob(self.worker, _BEHIND, self)
        self._keeping = BackgroundJob(self.worker, parent=self)
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(self._on_learned)
        self._keeping.returned.connect(self._on_kept)
        self._job.failed.connect(self._on_failed)
        self._keeping.failed.connect(workspace.fail)
        workspace.session_closed.connect(self._on_closed)
        inference.predicted.connect(self._on_predicted)

    @property
    def busy(self) -> bool:
        """Whether it learns or keeps a model."""
        return self._job.busy or self._keeping.busy

    @property
    def learns(self) -> bool:
        """Whether it learns."""
        return self._job.busy

    def release(self) -> None:
        """Stop; an interrupted learning goes on when it is started again."""
        self._offer_later.stop()
        self._job.cancel()
        self._keeping.cancel()
        self.worker.close()

    # ------------------------------------------------------------------ the user's actions

    @needs_image
    def learn(
        self,
        session: LayerSession,
        choice: FormChoice,
        labeled_within: Shapes | bool,
        *,
        all_channels: bool,
    ) -> None:
        """Learn from the objects of the image, with the chosen channels or all of them."""
        workspace, spec = self._workspace, choice.spec
        if session.editor is None or spec is None or not workspace.has_pixels():
            return
        try:
            if all_channels:
                names, sources = zip(*choice.all_channels, strict=True)
                spec = spec_of(spec, names)
                choice = replace(choice, spec=spec, sources=sources, names=names)
            request = adapt_request(
                session,
                choice.model,
                choice.image.seen((), session.geometry.usual.spacing),
                lambda planes: self._labeled(session, labeled_within, planes),
                name=session.geometry.name,
                all_channels=all_channels,
            )
        except (ValueError, TypeError) as error:
            workspace.fail(str(error))
            return
        self.start(request)

    def _labeled(
        self, session: LayerSession, labeled_within: Shapes | bool, planes: Sequence[Plane]
    ) -> Sequence[bool | NDArray[np.bool_]]:
        """Where all objects of each plane are labeled; ValueError if no shape lies on any."""
        if isinstance(labeled_within, bool):
            return [labeled_within] * len(planes)
        point = self._workspace.viewer.dims.point
        return within_shapes(labeled_within, session.geometry, planes, point)

    def start(self, request: AdaptRequest) -> None:
        """Learn on the current image, in place of what is being learned."""
        workspace, session = self._workspace, self._workspace.session
        assert session is not None
        if problem := _base_problem(request.model):
            workspace.fail(problem)
            return
        path = self._autosave.path(session)
        if path is None:
            workspace.fail(NOT_LOGGED.format(user_folder("sessions")))
            return
        self._session, self.progress = session, Progress(0, 1, "loading the model")
        self._tried.add(session)
        config = self.config
        self._job.start("Learning", lambda: _adapt_job(request, path, config))
        text = LEARNING.format(self.progress.message)
        workspace.status.emit(Status("working", text, way_out="Cancel learning"))
        self.changed.emit()

    def cancel_shown(self) -> None:
        """Stop learning if that is what the status line shows."""
        if self._is_shown:
            self.cancel()

    def cancel(self) -> None:
        """Stop learning; the window is free at once."""
        if self._job.cancel():
            self.progress = self._session = None
            self._workspace.say(CANCELED, "canceled")
            self.changed.emit()

    @needs_image
    def show(self, session: LayerSession, after: bool) -> None:
        """Predict on the current image with the adapted model, or as before."""
        if session.shows_adapted != after:
            session.shows_adapted = after
            self._workspace.model_changed.emit()
            self.changed.emit()

    @needs_image
    def keep(self, session: LayerSession, name: str) -> None:
        """Make what was learned on the current image one of the user's own models.

        That is the model adapted to it, what *Everything* was taught of its objects, or both.
        """
        taught, adapted = self._taught(session), session.adapted
        if taught is not None:
            reference, kind = taught.model.reference, taught.kind
            self._keeping.start("Keeping", lambda: _keep_taught_job(reference, kind, name))
        elif adapted is not None:
            path = file_of(adapted)
            self._keeping.start("Keeping", lambda: _keep_job(path, name))

    def _taught(self, session: LayerSession) -> KindTaught | None:
        """The kind of objects that the model in use was taught on an image."""
        taught = session.taught
        return taught if taught is not None and taught.model == self._workspace.model else None

    # ------------------------------------------------------------------ the adapted model

    def model_of(
        self, session: LayerSession | None, chosen: ChosenModel
    ) -> AdaptedModelFile | None:
        """What the chosen model became by learning on a session's image; None if it did not."""
        adapted = None if session is None else session.adapted
        return adapted if adapted is not None and adapted.base == base_name(chosen) else None

    def applied(self, choice: FormChoice) -> FormChoice:
        """The choice with the model adapted to its image, if that is in use."""
        sessions, current = self._workspace.sessions, self._workspace.session
        session = sessions.find(choice.geometry, choice.layers, current)
        adapted = self.model_of(session, choice.model)
        if session is None or adapted is None or not session.shows_adapted:
            return choice
        try:
            model, spec = self.substitute(adapted, choice.model)
            substitute = replace(choice, model=model, spec=spec)
            if adapted.all_channels:
                names, named = tuple(spec.channel_names), dict(choice.all_channels)
                sources = tuple(named[name] for name in names)
                substitute = replace(substitute, sources=sources, names=names)
            assert substitute.image is not None  # or it raises
        except (ValueError, TypeError, OSError, KeyError):
            self.forget(session)
            return choice
        return substitute

    def substitute(
        self, adapted: AdaptedModelFile, chosen: ChosenModel
    ) -> tuple[ChosenModel, ModelSpec]:
        """The model to predict with in place of the chosen one, and its description.

        Raises
        ------
        ValueError, OSError
            If the file cannot be used any more.
        """
        entry = registry.find_model(file_of(adapted))
        if entry.spec is None or entry.path is None:
            raise ValueError(LOST)
        return chosen._replace(reference=entry.path, changed=entry.changed), entry.spec

    def forget(self, session: LayerSession) -> None:
        """Drop the adapted model, since its file is gone."""
        session.adapted = None
        self._autosave.log_adapted(session, None)
        self._workspace.fail(LOST)
        self.changed.emit()

    def state(self, choice: FormChoice) -> AdaptPanelState:
        """What there is to learn from, how far it is, and what came of it."""
        session = self._workspace.session
        if session is None or choice.spec is None:
            return AdaptPanelState()
        adapted = self.model_of(session, choice.model)
        channels = len(choice.all_channels)
        fewer = choice.spec.is_foundation and len(choice.spec.channels) < channels
        return AdaptPanelState(
            working=True,
            new=new_objects(session.editor, adapted),
            channels=channels if fewer else 0,
            takes_all=fewer and choice.sources[0].part is not None,
            progress=self.progress,
            adapted=adapted,
            shows_adapted=session.shows_adapted,
            taught=taught.text if (taught := self._taught(session)) is not None else "",
            interrupted=self.interrupted(session),
        )

    def interrupted(self, session: LayerSession) -> bool:
        """Whether a learning on this image was interrupted by a crash or by closing it."""
        path = self._autosave.path(session) if self._autosave.has_file(session) else None
        return path is not None and any(each.is_dir() for each in beside(path))

    # ------------------------------------------------------------------ the worker

    def _on_progress(self, progress: Progress) -> None:
        self.progress = progress
        self.progressed.emit(progress)
        idle = self._status.kind in ("nothing", "ready", "done") and not self._status.offer
        is_free = self._is_shown or idle
        if is_free and not self._workspace.prompted:
            text = LEARNING.format(progress.message)
            status = Status("working", text, progress.fraction, way_out="Cancel learning")
            self._workspace.status.emit(status)

    @property
    def _is_shown(self) -> bool:
        """Whether the status line shows that it learns."""
        working = self._status.kind == "working"
        return working and self._status.text.startswith(LEARNING.format(""))

    def _on_command(self, _: LayerSession, change: str, command: Command | None) -> None:
        if change == "do" and command is not None and command.edit is not None:
            self._offer_later.start()  # behind what the status line says about it

    @needs_image
    def _offer(self, session: LayerSession) -> None:
        """Offer to learn, if objects are committed that needed more than a click or a box.

        And so many that what is learned has a chance to show. The words are said once, the button
        stands beside each later commit until it has learned.
        """
        if session.editor is None or self._job.busy:
            return
        made = [entry.provenance for entry in session.editor.register.entries.values()]
        corrected = sum(
            any(each.prompts.count > 1 or each.choices for each in provenance)
            for provenance in made
        )
        said = self._status
        known = session in self._tried or session.adapted is not None
        if known or sum(map(bool, made)) < FEW or not corrected:
            return
        if said.kind == "done" and not said.offer and not session.prompt_state:
            text = said.text if session in self._offered else f"{said.text} {MAY_LEARN}"
            self._offered.add(session)
            status = replace(said, text=text, offer=LEARN)
            self._workspace.offer(status, self.wanted.emit)

    def _on_learned(self, outcome: AdaptOutcome) -> None:
        session, self._session, self.progress = self._session, None, None
        sentence = outcome.result.sentence
        if session is not None and outcome.adapted is not None:
            session.adapted, session.shows_adapted = outcome.adapted, True
            self._autosave.log_adapted(session, outcome.adapted)
            if session is self._workspace.session:
                self._sentence = sentence  # again, when masks of the new model replace it
            self._workspace.model_changed.emit()
        self._workspace.say(sentence)
        self.changed.emit()

    def _on_predicted(self, *_: object) -> None:
        sentence, self._sentence = self._sentence, ""
        if sentence:
            self._workspace.say(sentence)

    def _on_kept(self, entry: ModelEntry) -> None:
        self._workspace.models_changed.emit()
        self._workspace.say(KEPT.format(entry.name))
        self.changed.emit()

    def _on_failed(self, reason: str) -> None:
        self._session = self.progress = None
        self._workspace.fail(reason)
        self.changed.emit()

    def _on_closed(self, session: LayerSession) -> None:
        if session is self._session and self._job.cancel():
            self._session = self.progress = None
            self.changed.emit()


def file_of(adapted: AdaptedModelFile) -> Path:
    """The checkpoint of an adapted model."""
    return user_folder("sessions") / Path(adapted.file).name


def new_objects(editor: LayerEditor | None, adapted: AdaptedModelFile | None) -> int:
    """Number of masks that can be learned from and have not been yet.

    An object counts once for each plane; one whose size has changed is new.
    """
    if editor is None:
        return 0
    if adapted is None:
        return sum(editor.masks_on_planes().values())
    index, known, count = editor.register.index, adapted.objects, 0
    for label, size in index.sizes().items():
        if known.get(label) != size:
            low, high = index.box(label)
            count += int(np.prod(np.subtract(high, low)[:-2], dtype=int))
    return count


def _adapt_job(
    request: AdaptRequest, session_file: Path, config: FewShotConfig | None
) -> Job[AdaptOutcome]:
    yield from import_torch_job()
    with _a_core_for_the_window():
        return (yield from adapt_job(request, session_file, config))


@contextmanager
def _a_core_for_the_window() -> Iterator[None]:
    """Compute on one core less in this thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before - 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _keep_job(path: Path, name: str) -> Job[ModelEntry]:
    yield from import_torch_job()
    return (yield from library.import_file_job(path, name))


def _keep_taught_job(reference: str | Path, kind: ObjectKind, name: str) -> Job[ModelEntry]:
    yield from import_torch_job()
    from napari_simmat.checkpoints.teaching import keep_taught_job

    return (yield from keep_taught_job(reference, kind, name))


def _base_problem(chosen: ChosenModel) -> str | None:
    """Why nothing can be learned on a model: a foundation is found again only in the list."""
    if not isinstance(chosen.reference, Path):
        return None
    entry = registry.find_model(chosen.reference)
    listed = {each.path for each in registry.list_models()}
    if entry.spec is not None and entry.spec.is_foundation and entry.path not in listed:
        return ADD_FIRST.format(name=entry.name)
    return None
