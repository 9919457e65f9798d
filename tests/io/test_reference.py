"""What a file says about where its pixels are, and which of them are missing."""

import numpy as np
import pytest
import tifffile

from napari_simmat.io.itk import write_channels_itk
from napari_simmat.io.nifti import write_channels_nifti
from napari_simmat.io.readers import label_ending, read_image, read_labels
from napari_simmat.io.reference import ImageReference, World, resample_job
from napari_simmat.progress import finish
from tests.io.places import LEFT, PIXEL, SPACING, TOP, make_geotiff, oblique, plane, volume
from tests.io.test_dicom import write_slice


@pytest.mark.parametrize(
    ("dtype", "nodata", "seen"),
    [
        ("int16", -9999, "float32"),
        ("uint16", 0, "float32"),
        ("int32", -9999, "float64"),
        ("float32", -3.40282346638529e38, "float32"),
        ("float64", -9999.5, "float64"),
    ],
)
def test_pixels_without_data_are_nan(tmp_path, dtype, nodata, seen):
    values = plane().astype(dtype)
    values[:20] = nodata
    path = make_geotiff(tmp_path, values=values[None], dtype=dtype, nodata=nodata)
    for lazy_above in (2**28, 0):
        data = read_image(path, lazy_above=lazy_above).data
        assert data.dtype == seen
        found = np.asarray(data)
        assert np.isnan(found[:20]).all()
        np.testing.assert_array_equal(found[20:], values[20:])
    assert np.asarray(read_labels(path).data).dtype == dtype if dtype[0] in "iu" else True


@pytest.mark.parametrize("nodata", [-9999, 70_000, 0.5])
def test_value_that_no_pixel_can_have_changes_nothing(tmp_path, nodata):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, plane(), extratags=[(42113, 2, 0, f"{nodata}", True)])
    image = read_image(path)
    assert image.missing == nodata
    np.testing.assert_array_equal(image.data, plane())
    assert image.data.dtype == np.uint16


def test_photograph_without_data_stays_bytes_with_black(tmp_path):
    colors = np.full((3, 64, 72), 200, np.uint8)
    colors[:, :20] = 255
    path = make_geotiff(
        tmp_path, 3, values=colors, dtype="uint8", nodata=255, photometric="RGB", interleave="pixel"
    )
    image = read_image(path)
    assert (image.rgb, image.data.dtype) == (True, np.uint8)
    assert not image.data[:20].any()
    assert (image.data[20:] == 200).all()


@pytest.mark.parametrize(
    ("alpha", "names", "rgb"),
    [("YES", None, True), ("NO", tuple(f"band {n}" for n in (1, 2, 3, 4)), False)],
)
def test_four_bands_are_rgba_where_the_file_says_alpha(tmp_path, alpha, names, rgb):
    bands = {"photometric": "RGB", "interleave": "pixel", "ALPHA": alpha}
    path = make_geotiff(tmp_path, 4, dtype="uint8", values=np.ones((4, 64, 72)), **bands)
    image = read_image(path)
    assert (image.rgb, image.channel_names) == (rgb, names)


def test_bands_of_a_geotiff_keep_their_names(tmp_path):
    names = ("blue", "green", "red", "red edge", "nir", "swir")
    for interleave in ("pixel", "band"):
        path = make_geotiff(tmp_path, 6, names=names, interleave=interleave)
        assert read_image(path).channel_names == names


@pytest.mark.parametrize(
    ("ending", "write"), [(".nrrd", write_channels_itk), (".nii.gz", write_channels_nifti)]
)
def test_a_channel_without_a_name_takes_none_from_the_others(tmp_path, ending, write):
    planes = {name: volume() for name in ("T1", "", "2")}
    write(tmp_path / f"a{ending}", planes, axes="ZYX", reference=ImageReference())
    assert read_image(tmp_path / f"a{ending}").channel_names == ("T1", "channel1", "2")


def test_geotiff_is_placed_by_the_centers_of_its_pixels(tmp_path):
    image = read_image(make_geotiff(tmp_path))
    assert (image.world.space, image.world.epsg, image.affine) == ("map", 32633, None)
    first = image.world.affine @ (0, 0, 0, 1)
    np.testing.assert_allclose(first[:2], (LEFT + PIXEL / 2, TOP - PIXEL / 2))
    assert (dict(image.scale), set(image.units.values())) == ({"Y": PIXEL, "X": PIXEL}, {"m"})


def test_padding_of_dicom_is_missing(tmp_path):
    pytest.importorskip("pydicom")
    pixels = np.full((6, 8), 1000, np.uint16)
    pixels[:2] = 7
    write_slice(
        tmp_path / "a.dcm", pixels, PixelPaddingValue=7, RescaleSlope=2, RescaleIntercept=-100
    )
    found = np.asarray(read_image(tmp_path / "a.dcm").data)
    assert np.isnan(found[:2]).all()
    assert (found[2:] == 1900).all()


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.nii", ".nii.gz"), ("a.NII.GZ", ".nii.gz"), ("a.nrrd", ".nrrd"), ("a.nhdr", ".nrrd"),
        ("a.mha", ".mha"), ("a.mhd", ".mha"), ("a.tif", ".tif"), ("a.png", ".tif"),
    ],
)  # fmt: skip
def test_label_ending_is_of_a_format_that_keeps_the_place(tmp_path, name, ending):
    (tmp_path / name).write_bytes(b"")
    assert label_ending(tmp_path / name) == ending


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.mhd", "ElementDataFile = ../secret.raw", "keeps its voxels in ../secret.raw"),
        ("a.mhd", "ElementDataFile = LIST", "keeps its voxels in LIST"),
        ("a.nhdr", "NRRD0004\ndata file: /etc/passwd", "keeps its voxels in /etc/passwd"),
        ("a.nhdr", "NRRD0004\ndata file: none.raw", "keeps its voxels in none.raw"),
    ],
)
def test_voxels_outside_the_folder_are_refused(tmp_path, name, text, says):
    pytest.importorskip("SimpleITK")
    (tmp_path / name).write_text(f"{text}\n\n")
    with pytest.raises(ValueError, match=says):
        read_image(tmp_path / name)


