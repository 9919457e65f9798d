import numpy as np
import pytest

from napari_simmat.engine.image_stack import ArraySource
from napari_simmat.engine.label_volume import MaskScore
from napari_simmat.engine.measuring import measured_image, part_measurements
from napari_simmat.engine.measuring.measured_image import MeasuredImage, column_names
from napari_simmat.engine.measuring.measurements import ObjectPixels, measure_objects
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.io.reference import ImageReference

VALUES = np.arange(4 * 2 * 3).reshape(4, 2, 3).astype(np.uint16)
NAMES = ("DAPI", "red", "nir", "red")


def measured(chosen, *indices, names=NAMES, values=VALUES):
    sources = [ArraySource.of(values, 0)]
    return MeasuredImage.of(sources, names, chosen, TableSettings(indices=indices), "a.tif")


def test_column_names_are_of_the_file_or_numbers_with_a_word():
    assert column_names(None, 2) == ["channel0", "channel1"]
    assert column_names(("450", "DAPI"), 2) == ["450", "DAPI"]
    assert column_names(("1", "0", "2"), 3) == ["1", "0", "2"], "not channel1 for the channel 0"
    assert column_names(None, 4, rgb=True) == ["red", "green", "blue", "alpha"]
    assert column_names(None, 3, rgb=True) == ["red", "green", "blue"]


def test_measured_image_reads_bands_after_the_channels():
    image = measured([0, 0, 2], "ratio=nir/DAPI")
    assert image.numbers == (0, 2)
    assert list(image.columns.channels) == ["DAPI", "nir"]
    other = measured([0], "ratio=nir/DAPI")
    assert other.numbers == (0, 2)
    assert list(other.columns.channels) == ["DAPI"]
    assert other.plane(()).tolist() == VALUES[[0, 2]].tolist()
    assert other.part((), slice(1), slice(1, 2)).tolist() == [[[1]], [[13]]]
    pixels = ObjectPixels(np.array([[2, 4], [8, 8]]), places=np.array([[0, 0], [0, 1]]))
    assert other.columns.measure(pixels)["mean_ratio"] == 3


def test_measured_image_tells_channels_of_one_name_apart():
    assert list(measured([1, 3]).columns.channels) == ["red_1", "red_3"]
    assert list(measured([3]).columns.channels) == ["red"]


@pytest.mark.parametrize("parts", [[VALUES[:1], VALUES[1:]], [*VALUES[:, None]]])
def test_measured_image_of_several_arrays_is_that_of_one(parts):
    whole = measured([2, 0], "ratio=red/DAPI", names=("DAPI", "red", "nir", "far"))
    sources = [ArraySource.of(part, 0) for part in parts]
    names, table = ("DAPI", "red", "nir", "far"), TableSettings(indices=("ratio=red/DAPI",))
    image = MeasuredImage.of(sources, names, [2, 0], table, "a.tif")
    assert image.numbers == whole.numbers == (2, 0, 1)
    assert image.columns == whole.columns
    assert image.plane(()).tolist() == whole.plane(()).tolist()


@pytest.mark.parametrize("large", [0, 1 << 28])
def test_measured_image_of_any_size_has_the_same_table(large, monkeypatch):
    monkeypatch.setattr(measured_image, "LARGE", large)
    monkeypatch.setattr(part_measurements, "PART_SIDE", 16)
    labels = np.kron(np.arange(12).reshape(3, 4) % 7, np.ones((9, 9), int)).astype(np.uint32)
    labels[:, 20:] += (labels[:, 20:] > 0) * np.uint32(2**31)
    values = np.random.default_rng(0).normal(size=(2, *labels.shape))
    image = MeasuredImage.of(
        [ArraySource.of(values, 0)], ("a", "b"), [1], TableSettings(indices=("r=a/b",)), "a.tif"
    )
    masks = [MaskScore(3, 0.5), MaskScore(1, 0.25), MaskScore(1, 0.75)]
    rows = image.measure(labels, "YX", ImageReference(), masks, parents=labels // 2)
    expected = measure_objects(
        labels,
        axes="YX",
        channels=image.columns,
        plane=image.plane,
        masks=masks,
        parents=labels // 2,
    )
    assert [row["score"] for row in rows][:3:2] == [0.5, 0.5]
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        assert list(row) == list(wanted)
        assert [str(each) for each in row.values()] == [str(each) for each in wanted.values()]


def test_measured_image_says_what_it_took_and_what_is_scaled():
    names = ("B2", "B4", "B8", "B8A")
    assert measured([0], "ndvi", names=names).notes == ("ndvi: nir is B8, red is B4.",)
    [_, scale] = measured([0], "savi", names=names).notes
    assert "reflectances from 0 to 1, but a.tif holds whole numbers" in scale
    assert measured([0], "savi", names=("a", "red", "nir", "b"), values=VALUES / 1e4).notes == ()


def test_measured_image_refuses_a_band_that_is_not_there():
    with pytest.raises(ValueError, match="ndre needs rededge, which is not among"):
        measured([0], "ndre")
