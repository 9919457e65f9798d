"""The Train tab: forms, curves, gain.

Loss and validation IoU of a training as two small plots over one axis of steps.

Painted with Qt alone: two curves are not worth a plotting library, and they take the theme's
colours by themselves.

What a training brought: mean IoU of the base alone and of the new model, by prompt.

The Train tab: shows the choices, the course and the outcome, passes on what was asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from napari import Viewer
from napari.layers import Image
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, QTimer, Signal
from qtpy.QtGui import (
    QColor,
    QDragEnterEvent,
    QDropEvent,
    QFontMetricsF,
    QPainter,
    QPaintEvent,
    QPen,
    QPolygonF,
    QShowEvent,
)
from qtpy.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_simmat.widgets.controls import (
    Button,
    CollapsibleSection,
    ComboBox,
    CommandLine,
    MainButton,
    Status,
    StatusKind,
    StatusLine,
    VerticalScroll,
)
from napari_simmat.widgets.layer_data import layer_key, pixel_ratio_of
from napari_simmat.widgets.train import runs
from napari_simmat.widgets.train.controller import TrainingController
from napari_simmat.widgets.train.form import ImagesForm, TrainForm, dropped_folder
from napari_simmat.widgets.train.runs import CurveHistory, Metrics, Points, TrainRequest, WindowRun

IOU, LOSS = "#3fb68b", "#e8833a"
"""Lines that are seen on a dark and on a light ground."""
_RING = 4.5


class TrainingCurves(QWidget):
    """Shows a `CurveHistory`; grows with the steps of the training."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._history = CurveHistory()
        self._total = 0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.setMaximumHeight(self.sizeHint().height())
        self.setMinimumHeight(170)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Room for two plots with their titles."""
        return QSize(280, 250)

    def value(self) -> CurveHistory:
        """What is shown."""
        return self._history

    def set_value(self, history: CurveHistory, total: int = 0) -> None:
        """Show the curves of a training of `total` steps; 0 where that is not known."""
        self._history, self._total = history, total
        best = history.best
        if best is not None:
            text = f"Best validation {best[1]:.1f} % at step {best[0]:.0f}"
            self.setToolTip(text)
            self.setAccessibleDescription(text)
        self.update()

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw both plots and the axis below them."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = self.font()
        font.setPointSizeF(max(7.0, 0.85 * font.pointSizeF()))
        painter.setFont(font)
        metrics = QFontMetricsF(font)
        line = metrics.height()
        left = metrics.horizontalAdvance("0.00") + 8
        width = self.width() - left - 10
        height = (self.height() - 2 * (line + 4) - 2 * line - 8) / 2
        steps = self._steps()
        top = 0.0
        for title, points, colour, noisy in (
            (self._iou_title(), self._history.iou, IOU, False),
            (self._loss_title(), self._history.loss, LOSS, True),
        ):
            painter.setPen(QColor(colour))
            painter.setBrush(QColor(colour))
            painter.drawEllipse(QPointF(left + 4, top + line / 2 + 1), 3.5, 3.5)
            painter.setPen(self._ink())
            painter.drawText(QPointF(left + 13, top + metrics.ascent() + 1), title)
            box = QRectF(left, top + line + 4, width, height)
            self._plot(painter, box, points, steps, colour, noisy)
            top = box.bottom() + line / 2
        self._axis(painter, QRectF(left, top - line / 2, width, 2 * line), steps)

    def _plot(
        self,
        painter: QPainter,
        box: QRectF,
        points: Points,
        steps: tuple[float, float],
        colour: str,
        noisy: bool,
    ) -> None:
        """A curve in its frame: each point and the best, or if `noisy` a mean, from 0 up."""
        ticks = nice_ticks([value for _, value in points], floor=noisy)
        low, high = ticks[0], ticks[-1]

        def place(step: float, value: float) -> QPointF:
            x = box.left() + box.width() * (step - steps[0]) / (steps[1] - steps[0])
            return QPointF(x, box.bottom() - box.height() * (value - low) / (high - low))

        faint = self._ink(0.16)
        for tick in ticks:
            y = place(steps[0], tick).y()
            painter.setPen(QPen(faint, 1))
            painter.drawLine(QPointF(box.left(), y), QPointF(box.right(), y))
            painter.setPen(self._ink(0.7))
            label = QRectF(0, y - 8, box.left() - 5, 16)
            flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            painter.drawText(label, flags, f"{tick:g}")
        if not points:
            return
        painter.save()
        painter.setClipRect(box.adjusted(-6, -6, 6, 6))
        strong, light = QColor(colour), QColor(colour)
        light.setAlphaF(0.4)
        raw = QPolygonF([place(*point) for point in thin_points(points, int(2 * box.width()))])
        if noisy:
            painter.setPen(QPen(light, 1))
            painter.drawPolyline(raw)
            calm = thin_points(smooth_points(points), int(2 * box.width()))
            painter.setPen(QPen(strong, 1.8))
            painter.drawPolyline(QPolygonF([place(*point) for point in calm]))
        else:
            painter.setPen(QPen(strong, 1.8))
            painter.drawPolyline(raw)
            painter.setBrush(strong)
            for point in raw:
                painter.drawEllipse(point, 2.2, 2.2)
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(self._ink(), 1.4))
            painter.drawEllipse(place(*max(points, key=lambda point: point[1])), _RING, _RING)
        painter.restore()

    def _axis(self, painter: QPainter, box: QRectF, steps: tuple[float, float]) -> None:
        painter.setPen(self._ink(0.7))
        ends = (
            (f"{steps[0]:.0f}", Qt.AlignmentFlag.AlignLeft),
            ("step", Qt.AlignmentFlag.AlignHCenter),
            (f"{steps[1]:.0f}", Qt.AlignmentFlag.AlignRight),
        )
        for text, side in ends:
            painter.drawText(box.adjusted(0, 3, 0, 0), side | Qt.AlignmentFlag.AlignTop, text)

    def _steps(self) -> tuple[float, float]:
        last = max((p[-1][0] for p in (self._history.iou, self._history.loss) if p), default=0)
        return 0.0, max(1.0, float(self._total), last)

    def _iou_title(self) -> str:
        best = self._history.best
        if best is None:
            return "validation IoU %"
        return f"validation IoU {self._history.iou[-1][1]:.1f} %, best {best[1]:.1f} %"

    def _loss_title(self) -> str:
        points = self._history.loss
        return "loss" if not points else f"loss {smooth_points(points)[-1][1]:.3f}"

    def _ink(self, strength: float = 1.0) -> QColor:
        """The theme's colour of words."""
        colour = QColor(self.palette().color(self.foregroundRole()))
        colour.setAlphaF(strength)
        return colour


