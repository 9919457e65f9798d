from __future__ import annotations

from pathlib import Path

import pytest

from napari_simmat.batch.plan import PROMPT_ENDINGS, find_inputs, plan
from napari_simmat.batch.record import Record, RecordedInput, RecordedSettings, Request, UsedModel


def touch(*paths: Path) -> list[Path]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return list(paths)


@pytest.mark.parametrize("ending", PROMPT_ENDINGS)
def test_plan_same_stem_takes_the_file_beside(tmp_path: Path, ending: str) -> None:
    image, prompts = touch(tmp_path / "a.ome.tif", tmp_path / f"a{ending}")
    [task] = plan([image], output=tmp_path / "out").tasks
    assert task.prompts == prompts
    assert task.files.labels == tmp_path / "out" / "a_labels.tif"
    assert not (tmp_path / "out").exists()  # planning writes nothing


def test_plan_same_stem_gives_each_image_its_prompts(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.tif", "a.csv", "b.png", "b_boxes.csv")))
    tasks = plan([tmp_path / "a.tif", tmp_path / "b.png"], output=tmp_path / "out").tasks
    assert [task.prompts.name for task in tasks] == ["a.csv", "b_boxes.csv"]


def refused(tmp_path: Path, *names: str, prompts: str = "same-stem", output: str = "out") -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        plan([tmp_path / name for name in names], output=tmp_path / output, prompts=prompts)
    return str(caught.value)


def test_plan_that_cannot_work_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    touch(*(tmp_path / name for name in ("a.tif", "b.tif", "b.csv", "b_points.csv", "file")))
    touch(tmp_path / "other" / "b.png", tmp_path / "other" / "b.csv", tmp_path / "B.tiff")
    touch(tmp_path / "B.csv")
    assert "There is no file" in refused(tmp_path, "missing.tif")
    assert "There are no prompts beside" in refused(tmp_path, "a.tif")
    assert "several prompt files" in refused(tmp_path, "b.tif")
    assert "There is no prompt file" in refused(tmp_path, "a.tif", prompts="nowhere.csv")
    assert "is a file, not a folder" in refused(tmp_path, "a.tif", output="file")
    assert "There is no image to segment" in refused(tmp_path)


def test_plan_two_images_with_one_output_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "a.tif", tmp_path / "other" / "A.png"
    touch(first, second, tmp_path / "a.csv", tmp_path / "other" / "A.csv")
    with pytest.raises(ValueError, match="would both be written to"):
        plan([first, second], output=tmp_path / "out")


def test_plan_image_given_twice_is_refused(tmp_path: Path) -> None:
    image, _ = touch(tmp_path / "a.tif", tmp_path / "a.csv")
    with pytest.raises(ValueError, match="is given twice"):
        plan([image, image], output=tmp_path / "out")


def test_plan_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    image, prompts = touch(tmp_path / "a.tif", tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.json would be overwritten by an output"):
        plan([image], output=tmp_path, prompts=str(prompts), existing="overwrite")


def test_plan_existing_output_is_refused_unless_allowed(tmp_path: Path) -> None:
    image, _, objects = touch(
        tmp_path / "a.tif", tmp_path / "a.csv", tmp_path / "out" / "a_objects.csv"
    )
    with pytest.raises(ValueError, match=r"a_objects\.csv exists already\. Use --overwrite"):
        plan([image], output=tmp_path / "out")
    for existing in ("resume", "overwrite"):
        [task] = plan([image], output=tmp_path / "out", existing=existing).tasks
        assert task.files.objects == objects


def test_plan_existing_ome_zarr_labels_are_refused(tmp_path: Path) -> None:
    """Whether labels become such, only the image's size tells."""
    [image] = touch(tmp_path / "data" / "a.tif")
    [drawn] = touch(tmp_path / "data" / "a_labels.ome.zarr" / "zarr.json")
    with pytest.raises(ValueError, match=r"a_labels\.ome\.zarr exists already"):
        plan([image], output=image.parent, prompts="auto")
    assert plan([image], output=image.parent, prompts="auto", existing="overwrite").tasks
    images = [image, drawn.parent]
    with pytest.raises(ValueError, match=r"a_labels\.ome\.zarr would be overwritten by an output"):
        plan(images, output=image.parent, prompts="auto", existing="overwrite")


def record(folder: Path, stem: str, **outputs: str) -> None:
    """A record as a run leaves it; `outputs` are names of files by their kind."""
    made = Record(
        request=Request(
            input=RecordedInput(
                file=f"{stem}.tif", sha256="", shape=(1, 1), axes="YX", dtype="uint8"
            ),
            model=UsedModel(name="tiny-1", fingerprint="", base="tiny-1"),
            prompts=(),
            settings=RecordedSettings(),
        ),
        normalization={},
        objects=(),
        outputs={kind: {"file": name, "sha256": ""} for kind, name in outputs.items()},
    )
    (folder / f"{stem}.json").write_text(made.to_json())


def test_plan_leaves_out_recorded_outputs(
    tmp_path: Path,
) -> None:
    names = ("a.tif", "a.csv", "a_labels.tif", "b_labels.tif", "b_labels.csv", "a_overlay.png")
    image, _, earlier, named_alike, _, overlay = touch(*(tmp_path / name for name in names))
    (tmp_path / "other.json").write_text("{}")
    record(tmp_path, "a", labels="a_labels.tif", overlay="a_overlay.png")
    made = plan([image, earlier, named_alike, overlay], output=tmp_path / "out")
    assert [task.image for task in made.tasks] == [image, named_alike]
    assert [(one.image, one.failed) for one in made.skipped] == [(earlier, False), (overlay, False)]
    assert "output of an earlier run" in made.skipped[0].why
    with pytest.raises(ValueError, match=r"No image is left to segment\..*a_labels\.tif"):
        plan([earlier], output=tmp_path / "out")


def test_plan_folder_mirrors_subfolders(tmp_path: Path) -> None:
    data = tmp_path / "data"
    names = (
        "a.tif",
        "a.csv",
        "b.tif",
        "sub/a.png",
        "sub/a_prompts.tif",
        "notes.txt",
        ".hidden.tif",
    )
    touch(*(data / name for name in names))
    made = plan(find_inputs([data]), output=tmp_path / "out")
    assert [task.files.labels for task in made.tasks] == [
        tmp_path / "out" / "a_labels.tif",
        tmp_path / "out" / "sub" / "a_labels.tif",
    ]
    left_out = {one.image.name: one.why for one in made.skipped}
    assert set(left_out) == {"b.tif", "a_prompts.tif"}
    assert "There are no prompts beside" in left_out["b.tif"]
    assert left_out["a_prompts.tif"] == "It holds the prompts of a.png."
    assert made.others == 2  # a.csv and notes.txt


def test_plan_one_prompt_file_serves_all(tmp_path: Path) -> None:
    first, second, prompts = touch(tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "p.csv")
    made = plan([first, second], output=tmp_path / "out", prompts=str(prompts))
    assert [task.prompts for task in made.tasks] == [prompts, prompts]


def test_plan_leaves_out_the_prompts_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "data" / "a.tif", tmp_path / "data" / "p.tif")
    monkeypatch.chdir(tmp_path)
    for prompts in ("data/p.tif", tmp_path / "data/p.tif"):
        made = plan(find_inputs([Path("data")]), output=Path("out"), prompts=str(prompts))
        assert [task.image.name for task in made.tasks] == ["a.tif"]
        assert [one.why for one in made.skipped] == ["It holds the prompts of the other images."]
    assert len(plan([Path("data/p.tif")], output=Path("out"), prompts="data/p.tif").tasks) == 1


def test_plan_output_with_tilde_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    [image] = touch(tmp_path / "a.tif")
    made = plan([image], output=Path("~/results"), prompts="auto")
    assert made.output == tmp_path / "results"
    assert made.tasks[0].files.record == tmp_path / "results" / "a.json"


def test_plan_auto_needs_no_prompts(tmp_path: Path) -> None:
    [image] = touch(tmp_path / "a.tif")
    [task] = plan([image], output=tmp_path / "out", prompts="auto").tasks
    assert task.prompts is None


def test_plan_folder_as_output_skips_that_image(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "a.tif", tmp_path / "b.tif")
    (tmp_path / "out" / "a.json").mkdir(parents=True)
    made = plan([first, second], output=tmp_path / "out", prompts="auto")
    assert [task.image for task in made.tasks] == [second]
    assert made.skipped[0].failed
    assert "a.json is a folder, but a file of that name is to be written" in made.skipped[0].why
    with pytest.raises(OSError, match="is a folder, but a file"):
        plan([first], output=tmp_path / "out", prompts="auto")


def test_plan_extras_clash_like_other_outputs(tmp_path: Path) -> None:
    [image] = touch(tmp_path / "a.tif")
    extras = ("overlay", "coco", "rois")
    [task] = plan([image], output=tmp_path / "out", prompts="auto", extras=extras).tasks
    assert [path.name for path in task.files] == [
        "a_labels.tif", "a_objects.csv", "a_overlay.png", "a_coco.json", "a_rois.zip", "a.json",
    ]  # fmt: skip
    touch(tmp_path / "out" / "a_rois.zip")
    with pytest.raises(ValueError, match=r"a_rois\.zip exists already"):
        plan([image], output=tmp_path / "out", prompts="auto", extras=extras)
