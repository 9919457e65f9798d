"""What the model sees, derived channels and registration, by the buttons of the Segment tab."""

import numpy as np
import pytest
from qtpy.QtWidgets import QLabel

from napari_simmat.annotation.channel_choice import LayerChannel
from napari_simmat.cli.demo import demo_samples
from napari_simmat.engine.channels.registration import matrix_of_shift, move_channel
from napari_simmat.io.reference import ImageReference
from napari_simmat.widgets.placement import REFERENCE, layer_matrix
from napari_simmat.widgets.segment.work import channel_tools
from tests.engine.channels.test_registration import rig, seen_by, turned
from tests.widgets.scenes import CENTERS, discs, gray

SEEN = "SimMAT seen"


def test_see_shows_an_aligned_layer_and_says_what_lacks(window):
    place = {"scale": (0.5, 2), "translate": (10, -30), "rotate": 20}
    image = window.open(gray(), name="discs", **place)
    before = window.controller.inference.request
    window.push(window.tab.channel_panel.see)
    seen = window.viewer.layers[SEEN]
    assert (seen.rgb, seen.data.dtype) == (True, np.uint8)
    for corner in ((-0.5, -0.5), (199.5, 219.5)):
        share = (np.array(corner) + 0.5) / (200, 220)
        there = share * seen.data.shape[:2] - 0.5
        assert seen.data_to_world(there) == pytest.approx(image.data_to_world(corner))
    assert channel_tools.WITHOUT_OBJECT in window.status.text
    assert window.tab.channel_panel.text.isHidden()
    assert window.viewer.layers.index(seen) == window.viewer.layers.index(image) + 1
    window.push(window.tab.channel_panel.see)
    assert sum(layer.name.startswith(SEEN) for layer in window.viewer.layers) == 1
    assert window.workspace.images == [image], "it is no image to segment"
    assert window.controller.inference.request is before


def test_see_names_what_each_channel_does_for_the_mask(window):
    labels = discs()[1]
    noise = np.random.default_rng(0).normal(50, 4, (2, *labels.shape))
    image = np.stack([noise[0], noise[1] + 120 * (labels == 2), np.full(labels.shape, 50.0)])
    layer = window.open(image.astype(np.float32), name="bars", axis_labels=("channel", "y", "x"))
    window.click(*CENTERS[1])
    mask = window.mask.copy()
    window.push(window.tab.channel_panel.see)
    panel = window.tab.channel_panel
    assert panel.text.text().startswith(
        "Part of the mask that changes without a channel: channel 1 0."
    )
    assert not panel.plot.isHidden()
    assert "influence" in panel.plot.accessibleName()
    assert window.viewer.layers[SEEN].ndim == layer.ndim - 1
    assert np.array_equal(window.mask, mask)
    window.commit()
    assert window.objects.any(), "the prompts are still those of the image"


@pytest.mark.slow
def test_see_of_a_side_view_lies_on_its_plane(window):
    volume = np.repeat(gray()[:64, :96][:, None], 80, axis=1)  # (z, y, x)
    image = window.open(volume, name="volume", scale=(2, 1, 1))
    window.viewer.dims.order = (1, 0, 2)
    window.show_plane(0, 33)
    window.push(window.tab.channel_panel.see)
    seen = window.viewer.layers[SEEN]
    assert seen.data.shape[1] == 1
    assert seen.extent.world[:, [0, 2]] == pytest.approx(image.extent.world[:, [0, 2]], abs=1.5)
    assert seen.extent.world[:, 1] == pytest.approx([33, 33])


def test_see_is_stopped_by_the_status_line(window, monkeypatch):
    window.open(gray(), name="discs")
    window.take(window.tab.channel_panel.see)
    window.tab.status.canceled.emit()
    window.idle()
    assert window.status.text == channel_tools.STOPPED
    assert SEEN not in window.viewer.layers


