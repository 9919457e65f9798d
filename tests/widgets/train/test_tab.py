"""From open layers to a new model in the list, with mouse and keys; each child is a real one."""

import os
import signal
import sys
from typing import Any

import numpy as np
import psutil
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_simmat.checkpoints.checkpoint import read_spec
from napari_simmat.progress import JobEvent
from napari_simmat.widgets.child_process import Ending
from napari_simmat.widgets.train.controller import (
    CRASHED_AT,
    LABELS_FAVOR_BASE,
    USE_MODEL,
    USE_THIS_MODEL,
    WORSE,
)
from napari_simmat.widgets.train.tab import STOP_AT_ONCE
from tests.nightly import nightly_but
from tests.widgets.conftest import SECONDS, Window
from tests.widgets.hands import TabHands
from tests.widgets.scenes import CENTERS, discs, iou

pytestmark = pytest.mark.all_tabs

LEFT = Qt.MouseButton.LeftButton


class Trainer(TabHands):
    """Hands on the Train tab."""

    def __init__(self, window: Window) -> None:
        super().__init__(window, "train")

    @property
    def training(self) -> Any:
        return self.tab.training

    def settle(self):
        self.until(lambda: not (self.tab._later.isActive() or self.training.checking))

    def type(self, field: Any, text: str) -> None:
        super().type(field, text)
        QTest.keyClick(field, Qt.Key.Key_Return)

    def choose_settings(self, name: str, steps: int) -> None:
        self.type(self.tab.form.name, name)
        self.type(self.tab.form.options["steps"], str(steps))
        self.type(self.tab.form.options["batch"], "1")
        assert self.status.kind == "ready", self.status

    def start(self, name: str, steps: int) -> None:
        self.choose_settings(name, steps)
        self.press(self.tab.train)

    def first_step(self) -> None:
        """Wait until something was learned and measured."""
        self.until(lambda: bool(self.training.history.loss) or not self.training.busy)
        assert self.training.state == "training", self.status

    def over(self) -> None:
        self.until(lambda: not self.training.busy)
        QApplication.processEvents()


def add_layers(window: Window) -> None:
    """Two channels of other types, and their objects; small, so that a step is quick."""
    image, labels = (each[::2, ::2].copy() for each in discs())
    window.viewer.add_image((255 * image).astype(np.uint8), name="field 1 near")
    window.viewer.add_image((1 - image).astype(np.float32), name="field 1 far")
    window.viewer.add_labels(labels, name="true objects")


@pytest.fixture
def trainer(window):
    add_layers(window)
    window.open_widget()
    trainer = Trainer(window)
    trainer.open_tab()
    return trainer


def test_train_on_open_layers_makes_a_model_that_segments(trainer, user_folder):
    window, tab = trainer.window, trainer.tab
    trainer.until(lambda: tab.images.value()[0].names == ("near", "far"))
    assert tab.images.labels.currentText() == "true objects"
    trainer.choose_settings("two channels", 4)
    for words in ("--channels=near,far", "--steps=4", "--batch=1", "--learning-rate=0.001"):
        assert words in tab.command.value()
    states = [trainer.training.state]
    trainer.training.changed.connect(lambda: states.append(trainer.training.state))
    trainer.press(tab.train)
    assert not tab.form.isEnabled()
    trainer.first_step()
    assert tab.curves.isVisibleTo(tab)
    assert "Step " in trainer.status.text
    assert trainer.status.fraction is not None
    pid = trainer.training.process.pid
    if sys.platform != "win32":
        assert psutil.Process(pid).nice() == min(19, psutil.Process().nice() + 5)
    trainer.over()
    assert list(dict.fromkeys(states)) == [
        "idle", "preparing", "starting", "training", "comparing",
    ]  # fmt: skip
    assert trainer.status.kind == "done", trainer.status
    assert "half trains and its" in trainer.status.text, "what the training remarked"
    assert not psutil.pid_exists(pid), "its memory is free"
    history = tab.curves.value()
    assert [step for step, _ in history.loss] == [1, 2, 3, 4]
    assert history.iou[0][0] == 0
    assert history.iou[-1][0] == 4

    spec = read_spec(user_folder / "models" / "two channels.safetensors")
    assert spec.channel_names == ("near", "far")
    assert tab.gains.value() == {n: v for n, v in spec.metrics.items() if isinstance(v, dict)}
    assert tab.gains.cells["click", "after"].text() == f"{spec.metrics['after']['click']:.1f}"
    assert tab.form.name.text() == "two channels-2", "the next one has a free name"
    left = sorted(path.name for path in (user_folder / "trainings").iterdir())
    assert left == [".two channels.lock", "two channels.csv", "two channels.txt"]

    # After so few steps it may be worse than the base, which is offered first then.
    use = tab.status.other if trainer.training.is_worse else tab.status.offer
    assert use.text() == USE_MODEL
    assert window.tab.models.value().name != "two channels"
    titles = [window.tab.models.choice.itemText(n) for n in range(window.tab.models.choice.count())]
    assert "two channels · own file" in titles, "it can be chosen at once"
    trainer.press(use)
    assert window.widget.tabs.currentWidget() is window.tab
    assert window.tab.models.value().name == "two channels"
    window.idle()
    window.add_object(CENTERS[0][0] / 2, CENTERS[0][1] / 2)
    truth = window.viewer.layers["true objects"].data
    assert iou(window.viewer.layers["SimMAT objects"].data == 1, truth == 1) > 0.5


