"""What was done is in a file as it is done: restored in another window, replayed from Save."""

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from napari_simmat.batch.outputs import save_objects_job
from napari_simmat.checkpoints import registry
from napari_simmat.io.files import user_folder
from napari_simmat.progress import Progress
from tests.widgets.conftest import SECONDS
from tests.widgets.scenes import CENTERS, gray
from tests.widgets.segment.noted import (
    held,
    logged_labels,
    open_image,
    replayed,
    save_as,
    work_on,
)


def test_a_saved_session_replays_and_is_not_offered_again(open_window, tmp_path, monkeypatch):
    window = open_image(open_window(), gray())
    work_on(window)
    save_as(monkeypatch, tmp_path / "mine_labels.tif")
    QTest.mouseClick(window.tab.object_panel.save, Qt.MouseButton.LeftButton)
    window.qtbot.waitUntil(lambda: window.status.text.startswith("Saved"))
    assert "mine_session.jsonl" in window.status.text
    state = replayed(tmp_path / "mine_session.jsonl")
    (labels,) = state.labels.values()
    assert np.array_equal(labels, tifffile.imread(tmp_path / "mine_labels.tif"))
    assert state.views[()] == window.workspace.session.prompt_state
    assert state.header.model.startswith("tiny-"), "the version that was used"
    window.close_widget()
    again = open_image(open_window(), gray())
    assert "was not saved" not in again.status.text


def test_close_while_saving_completes_the_files(open_window, tmp_path, monkeypatch):
    window = open_image(open_window(), gray())
    work_on(window)
    worker = window.tab.exporter.worker

    def until_closing(*arguments):
        while not worker.closed:
            time.sleep(0.005)
        yield Progress(0, 1, "going on")
        return (yield from save_objects_job(*arguments))

    monkeypatch.setattr("napari_simmat.widgets.segment.work.export.save_objects_job", until_closing)
    save_as(monkeypatch, tmp_path / "mine_labels.tif")
    window.tab.act("save")
    labels = window.objects.copy()
    window.close_widget()
    assert worker.join(SECONDS / 1000)
    assert np.array_equal(tifffile.imread(tmp_path / "mine_labels.tif"), labels)
    assert (tmp_path / "mine_session.jsonl").exists()
    (noted,) = user_folder("sessions").glob("*.jsonl")
    assert replayed(noted).saved, "it is offered no more"


