"""What was seen of a batch, and its table of all objects, which follows corrections."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt

from napari_simmat.batch.inputs import find_inputs
from napari_simmat.batch.plan import plan
from napari_simmat.batch.summary import ALL_OBJECTS
from napari_simmat.io.files import user_folder
from napari_simmat.widgets.batch.tab import BatchTab
from napari_simmat.widgets.segment.folder.folder_review import SeenImages
from napari_simmat.widgets.segment.folder.image_folder import OLDER
from tests.widgets.scenes import CENTERS, gray

SHIFT = Qt.KeyboardModifier.ShiftModifier
NEXT = (Qt.Key.Key_N, SHIFT)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_seen_is_remembered_for_the_same_list_alone():
    seen = SeenImages(["a", "b", "c"])
    seen.add(1)
    seen.add(1)
    again = SeenImages(["a", "b", "c"])
    assert [number in again for number in range(3)] == [False, True, False]
    assert len(again) == 1
    assert len(SeenImages(["a", "b"])) == 0
    for file in user_folder("seen").iterdir():
        file.write_text("[[[", encoding="utf-8")
    assert len(SeenImages(["a", "b", "c"])) == 0, "a file that cannot be read costs the marks alone"


def test_time_left_is_told_after_three_images(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    seen = SeenImages([str(number) for number in range(9)])
    for number in range(3):
        assert seen.left() == ""
        seen.add(number)
        now[0] += 20
    assert seen.left() == "about 2 min left", "six images of 20 s"


@pytest.mark.slow
@pytest.mark.all_tabs
def test_batch_is_looked_over_from_its_first_image(window, tmp_path, monkeypatch):
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for number in range(3):
        tifffile.imwrite(folder / f"{number}.tif", np.clip(gray(), 0, 240) + np.uint8(number))
    made = plan(find_inputs([folder]), output=out, prompts="auto")
    out.mkdir()
    labels = np.zeros(gray().shape, np.uint16)
    labels[100:110, 10:20] = 1
    for number in range(3):
        tifffile.imwrite(out / f"{number}_labels.tif", labels)
    (folder / "2.tif").write_text("this is no image")  # broken since
    (out / "2_labels.tif").unlink()
    (out / ALL_OBJECTS).write_text("image,label,area\n0.tif,1,100\n1.tif,1,100\n")
    (out / "0_coco.json").write_text("{}")
    (out / "0_overlay.png").write_bytes(b"a picture")
    monkeypatch.setattr(BatchTab, "plan", lambda _: made)
    window.open_widget()
    panel = window.tab.folder_panel

    def look_over() -> None:
        window.tab.sections["folder"].set_open(True)
        window.push(panel.batch)

    look_over()
    assert panel.place.text() == "1 of 3, 1 seen, 2 done · 0.tif", "not the one that is broken"
    window.add_object(*CENTERS[1])
    window.key(*NEXT)
    assert panel.place.text() == "2 of 3, 2 seen, 2 done · 1.tif"
    window.qtbot.waitUntil(lambda: len(rows(out / ALL_OBJECTS)) == 3)
    found: list[Any] = [(row["image"], row["label"]) for row in rows(out / ALL_OBJECTS)]
    assert found == [("0.tif", "1"), ("0.tif", "2"), ("1.tif", "1")]
    coco = json.loads((out / "0_coco.json").read_text())
    assert len(coco["annotations"]) == 2, "the other formats follow"
    assert panel.older.isVisible()
    assert panel.older.text() == OLDER.format("0_overlay.png")
    look_over()
    assert panel.place.text().startswith("3 of 3, 2 seen"), "the first that nobody has seen"
