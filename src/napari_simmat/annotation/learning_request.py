"""What a model is to learn from the objects of an image, and the job that learns it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from napari_simmat.annotation.image_session import ImageSession
from napari_simmat.annotation.image_value import ImageValue
from napari_simmat.annotation.label_editor import LabelEditor
from napari_simmat.annotation.predictions import ChosenModel
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.annotation.session_file import (
    beside,
    checkpoint_beside,
    image_of,
    learning_beside,
)
from napari_simmat.annotation.session_lines import AdaptedModelFile
from napari_simmat.io.files import sha256_of
from napari_simmat.models.spec import ModelSpec
from napari_simmat.progress import Job

if TYPE_CHECKING:
    from napari_simmat.engine.image_stack import ChannelStack
    from napari_simmat.training.adapting import FewShotConfig
    from napari_simmat.training.annotations import AnnotatedPlane
    from napari_simmat.training.few_shot import FewShotResult

MAX_OBJECTS = 40
"""Of a stack with more objects, planes spread evenly are learned from."""
Labels = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class AdaptRequest:
    """What a model is to be adapted to."""

    model: ChosenModel
    """The model that the user chose."""
    image: ImageValue
    """The channels to learn from, in the usual view."""
    name: str
    """Name of the image."""
    planes: tuple[tuple[Plane, Labels, bool | NDArray[np.bool_]], ...]
    """Index and labels (Y, X) of each plane with objects, and where all of its objects are labeled:
    everywhere (True), nowhere for sure (False), or by a mask (Y, X)."""
    objects: Mapping[int, int]
    """Size of each object by its number."""
    all_channels: bool = False
    """Whether these are all channels of the image, rather than those that the model reads."""
    start: AdaptedModelFile | None = None
    """The adapted model to go on from."""

    def digest(self, planes: Sequence[AnnotatedPlane], config: FewShotConfig) -> str:
        """Digest of what the result depends on: an interrupted learning of the same goes on."""
        state = xxhash.xxh3_128(repr((self.model, self.start, config)).encode())
        for plane in planes:
            state.update(repr((plane.channels, plane.pixel_size)).encode())
            for array in (plane.values, plane.labels, plane.complete):
                state.update(np.ascontiguousarray(array).data)
        return state.hexdigest()[:8]


class AdaptOutcome(NamedTuple):
    """What the core says, and the adapted model to use from now on, if any."""

    result: FewShotResult
    adapted: AdaptedModelFile | None


def base_name(chosen: ChosenModel) -> str:
    """Name of a model, of an opened file without its folder."""
    return Path(chosen.reference).name


def spec_of(spec: ModelSpec, channels: Sequence[str]) -> ModelSpec:
    """The description of a foundation with a transfer layer for other channels."""
    like = spec.channels[0]
    named = tuple(replace(like, name=name) for name in channels)
    return replace(spec, channels=named, transfer="simmat")


def labeled_planes(
    editor: LabelEditor, max_objects: int = MAX_OBJECTS
) -> list[tuple[Plane, Labels]]:
    """Index and a copy of the labels (Y, X) of the planes with objects.

    Of a stack with more than `max_objects`, only so many planes, spread evenly, as show about as
    many.
    """
    counts = editor.masks_on_planes()
    step = max(1, round(sum(counts.values()) / max_objects))
    planes = [(plane, np.array(editor.layer.data[plane])) for plane in sorted(counts)[::step]]
    return [(plane, labels) for plane, labels in planes if labels.any()]


def adapt_request(
    session: ImageSession,
    chosen: ChosenModel,
    image: ImageValue,
    complete_on: Callable[[Sequence[Plane]], Sequence[bool | NDArray[np.bool_]]],
    *,
    name: str = "image",
    all_channels: bool = False,
) -> AdaptRequest:
    """A request to learn from the objects of a session, and from those learned from before.

    Parameters
    ----------
    session, chosen
        Of the image, which has objects, and the model.
    image, all_channels
        The channels to learn from, in the usual view, and whether they are all of the image.
    complete_on
        Returns for each of some planes where all objects are labeled: everywhere (True), nowhere
        for sure (False), or by a mask (Y, X).
    name
        Of the image.
    """
    editor, before = session.editor, session.adapted
    assert editor is not None
    labeled = labeled_planes(editor)
    complete = complete_on([plane for plane, _ in labeled])
    learned = (base_name(chosen), all_channels)
    goes_on = before is not None and (before.base, before.all_channels) == learned
    return AdaptRequest(
        model=chosen,
        image=image,
        name=name,
        planes=tuple((*each, where) for each, where in zip(labeled, complete, strict=True)),
        objects=editor.register.index.sizes(),
        all_channels=all_channels,
        start=before if goes_on else None,
    )


def adapt_job(
    request: AdaptRequest, session_file: Path, config: FewShotConfig | None
) -> Job[AdaptOutcome]:
    """Load a copy of the model, and adapt it to the objects of a request.

    The adapted model is written beside the session's file. The state of an interrupted learning is
    kept there too, and so is what the request starts from. The tries are counted for the image that
    the file names, whichever session it is.
    """
    from napari_simmat.checkpoints.loading import load_model_job
    from napari_simmat.training.adapting import AdaptedCheckpoint, FewShotConfig
    from napari_simmat.training.annotations import AnnotatedPlane
    from napari_simmat.training.few_shot import learn_objects_job
    from napari_simmat.training.tries import Tries

    config = config or FewShotConfig()
    start = None
    if request.start is not None:
        before = session_file.with_name(Path(request.start.file).name)
        start = AdaptedCheckpoint.load(before)
    base = yield from load_model_job(request.model.reference)
    stack, dead = _channels(request, base.spec, None if start is None else start.spec)
    yield from stack.measure_job()
    planes = [
        AnnotatedPlane.of(stack, labels, plane, complete, request.name, dead)
        for plane, labels, complete in request.planes
    ]
    # An interrupted learning of the same goes on; the folders of others are removed.
    digest = request.digest(planes, config)
    folder = learning_beside(session_file, digest)
    for other in beside(session_file):
        if other != folder and other.is_dir():
            shutil.rmtree(other, ignore_errors=True)
    result = yield from learn_objects_job(
        base,
        planes,
        config,
        start=start,
        folder=folder,
        device=request.model.compute.device,
        tries=Tries.of(image_of(session_file)),
    )
    if result.checkpoint is None:
        shutil.rmtree(folder, ignore_errors=True)
        return AdaptOutcome(result, None)
    # The folder stays until the session's file names the checkpoint.
    path = checkpoint_beside(session_file, digest)
    result.checkpoint.save(path)
    name, objects = base_name(request.model), dict(request.objects)
    adapted = AdaptedModelFile(
        path.name, sha256_of(path), name, result.sentence, objects, request.all_channels
    )
    return AdaptOutcome(result, adapted)


def _channels(
    request: AdaptRequest, spec: ModelSpec, start: ModelSpec | None
) -> tuple[ChannelStack, tuple[str, ...]]:
    """The channels to learn from, and the names of those that are left out as dead."""
    from napari_simmat.engine.image_stack import ChannelStack
    from napari_simmat.training.annotations import live_stack

    image, size = request.image, request.image.pixel_size
    if request.all_channels and start is None:
        return live_stack(image.all_arrays, image.names or (), spec.normalization, size)
    inputs = spec.inputs if start is None or not request.all_channels else start.inputs
    stack = ChannelStack.build(
        image.arrays, inputs=inputs, channel_names=image.names, pixel_size=size
    )
    return stack, ()
