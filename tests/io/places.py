"""Files of other programs that say where their pixels are, and how these programs read labels."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.io.test_dicom import write_slice

SPACING = (0.5, 0.75, 3.0)
"""Millimeters along x, y, z."""
ORIGIN = (-40.0, 25.5, 110.0)
TURN = Rotation.from_euler("xyz", (12, -20, 35), degrees=True).as_matrix()
"""Oblique: no axis of the voxels is one of the patient."""
CRS, LEFT, TOP, PIXEL = "EPSG:32633", 500_000.0, 5_300_000.0, 10.0
CENTER = (30, 33)
"""y, x of a bright disc."""


def plane() -> np.ndarray:
    """(64, 72) uint16 with a bright disc around `CENTER`."""
    y, x = np.indices((64, 72))
    disc = (y - CENTER[0]) ** 2 + (x - CENTER[1]) ** 2 <= 144
    noise = np.random.default_rng(0).normal(0, 20, disc.shape)
    return (500 + 900 * disc + noise).astype(np.uint16)


def volume() -> np.ndarray:
    """(Z, Y, X) of three planes."""
    return np.stack([plane()] * 3)


def oblique() -> np.ndarray:
    """(4, 4) from (x, y, z) to NIfTI's patient axes."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = TURN * SPACING, ORIGIN
    return affine


def make_nifti(folder: Path) -> Path:
    nibabel: Any = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(volume().T, None)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_qform(oblique(), 1)
    image.header.set_sform(oblique(), 3)
    path = folder / "scan.nii.gz"
    nibabel.save(image, path)
    return path


def make_with_itk(folder: Path, name: str) -> Path:
    sitk: Any = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(volume())
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection(TURN.ravel().tolist())
    sitk.WriteImage(image, str(folder / name))
    return folder / name


def make_series(folder: Path, steps: Sequence[float] = (0, 1, 2), lean: float = 0.0) -> Path:
    """A series whose slices lie so many times 3 mm from the first, with a disc on each.

    Behind a gantry that leans by `lean` degrees, each begins farther down than the one before.
    """
    pytest.importorskip("pydicom")
    through = SPACING[2] * (TURN[:, 2] + np.tan(np.radians(lean)) * TURN[:, 1])
    for number, step in enumerate(steps):
        write_slice(
            folder / "series" / f"{number}.dcm",
            plane(),
            number + 1,
            PixelSpacing=[SPACING[1], SPACING[0]],
            ImageOrientationPatient=[*TURN[:, 0], *TURN[:, 1]],
            ImagePositionPatient=[*(ORIGIN + step * through).round(6)],
            SliceThickness=SPACING[2],
            **dict.fromkeys(("StudyInstanceUID", "FrameOfReferenceUID"), "1.2.4"),
            **dict.fromkeys(("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"), ""),
            StudyDate="20200102",
            StudyTime="030405",
            Modality="MR",
        )
    return folder / "series"


def make_dicom(folder: Path) -> Path:
    return make_series(folder)


