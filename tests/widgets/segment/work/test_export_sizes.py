"""Sizes and places that one affine, or one number, does not say, saved from the window."""

import csv

import numpy as np
import pytest
from npe2 import PluginManifest
from qtpy.QtWidgets import QFileDialog

from tests.io.places import (
    CENTER,
    SPACING,
    check_in_itk,
    check_nifti,
    check_seg_frames,
    make_itk_in,
    make_series,
    make_sheared_nifti,
    sheared,
)
from tests.nightly import nightly_but
from tests.widgets.segment.noted import save_as

BOX = SPACING[0] * SPACING[1] * SPACING[2]


@pytest.fixture(autouse=True)
def plugin(npe2pm):
    """napari knows the readers of this package."""
    with npe2pm.tmp_plugin(PluginManifest.from_distribution("napari-simmat")):
        yield


@pytest.fixture
def click_on(window):
    """Open a file with this package's reader, click on its disc on the plane 1, commit."""

    def run(path):
        [layer] = window.viewer.open([path], plugin="napari-simmat")
        window.start()
        world = np.asarray(layer.data_to_world((1, *CENTER)))
        window.viewer.dims.point = tuple(world)
        window.idle()
        window.add_object(*world[-2:])

    return run


@pytest.fixture
def save(window, tmp_path, monkeypatch):
    """Save under a name; the row of the table beside it, or the sentence that refuses."""

    def run(name):
        save_as(monkeypatch, tmp_path / name)
        window.tab.act("save")
        saved = f"Saved {name}"
        window.qtbot.waitUntil(
            lambda: window.status.text.startswith(saved) or window.status.kind == "failed"
        )
        if window.status.kind == "failed":
            return window.status.text
        [table] = tmp_path.glob("*_objects.csv")
        with table.open(newline="") as stream:
            [row] = csv.DictReader(stream)
        return row

    return run


def test_save_of_a_series_with_missing_slices(window, tmp_path, monkeypatch, click_on, save):
    pytest.importorskip("highdicom")
    image = make_series(tmp_path, (0, 1, 2, 6, 7))
    click_on(image)
    offered = []
    with monkeypatch.context() as patched:
        patched.setattr(
            QFileDialog, "getSaveFileName", lambda *given: offered.extend(given[2:]) or ("", "")
        )
        window.tab.act("save")
    assert offered[0] == str(tmp_path / "series_labels.tif")
    row = save("series_seg.dcm")
    check_seg_frames(image, tmp_path / "series_seg.dcm", (1,))
    assert "volume_mm3" not in row
    assert "planes of series do not lie at equal distances" in save("series_labels.nii.gz")
    assert not (tmp_path / "series_labels.nii.gz").exists()


def test_save_of_a_series_behind_a_tilted_gantry(tmp_path, click_on, save):
    nibabel = pytest.importorskip("nibabel")
    click_on(make_series(tmp_path, range(4), lean=20))
    row = save("series_labels.nii.gz")
    assert float(row["volume_mm3"]) == pytest.approx(int(row["volume_voxels"]) * BOX)
    affine = nibabel.load(tmp_path / "series_labels.nii.gz").affine
    assert abs(np.linalg.det(affine)) == pytest.approx(BOX, rel=1e-5)


@pytest.mark.slow
def test_save_of_a_sheared_sform(tmp_path, click_on, save):
    image = make_sheared_nifti(tmp_path)
    click_on(image)
    row = save("sheared_labels.nii.gz")
    volume = abs(np.linalg.det(sheared()[:3, :3]))
    assert float(row["volume_mm3"]) == pytest.approx(int(row["volume_voxels"]) * volume, rel=1e-5)
    check_nifti(image, tmp_path / "sheared_labels.nii.gz")


@pytest.mark.parametrize("ending", nightly_but(("nrrd", "mha"), "nrrd"))
def test_save_of_nrrd_and_mha_in_micrometers(tmp_path, click_on, save, ending):
    image = make_itk_in(tmp_path, f"scan.{ending}", "um")
    click_on(image)
    row = save(f"scan_labels.{ending}")
    assert float(row["volume_um3"]) == pytest.approx(int(row["volume_voxels"]) * BOX, rel=1e-5)
    check_in_itk(image, tmp_path / f"scan_labels.{ending}")
