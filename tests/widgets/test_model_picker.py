from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QStyle, QStyleOptionViewItem

from napari_simmat.checkpoints import library, registry, sam_weights
from napari_simmat.checkpoints.registry import ModelEntry
from napari_simmat.models.spec import Base, Channel, InputSize, ModelSpec, Normalization
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.model_picker import GROUPS, NOT_DOWNLOADED, ModelPicker, _metrics


def spec(*names: str) -> ModelSpec:
    return ModelSpec(
        name="model",
        modality="test",
        channels=tuple(Channel(name=name, mean=0.0, std=1.0) for name in names),
        normalization=Normalization(),
        input_size=InputSize(),
        base=Base(name="tiny-1", architecture="tiny", sha256=""),
        transfer="simmat",
    )


@pytest.fixture
def picker(qtbot: Any) -> Iterator[ModelPicker]:
    picker = ModelPicker()
    qtbot.addWidget(picker)
    qtbot.addWidget(picker.details)
    picker.show()
    picker.details.show()
    yield picker
    picker.release()
    assert picker.transfers.join(10)


def test_it_begins_with_the_embedded_model(picker: ModelPicker) -> None:
    entry = picker.value()
    assert entry is not None
    assert entry == registry.find_model("tiny")
    assert picker.problem() is None
    assert picker.reference() == entry.name
    assert "red, green, blue" in picker._card.text()
    assert "BSD-3-Clause" in picker._card.text()
    assert not picker._fetch.isVisible()


def test_every_model_can_be_chosen_and_read_back(picker: ModelPicker, qtbot: Any) -> None:
    for entry in registry.list_models():
        with qtbot.waitSignal(picker.changed):
            picker.set_value(entry.name)
        assert picker.value() == entry


def test_models_stand_under_what_they_are_for(picker: ModelPicker, tmp_path: Path) -> None:
    tiny = registry.find_model("tiny").path
    assert tiny is not None
    path = tmp_path / "mine.safetensors"
    path.write_bytes(tiny.read_bytes())
    picker.set_value(path)
    groups: dict[str, list[str]] = {}
    for number in range(picker._list.count()):
        if picker._list.itemData(number) is None:
            groups[picker._list.itemText(number)] = []
        else:
            groups[list(groups)[-1]].append(picker._list.itemText(number).split(" · ")[0])
    assert tuple(groups) == GROUPS
    assert "tiny-4" in groups["Any image"]
    assert "vit_b_lm" in groups["Microscopy"]
    assert "vit_b_em_organelles" in groups["Electron microscopy"]
    assert "vit_b_histopathology" in groups["Histology"]
    assert "medsam_vit_b" in groups["Medical images"]
    assert "vit_b" in groups["Photographs"]
    assert "thermal" in groups["Other sensors"]
    assert groups["Your own"] == ["mine"]
    picker._list.setCurrentIndex(picker._list.findText("Microscopy") + 1)
    QTest.keyClick(picker._list, Qt.Key.Key_Up)
    assert picker.value() is not None, "a heading is no model"


def test_headings_look_enabled_so_that_they_can_be_read(picker: ModelPicker) -> None:
    row = picker._list.findText("Microscopy")
    index, option = picker._list.model().index(row, 0), QStyleOptionViewItem()
    picker._list.itemDelegate().initStyleOption(option, index)
    assert option.state & QStyle.StateFlag.State_Enabled
    assert option.font.bold()


def test_an_opened_file_is_listed_and_loaded_from_where_it_is(
    picker: ModelPicker, tmp_path: Path
) -> None:
    tiny = registry.find_model("tiny").path
    assert tiny is not None
    path = tmp_path / "mine.safetensors"
    path.write_bytes(tiny.read_bytes())
    picker.set_value(path)
    assert picker.reference() == path
    assert picker._list.currentText() == "mine · opened file"
    picker.refresh()
    assert picker.reference() == path, "reading the list again keeps the choice"


