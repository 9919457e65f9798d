import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_simmat.batch.inputs import find_inputs
from napari_simmat.io import memory
from napari_simmat.io.dicom import (
    MORE_FRAMES,
    OTHER_PIXELS,
    REGION_ALONE,
    REGION_BEYOND,
    SEVERAL_REGIONS,
    UNEVEN,
    UNEVEN_TIMES,
    images_in,
    one_per_series,
)
from napari_simmat.io.readers import read_image, read_labels, stem_of

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("pydicom.data")

VOLUME = np.random.default_rng(0).integers(0, 1000, (4, 6, 8)).astype(np.uint16)  # Z, Y, X


def write_slice(
    path: Path,
    pixels: np.ndarray,
    number: int = 1,
    series: str = "1.2.3",
    packed: bool = False,
    **more: Any,
):
    path.parent.mkdir(parents=True, exist_ok=True)
    slice_ = pydicom.Dataset()
    slice_.PatientName, slice_.PatientID = "Doe^Jane", "4711"
    slice_.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"  # MR
    slice_.SOPInstanceUID = f"{series}.{number}.{more.pop('time', 0)}"
    slice_.SeriesInstanceUID, slice_.InstanceNumber = series, number
    slice_.Rows, slice_.Columns = pixels.shape[-2:]
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated = slice_.BitsStored = 16
    slice_.HighBit, slice_.PixelRepresentation = 15, 0
    slice_.PixelSpacing = [0.5, 0.25]  # between rows, between columns
    slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    slice_.ImagePositionPatient = [0, 0, 3.0 * number]
    for name, value in more.items():
        setattr(slice_, name, value)
    slice_.PixelData = pixels.tobytes()
    slice_.file_meta = pydicom.dataset.FileMetaDataset()
    slice_.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    if packed:
        slice_.compress(pydicom.uid.RLELossless)
        slice_.NumberOfFrames = more.get("NumberOfFrames", 1)
    slice_.save_as(path, enforce_file_format=True)


@pytest.fixture
def series(tmp_path):
    """Four slices, whose names are in another order than their positions."""
    for z, plane in enumerate(VOLUME):
        write_slice(tmp_path / "head.1" / f"{9 - z}.dcm", plane, z + 1)
    (tmp_path / "head.1" / "notes.txt").write_text("not DICOM")
    return tmp_path / "head.1"


def test_dicom_series_is_stacked_by_position(series):
    image = read_image(series)
    np.testing.assert_array_equal(image.data, VOLUME)
    assert image.axes == "ZYX"
    assert image.scale == {"Z": 3.0, "Y": 0.5, "X": 0.25}
    assert set(image.units.values()) == {"mm"}
    assert images_in(series) == [series]
    assert stem_of(series) == "head.1"


def test_dicom_file_stands_for_its_series(series):
    write_slice(series / "other.dcm", VOLUME[0] + 1, series="1.2.4")
    np.testing.assert_array_equal(read_image(series / "7.dcm").data, VOLUME)
    np.testing.assert_array_equal(read_image(series / "other.dcm").data, VOLUME[0] + 1)
    assert images_in(series) == [series / "6.dcm", series / "other.dcm"]
    with pytest.raises(ValueError, match="holds 2 DICOM series; give a folder with one"):
        read_image(series)


def test_one_per_series_keeps_the_first_slice(series, tmp_path):
    """As a shell makes of ``series/*.dcm``: else each slice would be the whole stack again."""
    write_slice(series / "other.dcm", VOLUME[0] + 1, series="1.2.4")
    film = series / "film.dcm"
    write_slice(film, VOLUME, NumberOfFrames=4)
    beside = tmp_path / "a.tif"
    tifffile.imwrite(beside, VOLUME[0])
    slices = [series / f"{name}.dcm" for name in (8, 7, "other", 6)]
    taken = [beside, slices[0], slices[2], film]
    assert one_per_series([beside, *slices, film]) == taken
    assert [one.image for one in find_inputs([beside, *slices, film]).images] == taken
    matched = find_inputs([series / "*.dcm"]).images
    assert [one.image.name for one in matched] == ["6.dcm", "film.dcm", "other.dcm"]
    # That it is given twice is said elsewhere.
    assert one_per_series([slices[1]] * 2) == [slices[1]] * 2


def test_dicom_frames_of_a_file_are_planes(tmp_path):
    more = {"NumberOfFrames": 4, "SpacingBetweenSlices": 1.5}
    write_slice(tmp_path / "a.dcm", VOLUME, **more)
    image = read_image(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image.data, VOLUME)
    assert image.scale["Z"] == 1.5


