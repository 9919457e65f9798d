import os
import re
from pathlib import Path
from typing import Any

import pytest

from napari_simmat.batch.inputs import find_inputs
from napari_simmat.batch.plan import (
    BROKEN_LINK,
    LONG_NAME,
    MAX_NAME_BYTES,
    OTHER_CASE,
    PROMPT_ENDINGS,
    OutputFiles,
    Plan,
    plan,
)
from tests.batch.folders import write_record


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> list[Path]:
    for path in map(Path, names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return [Path(name) for name in names]


def planned(*names: str, output: str = "out", **options: Any) -> Plan:
    return plan([Path(name) for name in names], output=Path(output), **options)


@pytest.mark.parametrize("ending", PROMPT_ENDINGS)
def test_plan_same_stem_takes_the_file_beside(ending):
    _, prompts, _, _ = touch("a.ome.tif", f"a{ending}", "b.png", "b_boxes.csv")
    task, other = planned("a.ome.tif", "b.png").tasks
    assert task.prompts == prompts
    assert other.prompts == Path("b_boxes.csv")
    assert task.files.labels == Path("out/a_labels.tif")
    assert not Path("out").exists()  # planning writes nothing


ZARR = ("a.tif", "a_labels.ome.zarr/zarr.json")
INTO_DATA = {"output": ".", "prompts": "auto"}
REPLACED = {**INTO_DATA, "existing": "overwrite"}


@pytest.mark.parametrize(
    ("files", "images", "options", "sentence"),
    [
        ((), ["a.tif"], {}, "There is no file"),
        ((), [], {}, "There is no image to segment"),
        (("a.tif",), ["a.tif"], {}, "There are no prompts beside"),
        (("b.tif", "b.csv", "b_points.csv"), ["b.tif"], {}, "several prompt files"),
        (("a.tif",), ["a.tif"], {"prompts": "nowhere.csv"}, "There is no prompt file"),
        (("a.tif", "out"), ["a.tif"], {}, "is a file, not a folder"),
        (
            ("a.tif", "a.csv", "b/A.png", "b/A.csv"), ["a.tif", "b/A.png"], {},
            "would both be written to",
        ),
        (("a.tif", "a.csv"), ["a.tif", "a.tif"], {}, "is given twice"),
        (("a.tif", "a.json"), ["a.tif"], {**REPLACED, "prompts": "a.json"}, "be overwritten by an"),
        (("a.tif", "a.csv", "out/a_objects.csv"), ["a.tif"], {}, "exists already. Use --overwrite"),
        # Whether labels become OME-Zarr, only the image's size tells.
        (ZARR, ["a.tif"], INTO_DATA, "a_labels.ome.zarr exists already"),
        (ZARR, ["a.tif", "a_labels.ome.zarr"], REPLACED, "a_labels.ome.zarr would be overwritten"),
        (
            ("a.tif", "out/a_rois.zip"), ["a.tif"], {"prompts": "auto", "extras": ("rois",)},
            "a_rois.zip exists already",
        ),
        (("a.tif", "out/a.json/x"), ["a.tif"], {"prompts": "auto"}, "is a folder, but a file"),
    ],
)  # fmt: skip
def test_plan_that_cannot_work_is_refused(files, images, options, sentence):
    touch(*files)
    with pytest.raises((ValueError, OSError), match=re.escape(sentence)):
        planned(*images, **options)


@pytest.mark.parametrize("existing", ["resume", "overwrite"])
def test_plan_existing_outputs_are_allowed_on_request(existing):
    touch(*ZARR, "a_objects.csv")
    [task] = planned("a.tif", **INTO_DATA, existing=existing).tasks
    assert task.files.objects == Path("a_objects.csv")


def test_output_files_nifti_stays_nifti_others_are_tiff():
    assert OutputFiles.of(Path("x/head.nii.gz"), Path("out")).labels == Path(
        "out/head_labels.nii.gz"
    )
    names = [path.name for path in OutputFiles.of(Path("x/coins.png"), Path())]
    assert names == ["coins_labels.tif", "coins_objects.csv", "coins.json"]


def test_plan_leaves_out_recorded_outputs():
    names = ("a.tif", "a.csv", "a_labels.tif", "b_labels.tif", "b_labels.csv", "a_overlay.png")
    image, _, earlier, named_alike, _, overlay = touch(*names)
    Path("other.json").write_text("{}")
    write_record(Path("a.json"), labels="a_labels.tif", overlay="a_overlay.png")
    made = plan([image, earlier, named_alike, overlay], output=Path("out"))
    assert [task.image for task in made.tasks] == [image, named_alike]
    assert [(one.image, one.failed) for one in made.skipped] == [(earlier, False), (overlay, False)]
    assert "output of an earlier run" in made.skipped[0].why
    with pytest.raises(ValueError, match=r"No image is left to segment\..*a_labels\.tif"):
        planned("a_labels.tif")


def test_plan_takes_one_of_two_names_that_differ_in_case(tmp_path):
    first, other, more = touch("A.tif", "a.tif", "b.tif")
    if first.samefile(other):
        pytest.skip("this file system ignores case")
    made = planned(first, other, more, prompts="auto")
    assert [task.image for task in made.tasks] == [first, more]
    [skipped] = made.skipped
    assert (skipped.image, skipped.failed) == (other, True)
    assert skipped.why == OTHER_CASE.format("A.tif")
    with pytest.raises(ValueError, match=r"A\.tif is given twice"):
        planned(first, other, first, prompts="auto")


def test_plan_folder_mirrors_subfolders():
    names = ("a.tif", "a.csv", "b.tif", "sub/a.png", "sub/a_prompts.tif", "notes.txt", ".c.tif")
    touch(*(f"data/{name}" for name in names))
    made = plan(find_inputs([Path("data")]), output=Path("out"))
    labels = [task.files.labels.as_posix() for task in made.tasks]
    assert labels == ["out/a_labels.tif", "out/sub/a_labels.tif"]
    left_out = {one.image.name: one.why for one in made.skipped}
    assert set(left_out) == {"b.tif", "a_prompts.tif"}
    assert "There are no prompts beside" in left_out["b.tif"]
    assert left_out["a_prompts.tif"] == "It holds the prompts of a.png."
    assert made.others == 2  # a.csv and notes.txt


@pytest.mark.parametrize("prompts", ["p.csv", "auto"])
def test_plan_prompts_of_all_serve_every_image(prompts):
    touch("a.tif", "b.tif", "p.csv")
    expected = None if prompts == "auto" else Path("p.csv")
    made = planned("a.tif", "b.tif", prompts=prompts)
    assert [task.prompts for task in made.tasks] == [expected, expected]


def test_plan_leaves_out_the_prompts_of_all(tmp_path):
    touch("data/a.tif", "data/p.tif")
    for prompts in ("data/p.tif", tmp_path / "data/p.tif"):
        made = plan(find_inputs([Path("data")]), output=Path("out"), prompts=str(prompts))
        assert [task.image.name for task in made.tasks] == ["a.tif"]
        assert [one.why for one in made.skipped] == ["It holds the prompts of the other images."]
    assert len(planned("data/p.tif", prompts="data/p.tif").tasks) == 1


def test_plan_output_with_tilde_is_expanded(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    touch("a.tif")
    made = planned("a.tif", output="~/results", prompts="auto")
    assert made.output == tmp_path / "results"
    assert made.tasks[0].files.record == tmp_path / "results" / "a.json"


def test_plan_folder_as_output_skips_that_image():
    touch("a.tif", "b.tif", "out/a.json/x")
    made = planned("a.tif", "b.tif", prompts="auto")
    assert [task.image for task in made.tasks] == [Path("b.tif")]
    assert made.skipped[0].failed
    assert "a.json is a folder, but a file of that name is to be written" in made.skipped[0].why


def test_plan_extras_are_named_after_the_image():
    touch("a.tif")
    [task] = planned("a.tif", prompts="auto", extras=("overlay", "coco", "rois")).tasks
    assert [path.name for path in task.files] == [
        "a_labels.tif", "a_objects.csv", "a_overlay.png", "a_coco.json", "a_rois.zip", "a.json",
    ]  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("prompts", ["auto", "same-stem"])
def test_plan_one_bad_entry_is_reported_others_go_on(prompts):
    """A link that leads to itself, one that leads nowhere, and a name too long for outputs."""
    long = "x" * 247 + ".tif"
    touch("a.tif", "a_points.csv", "sub/b.tif", long)
    Path("loop.tif").symlink_to("loop.tif")
    Path("sub/gone.tif").symlink_to("nowhere.tif")
    made = plan(find_inputs([Path()]), output=Path("out"), prompts=prompts)
    assert {task.image for task in made.tasks} >= {Path("a.tif")}
    why = {each.image.name: each.why for each in made.skipped if each.failed}
    assert why == {
        "loop.tif": BROKEN_LINK.format("loop.tif"),
        "gone.tif": BROKEN_LINK.format("sub/gone.tif"),
        long: LONG_NAME.format(long, 263, MAX_NAME_BYTES),
    }
