"""`simmat measure`: the table of labels that any program wrote."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat.engine.files.object_set import ObjectSet
from napari_simmat.engine.files.objects import write_objects

CELLS = np.zeros((32, 40), np.uint16)
CELLS[2:14, 2:14], CELLS[16:30, 20:36] = 1, 2
NUCLEI = np.zeros_like(CELLS)
NUCLEI[4:8, 4:8], NUCLEI[12:18, 4:8], NUCLEI[20:24, 22:30] = 3, 4, 9
MARKERS = ("DAPI", "CD3", "CD8")
SIZE = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
SIZE |= {"PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}


@pytest.fixture
def slide(tmp_path, monkeypatch):
    """A folder of images and one of labels, and labels of one image beside them."""
    monkeypatch.chdir(tmp_path)
    values = np.stack([CELLS * 100, NUCLEI * 10, np.full_like(CELLS, 7)])
    for folder in ("images", "labels", "nuclei"):
        Path(folder).mkdir()
    for name in "ab":
        metadata = {"axes": "CYX", "Channel": {"Name": MARKERS}, **SIZE}
        tifffile.imwrite(
            f"images/{name}.ome.tif", values, photometric="minisblack", metadata=metadata
        )
        tifffile.imwrite(f"labels/{name}_cp_masks.tif", CELLS)
        tifffile.imwrite(f"nuclei/{name}.tif", NUCLEI)
    tifffile.imwrite("cells.tif", CELLS)
    tifffile.imwrite("nuclei.tif", NUCLEI)
    return tmp_path


def rows_of(path):
    with Path(path).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_measure_writes_a_row_for_each_object(slide, simmat):
    result = simmat("measure", "images/a.ome.tif", "cells.tif", "--output", "cells.csv")
    assert result.status == 0, result.err
    assert "a.ome.tif: cells.tif: 2 objects" in result.out
    rows = rows_of("cells.csv")
    assert [row["label"] for row in rows] == ["1", "2"]
    assert [float(row["area_um2"]) for row in rows] == [36, 56]
    assert [float(row["mean_DAPI"]) for row in rows] == [100, 200]
    assert [float(row["sum_CD8"]) for row in rows] == [7 * 144, 7 * 224]
    assert "image" not in rows[0]


def test_measure_says_how_much_of_an_object_has_data(slide, simmat):
    values = np.stack([CELLS, CELLS]).astype(np.float32)
    about = {"axes": "CYX", "Channel": {"Name": ["red", "nir"]}}
    tifffile.imwrite("images/a.ome.tif", values, photometric="minisblack", metadata=about)
    values[1, 2:8, 2:14] = np.nan  # the upper half of cell 1, in one channel
    tifffile.imwrite("images/b.ome.tif", values, photometric="minisblack", metadata=about)
    result = simmat("measure", "images", "labels", "--output", "all.csv", "--index", "r=nir*2")
    assert result.status == 0, result.err
    rows = rows_of("all.csv")
    assert [(row["image"], row["label"]) for row in rows] == [
        ("a.ome.tif", "1"), ("a.ome.tif", "2"), ("b.ome.tif", "1"), ("b.ome.tif", "2"),
    ]  # fmt: skip
    assert [row["valid_fraction_nir"] for row in rows] == ["1", "1", "0.5", "1"]
    assert [row["valid_fraction_r"] for row in rows] == ["1", "1", "0.5", "1"]
    assert "valid_fraction_red" not in rows[0]
    assert rows[2]["mean_nir"] == "1"


def test_measure_names_the_cell_of_each_nucleus(slide, simmat):
    words = ("images/a.ome.tif", "nuclei.tif", "--parents", "cells.tif", "--output", "n.csv")
    assert simmat("measure", *words).status == 0
    rows = rows_of("n.csv")
    assert [row["parent"] for row in rows] == ["1", "1", "2"]
    assert [float(row["parent_overlap"]) for row in rows] == pytest.approx([1, 1 / 3, 1])


def test_measure_of_several_label_images_says_which(slide, simmat):
    words = ("images/a.ome.tif", "nuclei.tif", "cells.tif", "--output", "both.csv", "--json")
    result = simmat("measure", *words, "--channels", "CD3,0", "--statistics", "max")
    assert result.json["rows"] == 5
    assert [each["objects"] for each in result.json["files"]] == [3, 2]
    rows = rows_of("both.csv")
    assert [row["labels"] for row in rows] == ["nuclei.tif"] * 3 + ["cells.tif"] * 2
    measured = [name for name in rows[0] if name.startswith(("max_", "mean_"))]
    assert measured == ["max_CD3", "max_DAPI"]


def test_measure_of_folders_pairs_them_by_name(slide, simmat):
    words = ("images", "nuclei", "--parents", "labels", "--output", "all.csv")
    result = simmat("measure", *words)
    assert result.status == 0, result.err
    rows = rows_of("all.csv")
    assert [row["image"] for row in rows] == ["a.ome.tif"] * 3 + ["b.ome.tif"] * 3
    assert [row["parent"] for row in rows] == ["1", "1", "2"] * 2
    Path("nuclei/b.tif").unlink()
    result = simmat("measure", *words, "--overwrite")
    assert result.status == 1
    assert "has no label image of 1 image of 2 (b)" in result.err
    assert len(rows_of("all.csv")) == 6  # as it was


def test_measure_takes_a_folder_of_images_beside_their_labels(slide, simmat):
    for name in "ab":
        tifffile.imwrite(f"images/{name}_labels.tif", CELLS)
    assert simmat("measure", "images", "images", "--output", "all.csv").status == 0
    assert [row["image"] for row in rows_of("all.csv")] == ["a.ome.tif"] * 2 + ["b.ome.tif"] * 2


@pytest.mark.parametrize("name", ["cells.json", "cells.geojson", "cells.zip"])
def test_measure_takes_outlines_of_other_programs(slide, simmat, name):
    objects = ObjectSet.of_labels(CELLS, "YX", categories={1: "T cell"}, image="a.ome.tif")
    write_objects(Path(name), objects)
    result = simmat("measure", "images/a.ome.tif", name, "--output", "cells.csv")
    assert result.status == 0, result.err
    rows = rows_of("cells.csv")
    assert [row["area_px"] for row in rows] == ["144", "224"]
    assert [float(row["mean_DAPI"]) for row in rows] == [100, 200]
    if name != "cells.zip":
        assert rows[0]["class"] == "T cell"


def test_measure_says_that_outlines_overlap(slide, simmat):
    boxes = [[2, 2, 12, 12], [8, 8, 12, 12]]
    parts = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": [x, y, w, h], "area": w * h,
         "iscrowd": 0, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
        for n, (x, y, w, h) in enumerate(boxes, start=1)
    ]  # fmt: skip
    image = {"id": 1, "file_name": "a.ome.tif", "width": 40, "height": 32}
    text = {"images": [image], "annotations": parts, "categories": [{"id": 1, "name": "cell"}]}
    Path("c.json").write_text(json.dumps(text))
    result = simmat("measure", "images/a.ome.tif", "c.json", "--output", "cells.csv")
    assert result.status == 0, result.err
    assert "objects share pixels" in result.err


def test_measure_of_a_volume_says_if_labels_lie_elsewhere(slide, simmat):
    nibabel = pytest.importorskip("nibabel")
    ball = np.zeros((8, 10, 12), np.float32)
    ball[3:5, 4:6, 5:8] = 1
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    for name, flip in (("scan", 1), ("seg", 1), ("other", -1)):
        image = nibabel.Nifti1Image(ball.T, affine @ np.diag([flip, 1, 1, 1]))
        image.header.set_xyzt_units("mm")
        nibabel.save(image, f"{name}.nii.gz")
    result = simmat("measure", "scan.nii.gz", "seg.nii.gz", "--output", "s.csv")
    assert (result.status, result.err) == (0, "")
    [row] = rows_of("s.csv")
    assert (row["volume_voxels"], row["volume_mm3"]) == ("12", "36")
    assert float(row["major_axis_mm"]) == pytest.approx(2 * (5 * 2.25) ** 0.5)  # planes 3 mm apart
    result = simmat("measure", "scan.nii.gz", "other.nii.gz", "--output", "o.csv")
    assert "other.nii.gz lies elsewhere than scan.nii.gz" in result.err


def test_measure_of_planes_that_are_channels_says_what_to_give(slide, simmat):
    tifffile.imwrite("plain.tif", np.stack([CELLS * 2] * 5), photometric="minisblack")
    words = ("measure", "plain.tif", "cells.tif", "--output", "p.csv", "--statistics", "max")
    result = simmat(*words)
    assert result.status == 1
    assert "or say with --channel-axis which axis holds channels" in result.err
    assert simmat(*words, "--channel-axis", "0").status == 0
    assert [row["max_channel4"] for row in rows_of("p.csv")] == ["2", "4"]


def test_measure_keeps_classes_of_a_table_beside_labels(slide, simmat):
    tifffile.imwrite("a_labels.tif", CELLS)
    Path("a_objects.csv").write_text("label,class,score\n2,B cell,0.5\n")
    simmat("measure", "images/a.ome.tif", "a_labels.tif", "--output", "out.csv")
    assert [(row["class"], row["score"]) for row in rows_of("out.csv")] == [
        ("", ""),
        ("B cell", "0.5"),
    ]


def test_measure_of_a_picture_names_its_colors_without_alpha(slide, simmat):
    picture = np.full((*CELLS.shape, 4), 9, np.uint8)
    Image.fromarray(picture).save("p.png")
    words = ("measure", "p.png", "cells.tif", "--output", "p.csv", "--index", "exg")
    assert simmat(*words, "--statistics", "mean").status == 0
    means = [name for name in rows_of("p.csv")[0] if name.startswith("mean_")]
    assert means == ["mean_red", "mean_green", "mean_blue", "mean_exg"]


def test_measure_of_no_object_has_columns_alone(slide, simmat):
    tifffile.imwrite("none.tif", np.zeros_like(CELLS))
    result = simmat("measure", "images/a.ome.tif", "none.tif", "--output", "none.csv")
    assert result.status == 0, result.err
    assert Path("none.csv").read_text().startswith("label,class,area_px,")
    assert rows_of("none.csv") == []


def test_measure_of_a_series_and_of_the_largest_label(slide, simmat):
    labels = np.zeros((2, 3, 16, 16), np.uint32)
    labels[0, 1, :4, :4], labels[1, 1:, 2:6] = 2**32 - 1, 5
    tifffile.imwrite("s.tif", labels.astype(np.float32), imagej=True, metadata={"axes": "TZYX"})
    tifffile.imwrite("l.tif", labels, photometric="minisblack")
    assert simmat("measure", "s.tif", "l.tif", "--output", "s.csv").status == 0
    rows = rows_of("s.csv")
    assert [(row["t"], row["label"], row["volume_voxels"]) for row in rows] == [
        ("0", str(2**32 - 1), "16"),
        ("1", "5", "128"),
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("images", "cells.tif"), "is a folder of images, so give one folder of labels"),
        (("images/a.ome.tif", "labels"), "labels is a folder; give one label image"),
        (("images/a.ome.tif", "nope.tif"), "There is no file nope.tif"),
        (("nope.tif", "cells.tif"), "There is no file nope.tif"),
        (("images/a.ome.tif", "small.tif"), "give labels of the image's size"),
        (("images/a.ome.tif", "images/b.ome.tif"), "has 3 channels; a label image has none"),
        (("images/a.ome.tif", "cells.tif", "--channels", "CD9"), "There is no channel called CD9"),
        (
            ("images/a.ome.tif", "cells.tif", "--index", "ndvi"),
            "ndvi needs nir, red, which are not",
        ),
        (("images/a.ome.tif", "cells.tif", "--statistics", ","), "No statistic is chosen"),
        (("images/a.ome.tif", "cells.tif", "--channel-axis", "7"), "channel axis 7 does not exist"),
    ],
)
def test_measure_refuses_in_a_sentence_and_writes_nothing(slide, simmat, words, sentence):
    tifffile.imwrite("small.tif", CELLS[:8])
    result = simmat("measure", *words, "--output", "out.csv")
    assert result.status == 1
    assert sentence in result.err
    assert not Path("out.csv").exists()


def test_measure_replaces_a_table_only_if_told_to(slide, simmat):
    words = ("measure", "images/a.ome.tif", "cells.tif", "--output")
    assert simmat(*words, "out.csv").status == 0
    assert "out.csv exists already. Use --overwrite" in simmat(*words, "out.csv").err
    assert simmat(*words, "out.csv", "--overwrite").status == 0
    assert "end its name in one of .csv, .parquet, .h5ad" in simmat(*words, "out.xlsx").err
    Path("l.csv").write_text("x")
    both = ("measure", "images/a.ome.tif", "l.csv", "--output", "l.csv", "--overwrite")
    assert "is what is to be measured" in simmat(*both).err


def test_measure_writes_a_table_for_spatial_omics(slide, simmat):
    anndata = pytest.importorskip("anndata")
    words = ("measure", "images", "labels", "--output", "all.h5ad", "--statistics", "mean,p95")
    assert simmat(*words).status == 0
    data = anndata.read_h5ad("all.h5ad")
    assert (data.shape, list(data.var_names)) == ((4, 3), list(MARKERS))
    assert data.X[:, 0].tolist() == [100, 200] * 2
    assert data.obsm["spatial"][0].tolist() == [3.75, 3.75]  # pixel 7.5 of 0.5 micrometers
    assert data.obs_names.is_unique


def test_measure_counts_the_nuclei_of_cells_and_of_drawn_regions(tmp_path, simmat, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = np.zeros((20, 30), np.uint8)
    cells[:, :10], cells[:, 10:20] = 1, 2
    nuclei = np.zeros_like(cells)
    nuclei[2:4, 2:4], nuclei[6:8, 2:4], nuclei[10:12, 14:16] = 1, 2, 3
    tifffile.imwrite("a.tif", cells)
    tifffile.imwrite("cells.tif", cells)
    tifffile.imwrite("nuclei.tif", nuclei)
    square = [[[0, 0], [20, 0], [20, 20], [0, 20], [0, 0]]]
    region = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square}}
    region |= {"properties": {"objectType": "annotation"}}
    Path("regions.geojson").write_text(json.dumps([region]))
    for labels, counts in (("cells.tif", ["2", "1"]), ("regions.geojson", ["3"])):
        given = "measure", "a.tif", labels, "--children", "nuclei.tif", "-o", f"{labels}.csv"
        assert simmat(*given).status == 0
        with open(f"{labels}.csv", newline="") as stream:
            assert [row["children"] for row in csv.DictReader(stream)] == counts
