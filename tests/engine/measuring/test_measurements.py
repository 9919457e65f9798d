import numpy as np
import pytest

from napari_simmat.engine.channels.indices import PlacedIndex, parse_index
from napari_simmat.engine.label_volume import MaskScore
from napari_simmat.engine.measuring.measurements import ValueColumns, measure_objects, table_columns
from napari_simmat.engine.measuring.part_measurements import measure_in_parts
from napari_simmat.io.reference import ImageReference
from tests.engine.test_label_volume import square

MICRONS = ImageReference(scale={"Z": 2.0, "Y": 0.5, "X": 0.25}, units=dict.fromkeys("ZYX", "um"))


def test_measure_objects_of_a_square_as_counted_by_hand():
    labels = np.zeros((8, 10), np.uint16)
    labels[2:4, 3:7] = 7
    first = np.arange(80, dtype=np.uint16).reshape(8, 10)
    values = np.stack([first, np.full((8, 10), 3)])
    [row] = measure_objects(
        labels,
        axes="YX",
        channels=("a", "b"),
        plane=lambda index: values[(slice(None), *index)],
        size=MICRONS,
        masks=[MaskScore(7, 0.75)],
    )
    wanted = {
        "label": 7,
        "class": "",
        "area_px": 8,
        "area_um2": 1.0,
        "centroid_y_px": 2.5,
        "centroid_x_px": 4.5,
        "centroid_y_um": 1.25,
        "centroid_x_um": 1.125,
        "bbox_y0_px": 2,
        "bbox_x0_px": 3,
        "bbox_y1_px": 4,
        "bbox_x1_px": 7,
        "mean_a": 29.5,
        "mean_b": 3.0,
        "median_a": 29.5,
        "median_b": 3.0,
        "std_b": 0.0,
        "sum_a": 236.0,
        "sum_b": 24.0,
        "p5_b": 3.0,
        "solidity": 1.0,
        "orientation_deg": 90.0,
        "score": 0.75,
    }
    assert {name: row[name] for name in wanted} == wanted
    assert row["std_a"] == pytest.approx((5**2 + 1.25) ** 0.5)  # two rows of 4, 10 apart
    assert (row["p5_a"], row["p95_a"]) == pytest.approx((23.35, 35.65))
    assert row["feret_max_px"] == pytest.approx(20**0.5)
    assert row["feret_max_um"] == pytest.approx(2**0.5)  # 4 pixels of 0.25, 2 of 0.5
    assert row["major_axis_px"] == pytest.approx(4 * 1.25**0.5)
    assert row["eccentricity"] == pytest.approx((1 - 0.0625 / 0.078125) ** 0.5)
    columns = table_columns("YX", ("a", "b"), MICRONS)
    assert sorted(columns) == sorted(row)
    assert columns[12:18] == ["mean_a", "mean_b", "median_a", "median_b", "std_a", "std_b"]
    ratios = ["eccentricity", "solidity", "orientation_deg", "circularity", "aspect_ratio"]
    assert columns[-6:] == [*ratios, "score"]
    assert row["aspect_ratio"] == pytest.approx((0.078125 / 0.0625) ** 0.5)
    assert row["equivalent_diameter_px"] == pytest.approx(2 * (8 / np.pi) ** 0.5)
    assert row["equivalent_diameter_um"] == pytest.approx(2 * (1 / np.pi) ** 0.5)
    centroids = [f"centroid_{axis}_{unit}" for unit in ("px", "um") for axis in "yx"]
    assert columns[:8] == ["label", "class", "area_px", "area_um2", *centroids]


def test_measure_objects_through_z_is_one_row_with_a_volume():
    labels = np.zeros((6, 8, 10), np.uint16)
    labels[3, 0:2, 0:2] = 4
    labels[4, 0:2, 0:4] = 4
    read = []

    def plane(index):
        read.append(index)
        return np.full((1, 8, 10), index[0])

    found = [MaskScore(4, 0.5, (3,)), MaskScore(4, 1.0, (4,))]
    [row] = measure_objects(
        labels, axes="ZYX", channels=("depth",), plane=plane, size=MICRONS, masks=found
    )
    assert row["volume_voxels"] == 12
    assert row["volume_um3"] == pytest.approx(12 * 0.25)
    assert row["centroid_z_px"] == pytest.approx((4 * 3 + 8 * 4) / 12)
    assert (row["bbox_z0_px"], row["bbox_z1_px"]) == (3, 5)
    assert row["mean_depth"] == pytest.approx((4 * 3 + 8 * 4) / 12)
    assert row["score"] == 0.75
    assert read == [(3,), (4,)]  # empty planes are not read
    assert sorted(table_columns("ZYX", ("depth",), MICRONS)) == sorted(row)


