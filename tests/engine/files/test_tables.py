import math

import numpy as np
import pytest

from napari_simmat.engine.files import tables
from napari_simmat.engine.files.tables import (
    TABLE_FORMATS,
    TableAbout,
    kind_of,
    statistic_of,
    unit_of,
    write_anndata,
    write_parquet,
)
from napari_simmat.io.files import sha256_of
from napari_simmat.io.reference import ImageReference

COLUMNS = (
    "label", "class", "t", "area_px", "area_um2", "centroid_y_px", "centroid_x_px",
    "centroid_y_um", "centroid_x_um", "mean_DAPI", "mean_CD3/4", "p5_DAPI", "p5_CD3/4",
    "mean_ndvi", "major_axis_um", "eccentricity", "orientation_deg", "score",
)  # fmt: skip
FIRST = (7, "tumor", 0, 12, 3.0, 4.0, 6.0, 2.0, 3.0, 10.5, 1.0, 2.0, 0.5, 0.25, 9.0, 0.5, 90.0, 0.8)
SECOND = (2**32 - 1, "", 1, 1, 0.25, 1.0, 2.0, 0.5, 1.0, 3.0, math.nan, 1.0, math.nan, math.nan,
          1.0, 0.0, math.nan, math.nan)  # fmt: skip
ROWS = [dict(zip(COLUMNS, each, strict=True)) for each in (FIRST, SECOND)]
ABOUT = TableAbout(
    program="napari-simmat 1",
    image="a.tif",
    size=ImageReference(scale={"Y": 0.5, "X": 0.5}, units={"Y": "um", "X": "um"}),
    indices=["ndvi"],
)


@pytest.mark.parametrize(
    ("column", "kind", "unit"),
    [
        ("label", "count", ""), ("class", "text", ""), ("t", "count", ""),
        ("area_px", "count", "px"), ("area_um2", "number", "um2"),
        ("volume_voxels", "count", "voxels"), ("volume_mm3", "number", "mm3"),
        ("surface_px2", "number", "px2"), ("bbox_y0_px", "count", "px"),
        ("centroid_x_m", "number", "m"), ("perimeter_px", "number", "px"),
        ("middle_axis_um", "number", "um"), ("feret_max_mm", "number", "mm"),
        ("orientation_deg", "number", "deg"), ("eccentricity", "number", ""),
        ("mean_area_px", "number", ""), ("parent", "count", ""), ("parent_overlap", "number", ""),
        ("score", "number", ""), ("image", "text", ""),
    ],
)  # fmt: skip
def test_columns_say_what_they_hold_by_their_names(column, kind, unit):
    assert (kind_of(column), unit_of(column)) == (kind, unit)


def test_statistic_of_knows_columns_of_values_alone():
    assert statistic_of("mean_DAPI") == ("mean", "DAPI")
    assert statistic_of("p99.5_a_b") == ("p99.5", "a_b")
    others = ("minor_axis_px", "parent_overlap", "perimeter_px", "mean", "p101_a", "score", "label")
    assert [statistic_of(name) for name in others] == [None] * len(others)


def test_a_missing_package_is_named_in_a_sentence(monkeypatch):
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    for kind, package in (("parquet", "pyarrow"), ("anndata", "anndata")):
        with pytest.raises(ValueError, match=rf"needs the package {package}; install it \(pip"):
            TABLE_FORMATS[kind].check()