@contextmanager
def theirs():
    """Rasterio multiplies matrices in a way that its own library deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        yield


@theirs()
def make_geotiff(folder: Path, bands: int = 1, **more: Any) -> Path:
    rasterio: Any = pytest.importorskip("rasterio")
    path = folder / "map.tif"
    transform = rasterio.transform.from_origin(LEFT, TOP, PIXEL, PIXEL)
    names = more.pop("names", ())
    values = more.pop("values", np.stack([plane()] * bands))
    shape = dict(zip(("height", "width"), values.shape[-2:], strict=True))
    shape |= {"count": bands, "dtype": more.pop("dtype", "uint16")}
    with rasterio.open(path, "w", crs=CRS, transform=transform, **shape, **more) as file:
        file.write(values.astype(shape["dtype"]))
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
    return path


@theirs()
def make_masked(folder: Path, bands: int = 2, dtype: str = "uint16", **more: Any) -> Path:
    """A GeoTIFF whose first 20 rows are masked, as GDAL stores it."""
    rasterio: Any = pytest.importorskip("rasterio")
    path = make_geotiff(folder, bands, dtype=dtype, **more)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        mask = np.full(file.shape, 255, np.uint8)
        mask[:20] = 0
        file.write_mask(mask)
    return path


@theirs()
def make_map_in(folder: Path, name: str, crs: str, left: float) -> Path:
    rasterio: Any = pytest.importorskip("rasterio")
    transform = rasterio.transform.from_origin(left, TOP, PIXEL, PIXEL)
    shape = {"height": 64, "width": 72, "count": 1, "dtype": "uint16"}
    with rasterio.open(folder / name, "w", crs=crs, transform=transform, **shape) as file:
        file.write(plane()[None])
    return folder / name


def make_ome_tiff(folder: Path) -> Path:
    import tifffile

    path = folder / "cells.ome.tif"
    tifffile.imwrite(
        path,
        np.stack([plane()] * 3),
        photometric="minisblack",
        metadata={
            "axes": "CYX",
            "Name": "Slide 7, well B2",
            "Channel": {"Name": ["DAPI", "GFP", "Cy5"]},
            "PhysicalSizeX": 0.5,
            "PhysicalSizeY": 0.5,
        },
    )
    return path


def make_ome_zarr(path: Path, version: str) -> Path:
    """A stack of OME-Zarr 0.4, 0.5 or 0.6 that begins at (10, 200, -30) um."""
    import zarr

    steps = [
        {"type": "scale", "scale": [2.0, 0.5, 0.25]},
        {"type": "translation", "translation": [10.0, 200.0, -30.0]},
    ]
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    image: dict[str, Any] = {"axes": axes, "datasets": [{"path": "0"}]}
    if version == "0.6":
        ends = {"input": {"path": "0"}, "output": {"name": "physical"}}
        steps = [{"type": "sequence", "transformations": steps, **ends}]
        image = {"coordinateSystems": [{"name": "physical", "axes": axes}], **image}
        del image["axes"]
    image["datasets"][0]["coordinateTransformations"] = steps
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    known = {} if version == "0.4" else {"dimension_names": ("z", "y", "x")}
    group.create_array("0", data=volume(), **known)
    described = {"version": version, "multiscales": [image]}
    group.attrs.update({"multiscales": [image]} if version == "0.4" else {"ome": described})
    return path


def check_in_itk(image: Path, labels: Path) -> None:
    """Both lie at the same place in SimpleITK, which knows nothing of this program."""
    sitk: Any = pytest.importorskip("SimpleITK")
    if image.is_dir():
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(image))
        theirs = sitk.ReadImage(names)
    else:
        theirs = sitk.ReadImage(str(image))
    ours = sitk.ReadImage(str(labels))
    assert ours.GetSize() == theirs.GetSize()
    np.testing.assert_allclose(ours.GetOrigin(), theirs.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(ours.GetDirection(), theirs.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(ours.GetSpacing(), theirs.GetSpacing(), rtol=1e-6)


def check_nifti(image: Path, labels: Path) -> None:
    check_in_itk(image, labels)
    nibabel: Any = pytest.importorskip("nibabel")
    theirs, ours = nibabel.load(image), nibabel.load(labels)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-5)
    for code in ("sform_code", "qform_code"):
        assert int(ours.header[code]) == int(theirs.header[code]), code
    np.testing.assert_allclose(ours.get_qform(), theirs.get_qform(), atol=1e-5)
    assert ours.header.get_xyzt_units()[0] == theirs.header.get_xyzt_units()[0]


@theirs()
def check_geotiff(image: Path, labels: Path) -> None:
    rasterio: Any = pytest.importorskip("rasterio")
    with rasterio.open(image) as source, rasterio.open(labels) as ours:
        assert ours.crs.to_epsg() == source.crs.to_epsg() == 32633
        assert ours.transform == source.transform
        assert (ours.height, ours.width) == (source.height, source.width)


def check_ome_tiff(image: Path, labels: Path) -> None:
    ome_types: Any = pytest.importorskip("ome_types")
    theirs, ours = ome_types.from_tiff(image), ome_types.from_tiff(labels)
    assert ours.images[0].name == theirs.images[0].name == "Slide 7, well B2"
    assert ours.images[0].pixels.physical_size_x == 0.5
    [named] = ours.structured_annotations.map_annotations
    kept = {entry.k: entry.value for entry in named.value.ms}
    assert list(kept.values()) == ["DAPI", "GFP", "Cy5"]


def check_seg(image: Path, labels: Path) -> None:
    """The segments lie where SimpleITK sees the series, and are the patient's."""
    hd: Any = pytest.importorskip("highdicom")
    sitk: Any = pytest.importorskip("SimpleITK")
    series = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(image)))
    written = hd.seg.segread(labels)
    assert (str(written.PatientName), written.StudyInstanceUID) == ("Doe^Jane", "1.2.4")
    volume = written.get_volume(combine_segments=True)
    z = int(volume.array.any(axis=(1, 2)).argmax())
    inside = np.argwhere(volume.array[z]).mean(axis=0)
    np.testing.assert_allclose(inside, CENTER, atol=2)
    # From (z, y, x) to LPS, of any voxel.
    at = volume.affine @ [z, 5, 7, 1]
    there = [s - 1 for s in series.GetSize()][2]  # SimpleITK may begin at the other end
    ends = [series.TransformIndexToPhysicalPoint((7, 5, n)) for n in range(there + 1)]
    assert min(np.abs(np.subtract(at[:3], end)).max() for end in ends) < 1e-3