def test_dicom_file_of_several_frames_is_an_image(tmp_path):
    """An ultrasound's series holds films and pictures side by side."""
    for name, planes in (("1", VOLUME), ("2", VOLUME[:2] + 1)):
        write_slice(tmp_path / name, planes, NumberOfFrames=len(planes))
    write_slice(tmp_path / "3", VOLUME[0] + 2)
    assert images_in(tmp_path) == [tmp_path / "1", tmp_path / "2", tmp_path / "3"]
    np.testing.assert_array_equal(read_image(tmp_path / "1").data, VOLUME)
    np.testing.assert_array_equal(read_image(tmp_path / "2").data, VOLUME[:2] + 1)
    np.testing.assert_array_equal(read_image(tmp_path / "3").data, VOLUME[0] + 2)


def item(**values: Any) -> Any:
    """A sequence of one item."""
    dataset = pydicom.Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return pydicom.Sequence([dataset])


def test_dicom_enhanced_frames_keep_order_scale_and_size(tmp_path):
    """Such files, of several slices at several times, say what they are of all or of each frame."""
    frames = [(z, time) for time in range(2) for z in (2, 0, 1)]  # two times, slices interleaved
    per_frame = [
        item(
            PlanePositionSequence=item(ImagePositionPatient=[0, 0, 3.0 * z]),
            PixelValueTransformationSequence=item(RescaleSlope=1 + time, RescaleIntercept=-5),
        )[0]
        for z, time in frames
    ]
    shared = item(
        PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelMeasuresSequence=item(PixelSpacing=[0.5, 0.25], SliceThickness=4),
    )
    write_slice(
        tmp_path / "a.dcm",
        np.stack([VOLUME[z] for z, _ in frames]),
        NumberOfFrames=6,
        SharedFunctionalGroupsSequence=shared,
        PerFrameFunctionalGroupsSequence=pydicom.Sequence(per_frame),
        **dict.fromkeys(["PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"]),
    )
    image = read_image(tmp_path)
    values = VOLUME[:3].astype(np.float32)
    assert image.axes == "TZYX"
    np.testing.assert_array_equal(image.data, np.stack([values - 5, 2 * values - 5]))
    assert image.scale == {"Z": 3.0, "Y": 0.5, "X": 0.25}


@pytest.mark.parametrize(
    ("tags", "shown"),
    [
        ({"WindowCenter": 60, "WindowWidth": 360}, (-120, 240)),
        ({"WindowCenter": [40, 300], "WindowWidth": [400, 2000]}, (-160, 240)),
        ({"WindowCenter": 60, "WindowWidth": 0}, None),
        ({"WindowCenter": 60}, None),
        ({"WindowCenter": 60, "WindowWidth": 9, "PhotometricInterpretation": "MONOCHROME1"}, None),
    ],
)
def test_dicom_window_is_what_is_shown(tmp_path, tags, shown):
    for z, plane in enumerate(VOLUME):
        write_slice(tmp_path / f"{z}.dcm", plane, z, RescaleIntercept=-1024, RescaleSlope=1, **tags)
    image = read_image(tmp_path)
    assert image.shown == shown
    if "PhotometricInterpretation" not in tags:
        np.testing.assert_array_equal(image.data, VOLUME - 1024.0)


def test_dicom_window_of_a_frame_goes_first(tmp_path):
    of_all = item(FrameVOILUTSequence=item(WindowCenter=5, WindowWidth=2))
    of_each = [item(FrameVOILUTSequence=item(WindowCenter=z, WindowWidth=10))[0] for z in range(4)]
    for name, frames, shown in (("all", [], (4, 6)), ("each", of_each, (-3, 7))):
        write_slice(
            tmp_path / name / "a.dcm",
            VOLUME,
            NumberOfFrames=4,
            SharedFunctionalGroupsSequence=of_all,
            PerFrameFunctionalGroupsSequence=pydicom.Sequence(frames),
        )
        assert read_image(tmp_path / name).shown == shown


def test_dicom_slices_at_one_position_become_time(tmp_path):
    for time in range(2):
        for z in range(3):
            position = {"ImagePositionPatient": [0, 0, 3.0 * z], "time": time}
            number = 1 + z + 3 * time
            write_slice(tmp_path / f"{time}{z}", VOLUME[z] + time, number, **position)
    image = read_image(tmp_path)
    assert image.axes == "TZYX"
    np.testing.assert_array_equal(image.data, np.stack([VOLUME[:3], VOLUME[:3] + 1]))


