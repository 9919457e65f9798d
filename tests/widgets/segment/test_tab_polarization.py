"""Four layers, one for each angle of a polarizer, and the checkpoint that reads them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from napari_simmat import Predictor, load_model
from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors, save_checkpoint
from napari_simmat.cli.demo import demo_samples
from napari_simmat.io.files import ASSETS
from napari_simmat.widgets import samples
from tests.widgets.scenes import iou

ANGLES = ("0 deg", "45 deg", "90 deg", "135 deg")
WRONG_ORDER = (2, 0, 3, 1)


def open_layers(window: Any, numbers: tuple[int, ...]) -> None:
    """Open these channels of the sample, and choose the checkpoint."""
    image = demo_samples()[2].image
    for number in numbers:
        window.viewer.add_image(image[number], name=f"beads {ANGLES[number]}")
    window.open_widget()
    models = window.tab.models
    titles = [models.choice.itemText(n) for n in range(models.choice.count())]
    window.choose(models.choice, next(each for each in titles if each.startswith("polarization")))


def chosen_names(window: Any) -> list[str | None]:
    names = {str(layer.unique_id): layer.name for layer in window.viewer.layers}
    return [source and names[source.layer] for source in window.tab.channels.value()]


@pytest.mark.slow
def test_channels_opened_in_wrong_order_are_sorted_by_name(window):
    sample = demo_samples()[2]
    open_layers(window, WRONG_ORDER)
    assert chosen_names(window) == [f"beads {angle}" for angle in ANGLES]
    assert [slot.currentText() for slot in window.tab.channels.slots] == chosen_names(window)
    assert window.status.kind == "ready"

    largest = 1 + int(np.argmax(np.bincount(sample.truth.ravel())[1:]))
    rows, columns = np.nonzero(sample.truth == largest)
    window.drag(rows.min() - 0.5, columns.min() - 0.5, rows.max() + 0.5, columns.max() + 0.5)
    assert window.status.kind == "done"
    mask = window.mask

    predictor = Predictor(load_model("polarization"), device="cpu")
    predictor.set_image(sample.image, channel_axis=0)
    answer = predictor.predict_many(window.controller.inference.request.prompts)[0]
    assert np.array_equal(mask, answer.mask), "the window feeds what the sensor says"
    predictor.set_image(sample.image[list(WRONG_ORDER)], channel_axis=0)
    other = predictor.predict_many(window.controller.inference.request.prompts)[0]
    assert not np.array_equal(other.logits, answer.logits), "the order matters to this model"
    assert iou(mask, sample.truth == largest) > 0.8

    window.tab.act("commit")
    assert np.array_equal(window.objects == 1, mask)


@pytest.mark.slow
def test_channels_with_a_missing_angle_are_refused(window):
    open_layers(window, (3, 0, 1))
    assert window.status.kind == "failed"
    assert window.status.text == (
        "polarization reads 0 deg, 45 deg, 90 deg, 135 deg, but no open layer is chosen for "
        "90 deg: open or rename it, or choose one under Channels."
    )
    assert chosen_names(window) == ["beads 0 deg", "beads 45 deg", None, "beads 135 deg"]
    assert not window.tab.buttons.tools["point"].isEnabled()
    window.viewer.add_image(demo_samples()[2].image[2], name="beads 90 deg")
    window.idle()
    assert window.status.kind == "ready"
    assert chosen_names(window) == [f"beads {angle}" for angle in ANGLES]


def test_channels_may_lack_if_trained_for_it(window, tmp_path):
    path = next(each for each in ASSETS.glob("polarization*.safetensors"))
    spec, tensors = read_spec(path), read_tensors(path)
    trained = {**spec.training, "drop_channels": 0.2}
    save_checkpoint(tmp_path / "robust.safetensors", replace(spec, training=trained), tensors)
    open_layers(window, (3, 0, 1))
    window.tab.models.set_value(tmp_path / "robust.safetensors")
    window.idle()
    assert window.status.kind == "ready"
    assert window.tab.channels.remark.text().startswith("The image lacks 90 deg, which")
    assert chosen_names(window) == ["beads 0 deg", "beads 45 deg", None, "beads 135 deg"]
    sample = demo_samples()[2]
    rows, columns = np.nonzero(sample.truth == 1)
    window.drag(rows.min() - 0.5, columns.min() - 0.5, rows.max() + 0.5, columns.max() + 0.5)
    assert window.status.kind == "done"
    predictor = Predictor(load_model(tmp_path / "robust.safetensors"), device="cpu")
    predictor.set_image(sample.image[[0, 1, 3]], 0, channels=(0, 1, "-", 2))
    prompts = window.controller.inference.request.prompts
    assert np.array_equal(window.mask, predictor.predict_many(prompts)[0].mask)


@pytest.mark.parametrize("sample", [samples.polarization, samples.polarization_stack])
def test_samples_feed_the_checkpoint(window, sample):
    for data, options, kind in sample():
        getattr(window.viewer, f"add_{kind}")(data, **options)
    window.open_widget()
    window.tab.models.set_value("polarization")
    window.idle()
    assert window.status.kind == "ready"
    shape = window.viewer.layers["known objects"].data.shape
    assert window.workspace.session.geometry.shape == shape