@pytest.mark.slow
def test_save_of_several_images_marks_each_as_saved(ready, tmp_path, monkeypatch):
    window, gate = ready, threading.Event()

    def when_open(*arguments):
        yield from held(gate)
        return (yield from save_objects_job(*arguments))

    monkeypatch.setattr("napari_simmat.widgets.segment.work.export.save_objects_job", when_open)
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / f"{window.name}.tif"), "")
    )
    for name in ("discs", "second", "third"):
        if name != "discs":
            window.viewer.add_image(gray()[:, ::-1] // len(name), name=name)
            window.idle()
            window.choose(window.tab.channels.image, name)
        window.objects_layer().data_setitem((np.arange(9), np.arange(9)), 1)
        window.name = name
        window.tab.act("save")
    gate.set()
    files = [tmp_path / f"{name}_session.jsonl" for name in ("discs", "second", "third")]
    window.qtbot.waitUntil(lambda: all(file.exists() for file in files))
    window.idle()
    window.qtbot.waitUntil(lambda: not window.tab.autosave.busy)
    noted = list(user_folder("sessions").glob("*.jsonl"))
    window.qtbot.waitUntil(lambda: all(replayed(path).saved for path in noted))
    assert len(noted) == 3


def test_recovery_offers_work_with_the_image_it_was_done_on(open_window):
    other = gray()[::-1].copy()
    window = open_image(open_window(), gray())
    window.viewer.layers[0].data = other
    window.idle()
    window.add_object(199 - CENTERS[0][0], CENTERS[0][1])
    window.close_widget()
    assert open_image(open_window(), other).status.offer == "Restore"


@pytest.mark.slow
def test_autosave_logs_a_replaced_array(ready):
    """As other plugins do with what they made of the labels."""
    for center in CENTERS[:2]:
        ready.add_object(*center)
    layer = ready.viewer.layers["SimMAT objects"]
    other = np.where(layer.data == 2, 7, 0).astype(np.uint16)
    other[:4, :4] = 9
    layer.data = other
    ready.idle()
    (path,) = user_folder("sessions").glob("*.jsonl")
    state = replayed(path)
    (labels,) = state.labels.values()
    assert np.array_equal(labels, other)
    assert state.entries == {next(iter(state.labels)): {}}, "nothing is known of 7 and 9"
    ready.add_object(*CENTERS[2])
    ready.idle()
    assert np.array_equal(logged_labels(), layer.data)
    ready.undo(4)
    assert np.array_equal(logged_labels(), layer.data)


def test_autosave_logs_the_name_of_a_model_file(ready, tmp_path):
    mine, tiny = tmp_path / "mine.safetensors", registry.find_model("tiny").path
    mine.write_bytes(tiny.read_bytes())
    ready.tab.models.set_value(mine)
    ready.idle()
    ready.add_object(*CENTERS[0])
    (path,) = user_folder("sessions").glob("*.jsonl")
    state = replayed(path)
    assert state.header.model == "mine.safetensors"
    assert np.array_equal(next(iter(state.labels.values())), ready.objects)


def no_folder() -> None:
    user_folder("sessions").parent.mkdir(parents=True, exist_ok=True)
    user_folder("sessions").write_text("no folder")


def folder_gone() -> None:
    shutil.rmtree(user_folder("sessions"))


def disk_full() -> None:
    (path,) = user_folder("sessions").glob("*.jsonl")
    path.unlink()
    path.symlink_to("/dev/full")


@pytest.mark.parametrize(
    ("spoil", "early", "reason"),
    [
        (no_folder, True, "File exists"),
        (folder_gone, False, "No such file or directory"),
        (disk_full, False, "No space left on device"),
    ],
)
def test_autosave_that_cannot_write_warns_once(ready, spoil, early, reason, tmp_path, monkeypatch):
    if spoil is disk_full and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    told: list[str] = []
    ready.tab.autosave.warned.connect(told.append)
    if early:
        spoil()
    ready.add_object(*CENTERS[0])
    if not early:
        assert told == []
        spoil()
    ready.add_object(*CENTERS[1])
    assert set(np.unique(ready.objects)) == {0, 1, 2}, "the work went on"
    ready.undo()
    assert set(np.unique(ready.objects)) == {0, 1}
    ready.redo()
    assert len(told) == 1
    assert f"({reason})" in told[0]
    assert ready.tab.status.warning == told[0], "what was said since has not hidden it"
    assert ready.tab.status._warning.isVisible()
    save_as(monkeypatch, tmp_path / "mine_labels.tif")
    QTest.mouseClick(ready.tab.object_panel.save, Qt.MouseButton.LeftButton)
    ready.qtbot.waitUntil(lambda: ready.status.text.startswith("Saved"))
    assert np.array_equal(tifffile.imread(tmp_path / "mine_labels.tif"), ready.objects)
    assert not (tmp_path / "mine_session.jsonl").exists(), "it would replay to other labels"


@pytest.mark.slow
def test_autosave_reads_a_full_layer_during_edits(ready):
    labels = np.arange(1, gray().size + 1, dtype=np.int32).reshape(gray().shape)
    first = labels.copy()
    layer = ready.viewer.add_labels(labels, name="mine")
    ready.choose(ready.tab.objects, "mine")
    gate = threading.Event()
    ready.tab.autosave.worker.submit("hold", lambda: held(gate))
    for column, value in ((20, 5), (24, 0), (20, 7)):
        rows, columns = np.mgrid[30:50, column : column + 12]
        layer.data_setitem((rows.ravel(), columns.ravel()), value)
    (path,) = user_folder("sessions").glob("*.lock")
    assert not path.with_suffix(".jsonl").exists(), "the window has waited for nothing"
    edited = layer.data.copy()
    gate.set()
    ready.idle()
    path = path.with_suffix(".jsonl")
    assert np.array_equal(logged_labels(), edited)
    ready.undo(3)
    assert np.array_equal(layer.data, first)
    assert np.array_equal(logged_labels(), first)
    ready.viewer.layers.remove(layer)
    ready.idle()
    assert replayed(path).labels, "undo brings it back"
