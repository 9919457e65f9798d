"""Objects within objects from Python, by `segment_folder`."""

import numpy as np
import pytest
import zarr

from napari_simmat import segment_folder
from napari_simmat.batch.nested import NESTED_PART, NESTED_PROMPTS, both_plans, inner_plan
from napari_simmat.batch.plan import plan
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.io.part import ImagePart
from napari_simmat.io.readers import read_labels
from tests.cli.test_segment_nested import CENTERS, WITH_NUCLEUS, draw


def test_children_of_a_folder_have_their_parents(tmp_path):
    pytest.importorskip("pandas")
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        draw(tmp_path / f"images/{name}.ome.tif")
    cells = segment_folder(
        tmp_path / "images", tmp_path / "out", channels=["membrane"], children=["DAPI"]
    )
    nuclei = cells.children
    assert not cells.failed
    assert not nuclei.failed
    assert nuclei.output == tmp_path / "out/children"
    assert nuclei.children is None
    for name in ("a.ome.tif", "b.ome.tif"):
        image = tmp_path / "images" / name
        outer, inner = (read_labels(run.labels[image]).data for run in (cells, nuclei))
        held = cells.table[cells.table["image"] == name].set_index("label")["children"]
        parent = nuclei.table[nuclei.table["image"] == name].set_index("label")["parent"]
        assert [held[outer[at]] for at in CENTERS] == [at in WITH_NUCLEUS for at in CENTERS]
        assert all(parent[inner[at]] == outer[at] for at in WITH_NUCLEUS)
    assert {"mean_DAPI", "mean_membrane"} <= set(cells.table.columns) & set(nuclei.table.columns)


def test_children_of_one_image_name_it(tmp_path):
    pytest.importorskip("pandas")
    draw(tmp_path / "a.ome.tif")
    run = segment_folder(
        tmp_path / "a.ome.tif", tmp_path / "out", channels=["membrane"], children=["DAPI"]
    )
    assert set(run.table["image"]) == set(run.children.table["image"]) == {"a.ome.tif"}
    assert run.table["children"].sum() == len(WITH_NUCLEUS)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"prompts": "same-stem"}, NESTED_PROMPTS), ({"part": ImagePart(level=0)}, NESTED_PART)],
)
def test_children_are_refused_where_they_mean_nothing(tmp_path, given, said):
    draw(tmp_path / "a.ome.tif")
    (tmp_path / "a.csv").write_text("index,axis-0,axis-1\n0,30,30\n")
    with pytest.raises(ValueError, match=said):
        segment_folder(tmp_path / "a.ome.tif", tmp_path / "out", children=["DAPI"], **given)
    assert not (tmp_path / "out").exists()


def test_inner_plan_is_beside_that_of_the_outer_objects(tmp_path):
    """Labels within the image itself are those of the outer objects alone."""
    draw(tmp_path / "a.ome.tif")
    outer = plan([tmp_path / "a.ome.tif"], output=tmp_path / "out", prompts="auto", extras=["rois"])
    inner = inner_plan(outer)
    names = {path.relative_to(tmp_path).as_posix() for path in inner.tasks[0].files}
    assert names == {
        f"out/children/a{ending}"
        for ending in ("_labels.tif", "_objects.csv", ".json", "_rois.zip")
    }
    assert both_plans(outer, inner).tasks == (*outer.tasks, *inner.tasks)
    (tmp_path / "out/children").mkdir(parents=True)
    (tmp_path / "out/children/a_labels.tif").write_bytes(np.zeros(4).tobytes())
    with pytest.raises(ValueError, match="exists already"):
        inner_plan(outer)


def test_labels_inside_an_image_are_those_of_the_outer_objects(tmp_path):
    zarr.create_array(tmp_path / "a.ome.zarr", data=np.zeros((8, 8), np.uint8))
    outer = plan(
        [tmp_path / "a.ome.zarr"], output=tmp_path / "out", prompts="auto", extras=["inside"]
    )
    assert "inside" in outer.tasks[0].files.extras
    assert "inside" not in inner_plan(outer).tasks[0].files.extras


def test_tables_of_children_keep_what_lies_in_the_folder(tmp_path):
    """Refused images, and those of an earlier run, keep their rows."""
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for name in ("a", "b"):
        draw(images / f"{name}.ome.tif")
    how = {"channels": ["membrane"], "children": ["DAPI"], "progress": False}
    segment_folder(images, out, **how)
    tables = [out / "simmat-parents.csv", out / "simmat-children.csv"]
    before = [table.read_text() for table in tables]
    again = segment_folder(
        images, out, **how, existing="resume", automatic=AutomaticSettings(quality=0.4)
    )
    assert len(again.failed) == 2
    assert [table.read_text() for table in tables] == before
    more = tmp_path / "more"
    more.mkdir()
    for name in ("c", "d"):
        draw(more / f"{name}.ome.tif")
    segment_folder(more, out, **how)
    for table, text in zip(tables, before, strict=True):
        assert set(text.splitlines()) < set(table.read_text().splitlines())