def test_dicom_image_holds_no_patient_data(series):
    image = read_image(series)
    assert "Doe" not in repr(image)
    assert "4711" not in repr(image)


def test_dicom_bad_series_is_refused(series):
    write_slice(series / "x.dcm", VOLUME[0, :3], 9)
    with pytest.raises(ValueError, match=r"mixes images \(3 x 8, 6 x 8\)"):
        read_image(series)
    (series / "x.dcm").unlink()
    (series / "9.dcm").write_bytes((series / "9.dcm").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"could not be read"):
        read_image(series)


def test_dicom_larger_than_memory_is_refused(tmp_path, monkeypatch):
    write_slice(tmp_path / "a.dcm", VOLUME, NumberOfFrames=4)
    monkeypatch.setattr(memory, "available_memory", lambda: 100)
    with pytest.raises(ValueError, match="of memory unpacked"):
        read_image(tmp_path / "a.dcm")


def test_dicom_large_series_is_lazy(series):
    image = read_image(series, lazy_above=0)
    assert not isinstance(image.data, np.ndarray)
    assert (image.data.shape, image.data.dtype, image.axes) == (VOLUME.shape, VOLUME.dtype, "ZYX")
    (series / "7.dcm").unlink()  # the third plane
    np.testing.assert_array_equal(image.data[1], VOLUME[1])
    with pytest.raises(ValueError, match=r"^7\.dcm could not be read"):
        np.asarray(image.data[2])


def test_dicom_lazy_planes_equal_eager_ones(tmp_path):
    for time, z in np.ndindex(2, 3):
        more = {"ImagePositionPatient": [0, 0, 3.0 * z], "time": time, "RescaleIntercept": -z}
        write_slice(tmp_path / "times" / f"{time}{z}", VOLUME[z] + time, 1 + z + 3 * time, **more)
    write_slice(tmp_path / "film.dcm", VOLUME, NumberOfFrames=4)
    colors = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "Rows": 2, "Columns": 3}
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    write_slice(tmp_path / "skin.dcm", pixels, series="1.2.4", **colors, **bits)
    for name in ("times", "film.dcm", "skin.dcm"):
        lazy, whole = read_image(tmp_path / name, lazy_above=0), read_image(tmp_path / name)
        assert not isinstance(lazy.data, np.ndarray)
        assert (lazy.data.dtype, lazy.axes) == (whole.data.dtype, whole.axes)
        np.testing.assert_array_equal(np.asarray(lazy.data), whole.data)


@pytest.mark.parametrize(
    ("number", "changed", "note", "step"),
    [
        (4, {"ImagePositionPatient": [0, 0, 15.0]}, UNEVEN.format(3, 6), 3),
        (2, {"PixelSpacing": [0.5, 0.5]}, OTHER_PIXELS.format(0.5, 0.25), 3),
        (4, {"ImagePositionPatient": [0, 0, 12.04]}, "", 9.04 / 3),  # the mean
    ],
)
def test_dicom_slices_that_differ_in_geometry_are_noted(series, number, changed, note, step):
    write_slice(series / f"{10 - number}.dcm", VOLUME[number - 1], number, **changed)
    image = read_image(series)
    assert image.notes == ((note,) if note else ())
    assert image.scale == {"Z": pytest.approx(step), "Y": 0.5, "X": 0.25}


@pytest.mark.parametrize("lazy_above", [0, 10**9])
@pytest.mark.parametrize("signed", [0, 1])
def test_dicom_where_0_is_white_is_inverted(tmp_path, signed, lazy_above):
    """As ITK reads it, before values are rescaled."""
    more = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed, "RescaleIntercept": "5"}
    values = VOLUME[0].astype(np.int16) - 500 * signed
    more["PhotometricInterpretation"] = "MONOCHROME1"
    write_slice(tmp_path / "a.dcm", values.astype(np.int16), **more)
    image = read_image(tmp_path / "a.dcm", lazy_above=lazy_above)
    highest = -1 if signed else 4095
    np.testing.assert_array_equal(np.asarray(image.data), highest - values.astype(float) + 5)


