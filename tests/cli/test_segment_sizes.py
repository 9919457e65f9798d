"""Sizes and places that one affine, or one number, does not say: from files to labels and back."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_simmat.engine.files.prompt_csv import write_points_csv
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.readers import read_image
from tests.cli.conftest import names_in, segment
from tests.io.places import (
    CENTER,
    ORIGIN,
    SPACING,
    TURN,
    check_in_itk,
    check_nifti,
    check_seg_frames,
    make_itk_in,
    make_series,
    make_sheared_nifti,
    sheared,
)

BOX = SPACING[0] * SPACING[1] * SPACING[2]


@pytest.fixture
def click(tmp_path, simmat):
    """Segment the disc on some planes of an image; the command's output and the table's rows."""

    def run(image, *words, planes=((1,),)):
        prompts = [Prompt(points=[CENTER], object=3)]
        write_points_csv(tmp_path / "p.csv", [replace(prompts[0], plane=each) for each in planes])
        out = tmp_path / "out"
        given = {"image": image, "prompts": tmp_path / "p.csv", "output": out}
        result = simmat(*segment(*words, **given))
        assert result.status == 0, result.err
        [table] = out.glob("*_objects.csv")
        with table.open(newline="") as stream:
            return result, list(csv.DictReader(stream))

    return run


def test_segment_series_with_missing_slices(tmp_path, click):
    pytest.importorskip("highdicom")
    image = make_series(tmp_path, (0, 1, 2, 6, 7))
    result, [row] = click(image, "--seg", planes=((2,), (3,)))
    assert "Slices lie 3 to 12 mm apart, so some may be missing" in result.err
    assert "Its labels are written as OME-TIFF, which keeps no place" in result.err
    assert "series_labels.nii.gz" not in names_in(tmp_path / "out")
    with tifffile.TiffFile(tmp_path / "out" / "series_labels.tif") as written:
        assert written.series[0].shape == (5, 64, 72)
        assert "PhysicalSizeZ" not in written.ome_metadata
    assert not {name for name in row if name.startswith(("volume_mm", "centroid_z_mm"))}
    check_seg_frames(image, tmp_path / "out" / "series_seg.dcm", (2, 3))


def test_segment_series_behind_a_tilted_gantry(tmp_path, click):
    nibabel = pytest.importorskip("nibabel")
    image = make_series(tmp_path, range(4), lean=20)
    result, [row] = click(image)
    assert "Its slices lean by 20.0 degrees over their stack (gantry tilt)" in result.err
    assert float(row["volume_mm3"]) == pytest.approx(int(row["volume_voxels"]) * BOX)
    affine = nibabel.load(tmp_path / "out" / "series_labels.nii.gz").affine
    through = SPACING[2] * (TURN[:, 2] + np.tan(np.radians(20)) * TURN[:, 1])
    there = np.multiply(ORIGIN + through, (-1, -1, 1))  # the slice 1 in NIfTI's axes
    np.testing.assert_allclose((affine @ [0, 0, 1, 1])[:3], there, atol=1e-4)


def test_segment_volume_is_of_the_sform(tmp_path, click):
    image = make_sheared_nifti(tmp_path)
    result, [row] = click(image)
    assert "Readers differ by up to" in result.err
    volume = abs(np.linalg.det(sheared()[:3, :3]))
    assert float(row["volume_mm3"]) == pytest.approx(int(row["volume_voxels"]) * volume, rel=1e-5)
    assert volume == pytest.approx(BOX), "a shear keeps volumes"
    check_nifti(image, tmp_path / "out" / "sheared_labels.nii.gz")


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        *(("scan.nrrd", unit) for unit in ("um", "mm", "microns", "cm")),
        *(("scan.mha", unit) for unit in ("um", "mm", "cm")),
    ],
)
def test_segment_nrrd_and_mha_in_their_own_unit(tmp_path, click, name, unit):
    image, ours = make_itk_in(tmp_path, name, unit), "um" if unit == "microns" else unit
    _, [row] = click(image)
    assert float(row[f"volume_{ours}3"]) == pytest.approx(int(row["volume_voxels"]) * BOX)
    labels = tmp_path / "out" / name.replace(".", "_labels.")
    check_in_itk(image, labels)
    again = read_image(labels)
    assert (again.world.unit, set(again.units.values())) == (ours, {ours})


def test_segment_nrrd_in_an_unknown_unit_has_no_volume(tmp_path, click):
    image = make_itk_in(tmp_path, "scan.nrrd", "furlong")
    result, [row] = click(image)
    assert "Its unit of length, furlong, is not known here" in result.err
    assert not [name for name in row if name.startswith("volume_") and name != "volume_voxels"]
    check_in_itk(image, tmp_path / "out" / "scan_labels.nrrd")


@pytest.mark.parametrize(
    ("kind", "most", "model"),
    [
        (np.uint8, 250, "vit_b_histopathology"),
        (np.uint16, 250, "vit_b_lm"),
        (np.uint8, 60, "vit_b_lm"),
    ],
)
def test_three_stains_are_no_stained_slide(tmp_path, monkeypatch, simmat, kind, most, model):
    """Those of 16 bits, and a picture of them, which has a dark ground."""
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).integers(0, most, (64, 64, 3)).astype(kind)
    tifffile.imwrite(
        "stained.ome.tif",
        values,
        photometric="rgb",
        metadata={"axes": "YXS", "PhysicalSizeX": 0.3, "PhysicalSizeXUnit": "µm"},
    )
    result = simmat("segment", "stained.ome.tif", "--output", "out")
    assert f"simmat models fetch {model}`" in result.out + result.err
