"""Learning from the objects of an image in the background, and what was learned.

The job has a worker thread and a copy of the model of its own: clicks are predicted meanwhile.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xxhash
from napari.layers import Shapes
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_simmat.checkpoints import library, registry
from napari_simmat.engine.outlines import shape_mask
from napari_simmat.io.files import sessions_folder, sha256_of
from napari_simmat.models.spec import ModelSpec
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.layer_data import ImageValue
from napari_simmat.widgets.segment.autosave import Autosave
from napari_simmat.widgets.segment.inference import ChosenModel, InferenceQueue
from napari_simmat.widgets.segment.label_editor import LabelEditor
from napari_simmat.widgets.segment.prompt_state import Plane
from napari_simmat.widgets.segment.session import ImageSession
from napari_simmat.widgets.segment.session_file import (
    LOST,
    LearnedModel,
    learned_file,
    learning_folder,
    learning_folders,
)
from napari_simmat.widgets.segment.workspace import Workspace
from napari_simmat.widgets.worker import BackgroundJob, Worker, import_torch_job, no_old_garbage

if TYPE_CHECKING:
    from napari_simmat.checkpoints.registry import ModelEntry
    from napari_simmat.engine.image_stack import ChannelStack
    from napari_simmat.training.adapting import FewShotConfig
    from napari_simmat.training.annotations import AnnotatedPlane
    from napari_simmat.training.few_shot import FewShotResult

_BEHIND = 1
"""Keeping a model goes before learning another."""
MIN_OBJECTS = 3
"""As `training.few_shot.MIN_OBJECTS`, whose import loads torch."""
MOST_OBJECTS = 40
"""Of a stack with more objects, planes spread evenly are learned from."""
CANCELED = "Learning canceled; nothing changed. With the same objects it goes on from there."
NOT_LOGGED = "Nothing can be learned, since {} cannot be written: what is learned is kept there."
ADD_FIRST = (
    "Add {name} to your models first (⋯ beside the list of models): what is learned refers to it."
)
KEPT = "Kept as {}: it is in the list of models, also of the Batch tab."
WITHOUT_REGION = "{} has no shape on a plane with objects: draw one around what is labeled."

Labels = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class LearnRequest:
    """What is to be learned from.

    Parameters
    ----------
    model
        The model that the user chose.
    image
        The channels to learn from, in the usual view.
    name
        Of the image.
    planes
        Index and labels (Y, X) of each plane with objects, and where all of its objects are
        labeled: everywhere (True), nowhere for sure (False), or by a mask (Y, X).
    objects
        Size of each object by its number.
    all_channels
        Whether these are all channels of the image, rather than those that the model reads.
    start
        What was learned before, to go on from.
    """

    model: ChosenModel
    image: ImageValue
    name: str
    planes: tuple[tuple[Plane, Labels, bool | NDArray[np.bool_]], ...]
    objects: Mapping[int, int]
    all_channels: bool = False
    start: LearnedModel | None = None

    def digest(self, planes: Sequence[AnnotatedPlane], config: FewShotConfig) -> str:
        """Of what the result depends on: an interrupted learning of the same goes on."""
        state = xxhash.xxh3_128(repr((self.model, self.start, config)).encode())
        for plane in planes:
            state.update(repr((plane.channels, plane.pixel_size)).encode())
            for array in (plane.values, plane.labels, plane.complete):
                state.update(np.ascontiguousarray(array).data)
        return state.hexdigest()[:8]


class Learned(NamedTuple):
    """The outcome: what the core says, and what to use from now on, if anything."""

    result: FewShotResult
    model: LearnedModel | None


class Learning(QObject):
    """Learns from the objects of an image; what was learned belongs to its session.

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

    def __init__(self, workspace: Workspace, inference: InferenceQueue, autosave: Autosave) -> None:
        super().__init__(workspace)
        self._workspace, self._autosave = workspace, autosave
        self.worker = Worker("simmat-learning")
        self.config: FewShotConfig | None = None
        self.progress: Progress | None = None
        self._session: ImageSession | None = None
        self._sentence = ""
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
        self._job.cancel()
        self._keeping.cancel()
        self.worker.close()

    # ------------------------------------------------------------------ the user's actions

    def start(self, request: LearnRequest) -> None:
        """Learn on the current image, in place of what is being learned."""
        workspace, session = self._workspace, self._workspace.session
        assert session is not None
        if problem := _base_problem(request.model):
            workspace.fail(problem)
            return
        path = self._autosave.path(session)
        if path is None:
            workspace.fail(NOT_LOGGED.format(sessions_folder()))
            return
        self._session, self.progress = session, Progress(0, 1, "loading the model")
        config = self.config
        self._job.start("Learning", lambda: learn_job(request, path, config))
        self.changed.emit()

    def cancel(self) -> None:
        """Stop learning; the window is free at once."""
        if self._job.cancel():
            self.progress = self._session = None
            self._workspace.say(CANCELED, "canceled")
            self.changed.emit()

    def show(self, after: bool) -> None:
        """Predict on the current image with what was learned, or as before."""
        session = self._workspace.session
        if session is not None and session.shows_learned != after:
            session.shows_learned = after
            self._workspace.model_changed.emit()
            self.changed.emit()

    def keep(self, name: str) -> None:
        """Make what was learned on the current image a model of the user's own."""
        session = self._workspace.session
        if session is not None and session.learned is not None:
            path = file_of(session.learned)
            self._keeping.start("Keeping", lambda: _keep_job(path, name))

    # ------------------------------------------------------------------ what was learned

    def model_of(self, session: ImageSession | None, chosen: ChosenModel) -> LearnedModel | None:
        """What was learned on the chosen model in a session, if that is to be used."""
        learned = None if session is None else session.learned
        if learned is None or learned.base != base_name(chosen):
            return None
        return learned

    def adapted(self, learned: LearnedModel, chosen: ChosenModel) -> tuple[ChosenModel, ModelSpec]:
        """The model to predict with in place of the chosen one, and its description.

        Raises
        ------
        ValueError, OSError
            If the file cannot be used any more.
        """
        entry = registry.find_model(file_of(learned))
        if entry.spec is None or entry.path is None:
            raise ValueError(LOST)
        return chosen._replace(reference=entry.path, changed=entry.changed), entry.spec

    def forget(self, session: ImageSession) -> None:
        """Drop what was learned, since its file is gone."""
        session.learned = None
        self._autosave.note_learned(session, None)
        self._workspace.fail(LOST)
        self.changed.emit()

    def interrupted(self, session: ImageSession) -> bool:
        """Whether a learning on this image was interrupted by a crash or by closing it."""
        path = self._autosave.path(session) if self._autosave.has_file(session) else None
        return path is not None and bool(learning_folders(path))

    # ------------------------------------------------------------------ the worker

    def _on_progress(self, progress: Progress) -> None:
        self.progress = progress
        self.progressed.emit(progress)

    def _on_learned(self, learned: Learned) -> None:
        session, self._session, self.progress = self._session, None, None
        sentence = learned.result.sentence
        if session is not None and learned.model is not None:
            session.learned, session.shows_learned = learned.model, True
            self._autosave.note_learned(session, learned.model)
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

    def _on_closed(self, session: ImageSession) -> None:
        if session is self._session and self._job.cancel():
            self._session = self.progress = None
            self.changed.emit()


