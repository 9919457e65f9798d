"""A plane or a projection of a stack through the whole of a run: files, record, resume, replay."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.data import coins

from napari_simmat import segment
from napari_simmat.io.readers import read_labels

ABOUT = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "um", "PhysicalSizeY": 0.5,
         "PhysicalSizeYUnit": "um", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "um"}  # fmt: skip


@pytest.fixture
def stack(tmp_path, monkeypatch):
    """Coins that appear on one plane or the other, 0.5 um to a pixel."""
    monkeypatch.chdir(tmp_path)
    image = coins()[:90, :130]
    dark = np.full_like(image, 20)
    planes = np.stack([dark, np.where(np.arange(130) < 65, image, 20), dark + 1, image])
    planes = planes.astype(np.uint8)
    tifffile.imwrite("s.ome.tif", planes, ome=True, metadata=ABOUT, photometric="minisblack")
    return planes


def rows(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("plane", "index"), [("Z=3", 3), ("Z=max", None)])
def test_plane_is_segmented_as_an_image_of_its_own(stack, simmat, plane, index):
    expected = stack.max(0) if index is None else stack[index]
    done = simmat("segment", "s.ome.tif", "--output", "out", "--plane", plane)
    assert done.status == 0, done.err
    labels = read_labels(Path("out/s_labels.tif"))
    assert labels.axes == "YX"
    assert labels.scale == {"Y": 0.5, "X": 0.5}
    alone = segment(expected, progress=False, pixel_size=0.5, unit="um")
    np.testing.assert_array_equal(labels.data, alone.labels)
    table = rows("out/s_objects.csv")
    assert [float(row["area_um2"]) for row in table] == [
        pytest.approx(row["area_um2"], rel=1e-6) for row in alone.objects
    ]
    assert "volume_voxels" not in table[0]
    record = json.loads(Path("out/s.json").read_text())
    assert record["settings"]["plane"] == plane
    assert (record["input"]["axes"], record["input"]["shape"]) == ("YX", [90, 130])


def test_plane_is_kept_resumed_and_replayed(stack, simmat):
    words = ("segment", "s.ome.tif", "--output", "out", "--plane", "Z=3")
    assert simmat(*words).status == 0
    assert "kept, made the same way" in simmat(*words, "--resume").out
    other = simmat(*words[:-1], "Z=max", "--resume")
    assert "plane (Z=3 then, Z=max now)" in other.err
    replay = ("segment", "s.ome.tif", "--output", "again", "--prompts", "out/s.json")
    assert simmat(*replay).status == 0
    first, second = (Path(each, "s_labels.tif").read_bytes() for each in ("out", "again"))
    assert first == second


def test_plane_of_a_manifest_and_of_clicks(stack, simmat):
    Path("list.csv").write_text("image,plane\ns.ome.tif,Z=3\n")
    Path("clicks.csv").write_text("index,axis-0,axis-1\n0,50,45\n")
    done = simmat("segment", "list.csv", "--output", "out", "--prompts", "clicks.csv")
    assert done.status == 0, done.err
    assert read_labels(Path("out/s_labels.tif")).data[50, 45] == 1


def test_measure_takes_the_projection_that_labels_are_of(stack, simmat):
    assert simmat("segment", "s.ome.tif", "--output", "out", "--plane", "Z=max").status == 0
    words = ("measure", "s.ome.tif", "out/s_labels.tif", "--output", "t.csv")
    refused = simmat(*words)
    assert refused.status == 1
    assert "--plane Z=max" in refused.err
    assert "--channel-axis" not in refused.err
    assert simmat(*words, "--plane", "Z=max").status == 0
    ours, theirs = rows("t.csv"), rows("out/s_objects.csv")
    assert [row["mean_channel0"] for row in ours] == [row["mean_channel0"] for row in theirs]


def test_plane_that_is_not_there_is_refused(stack, simmat):
    words = ("segment", "s.ome.tif", "--output", "out", "--plane")
    assert "there is no Z=9" in simmat(*words, "Z=9").err
    assert "names no axis" in simmat(*words, "9").err
    assert not Path("out").exists()


def test_objects_of_a_stack_have_an_area_too(stack, simmat):
    assert simmat("segment", "s.ome.tif", "--output", "out").status == 0
    labels = read_labels(Path("out/s_labels.tif")).data
    for row in rows("out/s_objects.csv"):
        sections = (labels == int(row["label"])).sum(axis=(1, 2))
        assert int(row["area_px"]) == sections.max()
        assert float(row["area_um2"]) == pytest.approx(sections.max() * 0.25)
        assert float(row["volume_um3"]) == pytest.approx(sections.sum() * 0.5)


def test_result_of_a_plane_opens_on_that_plane(stack, simmat):
    """What the Batch tab shows of it: image and labels of one shape."""
    from napari_simmat.progress import finish
    from napari_simmat.widgets.batch.opened_result import open_result_job

    assert simmat("segment", "s.ome.tif", "--output", "out", "--plane", "Z=3").status == 0
    opened = finish(open_result_job(Path("s.ome.tif"), Path("out/s_labels.tif")))
    np.testing.assert_array_equal(np.asarray(opened.image.data), stack[3])
    assert opened.labels.shape == (90, 130)
