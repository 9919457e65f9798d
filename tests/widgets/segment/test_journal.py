"""What a layer held before the first noted edit, read while it is edited."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_simmat.engine.masks import LabelEdit, LabelIndex, ObjectMask, box_union
from napari_simmat.progress import finish
from napari_simmat.widgets.segment.history import Command, LayerEdit, ObjectEntry, Provenance
from napari_simmat.widgets.segment.prompt_state import Prompts, PromptState
from napari_simmat.widgets.segment.session_file import begin_lines_job, header_of, line_of, replayed

SHAPE = (5, 60, 80)


def disc(y: int, x: int, plane: int = 2) -> ObjectMask:
    rows, columns = np.ogrid[:60, :80]
    return ObjectMask.of((rows - y) ** 2 + (columns - x) ** 2 < 50, (plane, 0, 0))


def one(edit: LayerEdit) -> Command:
    return Command("an edit", PromptState(), PromptState(), edit)


@pytest.mark.parametrize("read", range(4))
def test_an_edited_layer_may_be_read_at_any_moment(tmp_path: Path, read: int) -> None:
    """Each plane is read after another one of the edits; all are undone to what was there."""
    labels = np.zeros(SHAPE, np.int32)
    for plane in (1, 2, 4):
        LabelEdit.write(labels, disc(20, 20, plane), 1)
        LabelEdit.write(labels, disc(40, 60, plane), 2)
    before, lines, operations = labels.copy(), [], []
    region = box_union([LabelIndex.of(labels).box(label) for label in (1, 2)])
    reading = begin_lines_job("a", labels, region)
    for number, (value, y, x) in enumerate([(3, 24, 24), (0, 24, 24), (3, 22, 22)]):
        found = [LabelEdit.write(labels, disc(y, x, plane), value) for plane in (1, 2, 4)]
        operations.append(one(LayerEdit("a", tuple(each for each in found if each))))
        if number == read:
            lines = finish(reading)
        elif number < read:
            next(reading)
    lines = lines or finish(reading)
    path = tmp_path / "some_session.jsonl"
    head = header_of("", SHAPE, "tiny", ())
    done = [line_of("do", each) for each in operations]
    path.write_text(head + "".join(lines + done))
    assert np.array_equal(replayed(path).labels["a"], labels)
    path.write_text(head + "".join(lines + done + [line_of("undo")] * len(done)))
    assert np.array_equal(replayed(path).labels["a"], before)


def test_only_the_region_is_read_a_plane_at_a_time() -> None:
    class Counting(np.ndarray):
        read = 0

        def __getitem__(self, index):
            part = super().__getitem__(index)
            Counting.read = max(Counting.read, np.size(part))
            return part

    labels = np.zeros(SHAPE, np.int32)
    LabelEdit.write(labels, disc(20, 20), 1)
    LabelEdit.write(labels, disc(20, 30, 3), 1)
    box = LabelIndex.of(labels).box(1)
    lines = finish(begin_lines_job("a", labels.view(Counting), box))
    assert Counting.read <= 15 * 25
    assert [json.loads(line)["what"] for line in lines] == ["begin", "begin"]


def test_a_file_from_before_side_views_gives_the_same(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.int32)
    patch = LabelEdit.write(labels, disc(20, 20), 1)
    assert patch is not None
    made = Provenance((2,), Prompts(points=((2.0, 20.0, 20.0),), labels=(1,)), "digest")
    edit = LayerEdit("a", (patch,), {1: (None, ObjectEntry(provenance=(made,)))})
    text = header_of("", SHAPE, "tiny", ()) + line_of("do", one(edit))
    old = text.replace('"format_version": 2', '"format_version": 1').replace(', "order": []', "")
    assert "order" not in old
    path = tmp_path / "some_session.jsonl"
    path.write_text(old)
    state = replayed(path)
    assert np.array_equal(state.labels["a"], labels)
    assert state.entries["a"][1].provenance_on((2,)) == made
    assert state.prompt_state == PromptState()


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [
        (np.uint32, (3_000_000_000, 4_294_967_295)),
        (np.int64, (2**40, 2**53 + 1)),
        (np.uint64, (2**53 + 1, 2**64 - 1)),
    ],
)
def test_numbers_that_need_more_than_32_bits_are_kept(
    tmp_path: Path, dtype: type, numbers: tuple[int, int]
) -> None:
    """As those of segmented electron micrographs."""
    labels = np.zeros(SHAPE, dtype)
    LabelEdit.write(labels, disc(20, 20), numbers[0])
    LabelEdit.write(labels, disc(20, 24), numbers[1])
    before = labels.copy()
    lines = finish(begin_lines_job("a", labels, ((2, 0, 0), (3, 60, 80))))
    edits = [
        LabelEdit.write(labels, ObjectMask.of(np.ones((60, 80), bool), (2, 0, 0)), 5),
        LabelEdit.write(labels, disc(40, 40), numbers[1] - 1),
    ]
    lines += [line_of("do", one(LayerEdit("a", (each,)))) for each in edits if each is not None]
    path = tmp_path / "some_session.jsonl"
    path.write_text(header_of("", SHAPE, "tiny", ()) + "".join(lines))
    assert np.array_equal(replayed(path).labels["a"], labels)
    path.write_text(path.read_text() + line_of("undo") * 2)
    assert np.array_equal(replayed(path).labels["a"], before)
