"""The finished objects as files, from the window."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QDialogButtonBox, QFileDialog, QMessageBox, QWidget

from napari_simmat.batch.options import SegmentTableOptions
from napari_simmat.engine.files.objects import OBJECT_FORMATS, read_objects
from napari_simmat.widgets.layer_data import PROVENANCE
from napari_simmat.widgets.placement import axis_letters, unit_symbol
from napari_simmat.widgets.segment.form.saved_table import SavedTable
from napari_simmat.widgets.segment.form.settings import load_settings
from napari_simmat.widgets.segment.work.export import _FILTERS, LOADED
from tests.nightly import nightly_but
from tests.widgets.scenes import CENTERS, gray
from tests.widgets.segment.noted import save_as


def open_two_nuclei(window: Any) -> None:
    """Commit two discs of half a micrometer a pixel; the second one is a nucleus."""
    window.open(gray(), name="discs", scale=(0.5, 0.5), units=("um", "um"))
    for number in (0, 1):
        window.add_object(*(np.array(CENTERS[number]) / 2))
        window.type_class("nucleus")


def test_saved_table_holds_what_its_dialog_says(window, tmp_path, monkeypatch):
    open_two_nuclei(window)
    choice = window.tab.object_panel.saved_table
    save = window.tab.object_panel.save
    [*_, action] = save.menu().actions()
    assert action in window.tab.object_panel.table.actions()
    action.trigger()
    dialog = choice.dialog
    ok = dialog.buttons.button(QDialogButtonBox.StandardButton.Ok)
    dialog.options.show(statistics="mean,best")
    QTest.mouseClick(ok, Qt.MouseButton.LeftButton)
    assert "There is no statistic 'best'" in dialog.problem.text()
    dialog.options.show(statistics="mean,p99", index=("twice=2*channel0",))
    QTest.mouseClick(ok, Qt.MouseButton.LeftButton)
    chosen = SegmentTableOptions(statistics="mean,p99", index=("twice=2*channel0",))
    assert load_settings().table == chosen
    save_as(monkeypatch, tmp_path / "mine_labels.tif")
    QTest.mouseClick(save, Qt.MouseButton.LeftButton)
    window.qtbot.waitUntil(lambda: window.status.text.startswith("Saved"))
    with (tmp_path / "mine_objects.csv").open() as stream:
        [row, _] = csv.DictReader(stream)
    assert {"mean_channel0", "p99_channel0", "mean_twice", "p99_twice"} <= set(row)
    assert "median_channel0" not in row
    assert float(row["mean_twice"]) == pytest.approx(2 * float(row["mean_channel0"]))


def test_saved_table_of_nonsense_is_the_usual_one(qtbot):
    parent = QWidget()
    qtbot.addWidget(parent)
    choice = SavedTable(parent=parent)
    choice.set_value(SegmentTableOptions(statistics="best"))
    assert choice.value() == SegmentTableOptions()


def test_save_writes_labels_table_classes_and_scale(window, tmp_path, monkeypatch):
    open_two_nuclei(window)
    target = tmp_path / "mine_labels.tif"
    offered = []

    def choose(*arguments):
        offered.append(arguments[2])
        return str(target), ""

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    QTest.mouseClick(window.tab.object_panel.save, Qt.MouseButton.LeftButton)
    window.qtbot.waitUntil(lambda: window.status.text.startswith("Saved"))
    assert offered == ["discs_labels.tif"]
    objects = window.viewer.layers["SimMAT objects"].data
    assert np.array_equal(tifffile.imread(target), objects)
    classes = tifffile.imread(tmp_path / "mine_classes.tif")
    assert np.array_equal(classes, objects == 2)
    with (tmp_path / "mine_objects.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == ["", "nucleus"]
    assert float(rows[0]["area_um2"]) == pytest.approx((objects == 1).sum() / 4)
    assert float(rows[0]["mean_channel0"]) == pytest.approx(gray()[objects == 1].mean())
    assert float(rows[0]["score"]) > 0.5


def test_ask_path_without_ending_asks_before_replacing(ready, tmp_path, monkeypatch):
    ready.add_object(*CENTERS[0])
    before = tmp_path / "mine_labels.tif"
    before.write_bytes(b"of yesterday")
    buttons = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    asked = []

    def answer(*arguments):
        asked.append(arguments[2])
        return buttons[len(asked) - 1]

    monkeypatch.setattr(QMessageBox, "question", answer)
    save_as(monkeypatch, tmp_path / "mine")
    ready.tab.act("save")
    assert ready.tab.exporter.worker.idle
    assert before.read_bytes() == b"of yesterday"
    ready.tab.act("save")
    ready.qtbot.waitUntil(lambda: ready.status.text.startswith("Saved"))
    assert asked == ["mine_labels.tif already exists. Do you want to replace it?"] * 2
    assert np.array_equal(tifffile.imread(before), ready.viewer.layers["SimMAT objects"].data)


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (["axis -2", "axis -1"], "YX"),
        (["axis -3", "axis -2", "axis -1"], "ZYX"),
        (["t", "y", "x"], "TYX"),
        (["Time", "row", "column"], "TYX"),
        (["z", "t", "y", "x"], "ZTYX"),
        (["axis -5", "axis -4", "axis -3", "axis -2", "axis -1"], "WTZYX"),
    ],
)
def test_axis_letters_follow_the_names(names, axes):
    assert axis_letters(names) == axes


@pytest.mark.parametrize("mu", ["\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}"])
def test_units_have_one_symbol_for_all_of_pints_words(mu):
    class Unit:
        def __format__(self, spec):
            assert spec == "~"
            return f"{mu}m"

    assert unit_symbol(Unit()) == "\N{MICRO SIGN}m"


def choose_to_save(monkeypatch: pytest.MonkeyPatch, path: Path, kind: str = "") -> None:
    chosen = _FILTERS[kind] if kind else ""
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), chosen))


def load(window: Any, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    window.pick(window.tab.object_panel.entries["load"])


@pytest.mark.parametrize("kind", nightly_but(("labels", "zarr", "coco"), "zarr"))
def test_load_of_a_saved_format_keeps_ids_and_classes(window, tmp_path, monkeypatch, kind):
    open_two_nuclei(window)
    window.hover(*(np.array(CENTERS[0]) / 2))
    window.controller.objects.delete()  # what is left has the id 2
    before = window.viewer.layers["SimMAT objects"].data.copy()
    assert set(np.unique(before)) == {0, 2}
    choose_to_save(monkeypatch, tmp_path / "discs_labels.tif", kind)
    window.tab.act("save")
    window.qtbot.waitUntil(lambda: window.status.text.startswith("Saved"))
    path = tmp_path / f"discs{OBJECT_FORMATS[kind].ending}"
    assert {path, tmp_path / "discs_objects.csv", tmp_path / "discs_session.jsonl"} <= {
        *tmp_path.iterdir()
    }
    window.viewer.layers.remove("SimMAT objects")
    load(window, monkeypatch, path / "zarr.json" if kind == "zarr" else path)
    notes = read_objects(path, before.shape).notes
    assert window.status.text == " ".join([LOADED.format("1 object", path.name), *notes])
    np.testing.assert_array_equal(window.viewer.layers["SimMAT objects"].data, before)
    made = window.viewer.layers["SimMAT objects"].metadata[PROVENANCE]
    assert made["models"] == [], "it was not the model that made them"
    entry = window.workspace.session.editor.register.entry(2)
    assert entry.category == "nucleus"
    window.undo()
    assert not window.viewer.layers["SimMAT objects"].data.any(), "loading is one command"


def test_load_keeps_free_ids_and_the_objects_there(ready, tmp_path, monkeypatch):
    ready.add_object(*CENTERS[0])
    there = ready.viewer.layers["SimMAT objects"].data.copy()
    labels = np.zeros_like(there)
    labels[:2, :5], labels[4:6, :5], labels[8:10, :5] = 1, 2, 70_000
    np.save(tmp_path / "more.npy", labels)
    load(ready, monkeypatch, tmp_path / "more.npy")
    after = ready.viewer.layers["SimMAT objects"].data
    np.testing.assert_array_equal(after == 1, there == 1)
    assert (after[0, 0], after[4, 0], after[8, 0]) == (70_001, 2, 70_000)


def test_load_of_objects_of_another_image_is_refused(ready, tmp_path, monkeypatch):
    np.save(tmp_path / "other.npy", np.ones((5, 5), np.uint8))
    load(ready, monkeypatch, tmp_path / "other.npy")
    assert ready.status.kind == "failed"
    assert "other.npy has objects of an image of 5 x 5" in ready.status.text
    assert "SimMAT objects" not in ready.viewer.layers


def test_save_does_not_replace_an_image(ready, tmp_path, monkeypatch):
    zarr.save_array(tmp_path / "image.ome.zarr", np.zeros((4, 4)))
    ready.add_object(*CENTERS[0])
    choose_to_save(monkeypatch, tmp_path / "image.ome.zarr", "zarr")
    ready.tab.act("save")
    ready.qtbot.waitUntil(lambda: ready.status.kind == "failed")
    assert "something else than labels, so it is not replaced" in ready.status.text
    assert zarr.open(tmp_path / "image.ome.zarr", mode="r").shape == (4, 4)
