"""Device and precision: shown as they are in use, chosen, and remembered."""

import pytest
import torch

from napari_simmat.annotation.inference_service import ComputeInUse
from napari_simmat.engine import device, remote
from napari_simmat.engine.device import DeviceInfo
from napari_simmat.engine.remote import ENCODED_HERE
from napari_simmat.engine.settings import Compute
from napari_simmat.widgets.segment.form.compute_choice import (
    AUTOMATIC,
    IN_USE,
    NO_BEST_TIP,
    NOT_FOUND,
)
from napari_simmat.widgets.segment.form.settings import TabSettings, save_settings
from tests.widgets.conftest import Window
from tests.widgets.scenes import CENTERS, gray

QUICK = DeviceInfo("cuda:0", "NVIDIA Quick", 24 * 10**9)


def shown(window: Window) -> tuple[str, str]:
    choice = window.tab.compute
    return choice.device.currentText(), choice.precision.currentText()


@pytest.fixture
def with_gpu(monkeypatch):
    """A GPU is listed, on which nothing can be computed."""
    monkeypatch.setattr(device, "available_devices", lambda: [DeviceInfo("cpu", "CPU"), QUICK])
    if torch.cuda.is_available():
        pytest.skip("a GPU that is there computes")


def test_compute_after_loading_shows_what_is_in_use(window):
    window.viewer.add_image(gray(), name="discs")
    window.open_widget()
    assert shown(window) == (AUTOMATIC, AUTOMATIC)
    window.idle()
    window.click(*CENTERS[0])
    in_use = window.controller.inference.service.in_use
    assert shown(window) == (
        IN_USE.format(used=in_use.title),
        IN_USE.format(used=in_use.compute.precision),
    )


def test_compute_with_another_precision_predicts_anew(ready, monkeypatch):
    monkeypatch.setattr(device, "half_precision_is_faster", lambda: True)
    ready.click(*CENTERS[0])
    service = ready.controller.inference.service
    encodes = service.predictor
    ready.choose(ready.tab.compute.precision, "Fast")
    ready.idle()
    assert service.predictor is not encodes
    assert service.in_use.compute.precision == "fast"
    assert shown(ready)[1] == "Fast"
    assert ready.status.kind == "done"


@pytest.mark.usefixtures("with_gpu")
def test_compute_on_a_broken_device_fails_and_another_works(ready):
    ready.click(*CENTERS[0])
    ready.choose(ready.tab.compute.device, QUICK.title)
    ready.idle()
    assert ready.status.kind == "failed"
    assert "There is no cuda device here" in ready.status.text
    ready.choose(ready.tab.compute.device, "CPU")
    ready.idle()
    assert ready.status.kind == "done"
    assert shown(ready)[0] == "CPU"


@pytest.mark.usefixtures("with_gpu")
def test_compute_after_memory_ran_out_shows_the_device_now(ready):
    ready.click(*CENTERS[0])
    used = ready.controller.inference.service.in_use
    ready.tab.compute.set_value(Compute(device=QUICK.name, quality="best"))
    ready.tab.compute.show_in_use(used)
    assert shown(ready)[0] == f"{QUICK.title} (now: CPU)"
    assert ready.tab.compute.value() == Compute(device=QUICK.name, quality="best")


@pytest.mark.slow
def test_compute_of_best_quality_predicts_anew_and_is_kept(ready, open_window):
    ready.click(*CENTERS[0])
    ready.choose(ready.tab.compute.quality, "Quality: best, four times slower")
    ready.idle()
    service = ready.controller.inference.service
    assert service.predictor.quality == service.in_use.compute.quality == "best"
    assert ready.status.kind == "done"
    ready.release()
    second = open_window()
    second.open_widget()
    assert second.tab.compute.quality.currentData() == "best"


def test_compute_of_a_model_without_best_quality_says_so(ready):
    ready.tab.compute.set_value(Compute(quality="best"))
    ready.tab.compute.show_in_use(ComputeInUse((), Compute(device="cpu", precision="exact")))
    assert ready.tab.compute.quality.toolTip() == NO_BEST_TIP


def test_compute_on_a_device_that_is_gone_stays_chosen(window):
    save_settings(TabSettings(compute=Compute(device="cuda:7")))
    window.open_widget()
    assert window.tab.compute.value() == Compute(device="cuda:7")
    assert shown(window)[0] == NOT_FOUND.format(name="cuda:7")


def test_compute_elsewhere_out_of_reach_goes_on_here(window, open_window, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(remote, "SCHEDULER_TIMEOUT", 1)
    window.viewer.add_image(gray(), name="discs")
    window.open_widget()
    field = window.tab.compute.remote
    field.setText("127.0.0.1:9")
    field.editingFinished.emit()
    window.idle()
    window.click(*CENTERS[0])
    assert window.status.kind == "done"
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in window.status.text
    assert ENCODED_HERE in window.status.text
    assert not window.tab.compute.device.isEnabled()
    window.release()
    second = open_window()
    second.open_widget()
    compute = second.tab.compute
    assert compute.value() == Compute(device="tcp://127.0.0.1:9")
    compute.remote.setText("")
    compute.remote.editingFinished.emit()
    assert compute.value() == Compute()
