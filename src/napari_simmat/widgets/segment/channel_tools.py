"""What the model sees of the channels, channels derived from them, and their registration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject, QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QMenu,
    QWidget,
)

from napari_simmat._text import format_list
from napari_simmat.annotation.channel_choice import (
    NO_IMAGE_OPEN,
    LayerChannel,
    all_layer_channels,
    channel_names,
    matching_channels,
)
from napari_simmat.annotation.prompt_grouping import objects_on
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.engine.channel_influence import ChannelInfluence
from napari_simmat.engine.channels.derivation import DERIVATIONS, derive_channels
from napari_simmat.engine.channels.registration import (
    ChannelShift,
    register_channels_job,
    shift_channel,
)
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.controls import (
    Button,
    ComboBox,
    Status,
    hbox,
    text_label,
    tone_color,
    vbox,
)
from napari_simmat.widgets.layer_data import (
    as_dask,
    channel_array,
    image_geometry,
    layer_info,
    layer_key,
)
from napari_simmat.widgets.placement import REFERENCE, ImageGeometry, level_of
from napari_simmat.widgets.segment.image_choice import ImageChoice
from napari_simmat.widgets.segment.inference import InferenceQueue
from napari_simmat.widgets.segment.open_images import LayerSession
from napari_simmat.widgets.segment.outputs import SEEN, lower_onto_image
from napari_simmat.widgets.segment.panels import Panel
from napari_simmat.widgets.segment.workspace import Workspace, needs_image, needs_plane
from napari_simmat.widgets.worker import BackgroundJob

_RANK = 1
"""Behind clicks."""
CHOOSE_CHANNEL = "choose a channel"
SEEING, DERIVING, REGISTERING = "Asking the model", "Deriving channels", "Registering channels"
SEEN_TEXT = f"{SEEN} shows the three channels that the foundation gets."
WITHOUT_OBJECT = "With an object open, it also says what each channel does for its mask."
INFLUENCES = "Part of the mask that changes without a channel: {}."
STOPPED = "Stopped."
DERIVED = "{} added as layers of their own."
ONE_CHANNEL = "{} is one channel: registration needs two or more of one image, e.g. two sensors'."
ALL_FIT = "All channels lie on each other already: no shift makes their edges agree better."
REGISTERED = "{} moved and chosen; the layers they were made from are unchanged."
SHIFTED = "{name} moved {down:+g}, {right:+g}"
SHIFTS = "Shifts of the channels"
SHIFTS_NOTE = (
    "Pixels down and right by which each channel moves, and how well its edges agree then."
)
AGREES = "{:.2f} → {:.2f}"
FOCAL = "focal length in pixels"
KINECT_FOCAL = 0.81
"""Focal length of the color camera, onto which depth is registered, per pixel of width."""
MANY = 12
"""Channels of which each influence is written out; of more, the largest."""


class SpectrumPlot(QWidget):
    """Mean and standard deviation of an object in each channel, and a bar for its influence."""

    def __init__(self) -> None:
        super().__init__()
        self._channels: Sequence[ChannelInfluence] = ()
        self.setMinimumHeight(72)
        self.setMouseTracking(True)
        self.hide()

    def set_value(self, channels: Sequence[ChannelInfluence]) -> None:
        """Show the channels of an object; nothing of fewer than two, or of an empty mask."""
        self._channels = [each for each in channels if np.isfinite(each.mean)]
        self.setAccessibleName("Spectrum: " + ", ".join(map(_described, channels)))
        self.setVisible(len(self._channels) > 1)
        self.update()

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw a line with a band, and the bars below it."""
        means = np.array([each.mean for each in self._channels])
        spread = np.array([each.std for each in self._channels])
        low, high = (means - spread).min(), (means + spread).max()
        height, bars = self.height() - 4, self.height() // 4

        def points(values: np.ndarray) -> list[QPointF]:
            shares = (values - low) / max(high - low, 1e-12)
            return [
                QPointF(self._x(n), 2 + (1 - share) * (height - bars - 4))
                for n, share in enumerate(shares)
            ]

        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        line, bar = QColor(tone_color("info", self)), QColor(tone_color("warning", self))
        painter.setBrush(bar)
        wide = max(2.0, 0.6 * self.width() / len(means))
        for n, each in enumerate(self._channels):
            tall = max(1.0, each.influence * bars)
            painter.drawRect(QRectF(self._x(n) - wide / 2, self.height() - tall, wide, tall))
        band = QColor(line)
        band.setAlphaF(0.25)
        painter.setBrush(band)
        painter.drawPolygon(QPolygonF(points(means + spread) + points(means - spread)[::-1]))
        painter.setPen(QPen(line, 2))
        painter.drawPolyline(QPolygonF(points(means)))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Say what is under the mouse."""
        number = int(event.position().x() * len(self._channels) / max(1, self.width()))
        if 0 <= number < len(self._channels):
            self.setToolTip(_described(self._channels[number]))

    def _x(self, number: int) -> float:
        return (number + 0.5) * self.width() / len(self._channels)


def _described(each: ChannelInfluence) -> str:
    return f"{each.channel}: {each.mean:.4g} ± {each.std:.2g}, influence {each.influence:.2f}"


class ChannelPanel(Panel):
    """Asks for what `ChannelTools` does, and shows what it finds about the open object."""

    derived = Signal(str)
    """A name in `DERIVATIONS`."""

    def __init__(self) -> None:
        super().__init__()
        self.see = self.button(
            "see", "What the model sees", "Its three channels as a layer; what each of yours does"
        )
        self.derive = Button("Derive", tip="Make channels from others: AoLP, NDVI, CT windows, HHA")
        self.register = self.button(
            "register", "Register", "Move the chosen channels onto the first of them"
        )
        menu = QMenu(self.derive)
        for kind, each in DERIVATIONS.items():
            menu.addAction(each.title, lambda kind=kind: self.derived.emit(kind))
        self.derive.setMenu(menu)
        self.text, self.plot = text_label("muted"), SpectrumPlot()
        buttons = hbox((self.see, 2), (self.derive, 1), (self.register, 1))
        buttons.setSpacing(4)
        vbox(buttons, self.text, self.plot, parent=self)
        self.show_influences(())

    def show_influences(self, channels: Sequence[ChannelInfluence]) -> None:
        """Show the channels of an object, or none."""
        ranked = sorted(channels, key=lambda each: -each.influence)[:MANY]
        words = (f"{each.channel} {each.influence:.2f}" for each in ranked)
        self.text.setText(INFLUENCES.format(", ".join(words)) if ranked else "")
        self.text.setVisible(bool(ranked))
        self.plot.set_value(channels)


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
        self._workspace, self._inference, self._choice = workspace, inference, choice
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
        request, geometry = self._workspace.request(), session.geometry
        objects = objects_on(session.prompt_state.on(plane), plane, geometry.shape[-2:])
        request = replace(request, objects=objects)
        choice = self._choice.current()
        infos = [layer_info(each) for each in self._images]
        names: tuple[str, ...] = ()
        if choice.spec is not None and choice.spec.is_rgb:  # else the model knows better
            names = channel_names(choice.sources, infos)

        def show(seen: tuple[np.ndarray, list[list[ChannelInfluence]]]) -> None:
            picture, influences = seen
            layers, active = self._workspace.viewer.layers, self._workspace.viewer.layers.selection
            before = active.active
            for layer in [layer for layer in layers if layer.name == SEEN]:
                layers.remove(layer)
            data, options = geometry.on_plane(plane, picture)
            layers.append(Image(data, rgb=True, name=SEEN, **options))
            lower_onto_image(self._workspace.viewer, [layers[-1]], session.layers)
            if before in layers:
                active.active = before
            found = influences[-1] if influences else []
            called = zip(found, names, strict=False)
            self.influences.emit([e._replace(channel=n) for e, n in called] if names else found)
            hint = "" if influences else WITHOUT_OBJECT
            self._workspace.say(f"{SEEN_TEXT} {hint}".strip())

        self._start(SEEING, lambda: self._inference.service.see_job(request), show)

    def derive(self, kind: str) -> None:
        """Ask which channels are meant, then add the derived ones."""
        wanted, infos = DERIVATIONS[kind], [layer_info(each) for each in self._images]
        if not (offered := all_layer_channels(infos)):
            self._workspace.fail(NO_IMAGE_OPEN)
            return
        titles = [title for title, _ in offered]
        channels = [channel for _, channel in offered]
        found = matching_channels(wanted.inputs, channels, infos)
        shown = next(iter(self._choice.current().sources), None)
        if found == [None] and shown in channels:
            found = [channels.index(shown)]  # the only one that is wanted is the one in use
        fields = [ComboBox() for _ in wanted.inputs]
        for field, number in zip(fields, found, strict=True):
            field.addItems(titles)
            field.setPlaceholderText(CHOOSE_CHANNEL)
            field.setCurrentIndex(-1 if number is None else number)
        rows: list[tuple[str, *tuple[QWidget, ...]]] = list(zip(wanted.inputs, fields, strict=True))
        focal, widths = QDoubleSpinBox(), {info.key: info.shape[-1] for info in infos}

        def guess_focal(number: int) -> None:
            if number >= 0:
                focal.setValue(KINECT_FOCAL * widths[offered[number][1].layer])

        if wanted.needs_focal:
            focal.setDecimals(1)
            focal.setRange(0.1, 1e6)
            guess_focal(fields[0].currentIndex())
            fields[0].currentIndexChanged.connect(guess_focal)
            rows.append((FOCAL, focal))

        def accepted() -> None:
            sources = [offered[field.currentIndex()][1] for field in fields]
            arrays, length = self._arrays(sources), focal.value()
            geometry = image_geometry(sources, self._images)
            self._start(
                DERIVING,
                lambda: _derive_job(kind, arrays, length),
                lambda made: self._add_derived(made, geometry),
            )

        self._ask(wanted.title, "", rows, accepted)
        ok = self.dialog.findChild(QDialogButtonBox).button(QDialogButtonBox.StandardButton.Ok)

        def show_ok() -> None:
            chosen = [field.currentIndex() for field in fields]
            ok.setEnabled(-1 not in chosen and len(set(chosen)) == len(chosen))

        show_ok()
        for field in fields:
            field.currentIndexChanged.connect(show_ok)

    @needs_image
    def register(self, session: LayerSession) -> None:
        """Propose shifts of the chosen channels, then add and choose what was moved."""
        sources = list(dict.fromkeys(self._choice.current().sources))
        if len(sources) < 2:
            self._workspace.fail(ONE_CHANNEL.format(session.geometry.name))
            return
        arrays, geometry = self._arrays(sources), session.geometry
        plane = self._workspace.plane_or_none()
        if plane is None or geometry.order:
            plane = tuple(size // 2 for size in geometry.usual.shape[:-2])
        names = channel_names(sources, [layer_info(each) for each in self._images])

        def ask(shifts: list[ChannelShift]) -> None:
            fields = [(QDoubleSpinBox(), QDoubleSpinBox()) for _ in shifts]
            for pair, each in zip(fields, shifts, strict=True):
                for field, value in zip(pair, each[:2], strict=True):
                    field.setDecimals(1)
                    field.setRange(-9999, 9999)
                    field.setSingleStep(0.1)
                    field.setValue(value)
            rows = [
                (name, *pair, QLabel(AGREES.format(each.before, each.after)))
                for name, pair, each in zip(names, fields, shifts, strict=True)
            ]

            def accepted() -> None:
                moved = {
                    source: (array, name, (down.value(), right.value()))
                    for source, array, name, (down, right) in zip(
                        sources, arrays, names, fields, strict=True
                    )
                    if down.value() or right.value()
                }
                self._start(
                    REGISTERING,
                    lambda: _shift_job([(array, shift) for array, _, shift in moved.values()]),
                    lambda made: self._add_moved(moved, made, geometry.usual),
                )

            moves = any(each[:2] != (0, 0) for each in shifts)
            self._ask(SHIFTS, SHIFTS_NOTE if moves else ALL_FIT, rows, accepted)

        self._start(
            REGISTERING,
            lambda: register_channels_job([np.asarray(array[plane]) for array in arrays]),
            ask,
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
        self._workspace.viewer.layers.append(layer)
        return LayerChannel(layer_key(layer))

    def _add_derived(self, made: dict[str, Any], geometry: ImageGeometry) -> None:
        inputs, chosen = self._choice.form.inputs, self._choice.form.value()
        sources = [self._add(name, data, geometry) for name, data in made.items()]
        if inputs is not None and inputs.is_rgb and not self._choice.is_held():
            self._choice.choose((sources * 3)[:3])
        elif any(chosen):  # not what has come in sight
            self._choice.choose(chosen)
        self._workspace.say(DERIVED.format(format_list(list(made))))

    def _add_moved(
        self,
        moved: dict[LayerChannel, tuple[Any, str, tuple[float, float]]],
        made: list[Any],
        geometry: ImageGeometry,
    ) -> None:
        replaced = {}
        for (source, (_, name, shift)), data in zip(moved.items(), made, strict=True):
            called = SHIFTED.format(name=name, down=shift[0], right=shift[1])
            replaced[source] = self._add(called, data, geometry)
        if replaced:
            self._choice.choose([replaced.get(e, e) for e in self._choice.form.value()])
            names = format_list([name for _, name, _ in moved.values()])
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
        grid, ok = QGridLayout(), QDialogButtonBox.StandardButton.Ok
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


def _derive_job(kind: str, arrays: list[Any], focal: float) -> Job[dict[str, Any]]:
    """Lazy channels, but those of depth are computed now: they are too slow to show while lazy."""
    yield Progress(0, 1, DERIVING.lower())
    if not DERIVATIONS[kind].needs_focal:
        return derive_channels(kind, arrays)
    shape = arrays[0].shape
    planes = list(np.ndindex(shape[:-2]))
    made = {name: np.zeros(shape, np.float32) for name in DERIVATIONS[kind].outputs}
    for done, plane in enumerate(planes):
        yield Progress(done, len(planes), DERIVING.lower())
        here = derive_channels(kind, [np.asarray(array[plane]) for array in arrays], focal)
        for name, values in here.items():
            made[name][plane] = values
    return made


def _shift_job(moved: list[tuple[Any, tuple[float, float]]]) -> Job[list[Any]]:
    made = []
    for done, (array, shift) in enumerate(moved):
        yield Progress(done, len(moved), REGISTERING.lower())
        made.append(shift_channel(array, shift))
    return made