@pytest.mark.parametrize("axes", ["TZYX", "ZTYX"])
def test_measure_objects_of_a_series_has_a_row_per_time(axes):
    labels = np.zeros((2, 2, 8, 10), np.uint16)
    labels[(1, 0) if axes == "TZYX" else (0, 1)] = square(0, 0, 2)
    labels[(0, 1) if axes == "TZYX" else (1, 0)] = square(4, 4, 3)
    values = np.zeros((1, *labels.shape))
    values[0] = labels * 10
    rows = measure_objects(
        labels, axes=axes, channels=("c",), plane=lambda index: values[(slice(None), *index)]
    )
    assert [(row["t"], row["volume_voxels"], row["bbox_z0_px"]) for row in rows] == [
        (0, 9, 1),
        (1, 4, 0),
    ]
    assert [row["mean_c"] for row in rows] == [10, 10]
    columns = table_columns(axes, ("c",), ImageReference())
    assert columns[:4] == ["label", "class", "t", "volume_voxels"]


def test_measure_objects_takes_any_label():
    """A table as long as the largest of them would need more memory than there is."""
    labels = np.zeros((2, 8, 10), np.uint32)
    labels[0, 2:4, 3:7], labels[1, :1, :3], labels[1, 5:] = 2**32 - 1, 5, 3_000_000_000
    rows = measure_objects(labels, axes="TYX")
    assert [(row["t"], row["label"], row["area_px"]) for row in rows] == [
        (0, 2**32 - 1, 8),
        (1, 5, 3),
        (1, 3_000_000_000, 30),
    ]


def test_measure_objects_leaves_out_missing_values():
    labels = np.array([[1, 1, 1, 2]], np.uint16)
    values = np.array([[[1.0, np.nan, 3.0, np.inf]]])
    rows = measure_objects(labels, axes="YX", channels=("c",), plane=lambda _: values)
    assert rows[0]["mean_c"] == 2.0
    assert np.isnan(rows[1]["mean_c"])
    labels = np.array([[1, 0], [1, 1]], np.uint16)
    values = np.array([[[1.0, np.inf], [3.0, 5.0]]], np.float32)
    [row] = measure_objects(labels, axes="YX", channels=("c",), plane=lambda _: values)
    assert row["mean_c"] == 3.0


def test_measure_objects_says_where_a_channel_lacks_data():
    """Of objects of four pixels; a channel that has data everywhere has no column."""
    labels = np.array([[1, 1, 1, 1], [2, 2, 2, 2]])
    values = np.full((3, 2, 4), 5.0)
    values[1, 0, 1:] = np.nan  # a quarter of object 1 is left
    values[2, 1] = np.inf  # nothing of object 2
    columns = ValueColumns(
        channels=("a", "b", "c"),
        indices=(PlacedIndex(parse_index("r=a/b"), {"a": 0, "b": 1}),),
        statistics=("mean",),
    )
    rows = measure_objects(labels, axes="YX", channels=columns, plane=lambda _: values)
    shares = [{k: v for k, v in row.items() if k.startswith("valid_")} for row in rows]
    assert shares == [
        {"valid_fraction_b": 0.25, "valid_fraction_c": 1, "valid_fraction_r": 0.25},
        {"valid_fraction_b": 1, "valid_fraction_c": 0, "valid_fraction_r": 1},
    ]
    names = table_columns("YX", columns, ImageReference(), rows=rows)
    first = names.index("mean_r") + 1
    assert names[first : first + 3] == ["valid_fraction_b", "valid_fraction_c", "valid_fraction_r"]
    assert set(names) == set(rows[0])
    assert not any("valid" in name for name in table_columns("YX", columns, ImageReference()))
    parts = measure_in_parts(
        labels, channels=columns, part=lambda r, c: values[:, r, c], size=ImageReference()
    )
    assert [{k: row[k] for k in shares[0]} for row in parts] == shares


def test_measure_objects_has_areas_of_one_unit_alone():
    columns = table_columns("YX", (), ImageReference(scale={"Y": 2.0, "X": 2.0}))
    assert not [name for name in columns if "px" not in name and name[:4] in ("area", "cent")]
    size = ImageReference(scale={"Y": 1.0, "X": 1.0}, units={"Y": "um", "X": "mm"})
    columns = table_columns("YX", (), size)
    assert "centroid_y_um" in columns
    assert "centroid_x_mm" in columns
    assert [name for name in columns if name.startswith("area")] == ["area_px"]


def test_measure_objects_of_nothing_has_no_rows():
    assert measure_objects(np.zeros((3, 8, 10), np.uint16), axes="ZYX", channels=("c",)) == []
    with pytest.raises(ValueError, match="end in YX, got 'YXZ'"):
        measure_objects(np.zeros((3, 8, 10), np.uint16), axes="YXZ")


