"""The page on slides with its practice slide: its commands, the nuclei that it promises."""

import csv
import shlex
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat.cli import main
from tests.test_readme import ROOT, blocks

PAGE = ROOT / "docs/slides.md"
STAINED = ROOT / "docs/tutorials/stained.svs"
NUCLEI, IN_REGION, FOUND = 268, 47, 124


def run_steps(folder, monkeypatch, *numbers):
    """Run some of the commands under "From a slide to QuPath" on the practice slide."""
    shutil.copy(STAINED, folder / "slide.svs")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NAPARI_SIMMAT_HOME", str(folder / "home"))
    for number in numbers:
        assert main([*shlex.split(blocks(PAGE, "sh")[number])[1:], "--device", "cpu"]) == 0


def test_region_of_the_practice_slide_has_nuclei_to_count(tmp_path, monkeypatch):
    pytest.importorskip("imagecodecs")
    run_steps(tmp_path, monkeypatch, 1)
    with (tmp_path / "try/slide_objects.csv").open() as file:
        areas = [float(row["area_um2"]) for row in csv.DictReader(file)]
    assert len(areas) == pytest.approx(IN_REGION, abs=2)
    assert 60 < np.median(areas) < 150  # square micrometers, as the slide's pixels are said to be
    with Image.open(tmp_path / "try/slide_overlay.png") as picture:
        assert picture.size == (400, 300)
    assert f"these are {IN_REGION} nuclei" in " ".join(PAGE.read_text().split())


@pytest.mark.slow
def test_page_finds_the_nuclei_it_says(tmp_path, monkeypatch):
    run_steps(tmp_path, monkeypatch, 0, 2)
    truth = tifffile.imread(STAINED.with_name("stained_labels.tif"))
    labels = tifffile.imread(tmp_path / "results/slide_labels.tif")
    assert truth.shape == labels.shape
    edges = [np.arange(each.max() + 2) for each in (truth, labels)]
    shared = np.histogram2d(truth.ravel(), labels.ravel(), bins=edges)[0]
    either = shared.sum(0)[None] + shared.sum(1)[:, None] - shared
    found = (shared / np.maximum(either, 1))[1:, 1:] >= 0.5
    assert len(found) == NUCLEI
    assert found.any(1).sum() == pytest.approx(FOUND, abs=3)
    assert f"{NUCLEI} nuclei" in PAGE.read_text()
    assert f"Step 3 finds {FOUND} of them" in " ".join(PAGE.read_text().split())
