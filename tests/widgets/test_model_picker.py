import threading
from dataclasses import replace

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog, QStyle, QStyleOptionViewItem

from napari_simmat.checkpoints import registry, sam_weights
from napari_simmat.checkpoints.registry import ModelEntry
from napari_simmat.progress import Progress
from napari_simmat.widgets.model_picker import GROUPS, NOT_DOWNLOADED, ModelPicker


@pytest.fixture
def picker(qtbot):
    picker = ModelPicker()
    qtbot.addWidget(picker)
    qtbot.addWidget(picker.details)
    picker.show()
    picker.details.show()
    yield picker
    picker.release()
    assert picker.transfers.join(10)


@pytest.fixture
def mine(tmp_path):
    """A copy of the embedded model."""
    path = tmp_path / "mine.safetensors"
    path.write_bytes(registry.find_model("tiny").path.read_bytes())
    return path


def test_picker_begins_with_the_embedded_model(picker):
    entry = picker.value()
    assert entry == registry.find_model("tiny")
    assert picker.problem() is None
    assert picker.reference() == entry.name
    assert "red, green, blue" in picker.card.text()
    assert "BSD-3-Clause" in picker.card.toolTip()
    assert "zeroshot" not in picker.card.toolTip(), "it has no transfer layer"
    assert not picker.fetch_button.isVisible()


def test_picker_reads_back_every_model(picker, qtbot):
    for entry in registry.list_models():
        with qtbot.waitSignal(picker.changed):
            picker.set_value(entry.name)
        assert picker.value() == entry


def test_picker_lists_models_by_what_they_are_for(picker, mine):
    picker.set_value(mine)
    groups: dict[str, list[str]] = {}
    for number in range(picker.choice.count()):
        if picker.choice.itemData(number) is None:
            groups[picker.choice.itemText(number)] = []
        else:
            groups[list(groups)[-1]].append(picker.choice.itemText(number).split(" · ")[0])
    assert tuple(groups) == GROUPS
    assert "tiny-6" in groups["Any image"]
    assert "vit_b_lm" in groups["Microscopy"]
    assert "vit_b_em_organelles" in groups["Electron microscopy"]
    assert "vit_b_histopathology" in groups["Histology"]
    assert "medsam_vit_b" in groups["Medical images"]
    assert "vit_b" in groups["Photographs"]
    assert "thermal" in groups["Other sensors"]
    assert groups["Your own"] == ["mine"]
    picker.choice.setCurrentIndex(picker.choice.findText("Microscopy") + 1)
    QTest.keyClick(picker.choice, Qt.Key.Key_Up)
    assert picker.value() is not None, "a heading is no model"


def test_picker_headings_look_enabled(picker):
    row = picker.choice.findText("Microscopy")
    index, option = picker.choice.model().index(row, 0), QStyleOptionViewItem()
    picker.choice.itemDelegate().initStyleOption(option, index)
    assert option.state & QStyle.StateFlag.State_Enabled
    assert option.font.bold()


def test_picker_lists_an_opened_file(picker, mine):
    picker.set_value(mine)
    assert picker.reference() == mine
    assert picker.choice.currentText() == "mine · opened file"
    picker.refresh()
    assert picker.reference() == mine, "reading the list again keeps the choice"


def test_picker_adds_a_file_to_the_models(picker, mine, qtbot, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(mine), ""))
    menu = picker.more.menu()
    with qtbot.waitSignal(picker.changed, timeout=60_000):
        next(each for each in menu.actions() if each.text().startswith("Add")).trigger()
    assert picker.reference() == "mine"
    assert picker.choice.currentText() == "mine · own file"


def test_picker_with_a_downloadable_model_shows_its_size(picker):
    picker.set_value("vit_b")
    assert picker.choice.currentText() == "vit_b · needs download (375 MB)"
    assert picker.fetch_button.isVisible()
    assert picker.fetch_button.text() == "Download 375 MB"
    assert picker.problem() == NOT_DOWNLOADED.format(name="vit_b")
    assert "Cite: Kirillov et al." in picker.card.toolTip()


def test_failed_download_can_be_tried_again(picker, qtbot, monkeypatch):
    def failing(name):
        yield Progress(1, 4, f"Downloading {name}")
        raise OSError("The disk is full: vit_b needs 375 MB. Make room, then try again.")

    monkeypatch.setattr(sam_weights, "fetch_job", failing)
    picker.set_value("vit_b")
    picker.fetch_button.click()
    assert picker.cancel_button.isVisible()
    assert picker.bar.isVisible()
    qtbot.waitUntil(lambda: picker.card.text().startswith("The disk is full"))
    assert picker.fetch_button.isVisible()
    assert not picker.cancel_button.isVisible()


def test_canceled_download_stops_at_once(picker, qtbot, monkeypatch):
    reached, gate, ended = threading.Event(), threading.Event(), threading.Event()

    def endless(name):
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
    picker.fetch_button.click()
    assert reached.wait(10)
    qtbot.waitUntil(lambda: picker.card.text() == "Downloading vit_b")
    with qtbot.waitSignal(picker.transfers.stopped):
        picker.cancel_button.click()
        assert picker.fetch_button.isVisible(), "free while the transfer still runs"
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
def test_card_shows_metrics(picker, metrics, words, monkeypatch):
    tiny = registry.find_model("tiny")
    measured = replace(tiny, spec=replace(tiny.spec, metrics=metrics, transfer="simmat"))
    monkeypatch.setattr(registry, "list_models", lambda: [measured])
    picker.refresh()
    lines = picker.card.text().splitlines()
    assert lines[1:] == ([words] if words else [])


def test_picker_lists_a_damaged_file_with_its_problem(picker, user_folder):
    (user_folder / "models").mkdir()
    (user_folder / "models" / "broken.safetensors").write_text("hello")
    picker.refresh()
    picker.set_value("broken")
    entry = picker.value()
    assert isinstance(entry, ModelEntry)
    assert picker.choice.currentText() == "broken · own file, unusable"
    assert picker.problem() == entry.problem == picker.card.text()
    assert "is neither a checkpoint" in picker.card.text()
