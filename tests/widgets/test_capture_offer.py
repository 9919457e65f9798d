"""A folder whose names look like captures: offered as such in each tab, and when it is dropped."""

import napari
import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QDialogButtonBox

from napari_simmat.widgets.capture_offer import OFFER
from napari_simmat.widgets.readers import get_reader
from napari_simmat.widgets.segment.folder.image_folder import AS_CAPTURES
from napari_simmat.widgets.segment.layers.images_in_view import DIM, is_black
from tests.widgets.batch.test_tab import EVERYTHING, Batch
from tests.widgets.dropping import drop
from tests.widgets.scenes import CENTERS, discs, gray
from tests.widgets.train.test_tab import Trainer

PATTERN = "{capture}_{band}.tif"


@pytest.fixture
def flight(tmp_path):
    """Two captures of red, green and blue, with labels."""
    folder = tmp_path / "flight"
    folder.mkdir()
    for number in range(2):
        for band in ("blue", "green", "red"):
            values = np.clip(gray(), 0, 240) + np.uint8(number)
            tifffile.imwrite(folder / f"IMG_{number}_{band}.tif", values)
        tifffile.imwrite(folder / f"IMG_{number}_labels.tif", discs()[1].astype(np.uint8))
    return folder


def test_folder_is_gone_through_capture_by_capture(window, flight):
    window.open_widget()
    panel = window.tab.folder_panel
    assert drop(panel.folder, flight)
    window.idle()
    assert "2 captures of the bands blue, green, red" in window.status.text
    assert not window.viewer.layers, "nothing is opened before the answer"
    window.workspace.model_changed.emit()  # whatever asks for the choice meanwhile
    window.idle()
    assert window.status.offer == AS_CAPTURES, "it is asked until it is answered"
    window.push(window.tab.status.offer)
    assert panel.folder.value() == str(flight / PATTERN)
    assert panel.place.text() == "1 of 2, 1 seen, 2 done · IMG_0"
    image = window.viewer.layers["IMG_0"]
    assert image.data.shape == (3, *gray().shape)
    assert (window.workspace.objects.data > 0).any(), "with the labels beside the bands"


def test_folder_that_looks_like_captures_may_be_single_images(window, flight):
    window.open_widget()
    panel = window.tab.folder_panel
    panel.folder.path.clear()
    QTest.keyClicks(panel.folder.path, str(flight))
    QTest.keyClick(panel.folder.path, Qt.Key.Key_Return)
    window.idle()
    assert window.status.offer == AS_CAPTURES
    window.push(window.tab.status.other)
    assert "_blue.tif" in panel.place.text()
    assert panel.folder.value() == str(flight)


@pytest.fixture
def drone(tmp_path):
    """A capture of five dim bands of 12 bits, called by their wavelengths, the red one apart."""
    folder = tmp_path / "drone"
    folder.mkdir()
    for number, nanometers in enumerate((475, 560, 668, 717, 842)):
        values = (4 + 0.5 * number) * gray().astype(np.float64)
        values = np.roll(values, (6, -4), axis=(0, 1)) if nanometers == 668 else values
        tifffile.imwrite(folder / f"IMG_0_{nanometers}.tif", values.astype(np.uint16))
        tifffile.imwrite(folder / f"IMG_1_{nanometers}.tif", values.astype(np.uint16) + 1)
    return folder


def test_bands_are_taken_by_wavelength_stretched_and_registered(window, drone):
    window.open_widget()
    window.tab.folder_panel.folder.set_value(str(drone))
    window.idle()
    window.push(window.tab.status.offer)
    form, layer = window.tab.channels, window.viewer.layers["IMG_0"]
    assert [each.part for each in form.value()] == [2, 1, 0], "red, green, blue"
    assert not is_black(layer, DIM)
    assert "up to 7 pixels apart" in form.apart.text()
    assert form.apart.isVisible()
    window.push(form.register)
    dialog = window.tab.channel_tools.dialog
    ok = dialog.findChild(QDialogButtonBox).button(QDialogButtonBox.StandardButton.Ok)
    window.push(ok)
    moved = [each.name for each in window.viewer.layers if "moved" in each.name]
    assert len(moved) == 2, "green and blue onto red"
    assert not form.apart.isVisible()
    assert not form.register.isVisible()


