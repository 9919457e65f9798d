"""The page on captures, from top to bottom: its commands, its figures, its plot."""

import csv
import shlex
import shutil

import numpy as np
import pytest
import tifffile

from napari_simmat.cli import main
from napari_simmat.engine.masks import iou
from napari_simmat.io.readers import read_image
from tests.test_readme import ROOT, blocks

pytestmark = pytest.mark.slow  # half a minute
PAGE = ROOT / "docs/captures.md"
LEAVES, FOUND, WRONG = 44, 44, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands of the page were run, but that which learns."""
    pytest.importorskip("SimpleITK")
    folder = tmp_path_factory.mktemp("captures")
    shutil.copytree(ROOT / "docs/tutorials/flight", folder / "flight")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NAPARI_SIMMAT_HOME", str(tmp_path_factory.mktemp("home")))
        commands = [
            shlex.split(line)[1:] for block in blocks(PAGE, "sh") for line in block.split("\n")
        ]
        for words in filter(None, commands):
            if words[0] != "train":
                assert main(words) == 0, words
    return folder


def test_page_registers_the_cameras(folder):
    for number in range(1, 5):
        image = read_image(folder / f"registered/IMG_{number:04}.tif")
        assert image.channel_names == ("blue", "green", "red", "nir", "rededge")


def test_page_finds_the_leaves(folder):
    found = wrong = leaves = 0
    for number in range(1, 5):
        name = f"IMG_{number:04}_labels.tif"
        truth = tifffile.imread(folder / "flight" / name)
        labels = tifffile.imread(folder / "leaves" / name)
        best = [
            max((iou(truth == leaf, labels == n) for n in np.unique(labels[truth == leaf]) if n),
                default=0.0)
            for leaf in range(1, truth.max() + 1)
        ]  # fmt: skip
        leaves += len(best)
        found += sum(each >= 0.75 for each in best)
        wrong += labels.max() - sum(each >= 0.5 for each in best)
    assert (leaves, found, wrong) == (LEAVES, FOUND, WRONG)
    assert f"Of the {LEAVES} leaves it finds {FOUND} at an IoU of .75, and two things" in (
        PAGE.read_text("utf-8")
    )


def test_page_measures_ndvi_of_each_leaf(folder):
    """Against numpy, from the registered file and the labels."""
    with open(folder / "leaves/simmat-objects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= FOUND
    for row in rows:
        stem = row["image"].removesuffix(".tif")
        labels = tifffile.imread(folder / f"leaves/{stem}_labels.tif")
        image = read_image(folder / f"registered/{stem}.tif")
        bands = dict(zip(image.channel_names, np.asarray(image.data, np.float64), strict=True))
        ndvi = (bands["nir"] - bands["red"]) / (bands["nir"] + bands["red"])
        inside = ndvi[labels == int(row["label"])]
        assert float(row["mean_ndvi"]) == pytest.approx(np.nanmean(inside), rel=1e-6)
        assert float(row["median_ndvi"]) == pytest.approx(np.nanmedian(inside), rel=1e-6)


def test_page_plots_the_leaves(folder, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg", force=True)
    monkeypatch.chdir(folder)
    [block] = blocks(PAGE, "py")
    exec(compile(block, PAGE.name, "exec"), {"__name__": "page"})
    assert (folder / "ndvi.png").stat().st_size > 1000
