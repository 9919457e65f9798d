"""A store of SpatialData, read by spatialdata, geopandas and squidpy where they are installed."""

import numpy as np
import pytest

from napari_simmat.engine.files.spatial import (
    LABELS,
    NEEDS_SPATIALDATA,
    NO_SUCH_AXES,
    OTHER_ELEMENTS,
    OUTLINES,
    TABLE,
    check_is_own_store,
    check_spatialdata,
    pixel_sizes,
    spatial_problem,
    write_spatialdata,
)
from napari_simmat.engine.files.tables import TableAbout
from napari_simmat.engine.measuring.measurements import ValueColumns, measure_objects, table_columns
from napari_simmat.io.files import OutputError, sha256_of
from napari_simmat.io.reference import ImageReference

SIZE = ImageReference(scale={"Y": 0.5, "X": 0.25}, units={"Y": "um", "X": "um"})
ABOUT = TableAbout(program="napari-simmat", image="a.tif", size=SIZE)


def test_spatial_holds_planes_and_volumes_alone():
    assert spatial_problem("YX") == spatial_problem("ZYX") == ""
    assert spatial_problem("TYX") == NO_SUCH_AXES.format("TYX")


def test_spatial_sizes_are_in_one_unit_or_pixels():
    assert pixel_sizes(ABOUT, ("y", "x")) == {"y": 0.5, "x": 0.25}
    assert pixel_sizes(ABOUT, ("z", "y", "x")) == {"z": 1, "y": 1, "x": 1}
    assert pixel_sizes(TableAbout(program=""), ("y", "x")) == {"y": 1, "x": 1}


def test_spatial_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr("napari_simmat.engine.files.spatial.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="needs the package spatialdata") as error:
        check_spatialdata()
    assert str(error.value) == NEEDS_SPATIALDATA


def written(path, labels):
    """A store of labels (Y, X) and of an image that is ten times as bright as they are."""
    columns = ValueColumns(channels=("DAPI",), statistics=("mean", "p95"))
    image = 10.0 * labels[np.newaxis]
    axes = "ZYX"[-labels.ndim :]

    def plane(at):
        return image[(slice(None), *at)]

    rows = measure_objects(labels, axes=axes, channels=columns, plane=plane, size=SIZE)
    names = table_columns(axes, columns, SIZE, rows=rows)
    write_spatialdata(path, labels, names, rows, ABOUT)
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what spatialdata and its family remark on each other
def test_spatial_store_is_read_by_its_family(tmp_path):
    sd = pytest.importorskip("spatialdata")
    sq = pytest.importorskip("squidpy")
    labels = np.zeros((12, 16), np.uint32)
    labels[2:6, 4:8], labels[8:10, 2:4], labels[8:10, 12:15] = 3, 7, 8
    labels[3, 5] = 0  # a hole
    store = sd.read_zarr(written(tmp_path / "a.zarr", labels))
    assert set(store.labels) | set(store.shapes) | set(store.tables) == {LABELS, OUTLINES, TABLE}
    assert np.array_equal(np.asarray(store.labels[LABELS].data), labels)
    outlines = sd.transform(store.shapes[OUTLINES], to_coordinate_system="global")
    areas = dict(zip(outlines.index, outlines.geometry.area, strict=True))
    assert areas == pytest.approx({3: 15 / 8, 7: 4 / 8, 8: 6 / 8})
    assert outlines.loc[7].geometry.bounds == pytest.approx((0.5, 4, 1, 5))
    table = store.tables[TABLE]
    assert table.obs["label"].tolist() == [3, 7, 8]
    assert table.to_df()["DAPI"].tolist() == [30, 70, 80]
    centers = sd.get_centroids(store.labels[LABELS], coordinate_system="global").compute()
    order = [centers.index.get_loc(label) for label in (3, 7, 8)]
    assert table.obsm["spatial"] == pytest.approx(centers[["x", "y"]].to_numpy()[order])
    sq.gr.spatial_neighbors(table, coord_type="generic", n_neighs=1)
    assert table.obsp["spatial_connectivities"].shape == (3, 3)
    matched = sd.match_element_to_table(store, element_name=LABELS, table_name=TABLE)
    assert len(matched[1]) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_spatial_store_of_volumes_and_of_nothing(tmp_path):
    sd = pytest.importorskip("spatialdata")
    labels = np.zeros((3, 8, 9), np.uint32)
    labels[1:, 2:4, 3:6] = 5
    store = sd.read_zarr(written(tmp_path / "a.zarr", labels))
    assert store.labels[LABELS].dims == ("z", "y", "x")
    assert store.tables[TABLE].obsm["spatial"].tolist() == [[4.5, 3.0, 2.0]]
    assert not store.shapes
    empty = sd.read_zarr(written(tmp_path / "b.zarr", np.zeros((8, 9), np.uint32)))
    assert list(empty.labels) == [LABELS]


def test_spatial_store_with_elements_of_others_is_not_replaced(tmp_path):
    check_is_own_store(tmp_path / "none")
    store = tmp_path / "a.zarr"
    (store / "labels" / LABELS).mkdir(parents=True)
    with pytest.raises(OutputError, match="holds more than labels"):
        check_is_own_store(store)  # which is no store at all
    (store / "zarr.json").touch()
    check_is_own_store(store)
    (store / "images" / "dapi").mkdir(parents=True)
    with pytest.raises(OutputError) as error:
        check_is_own_store(store)
    assert str(error.value) == OTHER_ELEMENTS.format(store)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_spatial_stores_of_equal_objects_are_equal(tmp_path):
    pytest.importorskip("spatialdata")
    labels = np.arange(20, dtype=np.uint32).reshape(4, 5).repeat(3, 0).repeat(3, 1)
    one, two = (sha256_of(written(tmp_path / f"{name}.zarr", labels)) for name in "ab")
    assert one == two
