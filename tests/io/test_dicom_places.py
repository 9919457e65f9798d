"""Where the slices of a DICOM series lie: gaps, a tilted gantry, slices of several directions."""

import numpy as np
import pytest

from napari_simmat.io.dicom import OTHER_DIRECTIONS, TILTED, UNEVEN
from napari_simmat.io.dicom_seg import write_seg
from napari_simmat.io.itk import write_labels_itk
from napari_simmat.io.nifti import write_labels_nifti
from napari_simmat.io.readers import read_image
from napari_simmat.io.reference import LPS
from tests.io.places import ORIGIN, SPACING, TURN, check_seg_frames, make_series
from tests.io.test_dicom import write_slice

pydicom = pytest.importorskip("pydicom")
GAP = (0, 1, 2, 6, 7)
"""Slices of which three are missing in the middle."""


def labels_of(image):
    labels = np.zeros(image.shape, np.uint16)
    labels[:, 20:40, 20:45] = 4
    return labels


def test_dicom_with_missing_slices_keeps_each_slice_in_place(tmp_path):
    image = read_image(make_series(tmp_path, GAP))
    assert image.notes == (UNEVEN.format(3, 12),)
    for z, step in enumerate(GAP):
        there = np.add(ORIGIN, step * SPACING[2] * TURN[:, 2])
        np.testing.assert_allclose(LPS[:3, :3] @ image.world.planes[z], there, atol=1e-5)
    assert image.scale["Z"] == pytest.approx(3)
    assert image.reference.of("Z") is None, "no distance holds for all"
    assert image.reference.voxel("ZYX") is None
    area, unit = image.reference.voxel("YX")
    assert (area, unit) == (pytest.approx(SPACING[0] * SPACING[1]), "mm")


def test_dicom_with_missing_slices_is_seg_and_not_nifti(tmp_path):
    pytest.importorskip("highdicom")
    folder = make_series(tmp_path, GAP)
    image = read_image(folder)
    write_seg(tmp_path / "a.dcm", labels_of(image), image.reference, {})
    check_seg_frames(folder, tmp_path / "a.dcm", range(5))
    for write in (write_labels_nifti, write_labels_itk):
        with pytest.raises(ValueError, match="planes of series do not lie at equal distances"):
            write(tmp_path / "a", labels_of(image), axes="ZYX", reference=image.reference)
    assert not (tmp_path / "a").exists()


def test_dicom_with_small_differences_of_distance_has_one_step(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = read_image(make_series(tmp_path, (0, 1, 2.01, 3)))
    assert image.notes == ()
    write_labels_nifti(
        tmp_path / "a.nii.gz", labels_of(image), axes="ZYX", reference=image.reference
    )
    written = nibabel.load(tmp_path / "a.nii.gz")
    steps = np.linalg.norm(written.affine[:3, :3], axis=0)
    np.testing.assert_allclose(written.header.get_zooms(), steps, rtol=1e-6)
    assert image.scale["Z"] == pytest.approx(steps[2])


def test_dicom_behind_a_tilted_gantry_says_that_readers_differ(tmp_path):
    nibabel, sitk = pytest.importorskip("nibabel"), pytest.importorskip("SimpleITK")
    folder = make_series(tmp_path, range(6), lean=20)
    image = read_image(folder)
    [note] = image.notes
    volume, unit = image.reference.voxel("ZYX")
    assert (volume, unit) == (pytest.approx(np.prod(SPACING)), "mm"), "not the longer step"
    write_labels_nifti(
        tmp_path / "a.nii.gz", labels_of(image), axes="ZYX", reference=image.reference
    )
    affine, theirs = (
        nibabel.load(tmp_path / "a.nii.gz").affine,
        sitk.ReadImage(tmp_path / "a.nii.gz"),
    )
    last = tuple(int(n) - 1 for n in theirs.GetSize())
    at = pydicom.dcmread(folder / "5.dcm").ImagePositionPatient
    rows, columns = TURN[:, 1] * SPACING[1], TURN[:, 0] * SPACING[0]
    corner = np.add(at, last[1] * rows + last[0] * columns)
    np.testing.assert_allclose((LPS @ affine @ [*last, 1])[:3], corner, atol=1e-4)
    corners = [tuple(np.multiply(last, each).tolist()) for each in np.ndindex(2, 2, 2)]
    apart = [
        np.linalg.norm((LPS @ affine @ [*each, 1])[:3] - theirs.TransformIndexToPhysicalPoint(each))
        for each in corners
    ]
    assert note == TILTED.format(20, max(apart))
    assert max(apart) > 3


def test_dicom_of_several_directions_has_no_place(tmp_path):
    folder = make_series(tmp_path)
    turned = pydicom.dcmread(folder / "1.dcm")
    turned.ImageOrientationPatient = [*TURN[:, 1], *TURN[:, 2]]
    turned.save_as(folder / "1.dcm")
    image = read_image(folder)
    assert image.world is None
    assert OTHER_DIRECTIONS in image.notes


@pytest.mark.parametrize(("value", "limit"), [(0, 30), (30, 0)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("lazy_above", [0, 2**28])
def test_dicom_padding_is_a_range(tmp_path, value, limit, photometric, lazy_above):
    pixels = np.arange(60, dtype=np.uint16).reshape(6, 10)
    tags = {"PixelPaddingValue": value, "PixelPaddingRangeLimit": limit}
    write_slice(
        tmp_path / "a.dcm",
        pixels,
        PhotometricInterpretation=photometric,
        RescaleSlope=2,
        RescaleIntercept=-100,
        **tags,
    )
    found = np.asarray(read_image(tmp_path / "a.dcm", lazy_above=lazy_above).data)
    np.testing.assert_array_equal(np.isnan(found), pixels <= 30)