def nice_ticks(values: Sequence[float], *, floor: bool = False, most: int = 4) -> list[float]:
    """Round numbers, evenly spaced, that hold all `values` between the first and the last.

    Parameters
    ----------
    values
        What is drawn.
    floor
        Start at 0.
    most
        How many numbers at most.
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low = min(0.0, low) if floor else low
    if high - low < 1e-6 * max(1.0, abs(high)):
        high = low + max(1e-3, abs(low) * 0.1)
    rough = (high - low) / (most - 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50):
        step = factor * unit
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if step >= rough * 0.999 and last - first < most:
            break
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def smooth_points(points: Points) -> Points:
    """A running mean over about a tenth of a curve, up to each point."""
    span = max(1, len(points) // 10)
    mean: Points = []
    total = 0.0
    for number, (step, value) in enumerate(points):
        total += value
        if number >= span:
            total -= points[number - span][1]
        mean.append((step, total / min(number + 1, span)))
    return mean


def thin_points(points: Points, most: int) -> Points:
    """At most about `most` points of a longer curve, its ends kept."""
    if len(points) <= max(2, most):
        return points
    every = -(-len(points) // max(2, most))
    return [*points[:-1:every], points[-1]]


_KINDS = ("click", "box")
_LEFT, _RIGHT = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
_BETTER, _WORSE = "#3fb68b", "#ff5c50"


class GainTable(QWidget):
    """A view of the `Metrics` of a training; empty where there are none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._metrics: Metrics | None = None
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(14)
        self.setToolTip("On the validation images: a click or a box on each object")
        self._grid.setColumnStretch(4, 1)
        self.cells: dict[tuple[str, str], QLabel] = {}
        heads = ("mean IoU %", "base", "trained", "gain")
        for column, text in enumerate(heads):
            head = self._put(0, column, text)
            head.setStyleSheet("color: #9aa0a8;")
            head.setAlignment(_RIGHT if column else _LEFT)
        for row, kind in enumerate(_KINDS, start=1):
            self._put(row, 0, f"one {kind}")
            for column, name in enumerate(("before", "after", "gain"), start=1):
                cell = self._put(row, column, "")
                cell.setAlignment(_RIGHT)
                self.cells[kind, name] = cell
        self.set_value(None)

    def value(self) -> Metrics | None:
        """What is shown."""
        return self._metrics

    def set_value(self, metrics: Metrics | None) -> None:
        """Show what was measured; nothing hides it."""
        self._metrics = metrics
        self.setVisible(metrics is not None)
        for kind in _KINDS:
            before = (metrics or {}).get("before", {}).get(kind)
            after = (metrics or {}).get("after", {}).get(kind)
            self.cells[kind, "before"].setText("-" if before is None else f"{before:.1f}")
            self.cells[kind, "after"].setText("-" if after is None else f"{after:.1f}")
            gain = self.cells[kind, "gain"]
            if before is None or after is None:
                gain.setText("")
                continue
            gain.setText(f"{after - before:+.1f}".replace("-", "\N{MINUS SIGN}"))
            gain.setStyleSheet(f"color: {_BETTER if after >= before else _WORSE};")

    def _put(self, row: int, column: int, text: str) -> QLabel:
        label = QLabel(text)
        self._grid.addWidget(label, row, column)
        return label