@pytest.mark.slow
def test_derive_adds_layers_on_the_image(window):
    angles = demo_samples()[2].image
    for number, angle in enumerate(("90", "0", "135", "45")):
        part = angles[(2, 0, 3, 1)[number]]
        window.viewer.add_image(part, name=f"beads {angle} deg", scale=(3, 3))
    window.start()
    window.tab.channel_panel.derived.emit("polarization")
    window.tab.channel_tools.dialog.accept()
    window.idle()
    names = ("intensity", "AoLP", "DoLP")
    layers = [window.viewer.layers[name] for name in names]
    expected = channel_tools.derive_channels("polarization", list(angles))
    for layer in layers:
        assert np.array_equal(layer.data, expected[layer.name])
        assert np.allclose(layer_matrix(layer), np.diag((3, 3, 1)))
    chosen = [source.layer for source in window.tab.channels.value()]
    assert chosen == [str(layer.unique_id) for layer in layers]
    assert window.status.kind == "ready"


def multispectral(window, bands):
    """An open image whose file names its bands, each of a value of its own."""
    planes = np.arange(1, len(bands) + 1, dtype=np.float32)[:, None, None] * np.ones((40, 60))
    reference = ImageReference(channels=bands)
    return window.open(
        planes,
        name="field",
        axis_labels=("channel", "y", "x"),
        metadata={REFERENCE: reference},
    )


@pytest.mark.parametrize(
    ("bands", "red", "infrared"),
    [
        (("coastal", "blue", "green", "red", "nir1"), 4, 5),
        (("nir", "red edge", "red"), 3, 1),
        (("B2", "B3", "B4", "B8"), 3, 4),
        (("475 nm", "560 nm", "668 nm", "717 nm", "842 nm"), 3, 5),
    ],
)
def test_derive_ndvi_finds_red_and_near_infrared_among_the_bands(window, bands, red, infrared):
    multispectral(window, bands)
    window.tab.channel_panel.derived.emit("ndvi")
    window.tab.channel_tools.dialog.accept()
    window.idle()
    ndvi = (infrared - red) / (infrared + red)
    np.testing.assert_allclose(window.viewer.layers["NDVI"].data, ndvi, rtol=1e-6)


def test_derive_waits_for_a_choice_where_no_band_is_known(window):
    multispectral(window, ("coastal", "blue", "green", "red"))
    window.tab.channel_panel.derived.emit("ndvi")
    dialog = window.tab.channel_tools.dialog
    red, infrared = dialog.findChildren(channel_tools.ComboBox)
    [buttons] = dialog.findChildren(channel_tools.QDialogButtonBox)
    ok = buttons.button(channel_tools.QDialogButtonBox.StandardButton.Ok)
    assert (red.currentText(), infrared.currentIndex()) == ("field · red", -1)
    assert not ok.isEnabled()
    infrared.setCurrentText("field · red")
    assert not ok.isEnabled(), "one channel cannot be both"
    infrared.setCurrentText("field · coastal")
    assert ok.isEnabled()
    dialog.reject()


def test_derive_takes_as_many_channels_as_needed_in_order(window):
    angles = demo_samples()[2].image
    window.open(angles, name="beads", axis_labels=("channel", "y", "x"))
    window.tab.channel_panel.derived.emit("polarization")
    window.tab.channel_tools.dialog.accept()
    window.idle()
    expected = channel_tools.derive_channels("polarization", list(angles))
    assert np.array_equal(window.viewer.layers["DoLP"].data, expected["DoLP"])


def test_bands_with_the_names_of_the_model_are_chosen(window):
    layer = multispectral(window, ("coastal", "blue", "green", "red", "nir1"))
    key = str(layer.unique_id)
    assert [*window.tab.channels.value()] == [LayerChannel(key, n) for n in (3, 2, 1)]
    window.tab.models.set_value("multispectral")
    window.idle()
    parts = [None if each is None else each.part for each in window.tab.channels.value()]
    assert parts == [1, 2, 3, 4, None, None]  # 480, 560, 655 and 865 nm; no short-wave infrared