@pytest.mark.parametrize("clicked", nightly_but((False, True), False))
def test_a_model_worse_than_its_base_offers_the_base(trainer, monkeypatch, clicked):
    tab, training = trainer.tab, trainer.training
    monkeypatch.setattr(training.process, "start", lambda *_: None)  # its events are made here
    if clicked:
        trainer.window.viewer.layers["true objects"].name = "SimMAT objects of near"
        trainer.settle()
    trainer.start("two channels", 4)
    trainer.until(lambda: training.state == "starting")
    metrics = {"before": {"click": 70.0, "box": 80.0}, "after": {"click": 60.0, "box": 82.0}}
    step = {"done": 4, "total": 4, "message": "training", "figures": {"step": 4.0, "loss": 0.5}}
    training.process.received.emit(JobEvent(**step))
    training.process.received.emit(JobEvent(output="two channels.safetensors", metrics=metrics))
    training.process.ended.emit(Ending("done", ""))
    text = WORSE.format(name="two channels", base="tiny-6", before=75.0, after=71.0)
    assert trainer.status.text == (f"{text} {LABELS_FAVOR_BASE}" if clicked else text)
    assert (trainer.status.offer, trainer.status.other) == (
        USE_THIS_MODEL.format("tiny-6"),
        USE_MODEL,
    )
    wanted: list[str] = []
    tab.use_requested.disconnect()
    tab.use_requested.connect(wanted.append)
    trainer.press(tab.status.other)
    trainer.press(tab.status.offer)
    assert wanted == ["two channels", "tiny-6"]


@pytest.mark.slow
def test_stopped_early_the_best_is_kept(trainer, user_folder, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")  # as on the desktop of a cluster's node
    monkeypatch.setenv("SLURM_JOB_NAME", "desktop")
    trainer.start("early", 500)
    assert not trainer.tab.resume.isVisibleTo(trainer.tab)
    trainer.first_step()
    trainer.press(trainer.tab.stop)
    assert trainer.training.state == "stopping"
    assert trainer.tab.stop.text() == STOP_AT_ONCE
    trainer.over()
    assert trainer.status.kind == "done", trainer.status
    assert "of 500)" in trainer.status.text
    spec = read_spec(user_folder / "models" / "early.safetensors")
    best = max(value for _, value in trainer.training.history.iou)
    assert spec.metrics["validation"]["click"] == pytest.approx(best, abs=0.01)
    assert not trainer.tab._unfinished_part.isVisibleTo(trainer.tab)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no signals there")
def test_a_killed_training_says_so_and_can_be_resumed(trainer, user_folder):
    trainer.start("killed", 8)
    trainer.first_step()
    os.kill(trainer.training.process.pid, signal.SIGKILL)
    trainer.over()
    assert trainer.status.kind == "failed"
    assert CRASHED_AT.split("{")[0] in trainer.status.text
    assert "The best checkpoint so far (step " in trainer.status.text
    best = user_folder / "trainings" / "killed" / "run" / "best.safetensors"
    assert read_spec(best).channel_names == ("near", "far")
    assert not (user_folder / "models" / "killed.safetensors").exists()
    assert trainer.tab.unfinished.currentText() == "killed"

    # Other settings and layers now change nothing about it.
    trainer.window.viewer.layers.clear()
    trainer.settle()
    trainer.press(trainer.tab.resume)
    trainer.over()
    assert trainer.status.kind == "done", trainer.status
    steps = [step for step, _ in trainer.training.history.loss]
    assert steps == sorted(set(steps))
    assert steps[-1] == 8
    assert (user_folder / "models" / "killed.safetensors").exists()
    assert not best.exists()


@pytest.mark.slow
def test_keep_best_after_a_kill_makes_the_model(trainer, user_folder):
    trainer.start("cut", 500)
    trainer.first_step()
    trainer.press(trainer.tab.stop)
    trainer.press(trainer.tab.stop)
    trainer.over()
    assert trainer.status.kind == "canceled"
    assert "Stopped at once at step" in trainer.status.text
    trainer.press(trainer.tab.resume)
    trainer.press(trainer.tab.stop)  # before it has gone on
    trainer.over()
    assert f"Stopped at once at step {trainer.training.history.step}. The" in trainer.status.text
    assert trainer.training.history.step > 0
    trainer.type(trainer.tab.form.name, "cut")
    assert "The training of cut is not finished" in trainer.status.text
    trainer.press(trainer.tab.keep)
    trainer.over()
    assert trainer.status.kind == "done"
    spec = read_spec(user_folder / "models" / "cut.safetensors")
    assert spec.channel_names == ("near", "far")
    assert not (user_folder / "trainings" / "cut").exists()
    names = [entry.name for entry in trainer.window.tab.models._entries]
    assert "cut" in names


@pytest.mark.slow
@pytest.mark.real_window
def test_close_ends_the_process_and_another_window_resumes(trainer, open_window, user_folder):
    trainer.until(lambda: trainer.tab.images.value()[0].names == ("near", "far"))
    trainer.start("closed", 500)
    trainer.first_step()
    training, pid = trainer.training, trainer.training.process.pid
    worker = trainer.window.controller.inference.worker
    trainer.window.widget = None
    trainer.window.viewer.close()
    trainer.until(lambda: not psutil.pid_exists(pid))
    assert not training.process.running
    assert worker.join(SECONDS / 1000)

    window = open_window()
    window.open_widget()
    second = Trainer(window)
    second.open_tab()
    assert second.tab.unfinished.currentText() == "closed"
    assert second.tab.resume.isVisibleTo(second.tab)
    assert (user_folder / "trainings" / "closed").exists()
    second.press(second.tab.discard)
    assert second.status.text == "The training of closed is discarded."
    assert not (user_folder / "trainings" / "closed").exists()
    assert not second.tab._unfinished_part.isVisibleTo(second.tab)
