"""The files of a batch after an image was corrected."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_simmat.batch.corrections import batch_files, follow_batch_job, follow_image_job
from napari_simmat.batch.outputs import LabeledObjects, save_objects_job
from napari_simmat.batch.segmentation import segment_folder
from napari_simmat.batch.summary import ALL_OBJECTS, CORRECTED, SUMMARY_PAGE, SUMMARY_TABLE
from napari_simmat.cli import main
from napari_simmat.progress import finish
from tests.widgets.scenes import CENTERS, gray

ALL = "image,label,area\na.tif,1,10\na.tif,2,20\nb.tif,1,30\n"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def two_objects() -> LabeledObjects:
    labels = np.zeros((40, 50), np.uint16)
    labels[3:8, 4:10] = 1
    labels[20:30, 20:24] = 2
    return LabeledObjects(
        labels=labels,
        axes="YX",
        scores={1: 0.9},
        categories={2: "cell"},
        classes=["cell"],
        image="a.tif",
    )


def test_rows_of_one_image_are_replaced_in_their_place(tmp_path):
    table, own = tmp_path / ALL_OBJECTS, tmp_path / "a_objects.csv"
    table.write_text(ALL)
    own.write_text("label,area,mean\n7,70,0.5\n")
    assert finish(follow_batch_job(tmp_path, "a.tif", own)) == []
    assert [(row["image"], row["label"], row["area"], row["mean"]) for row in rows(table)] == [
        ("a.tif", "7", "70", "0.5"),
        ("b.tif", "1", "30", ""),
    ]
    finish(follow_batch_job(tmp_path, "c.tif", own))
    assert [row["image"] for row in rows(table)] == ["a.tif", "b.tif", "c.tif"]
    own.unlink()
    finish(follow_batch_job(tmp_path, "b.tif", own))
    assert [row["image"] for row in rows(table)] == ["a.tif", "c.tif"]


def test_formats_beside_an_image_follow_and_a_picture_is_told(tmp_path):
    for name in ("a_coco.json", "a_rois.zip", "a_overlay.png", "b_coco.json"):
        (tmp_path / name).write_text("{}")
    older = finish(follow_image_job(tmp_path, "a", two_objects()))
    assert older == [tmp_path / "a_overlay.png"]
    coco = json.loads((tmp_path / "a_coco.json").read_text())
    assert sorted(each["area"] for each in coco["annotations"]) == [30, 40]
    assert (tmp_path / "a_rois.zip").read_bytes().startswith(b"PK")
    assert (tmp_path / "b_coco.json").read_text() == "{}", "of another image"
    assert (tmp_path / "a_overlay.png").read_text() == "{}"


def test_tables_of_other_programs_follow(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    anndata = pytest.importorskip("anndata")
    for name in ("a_objects.parquet", "a_objects.h5ad", "simmat-objects.parquet"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ALL_OBJECTS).write_text("image,label\na.tif,1\nb.tif,1\n")
    finish(save_objects_job(tmp_path, "a", two_objects()))
    assert finish(follow_image_job(tmp_path, "a", two_objects())) == []
    assert parquet.read_table(tmp_path / "a_objects.parquet")["label"].to_pylist() == [1, 2]
    assert anndata.read_h5ad(tmp_path / "a_objects.h5ad").n_obs == 2
    assert finish(follow_batch_job(tmp_path, "a.tif", tmp_path / "a_objects.csv")) == []
    found = parquet.read_table(tmp_path / "simmat-objects.parquet")
    assert found["image"].to_pylist() == ["a.tif", "a.tif", "b.tif"]


def test_page_and_summary_of_a_real_batch_follow(tmp_path):
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b & c"):
        tifffile.imwrite(folder / f"{name}.tif", gray())
    prompts = tmp_path / "prompts.csv"
    y, x = CENTERS[0]
    prompts.write_text(f"index,axis-0,axis-1\n0,{y},{x}\n")
    segment_folder(folder, out, prompts=prompts, progress=False)
    found = {path.name for path in batch_files(out, "a.tif")}
    assert found == {SUMMARY_PAGE, SUMMARY_TABLE, ALL_OBJECTS}
    assert "2 of 2 images segmented, 2 objects;" in (out / SUMMARY_PAGE).read_text("utf-8")
    finish(save_objects_job(out, "b & c", two_objects()))
    for _ in range(2):  # saved once more
        assert finish(follow_batch_job(out, "b & c.tif", out / "b & c_objects.csv")) == []
    page = (out / SUMMARY_PAGE).read_text("utf-8")
    assert "2 of 2 images segmented, 3 objects;" in page
    assert page.count(CORRECTED) == 1
    assert [row["objects"] for row in rows(out / SUMMARY_TABLE)] == ["1", "2"]


def test_an_image_that_had_failed_is_done(tmp_path):
    summary = tmp_path / SUMMARY_TABLE
    columns = "image,state,objects,hidden,labels,message"
    skipped = "a.tif,skipped,,,,"  # of another folder
    summary.write_text(f"{columns}\na.tif,failed,,,,It is damaged.\nb.tif,failed,,,,\n{skipped}\n")
    finish(save_objects_job(tmp_path, "a", two_objects()))
    assert finish(follow_batch_job(tmp_path, "a.tif", tmp_path / "a_objects.csv")) == []
    first, second, third = (list(row.values()) for row in rows(summary))
    assert first == ["a.tif", "done", "2", "0", "a_labels.tif", ""]
    assert second == ["b.tif", "failed", "", "", "", ""]
    assert third == skipped.split(",")


def test_only_the_shard_of_the_image_follows(tmp_path):
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    y, x = CENTERS[0]
    for name in ("a", "b", "c", "d"):
        tifffile.imwrite(folder / f"{name}.tif", gray())
    (tmp_path / "prompts.csv").write_text(f"index,axis-0,axis-1\n0,{y},{x}\n")
    for number in (1, 2):
        words = ("segment", folder, "--prompts", tmp_path / "prompts.csv", "--output", out)
        assert main([*map(str, words), "--model", "tiny", "--shard", f"{number}/2"]) == 0
    finish(save_objects_job(out, "b", two_objects()))
    other = {path.name: path.read_bytes() for path in out.glob("simmat-*-1-of-2.*")}
    assert len(other) == 3
    assert finish(follow_batch_job(out, "b.tif", out / "b_objects.csv")) == []
    assert [row["objects"] for row in rows(out / "simmat-summary-2-of-2.csv")] == ["2", "1"]
    tables = rows(out / "simmat-objects-2-of-2.csv")
    assert [row["image"] for row in tables] == ["b.tif", "b.tif", "d.tif"]
    assert ", 3 objects;" in (out / "simmat-report-2-of-2.html").read_text("utf-8")
    assert {path.name: path.read_bytes() for path in out.glob("simmat-*-1-of-2.*")} == other


def test_a_page_of_others_is_left_and_told(tmp_path):
    page = tmp_path / SUMMARY_PAGE
    page.write_text("<p>mine</p>")
    own = tmp_path / "a_objects.csv"
    own.write_text("label\n1\n")
    assert finish(follow_batch_job(tmp_path, "a.tif", own)) == [page]
    assert page.read_text() == "<p>mine</p>"
