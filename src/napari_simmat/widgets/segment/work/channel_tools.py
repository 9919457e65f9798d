"""What the model sees of the channels, channels derived from them, and their registration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QWidget,
)

from napari_simmat._text import format_list
from napari_simmat.annotation.channel_choice import (
    NO_IMAGE_OPEN,
    LayerChannel,
    LayerInfo,
    all_layer_channels,
    channel_names,
    matching_channels,
)
from napari_simmat.annotation.prompt_grouping import objects_on
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.engine.channel_influence import ChannelInfluence
from napari_simmat.engine.channels.derivation import DERIVATIONS, derive_channels
from napari_simmat.engine.channels.registration import (
    IDENTITY,
    ChannelMotion,
    Matrix,
    Motion,
    matrix_of_shift,
    move_channel,
    register_channels_job,
)
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.controls import ComboBox, text_label, vbox
from napari_simmat.widgets.layer_data import (
    as_dask,
    channel_array,
    image_geometry,
    layer_info,
    layer_key,
)
from napari_simmat.widgets.placement import REFERENCE, ImageGeometry, level_of
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.layers.outputs import SEEN, lower_onto_image
from napari_simmat.widgets.segment.work.image_choice import ImageChoice
from napari_simmat.widgets.segment.work.inference import InferenceQueue
from napari_simmat.widgets.segment.work.workspace import Workspace, needs_image, needs_plane
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.worker import BackgroundJob

_RANK = 1
"""Behind clicks."""
CHOOSE_CHANNEL = "choose a channel"
SEEING, DERIVING, REGISTERING = "Asking the model", "Deriving channels", "Registering channels"
SEEN_TEXT = f"{SEEN} shows the three channels that the foundation gets."
WITHOUT_OBJECT = "With an object open, it also says what each channel does for its mask."
STOPPED = "Stopped."
DERIVED = "{} added as layers of their own."
ONE_CHANNEL = "{} is one channel: registration needs two or more of one image, e.g. two sensors'."
ALL_FIT = "All channels lie on each other already: no shift makes their edges agree better."
REGISTERED = "{} moved and chosen; the layers they were made from are unchanged."
SHIFTED = "{name} moved {down:+g}, {right:+g}"
MOVED = "{name} moved"
SHIFTS = "Shifts of the channels"
SHIFTS_NOTE = (
    "Pixels down and right by which each channel moves, and how well its edges agree then."
)
MOTIONS = "Motions of the channels"
MOTIONS_NOTE = (
    "What each channel does in the middle of the image, and how far it lies from the first, before "
    "and after."
)
ASKED = "{}: OK adds the layers."
AGREES = "{:.2f} → {:.2f}"
APART = "{:.1f} → {:.1f} px"
NOT_FOUND = "stays: it shows too little of what the first shows"
FOCAL = "focal length in pixels"
KINECT_FOCAL = 0.81
"""Focal length of the color camera, onto which depth is registered, per pixel of width."""


class _Movable(NamedTuple):
    """A channel that registration may move."""

    source: LayerChannel
    array: Any
    """Its values (..., Y, X), numpy or lazy."""
    name: str
    matrix: Matrix = IDENTITY
    """As of `ChannelMotion`."""
    moved: str = ""
    """Name of the layer that shows it moved."""


class ChannelTools(QObject):
    """Shows what the model sees, derives channels and registers them.

    What it makes are new layers; those that they are made from stay as they are.

    Parameters
    ----------
    workspace, inference
        The image, and the worker.
    choice
        Which channels are chosen.
    parent
        Dialogs open above it.

    Attributes
    ----------
    dialog
        The last one.
    """

    influences = Signal(object)
    """A `ChannelInfluence` for each channel of the open object; empty without one."""

    def __init__(
        self, workspace: Workspace, inference: InferenceQueue, choice: ImageChoice, parent: QWidget
    ) -> None:
        super().__init__(parent)
        self._workspace = workspace
        self._inference = inference
        self._choice = choice
        self._window = parent
        self._then: Callable[[Any], object] = bool
        self._job = BackgroundJob(inference.worker, _RANK, self)
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(lambda result: self._then(result))
        self._job.failed.connect(workspace.fail)
        self.dialog: QDialog | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being computed."""
        return self._job.busy

    def cancel(self) -> None:
        """Stop, and add nothing."""
        if self._job.cancel():
            self._workspace.status.emit(Status("canceled", STOPPED))

    @needs_plane
    def see(self, session: LayerSession, plane: Plane) -> None:
        """Show what the foundation gets of the current plane, and what each channel does."""
        request = self._workspace.request()
        geometry = session.geometry
        objects = objects_on(session.prompt_state.on(plane), plane, geometry.shape[-2:])
        request = replace(request, objects=objects)
        choice = self._choice.current()
        infos = [layer_info(each) for each in self._images]
        names: tuple[str, ...] = ()
        if choice.spec is not None and choice.spec.is_rgb:  # else the model knows better
            names = channel_names(choice.sources, infos)

        def show(seen: tuple[np.ndarray, list[list[ChannelInfluence]]]) -> None:
            picture, influences = seen
            layers = self._workspace.viewer.layers
            before = layers.selection.active
            for layer in [layer for layer in layers if layer.name == SEEN]:
                layers.remove(layer)
            data, options = geometry.on_plane(plane, picture)
            layers.append(Image(data, rgb=True, name=SEEN, **options))
            lower_onto_image(self._workspace.viewer, [layers[-1]], session.layers)
            if before in layers:
                layers.selection.active = before
            of_object = influences[-1] if influences else []
            if names:
                pairs = zip(of_object, names, strict=False)
                of_object = [one._replace(channel=name) for one, name in pairs]
            self.influences.emit(of_object)
            hint = "" if influences else WITHOUT_OBJECT
            self._workspace.say(f"{SEEN_TEXT} {hint}".strip())

        self._start(SEEING, lambda: self._inference.service.see_job(request), show)

    def derive(self, kind: str) -> None:
        """Ask which channels are meant, then add the derived ones."""
        wanted = DERIVATIONS[kind]
        infos = [layer_info(layer) for layer in self._images]
        offered = all_layer_channels(infos)
        if not offered:
            self._workspace.fail(NO_IMAGE_OPEN)
            return
        channels = [channel for _, channel in offered]
        fields = []
        for number in self._meant(wanted.inputs, channels, infos):
            field = ComboBox()
            field.addItems([title for title, _ in offered])
            field.setPlaceholderText(CHOOSE_CHANNEL)
            field.setCurrentIndex(-1 if number is None else number)
            fields.append(field)
        rows: list[tuple[str, *tuple[QWidget, ...]]] = list(zip(wanted.inputs, fields, strict=True))
        focal: QDoubleSpinBox | None = None
        if wanted.needs_focal:
            widths = {info.key: info.shape[-1] for info in infos}
            focal = _focal_field(fields[0], [widths[channel.layer] for channel in channels])
            rows.append((FOCAL, focal))

        def accepted() -> None:
            sources = [channels[field.currentIndex()] for field in fields]
            arrays = self._arrays(sources)
            length = 0.0 if focal is None else focal.value()
            geometry = image_geometry(sources, self._images)
            self._start(
                DERIVING,
                lambda: _derive_job(kind, arrays, length),
                lambda derived: self._add_derived(derived, geometry),
            )

        self._ask(wanted.title, "", rows, accepted)
        buttons = self.dialog.findChild(QDialogButtonBox)
        _enable_for_distinct(buttons.button(QDialogButtonBox.StandardButton.Ok), fields)

    def _meant(
        self, wanted: Sequence[str], channels: Sequence[LayerChannel], infos: Sequence[LayerInfo]
    ) -> list[int | None]:
        """Which channel is probably meant by each wanted name; None if nobody can say."""
        numbers = matching_channels(wanted, channels, infos)
        in_use = next(iter(self._choice.current().sources), None)
        if numbers == [None] and in_use in channels:
            return [channels.index(in_use)]  # the only one that is wanted is the one in use
        return numbers

    @needs_image
    def register(self, session: LayerSession, motion: Motion = "shift") -> None:
        """Propose motions of the chosen channels, then add and choose what was moved."""
        sources = list(dict.fromkeys(self._choice.current().sources))
        if len(sources) < 2:
            self._workspace.fail(ONE_CHANNEL.format(session.geometry.name))
            return
        geometry = session.geometry
        arrays = self._arrays(sources)
        plane = self._workspace.plane_or_none()
        if plane is None or geometry.order:
            plane = tuple(size // 2 for size in geometry.usual.shape[:-2])
        names = channel_names(sources, [layer_info(layer) for layer in self._images])
        channels = [_Movable(*parts) for parts in zip(sources, arrays, names, strict=True)]
        ask = self._ask_shifts if motion == "shift" else self._ask_motions
        self._start(
            REGISTERING,
            lambda: register_channels_job(
                [np.asarray(array[plane]) for array in arrays], motion=motion
            ),
            lambda motions: ask(channels, motions, geometry.usual),
        )

    def _ask_shifts(
        self,
        channels: Sequence[_Movable],
        motions: Sequence[ChannelMotion],
        geometry: ImageGeometry,
    ) -> None:
        """Show how far each channel should move, to be corrected and accepted."""
        rows = []
        fields = []
        for channel, motion in zip(channels, motions, strict=True):
            down, right = motion.shift(geometry.shape[-2:]) if motion.is_sure else (0.0, 0.0)
            pair = (_shift_field(down), _shift_field(right))
            agreement = AGREES.format(motion.before, motion.after)
            agrees = QLabel(agreement if motion.is_sure else NOT_FOUND)
            fields.append(pair)
            rows.append((channel.name, *pair, agrees))

        def accepted() -> None:
            moved = []
            for channel, (down, right) in zip(channels, fields, strict=True):
                shift = (down.value(), right.value())
                if shift != (0, 0):
                    name = SHIFTED.format(name=channel.name, down=shift[0], right=shift[1])
                    moved.append(channel._replace(matrix=matrix_of_shift(*shift), moved=name))
            self._move(moved, geometry)

        moves = any(motion.matrix != IDENTITY for motion in motions)
        self._ask(SHIFTS, SHIFTS_NOTE if moves else ALL_FIT, rows, accepted)

    def _ask_motions(
        self,
        channels: Sequence[_Movable],
        motions: Sequence[ChannelMotion],
        geometry: ImageGeometry,
    ) -> None:
        """Show what each channel should do, to be accepted."""
        rows = []
        moved = []
        for channel, motion in zip(channels, motions, strict=True):
            apart = ""
            if motion.residual is not None and motion.distance is not None:
                apart = APART.format(motion.distance, motion.residual)
            words = _motion_text(motion, geometry) if motion.is_sure else NOT_FOUND
            rows.append((channel.name, QLabel(words), QLabel(apart if motion.is_sure else "")))
            if motion.matrix != IDENTITY and motion.is_sure:
                name = MOVED.format(name=channel.name)
                moved.append(channel._replace(matrix=motion.matrix, moved=name))
        note = MOTIONS_NOTE if moved else ALL_FIT
        self._ask(MOTIONS, note, rows, lambda: self._move(moved, geometry))

    def _move(self, moved: Sequence[_Movable], geometry: ImageGeometry) -> None:
        """Add what was moved, and choose it."""
        self._start(
            REGISTERING,
            lambda: _move_job(moved),
            lambda arrays: self._add_moved(moved, arrays, geometry),
        )

    @property
    def _images(self) -> list[Image]:
        return self._workspace.images

    def _arrays(self, sources: Sequence[LayerChannel]) -> list[Any]:
        known = {layer_key(layer): layer for layer in self._images}
        layers = [known[source.layer] for source in sources]
        return [
            as_dask(channel_array(layer, source.part, level_of(layer)))
            for layer, source in zip(layers, sources, strict=True)
        ]

    def _add(self, name: str, data: Any, geometry: ImageGeometry) -> LayerChannel:
        """Add a layer on the image's pixels, and name it as a channel."""
        metadata = {REFERENCE: replace(geometry.reference, missing=None, valid=None)}
        layer = Image(data, name=name, metadata=metadata, **geometry.layer_options())
        layers = self._workspace.viewer.layers
        before = layers.selection.active
        layers.append(layer)
        if before is not None and before in layers:
            layers.selection.active = before  # the tool in hand
        return LayerChannel(layer_key(layer))

    def _add_derived(self, derived: dict[str, Any], geometry: ImageGeometry) -> None:
        inputs = self._choice.form.inputs
        chosen = self._choice.form.value()
        sources = [self._add(name, data, geometry) for name, data in derived.items()]
        if inputs is not None and inputs.is_rgb and not self._choice.is_held():
            self._choice.choose((sources * 3)[:3])
        elif any(chosen):  # not what has come in sight
            self._choice.choose(chosen)
        self._workspace.say(DERIVED.format(format_list(list(derived))))

    def _add_moved(
        self, moved: Sequence[_Movable], arrays: Sequence[Any], geometry: ImageGeometry
    ) -> None:
        replaced = {}
        for channel, data in zip(moved, arrays, strict=True):
            replaced[channel.source] = self._add(channel.moved, data, geometry)
        if replaced:
            chosen = self._choice.form.value()
            self._choice.choose([replaced.get(source, source) for source in chosen])
            names = format_list([channel.name for channel in moved])
            self._workspace.say(REGISTERED.format(names))

    def _start(
        self, name: str, make: Callable[[], Job[Any]], then: Callable[[Any], object]
    ) -> None:
        self._then = then
        self._job.start(name, make)
        self._workspace.status.emit(Status("working", name, way_out="Stop"))

    def _on_progress(self, progress: Progress) -> None:
        if not self._inference.busy:
            text = progress.message[:1].upper() + progress.message[1:]
            self._workspace.status.emit(Status("working", text, progress.fraction, way_out="Stop"))

    def _ask(
        self,
        title: str,
        note: str,
        rows: Sequence[tuple[str, *tuple[QWidget, ...]]],
        accepted: Callable[[], object],
    ) -> None:
        """Open a dialog with a row of fields for each channel."""
        self.dialog = dialog = QDialog(self._window)
        dialog.setWindowTitle(title)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        grid = QGridLayout()
        ok = QDialogButtonBox.StandardButton.Ok
        buttons = QDialogButtonBox(ok | QDialogButtonBox.StandardButton.Cancel)
        for number, (name, *fields) in enumerate(rows):
            for column, widget in enumerate((QLabel(name), *fields)):
                grid.addWidget(widget, number, column)
                widget.setAccessibleName(name)
        words = text_label()
        words.setText(note)
        words.setVisible(bool(note))
        buttons.accepted.connect(dialog.accept)
        buttons.rejected.connect(dialog.reject)
        dialog.accepted.connect(accepted)
        vbox(words, grid, buttons, parent=dialog, spacing=8).setContentsMargins(12, 12, 12, 12)
        dialog.open()
        self._workspace.say(ASKED.format(title), "ready")


def _derive_job(kind: str, arrays: list[Any], focal: float) -> Job[dict[str, Any]]:
    """Lazy channels, but those of depth are computed now: they are too slow to show while lazy."""
    yield Progress(0, 1, DERIVING.lower())
    if not DERIVATIONS[kind].needs_focal:
        return derive_channels(kind, arrays)
    shape = arrays[0].shape
    planes = list(np.ndindex(shape[:-2]))
    derived = {name: np.zeros(shape, np.float32) for name in DERIVATIONS[kind].outputs}
    for done, plane in enumerate(planes):
        yield Progress(done, len(planes), DERIVING.lower())
        on_plane = derive_channels(kind, [np.asarray(array[plane]) for array in arrays], focal)
        for name, values in on_plane.items():
            derived[name][plane] = values
    return derived


def _move_job(moved: Sequence[_Movable]) -> Job[list[Any]]:
    arrays = []
    for done, channel in enumerate(moved):
        yield Progress(done, len(moved), REGISTERING.lower())
        arrays.append(move_channel(channel.array, channel.matrix))
    return arrays


def _motion_text(motion: ChannelMotion, geometry: ImageGeometry) -> str:
    """A motion for the user: ``2.1 down, -3 right, 1.02°, 101 %``."""
    down, right = motion.shift(geometry.shape[-2:])
    return f"{down:.1f} down, {right:.1f} right, {motion.turn:.2f}°, {motion.scale:.1%}"


def _focal_field(depth: ComboBox, widths: Sequence[int]) -> QDoubleSpinBox:
    """The focal length in pixels, at first a Kinect's in an image as wide as the chosen depth."""
    focal = QDoubleSpinBox()
    focal.setDecimals(1)
    focal.setRange(0.1, 1e6)

    def guess(number: int) -> None:
        if number >= 0:
            focal.setValue(KINECT_FOCAL * widths[number])

    guess(depth.currentIndex())
    depth.currentIndexChanged.connect(guess)
    return focal


def _shift_field(pixels: float) -> QDoubleSpinBox:
    field = QDoubleSpinBox()
    field.setDecimals(1)
    field.setRange(-9999, 9999)
    field.setSingleStep(0.1)
    field.setValue(pixels)
    return field


def _enable_for_distinct(button: QPushButton, fields: Sequence[ComboBox]) -> None:
    """Enable a button whenever each field has a choice that no other has."""

    def show() -> None:
        chosen = [field.currentIndex() for field in fields]
        button.setEnabled(-1 not in chosen and len(set(chosen)) == len(chosen))

    show()
    for field in fields:
        field.currentIndexChanged.connect(show)
