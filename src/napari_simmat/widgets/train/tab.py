"""The Train tab: settings, progress and results of a training run."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any

from napari import Viewer
from napari.layers import Image
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QShowEvent
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget
from superqt.utils import qthrottled

from napari_simmat._text import import_problem
from napari_simmat.widgets.controls import Button, ComboBox, MainButton, hbox, text_label, vbox
from napari_simmat.widgets.garbage import no_garbage_collection
from napari_simmat.widgets.job_tab import JobTab
from napari_simmat.widgets.layer_data import ImageWatch, layer_key
from napari_simmat.widgets.segment.layers.outputs import OBJECTS
from napari_simmat.widgets.status_line import Status, StatusKind
from napari_simmat.widgets.tones import set_tone
from napari_simmat.widgets.train.controller import Metrics, TrainingController
from napari_simmat.widgets.train.curve_history import CurveHistory, Points
from napari_simmat.widgets.train.folder_check import CHECKING, READY
from napari_simmat.widgets.train.form import ImagesForm, TrainForm
from napari_simmat.widgets.train.request import TrainRequest
from napari_simmat.widgets.train.training_layers import pixel_ratio_of
from napari_simmat.widgets.train.window_run import WindowRun, free_name, unfinished_runs
from napari_simmat.widgets.worker import later

NO_CURVES = "No curves without matplotlib; install it: pip install matplotlib"
STOP_AND_KEEP = "Stop and keep the best"
STOP_AT_ONCE = "Stop at once"
_NAME = "my-sensor"
"""Name suggested for a new model."""
IOU, LOSS = "#3fb68b", "#e8833a"
"""Line colors that are visible on dark and light backgrounds."""
_REDRAW_AFTER = 200
"""Milliseconds between two drawings."""
_KINDS = ("click", "box")
_LEFT, _RIGHT = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight


class TrainTab(JobTab):
    """Choose images and settings, train, and compare with the base."""

    use_requested = Signal(str)
    """The user wants to segment with this model."""

    def __init__(self, viewer: Viewer) -> None:
        self.images = ImagesForm(viewer)
        self.form = TrainForm(self.images)
        self.training = TrainingController()
        super().__init__(self.form, "folder", self.training)
        self.viewer = viewer
        self.curves = TrainingCurves()
        self.gains = GainTable()
        self._later = later(self, self._read_layers)
        self._watch = ImageWatch(self)
        self._shown_problem: str | None = ""  # the problem shown last
        self._layer_events = [
            viewer.layers.events.inserted,
            viewer.layers.events.removed,
            viewer.layers.events.renamed,
        ]
        self._make_buttons()
        self._unfinished_part = QWidget()
        choices = QGridLayout()
        choices.setSpacing(4)
        choices.addWidget(self.resume, 0, 0, 1, 2)
        choices.addWidget(self.keep, 1, 0)
        choices.addWidget(self.discard, 1, 1)
        vbox(
            hbox(QLabel("Unfinished"), (self.unfinished, 1)), choices, parent=self._unfinished_part
        )
        below = (self.train, self.stop, self.status, self._unfinished_part, self.gains, self.curves)
        self._lay_out(*below).addStretch(1)
        self._connect()
        self.form.name.setText(free_name(_NAME))
        self._on_changed()
        self._shown_problem = ""
        self._read_layers()

    def release(self) -> None:
        """End process and threads, disconnect from the viewer."""
        self._later.stop()
        for event in self._layer_events:
            event.disconnect(self._on_layers)
        self._watch.follow([])
        self.images.release()
        self.form.base.release()
        self.training.close()

    @property
    def busy(self) -> bool:
        """Whether layers or a folder are still to be read, or a run is active."""
        return self._later.isActive() or self.training.checking or self.training.busy

    def take(self, path: str) -> None:
        """Train on the folder that was dropped."""
        self.form.choose_folder(path)

    def refresh(self) -> None:
        """Read what may have changed elsewhere: models, layers, unfinished runs."""
        if not self.training.busy:
            self.form.base.refresh()
            self._read_layers()
            self._on_changed()

    def _make_buttons(self) -> None:
        self.train = MainButton(
            "Train", tip="Train in a separate process; the window stays responsive"
        )
        self.stop = Button(STOP_AND_KEEP)
        self.unfinished = ComboBox()
        self.unfinished.setToolTip("Interrupted training runs")
        self.resume = Button(
            "Resume", tip="Continue from the last saved state, with the same result"
        )
        self.keep = Button("Keep the best", tip="Add the best checkpoint so far to your models")
        self.discard = Button("Discard", tip="Delete the run and everything it saved")

    def _connect(self) -> None:
        training = self.training
        self._watch.changed.connect(self._on_layers)
        for event in self._layer_events:
            event.connect(self._on_layers)
        self.images.changed.connect(self._on_choice)
        self.form.changed.connect(self._on_choice)
        self.train.clicked.connect(self._on_train)
        self.stop.clicked.connect(training.stop)
        self.resume.clicked.connect(lambda: training.resume(self.unfinished.currentText()))
        self.keep.clicked.connect(lambda: training.keep_best(self.unfinished.currentText()))
        self.discard.clicked.connect(lambda: training.discard(self.unfinished.currentText()))
        self.unfinished.activated.connect(self._on_unfinished_chosen)
        self.status.canceled.connect(training.stop)
        self.status.accepted.connect(
            lambda: self.use_requested.emit(training.base if training.is_worse else training.name)
        )
        self.status.other_accepted.connect(lambda: self.use_requested.emit(training.name))
        training.plotted.connect(self._on_plotted)
        training.checked.connect(self._on_choice)

    # ------------------------------------------------------------------ choice

    def _on_layers(self) -> None:
        self._later.start(0)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Read what changed while another tab was shown."""
        super().showEvent(event)
        self._later.start(0)

    def _read_layers(self) -> None:
        if not self.isVisible():
            self._watch.follow([])  # holds no reference to layers that are removed meanwhile
            return
        images = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
        self._watch.follow(images)
        active = self.viewer.layers.selection.active
        self.images.set_layers(images, layer_key(active) if active in images else None)

    def _problem(self) -> str | None:
        if not self.form.uses_folder and (problem := self.images.problem()):
            return problem
        return self.form.problem()

    def _on_choice(self) -> None:
        """Show whether training can start, and the command line that does the same."""
        if self.training.busy:
            return
        problem = self._problem()
        ready = READY
        if problem is None:
            request = self._request()
            self.command.set_value(WindowRun(request.name).arguments(request))
            if self.form.uses_folder:
                found = self.training.check(request)
                if found is None:
                    self.train.setEnabled(False)
                    self._shown_problem = CHECKING
                    return
                problem, ready = found.problem or None, found.description
                self.form.captures.offer(found.proposal)
        else:
            self.command.set_value(())
        self.train.setEnabled(problem is None)
        if problem == self._shown_problem:
            return  # the result of the last run stays visible
        self._shown_problem = problem
        if problem is None:
            self.status.set_value(Status("ready", ready))
            return
        empty = not self.form.uses_folder and not self._watch.followed
        kind: StatusKind = "nothing" if empty else "failed"
        self.status.set_value(Status(kind, problem))

    def _request(self) -> TrainRequest:
        request = self.form.value()
        if self.form.uses_folder:
            return request
        ratio = pixel_ratio_of(self.images.images())
        return replace(request, channels=",".join(self.images.channels.names), pixel_ratio=ratio)

    def _on_train(self) -> None:
        problem = self._problem()  # a layer's data may have been changed in place
        if problem is not None:
            self._on_choice()
            return
        images = [] if self.form.uses_folder else self.images.images()
        self.settings.set_open(False)
        self.training.start(self._request(), images, clicked_labels=self._has_clicked_labels())

    def _has_clicked_labels(self) -> bool:
        """Whether labels were made in the Segment tab."""
        used = () if self.form.uses_folder else {each.labels for each in self.images.value()}
        return any(
            layer_key(layer) in used and layer.name.startswith(OBJECTS)
            for layer in self.viewer.layers
        )

    # ------------------------------------------------------------------- shown

    def _on_unfinished_chosen(self) -> None:
        self.keep.setEnabled(WindowRun(self.unfinished.currentText()).best.exists())

    def _on_changed(self) -> None:
        training = self.training
        busy = training.busy
        for widget in (self.form, self.settings):
            widget.setEnabled(not busy)
        self.train.setVisible(not busy)
        self.stop.setVisible(busy and training.state != "preparing")
        self.stop.setEnabled(training.state != "killing")
        at_once = training.state in ("starting", "stopping", "killing")
        self.stop.setText(STOP_AT_ONCE if at_once else STOP_AND_KEEP)
        self.gains.set_value(training.metrics)
        self._on_plotted()
        self._list_unfinished()
        if not busy:
            self._after()

    def _list_unfinished(self) -> None:
        names = [] if self.training.busy else unfinished_runs()
        chosen = self.unfinished.currentText()
        wanted = self.training.name if self.training.name in names else chosen
        self.unfinished.clear()
        self.unfinished.addItems(names)
        self.unfinished.setCurrentIndex(names.index(wanted) if wanted in names else 0)
        self._unfinished_part.setVisible(bool(names))
        if names:
            self._on_unfinished_chosen()

    def _after(self) -> None:
        """After a run: suggest a free name, and enable the form."""
        if self.training.name and self.form.name.text() == self.training.name:
            name = free_name(self.training.name)
            self.form.name.blockSignals(True)
            self.form.name.setText(name)
            self.form.name.blockSignals(False)
        if self.form.uses_folder:
            self._on_choice()  # as the check of the folder says
        else:
            self._shown_problem = self._problem()
            self.train.setEnabled(self._shown_problem is None)
        if self.status.value().kind in ("failed", "canceled") and not self.unfinished.count():
            self.settings.set_open(True)  # the user has to change something

    def _on_plotted(self) -> None:
        history = self.training.history
        self.curves.set_value(history, self.training.total)
        self.curves.setVisible(bool(history.iou or history.loss))


