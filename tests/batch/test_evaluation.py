"""One call measures as `simmat evaluate` does."""

import json

import numpy as np
import pytest
import tifffile

from napari_simmat import evaluate
from napari_simmat.batch.evaluation import LABELS_NEED_FILES
from napari_simmat.cli import main

pytest.importorskip("pandas")


@pytest.fixture
def folder(tmp_path):
    """Two images with two discs each, and their labels."""
    y, x = np.indices((64, 80))
    labels = np.zeros(y.shape, np.uint8)
    labels[np.hypot(y - 20, x - 20) < 9] = 1
    labels[np.hypot(y - 42, x - 55) < 12] = 2
    data = tmp_path / "data"
    data.mkdir()
    for name, axis in (("a", slice(None)), ("b", slice(None, None, -1))):
        tifffile.imwrite(data / f"{name}.tif", (40 + 80 * labels)[axis])
        tifffile.imwrite(data / f"{name}_labels.tif", labels[axis])
    return data


def test_evaluate_gives_the_figures_of_the_command(folder, tmp_path):
    out = tmp_path / "out"
    words = ["--model", "tiny", "--prompts", "iterative", "--clicks", "2", "--device", "cpu"]
    assert main(["evaluate", str(folder), *words, "--output", str(out)]) == 0
    told = json.loads((out / "summary.json").read_text())
    files = (
        [folder / f"{name}.tif" for name in "ab"],
        [folder / f"{name}_labels.tif" for name in "ab"],
    )
    arrays = [(tifffile.imread(a), tifffile.imread(b)) for a, b in zip(*files, strict=True)]
    for data in (folder, str(folder), list(zip(*files, strict=True)), arrays):
        found = evaluate(data, prompts="iterative", clicks=2, progress=False)
        expected = {n: v for n, v in told["mean_over_images"].items() if n != "images"}
        assert {n: round(v, 6) for n, v in found.figures.items()} == expected
    assert found.table["objects"].tolist() == [2, 2]
    assert found.table["image"].tolist() == ["image 1", "image 2"]
    assert len(found.objects) == 4
    assert found.objects["label"].tolist() == [1, 2, 1, 2]
    assert repr(found).startswith("<Evaluation of tiny-6: 2 images, click 1.00, click+1 1.00")
    assert "<table>" in found._repr_html_()


def test_evaluate_labels_of_another_program(folder, tmp_path):
    (tmp_path / "theirs").mkdir()
    for name in "ab":
        labels = tifffile.imread(folder / f"{name}_labels.tif")
        tifffile.imwrite(tmp_path / "theirs" / f"{name}.tif", labels * (labels == 1))
    found = evaluate(folder, labels=tmp_path / "theirs", progress=False)
    assert found.figures["found@75"] == 0.5
    with pytest.raises(ValueError, match="Labels of another program") as error:
        evaluate([(np.zeros((9, 9)), np.ones((9, 9), int))], labels=tmp_path / "theirs")
    assert str(error.value) == LABELS_NEED_FILES