def test_world_agrees_within_a_thousandth_of_a_voxel():
    world = World(affine=oblique(), space="patient")
    near, far = oblique(), oblique()
    near[:3, 3] += 1e-5
    far[:3, 3] += 0.4
    assert world.agrees(World(affine=near, space="patient"), (3, 64, 72))
    assert not world.agrees(World(affine=far, space="patient"), (3, 64, 72))
    assert not world.agrees(World(affine=near, space="map"), (3, 64, 72))


@pytest.mark.parametrize(
    ("linear", "volume"),
    [
        (np.diag([2.0, 3, 4]), 24),
        ([[2, 0, 8], [0, 3, 0], [0, 0, 4]], 24),  # sheared
        (np.diag([2, -3, 4]), 24),  # mirrored
        (oblique()[:3, :3], np.prod(SPACING)),
        ([[2, 0, 2], [0, 3, 0], [0, 0, 0]], 2 * 3 * 2),  # flat: sizes alone
    ],
)
def test_voxel_is_the_determinant_of_the_affine(linear, volume):
    affine = np.eye(4)
    affine[:3, :3] = linear
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    reference = ImageReference(
        scale=dict(zip("XYZ", sizes, strict=True)),
        units=dict.fromkeys("XYZ", "mm"),
        world=World(affine=affine, space="patient"),
    )
    assert reference.voxel("ZYX") == (pytest.approx(volume), "mm")
    assert abs(np.linalg.det(reference.edges("ZYX"))) == pytest.approx(volume)


@pytest.mark.parametrize("ndim", [2, 3])
def test_resample_finds_the_voxels_of_another_grid(ndim):
    data = volume()[0] if ndim == 2 else volume()
    finer = oblique() @ np.diag([0.5, 0.5, 1, 1])
    shape = (*data.shape[:-2], 127, 143)
    job = resample_job(
        data, World(affine=oblique(), space="patient"), World(affine=finer, space="patient"), shape
    )
    found = finish(job)
    np.testing.assert_allclose(found[..., ::2, ::2], data, rtol=1e-4)
    between = (data[..., :-1].astype(float) + data[..., 1:]) / 2
    np.testing.assert_allclose(found[..., ::2, 1::2], between, rtol=1e-4)


def test_reference_without_a_place_has_its_pixel_size():
    size = ImageReference(
        scale={"Z": 2.0, "Y": 500.0, "X": 250.0}, units=dict.fromkeys("ZYX", "um")
    )
    np.testing.assert_allclose(size.patient.affine, np.diag([0.25, 0.5, 0.002, 1]))


@pytest.mark.parametrize(
    ("axes", "view", "expected"),
    [
        ("LPS", (1, 0), "axial plane, R on the left, A at the top"),
        ("LPS", (2, 0), "coronal plane, R on the left, I at the top"),
        ("LPS", (2, 1), "sagittal plane, A on the left, I at the top"),
        ("RAS", (1, 0), "axial plane, L on the left, P at the top"),
        ("PIL", (1, 0), "sagittal plane, A on the left, S at the top"),
    ],
)
def test_plane_is_named_as_radiologists_do(axes, view, expected):
    nibabel = pytest.importorskip("nibabel")
    codes = nibabel.orientations.axcodes2ornt(tuple(axes))
    affine = np.zeros((4, 4))
    for voxel, (patient, sign) in enumerate(codes):
        affine[int(patient), voxel] = sign * 2.0
    affine[3, 3] = 1
    assert nibabel.aff2axcodes(affine) == tuple(axes)
    assert World(affine=affine, space="patient").plane_name(*view) == expected


def test_plane_of_oblique_slices_says_so(tmp_path):
    world = World(affine=oblique(), space="patient")
    assert world.plane_name().startswith("oblique axial plane, L on the left, P")
    assert World(affine=oblique(), space="map").plane_name() == ""


def test_meta_image_with_tags_of_dicom_and_free_fields_is_read(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    for key, value in (("0008|0005", "ISO_IR 100"), ("my key", "a = b")):
        image.SetMetaData(key, value)
    for name in ("a.mha", "a.mhd"):
        sitk.WriteImage(image, str(tmp_path / name))
    content = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "b.mha").write_bytes(content.replace(b"my key", b"Comment =\n\nmy key"))
    for name in ("a.mha", "a.mhd", "b.mha"):
        assert np.array_equal(read_image(tmp_path / name).data, sitk.GetArrayFromImage(image))
