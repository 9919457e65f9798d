"""What layers need before they are used: their levels, channels in front, the same voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject

from napari_simmat.io.reference import resample_job
from napari_simmat.io.tiff import has_levels
from napari_simmat.progress import Progress
from napari_simmat.widgets.layer_data import (
    channel_axis,
    channels_in_front,
    elsewhere_layers,
    layer_key,
)
from napari_simmat.widgets.placement import REFERENCE, ImageGeometry, image_shape, reference_of
from napari_simmat.widgets.readers import read_layers
from napari_simmat.widgets.segment.work.inference import InferenceQueue
from napari_simmat.widgets.segment.work.workspace import Workspace
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.worker import BackgroundJob, sentence

_RANK = 1
"""In the inference worker: after predictions."""
CHANNELS_ARE_PLANES = (
    "The channels of {image} count as planes, since {label} is its axis {axis}: move it to the "
    "front to use them together."
)
CHANNELS_LAST = (
    "The last axis of {image}, of length {count}, is its channels: move them to the front to use "
    "them together."
)
TAKEN_FOR_COLORS = (
    "napari takes the {count} channels of {image} for colors and transparency, mostly black: move "
    "them to the front to use them together."
)
MOVE_CHANNELS = "Move channels"
FLAT = "{file} is a pyramid, of which {image} shows the finest level alone: open it in levels."
OPEN_LEVELS = "Open its levels"
OTHER_PLACE = (
    "By their files {other} lies elsewhere in the patient than {first}, but pixels are combined by "
    "their index: resample it to the voxels of {first}."
)
RESAMPLE = "Resample to the first"
RESAMPLING = "Resampling {layer} to {first}"
RESAMPLED = "{layer} lies on the voxels of {first} now; where it does not reach, it has no data."
RESAMPLING_STOPPED = "Canceled: {layer} is as it was."
CHANGED_MEANWHILE = (
    "{layer} is as it was: it or {first} was changed or removed while it was resampled."
)


class Arrangement(NamedTuple):
    """Something that should be done to a layer: why, a button, and what the button does."""

    text: str
    offer: str
    act: Callable[[], object]


class LayerArrangement(QObject):
    """Proposes how layers should be arranged, and does it when the user agrees.

    Parameters
    ----------
    workspace
        The viewer and the status line.
    inference
        In its worker layers are resampled, after the predictions of the clicks.
    """

    def __init__(self, workspace: Workspace, inference: InferenceQueue) -> None:
        super().__init__(workspace)
        self._workspace, self._inference = workspace, inference
        self._resampling = BackgroundJob(inference.worker, _RANK, self)
        self._resampling.progressed.connect(self._on_progress)
        self._resampling.returned.connect(self._on_resampled)
        self._resampling.failed.connect(workspace.fail)
        self._layer: Image | None = None
        self._first: Image | None = None
        self._values: tuple[object, ...] = ()
        self._moved: Image | None = None
        self._in_levels: WeakKeyDictionary[Image, Path | None] = WeakKeyDictionary()
        workspace.subject_changed.connect(self._on_subject)

    @property
    def busy(self) -> bool:
        """Whether a layer is being resampled."""
        return self._resampling.busy

    def cancel(self) -> None:
        """Stop resampling; the layer stays as it is."""
        if self._resampling.cancel():
            text = RESAMPLING_STOPPED.format(layer=self._layer.name)
            self._workspace.status.emit(Status("canceled", text))

    def proposed(self, layers: Sequence[Image]) -> Arrangement | None:
        """What should be done to layers before they are used; None if nothing."""
        for layer in layers:
            if (path := self._file_in_levels(layer)) is not None:
                text = FLAT.format(file=path.name, image=layer.name)
                return Arrangement(text, OPEN_LEVELS, partial(self.open_levels, layer, path))
            axis = channel_axis(layer)
            if not axis:
                continue
            if axis == 2:
                count = (layer.data[0] if layer.multiscale else layer.data).shape[-1]
                text = TAKEN_FOR_COLORS if layer.rgb else CHANNELS_LAST
                text = text.format(image=layer.name, count=count)
            else:
                label = layer.axis_labels[axis]
                text = CHANNELS_ARE_PLANES.format(image=layer.name, label=label, axis=axis)
            return Arrangement(text, MOVE_CHANNELS, partial(self.move_channels, layer, axis))
        for other in elsewhere_layers(layers):
            first = layers[0]
            text = OTHER_PLACE.format(other=other.name, first=first.name)
            return Arrangement(text, RESAMPLE, partial(self.resample, other, first))
        return None

    def _file_in_levels(self, layer: Image) -> Path | None:
        """The file of a layer that another reader has opened without its levels; else None."""
        if layer not in self._in_levels:
            path = layer.source.path
            is_flat = path and not layer.multiscale and has_levels(Path(path))
            self._in_levels[layer] = Path(path) if is_flat else None
        return self._in_levels[layer]

    def open_levels(self, layer: Image, path: Path) -> None:
        """Replace a layer by the same image in levels; one that cannot be read is told of."""
        layers = self._workspace.viewer.layers
        try:
            [(data, options, _)] = read_layers(str(path))
        except (OSError, ValueError) as error:
            self._workspace.fail(sentence(error))
            return
        if layer in layers:
            whole = Image(data, **options | {"name": layer.name})
            self._replace(layer, whole)
            layers.selection.active = whole

    def move_channels(self, layer: Image, axis: int) -> None:
        """Replace a layer by a view of it with its channels in front."""
        viewer = self._workspace.viewer
        layers, step = viewer.layers, list(viewer.dims.current_step)
        if layer in layers:
            moved = channels_in_front(layer, axis)
            is_shown_alone = len(step) == layer.ndim == moved.ndim and axis < layer.ndim - 2
            self._replace(layer, moved)
            layers.selection.active = moved
            if is_shown_alone:  # the same plane of the same channel stays in sight
                viewer.dims.current_step = [step.pop(axis), *step]
            self._moved = moved

    def _on_subject(self) -> None:
        """Show all of an image whose channels were moved: the axes that it shows are others.

        Not before it is chosen: until then the layers of prompts lie along its old axes.
        """
        session, moved = self._workspace.session, self._moved
        if moved is not None and session is not None and layer_key(moved) in session.layers:
            self._moved = None
            self._workspace.viewer.reset_view()

    def resample(self, layer: Image, first: Image) -> None:
        """Replace a layer by its image on the voxels of another, once that is computed."""
        self._layer, self._first = layer, first
        self._values = values = _values(layer, first)
        data, world, onto, shape = values
        self._resampling.start(
            RESAMPLING.format(layer=layer.name, first=first.name),
            lambda: resample_job(np.asarray(data), world, onto, shape),
        )
        self._on_progress(Progress(0, 1))

    def _on_progress(self, progress: Progress) -> None:
        if not self._inference.busy:
            name = RESAMPLING.format(layer=self._layer.name, first=self._first.name)
            self._workspace.status.emit(Status("working", name, progress.fraction))

    def _on_resampled(self, data: np.ndarray) -> None:
        layer, first, layers = self._layer, self._first, self._workspace.viewer.layers
        names = {"layer": layer.name, "first": first.name}
        are_open = layer in layers and first in layers
        if not are_open or not all(map(_same, self._values, _values(layer, first))):
            self._workspace.fail(CHANGED_MEANWHILE.format(**names))
            return
        own = reference_of(layer)
        reference = replace(reference_of(first), missing=None, name=own.name, channels=own.channels)
        moved = Image(
            data,
            name=layer.name,
            colormap=layer.colormap,
            contrast_limits=layer.contrast_limits,
            blending=layer.blending,
            metadata={REFERENCE: reference},
            **ImageGeometry(first).layer_options(),
        )
        self._replace(layer, moved)
        self._workspace.say(RESAMPLED.format(**names))

    def _replace(self, layer: Image, other: Image) -> None:
        layers = self._workspace.viewer.layers
        index = layers.index(layer)
        layers.remove(layer)
        layers.insert(index, other)


def _values(layer: Image, first: Image) -> tuple[object, ...]:
    """What a resampled image depends on: its data, both places, and the shape that it gets."""
    return layer.data, reference_of(layer).world, reference_of(first).world, image_shape(first)


def _same(before: object, now: object) -> bool:
    return before is now or (isinstance(before, tuple) and before == now)
