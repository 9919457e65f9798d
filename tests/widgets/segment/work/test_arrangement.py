"""Contrasts that lie elsewhere are resampled beside the clicks; neither stops the other."""

import threading

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_simmat.annotation.channel_choice import are_aligned
from napari_simmat.io.reference import ImageReference, World
from napari_simmat.progress import Progress
from napari_simmat.widgets.layer_data import layer_info
from napari_simmat.widgets.placement import REFERENCE, reference_of
from napari_simmat.widgets.segment.work import arrangement
from napari_simmat.widgets.segment.work.arrangement import (
    CHANGED_MEANWHILE,
    RESAMPLE,
    RESAMPLING_STOPPED,
)
from napari_simmat.widgets.worker import BackgroundJob
from tests.io.places import make_nifti, oblique, volume
from tests.nightly import nightly_but
from tests.widgets.gate import Gate, click_without_waiting
from tests.widgets.hands import SECONDS
from tests.widgets.scenes import CENTERS, gray

SHIFT, CTRL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier


def placed(x: float) -> dict[str, ImageReference]:
    affine = np.eye(4)
    affine[0, 3] = x
    return {REFERENCE: ImageReference(world=World(affine=affine, space="patient"))}


@pytest.fixture
def contrasts(window):
    """Two contrasts of one patient, the second two pixels further to the right."""
    second = window.viewer.add_image(gray(), name="t2", metadata=placed(2), visible=False)
    first = window.viewer.add_image(gray(), name="t1", metadata=placed(0))
    window.start()
    return window, first, second


@pytest.fixture
def held(monkeypatch):
    """Resampling that stops at a yield until it is let go; None while it has not begun."""
    hold = Held()
    monkeypatch.setattr(arrangement, "resample_job", hold.job)
    return hold


class Held:
    def __init__(self) -> None:
        self.original = arrangement.resample_job
        self.begun, self.open, self.ended = (threading.Event() for _ in range(3))

    def job(self, *values):
        try:
            yield Progress(0, 2, "resampling")
            self.begun.set()
            while not self.open.is_set():  # steps, so that clicks go first
                self.open.wait(0.01)
                yield Progress(1, 2, "resampling")
            return (yield from self.original(*values))
        finally:
            self.ended.set()

    def release(self, window):
        self.open.set()
        window.idle()


def resample(window, first, second):
    window.controller.arrangement.resample(second, first)


def is_resampled(window, first):
    moved = window.viewer.layers["t2"]
    if not are_aligned(layer_info(first), layer_info(moved)):
        return False
    np.testing.assert_array_equal(moved.data[:, 2:], gray()[:, :-2])
    assert np.isnan(moved.data[:, :2]).all()
    return True


def test_contrasts_of_a_patient_are_resampled_to_the_first(window, plugin, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    first = make_nifti(tmp_path)
    turned = oblique()
    turned[:3, 3] += 2 * turned[:3, 0]  # two voxels along x
    image = nibabel.Nifti1Image(volume().T, turned)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "t2.nii.gz")
    layers = window.viewer.open([first, tmp_path / "t2.nii.gz"], plugin="napari-simmat")
    assert not are_aligned(*map(layer_info, layers))
    window.start()
    proposed = window.controller.arrangement.proposed(layers)
    assert proposed.offer == RESAMPLE
    assert "t2 lies elsewhere in the patient than scan" in proposed.text
    proposed.act()
    window.idle()
    assert layers[1] not in window.viewer.layers
    moved = window.viewer.layers["t2"]
    assert are_aligned(layer_info(layers[0]), layer_info(moved))
    found = np.asarray(moved.data)
    np.testing.assert_allclose(found[:, :, 2:], volume()[:, :, :-2], atol=0.1)
    assert np.isnan(found[:, :, :2]).all()
    assert window.status.kind != "working"


