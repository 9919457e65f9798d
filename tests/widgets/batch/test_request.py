"""A run is remembered for the next."""

from types import SimpleNamespace

from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.widgets.batch.request import (
    NOT_SAVED,
    BatchRequest,
    load_request,
    save_request,
    single_task_request,
)


def test_save_request_on_a_full_disk_lets_the_run_begin(tmp_path, monkeypatch, caplog):
    (tmp_path / "full").write_text("")
    monkeypatch.setenv("NAPARI_SIMMAT_HOME", str(tmp_path / "full" / "home"))
    save_request(BatchRequest())
    assert NOT_SAVED.removesuffix("%s") in caplog.text
    assert load_request() == BatchRequest()


def test_request_of_one_task_says_what_its_row_states(tmp_path):
    selection = ChannelSelection(pixel_size=(2.0, 0.5), unit="nm", axes="TYX")
    task = SimpleNamespace(image=tmp_path / "a.tif", prompts=None, selection=selection)
    channels = single_task_request(BatchRequest(), task, tmp_path).channels
    assert channels.selection == selection
