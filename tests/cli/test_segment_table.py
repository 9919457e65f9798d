"""`simmat segment`: what the table of objects holds, and how it is chosen."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.cli.conftest import names_in

BANDS = ["B4", "B8", "B8A"]
OPTIONS = ("--model", "tiny", "--prompts", "masks.tif", "--channels", "0,0,0")


@pytest.fixture
def field(tmp_path, monkeypatch):
    """Two images of three bands, and a mask for each object of both."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    masks = np.zeros((48, 64), np.uint8)
    masks[4:20, 4:20], masks[24:40, 30:60] = 1, 2
    red = 40 + 80 * (masks > 0) + rng.integers(0, 20, masks.shape)
    bands = np.stack([red, 3 * red, red]).astype(np.uint16)
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
    size |= {"PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    metadata = {"axes": "CYX", "Channel": {"Name": BANDS}, **size}
    for name in ("a.ome.tif", "b.ome.tif"):
        tifffile.imwrite(name, bands, photometric="minisblack", metadata=metadata)
    tifffile.imwrite("masks.tif", masks)
    return tmp_path


def rows_of(path):
    with Path(path).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_segment_statistics_and_indices_are_columns(field, simmat):
    more = ("--statistics", "p95,sum", "--index", "ndvi", "--index", "twice=`B4`*2")
    result = simmat("segment", "a.ome.tif", *OPTIONS, "--output", "out", *more)
    assert result.status == 0, result.err
    assert "ndvi: nir is B8, red is B4." in result.err
    rows = rows_of("out/a_objects.csv")
    of_values = [name for name in rows[0] if name.startswith(("p95_", "sum_", "mean_"))]
    assert of_values == ["p95_B4", "sum_B4", "p95_ndvi", "p95_twice"]
    assert [float(row["p95_ndvi"]) for row in rows] == [0.5, 0.5]
    assert [float(row["p95_twice"]) / 2 for row in rows] == [float(row["p95_B4"]) for row in rows]
    record = json.loads(Path("out/a.json").read_text("utf-8"))
    indices = ["ndvi", "twice=`B4`*2"]
    assert record["settings"]["table"] == {
        "statistics": ["p95", "sum"],
        "indices": indices,
        "all_channels": False,
    }


def test_segment_measures_all_channels_if_told_to(field, simmat):
    more = ("--statistics", "mean", "--all-channels")
    assert simmat("segment", "a.ome.tif", *OPTIONS, "--output", "out", *more).status == 0
    [row, _] = rows_of("out/a_objects.csv")
    assert [name for name in row if name.startswith("mean_")] == [f"mean_{name}" for name in BANDS]
    assert float(row["mean_B8"]) == pytest.approx(3 * float(row["mean_B4"]))


def test_segment_resume_makes_another_table_anew(field, simmat):
    def run(*more):
        words = ("segment", "a.ome.tif", *OPTIONS, "--output", "out", "--resume", *more)
        return simmat(*words)

    assert run().status == 0
    labels, first = Path("out/a_labels.tif").read_bytes(), rows_of("out/a_objects.csv")
    assert "table" not in json.loads(Path("out/a.json").read_text("utf-8"))["settings"]
    assert "kept, made the same way" in run().out
    result = run("--statistics", "min")
    assert result.status == 0
    assert "kept" not in result.out
    [row, _] = rows_of("out/a_objects.csv")
    assert "min_B4" in row
    assert "mean_B4" not in row
    assert {name: row[name] for name in row if name in first[0]} == {
        name: first[0][name] for name in first[0] if name in row
    }
    assert Path("out/a_labels.tif").read_bytes() == labels
    assert "kept" in run("--statistics", "min").out


def test_segment_resume_adds_a_table_in_another_format(field, simmat):
    anndata = pytest.importorskip("anndata")
    words = ("segment", "a.ome.tif", *OPTIONS, "--output", "out", "--resume")
    assert simmat(*words).status == 0
    before = {name: Path("out", name).read_bytes() for name in ("a_labels.tif", "a_objects.csv")}
    result = simmat(*words, "--anndata")
    assert result.status == 0, result.err
    assert anndata.read_h5ad("out/a_objects.h5ad").shape == (2, 1)
    assert all(Path("out", name).read_bytes() == each for name, each in before.items())
    assert "kept" in simmat(*words, "--anndata").out
    Path("out/a_objects.h5ad").write_bytes(b"mine")
    result = simmat(*words, "--anndata")
    assert "a_objects.h5ad is missing or was changed since" in result.err


def test_segment_resume_of_another_table_spares_corrections(field, simmat):
    words = ("segment", "a.ome.tif", *OPTIONS, "--output", "out", "--resume")
    assert simmat(*words).status == 0
    corrected = tifffile.imread("out/a_labels.tif")
    corrected[0, 0] = 9
    tifffile.imwrite("out/a_labels.tif", corrected)
    result = simmat(*words, "--statistics", "min")
    assert result.status == 1
    assert "was changed since it was made" in result.err
    assert tifffile.imread("out/a_labels.tif")[0, 0] == 9


def test_segment_replay_makes_the_same_table(field, simmat):
    more = ("--statistics", "median", "--index", "ndvi")
    assert simmat("segment", "a.ome.tif", *OPTIONS, "--output", "out", *more).status == 0
    replay = ("segment", "a.ome.tif", "--model", "tiny", "--prompts", "out/a.json")
    assert simmat(*replay, "--output", "again").status == 0
    assert Path("again/a_objects.csv").read_bytes() == Path("out/a_objects.csv").read_bytes()
    assert simmat(*replay, "--output", "other", "--statistics", "max").status == 0
    [row, _] = rows_of("other/a_objects.csv")
    assert "max_B4" in row


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--index", "ndre"), "The index ndre needs rededge, which is not among the channels of"),
        (("--index", "x=__import__('os')"), "The formula of x cannot be used"),
        (("--statistics", "mode"), "There is no statistic 'mode'"),
        (("--index", "ndvi", "--index", "ndvi"), "ndvi is chosen twice"),
    ],
)
@pytest.mark.parametrize("only", [(), ("--dry-run",)])
def test_segment_refuses_before_anything_is_computed(field, simmat, words, sentence, only):
    result = simmat("segment", "a.ome.tif", *OPTIONS, "--output", "out", *words, *only)
    assert result.status == 1
    assert sentence in result.err
    assert not Path("out").exists() or not [n for n in names_in(Path("out")) if n[0] != "."]


