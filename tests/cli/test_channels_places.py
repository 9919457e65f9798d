"""Derived and registered channels lie where their image lies, as other programs read them."""

import numpy as np
import pytest
import tifffile

from napari_simmat.engine.files.prompt_csv import write_points_csv
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.readers import read_image
from tests.cli.conftest import segment
from tests.io.places import (
    CENTER,
    PIXEL,
    check_geotiff,
    check_in_itk,
    make_dicom,
    make_geotiff,
    make_nifti,
    make_series,
    make_with_itk,
    oblique,
    plane,
    theirs,
    volume,
)

COMMANDS = {
    "derive": ("derive", "ndvi", "--channels", "red,nir"),
    "register": ("register", "--shifts", "0,0 2,-3"),
}


def run(simmat, name, image, output):
    command, *words = COMMANDS[name]
    kind, words = (words[:1], words[1:]) if name == "derive" else ([], words)
    return simmat("channels", command, image, *kind, *words, "--output", output)


@pytest.mark.parametrize("name", COMMANDS)
def test_channels_of_a_map_stay_on_it(tmp_path, simmat, name):
    rasterio = pytest.importorskip("rasterio")
    values = np.stack([plane(), 2 * plane()])
    image = make_geotiff(tmp_path, 2, values=values, names=("red", "nir"))
    output = tmp_path / "made.tif"
    assert run(simmat, name, image, output).status == 0
    check_geotiff(image, output)
    names = ("NDVI",) if name == "derive" else ("red", "nir")
    with theirs(), rasterio.open(output) as file:
        assert file.descriptions == names
        found = file.read()
    if name == "derive":
        np.testing.assert_allclose(found, np.full((1, 64, 72), 1 / 3), atol=1e-6)
    else:
        np.testing.assert_array_equal(found[0], values[0])
        np.testing.assert_array_equal(found[1, 2:, :-3], values[1, :-2, 3:])
    made = read_image(output)
    assert (made.scale, made.units) == ({"Y": PIXEL, "X": PIXEL}, {"Y": "m", "X": "m"})
    # And on to the polygons of a click.
    write_points_csv(tmp_path / "p.csv", [Prompt(points=[CENTER], object=3)])
    given = {"image": str(output), "prompts": str(tmp_path / "p.csv")}
    words = segment("--map", *(("--channels", "0,0,0")), output=str(tmp_path / "out"), **given)
    assert simmat(*words).status == 0
    check_geotiff(image, tmp_path / "out" / "made_labels.tif")
    assert (tmp_path / "out" / "made_map.geojson").is_file()


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("kind", ["nifti", "nrrd", "dicom"])
def test_channels_of_a_patient_stay_in_the_patient(tmp_path, simmat, kind, ending):
    sitk = pytest.importorskip("SimpleITK")
    make = {
        "nifti": make_nifti,
        "nrrd": lambda folder: make_with_itk(folder, "scan.nrrd"),
        "dicom": make_dicom,
    }[kind]
    image, output = make(tmp_path), tmp_path / f"windows{ending}"
    result = simmat("channels", "derive", image, "ct-windows", "--output", output)
    assert (result.status, result.err) == (0, "")
    check_in_itk(image, output)
    found = sitk.ReadImage(output)
    assert found.GetNumberOfComponentsPerPixel() == 3
    soft = np.clip((volume().astype(float) - 40) / 400 + 0.5, 0, 1)
    np.testing.assert_allclose(sitk.GetArrayFromImage(found)[..., 0], soft, atol=1e-6)
    made = read_image(output)
    assert (made.axes, made.shape) == ("CZYX" if ending == ".nii.gz" else made.axes, (3, 64, 72))
    assert made.channel_names == ("soft tissue", "lung", "bone")
    np.testing.assert_allclose(made.affine, read_image(image).affine, atol=1e-4)
    # And on to the labels of a click.
    write_points_csv(tmp_path / "p.csv", [Prompt(points=[CENTER], object=3, plane=(1,))])
    given = {"image": str(output), "prompts": str(tmp_path / "p.csv")}
    assert simmat(*segment(output=str(tmp_path / "out"), **given)).status == 0
    check_in_itk(image, tmp_path / "out" / f"windows_labels{ending}")


