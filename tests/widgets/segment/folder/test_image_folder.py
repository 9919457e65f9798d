"""A folder, image by image, with real keys: saved, closed, opened again as it was."""

import csv
import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_simmat.batch.encode import encode_images_job
from napari_simmat.batch.inputs import find_inputs
from napari_simmat.batch.plan import SegmentConfig, find_images, plan
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.io.files import user_folder
from napari_simmat.io.itk import write_labels_itk
from napari_simmat.io.reference import ImageReference
from napari_simmat.progress import Progress, finish
from napari_simmat.widgets.batch.tab import BatchTab
from napari_simmat.widgets.segment.folder import image_folder
from napari_simmat.widgets.segment.folder.image_folder import (
    AT_THE_END,
    DRAFTS_FIRST,
    NOT_CHOSEN,
    NOT_EMPTY,
    NOT_REPLACED,
    OTHER_SHAPE,
)
from napari_simmat.widgets.segment.tab import USE_TINY
from tests.nightly import nightly_but
from tests.widgets.conftest import SECONDS
from tests.widgets.scenes import CENTERS, discs, gray

SHIFT = Qt.KeyboardModifier.ShiftModifier
NEXT, BACK = (Qt.Key.Key_N, SHIFT), (Qt.Key.Key_B, SHIFT)
COUNT = 6