def test_segment_tables_need_their_packages(field, simmat, monkeypatch):
    monkeypatch.setattr("napari_simmat.engine.files.tables.find_spec", lambda name: None)
    for option, package in (("--parquet", "pyarrow"), ("--anndata", "anndata")):
        result = simmat("segment", "a.ome.tif", *OPTIONS, "--output", "out", option)
        assert result.status == 1
        assert f"needs the package {package}; install it (pip install {package})" in result.err


def test_segment_tables_of_one_image_and_of_all(field, simmat):
    parquet = pytest.importorskip("pyarrow.parquet")
    anndata = pytest.importorskip("anndata")
    more = ("--parquet", "--anndata", "--index", "ndvi", "--statistics", "mean,p95")
    result = simmat("segment", "a.ome.tif", "b.ome.tif", *OPTIONS, "--output", "out", *more)
    assert result.status == 0, result.err
    one = parquet.read_table("out/a_objects.parquet")
    assert one.column("label").to_pylist() == [1, 2]
    every = parquet.read_table("out/simmat-objects.parquet")
    assert every.column("image").to_pylist() == ["a.ome.tif"] * 2 + ["b.ome.tif"] * 2
    assert every.schema.field("area_um2").metadata == {b"unit": b"um2"}
    data = anndata.read_h5ad("out/simmat-objects.h5ad")
    assert (data.shape, list(data.var_names), list(data.layers)) == ((4, 1), ["B4"], ["p95"])
    assert list(data.obs["mean_ndvi"]) == [0.5] * 4
    first = anndata.read_h5ad("out/b_objects.h5ad")
    assert np.allclose(first.X, data.X[2:])
    assert np.allclose(first.obsm["spatial"], data.obsm["spatial"][2:])
    before = {name: Path("out", name).read_bytes() for name in names_in(Path("out"))}
    resumed = simmat("segment", "a.ome.tif", "b.ome.tif", *OPTIONS, "--output", "out", *more,
                     "--resume")  # fmt: skip
    assert resumed.out.count("kept") == 2
    for name in ("simmat-objects.parquet", "simmat-objects.h5ad", "a_objects.h5ad"):
        assert Path("out", name).read_bytes() == before[name]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what spatialdata and its family remark on each other
def test_segment_spatialdata_is_a_store_that_is_kept(field, simmat):
    spatialdata = pytest.importorskip("spatialdata")
    words = ("segment", "a.ome.tif", *OPTIONS, "--output", "out", "--spatialdata")
    result = simmat(*words)
    assert result.status == 0, result.err
    store = spatialdata.read_zarr("out/a_spatial.zarr")
    assert np.array_equal(np.asarray(store.labels["labels"]), tifffile.imread("out/a_labels.tif"))
    assert store.tables["table"].n_obs == len(store.shapes["outlines"]) == 2
    assert "kept" in simmat(*words, "--resume").out
    assert simmat(*words, "--overwrite").status == 0
    every = ("segment", ".", "--model", "tiny", "--prompts", "auto", "--output", "again")
    assert "a_spatial" not in simmat(*every, "--dry-run").out
