"""The Train tab: shows the choices, the course and the outcome, passes on what was asked."""

from __future__ import annotations

from dataclasses import replace

from napari import Viewer
from napari.layers import Image
from qtpy.QtCore import QTimer, Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent, QShowEvent
from qtpy.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from napari_simmat.widgets.command_line import CommandLine
from napari_simmat.widgets.controls import Button, Choice, Fold, MainButton, Scroll
from napari_simmat.widgets.inputs import key_of
from napari_simmat.widgets.status import Kind, Status
from napari_simmat.widgets.status_line import StatusLine
from napari_simmat.widgets.train import runs
from napari_simmat.widgets.train.curves import Curves
from napari_simmat.widgets.train.data import pixel_ratio_of
from napari_simmat.widgets.train.form import TrainForm, dropped_folder
from napari_simmat.widgets.train.gains import Gains
from napari_simmat.widgets.train.images_form import ImagesForm
from napari_simmat.widgets.train.request import TrainRequest
from napari_simmat.widgets.train.runs import Run
from napari_simmat.widgets.train.training import Training

_NAME = "my-sensor"
"""Suggested for a model."""


class TrainTab(QWidget):
    """Choose images and settings, train, see how much better it became."""

    wanted = Signal(str)
    """The user wants to segment with the model of this name."""

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.training = Training()
        self.images = ImagesForm(viewer)
        self.form = TrainForm(self.images)
        self.status = StatusLine()
        self.curves = Curves()
        self.gains = Gains()
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
        self.left_over = Choice()
        self.left_over.setToolTip("Trainings that were interrupted")
        self.resume = Button("Resume", tip="Go on where it was saved last, with the same outcome")
        self.keep = Button(
            "Keep the best", tip="Make the best checkpoint so far one of your models"
        )
        self.discard = Button("Discard", tip="Remove the training and all that it saved")
        self.command = CommandLine()

    def _lay_out(self) -> None:
        self.settings = Fold("Settings", self.form)
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
            Scroll(choice),
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
        self.images.set_layers(images, key_of(active) if active in images else None)

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
            self.command.set_value(Run(request.name).arguments(request))
        else:
            self.command.set_value(())
        if problem == self._said:
            return  # how the last training ended stays in sight
        self._said = problem
        if problem is None:
            self.status.set_value(Status("ready", "Ready to train."))
            return
        empty = not self.form.uses_folder and not self._followed
        kind: Kind = "nothing" if empty else "failed"
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
        self.keep.setEnabled(Run(self.left_over.currentText()).best.exists())

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
        names = [] if self.training.busy else runs.unfinished()
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