def base_name(chosen: ChosenModel) -> str:
    """Name of a model, of an opened file without its folder."""
    return Path(chosen.reference).name


def file_of(learned: LearnedModel) -> Path:
    """The checkpoint that holds what was learned."""
    return sessions_folder() / Path(learned.file).name


def spec_of(spec: ModelSpec, channels: Sequence[str]) -> ModelSpec:
    """The description of a foundation with a transfer layer for other channels."""
    like = spec.channels[0]
    named = tuple(replace(like, name=name) for name in channels)
    return replace(spec, channels=named, transfer="simmat")


def new_objects(editor: LabelEditor | None, learned: LearnedModel | None) -> int:
    """Number of masks that can be learned from and have not been yet.

    An object counts once for each plane; one whose size has changed is new.
    """
    if learned is None:
        return 0 if editor is None else sum(editor.masks_on_planes().values())
    assert editor is not None
    index, known, count = editor.register.index, learned.objects, 0
    for label, size in index.sizes().items():
        if known.get(label) != size:
            low, high = index.box(label)
            count += int(np.prod(np.subtract(high, low)[:-2], dtype=int))
    return count


def labeled_planes(editor: LabelEditor, most: int = MOST_OBJECTS) -> list[tuple[Plane, Labels]]:
    """Index and a copy of the labels (Y, X) of the planes with objects.

    If they have more than `most` objects, so many planes, spread evenly, as show about as many.
    """
    counts = editor.masks_on_planes()
    step = max(1, round(sum(counts.values()) / most))
    planes = [(plane, np.array(editor.layer.data[plane])) for plane in sorted(counts)[::step]]
    return [(plane, labels) for plane, labels in planes if labels.any()]