@pytest.mark.parametrize("action", nightly_but(("undo", "clear", "view", "click"), "view"))
def test_resampling_goes_on_beside_what_the_user_does(contrasts, held, action):
    window, first, second = contrasts
    window.add_object(*CENTERS[0])
    resample(window, first, second)
    assert held.begun.wait(SECONDS / 1000)
    if action == "undo":
        window.tap(Qt.Key.Key_Z, CTRL)
    elif action == "clear":
        window.tap(Qt.Key.Key_C, SHIFT)
    elif action == "view":
        window.viewer.dims.order = (1, 0)
    else:
        click_without_waiting(window, *CENTERS[1])
        window.qtbot.waitUntil(lambda: not window.controller.inference.busy)
        assert window.mask.any()
    held.release(window)
    assert is_resampled(window, first)
    assert not window.tab.busy


def test_click_while_resampling_waits_is_answered(contrasts):
    window, first, second = contrasts
    gate = Gate(window, *CENTERS[0])
    resample(window, first, second)
    click_without_waiting(window, CENTERS[0][0] + 2, CENTERS[0][1])
    gate.release()
    assert is_resampled(window, first)
    assert window.mask[CENTERS[0]]
    assert not window.tab.busy


def test_commit_of_a_waiting_prediction_survives_resampling(contrasts):
    window, first, second = contrasts
    gate = Gate(window, *CENTERS[0])
    click_without_waiting(window, CENTERS[0][0] + 2, CENTERS[0][1])  # it waits in the worker
    resample(window, first, second)
    window.tap(Qt.Key.Key_C)
    gate.release()
    assert window.objects[CENTERS[0]] == 1
    assert is_resampled(window, first)


def test_cancel_stops_resampling_and_leaves_the_layer(contrasts, held):
    window, first, second = contrasts
    resample(window, first, second)
    assert held.begun.wait(SECONDS / 1000)
    window.tab.status.canceled.emit()
    window.idle()
    assert held.ended.is_set()
    assert window.viewer.layers["t2"] is second
    assert window.status.kind == "canceled"
    assert window.status.text == RESAMPLING_STOPPED.format(layer="t2")


@pytest.mark.parametrize("change", ["data", "shape of the first", "removed"])
def test_layer_that_changed_while_it_was_resampled_is_left_alone(contrasts, held, change):
    window, first, second = contrasts
    resample(window, first, second)
    assert held.begun.wait(SECONDS / 1000)
    if change == "data":
        second.data = 255 - gray()
    elif change == "shape of the first":
        first.data = gray()[:-8]
    else:
        window.viewer.layers.remove(first)
    held.release(window)
    assert window.viewer.layers["t2"] is second
    assert reference_of(second).world.affine[0, 3] == 2


def test_changed_layer_is_said(contrasts, held):
    window, first, second = contrasts
    said = []
    window.workspace.status.connect(lambda status: said.append(status.text))
    resample(window, first, second)
    assert held.begun.wait(SECONDS / 1000)
    second.data = 255 - gray()
    held.release(window)
    assert CHANGED_MEANWHILE.format(layer="t2", first="t1") in said


def test_predictions_alone_have_the_first_rank_in_their_worker(window):
    """A rank that two owners share once made each cancel the other."""
    window.open(gray(), name="discs")
    worker = window.controller.inference.worker
    jobs = [job for job in window.tab.findChildren(BackgroundJob) if job._worker is worker]
    assert len(jobs) > 5
    assert all(job._rank > 0 for job in jobs)


@pytest.mark.slow
@pytest.mark.real_window
def test_moved_channels_are_seen_whole(window):
    """The view is reset: what was the channels' axis is not one of the two that are shown."""
    image = np.stack([gray(), gray()[::-1], gray(), gray(), gray()], axis=-1)
    window.viewer.add_image(image, name="field", axis_labels=("y", "x", "c"))
    window.start()
    assert window.tab.status.offer.text() == arrangement.MOVE_CHANNELS
    window.push(window.tab.status.offer)
    moved = window.viewer.layers["field"]
    assert moved.data.shape == (5, *gray().shape)
    camera = getattr(window.viewer, "scene", window.viewer).camera
    middle = (np.array(gray().shape) - 1) / 2
    assert np.allclose(camera.center[-2:], middle, atol=1)
    seen = np.array(gray().shape) * camera.zoom
    canvas = np.array([window.canvas.height(), window.canvas.width()])
    assert (seen <= canvas).all(), "all of it is in sight"
    assert (seen > canvas / 2).any(), "and as large as there is room"
