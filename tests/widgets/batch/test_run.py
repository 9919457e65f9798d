import numpy as np
import pytest
import tifffile

from napari_simmat.annotation.channel_choice import LayerChannel
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.channel_matching import match_channels
from napari_simmat.engine.settings import parse_channels
from napari_simmat.io.zarr import write_labels_zarr
from napari_simmat.progress import JobEvent, finish
from napari_simmat.widgets.batch.run import (
    NOT_SAVED,
    BatchController,
    BatchRequest,
    FileRow,
    FilesModel,
    FirstFile,
    load_request,
    open_result_job,
    rows_of,
    save_request,
)
from napari_simmat.widgets.batch.tab import FilesTable
from napari_simmat.widgets.controls import StatusLine
from tests.widgets.scenes import gray


def test_open_result_reads_the_file_that_was_written(tmp_path):
    image, planned, zarr = (tmp_path / name for name in ("a.tif", "a_labels.tif", "l.ome.zarr"))
    tifffile.imwrite(image, gray())
    labels = np.arange(200 * 220, dtype=np.uint32).reshape(200, 220)
    write_labels_zarr(zarr, labels, "YX")
    files = FilesModel()
    plan = [{"image": str(image), "labels_file": str(planned)}]
    files.set_rows(rows_of({"output": str(tmp_path), "files": plan, "skipped": []}))
    assert files.rows[0].labels == planned
    files.update(0, "written", {"labels_file": str(zarr), "objects": 1})
    assert (files.rows[0].image, files.rows[0].labels) == (image, zarr)
    opened = finish(open_result_job(image, zarr))
    np.testing.assert_array_equal(np.asarray(opened.labels), labels)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("561", "488", "405", "BF"), "2,1,0"),
        (("1", "2", "3", "4"), "2,1,0"),
        (("Cy5, far red", "GFP", "DAPI", "BF"), "DAPI,GFP,0"),
        (("", "GFP", "gfp", "BF"), "2,1,0"),
    ],
)
def test_first_file_gives_an_ambiguous_channel_by_number(names, words):
    spec = load_model("tiny").spec
    first = FirstFile("a.tif", 4, names, (64, 64))
    wanted = tuple(LayerChannel(str(number)) for number in (2, 1, 0))
    assert first.chosen(wanted, spec) == words
    assert match_channels(4, spec.inputs, names=names, channels=parse_channels(words)) == (
        2,
        1,
        0,
    )
    assert first.sources(words, spec) == wanted


def test_save_request_on_a_full_disk_lets_the_run_begin(tmp_path, monkeypatch, caplog):
    (tmp_path / "full").write_text("")
    monkeypatch.setenv("NAPARI_SIMMAT_HOME", str(tmp_path / "full" / "home"))
    save_request(BatchRequest())
    assert NOT_SAVED.removesuffix("%s") in caplog.text
    assert load_request() == BatchRequest()


def test_files_table_shows_a_whole_message(qtbot):
    table = FilesTable()
    qtbot.addWidget(table)
    table.resize(300, 200)
    table.show()
    table.files.set_rows([FileRow("a.tif", "written", 12, 3.4), FileRow("b.tif", "waiting")])
    message = "b.tif is no TIFF file; save the image again, or leave it out."
    table.files.update(1, "failed", {"error": message})
    assert table.columnWidth(4) > table.fontMetrics().horizontalAdvance(message)
    bar = table.horizontalScrollBar()
    assert bar.maximum() > 0, "the message scrolls into view"


def test_status_of_a_run_estimates_the_time_left_once(qtbot):
    line, batching = StatusLine(), BatchController(FilesModel())
    qtbot.addWidget(line)
    batching.status.connect(line.set_value)
    batching.state = "running"
    step = {"done": 1, "total": 4, "message": "1/4 b.tif: encoding", "fraction": 0.4}
    batching._on_event(JobEvent(**step, left="about 3 min left"))
    assert line.value().text == step["message"]
    qtbot.waitUntil(lambda: line.left.text() == "about 3 min left")
    batching.close()