def learn_request(
    session: ImageSession,
    chosen: ChosenModel,
    image: ImageValue,
    labeled_within: Shapes | bool,
    point: Sequence[float],
    *,
    all_channels: bool,
) -> LearnRequest:
    """A request to learn from the objects of a session, and from those learned from before.

    Parameters
    ----------
    session
        Of the image; it has objects.
    chosen
        The model.
    image
        The channels to learn from.
    labeled_within
        Where all objects are labeled: within a layer's shapes, everywhere, or nowhere for sure.
    point
        The viewer's; it gives the plane of a layer with fewer axes.
    all_channels
        Whether these are all channels of the image.

    Raises
    ------
    ValueError
        If no shape lies on a plane with objects.
    """
    editor, before = session.editor, session.learned
    assert editor is not None
    labeled = labeled_planes(editor)
    indices = [plane for plane, _ in labeled]
    complete: Sequence[bool | NDArray[np.bool_]]
    if isinstance(labeled_within, bool):
        complete = [labeled_within] * len(indices)
    else:
        complete = within_shapes(labeled_within, session, indices, point)
    goes_on = before is not None and before.base == base_name(chosen)
    goes_on = goes_on and before is not None and before.all_channels == all_channels
    planes = tuple((*each, where) for each, where in zip(labeled, complete, strict=True))
    return LearnRequest(
        chosen,
        image.seen((), session.geometry.usual.spacing),
        session.geometry.name,
        planes,
        editor.register.index.sizes(),
        all_channels,
        before if goes_on else None,
    )


def within_shapes(
    layer: Shapes, session: ImageSession, planes: Sequence[Plane], point: Sequence[float]
) -> list[NDArray[np.bool_]]:
    """For each plane of the usual view, a mask (Y, X) of the shapes of a layer on it.

    Raises
    ------
    ValueError
        If none lies on any of the planes.
    """
    geometry = session.geometry.usual
    masks = [np.zeros(geometry.shape[-2:], bool) for _ in planes]
    for kind, vertices in zip(layer.shape_type, layer.data, strict=True):
        corners = geometry.from_layer(layer, vertices, point)
        plane = tuple(int(index) for index in np.round(corners[0, :-2]))
        if plane in planes:
            masks[planes.index(plane)] |= shape_mask(kind, corners[:, -2:], geometry.shape[-2:])
    if not any(mask.any() for mask in masks):
        raise ValueError(WITHOUT_REGION.format(layer.name))
    return masks


def learn_job(
    request: LearnRequest, session_file: Path, config: FewShotConfig | None
) -> Job[Learned]:
    """Load a model of its own, and adapt it to the objects of a request.

    What was learned is written beside the session's file. The state of an interrupted learning is
    kept there too.
    """
    yield from import_torch_job()
    with no_old_garbage():
        return (yield from _learn_job(request, session_file, config))


def _learn_job(
    request: LearnRequest, session_file: Path, config: FewShotConfig | None
) -> Job[Learned]:
    from napari_simmat.checkpoints.loading import load_model_job
    from napari_simmat.training.adapting import FewShotConfig, LearnedState
    from napari_simmat.training.annotations import AnnotatedPlane
    from napari_simmat.training.few_shot import learn_objects_job

    config = config or FewShotConfig()
    with _a_core_for_the_window():
        start = None if request.start is None else LearnedState.load(file_of(request.start))
        base = yield from load_model_job(request.model.reference)
        stack, dead = _channels(request, base.spec, start and start.spec)
        yield from stack.measure_job()
        planes = [
            AnnotatedPlane.of(stack, labels, plane, complete, request.name, dead)
            for plane, labels, complete in request.planes
        ]
        digest = request.digest(planes, config)
        folder = learning_folder(session_file, digest)
        for other in learning_folders(session_file):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        result = yield from learn_objects_job(
            base, planes, config, start=start, folder=folder, device=request.model.device
        )
    if result.learned is None:
        shutil.rmtree(folder, ignore_errors=True)
        return Learned(result, None)
    path = learned_file(session_file, digest)
    result.learned.save(path)
    # The folder stays until the session's file names the checkpoint.
    model = LearnedModel(
        path.name,
        sha256_of(path),
        base_name(request.model),
        result.sentence,
        dict(request.objects),
        request.all_channels,
    )
    return Learned(result, model)


def _channels(
    request: LearnRequest, spec: ModelSpec, start: ModelSpec | None
) -> tuple[ChannelStack, tuple[str, ...]]:
    """The channels to learn from, and the names of those that are left out as dead."""
    from napari_simmat.engine.image_stack import ChannelStack
    from napari_simmat.training.annotations import live_stack

    image, size = request.image, request.image.pixel_size
    if request.all_channels and start is None:
        return live_stack(image.all_arrays, image.names or (), spec.normalization, size)
    inputs = spec.inputs if start is None or not request.all_channels else start.inputs
    stack = ChannelStack.build(image.arrays, inputs=inputs, names=image.names, pixel_size=size)
    return stack, ()


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


def _base_problem(chosen: ChosenModel) -> str | None:
    """Why nothing can be learned on a model: a foundation is found again only in the list."""
    if not isinstance(chosen.reference, Path):
        return None
    entry = registry.find_model(chosen.reference)
    listed = {each.path for each in registry.list_models()}
    if entry.spec is not None and entry.spec.is_foundation and entry.path not in listed:
        return ADD_FIRST.format(name=entry.name)
    return None
