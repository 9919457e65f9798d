"""Batch runs that link objects over time: ids, table, record, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_simmat.batch.loaded_image import (
    IDS_ARE_GIVEN,
    NO_TIME_AXIS,
    NOTHING_TO_PROPAGATE,
    PROPAGATED_THROUGH_TIME,
)
from napari_simmat.cli import main
from tests.drawn_series import draw_series


@pytest.fixture
def data(tmp_path):
    """A series with its time axis, the same without, and an image of one plane."""
    series, labels, _ = draw_series(3, (3, 96, 96), 3)
    (tmp_path / "data").mkdir()
    for name, image, axes in (("a", series, "TYX"), ("b", series, "ZYX"), ("c", series[0], "YX")):
        path = tmp_path / "data" / f"{name}.tif"
        tifffile.imwrite(path, image, photometric="minisblack", metadata={"axes": axes})
    prompts = labels.copy()
    prompts[1] = np.where(prompts[1] > 0, 10 - prompts[1], 0)  # other ids on the second frame
    for name, values in (("a", prompts), ("b", prompts), ("c", prompts[0])):
        path = tmp_path / "data" / f"{name}_prompts.tif"
        tifffile.imwrite(path, values.astype(np.uint16), photometric="minisblack")
    return tmp_path / "data"


def segment(data: Path, out: Path, *more: str) -> int:
    words = ["segment", str(data), "--model", "tiny", "--prompts", "same-stem", "--output"]
    return main([*words, str(out), "--device", "cpu", *more])


def test_link_series_and_refuse_images_without_time(data, tmp_path, capsys):
    out = tmp_path / "out"
    assert segment(data, out, "--link") == 1
    assert NO_TIME_AXIS.format("b.tif", "ZYX") in capsys.readouterr().err
    labels = tifffile.imread(out / "a_labels.tif")
    truth = tifffile.imread(data / "a_prompts.tif")
    first, last = (frame[truth[0] > 0] for frame in (labels[0], labels[2]))
    ids = [set(np.unique(frame)) - {0} for frame in labels]
    assert ids[0] == ids[1] == ids[2]
    assert (first == last)[(first > 0) & (last > 0)].mean() > 0.95
    table = (out / "a_res_track.txt").read_text()
    assert table == "".join(f"{label} 0 2 0\n" for label in sorted(ids[0]))
    record = json.loads((out / "a.json").read_text())
    assert record["settings"]["link"]["axis"] == 0
    assert [each["label"] for each in record["tracks"]] == sorted(ids[0])
    assert {each["label"] for each in record["objects"]} >= ids[0]
    assert len((out / "c_res_track.txt").read_text().splitlines()) == 3
    assert "link" not in json.loads((out / "c.json").read_text())["settings"]
    assert not (out / "b_labels.tif").exists()
    segment(data, out, "--link", "--resume")
    said = capsys.readouterr().out
    assert "a.tif: 3 objects, kept" in said
    assert segment(data / "b.tif", tmp_path / "b", "--link", "--link-axis", "0") == 0
    assert (tmp_path / "b" / "b_res_track.txt").read_text() == table
    assert segment(data / "a.tif", tmp_path / "a", "--link", "--propagate") == 1
    assert PROPAGATED_THROUGH_TIME.format("a.tif") in capsys.readouterr().err


def test_link_says_which_ids_of_prompts_became_those_of_tracks(data, tmp_path, capsys):
    assert segment(data / "a.tif", tmp_path / "out", "--link") == 0
    said = capsys.readouterr()
    assert (
        "have the id of their track in place of that of their prompts: 7 is 3, 8 is 2, 9 is 1"
        in said.err
    )


def test_objects_3d_refuses_prompts_with_ids(data, tmp_path, capsys):
    """Ids 7, 9 and 11 of a user once all became 7."""
    out = tmp_path / "out"
    assert segment(data / "b.tif", out, "--objects", "3d") == 1
    assert IDS_ARE_GIVEN.format("b.tif") in capsys.readouterr().err.replace("\n", " ")
    assert not (out / "b_labels.tif").exists()


def test_objects_3d_are_numbered_without_holes(tmp_path):
    """Two that begin on the first plane, one of them through all, and one on the last."""
    stack = np.full((3, 96, 96), 30, np.uint8)
    inside = np.hypot(*np.ogrid[-12:13, -12:13]) < 11
    for plane, (y, x) in ((0, (8, 8)), (0, (60, 10)), (1, (8, 8)), (2, (8, 8)), (2, (55, 62))):
        stack[plane, y : y + 25, x : x + 25][inside] = 200
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "ZYX"})
    words = ["segment", str(path), "--model", "tiny", "--prompts", "auto", "--objects", "3d"]
    assert main([*words, "--auto.points-per-side", "8", "--output", str(tmp_path / "out")]) == 0
    labels = tifffile.imread(tmp_path / "out/v_labels.tif")
    record = json.loads((tmp_path / "out/v.json").read_text())
    assert [*np.unique(labels)] == [0, 1, 2, 3]
    assert {each["label"] for each in record["objects"]} == {1, 2, 3}
    assert len({*labels[:, 20, 20]}) == 1


def test_propagate_without_prompts_is_refused(data, tmp_path, capsys):
    words = ["--model", "tiny", "--prompts", "auto", "--output", str(tmp_path / "out")]
    assert main(["segment", str(data / "b.tif"), *words, "--propagate"]) == 1
    assert NOTHING_TO_PROPAGATE.format("b.tif") in capsys.readouterr().err.replace("\n", " ")