def test_measure_objects_measures_an_index_beside_the_channels():
    labels = np.array([[1, 1, 2, 2]])
    values = np.array([[[1, 3, 0, 4]], [[1, 1, 0, 4]]], np.uint8)  # the channel, and another band
    index = PlacedIndex(parse_index("ndvi"), {"nir": 0, "red": 1})
    measured = ValueColumns(channels=("nir",), indices=[index], statistics=("mean", "sum"))
    rows = measure_objects(labels, axes="YX", channels=measured, plane=lambda _: values)
    assert [row["mean_nir"] for row in rows] == [2, 2]
    assert [row["mean_ndvi"] for row in rows] == [0.25, 0]  # of the second, one pixel is 0 / 0
    columns = table_columns("YX", measured, ImageReference())
    assert [name for name in columns if name.startswith("mean_")] == ["mean_nir", "mean_ndvi"]
    assert "sum_nir" in columns
    assert "sum_ndvi" not in columns


@pytest.mark.parametrize("count", [1, 40])
def test_measure_objects_has_the_same_columns_for_any_count(count):
    names = tuple(f"marker{number}" for number in range(count))
    values = np.arange(count)[:, np.newaxis, np.newaxis] * np.ones((1, 2))
    [row] = measure_objects(
        np.ones((1, 2), np.uint8), axes="YX", channels=names, plane=lambda _: values
    )
    assert [row[f"mean_{name}"] for name in names] == list(range(count))
    assert [row[f"sum_{name}"] for name in names] == list(range(0, 2 * count, 2))


def test_measure_objects_names_the_parent_that_covers_most():
    labels = np.array([[1, 1, 1, 1, 0, 2, 2, 0, 3]])
    cells = np.array([[7, 7, 7, 0, 0, 9, 4, 4, 0]])
    rows = measure_objects(labels, axes="YX", parents=cells)
    assert [(row["parent"], row["parent_overlap"]) for row in rows] == [(7, 0.75), (4, 0.5), (0, 0)]
    columns = table_columns("YX", (), ImageReference(), parents=True)
    assert columns[-3:] == ["parent", "parent_overlap", "score"]


def test_measure_objects_of_a_series_has_parents_of_its_frame():
    labels = np.zeros((2, 3, 4, 4), np.uint32)
    labels[0, 1, :2], labels[1, 2] = 2**32 - 1, 5
    cells = np.zeros_like(labels)
    cells[0, 1], cells[1, 1:] = 2**31, 8
    rows = measure_objects(labels, axes="TZYX", parents=cells)
    assert [(row["t"], row["label"], row["parent"]) for row in rows] == [
        (0, 2**32 - 1, 2**31),
        (1, 5, 8),
    ]
    assert [row["parent_overlap"] for row in rows] == [1, 1]


def test_measure_volume_has_its_surface_in_real_units():
    z, y, x = np.indices((24, 48, 48))
    ball = np.hypot(np.hypot(2 * (z - 12), y - 24), x - 24) <= 20
    size = ImageReference(
        scale={"Z": 1.0, "Y": 0.5, "X": 0.5}, units=dict.fromkeys("ZYX", "um")
    )  # a radius of 10 micrometers
    [row] = measure_objects(ball.astype(np.uint16), axes="ZYX", size=size)
    assert row["volume_um3"] == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.02)
    assert row["surface_um2"] == pytest.approx(4 * np.pi * 10**2, rel=0.03)
    assert {*row} == {*table_columns("ZYX", (), size)}
    cut = np.where(y < 24, 2, 1) * ball  # two halves: each has half of it and the disc between them
    for row in measure_objects(cut.astype(np.uint16), axes="ZYX", size=size):
        assert row["surface_um2"] == pytest.approx(3 * np.pi * 10**2, rel=0.1)
    [bare] = measure_objects(ball.astype(np.uint16), axes="ZYX")
    assert [name for name in bare if name.startswith("surface")] == ["surface_px2"]
    assert row["sphericity"] < 0.9


def test_rows_of_a_series_say_the_time_where_it_is_known():
    labels = np.zeros((3, 4, 5), np.uint16)
    labels[[0, 2], 1, 1] = 1
    timed = ImageReference(scale={"T": 0.25}, units={"T": "s"})
    rows = measure_objects(labels, axes="TYX", size=timed)
    assert [(row["t"], row["t_s"]) for row in rows] == [(0, 0.0), (2, 0.5)]
    names = table_columns("TYX", (), timed)
    assert names[:4] == ["label", "class", "t", "t_s"]
    assert set(names) == set(rows[0])
    assert "t_s" not in table_columns("TYX", (), ImageReference(scale={"T": 0.25}))