def test_bands_that_lie_on_each_other_are_not_registered(window, drone):
    red = drone / "IMG_0_668.tif"
    tifffile.imwrite(red, np.roll(tifffile.imread(red), (-6, 4), axis=(0, 1)))
    window.open_widget()
    window.tab.folder_panel.folder.set_value(str(drone / PATTERN))
    window.idle()
    assert not window.tab.channels.register.isVisible()


def test_pattern_in_the_folder_field_can_be_changed(window, flight):
    window.open_widget()
    pattern = flight / "{capture}_{band:red,green,blue}.tif"
    window.tab.folder_panel.folder.set_value(str(pattern))
    window.idle()
    [image] = [each for each in window.viewer.layers if each.name == "IMG_0"]
    np.testing.assert_array_equal(image.data[0], tifffile.imread(flight / "IMG_0_red.tif"))
    names = window.tab.channels.names
    assert [name for name in names if name in ("red", "green", "blue")], names


@pytest.mark.slow
def test_objects_of_a_capture_are_saved_beside_its_bands(window, flight):
    for path in flight.glob("*_labels.tif"):
        path.unlink()
    window.open_widget()
    window.tab.folder_panel.folder.set_value(str(flight / PATTERN))
    window.idle()
    window.add_object(*CENTERS[0])
    made = np.array(window.workspace.objects.data)
    window.push(window.tab.folder_panel.next)
    assert window.tab.folder_panel.place.text() == "2 of 2, 2 seen, 1 done · IMG_1"
    np.testing.assert_array_equal(tifffile.imread(flight / "IMG_0_labels.tif"), made)
    window.pick(window.tab.folder_panel.previous)
    np.testing.assert_array_equal(window.workspace.objects.data, made)


@pytest.mark.all_tabs
def test_dropped_folder_opens_its_captures(window, flight, tmp_path, monkeypatch):
    window.open_widget()
    monkeypatch.setattr(napari, "current_viewer", lambda: window.viewer)
    read = get_reader(str(flight))
    assert read is not None
    assert read(str(flight)) == [(None,)]
    window.idle()
    assert window.status.offer == AS_CAPTURES, "asked as after the button"
    assert not window.viewer.layers
    window.push(window.tab.status.offer)
    assert window.tab.folder_panel.place.text().endswith("IMG_0")
    plain = tmp_path / "plain"
    plain.mkdir()
    tifffile.imwrite(plain / "a.tif", gray())
    assert get_reader(str(plain)) is None


@pytest.mark.slow
@pytest.mark.all_tabs
def test_batch_offers_captures_and_runs_them(window, flight, tmp_path):
    (tmp_path / "out").mkdir()
    batch = Batch(window)
    batch.choose(flight, tmp_path / "out", EVERYTHING)
    form = batch.tab.form
    assert form.captures.text() == OFFER.format(PATTERN)
    batch.press(form.captures)
    batch.settle()
    assert batch.status.text.startswith("2 images to segment")
    assert form.captures.isHidden()
    assert form.first.text().startswith(
        "IMG_0: CYX 3 x 200 x 220, uint8, channels blue, green, red"
    )
    assert f"{flight}/{PATTERN}" in batch.tab.command.value().replace("'", "")


@pytest.mark.slow
@pytest.mark.all_tabs
def test_train_offers_captures_and_reads_them(window, flight):
    window.open_widget()
    train = Trainer(window)
    train.open_tab()
    train.tab.take(str(flight))
    train.settle()
    assert "The names look like 2 captures of the bands blue, green, red" in train.status.text
    train.press(train.tab.form.captures)
    train.settle()
    assert train.status.kind == "ready", train.status
    assert "channels blue, green, red" in train.status.text
