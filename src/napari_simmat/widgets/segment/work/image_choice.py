"""Which image and which channels are chosen, as layers, files and what is in sight change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject, Signal
from superqt.utils import signals_blocked

from napari_simmat.annotation.channel_choice import LayerChannel
from napari_simmat.engine.channels.ranking import RankedPlane, rank_channels_job
from napari_simmat.engine.channels.registration import register_channels_job
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.channels_form import ChannelsForm
from napari_simmat.widgets.layer_data import (
    CHANNEL,
    ImageWatch,
    displayed_sources,
    layer_info,
    layer_key,
    name_first_axis,
    ranked_array,
)
from napari_simmat.widgets.readers import FILES
from napari_simmat.widgets.segment.form.form_choice import FormChoice
from napari_simmat.widgets.segment.layers.images_in_view import (
    DIM,
    image_before,
    is_black,
    stretch,
)
from napari_simmat.widgets.segment.work.workspace import Workspace
from napari_simmat.widgets.worker import BackgroundJob, Worker, later

_RANK = 4
"""Behind everything that the user asks for."""
_TIFF = (".tif", ".tiff")


class ImageChoice(QObject):
    """Keeps the form of channels in step with the open images.

    It also names the axes of TIFFs that napari's own reader opened, and tells the form which
    channels have the clearest structure and which are displayed.

    Parameters
    ----------
    workspace
        The open images.
    worker
        Files and pixels are read in its thread.

    Attributes
    ----------
    form
        The form of channels.
    current
        Returns what the whole tab chooses.
    is_held
        Whether the chosen image must stay, whatever comes in sight.
    watch
        Counts how often data were replaced.
    """

    changed = Signal()
    """What is chosen may have changed."""

    def __init__(
        self,
        workspace: Workspace,
        form: ChannelsForm,
        worker: Worker,
        current: Callable[[], FormChoice],
        is_held: Callable[[], bool],
    ) -> None:
        super().__init__(workspace)
        self._workspace, self._viewer, self.form = workspace, workspace.viewer, form
        self.current, self.is_held = current, is_held
        self.watch = ImageWatch(self)
        self._later = later(self, self.read)
        events = workspace.viewer.layers.events
        self._events = [events.inserted, events.removed, events.renamed, events.reordered]
        self._front: Image | None = None
        self._inserted = False
        self._asked: set[str] = set()
        self._ranked: tuple[str, int] = "", 0
        self._naming = BackgroundJob(worker, _RANK, self)
        self._ranking = BackgroundJob(worker, _RANK, self)
        self._reading: Image | None = None
        self._measured = ""
        self._measuring = BackgroundJob(worker, _RANK, self)
        self._measuring.returned.connect(lambda px: self.form.show_apart(self._measured, px))
        self._naming.returned.connect(self._on_axes)
        self._ranking.returned.connect(self._on_ranked)
        for event in self._events:
            event.connect(self.read_later)
        workspace.viewer.dims.events.current_step.connect(self._show_displayed)
        for signal, slot in (
            (self.watch.changed, self.read_later),
            (workspace.image_wanted, self._on_wanted),
            (form.changed, self._on_image),
            (form.first_axis_named, self._on_first_axis),
            (form.displayed_wanted, self._use_displayed),
        ):
            signal.connect(slot)

    @property
    def busy(self) -> bool:
        """Whether layers, files or pixels are to be read."""
        return (
            self._later.isActive()
            or self._naming.busy
            or self._ranking.busy
            or self._measuring.busy
        )

    @property
    def is_behind(self) -> bool:
        """Whether layers have changed that are not read yet."""
        return self._later.isActive()

    def release(self) -> None:
        """Stop reading, and stop following the viewer."""
        self._later.stop()
        self._naming.cancel()
        self._ranking.cancel()
        self._measuring.cancel()
        for event in self._events:
            event.disconnect(self.read_later)
        self._viewer.dims.events.current_step.disconnect(self._show_displayed)
        self.watch.follow([])

    def read_later(self, event: Any = None, pause: int = 0) -> None:
        """Read the layers in the next turn of the event loop, or after a pause in ms."""
        if getattr(event, "type", "") == "inserted":
            self._inserted = self._inserted or isinstance(event.value, Image)
        self._later.start(pause)

    def read(self) -> None:
        """List the open images, and follow what is in sight."""
        self.list_images()
        self.follow_sight()
        self._name_axes()
        if self._inserted:
            self._inserted = False
            self._workspace.raise_layers()

    def choose(self, sources: Sequence[LayerChannel | None]) -> None:
        """Choose channels as by hand, also of layers that were added just now."""
        self.list_images()
        self.form.set_value(sources)

    def list_images(self) -> None:
        """List the open images; none is chosen instead of another."""
        images, active = self._workspace.images, self._viewer.layers.selection.active
        self.watch.follow(images)
        preferred = layer_key(active) if active in images else None
        with signals_blocked(self.form):
            self.form.set_layers([layer_info(layer) for layer in images], preferred)

    def follow_sight(self) -> None:
        """Choose the image that has come in front of the chosen one.

        One that is held stays chosen although another hides it.
        """
        front = self._in_front()
        if front is not self._front and not self.is_held():
            self._front = front
            if front is not None and self.form.follow(layer_key(front)):
                self._front = self._in_front()
        self._note()

    def _in_front(self) -> Image | None:
        return image_before(self._viewer, self.current().layers)

    def _note(self) -> None:
        """Tell what is chosen now, and find out about its channels."""
        self.changed.emit()
        self._rank()
        self._show_displayed()

    def _on_image(self) -> None:
        """The user chose an image: if it is out of sight, it comes to the front."""
        self._front = self._in_front()
        self._note()
        chosen = [layer for layer in self._workspace.images if self._workspace.is_used(layer)]
        if chosen and (self._front is not None or not any(layer.visible for layer in chosen)):
            self._workspace.show_image()
            self._front = self._in_front()

    def _on_wanted(self, image: Image, *, recalls: bool = True) -> None:
        if self.form.follow(layer_key(image), recalls=recalls):
            self._on_image()

    def _on_first_axis(self, key: str, channels: bool) -> None:
        """The user says whether an image's first axis is channels."""
        [image] = [image for image in self._workspace.images if layer_key(image) == key]
        name_first_axis(image, channels)
        self.read()
        self._on_wanted(image, recalls=channels)

    def _rank(self) -> None:
        inputs, value = self.form.inputs, self.form.value()
        key = value[0].layer if value and value[0] is not None else ""
        images = self._workspace.images
        layer = next((each for each in images if layer_key(each) == key), None)
        if layer is None or inputs is None or not inputs.is_rgb:
            return
        info = layer_info(layer)
        version = (key, self.watch.versions.get(key, 0))
        if info.channels_first and info.shape[0] > 3 and self._ranked != version:
            self._ranked = version
            array = ranked_array(layer)
            self._ranking.start("Comparing channels", lambda: rank_channels_job(array))

    def _name_axes(self) -> None:
        for layer in self._workspace.images if not self._naming.busy else ():
            path = Path(layer.source.path or "")
            known = layer_key(layer) in self._asked or layer_info(layer).named
            if not known and layer.ndim > 2 and path.suffix.lower() in _TIFF:
                self._asked.add(layer_key(layer))
                self._reading = layer
                self._naming.start("Reading axes", lambda path=path: _axes_job(path))
                return

    def _on_axes(self, found: tuple[str, tuple[int, ...]] | None) -> None:
        layer, self._reading = self._reading, None
        if found is not None and layer in self._viewer.layers:
            axes, shape = found
            own = layer.data[0] if layer.multiscale else layer.data
            if tuple(own.shape) == shape and not layer.rgb:
                named = {each: each.lower() for each in "TZYX"} | {"C": CHANNEL}
                pairs = zip(axes, layer.axis_labels, strict=True)
                layer.axis_labels = [named.get(letter, label) for letter, label in pairs]
                session, chosen = self._workspace.session, self.current().layers
                begun = session is not None and bool(len(session.history))
                self.read()
                if axes[0] == "C" and layer_key(layer) in chosen and not begun:
                    self._on_wanted(layer)
        self._name_axes()

    def _on_ranked(self, ranked: list[RankedPlane]) -> None:
        self.form.set_ranked(self._ranked[0], ranked)
        session = self._workspace.session
        is_begun = session is not None and (len(session.history) > 0 or bool(session.drafts))
        if not is_begun and not self.is_held():
            self.form.propose()
            self._show_on_canvas()
        self._show_displayed()
        self._measure_bands()

    def _measure_bands(self) -> None:
        """Look how far the chosen channels lie apart, if each is the file of a sensor."""
        sources = list(dict.fromkeys(each for each in self.form.value() if each is not None))
        images = {layer_key(layer): layer for layer in self._workspace.images}
        layer = images.get(sources[0].layer) if sources else None
        of_one = len({each.layer for each in sources}) == 1 and len(sources) > 1
        if layer is None or not of_one or len(layer.metadata.get(FILES, ())) < 2:
            return
        array, parts = ranked_array(layer), [each.part for each in sources]
        if None not in parts:
            self._measured = layer_key(layer)
            self._measuring.start("Comparing bands", lambda: _apart_job(array, parts))

    def _show_on_canvas(self) -> None:
        """Show one of the chosen channels, if the canvas shows another one of the same layer."""
        chosen = [each for each in self.form.value() if each is not None and each.part is not None]
        images = {layer_key(layer): layer for layer in self._workspace.images}
        layer = images.get(chosen[0].layer) if chosen else None
        if layer is None or layer.rgb or not layer_info(layer).channels_first:
            return
        dims = self._viewer.dims
        axis = dims.ndim - layer.ndim
        parts = [each.part for each in chosen if each.layer == chosen[0].layer]
        if axis not in dims.displayed and dims.current_step[axis] not in parts:
            dims.set_current_step(axis, parts[0])
            stretch(layer)
        elif is_black(layer, DIM):
            stretch(layer)

    def _displayed(self) -> tuple[Any, ...]:
        inputs = self.form.inputs
        if inputs is None or not inputs.is_rgb:
            return ()
        chosen = {each.layer for each in self.form.value() if each is not None}
        return displayed_sources(self._workspace.images, chosen, self._viewer.dims)

    def _show_displayed(self, *_: object) -> None:
        self.form.show_displayed(self._displayed())

    def _use_displayed(self) -> None:
        if sources := self._displayed():
            self.form.set_value(sources)


def _apart_job(array: Any, parts: Sequence[int]) -> Job[float]:
    """How many pixels some channels (C, ..., Y, X) lie apart at most, on the middle plane."""
    middle = tuple(size // 2 for size in array.shape[1:-2])
    planes = [np.asarray(array[(part, *middle)]) for part in parts]
    motions = yield from register_channels_job(planes)
    shifts = [each.shift(planes[0].shape) for each in motions if each.is_sure]
    return max((math.hypot(*shift) for shift in shifts), default=0.0)


def _axes_job(path: Path) -> Job[tuple[str, tuple[int, ...]] | None]:
    """The axes of a TIFF and its shape, from its header; None if they are not known."""
    yield Progress(0, 1, "reading axes")
    from napari_simmat.io.readers import read_image

    try:
        file = read_image(path, lazy_above=0)
    except (ValueError, OSError):
        return None  # napari has opened it all the same
    return file.axes, tuple(file.data.shape)
