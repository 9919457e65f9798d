"""What the Train tab says before anything is trained: which layers, and what is wrong with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtTest import QTest
from tifffile import imwrite

from napari_simmat.annotation.channel_choice import LayerChannel
from napari_simmat.widgets.layer_data import layer_key
from napari_simmat.widgets.train.folder_check import CHECKING, READY
from napari_simmat.widgets.train.form import LabeledLayers
from napari_simmat.widgets.train.request import TrainRequest
from napari_simmat.widgets.train.window_run import WindowRun
from tests.widgets.dropping import drop
from tests.widgets.scenes import discs
from tests.widgets.train.test_tab import LEFT, Trainer, add_layers

pytestmark = pytest.mark.all_tabs


@pytest.fixture
def trainer(window):
    add_layers(window)
    window.open_widget()
    trainer = Trainer(window)
    trainer.open_tab()
    trainer.type(trainer.tab.form.name, "new")
    return trainer


def without_labels(layers: Any) -> None:
    layers.remove("true objects")


def other_shape(layers: Any) -> None:
    layers["true objects"].data = np.ones((99, 110), dtype=int)


def truth_values(layers: Any) -> None:
    layers["field 1 far"].data = np.ones((100, 110), dtype=bool)


def elsewhere(layers: Any) -> None:
    layers["true objects"].translate = (5, 0)


def channels_of_two_sizes(layers: Any) -> None:
    layers["field 1 far"].data = np.ones((100, 109), dtype=np.float32)


def nothing_open(layers: Any) -> None:
    layers.clear()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            without_labels,
            "No labels are chosen for field 1 near: choose a labels layer that gives each object a "
            "number. (An image of objects becomes one with Layers > Convert to Labels.)",
        ),
        (
            elsewhere,
            "true objects lies elsewhere than field 1 near (scale, translate or affine): choose "
            "labels that lie on the image.",
        ),
        pytest.param(
            channels_of_two_sizes,
            "field 1 far has 100 x 109 pixels, but field 1 near has 100 x 110: choose layers of "
            "one size.",
            marks=pytest.mark.slow,
        ),
        (
            other_shape,
            "true objects has 99 x 110 pixels, but field 1 near has 100 x 110: choose labels of "
            "the image's size.",
        ),
        pytest.param(truth_values, "images are integers or floats", marks=pytest.mark.slow),
        (nothing_open, "No image is open: open one and its labels, or choose a folder."),
    ],
)
def test_a_wrong_choice_is_one_sentence_and_does_not_start(trainer, spoil, sentence):
    tab = trainer.tab
    tab.images.set_value(tab.images.value())  # by hand: nothing else is chosen instead
    spoil(trainer.window.viewer.layers)
    trainer.settle()
    tab._on_choice()
    assert sentence in trainer.status.text
    assert trainer.status.kind == ("nothing" if spoil is nothing_open else "failed")
    assert not tab.train.isEnabled()
    assert tab.command.value() == ""
    assert not trainer.training.busy


def test_empty_labels_are_found_when_they_are_written(trainer, user_folder):
    trainer.window.viewer.layers["true objects"].data[...] = 0
    trainer.press(trainer.tab.train)
    trainer.over()
    assert trainer.status.kind == "failed"
    assert trainer.status.text.startswith("The labels of field 1 near hold no object")
    assert not (user_folder / "trainings" / "new").exists()
    assert trainer.tab.train.isEnabled()


def test_folder_dropped_on_the_tab_is_checked_and_described(trainer, tmp_path):
    tab = trainer.tab
    assert not drop(tab, Path(__file__))
    image, labels = (255 * discs()[0]).astype(np.uint8), discs()[1].astype(np.uint8)
    for number in range(6):
        stacked = np.stack([image] * 3, axis=-1) if number == 5 else image
        imwrite(tmp_path / f"{number}.tif", np.roll(stacked, number, axis=0))
        imwrite(tmp_path / f"{number}_labels.tif", np.roll(labels, number, axis=0))
    assert drop(tab, tmp_path)
    assert tab.form.value().folder == str(tmp_path)
    assert tab.form.source.currentText() == "a folder"
    assert trainer.status.text == CHECKING
    assert not tab.train.isEnabled()
    trainer.settle()
    assert trainer.status.kind == "failed", trainer.status
    assert trainer.status.text.startswith("5 has 3 channels, but"), trainer.status
    assert not tab.train.isEnabled()
    for path in tmp_path.glob("5*"):
        path.unlink()
    tab.refresh()
    trainer.settle()
    assert trainer.status.kind == "ready", trainer.status
    assert trainer.status.text.startswith("Ready to train: 4 images to train on and 1 to validate")
    assert "20 objects" in trainer.status.text
    assert tab.train.isEnabled()
    assert f"simmat train {tmp_path} --output" in tab.command.value()


def test_cancel_while_layers_are_written_leaves_nothing(trainer, user_folder):
    trainer.press(trainer.tab.train)
    trainer.training.stop()  # the window had no turn to show the button
    trainer.over()
    assert trainer.status.kind == "canceled"
    assert not (user_folder / "trainings" / "new").exists()
    assert trainer.tab.train.isEnabled()


def test_a_second_image_has_the_channels_of_the_first(trainer):
    tab, viewer = trainer.tab, trainer.window.viewer
    image, labels = (each[::-2, ::2].copy() for each in discs())
    viewer.add_image((9 * image).astype(np.float32), name="field 2 far")
    viewer.add_image((255 * image).astype(np.uint8), name="field 2 near")
    viewer.add_labels(labels, name="more objects")
    trainer.settle()
    chosen = tab.images.value()
    assert len(chosen) == 1, "what was chosen before stays"
    QTest.mouseClick(tab.images.add, LEFT)
    assert tab.images.problem() is None
    second = tab.images.value()[1]
    names = {layer_key(layer): layer.name for layer in viewer.layers}
    assert [names[each.layer] for each in second.sources] == ["field 2 near", "field 2 far"]
    assert names[second.labels] == "more objects"
    arrays = tab.images.images()
    assert [value.name for value in arrays] == ["field 1 near", "field 2 near"]
    assert arrays[1].channel_names == ("near", "far")
    assert arrays[1].arrays[0] is viewer.layers["field 2 near"].data

    tab.images.more[0].labels.set_value(viewer.layers["true objects"])
    tab.images.changed.emit()
    assert "true objects is chosen as the labels of two images" in trainer.status.text
    QTest.mouseClick(tab.images.more[0].remove, LEFT)
    assert tab.images.value() == chosen
    assert trainer.status.text == READY


def test_images_that_are_set_read_back(trainer):
    form, viewer = trainer.tab.images, trainer.window.viewer
    image, labels = discs((100, 110))
    viewer.add_image(image, name="third")
    viewer.add_labels(labels, name="other objects")
    trainer.settle()
    keys = {layer.name: layer_key(layer) for layer in viewer.layers}
    value = (
        LabeledLayers(("one",), (LayerChannel(keys["third"]),), keys["true objects"]),
        LabeledLayers(("one",), (LayerChannel(keys["field 1 far"]),), keys["other objects"]),
        LabeledLayers(("one",), (None,), None),
    )
    form.set_value(value)
    assert form.value() == value
    form.set_value(value[:1])
    assert form.value() == value[:1]


def test_resume_of_a_run_in_another_window_is_refused(trainer):
    other = WindowRun("new")
    other.claim()
    trainer.press(trainer.tab.train)
    assert trainer.status.text == (
        "new is being trained in another window; choose another name, or wait."
    )
    other.release()
    assert not trainer.training.busy


@pytest.mark.slow
@pytest.mark.real_window
def test_train_tab_in_little_room_scrolls_and_cuts_nothing_off(trainer):
    from napari_simmat.widgets.controls import VerticalScroll

    tab, window = trainer.tab, trainer.window
    interrupted = WindowRun("old")
    interrupted.claim()
    interrupted.write_request(TrainRequest(name="old"))
    interrupted.release()
    figures = {"click": 12.3, "box": 45.6}
    trainer.training.metrics = {"before": figures, "after": figures}
    for step in range(9):
        trainer.training.history.add({"step": step, "loss": 1.0, "validation_iou": step})
    tab._on_changed()
    for part in (tab.resume, tab.keep, tab.discard, tab.gains, tab.curves, tab.train):
        assert part.isVisibleTo(tab)
        trainer.until(lambda part=part: part.width() > 0)
        right = part.mapTo(tab, part.rect().bottomRight())
        assert right.x() < tab.width()
        assert right.y() < tab.height()
    assert tab.minimumSizeHint().width() <= 340
    scroll = tab.findChild(VerticalScroll)
    trainer.until(lambda: scroll.verticalScrollBar().maximum() > 0)
    tab.settings.set_open(False)
    trainer.until(lambda: scroll.verticalScrollBar().maximum() == 0)
    window.viewer.window.resize(1000, 500)
    assert window.viewer.window._qt_window.height() < 800, "it does not force a high window"


def test_layers_of_long_pixels_give_their_ratio(trainer):
    tab, viewer = trainer.tab, trainer.window.viewer
    for name in ("field 1 near", "field 1 far", "true objects"):
        viewer.layers[name].scale = (3, 0.5)
    trainer.settle()
    tab._on_choice()
    assert tab.images.problem() is None
    assert "--pixel-ratio=6.0" in tab.command.value()
    image, labels = discs((100, 110))
    for name in ("near", "far"):
        viewer.add_image(image, name=f"field 2 {name}")
    viewer.add_labels(labels, name="more objects")
    trainer.settle()
    QTest.mouseClick(tab.images.add, LEFT)
    assert trainer.status.text == (
        "A pixel of field 1 near is 6 times as high as wide, one of field 2 near 1 times: give "
        "their layers one scale, or save them as files and train on their folder."
    )