class TrainingCurves(QWidget):
    """Shows a `CurveHistory`; its x axis ends at the number of steps."""

    _imported = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._history = CurveHistory()
        self._total = 0
        self._canvas: Any = None
        self._thread: threading.Thread | None = None
        self._imported.connect(self._on_imported, Qt.ConnectionType.QueuedConnection)
        QVBoxLayout(self).setContentsMargins(0, 0, 0, 0)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.setMaximumHeight(self.sizeHint().height())
        self.setMinimumHeight(170)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Room for two plots with titles."""
        return QSize(280, 250)

    def value(self) -> CurveHistory:
        """The history shown."""
        return self._history

    def set_value(self, history: CurveHistory, total: int = 0) -> None:
        """Show the curves of a run of `total` steps; 0 if unknown."""
        self._history, self._total = history, total
        best = history.best
        if best is not None:
            text = f"Best validation {best[1]:.1f} % at step {best[0]:.0f}"
            self.setToolTip(text)
            self.setAccessibleDescription(text)
        if self._canvas is not None:
            self._plot()
        elif self._thread is None and (history.iou or history.loss):
            self._thread = threading.Thread(target=self._import, name="simmat-matplotlib")
            self._thread.start()

    def _import(self) -> None:
        problem = ""
        try:
            with no_garbage_collection():  # it would hold the interpreter for half a second
                from matplotlib.backends.backend_agg import FigureCanvasAgg
                from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg  # noqa: F401
                from matplotlib.figure import Figure

                figure = Figure(figsize=(1, 1))
                figure.add_subplot(title="find the fonts here, not in the main thread")
                FigureCanvasAgg(figure).draw()
        except ImportError as error:  # it is in the extra `plots`
            problem = import_problem(error, "matplotlib", NO_CURVES)
        with suppress(RuntimeError):  # Qt has deleted the widget meanwhile
            self._imported.emit(problem)

    def _on_imported(self, problem: str) -> None:
        if problem:
            words = text_label()
            words.setText(problem)
            self.layout().addWidget(words)
            return
        from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(2.8, 2.5))
        self._canvas = FigureCanvasQTAgg(figure)
        self._canvas.setStyleSheet("background: transparent;")
        self._canvas.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        figure.patch.set_alpha(0)
        figure.subplots_adjust(left=0.15, right=0.97, top=0.9, bottom=0.16, hspace=0.45)
        iou, loss = figure.subplots(2, 1, sharex=True)
        self._iou = iou.plot([], [], ".-", color=IOU, linewidth=1.8)[0]
        self._best = iou.plot([], [], "o", markersize=9, fillstyle="none", clip_on=False)[0]
        self._loss = loss.plot([], [], color=LOSS, linewidth=1, alpha=0.4)[0]
        self._mean = loss.plot([], [], color=LOSS, linewidth=1.8)[0]
        for axes in (iou, loss):
            axes.patch.set_alpha(0)
            axes.locator_params(nbins=4)
            axes.tick_params(labelsize=7, length=0)
            axes.spines[:].set_visible(False)
        self._axes = iou, loss
        self.layout().addWidget(self._canvas)
        self._plot()

    @qthrottled(timeout=_REDRAW_AFTER, leading=True)
    def _plot(self) -> None:
        history, (iou, loss) = self._history, self._axes
        mean = smooth_points(history.loss)
        best = history.best
        for line, points in (
            (self._iou, history.iou),
            (self._best, [] if best is None else [best]),
            (self._loss, history.loss),
            (self._mean, mean),
        ):
            line.set_data([step for step, _ in points], [value for _, value in points])
        now = "" if best is None else f" {history.iou[-1][1]:.1f} %, best {best[1]:.1f} %"
        ink = QColor(self.palette().color(self.foregroundRole())).name()
        text = {"fontsize": 8, "color": ink}
        iou.set_title(f"validation IoU{now}", loc="left", **text)
        loss.set_title(f"loss {mean[-1][1]:.3f}" if mean else "loss", loc="left", **text)
        loss.set_xlabel("step", labelpad=0, **text)
        self._best.set_color(ink)
        for axes in (iou, loss):
            axes.tick_params(labelcolor=ink)
            axes.grid(axis="y", color=ink, alpha=0.2, linewidth=0.6)
            axes.relim()
            axes.autoscale(axis="y")  # a limit that was set has switched it off
        loss.set_ylim(bottom=0)
        last = max((points[-1][0] for points in (history.iou, history.loss) if points), default=0)
        loss.set_xlim(0, max(1, self._total, last))
        self._canvas.draw_idle()


def smooth_points(points: Points) -> Points:
    """Running mean over about a tenth of the curve, up to each point."""
    span = max(1, len(points) // 10)
    mean: Points = []
    total = 0.0
    for number, (step, value) in enumerate(points):
        total += value
        if number >= span:
            total -= points[number - span][1]
        mean.append((step, total / min(number + 1, span)))
    return mean


class GainTable(QWidget):
    """A view of the `Metrics` of a training run; hidden without any."""

    def __init__(self) -> None:
        super().__init__()
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
            set_tone(head, "muted")
            head.setAlignment(_RIGHT if column else _LEFT)
        for row, kind in enumerate(_KINDS, start=1):
            self._put(row, 0, f"one {kind}")
            for column, name in enumerate(("before", "after", "gain"), start=1):
                cell = self._put(row, column, "")
                cell.setAlignment(_RIGHT)
                self.cells[kind, name] = cell
        self.set_value(None)

    def value(self) -> Metrics | None:
        """The metrics shown."""
        return self._metrics

    def set_value(self, metrics: Metrics | None) -> None:
        """Show metrics; None hides the table."""
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
            set_tone(gain, "good" if after >= before else "error")

    def _put(self, row: int, column: int, text: str) -> QLabel:
        label = QLabel(text)
        self._grid.addWidget(label, row, column)
        return label