def test_derive_hha_asks_for_the_focal_length(window):
    planes = np.random.default_rng(0).uniform(1, 3, (2, 40, 60))
    window.viewer.add_image(np.zeros((80, 200)), name="a wider one")
    window.open(planes, name="depth")
    window.tab.models.set_value("depth")
    window.idle()
    chosen = window.tab.channels.value()
    window.tab.channel_panel.derived.emit("hha")
    dialog = window.tab.channel_tools.dialog
    [focal] = dialog.findChildren(channel_tools.QDoubleSpinBox)
    [channel] = dialog.findChildren(channel_tools.ComboBox)
    assert channel.currentText() == "depth"
    assert focal.value() == pytest.approx(0.81 * 60)
    channel.setCurrentText("a wider one")
    assert focal.value() == pytest.approx(0.81 * 200)
    channel.setCurrentText("depth")
    focal.setValue(55)
    dialog.accept()
    window.idle()
    for name, values in channel_tools.derive_channels("hha", [planes], 55).items():
        assert np.array_equal(window.viewer.layers[name].data, values)
    assert window.tab.channels.value() == chosen
    assert window.tab.models.value().name == "depth"


def test_register_moves_the_displaced_channel(window):
    window.open(rig((3, -4)), name="rig", axis_labels=("channel", "y", "x"))
    first, second = (LayerChannel(str(window.viewer.layers[0].unique_id), n) for n in (0, 1))
    window.tab.channels.set_value([first] * 3)
    window.idle()
    window.tab.channel_panel.registered.emit("shift")
    assert "registration needs two or more" in window.status.text
    window.tab.channels.set_value([first, second, first])
    window.tab.channel_panel.registered.emit("shift")
    window.idle()
    dialog = window.tab.channel_tools.dialog
    assert window.status.text == channel_tools.ASKED.format(channel_tools.SHIFTS)
    down, right = dialog.findChildren(channel_tools.QDoubleSpinBox)[2:]
    assert (down.value(), right.value()) == pytest.approx((3, -4), abs=0.3)
    down.setValue(2.5)
    right.setValue(-4)
    dialog.accept()
    window.idle()
    moved = window.viewer.layers["channel 1 moved +2.5, -4"]
    expected = move_channel(rig((3, -4))[1], matrix_of_shift(2.5, -4))
    np.testing.assert_array_equal(np.asarray(moved.data), expected)
    assert np.isnan(expected[:2]).all(), "what the sensor does not see has no value"
    value = window.tab.channels.value()
    assert [each.layer for each in value] == [first.layer, str(moved.unique_id), first.layer]
    assert np.array_equal(window.viewer.layers["rig"].data, rig((3, -4)))
    assert window.status.kind == "ready"
    assert window.workspace.prompt_layers.tool == "point", "still in hand"


@pytest.mark.slow
def test_register_turns_and_scales_a_camera(window, shared_image):
    pytest.importorskip("SimpleITK")
    bands = shared_image("multispectral4_sentinel2.tif")[:2, :200, :200].astype(np.float32)
    bands[1] = seen_by(bands[1], turned((200, 200)))
    window.open(bands, name="rig", axis_labels=("channel", "y", "x"))
    first, second = (LayerChannel(str(window.viewer.layers[0].unique_id), n) for n in (0, 1))
    window.tab.channels.set_value([first, second, first])
    window.idle()
    menu = window.tab.channel_panel.register.menu()
    next(each for each in menu.actions() if each.text() == "Shift, turn and scale").trigger()
    window.idle()
    dialog = window.tab.channel_tools.dialog
    words = [label.text() for label in dialog.findChildren(QLabel)]
    assert any(", 1.00°, 99." in each for each in words), words
    assert any(" → 0." in each and each.endswith("px") for each in words), words
    dialog.accept()
    window.idle()
    moved = window.viewer.layers["channel 1 moved"]
    inner = np.s_[30:-30, 30:-30]
    values = np.asarray(moved.data)[inner].ravel()
    assert np.corrcoef(values, bands[0][inner].ravel())[0, 1] > 0.9
    assert window.tab.channels.value()[1].layer == str(moved.unique_id)