@pytest.mark.parametrize("lazy_above", [0, 10**9])
def test_dicom_palette_gives_colors_and_labels_its_indices(tmp_path, lazy_above):
    table = np.random.default_rng(1).integers(0, 256, (3, 1000)).astype(np.uint8)
    more: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for color, values in zip(("Red", "Green", "Blue"), table, strict=True):
        more[f"{color}PaletteColorLookupTableDescriptor"] = [1000, 0, 8]
        more[f"{color}PaletteColorLookupTableData"] = values.tobytes()
    write_slice(tmp_path / "a.dcm", VOLUME[0], **more)
    image = read_image(tmp_path / "a.dcm", lazy_above=lazy_above)
    assert (image.axes, image.rgb, image.data.dtype) == ("YXS", True, np.uint8)
    np.testing.assert_array_equal(np.asarray(image.data), np.moveaxis(table[:, VOLUME[0]], 0, -1))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.dcm").data, VOLUME[0])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("frames", [1, 3])
def test_dicom_frames_beyond_the_header_are_noted(tmp_path, frames, packed):
    write_slice(tmp_path / "a.dcm", VOLUME, packed=packed, NumberOfFrames=4)
    file = pydicom.dcmread(tmp_path / "a.dcm")
    file.NumberOfFrames = frames
    file.save_as(tmp_path / "a.dcm")
    image = read_image(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image.data, VOLUME[:frames] if frames > 1 else VOLUME[0])
    assert image.notes == (MORE_FRAMES.format("a.dcm", 4, frames),)


UNPLACED = {"PixelSpacing": None, "ImagePositionPatient": None, "ImageOrientationPatient": None}


def ultrasound_region(delta: float = 0.02, bounds=(0, 0, 5, 7), **more: Any):
    """A 2D region (PS3.3 C.8.5.5) with pixels of `delta` cm; bounds are y0, x0, y1, x1."""
    region = pydicom.Dataset()
    region.RegionSpatialFormat, region.RegionDataType = 1, 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = delta
    for axis, at in zip(("MinY0", "MinX0", "MaxY1", "MaxX1"), bounds, strict=True):
        setattr(region, f"RegionLocation{axis}", at)
    for name, value in more.items():
        setattr(region, name, value)
    return region


def write_cine(path: Path, **more: Any) -> None:
    about = {"NumberOfFrames": 4, "Modality": "US", **UNPLACED, **more}
    write_slice(path, VOLUME, **about)


def test_frames_of_a_film_follow_each_other_in_time(tmp_path):
    write_cine(tmp_path / "cine.dcm", FrameTime="40")
    image = read_image(tmp_path / "cine.dcm")
    assert image.axes == "TYX"
    assert image.scale == {"T": 0.04}
    assert image.units == {"T": "s"}
    np.testing.assert_array_equal(image.data, VOLUME)


@pytest.mark.parametrize(
    ("vector", "scale", "notes"),
    [
        ([0, 20, 20, 20], {"T": 0.02}, ()),
        ([0, 20, 20, 80], {}, (UNEVEN_TIMES.format(0.02, 0.08),)),
    ],
)
def test_film_with_a_time_for_each_frame(tmp_path, vector, scale, notes):
    write_cine(tmp_path / "cine.dcm", FrameTimeVector=vector)
    image = read_image(tmp_path / "cine.dcm")
    assert image.axes == "TYX"
    assert image.scale == scale
    assert image.notes == notes


@pytest.mark.parametrize(("modality", "axes"), [("US", "TYX"), ("XA", "TYX"), ("OT", "ZYX")])
def test_frames_without_a_time_are_a_film_by_modality(tmp_path, modality, axes):
    write_cine(tmp_path / "a.dcm", Modality=modality)
    image = read_image(tmp_path / "a.dcm")
    assert image.axes == axes
    assert image.scale == {}


def copied(name: str, folder: Path) -> Path:
    """A test file of pydicom, alone in a folder."""
    source = pydicom.data.get_testdata_file(name, download=False)
    return Path(shutil.copy(source, folder))


def test_packaged_cine_of_pydicom_is_time_without_a_size(tmp_path):
    """Its region exceeds the picture, which somebody made smaller."""
    path = copied("examples_ybr_color.dcm", tmp_path)
    image = read_image(path)
    head = pydicom.dcmread(path)
    assert image.axes == "TYXS"
    assert image.shape == (head.NumberOfFrames, head.Rows, head.Columns)
    assert image.scale == {"T": pytest.approx(float(head.FrameTime) / 1e3)}
    region = head.SequenceOfUltrasoundRegions[0]
    ends = region.RegionLocationMaxY1, region.RegionLocationMaxX1
    assert image.notes == (REGION_BEYOND.format(*ends, head.Rows, head.Columns),)