def test_parquet_has_types_units_and_nulls(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    write_parquet(path, COLUMNS, ROWS, ABOUT)
    table = parquet.read_table(path)
    assert table.column_names == list(COLUMNS)
    assert table.column("label").to_pylist() == [7, 2**32 - 1]
    assert table.column("class").to_pylist() == ["tumor", None]
    assert table.column("mean_CD3/4").to_pylist() == [1.0, None]
    units = {each.name: (each.metadata or {}).get(b"unit", b"").decode() for each in table.schema}
    assert {name: units[name] for name in ("area_um2", "centroid_x_px", "score", "p5_DAPI")} == {
        "area_um2": "um2",
        "centroid_x_px": "px",
        "score": "",
        "p5_DAPI": "",
    }
    assert table.schema.metadata == {b"program": b"napari-simmat 1", b"image": b"a.tif"}


def test_parquet_of_text_and_of_many_rows_is_the_same(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(tables, "_ROWS", 3)
    rows = [{"label": str(n), "class": "", "score": "" if n % 2 else "0.5"} for n in range(1, 9)]
    write_parquet(tmp_path / "a.parquet", ("label", "class", "score"), iter(rows), ABOUT)
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.column("label").to_pylist() == list(range(1, 9))
    assert table.column("score").to_pylist() == [None, 0.5] * 4
    write_parquet(tmp_path / "none.parquet", COLUMNS, [], ABOUT)
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_anndata_has_channels_layers_and_places(tmp_path):
    anndata = pytest.importorskip("anndata")
    path = tmp_path / "a.h5ad"
    write_anndata(path, COLUMNS, ROWS, ABOUT)
    data = anndata.read_h5ad(path)
    assert list(data.var_names) == ["DAPI", "CD3/4"]
    assert np.array_equal(data.X, [[10.5, 1], [3, np.nan]], equal_nan=True)
    assert list(data.layers) == ["p5"]
    assert data.layers["p5"][0].tolist() == [2, 0.5]
    assert data.obsm["spatial"].tolist() == [[3, 2], [1, 0.5]]  # x, y in micrometers
    assert list(data.obs["label"]) == [7, 2**32 - 1]
    assert list(data.obs["image"]) == ["a.tif", "a.tif"]
    assert list(data.obs_names) == ["7:t0", "4294967295:t1"]
    assert data.obs["class"].isna().tolist() == [False, True]
    assert data.obs["mean_ndvi"].iloc[0] == 0.25  # measured like a channel, but none
    assert "mean_DAPI" not in data.obs
    about = data.uns["simmat"]
    assert (about["X"], about["spatial_unit"], about["program"]) == ("mean", "um", ABOUT.program)
    assert about["pixel_size"] == {"y": 0.5, "x": 0.5}


def test_anndata_without_means_has_the_first_statistic(tmp_path):
    anndata = pytest.importorskip("anndata")
    columns = ("image", "label", "median_a", "p5_a", "centroid_z_px", "centroid_y_px",
               "centroid_x_px", "score")  # fmt: skip
    rows = [
        {"image": name, "label": 1, "median_a": n, "p5_a": 0, "centroid_z_px": 3.0,
         "centroid_y_px": 2.0, "centroid_x_px": 1.0}
        for n, name in enumerate("ab")
    ]  # fmt: skip
    write_anndata(tmp_path / "a.h5ad", columns, rows, TableAbout(program="x"))
    data = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert data.uns["simmat"]["X"] == "median"
    assert data.X.tolist() == [[0], [1]]
    assert data.obsm["spatial"].tolist() == [[1, 2, 3]] * 2
    assert list(data.obs_names) == ["a:1", "b:1"]


def test_anndata_of_images_with_other_units_has_pixels(tmp_path):
    anndata = pytest.importorskip("anndata")
    some = [{**ROWS[0], "image": "a"}, {**ROWS[1], "image": "b", "centroid_x_um": ""}]
    write_anndata(tmp_path / "a.h5ad", ("image", *COLUMNS), some, TableAbout(program="x"))
    data = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert data.uns["simmat"]["spatial_unit"] == "px"
    assert data.obsm["spatial"].tolist() == [[6, 4], [2, 1]]


def test_anndata_of_no_object_and_of_no_channel_can_be_read(tmp_path):
    anndata = pytest.importorskip("anndata")
    write_anndata(tmp_path / "a.h5ad", COLUMNS, [], ABOUT)
    assert anndata.read_h5ad(tmp_path / "a.h5ad").shape == (0, 2)
    write_anndata(tmp_path / "b.h5ad", ("label", "score"), [{"label": 3}], ABOUT)
    assert anndata.read_h5ad(tmp_path / "b.h5ad").shape == (1, 0)


@pytest.mark.parametrize("kind", TABLE_FORMATS)
def test_equal_tables_are_equal_bytes(kind, tmp_path):
    pytest.importorskip(TABLE_FORMATS[kind].package)
    seen = set()
    for name in ("a", ".b.part"):
        TABLE_FORMATS[kind].write(tmp_path / name, COLUMNS, ROWS, ABOUT)
        seen.add(sha256_of(tmp_path / name))
    assert len(seen) == 1


def test_shares_with_data_are_numbers_of_each_object(tmp_path):
    """They describe objects, and are no statistic, of which AnnData makes a layer."""
    anndata = pytest.importorskip("anndata")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = ("label", "mean_nir", "valid_fraction_nir")
    rows = [{"label": "1", "mean_nir": "3", "valid_fraction_nir": "0.25"}]
    write_anndata(tmp_path / "a.h5ad", columns, rows, ABOUT)
    write_parquet(tmp_path / "a.parquet", columns, rows, ABOUT)
    data = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert data.var_names.tolist() == ["nir"]
    assert data.obs["valid_fraction_nir"].tolist() == [0.25]
    assert parquet.read_table(tmp_path / "a.parquet")["valid_fraction_nir"].to_pylist() == [0.25]
