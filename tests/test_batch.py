from __future__ import annotations

import logging
from pathlib import Path

import pytest

from napari_simmat.batch import PROMPT_ENDINGS, plan
from napari_simmat.engine.record import Input, Record, Request, Settings, UsedModel


def touch(*paths: Path) -> list[Path]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return list(paths)


@pytest.mark.parametrize("ending", PROMPT_ENDINGS)
def test_the_prompts_are_the_file_beside_the_image(tmp_path: Path, ending: str) -> None:
    image, prompts = touch(tmp_path / "a.ome.tif", tmp_path / f"a{ending}")
    [task] = plan([image], output=tmp_path / "out")
    assert task.prompts == prompts
    assert task.files.labels == tmp_path / "out" / "a_labels.tif"
    assert not (tmp_path / "out").exists()  # planning writes nothing


def test_each_image_has_prompts_of_its_own(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.tif", "a.csv", "b.png", "b_boxes.csv")))
    tasks = plan([tmp_path / "a.tif", tmp_path / "b.png"], output=tmp_path / "out")
    assert [task.prompts.name for task in tasks] == ["a.csv", "b_boxes.csv"]


def refused(tmp_path: Path, *names: str, prompts: str = "same-stem", output: str = "out") -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        plan([tmp_path / name for name in names], output=tmp_path / output, prompts=prompts)
    return str(caught.value)


def test_what_cannot_work_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    touch(*(tmp_path / name for name in ("a.tif", "b.tif", "b.csv", "b_points.csv", "file")))
    touch(tmp_path / "other" / "b.png", tmp_path / "other" / "b.csv", tmp_path / "B.tiff")
    touch(tmp_path / "B.csv")
    assert "There is no file" in refused(tmp_path, "missing.tif")
    assert "is a folder. Give the images in it" in refused(tmp_path, "folder")
    assert "There are no prompts beside" in refused(tmp_path, "a.tif")
    assert "several prompt files" in refused(tmp_path, "b.tif")
    assert "There is no prompt file" in refused(tmp_path, "a.tif", prompts="nowhere.csv")
    assert "cannot share the prompt file" in refused(tmp_path, "a.tif", "b.tif", prompts="b.csv")
    assert "is a file, not a folder" in refused(tmp_path, "a.tif", output="file")
    assert "No image is left" in refused(tmp_path)


def test_two_images_with_one_output_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "a.tif", tmp_path / "other" / "A.png"
    touch(first, second, tmp_path / "a.csv", tmp_path / "other" / "A.csv")
    with pytest.raises(ValueError, match="would both be written to"):
        plan([first, second], output=tmp_path / "out")


def test_the_same_image_twice_is_refused(tmp_path: Path) -> None:
    image, _ = touch(tmp_path / "a.tif", tmp_path / "a.csv")
    with pytest.raises(ValueError, match="is given twice"):
        plan([image, image], output=tmp_path / "out")


def test_an_output_never_replaces_an_input(tmp_path: Path) -> None:
    image, prompts = touch(tmp_path / "a.tif", tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.json would be overwritten by an output"):
        plan([image], output=tmp_path, prompts=str(prompts), existing="overwrite")


def test_an_existing_output_is_refused_unless_allowed(tmp_path: Path) -> None:
    image, _, objects = touch(
        tmp_path / "a.tif", tmp_path / "a.csv", tmp_path / "out" / "a_objects.csv"
    )
    with pytest.raises(ValueError, match=r"a_objects\.csv exists already\. Use --overwrite"):
        plan([image], output=tmp_path / "out")
    for existing in ("resume", "overwrite"):
        [task] = plan([image], output=tmp_path / "out", existing=existing)
        assert task.files.objects == objects


def test_outputs_of_earlier_runs_are_left_out_by_their_record_not_their_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("a.tif", "a.csv", "a_labels.tif", "b_labels.tif", "b_labels.csv")
    image, _, earlier, named_alike, _ = touch(*(tmp_path / name for name in names))
    record = Record(
        request=Request(
            input=Input(file="a.tif", sha256="", shape=(1, 1), axes="YX", dtype="uint8"),
            model=UsedModel(name="tiny-1", fingerprint="", base="tiny-1"),
            prompts=(),
            settings=Settings(),
        ),
        normalization={},
        objects=[],
        outputs={"labels": {"file": "a_labels.tif", "sha256": ""}},
    )
    (tmp_path / "a.json").write_text(record.to_json())
    with caplog.at_level(logging.WARNING):
        tasks = plan([image, earlier, named_alike], output=tmp_path / "out")
    assert [task.image for task in tasks] == [image, named_alike]
    assert "a_labels.tif is the output of an earlier run" in caplog.text