@pytest.fixture
def folder(tmp_path):
    """Images that differ in their values, not in their objects."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(COUNT):
        tifffile.imwrite(folder / f"{number}.tif", np.clip(gray(), 0, 240) + np.uint8(number))
    return folder


def begin(window: Any, folder: Path) -> None:
    window.open_widget()
    window.tab.folder_panel.folder.set_value(str(folder))
    window.idle()


def shown(window: Any) -> list[str]:
    """Names of the layers that are no prompts and no preview."""
    own = ("SimMAT points", "SimMAT boxes", "SimMAT preview")
    return [layer.name for layer in window.viewer.layers if layer.name not in own]


def place(panel: Any) -> str:
    """Where the list stands, without what was seen and how long the rest takes."""
    return re.sub(r", \d+ seen|, about [^·]*left", "", panel.place.text())


def objects(window: Any) -> np.ndarray:
    return np.array(window.workspace.objects.data)


@pytest.mark.slow
def test_go_through_images_and_back_restores_each(window, folder):
    finish(encode_images_job(find_images([folder]), SegmentConfig(model="tiny")))
    begin(window, folder)
    panel, made = window.tab.folder_panel, []
    for number in range(COUNT):
        assert place(panel) == f"{number + 1} of {COUNT}, {number} done · {number}.tif"
        assert shown(window)[0] == str(number)
        window.add_object(*CENTERS[number % 2])
        made.append(objects(window))
        window.click(*CENTERS[2])  # stays open
        window.key(*NEXT)
    assert window.status.text == AT_THE_END.format(f"{COUNT - 1}.tif", "last")
    assert window.controller.inference.service.encodes == 0, "encoded ahead"
    assert len(list(user_folder("sessions").glob("*.jsonl"))) == 1, "that of the open image"
    for number in reversed(range(COUNT)):
        assert shown(window) == [str(number), "SimMAT objects"]
        assert (objects(window) == made[number]).all()
        assert (tifffile.imread(folder / f"{number}_labels.tif") == made[number]).all()
        assert len(window.workspace.session.prompt_state.prompts.points) == 1
        assert place(panel) == f"{number + 1} of {COUNT}, {COUNT} done · {number}.tif"
        window.key(*BACK)


def test_next_image_is_named_while_it_is_opened(window, folder, monkeypatch):
    begin(window, folder)
    may_open, original = threading.Event(), image_folder.open_image_job

    def waiting(image: Any) -> Any:
        yield Progress(0, 1, "opening")
        assert may_open.wait(SECONDS / 1000)
        return (yield from original(image))

    monkeypatch.setattr(image_folder, "open_image_job", waiting)
    window.tap(*NEXT)
    window.qtbot.waitUntil(lambda: shown(window) == [])
    for _ in range(5):
        QApplication.processEvents()
    assert window.status.text.startswith("Opening 1.tif")
    may_open.set()
    window.idle()
    assert shown(window) == ["1"]


def test_mark_empty_saves_an_image_without_objects(window, folder):
    begin(window, folder)
    panel = window.tab.folder_panel
    window.click(*CENTERS[0])
    window.tab.act("no objects")
    assert window.status.text == NOT_EMPTY
    window.key(Qt.Key.Key_C, SHIFT)
    window.push(panel.empty)
    assert place(panel) == f"2 of {COUNT}, 1 done · 1.tif"
    assert not tifffile.imread(folder / "0_labels.tif").any()
    window.key(*BACK)
    assert place(panel) == f"1 of {COUNT}, 1 done · 0.tif"
    assert window.workspace.objects is None or not objects(window).any()


def test_go_skips_an_image_that_cannot_be_opened(window, folder):
    (folder / "1.tif").write_text("this is no image")
    begin(window, folder)
    window.add_object(*CENTERS[0])
    window.key(*NEXT)
    assert window.status.kind == "failed"
    assert "1.tif" in window.status.text
    assert window.status.text.endswith("Next image skips it.")
    assert shown(window) == []
    assert (folder / "0_labels.tif").exists()
    window.key(*NEXT)
    assert shown(window) == ["2"]
    window.key(*BACK)
    window.key(*BACK)
    assert shown(window) == ["0", "SimMAT objects"]


def test_go_does_not_close_what_is_not_saved(window, folder, monkeypatch):
    begin(window, folder)
    window.add_object(*CENTERS[0])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("napari_simmat.batch.outputs.write_table", full)
        window.key(*NEXT)
    assert window.status.kind == "failed"
    assert shown(window) == ["0", "SimMAT objects"]
    window.tab.sections["everything"].set_open(True)
    QTest.mouseClick(window.tab.automatic_panel.start, Qt.MouseButton.LeftButton)
    window.qtbot.waitUntil(lambda: window.controller.review.has_drafts)
    window.key(*NEXT)
    assert window.status.text == DRAFTS_FIRST
    assert shown(window) == ["0", "SimMAT objects"]


def test_go_shows_earlier_labels_and_keeps_an_unreadable_file(window, folder):
    labels = np.zeros(gray().shape, np.uint16)
    labels[3:9, 4:10] = 7
    tifffile.imwrite(folder / "1_labels.tif", labels)
    tifffile.imwrite(folder / "2_labels.tif", labels[1:])
    (folder / "3_session.jsonl").write_text(json.dumps({"format": "something else"}) + "\n")
    begin(window, folder)
    said: list[str] = []
    window.tab.image_folder.status.connect(lambda status: said.append(status.text))
    window.key(*NEXT)
    assert (objects(window) == labels).all()
    window.key(*NEXT)
    shapes = [" x ".join(map(str, shape)) for shape in (labels[1:].shape, labels.shape)]
    assert OTHER_SHAPE.format("2_labels.tif", shapes[0], "2.tif", shapes[1]) in said
    assert not (folder / "1_session.jsonl").exists(), "nothing was done"
    assert window.workspace.objects is None
    window.add_object(*CENTERS[0])
    window.key(*NEXT)
    assert window.status.text == NOT_REPLACED.format("2_labels.tif", "2.tif")
    assert shown(window) == ["2", "SimMAT objects"]
    assert tifffile.imread(folder / "2_labels.tif").shape == labels[1:].shape


def test_the_next_image_is_read_and_encoded_ahead(window, folder):
    window.open_widget()
    window.tab.encoding_panel.ahead.setChecked(True)
    window.tab.folder_panel.folder.set_value(str(folder))
    service = window.controller.inference.service
    window.qtbot.waitUntil(lambda: len(service.cache) == 2)
    window.idle()
    window.key(*NEXT)
    window.qtbot.waitUntil(lambda: len(service.cache) == 3)
    window.idle()
    assert shown(window) == ["1"]
    assert service.encodes == 1, "those of the clicks' own predictor: the first image"


def test_prefetch_of_a_flat_image_after_a_stack_works(window, tmp_path):
    stack = np.stack([gray()] * 4)
    tifffile.imwrite(tmp_path / "0.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "1.tif", np.clip(gray(), 0, 240) + np.uint8(9))
    window.open_widget()
    window.tab.encoding_panel.ahead.setChecked(True)
    window.tab.folder_panel.folder.set_value(str(tmp_path))
    image_folder, service = window.tab.image_folder, window.controller.inference.service
    window.qtbot.waitUntil(lambda: image_folder._ready is not None)
    window.qtbot.waitUntil(lambda: not image_folder._encoding.busy)
    window.idle()
    encoded = len(service.cache)
    window.key(*NEXT)
    window.click(*CENTERS[0])
    assert shown(window) == ["1"]
    assert len(service.cache) == encoded


@pytest.mark.all_tabs
def test_choose_plan_goes_through_batch_results(window, folder, tmp_path, monkeypatch):
    made = plan(find_inputs([folder], pattern="[34].tif"), output=tmp_path / "out", prompts="auto")
    (tmp_path / "out").mkdir()
    labels = np.zeros(gray().shape, np.uint16)
    labels[40:60, 50:70], labels[100:110, 10:20] = 3, 4
    tifffile.imwrite(tmp_path / "out" / "4_labels.tif", labels)
    (tmp_path / "out" / "4_res_track.txt").write_text("3 0 0 0\n4 1 1 3\n")
    (tmp_path / "out" / "4_objects.csv").write_text("label,score\n3,0.66\n4,\n")
    monkeypatch.setattr(BatchTab, "plan", lambda _: made)
    window.open_widget()
    window.tab.sections["folder"].set_open(True)
    window.push(window.tab.folder_panel.batch)
    assert place(window.tab.folder_panel) == "1 of 2, 1 done · 3.tif"
    window.key(*NEXT)
    assert (objects(window) == labels).all()
    assert window.workspace.session.editor.parents == {4: 3}
    table = window.tab.object_panel.table.model()
    assert [table.index(row, 3).data() for row in range(2)] == ["0.66", ""]
    window.add_object(*CENTERS[1])
    window.key(*BACK)
    assert shown(window) == ["3"]
    assert (tmp_path / "out" / "4_session.jsonl").exists()
    assert not list(folder.glob("*_labels.tif"))
    window.key(*NEXT)
    assert window.workspace.session.editor.parents == {4: 3}
    assert len(window.workspace.session.editor.labels) == 3


def test_choose_folder_puts_other_images_aside(window, folder):
    other = window.viewer.add_image(np.full((900, 900), 7, np.uint8), name="other")
    begin(window, folder)
    assert not other.visible
    assert window.workspace.session.geometry.name == "0"
    window.add_object(*CENTERS[0])
    window.key(*NEXT)
    assert (folder / "0_labels.tif").exists()
    assert window.workspace.session.geometry.name == "1"


def test_order_by_score_opens_the_least_certain_first(window, folder):
    for number, scores in {2: "0.9 0.7", 5: "0.4 nan", 3: "nan", 4: "?"}.items():
        rows = [f"{n},{score}" for n, score in enumerate(scores.split(), 1)]
        (folder / f"{number}_objects.csv").write_text("\n".join(["label,score", *rows]))
    begin(window, folder)
    window.add_object(*CENTERS[0])
    panel = window.tab.folder_panel
    panel.by_score.click()
    window.idle()
    order = [int(image.path.stem) for image in window.tab.image_folder.images]
    assert order[:2] == [5, 2]
    assert order[3:] == [1, 3, 4]
    assert order[2] == 0, "saved with the score of its click"
    assert shown(window) == ["5"]
    panel.by_score.click()
    window.idle()
    assert [int(image.path.stem) for image in window.tab.image_folder.images] == [*range(COUNT)]
    assert shown(window) == ["1"], "the first that is not done"


@pytest.mark.slow
def test_order_with_unsaved_work_opens_the_next(window, folder):
    begin(window, folder)
    window.add_object(*CENTERS[0])
    assert shown(window)[0] == "0"
    window.tab.folder_panel.by_score.click()
    window.idle()
    assert (folder / "0_labels.tif").is_file()
    assert shown(window) == ["1"]


@pytest.mark.parametrize("largest", nightly_but((2**31, 2**32 - 1), 2**32 - 1))
def test_labels_with_large_ids_keep_them(window, folder, largest):
    labels = np.zeros(gray().shape, np.uint32)
    labels[20:40, 20:40] = 7
    labels[100:120, 100:130] = largest
    tifffile.imwrite(folder / "0_labels.tif", labels)
    for number in range(1, COUNT):
        (folder / f"{number}.tif").unlink()
    begin(window, folder)
    np.testing.assert_array_equal(objects(window), labels)
    window.add_object(*CENTERS[0])
    window.key(*NEXT)
    saved = tifffile.imread(folder / "0_labels.tif")
    assert set(np.unique(saved)) >= {7, largest}
    np.testing.assert_array_equal(saved == largest, labels == largest)


def test_the_keys_of_drafts_go_over_images(window, folder):
    begin(window, folder)
    panel = window.tab.folder_panel
    window.key(Qt.Key.Key_W)
    assert panel.place.text() == f"2 of {COUNT}, 2 seen, 1 done · 1.tif", "accepted without objects"
    assert not tifffile.imread(folder / "0_labels.tif").any()
    window.add_object(*CENTERS[0])
    window.key(Qt.Key.Key_H)
    assert window.status.text.startswith("An image is not rejected")
    window.key(Qt.Key.Key_W)
    assert place(panel) == f"3 of {COUNT}, 2 done · 2.tif"
    assert tifffile.imread(folder / "1_labels.tif").max() == 1
    window.key(*BACK)
    window.key(*BACK)
    assert place(panel).startswith("1 of")
    window.key(Qt.Key.Key_J)
    assert place(panel).startswith(f"4 of {COUNT}"), "the first that nobody has seen"


@pytest.mark.slow
def test_drafts_go_before_the_images_of_a_folder(window, folder):
    begin(window, folder)
    window.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
    window.tab.act("segment everything")
    window.idle()
    open_before = window.controller.review.counts[0]
    assert open_before > 1
    window.key_over(*CENTERS[0], Qt.Key.Key_W)
    assert window.controller.review.counts[0] == open_before - 1
    assert place(window.tab.folder_panel).startswith("1 of")
    window.key(Qt.Key.Key_C)
    window.key(Qt.Key.Key_W)
    assert place(window.tab.folder_panel).startswith("2 of")


def known_objects(folder: Path, stem: str) -> None:
    """An earlier result without a session: two squares, with scores and a class."""
    labels = np.zeros(gray().shape, np.uint16)
    labels[3:9, 4:10], labels[20:30, 4:10] = 3, 4
    labels[120:130, 150:160] = 8
    tifffile.imwrite(folder / f"{stem}_labels.tif", labels)
    rows = ("label,score,class,class_certainty", "3,0.66,nucleus,", "4,0.5,,", "8,0.75,cell,0.9")
    (folder / f"{stem}_objects.csv").write_text("\n".join(rows) + "\n")


def rows_of(table: Path) -> list[tuple[str, ...]]:
    """Label, score, class and certainty of each object in a table."""
    with table.open(newline="", encoding="utf-8") as file:
        names = ("label", "score", "class", "class_certainty")
        return [tuple(row.get(name, "") for name in names) for row in csv.DictReader(file)]


def test_scores_and_classes_of_a_result_survive_coming_back(window, folder):
    known_objects(folder, "0")
    known = [("3", "0.66", "nucleus", ""), ("8", "0.75", "cell", "0.9")]
    begin(window, folder)
    window.key(*BACK)  # the first that is not done is the second
    assert place(window.tab.folder_panel).startswith("1 of")
    window.click_row(1)
    window.key(Qt.Key.Key_D, SHIFT)
    window.key(*NEXT)
    assert rows_of(folder / "0_objects.csv") == known
    window.key(*BACK)
    table = window.tab.object_panel.table
    assert [(row.label, row.category, round(row.score, 2)) for row in table._model.rows] == [
        (3, "nucleus", 0.66),
        (8, "cell", 0.75),
    ]
    window.add_object(*CENTERS[0])
    window.key(*NEXT)
    assert rows_of(folder / "0_objects.csv")[:2] == known


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_labels_in_the_format_of_their_image_are_found_again(window, tmp_path, ending):
    labels = (discs()[1] == 1).astype(np.uint16)
    for name, values in (("0", gray()), ("1", gray()[::-1]), ("1_labels", labels)):
        path, size = tmp_path / f"{name}{ending}", ImageReference()
        write_labels_itk(path, values, axes="YX", reference=size, ending=ending)
    (tmp_path / "1_objects.csv").write_text("label,score\n1,0.75\n")
    begin(window, tmp_path)
    assert place(window.tab.folder_panel) == f"1 of 2, 1 done · 0{ending}"
    window.key(*NEXT)
    assert (objects(window) == labels).all()
    assert window.workspace.session.editor.register.entry(1).score == 0.75


def test_image_comes_back_whole_without_its_model(window, folder):
    begin(window, folder)
    window.add_object(*CENTERS[0])
    window.add_object(*CENTERS[1])
    made = objects(window)
    window.key(*NEXT)
    window.tab.models.set_value("vit_l")
    window.idle()
    assert window.status.offer == USE_TINY, "it is said before a click"
    window.key(*BACK)
    assert shown(window) == ["0", "SimMAT objects"]
    assert np.array_equal(objects(window), made)
    assert len(window.tab.object_panel.table._model.rows) == 2
    window.click_row(0)
    window.key(Qt.Key.Key_D, SHIFT)
    assert set(np.unique(objects(window))) == {0, 2}
    window.key(*NEXT)
    window.push(window.tab.folder_panel.empty)
    assert place(window.tab.folder_panel).startswith(f"3 of {COUNT}, 2 done"), window.status
    assert set(np.unique(tifffile.imread(folder / "0_labels.tif"))) == {0, 2}
    window.click(*CENTERS[0])
    assert (window.status.offer, window.mask.any()) == (USE_TINY, False)
    window.push(window.tab.status.offer)
    assert window.mask.any(), "the click is answered by tiny"


def test_mark_empty_says_why_it_cannot(window, folder):
    begin(window, folder)
    window.tab.models.set_value("polarization")
    window.idle()
    window.push(window.tab.folder_panel.empty)
    assert window.status.text == NOT_CHOSEN.format("0.tif")
    assert not list(folder.glob("*_labels.tif"))


def test_objects_of_a_result_survive_an_open_click(window, folder):
    known_objects(folder, "0")
    before = tifffile.imread(folder / "0_labels.tif")
    begin(window, folder)
    window.key(*BACK)
    window.click(*CENTERS[3])  # stays open, and nothing else is done
    window.key(*NEXT)
    window.key(*BACK)
    assert np.array_equal(objects(window), before)
    assert len(window.workspace.session.prompt_state.prompts.points) == 1
    window.key(*NEXT)
    assert np.array_equal(tifffile.imread(folder / "0_labels.tif"), before)


def test_drafts_survive_going_on_from_another_image(window, folder):
    window.viewer.add_image(gray()[::-1].copy(), name="other")
    begin(window, folder)
    window.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=5))
    window.tab.act("segment everything")
    window.idle()
    found = window.workspace.session.drafts.open
    assert found
    window.choose(window.tab.channels.image, "other")
    window.key(*NEXT)
    assert place(window.tab.folder_panel).startswith("2 of")
    window.key(*BACK)
    assert window.workspace.session.drafts.open == found


def test_closed_tab_goes_on_in_its_folder(window, folder):
    begin(window, folder)
    window.add_object(*CENTERS[0])
    window.key(*NEXT)
    window.add_object(*CENTERS[1])
    at, made = place(window.tab.folder_panel), objects(window)
    window.close_widget()
    window.start()
    assert place(window.tab.folder_panel) == at
    window.key(*NEXT)
    assert place(window.tab.folder_panel).startswith(f"3 of {COUNT}, 2 done")
    assert np.array_equal(tifffile.imread(folder / "1_labels.tif"), made)


def test_folder_goes_on_after_closing_on_another_image(window, folder):
    window.viewer.add_image(gray()[::-1].copy(), name="other")
    begin(window, folder)
    window.click(*CENTERS[0])
    window.choose(window.tab.channels.image, "other")
    window.close_widget()
    window.start()
    window.key(*NEXT)
    assert place(window.tab.folder_panel).startswith("2 of"), window.status
    window.key(*BACK)
    assert len(window.workspace.session.prompt_state.prompts.points) == 1


def in_other_results(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The list of a batch over the same images, whose results go elsewhere."""
    output = folder.parent / "out"
    output.mkdir()
    made = plan(find_inputs([folder]), output=output, prompts="auto")
    monkeypatch.setattr(BatchTab, "plan", lambda _: made)
    return output


@pytest.mark.all_tabs
@pytest.mark.parametrize("gone", ["tab", "image"])
def test_unsaved_work_stays_with_the_results_it_is_for(window, folder, monkeypatch, gone):
    output = in_other_results(folder, monkeypatch)
    begin(window, folder)
    window.add_object(*CENTERS[0])
    made = objects(window)
    if gone == "tab":
        window.close_widget()
        window.viewer.layers.clear()
        window.start()
    else:
        window.viewer.layers.remove("0")
        window.idle()
    window.tab.sections["folder"].set_open(True)
    window.push(window.tab.folder_panel.batch)
    assert shown(window) == ["0"]
    window.key(*NEXT)
    assert place(window.tab.folder_panel).startswith("2 of"), window.status
    assert not list(output.glob("0_labels.tif"))
    window.tab.folder_panel.folder.set_value(str(folder))
    window.idle()
    assert np.array_equal(objects(window), made)
