"""A run is remembered for the next."""

from napari_simmat.widgets.batch.request import (
    NOT_SAVED,
    BatchRequest,
    load_request,
    save_request,
)


def test_save_request_on_a_full_disk_lets_the_run_begin(tmp_path, monkeypatch, caplog):
    (tmp_path / "full").write_text("")
    monkeypatch.setenv("NAPARI_SIMMAT_HOME", str(tmp_path / "full" / "home"))
    save_request(BatchRequest())
    assert NOT_SAVED.removesuffix("%s") in caplog.text
    assert load_request() == BatchRequest()