def test_a_file_is_added_to_the_models(picker: ModelPicker, tmp_path: Path, qtbot: Any) -> None:
    tiny = registry.find_model("tiny").path
    assert tiny is not None
    path = tmp_path / "mine.safetensors"
    path.write_bytes(tiny.read_bytes())
    with qtbot.waitSignal(picker.changed, timeout=60_000):
        picker._start("Adding", lambda: library.import_file_job(path))
    assert picker.reference() == "mine"
    assert picker._list.currentText() == "mine · own file"


def test_what_is_to_be_downloaded_says_its_size_and_cannot_be_used_yet(picker: ModelPicker) -> None:
    picker.set_value("vit_b")
    assert picker._list.currentText() == "vit_b · needs download (375 MB)"
    assert picker._fetch.isVisible()
    assert picker._fetch.text() == "Download 375 MB"
    assert picker.problem() == NOT_DOWNLOADED.format(name="vit_b")
    assert "Cite: Kirillov et al." in picker._card.toolTip()


def test_a_download_that_fails_is_one_sentence_and_can_be_tried_again(
    picker: ModelPicker, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(name: str) -> Job[Path]:
        yield Progress(1, 4, f"Downloading {name}")
        raise OSError("The disk is full: vit_b needs 375 MB. Make room, then try again.")

    monkeypatch.setattr(sam_weights, "fetch_job", failing)
    picker.set_value("vit_b")
    picker._fetch.click()
    assert picker._cancel.isVisible()
    assert picker._bar.isVisible()
    qtbot.waitUntil(lambda: picker._card.text().startswith("The disk is full"))
    assert picker._fetch.isVisible()
    assert not picker._cancel.isVisible()


def test_a_download_is_canceled_at_once(
    picker: ModelPicker, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, gate, ended = threading.Event(), threading.Event(), threading.Event()

    def endless(name: str) -> Job[Path]:
        try:
            yield Progress(1, 4, f"Downloading {name}")
            reached.set()
            assert gate.wait(10)
            yield Progress(2, 4, f"Downloading {name}")
            raise AssertionError("went on")
        finally:
            ended.set()

    monkeypatch.setattr(sam_weights, "fetch_job", endless)
    picker.set_value("vit_b")
    picker._fetch.click()
    assert reached.wait(10)
    qtbot.waitUntil(lambda: picker._card.text() == "Downloading vit_b")
    with qtbot.waitSignal(picker.transfers.stopped):
        picker._cancel.click()
        assert picker._fetch.isVisible(), "free while the transfer still runs"
        gate.set()
    assert ended.is_set()


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (
            {"data": "drawn scenes, mean IoU %", "box": 69.3, "click": 59.9, "prior": 60.1},
            "click 60 %, box 69 % IoU, drawn scenes",
        ),
        (
            {
                "axons, validation images, mean IoU %": {"box": 59.2, "click": 52.5},
                "drawn scenes, mean IoU %": {"box": 69.3, "click": 59.9},
            },
            "click 60 %, box 69 % IoU, drawn scenes",
        ),
        (
            {
                "data": "drawn scenes, mean IoU %",
                "zero-shot": {"click": 50.0, "box": 60.0},
                "simmat": {"click": 71.0, "box": 80.0},
            },
            "click 71 % (base alone 50 %), box 80 % (base alone 60 %) IoU, drawn scenes",
        ),
        ({}, ""),
        ({"data": "unknown"}, ""),
    ],
)
def test_figures_in_words(metrics: dict[str, Any], words: str) -> None:
    from dataclasses import replace

    assert _metrics(replace(spec("a", "b"), metrics=metrics)) == words


def test_a_damaged_file_among_the_models_is_listed_with_its_problem(
    picker: ModelPicker, user_folder: Path
) -> None:
    (user_folder / "models").mkdir()
    (user_folder / "models" / "broken.safetensors").write_text("hello")
    picker.refresh()
    picker.set_value("broken")
    entry = picker.value()
    assert isinstance(entry, ModelEntry)
    assert picker._list.currentText() == "broken · own file, unusable"
    assert picker.problem() == entry.problem == picker._card.text()
    assert "is neither a checkpoint" in picker._card.text()
