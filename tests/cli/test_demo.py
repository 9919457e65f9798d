"""`simmat demo`: the samples, the pictures, and the command as a newcomer runs it."""

import csv
import json
import sys
import types
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat.cli import main, terminal
from napari_simmat.cli.demo import demo_samples, ious, polarization_colors
from napari_simmat.engine.drawing import (
    FILL_OPACITY,
    GREEN,
    OVERLAY_SCALE,
    draw_overlay,
    side_by_side,
)
from napari_simmat.engine.prompts import Prompt


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The folder that the demonstration writes, made once for all tests."""
    folder = tmp_path_factory.mktemp("demo") / "simmat-demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_SIMMAT_HOME", str(tmp_path_factory.mktemp("home")))
        out = StringIO()
        patch.setattr(sys, "stdout", out)
        assert main(["demo", "--output", str(folder), "--device", "cpu"]) == 0
    for words in ("Photograph of coins", "mean IoU", "overlays", "simmat segment"):
        assert words in out.getvalue()
    return folder


def scores(folder: Path) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    with (folder / "iou.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            found.setdefault((row["sample"], row["prompt"]), []).append(float(row["iou"]))
    return found


def test_sample_coins_has_the_true_outlines(shared_image):
    """Against outlines that were drawn with more care: 24 coins, each met closely."""
    truth = shared_image("coins_labels.tif")
    sample = demo_samples()[0]
    assert sample.truth.max() == len(np.unique(truth)) - 1 == 24
    for label in np.unique(truth)[1:]:
        inside = truth == label
        same = sample.truth == np.bincount(sample.truth[inside]).argmax()
        assert (inside & same).sum() / (inside | same).sum() > 0.93


@pytest.mark.parametrize("number", range(3))
def test_sample_is_always_equal_with_a_prompt_per_object(number):
    sample, again = demo_samples()[number], demo_samples()[number]
    np.testing.assert_array_equal(sample.image, again.image)
    np.testing.assert_array_equal(sample.truth, again.truth)
    labels = [int(label) for label in np.unique(sample.truth) if label]
    assert len(labels) >= 5
    clicks, boxes = sample.clicks(), sample.boxes()
    assert [prompt.object for prompt in clicks] == [prompt.object for prompt in boxes] == labels
    for click, box in zip(clicks, boxes, strict=True):
        [(y, x)] = click.points
        assert sample.truth[int(y), int(x)] == click.object
        y0, x0, y1, x1 = (int(edge) for edge in box.box)
        inside = sample.truth == box.object
        assert inside[y0:y1, x0:x1].sum() == inside.sum()
        assert inside[[y0, y1 - 1]].any(axis=1).all()
        assert inside[:, [x0, x1 - 1]].any(axis=0).all()
    assert sample.picture().shape == (*sample.truth.shape, 3)


def test_polarization_colors_show_the_angle_as_hue():
    """Fully polarized along 0 degrees is red, along 90 degrees cyan, unpolarized gray."""
    angles = np.array([[[100, 0, 50]], [[50, 50, 50]], [[0, 100, 50]], [[50, 50, 50]]])
    along, across, none = polarization_colors(angles)[0]
    assert along.tolist() == [255, 0, 0]
    assert across.tolist() == [0, 255, 255]
    assert len(set(none.tolist())) == 1


def test_ious_are_per_object():
    truth = np.array([[1, 1, 2, 2, 3]])
    labels = np.array([[1, 0, 2, 2, 0]])
    assert ious(labels, truth) == {1: 0.5, 2: 1.0, 3: 0.0}


def test_overlay_tints_objects_and_marks_prompts():
    picture = np.full((40, 60, 3), 100, np.uint8)
    labels = np.zeros((40, 60), np.uint16)
    labels[10:30, 10:30] = 1
    prompt = Prompt(points=((20, 20),), box=(5, 35, 35, 55))
    drawn = np.asarray(draw_overlay(picture, labels, [prompt]))
    assert drawn.shape == (40 * OVERLAY_SCALE, 60 * OVERLAY_SCALE, 3)
    assert drawn[2, 2].tolist() == [100, 100, 100]  # untouched
    tinted = drawn[OVERLAY_SCALE * 14, OVERLAY_SCALE * 14].astype(float)
    assert not np.allclose(tinted, 100)
    assert (np.abs(tinted - 100) <= FILL_OPACITY * 155 + 1).all()
    middle = drawn[OVERLAY_SCALE * 20 + 1, OVERLAY_SCALE * 20 + 1].astype(float)
    assert np.abs(middle - GREEN).max() < 20  # the white rim rings a little when reduced
    # The box's upper edge.
    edge = drawn[OVERLAY_SCALE * 5 - 2 : OVERLAY_SCALE * 5 + 3, OVERLAY_SCALE * 45]
    assert any(pixel[1] > pixel[0] + 60 for pixel in edge.astype(int))


def test_overlay_with_caption_or_neighbor_keeps_its_pixels():
    picture, labels = np.full((20, 30, 3), 50, np.uint8), np.zeros((20, 30), np.uint8)
    plain, named = draw_overlay(picture, labels), draw_overlay(picture, labels, caption="Nothing")
    assert named.height > plain.height
    long = np.asarray(draw_overlay(picture, labels, caption="Nothing at all is to be seen here"))
    assert (long[plain.height :, -2:] == 255).all()  # the caption ends before the picture does
    row = side_by_side([plain, named])
    assert row.size == (plain.width + named.width + 12, named.height)
    np.testing.assert_array_equal(np.asarray(row)[: plain.height, : plain.width], plain)


def test_demo_writes_all_it_promises(shown):
    names = [sample.name for sample in demo_samples()]
    for name in names:
        for kind in ("clicks", "boxes"):
            labels = tifffile.imread(shown / kind / f"{name}_labels.tif")
            truth = tifffile.imread(shown / "images" / f"{name}_truth.tif")
            assert labels.shape == truth.shape
            assert json.loads((shown / kind / f"{name}.json").read_text("utf-8"))["prompts"]
        with Image.open(shown / "overlays" / f"{name}.png") as picture:
            assert picture.width > 2 * OVERLAY_SCALE * truth.shape[1]
    found = scores(shown)
    assert set(found) == {(name, kind) for name in names for kind in ("clicks", "boxes")}
    assert len(found["coins", "clicks"]) == 24


def test_demo_segments_the_coins(shown):
    found = scores(shown)
    assert np.mean(found["coins", "clicks"]) >= 0.65
    assert np.mean(found["coins", "boxes"]) >= 0.8


@pytest.mark.slow
def test_demo_again_writes_the_same_and_prints_json(shown, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "LOG_INTERVAL", 1e9)
    paths = [path for path in shown.rglob("*") if path.suffix in (".png", ".tif", ".csv")]
    before = {path: path.read_bytes() for path in paths}
    assert len(paths) == 3 * 9 + 1  # nine for each sample, and the IoU of all
    assert main(["demo", "--output", str(shown), "--device", "cpu", "--json"]) == 0
    said = capsys.readouterr()
    assert {path: path.read_bytes() for path in paths} == before
    assert said.err == ""
    results = json.loads(said.out)["results"]
    assert len(results) == 6
    mean = {(row["sample"], row["prompt"]): row["mean_iou"] for row in results}
    for key, values in scores(shown).items():
        assert mean[key] == pytest.approx(np.mean(values), abs=1e-4)


def test_demo_into_a_foreign_folder_is_refused(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    assert main(["demo", "--output", str(tmp_path)]) == 1
    assert "exists and was not made by simmat demo" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["images"]


def test_demo_gui_without_napari_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["napari_simmat.cli.demo"], "find_spec", lambda name: None)
    assert main(["demo", "--gui"]) == 1
    assert capsys.readouterr().err.strip() == (
        'napari is not installed, so no window can open; run pip install "napari[all]".'
    )


def test_demo_gui_opens_the_window(tmp_path, monkeypatch):
    opened = []
    window = types.ModuleType("napari_simmat.widgets.main")
    window.open_demo = lambda: opened.append(True)
    monkeypatch.setitem(sys.modules, "napari_simmat.widgets.main", window)
    monkeypatch.setattr(sys.modules["napari_simmat.cli.demo"], "find_spec", lambda name: object())
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--gui"]) == 0
    assert opened == [True]
    assert list(tmp_path.iterdir()) == []