def check_seg_frames(image: Path, labels: Path, inside: Sequence[int]) -> None:
    """Each frame lies on the slice that it names as its source, of those in `inside`."""
    pydicom: Any = pytest.importorskip("pydicom")
    hd: Any = pytest.importorskip("highdicom")
    slices = {
        each.SOPInstanceUID: each for each in map(pydicom.dcmread, sorted(image.glob("*.dcm")))
    }
    written = hd.seg.segread(labels)
    named = []
    for frame in written.PerFrameFunctionalGroupsSequence:
        [derived] = frame.DerivationImageSequence
        [source] = derived.SourceImageSequence
        origin = slices[source.ReferencedSOPInstanceUID]
        at = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(at, origin.ImagePositionPatient, atol=1e-3)
        named.append(origin.InstanceNumber - 1)
    assert sorted(named) == sorted(inside)


def make_sheared_nifti(folder: Path, code: int = 1) -> Path:
    """A volume whose place is a sform of other sizes than the voxel sizes, and not a box."""
    nibabel: Any = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(volume().T, None)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_qform(np.diag([1, 1, 1, 1]), code)
    image.header.set_sform(sheared(), 2)
    path = folder / "sheared.nii.gz"
    nibabel.save(image, path)
    return path


def sheared() -> np.ndarray:
    """(4, 4) from (x, y, z) to NIfTI's patient axes: its planes slide along x."""
    affine = oblique()
    affine[:3, 2] += 0.8 * affine[:3, 0]
    return affine


def make_itk_in(folder: Path, name: str, unit: str) -> Path:
    """A volume whose sizes and place the file gives in a unit, as SimpleITK does not write NRRD."""
    sitk: Any = pytest.importorskip("SimpleITK")
    path = make_with_itk(folder, name)
    if path.suffix != ".nrrd":
        image = sitk.ReadImage(path)
        image.SetMetaData("ITK_VoxelUnits", unit)
        sitk.WriteImage(image, path)
        return path
    head, blank, stored = path.read_bytes().partition(b"\n\n")
    stated = " ".join([f'"{unit}"'] * 3)
    path.write_bytes(head + f"\nspace units: {stated}".encode() + blank + stored)
    return path


Maker = Callable[[Path], Path]
PLACES: dict[str, tuple[Maker, str, Callable[[Path, Path], None]]] = {
    "nifti": (make_nifti, "scan_labels.nii.gz", check_nifti),
    "nrrd": (lambda to: make_with_itk(to, "scan.nrrd"), "scan_labels.nrrd", check_in_itk),
    "mha": (lambda to: make_with_itk(to, "scan.mha"), "scan_labels.mha", check_in_itk),
    "mhd": (lambda to: make_with_itk(to, "scan.mhd"), "scan_labels.mha", check_in_itk),
    "dicom": (make_dicom, "series_labels.nii.gz", check_in_itk),
    "geotiff": (make_geotiff, "map_labels.tif", check_geotiff),
    "ome-tiff": (make_ome_tiff, "cells_labels.tif", check_ome_tiff),
}
"""By format: makes a file, the name of its labels, and what another program finds in these."""


def make_dicom_for_seg(folder: Path) -> Path:
    pytest.importorskip("highdicom")
    return make_dicom(folder)


SAVED = {**PLACES, "dicom-seg": (make_dicom_for_seg, "series_seg.dcm", check_seg)}
"""Also what is written beside the labels."""