def test_ultrasound_region_gives_the_pixel_size(tmp_path):
    write_cine(
        tmp_path / "cine.dcm", FrameTime="40", SequenceOfUltrasoundRegions=[ultrasound_region()]
    )
    image = read_image(tmp_path / "cine.dcm")
    assert image.scale == pytest.approx({"Y": 0.2, "X": 0.2, "T": 0.04})
    assert image.units == {"Y": "mm", "X": "mm", "T": "s"}
    assert image.notes == ()


@pytest.mark.parametrize(
    ("regions", "size", "note"),
    [
        ([{"bounds": (1, 2, 5, 7)}], 0.2, REGION_ALONE.format(0.2, 0.2, 1, 5, 2, 7)),
        ([{"bounds": (0, 0, 9, 7)}], None, REGION_BEYOND.format(9, 7, 6, 8)),
        ([{}, {"delta": 0.03}], None, SEVERAL_REGIONS.format(2)),
        ([{}, {"RegionSpatialFormat": 3, "delta": 0.5}], 0.2, None),  # spectral: no picture
        ([{"PhysicalUnitsYDirection": 4}], None, None),  # an M-mode counts seconds along an axis
    ],
)
def test_ultrasound_region_that_does_not_hold_everywhere(tmp_path, regions, size, note):
    made = [ultrasound_region(**each) for each in regions]
    write_slice(
        tmp_path / "a.dcm", VOLUME[0], Modality="US", SequenceOfUltrasoundRegions=made, **UNPLACED
    )
    image = read_image(tmp_path / "a.dcm")
    assert image.scale == ({} if size is None else pytest.approx({"Y": size, "X": size}))
    assert image.notes == (() if note is None else (note,))


@pytest.mark.parametrize("modality", ["US", "XC", "MG"])
def test_stills_of_a_series_are_images(tmp_path, modality):
    """Other sizes in the folder do not matter to one that is named."""
    for number, plane in enumerate(VOLUME[:3]):
        write_slice(tmp_path / f"{number}.dcm", plane, number, Modality=modality, **UNPLACED)
    write_slice(tmp_path / "3.dcm", VOLUME[3, :3], 3, Modality=modality, **UNPLACED)
    assert images_in(tmp_path) == [tmp_path / f"{number}.dcm" for number in range(4)]
    image = read_image(tmp_path / "1.dcm")
    assert image.axes == "YX"
    np.testing.assert_array_equal(image.data, VOLUME[1])


def test_slices_without_a_position_are_a_volume(tmp_path):
    for number, plane in enumerate(VOLUME):
        write_slice(
            tmp_path / f"{number}.dcm", plane, number, Modality="MR", ImagePositionPatient=None
        )
    assert read_image(tmp_path).axes == "ZYX"


def test_dicom_that_begins_as_a_tiff_is_dicom(tmp_path):
    path = tmp_path / "both.dcm"
    write_slice(path, VOLUME[0])
    tifffile.imwrite(tmp_path / "a.tif", VOLUME[0])
    preamble = (tmp_path / "a.tif").read_bytes()[:128]
    path.write_bytes(preamble + path.read_bytes()[128:])
    assert read_image(path).scale == {"Y": 0.5, "X": 0.25}


@pytest.mark.parametrize("name", ["SC_ybr_full_422_uncompressed", "examples_palette"])
def test_colors_are_those_that_pydicom_reads(tmp_path, name):
    path = copied(f"{name}.dcm", tmp_path)
    head = pydicom.dcmread(path)
    colors = pydicom.pixels.pixel_array(path)
    if name == "examples_palette":
        colors = (pydicom.pixels.apply_color_lut(colors, head) >> 8).astype(np.uint8)
    image = read_image(path)
    assert image.rgb
    read = image.data if image.data.dtype == np.uint8 else image.data >> 8
    np.testing.assert_array_equal(read, colors)


def test_segmented_palette_is_looked_up(tmp_path):
    """A discrete segment of two entries, then a line of two to the last (PS3.3 C.7.9.2)."""
    segments = np.array([0, 2, 0, 1000, 1, 2, 3000], "<u2").tobytes()
    tables = {}
    for color in ("Red", "Green", "Blue"):
        tables[f"{color}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        tables[f"Segmented{color}PaletteColorLookupTableData"] = segments
    pixels = np.array([[0, 1], [2, 3]], np.uint16)
    write_slice(tmp_path / "a.dcm", pixels, PhotometricInterpretation="PALETTE COLOR", **tables)
    image = read_image(tmp_path / "a.dcm")
    assert image.axes == "YXS"
    np.testing.assert_array_equal(image.data[..., 0], [[0, 1000], [2000, 3000]])