_NAME = "my-sensor"
"""Suggested for a model."""


class TrainTab(QWidget):
    """Choose images and settings, train, see how much better it became."""

    wanted = Signal(str)
    """The user wants to segment with the model of this name."""

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.training = TrainingController()
        self.images = ImagesForm(viewer)
        self.form = TrainForm(self.images)
        self.status = StatusLine()
        self.curves = TrainingCurves()
        self.gains = GainTable()
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._read_layers)
        self._followed: list[Image] = []
        self._said: str | None = ""  # the problem that was shown last
        self._layer_events = [
            viewer.layers.events.inserted,
            viewer.layers.events.removed,
            viewer.layers.events.renamed,
        ]
        self._make_buttons()
        self._lay_out()
        self._connect()
        self.form.name.setText(runs.free_name(_NAME))
        self._on_changed()
        self._said = ""
        self._read_layers()

    def release(self) -> None:
        """Give back what was taken: process, threads, events."""
        self._later.stop()
        for event in self._layer_events:
            event.disconnect(self._on_layers)
        self._follow([])
        self.images.release()
        self.form.release()
        self.training.close()

    @property
    def busy(self) -> bool:
        """Whether a change of layers is still to be taken up, or a training goes on."""
        return self._later.isActive() or self.training.busy

    def refresh(self) -> None:
        """Read what may have changed elsewhere: models, layers, trainings that can go on."""
        if not self.training.busy:
            self.form.base.refresh()
            self._read_layers()
            self._on_changed()

    # ------------------------------------------------------------------ layout

    def _make_buttons(self) -> None:
        self.train = MainButton("Train", tip="Start in a process of its own; the window stays free")
        self.stop = Button("Stop and keep the best")
        self.left_over = ComboBox()
        self.left_over.setToolTip("Trainings that were interrupted")
        self.resume = Button("Resume", tip="Go on where it was saved last, with the same outcome")
        self.keep = Button(
            "Keep the best", tip="Make the best checkpoint so far one of your models"
        )
        self.discard = Button("Discard", tip="Remove the training and all that it saved")
        self.command = CommandLine()

    def _lay_out(self) -> None:
        self.settings = CollapsibleSection("Settings", self.form)
        self.settings.set_open(True)
        self._unfinished = QWidget()
        unfinished = QVBoxLayout(self._unfinished)
        unfinished.setContentsMargins(0, 0, 0, 0)
        unfinished.setSpacing(4)
        head = QHBoxLayout()
        head.addWidget(QLabel("Not finished"))
        head.addWidget(self.left_over, stretch=1)
        choices = QGridLayout()
        choices.setSpacing(4)
        choices.addWidget(self.resume, 0, 0, 1, 2)
        choices.addWidget(self.keep, 1, 0)
        choices.addWidget(self.discard, 1, 1)
        unfinished.addLayout(head)
        unfinished.addLayout(choices)
        rule = QFrame()
        rule.setFrameShape(QFrame.Shape.HLine)
        choice = QWidget()
        above = QVBoxLayout(choice)
        above.setContentsMargins(0, 0, 0, 0)
        above.setSpacing(8)
        above.addWidget(self.settings)
        above.addWidget(self.command)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(8)
        for widget in (
            VerticalScroll(choice),
            rule,
            self.train,
            self.stop,
            self.status,
            self._unfinished,
            self.gains,
            self.curves,
        ):
            layout.addWidget(widget)
        layout.addStretch(1)
        self.setAcceptDrops(True)

    def _connect(self) -> None:
        training = self.training
        for event in self._layer_events:
            event.connect(self._on_layers)
        self.images.changed.connect(self._on_choice)
        self.form.changed.connect(self._on_choice)
        self.train.clicked.connect(self._on_train)
        self.stop.clicked.connect(training.stop)
        self.resume.clicked.connect(lambda: training.resume(self.left_over.currentText()))
        self.keep.clicked.connect(lambda: training.keep_best(self.left_over.currentText()))
        self.discard.clicked.connect(lambda: training.discard(self.left_over.currentText()))
        self.left_over.activated.connect(self._on_left_over)
        self.status.cancelled.connect(training.stop)
        self.status.accepted.connect(lambda: self.wanted.emit(training.name))
        training.status.connect(self.status.set_value)
        training.changed.connect(self._on_changed)
        training.plotted.connect(self._on_plotted)

    # ------------------------------------------------------------------ choice

    def _on_layers(self) -> None:
        self._later.start(0)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Take up what changed while another tab was shown."""
        super().showEvent(event)
        self._later.start(0)

    def _read_layers(self) -> None:
        if not self.isVisible():
            self._follow([])  # layers that are removed meanwhile are not held
            return
        images = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
        self._follow(images)
        active = self.viewer.layers.selection.active
        self.images.set_layers(images, layer_key(active) if active in images else None)

    def _follow(self, images: list[Image]) -> None:
        """Notice when an image's data or transform is replaced."""
        names = ("data", "scale", "translate", "rotate", "shear", "affine")
        for layer in self._followed:
            for name in names:
                getattr(layer.events, name).disconnect(self._on_layers)
        self._followed = list(images)
        for layer in images:
            for name in names:
                getattr(layer.events, name).connect(self._on_layers)

    def _problem(self) -> str | None:
        if not self.form.uses_folder and (problem := self.images.problem()):
            return problem
        return self.form.problem()

    def _on_choice(self) -> None:
        """Say whether a training can begin, and how it is begun from a terminal."""
        if self.training.busy:
            return
        problem = self._problem()
        self.train.setEnabled(problem is None)
        if problem is None:
            request = self._request()
            self.command.set_value(WindowRun(request.name).arguments(request))
        else:
            self.command.set_value(())
        if problem == self._said:
            return  # how the last training ended stays in sight
        self._said = problem
        if problem is None:
            self.status.set_value(Status("ready", "Ready to train."))
            return
        empty = not self.form.uses_folder and not self._followed
        kind: StatusKind = "nothing" if empty else "failed"
        self.status.set_value(Status(kind, problem))

    def _request(self) -> TrainRequest:
        request = self.form.value()
        if self.form.uses_folder:
            return request
        names = [channel.name for channel in self.images.value()[0].channels]
        ratio = pixel_ratio_of(self.images.images())
        return replace(request, channels=",".join(names), pixel_ratio=ratio)

    def _on_train(self) -> None:
        problem = self._problem()  # a layer's data may have changed in place
        if problem is not None:
            self._on_choice()
            return
        images = [] if self.form.uses_folder else self.images.images()
        self.settings.set_open(False)
        self.training.start(self._request(), images)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        """Take a folder of labelled images."""
        if not self.training.busy and dropped_folder(event) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802 - Qt's name
        """Train on the folder that was dropped."""
        folder = dropped_folder(event)
        if folder is not None:
            self.form.choose_folder(folder)
            event.acceptProposedAction()

    # ------------------------------------------------------------------- shown

    def _on_left_over(self) -> None:
        self.keep.setEnabled(WindowRun(self.left_over.currentText()).best.exists())

    def _on_changed(self) -> None:
        training = self.training
        busy = training.busy
        for widget in (self.form, self.settings):
            widget.setEnabled(not busy)
        self.train.setVisible(not busy)
        self.stop.setVisible(busy and training.state != "preparing")
        self.stop.setEnabled(training.state != "killing")
        at_once = training.state in ("starting", "stopping", "killing")
        self.stop.setText("Stop at once" if at_once else "Stop and keep the best")
        self.gains.set_value(training.metrics)
        self._on_plotted()
        self._list_unfinished()
        if not busy:
            self._after()

    def _list_unfinished(self) -> None:
        names = [] if self.training.busy else runs.unfinished_runs()
        chosen = self.left_over.currentText()
        wanted = self.training.name if self.training.name in names else chosen
        self.left_over.clear()
        self.left_over.addItems(names)
        self.left_over.setCurrentIndex(names.index(wanted) if wanted in names else 0)
        self._unfinished.setVisible(bool(names))
        if names:
            self._on_left_over()

    def _after(self) -> None:
        """When a training has ended: what it left is shown, and the form is free again."""
        if self.training.name and self.form.name.text() == self.training.name:
            name = runs.free_name(self.training.name)
            self.form.name.blockSignals(True)
            self.form.name.setText(name)
            self.form.name.blockSignals(False)
        self._said = self._problem()
        self.train.setEnabled(self._said is None)
        if self.status.value().kind in ("failed", "cancelled") and not self.left_over.count():
            self.settings.set_open(True)  # something has to be changed

    def _on_plotted(self) -> None:
        history = self.training.history
        self.curves.set_value(history, self.training.total)
        self.curves.setVisible(bool(history.iou or history.loss))
