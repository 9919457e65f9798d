from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.record import Input, Record, Request, Settings, UsedModel, prompt_to_dict
from napari_simmat.engine.segmentation import labels_of, read_task_prompts


@pytest.mark.parametrize(
    ("ids", "labels"),
    [
        ([3, 1, 2], [3, 1, 2]),
        ([0, 1, 2], [1, 2, 3]),  # napari counts shapes from 0
        ([None, None], [1, 2]),
        ([2, None, None], [2, 1, 3]),
        ([5, 5, None], [5, 5, 1]),
        ([0, None], [1, 2]),
        ([2**32 - 1], [2**32 - 1]),
        ([], []),
    ],
)
def test_an_objects_id_is_its_label(ids: list[int | None], labels: list[int]) -> None:
    assert labels_of(ids) == labels


@pytest.mark.parametrize("ids", [[-1], [2**32], [0, 2**32 - 1]])
def test_an_id_that_no_label_image_holds_is_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match=r"Object -?\d+ cannot be a label"):
        labels_of(ids)


def write_record(path: Path, prompt: Prompt) -> Path:
    record = Record(
        request=Request(
            input=Input(file="a.tif", sha256="", shape=(3, 4, 6), axes="ZYX", dtype="uint8"),
            model=UsedModel(name="tiny-1", fingerprint="", base="tiny-1"),
            prompts=(prompt_to_dict(prompt),),
            settings=Settings(),
        ),
        normalization={},
        objects=[],
        outputs={},
    )
    path.write_text(record.to_json())
    return path


def test_a_record_is_a_prompt_file(tmp_path: Path) -> None:
    prompt = Prompt(points=((1, 2),), box=(0, 0, 3, 3), object=4, plane=(2,))
    path = write_record(tmp_path / "a.json", prompt)
    assert read_task_prompts(path, (3, 4, 6)) == [prompt]


@pytest.mark.parametrize("shape", [(2, 4, 6), (4, 6), (1, 3, 4, 6)])
def test_a_record_of_another_stack_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = write_record(tmp_path / "a.json", Prompt(points=((1, 2),), plane=(2,)))
    with pytest.raises(ValueError, match=r"a\.json has prompts on plane \(2,\), but the image has"):
        read_task_prompts(path, shape)


def test_other_prompt_files_are_read_by_their_kind(tmp_path: Path) -> None:
    labels = np.zeros((4, 6), np.uint16)
    labels[1:3, 1:3] = 9
    np.save(tmp_path / "labels.npy", labels)
    [prompt] = read_task_prompts(tmp_path / "labels.npy", (4, 6))
    assert prompt.object == 9
    np.testing.assert_array_equal(prompt.mask, labels == 9)