def test_channels_of_nifti_are_read_by_nibabel(tmp_path, simmat):
    nibabel = pytest.importorskip("nibabel")
    image, output = make_nifti(tmp_path), tmp_path / "windows.nii.gz"
    words = ("channels", "derive", image, "ct-windows", "--output", output)
    assert simmat(*words).status == 0
    found = nibabel.load(output)
    assert (found.shape, found.header.get_intent()[0]) == ((72, 64, 3, 1, 3), "vector")
    np.testing.assert_allclose(found.affine, oblique(), atol=1e-5)
    assert found.header.get_xyzt_units()[0] == "mm"
    assert (int(found.header["sform_code"]), int(found.header["qform_code"])) == (3, 1)
    first = output.read_bytes()
    assert simmat(*words, "--overwrite").status == 0
    assert output.read_bytes() == first


def test_channels_keep_the_size_of_pixels(tmp_path, simmat):
    known = {"axes": "CYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    image, output = tmp_path / "rig.ome.tif", tmp_path / "made.tif"
    tifffile.imwrite(
        image, np.stack([plane()] * 2), ome=True, metadata=known, photometric="minisblack"
    )
    words = ("channels", "register", image, "--shifts", "0,0 1,1", "--output", output)
    assert simmat(*words).status == 0
    made = read_image(output)
    assert (made.scale, made.units) == ({"X": 0.25, "Y": 0.5}, {"X": "um", "Y": "um"})
    ome_types = pytest.importorskip("ome_types")
    assert ome_types.from_tiff(output).images[0].pixels.physical_size_x == 0.25


@pytest.mark.parametrize(
    ("make", "name", "says"),
    [
        (make_nifti, "made.tif", "TIFF does not hold where the image lies in a patient"),
        (make_geotiff, "made.nrrd", "NRRD does not hold where the image lies in a map"),
    ],
)
def test_channels_whose_place_is_lost_say_so(tmp_path, simmat, make, name, says):
    image, output = make(tmp_path), tmp_path / name
    result = simmat("channels", "derive", image, "ct-windows", "--output", output)
    assert result.status == 0
    assert says in result.err
    assert output.is_file()


@pytest.mark.parametrize(
    ("make", "name", "says"),
    [
        (make_geotiff, "made.png", "made.png names no format of channels; end its name in one of"),
        (
            lambda folder: make_series(folder, (0, 1, 5)),
            "made.nii.gz",
            "planes of series do not lie at equal distances",
        ),
    ],
)
def test_channels_in_a_file_that_cannot_hold_them_are_refused(tmp_path, simmat, make, name, says):
    result = simmat("channels", "derive", make(tmp_path), "ct-windows", "--output", tmp_path / name)
    assert result.status == 1
    assert says in result.err
    assert not (tmp_path / name).exists()


def test_channels_of_uneven_slices_name_no_format_of_one_step(tmp_path, simmat):
    image, output = make_series(tmp_path, (0, 1, 5)), tmp_path / "made.tif"
    result = simmat("channels", "derive", image, "ct-windows", "--output", output)
    assert result.status == 0
    assert "TIFF does not hold where the image lies in a patient" in result.err
    assert ".nii.gz" not in result.err


def test_channels_register_refuses_shifts_beyond_the_image(tmp_path, simmat):
    image, output = make_geotiff(tmp_path, 2), tmp_path / "made.tif"
    words = ("channels", "register", image, "--shifts", "0,0 1e9,0", "--output", output)
    result = simmat(*words)
    assert result.status == 1
    assert "by 1e+09,0 pixels, so that nothing of it stays on the image of 64 x 72" in result.err
    assert not output.exists()
